"""All-atom trajectories of random water molecules, and files that hold them."""

import mdtraj
import numpy as np
from mdtraj.formats import TRRTrajectoryFile

INTERVAL = 0.02


HOT = 60_000.0
"""Molecules of `all_atom` fly so fast that no bead could at room temperature (K)."""


def all_atom(n_frames=40, molecules=5, box=1.5 * np.eye(3), seed=0, strain=0.0, speed=1.0):
    """Topology, whole and unwrapped atoms [T, n, 3] that drift through the box, boxes [T, 3, 3]."""
    rng = np.random.default_rng(seed)
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    for _ in range(molecules):
        residue = topology.add_residue("HOH", chain)
        for name, element in (("O", "O"), ("H1", "H"), ("H2", "H")):
            topology.add_atom(name, mdtraj.element.get_by_symbol(element), residue)
    boxes = box * (1 + strain * rng.uniform(-1, 1, (n_frames, 1, 1)))
    drift = 3.0 * speed * rng.uniform(-1, 1, (1, molecules, 3)) / n_frames
    fraction = rng.uniform(0, 1, (1, molecules, 3)) + np.arange(n_frames)[:, None, None] * drift
    center = (fraction @ boxes)[:, :, None]
    shape = speed * rng.uniform(-0.08, 0.08, (n_frames, molecules, 3, 3))
    return topology, (center + shape).reshape(n_frames, -1, 3), boxes


def wrap(x, boxes, atomwise=True):
    """Atoms (or, whole, molecules by their first atom) put back into the box."""
    by = x if atomwise else np.repeat(x[:, ::3], 3, axis=1)
    return x - np.floor(by @ np.linalg.inv(boxes)) @ boxes


def save(path, topology, x, boxes, start=0.0, interval=INTERVAL, **fields):
    n = len(x)
    times = (start + interval * np.arange(n)).astype(np.float32)
    if path.suffix == ".trr":
        with TRRTrajectoryFile(str(path), "w") as file:
            file._write(
                x.astype(np.float32),
                times,
                np.arange(n, dtype=np.int32),
                boxes.astype(np.float32),
                np.zeros(n, np.float32),
                fields.get("velocities"),
                fields.get("forces"),
            )
        return path
    trajectory = mdtraj.Trajectory(x, topology, time=times)
    trajectory.unitcell_vectors = boxes
    trajectory.save(str(path))
    return path
