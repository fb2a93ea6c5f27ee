"""Training finds what is known, goes on where it stopped, and recovers from explosions."""

import csv
import json
import math

import numpy as np
import pytest
import torch

from openmm_cgadv import config
from openmm_cgadv.analysis.dynamics import msd
from openmm_cgadv.baselines import InitialFit
from openmm_cgadv.dynamics import GeneralizedLangevin, Langevin
from openmm_cgadv.potentials import PairSpec, PotentialSpec
from openmm_cgadv.training import AdversarialTraining, TrainingDiverged, motion, train
from openmm_cgadv.training.checkpoint import load_checkpoint
from openmm_cgadv.training.settle import FIRST, begin, displacements, settle
from openmm_cgadv.training.windows import ReferenceWindows, window_lags
from openmm_cgadv.trajectory import BeadTrajectory, BeadWriter
from openmm_cgadv.units import KB

TEMPERATURE, MASS, DT, BEADS, LENGTH = 300.0, 18.0, 0.01, 64, 2.0
KT = KB * TEMPERATURE
FREE = InitialFit(PotentialSpec(("A",), PairSpec((0.2,), 0.5, 6, (0.0,))), np.zeros(6), np.zeros(6))


def free_beads(path, motion, frames, seed=0):
    """A trajectory of beads that feel nothing but friction and noise, exact at any time step."""
    rng = np.random.default_rng(seed)
    e, s = (m[0].detach().numpy() for m in motion.propagator(DT))
    thermal = math.sqrt(KT / MASS)
    x = rng.uniform(0, LENGTH, [BEADS, 3])
    state = thermal * rng.normal(size=[BEADS, len(e), 3])
    positions = []
    for _ in range(frames):
        positions.append(x)
        for _ in range(2):
            v = state[:, 0]
            state = e @ state + thermal * s @ rng.normal(size=state.shape)
            x = x + 0.5 * DT * (v + state[:, 0])
    with BeadWriter(path, [MASS] * BEADS, [0] * BEADS, ("A",), TEMPERATURE, 2 * DT, {}) as writer:
        writer.append(np.array(positions), np.broadcast_to(LENGTH * np.eye(3), [frames, 3, 3]))
        writer.finish()
    return BeadTrajectory.open(path)


def experiment(equation="generalized_langevin", friction=20.0, **training):
    return config.Experiment.model_validate(
        {
            "reference": {"temperature_K": TEMPERATURE, "water": "spce"},
            "potential": {"cutoff_nm": 0.5},
            "dynamics": {"equation": equation, "timestep_fs": 1000 * DT, "initial_friction_per_ps": friction},
            "training": {"window_ps": 0.16, "validate_every": 2, "checkpoint_every": 2, **training},
        }
    )


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return free_beads(tmp_path_factory.mktemp("free") / "beads.h5", GeneralizedLangevin(1, 1, 15.0), 400)


def test_window_lags_are_log_spaced_with_memory_and_long_without():
    assert window_lags(0.02, 1.28, True) == [1, 2, 4, 8, 16, 32, 64]
    assert window_lags(0.02, 1.92, True) == [1, 2, 4, 8, 16, 32, 64, 96]
    assert window_lags(0.02, 1.0, False) == [25, 50]


def test_windows_are_those_of_the_trajectory(reference):
    windows = ReferenceWindows(reference, [1, 2, 4])
    sampled = windows.sample(48, torch.Generator().manual_seed(0))
    assert sampled.own.shape == (48, 4, 3) and sampled.types.shape == (48,)
    assert sampled.positions.shape == (16, 4, BEADS, 3) and sampled.boxes.shape == (16, 3, 3)
    positions = reference.positions()
    positions -= positions.mean(1, keepdims=True)
    for window in sampled.own.numpy():
        distance = np.abs(positions - window[0]).max(-1)
        frame, bead = np.unravel_index(distance.argmin(), distance.shape)
        np.testing.assert_allclose(positions[frame + np.array([0, 1, 2, 4]), bead], window, atol=1e-6)
    step = np.diff(positions, axis=0)
    assert windows.scale(windows=10**6)[0, 0].tolist() == pytest.approx([np.sqrt((step**2).sum(-1).mean())] * 2, rel=0.01)


@pytest.mark.parametrize("start", [5.0, 45.0])
def test_friction_of_free_beads_is_found_from_both_sides(tmp_path, start):
    trajectory = free_beads(tmp_path / "beads.h5", Langevin(1, 15.0), 1500)
    settings = experiment("langevin", start, iterations=130, seed=3, validate_every=1000, window_ps=0.32)
    found = train(AdversarialTraining(trajectory, FREE, settings), tmp_path / "train").friction.item()
    assert found == pytest.approx(15.0, rel=0.12)


