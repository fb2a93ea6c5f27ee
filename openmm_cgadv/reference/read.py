"""All-atom trajectories that MDTraj reads, streamed into beads with unwrapped positions."""
from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from ..alone import writing
from ..mapping import Mapping
from ..trajectory import BeadWriter
from ..units import plain
from .arguments import fingerprint, is_finished
from .atoms import check_atoms, check_number, count_frames, load_topology, read_frames
from .mean_box import CONSTANT, LARGEST, fluctuation, stretch_to_mean_box
from .rounding import rounding, rounding_step
from .steps import Steps

LARGEST_STEP = 0.15
"""Largest rms displacement of beads between frames, beside their common drift, as a fraction of the box's smallest width: of
Gaussian displacements, fewer than one in 10^8 then leaves the nearest image."""
OVERLAP = 0.15
"""Distance (nm) below which two beads overlap, and OVERLAPPING is the fraction of the beads that may."""
OVERLAPPING = 0.01
UNWRAPPED = 2.0
"""Extent of all beads, in boxes, that whole molecules around a wrapped box don't reach."""
NEVER_BACK = 1.1
"""The same where no bead ever comes back through the boundary, as those of wrapped molecules do that leave the box."""
JUMP = 5.0
"""Displacement from one file to the next, against that from frame to frame, that no motion is."""


def read_trajectory(path, *, topology, files, frame_interval, temperature, selection=None,
                    mapping=None, progress=None) -> Path:
    """Map a trajectory of one's own to beads and write them as H5MD.

    The files are read one after another as one trajectory, chunk by chunk, so memory stays flat.
    Molecules may be wrapped into the box or broken at its boundary, and boxes may be triclinic:
    each bead is made whole by the image of its atoms nearest to its first atom, then followed
    through the boundary by the image nearest to its last position. The drift
    of their common centre of mass is taken out. Where the box changes from frame to frame (constant
    pressure), frames are stretched to the mean box (`mean_box`). Rounded coordinates are recognized (`rounding`), and ``provenance["rounding"]`` says how far beads are off.

    Velocities and forces are read from TRR, velocities from MDTraj's HDF5; MDTraj reads them from
    no other format. A frame with the time of the one before it (or, in formats without times, the
    same positions where two files meet) is a repetition that a restart left, and is dropped.

    Parameters
    ----------
    path : path
        The H5MD file to write. One of the same arguments is left as it is. Until all is read, the
        file has ``.partial`` appended to its name.
    topology : path
        Any file that MDTraj reads a topology from.
    files : path or sequence of paths
        Trajectory files in the order of time.
    frame_interval : float or Quantity
        ps. Held against the times in the files, where they have any.
    temperature : float or Quantity
        K.
    selection : str, optional
        MDTraj atom selection of what is mapped; everything by default.
    mapping : Mapping, optional
        One bead a residue by default.
    progress : callable, optional
        Called with the number of frames done and their total (None where the format doesn't tell).

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    ValueError
        A file is missing, damaged, or doesn't belong to the topology; a frame has no box, holds a
        value that is not finite, or doesn't follow the one before it in time; the beads move too
        far between frames to be followed, or further than their temperature allows; a frame is
        missing or repeated; the box changes too much, or changes and the coordinates are unwrapped;
        or `path` was made with other arguments.
    OSError
        The file can't be written, a full disk among the reasons.
    RuntimeError
        Another process writes it.
    """
    from openmm import unit
    path, topology_file = Path(path), Path(topology)
    files = [Path(file) for file in ([files] if isinstance(files, (str, Path)) else files)]
    interval = float(plain(frame_interval, unit.picosecond))
    temperature = float(plain(temperature, unit.kelvin))
    for name, value in (("frame_interval", interval), ("temperature", temperature)):
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f"{name} is {value}, expected a positive number")
    if not files:
        raise ValueError("files is empty, expected at least one trajectory file")
    for file in [topology_file, *files]:
        if not file.exists():
            raise ValueError(f"{file} does not exist")
    arguments = dict(topology=str(topology_file), files=[str(file) for file in files],
                     fingerprints=[fingerprint(file) for file in [topology_file, *files]],
                     frame_interval=interval, temperature=temperature, selection=selection,
                     mapping="per_residue" if mapping is None else _digest(mapping))
    if path.exists() and is_finished(path, arguments):
        return path

    atoms = load_topology(topology_file)
    for file in files:
        check_atoms(file, atoms, topology_file)
    by_residue = mapping is None
    if by_residue:
        try:
            mapping = Mapping.per_residue(atoms, selection)
        except ValueError as error:
            raise ValueError(f"{topology_file}: {error}") from error
    elif mapping.atoms[-1] >= atoms.n_atoms:
        raise ValueError(f"the mapping names atom {mapping.atoms[-1] + 1}, but {topology_file} has "
                         f"only {atoms.n_atoms}")
    counts = [count_frames(file) for file in files]
    total = None if None in counts else sum(counts)

    with writing(path):
        _write(path, files, atoms, topology_file, mapping, by_residue, interval, temperature, arguments,
               None if progress is None else lambda done: progress(done, total))
    return path


