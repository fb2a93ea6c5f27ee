"""An experiment with friction between pairs runs from its file to its report."""

import json
import re

import numpy as np
import pytest
from typer.testing import CliRunner

import openmm_cgadv as cg
from openmm_cgadv.export import openmm_plugin
from openmm_cgadv.workflow.cli import app

pytestmark = pytest.mark.skipif(
    openmm_plugin.why_not() is not None, reason=openmm_plugin.why_not() or "built"
)


@pytest.mark.slow
def test_a_liquid_with_pair_friction_runs_to_its_report(tmp_path):
    (tmp_path / "mixture.yaml").write_text(
        "reference: {temperature_K: 115, liquid: lj_mixture, molecules: 60, length_ps: 6, equilibration_ps: 3}\n"
        "dynamics: {equation: pair, auxiliary_variables: 2}\n"
        "training: {iterations: 3, chains: 2, validate_every: 3, window_ps: 0.4}\n"
        "production: {length_ps: 4, equilibration_ps: 0.5}\n"
    )
    run = CliRunner().invoke(
        app, ["run", str(tmp_path / "mixture.yaml"), "--out", str(tmp_path / "out")]
    )
    assert run.exit_code == 0, run.output
    initial, trained = (
        cg.load(tmp_path / "out" / "initial.cg"),
        cg.load(tmp_path / "out" / "model.cg"),
    )
    assert initial.friction.name == trained.friction.name == "pair"
    assert trained.friction.memory.shape == (3, 2, 2)
    # It starts from the residual forces, as the fit kept them, and is changed by training.
    fit = json.loads((tmp_path / "out" / "fit" / "fit.json").read_text())
    assert np.shape(fit["residuals"]["memory"])[:2] == (3, 2)
    assert abs(trained.friction.splines - initial.friction.splines).max() > 1e-4
    header, *rows = (tmp_path / "out" / "train" / "log.csv").read_text().splitlines()
    names = header.split(",")
    assert {"averaged_friction", "averaged_friction_AR", "along_1_AR-KR", "alpha_2_KR-KR"} <= set(
        names
    )
    assert len(rows) >= 3
    # Live validation looks at how beads move together.
    last = dict(zip(names, rows[-1].split(",")))
    for figure in ("validation_transverse_current_difference", "validation_shared_difference"):
        assert 0 < float(last[figure]) < 0.7 and 0 < float(last[f"{figure}_stderr"]) < 0.4
    metrics = json.loads((tmp_path / "out" / "report" / "metrics.json").read_text())
    assert metrics["initial"]["rdf_l1"] < 0.4 and metrics["trained"]["rdf_l1"] < 0.4
    # Five standard deviations of so few beads.
    assert metrics["trained"]["temperature_K"] == pytest.approx(115, abs=45)
    page = (tmp_path / "out" / "report" / "index.html").read_text()
    assert "initial, by forces alone" in page and "friction between two beads" in page
    # A step that can't be made stops before beads have become hot.
    for step in (40, 80, 160, 320):
        arguments = [
            "--steps",
            "400",
            "--timestep-fs",
            str(step),
            "--equilibration-ps",
            "1",
            "--out",
            str(tmp_path / f"{step}"),
        ]
        boom = CliRunner().invoke(app, ["simulate", str(tmp_path / "out" / "model.cg"), *arguments])
        told = [line for line in boom.stderr.splitlines() if line.startswith("cgadv: ")]
        assert boom.exit_code == (1 if told else 0), boom.output
        assert all(
            re.search(r"the run exploded, .* time step of \d+ fs is too long", line)
            for line in told
        ), told
    assert told and re.search(r"bead \d+ moved", told[0])
