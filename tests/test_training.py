"""Training finds what is known, goes on where it stopped, and recovers from explosions."""

import csv
import gzip
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from systems import (
    FREE,
    FREE_BEADS,
    free_beads,
)
from systems import free_experiment as experiment

from openmm_cgadv import config
from openmm_cgadv.analysis.msd import msd
from openmm_cgadv.dynamics import GeneralizedLangevin, Langevin
from openmm_cgadv.errors import DivergedError, ExplosionError, OutOfMemoryError
from openmm_cgadv.fit import InitialFit
from openmm_cgadv.methods.adversarial import (
    AdversarialTraining,
    train,
)
from openmm_cgadv.methods.adversarial.checkpoint import load_checkpoint
from openmm_cgadv.methods.adversarial.hyperparameters import KernelFitSettings
from openmm_cgadv.methods.adversarial.memory_fit import (
    fit_final_kernel,
    fit_initial_kernel,
    measure_msd,
)
from openmm_cgadv.methods.adversarial.windows import ReferenceWindows, window_lags
from openmm_cgadv.potentials import PairSpec, PotentialSpec
from openmm_cgadv.random_streams import Purpose


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return free_beads(
        tmp_path_factory.mktemp("free") / "beads.h5", GeneralizedLangevin(1, 1, 15.0), 400
    )


def test_training_leaves_the_default_generator_of_torch_alone(reference):
    before = torch.get_rng_state()
    training = AdversarialTraining(reference, FREE, experiment(potential="adversarial"))
    training.step()
    assert torch.equal(torch.get_rng_state(), before)


def test_window_lags_are_log_spaced_with_memory_and_long_without():
    assert window_lags(0.02, 1.28, True) == [1, 2, 4, 8, 16, 32, 64]
    assert window_lags(0.02, 1.92, True) == [1, 2, 4, 8, 16, 32, 64, 96]
    assert window_lags(0.02, 1.0, False) == [25, 50]


def test_windows_are_those_of_the_trajectory(reference):
    windows = ReferenceWindows(reference, [1, 2, 4])
    sampled = windows.sample(48, torch.Generator().manual_seed(0))
    assert sampled.selected_positions.shape == (48, 4, 3) and sampled.selected_types.shape == (48,)
    assert sampled.positions.shape == (16, 4, FREE_BEADS, 3) and sampled.boxes.shape == (16, 3, 3)
    positions = reference.positions()
    positions -= positions.mean(1, keepdims=True)
    for window in sampled.selected_positions.numpy():
        distance = np.abs(positions - window[0]).max(-1)
        frame, bead = np.unravel_index(distance.argmin(), distance.shape)
        np.testing.assert_allclose(
            positions[frame + np.array([0, 1, 2, 4]), bead], window, atol=1e-6
        )
    step = np.diff(positions, axis=0)
    assert windows.scale(windows=10**6)[0, 0].tolist() == pytest.approx(
        [np.sqrt((step**2).sum(-1).mean())] * 2, rel=0.01
    )


@pytest.mark.parametrize("start", [5.0, 45.0])
@pytest.mark.slow
def test_friction_of_free_beads_is_found_from_both_sides(tmp_path, start):
    trajectory = free_beads(tmp_path / "beads.h5", Langevin(1, 15.0), 1500)
    settings = experiment(
        "langevin", start, iterations=130, seed=3, validate_every=1000, window_ps=0.32
    )
    found = train(
        AdversarialTraining(trajectory, FREE, settings), tmp_path / "train"
    ).bead_friction.item()
    assert found == pytest.approx(15.0, rel=0.12)


@pytest.mark.slow
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
        learned.log_rates[:, : truth.n_auxiliary] = (
            truth.log_rates.exp() + truth.floor - learned.floor
        ).log()
        # Auxiliary variables that the truth lacks.
        learned.log_couplings[:, truth.n_auxiliary :] = -10.0
    right = [parameter.detach().clone() for parameter in training.parameters]
    place = next(
        k for k, parameter in enumerate(training.parameters) if parameter is learned.log_couplings
    )
    for factor in (1.5, 0.6):
        given, done = [value.clone() for value in right], []
        given[place][:, 0] += math.log(factor)
        settled = fit_final_kernel(training, given, 200, done.append)
        assert done == [*range(1, 201)]
        assert all(torch.equal(one, other) for one, other in zip(right, training.parameters))
        assert torch.equal(given[0], settled[0])
        with training.temporarily_set(settled):
            assert learned.bead_friction().item() == pytest.approx(15.0, rel=0.08)
            assert settled_off(training) < 0.03
        with training.temporarily_set(given):
            assert learned.bead_friction().item() != pytest.approx(15.0, rel=0.15)
            assert settled_off(training) > 0.06


