"""The learned energy: its form, its symmetries, its gradients."""

import numpy as np
import pytest
import scipy.interpolate
import scipy.special
import torch
from systems import jittered_lattice, liquid_box, random_spec, random_theta

from openmm_cgadv.potentials import PairSpec, Potential, PotentialSpec
from openmm_cgadv.potentials.neighbors import _candidate_pairs, neighbor_pairs
from openmm_cgadv.potentials.splines import spline_weights
from openmm_cgadv.potentials.terms.threebody import spherical_harmonics

KINDS = pytest.mark.parametrize("n_types", [1, 2])


def system(n_types, n=80, seed=0, triclinic=False):
    spec = random_spec(n_types)
    box = liquid_box(n, 30.0, triclinic)
    positions = jittered_lattice(n, box, 0.3, seed)
    types = torch.from_numpy(np.random.default_rng(seed).integers(0, n_types, n))
    return Potential(spec, random_theta(spec, seed), types), positions, box


def test_splines_match_scipy_and_extrapolate_linearly():
    n, r_min, r_max = 9, 0.24, 0.7
    h = (r_max - r_min) / n
    knots = r_min + h * np.arange(-3, n + 4)
    for k in range(n):
        reference = scipy.interpolate.BSpline.basis_element(knots[k : k + 5], extrapolate=False)
        r = np.linspace(r_min, r_max - 1e-9, 301)
        first, weights = spline_weights(
            torch.from_numpy(r), torch.full([301], r_min, dtype=torch.float64), r_max, n
        )
        ours = torch.where(first[:, None] + torch.arange(4) == k, weights, 0.0).sum(1).numpy()
        np.testing.assert_allclose(ours, np.nan_to_num(reference(r)), atol=1e-12)
    r = torch.tensor([0.10, 0.17, 0.24], dtype=torch.float64)
    _, weights = spline_weights(r, torch.full([3], r_min, dtype=torch.float64), r_max, n)
    np.testing.assert_allclose(weights[0] - 2 * weights[1] + weights[2], 0, atol=1e-12)


def test_spherical_harmonics_obey_the_addition_theorem():
    unit = torch.nn.functional.normalize(torch.randn(20, 3, dtype=torch.float64), dim=1)
    harmonics = spherical_harmonics(unit, 6)
    for l in range(7):
        block = harmonics[:, l * l : (l + 1) ** 2]
        expected = scipy.special.eval_legendre(l, (unit @ unit.T).numpy())
        np.testing.assert_allclose(block @ block.T, expected, atol=1e-12)


@pytest.mark.parametrize("triclinic", [False, True])
@KINDS
def test_energy_is_the_explicit_sum_over_pairs_and_triplets(n_types, triclinic):
    potential, x, box = system(n_types, 80, 1, triclinic)
    spec, theta = random_spec(n_types), potential.theta.detach()
    types = potential.types
    # Every image within two box vectors, instead of the minimum image.
    shifts = torch.cartesian_prod(*[torch.arange(-2.0, 3.0, dtype=torch.float64)] * 3) @ box
    near = [[] for _ in x]
    energy = 0.0

    def splines(r, r_min, r_max, n):
        first, weights = spline_weights(r.reshape(1), r.new_tensor([r_min]), r_max, n)
        values = torch.zeros(n + 3, dtype=torch.float64)
        values[first[0] : first[0] + 4] = weights[0]
        return values[:n]

    for i in range(len(x)):
        for j in range(len(x)):
            d = x[j] - x[i] + shifts
            for vector in d[(d.norm(dim=1) < spec.r_cut) & (d.norm(dim=1) > 0)]:
                r, p = vector.norm(), spec.type_pair(int(types[i]), int(types[j]))
                c = theta[p * spec.term("pair").n_basis : (p + 1) * spec.term("pair").n_basis]
                energy += 0.5 * (
                    splines(
                        r,
                        spec.term("pair").r_min[p],
                        spec.term("pair").r_cut,
                        spec.term("pair").n_basis,
                    )
                    @ c
                )
                energy += (
                    0.5
                    * spec.term("pair").core[p]
                    / 6
                    * max(spec.term("pair").r_min[p] - r, 0) ** 3
                )
                if r < spec.term("three_body").r_cut:
                    g = splines(
                        r,
                        spec.term("three_body").r_min,
                        spec.term("three_body").r_cut,
                        spec.term("three_body").n_basis,
                    )
                    near[i].append((int(types[j]), g, vector / r))
    channels = n_types * spec.term("three_body").n_radial
    c3 = theta[spec.slices["three_body"]].reshape(n_types, -1, spec.term("three_body").l_max + 1)
    for i, neighbors in enumerate(near):
        for j, (type_j, g_j, unit_j) in enumerate(neighbors):
            for k, (type_k, g_k, unit_k) in enumerate(neighbors):
                if j == k:
                    continue
                legendre = scipy.special.eval_legendre(
                    np.arange(spec.term("three_body").l_max + 1), float(unit_j @ unit_k)
                )
                index = 0
                for q in range(channels):
                    for q2 in range(q, channels):
                        if (
                            q // spec.term("three_body").n_radial == type_j
                            and q2 // spec.term("three_body").n_radial == type_k
                        ):
                            g = (
                                g_j[q % spec.term("three_body").n_radial]
                                * g_k[q2 % spec.term("three_body").n_radial]
                            )
                            energy += g * (c3[types[i], index] * torch.from_numpy(legendre)).sum()
                        index += 1
    assert potential(x, box).item() == pytest.approx(float(energy), rel=1e-11)