def _write(path, files, atoms, topology_file, mapping, by_residue, interval, temperature, arguments, progress):
    """Read the files and write their beads, whole or not at all."""
    partial = Path(f"{path}.partial")
    partial.unlink(missing_ok=True)
    unwrapper, writer, boxes = _Unwrapper(mapping.masses), None, []
    try:
        for file, frames, beads, done in _unwrapped(files, atoms, topology_file, mapping, interval, unwrapper):
            if writer is None:
                _check_overlap(file, beads["positions"][0], beads["box"][0])
                fields = beads.keys()
                step = rounding_step(frames.positions)
                about = {"arguments": arguments, "whole": mapping.whole}
                if step is not None:
                    about["rounding"] = rounding(step, mapping)
                writer = BeadWriter(partial, mapping.masses, mapping.types, mapping.type_names,
                                    temperature, interval, about,
                                    velocities="velocities" in fields, forces="forces" in fields)
            elif beads.keys() != fields:
                raise ValueError(f"{file} holds {', '.join(beads)}, but {files[0]} holds "
                                 f"{', '.join(fields)}")
            elif rounding_step(frames.positions) != step:
                raise ValueError(f"{file}: the coordinates from frame {frames.first} on are rounded to {rounding_step(frames.positions) or 0:g} nm, "
                                 f"those of {files[0]} to {step or 0:g} nm (0: not at all), expected files of one kind")
            writer.append(**beads)
            boxes.append(beads["box"])
            if progress is not None:
                progress(done)
        if writer.n_frames < 2:
            raise ValueError(f"{files[0]} holds a single frame, expected a trajectory")
        unwrapper.steps.check(interval, temperature, step, centres_of_mass=by_residue and mapping.whole)
        boxes = np.concatenate(boxes)
        changes = fluctuation(boxes)
        if changes > CONSTANT:
            _check_changing_box(files[0], changes, unwrapper)
    except ValueError:  # nothing of what is refused stays
        if writer is not None:
            writer.close()
        partial.unlink(missing_ok=True)
        raise
    if changes > CONSTANT:
        writer.close()
        stretched = Path(f"{path}.stretched")
        stretched.unlink(missing_ok=True)
        stretch_to_mean_box(partial, stretched, boxes, {"box_fluctuation": changes})
        partial.unlink()
        os.replace(stretched, path)
    else:
        writer.finish()
        os.replace(partial, path)


def _check_changing_box(file, changes, unwrapper):
    """Raise ValueError if beads can't be followed, or mean little, in a box that changes so much."""
    if changes > LARGEST:
        raise ValueError(f"{file}: the box changes by {100 * changes:.2g} % (standard deviation), "
                         f"expected at most {100 * LARGEST:g} %: leave out the equilibration, or run "
                         "at constant volume")
    if unwrapper.spread > (UNWRAPPED if unwrapper.turned else NEVER_BACK):
        raise ValueError(f"{file}: the coordinates are unwrapped, over {unwrapper.spread:.1f} boxes, and the "
                         "box changes, so that it can't be told what is motion and what is the "
                         "barostat: expected coordinates wrapped into the box")