@pytest.mark.parametrize("friction", [4.0, 60.0])
def test_memory_begins_with_what_displacements_tell(tmp_path, friction):
    trajectory = free_beads(
        tmp_path / "beads.h5", GeneralizedLangevin(1, 2, 15.0, rates=(4.0, 40.0)), 1500
    )
    training = AdversarialTraining(trajectory, FREE, experiment(friction=friction, window_ps=0.64))
    assert settled_off(training) > 0.3
    done = []
    fit_initial_kernel(training, lambda: done.append(1))
    assert len(done) == sum(KernelFitSettings().initial_rollouts)
    assert settled_off(training) < 0.05
    assert training.motion.bead_friction().item() == pytest.approx(15.0, rel=0.15)
    assert all(torch.equal(one, other) for one, other in zip(training.parameters, training.average))
    assert not training.phi.any()


def test_memory_takes_the_least_friction_where_displacements_ask_for_none(tmp_path):
    trajectory = free_beads(
        tmp_path / "beads.h5", GeneralizedLangevin(1, 2, 15.0, rates=(4.0, 40.0)), 1500
    )
    training = AdversarialTraining(trajectory, FREE, experiment(friction=60.0, window_ps=0.64))
    # As if neighbours left friction no more than a thousandth of what makes diffusion: displacements ask for 15/ps.
    training.einstein_friction = torch.full_like(training.einstein_friction, 30000.0)
    fit_initial_kernel(training, lambda: None)
    assert training.motion.bead_friction().item() == pytest.approx(30.0)


def test_chains_hold_the_temperature_without_friction(reference):
    """However warm a chain has become, its next rollout starts with a kinetic energy of equilibrium, and nothing else of it changes."""
    training, generator = (
        AdversarialTraining(reference, FREE, experiment(chains=1)),
        torch.Generator().manual_seed(0),
    )
    chains, temperatures = training.chains, []
    for _ in range(400):
        chains.state[:, :, 0] *= 1.3
        positions, before = chains.positions.clone(), chains.state.clone()
        _, after, _ = chains.load([0], generator)
        temperatures.append(
            float(training.masses @ after[0, :, 0].square().sum(1) / (3 * FREE_BEADS * training.kT))
        )
        if torch.equal(chains.positions, positions):
            velocities = after[0, :, 0] / before[0, :, 0]
            assert velocities.std() < 1e-12 and torch.equal(after[0, :, 1:], before[0, :, 1:])
    spread = math.sqrt(2 / (3 * FREE_BEADS))
    assert np.mean(temperatures) == pytest.approx(1.0, abs=4 * spread / math.sqrt(400))
    assert np.std(temperatures) == pytest.approx(spread, rel=0.15)


def settled_off(training):
    """Largest relative difference of mean squared displacements between rollouts and the reference."""
    squares = measure_msd(
        training, 1, range(10_000, 10_100), 4, Purpose.FINAL_KERNEL_FIT, lambda done: None
    )
    found = squares[:, 0].mean(0)[np.array(training.window_steps[1:]) - 1]
    return np.abs(
        found / msd(training.windows.trajectory, training.lags.numpy()).values() - 1
    ).max()


def parameters(result):
    return torch.cat([result.theta, torch.from_numpy(result.friction.drift).flatten()])


