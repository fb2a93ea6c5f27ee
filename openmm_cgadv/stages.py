"""The stages of an experiment on its directory, from all-atom data to the report; each resumes."""

from __future__ import annotations

import json
import os
import platform as machine
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np
import openmm
import torch
import yaml

from . import __version__, kernels
from .analysis import metrics as figures
from .analysis.report import Memory, PairPotential, ReportInput, Run, Timings, write_report
from .baselines import InitialFit, fit_initial
from .config import Experiment
from .dynamics import memory_kernel
from .export import Model, load, save_bundle
from .potentials.pair import PairSplines
from .production import ProductionExploded, ProductionRun, run_production, wrapped
from .progress import Reporter, duration
from .reference import read_trajectory, run_water
from .training import TrainedParameters, train
from .training.adversarial import AdversarialTraining
from .trajectory import BeadTrajectory

VALIDATION_LENGTH = 40.0
"""Longest live validation (ps)."""
INITIAL_LENGTH = 250.0
"""Longest production of the initial model (ps), which is only compared with."""
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
    outputs : tuple of str
        What it makes, relative to the directory; the first is there when it is done.
    additive : bool
        Whether work done with other settings stays beside the new one, so nothing need be refused.
    """

    name: str
    sections: tuple[str, ...]
    outputs: tuple[str, ...]
    additive: bool = False


STAGES = (
    Stage("reference", ("reference", "mapping"), ("reference/beads.h5", "reference")),
    Stage("fit", ("potential",), ("fit/fit.json", "fit")),
    Stage("train", ("dynamics", "discriminator", "training"), ("train/trained.npz", "train")),
    Stage("export", (), ("model.cg/model.json", "model.cg", "initial.cg")),
    Stage("simulate", ("production",), ("production/trained/production.json", "production"), True),
    Stage("report", (), ("report/index.html", "report")),
)
NAMES = tuple(stage.name for stage in STAGES)


class Project:
    """An experiment and its directory; a context manager that keeps other processes out of it.

    Parameters
    ----------
    directory : path
        Made if need be.
    experiment : Experiment
    reporter : Reporter

    Raises
    ------
    StageError
        Another process works on the directory.
    """

    def __init__(self, directory, experiment: Experiment, reporter: Reporter):
        self.directory = Path(directory)
        self.experiment = experiment
        self.reporter = reporter
        self.stamps_path = self.directory / "stages.json"
        self.directory.mkdir(parents=True, exist_ok=True)
        self.stamps = self._read_stamps()
        self._lock = _locked(self.directory)

    def __enter__(self) -> Project:
        return self

    def __exit__(self, *exc) -> None:
        if self._lock is not None:
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
        for stage in STAGES:
            self._do(stage, compare)

    def run_one(self, name: str, compare: tuple[Path, ...] = ()) -> None:
        """Do one stage, after those before it were done; a report is made anew."""
        stage = STAGES[NAMES.index(name)]
        for earlier in STAGES[: NAMES.index(name)]:
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
            extra = _ACTIONS[stage.name](self, compare)
            stamp.update(extra or {}, done=True)
        finally:
            stamp["seconds"] = spent + time.monotonic() - begun
            stamp["when"] = datetime.now().isoformat(timespec="seconds")
            self._write_stamps()
        self.reporter.say(f"{stage.name}: done in {duration(stamp['seconds'])}, {self._where(stage)}")

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
        """Forget the stages that follow from one which is done anew, with their files."""
        for later in STAGES[NAMES.index(stage.name) + 1 :]:
            if self.stamps.pop(later.name, None) is not None:
                self.reporter.say(f"{later.name}: out of date, to be done again")
                for path in later.outputs[1:]:
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
            return {name: stamps[name] for name in NAMES if name in stamps}
        except ValueError as error:
            raise StageError(f"{self.stamps_path} is damaged: delete {self.directory}") from error

    def _write_stamps(self) -> None:
        _write_whole(self.stamps_path, json.dumps(self.stamps, indent=1))

    # What the stages make

    def reference(self) -> BeadTrajectory:
        return BeadTrajectory.open(self.directory / "reference" / "beads.h5")

    def fit(self) -> InitialFit:
        return InitialFit.load(self.directory / "fit")

    def productions(self) -> dict[str, tuple[float, Path]]:
        """Time step (ps) and directory of each production run, the main one first."""
        settings, folder = self.experiment.production, self.directory / "production"
        steps = settings.timesteps_fs or [self.experiment.dynamics.timestep_fs]
        runs = {"trained": (steps[0] * 1e-3, folder / "trained")}
        for step in steps[1:]:
            runs[f"trained, {step:g} fs"] = (step * 1e-3, folder / f"trained-{step:g}fs")
        runs["initial"] = (steps[0] * 1e-3, folder / "initial")
        return runs


def _reference(project: Project, _) -> dict:
    settings = project.experiment.reference
    path = project.directory / "reference" / "beads.h5"
    if settings.trajectory is not None:
        source = settings.trajectory
        with project.reporter.work("reference", "frames") as update:
            read_trajectory(
                path, topology=source.topology, files=source.files,
                frame_interval=settings.frame_interval, temperature=settings.temperature_K,
                selection=source.selection, progress=update,
            )
        return {}
    marks: list[tuple[float, float]] = []
    with project.reporter.work("reference", "ps") as update:

        def progress(done, total):
            # Equilibration is another kind of work, so the speed is that of what follows it.
            if done > total - settings.length_ps:
                marks[1:] = [(done, time.monotonic())]
                if len(marks) == 1:
                    marks.append(marks[0])
            update(done, total)

        run_water(
            path, water=settings.water, molecules=settings.molecules,
            temperature=settings.temperature_K, length=settings.length_ps,
            frame_interval=settings.frame_interval, timestep=settings.timestep_fs * 1e-3,
            friction=settings.friction_per_ps, equilibration_ps=settings.equilibration_ps,
            seed=settings.seed, threads=torch.get_num_threads(), platform=settings.platform,
            progress=progress,
        )
    if len(marks) < 2 or marks[1][1] <= marks[0][1]:
        return {}
    (first, begun), (last, ended) = marks
    return {"ns_per_day": (last - first) * 1e-3 / (ended - begun) * 86400}


def _fit(project: Project, _) -> None:
    with project.reference() as trajectory:
        fit = fit_initial(trajectory, project.experiment.potential)
    fit.save(project.directory / "fit")
    errors = ", ".join(
        f"{name.replace('_', ' ')} {value:.4g}" for name, value in fit.report.items()
        if isinstance(value, float)
    )
    project.reporter.say(f"fit: {str(fit.report.get('method')).replace('_', ' ')}, {errors}")


def _train(project: Project, _) -> None:
    directory = project.directory / "train"
    with project.reference() as trajectory, project.reporter.work("train", "iterations") as update:
        fit = project.fit()
        # Before its first iteration, training holds the friction that it starts from.
        _save_parameters(
            directory / "initial.npz",
            AdversarialTraining(trajectory, fit, project.experiment).averaged(),
        )
        validate = LiveValidation(project, trajectory, fit)

        def progress(iteration, total, values):
            seen = [f"friction {values['averaged_friction']:.3g}/ps"]
            if validate.last:
                seen.append(validate.last)
            update(iteration, total, detail=", ".join(seen))

        trained = train(
            trajectory, fit, project.experiment, directory,
            validate=validate, progress=progress, warn=project.reporter.say,
        )
    _save_parameters(directory / "trained.npz", trained)


class LiveValidation:
    """Runs averaged parameters in OpenMM during training and measures structure and diffusion.

    Each run starts from where the one before ended.
    """

    def __init__(self, project: Project, trajectory: BeadTrajectory, fit: InitialFit):
        self.project = project
        self.trajectory = trajectory
        self.fit = fit
        self.directory = project.directory / "train" / "validation"
        self.length = min(VALIDATION_LENGTH, trajectory.n_frames * trajectory.frame_interval)
        self.frame_interval = project.experiment.production.frame_interval_fs * 1e-3
        self.measured: figures.Measurement | None = None
        self.positions: np.ndarray | None = None
        self.last = ""

    def reference(self) -> figures.Measurement:
        """The reference, with the diffusion of a part as long as a validation run."""
        if self.measured is None:
            whole = figures.measure(self.trajectory)
            part = figures.measure(
                self.trajectory, stop=round(self.length / self.trajectory.frame_interval)
            )
            reasons = {k: v for k, v in whole.reasons.items() if k != "diffusion"}
            reasons |= {k: v for k, v in part.reasons.items() if k == "diffusion"}
            self.measured = replace(whole, diffusion=part.diffusion, reasons=reasons)
        return self.measured

    def __call__(self, parameters: TrainedParameters, iteration: int) -> dict[str, float]:
        model = build_model(self.project.experiment, self.trajectory, self.fit, parameters)
        if self.positions is not None:
            model = replace(model, positions=self.positions)
        shutil.rmtree(self.directory, ignore_errors=True)
        try:
            run = run_production(
                model, self.directory, length=self.length, frame_interval=self.frame_interval,
                equilibration=0.1 * self.length, seed=iteration,
                platform=self.project.experiment.production.platform,
                backend=self.project.experiment.production.backend,
            )
        except ProductionExploded as error:
            self.project.reporter.say(f"train: live validation at iteration {iteration}: {error}")
            return {}
        with BeadTrajectory.open(run.beads) as beads:
            reference = self.reference()
            found = figures.metrics(figures.measure(beads, reference), reference)
            last = beads.n_frames - 1
            self.positions = wrapped(beads.positions([last])[0], beads.boxes([last])[0])
        shutil.rmtree(self.directory, ignore_errors=True)
        values = {
            "validation_diffusion": found["diffusion_cm2_per_s"],
            "validation_diffusion_stderr": found["diffusion_stderr"],
            "validation_rdf_l1": found["rdf_l1"],
            "validation_adf_l1": found["adf_l1"],
            "validation_temperature": found["temperature_K"],
        }
        values = {name: value for name, value in values.items() if value is not None}
        shown = {"D": ("validation_diffusion", 1e5, "e-5 cm²/s"), "rdf": ("validation_rdf_l1", 1, "")}
        self.last = ", ".join(
            f"{label} {values[name] * scale:.3g}{unit}"
            for label, (name, scale, unit) in shown.items() if name in values
        )
        self.project.reporter.say(f"train: live validation at iteration {iteration}: {self.last}")
        return values


def build_model(
    experiment: Experiment,
    trajectory: BeadTrajectory,
    fit: InitialFit,
    parameters: TrainedParameters,
    metrics: dict | None = None,
) -> Model:
    """The model of trained parameters, with the last frame of the reference as its configuration."""
    kinds = range(len(trajectory.type_names))
    masses = [trajectory.masses[trajectory.types == kind].mean() for kind in kinds]
    last = [trajectory.n_frames - 1]
    box = trajectory.boxes(last)[0]
    return Model(
        spec=fit.spec,
        theta=parameters.theta,
        masses=np.array(masses),
        temperature=trajectory.temperature,
        timestep=experiment.dynamics.timestep,
        equation=experiment.dynamics.equation if experiment.dynamics.memory else "langevin",
        drift=parameters.drift,
        types=trajectory.types,
        positions=wrapped(trajectory.positions(last)[0], box),
        box=box,
        provenance={
            "reference": trajectory.provenance,
            "experiment": experiment.model_dump(mode="json"),
            "fit": fit.report,
            "versions": versions(),
        },
        metrics=metrics or {},
    )


def _export(project: Project, _) -> None:
    train_directory = project.directory / "train"
    metrics = _last_validation(train_directory / "log.csv")
    with project.reference() as trajectory:
        fit = project.fit()
        for name, bundle, known in (
            ("initial.npz", "initial.cg", {}), ("trained.npz", "model.cg", metrics)
        ):
            parameters = _load_parameters(train_directory / name)
            model = build_model(project.experiment, trajectory, fit, parameters, known)
            save_bundle(model, project.directory / bundle)


def _last_validation(path: Path) -> dict[str, float]:
    """The last live validation in a training log."""
    from .analysis.report import read_training_log

    curves = read_training_log(path)
    return {
        name: float(values[-1]) for name, (_, values) in curves.items() if name.startswith("validation")
    }


def _simulate(project: Project, _) -> dict:
    settings = project.experiment.production
    models = {"model.cg": load(project.directory / "model.cg"),
              "initial.cg": load(project.directory / "initial.cg")}
    stamp = {}
    for name, (timestep, directory) in project.productions().items():
        initial = name == "initial"
        with project.reporter.work(f"simulate {name}", "ps") as update:
            try:
                run = run_production(
                    models["initial.cg" if initial else "model.cg"], directory,
                    length=min(settings.length_ps, INITIAL_LENGTH) if initial else settings.length_ps,
                    frame_interval=settings.frame_interval_fs * 1e-3, timestep=timestep,
                    equilibration=settings.equilibration_ps, seed=settings.seed,
                    platform=settings.platform, backend=settings.backend, progress=update,
                )
            except ProductionExploded as error:
                # The initial model is there to compare with; it may be bad.
                if not initial:
                    raise
                project.reporter.say(f"simulate: {error}")
                stamp["initial"] = str(error)
                continue
        project.reporter.say(f"simulate {name}: {_speed(run)}")
        if name == "trained":
            stamp["ns_per_day"] = run.ns_per_day
    return stamp


def _speed(run: ProductionRun) -> str:
    threads = f"{run.threads} thread{'s' * (run.threads != 1)}"
    return f"{run.ns_per_day:,.0f} ns/day ({run.backend}, {run.platform} platform, {threads})"


def _report(project: Project, compare: tuple[Path, ...]) -> dict:
    experiment = project.experiment
    runs: dict[str, Run] = {}
    models = {"initial": load(project.directory / "initial.cg"),
              "trained": load(project.directory / "model.cg")}
    reasons = {}
    with project.reference() as trajectory:
        project.reporter.say("report: measuring the reference")
        reference = figures.measure(trajectory)
        known = {"friction_per_ps": "the all-atom run has no friction of beads"}
        step = experiment.reference.timestep_fs if experiment.reference.water else None
        all_atom = Run("all-atom", figures.metrics(reference, timestep_fs=step, reasons=known))
    floor = figures.noise_floor(reference)
    for name, (timestep, directory) in project.productions().items():
        if not (directory / "production.json").exists():
            reasons[name] = project.stamps["simulate"].get(name, "the run is missing")
            continue
        project.reporter.say(f"report: measuring the production of {name}")
        model = models["initial" if name == "initial" else "trained"]
        with BeadTrajectory.open(directory / "beads.h5") as beads:
            measured = figures.measure(beads, reference)
        runs[name] = Run(name, figures.metrics(
            measured, reference, friction_per_ps=float(model.friction.mean()),
            timestep_fs=timestep * 1e3,
        ))
    others = [run for name, run in runs.items() if name not in ("initial", "trained")]
    for path in compare:
        others.append(_other(path, {"all-atom", *(run.label for run in runs.values())}))
    speeds = {name: project.stamps[name].get("ns_per_day") for name in ("reference", "simulate")}
    if speeds["reference"] is None:
        reasons["timings"] = "the all-atom trajectory was not made here, so its speed is not known"
    write_report(project.directory / "report", ReportInput(
        title=_title(experiment, models["trained"]),
        reference=all_atom,
        initial=runs.get("initial"),
        trained=runs["trained"],
        noise_floor=floor,
        comparison=others,
        potentials=pair_potentials(models["initial"], models["trained"]),
        memory=[m for name, model in models.items() for m in memories(name, model)],
        training_log=project.directory / "train" / "log.csv",
        timings=Timings(
            {name: stamp["seconds"] for name, stamp in project.stamps.items() if name != "report"},
            speeds["reference"], speeds["simulate"],
            f"{processor()}, {torch.get_num_threads()} threads",
        ),
        provenance={
            "versions": versions(),
            "experiment": experiment.model_dump(mode="json"),
            "fit": models["trained"].provenance["fit"],
            "reference": models["trained"].provenance["reference"],
        },
        reasons=reasons,
    ))
    return {"compare": [str(path) for path in compare]}


def _other(path: Path, taken: set[str]) -> Run:
    """The trained model of another experiment, as its report has it."""
    source = path / "report" / "metrics.json"
    try:
        content = json.loads(source.read_text())
        label, found = path.name, content["trained"]
    except (OSError, ValueError, KeyError) as error:
        raise StageError(
            f"--compare: found no report in {path}, expected {source} of a finished experiment"
        ) from error
    if found is None:
        raise StageError(f"--compare: found no trained model in {source}")
    while label in taken:
        label += "'"
    return Run(label, found)


def pair_potentials(initial: Model, trained: Model) -> list[PairPotential]:
    """u(r) of every pair of types, before and after training (kJ/mol)."""
    spec, out = trained.spec, []
    for a in range(spec.n_types):
        for b in range(a, spec.n_types):
            r_min = spec.pair.r_min[spec.type_pair(a, b)]
            r = np.arange(0.8 * r_min, spec.pair.r_cut, 0.001)
            kinds = torch.full([len(r)], a), torch.full([len(r)], b)
            curves = []
            for model in (initial, trained):
                theta = torch.as_tensor(model.theta[: spec.n_pair_parameters])
                coefficients = theta.reshape(spec.n_type_pairs, -1)
                u = PairSplines(model.spec)(coefficients, *kinds, torch.as_tensor(r))
                curves.append(u.numpy())
            out.append(PairPotential((spec.type_names[a], spec.type_names[b]), r, *curves, r_min))
    return out


def memories(label: str, model: Model) -> list[Memory]:
    """Memory kernel of every bead type of a model."""
    drift = torch.as_tensor(model.drift)
    times = np.linspace(0, 2.0, 401)
    kernel = memory_kernel(drift, torch.as_tensor(times)).numpy()
    return [
        Memory(
            label if len(model.type_names) == 1 else f"{label}, {name}",
            times, kernel[kind], float(model.drift[kind, 0, 0]), float(model.friction[kind]),
        )
        for kind, name in enumerate(model.type_names)
    ]


def versions() -> dict[str, str]:
    """Versions of what computes."""
    return {
        "openmm_cgadv": __version__,
        "kernels": kernels.instruction_set() if kernels.available() else "none",
        "openmm": openmm.version.version,
        "torch": torch.__version__,
        "python": machine.python_version(),
    }


def processor() -> str:
    """Name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return machine.processor() or machine.machine()


