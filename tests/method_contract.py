"""What every method must do; a test class for each method inherits from `MethodContract`."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from openmm_cgadv.methods import METHODS
from openmm_cgadv.methods.base import (
    ADVICE,
    HISTORY,
    STATUS,
    Method,
    Result,
    build_model,
    load_parameters,
    save_parameters,
)
from openmm_cgadv.model import Model


def parameters(model: Model, path) -> dict[str, np.ndarray]:
    """All fitted parameters of a model."""
    save_parameters(path, model)
    with np.load(path) as file:
        return dict(file)


def assert_same_parameters(one: Model, other: Model, path) -> None:
    first, second = parameters(one, path), parameters(other, path)
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(second[name], value, err_msg=name)


class MethodContract:
    """Tests of one method.

    A subclass sets `name`, the key in `METHODS`, and overrides the fixtures `inputs` and `bad_inputs`. Both return the
    reference, the initial fit and the experiment; the fit of `inputs` should take a second or two.
    """

    name: str

    @pytest.fixture(scope="class")
    @classmethod
    def inputs(cls, tmp_path_factory):
        raise NotImplementedError

    @pytest.fixture
    def bad_inputs(self, inputs):
        raise NotImplementedError

    @property
    def method(self) -> Method:
        return METHODS[self.name]

    @pytest.fixture(scope="class")
    @classmethod
    def fitted(cls, inputs, tmp_path_factory) -> Result:
        return METHODS[cls.name].fit(*inputs, tmp_path_factory.mktemp("fit"))

    def test_a_seed_determines_the_result(self, inputs, fitted, tmp_path):
        again = self.method.fit(*inputs, tmp_path / "again")
        assert_same_parameters(fitted.model, again.model, tmp_path / "x.npz")
        assert again.status == fitted.status and again.settings == fitted.settings
        reference, initial, experiment = inputs
        training = experiment.training.model_copy(update={"seed": experiment.training.seed + 1})
        other = experiment.model_copy(update={"training": training})
        different = self.method.fit(reference, initial, other, tmp_path / "other")
        with pytest.raises(AssertionError):
            assert_same_parameters(fitted.model, different.model, tmp_path / "x.npz")

    def test_an_interrupted_fit_resumes_to_the_same_result(self, inputs, fitted, tmp_path):
        done = []

        def interrupt(iteration, total, detail):
            done.append(iteration)
            if iteration == total - 1:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            self.method.fit(*inputs, tmp_path, progress=interrupt)
        first = len(done)
        resumed = self.method.fit(*inputs, tmp_path, progress=lambda *now: done.append(now[0]))
        assert len(done) - first < first
        assert_same_parameters(fitted.model, resumed.model, tmp_path / "x.npz")
        assert_same_parameters(fitted.initial, resumed.initial, tmp_path / "x.npz")
        assert resumed.status == fitted.status

    def test_bad_input_is_rejected_before_any_work(self, bad_inputs, tmp_path):
        with pytest.raises(ValueError, match="found .* expected"):
            self.method.fit(*bad_inputs, tmp_path / "fit")
        assert not (tmp_path / "fit").exists()

    def test_the_result_carries_what_the_report_needs(self, inputs, fitted):
        reference, _, experiment = inputs
        for model in (fitted.model, fitted.initial):
            assert isinstance(model, Model)
            assert model.temperature == reference.temperature
            assert model.timestep == experiment.dynamics.timestep
            assert model.provenance["experiment"] == experiment.model_dump(mode="json")
        with open(fitted.history, newline="") as file:
            iterations = [int(row["iteration"]) for row in csv.DictReader(file)]
        assert iterations == sorted(iterations) and fitted.history.name == HISTORY
        assert json.loads((fitted.history.parent / STATUS).read_text()) == fitted.status
        assert fitted.status["sentence"] and isinstance(fitted.status["warnings"], list)
        assert fitted.model.metrics == fitted.status["metrics"]
        assert json.loads(json.dumps(fitted.settings)) == fitted.settings
        assert fitted.description and all(
            isinstance(sentence, str) for sentence in (*fitted.description, *fitted.warnings)
        )
        assert set(fitted.advice) <= set(ADVICE)

    def test_parameters_on_disk_make_the_same_model(self, inputs, fitted, tmp_path):
        save_parameters(tmp_path / "saved.npz", fitted.model)
        saved = load_parameters(tmp_path / "saved.npz")
        model = build_model(*inputs, saved, fitted.status["metrics"])
        assert_same_parameters(fitted.model, model, tmp_path / "x.npz")
        assert (
            model.friction.to_dict() == fitted.model.friction.to_dict()
            and model.metrics == fitted.model.metrics
        )

    def test_intermediate_models_are_validated_and_progress_is_reported(self, inputs, tmp_path):
        models, steps, sentences = [], [], []

        def validate(model, iteration):
            models.append((iteration, model))
            return {"validation_rdf_l1": 0.01}

        result = self.method.fit(
            *inputs,
            tmp_path,
            validate=validate,
            progress=lambda *now: steps.append(now),
            warn=sentences.append,
        )
        assert models and all(isinstance(model, Model) for _, model in models)
        assert result.model.metrics["validation_rdf_l1"] == 0.01
        assert all(
            0 <= done <= total and isinstance(detail, str) and detail
            for done, total, detail in steps
        )
        assert all(isinstance(sentence, str) for sentence in sentences)
        assert set(result.warnings) <= set(sentences)