@pytest.mark.parametrize("potential", ["relative_entropy", "adversarial"])
def test_resumed_training_is_the_uninterrupted_one(reference, tmp_path, potential):
    settings = experiment(iterations=7, potential=potential)

    def interrupt(iteration, total, values):
        if iteration == 5:
            raise KeyboardInterrupt

    whole = train(AdversarialTraining(reference, FREE, settings), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(
            AdversarialTraining(reference, FREE, settings), tmp_path / "parts", progress=interrupt
        )
    assert load_checkpoint(tmp_path / "parts" / "checkpoints")["iteration"] == 4
    resumed = train(AdversarialTraining(reference, FREE, settings), tmp_path / "parts")
    assert torch.equal(parameters(whole), parameters(resumed))

    def curve(name):
        with open(tmp_path / name / "log.csv", newline="") as file:
            return [
                (row["iteration"], row["friction"], row["dynamics_gap"])
                for row in csv.DictReader(file)
            ]

    # Where memory followed displacements at the end, that has a row.
    assert curve("whole") == curve("parts") and len(curve("whole")) == 7 + (
        potential == "relative_entropy"
    )


def test_validation_is_logged(reference, tmp_path):
    """Every other iteration, and when memory has followed displacements in two rollouts more."""

    def validate(parameters, iteration):
        return {"validation_diffusion": float(iteration)}

    train(
        AdversarialTraining(reference, FREE, experiment(iterations=4)), tmp_path, validate=validate
    )
    with open(tmp_path / "log.csv", newline="") as file:
        assert [row["validation_diffusion"] for row in csv.DictReader(file)] == [
            "",
            "2",
            "",
            "4",
            "6",
        ]


def test_an_explosion_sends_training_back_to_its_last_good_state(reference, tmp_path):
    training = AdversarialTraining(reference, FREE, experiment(iterations=5))
    calls, original, said = [], training.motion.roll_out, []

    def explode_twice(*arguments, **options):
        calls.append(1)
        if len(calls) - sum(KernelFitSettings().initial_rollouts) in (4, 6):
            raise ExplosionError("rollout exploded at step 3 of 16 in replica 0")
        return original(*arguments, **options)

    training.motion.roll_out = explode_twice
    train(training, tmp_path, warn=said.append)
    assert (
        said[0] == "rollout exploded at step 3 of 16 in replica 0; training returned to iteration 2"
    )
    # Both are told in the end, though training went back to before the first.
    assert (
        said[1] == said[0]
        and json.loads((tmp_path / "outcome.json").read_text())["warnings"][:2] == said[:2]
    )
    assert load_checkpoint(tmp_path / "checkpoints")["iteration"] == 5


def test_a_potential_that_always_explodes_is_given_up_with_a_reason(reference, tmp_path):
    wild = InitialFit(
        PotentialSpec(("A",), (PairSpec((0.2,), 0.5, 6, (0.0,)),)), np.full(6, 1e9), np.zeros(6)
    )
    with pytest.raises(
        DivergedError, match="training diverged 6 times, last from iteration 0: .*exploded"
    ):
        train(AdversarialTraining(reference, wild, experiment(iterations=5)), tmp_path)


def fails_in_iteration(training, number, error):
    """Let the rollout of an iteration of `training` raise an error; return the iterations that began."""
    original, begun = training.motion.roll_out, []

    def roll_out(*arguments, **options):
        begun.append(training.iteration)
        if training.iteration == number:
            raise error
        return original(*arguments, **options)

    training.motion.roll_out = roll_out
    return begun


@pytest.mark.parametrize(
    "error, message",
    [
        (OutOfMemoryError("8 GB"), "8 GB; use fewer training.chains or a shorter training.window"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp]"), "enforce fail"),
    ],
)
def test_other_errors_are_not_taken_for_an_explosion(reference, tmp_path, error, message):
    training = AdversarialTraining(reference, FREE, experiment(iterations=5))
    begun = fails_in_iteration(training, 4, error)
    with pytest.raises(type(error), match=message):
        train(training, tmp_path)
    assert begun[-1] == 4 and load_checkpoint(tmp_path / "checkpoints")["iteration"] == 2


def test_a_damaged_checkpoint_gives_way_to_the_one_before(reference, tmp_path):
    train(AdversarialTraining(reference, FREE, experiment(iterations=4)), tmp_path)
    newest = max((tmp_path / "checkpoints").glob("*.pt"))
    newest.write_bytes(newest.read_bytes()[:1000])
    assert load_checkpoint(tmp_path / "checkpoints")["iteration"] == 2


def test_training_resumes_from_a_checkpoint_of_schema_2(tmp_path):
    """Version 1 wrote it after 2 of 6 iterations, with the log's columns under their names of then."""
    reference = free_beads(tmp_path / "beads.h5", GeneralizedLangevin(1, 1, 15.0), 60)
    settings = experiment(iterations=6, window_ps=0.08, chains=1).model_copy(
        update={"discriminator": config.Discriminator(scalars=4, vectors=2, heads=1)}
    )
    saved = tmp_path / "checkpoints" / "iteration-000002.pt"
    saved.parent.mkdir()
    data = Path(__file__).parent / "data" / "training-schema2.pt.gz"
    saved.write_bytes(gzip.decompress(data.read_bytes()))
    (tmp_path / "log.csv").write_text("iteration,dynamics_critic_loss,dynamics_margin\n1,1.4,0.5\n")
    content = torch.load(saved, weights_only=True)
    training = AdversarialTraining(reference, FREE, settings)
    training.load_state_dict(load_checkpoint(saved.parent))
    assert all(torch.equal(a, b) for a, b in zip(training.average, content["average"]))
    weights = training.motion_discriminators.trainers["dynamics"].module.state_dict()
    old = content["dynamics"]["dynamics"]["module"]
    assert len(weights) == len(old)
    assert all(torch.equal(a, b) for a, b in zip(weights.values(), old.values()))
    train(AdversarialTraining(reference, FREE, settings), tmp_path)
    with open(tmp_path / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["iteration"] for row in rows][:5] == ["1", "3", "4", "5", "6"]
    assert rows[0]["dynamics_discriminator_loss"] == "1.4" and rows[0]["dynamics_gap"] == "0.5"


def test_a_window_longer_than_the_reference_is_refused(reference, tmp_path):
    with pytest.raises(ValueError, match="training.window_ps: found a reference of 400 frames"):
        train(AdversarialTraining(reference, FREE, experiment(window_ps=50.0)), tmp_path)
