"""What each stage of an experiment does, from all-atom data to the report; each resumes."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import torch

from .baselines import InitialFit, fit_initial
from .config import Experiment
from .export import Model, load, save_bundle
from .production import ProductionExploded, ProductionRun, run_production, wrapped
from .project import Project, Stage
from .reference import read_trajectory, run_liquid, select_frames
from .summary import BEADS, productions, report, versions
from .training import AdversarialTraining, TrainedPairParameters, TrainedParameters, from_arrays
from .training import train as run_training
from .trajectory import BeadTrajectory
from .validation import LiveValidation

INITIAL_LENGTH = 250.0
"""Longest production of the initial model (ps), which is only compared with."""


def reference(project: Project, _) -> dict:
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
    marks: list[tuple[float, float]] = []
    with project.reporter.work("reference", "ps") as update:

        def progress(done, total):
            # Equilibration is another kind of work, so the speed is that of what follows it.
            if done > total - settings.length:
                marks[1:] = [(done, time.monotonic())]
                if len(marks) == 1:
                    marks.append(marks[0])
            update(done, total)

        run_liquid(
            path,
            liquid=settings.made,
            molecules=settings.molecules,
            temperature=settings.temperature_K,
            length=settings.length,
            frame_interval=settings.frame_interval,
            timestep=settings.timestep_fs * 1e-3,
            equilibration_ps=settings.equilibration_ps,
            seed=settings.seed,
            threads=torch.get_num_threads(),
            platform=settings.platform,
            progress=progress,
        )
    if len(marks) < 2 or marks[1][1] <= marks[0][1]:
        return {}
    (first, begun), (last, ended) = marks
    return {"ns_per_day": (last - first) * 1e-3 / (ended - begun) * 86400}


def fit(project: Project, _) -> None:
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


def train(project: Project, _) -> dict:
    directory = project.directory / "train"
    with (
        BeadTrajectory.open(project.directory / BEADS) as trajectory,
        project.reporter.work("train", "iterations") as update,
    ):
        fit = InitialFit.load(project.directory / "fit")
        training = AdversarialTraining(trajectory, fit, project.experiment)
        project.reporter.say(f"train: {training.scales.sentence()}")
        for sentence in training.scales.limits:
            project.reporter.say(f"train: {sentence}")
        # Before its first iteration, it holds the friction that it starts from.
        _save_parameters(directory / "initial.npz", training.averaged())

        def build(parameters: TrainedParameters | TrainedPairParameters) -> Model:
            return build_model(project.experiment, trajectory, fit, parameters)

        validate = LiveValidation(
            trajectory,
            build,
            project.experiment.production,
            project.experiment.output_interval,
            directory / "validation",
            project.reporter.say,
        )

        def progress(iteration, total, values):
            seen = [f"friction {values['averaged_friction']:.3g}/ps"]
            if validate.last:
                seen.append(validate.last)
            update(iteration, total, detail=", ".join(seen))

        trained = run_training(
            training,
            directory,
            validate=validate,
            progress=progress,
            warn=project.reporter.say,
        )
    _save_parameters(directory / "trained.npz", trained)
    scales = training.scales
    told = [scales.rule(project.experiment), f"That gives {scales.sentence()}."]
    return {"time_scales": scales.figures(), "limits": list(scales.limits), "rule": told}


def build_model(
    experiment: Experiment,
    trajectory: BeadTrajectory,
    fit: InitialFit,
    parameters: TrainedParameters | TrainedPairParameters,
    metrics: dict | None = None,
) -> Model:
    """The model of trained parameters, with the last frame of the reference as its configuration."""
    last = [trajectory.n_frames - 1]
    box = trajectory.boxes(last)[0]
    return Model(
        spec=fit.spec,
        masses=trajectory.type_masses,
        temperature=trajectory.temperature,
        timestep=experiment.dynamics.timestep,
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
        **parameters.model(),
    )


def export(project: Project, _) -> None:
    train_directory = project.directory / "train"
    metrics = json.loads((train_directory / "outcome.json").read_text()).get("figures", {})
    with BeadTrajectory.open(project.directory / BEADS) as trajectory:
        fit = InitialFit.load(project.directory / "fit")
        for name, bundle, known in (
            ("initial.npz", "initial.cg", {}),
            ("trained.npz", "model.cg", metrics),
        ):
            parameters = _load_parameters(train_directory / name)
            model = build_model(project.experiment, trajectory, fit, parameters, known)
            save_bundle(model, project.directory / bundle)


def simulate(project: Project, _) -> dict:
    settings = project.experiment.production
    models = {
        "model.cg": load(project.directory / "model.cg"),
        "initial.cg": load(project.directory / "initial.cg"),
    }
    stamp = {}
    for name, (timestep, directory) in productions(project).items():
        initial = name == "initial"
        with project.reporter.work(f"simulate {name}", "ps") as update:
            try:
                run = run_production(
                    models["initial.cg" if initial else "model.cg"],
                    directory,
                    length=min(settings.length_ps, INITIAL_LENGTH)
                    if initial
                    else settings.length_ps,
                    frame_interval=project.experiment.output_interval,
                    timestep=timestep,
                    equilibration=settings.equilibration_ps,
                    seed=settings.seed,
                    platform=settings.platform,
                    backend=settings.backend,
                    progress=update,
                )
            except ProductionExploded as error:
                # The initial model is there to compare with and may be bad; a longer time step may be too long.
                if name == "trained":
                    raise
                project.reporter.say(f"simulate {name}: {error}")
                stamp[name] = str(error)
                continue
        project.reporter.say(f"simulate {name}: {speed(run)}")
        if name == "trained":
            stamp["ns_per_day"] = run.ns_per_day
    return stamp


def speed(run: ProductionRun) -> str:
    """Speed of a run, and what it was run with, for a person."""
    threads = f"{run.threads} thread{'s' * (run.threads != 1)}"
    return f"{run.ns_per_day:,.0f} ns/day ({run.backend}, {run.platform} platform, {threads})"


def _save_parameters(path: Path, parameters: TrainedParameters | TrainedPairParameters) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with open(partial, "wb") as file:
        np.savez(file, **parameters.arrays())
    os.replace(partial, path)


def _load_parameters(path: Path) -> TrainedParameters | TrainedPairParameters:
    with np.load(path, allow_pickle=False) as file:
        return from_arrays(file)


STAGES = (
    Stage("reference", ("reference", "mapping"), (BEADS, "reference"), reference),
    Stage("fit", ("potential",), ("fit/fit.json", "fit"), fit),
    Stage(
        "train", ("dynamics", "discriminator", "training"), ("train/trained.npz", "train"), train
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
