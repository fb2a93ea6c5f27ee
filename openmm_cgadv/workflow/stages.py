"""The stages of an experiment, from all-atom data to the report; each resumes after an interruption."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..bundle import load, save_bundle
from ..config import Experiment
from ..data.reference import read_trajectory, run_liquid, select_frames
from ..data.trajectory import BeadTrajectory
from ..errors import ExplosionError
from ..fit import InitialFit, fit_initial
from ..methods import METHODS
from ..methods.base import STATUS, build_model, load_parameters, read_status, save_parameters
from ..methods.validation import Validation
from ..simulation.record import ProductionRun
from ..simulation.run import run_production
from ..simulation.speed import measure_speeds
from ..threads import thread_count
from .project import Project, Stage, StageError
from .report_stage import BEADS, productions, report, versions

BASELINE_LENGTH = 250.0
"""Longest production of the force-matched baseline (ps), which needs less precision."""


def reference(project: Project, _compare: tuple[Path, ...]) -> dict[str, Any]:
    """Read, select or simulate the reference; return the speed of a simulation."""
    settings = project.experiment.reference
    path = project.directory / BEADS
    if settings.trajectory is not None:
        source = settings.trajectory
        with project.reporter.work("reference", "frames") as update:
            read_trajectory(
                path,
                topology=source.topology,
                files=source.files,
                frame_interval=settings.frame_interval,
                temperature=settings.temperature_K,
                selection=source.selection,
                progress=update,
            )
        return {}
    if settings.beads is not None:
        with project.reporter.work("reference", "frames") as update:
            select_frames(
                path,
                beads=settings.beads,
                frame_interval=settings.frame_interval,
                temperature=settings.temperature_K,
                length=settings.length,
                progress=update,
            )
        return {}
    if settings.made is None or settings.length is None:
        raise StageError("reference: found no source, expected water, liquid, trajectory or beads")
    production = settings.length
    marks: list[tuple[float, float]] = []
    with project.reporter.work("reference", "ps") as update:

        def progress(done: float, total: float) -> None:
            # The speed is that of production, without the equilibration.
            if done > total - production:
                marks[1:] = [(done, time.monotonic())]
                if len(marks) == 1:
                    marks.append(marks[0])
            update(done, total)

        run_liquid(
            path,
            liquid=settings.made,
            molecules=settings.molecules,
            temperature=settings.temperature_K,
            length=production,
            frame_interval=settings.frame_interval,
            timestep=settings.timestep_fs * 1e-3,
            equilibration_ps=settings.equilibration_ps,
            seed=settings.seed,
            threads=thread_count(project.experiment.training.threads),
            platform=settings.platform,
            progress=progress,
        )
    with BeadTrajectory.open(path) as made:
        project.reporter.say(f"reference: simulated on the {made.provenance['platform']} platform")
    if len(marks) < 2 or marks[1][1] <= marks[0][1]:
        return {}
    (first, begun), (last, ended) = marks
    return {"ns_per_day": (last - first) * 1e-3 / (ended - begun) * 86400}


def fit(project: Project, _compare: tuple[Path, ...]) -> None:
    """Fit the force-matched baseline."""
    with BeadTrajectory.open(project.directory / BEADS) as trajectory:
        fit = fit_initial(trajectory, project.experiment.potential)
    fit.save(project.directory / "fit")
    units = {
        "force_error": " kJ/mol/nm",
        "energy_error": " kJ/mol",
        "cutoff": " nm",
        "three_body_cutoff": " nm",
    }
    values = ", ".join(
        f"{name.replace('_', ' ')} {value:.4g}{units.get(name.removeprefix('held_out_'), '')}"
        for name, value in fit.report.items()
        if isinstance(value, float)
    )
    project.reporter.say(f"fit: {str(fit.report.get('method')).replace('_', ' ')}, {values}")


def train(project: Project, _compare: tuple[Path, ...]) -> dict[str, Any]:
    """Train the model; return time scales, warnings, description and advice."""
    directory = project.directory / "train"

    def say(sentence: str) -> None:
        project.reporter.say(f"train: {sentence}")

    with (
        BeadTrajectory.open(project.directory / BEADS) as trajectory,
        project.reporter.work("train", "iterations") as update,
    ):
        validate = Validation(
            trajectory,
            project.experiment.production,
            project.experiment.output_interval,
            directory / "validation",
            say,
            seed=project.experiment.training.seed,
            threads=project.experiment.training.threads,
        )

        def progress(iteration: int, total: int, detail: str) -> None:
            update(iteration, total, detail=", ".join(filter(None, [detail, validate.last])))

        result = METHODS["adversarial"].fit(
            trajectory,
            InitialFit.load(project.directory / "fit"),
            project.experiment,
            directory,
            validate=validate,
            progress=progress,
            warn=say,
        )
    save_parameters(directory / "initial.npz", result.initial)
    save_parameters(directory / "trained.npz", result.model)
    return {
        "time_scales": result.settings,
        "limits": list(result.warnings),
        "rule": list(result.description),
        "details": list(result.details),
        "advice": result.advice,
    }


def export(project: Project, _compare: tuple[Path, ...]) -> None:
    """Write the model bundles of the baseline and of the trained model."""
    train_directory = project.directory / "train"
    metrics = read_status(train_directory / STATUS).get("metrics", {})
    with BeadTrajectory.open(project.directory / BEADS) as trajectory:
        fit = InitialFit.load(project.directory / "fit")
        for name, bundle, known in (
            ("initial.npz", "initial.cg", {}),
            ("trained.npz", "model.cg", metrics),
        ):
            parameters = load_parameters(train_directory / name)
            model = build_model(trajectory, fit, project.experiment, parameters, known)
            model = replace(model, provenance=model.provenance | {"versions": versions()})
            save_bundle(model, project.directory / bundle)


def simulate(project: Project, _compare: tuple[Path, ...]) -> dict[str, Any]:
    """Run production of both models; return the speed, and the errors of runs that failed."""
    settings = project.experiment.production
    models = {
        "model.cg": load(project.directory / "model.cg"),
        "initial.cg": load(project.directory / "initial.cg"),
    }
    stamp: dict[str, Any] = {}
    for name, (timestep, directory) in productions(project).items():
        initial = name == "initial"
        with project.reporter.work(f"simulate {name}", "ps") as update:
            try:
                run = run_production(
                    models["initial.cg" if initial else "model.cg"],
                    directory,
                    length=min(settings.length_ps, BASELINE_LENGTH)
                    if initial
                    else settings.length_ps,
                    frame_interval=project.experiment.output_interval,
                    timestep=timestep,
                    equilibration=settings.equilibration_ps,
                    seed=settings.seed,
                    platform=settings.platform,
                    backend=settings.backend,
                    threads=project.experiment.training.threads,
                    progress=update,
                )
            except ExplosionError as error:
                # The baseline may be unstable, and a longer time step may be too long.
                if name == "trained":
                    raise
                project.reporter.say(f"simulate {name}: {error}")
                stamp[name] = str(error)
                continue
        project.reporter.say(f"simulate {name}: {speed(run)}")
        if name == "trained":
            stamp["ns_per_day"] = run.ns_per_day
            project.reporter.say(f"simulate {name}: {other_speeds(run, project.directory)}")
    return stamp


def other_speeds(run: ProductionRun, directory: Path) -> str:
    """Return a sentence with the speeds of the other backends and platforms."""
    timestep = load(directory / "model.cg").timestep
    speeds = []
    for (backend, platform), tried in measure_speeds(directory / "model.cg", timestep).items():
        if tried.failure is None and (backend, platform) != (run.backend, run.platform):
            per_day = timestep * 86400 / float(tried.output)
            speeds.append(f"{backend} on {platform} {per_day:,.0f}")
    return f"other backends and platforms, in ns/day: {', '.join(speeds) or 'none works'}"


def speed(run: ProductionRun) -> str:
    """Return a sentence with the speed of a run, its backend, platform and threads."""
    threads = f"{run.threads} thread{'s' * (run.threads != 1)}"
    return f"{run.ns_per_day:,.0f} ns/day ({run.backend}, {run.platform} platform, {threads})"


def validation_settings(experiment: Experiment) -> dict[str, dict[str, Any]]:
    """Return the settings of production on which the validation in OpenMM, and so the training, depends."""
    return {"production": {"frame_interval_fs": float(f"{1e3 * experiment.output_interval:.9g}")}}


STAGES = (
    Stage("reference", ("reference", "mapping"), (BEADS, "reference"), reference),
    Stage("fit", ("potential",), ("fit/fit.json", "fit"), fit),
    Stage(
        "train",
        ("dynamics", "discriminator", "training"),
        ("train/trained.npz", "train"),
        train,
        also_reads=validation_settings,
    ),
    Stage("export", (), ("model.cg/model.json", "model.cg", "initial.cg"), export),
    Stage(
        "simulate",
        ("production",),
        ("production/trained/production.json", "production"),
        simulate,
        additive=True,
    ),
    Stage("report", (), ("report/index.html", "report"), report),
)
