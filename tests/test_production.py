"""Production runs keep the ensemble, go on where they stopped, and say so when they explode."""

import json
import re
import shutil
from dataclasses import replace

import mdtraj
import numpy as np
import openmm
import pytest
import torch
from models import make_model, quiet
from production_runs import SHORT, interrupt

from openmm_cgadv import BeadTrajectory, run_production
from openmm_cgadv.analysis.measurement import measure
from openmm_cgadv.errors import ExplosionError, InputError
from openmm_cgadv.simulation import run as production
from openmm_cgadv.simulation.checkpoint import Checkpoint
from openmm_cgadv.simulation.record import read_record
from openmm_cgadv.threads import thread_count
from openmm_cgadv.units import KB
from openmm_cgadv.workflow.report_stage import elsewhere


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    model = quiet(make_model(n_types=2, n=125))
    directory = tmp_path_factory.mktemp("production")
    seen = []
    run = run_production(model, directory, **SHORT, progress=lambda *done: seen.append(done))
    return model, directory, run, seen


def test_frames_are_continuous_and_at_the_right_temperature(finished):
    model, directory, run, _ = finished
    with BeadTrajectory.open(run.beads) as trajectory:
        assert trajectory.n_frames == 200 and trajectory.complete
        assert trajectory.frame_interval == 0.02
        assert trajectory.type_names == model.type_names
        x, v = trajectory.positions(), trajectory.velocities()
    # Unwrapped: no bead moves further in a frame than its velocity takes it.
    assert np.abs(np.diff(x, axis=0)).max() < 0.02 * 1.5 * np.abs(v).max()
    assert np.abs(x).max() > model.box[0, 0]
    mass = model.masses[model.types]
    temperature = (mass[:, None] * v**2).sum(axis=(1, 2)) / (3 * len(mass) * KB)
    assert temperature.mean() == pytest.approx(model.temperature, rel=0.05)


def test_the_record_holds_the_dynamics_of_the_model(finished, tmp_path):
    """So a report of the run need not infer from its motion whether momentum was conserved."""
    model, directory, _, _ = finished
    record = read_record(directory)
    assert record["equation"] == model.friction.name
    assert record["conserves_momentum"] is False
    assert record["friction_per_ps"] == pytest.approx(float(model.bead_friction.mean()))
    with BeadTrajectory.open(directory / "beads.h5") as beads:
        reference = measure(beads)
    found = elsewhere(directory, reference)
    assert found["conserves_momentum"] is False
    assert found["friction_per_ps"] == pytest.approx(record["friction_per_ps"], rel=1e-6)
    # A directory of an older version has no such record.
    shutil.copytree(directory, tmp_path / "old")
    for name in ("equation", "conserves_momentum", "friction_per_ps"):
        del record[name]
    (tmp_path / "old" / "production.json").write_text(json.dumps(record))
    found = elsewhere(tmp_path / "old", reference)
    assert found["conserves_momentum"] is None and found["friction_per_ps"] is None
    assert run_production(model, tmp_path / "old", **SHORT).seconds == record["seconds"]


def test_threads_of_openmm_do_not_follow_torch(tmp_path):
    model = quiet(make_model(n=64))
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        for asked, expected in ((None, thread_count()), (2, 2)):
            simulation = production.create_simulation(model, platform="CPU", threads=asked)
            platform = simulation.context.getPlatform()
            assert platform.getPropertyValue(simulation.context, "Threads") == str(expected)
        run = run_production(model, tmp_path, length=0.2, platform="CPU", threads=2)
        assert run.threads == 2 and read_record(tmp_path)["threads"] == 2
    finally:
        torch.set_num_threads(before)
    with pytest.raises(InputError, match="threads: found 0, expected 1 or more"):
        production.create_simulation(model, platform="CPU", threads=0)


def test_a_failure_that_is_no_explosion_keeps_its_own_error(tmp_path, monkeypatch):
    """Whatever its message says: the state of the beads decides."""
    model = quiet(make_model(n=64))
    simulation = production.create_simulation(model)

    def fail(steps):
        raise openmm.OpenMMException("the simulation failed at step 1: bead 3 moved 7 nm")

    monkeypatch.setattr(simulation.integrator, "step", fail, raising=False)
    with pytest.raises(openmm.OpenMMException, match="bead 3 moved"):
        run_production(model, tmp_path, **SHORT, simulation=simulation)


def test_log_and_speed_are_written(finished):
    _, directory, run, seen = finished
    rows = (directory / "state.csv").read_text().splitlines()
    assert rows[0] == "time_ps,potential_energy_kJ_per_mol,temperature_K,ns_per_day"
    assert [float(row.split(",")[0]) for row in rows[1:]] == [1, 2, 3, 4]
    record = json.loads((directory / "production.json").read_text())
    assert record["ns_per_day"] == pytest.approx(run.ns_per_day) and run.ns_per_day > 0
    assert seen[-1] == (pytest.approx(4.5), pytest.approx(4.5))
    assert not (directory / "checkpoint.npz").exists()


