"""Training of friction between pairs, and what it starts from."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from systems import FREE, KT, TEMPERATURE, jittered_lattice, pair_liquid, random_spec, random_theta
from systems import FREE_DT as DT
from systems import PAIR_BEADS as BEADS
from systems import PAIR_BOX as BOX

from openmm_cgadv import config
from openmm_cgadv.data.trajectory import BeadTrajectory, BeadWriter
from openmm_cgadv.dynamics import Neighborhood, PairFriction, friction_from_arrays
from openmm_cgadv.fit import InitialFit
from openmm_cgadv.fit.ranges import friction_range
from openmm_cgadv.friction import PairResiduals
from openmm_cgadv.friction.pairwise_residual_forces import time_lags
from openmm_cgadv.friction.residual_forces import residual_forces
from openmm_cgadv.methods.adversarial import AdversarialTraining, train
from openmm_cgadv.methods.adversarial.generators import LEARNING_RATES, PairwiseGenerator
from openmm_cgadv.methods.adversarial.memory_fit import fit_final_kernel
from openmm_cgadv.methods.adversarial.time_scales import time_scales
from openmm_cgadv.methods.base import build_model, load_parameters, save_parameters
from openmm_cgadv.potentials import Potential
from openmm_cgadv.random_streams import Purpose

MASSES = np.array([18.0, 45.0])


def write(path, positions, types, forces=None):
    names = ("A", "B")[: types.max() + 1]
    with BeadWriter(
        path, MASSES[types], types, names, TEMPERATURE, 2 * DT, {}, False, forces is not None
    ) as writer:
        writer.append(positions, np.broadcast_to(BOX.numpy(), [len(positions), 3, 3]), None, forces)
        writer.finish()
    return BeadTrajectory.open(path)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Forces of a known potential, and on top of them noise that pairs share, slow along and gone at once across."""
    spec = random_spec(2)
    theta = random_theta(spec, 0, 3.0)
    rng = np.random.default_rng(0)
    types, frames, rate, range_ = rng.integers(0, 2, BEADS), 120, 5.0, 0.4
    x = jittered_lattice(BEADS, BOX, 0.35, 1).float().double()
    potential = Potential(spec, theta, torch.from_numpy(types))
    leaf = x.clone().requires_grad_()
    known = -torch.autograd.grad(potential(leaf, BOX), leaf)[0].numpy()
    i, j = np.triu_indices(BEADS, 1)
    d = (x[j] - x[i]).numpy()
    d -= np.round(d @ np.linalg.inv(BOX.numpy())) @ BOX.numpy()
    r = np.linalg.norm(d, axis=1)
    i, j, r, unit = (part[r < range_] for part in (i, j, r, d / r[:, None]))
    mass = 2 * MASSES[types[i]] * MASSES[types[j]] / (MASSES[types[i]] + MASSES[types[j]])
    keep = np.exp(-rate * 2 * DT)
    memory, forces = rng.normal(size=len(r)), []
    for _ in range(frames):
        memory = keep * memory + np.sqrt(1 - keep**2) * rng.normal(size=len(r))
        white = rng.normal(size=[len(r), 3])
        white -= (white * unit).sum(1, keepdims=True) * unit
        noise = np.sqrt(KT * mass)[:, None] * (10 * (1 - r / range_) * memory)[:, None] * unit
        noise += np.sqrt(KT * mass)[:, None] * 4 * white
        force = known.copy()
        np.add.at(force, i, noise)
        np.add.at(force, j, -noise)
        forces.append(force)
    positions = np.broadcast_to(x.numpy(), [frames, BEADS, 3])
    trajectory = write(
        tmp_path_factory.mktemp("shared") / "beads.h5", positions, types, np.array(forces)
    )
    return trajectory, spec, theta.numpy(), rate, range_


def test_noise_that_pairs_share_is_found_as_their_memory(shared):
    trajectory, spec, theta, rate, range_ = shared
    found = PairResiduals.measure(trajectory, spec, theta)
    pairs = np.arange(len(found.memory))
    for bin_, r in enumerate(found.r):
        for p in pairs:
            number = found.neighbors[p, bin_] * BEADS
            if number < 10:
                continue
            # Positions are frozen: a pair's memory gives one number in 1/rate, of a hundred frames.
            inside = r < range_ - 0.01
            slow = 100 * (1 - r / range_) ** 2 if inside else 0.0
            along, across = found.memory[p, :, bin_]
            spread = 5 * 120 / np.sqrt(number * 10)
            assert along[0] == pytest.approx(slow, abs=spread)
            assert along[4] == pytest.approx(slow * np.exp(-rate * found.times[4]), abs=spread)
            if inside:
                assert across[0] == pytest.approx(16, abs=spread)
            assert across[2] == pytest.approx(0, abs=spread)


