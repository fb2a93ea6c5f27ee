"""A directory keeps the stages that its settings still describe, and names a setting that differs."""

import json
from dataclasses import replace

import pytest

from openmm_cgadv.config import Experiment
from openmm_cgadv.workflow.progress import Reporter
from openmm_cgadv.workflow.project import Project, StageError
from openmm_cgadv.workflow.stages import STAGES


def pretended(done, fail=None):
    """The stages, each of which writes its first output alone; the stage `fail` fails instead."""

    def work(stage):
        def write(project, _):
            if stage.name == fail:
                raise OSError("disk full")
            done.append(stage.name)
            path = project.directory / stage.outputs[0]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("")

        return write

    return tuple(replace(stage, work=work(stage)) for stage in STAGES)


def run(directory, fail=None, **sections):
    """Run all stages with settings; the names of those that were not done before."""
    reference = {"temperature_K": 298.15, "water": "spce"}
    experiment = Experiment.model_validate({"reference": reference, **sections})
    done = []
    with Project(directory, experiment, pretended(done, fail), Reporter()) as project:
        project.run()
    return done


@pytest.mark.parametrize(
    "change, sentence",
    [
        (
            {"training": {"validate_every": 25}},
            "training.validate_every: found 25, expected 50, with which the stage `train` was done",
        ),
        (
            {"production": {"frame_interval_fs": 40}},
            "production.frame_interval_fs: found 40.0, expected 20.0, with which the stage `train` was done",
        ),
    ],
)
def test_settings_that_change_a_training_invalidate_it(tmp_path, change, sentence):
    assert run(tmp_path) == [stage.name for stage in STAGES]
    with pytest.raises(StageError, match=sentence):
        run(tmp_path, **change)
    assert run(tmp_path) == []


@pytest.mark.parametrize(
    "change, again",
    [
        ({"training": {"threads": 1, "checkpoint_every": 5}}, []),
        ({"production": {"platform": "CPU", "backend": "plugin"}}, []),
        # The same frames: validation runs stay as they were.
        ({"production": {"timesteps_fs": [5, 10]}}, ["simulate", "report"]),
        ({"production": {"length_ps": 500}}, ["simulate", "report"]),
    ],
)
def test_other_settings_leave_a_training_as_it_is(tmp_path, change, again):
    run(tmp_path)
    assert run(tmp_path, **change) == again


def test_time_steps_that_change_the_frames_of_validation_invalidate_a_training(tmp_path):
    """The frame interval of production follows from its time steps where it is not given."""
    reference = {"temperature_K": 298.15, "water": "spce", "frame_interval_fs": 240}
    run(tmp_path, reference=reference)
    with pytest.raises(
        StageError, match="production.frame_interval_fs: found 60.0, expected 80.0, with"
    ):
        run(tmp_path, reference=reference, production={"timesteps_fs": [60]})


def test_a_directory_of_an_older_version_stays_valid(tmp_path):
    """Such a directory does not record all settings that its training depends on."""
    run(tmp_path, training={"validate_every": 25})
    path = tmp_path / "stages.json"
    stamps = json.loads(path.read_text())
    settings = stamps["train"]["settings"]
    del settings["training"]["validate_every"], settings["production"]
    path.write_text(json.dumps(stamps))
    assert run(tmp_path, training={"validate_every": 25}) == []


def files(directory):
    """The files of a directory but those of the project itself."""
    own = {".lock", "stages.json", "experiment.yaml"}
    found = (path.relative_to(directory) for path in directory.rglob("*") if path.is_file())
    return {str(path) for path in found if path.name not in own}


@pytest.mark.parametrize(
    "deleted, failing",
    [
        ("reference/beads.h5", "reference"),
        ("reference/beads.h5", "fit"),
        ("reference/beads.h5", "train"),
        ("fit/fit.json", "fit"),
        ("fit/fit.json", "train"),
    ],
)
def test_a_trained_model_stays_until_its_replacement_is_there(tmp_path, deleted, failing):
    run(tmp_path)
    everything = files(tmp_path)
    (tmp_path / "train" / "trained.npz").write_text("hours of work")
    (tmp_path / deleted).unlink()
    for _ in range(2):
        with pytest.raises(OSError, match="disk full"):
            run(tmp_path, fail=failing)
        kept = tmp_path / "replaced" / "train" / "trained.npz"
        assert kept.read_text() == "hours of work"
        assert (tmp_path / "replaced" / "model.cg" / "model.json").exists()
    assert {"train", "export", "simulate", "report"} <= set(run(tmp_path))
    assert files(tmp_path) == everything


def test_an_incomplete_stage_does_not_replace_what_was_complete(tmp_path):
    run(tmp_path)
    (tmp_path / "train" / "trained.npz").write_text("complete")
    (tmp_path / "fit" / "fit.json").unlink()
    with pytest.raises(OSError):
        run(tmp_path, fail="train")
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "checkpoint").write_text("incomplete")
    (tmp_path / "reference" / "beads.h5").unlink()
    with pytest.raises(OSError):
        run(tmp_path, fail="fit")
    assert (tmp_path / "replaced" / "train" / "trained.npz").read_text() == "complete"
    assert not (tmp_path / "train").exists()


def test_corrupt_record_of_stages_costs_no_result(tmp_path):
    run(tmp_path)
    before = files(tmp_path)
    (tmp_path / "stages.json").write_text('{"reference":')
    with pytest.raises(StageError, match="stages.json: found no valid JSON; delete this file"):
        run(tmp_path)
    (tmp_path / "stages.json").unlink()
    assert run(tmp_path) == [stage.name for stage in STAGES]
    assert files(tmp_path) == before