def test_mdtraj_reads_the_viewers_trajectory(finished):
    model, directory, run, _ = finished
    seen = mdtraj.load(directory / "trajectory.dcd", top=directory / "topology.pdb")
    assert seen.n_frames == 4 and seen.n_atoms == 125
    np.testing.assert_allclose(seen.unitcell_vectors[0], model.box, atol=1e-3)
    with BeadTrajectory.open(run.beads) as trajectory:
        expected = production.wrapped(trajectory.positions([199])[0], model.box)
    np.testing.assert_allclose(seen.xyz[-1], expected, atol=1e-4)
    assert (seen.xyz >= -1e-5).all() and (seen.xyz <= model.box[0, 0] + 1e-5).all()


def test_finished_run_is_not_run_again(finished):
    model, directory, run, _ = finished
    before = run.beads.stat().st_mtime_ns
    again = run_production(model, directory, **SHORT)
    assert again == run and run.beads.stat().st_mtime_ns == before


def test_other_arguments_are_rejected(finished):
    model, directory, _, _ = finished
    with pytest.raises(ValueError, match="found a run with seed = 1, expected 2: delete it"):
        run_production(model, directory, **SHORT, seed=2)
    length, steps = SHORT["length"], round(SHORT["length"] / model.timestep)
    sentence = (
        f"length = {length:g} ps ({steps} steps), expected {2 * length:g} ps ({2 * steps} steps)"
    )
    with pytest.raises(ValueError, match=re.escape(sentence)):
        run_production(model, directory, **{**SHORT, "length": 2 * length})
    other = replace(model, theta=1.01 * model.theta)
    with pytest.raises(ValueError, match="found a run with model = "):
        run_production(other, directory, **SHORT)


def test_interrupted_run_resumes(tmp_path, monkeypatch):
    model = quiet(make_model(n=64))
    monkeypatch.setattr(production, "CHECKPOINT_SECONDS", -1.0)

    interrupt(model, tmp_path / "a")
    assert (tmp_path / "a" / "checkpoint.npz").exists()
    seen = []
    run = run_production(model, tmp_path / "a", **SHORT, progress=lambda done, _: seen.append(done))
    assert 2.5 < seen[0] < 2.6
    # Nor does it matter when, by the clock, checkpoints were written.
    monkeypatch.setattr(production, "CHECKPOINT_SECONDS", 1e6)
    whole = run_production(model, tmp_path / "b", **SHORT)
    with BeadTrajectory.open(run.beads) as a, BeadTrajectory.open(whole.beads) as b:
        assert a.n_frames == b.n_frames == 200
        np.testing.assert_array_equal(a.positions(), b.positions())
        assert np.abs(np.diff(a.positions(), axis=0)).max() < 0.1
    rows = (tmp_path / "a" / "state.csv").read_text().splitlines()
    assert [float(row.split(",")[0]) for row in rows[1:]] == [1, 2, 3, 4]


def test_a_run_whose_record_could_not_be_written_is_not_lost(tmp_path, monkeypatch):
    model = quiet(make_model(n=64))
    monkeypatch.setattr(production, "CHECKPOINT_SECONDS", -1.0)
    whole = run_production(model, tmp_path / "whole", **SHORT)

    def full(*arguments):
        raise OSError("No space left on device")

    with monkeypatch.context() as disk, pytest.raises(OSError, match="No space"):
        disk.setattr(production, "write_record", full)
        run_production(model, tmp_path / "a", **SHORT)
    seen = []
    run = run_production(model, tmp_path / "a", **SHORT, progress=lambda done, _: seen.append(done))
    assert not seen or seen[0] > 4.0
    with BeadTrajectory.open(run.beads) as a, BeadTrajectory.open(whole.beads) as b:
        assert a.complete
        np.testing.assert_array_equal(a.positions(), b.positions())
    assert not (tmp_path / "a" / "checkpoint.npz").exists()


@pytest.mark.parametrize("equilibration", [0.0, 0.035, 0.06, 0.5])
def test_equilibration_has_the_requested_length(tmp_path, equilibration):
    """Also where only a few frames are kept, for viewers."""
    model = quiet(make_model(n=64))
    simulation = production.create_simulation(model)
    run_production(
        model,
        tmp_path,
        length=0.2,
        report_interval=0.1,
        equilibration=equilibration,
        simulation=simulation,
    )
    assert simulation.context.getStepCount() == round((equilibration + 0.2) / model.timestep)