def test_sum_over_neighbours_is_the_correlation_of_a_bead_with_itself(shared):
    trajectory, spec, theta, _, _ = shared
    found = PairResiduals.measure(trajectory, spec, theta)
    own = np.zeros([2, len(found.times)])
    numbers = np.bincount(trajectory.types)
    for p, (a, b) in enumerate([(0, 0), (0, 1), (1, 1)]):
        total = (found.neighbors[p] @ (found.memory[p, 0] + 2 * found.memory[p, 1])) * BEADS / 3
        mass = 2 * MASSES[a] * MASSES[b] / (MASSES[a] + MASSES[b])
        own[a] += total * mass / MASSES[a] / numbers[a]
        own[b] += total * mass / MASSES[b] / numbers[b]
    # All noise is shared within the range; what is left is force between beads further apart.
    np.testing.assert_allclose(own[:, 0], found.own[:, 0], rtol=0.1)


def test_residual_forces_of_the_true_potential_are_the_noise(shared):
    trajectory, spec, theta, _, _ = shared
    residual = residual_forces(trajectory, spec, theta, [0, 1])
    assert abs(trajectory.forces([0, 1]) - residual).max() > 1000 * abs(residual.sum(1)).max()
    # Noise of known size: 4² across and up to 10² along, from ten neighbours or so.
    assert 0.5 < (residual**2).mean() / (KT * 20 * 11 * 20) < 2


def test_splines_have_the_memory_that_they_are_made_of():
    rates = np.array([[4.0, 30.0]])
    times, r = 0.02 * time_lags(400), np.arange(0.01, 0.5, 0.02)
    truth = PairFriction(1, 2, 20.0, 0.24, 0.44)
    f = truth.functions(torch.from_numpy(r)).detach().numpy()[0, 1:] ** 2
    memory = np.einsum("kdr,kt->drt", f, np.exp(-rates.T * times))[None]
    neighbors = np.where(r > 0.24, 1.0, 0.0)[None]
    found = PairResiduals(times, r, memory, neighbors, memory[:, 0, 0])
    splines = found.splines(rates, np.array([0.24]), 0.44, 8)
    with torch.no_grad():
        truth.shapes.copy_(torch.from_numpy(splines) / truth.unit)
    seen = torch.arange(0.26, 0.40, 0.02, dtype=torch.float64)
    g = truth.functions(seen).detach().numpy()[0]
    expected = np.sqrt(f[..., [int(np.argmin(abs(r - x))) for x in seen.numpy()]])
    shown = PairFriction(1, 2, 20.0, 0.24, 0.44).functions(seen).detach().numpy()[0, 1:]
    assert expected.shape == shown.shape
    np.testing.assert_allclose(g[1:], shown, rtol=0.03, atol=0.05 * shown.max())
    assert abs(g[0]).max() < 0.05 * shown.max()


def test_a_fit_keeps_its_residuals(shared, tmp_path):
    trajectory, spec, theta, _, _ = shared
    found = PairResiduals.measure(trajectory, spec, theta)
    InitialFit(spec, theta, theta, {}, found).save(tmp_path)
    loaded = InitialFit.load(tmp_path).residuals
    for name in ("times", "r", "memory", "neighbors", "own"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(found, name))
    FREE.save(tmp_path)
    assert InitialFit.load(tmp_path).residuals is None


def test_friction_of_a_bead_is_that_of_its_pairs():
    """The mean over directions of what fixed neighbours do to a bead that moves."""
    rng = np.random.default_rng(2)
    types = torch.from_numpy(rng.integers(0, 2, BEADS))
    masses = torch.from_numpy(MASSES)[types]
    x = jittered_lattice(BEADS, BOX, 0.3, 0)
    motion = PairFriction(2, 2, 20.0, (0.2, 0.22, 0.24), 0.44)
    neighborhood = Neighborhood.measure(x[None], BOX[None], types, masses, 0.44, 2)
    found = neighborhood.mean(motion.friction(neighborhood.r)).detach()
    d = x[None] - x[:, None]
    r = (d - torch.round(d @ torch.linalg.inv(BOX)) @ BOX).norm(dim=-1)
    a, b = torch.nonzero((r > 0) & (r < 0.44)).T
    each = motion.friction(r[a, b]).detach()[types[a] + types[b], :, torch.arange(len(a))]
    weight = 2 * masses[b] / (masses[a] + masses[b]) * (each[:, 0] + 2 * each[:, 1]) / 3
    expected = torch.zeros(2, dtype=torch.float64).index_add_(0, types[a], weight) / torch.bincount(
        types
    )
    torch.testing.assert_close(found, expected, rtol=0.01, atol=0)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    motion = PairFriction(1, 0, 12.0, 0.1, 0.44)
    return pair_liquid(tmp_path_factory.mktemp("pair") / "beads.h5", motion, 600)


