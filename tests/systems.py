"""Small systems of beads that several tests share."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch

from openmm_cgadv import config
from openmm_cgadv.data.trajectory import BeadTrajectory, BeadWriter
from openmm_cgadv.dynamics import GeneralizedLangevinParameters, pair_rollout
from openmm_cgadv.fit import InitialFit
from openmm_cgadv.potentials import PairSpec, PotentialSpec, ThreeBodySpec
from openmm_cgadv.units import KB

TEMPERATURE = 300.0
KT = KB * TEMPERATURE

FREE_MASS, FREE_DT, FREE_BEADS, FREE_LENGTH = 18.0, 0.01, 64, 2.0
"""Mass (Da), time step (ps), number and box edge (nm) of `free_beads`."""
FREE = InitialFit(
    PotentialSpec(("A",), (PairSpec((0.2,), 0.5, 6, (0.0,)),)), np.zeros(6), np.zeros(6)
)
"""A potential that is zero."""


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


def random_spec(
    n_types: int, r_cut: float = 0.6, n_radial: int = 2, l_max: int = 4
) -> PotentialSpec:
    """A potential of every term, with different ranges for different pairs of types."""
    pairs = n_types * (n_types + 1) // 2
    return PotentialSpec(
        tuple(f"T{a}" for a in range(n_types)),
        (
            PairSpec(
                tuple(0.24 + 0.01 * p for p in range(pairs)),
                r_cut,
                12,
                tuple(2e5 + 1e4 * p for p in range(pairs)),
            ),
            ThreeBodySpec.splines(0.22, 0.8 * r_cut, n_radial, l_max),
        ),
    )


def random_theta(spec: PotentialSpec, seed: int, scale: float = 1.0) -> torch.Tensor:
    """Random parameters, small for the three-body term."""
    theta = torch.randn(
        spec.n_parameters, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    if "three_body" in spec.slices:
        theta[spec.slices["three_body"]] *= 0.3
    return scale * theta


def write(path, positions, boxes, types, names, forces=None) -> BeadTrajectory:
    """A bead file at `TEMPERATURE`, with a frame every 20 fs."""
    with BeadWriter(
        path,
        np.full(len(types), 18.0),
        types,
        names,
        TEMPERATURE,
        0.02,
        {},
        False,
        forces is not None,
    ) as writer:
        writer.append(positions, boxes, None, forces)
        writer.finish()
    return BeadTrajectory.open(path)


def scaled(friction: GeneralizedLangevinParameters, factor: float) -> GeneralizedLangevinParameters:
    """Friction and memory with another size of the drift matrix, and so with other times."""
    return replace(friction, drift=factor * friction.drift)


def free_beads(path, motion, frames, seed=0):
    """A trajectory of beads without forces, propagated exactly; `motion` defines their friction and memory kernel."""
    rng = np.random.default_rng(seed)
    e, s = (m[0].detach().numpy() for m in motion.propagator(FREE_DT))
    thermal = math.sqrt(KT / FREE_MASS)
    x = rng.uniform(0, FREE_LENGTH, [FREE_BEADS, 3])
    state = thermal * rng.normal(size=[FREE_BEADS, len(e), 3])
    positions = []
    for _ in range(frames):
        positions.append(x)
        for _ in range(2):
            v = state[:, 0]
            state = e @ state + thermal * s @ rng.normal(size=state.shape)
            x = x + 0.5 * FREE_DT * (v + state[:, 0])
    with BeadWriter(
        path, [FREE_MASS] * FREE_BEADS, [0] * FREE_BEADS, ("A",), TEMPERATURE, 2 * FREE_DT, {}
    ) as writer:
        writer.append(np.array(positions), np.broadcast_to(FREE_LENGTH * np.eye(3), [frames, 3, 3]))
        writer.finish()
    return BeadTrajectory.open(path)


def free_experiment(equation="generalized_langevin", friction=20.0, **training):
    """Settings for a short training on `free_beads`."""
    return config.Experiment.model_validate(
        {
            "reference": {"temperature_K": TEMPERATURE, "water": "spce"},
            "potential": {"cutoff_nm": 0.5},
            "dynamics": {
                "equation": equation,
                "timestep_fs": 1000 * FREE_DT,
                "initial_friction_per_ps": friction,
            },
            "training": {"window_ps": 0.16, "validate_every": 2, "checkpoint_every": 2, **training},
        }
    )


PAIR_BEADS = 100
PAIR_BOX = liquid_box(PAIR_BEADS, 33.0)


def pair_liquid(path, motion, frames, forces=False):
    """A trajectory of beads without conservative forces, whose friction acts between pairs."""
    types = np.zeros(PAIR_BEADS, int)
    generator = torch.Generator().manual_seed(3)
    x = torch.rand([1, PAIR_BEADS, 3], dtype=torch.float64, generator=generator) @ PAIR_BOX
    masses = torch.full([PAIR_BEADS], FREE_MASS, dtype=torch.float64)
    v = (KT / FREE_MASS) ** 0.5 * torch.randn(x.shape, dtype=torch.float64, generator=generator)
    v = v - v.mean(1, keepdim=True)
    with torch.no_grad():
        positions, _, _ = pair_rollout(
            x,
            v,
            PAIR_BOX[None],
            types=torch.from_numpy(types),
            masses=masses,
            spec=FREE.spec,
            theta=torch.zeros(6, dtype=torch.float64),
            friction=motion,
            kT=KT,
            dt=FREE_DT,
            frames=list(range(0, 2 * frames, 2)),
            seed=1,
        )
    with BeadWriter(
        path, [FREE_MASS] * PAIR_BEADS, types, ("A",), TEMPERATURE, 2 * FREE_DT, {}, False, forces
    ) as writer:
        boxes = np.broadcast_to(PAIR_BOX.numpy(), [frames, 3, 3])
        zero = np.zeros([frames, PAIR_BEADS, 3]) if forces else None
        writer.append(positions[0].numpy(), boxes, None, zero)
        writer.finish()
    return BeadTrajectory.open(path)
