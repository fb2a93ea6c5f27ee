"""Bead trajectories on disk: unwrapped positions, velocities, forces and boxes of beads over time.

The format is H5MD 1.1 (de Buyl, Colberg and Höfling, Comput. Phys. Commun. 185, 1546 (2014);
https://www.nongnu.org/h5md/), an HDF5 layout that other readers open:

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
parameters/openmm_cgadv (attributes)   ``type_names``, ``temperature`` (K), ``frame_interval``
                                       (ps), ``provenance`` (JSON), ``complete``
=====================================  ====================  =========================

Unwrapped means that a bead that leaves the box through one face is not put back in at the opposite
one: the difference of two frames is the displacement.
"""
from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

BEADS = "particles/beads"
PARAMETERS = "parameters/openmm_cgadv"
UNITS = {"position": "nm", "velocity": "nm ps-1", "force": "kJ mol-1 nm-1"}
FRICTION_STRESS = "/observables/friction_stress"
TENSOR_UNITS = {"box/edges": "nm", FRICTION_STRESS: "kJ mol-1"}
CHUNK_BYTES = 1 << 18
BUFFER_BYTES = 1 << 22
WAITING = 8
"""Buffers that are kept while this process reads the file."""
SPARE_BYTES = 1 << 20
INDEPENDENT = 0.5
"""Least rms displacement of a coordinate from frame to frame, in steps of a rounding, that makes its errors independent."""
SEEN = 16
"""Frames that it is taken from."""


class BeadTrajectory:
    """Bead trajectory read lazily from an H5MD file; a context manager.

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
    has_velocities, has_forces, has_friction_stress : bool
    provenance : dict
        Where the trajectory came from, as its writer described it.
    position_errors : ndarray [n_types]
        Standard deviation of each component of a position by rounding, independent from frame to
        frame, nm: ``provenance["rounding"]["bead_error_nm"]``. 0 where nothing was rounded, or where
        beads move too little from frame to frame for errors to be independent.
    complete : bool
        False while the run that writes the file is unfinished.
    """

    def __init__(self, path):
        self.path = Path(path)
        self._file = _open_file(self.path, "r")
        try:
            self._describe()
        except BaseException:
            self._file.close()
            raise

    @classmethod
    def open(cls, path) -> "BeadTrajectory":
        """Open `path` for reading.

        Raises
        ------
        ValueError
            The file is missing, truncated, not H5MD, or was not written by this package.
        """
        return cls(path)

    def _describe(self):
        if BEADS not in self._file or PARAMETERS not in self._file:
            raise ValueError(f"{self.path} is not a bead trajectory: it holds no group "
                             f"{BEADS if BEADS not in self._file else PARAMETERS}")
        self._beads = self._file[BEADS]
        about = self._file[PARAMETERS].attrs
        self.frame_interval = float(about["frame_interval"])
        self.temperature = float(about["temperature"])
        self.type_names = tuple(json.loads(about["type_names"]))
        self.provenance = json.loads(about["provenance"])
        self.complete = bool(about["complete"])
        self.masses = self._beads["mass"][:].astype(np.float64)
        self.types = self._beads["species"][:].astype(np.int64)
        self.n_beads = len(self.masses)
        self.n_frames = _n_frames(self._beads)
        self.has_velocities = "velocity" in self._beads
        self.has_forces = "force" in self._beads
        self.has_friction_stress = FRICTION_STRESS in self._beads
        self.position_errors = self._position_errors()

    def _position_errors(self):
        rounding = self.provenance.get("rounding")
        none = np.zeros(len(self.type_names))
        if rounding is None or self.n_frames < 2:
            return none
        moves = np.diff(self.positions(slice(0, SEEN)), axis=0)
        independent = np.sqrt(np.mean(moves ** 2)) >= INDEPENDENT * rounding["step_nm"]
        return np.array(rounding["bead_error_nm"]) if independent else none

    @property
    def type_masses(self) -> np.ndarray:
        """Mean masses of the beads of each type [n_types], dalton."""
        return np.array([self.masses[self.types == kind].mean() for kind in range(len(self.type_names))])

    def positions(self, frames=slice(None)) -> np.ndarray:
        """Unwrapped positions [T, N, 3], nm, of a slice or a sequence of frame numbers."""
        return self._read("position", frames)

    def velocities(self, frames=slice(None)) -> np.ndarray:
        """Velocities [T, N, 3], nm/ps; ValueError if the file holds none.

        Those of a run with a leap-frog integrator (LangevinMiddle among them) belong to the time
        half a time step before the positions.
        """
        return self._read("velocity", frames)

    def forces(self, frames=slice(None)) -> np.ndarray:
        """Forces [T, N, 3], kJ/mol/nm; ValueError if the file holds none."""
        return self._read("force", frames)

    def boxes(self, frames=slice(None)) -> np.ndarray:
        """Box vectors [T, 3, 3], nm, one vector a row."""
        return self._read("box/edges", frames)

    def friction_stress(self, frames=slice(None)) -> np.ndarray:
        """Volume times the stress of friction and noise between beads [T, 3, 3], kJ/mol, each an
        average over the time since the frame before; ValueError if the file holds none."""
        return self._read(FRICTION_STRESS, frames)

    def _read(self, name, frames):
        if name not in self._beads:
            raise ValueError(f"{self.path} holds no {_words(name)} data")
        values = self._beads[name]["value"]
        numbers = np.arange(self.n_frames)[frames].reshape(-1)
        try:
            if isinstance(frames, slice) and (frames.step or 1) > 0:
                start, stop, step = frames.indices(self.n_frames)
                out = values[start:max(start, stop):step]
            else:
                unique, back = np.unique(numbers, return_inverse=True)
                out = values[unique][back] if len(unique) else values[:0]
        except OSError as error:
            raise ValueError(f"{self.path} can't be read: {name} data is damaged") from error
        out = out.astype(np.float64)
        finite = np.isfinite(out).all(axis=(1, 2))
        if not finite.all():
            raise ValueError(f"{self.path}: frame {numbers[~finite][0]} holds a {name} value that "
                             "is not a finite number")
        return out

    def close(self):
        """Close the file; what was read stays valid."""
        self._file.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def __repr__(self):
        return (f"BeadTrajectory({str(self.path)!r}, {self.n_frames} frames of {self.n_beads} "
                f"beads, {self.frame_interval:g} ps apart)")