def experiment(friction=None, auxiliary=2, **training):
    dynamics = {
        "equation": "pair",
        "timestep_fs": 1000 * DT,
        "initial_friction_per_ps": friction,
        "auxiliary_variables": auxiliary,
    }
    return config.Experiment.model_validate(
        {
            "reference": {"temperature_K": TEMPERATURE, "water": "spce"},
            "dynamics": dynamics,
            "training": {"window_ps": 0.16, "validate_every": 2, "checkpoint_every": 2, **training},
        }
    )


def test_training_starts_from_the_friction_that_is_asked_for(reference):
    training = AdversarialTraining(reference, FREE, experiment(31.0))
    assert training.averaged().bead_friction.tolist() == pytest.approx([31.0])
    assert training.scales.friction_per_ps == pytest.approx((31.0,))
    estimated = AdversarialTraining(reference, FREE, experiment()).averaged()
    assert 1 < estimated.bead_friction.item() < 100


def test_training_starts_from_residual_forces_where_there_are_any(shared):
    trajectory, spec, theta, rate, range_ = shared
    fit = InitialFit(spec, theta, theta, {}, PairResiduals.measure(trajectory, spec, theta))
    dynamics = config.Dynamics(equation="pair", friction_cutoff_nm=0.42, auxiliary_variables=3)
    scales = time_scales(
        trajectory,
        fit,
        config.Experiment.model_validate(
            {
                "reference": {"temperature_K": TEMPERATURE, "water": "spce"},
                "dynamics": dynamics.model_dump(),
                "training": {"window_ps": 0.64},
            }
        ),
    )
    scales = replace(scales, residuals_resolved=True)  # Whatever the curvature of a lattice.
    motion = PairwiseGenerator.initial(trajectory, fit, dynamics, scales)
    r = torch.tensor([0.30, 0.34], dtype=torch.float64)
    expected = 100 * (1 - r / range_) ** 2 / rate
    found = motion.friction(r)[:, 0].detach()
    # Memory of frozen pairs is measured over a dozen of its times.
    torch.testing.assert_close(found.mean(0), expected, rtol=0.5, atol=0.5)
    assert motion.bead_friction().mean().item() < 100
    given = dynamics.model_copy(update={"initial_friction_per_ps": 7.0})
    scaled = PairwiseGenerator.initial(
        trajectory, fit, given, replace(scales, friction_per_ps=(7.0, 7.0))
    )
    assert scaled.bead_friction().mean().item() == pytest.approx(7.0)
    ratio = scaled.friction(r).detach() / motion.friction(r).detach()
    torch.testing.assert_close(ratio, torch.full_like(ratio, ratio[0, 0, 0].item()))
    # Friction of the beads themselves comes on top of what forces tell, and is part of what is asked for.
    for initial, total in ((None, motion.bead_friction() + 3.0), (7.0, torch.tensor([7.0, 7.0]))):
        own = dynamics.model_copy(
            update={"initial_friction_per_ps": initial, "self_friction_per_ps": 3.0}
        )
        both = PairwiseGenerator.initial(
            trajectory, fit, own, replace(scales, friction_per_ps=(7.0, 7.0))
        )
        assert both.bead_friction().mean().item() == pytest.approx(total.mean().item())
        felt = both.running_friction(torch.tensor([0.0, 1e3], dtype=torch.float64)).mean(0)
        assert felt[1].item() == pytest.approx(total.mean().item()) and felt[0] > 3.0
        trained = both.trained(torch.as_tensor(theta))
        assert trained.friction.self_friction == (3.0, 3.0)
        assert trained.bead_friction.mean().item() == pytest.approx(total.mean().item())
        again = friction_from_arrays(trained.friction.arrays())
        assert again.to_dict() == trained.friction.to_dict()