@KINDS
def test_forces_and_parameter_gradients_match_finite_differences(n_types):
    potential, x, box = system(n_types, seed=2)
    x.requires_grad_()
    gradient, theta_gradient = torch.autograd.grad(potential(x, box), [x, potential.theta])
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for _ in range(5):
            direction = torch.from_numpy(rng.normal(size=x.shape))
            h = 1e-6
            difference = (potential(x + h * direction, box) - potential(x - h * direction, box)) / (
                2 * h
            )
            expected = (gradient * direction).sum().item()
            assert difference.item() == pytest.approx(expected, abs=1e-6 * gradient.norm().item())
        for k in rng.integers(0, len(potential.theta), 10):
            shifted = potential.theta.clone()
            shifted[k] += 1.0
            other = Potential(random_spec(n_types), shifted, potential.types)
            difference = (other(x, box) - potential(x, box)).item()
            assert difference == pytest.approx(theta_gradient[k].item(), rel=1e-6, abs=1e-7)


@KINDS
def test_energy_does_not_depend_on_image_origin_or_order(n_types):
    potential, x, box = system(n_types, seed=3, triclinic=True)
    energy = potential(x, box).item()
    rng = np.random.default_rng(1)
    images = torch.from_numpy(rng.integers(-4, 5, x.shape).astype(float)) @ box
    assert potential(x + images, box).item() == pytest.approx(energy, rel=1e-10)
    assert potential(x + torch.tensor([0.3, -0.7, 1.9]), box).item() == pytest.approx(
        energy, rel=1e-10
    )
    order = torch.from_numpy(rng.permutation(len(x)))
    permuted = Potential(random_spec(n_types), potential.theta, potential.types[order])
    assert permuted(x[order], box).item() == pytest.approx(energy, rel=1e-10)


def test_cell_list_finds_the_pairs_that_all_pairs_find():
    for seed, triclinic in [(0, False), (1, True)]:
        box = liquid_box(1500, 30.0, triclinic)
        x = torch.from_numpy(np.random.default_rng(seed).uniform(-2, 3, [1500, 3])) @ box
        i, j, _, _ = neighbor_pairs(x, box, 0.5)
        assert _candidate_pairs(x, box, 0.5).shape[1] < 1500 * 1499 // 4, (
            "the cell list was not used"
        )
        candidates = torch.triu_indices(1500, 1500, 1)
        d = x[candidates[1]] - x[candidates[0]]
        shifts = torch.cartesian_prod(*[torch.arange(-1.0, 2.0, dtype=torch.float64)] * 3) @ box
        wrapped = (d @ torch.linalg.inv(box) - (d @ torch.linalg.inv(box)).round()) @ box
        closest = (wrapped[:, None] + shifts).square().sum(-1).min(1).values
        expected = candidates[:, closest < 0.25]
        found = {(min(a, b), max(a, b)) for a, b in zip(i.tolist(), j.tolist())}
        assert len(found) == len(i)
        assert found == set(zip(*expected.tolist()))


def test_forces_are_smooth_at_the_cutoff():
    spec = PotentialSpec(("W",), (PairSpec((0.25,), 0.6, 8, (1e5,)),))
    potential = Potential(
        spec, torch.ones(8, dtype=torch.float64), torch.zeros(2, dtype=torch.int64)
    )
    box = torch.eye(3, dtype=torch.float64) * 2

    def derivatives(r):
        x = torch.tensor([[0.0, 0, 0], [r, 0, 0]], dtype=torch.float64, requires_grad=True)
        (g,) = torch.autograd.grad(potential(x, box), x, create_graph=True)
        (h,) = torch.autograd.grad(g[1, 0], x)
        return potential(x, box).item(), g[1, 0].item(), h[1, 0].item()

    near, far = derivatives(0.6 - 1e-4), derivatives(0.6 - 2e-4)
    assert far[0] / near[0] == pytest.approx(8, rel=1e-2)
    assert far[1] / near[1] == pytest.approx(4, rel=1e-2)
    assert far[2] / near[2] == pytest.approx(2, rel=1e-2)


def test_coinciding_beads_have_finite_energy_and_forces():
    potential, x, box = system(1, seed=4)
    x[1] = x[0]
    x.requires_grad_()
    energy = potential(x, box)
    energy.backward()
    assert torch.isfinite(energy) and torch.isfinite(x.grad).all()


def test_a_lone_bead_has_no_energy():
    spec = random_spec(1)
    potential = Potential(spec, random_theta(spec, 0), torch.zeros(1, dtype=torch.int64))
    x = torch.zeros([1, 3], dtype=torch.float64)
    assert potential(x, torch.eye(3, dtype=torch.float64) * 2).item() == 0.0


def test_scripted_potential_is_the_eager_one():
    potential, x, box = system(2, seed=5)
    scripted = torch.jit.script(potential)
    assert scripted(x, box).item() == pytest.approx(potential(x, box).item(), rel=1e-13)


def test_wrong_number_of_parameters_is_rejected():
    with pytest.raises(ValueError, match=r"theta: found shape \(3,\), expected"):
        Potential(random_spec(1), torch.zeros(3), torch.zeros(5, dtype=torch.int64))
