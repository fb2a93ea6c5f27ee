"""Baseline fits recover what is known of the data they are given."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from systems import TEMPERATURE, jittered_lattice, liquid_box, random_spec, random_theta, write

from openmm_cgadv import config
from openmm_cgadv.fit import InitialFit, RelativeEntropy, fit_initial
from openmm_cgadv.fit.basis import basis
from openmm_cgadv.fit.boltzmann_inversion import InversionSettings, boltzmann_inversion
from openmm_cgadv.fit.force_matching import ForceMatchingSettings, force_matching
from openmm_cgadv.fit.ranges import potential_spec
from openmm_cgadv.fit.relative_entropy import RelativeEntropySettings
from openmm_cgadv.potentials import PairSpec, Potential, PotentialSpec, ThreeBodySpec
from openmm_cgadv.potentials.splines import spline_weights
from openmm_cgadv.units import KB


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    """Configurations of two bead types with the forces of a known potential and noise on them."""
    spec = random_spec(2)
    theta = random_theta(spec, 0, 3.0)
    n, frames = 120, 40
    rng = np.random.default_rng(0)
    types = rng.integers(0, 2, n)
    box = liquid_box(n, 33.0)
    potential = Potential(spec, theta, torch.from_numpy(types))
    positions, forces = [], []
    for frame in range(frames):
        x = jittered_lattice(n, box, 0.35, frame).float().double().requires_grad_()
        (gradient,) = torch.autograd.grad(potential(x, box), x)
        positions.append(x.detach().numpy())
        forces.append(-gradient.numpy() + rng.normal(scale=20.0, size=gradient.shape))
    boxes = np.broadcast_to(box.numpy(), [frames, 3, 3])
    path = tmp_path_factory.mktemp("mixture") / "beads.h5"
    return (
        write(path, np.array(positions), boxes, types, spec.type_names, np.array(forces)),
        spec,
        theta.numpy(),
    )


def test_force_matching_recovers_the_forces_of_a_known_mixture(mixture):
    trajectory, spec, theta = mixture
    fitted, stderr, report = force_matching(trajectory, spec, ForceMatchingSettings(n_frames=20))
    assert report["force_error"] == pytest.approx(20.0, rel=0.03)
    assert report["held_out_force_error"] == pytest.approx(20.0, rel=0.03)
    # Coefficients whose spread the data do determine scatter by their standard errors.
    determined = stderr < 0.5
    assert determined.sum() > 20
    z = (fitted - theta)[determined] / stderr[determined]
    assert 0.6 < np.sqrt(np.mean(z**2)) < 1.5


@pytest.mark.slow
def test_boltzmann_inversion_recovers_the_potential_of_a_pair(tmp_path):
    """Two beads alone in a box are distributed as exp(−u/kT) exactly."""
    kT, length = KB * TEMPERATURE, 1.5
    spec = PotentialSpec(("A",), (PairSpec((0.25,), 0.7, 10, (5e6,)),))
    theta = np.array([12.0, 4, -2, -3, -2, 0.5, 1, -0.5, -1, -0.3])

    def energy(r):
        inside = r < 0.7
        first, weights = spline_weights(
            torch.from_numpy(r[inside]), torch.full([inside.sum()], 0.25), 0.7, 10
        )
        u = np.zeros(len(r))
        u[inside] = (
            weights.numpy() * np.append(theta, [0, 0, 0])[first.numpy()[:, None] + np.arange(4)]
        ).sum(1)
        return u + 5e6 / 6 * np.clip(0.25 - r, 0, None) ** 3

    rng = np.random.default_rng(0)
    d = rng.uniform(-length / 2, length / 2, [3_000_000, 3])
    accept = rng.uniform(0, np.exp(3.2 / kT), len(d)) < np.exp(
        -energy(np.linalg.norm(d, axis=1)) / kT
    )
    d = d[accept][:40000]
    positions = np.stack([np.zeros_like(d), d], 1)
    boxes = np.broadcast_to(np.eye(3) * length, [len(d), 3, 3])
    trajectory = write(tmp_path / "pair.h5", positions, boxes, [0, 0], ("A",))
    fitted, _, _ = boltzmann_inversion(trajectory, spec, InversionSettings(n_frames=20000))
    # N − 1 instead of N/V counts the pair; only the constant beyond the cutoff is left out of the fit.
    r = np.linspace(0.30, 0.65, 50)
    first, weights = spline_weights(torch.from_numpy(r), torch.full([50], 0.25), 0.7, 10)
    u = (weights.numpy() * np.append(fitted, [0, 0, 0])[first.numpy()[:, None] + np.arange(4)]).sum(
        1
    )
    shift = kT * np.log(
        np.mean(np.exp(-energy(np.linalg.norm(rng.uniform(-0.75, 0.75, [200000, 3]), axis=1)) / kT))
    )
    assert np.sqrt(np.mean((u - shift - energy(r)) ** 2)) < 0.1 * kT


def test_relative_entropy_vanishes_in_the_reference_and_points_back_to_it(mixture):
    trajectory, spec, _ = mixture
    entropy = RelativeEntropy(trajectory, spec)
    positions, boxes = (
        torch.from_numpy(trajectory.positions()),
        torch.from_numpy(trajectory.boxes()),
    )
    assert entropy.coordinates(positions, boxes).mean(0).abs().max() < 1e-8
    # A step against the gradient lowers the energy of what the reference has more of than the model.
    squeezed = -entropy.coordinates(0.97 * positions, boxes).mean(0)
    change = basis(positions, boxes, entropy.types, spec) - basis(
        0.97 * positions, boxes, entropy.types, spec
    )
    assert (change.mean(0) @ entropy.theta(-squeezed)) < 0
    theta = torch.randn(spec.n_parameters, dtype=torch.float64)
    torch.testing.assert_close(entropy.theta(entropy.phi(theta)), theta, rtol=1e-6, atol=1e-6)


def test_a_step_of_the_relative_entropy_goes_the_same_part_of_the_way_however_far_it_is(mixture):
    """The model's ensemble is that of the reference, reweighted."""
    trajectory, spec, _ = mixture
    entropy, kT = RelativeEntropy(trajectory, spec), KB * TEMPERATURE
    rows = basis(
        torch.from_numpy(trajectory.positions()),
        torch.from_numpy(trajectory.boxes()),
        entropy.types,
        spec,
    )
    values, vectors = torch.linalg.eigh(torch.cov((rows @ entropy.whitening).T, correction=0))
    assert 0.8 < values[-1] < 1.0
    for distance in (1e-4, 1e-2):
        phi = distance * vectors[:, -1]
        weights = torch.softmax(-rows @ entropy.theta(phi) / kT, 0)
        gradient = entropy.whitening.T @ (rows.mean(0) - weights @ rows)
        left = phi.clone()
        entropy.descend(left, gradient, kT)
        torch.testing.assert_close(
            left,
            (1 - RelativeEntropySettings.rate * values[-1]) * phi,
            rtol=0,
            atol=0.01 * distance,
        )
    far = torch.zeros_like(phi)
    entropy.descend(far, 1e3 * torch.ones_like(phi), kT)
    assert float(far.norm()) == pytest.approx(
        entropy.settings.rate * entropy.settings.largest_gradient * kT
    )


