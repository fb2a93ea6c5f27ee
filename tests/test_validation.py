"""Live validation runs the parameters of the moment, all in one Context, and says when they explode."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_export import assert_same, energy_and_forces, make_model, measured, quiet, tolerance

from openmm_cgadv import BeadTrajectory, run_production, validation
from openmm_cgadv.config import Production
from openmm_cgadv.export.system import choose_backend
from openmm_cgadv.training import TrainedParameters
from openmm_cgadv.validation import LiveValidation


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
    monkeypatch.setattr(validation, "VALIDATION_LENGTH", 2.0)

    def build(parameters):
        return replace(model, theta=parameters.theta, drift=parameters.drift)

    with BeadTrajectory.open(beads) as trajectory:
        yield LiveValidation(
            trajectory, build, Production(), 0.02, tmp_path / "validation", said.append
        ), model, said, made


def parameters(model, scale=1.0):
    return TrainedParameters(torch.tensor(scale * model.theta), torch.tensor(scale * model.drift))


def test_one_context_serves_all_validations_with_the_parameters_of_the_moment(live):
    validate, model, said, made = live
    ends = []
    for iteration, scale in enumerate((1.0, 1.5), 1):
        values = validate(parameters(model, scale), iteration)
        assert 0.7 * model.temperature < values["validation_temperature"] < 1.3 * model.temperature
        assert values["validation_rdf_l1"] < 0.5
        assert said[-1].startswith(f"train: live validation at iteration {iteration}: ")
        ends.append(validate.positions)
    assert len(made) == 1
    assert not validate.directory.exists()
    new = validate.build(parameters(model, 1.5))
    context = made[0].context
    within = tolerance(choose_backend(), context.getPlatform().getName())
    assert_same(measured(context, model.positions), energy_and_forces(new, model.positions), within)
    # Each goes on from the end of the one before.
    assert np.abs(ends[0] - ends[1]).max() > 1e-3


def test_a_validation_starts_where_the_last_one_ended(live, monkeypatch):
    validate, model, said, made = live
    validate(parameters(model), 1)
    seen = []

    def stop(given, *arguments, **keywords):
        seen.append(given.positions)
        raise validation.ProductionExploded("stopped")

    monkeypatch.setattr(validation, "run_production", stop)
    validate(parameters(model), 2)
    np.testing.assert_array_equal(seen[0], validate.positions)
    context = made[0].context
    x = context.getState(positions=True).getPositions(asNumpy=True)._value
    d = x - seen[0]
    d -= np.round(d / np.diag(model.box)) * np.diag(model.box)
    assert np.abs(d).max() < 1e-6


def test_explosion_is_said_and_left_behind(live):
    validate, model, said, made = live
    bad = parameters(model)
    validate(parameters(model), 1)
    bad.theta[:] = -1e6
    assert validate(bad, 2) == {}
    assert "live validation at iteration 2" in said[-1] and "exploded" in said[-1]
    values = validate(parameters(model), 3)
    assert len(made) == 2
    assert 0.7 * model.temperature < values["validation_temperature"] < 1.3 * model.temperature


def test_displacements_are_compared_at_the_lags_that_a_short_run_supports():
    ratios = [[0.01, 2.0, 0.1], [0.02, 1.02, 0.01], [5.0, 0.95, 0.03], [20.0, 1.04, 0.04], [50.0, 0.5, 0.2]]
    assert validation.worst_displacement({"msd_ratio": ratios}) == (pytest.approx(-0.05), 0.03)
    assert validation.worst_displacement({"msd_ratio": None}) == (None, None)
