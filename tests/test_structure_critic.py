"""The discriminator of structure leads a potential to that of its reference."""

import numpy as np
import pytest
import torch
from systems import TEMPERATURE, jittered_lattice, liquid_box, random_spec, write

from openmm_cgadv.fit import RelativeEntropy
from openmm_cgadv.fit.basis import basis
from openmm_cgadv.methods.adversarial.structure_discriminator import ConfigurationalDiscriminator
from openmm_cgadv.potentials import PairSpec, PotentialSpec
from openmm_cgadv.units import KB

KT = KB * TEMPERATURE
PAIRS, R_CUT = 27, 0.7
SPEC = PotentialSpec(("A",), (PairSpec((0.25,), R_CUT, 8, (0.0,)),))
TRUTH = np.array([9.0, 4, -3, -4, -2, 1, 1.5, -1])


def energy(theta, r):
    """Of two beads at distances r (nm), with the splines of `SPEC`."""
    box = 5 * torch.eye(3, dtype=torch.float64)
    x = torch.zeros(len(r), 2, 3, dtype=torch.float64)
    x[:, 1, 0] = torch.as_tensor(r)
    return (
        basis(x, box.expand(len(r), 3, 3), torch.zeros(2, dtype=torch.int64), SPEC).numpy() @ theta
    )


GRID = np.linspace(0.2, R_CUT, 2001)


def pairs(theta, frames, rng):
    """Configurations [frames, 2 PAIRS, 3] of pairs far from each other, each distributed as exp(−u/kT) inside the cutoff."""
    density = GRID**2 * np.exp(-energy(theta, GRID) / KT)
    r = np.interp(rng.uniform(size=[frames, PAIRS]), np.cumsum(density) / density.sum(), GRID)
    direction = rng.normal(size=[frames, PAIRS, 3])
    d = r[..., None] * direction / np.linalg.norm(direction, axis=-1, keepdims=True)
    places = np.stack(np.meshgrid(*[2.2 * np.arange(3)] * 3, indexing="ij"), -1).reshape(-1, 3)
    return np.concatenate([np.broadcast_to(places, d.shape), places + d], 1)


def test_potential_of_pairs_is_found_by_the_critic_alone(tmp_path):
    seed = 0
    rng, random = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    frames, box = 800, 6.6 * np.eye(3)
    trajectory = write(
        tmp_path / "pairs.h5",
        pairs(TRUTH, frames, rng),
        np.broadcast_to(box, [frames, 3, 3]),
        [0] * 2 * PAIRS,
        ("A",),
    )
    entropy = RelativeEntropy(trajectory, SPEC)
    discriminator = ConfigurationalDiscriminator(trajectory, entropy, frames)
    phi = torch.zeros(SPEC.n_parameters, dtype=torch.float64)
    mean = torch.zeros_like(phi)
    iterations, boxes = 80, torch.from_numpy(box).expand(16, 3, 3)
    for n in range(iterations):
        x = torch.from_numpy(pairs(entropy.theta(phi).numpy(), 16, rng))
        gradient, values = discriminator.update(entropy.coordinates(x, boxes), random)
        entropy.descend(phi, gradient, KT)
        if n >= iterations - 20:
            mean += phi / 20
    r = np.linspace(0.27, 0.65, 50)
    found, truth = energy(entropy.theta(mean).numpy(), r), energy(TRUTH, r)
    assert np.sqrt(np.mean(truth**2)) > 0.5 * KT
    assert np.sqrt(np.mean((found - truth) ** 2)) < 0.1 * KT
    assert abs(values["gap"]) < 0.05


@pytest.fixture()
def taught(tmp_path):
    """A discriminator of pairs, and coordinates of the potential they have."""
    frames, box = 1000, 6.6 * np.eye(3)
    boxes = np.broadcast_to(box, [frames, 3, 3])
    trajectory = write(
        tmp_path / "pairs.h5",
        pairs(TRUTH, frames, np.random.default_rng(0)),
        boxes,
        [0] * 2 * PAIRS,
        ("A",),
    )
    entropy = RelativeEntropy(trajectory, SPEC)
    return ConfigurationalDiscriminator(trajectory, entropy, frames), entropy


