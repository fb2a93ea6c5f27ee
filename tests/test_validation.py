"""Validation in OpenMM simulates intermediate models in one Context and reports when they explode."""

from dataclasses import replace

import numpy as np
import pytest
from backends import assert_same, measured, tolerance
from models import energy_and_forces, make_model, quiet
from systems import scaled

from openmm_cgadv import BeadTrajectory, run_production
from openmm_cgadv.config import Production
from openmm_cgadv.export.system import choose_backend
from openmm_cgadv.methods import validation
from openmm_cgadv.methods.validation import Validation, ValidationSettings


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    model = quiet(make_model(n=125))
    directory = tmp_path_factory.mktemp("reference")
    run = run_production(model, directory, length=6.0, equilibration=1.0, backend="pythonforce")
    return model, run.beads


@pytest.fixture
def live(reference, tmp_path, monkeypatch):
    """A validation, what it says, and how many Contexts are made for it."""
    model, beads = reference
    said, made = [], []

    def create(*arguments, **keywords):
        made.append(create_simulation(*arguments, **keywords))
        return made[-1]

    create_simulation = validation.create_simulation
    monkeypatch.setattr(validation, "create_simulation", create)
    with BeadTrajectory.open(beads) as trajectory:
        yield (
            Validation(
                trajectory,
                Production(),
                0.02,
                tmp_path / "validation",
                said.append,
                ValidationSettings(length=2.0),
            ),
            model,
            said,
            made,
        )


def changed(model, scale):
    return replace(model, theta=scale * model.theta, friction=scaled(model.friction, scale))


def exploding(model):
    return replace(model, theta=np.full_like(model.theta, -1e6))


def test_one_context_serves_all_validations_with_the_parameters_of_the_moment(live):
    validate, model, said, made = live
    for iteration, scale in enumerate((1.0, 1.5), 1):
        values = validate(changed(model, scale), iteration)
        assert 0.7 * model.temperature < values["validation_temperature"] < 1.3 * model.temperature
        assert values["validation_rdf_l1"] < 0.5
        assert said[-1].startswith(f"validation in OpenMM at iteration {iteration}: ")
    assert len(made) == 1
    assert not validate.directory.exists()
    new = changed(model, 1.5)
    context = made[0].context
    within = tolerance(choose_backend(), context.getPlatform().getName())
    assert_same(measured(context, model.positions), energy_and_forces(new, model.positions), within)


@pytest.mark.parametrize("explodes", [False, True])
def test_a_validation_does_not_depend_on_those_before_it(live, explodes):
    validate, model, said, made = live
    first = validate(model, 2)
    before = exploding(model) if explodes else changed(model, 1.5)
    assert (validate(before, 1) == {}) == explodes
    assert validate(model, 2) == first
    assert validate(model, 3) != first


def test_explosion_is_reported(live):
    validate, model, said, made = live
    assert validate(exploding(model), 2) == {}
    assert "validation in OpenMM at iteration 2" in said[-1] and "exploded" in said[-1]


def test_displacements_are_compared_at_the_lags_that_a_short_run_supports():
    ratios = [[0.01, 2.0, 0.1], [0.02, 1.02, 0.01], [5.0, 0.95, 0.03], [20.0, 1.04, 0.04]]
    assert validation.msd_deviation({"msd_ratio": ratios}, 0.02) == (pytest.approx(-0.05), 0.03)
    assert validation.msd_deviation({"msd_ratio": None}, 0.02) == (None, None)


def test_a_bead_type_that_is_too_fast_does_not_make_up_for_one_that_is_too_slow(live):
    validate, *_ = live

    def run(*moved):
        names = ["A", "B"][: len(moved)]
        mean = sum(moved) / len(moved)
        return dict.fromkeys(
            (
                "temperature_K",
                "rdf_l1",
                "rdf_l1_stderr",
                "adf_l1",
                "adf_l1_stderr",
                "vacf_rms",
                "vacf_rms_stderr",
            ),
            0.0,
        ) | {
            "diffusion_cm2_per_s": mean,
            "diffusion_stderr": 0.01,
            "msd_ratio": [[1.0, mean, 0.01]],
            "diffusion_by_type": {
                name: {"cm2_per_s": one, "stderr": 0.02} for name, one in zip(names, moved)
            },
            "msd_by_type": {
                name: {"msd_ratio": [[1.0, one, 0.02]]} for name, one in zip(names, moved)
            },
        }

    validate.reference_metrics = run(1.0, 1.0)
    found = validate.observables(run(1.05, 0.94))
    assert (
        found["diffusion_deviation"] == pytest.approx(-0.06)
        and found["diffusion_deviation_stderr"] == 0.02
    )
    assert found["msd"] == pytest.approx(-0.06) and found["msd_stderr"] == 0.02
    one = run(0.99)
    validate.reference_metrics = {
        name: value for name, value in run(1.0).items() if not name.endswith("by_type")
    }
    assert validate.observables(one)["diffusion_deviation"] == pytest.approx(-0.01)
