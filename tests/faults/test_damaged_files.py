"""Files that a power cut or a bad disk left behind: one sentence names the file and the remedy, or the stage recovers."""

import json
import re
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from openmm_cgadv.workflow.cli import app

pytestmark = pytest.mark.slow
STAGES = ["reference", "fit", "train", "export", "simulate", "report"]
EXPERIMENT = """
reference: {temperature_K: 298.15, water: spce, molecules: 100, length_ps: 6, equilibration_ps: 2}
training: {iterations: 4, validate_every: 2, checkpoint_every: 2, chains: 2, window_ps: 0.4}
production: {length_ps: 4, equilibration_ps: 0.5}
"""
# The stage that reads the files, the files, and what the sentence says of them; None where the stage recovers.
CASES = [
    ("fit", "reference/beads.h5", "beads.h5 (is not a complete HDF5 file|can't be read)"),
    ("train", "fit/fit.json", "fit.json is corrupt: delete it, and the fit is made again"),
    ("train", "train/checkpoints/*.pt", "found 2 corrupt checkpoints, expected at least one"),
    ("train", "train/checkpoints/iteration-000004.pt", None),
    ("export", "train/trained.npz", "trained.npz is corrupt: delete it, and the training ends"),
    ("export", "train/initial.npz", "initial.npz is corrupt: delete it, and the training ends"),
    ("export", "train/outcome.json", "outcome.json is corrupt: delete .*trained.npz, and the"),
    ("simulate", "model.cg/model.json", "model.json: found no schema_version, expected the"),
    ("simulate", "model.cg/parameters.npz", "parameters.npz: can't be read, it is truncated or"),
    ("report", "production/trained/beads.h5", "beads.h5 (is not a complete HDF5 file|can't be)"),
    ("report", "production/trained/production.json", "production.json is corrupt: delete .*"),
    ("report", "production/trained/state.csv", None),
    ("report", "train/events.out.tfevents*", None),
    ("run", "experiment.yaml", "experiment.yaml: (found an empty file|can't be read)"),
    ("run", "stages.json", "stages.json: found no valid JSON; delete this file, and the stages"),
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The directory of a finished experiment."""
    directory = tmp_path_factory.mktemp("finished")
    (directory / "water.yaml").write_text(EXPERIMENT)
    out = directory / "out"
    run = CliRunner().invoke(app, ["run", str(directory / "water.yaml"), "--out", str(out)])
    assert run.exit_code == 0, run.stderr
    return out


def empty(content):
    return b""


def truncated(content):
    return content[: len(content) // 2]


def random_bytes(content):
    return b"\xff" + np.random.default_rng(1).bytes(len(content))


def flipped(content):
    """Bits of a few bytes behind the first quarter are flipped."""
    damaged = np.frombuffer(content, np.uint8).copy()
    places = np.random.default_rng(2).integers(len(content) // 4, len(content), 8)
    damaged[places] ^= 0xFF
    return damaged.tobytes()


def copied(finished, tmp_path, stage):
    """A copy of the finished experiment in which a stage and those after it are still to be done."""
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    if stage in STAGES:
        stamps = json.loads((out / "stages.json").read_text())
        for later in STAGES[STAGES.index(stage) :]:
            stamps[later]["done"] = False
        (out / "stages.json").write_text(json.dumps(stamps))
    if stage == "simulate":
        shutil.rmtree(out / "production")
    return out


@pytest.mark.parametrize("damage", [empty, truncated, random_bytes, flipped])
@pytest.mark.parametrize("stage, pattern, sentence", CASES, ids=[f"{c[0]}-{c[1]}" for c in CASES])
def test_damaged_file_is_named_or_does_not_matter(
    finished, tmp_path, stage, pattern, sentence, damage
):
    if pattern == "experiment.yaml" and damage is truncated:
        pytest.skip("half of this file may be a valid experiment")
    out = copied(finished, tmp_path, stage)
    files = list(out.glob(pattern))
    assert files
    for file in files:
        file.write_bytes(damage(file.read_bytes()))
    run = CliRunner().invoke(app, [stage, "--out", str(out)])
    if sentence is None:
        assert run.exit_code == 0, run.stderr
        return
    assert run.exit_code == 1 and isinstance(run.exception, SystemExit)
    assert run.stderr.count("\n") == 1 and run.stderr.startswith("cgadv: ")
    assert re.search(sentence, run.stderr), run.stderr


@pytest.mark.parametrize(
    "file, remedy",
    [
        ("fit/fit.json", ["fit/fit.json"]),
        ("train/trained.npz", ["train/trained.npz"]),
        ("train/outcome.json", ["train/trained.npz"]),
        ("train/log.csv", ["train/log.csv"]),
        ("production/trained/production.json", ["production/trained"]),
        ("stages.json", ["stages.json"]),
    ],
)
def test_the_remedy_helps(finished, tmp_path, file, remedy):
    out = copied(finished, tmp_path, "export" if file.startswith("train") else "report")
    (out / file).write_bytes(random_bytes((out / file).read_bytes()))
    for name in remedy:
        path = out / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    run = CliRunner().invoke(app, ["run", "--out", str(out)])
    assert run.exit_code == 0, run.stderr
    assert (out / "report" / "index.html").stat().st_size > 100_000


def test_checksums_find_every_flipped_byte_of_a_trajectory(finished, tmp_path):
    import h5py

    from openmm_cgadv.data.trajectory import BeadTrajectory
    from openmm_cgadv.errors import InputError

    source = finished / "reference" / "beads.h5"
    with h5py.File(source) as file:
        dataset = next(iter(file["particles"].values()))["position/value"]
        chunk = dataset.id.get_chunk_info(0)
    path = tmp_path / "beads.h5"
    content = source.read_bytes()
    for place in np.random.default_rng(3).integers(chunk.size, size=20):
        damaged = bytearray(content)
        damaged[chunk.byte_offset + place] ^= 1
        path.write_bytes(bytes(damaged))
        with BeadTrajectory.open(path) as beads:
            with pytest.raises(
                InputError, match="beads.h5 can't be read: position data is corrupt"
            ):
                beads.positions()
