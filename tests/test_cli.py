"""The command does an experiment from its file to its report, resumes, and fails in one sentence."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import mdtraj
import numpy as np
import openmm
import pytest
from typer.testing import CliRunner

import openmm_cgadv as cg
from openmm_cgadv.data.trajectory import BeadWriter
from openmm_cgadv.errors import ExplosionError
from openmm_cgadv.workflow import stages
from openmm_cgadv.workflow.cli import app

NAMES = [stage.name for stage in stages.STAGES]
ROOT = Path(__file__).parent.parent
WATER = "reference: {temperature_K: 298.15, water: spce, molecules: 343, length_ps: 200}\n"
SMALLER = [
    "reference.molecules=100",
    "reference.length_ps=8",
    "reference.equilibration_ps=4",
    "training.iterations=3",
    "training.validate_every=2",
    "training.checkpoint_every=2",
    "training.chains=2",
    "training.window_ps=0.4",
    "production.length_ps=6",
    "production.equilibration_ps=0.5",
    "production.timesteps_fs=[5, 10]",
]


def cgadv(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def settings(*overrides):
    return [word for override in overrides for word in ("--set", override)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The path of `scripts/water --quick`, made smaller still."""
    out = tmp_path_factory.mktemp("runs") / "water-quick"
    command = ["bash", str(ROOT / "scripts" / "water"), "--quick", "--out", str(out)]
    run = subprocess.run(
        command + settings(*SMALLER),
        capture_output=True,
        text=True,
        cwd=out.parent,
        env={**os.environ, "CGADV_PYTHON": sys.executable},
    )
    assert run.returncode == 0, run.stderr + run.stdout
    return out, command, run


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--set", "production.platform=Foo"], "platform: found 'Foo', expected one of Reference"),
        (["--compare", "elsewhere"], "--compare: found no report in elsewhere"),
    ],
)
def test_what_the_last_stages_need_is_checked_before_the_first(tmp_path, arguments, sentence):
    (tmp_path / "water.yaml").write_text(WATER)
    run = cgadv("run", tmp_path / "water.yaml", "--out", tmp_path / "out", *arguments)
    assert run.exit_code == 1 and sentence in run.output
    assert not (tmp_path / "out").exists()


def test_a_plugin_that_pair_friction_needs_is_missed_before_the_first_stage(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "openmm_cgadv.export.openmm_plugin._WHY_NOT", "the OpenMM plugin was not built"
    )
    (tmp_path / "water.yaml").write_text(WATER)
    arguments = ["--set", "dynamics.equation=pair"]
    run = cgadv("run", tmp_path / "water.yaml", "--out", tmp_path / "out", *arguments)
    assert (
        run.exit_code == 1 and "only the OpenMM plugin of openmm_cgadv can integrate" in run.output
    )
    assert not (tmp_path / "out").exists()
    run = cgadv(
        "run",
        tmp_path / "water.yaml",
        "--out",
        tmp_path / "out",
        *arguments,
        "--set",
        "dynamics.auxiliary_variables=7",
    )
    assert run.exit_code == 1 and "found 7 auxiliary_variables with equation `pair`" in run.output


@pytest.mark.slow
def test_quick_run_makes_every_promised_file(finished):
    out, _, run = finished
    for name in (
        "experiment.yaml",
        "reference/beads.h5",
        "train/log.csv",
        "model.cg/model.json",
        "production/trained/trajectory.dcd",
        "production/trained/state.csv",
        "report/index.html",
        "report/metrics.json",
    ):
        assert (out / name).stat().st_size > 0, name
    assert list((out / "train").glob("events.*")) and list(
        (out / "train" / "checkpoints").iterdir()
    )
    for stage in NAMES:
        assert f"{stage}: done in" in run.stdout
    assert "held out force error" in run.stdout
    assert "Traceback" not in run.stderr


