"""Small systems of beads that several tests share."""

from __future__ import annotations

import numpy as np
import torch

from openmm_cgadv.potentials import PairSpec, PotentialSpec, ThreeBodySpec
from openmm_cgadv.trajectory import BeadTrajectory, BeadWriter

TEMPERATURE = 300.0


def liquid_box(n: int, density: float, triclinic: bool = False) -> torch.Tensor:
    """A box for ``n`` beads at a number density in nm⁻³."""
    length = (n / density) ** (1 / 3)
    box = torch.eye(3, dtype=torch.float64) * length
    if triclinic:
        box[1, 0], box[2, 0], box[2, 1] = 0.2 * length, -0.15 * length, 0.25 * length
    return box


def jittered_lattice(n: int, box: torch.Tensor, jitter: float, seed: int) -> torch.Tensor:
    """Positions [n, 3] of beads that don't overlap: a filled lattice, jittered by ``jitter`` spacings."""
    generator = np.random.default_rng(seed)
    side = int(np.ceil(n ** (1 / 3)))
    lattice = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1).reshape(-1, 3)
    lattice = lattice[generator.permutation(len(lattice))[:n]]
    lattice = (lattice + jitter * generator.uniform(-1, 1, lattice.shape)) / side
    return torch.from_numpy(lattice) @ box


def random_spec(n_types: int, r_cut: float = 0.6, n_radial: int = 2, l_max: int = 4) -> PotentialSpec:
    """A potential of every term, with different ranges for different pairs of types."""
    pairs = n_types * (n_types + 1) // 2
    return PotentialSpec(
        tuple(f"T{a}" for a in range(n_types)),
        PairSpec(tuple(0.24 + 0.01 * p for p in range(pairs)), r_cut, 12, tuple(2e5 + 1e4 * p for p in range(pairs))),
        ThreeBodySpec.splines(0.22, 0.8 * r_cut, n_radial, l_max),
    )


def random_theta(spec: PotentialSpec, seed: int, scale: float = 1.0) -> torch.Tensor:
    """Random parameters, small for the three-body term."""
    theta = torch.randn(spec.n_parameters, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    theta[spec.n_pair_parameters :] *= 0.3
    return scale * theta


def write(path, positions, boxes, types, names, forces=None) -> BeadTrajectory:
    """A bead file at `TEMPERATURE`, with a frame every 20 fs."""
    with BeadWriter(
        path, np.full(len(types), 18.0), types, names, TEMPERATURE, 0.02, {}, False, forces is not None
    ) as writer:
        writer.append(positions, boxes, None, forces)
        writer.finish()
    return BeadTrajectory.open(path)
