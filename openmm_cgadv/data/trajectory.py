"""CG trajectories on disk: unwrapped positions, velocities, forces and boxes of beads over time.

The format is H5MD 1.1 (de Buyl, Colberg and Höfling, Comput. Phys. Commun. 185, 1546 (2014);
https://www.nongnu.org/h5md/), an HDF5 layout that other programs read:

=====================================  ====================  =========================
data set                               shape                 unit
=====================================  ====================  =========================
particles/beads/position/value         [T, N, 3] float32     nm, unwrapped
particles/beads/velocity/value         [T, N, 3] float32     nm/ps
particles/beads/force/value            [T, N, 3] float32     kJ/mol/nm
particles/beads/box/edges/value        [T, 3, 3] float64     nm, one box vector a row
particles/beads/\\*/time, \\*/step       [T]                   ps, frame number
observables/friction_stress/value      [T, 3, 3] float64     kJ/mol, of friction between beads
particles/beads/mass                   [N] float64           dalton
particles/beads/species                [N] int32             index into ``type_names``
particles/beads/molecule               [N] int32             number of the bead's molecule
connectivity/bonds                     [B, 2] int32          pairs of beads
connectivity/exclusions                [E, 2] int32          pairs of beads
parameters/openmm_cgadv (attributes)   ``type_names``, ``temperature`` (K), ``frame_interval``
                                       (ps), ``provenance`` (JSON), ``complete``
=====================================  ====================  =========================

Unwrapped positions are continuous through the periodic boundary: the difference of two frames is the
displacement. In files of older versions, which hold neither molecules nor connectivity, every bead is
a molecule.
"""

from __future__ import annotations

import json
import os
import shutil
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike

from ..errors import InputError, LockedError
from ..version import __version__
from .boxes import reduced_boxes
from .topology import BeadTopology

BEADS = "particles/beads"
PARAMETERS = "parameters/openmm_cgadv"
CONNECTIVITY = "connectivity"
PAIRS = ("bonds", "exclusions")
UNITS = {"position": "nm", "velocity": "nm ps-1", "force": "kJ mol-1 nm-1"}
FRICTION_STRESS = "/observables/friction_stress"
TENSOR_UNITS = {"box/edges": "nm", FRICTION_STRESS: "kJ mol-1"}


@dataclass(frozen=True)
class WriterSettings:
    """Sizes of a writer's buffers and of the HDF5 chunks."""

    chunk_bytes: int = 1 << 18
    """Size of an HDF5 chunk: large enough for fast reads, small enough to read single frames."""
    buffer_bytes: int = 1 << 22
    """Size of the frames that collect before a write."""
    waiting_buffers: int = 8
    """Buffers that collect while this process reads the file, before an error is raised."""
    spare_bytes: int = 1 << 20
    """Free disk space that must remain after a write."""


@dataclass(frozen=True)
class RoundingErrors:
    """When the rounding errors of coordinates count as independent from frame to frame."""

    least_displacement: float = 0.5
    """Least rms displacement of a coordinate from frame to frame, in units of the rounding step."""
    frames: int = 16
    """Number of frames from which the displacement is estimated."""


_readers: weakref.WeakSet[BeadTrajectory] = weakref.WeakSet()
"""All trajectories of this process, open or closed."""