def ask(discriminator, entropy, slope, theta):
    """What a discriminator of this slope says of 1000 generated configurations; these, and its gap."""
    box = torch.from_numpy(6.6 * np.eye(3)).expand(1000, 3, 3)
    generated = torch.from_numpy(pairs(theta, 1000, np.random.default_rng(1)))
    with torch.no_grad():
        discriminator.trainer.module.linear.weight.copy_(slope)
    gap = discriminator.gap(entropy.coordinates(generated, box).float())
    return discriminator.gradient(gap), generated, box, gap


def test_the_slope_of_a_perfect_critic_is_what_the_parameters_lack(taught):
    """The logits that are right for pairs are known."""
    discriminator, entropy = taught
    theta = 0.8 * TRUTH
    right = -entropy.phi(torch.from_numpy(TRUTH - theta)) / KT
    found, generated, boxes, gap = ask(discriminator, entropy, right, theta)
    # Units and sign: a whole step leads to the truth.
    stepped = entropy.theta(
        entropy.phi(torch.from_numpy(theta)) - KT * discriminator.trainer.module.slope.double()
    )
    torch.testing.assert_close(stepped, torch.from_numpy(TRUTH), rtol=1e-5, atol=1e-5)
    # And it goes where the averages themselves lead, which only tell it within their noise of 0.1.
    wanted = -entropy.coordinates(generated, boxes).mean(0)
    assert wanted.norm() > 0.5
    assert float(found @ wanted / (found.norm() * wanted.norm())) > 0.9
    assert 0.7 < float(found.norm() / wanted.norm()) < 1.4
    assert gap == pytest.approx(float(right @ wanted), rel=1e-3)


def test_a_critic_whose_logits_are_too_small_is_followed_as_far_as_its_gap_says(taught):
    discriminator, entropy = taught
    theta = 0.8 * TRUTH
    right = -entropy.phi(torch.from_numpy(TRUTH - theta)) / KT
    found, generated, boxes, _ = ask(discriminator, entropy, 0.01 * right, theta)
    wanted = -entropy.coordinates(generated, boxes).mean(0)
    assert float(found @ right / right.norm()) == pytest.approx(
        float(wanted @ right / right.norm()), rel=1e-3
    )


def test_a_critic_of_two_bead_types_says_nothing_before_it_has_learned_and_little_of_the_reference_itself(
    tmp_path,
):
    spec = random_spec(2)
    box, types = liquid_box(60, 33.0), [0, 1] * 30
    x = np.stack([jittered_lattice(60, box, 0.35, frame).numpy() for frame in range(30)])
    boxes = np.broadcast_to(box.numpy(), [30, 3, 3])
    trajectory = write(tmp_path / "mixture.h5", x, boxes, types, spec.type_names)
    entropy = RelativeEntropy(trajectory, spec)
    discriminator = ConfigurationalDiscriminator(trajectory, entropy, 30)
    own, boxes = torch.from_numpy(x), torch.from_numpy(boxes.copy())
    assert torch.equal(
        discriminator.gradient(discriminator.gap(discriminator.reference)),
        torch.zeros(spec.n_parameters),
    )
    random, squeezed = torch.Generator().manual_seed(0), 0.93 * own
    for _ in range(12):
        far, values = discriminator.update(entropy.coordinates(squeezed, boxes), random)
    assert values["gap"] > 1
    discriminator = ConfigurationalDiscriminator(trajectory, entropy, 30)
    for _ in range(12):
        near, values = discriminator.update(entropy.coordinates(own, boxes), random)
    assert abs(values["gap"]) < 0.2
    assert torch.isfinite(far).all() and far.norm() > 5 * near.norm()