@pytest.mark.slow
def test_quick_run_reports_what_its_trajectories_hold(finished):
    out, _, _ = finished
    metrics = json.loads((out / "report" / "metrics.json").read_text())
    for name in ("reference", "initial", "trained"):
        m = metrics[name]
        # Five standard deviations of what a hundred molecules do in so short a run.
        assert m["temperature_K"] == pytest.approx(298, abs=60)
        for figure in ("rdf_l1", "adf_l1", "diffusion_cm2_per_s", "msd_nm2", "vacf"):
            assert m[figure] is not None or m["reasons"][figure]
    assert metrics["trained"]["rdf_l1"] < 0.15
    assert metrics["trained"]["timestep_fs"] == 5
    assert metrics["comparison"]["trained, 10 fs"]["timestep_fs"] == 10
    scales = metrics["provenance"]["time_scales"]
    assert scales["lags_ps"] == pytest.approx([0.02, 0.04, 0.08, 0.16, 0.32, 0.4])
    page = (out / "report" / "index.html").read_text()
    assert (
        "The window is given; lags double" in page
        and "That gives lags of 0.02, 0.04, 0.08, 0.16, 0.32, 0.4 ps" in page
    )
    assert scales["auxiliary_variables"] == 3 and metrics["provenance"]["limits"] == []
    assert metrics["timings"]["all_atom_ns_per_day"] > 0
    assert metrics["timings"]["coarse_grained_ns_per_day"] > 0
    assert set(metrics["timings"]["wall_seconds"]) == set(NAMES) - {"report"}


@pytest.mark.slow
def test_quick_runs_model_is_the_trained_one(finished):
    out, _, _ = finished
    model = cg.load(out / "model.cg")
    initial = cg.load(out / "initial.cg")
    assert len(model.types) == 100 and model.type_names == ("HOH",)
    # Windows of 20 frames get three auxiliary variables.
    assert model.friction.drift.shape == (1, 4, 4)
    assert model.masses[0] == pytest.approx(18.015, abs=0.01)
    assert abs(model.theta - initial.theta).max() > 1e-6
    assert model.metrics["validation_rdf_l1"] > 0
    assert model.provenance["experiment"]["training"]["seed"] == 1
    seen = mdtraj.load(out / "production/trained/trajectory.dcd", top=out / "model.cg/topology.pdb")
    assert seen.n_frames == 6 and seen.n_atoms == 100


@pytest.mark.slow
def test_a_built_in_mixture_runs_to_its_report(tmp_path):
    (tmp_path / "mixture.yaml").write_text(
        "reference: {temperature_K: 115, liquid: lj_mixture, molecules: 60, length_ps: 6, equilibration_ps: 3}\n"
        "training: {iterations: 3, chains: 2, validate_every: 3}\n"
        "production: {length_ps: 4, equilibration_ps: 0.5}\n"
    )
    run = cgadv("run", tmp_path / "mixture.yaml", "--out", tmp_path / "out")
    assert run.exit_code == 0, run.output
    model = cg.load(tmp_path / "out" / "model.cg")
    assert model.type_names == ("AR", "KR") and len(model.types) == 60
    assert model.bead_friction[0] != model.bead_friction[1] and min(model.bead_friction) > 0
    # Half the box holds fewer than the neighbours that the pair cutoff asks for.
    half = 0.5 * model.box[0, 0]
    assert half - 0.011 < model.spec.term("pair").r_cut <= half
    assert model.spec.term("three_body").r_cut == pytest.approx(0.46, abs=0.03)
    assert f"cutoff {model.spec.term('pair').r_cut:.4g} nm" in run.output
    metrics = json.loads((tmp_path / "out" / "report" / "metrics.json").read_text())
    assert metrics["trained"]["rdf_l1"] < 0.3


@pytest.mark.slow
def test_second_run_computes_nothing(finished):
    out, command, _ = finished
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file() and p.name != ".lock"}
    run = subprocess.run(
        command + settings(*SMALLER),
        capture_output=True,
        text=True,
        cwd=out.parent,
        env={**os.environ, "CGADV_PYTHON": sys.executable},
    )
    assert run.returncode == 0, run.stderr
    for stage in NAMES:
        assert f"{stage}: done before" in run.stdout
    after = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file() and p.name != ".lock"}
    assert after == before


@pytest.mark.slow
def test_changed_settings_are_named_before_any_work(finished):
    out, _, _ = finished
    for override, sentence in (
        (
            "training.seed=2",
            f"training.seed: found 2, expected 1, with which the stage `train` was done: delete "
            f"{out}/train to do it again, or choose another --out",
        ),
        (
            "potential.l_max=3",
            "potential.l_max: found 3, expected 4, with which the stage `fit` was done",
        ),
        (
            "reference.temperature_K=310",
            "reference.temperature_K: found 310.0, expected 298.15, with",
        ),
    ):
        result = cgadv("run", "--out", out, "--set", override)
        assert result.exit_code == 1
        assert sentence in result.stderr and result.stderr.count("\n") == 1
    # Where and how fast something is computed changes nothing that was computed.
    result = cgadv(
        "train", "--out", out, *settings("training.threads=1", "production.platform=CPU")
    )
    assert result.exit_code == 0 and "train: done before" in result.stdout


