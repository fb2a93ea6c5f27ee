"""An experiment with friction between pairs runs from its file to its report."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import openmm_cgadv as cg
from openmm_cgadv import openmm_plugin
from openmm_cgadv.cli import app

pytestmark = pytest.mark.skipif(openmm_plugin.why_not() is not None, reason=openmm_plugin.why_not() or "built")


def test_a_liquid_with_pair_friction_runs_to_its_report(tmp_path):
    (tmp_path / "mixture.yaml").write_text(
        "reference: {temperature_K: 115, liquid: lj_mixture, molecules: 60, length_ps: 6, equilibration_ps: 3}\n"
        "dynamics: {equation: pair, auxiliary_variables: 2}\n"
        "training: {iterations: 3, chains: 2, validate_every: 3, window_ps: 0.4}\n"
        "production: {length_ps: 4, equilibration_ps: 0.5}\n"
    )
    run = CliRunner().invoke(app, ["run", str(tmp_path / "mixture.yaml"), "--out", str(tmp_path / "out")])
    assert run.exit_code == 0, run.output
    initial, trained = cg.load(tmp_path / "out" / "initial.cg"), cg.load(tmp_path / "out" / "model.cg")
    assert initial.equation == trained.equation == "pair"
    assert trained.drift is None and trained.pair_friction.memory.shape == (3, 2, 2)
    # It starts from the residual forces, as the fit kept them, and is changed by training.
    fit = json.loads((tmp_path / "out" / "fit" / "fit.json").read_text())
    assert np.shape(fit["residuals"]["memory"])[:2] == (3, 2)
    assert abs(trained.pair_friction.splines - initial.pair_friction.splines).max() > 1e-4
    header, *rows = (tmp_path / "out" / "train" / "log.csv").read_text().splitlines()
    assert {"averaged_friction", "averaged_friction_AR", "along_1_AR-KR", "alpha_2_KR-KR"} <= set(header.split(","))
    assert len(rows) >= 3
    metrics = json.loads((tmp_path / "out" / "report" / "metrics.json").read_text())
    assert metrics["initial"]["rdf_l1"] < 0.4 and metrics["trained"]["rdf_l1"] < 0.4
    # Five standard deviations of so few beads.
    assert metrics["trained"]["temperature_K"] == pytest.approx(115, abs=45)
    page = (tmp_path / "out" / "report" / "index.html").read_text()
    assert "initial, by forces alone" in page and "Friction between two beads" in page
