"""The last stage of an experiment: measure its runs and write the report."""

from __future__ import annotations

import json
import platform as machine
from pathlib import Path

import numpy as np
import openmm
import torch

from .. import __version__, kernels
from ..analysis.measurement import Measurement, measure
from ..analysis.metrics import metrics, noise_floor
from ..bundle import load
from ..config import Experiment
from ..data.trajectory import BeadTrajectory
from ..dynamics import FRICTIONS
from ..fit import InitialFit
from ..methods.base import HISTORY, STATUS, read_status
from ..model import Model
from ..report import precision
from ..report.assessment import Context, assess, assess_other_run, headline, unstable
from ..report.inputs import Memory, PairFrictionCurve, PairPotential, ReportInput, Run, Timings
from ..report.page import write_report
from ..report.status import GOOD
from ..simulation.record import read_record
from ..simulation.run import model_digest
from ..simulation.stress import stress_series
from ..units import KB
from .project import Project, StageError

BEADS = "reference/beads.h5"


def productions(project: Project) -> dict[str, tuple[float, Path]]:
    """Time step (ps) and directory of each production run, the main one first."""
    settings, folder = project.experiment.production, project.directory / "production"
    steps = settings.timesteps_fs or [project.experiment.dynamics.timestep_fs]
    runs = {"trained": (steps[0] * 1e-3, folder / "trained")}
    for step in steps[1:]:
        runs[f"trained, {step:g} fs"] = (step * 1e-3, folder / f"trained-{step:g}fs")
    runs["initial"] = (steps[0] * 1e-3, folder / "initial")
    return runs


def report(project: Project, compare: tuple[Path, ...]) -> dict:
    """Measure all runs and write the report, beside those of other experiments and runs."""
    experiment = project.experiment
    runs: dict[str, Run] = {}
    bundles = {
        "initial": project.directory / "initial.cg",
        "trained": project.directory / "model.cg",
    }
    models = {name: load(path) for name, path in bundles.items()}
    reasons = {}
    with BeadTrajectory.open(project.directory / BEADS) as trajectory:
        project.reporter.say("report: measuring the reference")
        reference = measure(trajectory)
        known = {"friction_per_ps": "the all-atom run has no friction of beads"}
        known |= dict.fromkeys(
            ("stress_viscosity_mPa_s", "stress_viscosity_stderr", "stress_integral"),
            "OpenMM gives no stress of an all-atom system",
        )
        step = experiment.reference.timestep_fs if experiment.reference.made else None
        all_atom = Run("all-atom", metrics(reference, timestep_fs=step, reasons=known))
    scales = project.stamps["train"].get("time_scales", {})
    limits, description = (project.stamps["train"].get(name, []) for name in ("limits", "rule"))
    all_atom.metrics["notes"] += limits
    floor = noise_floor(reference)
    for name, (timestep, directory) in productions(project).items():
        record = read_record(directory)
        if record is None:
            reasons[name] = project.stamps["simulate"].get(name, "the run is missing")
            continue
        project.reporter.say(f"report: measuring the production of {name}")
        which = "initial" if name == "initial" else "trained"
        model = models[which]
        if record["arguments"].get("model") != model_digest(model):
            raise StageError(
                f"{directory}: found a run of another model, expected one of {bundles[which]}: "
                f"delete {project.directory / 'production'} and go on to run that one"
            )
        with BeadTrajectory.open(directory / "beads.h5") as beads:
            measured = measure(beads, reference, stress=stress_series(model, beads))
        runs[name] = Run(
            from_forces_alone(project) if name == "initial" else name,
            metrics(
                measured,
                reference,
                friction_per_ps=float(model.bead_friction.mean()),
                timestep_fs=timestep * 1e3,
                conserves_momentum=model.friction.conserves_momentum,
            ),
        )
    outcome = read_status(project.directory / "train" / STATUS)
    trained = runs["trained"].metrics
    lags = scales.get("lags_ps")
    context = Context(
        advice=project.stamps["train"].get("advice", {}),
        longest_lag_ps=lags[-1] if lags else None,
        timestep_fs=experiment.dynamics.timestep_fs,
        temperature_K=experiment.reference.temperature_K,
        collective=models["trained"].friction.between_beads,
    )
    findings = assess(trained, all_atom.metrics, floor, context)
    for name, (timestep, _) in productions(project).items():
        if name in runs and name not in ("trained", "initial"):
            other = assess(runs[name].metrics, all_atom.metrics, floor, context)
            findings += assess_other_run(name, 1e3 * timestep, other)
        elif name in reasons and name != "initial":
            findings.append(unstable(name, 1e3 * timestep, reasons[name]))
    others = [run for name, run in runs.items() if name not in ("initial", "trained")]
    taken = {"all-atom", *(run.label for run in runs.values())}
    for path in compare:
        label = path.name
        while label in taken:
            label += "'"
        taken.add(label)
        others.append(Run(label, elsewhere(path, reference)))
    speeds = {name: project.stamps[name].get("ns_per_day") for name in ("reference", "simulate")}
    if speeds["reference"] is None:
        reasons["timings"] = "the all-atom trajectory was not made here, so its speed is not known"
    log = project.directory / "train" / HISTORY
    write_report(
        project.directory / "report",
        ReportInput(
            title=_title(experiment, models["trained"]),
            reference=all_atom,
            initial=runs.get("initial"),
            trained=runs["trained"],
            findings=findings,
            precision=precision.diffusion_ratio(
                trained,
                all_atom.metrics,
                float(np.mean(models["trained"].masses)),
                KB * models["trained"].temperature,
                outcome["parameter_spread"].get("friction", {}).get("stderr")
                if outcome["exported"] <= outcome["iterations"]
                else None,
            ),
            outcome=outcome,
            description=description,
            details=project.stamps["train"].get("details", []),
            noise_floor=floor,
            comparison=others,
            potentials=pair_potentials(models["initial"], models["trained"]),
            pair_friction=pair_frictions(models["initial"], models["trained"]),
            memory=[m for name, model in models.items() for m in memories(name, model)],
            training_log=log if log.is_file() else None,
            timings=Timings(
                {
                    name: stamp["seconds"]
                    for name, stamp in project.stamps.items()
                    if name != "report"
                },
                speeds["reference"],
                speeds["simulate"],
                f"{processor()}, {torch.get_num_threads()} threads",
            ),
            provenance={
                "versions": versions(),
                "experiment": experiment.model_dump(mode="json"),
                "time_scales": scales,
                "limits": limits,
                "fit": models["trained"].provenance["fit"],
                "reference": models["trained"].provenance["reference"],
            },
            reasons=reasons,
        ),
    )
    project.reporter.say(f"assessment: {headline(findings)}")
    for finding in findings:
        if finding.status != GOOD:
            project.reporter.say(f"assessment: {finding.sentence}")
    return {"compare": [str(path) for path in compare]}


