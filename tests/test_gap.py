"""A critic of neighbourhoods: what it says of an equation of motion that can't move neighbours together."""

import json

import numpy as np
import pytest
import torch
from systems import FREE, TEMPERATURE, pair_liquid

from openmm_cgadv import config
from openmm_cgadv.dynamics import PairFriction
from openmm_cgadv.errors import DivergedError
from openmm_cgadv.methods.adversarial import AdversarialTraining, train
from openmm_cgadv.methods.adversarial.diagnostics import (
    DiagnosticsSettings,
    diagnose_gap,
    diverged_friction,
)

TRUTH = 40.0
OPEN = DiagnosticsSettings().open_gap
RAN_AWAY = DiagnosticsSettings().divergent_friction


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Beads that feel nothing but friction between them."""
    return pair_liquid(
        tmp_path_factory.mktemp("pair") / "beads.h5", PairFriction(1, 0, TRUTH, 0.1, 0.44), 600
    )


def begun(reference, equation, friction, auxiliary=0, **training):
    dynamics = {
        "equation": equation,
        "timestep_fs": 10,
        "initial_friction_per_ps": friction,
        "auxiliary_variables": auxiliary,
    }
    return AdversarialTraining(
        reference,
        FREE,
        config.Experiment.model_validate(
            {
                "reference": {"temperature_K": TEMPERATURE, "water": "spce"},
                "dynamics": dynamics,
                "discriminator": {"kind": "graph"},
                "training": {"window_ps": 0.32, "validate_every": 1000, **training},
            }
        ),
    )


@pytest.mark.parametrize(
    "equation, friction, open_", [("langevin", 50.0, True), ("pair", 77.0, False)]
)
@pytest.mark.slow
def test_friction_on_single_beads_leaves_the_gap_open_and_is_said_to_be_at_fault(
    reference, tmp_path, equation, friction, open_
):
    """The friction to start from moves single beads as they should; with friction between pairs it is the truth."""
    said = []
    train(begun(reference, equation, friction, iterations=40), tmp_path, warn=said.append)
    outcome = json.loads((tmp_path / "outcome.json").read_text())
    gaps = np.loadtxt(
        tmp_path / "log.csv", delimiter=",", skiprows=1, usecols=column(tmp_path, "held_out_gap")
    )
    assert gaps[20:].mean() > 0.12 if open_ else gaps[20:].mean() < OPEN
    found = [sentence for sentence in said if "the equation of motion is the cause" in sentence]
    assert (
        bool(found) == open_
        and any("dynamics.equation: pair" in warning for warning in outcome["warnings"]) == open_
    )


def column(directory, name):
    return (directory / "log.csv").read_text().splitlines()[0].split(",").index(name)


def test_a_gap_is_open_beyond_its_error_alone():
    wide = torch.full([200, 1], 0.4, dtype=torch.float64)
    assert "dynamics.equation: pair" in diagnose_gap(wide, False).message
    assert "friction_cutoff_nm" in diagnose_gap(wide, True).message
    assert diagnose_gap(0.1 * wide, False) is None
    doubtful = torch.full([200, 1], 0.5 * OPEN, dtype=torch.float64)
    doubtful[180:] += 5 * OPEN
    assert doubtful[100:].mean() > OPEN and diagnose_gap(doubtful, False) is None


def test_rates_of_memory_stay_within_what_frames_tell(reference):
    motion = begun(reference, "pair", 20.0, auxiliary=2).motion
    with torch.no_grad():
        motion.log_rates += 10.0
        motion.restrain(torch.zeros(1, dtype=torch.float64))
    highest = motion.floors + 1 / reference.frame_interval
    assert motion.rates()[0].tolist() == pytest.approx(highest.tolist())


def test_friction_has_run_away_where_it_is_beyond_what_beads_can_have_and_what_it_started_from():
    free, low, high = (torch.tensor([value]) for value in (30.0, 100.0, 400.0))
    assert (
        diverged_friction(low, free, low, False) is None
        and diverged_friction(high, free, high, False) is None
    )
    assert "to 13.3 times" in diverged_friction(
        high, free, low, False
    ) and "equivariant" not in diverged_friction(high, free, low, False)
    assert "equivariant" in diverged_friction(high, free, low, True)


@pytest.mark.slow
def test_friction_between_pairs_that_runs_away_ends_training(reference, tmp_path):
    training = begun(reference, "pair", 20.0, iterations=6, checkpoint_every=2)
    step = training.step

    def pushed():
        values = step()
        if training.iteration > 3:
            training.motion.set_friction((RAN_AWAY + 1) * training.einstein_friction.mean())
        return values

    training.step = pushed
    said = []
    with pytest.raises(DivergedError, match="pairwise friction diverged to 11.0 times"):
        train(training, tmp_path, warn=said.append)
    assert said[0].endswith("training returned to iteration 2")