def test_contacts_that_never_occur_are_given_small_steps(mixture):
    trajectory, spec, _ = mixture
    near = ThreeBodySpec.splines(0.05, spec.term("three_body").r_cut, 8, 4)
    entropy = RelativeEntropy(trajectory, replace(spec, terms=(spec.term("pair"), near)))
    rows = basis(
        torch.from_numpy(trajectory.positions()),
        torch.from_numpy(trajectory.boxes()),
        entropy.types,
        entropy.spec,
    )
    deviation = rows.std(0)[spec.slices["three_body"]]
    typical = deviation.square().mean().sqrt()
    assert deviation.min() < 1e-9 * typical
    assert entropy.whitening.norm(dim=1).max() < 2e3 / typical


def test_ranges_follow_the_data(mixture):
    trajectory, _, _ = mixture
    spec = potential_spec(
        trajectory, config.Potential(cutoff_nm=0.6, three_body_cutoff_nm=0.4, pair_functions=14)
    )
    assert spec.n_types == 2 and len(spec.term("pair").r_min) == 3
    with pytest.raises(ValueError, match=r"potential.cutoff_nm: found 0.9, expected at most 0.76"):
        potential_spec(trajectory, config.Potential(cutoff_nm=0.9))


def test_cutoffs_follow_from_the_neighbours_of_a_bead(tmp_path):
    """Beads without correlations, whose number of neighbours within r is 4/3 π r³ times the density."""
    n, density = 300, 21.0
    box = liquid_box(n, density).numpy()
    x = np.random.default_rng(0).uniform(0, box[0, 0], (60, n, 3))
    boxes = np.broadcast_to(box, [60, 3, 3])
    trajectory = write(tmp_path / "free.h5", x, boxes, [0] * n, ("A",))
    spec = potential_spec(trajectory, config.Potential())
    radius = {
        neighbors: (neighbors / (4 / 3 * np.pi * density)) ** (1 / 3) for neighbors in (8, 47)
    }
    assert spec.term("pair").r_cut == pytest.approx(radius[47], abs=0.011)
    assert spec.term("three_body").r_cut == pytest.approx(radius[8], abs=0.011)
    spec = potential_spec(trajectory, config.Potential(cutoff_nm=0.4))
    assert (spec.term("pair").r_cut, spec.term("three_body").r_cut) == (0.4, 0.4)
    with pytest.raises(
        ValueError, match="three_body_cutoff_nm: found 1.1, expected at most the pair cutoff"
    ):
        potential_spec(trajectory, config.Potential(three_body_cutoff_nm=1.1))

    # Radial functions are as wide in any liquid; beads without correlations may come as close as 0.03 nm.
    for cutoff, number in ((0.25, 5), (0.15, 3), (0.45, 6)):
        assert (
            potential_spec(trajectory, config.Potential(three_body_cutoff_nm=cutoff))
            .term("three_body")
            .n_radial
            == number
        )
    assert (
        potential_spec(trajectory, config.Potential(radial_functions=2)).term("three_body").n_radial
        == 2
    )

    few = write(tmp_path / "few.h5", x[:, :40], boxes, [0] * 40, ("A",))
    spec = potential_spec(few, config.Potential())
    assert 0.49 * box[0, 0] < spec.term("pair").r_cut <= 0.5 * box[0, 0]


