"""Reporters write what a simulation did, go on after a checkpoint, and measure as `analysis`."""

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import openmm
import pytest
from models import make_model, quiet
from openmm import app

from openmm_cgadv import AnalysisReporter, BeadTrajectory, H5MDReporter
from openmm_cgadv.analysis import sampling
from openmm_cgadv.analysis.msd import msd
from openmm_cgadv.analysis.rdf import rdf


def simulation_of(model, seed=3, timestep=None):
    simulation = app.Simulation(
        model.topology,
        model.create_system(backend="pythonforce"),
        model.create_integrator(timestep=timestep, seed=seed),
        openmm.Platform.getPlatform("Reference"),
    )
    simulation.context.setPositions(model.positions)
    simulation.context.setVelocitiesToTemperature(model.temperature, seed)
    return simulation


@pytest.fixture(scope="module")
def model():
    return quiet(make_model(n_types=2, n=64))


class Keep:
    """Every state, in memory."""

    def __init__(self, interval):
        self.interval, self.positions, self.velocities = interval, [], []

    def describeNextReport(self, simulation):
        steps = self.interval - simulation.currentStep % self.interval
        return {"steps": steps, "periodic": False, "include": ["positions", "velocities"]}

    def report(self, simulation, state):
        self.positions.append(state.getPositions(asNumpy=True)._value)
        self.velocities.append(state.getVelocities(asNumpy=True)._value)