def check_compared(path: Path) -> None:
    """See that there is something to show beside.

    Raises
    ------
    StageError
        There is neither a report nor a run in the directory.
    """
    if not (path / "production.json").exists():
        trained_elsewhere(path)
    elif not (path / "beads.h5").exists():
        raise StageError(
            f"--compare: found a run without beads.h5 in {path}, expected one that was made with "
            "--frame-interval-fs"
        )


def elsewhere(path: Path, reference: Measurement) -> dict:
    """Return the observables of a run by `cgadv simulate`, compared with this reference.

    In the directory of another experiment they are those of its trained model, as its report has them.
    """
    about = read_record(path)
    if about is None:
        return trained_elsewhere(path)
    with BeadTrajectory.open(path / "beads.h5") as beads:
        measured = measure(beads, reference)
    # Runs of older versions did not record their dynamics.
    return metrics(
        measured,
        reference,
        friction_per_ps=about.get("friction_per_ps"),
        timestep_fs=1e3 * about["arguments"]["timestep"],
        conserves_momentum=about.get("conserves_momentum"),
    )


def from_forces_alone(project: Project) -> str:
    """What the report calls the initial model, whose pair friction may be that of the residual forces."""
    motion = project.experiment.dynamics
    given = motion.initial_friction_per_ps or motion.self_friction_per_ps
    if given or not FRICTIONS[motion.equation].between_beads:
        return "initial"
    known = InitialFit.load(project.directory / "fit").residuals is not None
    return "initial, by forces alone" if known else "initial"


def trained_elsewhere(path: Path) -> dict:
    """Figures of the trained model of another experiment, as its report has them.

    Raises
    ------
    StageError
        There is no such report.
    """
    source = path / "report" / "metrics.json"
    try:
        found = json.loads(source.read_text())["trained"]
    except (OSError, ValueError, KeyError) as error:
        raise StageError(
            f"--compare: found no report in {path}, expected {source} of a finished experiment"
        ) from error
    if found is None:
        raise StageError(f"--compare: found no trained model in {source}")
    return found


def pair_potentials(initial: Model, trained: Model) -> list[PairPotential]:
    """u(r) of every pair of types, before and after training (kJ/mol)."""
    spec, out = trained.spec, []
    for before, after in zip(initial.spec.pair_curves(), spec.pair_curves()):
        r = np.arange(0.8 * after.r_min, after.r_cut, 0.001)
        curves = before.energy(initial.theta, r).numpy(), after.energy(trained.theta, r).numpy()
        a, b = after.types
        out.append(PairPotential((spec.type_names[a], spec.type_names[b]), r, *curves, after.r_min))
    return out


def pair_frictions(initial: Model, trained: Model) -> list[PairFrictionCurve]:
    """Friction between all pairs of types where it acts between pairs, before and after training."""
    names, curves = trained.type_names, []
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i:]]
    for p, (types, ends) in enumerate(zip(pairs, trained.friction.pair_ranges())):
        r = np.linspace(*ends, 200)
        both = [model.friction.friction(r)[p] for model in (initial, trained)]
        curves.append(PairFrictionCurve(types, r, *both))
    return curves


def memories(label: str, model: Model) -> list[Memory]:
    """Memory kernel of every bead type of a model."""
    times = np.linspace(0, 2.0, 401)
    kernel = model.friction.memory_kernel(torch.from_numpy(times), model.neighborhood).numpy()
    instant = model.friction.instantaneous_friction(model.neighborhood)
    return [
        Memory(
            label if len(model.type_names) == 1 else f"{label}, {name}",
            times,
            kernel[kind],
            float(instant[kind]),
            float(model.bead_friction[kind]),
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
    reference = experiment.reference
    source = f"{reference.molecules} molecules of {reference.made}"
    if reference.beads is not None:
        source = reference.beads.name
    elif reference.trajectory is not None:
        source = reference.trajectory.files[0].name
    remark = model.friction.remark()
    how = model.friction.title + (f" ({remark})" if remark else "")
    return f"{source} at {model.temperature:g} K, {how} dynamics"
