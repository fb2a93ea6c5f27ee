"""Adversarial training fulfils the contract of a method, and its advice names fields of the experiment file."""

import re

import pytest
from method_contract import MethodContract
from systems import FREE, free_beads, free_experiment

from openmm_cgadv import config
from openmm_cgadv.dynamics import Langevin
from openmm_cgadv.methods.adversarial.advice import advice
from openmm_cgadv.methods.adversarial.time_scales import time_scales
from openmm_cgadv.methods.base import ADVICE


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return free_beads(tmp_path_factory.mktemp("free") / "beads.h5", Langevin(1, 15.0), 400)


class TestAdversarialMethod(MethodContract):
    name = "adversarial"

    @pytest.fixture(scope="class")
    @classmethod
    def inputs(cls, reference):
        return reference, FREE, free_experiment("langevin", iterations=6)

    @pytest.fixture
    def bad_inputs(self, reference):
        return reference, FREE, free_experiment("langevin", window_ps=50.0)


def replaced(settings, section, **values):
    changed = getattr(settings, section).model_copy(update=values)
    return settings.model_copy(update={section: changed})


def test_advice_follows_from_the_experiment_and_names_its_fields(reference):
    given = free_experiment("generalized_langevin")
    scales = time_scales(reference, FREE, given)
    found = advice(given, scales, converged=True)
    assert set(found) == set(ADVICE)
    assert "training.window_ps" in found["slow_motion"]
    assert "dynamics.timestep_fs" in found["fast_motion"]
    assert "potential.cutoff_nm" in found["pair_structure"]
    assert "training.iterations" in advice(given, scales, converged=False)["motion"]
    cases = {
        "motion": [
            (replaced(given, "dynamics", self_friction_per_ps=2.0), "self_friction_per_ps"),
            (replaced(given, "discriminator", kind="graph"), "dynamics.equation: pair"),
        ],
        "pair_structure": [
            (replaced(given, "training", potential="adversarial"), "relative_entropy")
        ],
        "angular_structure": [
            (replaced(given, "potential", three_body=False), "three_body: true"),
            (replaced(given, "potential", three_body=True), "potential.l_max"),
        ],
    }
    for key, pairs in cases.items():
        for experiment, words in pairs:
            assert words in advice(experiment, scales, converged=True)[key]
    memoryless = free_experiment("langevin")
    scales = time_scales(reference, FREE, memoryless)
    assert "generalized_langevin" in advice(memoryless, scales, True)["motion"]


def test_every_field_that_advice_names_exists(reference):
    experiments = [
        free_experiment("generalized_langevin"),
        free_experiment("langevin"),
        replaced(free_experiment(), "training", potential="adversarial"),
        replaced(free_experiment(), "potential", three_body=False),
        replaced(free_experiment(), "discriminator", kind="graph"),
        replaced(free_experiment(), "dynamics", self_friction_per_ps=2.0),
    ]
    for experiment in experiments:
        scales = time_scales(reference, FREE, experiment)
        for converged in (True, False):
            for sentence in advice(experiment, scales, converged).values():
                for section, field in re.findall(
                    r"\b(potential|dynamics|training|discriminator)\.(\w+)", sentence
                ):
                    model = config.Experiment.model_fields[section].annotation
                    assert field in model.model_fields, f"{section}.{field}"
