"""An experiment's directory: which stages of it are done, with which settings, and what is due."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import yaml

from .alone import locked
from .config import Experiment
from .progress import Reporter, duration

WITHOUT_EFFECT = {
    "reference": ("platform",),
    "training": ("threads", "validate_every", "checkpoint_every"),
    "production": ("platform", "backend"),
}
"""Fields that may change without doing a finished stage again."""


class StageError(ValueError):
    """A stage can't be done; the message is one sentence for a person."""


@dataclass(frozen=True)
class Stage:
    """One stage: what it does, and how to tell whether that is still right.

    Attributes
    ----------
    name : str
    sections : tuple of str
        Sections of the experiment file that it reads, beside those of the stages before.
    work : callable
        Does it, given the Project and the directories to compare with. What it returns, plain
        values by name, is kept.
    outputs : tuple of str
        What it makes, relative to the directory; the first is there when it is done.
    additive : bool
        Whether work done with other settings stays beside the new one, so nothing need be refused.
    """

    name: str
    sections: tuple[str, ...]
    outputs: tuple[str, ...]
    work: Callable[[Project, tuple[Path, ...]], dict | None]
    additive: bool = False


class Project:
    """An experiment and its directory; a context manager that keeps other processes out of it.

    Parameters
    ----------
    directory : path
        Made if need be.
    experiment : Experiment
    stages : tuple of Stage
        In their order.
    reporter : Reporter

    Raises
    ------
    StageError
        Another process works on the directory.
    """

    def __init__(
        self, directory, experiment: Experiment, stages: tuple[Stage, ...], reporter: Reporter
    ):
        self.directory = Path(directory)
        self.experiment = experiment
        self.stages = stages
        self.names = [stage.name for stage in stages]
        self.reporter = reporter
        self.stamps_path = self.directory / "stages.json"
        self.directory.mkdir(parents=True, exist_ok=True)
        self.stamps = self._read_stamps()
        self._lock = locked(self.directory)

    def __enter__(self) -> Project:
        return self

    def __exit__(self, *exc) -> None:
        self._lock.close()

    def run(self, compare: tuple[Path, ...] = ()) -> None:
        """Do every stage that is not done yet.

        Parameters
        ----------
        compare : tuple of Path
            Directories of other experiments, to be shown beside in the report.

        Raises
        ------
        StageError
            A stage was done with settings that have changed since.
        """
        for stage in self.stages:
            self._do(stage, compare)

    def run_one(self, name: str, compare: tuple[Path, ...] = ()) -> None:
        """Do one stage, after those before it were done; a report is made anew."""
        stage = self.stages[self.names.index(name)]
        for earlier in self.stages[: self.names.index(name)]:
            self._check_settings(earlier)
            if not self._is_done(earlier):
                raise StageError(
                    f"{self.directory}: the stage `{earlier.name}` is not done, and `{name}` needs "
                    f"it; run `cgadv {earlier.name} --out {self.directory}` or `cgadv run` first"
                )
        self._do(stage, compare, again=name == "report")

    def _do(self, stage: Stage, compare: tuple[Path, ...], again: bool = False) -> None:
        self._check_settings(stage)
        if stage.name == "report" and compare != self._compared():
            again = True
        if self._is_done(stage) and not again:
            self.reporter.say(f"{stage.name}: done before, in {self._where(stage)}")
            return
        if stage.name in self.stamps and self.stamps[stage.name]["done"] and not again:
            # Its output was deleted to be made anew, so what followed from it is out of date.
            del self.stamps[stage.name]
        self._keep_experiment()
        stamp = self.stamps.get(stage.name, {})
        spent = 0.0 if stamp.get("done") else stamp.get("seconds", 0.0)
        stamp = {"settings": self._settings(stage), "done": False, "seconds": spent}
        self.stamps[stage.name] = stamp
        self._drop_later(stage)
        begun = time.monotonic()
        try:
            extra = stage.work(self, compare)
            stamp.update(extra or {}, done=True)
        finally:
            stamp["seconds"] = spent + time.monotonic() - begun
            stamp["when"] = datetime.now().isoformat(timespec="seconds")
            self._write_stamps()
        self.reporter.say(
            f"{stage.name}: done in {duration(stamp['seconds'])}, {self._where(stage)}"
        )

    def _where(self, stage: Stage) -> Path:
        return self.directory / stage.outputs[0 if stage.name == "report" else 1]

    def _settings(self, stage: Stage) -> dict:
        settings = {}
        for section in stage.sections:
            value = getattr(self.experiment, section)
            if hasattr(value, "model_dump"):
                value = value.model_dump(mode="json", exclude=set(WITHOUT_EFFECT.get(section, ())))
            settings[section] = value
        return settings

    def _is_done(self, stage: Stage) -> bool:
        stamp = self.stamps.get(stage.name, {"done": False})
        if not stamp["done"] or not (self.directory / stage.outputs[0]).exists():
            return False
        return next(_differences(stamp["settings"], self._settings(stage)), None) is None

    def _check_settings(self, stage: Stage) -> None:
        """Refuse settings that differ from those of a stage's work, as long as that is there."""
        stamp = self.stamps.get(stage.name)
        there = [path for path in stage.outputs[1:] if (self.directory / path).exists()]
        if stamp is None or not there or stage.additive:
            return
        for name, before, now in _differences(stamp["settings"], self._settings(stage)):
            state = "was done" if stamp["done"] else "was begun"
            places = " and ".join(str(self.directory / path) for path in there)
            raise StageError(
                f"{name} is {now}, but the stage `{stage.name}` {state} with {before}: delete "
                f"{places} to do it again, or choose another --out"
            )

    def _drop_later(self, stage: Stage) -> None:
        """Forget the stages that follow from one which is done anew, with their files; those that will be written over
        by additional work stay until then."""
        for later in self.stages[self.names.index(stage.name) + 1 :]:
            if self.stamps.pop(later.name, None) is not None:
                self.reporter.say(f"{later.name}: out of date, to be done again")
                for path in () if stage.additive else later.outputs[1:]:
                    shutil.rmtree(self.directory / path, ignore_errors=True)
        self._write_stamps()

    def _compared(self) -> tuple[Path, ...]:
        return tuple(Path(p) for p in self.stamps.get("report", {}).get("compare", ()))

    def _keep_experiment(self) -> None:
        data = self.experiment.model_dump(mode="json", exclude_unset=True)
        _write_whole(self.directory / "experiment.yaml", yaml.safe_dump(data, sort_keys=False))

    def _read_stamps(self) -> dict:
        if not self.stamps_path.exists():
            return {}
        try:
            stamps = json.loads(self.stamps_path.read_text())
            return {name: stamps[name] for name in self.names if name in stamps}
        except ValueError as error:
            raise StageError(f"{self.stamps_path} is damaged: delete {self.directory}") from error

    def _write_stamps(self) -> None:
        _write_whole(self.stamps_path, json.dumps(self.stamps, indent=1))


def _differences(before: dict, now: dict, prefix: str = ""):
    """Fields that differ, as (name, before, now)."""
    for name in [*now, *(name for name in before if name not in now)]:
        a, b = before.get(name), now.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from _differences(a, b, f"{prefix}{name}.")
        elif a != b:
            yield f"{prefix}{name}", a, b


def _write_whole(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    os.replace(partial, path)