@pytest.mark.parametrize("auxiliary", [0, 1, 3])
def test_the_start_from_residual_forces_has_a_least_friction_whatever_the_memory(shared, auxiliary):
    trajectory, spec, theta, _, _ = shared
    fit = InitialFit(spec, theta, theta, {}, PairResiduals.measure(trajectory, spec, theta))
    settings = {"equation": "pair", "friction_cutoff_nm": 0.42, "auxiliary_variables": auxiliary}
    scales = time_scales(
        trajectory,
        fit,
        config.Experiment.model_validate(
            {
                "reference": {"temperature_K": TEMPERATURE, "water": "spce"},
                "dynamics": settings,
                "training": {"window_ps": 0.64},
            }
        ),
    )
    for free in (1.0, 1e6):
        scales = replace(
            scales, residuals_resolved=True, least_friction_per_ps=(1e-3 * free, 1e-3 * free)
        )
        friction = (
            PairwiseGenerator.initial(trajectory, fit, config.Dynamics(**settings), scales)
            .bead_friction()
            .mean()
            .item()
        )
        assert friction == pytest.approx(1e3) if free == 1e6 else 0.01 < friction < 500


def numbers(result):
    arrays = [result.theta, *result.friction.arrays().values()]
    return torch.cat([torch.as_tensor(value).flatten() for value in arrays])