class TestH5MD:
    def test_every_frame_is_written_unwrapped_beside_other_reporters(self, model, tmp_path):
        simulation = simulation_of(model)
        kept = Keep(4)
        h5md = H5MDReporter(tmp_path / "beads.h5", 4, model, velocities=True)
        dcd = app.DCDReporter(str(tmp_path / "a.dcd"), 8)
        simulation.reporters += [dcd, h5md, kept]
        simulation.step(2402)
        h5md.close()
        with BeadTrajectory.open(tmp_path / "beads.h5") as beads:
            assert beads.n_frames == 600 and beads.frame_interval == pytest.approx(0.02)
            assert beads.temperature == model.temperature
            assert beads.type_names == model.type_names
            np.testing.assert_array_equal(beads.types, model.types)
            np.testing.assert_array_equal(beads.masses, model.masses[model.types])
            np.testing.assert_allclose(beads.positions(), kept.positions, atol=1e-6)
            np.testing.assert_allclose(beads.velocities(), kept.velocities, atol=1e-5)
            np.testing.assert_allclose(beads.boxes()[-1], model.box)
            assert np.abs(np.diff(beads.positions(), axis=0)).max() < 0.2
            assert np.abs(beads.positions() - model.positions).max() > 0.5 * model.box[0, 0]

    def test_buffered_frames_are_written_when_the_program_ends(self, tmp_path):
        script = (
            "import sys; sys.path.append(sys.argv[1])\n"
            "from models import make_model, quiet\n"
            "from openmm_cgadv import H5MDReporter\n"
            "from openmm_cgadv.simulation.run import create_simulation\n"
            "model = quiet(make_model(n=64))\n"
            "simulation = create_simulation(model, backend='pythonforce', platform='Reference')\n"
            "simulation.reporters.append(H5MDReporter(sys.argv[2], 2, model))\n"
            "def kept():\n    return simulation\n"
            "sys.kept = [simulation, kept]\n"
            "simulation.step(100)\n"
        )
        path = tmp_path / "beads.h5"
        run = subprocess.run(
            [sys.executable, "-c", script, Path(__file__).parent, path],
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0 and "Exception" not in run.stderr, run.stderr
        with BeadTrajectory.open(path) as beads:
            assert beads.n_frames == 50

    def test_resuming_from_a_checkpoint_drops_the_frames_after_it(self, model, tmp_path):
        whole = simulation_of(model)
        whole.reporters.append(H5MDReporter(tmp_path / "whole.h5", 5, model))
        whole.step(100)
        whole.reporters[0].close()

        path = tmp_path / "parts.h5"
        first = simulation_of(model)
        first.reporters.append(H5MDReporter(path, 5, model))
        first.step(40)
        first.saveCheckpoint(str(tmp_path / "checkpoint"))
        first.step(33)
        first.reporters[0].close()
        second = simulation_of(model)
        second.loadCheckpoint(str(tmp_path / "checkpoint"))
        second.reporters.append(H5MDReporter(path, 5, model, append=True))
        second.step(60)
        second.reporters[0].close()
        with BeadTrajectory.open(path) as a, BeadTrajectory.open(tmp_path / "whole.h5") as b:
            assert a.n_frames == b.n_frames == 20
            np.testing.assert_allclose(a.positions(), b.positions(), atol=1e-6)
        # A simulation that has not loaded the checkpoint would leave a hole or a jump.
        for step in (0, 200):
            third = simulation_of(model)
            third.context.setStepCount(step)
            third.reporters.append(H5MDReporter(path, 5, model, append=True))
            with pytest.raises(
                ValueError,
                match=f"20 frames from step 5 on, expected a file that step {step + 5} continues",
            ):
                third.step(5)
        # Without `append` it is written anew.
        fourth = simulation_of(model)
        fourth.reporters.append(H5MDReporter(path, 5, model))
        fourth.step(5)
        fourth.reporters[0].close()
        with BeadTrajectory.open(path) as beads:
            assert beads.n_frames == 1

    @pytest.mark.parametrize("before", [0, 10])
    def test_frame_lost_after_its_checkpoint_is_restored_from_it(self, model, tmp_path, before):
        """A checkpoint written by an earlier reporter is ahead of the file by its own frame."""
        path = tmp_path / "beads.h5"
        kept = Keep(5)
        first = simulation_of(model)
        first.reporters.append(kept)
        if before:
            first.reporters.append(H5MDReporter(path, 5, model, velocities=True))
            first.step(before)
            first.reporters.pop().close()
        else:
            # Killed at the first report, after the file was made.
            empty = H5MDReporter(path, 5, model, velocities=True)
            empty._open(first, 5)
        first.step(5)
        first.saveCheckpoint(str(tmp_path / "ahead"))
        first.step(2)
        first.saveCheckpoint(str(tmp_path / "further"))

        second = simulation_of(model)
        second.reporters.append(H5MDReporter(path, 5, model, velocities=True, append=True))
        second.loadCheckpoint(str(tmp_path / "further"))
        with pytest.raises(
            ValueError, match="expected a file that step .* continues: .*from before its end"
        ):
            second.step(5)
        second.loadCheckpoint(str(tmp_path / "ahead"))
        second.reporters.append(kept)
        second.step(10)
        second.reporters[0].close()
        with BeadTrajectory.open(path) as beads:
            assert beads.n_frames == before // 5 + 3
            np.testing.assert_allclose(beads.positions(), kept.positions, atol=1e-6)
            np.testing.assert_allclose(beads.velocities(), kept.velocities, atol=1e-5)

    def test_checkpoint_from_before_the_first_frame_restarts_the_file(self, model, tmp_path):
        simulation = simulation_of(model)
        simulation.step(3)
        simulation.saveCheckpoint(str(tmp_path / "checkpoint"))
        simulation.reporters.append(H5MDReporter(tmp_path / "beads.h5", 5, model))
        simulation.step(20)
        simulation.reporters[0].close()
        simulation.reporters[0] = H5MDReporter(tmp_path / "beads.h5", 5, model, append=True)
        simulation.loadCheckpoint(str(tmp_path / "checkpoint"))
        simulation.step(7)
        simulation.reporters[0].close()
        with BeadTrajectory.open(tmp_path / "beads.h5") as beads:
            assert beads.n_frames == 2

    def test_file_is_whole_while_the_simulation_runs(self, model, tmp_path):
        simulation = simulation_of(model)
        simulation.reporters.append(
            H5MDReporter(tmp_path / "beads.h5", 5, model, flush_seconds=0.0)
        )
        for frames in (1, 2, 3):
            simulation.step(5)
            with h5py.File(tmp_path / "beads.h5") as file:
                assert len(file["particles/beads/position/value"]) == frames

    @pytest.mark.parametrize("every", [1, 5, 16, 20])
    def test_file_reaches_every_checkpoint(self, model, tmp_path, every):
        simulation = simulation_of(model)
        simulation.reporters += [
            H5MDReporter(tmp_path / "beads.h5", 8, model, flush_seconds=np.inf),
            app.CheckpointReporter(str(tmp_path / "checkpoint"), every),
        ]
        for steps in range(every, 60, every):
            simulation.step(every)
            if steps >= 8:
                with BeadTrajectory.open(tmp_path / "beads.h5") as beads:
                    assert beads.n_frames == steps // 8

    def test_other_beads_are_rejected(self, model, tmp_path):
        other = quiet(make_model(n_types=3, n=64))
        simulation = simulation_of(other)
        simulation.reporters.append(H5MDReporter(tmp_path / "beads.h5", 5, model))
        with pytest.raises(ValueError, match="topology: found residue T2 3, expected one of the"):
            simulation.step(5)

    def test_wrong_arguments_are_rejected_in_one_sentence(self, model, tmp_path):
        with pytest.raises(ValueError, match="interval: found 0, expected a whole number of steps"):
            H5MDReporter(tmp_path / "beads.h5", 0, model)
        with pytest.raises(ValueError, match="found no such file, expected one to append to"):
            H5MDReporter(tmp_path / "beads.h5", 5, model, append=True)


class TestAnalysis:
    def test_observables_are_those_of_the_written_trajectory(self, model, tmp_path):
        """Windows as long as a trajectory measure what `analysis` finds in that trajectory."""
        simulation = simulation_of(model, timestep=0.01)
        simulation.step(50)
        reporter = AnalysisReporter(tmp_path / "figures.json", 10, model, window=200)
        h5md = H5MDReporter(tmp_path / "beads.h5", 10, model)
        simulation.reporters += [reporter, h5md]
        simulation.step(1999)
        assert reporter.msd is None and not (tmp_path / "figures.json").exists()
        assert reporter.reasons["msd"] == "no window of 200 reports is full yet"
        simulation.step(2002)
        h5md.close()
        with BeadTrajectory.open(tmp_path / "beads.h5") as beads:
            assert beads.n_frames == 400
            lags = reporter.msd.lags
            parts = [msd(beads, lags, start=s, stop=s + 200) for s in (0, 200)]
            expected = np.mean([part.blocks.mean(0) for part in parts], axis=0)
            r_max = reporter.rdf.edges[-1]
            counts = [
                rdf(beads, r_max=r_max, start=k, stop=k + 1).observed[0] for k in range(0, 400, 10)
            ]
        np.testing.assert_allclose(reporter.msd.blocks.mean(0), expected, rtol=1e-4)
        # The file is in single precision, so that a distance at the edge of a bin may change sides.
        found, expected = reporter.rdf.observed.sum(0), np.sum(counts, axis=0)
        assert np.abs(found - expected).sum() < 1e-3 * expected.sum()
        np.testing.assert_allclose(found.sum(-1), expected.sum(-1), rtol=1e-3)
        assert r_max == pytest.approx(0.9 * model.box[0, 0] / 2, abs=0.005)
        assert reporter.diffusion.fit_range == (2.0, 4.0)
        slope = np.polyfit(
            *[a[reporter.msd.lags > 1.99] for a in (reporter.msd.lags, reporter.msd.values())], 1
        )[0]
        assert reporter.diffusion.value == pytest.approx(slope * 1e-2 / 6, rel=1e-6)
        assert reporter.diffusion.stderr > 0 and reporter.reasons == {}

        written = json.loads((tmp_path / "figures.json").read_text())
        assert written["windows"] == 2 and written["length_ps"] == pytest.approx(40.0)
        assert written["diffusion_cm2_per_s"] == pytest.approx(reporter.diffusion.value, rel=1e-6)
        kinds = [curve["types"] for curve in written["rdf"]]
        assert kinds == [["T0", "T0"], ["T0", "T1"], ["T1", "T1"]]
        assert written["msd_nm2"][0] == pytest.approx(
            [0.1, reporter.msd.values()[0], reporter.msd.stderr[0]], rel=1e-6
        )

    def test_short_windows_report_what_they_cannot_measure(self, model, tmp_path):
        simulation = simulation_of(model)
        simulation.reporters.append(AnalysisReporter(tmp_path / "a.json", 4, model, window=10))
        simulation.step(40)
        written = json.loads((tmp_path / "a.json").read_text())
        assert written["diffusion_cm2_per_s"] is None
        assert "needs 16 ps of trajectory; this one has 0.2 ps" in written["reasons"]["diffusion"]
        assert written["msd_nm2"][0][2] is None and written["msd_nm2"][0][1] > 0

    def test_displacements_restart_after_a_jump(self, model):
        simulation = simulation_of(model)
        reporter = AnalysisReporter(None, 4, model, window=20)
        simulation.reporters.append(reporter)
        simulation.step(44)
        simulation.context.setStepCount(0)
        simulation.context.setPositions(model.positions + 50.0)
        simulation.step(79)
        assert reporter.msd is None
        simulation.step(1)
        assert reporter.msd.values().max() < 1.0

    def test_one_window_is_kept_in_ram(self, model, monkeypatch):
        monkeypatch.setattr(sampling, "MAX_BEADS", 10)
        simulation = simulation_of(model)
        reporter = AnalysisReporter(None, 2, model, window=10)
        simulation.reporters.append(reporter)
        simulation.step(2 * 10 * 3 + 2 * 9)
        assert np.array(reporter._frames).shape == (9, 10, 3)
        assert reporter._frames[0].dtype == np.float32
        assert reporter.msd.n_beads.sum() == 10 and reporter.msd.n_blocks == 3

    def test_wrong_arguments_are_rejected_in_one_sentence(self, model):
        with pytest.raises(ValueError, match="window: found 5, expected a whole number, 10 or"):
            AnalysisReporter(None, 5, model, window=5)
        with pytest.raises(ValueError, match="interval: found 0.5, expected a whole number"):
            AnalysisReporter(None, 0.5, model)
