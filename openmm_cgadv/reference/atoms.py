"""All-atom frames from trajectory files of any format that MDTraj reads, some at a time."""
from __future__ import annotations

import os
import struct
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import mdtraj
import numpy as np
from mdtraj.utils import lengths_and_angles_to_box_vectors

CHUNK_ATOMS = 1 << 20
"""Atoms, over all frames of a chunk, that are in memory at once."""
TIMED = (".xtc", ".trr", ".nc", ".netcdf", ".ncdf", ".h5", ".hdf5", ".dtr", ".stk")
"""Formats whose files hold the time of each frame."""
UNCOUNTED = (".pdb", ".pdb.gz", ".cif", ".cif.gz", ".mmcif", ".mmcif.gz", ".pdbx", ".pdbx.gz",
             ".gsd", ".mdcrd", ".crd")
"""Formats whose number of atoms MDTraj doesn't tell without reading everything."""

TRR_MAGIC, TRR_HEADER = 1993, struct.Struct(">i20x13i")
"""First number of each frame of a TRR file, and its header up to the time: the ten sizes of what follows (bytes; positions,
velocities and forces last), then the numbers of atoms, step and energies."""


@dataclass
class Frames:
    """Consecutive frames of one file.

    Attributes
    ----------
    first : int
        Number of the first frame in the file.
    positions, velocities, forces : array [T, n_atoms, 3]
        nm, nm/ps, kJ/mol/nm; velocities and forces are None where a frame of the file holds none.
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

    def __len__(self):
        return len(self.positions)


def load_topology(file) -> mdtraj.Topology:
    """Topology in `file`; ValueError if MDTraj can't read it."""
    with _explained(file):
        return mdtraj.load_topology(str(file))


def count_frames(file) -> int | None:
    """Number of frames in `file`, None where its format doesn't tell it cheaply."""
    try:
        with mdtraj.open(str(file)) as opened:
            return len(opened)
    except Exception:
        return None


def check_atoms(file, topology, topology_file):
    """Raise ValueError if the frames of `file` have not as many atoms as `topology`."""
    if str(file).lower().endswith(UNCOUNTED):
        return
    with _explained(file), mdtraj.open(str(file)) as opened:
        first = opened.read(n_frames=1)
    _check_frame_count(file)
    positions = first[0] if isinstance(first, tuple) else first
    check_number(file, positions.shape[1], topology, topology_file)


def check_number(file, found, topology, topology_file):
    """Raise ValueError if a frame of `file` has `found` atoms, and `topology` another number."""
    if found != topology.n_atoms:
        raise ValueError(f"{file} holds {found} atoms, but its topology {topology_file} has {topology.n_atoms}")


def _check_frame_count(file):
    """Raise ValueError if a DCD file holds fewer frames than its header announces.

    Of the formats here, DCD alone is read by MDTraj without a word when it was cut.
    """
    if Path(file).suffix.lower() != ".dcd":
        return
    with open(file, "rb") as opened:
        head = opened.read(12)
    order = "<" if head[:4] == (84).to_bytes(4, "little") else ">"
    announced, found = int(np.frombuffer(head[8:12], f"{order}i4")[0]), count_frames(file)
    if found is not None and found < announced:
        raise ValueError(f"{file} is truncated: its header announces {announced} frames, and it "
                         f"holds {found}")


def read_frames(file, topology):
    """Yield all frames of `file` as `Frames` of a size that memory holds easily.

    Raises
    ------
    ValueError
        The file is damaged, or of a format that MDTraj doesn't read.
    """
    n = max(1, min(1000, CHUNK_ATOMS // topology.n_atoms))
    kind = Path(file).suffix.lower()
    reader = {".trr": _read_trr, ".h5": _read_h5, ".hdf5": _read_h5}.get(kind, _read_any)
    first, timed = 0, kind in TIMED
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
        raise ValueError(f"{file} holds no frames")


def _read_any(file, topology, n):
    for part in mdtraj.iterload(file, chunk=n, top=topology):
        yield Frames(0, part.xyz, part.unitcell_vectors, part.time)


def _read_trr(file, topology, n):
    has = {f"get_{name}": there for name, there in _in_every_frame(file).items()}
    with mdtraj.formats.TRRTrajectoryFile(file) as opened:
        while True:
            xyz, times, _, box, _, velocities, forces = opened._read(n, None, **has)
            if len(xyz) == 0:
                return
            yield Frames(0, xyz, box, times, velocities, forces)


def _in_every_frame(file):
    """Whether all frames of a TRR file hold velocities, and forces: ``{name: bool}``.

    MDTraj gives what happens to be in memory where a frame lacks them, as those of GROMACS do whose intervals of output
    differ. The headers of the frames tell.
    """
    found, frame = {"velocities": True, "forces": True}, 0
    with open(file, "rb") as opened:
        while len(head := opened.read(TRR_HEADER.size)) == TRR_HEADER.size:
            magic, *sizes, atoms, _, _ = TRR_HEADER.unpack(head)
            if magic != TRR_MAGIC or not sizes[7]:
                raise ValueError(f"frame {frame} holds no positions")
            for name, size in zip(found, sizes[8:]):
                found[name] &= size > 0
            number = sizes[7] // (3 * atoms)  # bytes
            opened.seek(2 * number + sum(sizes), os.SEEK_CUR)
            frame += 1
    return found


def _read_h5(file, topology, n):
    with mdtraj.formats.HDF5TrajectoryFile(file) as opened:
        while True:
            part = opened.read(n_frames=n)
            if len(part) == 0:
                return
            box = None
            if part.cell_lengths is not None:
                box = np.stack(lengths_and_angles_to_box_vectors(*part.cell_lengths.T,
                                                                 *part.cell_angles.T), axis=1)
            yield Frames(0, part.coordinates, box, part.time, part.velocities)


@contextmanager
def _explained(file):
    """Turn whatever MDTraj raises about `file` into one sentence that names it."""
    try:
        yield
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).split("\n")[0]
        if isinstance(error, ImportError) and "PyTables" in str(error):
            reason = "MDTraj needs the package PyTables for its format (pip install tables)"
        elif "no loader" in str(error) or "extension" in str(error):
            reason = "MDTraj doesn't know its format"
        else:
            reason = f"it may be damaged or cut short ({reason})"
        raise ValueError(f"{file} can't be read: {reason}") from error
