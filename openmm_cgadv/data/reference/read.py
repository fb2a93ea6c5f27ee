"""Map all-atom trajectories of any MDTraj format to CG trajectories with unwrapped positions."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mdtraj
import numpy as np
from scipy.spatial import cKDTree

from ...errors import InputError
from ...files import replacing, writing
from ...units import plain
from ..boxes import reduced_boxes
from ..mapping import Mapping
from ..trajectory import BeadWriter
from .arguments import fingerprint, is_finished
from .atoms import (
    CHUNK_ATOMS,
    Frames,
    check_atoms,
    check_number,
    count_frames,
    load_topology,
    read_frames,
)
from .mean_box import BoxTolerances, fluctuation, stretch_to_mean_box
from .rounding import rounding, rounding_step
from .steps import Steps, StepTolerances

if TYPE_CHECKING:
    from openmm.unit import Quantity


@dataclass(frozen=True)
class ReadSettings:
    """Tolerances of the checks of an all-atom trajectory."""

    chunk_atoms: int = CHUNK_ATOMS
    """Atoms in RAM at once, summed over the frames of a chunk."""
    largest_step: float = 0.15
    """Largest rms displacement of beads between frames in the centre-of-mass frame, as a fraction of
    the smallest width of the box: then fewer than one in 10^8 Gaussian displacements leaves the
    nearest image."""
    overlap: float = 0.15
    """Distance (nm) below which two beads overlap."""
    overlapping: float = 0.01
    """Largest fraction of overlapping beads."""
    wrapped_extent: float = 2.0
    """Largest extent of all beads, in box vectors, if molecules are wrapped and whole."""
    crossing_free_extent: float = 1.1
    """The same if no bead crosses the periodic boundary, as beads of wrapped molecules do."""
    jump: float = 5.0
    """Largest rms displacement between the last frame of a file and the first of the next one,
    relative to that from frame to frame."""
    box: BoxTolerances = BoxTolerances()
    steps: StepTolerances = StepTolerances()


def read_trajectory(
    path: str | os.PathLike,
    *,
    topology: str | os.PathLike,
    files: str | os.PathLike | Sequence[str | os.PathLike],
    frame_interval: float | Quantity,
    temperature: float | Quantity,
    selection: str | None = None,
    mapping: Mapping | None = None,
    progress: Callable[[int, int | None], None] | None = None,
    settings: ReadSettings = ReadSettings(),
) -> Path:
    """Map an all-atom trajectory to beads and write a CG trajectory (H5MD).

    The files are read in order as one trajectory, chunk by chunk, so RAM does not limit their
    length. Molecules may be wrapped into the box or broken at its boundary, and boxes may be
    triclinic: atoms are moved to the image nearest to the first atom of their bead, and beads are
    unwrapped by the image nearest to their previous position. The centre-of-mass drift is removed.
    If the box changes from frame to frame (constant pressure), frames are scaled to the mean box
    (`mean_box`). Rounded coordinates are detected (`rounding`); ``provenance["rounding"]`` contains
    the errors of bead positions.

    Velocities and forces are read from TRR, velocities from MDTraj's HDF5; MDTraj reads them from
    no other format. A frame with the time of the previous one (or, in formats without times, with
    the same positions at the start of a file) is the repetition of a restart and is skipped.

    Parameters
    ----------
    path : path
        The H5MD file to write. A file that was made with the same arguments is not changed. Until
        the file is complete, it has ``.partial`` appended to its name.
    topology : path
        Any file from which MDTraj reads a topology.
    files : path or sequence of paths
        Trajectory files in the order of time.
    frame_interval : float or Quantity
        ps. Compared with the times in the files, if they contain any.
    temperature : float or Quantity
        K.
    selection : str, optional
        MDTraj atom selection of the atoms to map; all by default.
    mapping : Mapping, optional
        One bead per residue by default.
    progress : callable, optional
        Called with the number of frames done and their total (None if the format doesn't contain it).
    settings : ReadSettings

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    InputError
        A file is missing, corrupt, or doesn't belong to the topology; a frame has no box, holds a
        value that is not finite, or doesn't follow the previous one in time; the beads move too far
        between frames to be unwrapped, or further than the ballistic limit; a frame is missing or
        repeated; the box changes too much, or changes and the coordinates are unwrapped; or `path`
        was made with other arguments.
    OSError
        The file can't be written, for example because the disk is full.
    LockedError
        Another process writes the file.
    """
    from openmm import unit

    path, topology_file = Path(path), Path(topology)
    given = [files] if isinstance(files, (str, os.PathLike)) else files
    sources = [Path(file) for file in given]
    interval = float(plain(frame_interval, unit.picosecond))
    temperature = float(plain(temperature, unit.kelvin))
    for name, value in (("frame_interval", interval), ("temperature", temperature)):
        if not (np.isfinite(value) and value > 0):
            raise InputError(f"{name}: found {value}, expected a positive number")
    if not sources:
        raise InputError("files: found none, expected at least one trajectory file")
    for file in [topology_file, *sources]:
        if not file.exists():
            raise InputError(f"{file} does not exist")
    arguments = dict(
        topology=str(topology_file),
        files=[str(file) for file in sources],
        fingerprints=[fingerprint(file) for file in [topology_file, *sources]],
        frame_interval=interval,
        temperature=temperature,
        selection=selection,
        mapping="per_residue" if mapping is None else _digest(mapping),
    )
    if path.exists() and is_finished(path, arguments):
        return path

    atoms = load_topology(topology_file)
    for file in sources:
        check_atoms(file, atoms, topology_file)
    by_residue = mapping is None
    if mapping is None:
        try:
            mapping = Mapping.per_residue(atoms, selection)
        except InputError as error:
            raise InputError(f"{topology_file}: {error}") from error
    elif mapping.atoms[-1] >= atoms.n_atoms:
        raise InputError(
            f"mapping: found atom {mapping.atoms[-1] + 1}, expected at most the {atoms.n_atoms} "
            f"atoms of {topology_file}"
        )
    counts = [count_frames(file) for file in sources]
    known = [count for count in counts if count is not None]
    total = sum(known) if len(known) == len(counts) else None

    reader = _Reader(
        sources, atoms, topology_file, mapping, by_residue, interval, temperature, settings
    )
    with writing(path), replacing(path) as partial:
        boxes = reader.write(
            partial, arguments, None if progress is None else lambda done: progress(done, total)
        )
        changes = fluctuation(boxes)
        if changes > settings.box.constant:
            with replacing(partial) as stretched:
                stretch_to_mean_box(partial, stretched, boxes, {"box_fluctuation": changes})
    return path


@dataclass(frozen=True)
class _Reader:
    """Convert trajectory files to a CG trajectory; see `read_trajectory`."""

    files: list[Path]
    atoms: mdtraj.Topology
    topology_file: Path
    mapping: Mapping
    by_residue: bool
    interval: float
    temperature: float
    settings: ReadSettings

    def write(
        self, path: Path, arguments: dict[str, Any], progress: Callable[[int], None] | None
    ) -> np.ndarray:
        """Write the beads of the files; return their boxes [T, 3, 3] (nm)."""
        unwrapper = _Unwrapper(self.mapping.masses, self.settings)
        writer: BeadWriter | None = None
        fields: list[str] = []
        boxes: list[np.ndarray] = []
        step: float | None = None
        for file, frames, beads, done in self._unwrapped(unwrapper):
            if writer is None:
                _check_overlap(file, beads["positions"][0], beads["box"][0], self.settings)
                fields = list(beads)
                step = rounding_step(frames.positions)
                about = {"arguments": arguments, "whole": self.mapping.whole}
                if step is not None:
                    about["rounding"] = rounding(step, self.mapping)
                writer = BeadWriter(
                    path,
                    temperature=self.temperature,
                    frame_interval=self.interval,
                    provenance=about,
                    velocities="velocities" in fields,
                    forces="forces" in fields,
                    **self.mapping.beads.arrays(),
                )
            elif list(beads) != fields:
                raise InputError(
                    f"{file}: found {', '.join(beads)}, expected {', '.join(fields)} as in "
                    f"{self.files[0]}"
                )
            elif rounding_step(frames.positions) != step:
                raise InputError(
                    f"{file}: found coordinates rounded to {rounding_step(frames.positions) or 0:g} nm from "
                    f"frame {frames.first} on, expected {step or 0:g} nm as in {self.files[0]} (0: not rounded): "
                    "convert the files to one format"
                )
            writer.append(**beads)
            boxes.append(beads["box"])
            if progress is not None:
                progress(done)
        if writer is None or writer.n_frames < 2:
            raise InputError(f"{self.files[0]}: found a single frame, expected a trajectory")
        unwrapper.steps.check(
            self.interval,
            self.temperature,
            step,
            centres_of_mass=self.by_residue and self.mapping.whole,
        )
        every = np.concatenate(boxes)
        changes = fluctuation(every)
        if changes > self.settings.box.constant:
            _check_changing_box(self.files[0], changes, unwrapper, self.settings)
            writer.close()
        else:
            writer.finish()
        return every

    def _unwrapped(
        self, unwrapper: _Unwrapper
    ) -> Iterator[tuple[Path, Frames, dict[str, np.ndarray], int]]:
        """Yield chunks of new frames: file, frames, unwrapped beads, and number of frames read."""
        order, done = _Order(self.interval), 0
        for file in self.files:
            for frames in read_frames(file, self.atoms, self.settings.chunk_atoms):
                check_number(file, frames.positions.shape[1], self.atoms, self.topology_file)
                beads = _map(self.mapping, frames, file)
                keep = order.new_frames(file, frames, beads["positions"])
                beads = {name: values[keep] for name, values in beads.items()}
                done += len(frames)
                if keep.any():
                    numbers = frames.first + np.flatnonzero(keep)
                    beads["positions"] = unwrapper.follow(
                        file, numbers, beads["positions"], beads["box"]
                    )
                    yield file, frames, beads, done


def _check_changing_box(
    file: Path, changes: float, unwrapper: _Unwrapper, settings: ReadSettings
) -> None:
    """Raise InputError if the box changes too much, or if it changes and beads are unwrapped."""
    if changes > settings.box.largest:
        raise InputError(
            f"{file}: found a box that changes by {100 * changes:.2g} % (standard deviation), "
            f"expected at most {100 * settings.box.largest:g} %: remove the equilibration, or run "
            "at constant volume"
        )
    if unwrapper.spread > (
        settings.wrapped_extent if unwrapper.turned else settings.crossing_free_extent
    ):
        raise InputError(
            f"{file}: found unwrapped coordinates that extend over {unwrapper.spread:.1f} boxes, and "
            "a box that changes, expected coordinates wrapped into the box: otherwise the motion of "
            "molecules and that due to the barostat cannot be separated"
        )


def _map(mapping: Mapping, frames: Frames, file: Path) -> dict[str, np.ndarray]:
    """Return bead positions (whole, not yet unwrapped), boxes, velocities and forces after checks."""
    box = frames.box
    if box is None:
        box = np.zeros((len(frames), 3, 3))
    good = np.isfinite(box).all(axis=(1, 2)) & (np.abs(np.linalg.det(box)) > 0)
    if not good.all():
        raise InputError(f"{file}: frame {frames.first + np.argmin(good)} has no periodic box")
    try:
        box = reduced_boxes(box)
        beads = {"positions": mapping.positions(frames.positions, box), "box": box}
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    for name in ("velocities", "forces"):
        values = getattr(frames, name)
        if values is not None and mapping.whole:
            beads[name] = getattr(mapping, name)(values)
    for name, values in beads.items():
        finite = np.isfinite(values).all(axis=(1, 2))
        if not finite.all():
            raise InputError(
                f"{file}: found a value that is not a finite number in the {name} of frame "
                f"{frames.first + np.argmin(finite)}"
            )
    return beads


def _check_overlap(file: Path, beads: np.ndarray, box: np.ndarray, settings: ReadSettings) -> None:
    """Raise InputError if beads overlap, as they do in a box that is too small."""
    wrapped = (beads @ np.linalg.inv(box) % 1.0) @ box
    shifts = np.array(np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij")).reshape(3, -1).T @ box
    images = cKDTree((wrapped[None] + shifts[:, None]).reshape(-1, 3))
    distance, _ = images.query(wrapped, k=2, distance_upper_bound=settings.overlap)
    found = np.isfinite(distance[:, 1]).sum()
    if found > max(2, settings.overlapping * len(beads)):
        raise InputError(
            f"{file}: found {found} of {len(beads)} beads closer than {settings.overlap} nm to another "
            f"in the first frame, expected hardly any: check its box of {box[0, 0]:.4g} x "
            f"{box[1, 1]:.4g} x {box[2, 2]:.4g} nm"
        )


def _digest(mapping: Mapping) -> str:
    sizes = [len(group) for group in mapping.groups]
    numbers = [
        sizes,
        *mapping.groups,
        *mapping.weights,
        mapping.masses,
        mapping.types,
        mapping.massive,
    ]
    beads = mapping.beads
    if beads.n_molecules < beads.n_beads or len(beads.exclusions):
        # Otherwise the digest equals that of files of older versions.
        numbers += [beads.molecules, beads.bonds, beads.exclusions]
    content = (
        b"".join(np.asarray(one).tobytes() for one in numbers) + repr(mapping.type_names).encode()
    )
    return hashlib.sha256(content).hexdigest()


class _Order:
    """Check the order of frames in time, across files."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._file: Path | None = None
        self._beads = np.zeros((0, 3))
        self._time: float | None = None

    def new_frames(self, file: Path, frames: Frames, beads: np.ndarray) -> np.ndarray:
        """Return which of the frames [T] do not repeat the previous one.

        Raises
        ------
        InputError
            A frame is not one frame interval after the previous one.
        """
        new = np.ones(len(frames), dtype=bool)
        joins = self._file not in (None, file)
        if frames.times is not None:
            for i, time in enumerate(np.asarray(frames.times, dtype=np.float64)):
                new[i] = self._is_next(file, frames.first + i, time)
        elif joins and np.abs(beads[0] - self._beads).max() < 1e-6:
            new[0] = False
        self._file, self._beads = file, beads[-1]
        return new

    def _is_next(self, file: Path, number: int, time: float) -> bool:
        """Return whether `time` is one frame interval after the previous one; False if it is equal."""
        last, self._time = self._time, time
        # Times have single precision in XTC and TRR, which is too low late in a long run.
        tolerance = 0.01 * self._interval + 4 * np.finfo(np.float32).eps * abs(time)
        if (
            last is None
            or tolerance > self._interval / 2
            or abs(time - last - self._interval) <= tolerance
        ):
            return True
        if abs(time - last) <= tolerance:
            return False
        before = f"the last one of {self._file}" if number == 0 else "the previous one"
        # MDTraj counts frames if it knows no times.
        hint = (
            ": files that MDTraj converted without times have times of 0, 1, 2 … ps"
            if (last, time) == (number - 1, number)
            else ""
        )
        raise InputError(
            f"{file}: found frame {number} {time - last:g} ps after {before} by the times in the "
            f"file, expected the frame interval of {self._interval:g} ps{hint}"
        )


class _Unwrapper:
    """Unwrap beads across the periodic boundary and across files, at a constant centre of mass."""

    def __init__(self, masses: np.ndarray, settings: ReadSettings) -> None:
        self._settings = settings
        self.spread, self.turned, self.steps = 0.0, False, Steps(masses, settings.steps)
        self._share = masses / masses.sum() if len(masses) > 1 else np.zeros(1)
        self._start: np.ndarray | None = None
        self._file: Path | None = None
        self._fraction: np.ndarray | None = None
        self._image = np.zeros((len(masses), 3))
        self._squares, self._moves = 0.0, 0

    @property
    def rms(self) -> float:
        """Root mean square displacement from frame to frame (nm)."""
        return float(np.sqrt(self._squares / max(self._moves, 1)))

    def follow(
        self, file: Path, numbers: np.ndarray, beads: np.ndarray, box: np.ndarray
    ) -> np.ndarray:
        """Return unwrapped positions [T, N, 3] (nm) of frames that follow the previous ones.

        Raises
        ------
        InputError
            Beads move too far from frame to frame, or a file does not continue the previous one.
        """
        inverse = np.linalg.inv(box)
        fraction = beads @ inverse
        begins = self._fraction is None
        before = fraction[0] if self._fraction is None else self._fraction
        moves = np.diff(fraction, axis=0, prepend=before[None])
        # The common displacement is a circular mean; it may be any fraction of the box.
        drift = np.angle(np.einsum("tnc,n->tc", np.exp(2j * np.pi * moves), self._share))[
            :, None
        ] / (2 * np.pi)
        turns = np.round(moves - drift)
        moves = ((moves - drift - turns) @ box)[int(begins) :]
        if len(moves):
            self._check(
                file, (moves**2).sum(axis=2).mean(axis=1), 1 / np.linalg.norm(inverse, axis=1).max()
            )
            self.steps.add(file, numbers[int(begins) :], moves)
        self._file = file
        self.turned |= bool(turns.any())
        image = self._image - np.cumsum(turns, axis=0)
        self._image, self._fraction = image[-1], fraction[-1]
        self.spread = max(self.spread, float(np.ptp(fraction, axis=1).max()))
        unwrapped = fraction + image
        center = np.einsum("tnc,n->tc", unwrapped, self._share)[:, None]
        self._start = center[0] if self._start is None else self._start
        return (unwrapped - (center - self._start)) @ box

    def _check(self, file: Path, squares: np.ndarray, width: float) -> None:
        rms = np.sqrt(squares.mean())
        if rms > self._settings.largest_step * width:
            raise InputError(
                f"{file}: found displacements of {rms:.2g} nm (rms) from frame to frame, expected at "
                f"most {self._settings.largest_step * width:.2g} nm to unwrap beads in a box of "
                f"{width:.3g} nm: use frames closer in time"
            )
        if self._file not in (None, file) and self._moves:
            usual = self.rms
            if np.sqrt(squares[0]) > self._settings.jump * usual:
                raise InputError(
                    f"{file} does not continue {self._file}: found displacements of "
                    f"{np.sqrt(squares[0]):.2g} nm (rms) between them, expected about the "
                    f"{usual:.2g} nm from frame to frame"
                )
        self._squares += squares.sum()
        self._moves += len(squares)
