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
from .analysis.report import Memory, PairFrictionCurve, PairPotential, ReportInput, Run, Timings, write_report
from .analysis.verdict import GOOD, Settings, confidence, headline, judgement, judgement_of_other, unstable
from .baselines import InitialFit
from .config import Experiment
from .dynamics import memory_kernel
from .export import Model, load
from .potentials.pair import PairSplines
from .production import model_digest
from .project import Project, StageError
from .stress import stress_series
from .trajectory import BeadTrajectory
from .units import KB

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
    bundles = {"initial": project.directory / "initial.cg", "trained": project.directory / "model.cg"}
    models = {name: load(path) for name, path in bundles.items()}
    reasons = {}
    with BeadTrajectory.open(project.directory / BEADS) as trajectory:
        project.reporter.say("report: measuring the reference")
        reference = figures.measure(trajectory)
        known = {"friction_per_ps": "the all-atom run has no friction of beads"}
        known |= dict.fromkeys(
            ("stress_viscosity_mPa_s", "stress_viscosity_stderr", "stress_integral"),
            "OpenMM gives no stress of an all-atom system",
        )
        step = experiment.reference.timestep_fs if experiment.reference.made else None
        all_atom = Run("all-atom", figures.metrics(reference, timestep_fs=step, reasons=known))
    scales = project.stamps["train"].get("time_scales", {})
    limits, rule = (project.stamps["train"].get(name, []) for name in ("limits", "rule"))
    all_atom.metrics["notes"] += limits
    floor = figures.noise_floor(reference)
    for name, (timestep, directory) in productions(project).items():
        if not (directory / "production.json").exists():
            reasons[name] = project.stamps["simulate"].get(name, "the run is missing")
            continue
        project.reporter.say(f"report: measuring the production of {name}")
        which = "initial" if name == "initial" else "trained"
        model = models[which]
        if json.loads((directory / "production.json").read_text())["arguments"]["model"] != model_digest(model):
            raise StageError(
                f"{directory}: found a run of another model, expected one of {bundles[which]}: "
                f"delete {project.directory / 'production'} and go on to run that one"
            )
        with BeadTrajectory.open(directory / "beads.h5") as beads:
            measured = figures.measure(beads, reference, stress=stress_series(model, beads))
        runs[name] = Run(
            from_forces_alone(project) if name == "initial" else name,
            figures.metrics(
                measured,
                reference,
                friction_per_ps=float(model.friction.mean()),
                timestep_fs=timestep * 1e3,
                conserves_momentum=model.conserves_momentum,
            ),
        )
    outcome = json.loads((project.directory / "train" / "outcome.json").read_text())
    trained = runs["trained"].metrics
    settings = rules_settings(experiment, outcome, scales)
    findings = judgement(trained, all_atom.metrics, floor, settings)
    for name, (timestep, _) in productions(project).items():
        if name in runs and name not in ("trained", "initial"):
            other = judgement(runs[name].metrics, all_atom.metrics, floor, settings)
            findings += judgement_of_other(name, 1e3 * timestep, other)
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
    write_report(
        project.directory / "report",
        ReportInput(
            title=_title(experiment, models["trained"]),
            reference=all_atom,
            initial=runs.get("initial"),
            trained=runs["trained"],
            findings=findings,
            confidence=confidence(
                trained,
                all_atom.metrics,
                float(np.mean(models["trained"].masses)),
                KB * models["trained"].temperature,
                outcome["wander"].get("friction", {}).get("stderr") if outcome["exported"] <= outcome["iterations"] else None,
            ),
            outcome=outcome,
            rule=rule,
            noise_floor=floor,
            comparison=others,
            potentials=pair_potentials(models["initial"], models["trained"]),
            pair_friction=pair_frictions(models["initial"], models["trained"]),
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
                "time_scales": scales,
                "limits": limits,
                "fit": models["trained"].provenance["fit"],
                "reference": models["trained"].provenance["reference"],
            },
            reasons=reasons,
        ),
    )
    project.reporter.say(f"verdict: {headline(findings)}")
    for finding in findings:
        if finding.state != GOOD:
            project.reporter.say(f"verdict: {finding.sentence}")
    return {"compare": [str(path) for path in compare]}


