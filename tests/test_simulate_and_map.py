"""`cgadv simulate` runs a bundle as a liquid of any size; `cgadv map` makes beads of atoms."""

import json

import mdtraj
import numpy as np
import pytest
from all_atom_files import HOT, all_atom, save, wrap
from models import make_model, quiet
from typer.testing import CliRunner

from openmm_cgadv import BeadTrajectory, Mapping, save_bundle
from openmm_cgadv.analysis.measurement import measure
from openmm_cgadv.simulation import run as production
from openmm_cgadv.workflow.cli import app
from openmm_cgadv.workflow.progress import Reporter
from openmm_cgadv.workflow.project import StageError
from openmm_cgadv.workflow.report_stage import check_compared, elsewhere

SHORT = ["--steps", 100, "--report-interval", 20, "--equilibration-ps", 0.2, "--threads", 1]


def cgadv(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    model = quiet(make_model(n_types=2, n=64))
    return save_bundle(model, tmp_path_factory.mktemp("bundle") / "mixture.cg")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


class TestSimulate:
    def test_liquid_has_the_given_size(self, bundle, tmp_path):
        run = cgadv("simulate", bundle, "--steps", 110, *SHORT[2:], "--molecules", 200)
        assert run.exit_code == 0, run.stderr
        assert "200 beads in 1.823 x 1.823 x 1.823 nm, 100 steps of 5 fs" in run.stdout
        assert "ns/day" in run.stdout
        out = tmp_path / "mixture.run"
        seen = mdtraj.load(out / "trajectory.dcd", top=out / "topology.pdb")
        assert seen.n_frames == 5 and seen.n_atoms == 200
        assert [r.name for r in seen.topology.residues] == ["T0"] * 100 + ["T1"] * 100
        rows = (out / "state.csv").read_text().splitlines()
        assert [float(row.split(",")[0]) for row in rows[1:]] == [0.1, 0.2, 0.3, 0.4, 0.5]
        arguments = json.loads((out / "production.json").read_text())["arguments"]
        assert arguments["minimize"] and arguments["equilibration"] == 0.2
        assert not (out / "beads.h5").exists() and not (out / "checkpoint.npz").exists()

    def test_options_reach_the_run(self, bundle, tmp_path):
        run = cgadv(
            "simulate",
            bundle,
            *SHORT,
            "--box",
            "1.4,1.3,1.6",
            "--timestep-fs",
            2,
            "--seed",
            7,
            "--temperature",
            310,
            "--format",
            "xtc",
            "--out",
            "a/b",
            "--platform",
            "CPU",
            "--backend",
            "pythonforce",
        )
        assert run.exit_code == 0, run.stderr
        record = json.loads((tmp_path / "a/b/production.json").read_text())
        assert record["arguments"]["timestep"] == 0.002 and record["arguments"]["seed"] == 7
        assert (record["backend"], record["platform"]) == ("pythonforce", "CPU")
        seen = mdtraj.load("a/b/trajectory.xtc", top="a/b/topology.pdb")
        np.testing.assert_allclose(seen.unitcell_lengths[0], [1.4, 1.3, 1.6], atol=1e-3)
        np.testing.assert_allclose(seen.time, 0.04 * np.arange(1, 6), atol=1e-5)
        assert seen.n_atoms == round(33.0 * 1.4 * 1.3 * 1.6)

    def test_frames_of_beads_are_measured_beside_a_reference(self, bundle, tmp_path):
        run = cgadv("simulate", bundle, *SHORT, "--out", "none")
        assert run.exit_code == 0, run.stderr
        with pytest.raises(StageError, match="found a run without beads.h5 in .*none"):
            check_compared(tmp_path / "none")
        command = ["simulate", bundle, "--steps", 130, "--frame-interval-fs", 20, *SHORT[4:]]
        run = cgadv(*command, "--molecules", 100, "--out", "large")
        assert run.exit_code == 0, run.stderr
        check_compared(tmp_path / "large")
        with BeadTrajectory.open("large/beads.h5") as beads:
            assert (beads.n_frames, beads.n_beads, beads.frame_interval) == (32, 100, 0.02)
            assert beads.has_velocities
            reference = measure(beads)
        figures = elsewhere(tmp_path / "large", reference)
        assert figures["rdf_l1"] == 0 and figures["timestep_fs"] == 5
        assert figures["volume_nm3"] == pytest.approx(100 / 33.0)

    def test_interrupted_run_resumes_and_a_finished_one_is_not_repeated(
        self, bundle, tmp_path, monkeypatch
    ):
        command = ["simulate", bundle, *SHORT, "--out", "run"]
        with monkeypatch.context() as patch:
            patch.setattr(production, "CHECKPOINT_SECONDS", -1.0)
            patch.setattr(Reporter, "work", interrupting(0.45))
            run = cgadv(*command)
        assert run.exit_code == 130
        assert run.stderr == "interrupted; run the same command again to continue\n"
        assert (tmp_path / "run" / "checkpoint.npz").exists()
        told = []
        with monkeypatch.context() as patch:
            patch.setattr(Reporter, "work", interrupting(np.inf, told))
            assert cgadv(*command).exit_code == 0
        assert told[0] == pytest.approx(0.5) and told[-1] == pytest.approx(0.7)
        assert mdtraj.load("run/trajectory.dcd", top="run/topology.pdb").n_frames == 5
        before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").iterdir() if p.suffix}
        run = cgadv(*command)
        assert run.exit_code == 0 and "done before" in run.stdout
        assert before == {p: p.stat().st_mtime_ns for p in before}
        run = cgadv(*command, "--molecules", 100)
        assert "run: found a run with model = " in run.stderr

    @pytest.mark.parametrize(
        "arguments, sentence",
        [
            (["--molecules", 10], "--steps: found none, expected the number of time steps to run"),
            (["--steps", 0], "--steps: found 0, expected the number"),
            (["--steps", 10, "--report-interval", 11], "found 11, expected 1 to the 10 steps"),
            (
                ["--steps", 10, "--frame-interval-fs", 100],
                "--frame-interval-fs: found 20 steps, expected at most the --steps 10",
            ),
            (["--steps", 10, "--box", "3,x"], "--box: found 3,x, expected one length or three"),
            (["--steps", 10, "--box", "0.9"], "box: found a box of 0.9 nm for 24 beads, expected"),
            (["--steps", 10, "--box", 3, "--molecules", 9], "found both of molecules and box"),
            (["--steps", 10, "--timestep-fs", 0], "--timestep-fs: found 0, expected more than 0"),
            (["--steps", 10, "--equilibration-ps", -1], "--equilibration-ps: found -1, expected 0"),
            (["--steps", 10, "--format", "pdb"], "--format: found 'pdb', expected one of dcd, xtc"),
            (["--steps", 10, "--temperature", -1], "temperature: found -1 K, expected more than 0"),
            (["--steps", 10, "--threads", 0], "threads: found 0, expected 1 or more"),
            (["--steps", 10, "--platform", "Foo"], "platform: found 'Foo', expected one of"),
            (["--steps", 10, "--backend", "foo"], "backend: found 'foo', expected one of"),
            (["--steps", 10, "--set", "a=b"], "--set: found with a bundle, expected only with"),
        ],
    )
    def test_wrong_options_are_rejected_before_any_work(
        self, bundle, tmp_path, arguments, sentence
    ):
        run = cgadv("simulate", bundle, *arguments)
        assert run.exit_code == 1
        assert sentence in run.stderr and run.stderr.count("\n") == 1
        assert list(tmp_path.iterdir()) == []

    def test_options_of_a_bundle_are_rejected_with_an_experiment(self):
        run = cgadv("simulate", "water.yaml", "--out", "x", "--report-interval", 5)
        assert run.stderr == (
            "cgadv: --report-interval: found with an experiment, expected only with a bundle\n"
        )
        run = cgadv("simulate", "water.yaml")
        assert run.stderr == "cgadv: --out: found none, expected the directory of the experiment\n"
        run = cgadv("simulate", "water.cg", "--steps", 5)
        assert run.stderr == "cgadv: water.cg: found no such folder, expected a bundle\n"


def interrupting(limit, told=None):
    """A stand-in for `Reporter.work` that interrupts after a time (ps)."""
    from contextlib import contextmanager

    @contextmanager
    def work(self, name, unit):
        def update(done, total=None, detail=""):
            if told is not None:
                told.append(done)
            if done > limit:
                raise KeyboardInterrupt

        yield update

    return work


class TestMap:
    @pytest.fixture
    def command(self, tmp_path):
        topology, x, boxes = all_atom(n_frames=40, molecules=30, box=2.0 * np.eye(3))
        seen = wrap(x, boxes)
        save(tmp_path / "water.gro", topology, seen[:1], boxes[:1])
        save(tmp_path / "first.xtc", topology, seen[:25], boxes[:25])
        save(tmp_path / "second.xtc", topology, seen[25:], boxes[25:], start=25 * 0.02)
        options = ["--top", "water.gro", "--interval-fs", 20, "--temperature", HOT]
        return (topology, x, boxes), ["map", "first.xtc", "second.xtc", *options]

    def test_beads_are_the_centres_of_mass_over_all_files(self, command):
        (topology, x, boxes), words = command
        run = cgadv(*words)
        assert run.exit_code == 0, run.stderr
        assert "40 frames of 30 beads (HOH) in beads.h5" in run.stdout
        truth = Mapping.per_residue(topology).positions(x)
        center = truth.mean(axis=1, keepdims=True)
        truth -= center - center[0]
        with BeadTrajectory.open("beads.h5") as beads:
            assert beads.temperature == HOT and beads.frame_interval == pytest.approx(0.02)
            moved = beads.positions() - truth
        shift = np.round(moved[0] @ np.linalg.inv(boxes[0])) @ boxes[0]
        assert np.abs(moved - shift).max() < 2e-3
        assert "done before" in cgadv(*words).stdout

    def test_selection_and_path_of_the_file_are_options(self, command):
        _, words = command
        run = cgadv(*words, "--selection", "name O", "--out", "a/oxygen.h5")
        assert run.exit_code == 0, run.stderr
        with BeadTrajectory.open("a/oxygen.h5") as beads:
            assert beads.masses[0] == pytest.approx(15.999, abs=1e-2)

    @pytest.mark.parametrize(
        "more, sentence",
        [
            (["--selection", "name XY"], "the atom selection 'name XY' selects none of the 90"),
            (["--interval-fs", 10], "expected the frame interval of 0.01 ps"),
            (["--interval-fs", -10], "frame_interval: found -0.01, expected a positive number"),
            (["--top", "no.gro"], "no.gro does not exist"),
        ],
    )
    def test_errors_are_reported_in_one_sentence(self, command, more, sentence):
        run = cgadv(*command[1], *more)
        assert run.exit_code == 1
        assert sentence in run.stderr and run.stderr.count("\n") == 1
