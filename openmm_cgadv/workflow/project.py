"""The directory of an experiment: which stages are complete, and with which settings."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from ..config import Experiment
from ..errors import InputError
from ..files import locked, write_atomic
from .progress import Reporter, duration

WITHOUT_EFFECT = {
    "reference": ("platform",),
    "training": ("threads", "checkpoint_every"),
    "production": ("platform", "backend"),
}
"""Fields that may change without invalidating a complete stage: they only affect where and how fast it runs. Another
platform uses other random numbers and rounding, which gives another sample of the same distribution."""


REPLACED = "replaced"
"""Folder that keeps outputs which are out of date until their stage is complete again."""


class StageError(InputError):
    """A stage cannot run with the files and settings of the directory."""


@dataclass(frozen=True)
class Stage:
    """One stage: its function, its outputs, and the settings on which they depend.

    Attributes
    ----------
    name : str
    sections : tuple of str
        Sections of the experiment file that it reads, in addition to those of earlier stages.
    work : callable
        Called with the Project and the directories to compare with. It may return a dictionary of
        plain values, which is stored in ``stages.json``.
    outputs : tuple of str
        Files and folders that it writes, relative to the directory; the first exists when the stage
        is complete.
    additive : bool
        Whether outputs of different settings coexist, so that settings may change.
    also_reads : callable, optional
        Returns the settings of other sections that its result depends on, as
        ``{section: {field: value}}``, given the Experiment.
    """

    name: str
    sections: tuple[str, ...]
    outputs: tuple[str, ...]
    work: Callable[[Project, tuple[Path, ...]], dict[str, Any] | None]
    additive: bool = False
    also_reads: Callable[[Experiment], dict[str, dict[str, Any]]] | None = None


class Project:
    """Run the stages of an experiment in its directory; a context manager that locks the directory.

    Parameters
    ----------
    directory : path
        Created if it does not exist.
    experiment : Experiment
    stages : tuple of Stage
        In the order of execution.
    reporter : Reporter

    Raises
    ------
    StageError
        Another process works on the directory.
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        experiment: Experiment,
        stages: tuple[Stage, ...],
        reporter: Reporter,
    ) -> None:
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

    def __exit__(self, *exc: object) -> None:
        self._lock.close()

    def run(self, compare: tuple[Path, ...] = ()) -> None:
        """Run every stage that is not complete.

        Parameters
        ----------
        compare : tuple of Path
            Directories of other experiments to compare with in the report.

        Raises
        ------
        StageError
            The settings of a complete stage have changed.
        """
        for stage in self.stages:
            self._run_stage(stage, compare)

    def run_one(self, name: str, compare: tuple[Path, ...] = ()) -> None:
        """Run one stage after all earlier ones are complete; a report is always written again."""
        stage = self.stages[self.names.index(name)]
        for earlier in self.stages[: self.names.index(name)]:
            self._check_settings(earlier)
            if not self._is_done(earlier):
                raise StageError(
                    f"{self.directory}: the stage `{earlier.name}` is not done, and `{name}` needs "
                    f"it; run `cgadv {earlier.name} --out {self.directory}` or `cgadv run` first"
                )
        self._run_stage(stage, compare, again=name == "report")

    def _run_stage(self, stage: Stage, compare: tuple[Path, ...], again: bool = False) -> None:
        self._check_settings(stage)
        if stage.name == "report" and compare != self._compared():
            again = True
        if self._is_done(stage) and not again:
            self.reporter.say(f"{stage.name}: done before, in {self._where(stage)}")
            return
        if stage.name in self.stamps and self.stamps[stage.name]["done"] and not again:
            # Its output was deleted, so the later stages are out of date.
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
        self._delete_replaced(stage)
        self.reporter.say(
            f"{stage.name}: done in {duration(stamp['seconds'])}, {self._where(stage)}"
        )

    def _where(self, stage: Stage) -> Path:
        return self.directory / stage.outputs[0 if stage.name == "report" else 1]

    def _settings(self, stage: Stage) -> dict[str, Any]:
        settings: dict[str, Any] = {}
        for section in stage.sections:
            value = getattr(self.experiment, section)
            if hasattr(value, "model_dump"):
                value = value.model_dump(mode="json", exclude=set(WITHOUT_EFFECT.get(section, ())))
            settings[section] = value
        return settings | (stage.also_reads(self.experiment) if stage.also_reads else {})

    def _is_done(self, stage: Stage) -> bool:
        stamp = self.stamps.get(stage.name, {"done": False})
        if not stamp["done"] or not (self.directory / stage.outputs[0]).exists():
            return False
        return next(_differences(stamp["settings"], self._settings(stage)), None) is None

    def _check_settings(self, stage: Stage) -> None:
        """Raise StageError if settings differ from those of the existing outputs of a stage."""
        stamp = self.stamps.get(stage.name)
        there = [path for path in stage.outputs[1:] if (self.directory / path).exists()]
        if stamp is None or not there or stage.additive:
            return
        for name, before, now in _differences(stamp["settings"], self._settings(stage)):
            state = "was done" if stamp["done"] else "was begun"
            places = " and ".join(str(self.directory / path) for path in there)
            raise StageError(
                f"{name}: found {now}, expected {before}, with which the stage `{stage.name}` {state}: "
                f"delete {places} to do it again, or choose another --out"
            )

    def _drop_later(self, stage: Stage) -> None:
        """Move the files of later stages aside before a stage runs again.

        After an additive stage the files stay where they are until they are replaced.
        """
        for later in self.stages[self.names.index(stage.name) + 1 :]:
            stamp = self.stamps.pop(later.name, None)
            if stamp is None:
                continue
            kept = [] if stage.additive else self._move_aside(later, complete=stamp["done"])
            places = f"; until then {' and '.join(map(str, kept))} keeps what was there"
            self.reporter.say(f"{later.name}: out of date, to be done again{places * bool(kept)}")
        self._write_stamps()

    def _move_aside(self, stage: Stage, complete: bool) -> list[Path]:
        """Move the outputs of a stage to `REPLACED`; return their new places.

        Outputs of an incomplete stage don't take the place of complete ones that are there already.
        """
        kept = []
        for name in stage.outputs[1:]:
            path, place = self.directory / name, self.directory / REPLACED / name
            if not path.exists():
                continue
            if place.exists() and not complete:
                shutil.rmtree(path)
                continue
            shutil.rmtree(place, ignore_errors=True)
            place.parent.mkdir(exist_ok=True)
            path.rename(place)
            kept.append(place)
        return kept

    def _delete_replaced(self, stage: Stage) -> None:
        """Delete what a stage, which is complete now, had put aside."""
        folder = self.directory / REPLACED
        for name in stage.outputs[1:]:
            shutil.rmtree(folder / name, ignore_errors=True)
        if folder.exists() and not any(folder.iterdir()):
            folder.rmdir()

    def _compared(self) -> tuple[Path, ...]:
        return tuple(Path(p) for p in self.stamps.get("report", {}).get("compare", ()))

    def _keep_experiment(self) -> None:
        data = self.experiment.model_dump(mode="json", exclude_unset=True)
        write_atomic(self.directory / "experiment.yaml", yaml.safe_dump(data, sort_keys=False))

    def _read_stamps(self) -> dict[str, Any]:
        if not self.stamps_path.exists():
            return {}
        try:
            stamps = json.loads(self.stamps_path.read_text())
            return {name: stamps[name] for name in self.names if name in stamps}
        except ValueError as error:
            raise StageError(
                f"{self.stamps_path}: found no valid JSON; delete this file, and the stages are checked and resumed "
                "from their own files"
            ) from error

    def _write_stamps(self) -> None:
        write_atomic(self.stamps_path, json.dumps(self.stamps, indent=1))


def _differences(
    before: dict[str, Any], now: dict[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Yield the fields that differ, as (name, before, now).

    A field that is missing in `before` was unknown to the version of this package that wrote it.
    """
    for name, a in before.items():
        b = now.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from _differences(a, b, f"{prefix}{name}.")
        elif a != b:
            yield f"{prefix}{name}", a, b