class BeadTrajectory:
    """Read a CG trajectory lazily from an H5MD file; a context manager.

    Parameters
    ----------
    path : path
    rounding_errors : RoundingErrors

    Attributes
    ----------
    path : Path
    n_frames, n_beads : int
    frame_interval : float
        Time between frames, ps.
    temperature : float
        K.
    masses : ndarray [N], float64
        Dalton.
    types : ndarray [N], int64
        Index into `type_names`.
    type_names : tuple of str
    topology : BeadTopology
        The types and masses above, molecules, bonds and exclusions.
    has_velocities, has_forces, has_friction_stress : bool
    provenance : dict
        Where the trajectory came from, as its writer described it.
    position_errors : ndarray [n_types]
        Standard deviation of the rounding error of each position component (nm), independent from
        frame to frame: ``provenance["rounding"]["bead_error_nm"]``. 0 if nothing was rounded, or if
        beads move too little from frame to frame for independent errors.
    complete : bool
        False while the run that writes the file is unfinished.
    """

    def __init__(
        self, path: str | os.PathLike, rounding_errors: RoundingErrors = RoundingErrors()
    ) -> None:
        self.path = Path(path)
        self._rounding_errors = rounding_errors
        self._file = _open_file(self.path, "r")
        self._identity = _identity(self.path)
        try:
            self._describe()
        except BaseException:
            self._file.close()
            raise
        _readers.add(self)

    @classmethod
    def open(cls, path: str | os.PathLike) -> BeadTrajectory:
        """Open `path` for reading.

        Raises
        ------
        InputError
            The file is missing, truncated, not H5MD, or was not written by this package.
        """
        return cls(path)

    def _describe(self) -> None:
        if BEADS not in self._file or PARAMETERS not in self._file:
            raise InputError(
                f"{self.path} is not a CG trajectory of this package: found no group "
                f"{BEADS if BEADS not in self._file else PARAMETERS}, expected an H5MD file "
                "that cgadv wrote"
            )
        self._beads = self._file[BEADS]
        about = self._file[PARAMETERS].attrs
        self.frame_interval = float(about["frame_interval"])
        self.temperature = float(about["temperature"])
        self.provenance = json.loads(about["provenance"])
        self.complete = bool(about["complete"])
        self.topology = self._topology(json.loads(about["type_names"]))
        self.masses, self.types = self.topology.masses, self.topology.types
        self.type_names, self.n_beads = self.topology.type_names, self.topology.n_beads
        self.n_frames = _n_frames(self._beads)
        self.has_velocities = "velocity" in self._beads
        self.has_forces = "force" in self._beads
        self.has_friction_stress = FRICTION_STRESS in self._beads
        self.position_errors = self._position_errors()

    def _topology(self, type_names: list[str]) -> BeadTopology:
        molecules = self._beads["molecule"][:] if "molecule" in self._beads else None
        pairs = {}
        for name in PAIRS:
            path = f"{CONNECTIVITY}/{name}"
            pairs[name] = self._file[path][:] if path in self._file else ()
        masses, types = self._beads["mass"][:], self._beads["species"][:]
        try:
            return BeadTopology(types, tuple(type_names), masses, molecules, **pairs)
        except InputError as error:
            raise InputError(f"{self.path}: {error}") from error

    def _position_errors(self) -> np.ndarray:
        rounding = self.provenance.get("rounding")
        none = np.zeros(len(self.type_names))
        if rounding is None or self.n_frames < 2:
            return none
        limits = self._rounding_errors
        moves = np.diff(self.positions(slice(0, limits.frames)), axis=0)
        independent = np.sqrt(np.mean(moves**2)) >= limits.least_displacement * rounding["step_nm"]
        return np.array(rounding["bead_error_nm"]) if independent else none

    @property
    def type_masses(self) -> np.ndarray:
        """Mean masses of the beads of each type [n_types] (dalton)."""
        return self.topology.type_masses

    def positions(self, frames: slice | Sequence[int] | np.ndarray = slice(None)) -> np.ndarray:
        """Return unwrapped positions [T, N, 3] (nm) of a slice or a sequence of frame numbers."""
        return self._read("position", frames)

    def velocities(self, frames: slice | Sequence[int] | np.ndarray = slice(None)) -> np.ndarray:
        """Return velocities [T, N, 3] (nm/ps).

        Velocities of a leap-frog integrator, such as LangevinMiddle, belong to the time half a time
        step before that of the positions.

        Raises
        ------
        InputError
            The file holds no velocities.
        """
        return self._read("velocity", frames)

    def forces(self, frames: slice | Sequence[int] | np.ndarray = slice(None)) -> np.ndarray:
        """Return forces [T, N, 3] (kJ/mol/nm).

        Raises
        ------
        InputError
            The file holds no forces.
        """
        return self._read("force", frames)

    def boxes(self, frames: slice | Sequence[int] | np.ndarray = slice(None)) -> np.ndarray:
        """Return box vectors [T, 3, 3] (nm), one vector a row, in OpenMM's reduced form."""
        return reduced_boxes(self._read("box/edges", frames))

    def friction_stress(
        self, frames: slice | Sequence[int] | np.ndarray = slice(None)
    ) -> np.ndarray:
        """Return volume times stress [T, 3, 3] (kJ/mol) of the pairwise friction and noise.

        Each value is an average over the time since the previous frame.

        Raises
        ------
        InputError
            The file holds no friction stress.
        """
        return self._read(FRICTION_STRESS, frames)

    def _read(self, name: str, frames: slice | Sequence[int] | np.ndarray) -> np.ndarray:
        if name not in self._beads:
            raise InputError(f"{self.path} holds no {_words(name)} data")
        values = self._beads[name]["value"]
        numbers = np.arange(self.n_frames)[frames].reshape(-1)
        try:
            if isinstance(frames, slice) and (frames.step or 1) > 0:
                start, stop, step = frames.indices(self.n_frames)
                out = values[start : max(start, stop) : step]
            else:
                unique, back = np.unique(numbers, return_inverse=True)
                out = values[unique][back] if len(unique) else values[:0]
        except OSError as error:
            raise InputError(f"{self.path} can't be read: {name} data is corrupt") from error
        out = out.astype(np.float64)
        finite = np.isfinite(out).all(axis=(1, 2))
        if not finite.all():
            raise InputError(
                f"{self.path}: found a {name} value in frame {numbers[~finite][0]} that is not a "
                "finite number, expected a CG trajectory without such values: write it again"
            )
        return out

    def reads(self, path: str | os.PathLike) -> bool:
        """Return whether this trajectory has the file at `path` open."""
        return bool(self._file) and os.path.exists(path) and _identity(path) == self._identity

    def close(self) -> None:
        """Close the file; arrays that were read stay valid."""
        self._file.close()

    def __enter__(self) -> BeadTrajectory:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"BeadTrajectory({str(self.path)!r}, {self.n_frames} frames of {self.n_beads} "
            f"beads, {self.frame_interval:g} ps apart)"
        )