def _unwrapped(files, atoms, topology_file, mapping, interval, unwrapper):
    """Of every chunk of new frames: its file, the frames, their beads with unwrapped positions, and the number of frames read so far."""
    order, done = _Order(interval), 0
    for file in files:
        for frames in read_frames(file, atoms):
            check_number(file, frames.positions.shape[1], atoms, topology_file)
            beads = _map(mapping, frames, file)
            keep = order.new_frames(file, frames, beads["positions"])
            beads = {name: values[keep] for name, values in beads.items()}
            done += len(frames)
            if keep.any():
                numbers = frames.first + np.flatnonzero(keep)
                beads["positions"] = unwrapper.follow(file, numbers, beads["positions"], beads["box"])
                yield file, frames, beads, done


def _map(mapping, frames, file):
    """Bead positions (whole, not yet unwrapped), boxes, and what else there is, each checked."""
    box = frames.box
    good = np.zeros(len(frames), dtype=bool) if box is None else \
        np.isfinite(box).all(axis=(1, 2)) & (np.abs(np.linalg.det(box)) > 0)
    if not good.all():
        raise ValueError(f"{file}: frame {frames.first + np.argmin(good)} has no periodic box")
    box = np.asarray(box, dtype=np.float64)
    try:
        beads = {"positions": mapping.positions(frames.positions, box), "box": box}
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    for name in ("velocities", "forces"):
        values = getattr(frames, name)
        if values is not None and mapping.whole:
            beads[name] = getattr(mapping, name)(values)
    for name, values in beads.items():
        finite = np.isfinite(values).all(axis=(1, 2))
        if not finite.all():
            raise ValueError(f"{file}: the {name} of frame {frames.first + np.argmin(finite)} hold "
                             "a value that is not a finite number")
    return beads