def test_initial_fit_round_trip_and_choice_of_method(mixture, tmp_path):
    trajectory, _, _ = mixture
    settings = config.Potential(cutoff_nm=0.6, pair_functions=14, radial_functions=2)
    fit = fit_initial(trajectory, settings)
    assert fit.report["method"] == "force_matching"
    fit.save(tmp_path)
    loaded = InitialFit.load(tmp_path)
    assert loaded.spec == fit.spec and np.array_equal(loaded.theta, fit.theta)
    (tmp_path / "fit.json").write_text('{"potential": ')
    with pytest.raises(ValueError, match="fit.json is corrupt: delete it"):
        InitialFit.load(tmp_path)

    plain = write(
        tmp_path / "plain.h5",
        trajectory.positions(),
        trajectory.boxes(),
        trajectory.types,
        ("A", "B"),
    )
    assert fit_initial(plain, settings).report["method"] == "boltzmann_inversion"
    with pytest.raises(
        ValueError,
        match="potential.initial: found force_matching and a reference without forces",
    ):
        fit_initial(
            plain, config.Potential(**settings.model_dump() | {"initial": "force_matching"})
        )


def test_boltzmann_inversion_fits_the_sum_of_two_terms_between_the_same_beads(mixture):
    """Not each of them to the whole potential of mean force, which would count it twice."""
    trajectory, spec, _ = mixture

    @dataclass(frozen=True)
    class Second(PairSpec):
        tag: ClassVar[str] = "second"
        code: ClassVar[None] = None

    pair = spec.term("pair")
    shorter = Second(pair.r_min, 0.8 * pair.r_cut, 8, (0.0,) * len(pair.r_min))
    alone = PotentialSpec(spec.type_names, (pair,))
    both = PotentialSpec(spec.type_names, (pair, shorter))
    r = np.linspace(max(pair.r_min) + 0.01, pair.r_cut, 60)
    curves = []
    for potential in (alone, both):
        theta, *_ = boltzmann_inversion(trajectory, potential, InversionSettings())
        found = potential.pair_curves()
        assert [curve.types for curve in found] == [(0, 0), (0, 1), (1, 1)]
        # The pair of types with the most data.
        curves.append(found[0].energy(theta, r).numpy())
    assert np.abs(curves[0]).max() > 0.3
    assert curves[1] == pytest.approx(curves[0], abs=0.005)