@pytest.mark.parametrize("kind", ["dcd", "xtc"])
def test_viewers_trajectory_resumes_where_it_was_truncated(tmp_path, monkeypatch, kind):
    model = quiet(make_model(n=64))
    arguments = dict(
        length=0.6, frame_interval=None, report_interval=0.05, equilibration=0.1, minimize=True
    )
    whole = run_production(model, tmp_path / "a", **arguments, trajectory_format=kind)
    assert whole.beads is None and not (tmp_path / "a" / "beads.h5").exists()
    assert whole.trajectory == tmp_path / "a" / f"trajectory.{kind}"

    def stop(done, total):
        # The frames written after this checkpoint are cut off when the run goes on.
        monkeypatch.setattr(production, "CHECKPOINT_SECONDS", -1.0 if done < 0.24 else 1e6)
        if done > 0.44:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_production(model, tmp_path / "b", **arguments, trajectory_format=kind, progress=stop)
    cut = tmp_path / "b" / f"trajectory.{kind}"
    seen = []
    run_production(
        model,
        tmp_path / "b",
        **arguments,
        trajectory_format=kind,
        progress=lambda done, _: seen.append(done),
    )
    assert seen[0] < 0.4
    a, b = (mdtraj.load(path, top=tmp_path / "a/topology.pdb") for path in (whole.trajectory, cut))
    assert a.n_frames == b.n_frames == 12
    np.testing.assert_allclose(a.xyz[:8], b.xyz[:8], atol=2e-3)
    if kind == "xtc":
        np.testing.assert_allclose(b.time, 0.05 * np.arange(1, 13), atol=1e-5)
    rows = (tmp_path / "b" / "state.csv").read_text().splitlines()
    assert len(rows) == 13


def test_lost_frames_are_named(tmp_path, monkeypatch):
    model = quiet(make_model(n=64))
    monkeypatch.setattr(production, "CHECKPOINT_SECONDS", -1.0)

    def stop(done, total):
        if done > 2.99:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_production(model, tmp_path, **SHORT, progress=stop)
    (tmp_path / "trajectory.dcd").write_bytes(b"")
    with pytest.raises(ValueError, match="trajectory.dcd: found fewer than the .* bytes"):
        run_production(model, tmp_path, **SHORT)


def test_minimization_removes_overlaps(tmp_path):
    model = quiet(make_model(n=64))
    positions = model.positions.copy()
    positions[:8] = positions[8:16] + 0.02
    overlapping = replace(model, positions=positions)
    run = run_production(overlapping, tmp_path, **{**SHORT, "length": 0.5}, minimize=True)
    rows = (tmp_path / "state.csv").read_text().splitlines()
    assert len(rows) == 2 and run.trajectory.exists()
    assert float(rows[1].split(",")[2]) < 2 * model.temperature


def test_explosion_is_named_with_its_time_and_likely_cause(tmp_path):
    model = make_model(n=64)
    with pytest.raises(
        ExplosionError, match="exploded, .* ps after its start: .* time step of 50 fs"
    ):
        run_production(model, tmp_path, length=20.0, timestep=0.05, frame_interval=0.05)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            dict(frame_interval=0.012),
            "found 0.012 ps, expected a multiple of the time step of 0.005",
        ),
        (dict(report_interval=0.03), "found 0.03 ps, expected a multiple of the frame interval"),
        (dict(trajectory_format="trr"), "trajectory_format: found 'trr', expected one of dcd, xtc"),
        (dict(length=-1.0), "length: found -1 ps"),
        (dict(length=0.01), "length: found 0.01 ps, expected at least the 0.02 ps"),
        (dict(equilibration=-1.0), "equilibration: found -1 ps"),
        (dict(timestep=0.0), "timestep: found 0 ps"),
        (dict(platform="Quantum"), "platform: found 'Quantum', expected one of Reference, CPU"),
    ],
)
def test_wrong_arguments_are_rejected_in_one_sentence(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        run_production(make_model(), tmp_path / "a", **{**SHORT, **arguments})


def test_truncated_checkpoint_is_named(tmp_path, monkeypatch):
    model = quiet(make_model(n=64))
    (tmp_path / "checkpoint.npz").write_bytes(b"PK\x03\x04 half a file")
    with pytest.raises(ValueError, match="checkpoint.npz is corrupt: delete"):
        run_production(model, tmp_path, **SHORT)


def test_checkpoints_of_older_versions_are_read(tmp_path):
    path = tmp_path / "checkpoint.npz"
    saved = Checkpoint(b"state", 3, 1234, {"seed": 1}, {"production": 2.5})
    saved.save(path)
    assert Checkpoint.load(path) == saved
    arrays = dict(np.load(path))
    arrays["kept"], arrays["about"] = arrays.pop("viewer_size"), arrays.pop("description")
    np.savez(path, **arrays)
    assert Checkpoint.load(path) == saved
