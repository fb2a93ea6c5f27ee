"""All-atom frames from trajectory files of any format that MDTraj reads, in chunks."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import mdtraj
import numpy as np
from mdtraj.formats.registry import FormatRegistry
from mdtraj.utils import lengths_and_angles_to_box_vectors

from ...errors import InputError

CHUNK_ATOMS = 1 << 20
"""Default of the atoms in RAM at once, summed over the frames of a chunk."""
TIMED = (".xtc", ".trr", ".nc", ".netcdf", ".ncdf", ".h5", ".hdf5", ".dtr", ".stk")
"""Formats whose files hold the time of each frame."""
UNCOUNTED = (
    ".pdb",
    ".pdb.gz",
    ".cif",
    ".cif.gz",
    ".mmcif",
    ".mmcif.gz",
    ".pdbx",
    ".pdbx.gz",
    ".gsd",
    ".mdcrd",
    ".crd",
)
"""Formats whose number of atoms MDTraj finds only by reading the whole file."""
HDF5 = (".h5", ".hdf5", ".lh5")
"""Formats for which MDTraj needs PyTables."""
TOPOLOGIES = (".prmtop", ".parm7", ".prm7", ".psf", ".gro")
"""Formats from which MDTraj reads topologies, in addition to those of trajectories."""

TRR_MAGIC, TRR_HEADER = 1993, struct.Struct(">i20x13i")
"""First number of each frame of a TRR file, and its header up to the time: the sizes of ten data blocks (bytes; positions,
velocities and forces last), then the numbers of atoms, step and energies."""


@dataclass
class Frames:
    """Consecutive frames of one file.

    Attributes
    ----------
    first : int
        Number of the first frame in the file.
    positions, velocities, forces : array [T, n_atoms, 3]
        nm, nm/ps, kJ/mol/nm. Velocities and forces are None if a frame of the file lacks them.
    box : array [T, 3, 3] or None
        Box vectors as rows, nm.
    times : array [T] or None
        ps
    """

    first: int
    positions: np.ndarray
    box: np.ndarray | None
    times: np.ndarray | None
    velocities: np.ndarray | None = None
    forces: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.positions)


def load_topology(file: str | os.PathLike) -> mdtraj.Topology:
    """Return the topology in `file`; InputError if MDTraj can't read it."""
    with _explained(file):
        return mdtraj.load_topology(str(file))


def count_frames(file: str | os.PathLike) -> int | None:
    """Return the number of frames in `file`, None if its format needs a read of the whole file."""
    try:
        with mdtraj.open(str(file)) as opened:
            return len(opened)
    except Exception:
        return None


def check_atoms(
    file: str | os.PathLike, topology: mdtraj.Topology, topology_file: str | os.PathLike
) -> None:
    """Raise InputError if `file` and `topology` differ in the number of atoms."""
    if str(file).lower().endswith(UNCOUNTED):
        return
    with _explained(file), mdtraj.open(str(file)) as opened:
        first = opened.read(n_frames=1)
    _check_frame_count(file)
    positions = first[0] if isinstance(first, tuple) else first
    check_number(file, positions.shape[1], topology, topology_file)


def check_number(
    file: str | os.PathLike, found: int, topology: mdtraj.Topology, topology_file: str | os.PathLike
) -> None:
    """Raise InputError if `topology` does not have the `found` atoms of a frame of `file`."""
    if found != topology.n_atoms:
        raise InputError(
            f"{file}: found {found} atoms, expected the {topology.n_atoms} of its topology "
            f"{topology_file}"
        )


def _check_frame_count(file: str | os.PathLike) -> None:
    """Raise InputError if a DCD file holds fewer frames than its header announces.

    DCD is the only format here whose truncated files MDTraj reads without an error.
    """
    if Path(file).suffix.lower() != ".dcd":
        return
    with open(file, "rb") as opened:
        head = opened.read(12)
    order = "<" if head[:4] == (84).to_bytes(4, "little") else ">"
    announced, found = int(np.frombuffer(head[8:12], f"{order}i4")[0]), count_frames(file)
    if found is not None and found < announced:
        raise InputError(
            f"{file} is truncated: found {found} frames, expected the {announced} of its header"
        )