class BeingRead(OSError):
    """A file can't be written as this process reads it."""


class BeadWriter:
    """Streaming writer of a bead trajectory; continues a file that is there already.

    Frames collect in a buffer of a few MB; the file is open only while the buffer is written, so a
    process killed at any other moment leaves a valid file. `finish` marks the trajectory as
    complete; leaving the context does not.

    Parameters
    ----------
    path : path
        A file that exists is continued if it is unfinished and of the same description.
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
        Whether a complete file is continued, too, and is unfinished then.

    Attributes
    ----------
    n_frames : int
        Frames appended so far, those of a continued file included.

    Raises
    ------
    ValueError
        The description is inconsistent, or differs from that of the file to be continued.
    OSError
        The file can't be written, a full disk among the reasons.
    """

    def __init__(self, path, masses, types, type_names, temperature, frame_interval,
                 provenance=None, velocities=False, forces=False, friction_stress=False, reopen=False):
        self.path = Path(path)
        self.masses = np.asarray(masses, dtype=np.float64)
        self.types = np.asarray(types, dtype=np.int64)
        self.type_names = tuple(str(name) for name in type_names)
        self.temperature = float(temperature)
        self.frame_interval = float(frame_interval)
        self.provenance = json.loads(json.dumps(provenance or {}))
        self._fields = ["position"] + ["velocity"] * velocities + ["force"] * forces
        n = len(self.masses)
        if self.masses.shape != (n,) or self.types.shape != (n,) or n == 0:
            raise ValueError(f"{self.path}: masses and types must be one number a bead, found "
                             f"shapes {self.masses.shape} and {self.types.shape}")
        if self.types.min() < 0 or self.types.max() >= len(self.type_names):
            raise ValueError(f"{self.path}: types must be indices into the {len(self.type_names)} "
                             f"type names, found {self.types.min()} to {self.types.max()}")
        if not self.frame_interval > 0:
            raise ValueError(f"{self.path}: the frame interval must be positive, "
                             f"found {self.frame_interval} ps")
        frame_bytes = 12 * n * len(self._fields)
        self._capacity = self._due = int(np.clip(BUFFER_BYTES // frame_bytes, 1, 1024))
        self._tensors = ["box/edges"] + [FRICTION_STRESS] * friction_stress
        self._buffer = {name: [] for name in [*self._fields, *self._tensors]}
        if self.path.exists():
            self._written = self._continue(reopen)
        else:
            self._written = 0
            self._create()

    @property
    def n_frames(self) -> int:
        return self._written + len(self._buffer["position"])

    def append(self, positions, box, velocities=None, forces=None, friction_stress=None):
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
        ValueError
            A shape is wrong, a field is missing or unexpected, or a value is not finite.
        """
        given = {"position": positions, "velocity": velocities, "force": forces, "box/edges": box,
                 FRICTION_STRESS: friction_stress}
        for name in ("velocity", "force", FRICTION_STRESS):
            if (given[name] is not None) != (name in self._buffer):
                raise ValueError(f"{self.path}: {_words(name)} data is "
                                 f"{'missing' if name in self._buffer else 'not expected'}")
        frames = {}
        for name in self._fields:
            values = np.array(given[name], dtype=np.float32, ndmin=3)
            frames[name] = values
            if values.shape != (len(frames["position"]), len(self.masses), 3):
                raise ValueError(f"{self.path}: expected {name} data of shape "
                                 f"[{len(self.masses)}, 3] or [T, {len(self.masses)}, 3], found "
                                 f"{list(np.shape(given[name]))}")
        n = len(frames["position"])
        for name in self._tensors:
            tensor = np.array(given[name], dtype=np.float64)
            if tensor.shape not in ((3, 3), (n, 3, 3)):
                what = "a box" if name == "box/edges" else "a stress"
                raise ValueError(f"{self.path}: expected {what} of shape [3, 3] or [{n}, 3, 3], "
                                 f"found {list(tensor.shape)}")
            frames[name] = np.broadcast_to(tensor, (n, 3, 3))
        for name, values in frames.items():
            finite = np.isfinite(values).all(axis=(1, 2))
            if not finite.all():
                raise ValueError(f"{self.path}: frame {self.n_frames + int(np.argmin(finite))} "
                                 f"holds a {name} value that is not a finite number")
        for name, values in frames.items():
            self._buffer[name].extend(values)
        if len(self._buffer["position"]) >= self._due:
            try:
                self.flush()
            except BeingRead:
                if self._due >= WAITING * self._capacity:
                    raise
                self._due += self._capacity

    def flush(self):
        """Write the buffered frames to the file."""
        pending = {name: np.array(frames) for name, frames in self._buffer.items()}
        n = len(pending["position"])
        if n == 0:
            return
        need = sum(values.nbytes for values in pending.values()) + SPARE_BYTES
        free = shutil.disk_usage(self.path.parent).free
        if free < need:
            raise OSError(f"{self.path}: the disk is full ({free / 1e6:.1f} MB free, "
                          f"{need / 1e6:.1f} MB needed for the next frames)")
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

    def truncate(self, n_frames):
        """Keep the first `n_frames` frames alone."""
        self.flush()
        if not 0 <= n_frames <= self._written:
            raise ValueError(f"{self.path} holds {self._written} frames, fewer than the "
                             f"{n_frames} to be kept")
        with self._writing() as file:
            for name in self._buffer:
                file[BEADS][name]["value"].resize(n_frames, axis=0)
            for name in ("time", "step"):
                file[BEADS]["position"][name].resize(n_frames, axis=0)
        self._written = n_frames

    def finish(self):
        """Write what is buffered and mark the trajectory as complete."""
        self.flush()
        with self._writing() as file:
            file[PARAMETERS].attrs["complete"] = True

    def close(self):
        """Write what is buffered."""
        self.flush()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    @contextmanager
    def _writing(self, mode="r+"):
        try:
            with _open_file(self.path, mode) as file:
                yield file
        except (OSError, RuntimeError) as error:
            if "already open" in str(error):
                raise BeingRead(f"{self.path} can't be written while a BeadTrajectory of this process reads it: close that") from error
            raise OSError(f"{self.path} can't be written: {error}") from error

    def _create(self):
        from . import __version__
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
            frames = int(np.clip(CHUNK_BYTES // (12 * n), 1, 128))
            for name in self._fields:
                values = beads.create_dataset(f"{name}/value", (0, n, 3), "f4",
                                              maxshape=(None, n, 3), chunks=(frames, n, 3))
                values.attrs["unit"] = UNITS[name]
            for name in self._tensors:
                values = beads.create_dataset(f"{name}/value", (0, 3, 3), "f8",
                                              maxshape=(None, 3, 3), chunks=(256, 3, 3))
                values.attrs["unit"] = TENSOR_UNITS[name]
            growing = dict(shape=(0,), maxshape=(None,), chunks=(1024,))
            time = beads.create_dataset("position/time", dtype="f8", **growing)
            time.attrs["unit"] = "ps"
            step = beads.create_dataset("position/step", dtype="i8", **growing)
            for name in [*self._fields[1:], *self._tensors]:
                beads[name]["time"] = time
                beads[name]["step"] = step
            beads["mass"] = self.masses
            beads["mass"].attrs["unit"] = "u"
            beads["species"] = self.types.astype(np.int32)
            about = file.create_group(PARAMETERS).attrs
            about["type_names"] = json.dumps(self.type_names)
            about["temperature"] = self.temperature
            about["frame_interval"] = self.frame_interval
            about["provenance"] = json.dumps(self.provenance)
            about["complete"] = False

    def _continue(self, reopen):
        with BeadTrajectory.open(self.path) as old:
            complete = old.complete
            if complete and not reopen:
                raise ValueError(f"{self.path} holds a complete trajectory already; delete it to "
                                 "write another")
            for what, found, expected in (
                    ("number of beads", old.n_beads, len(self.masses)),
                    ("masses", old.masses.tolist(), self.masses.tolist()),
                    ("types", old.types.tolist(), self.types.tolist()),
                    ("type names", old.type_names, self.type_names),
                    ("temperature", old.temperature, self.temperature),
                    ("frame interval", old.frame_interval, self.frame_interval),
                    ("velocities", old.has_velocities, "velocity" in self._fields),
                    ("forces", old.has_forces, "force" in self._fields),
                    ("stress", old.has_friction_stress, FRICTION_STRESS in self._tensors)):
                if found != expected:
                    detail = "" if isinstance(found, list) else f" ({found}, expected {expected})"
                    raise ValueError(f"{self.path} can't be continued: its {what} differ from what "
                                     f"is to be written{detail}")
            if old.provenance != self.provenance:
                keys = sorted(set(old.provenance) | set(self.provenance))
                key = next(k for k in keys if old.provenance.get(k) != self.provenance.get(k))
                raise ValueError(f"{self.path} can't be continued: it was written with {key} = "
                                 f"{old.provenance.get(key)}, expected {self.provenance.get(key)}")
            frames = old.n_frames
        if complete:
            with self._writing() as file:
                file[PARAMETERS].attrs["complete"] = False
        return frames


def _open_file(path, mode):
    if mode != "w" and not path.is_file():
        raise ValueError(f"{path} does not exist")
    try:
        return h5py.File(path, mode, locking=False)
    except OSError as error:
        if mode == "w" or isinstance(error, PermissionError) or "already open" in str(error):
            raise
        raise ValueError(f"{path} is not a whole HDF5 file: it was cut short by a crash, a full "
                         "disk or an unfinished copy, or is of another format") from error


def _n_frames(beads):
    lengths = [len(beads[f"{name}/value"]) for name in (*UNITS, *TENSOR_UNITS) if name in beads]
    return min(*lengths, len(beads["position/step"]))


def _words(name):
    return name.rpartition("/")[2].replace("_", " ")


def _extend(dataset, start, values):
    dataset.resize(start + len(values), axis=0)
    dataset[start:] = values