@pytest.mark.slow
def test_report_shows_another_experiment_beside(finished):
    out, _, _ = finished
    result = cgadv("report", "--out", out, "--compare", out)
    assert result.exit_code == 0, result.stderr
    metrics = json.loads((out / "report" / "metrics.json").read_text())
    assert metrics["comparison"]["water-quick"] == metrics["trained"]
    result = cgadv("report", "--out", out, "--compare", out.parent)
    assert result.exit_code == 1 and "found no report in" in result.stderr


@pytest.mark.slow
def test_a_run_of_another_model_is_not_measured(finished, tmp_path):
    out, _, _ = finished
    page = (out / "report" / "index.html").read_text()
    shutil.move(out / "model.cg", tmp_path / "kept")
    shutil.copytree(out / "initial.cg", out / "model.cg")
    result = cgadv("report", "--out", out)
    shutil.rmtree(out / "model.cg")
    shutil.move(tmp_path / "kept", out / "model.cg")
    assert result.exit_code == 1 and result.stderr.count("\n") == 1
    assert f"found a run of another model, expected one of {out / 'model.cg'}" in result.stderr
    assert (out / "report" / "index.html").read_text() == page


@pytest.mark.slow
def test_a_time_step_that_explodes_is_reported_and_the_others_run(finished, monkeypatch):
    out, _, _ = finished
    run = stages.run_production

    def burst(*arguments, timestep, **rest):
        if timestep > 0.01:
            raise ExplosionError("the simulation exploded")
        return run(*arguments, timestep=timestep, **rest)

    monkeypatch.setattr(stages, "run_production", burst)
    result = cgadv("run", "--out", out, *settings("production.timesteps_fs=[5, 10, 20]"))
    assert result.exit_code == 0, result.stderr
    assessment = json.loads((out / "report" / "metrics.json").read_text())["assessment"]
    assert "at 3 time steps" in assessment["headline"] and assessment["headline"].endswith(
        "and it exploded."
    )
    (burst,) = (one for one in assessment["findings"] if one["observable"] == "stability")
    assert burst["sentence"] == "At 20 fs: the simulation exploded."
    assert {one["run"] for one in assessment["findings"]} == {
        "",
        "trained, 10 fs",
        "trained, 20 fs",
    }


@pytest.mark.slow
def test_stages_whose_record_was_deleted_end_with_the_same_model(finished):
    out, _, _ = finished
    before = np.load(out / "model.cg" / "parameters.npz")
    (out / "stages.json").unlink()
    result = cgadv("run", "--out", out)
    assert result.exit_code == 0, result.stderr
    after = np.load(out / "model.cg" / "parameters.npz")
    assert all(np.array_equal(before[name], after[name]) for name in before.files)


@pytest.mark.slow
def test_deleted_stage_is_done_again_with_those_after_it(finished, monkeypatch):
    out, _, _ = finished
    done = []
    pretend = [
        replace(stage, work=lambda project, _, name=stage.name: done.append(name))
        for stage in stages.STAGES
    ]
    monkeypatch.setattr(stages, "STAGES", tuple(pretend))
    (out / "fit" / "fit.json").rename(out / "fit" / "away.json")
    result = cgadv("run", "--out", out)
    assert result.exit_code == 0, result.stderr
    assert done == ["fit", "train", "export", "simulate", "report"]
    assert "train: out of date" in result.stdout and not (out / "train").exists()