def rules_settings(experiment: Experiment, outcome: dict, scales: dict) -> Settings:
    """What the rules of the verdict have to know of an experiment, of how its training ended and of
    the time scales that followed from its reference."""
    lags = outcome["held_out"].get("lags_ps") or scales["lags_ps"]
    return Settings(
        equation=experiment.dynamics.equation,
        auxiliary_variables=scales.get("auxiliary_variables", experiment.dynamics.memory or 0),
        three_body=experiment.potential.three_body,
        potential=experiment.training.potential,
        window_ps=lags[-1],
        timestep_fs=experiment.dynamics.timestep_fs,
        settled=outcome["arrived"],
        critic=experiment.discriminator.kind,
        self_friction=experiment.dynamics.self_friction_per_ps or 0.0,
        temperature_K=experiment.reference.temperature_K,
    )


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


def elsewhere(path: Path, reference: figures.Measurement) -> dict:
    """Figures of a run by `cgadv simulate`, measured against this reference, or of another
    experiment's trained model, as its report has them."""
    if not (path / "production.json").exists():
        return trained_elsewhere(path)
    about = json.loads((path / "production.json").read_text())
    with BeadTrajectory.open(path / "beads.h5") as beads:
        measured = figures.measure(beads, reference)
    return figures.metrics(measured, reference, timestep_fs=1e3 * about["arguments"]["timestep"])


def from_forces_alone(project: Project) -> str:
    """What the report calls the initial model, whose pair friction may be that of the residual forces."""
    motion = project.experiment.dynamics
    if motion.equation != "pair" or motion.initial_friction_per_ps or motion.self_friction_per_ps:
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


def pair_frictions(initial: Model, trained: Model) -> list[PairFrictionCurve]:
    """Friction between all pairs of types where it acts between pairs, before and after training."""
    friction, names = trained.pair_friction, trained.type_names
    if friction is None:
        return []
    curves = []
    for p, types in enumerate((a, b) for i, a in enumerate(names) for b in names[i:]):
        r = np.linspace(friction.r_min[p], friction.r_cut, 200)
        pairs = [model.pair_friction.friction(r)[p] for model in (initial, trained)]
        curves.append(PairFrictionCurve(types, r, *pairs))
    return curves


def memories(label: str, model: Model) -> list[Memory]:
    """Memory kernel of every bead type of a model."""
    times = np.linspace(0, 2.0, 401)
    if model.pair_friction is not None:
        memory = model.pair_friction.memory[:, None] * times[:, None, None]
        f = torch.from_numpy(model.pair_friction.functions(model.neighborhood.r.numpy()))
        decay = torch.matrix_exp(-torch.from_numpy(memory))
        pair = torch.einsum("pkdr,ptkl,pldr->pdrt", f[:, 1:], decay, f[:, 1:])
        kernel = model.neighborhood.mean(pair).numpy()
        instant = model.neighborhood.mean(f[:, 0] ** 2).numpy()
    else:
        drift = torch.as_tensor(model.drift)
        kernel, instant = memory_kernel(drift, torch.as_tensor(times)).numpy(), model.drift[:, 0, 0]
    return [
        Memory(
            label if len(model.type_names) == 1 else f"{label}, {name}",
            times,
            kernel[kind],
            float(instant[kind]),
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
    names = {"langevin": "Langevin", "generalized_langevin": "generalized Langevin", "pair": "pair-friction"}
    how = names[model.equation]
    if model.pair_friction is not None and not model.conserves_momentum:
        own = ", ".join(f"{g:g}" for g in dict.fromkeys(model.pair_friction.self_friction))
        how += f" (and {own}/ps on each bead)"
    return f"{source} at {model.temperature:g} K, {how} dynamics"
