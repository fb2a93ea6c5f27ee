"""What an experiment's report shows, gathered from its stages: runs, curves of the model, times."""

from __future__ import annotations

import json
import platform as machine
from pathlib import Path

import numpy as np
import openmm
import torch

from . import __version__, kernels
from .analysis import metrics as figures
from .analysis.report import Memory, PairPotential, ReportInput, Run, Timings, write_report
from .config import Experiment
from .dynamics import memory_kernel
from .export import Model, load
from .potentials.pair import PairSplines
from .project import Project, StageError
from .trajectory import BeadTrajectory

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
    """Measure all runs and write the report, beside those of other experiments."""
    experiment = project.experiment
    runs: dict[str, Run] = {}
    models = {
        "initial": load(project.directory / "initial.cg"),
        "trained": load(project.directory / "model.cg"),
    }
    reasons = {}
    with BeadTrajectory.open(project.directory / BEADS) as trajectory:
        project.reporter.say("report: measuring the reference")
        reference = figures.measure(trajectory)
        known = {"friction_per_ps": "the all-atom run has no friction of beads"}
        step = experiment.reference.timestep_fs if experiment.reference.made else None
        all_atom = Run("all-atom", figures.metrics(reference, timestep_fs=step, reasons=known))
    floor = figures.noise_floor(reference)
    for name, (timestep, directory) in productions(project).items():
        if not (directory / "production.json").exists():
            reasons[name] = project.stamps["simulate"].get(name, "the run is missing")
            continue
        project.reporter.say(f"report: measuring the production of {name}")
        model = models["initial" if name == "initial" else "trained"]
        with BeadTrajectory.open(directory / "beads.h5") as beads:
            measured = figures.measure(beads, reference)
        runs[name] = Run(
            name,
            figures.metrics(
                measured,
                reference,
                friction_per_ps=float(model.friction.mean()),
                timestep_fs=timestep * 1e3,
            ),
        )
    others = [run for name, run in runs.items() if name not in ("initial", "trained")]
    taken = {"all-atom", *(run.label for run in runs.values())}
    for path in compare:
        label = path.name
        while label in taken:
            label += "'"
        taken.add(label)
        others.append(Run(label, trained_elsewhere(path)))
    speeds = {name: project.stamps[name].get("ns_per_day") for name in ("reference", "simulate")}
    if speeds["reference"] is None:
        reasons["timings"] = "the all-atom trajectory was not made here, so its speed is not known"
    write_report(
        project.directory / "report",
        ReportInput(
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
                "fit": models["trained"].provenance["fit"],
                "reference": models["trained"].provenance["reference"],
            },
            reasons=reasons,
        ),
    )
    return {"compare": [str(path) for path in compare]}


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
            times,
            kernel[kind],
            float(model.drift[kind, 0, 0]),
            float(model.friction[kind]),
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
    if reference.made:
        source = f"{reference.molecules} molecules of {reference.made}"
    else:
        source = (reference.beads or reference.trajectory.files[0]).name
    how = "generalized Langevin" if model.drift.shape[-1] > 1 else "Langevin"
    return f"{source} at {model.temperature:g} K, {how} dynamics"