def test_resumed_training_of_pairs_is_the_uninterrupted_one(reference, tmp_path):
    settings = experiment(iterations=5)

    def interrupt(iteration, total, values):
        if iteration == 3:
            raise KeyboardInterrupt

    whole = train(AdversarialTraining(reference, FREE, settings), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(
            AdversarialTraining(reference, FREE, settings), tmp_path / "parts", progress=interrupt
        )
    resumed = train(AdversarialTraining(reference, FREE, settings), tmp_path / "parts")
    assert torch.equal(numbers(whole), numbers(resumed))
    header = (tmp_path / "whole" / "log.csv").read_text().splitlines()[0].split(",")
    assert {"averaged_friction", "alpha_2", "along_0", "across_2"} <= set(header)


def test_chains_keep_no_momentum(reference):
    training = AdversarialTraining(reference, FREE, experiment(chains=2))
    training.step()
    momentum = torch.einsum("n,cnd->cd", training.masses, training.chains.state[:, :, 0])
    assert float(momentum.abs().max()) < 1e-10


@pytest.mark.parametrize("start", [6.0, 60.0])
@pytest.mark.slow
def test_friction_between_free_beads_is_found_from_both_sides(reference, tmp_path, start):
    truth = PairFriction(1, 0, 12.0, 0.1, 0.44)
    settings = experiment(start, 0, iterations=160, seed=3, validate_every=1000, window_ps=0.32)
    training = AdversarialTraining(reference, FREE, settings)
    neighborhood = training.motion.neighborhood
    expected = neighborhood.mean(truth.friction(neighborhood.r)).item()
    assert abs(np.log(start / expected)) > 0.5
    found = train(training, tmp_path / "train").bead_friction.item()
    assert found == pytest.approx(expected, rel=0.15)


def test_the_slowest_memory_follows_diffusion_at_the_end_of_windows_alone(reference, monkeypatch):
    training = AdversarialTraining(reference, FREE, experiment(60.0))
    before = training.motion.log_sizes.detach().clone()
    seen = []
    monkeypatch.setattr(training.motion, "restrain", seen.append)
    for _ in range(3):
        training.rate = 1.0
        training.step()
    moved = (training.motion.log_sizes.detach() - before)[0]
    assert abs(moved[1]) < 1e-12 and bool((moved[[0, 2]].abs() > 1e-3).all())
    # Five times too much friction: beads hardly diffuse.
    assert all(excess.shape == (1,) and -0.9 < float(excess) < -0.1 for excess in seen)
    monkeypatch.undo()
    before = training.motion.log_sizes.detach().clone()
    training.motion.restrain(torch.tensor([-0.25], dtype=torch.float64))
    moved = (training.motion.log_sizes.detach() - before)[0]
    assert (
        moved[1] == pytest.approx(-0.25 * LEARNING_RATES.slowest_amplitude)
        and not moved[[0, 2]].any()
    )


@pytest.mark.slow
def test_diffusion_settles_by_the_slowest_memory_alone(reference):
    """From a larger and from a smaller size it comes to the same, at which diffusion is that of the reference."""
    training = AdversarialTraining(reference, FREE, experiment(9.0, window_ps=0.64))
    values = [parameter.detach().clone() for parameter in training.parameters]
    place = next(
        k
        for k, parameter in enumerate(training.parameters)
        if parameter is training.motion.log_sizes
    )
    sizes, done = [], []
    for factor in (1.4, 0.7):
        given = [value.clone() for value in values]
        given[place][:, 1] += np.log(factor)
        settled = fit_final_kernel(training, given, 400, done.append)
        for k, (before, after) in enumerate(zip(given, settled)):
            moved = (
                (after - before).abs().flatten(1)
                if k == place
                else (after - before).abs().flatten()[None]
            )
            assert not moved[:, [n for n in range(moved.shape[1]) if k != place or n != 1]].any()
        sizes.append(settled[place][0, 1].item())
    assert done == 2 * [*range(1, 401)]
    assert sizes[0] == pytest.approx(sizes[1], abs=0.15)
    excess = []
    with training.temporarily_set(settled):
        for n in range(120):
            random = training.random(Purpose.TRAINING, 10_000 + n)
            _, start, frames = training.simulate_chains(10_000 + n, training.window_steps, random)
            excess.append(
                training.reference_motion.excess(
                    training.generated_windows(frames, start, random)
                ).item()
            )
    assert np.mean(excess) == pytest.approx(0.0, abs=0.05)


@pytest.mark.parametrize(
    "dynamics, discriminator, said",
    [
        ({"friction_cutoff_nm": 0.3}, {}, "is 0.3 nm, within which a bead has 3.* neighbours"),
        (
            {"self_friction_per_ps": 1e4},
            {},
            r"self_friction_per_ps is 10000/ps, more than the .*/ps that the forces and the diffusion",
        ),
        (
            {"equation": "generalized_langevin"},
            {"kind": "graph"},
            "single-particle friction cannot reproduce",
        ),
        ({}, {"kind": "graph"}, None),
    ],
)
def test_what_will_end_badly_is_said_at_the_start(reference, dynamics, discriminator, said):
    settings = experiment(31.0).model_dump()
    settings["dynamics"] |= dynamics
    settings["discriminator"] |= discriminator
    limits = AdversarialTraining(
        reference, FREE, config.Experiment.model_validate(settings)
    ).scales.warnings
    found = [limit for limit in limits if re.search(r"neighbours|self_friction", limit)]
    assert not found if said is None else len(found) == 1 and re.search(said, found[0]), limits


def test_trained_parameters_make_a_model_that_a_file_holds(reference, tmp_path):
    parameters = AdversarialTraining(reference, FREE, experiment(20.0)).averaged()
    model = build_model(reference, FREE, experiment(20.0), parameters.model())
    save_parameters(tmp_path / "p.npz", model)
    loaded = load_parameters(tmp_path / "p.npz")
    assert np.array_equal(loaded["theta"], parameters.theta)
    assert loaded["friction"].name == "pair"
    assert loaded["friction"].to_dict() == parameters.friction.to_dict()


def test_range_of_friction_holds_eleven_neighbours(reference):
    r_min, r_cut = friction_range(reference, None)
    # Beads without forces are spread evenly: 4/3 π r³ ρ = 11.
    assert r_cut == pytest.approx((11 / 33.0 / (4 / 3 * np.pi)) ** (1 / 3), abs=0.02)
    assert 0 < r_min[0] < 0.1
    with pytest.raises(
        ValueError, match="dynamics.friction_cutoff_nm: found 0.9, expected at most 0.7"
    ):
        friction_range(reference, 0.9)
    with pytest.raises(ValueError, match="dynamics.friction_cutoff_nm: found . pairs"):
        friction_range(reference, 0.01)


def test_a_range_of_friction_is_for_pairs_alone():
    with pytest.raises(ValueError, match="friction_cutoff_nm beside equation `langevin`"):
        config.Dynamics(equation="langevin", friction_cutoff_nm=0.44)
    with pytest.raises(
        ValueError, match="self_friction_per_ps beside equation `generalized_langevin`"
    ):
        config.Dynamics(self_friction_per_ps=2.0)
    reference = {"temperature_K": 298.0, "water": "spce", "molecules": 100}
    with pytest.raises(
        ValueError, match="dynamics.friction_cutoff_nm: found 0.8, expected at most 0.7"
    ):
        config.Experiment.model_validate(
            {"reference": reference, "dynamics": {"equation": "pair", "friction_cutoff_nm": 0.8}}
        )


def test_friction_up_to_a_time_grows_from_the_instant_to_all_of_it(reference):
    motion = AdversarialTraining(reference, FREE, experiment(20.0)).motion
    with torch.no_grad():
        motion.rotations += 0.3
        found = motion.running_friction(torch.tensor([0.0, 0.05, 0.3, 100.0], dtype=torch.float64))[
            0
        ]
        instant = motion.neighborhood.mean(motion.functions(motion.neighborhood.r)[:, 0] ** 2)
        assert found[0] == pytest.approx(instant.item()) and found[-1] == pytest.approx(
            motion.bead_friction().item()
        )
        assert instant.item() < found[1].item() < found[2].item() < found[3].item()
