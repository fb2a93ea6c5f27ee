"""Every choice of critics finds what is known, and each critic judges what it is there for."""

import numpy as np
import pytest
import torch
from systems import FREE, free_beads
from systems import FREE_BEADS as BEADS
from systems import FREE_LENGTH as LENGTH
from systems import free_experiment as experiment

from openmm_cgadv import config
from openmm_cgadv.dynamics import GeneralizedLangevin, Langevin
from openmm_cgadv.methods.adversarial import AdversarialTraining, train
from openmm_cgadv.methods.adversarial.motion_discriminators import MotionDiscriminators
from openmm_cgadv.methods.adversarial.windows import ReferenceWindows, Windows


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return free_beads(
        tmp_path_factory.mktemp("free") / "beads.h5", GeneralizedLangevin(1, 1, 15.0), 400
    )


def chosen(settings, **options):
    return settings.model_copy(update={"discriminator": config.Discriminator(**options)})


@pytest.mark.parametrize("start", [5.0, 45.0])
@pytest.mark.slow
def test_friction_of_free_beads_is_found_by_products_of_steps(tmp_path, start):
    trajectory = free_beads(tmp_path / "beads.h5", Langevin(1, 15.0), 1500)
    settings = experiment(
        "langevin", start, iterations=130, seed=3, validate_every=1000, window_ps=0.32
    )
    training = AdversarialTraining(trajectory, FREE, chosen(settings, kind="gram"))
    assert train(training, tmp_path / "train").bead_friction.item() == pytest.approx(15.0, rel=0.12)


@pytest.mark.parametrize("kind", ["equivariant", "gram", "graph"])
def test_the_critic_of_long_lags_judges_them_alone(reference, kind):
    random = torch.Generator().manual_seed(1)
    discriminators = MotionDiscriminators(
        ReferenceWindows(reference, [1, 2, 4, 8]),
        config.Discriminator(kind=kind, critics=2),
        random,
    )
    x = torch.randn([2, 5, BEADS, 3], generator=random, dtype=torch.float64).cumsum(1)
    windows = Windows.all_beads(
        x,
        LENGTH * torch.eye(3, dtype=torch.float64).expand(2, 3, 3),
        torch.zeros(BEADS, dtype=torch.int64),
    )
    both, log = discriminators.update(windows, random)
    assert (
        both.shape == x.shape
        and (both.abs().amax([0, 2, 3]) > 0).all()
        and {"dynamics_gap", "long_gap"} < set(log)
    )
    assert ("neighbors_gap" in log) == (kind == "graph")
    for name in [name for name in discriminators.trainers if name != "long"]:
        del discriminators.trainers[name]
    long, _ = discriminators.update(windows, random)
    assert (long.abs().amax([0, 2, 3]) > 0).tolist() == [True, False, False, True, True]


@pytest.mark.parametrize("kind, equation", [("gram", "generalized_langevin"), ("graph", "pair")])
@pytest.mark.slow
def test_resumed_training_with_two_critics_is_the_uninterrupted_one(
    reference, tmp_path, kind, equation
):
    def training():
        settings = experiment(equation, iterations=5, window_ps=0.16)
        return AdversarialTraining(reference, FREE, chosen(settings, kind=kind, critics=2))

    def interrupt(iteration, total, values):
        if iteration == 3:
            raise KeyboardInterrupt

    whole = train(training(), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(training(), tmp_path / "parts", progress=interrupt)
    resumed = train(training(), tmp_path / "parts")
    np.testing.assert_array_equal(resumed.theta, whole.theta)
    for name, value in whole.friction.arrays().items():
        np.testing.assert_array_equal(resumed.friction.arrays()[name], value)


def test_a_second_critic_without_lags_of_its_own_is_refused(reference):
    with pytest.raises(ValueError, match="discriminator.critics: found 2 with windows of 2 lags"):
        AdversarialTraining(reference, FREE, chosen(experiment("langevin"), critics=2))


def test_the_critic_of_neighbourhoods_has_one_of_single_beads_at_its_side(reference):
    """And is the one that tells whether the equation of motion can follow."""
    random = torch.Generator().manual_seed(1)
    windows = ReferenceWindows(reference, [1, 2, 4])
    discriminators = MotionDiscriminators(windows, config.Discriminator(kind="graph"), random)
    assert set(discriminators.trainers) == {"dynamics", "neighbors"}
    real, fake = windows.sample(64, random), windows.sample(64, random)
    found = discriminators.gap(real, fake)
    with torch.no_grad():
        discriminators.trainers["dynamics"].module.logit[-1].weight += 1.0
    assert discriminators.gap(real, fake) == found
