"""Bead trajectories on disk come back as they were written, and damage is named."""

import json
import subprocess
import sys

import h5py
import numpy as np
import pytest

from openmm_cgadv.data import trajectory
from openmm_cgadv.data.trajectory import BeadTrajectory, BeadWriter, WriterSettings


def description(**changes):
    return (
        dict(
            masses=[18.0, 18.0, 40.0],
            types=[0, 0, 1],
            type_names=("HOH", "AR"),
            temperature=298.15,
            frame_interval=0.02,
            provenance={"seed": 1},
            velocities=True,
            forces=True,
        )
        | changes
    )


def frames(n, seed=0):
    rng = np.random.default_rng(seed)
    positions = np.cumsum(rng.normal(size=(n, 3, 3)), axis=0).astype(np.float32)
    boxes = np.array([[3.0, 0, 0], [0.5, 3, 0], [0.2, -0.1, 3]]) * rng.uniform(1, 1.1, (n, 1, 1))
    velocities, forces = rng.normal(size=(2, n, 3, 3)).astype(np.float32)
    return positions, boxes, velocities, forces


def write(path, n=10, **changes):
    with BeadWriter(path, **description(**changes)) as writer:
        writer.append(*frames(n))
        writer.finish()
    return path


def test_round_trip_keeps_every_number(tmp_path):
    positions, boxes, velocities, forces = frames(10)
    with BeadTrajectory.open(write(tmp_path / "beads.h5")) as read:
        assert (read.n_frames, read.n_beads, read.frame_interval) == (10, 3, 0.02)
        assert read.temperature == 298.15 and read.type_names == ("HOH", "AR")
        assert read.masses.tolist() == [18, 18, 40] and read.types.tolist() == [0, 0, 1]
        assert read.types.dtype == np.int64 and read.provenance == {"seed": 1} and read.complete
        assert np.array_equal(read.positions(), positions)
        assert np.array_equal(read.velocities(), velocities)
        assert np.array_equal(read.forces(), forces)
        assert np.array_equal(read.boxes(), boxes)
        assert read.positions().dtype == np.float64


def test_stress_of_friction_is_kept_frame_by_frame(tmp_path):
    stress = np.random.default_rng(1).normal(size=(10, 3, 3))
    with BeadWriter(tmp_path / "beads.h5", **description(friction_stress=True)) as writer:
        with pytest.raises(ValueError, match="friction stress data is missing"):
            writer.append(*frames(10))
        with pytest.raises(
            ValueError, match=r"found a stress of shape .*, expected \[3, 3\] or \[10, 3, 3\]"
        ):
            writer.append(*frames(10), friction_stress=stress[:4])
        writer.append(*frames(10), friction_stress=stress)
        writer.truncate(7)
    with pytest.raises(ValueError, match="its stress differ"):
        BeadWriter(tmp_path / "beads.h5", **description())
    with BeadTrajectory.open(tmp_path / "beads.h5") as read:
        assert read.has_friction_stress and read.n_frames == 7
        assert np.array_equal(read.friction_stress(slice(2, 9)), stress[2:7])
    with BeadTrajectory.open(write(tmp_path / "none.h5")) as read:
        assert not read.has_friction_stress
        with pytest.raises(ValueError, match="holds no friction stress data"):
            read.friction_stress()


def test_any_choice_of_frames_reads_those_frames(tmp_path):
    positions = frames(10)[0]
    with BeadTrajectory.open(write(tmp_path / "beads.h5")) as read:
        for choice in (
            slice(3, 7),
            slice(1, None, 3),
            slice(None, None, -2),
            slice(5, 2),
            np.array([7, 2, 2]),
            np.array([0, -1]),
            np.array([], dtype=int),
        ):
            assert np.array_equal(read.positions(choice), positions[choice])


def test_frames_one_by_one_equal_frames_at_once(tmp_path):
    settings = WriterSettings(buffer_bytes=36 * 3 * 4)
    with BeadWriter(tmp_path / "one.h5", **description(), settings=settings) as writer:
        for frame in zip(*frames(10)):
            writer.append(*frame)
        assert writer.n_frames == 10
    with (
        BeadTrajectory.open(tmp_path / "one.h5") as one,
        BeadTrajectory.open(write(tmp_path / "all.h5")) as whole,
    ):
        assert np.array_equal(one.positions(), whole.positions())
        assert np.array_equal(one.boxes(), whole.boxes())
        assert not one.complete