class FileInUseError(LockedError, OSError):
    """A CG trajectory cannot be written while a `BeadTrajectory` of this process reads it."""


class BeadWriter:
    """Write a CG trajectory frame by frame; an existing file is continued.

    Frames collect in a buffer of a few MB. The file is open only while the buffer is written, so a
    process that is killed at any other moment leaves a valid file. `finish` marks the trajectory as
    complete; leaving the context does not.

    Parameters
    ----------
    path : path
        An existing file is continued if it is unfinished and has the same description.
    masses : array [N]
        Dalton.
    types : array [N] of int
        Index into `type_names`.
    type_names : sequence of str
    temperature : float
        K.
    frame_interval : float
        Time between frames, ps.
    provenance : dict
        Anything that JSON can hold.
    velocities, forces, friction_stress : bool
        Whether every frame has them.
    reopen : bool
        Whether a complete file may be continued; it is marked as unfinished.
    molecules, bonds, exclusions : arrays, optional
        See `BeadTopology`. ``**topology.arrays()`` passes a whole topology. By default every bead is
        a molecule.
    settings : WriterSettings

    Attributes
    ----------
    n_frames : int
        Frames appended so far, including those of a continued file.

    Raises
    ------
    InputError
        The description is inconsistent, or differs from that of the file to be continued.
    OSError
        The file can't be written, for example because the disk is full.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        masses: ArrayLike,
        types: ArrayLike,
        type_names: Sequence[str],
        temperature: float,
        frame_interval: float,
        provenance: dict[str, Any] | None = None,
        velocities: bool = False,
        forces: bool = False,
        friction_stress: bool = False,
        reopen: bool = False,
        molecules: ArrayLike | None = None,
        bonds: ArrayLike = (),
        exclusions: ArrayLike = (),
        settings: WriterSettings = WriterSettings(),
    ) -> None:
        self.path = Path(path)
        self._settings = settings
        try:
            self.topology = BeadTopology(types, type_names, masses, molecules, bonds, exclusions)
        except InputError as error:
            raise InputError(f"{self.path}: {error}") from error
        self.masses, self.types = self.topology.masses, self.topology.types
        self.type_names = self.topology.type_names
        self.temperature = float(temperature)
        self.frame_interval = float(frame_interval)
        self.provenance = json.loads(json.dumps(provenance or {}))
        self._fields = ["position"] + ["velocity"] * velocities + ["force"] * forces
        n = len(self.masses)
        if not self.frame_interval > 0:
            raise InputError(
                f"{self.path}: the frame interval must be positive, found {self.frame_interval} ps"
            )
        frame_bytes = 12 * n * len(self._fields)
        self._capacity = self._due = int(np.clip(settings.buffer_bytes // frame_bytes, 1, 1024))
        self._tensors = ["box/edges"] + [FRICTION_STRESS] * friction_stress
        self._buffer: dict[str, list[np.ndarray]] = {
            name: [] for name in [*self._fields, *self._tensors]
        }
        if self.path.exists():
            self._written = self._continue(reopen)
        else:
            self._written = 0
            self._create()

    @property
    def n_frames(self) -> int:
        """Frames appended so far, including those of a continued file."""
        return self._written + len(self._buffer["position"])

    def append(
        self,
        positions: ArrayLike,
        box: ArrayLike,
        velocities: ArrayLike | None = None,
        forces: ArrayLike | None = None,
        friction_stress: ArrayLike | None = None,
    ) -> None:
        """Append one frame, or several.

        Parameters
        ----------
        positions : array [N, 3] or [T, N, 3]
            Unwrapped, nm.
        box : array [3, 3] or [T, 3, 3]
            Box vectors as rows, nm.
        velocities, forces : array like `positions`
            nm/ps and kJ/mol/nm.
        friction_stress : array [3, 3] or [T, 3, 3]
            kJ/mol.

        Raises
        ------
        InputError
            A shape is wrong, a field is missing or unexpected, or a value is not finite.
        """
        given: dict[str, Any] = {
            "position": positions,
            "velocity": velocities,
            "force": forces,
            "box/edges": box,
            FRICTION_STRESS: friction_stress,
        }
        for name in ("velocity", "force", FRICTION_STRESS):
            if (given[name] is not None) != (name in self._buffer):
                raise InputError(
                    f"{self.path}: {_words(name)} data is "
                    f"{'missing' if name in self._buffer else 'not expected'}"
                )
        frames = {}
        for name in self._fields:
            values = np.array(given[name], dtype=np.float32, ndmin=3)
            frames[name] = values
            if values.shape != (len(frames["position"]), len(self.masses), 3):
                raise InputError(
                    f"{self.path}: found {name} data of shape {list(np.shape(given[name]))}, "
                    f"expected [{len(self.masses)}, 3] or [T, {len(self.masses)}, 3]"
                )
        n = len(frames["position"])
        for name in self._tensors:
            tensor = np.array(given[name], dtype=np.float64)
            if tensor.shape not in ((3, 3), (n, 3, 3)):
                what = "a box" if name == "box/edges" else "a stress"
                raise InputError(
                    f"{self.path}: found {what} of shape {list(tensor.shape)}, expected [3, 3] "
                    f"or [{n}, 3, 3]"
                )
            frames[name] = np.broadcast_to(tensor, (n, 3, 3))
        for name, values in frames.items():
            finite = np.isfinite(values).all(axis=(1, 2))
            if not finite.all():
                raise InputError(
                    f"{self.path}: found a {name} value in frame "
                    f"{self.n_frames + int(np.argmin(finite))} that is not a finite number"
                )
        for name, values in frames.items():
            self._buffer[name].extend(values)
        if len(self._buffer["position"]) >= self._due:
            try:
                self.flush()
            except FileInUseError:
                if self._due >= self._settings.waiting_buffers * self._capacity:
                    raise
                self._due += self._capacity

    def flush(self) -> None:
        """Write the buffered frames to the file."""
        pending = {name: np.array(frames) for name, frames in self._buffer.items()}
        n = len(pending["position"])
        if n == 0:
            return
        need = sum(values.nbytes for values in pending.values())
        need += self._settings.spare_bytes
        free = shutil.disk_usage(self.path.parent).free
        if free < need:
            raise OSError(
                f"{self.path}: the disk is full ({free / 1e6:.1f} MB free, "
                f"{need / 1e6:.1f} MB needed for the next frames)"
            )
        numbers = np.arange(self._written, self._written + n)
        with self._writing() as file:
            beads = file[BEADS]
            for name, values in pending.items():
                _extend(beads[name]["value"], self._written, values)
            _extend(beads["position/time"], self._written, numbers * self.frame_interval)
            _extend(beads["position/step"], self._written, numbers)
        self._written += n
        self._due = self._capacity
        for frames in self._buffer.values():
            frames.clear()

    def truncate(self, n_frames: int) -> None:
        """Delete all frames after the first `n_frames`."""
        self.flush()
        if not 0 <= n_frames <= self._written:
            raise InputError(
                f"{self.path}: found {self._written} frames, expected at least the {n_frames} to keep"
            )
        with self._writing() as file:
            for name in self._buffer:
                file[BEADS][name]["value"].resize(n_frames, axis=0)
            for name in ("time", "step"):
                file[BEADS]["position"][name].resize(n_frames, axis=0)
        self._written = n_frames

    def finish(self) -> None:
        """Write the buffered frames and mark the trajectory as complete."""
        self.flush()
        with self._writing() as file:
            file[PARAMETERS].attrs["complete"] = True

    def close(self) -> None:
        """Write the buffered frames."""
        self.flush()

    def __enter__(self) -> BeadWriter:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @contextmanager
    def _writing(self, mode: str = "r+") -> Iterator[h5py.File]:
        # HDF5 does not open a file for writing that the process has open for reading.
        if any(reader.reads(self.path) for reader in list(_readers)):
            raise FileInUseError(
                f"{self.path} can't be written while a BeadTrajectory of this process reads it: "
                "close that BeadTrajectory"
            )
        try:
            with _open_file(self.path, mode) as file:
                yield file
        except Exception as error:  # h5py has several classes for one failure
            raise OSError(f"{self.path} can't be written: {error}") from error

    def _create(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        n = len(self.masses)
        with self._writing("w") as file:
            file.create_group("h5md").attrs["version"] = [1, 1]
            file.create_group("h5md/author").attrs["name"] = "openmm_cgadv"
            creator = file.create_group("h5md/creator")
            creator.attrs["name"] = "openmm_cgadv"
            creator.attrs["version"] = __version__
            units = file.create_group("h5md/modules/units")
            units.attrs["version"] = [1, 0]
            units.attrs["system"] = "SI"
            beads = file.create_group(BEADS)
            box = beads.create_group("box")
            box.attrs["dimension"] = 3
            box.attrs["boundary"] = np.array(["periodic"] * 3, dtype="S8")
            frames = int(np.clip(self._settings.chunk_bytes // (12 * n), 1, 128))
            for name in self._fields:
                values = beads.create_dataset(
                    f"{name}/value",
                    (0, n, 3),
                    "f4",
                    maxshape=(None, n, 3),
                    chunks=(frames, n, 3),
                    fletcher32=True,
                )
                values.attrs["unit"] = UNITS[name]
            for name in self._tensors:
                values = beads.create_dataset(
                    f"{name}/value",
                    (0, 3, 3),
                    "f8",
                    maxshape=(None, 3, 3),
                    chunks=(256, 3, 3),
                    fletcher32=True,
                )
                values.attrs["unit"] = TENSOR_UNITS[name]
            growing = dict(shape=(0,), maxshape=(None,), chunks=(1024,), fletcher32=True)
            time = beads.create_dataset("position/time", dtype="f8", **growing)
            time.attrs["unit"] = "ps"
            step = beads.create_dataset("position/step", dtype="i8", **growing)
            for name in [*self._fields[1:], *self._tensors]:
                beads[name]["time"] = time
                beads[name]["step"] = step
            beads["mass"] = self.masses
            beads["mass"].attrs["unit"] = "u"
            beads["species"] = self.types.astype(np.int32)
            beads["molecule"] = self.topology.molecules.astype(np.int32)
            for name in PAIRS:
                pairs = file.create_dataset(
                    f"{CONNECTIVITY}/{name}", data=getattr(self.topology, name).astype(np.int32)
                )
                pairs.attrs["particles_group"] = beads.ref
            about = file.create_group(PARAMETERS).attrs
            about["type_names"] = json.dumps(self.type_names)
            about["temperature"] = self.temperature
            about["frame_interval"] = self.frame_interval
            about["provenance"] = json.dumps(self.provenance)
            about["complete"] = False

    def _continue(self, reopen: bool) -> int:
        with BeadTrajectory.open(self.path) as old:
            complete = old.complete
            if complete and not reopen:
                raise InputError(
                    f"{self.path}: found a complete trajectory, expected an unfinished one or no file: "
                    "delete it to write another"
                )
            for what, found, expected in (
                ("number of beads", old.n_beads, len(self.masses)),
                ("masses", old.masses.tolist(), self.masses.tolist()),
                ("types", old.types.tolist(), self.types.tolist()),
                ("type names", old.type_names, self.type_names),
                *(
                    (name, *(one.arrays()[name].tolist() for one in (old.topology, self.topology)))
                    for name in ("molecules", *PAIRS)
                ),
                ("temperature", old.temperature, self.temperature),
                ("frame interval", old.frame_interval, self.frame_interval),
                ("velocities", old.has_velocities, "velocity" in self._fields),
                ("forces", old.has_forces, "force" in self._fields),
                ("stress", old.has_friction_stress, FRICTION_STRESS in self._tensors),
            ):
                if found != expected:
                    detail = "" if isinstance(found, list) else f" ({found}, expected {expected})"
                    raise InputError(
                        f"{self.path} can't be continued: its {what} differ from those of the "
                        f"new frames{detail}"
                    )
            if old.provenance != self.provenance:
                keys = sorted(set(old.provenance) | set(self.provenance))
                key = next(k for k in keys if old.provenance.get(k) != self.provenance.get(k))
                raise InputError(
                    f"{self.path} can't be continued: it was written with {key} = "
                    f"{old.provenance.get(key)}, expected {self.provenance.get(key)}"
                )
            frames = old.n_frames
        if complete:
            with self._writing() as file:
                file[PARAMETERS].attrs["complete"] = False
        return frames


def _open_file(path: Path, mode: str) -> h5py.File:
    if mode != "w" and not path.is_file():
        raise InputError(f"{path} does not exist")
    try:
        return h5py.File(path, mode, locking=False)
    except OSError as error:
        if mode == "w" or isinstance(error, PermissionError):
            raise
        raise InputError(
            f"{path} is not a complete HDF5 file: it was truncated by a crash, a full "
            "disk or an unfinished copy, or has another format"
        ) from error


def _identity(path: str | os.PathLike) -> tuple[int, int]:
    """Return device and inode, which identify a file of this machine even after a rename."""
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _n_frames(beads: h5py.Group) -> int:
    lengths = [len(beads[f"{name}/value"]) for name in (*UNITS, *TENSOR_UNITS) if name in beads]
    return min(*lengths, len(beads["position/step"]))


def _words(name: str) -> str:
    return name.rpartition("/")[2].replace("_", " ")


def _extend(dataset: h5py.Dataset, start: int, values: np.ndarray) -> None:
    dataset.resize(start + len(values), axis=0)
    dataset[start:] = values
