"""Small models with random parameters, and their energy and forces by plain torch."""

from dataclasses import replace

import numpy as np
import torch
from systems import jittered_lattice, liquid_box, random_spec, random_theta

from openmm_cgadv import Model
from openmm_cgadv.dynamics import GeneralizedLangevin, LangevinParameters, PairFriction
from openmm_cgadv.potentials import PotentialSpec


def make_model(n_types=1, memory=2, n=64, seed=0, triclinic=False) -> Model:
    spec = random_spec(n_types, r_cut=0.55)
    box = liquid_box(n, 33.0, triclinic)
    dynamics = GeneralizedLangevin(n_types, memory, friction=12.0, floor=1.0)
    with torch.no_grad():
        dynamics.log_friction += 0.4 * torch.arange(n_types)
        dynamics.rotations += 1.5
    return Model(
        spec=spec,
        theta=random_theta(spec, seed),
        masses=18.015 + 7.0 * np.arange(n_types),
        temperature=298.15,
        timestep=0.005,
        friction=dynamics.export() if memory else LangevinParameters(dynamics.drift()),
        types=np.arange(n) % n_types,
        positions=jittered_lattice(n, box, 0.25, seed),
        box=box,
        provenance={"reference": "random", "seed": np.int64(seed)},
        metrics={"rdf_l1": 0.0123, "adf_l1": float("nan")},
    )


def make_pair_model(n_types=1, memory=2, n=64, seed=0) -> Model:
    motion = PairFriction(n_types, memory, 12.0, floor=1.0)
    with torch.no_grad():
        motion.rotations += 1.5
    return replace(
        make_model(n_types, 0, n, seed),
        friction=motion.export(),
    )


def random_friction(n_types, k, seed=0, size=30.0, r_cut=0.44, own=0.0):
    """With friction `own` of each bead, of the second type half as much."""
    pairs = n_types * (n_types + 1) // 2
    starts = tuple(0.24 + 0.01 * p for p in range(pairs))
    motion = PairFriction(n_types, k, size, starts, r_cut, floor=1.0, self_friction=own)
    motion.self_friction[1:] *= 0.5
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in motion.parameters():
            parameter += 0.5 * torch.randn(
                parameter.shape, generator=generator, dtype=torch.float64
            )
    return motion


def quiet(model: Model) -> Model:
    """The model with a weak pair energy alone, in which beads move without trouble."""
    spec = PotentialSpec(model.spec.type_names, (model.spec.term("pair"),))
    theta = 0.1 * model.theta[: spec.n_parameters]
    return replace(model, spec=spec, theta=theta)


def shifted_configurations(model, count, seed=5):
    """Configurations whose beads are moved by whole box vectors, each on its own."""
    generator = np.random.default_rng(seed)
    for k in range(count):
        positions = jittered_lattice(len(model.types), torch.as_tensor(model.box), 0.25, seed + k)
        images = generator.integers(-2, 3, positions.shape)
        yield positions.numpy() + images @ model.box


def energy_and_forces(model, positions):
    x = torch.tensor(positions, requires_grad=True)
    energy = model.potential()(x, torch.as_tensor(model.box))
    return energy.item(), -torch.autograd.grad(energy, x)[0].numpy()


def assert_equal_models(a, b):
    assert a.spec == b.spec
    for name in ("theta", "masses", "types", "positions", "box"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert a.friction.name == b.friction.name
    for name, array in a.friction.arrays().items():
        np.testing.assert_array_equal(array, b.friction.arrays()[name])
    for name in ("temperature", "timestep"):
        assert getattr(a, name) == getattr(b, name)