def test_file_follows_the_h5md_specification(tmp_path):
    with h5py.File(write(tmp_path / "beads.h5"), "r") as file:
        assert file["h5md"].attrs["version"].tolist() == [1, 1]
        assert {"name", "version"} <= set(file["h5md/creator"].attrs)
        assert "name" in file["h5md/author"].attrs
        assert file["h5md/modules/units"].attrs["version"].tolist() == [1, 0]
        beads = file["particles/beads"]
        assert beads["box"].attrs["dimension"] == 3
        assert beads["box"].attrs["boundary"].tolist() == [b"periodic"] * 3
        assert beads["box/edges/value"].shape == (10, 3, 3)
        units = {
            "position": "nm",
            "velocity": "nm ps-1",
            "force": "kJ mol-1 nm-1",
            "box/edges": "nm",
        }
        for name, unit in units.items():
            assert beads[f"{name}/value"].attrs["unit"] == unit
            assert beads[f"{name}/time"].attrs["unit"] == "ps"
            assert np.allclose(beads[f"{name}/time"][:], 0.02 * np.arange(10), atol=1e-12)
            assert beads[f"{name}/step"][:].tolist() == list(range(10))
        assert beads["mass"].shape == beads["species"].shape == (3,)
        about = file["parameters/openmm_cgadv"].attrs
        assert json.loads(about["provenance"]) == {"seed": 1} and about["complete"]


def test_mdanalysis_reads_the_same_positions_and_box(tmp_path):
    mda = pytest.importorskip("MDAnalysis")
    universe = mda.Universe.empty(3, trajectory=False)
    universe.load_new(str(write(tmp_path / "beads.h5")), format="H5MD")
    positions, boxes, velocities, forces = frames(10)
    assert len(universe.trajectory) == 10
    for frame in universe.trajectory:
        i = frame.frame
        assert np.allclose(frame.positions, 10 * positions[i], rtol=1e-6)
        assert np.allclose(frame.velocities, 10 * velocities[i], rtol=1e-6)
        assert np.allclose(frame.forces, forces[i] / 10, rtol=1e-6)
        assert frame.time == pytest.approx(0.02 * i)
        assert frame.volume == pytest.approx(1000 * np.linalg.det(boxes[i]), rel=1e-5)


def test_an_unfinished_file_is_continued_where_it_stopped(tmp_path):
    path = tmp_path / "beads.h5"
    parts = frames(10)
    with BeadWriter(path, **description()) as writer:
        writer.append(*(part[:6] for part in parts))
    with BeadWriter(path, **description()) as writer:
        assert writer.n_frames == 6
        writer.truncate(4)
        writer.append(*(part[4:] for part in parts))
        writer.finish()
    with BeadTrajectory.open(path) as read:
        assert np.array_equal(read.positions(), parts[0]) and read.complete
    with h5py.File(path, "r") as file:
        assert file["particles/beads/force/step"][:].tolist() == list(range(10))


@pytest.mark.parametrize(
    "change, words",
    [
        ({"masses": [18.0, 18.0, 39.0]}, "masses"),
        ({"types": [0, 1, 1]}, "types"),
        ({"temperature": 300.0}, "temperature"),
        ({"frame_interval": 0.01}, "frame interval"),
        ({"velocities": False}, "velocities"),
        ({"provenance": {"seed": 2}}, "seed = 1, expected 2"),
    ],
)
def test_a_file_of_another_description_is_not_continued(tmp_path, change, words):
    with BeadWriter(tmp_path / "beads.h5", **description()) as writer:
        writer.append(*frames(2))
    with pytest.raises(ValueError, match=f"can't be continued.*{words}"):
        BeadWriter(tmp_path / "beads.h5", **description(**change))


def test_a_complete_file_is_not_overwritten(tmp_path):
    write(tmp_path / "beads.h5")
    with pytest.raises(ValueError, match="found a complete trajectory"):
        BeadWriter(tmp_path / "beads.h5", **description())


@pytest.mark.parametrize("part, name", list(enumerate(["position", "box", "velocity", "force"])))
def test_a_frame_with_a_nan_is_rejected_with_its_number(tmp_path, part, name):
    data = [values.copy() for values in frames(4)]
    data[part][2, 0, 0] = np.nan
    with BeadWriter(tmp_path / "beads.h5", **description()) as writer:
        with pytest.raises(ValueError, match=f"{name}.* value in frame 2"):
            writer.append(*data)
        assert writer.n_frames == 0