def _title(experiment: Experiment, model: Model) -> str:
    if experiment.reference.water:
        source = f"{experiment.reference.molecules} molecules of {experiment.reference.water}"
    else:
        source = experiment.reference.trajectory.files[0].name
    how = "generalized Langevin" if model.drift.shape[-1] > 1 else "Langevin"
    return f"{source} at {model.temperature:g} K, {how} dynamics"


def _save_parameters(path: Path, parameters: TrainedParameters) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with open(partial, "wb") as file:
        np.savez(file, theta=parameters.theta.numpy(), drift=parameters.drift.numpy())
    os.replace(partial, path)


def _load_parameters(path: Path) -> TrainedParameters:
    with np.load(path, allow_pickle=False) as file:
        return TrainedParameters(torch.from_numpy(file["theta"]), torch.from_numpy(file["drift"]))


def _differences(before: dict, now: dict, prefix: str = ""):
    """Fields that differ, as (name, before, now)."""
    for name in [*now, *(name for name in before if name not in now)]:
        a, b = before.get(name), now.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from _differences(a, b, f"{prefix}{name}.")
        elif a != b:
            yield f"{prefix}{name}", a, b


def _locked(directory: Path):
    """An open file that keeps other processes from working on a directory; None where impossible."""
    try:
        import fcntl
    except ImportError:
        return None
    file = open(directory / ".lock", "w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise StageError(f"{directory}: another cgadv works there, expected to be alone") from None
    except OSError:
        # A file system without locks.
        file.close()
        return None
    return file


def _write_whole(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    os.replace(partial, path)


_ACTIONS: dict[str, Callable[[Project, tuple[Path, ...]], dict | None]] = {
    "reference": _reference,
    "fit": _fit,
    "train": _train,
    "export": _export,
    "simulate": _simulate,
    "report": _report,
}
