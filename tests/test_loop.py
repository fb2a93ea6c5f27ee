"""Training stops when it has settled, and says and mends what goes wrong without an explosion."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from systems import FREE, free_beads
from systems import free_experiment as experiment

from openmm_cgadv.data.trajectory import BeadTrajectory, BeadWriter
from openmm_cgadv.dynamics import GeneralizedLangevin, Langevin
from openmm_cgadv.methods.adversarial import (
    AdversarialTraining,
    Hyperparameters,
    loop,
    train,
    trainer,
)
from openmm_cgadv.methods.adversarial.chains import ChainSettings
from openmm_cgadv.methods.adversarial.convergence import ConvergenceSettings
from openmm_cgadv.methods.adversarial.held_out import HeldOut
from openmm_cgadv.methods.adversarial.schedule import ScheduleSettings
from openmm_cgadv.methods.adversarial.windows import held_out_start

HASTY = Hyperparameters(
    convergence=ConvergenceSettings(history=20, check_interval=5, drift_threshold=2.0),
    schedule=ScheduleSettings(decay=4),
)
"""Look back over few iterations, and end soon."""

WITHOUT_RESTARTS = Hyperparameters(chains=ChainSettings(restart_probability=0.0))


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return free_beads(tmp_path_factory.mktemp("free") / "beads.h5", Langevin(1, 15.0), 1500)


def begun(reference, hyperparameters=Hyperparameters(), **settings):
    return AdversarialTraining(reference, FREE, experiment("langevin", **settings), hyperparameters)


def collapse(critic):
    """Give everything the same score, and learn no more."""
    with torch.no_grad():
        for parameter in critic.module.parameters():
            parameter.zero_()
    critic.optimizer.param_groups[0]["lr"] = 0.0


def test_training_that_has_settled_ends_before_the_most_iterations(reference, tmp_path):
    said = []
    train(begun(reference, HASTY, friction=15.0, iterations=300), tmp_path, warn=said.append)
    outcome = json.loads((tmp_path / "outcome.json").read_text())
    assert outcome["converged"] and outcome["iterations"] == outcome["decay_start"] + 4 < 300
    assert outcome["sentence"] == said[-1] and "had converged" in said[-1]
    assert outcome["parameter_spread"]["friction"]["stderr"] > 0


def test_training_that_never_settles_ends_with_the_most_iterations(
    reference, tmp_path, monkeypatch
):
    strict = replace(HASTY.convergence, drift_threshold=0.0, tolerance=0.0)
    said = []
    train(
        begun(reference, replace(HASTY, convergence=strict), friction=15.0, iterations=30),
        tmp_path,
        warn=said.append,
    )
    outcome = json.loads((tmp_path / "outcome.json").read_text())
    assert not outcome["converged"] and outcome["iterations"] == 30
    assert (
        "after 26 iterations friction, mean squared displacements, structure had not converged"
        in said[-1]
    )


def test_critics_and_relative_entropy_never_see_the_last_part(reference):
    training = begun(reference)
    first = held_out_start(1500, 8)
    assert first == 1350
    assert training.windows.n_frames == 1350 and training.held_out.windows.n_frames == 150
    x = training.held_out.windows._window(0)
    frames = reference.positions([first + k for k in (0, 4, 8)])
    assert abs(x - (frames - frames.mean(1, keepdims=True))).max() < 1e-5
    with pytest.raises(ValueError, match="two windows, of which one is held out"):
        held_out_start(16, 8)


@pytest.mark.parametrize("frames", [24, 40, 160])
def test_the_error_of_held_out_displacements_is_what_they_scatter_by(tmp_path, frames):
    lags, found, told = [1, 4, 16], [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        path = tmp_path / f"{seed}.h5"
        with BeadWriter(
            path, np.full(40, 18.0), np.zeros(40, int), ["A"], 300.0, 0.1, {}
        ) as writer:
            writer.append(
                np.cumsum(rng.normal(0, 0.03, [frames, 40, 3]), 0),
                np.tile(3.0 * np.eye(3), [frames, 1, 1]),
            )
            writer.finish()
        with BeadTrajectory.open(path) as beads:
            held = HeldOut(
                beads, lags, 0, SimpleNamespace(coordinates=lambda x, box: torch.zeros(len(x), 1))
            )
        found.append(held.msd[0].log().numpy())
        told.append(held.error[0].numpy())
    scatter, error = np.std(found, 0), np.sqrt(np.square(told).mean(0))
    # 60 runs tell the scatter to 9 %; the errors themselves are from five blocks.
    assert (error / scatter).min() > 0.75 and (error / scatter).max() < 1.6
    # Five of them, which an alarm takes for sure, are hardly ever exceeded.
    assert (np.abs(found - np.mean(found, 0)) > 5 * np.array(told)).mean() < 0.01


def test_a_critic_that_has_collapsed_begins_anew(reference, tmp_path):
    training = begun(reference, HASTY, friction=90.0, iterations=40)
    critic = training.motion_discriminators.trainers["dynamics"]
    collapse(critic)
    said = []
    train(training, tmp_path, warn=said.append)
    assert "has collapsed" in said[0] and "it is reinitialized" in said[0]
    assert critic.optimizer.param_groups[0]["lr"] > 0
    assert sum(parameter.abs().sum() for parameter in critic.module.parameters()) > 1
    assert json.loads((tmp_path / "outcome.json").read_text())["warnings"][0].endswith(said[0])


@pytest.mark.parametrize(
    ("potential", "name", "judged"),
    [("relative_entropy", "dynamics", "windows"), ("adversarial", "structure", "configurations")],
)
def test_a_critic_that_has_collapsed_is_found_where_motion_is_right_without_it(
    reference, tmp_path, potential, name, judged
):
    training = AdversarialTraining(
        reference, FREE, experiment(friction=15.0, iterations=30, potential=potential), HASTY
    )
    critic = (
        training.configurational_discriminator.trainer
        if name == "structure"
        else training.motion_discriminators.trainers[name]
    )
    collapse(critic)
    said = []
    train(training, tmp_path, warn=said.append)
    collapsed = [sentence for sentence in said if "collapsed" in sentence]
    assert collapsed == [
        f"the discriminator of {judged} has collapsed: its output is constant; it is reinitialized"
    ]
    assert critic.optimizer.param_groups[0]["lr"] > 0
    assert sum(parameter.abs().sum() for parameter in critic.module.parameters()) > 0
    assert json.loads((tmp_path / "outcome.json").read_text())["warnings"][0].endswith(collapsed[0])


@pytest.mark.parametrize("held, words", [(False, "no longer improve"), (True, "alone determine")])
@pytest.mark.slow
def test_a_gradient_of_noise_is_said(reference, tmp_path, monkeypatch, held, words):
    if not held:  # Displacements mend friction that critics can't.
        for module, name in ((trainer, "fit_initial_kernel"), (loop, "fit_final_kernel")):
            monkeypatch.setattr(module, name, lambda training, *rest: rest[0])
    hyperparameters = Hyperparameters(
        convergence=ConvergenceSettings(history=100), schedule=ScheduleSettings(decay=4)
    )
    training = AdversarialTraining(
        reference, FREE, experiment(friction=90.0, iterations=104), hyperparameters
    )
    generator = torch.Generator().manual_seed(1)
    for parameter in training.motion.parameters():
        parameter.register_hook(
            lambda gradient: torch.randn(gradient.shape, generator=generator, dtype=gradient.dtype)
        )
    said = []
    train(training, tmp_path, warn=said.append)
    (sentence,) = (sentence for sentence in said if "the gradient is noise" in sentence)
    assert words in sentence
    assert any(
        "the gradient is noise" in warning
        for warning in json.loads((tmp_path / "outcome.json").read_text())["warnings"]
    )


def test_beads_that_freeze_are_found_by_what_they_do(reference, tmp_path):
    bound = replace(FREE, theta=np.array([0.0, 0.0, -60.0, -60.0, 0.0, 0.0]))
    settings = experiment("langevin", friction=15.0, iterations=16, chains=2, window_ps=0.64)
    said = []
    train(AdversarialTraining(reference, bound, settings), tmp_path, warn=said.append)
    assert said[0].startswith("the chains froze: the mean squared displacement is 0.1")


@pytest.mark.slow
def test_memory_that_live_validation_finds_worse_is_not_exported(reference, tmp_path):
    """What follows displacements at the end is measured once more, and exported only if that is not worse."""

    def trained(name, worse):
        def validate(parameters, iteration):
            off = 0.2 if worse and iteration > 20 else 0.01
            return {
                "validation_diffusion_deviation": off,
                "validation_diffusion_deviation_stderr": 0.02,
            }

        training = AdversarialTraining(reference, FREE, experiment(friction=15.0, iterations=20))
        found = train(training, tmp_path / name, validate=validate)
        return found, json.loads((tmp_path / name / "outcome.json").read_text())

    found, outcome = trained("good", False)
    assert outcome["exported"] > 20 and outcome["metrics"]["validation_diffusion_deviation"] == 0.01
    assert "a final fit of the memory kernel" in outcome["sentence"]
    last = (tmp_path / "good" / "log.csv").read_text().splitlines()[-1].split(",")
    assert int(last[0]) == outcome["exported"]
    kept, worse = trained("worse", True)
    assert worse["exported"] == 20 and worse["metrics"]["validation_diffusion_deviation"] == 0.01
    assert "the average at iteration 20 is exported" in worse["warnings"][-1]
    assert torch.equal(found.theta, kept.theta) and not np.array_equal(
        found.friction.drift, kept.friction.drift
    )


def test_a_chain_that_froze_starts_again_from_the_reference(reference, tmp_path, monkeypatch):
    training = begun(reference, WITHOUT_RESTARTS, iterations=20, chains=4)
    observe, frozen, started = training.observe, [True], []

    def still(windows, chosen, *arguments):
        seen = observe(windows, chosen, *arguments)
        factors = torch.tensor([0.01 if chain == 1 and frozen[0] else 1.0 for chain in chosen])
        return replace(seen, mobility=factors * seen.mobility)

    start = training.chains.restart

    def again(chain, generator):
        frozen[0] = False
        started.append(chain)
        start(chain, generator)

    monkeypatch.setattr(training, "observe", still)
    monkeypatch.setattr(training.chains, "restart", again)
    said = []
    train(training, tmp_path, warn=said.append)
    assert started == [1]
    assert said[0].startswith("chain 2 moved far less than the others")


def test_chains_that_all_froze_send_training_back_with_new_chains(reference, tmp_path, monkeypatch):
    training = begun(reference, WITHOUT_RESTARTS, iterations=8, chains=2)
    observe, frozen = training.observe, [True]

    def still(windows, chosen, *arguments):
        seen = observe(windows, chosen, *arguments)
        return replace(seen, mobility=0.01 * seen.mobility, structure=500.0) if frozen[0] else seen

    start = training.chains.restart

    def again(chain, generator):
        frozen[0] = False
        start(chain, generator)

    monkeypatch.setattr(training, "observe", still)
    monkeypatch.setattr(training.chains, "restart", again)
    said = []
    train(training, tmp_path, warn=said.append)
    assert said[0].startswith("the chains froze: ") and said[0].endswith(
        "training returned to iteration 2"
    )


def test_a_mode_slower_than_the_window_is_said(reference, tmp_path, monkeypatch):
    # Displacements would mend it.
    monkeypatch.setattr(trainer, "fit_initial_kernel", lambda *arguments: None)
    training = AdversarialTraining(reference, FREE, experiment(iterations=2))
    assert isinstance(training.motion, GeneralizedLangevin)
    with torch.no_grad():
        motion = training.motion
        for parameter, average, value in zip(
            (motion.log_rates, motion.log_couplings), training.average[2:], (-5.0, 6.0)
        ):
            parameter[0, 0] = average[0, 0] = value
    said = []
    train(training, tmp_path, warn=said.append)
    assert any("a decay rate of the memory kernel is at its floor" in sentence for sentence in said)


def test_training_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(reference, tmp_path):
    def interrupt(iteration, total, values):
        if iteration == total - 1:
            raise KeyboardInterrupt

    def validate(parameters, iteration):
        return {
            "validation_diffusion_deviation": 0.01,
            "validation_diffusion_deviation_stderr": 0.01,
        }

    whole = train(
        begun(reference, HASTY, friction=15.0, iterations=40), tmp_path / "whole", validate=validate
    )
    with pytest.raises(KeyboardInterrupt):
        train(
            begun(reference, HASTY, friction=15.0, iterations=40),
            tmp_path / "parts",
            validate=validate,
            progress=interrupt,
        )
    resumed = train(
        begun(reference, HASTY, friction=15.0, iterations=40), tmp_path / "parts", validate=validate
    )
    assert np.array_equal(whole.friction.drift, resumed.friction.drift) and torch.equal(
        whole.theta, resumed.theta
    )
    assert (tmp_path / "whole" / "outcome.json").read_text() == (
        tmp_path / "parts" / "outcome.json"
    ).read_text()


def test_a_model_that_explodes_whenever_it_is_validated_is_said(reference, tmp_path):
    said = []
    train(begun(reference, iterations=3), tmp_path, validate=lambda *_: {}, warn=said.append)
    assert any("every validation in OpenMM exploded" in sentence for sentence in said)
    said.clear()
    train(
        begun(reference, iterations=3),
        tmp_path / "well",
        validate=lambda *_: {"validation_rdf_l1": 0.1},
        warn=said.append,
    )
    assert not any("exploded" in sentence for sentence in said[:-1])