def test_memory_settles_by_displacements_alone(tmp_path):
    """From more and from less of it training comes to the friction and the displacements of the reference, and the potential stays."""
    truth = GeneralizedLangevin(1, 2, 15.0, rates=(4.0, 40.0))
    trajectory = free_beads(tmp_path / "beads.h5", truth, 1500)
    training = AdversarialTraining(trajectory, FREE, experiment(window_ps=0.64))
    learned = training.motion
    with torch.no_grad():
        for name, value in truth.named_parameters():
            width = value.shape[-1]
            getattr(learned, name)[..., :width] = value
        learned.log_rates[:, : truth.n_auxiliary] = (truth.log_rates.exp() + truth.floor - learned.floor).log()
        # Auxiliary variables that the truth lacks.
        learned.log_couplings[:, truth.n_auxiliary :] = -10.0
    right = [parameter.detach().clone() for parameter in training.parameters]
    place = next(k for k, parameter in enumerate(training.parameters) if parameter is learned.log_couplings)
    for factor in (1.5, 0.6):
        given, done = [value.clone() for value in right], []
        given[place][:, 0] += math.log(factor)
        settled = settle(training, given, 200, done.append)
        assert done == [*range(1, 201)]
        assert all(torch.equal(one, other) for one, other in zip(right, training.parameters))
        assert torch.equal(given[0], settled[0])
        with training.holding(settled):
            assert learned.bead_friction().item() == pytest.approx(15.0, rel=0.08)
            assert settled_off(training) < 0.03
        with training.holding(given):
            assert learned.bead_friction().item() != pytest.approx(15.0, rel=0.15)
            assert settled_off(training) > 0.06


@pytest.mark.parametrize("friction", [4.0, 60.0])
def test_memory_begins_with_what_displacements_tell(tmp_path, friction):
    trajectory = free_beads(tmp_path / "beads.h5", GeneralizedLangevin(1, 2, 15.0, rates=(4.0, 40.0)), 1500)
    training = AdversarialTraining(trajectory, FREE, experiment(friction=friction, window_ps=0.64))
    assert settled_off(training) > 0.3
    done = []
    begin(training, lambda: done.append(1))
    assert len(done) == sum(FIRST)
    assert settled_off(training) < 0.05
    assert training.motion.bead_friction().item() == pytest.approx(15.0, rel=0.15)
    assert all(torch.equal(one, other) for one, other in zip(training.parameters, training.average))
    assert not training.phi.any()


def test_memory_takes_the_least_friction_where_displacements_ask_for_none(tmp_path):
    trajectory = free_beads(tmp_path / "beads.h5", GeneralizedLangevin(1, 2, 15.0, rates=(4.0, 40.0)), 1500)
    training = AdversarialTraining(trajectory, FREE, experiment(friction=60.0, window_ps=0.64))
    # As if neighbours left friction no more than a thousandth of what makes diffusion: displacements ask for 15/ps.
    training.free_friction = torch.full_like(training.free_friction, 30000.0)
    begin(training, lambda: None)
    assert training.motion.bead_friction().item() == pytest.approx(30.0)


def test_chains_hold_the_temperature_without_friction(reference):
    """However warm a chain has become, its next rollout starts with a kinetic energy of equilibrium, and nothing else of it changes."""
    training, generator = AdversarialTraining(reference, FREE, experiment(chains=1)), torch.Generator().manual_seed(0)
    chains, temperatures = training.chains, []
    for _ in range(400):
        chains.state[:, :, 0] *= 1.3
        positions, before = chains.positions.clone(), chains.state.clone()
        _, after, _ = chains.take([0], generator)
        temperatures.append(float(training.masses @ after[0, :, 0].square().sum(1) / (3 * BEADS * training.kT)))
        if torch.equal(chains.positions, positions):
            velocities = after[0, :, 0] / before[0, :, 0]
            assert velocities.std() < 1e-12 and torch.equal(after[0, :, 1:], before[0, :, 1:])
    spread = math.sqrt(2 / (3 * BEADS))
    assert np.mean(temperatures) == pytest.approx(1.0, abs=4 * spread / math.sqrt(400))
    assert np.std(temperatures) == pytest.approx(spread, rel=0.15)


def settled_off(training):
    """Largest relative difference of mean squared displacements between rollouts and the reference."""
    squares = displacements(training, 1, range(10_000, 10_100), 4, lambda done: None)
    found = squares[:, 0].mean(0)[np.array(training.window_steps[1:]) - 1]
    return np.abs(found / msd(training.windows.trajectory, training.lags.numpy()).values() - 1).max()