def _check_overlap(file, beads, box):
    """Raise ValueError if beads lie on each other, as they do in a box that is too small for them."""
    wrapped = (beads @ np.linalg.inv(box) % 1.0) @ box
    shifts = np.array(np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij")).reshape(3, -1).T @ box
    images = cKDTree((wrapped[None] + shifts[:, None]).reshape(-1, 3))
    distance, _ = images.query(wrapped, k=2, distance_upper_bound=OVERLAP)
    found = np.isfinite(distance[:, 1]).sum()
    if found > max(2, OVERLAPPING * len(beads)):
        raise ValueError(f"{file}: in the first frame {found} of {len(beads)} beads are less than "
                         f"{OVERLAP} nm from another, expected hardly any; does its box of "
                         f"{box[0, 0]:.4g} x {box[1, 1]:.4g} x {box[2, 2]:.4g} nm belong to it?")


def _digest(mapping):
    sizes = [len(group) for group in mapping.groups]
    numbers = [sizes, *mapping.groups, *mapping.weights, mapping.masses, mapping.types, mapping.massive]
    content = b"".join(np.asarray(one).tobytes() for one in numbers) + repr(mapping.type_names).encode()
    return hashlib.sha256(content).hexdigest()


class _Order:
    """The order of frames in time, over the joins of files."""

    def __init__(self, interval):
        self._interval = interval
        self._file = self._beads = self._time = None

    def new_frames(self, file, frames, beads) -> np.ndarray:
        """Which of the frames [T] are no repetitions of the last one.

        Raises
        ------
        ValueError
            A frame is not one frame interval after the last one.
        """
        new = np.ones(len(frames), dtype=bool)
        joins = self._file not in (None, file)
        if frames.times is not None:
            for i, time in enumerate(np.asarray(frames.times, dtype=np.float64)):
                new[i] = self._goes_on(file, frames.first + i, time)
        elif joins and np.abs(beads[0] - self._beads).max() < 1e-6:
            new[0] = False
        self._file, self._beads = file, beads[-1]
        return new

    def _goes_on(self, file, number, time):
        """Whether `time` is one frame interval after the last one; False if it is the same."""
        last, self._time = self._time, time
        # Times are single precision in XTC and TRR, so late in a long run they say too little.
        tolerance = 0.01 * self._interval + 4 * np.finfo(np.float32).eps * abs(time)
        if last is None or tolerance > self._interval / 2 \
                or abs(time - last - self._interval) <= tolerance:
            return True
        if abs(time - last) <= tolerance:
            return False
        before = f"the last one of {self._file}" if number == 0 else "the one before it"
        # MDTraj counts frames where it knows no times.
        hint = ": files converted by MDTraj have times of 0, 1, 2 … ps if none were given" if (last, time) == (number - 1, number) else ""
        raise ValueError(f"{file}: by the times in the file, frame {number} is {time - last:g} ps "
                         f"after {before}, but the frame interval is given as "
                         f"{self._interval:g} ps{hint}")


class _Unwrapper:
    """Follows beads through the periodic boundary, over the joins of files.

    Their centre of mass stays where it was at first.
    """

    def __init__(self, masses):
        self.spread, self.turned, self.steps = 0.0, False, Steps(masses)
        self._share = masses / masses.sum() if len(masses) > 1 else np.zeros(1)
        self._start = None
        self._file = self._fraction = None
        self._image = 0
        self._squares = self._moves = 0

    @property
    def rms(self) -> float:
        """Root mean square displacement from frame to frame, nm."""
        return float(np.sqrt(self._squares / max(self._moves, 1)))

    def follow(self, file, numbers, beads, box) -> np.ndarray:
        """Positions [T, N, 3], nm, of frames of these numbers in the file, that go on from those of the frames before.

        Raises
        ------
        ValueError
            Beads move too far from frame to frame, or jump from one file to the next.
        """
        inverse = np.linalg.inv(box)
        fraction = beads @ inverse
        begins = self._fraction is None
        before = fraction[0] if begins else self._fraction
        moves = np.diff(fraction, axis=0, prepend=before[None])
        # What all move by together, their mean on the circle that the boundary makes, may be any part of the box.
        drift = np.angle(np.einsum("tnc,n->tc", np.exp(2j * np.pi * moves), self._share))[:, None] / (2 * np.pi)
        turns = np.round(moves - drift)
        moves = ((moves - drift - turns) @ box)[int(begins):]
        if len(moves):
            self._check(file, (moves ** 2).sum(axis=2).mean(axis=1), 1 / np.linalg.norm(inverse, axis=1).max())
            self.steps.add(file, numbers[int(begins):], moves)
        self._file = file
        self.turned |= bool(turns.any())
        image = self._image - np.cumsum(turns, axis=0)
        self._image, self._fraction = image[-1], fraction[-1]
        self.spread = max(self.spread, float(np.ptp(fraction, axis=1).max()))
        unwrapped = fraction + image
        center = np.einsum("tnc,n->tc", unwrapped, self._share)[:, None]
        self._start = center[0] if self._start is None else self._start
        return (unwrapped - (center - self._start)) @ box

    def _check(self, file, squares, width):
        rms = np.sqrt(squares.mean())
        if rms > LARGEST_STEP * width:
            raise ValueError(f"{file}: beads move by {rms:.2g} nm (rms) from frame to frame, too "
                             f"far to be followed in a box {width:.3g} nm wide: frames closer in "
                             "time are needed")
        if self._file not in (None, file) and self._moves:
            usual = self.rms
            if np.sqrt(squares[0]) > JUMP * usual:
                raise ValueError(f"{file} does not continue {self._file}: beads move by "
                                 f"{np.sqrt(squares[0]):.2g} nm (rms) from one to the other, but "
                                 f"by {usual:.2g} nm from frame to frame")
        self._squares += squares.sum()
        self._moves += len(squares)