def test_a_nan_in_the_file_is_named_by_frame(tmp_path):
    path = write(tmp_path / "beads.h5")
    with h5py.File(path, "r+") as file:
        file["particles/beads/velocity/value"][7, 1, 1] = np.nan
    with BeadTrajectory.open(path) as read:
        read.positions(), read.velocities(slice(0, 7))
        with pytest.raises(ValueError, match="beads.h5: found a velocity value in frame 7"):
            read.velocities(slice(1, None, 2))


def test_wrong_shapes_and_missing_fields_are_rejected(tmp_path):
    positions, boxes, velocities, forces = frames(2)
    with BeadWriter(tmp_path / "beads.h5", **description()) as writer:
        with pytest.raises(ValueError, match="velocity data is missing"):
            writer.append(positions, boxes, forces=forces)
        with pytest.raises(ValueError, match=r"found position data of shape .*, expected \[3, 3\]"):
            writer.append(positions[:, :2], boxes, velocities, forces)
        with pytest.raises(ValueError, match=r"found a box of shape \[3\], expected"):
            writer.append(positions, boxes[0, 0], velocities, forces)
    with BeadWriter(tmp_path / "bare.h5", **description(velocities=False, forces=False)) as writer:
        with pytest.raises(ValueError, match="force data is not expected"):
            writer.append(positions, boxes, forces=forces)
        writer.append(positions, boxes)
    with BeadTrajectory.open(tmp_path / "bare.h5") as read:
        with pytest.raises(ValueError, match="bare.h5 holds no force data"):
            read.forces()


def test_truncated_missing_and_foreign_files_are_named(tmp_path):
    path = write(tmp_path / "beads.h5")
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(ValueError, match="beads.h5 is not a complete HDF5 file"):
        BeadTrajectory.open(path)
    with pytest.raises(ValueError, match="no.h5 does not exist"):
        BeadTrajectory.open(tmp_path / "no.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["coordinates"] = np.zeros(3)
    with pytest.raises(ValueError, match="other.h5 is not a CG trajectory"):
        BeadTrajectory.open(tmp_path / "other.h5")


def test_a_full_disk_is_reported_before_the_file_is_touched(tmp_path, monkeypatch):
    path = tmp_path / "beads.h5"
    writer = BeadWriter(path, **description())
    writer.append(*frames(4))
    writer.flush()
    writer.append(*frames(4))
    full = type("usage", (), {"free": 10})
    monkeypatch.setattr(trajectory.shutil, "disk_usage", lambda folder: full)
    with pytest.raises(OSError, match="beads.h5: the disk is full"):
        writer.flush()
    monkeypatch.undo()
    with BeadTrajectory.open(path) as read:
        assert read.n_frames == 4
    writer.close()
    with BeadTrajectory.open(path) as read:
        assert read.n_frames == 8


def test_a_writer_waits_while_its_file_is_read(tmp_path):
    settings = WriterSettings(buffer_bytes=1)
    writer = BeadWriter(tmp_path / "beads.h5", **description(), settings=settings)
    writer.append(*frames(2))
    with BeadTrajectory.open(tmp_path / "beads.h5") as read:
        assert read.n_frames == 2
        writer.append(*frames(1))
        with pytest.raises(
            OSError, match="can't be written while a BeadTrajectory of this process reads it"
        ):
            writer.flush()
        for _ in range(settings.waiting_buffers - 2):
            writer.append(*frames(1))
        with pytest.raises(OSError, match="can't be written while"):
            writer.append(*frames(1))
    writer.append(*frames(1))
    writer.close()
    with BeadTrajectory.open(tmp_path / "beads.h5") as read:
        assert read.n_frames == 3 + settings.waiting_buffers


def test_a_killed_writer_leaves_a_readable_file(tmp_path):
    code = (
        "import os, sys, numpy as np\n"
        "from openmm_cgadv.data.trajectory import BeadWriter\n"
        f"w = BeadWriter({str(tmp_path / 'beads.h5')!r}, [1.0], [0], ['A'], 300, 0.02)\n"
        "for i in range(5000):\n"
        "    w.append(np.full((1, 3), i), np.eye(3))\n"
        "os._exit(9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 9
    with BeadTrajectory.open(tmp_path / "beads.h5") as read:
        assert read.n_frames >= 3900
        assert np.array_equal(read.positions()[:, 0, 0], np.arange(read.n_frames))


def test_reading_trajectories_needs_no_torch():
    code = "import sys, openmm_cgadv.data.trajectory; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