def parameters(result):
    return torch.cat([result.theta, result.drift.flatten()])


@pytest.mark.parametrize("potential", ["relative_entropy", "adversarial"])
def test_resumed_training_is_the_uninterrupted_one(reference, tmp_path, potential):
    settings = experiment(iterations=7, potential=potential)

    def interrupt(iteration, total, values):
        if iteration == 5:
            raise KeyboardInterrupt

    whole = train(AdversarialTraining(reference, FREE, settings), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(AdversarialTraining(reference, FREE, settings), tmp_path / "parts", progress=interrupt)
    assert load_checkpoint(tmp_path / "parts" / "checkpoints")["iteration"] == 4
    resumed = train(AdversarialTraining(reference, FREE, settings), tmp_path / "parts")
    assert torch.equal(parameters(whole), parameters(resumed))

    def curve(name):
        with open(tmp_path / name / "log.csv", newline="") as file:
            return [(row["iteration"], row["friction"], row["dynamics_margin"]) for row in csv.DictReader(file)]

    # Where memory followed displacements at the end, that has a row.
    assert curve("whole") == curve("parts") and len(curve("whole")) == 7 + (potential == "relative_entropy")


def test_validation_is_logged(reference, tmp_path):
    """Every other iteration, and when memory has followed displacements in two rollouts more."""

    def validate(parameters, iteration):
        return {"validation_diffusion": float(iteration)}

    train(AdversarialTraining(reference, FREE, experiment(iterations=4)), tmp_path, validate=validate)
    with open(tmp_path / "log.csv", newline="") as file:
        assert [row["validation_diffusion"] for row in csv.DictReader(file)] == ["", "2", "", "4", "6"]


def test_an_explosion_sends_training_back_to_its_last_good_state(reference, tmp_path, monkeypatch):
    calls, original, said = [], motion.rollout, []

    def explode_twice(*arguments, **options):
        calls.append(1)
        if len(calls) - sum(FIRST) in (4, 6):
            raise RuntimeError("rollout exploded at step 3 of 16 in replica 0")
        return original(*arguments, **options)

    monkeypatch.setattr(motion, "rollout", explode_twice)
    train(AdversarialTraining(reference, FREE, experiment(iterations=5)), tmp_path, warn=said.append)
    assert said[0] == "rollout exploded at step 3 of 16 in replica 0; training went back to iteration 2"
    # Both are told in the end, though training went back to before the first.
    assert said[1] == said[0] and json.loads((tmp_path / "outcome.json").read_text())["warnings"][:2] == said[:2]
    assert load_checkpoint(tmp_path / "checkpoints")["iteration"] == 5


def test_a_potential_that_always_explodes_is_given_up_with_a_reason(reference, tmp_path):
    wild = InitialFit(PotentialSpec(("A",), PairSpec((0.2,), 0.5, 6, (0.0,))), np.full(6, 1e9), np.zeros(6))
    with pytest.raises(TrainingDiverged, match="training diverged 6 times, last from iteration 0: .*exploded"):
        train(AdversarialTraining(reference, wild, experiment(iterations=5)), tmp_path)


def test_a_lack_of_memory_is_not_taken_for_an_explosion(reference, tmp_path):
    training = AdversarialTraining(reference, FREE, experiment(iterations=5))
    done = []

    def short_of_memory(*arguments, **options):
        done.append(training.iteration)
        if training.iteration == 4:
            return torch.empty(2**60)
        return original(*arguments, **options)

    original = training.motion.roll_out
    training.motion.roll_out = short_of_memory
    with pytest.raises(MemoryError, match="fewer training.chains or a shorter training.window_ps"):
        train(training, tmp_path)
    assert done[-1] == 4 and load_checkpoint(tmp_path / "checkpoints")["iteration"] == 2


def test_a_damaged_checkpoint_gives_way_to_the_one_before(reference, tmp_path):
    train(AdversarialTraining(reference, FREE, experiment(iterations=4)), tmp_path)
    newest = max((tmp_path / "checkpoints").glob("*.pt"))
    newest.write_bytes(newest.read_bytes()[:1000])
    assert load_checkpoint(tmp_path / "checkpoints")["iteration"] == 2


def test_a_window_longer_than_the_reference_is_refused(reference, tmp_path):
    with pytest.raises(ValueError, match="training.window_ps: found a reference of 400 frames"):
        train(AdversarialTraining(reference, FREE, experiment(window_ps=50.0)), tmp_path)