def read_frames(
    file: str | os.PathLike, topology: mdtraj.Topology, chunk_atoms: int = CHUNK_ATOMS
) -> Iterator[Frames]:
    """Yield all frames of `file` in chunks.

    Parameters
    ----------
    file : path
    topology : mdtraj.Topology
    chunk_atoms : int
        Number of atoms in RAM at once, summed over the frames of a chunk.

    Raises
    ------
    InputError
        The file is corrupt, or of a format that MDTraj doesn't read.
    """
    n = max(1, min(1000, chunk_atoms // topology.n_atoms))
    suffix = Path(file).suffix.lower()
    readers = {".trr": _read_trr, ".h5": _read_h5, ".hdf5": _read_h5}
    reader = readers.get(suffix, _read_any)
    first, timed = 0, suffix in TIMED
    with _explained(file):
        for frames in reader(str(file), topology, n):
            frames.first = first
            if first == 0 and len(frames) > 1 and frames.times is not None:
                timed = timed and np.ptp(frames.times) > 0
            if not timed:
                frames.times = None
            yield frames
            first += len(frames)
    if first == 0:
        raise InputError(f"{file} holds no frames")


def _read_any(file: str, topology: mdtraj.Topology, n: int) -> Iterator[Frames]:
    for part in mdtraj.iterload(file, chunk=n, top=topology):
        yield Frames(0, part.xyz, part.unitcell_vectors, part.time)


def _read_trr(file: str, topology: mdtraj.Topology, n: int) -> Iterator[Frames]:
    has = {f"get_{name}": there for name, there in _in_every_frame(file).items()}
    with mdtraj.formats.TRRTrajectoryFile(file) as opened:
        while True:
            xyz, times, _, box, _, velocities, forces = opened._read(n, None, **has)
            if len(xyz) == 0:
                return
            yield Frames(0, xyz, box, times, velocities, forces)


def _in_every_frame(file: str) -> dict[str, bool]:
    """Return whether all frames of a TRR file hold velocities, and forces: ``{name: bool}``.

    GROMACS writes frames without them if the output intervals differ, and MDTraj returns uninitialized memory for such
    frames. The headers of the frames contain the information.
    """
    found, frame = {"velocities": True, "forces": True}, 0
    with open(file, "rb") as opened:
        while len(head := opened.read(TRR_HEADER.size)) == TRR_HEADER.size:
            magic, *sizes, atoms, _, _ = TRR_HEADER.unpack(head)
            if magic != TRR_MAGIC or not sizes[7]:
                raise InputError(f"frame {frame} holds no positions")
            for name, size in zip(found, sizes[8:]):
                found[name] &= size > 0
            number = sizes[7] // (3 * atoms)  # bytes
            opened.seek(2 * number + sum(sizes), os.SEEK_CUR)
            frame += 1
    return found


def _read_h5(file: str, topology: mdtraj.Topology, n: int) -> Iterator[Frames]:
    with mdtraj.formats.HDF5TrajectoryFile(file) as opened:
        while True:
            part = opened.read(n_frames=n)
            if len(part) == 0:
                return
            box = None
            if part.cell_lengths is not None:
                box = np.stack(
                    lengths_and_angles_to_box_vectors(*part.cell_lengths.T, *part.cell_angles.T),
                    axis=1,
                )
            yield Frames(0, part.coordinates, box, part.time, part.velocities)


@contextmanager
def _explained(file: str | os.PathLike) -> Iterator[None]:
    """Replace exceptions of MDTraj by an InputError that names `file`."""
    try:
        yield
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).split("\n")[0]
        name = str(file).lower()
        if isinstance(error, ImportError) and name.endswith(HDF5):
            reason = "MDTraj needs the package PyTables for its format (pip install tables)"
        elif not name.endswith((*FormatRegistry.loaders, *TOPOLOGIES)):
            reason = "MDTraj doesn't know its format"
        else:
            reason = f"it may be corrupt or truncated ({reason})"
        raise InputError(f"{file} can't be read: {reason}") from error