class TestErrors:
    """Each in one sentence on standard error, with status 1 and no traceback."""

    def fails(self, *arguments):
        result = cgadv(*arguments)
        assert result.exit_code == 1
        assert result.stderr.count("\n") == 1 and result.stderr.startswith("cgadv: ")
        return result.stderr

    @pytest.fixture
    def experiment(self, tmp_path):
        path = tmp_path / "water.yaml"
        path.write_text(WATER)
        return path

    def test_unknown_key_is_rejected(self, experiment, tmp_path):
        experiment.write_text(WATER.replace("molecules", "molecles"))
        message = self.fails("run", experiment, "--out", tmp_path / "out")
        assert "unknown field `reference.molecles`" in message and "did you mean" in message
        assert not (tmp_path / "out").exists()

    def test_missing_file_is_named(self, tmp_path):
        assert "found no such file" in self.fails("run", tmp_path / "no.yaml", "--out", tmp_path)

    def test_a_directory_without_an_experiment_is_rejected(self, tmp_path):
        assert "found no experiment.yaml" in self.fails("fit", "--out", tmp_path)

    def test_missing_trajectory_is_named(self, tmp_path):
        path = tmp_path / "own.yaml"
        path.write_text(
            "reference: {temperature_K: 298, trajectory: "
            "{topology: a.gro, files: [a.xtc], frame_interval_fs: 20}}\n"
        )
        message = self.fails("run", path, "--out", tmp_path / "out")
        assert "reference.trajectory.topology: found no file" in message

    def test_beads_of_another_temperature_are_rejected(self, tmp_path):
        with BeadWriter(tmp_path / "beads.h5", [18.0], [0], ["HOH"], 310.0, 0.02) as writer:
            writer.append(np.zeros([4, 1, 3]), np.eye(3) * 2)
            writer.finish()
        path = tmp_path / "own.yaml"
        path.write_text("reference: {temperature_K: 298, beads: beads.h5}\n")
        message = self.fails("run", path, "--out", tmp_path / "out")
        assert "temperature_K: found 298, expected the 310 K" in message
        (tmp_path / "beads.h5").unlink()
        message = self.fails("run", path, "--out", tmp_path / "out")
        assert "reference.beads: found no file" in message

    def test_a_stage_before_those_it_needs_is_rejected(self, experiment, tmp_path):
        message = self.fails("train", experiment, "--out", tmp_path / "out")
        assert "the stage `reference` is not done, and `train` needs it" in message

    def test_two_runs_in_one_directory_are_rejected(self, experiment, tmp_path):
        from openmm_cgadv.config import load_experiment
        from openmm_cgadv.workflow.progress import Reporter
        from openmm_cgadv.workflow.project import Project

        with Project(tmp_path / "out", load_experiment(experiment), stages.STAGES, Reporter()):
            message = self.fails("run", experiment, "--out", tmp_path / "out")
        assert "another cgadv works there" in message

    def test_corrupt_stage_records_are_named(self, experiment, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "stages.json").write_text('{"reference"')
        message = self.fails("run", experiment, "--out", tmp_path / "out")
        assert "stages.json: found no valid JSON; delete this file" in message

    def test_debug_shows_the_traceback(self, tmp_path):
        result = cgadv("run", tmp_path / "no.yaml", "--out", tmp_path, "--debug")
        assert isinstance(result.exception, ValueError)


def test_errors_of_openmm_are_reported_without_a_traceback(tmp_path, monkeypatch):
    def fail(*arguments):
        raise openmm.OpenMMException("No compatible OpenCL device")

    monkeypatch.setattr("openmm_cgadv.workflow.cli.load_experiment", fail)
    done = cgadv("reference", tmp_path / "a.yaml", "--out", tmp_path)
    assert done.exit_code == 1 and done.stderr == "cgadv: No compatible OpenCL device\n"


def test_interruption_names_the_command_that_resumes(tmp_path, monkeypatch):
    def interrupt(project, _):
        raise KeyboardInterrupt

    path = tmp_path / "water.yaml"
    path.write_text(WATER)
    first, *others = stages.STAGES
    monkeypatch.setattr(stages, "STAGES", (replace(first, work=interrupt), *others))
    result = cgadv("run", path, "--out", tmp_path / "out")
    assert result.exit_code == 130
    assert result.stderr == "interrupted; run the same command again to continue\n"
    stamp = json.loads((tmp_path / "out" / "stages.json").read_text())["reference"]
    assert stamp["done"] is False
    # Half a stage is bound to its settings too, once it has written something.
    (tmp_path / "out" / "reference").mkdir()
    result = cgadv("run", path, "--out", tmp_path / "out", "--set", "reference.seed=5")
    assert (
        "reference.seed: found 5, expected 1, with which the stage `reference` was begun"
        in result.stderr
    )


@pytest.mark.parametrize("name", ["water", "water_quick", "water_langevin"])
def test_examples_are_valid(name):
    cg.load_experiment(ROOT / "examples" / f"{name}.yaml")
