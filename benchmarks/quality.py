"""How good trained models are: liquids, starts, seeds and options, all by the same defaults.

Makes all-atom references, trains on each, runs the models in OpenMM and writes the table
``benchmarks/quality.md``. Takes hours, goes on where it stopped, and writes the table anew after
every experiment. Groups may be named: ``scripts/quality spce liquids``; rows of others stay, as ``benchmarks/quality.json``
keeps them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import yaml
from quality_table import Bars, Book, Result

from openmm_cgadv import bulk_model, load
from openmm_cgadv.analysis.measurement import COLLECTIVE, measure
from openmm_cgadv.analysis.metrics import metrics, noise_floor
from openmm_cgadv.data.trajectory import BeadTrajectory
from openmm_cgadv.errors import ExplosionError
from openmm_cgadv.simulation.run import run_production
from openmm_cgadv.simulation.stress import stress_series
from openmm_cgadv.simulation.viewer import wrapped

ROOT = Path(__file__).parents[1]
BOOK = ROOT / "benchmarks" / "quality.json"
TOO_HIGH, TOO_LOW = 80.0, 5.0
"""Four times, and a quarter of, the friction of water's beads (1/ps)."""
PAIRS_TOO_HIGH, PAIRS_TOO_LOW = 400.0, 25.0
"""The same where it is between pairs, of a bead whose neighbours move independently of it."""
LENGTH, LENGTH_TOGETHER = 2000.0, 4000.0
"""Of the runs that are measured (ps); of those whose viscosity is, which twice as much motion tells to 2 %."""
COPIES = 8
"""How many times as many molecules a model is tried on."""

REFERENCES = {
    "SPC/E 298 K": {"water": "spce", "temperature_K": 298.15, "length_ps": 800},
    "SPC/E 298 K, again": {"water": "spce", "temperature_K": 298.15, "length_ps": 1600, "seed": 2},
    "SPC/E 298 K, 2744 molecules": {
        "water": "spce",
        "temperature_K": 298.15,
        "molecules": 2744,
        "length_ps": 120,
    },
    "SPC/E 298 K, a frame every 10 fs": {
        "water": "spce",
        "temperature_K": 298.15,
        "length_ps": 800,
        "frame_interval_fs": 10,
        "seed": 3,
    },
    "TIP3P 310 K": {"water": "tip3p", "temperature_K": 310.0, "length_ps": 800},
    "TIP4P-Ew 298 K": {"water": "tip4pew", "temperature_K": 298.15, "length_ps": 600},
    "SPC/E 275 K": {"water": "spce", "temperature_K": 275.0, "length_ps": 900},
    "SPC/E 340 K": {"water": "spce", "temperature_K": 340.0, "length_ps": 300},
    "argon 87 K": {"liquid": "argon", "temperature_K": 87.0, "length_ps": 3000},
    "argon-krypton 115 K": {"liquid": "lj_mixture", "temperature_K": 115.0, "length_ps": 3000},
    "methanol 298 K": {"liquid": "methanol", "temperature_K": 298.15, "length_ps": 500},
    "SPC/E 285 K": {"water": "spce", "temperature_K": 285.0, "length_ps": 800},
    "SPC/E 315 K": {"water": "spce", "temperature_K": 315.0, "length_ps": 600},
}
WATER, AGAIN, MANY = "SPC/E 298 K", "SPC/E 298 K, again", "SPC/E 298 K, 2744 molecules"
"""Two runs of the same water, of which one teaches and the other judges, and one that tells what a box does."""
FINE = "SPC/E 298 K, a frame every 10 fs"
"""Teaches where frames are 10 or 50 fs apart, which those of the others, 20 fs apart, are not."""
GENERATED = "a model of SPC/E"
"""The reference that is a run of the model of SOURCE, whose every parameter is known."""
TRAINED = [
    name
    for name in REFERENCES
    if name not in (WATER, AGAIN, MANY, FINE, "SPC/E 285 K", "SPC/E 315 K")
]
"""Other liquids."""


@dataclass(frozen=True)
class Case:
    """One training with the runs of its model, or another run of the model of a training.

    Attributes
    ----------
    group, name : str
    reference : str
        What is trained on, or compared with.
    settings : dict
        Of the experiment, ``section.field`` by value.
    setting : str
        What cases that differ by seed and start alone have in common.
    judge : str
        A longer or finer reference that the run is measured against.
    source : Case or None
        Whose model is run; None of a training.
    copies : int
        How many times as many molecules that run has.
    """

    group: str
    name: str
    reference: str
    settings: dict = field(default_factory=dict)
    setting: str = ""
    judge: str = ""
    source: Case | None = None
    copies: int = 1

    @property
    def directory(self) -> str:
        return "".join(c if c.isalnum() else "-" for c in f"{self.group}-{self.name}")

    @property
    def bars(self) -> Bars | None:
        if self.group == "together":
            # A larger box tells diffusion; what waves and neighbours do was judged in the small one.
            return Bars(0.04, 0.04, 0.02, viscosity=None if self.source else 0.1)
        if self.source:
            return None
        return Bars(diffusion={"liquids": 0.05, "truth": 0.02}.get(self.group, 0.03))


def from_both_sides(
    group: str, setting: str, reference: str, seeds: int, settings: dict
) -> list[Case]:
    """Trainings whose friction starts too high and too low in turn, two of five by Boltzmann inversion."""
    found = []
    for seed in range(1, seeds + 1):
        high, low = (PAIRS_TOO_HIGH, PAIRS_TOO_LOW) if group == "together" else (TOO_HIGH, TOO_LOW)
        friction, start = (high, "too high") if seed % 2 else (low, "too low")
        inverted = reference == GENERATED or group == "spce" and seed in (2, 3)
        initial = "boltzmann_inversion" if inverted else "force_matching"
        own = {
            "dynamics.initial_friction_per_ps": friction,
            "potential.initial": initial,
            "training.seed": seed,
        }
        name = f"{setting}, seed {seed}, friction {start}, {initial.replace('_', ' ').replace('boltzmann', 'Boltzmann')}"
        judge = {WATER: AGAIN, AGAIN: WATER}.get(reference, "")
        found.append(Case(group, name, reference, settings | own, setting, judge))
    return found


def cases() -> list[Case]:
    """Every training of the table, the most telling first."""
    by_step = [
        from_both_sides("spce", f"{step} fs", WATER, 5, {"dynamics.timestep_fs": step})
        for step in (5, 10)
    ]
    found = [case for both in zip(*by_step) for case in both]
    source = by_step[1][0]
    found += [Case("liquids", name, name) for name in TRAINED]
    # Diffusion in windows, which these follow, is known to 1 % from 800 ps: the longer one teaches.
    pairs = [
        from_both_sides(
            "together",
            f"{step} fs",
            AGAIN,
            3,
            {"dynamics.timestep_fs": step, "dynamics.equation": "pair"},
        )
        for step in (5, 10)
    ]
    found += [case for both in zip(*pairs) for case in both]
    found += [
        Case(
            "together",
            f"{COPIES} times as many molecules, {name}",
            MANY,
            source=made,
            copies=COPIES,
        )
        for name, made in (("10 fs, seed 1", pairs[1][0]), ("friction on each bead", source))
    ]
    found += from_both_sides(
        "together",
        "10 fs, a critic of neighbourhoods",
        AGAIN,
        2,
        pairs[1][0].settings | {"discriminator.kind": "graph"},
    )
    options = {
        "defaults": {},
        "everything adversarial": {"training.potential": "adversarial"},
        "everything adversarial, 5 fs": {
            "training.potential": "adversarial",
            "dynamics.timestep_fs": 5,
        },
        "no attention": {"discriminator.attention": False},
        "products of increments": {"discriminator.kind": "gram"},
        "two critics": {"discriminator.critics": 2},
        "products of increments, two critics": {
            "discriminator.kind": "gram",
            "discriminator.critics": 2,
        },
        "Langevin": {"dynamics.equation": "langevin"},
        "Langevin, 5 fs": {"dynamics.equation": "langevin", "dynamics.timestep_fs": 5},
        "Langevin, windows of 1 ps": {"dynamics.equation": "langevin", "training.window_ps": 1.0},
        "Langevin, windows of 4 ps": {"dynamics.equation": "langevin", "training.window_ps": 4.0},
    }
    for seed in (1, 2, 3):
        for name, settings in options.items():
            every = {"dynamics.timestep_fs": 10, "training.seed": seed} | settings
            found.append(Case("options", f"{name}, seed {seed}", WATER, every, name, AGAIN))
    found += from_both_sides("truth", "10 fs", GENERATED, 4, {"dynamics.timestep_fs": 10})
    found.append(
        Case(
            "extrapolation",
            f"{COPIES} times as many molecules",
            WATER,
            source=source,
            copies=COPIES,
        )
    )
    found += [
        Case("extrapolation", f"at {kelvin} K", f"SPC/E {kelvin} K", source=source)
        for kelvin in (285, 315)
    ]
    for length in (25, 50, 100, 200, 800):
        found.append(
            Case(
                "data",
                f"{length} ps of reference",
                WATER,
                {"dynamics.timestep_fs": 10, "reference.length_ps": length},
                judge=AGAIN,
            )
        )
    for interval in (10, 50, 100, 500, 2000):
        found.append(
            Case(
                "frames",
                f"a frame every {interval} fs",
                FINE if interval < 100 else WATER,
                {
                    "dynamics.timestep_fs": 10,
                    "reference.frame_interval_fs": interval,
                    "production.frame_interval_fs": 20,
                },
                judge=AGAIN,
            )
        )
    return found


SOURCE = next(case.source for case in cases() if case.group == "extrapolation")
"""Whose model is a known truth, and is run in larger boxes and at other temperatures."""


def nested(settings: dict) -> dict:
    """``{"a.b": 1}`` as ``{"a": {"b": 1}}``."""
    out: dict = {}
    for name, value in settings.items():
        section, key = name.split(".")
        out.setdefault(section, {})[key] = value
    return out


def cgadv(command: str, experiment: dict, directory: Path) -> None:
    """Run a command on an experiment; what it prints goes to ``log.txt`` beside the file."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "quality.yaml").write_text(yaml.safe_dump(experiment))
    # The installed package is wanted, not sources in the current folder.
    program = "import sys; del sys.path[0]; from openmm_cgadv.workflow.cli import app; app()"
    with open(directory / "log.txt", "a") as log:
        subprocess.run(
            [
                sys.executable,
                "-c",
                program,
                command,
                str(directory / "quality.yaml"),
                "--out",
                str(directory),
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
            check=True,
        )


class Runs:
    """Everything that is made, under one directory.

    Parameters
    ----------
    out : Path
    quick : bool
        Tiny systems and runs, to see that it works.
    """

    def __init__(self, out: Path, quick: bool):
        self.out, self.quick = out, quick
        self.measured = lru_cache(maxsize=3)(self.measured)

    def folder(self, reference: str) -> Path:
        return self.out / "references" / "".join(c if c.isalnum() else "-" for c in reference)

    def model(self, case: Case):
        """The model of a case, trained first if need be."""
        self.train(case)
        return load(self.out / "cases" / case.directory / "model.cg")

    def stamp(self, name: str) -> dict:
        """When a reference was begun and done; nothing of one that has not been begun."""
        stages = self.folder(name) / "stages.json"
        return json.loads(stages.read_text())["reference"] if stages.exists() else {}

    def reference(self, name: str) -> Path:
        """The bead file of a reference."""
        directory = self.folder(name)
        if name == GENERATED:
            model = self.model(SOURCE)
            return run_production(
                model, directory, length=10.0 if self.quick else LENGTH, seed=101
            ).beads
        settings = {"molecules": 343} | REFERENCES[name]
        if self.quick:
            settings |= {"molecules": 125, "length_ps": 10, "equilibration_ps": 4}
        if not self.stamp(name).get("done"):  # a file may be there that is not finished
            cgadv("reference", {"reference": settings}, directory)
        return directory / "reference" / "beads.h5"

    def train(self, case: Case) -> Path:
        """Train and measure; the path of ``metrics.json``."""
        directory = self.out / "cases" / case.directory
        metrics = directory / "report" / "metrics.json"
        if metrics.exists():
            return metrics
        experiment = nested(case.settings)
        beads = self.reference(case.reference)
        temperature = REFERENCES[WATER if case.reference == GENERATED else case.reference][
            "temperature_K"
        ]
        experiment.setdefault("reference", {}).update(temperature_K=temperature, beads=str(beads))
        experiment.setdefault("production", {})["length_ps"] = (
            LENGTH_TOGETHER if case.group == "together" else LENGTH
        )
        if self.quick:
            experiment["reference"].pop("length_ps", None)
            experiment["production"] |= {"length_ps": 10, "equilibration_ps": 1}
            experiment.setdefault("training", {}).update(
                iterations=4, validate_every=4, window_ps=0.4
            )
        cgadv("run", experiment, directory)
        return metrics

    def measured(self, name: str):
        """Measurement of a reference."""
        with BeadTrajectory.open(self.reference(name)) as trajectory:
            return measure(trajectory)

    def figures(self, name: str, other: str) -> dict:
        """Figures of a reference; its viscosity, which is known least well, is the mean of its own and another's of the same liquid."""
        found = [metrics(self.measured(one)) for one in dict.fromkeys((name, other))]
        viscosities = np.array(
            [[one["viscosity_mPa_s"], one["viscosity_stderr"]] for one in found], dtype=float
        )
        if np.isfinite(viscosities).all():
            weights = viscosities[:, 1] ** -2
            found[0]["viscosity_mPa_s"] = float(weights @ viscosities[:, 0] / weights.sum())
            found[0]["viscosity_stderr"] = float(weights.sum() ** -0.5)
        return found[0]

    def compare(self, case: Case, model, beads: Path) -> dict:
        """Figures of a run, of the reference that judges it, and of the noise floor of the one that taught it."""
        reference = self.measured(case.judge or case.reference)
        with BeadTrajectory.open(beads) as trajectory:
            stress = stress_series(model, trajectory) if case.bars else None
            # How beads move together is not asked where nothing is held to a bar.
            skip = () if case.bars else COLLECTIVE
            run = measure(trajectory, reference, stress=stress, skip=skip)
        return {
            "trained": metrics(run, reference),
            "reference": self.figures(case.judge or case.reference, case.reference),
            "noise_floor": noise_floor(self.measured(case.reference)),
        }

    def elsewhere(self, case: Case, model) -> Path:
        """Run the model of another case in a larger box or at another temperature; the bead file."""
        if case.copies > 1:
            model = bulk_model(model, molecules=case.copies * len(model.types))
        with BeadTrajectory.open(self.reference(case.reference)) as trajectory:
            last = [trajectory.n_frames - 1]
            box = trajectory.boxes(last)[0]
            if case.copies == 1:
                model = replace(
                    model, positions=wrapped(trajectory.positions(last)[0], box), box=box
                )
            model = replace(model, temperature=trajectory.temperature)
        # Where waves are measured, as much motion to average over as in a small box, in a fraction of its time.
        length = LENGTH_TOGETHER / case.copies if case.group == "together" else LENGTH
        length = 10.0 / case.copies if self.quick else length
        directory = self.out / "cases" / case.directory / "production"
        return run_production(
            model,
            directory,
            length=length,
            minimize=True,
            equilibration=1.0 if self.quick else 50.0,
        ).beads

    def result(self, case: Case) -> Result:
        """What a case gives, computed if it has not been."""
        directory = self.out / "cases" / case.directory
        own = directory / "quality.json"
        seconds, met_after, truth = None, None, None
        if case.source:
            model = self.model(case.source)
        else:
            metrics = json.loads(self.train(case).read_text())
            model, seconds = (
                load(directory / "model.cg"),
                metrics["timings"]["wall_seconds"].get("train"),
            )
            met_after = metrics["cost"]["met_after_seconds"]
            if case.reference == GENERATED:
                truth = self.model(SOURCE)
        if case.source or case.judge:
            if not own.exists():
                beads = (
                    self.elsewhere(case, model)
                    if case.source
                    else directory / "production" / "trained" / "beads.h5"
                )
                own.write_text(json.dumps(self.compare(case, model, beads)))
            metrics = json.loads(own.read_text())
        return Result(
            case.group,
            case.name,
            case.setting or case.name,
            metrics,
            model,
            seconds,
            met_after,
            truth,
            case.bars,
        )

    def made(self) -> dict[str, dict]:
        """Times of the references that were made."""
        return {name: stamp for name in REFERENCES if (stamp := self.stamp(name)).get("done")}


def size_dependence(source: Result) -> str:
    """What the box of the reference does to diffusion, and what it does not do to that of the models."""
    model, correction = (
        source.model,
        source.metrics["reference"]["diffusion_box_correction_cm2_per_s"],
    )
    if correction is None:
        return ""
    gain = correction * (1 - COPIES ** (-1 / 3))
    return (
        f"From {len(model.types)} molecules to {COPIES} times as many, all-atom diffusion grows by {1e5 * gain:.2f} · 10⁻⁵ cm²/s "
        "(Yeh and Hummer), with the viscosity of the reference. Friction on each bead by itself shows no such effect. "
        "The model is that of `{}`; its runs are compared with all-atom ones of 343 molecules as they are.".format(
            source.name
        )
    )


def collective(small: dict, large: dict) -> str:
    """What all-atom water shows of collective motion, and of diffusion in both boxes."""

    def figure(run, name, error, unit=1.0):
        value, doubt = run[name], run[error]
        return (
            "–"
            if value is None
            else f"{unit * value:.3f}" + (f" ± {unit * doubt:.3f}" if doubt is not None else "")
        )

    current = ", ".join(
        f"{value:.2f} at {lag:g} ps"
        for lag, value in small["transverse_current"] or ()
        if lag in (0.2, 0.4, 0.8)
    )
    parts = [
        f"All-atom: viscosity {figure(small, 'viscosity_mPa_s', 'viscosity_stderr')} mPa·s (shear waves); C_T(k₁) {current}"
    ]
    for name, meaning in (("transverse", "across"), ("longitudinal", "along")):
        curve = ((small["displacement_correlation"] or {}).get(name) or {}).get("first_shell") or ()
        shown = ", ".join(
            f"{value:.2f} ± {error or 0.0:.2f} at {lag:g} ps"
            for lag, value, error in curve
            if lag in (0.5, 1.0, 5.0)
        )
        parts.append(f"first neighbours share {meaning} their separation {shown}")
    diffusion = [
        figure(run, "diffusion_cm2_per_s", "diffusion_stderr", 1e5) for run in (small, large)
    ]
    return "; ".join(parts) + f". D {diffusion[0]} with 343 molecules and {diffusion[1]} with 2744."


def main() -> None:
    every = cases()
    groups = list(dict.fromkeys(case.group for case in every))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "groups", nargs="*", metavar="GROUP", help=f"{', '.join(groups)}; all by default"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "quality")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="only show that it works: tiny runs of the first of each group",
    )
    arguments = parser.parse_args()
    unknown = [group for group in arguments.groups if group not in groups]
    if unknown:
        parser.error(f"unknown group {', '.join(unknown)}, expected some of {', '.join(groups)}")
    chosen = [case for case in every if not arguments.groups or case.group in arguments.groups]
    if arguments.quick:
        chosen = list({case.group: case for case in reversed(chosen)}.values())[::-1]
    path = arguments.out / "quality.json" if arguments.quick else BOOK
    runs, book, order = (
        Runs(arguments.out, arguments.quick),
        Book.read(path),
        [(case.group, case.name) for case in every],
    )
    for k, case in enumerate(chosen):
        print(f"{k + 1} of {len(chosen)}: {case.group}, {case.name}", flush=True)
        try:
            book.add(runs.result(case).record(), order)
            if case.group == "extrapolation":
                book.notes[case.group] = size_dependence(runs.result(SOURCE))
            if case.group == "together":
                book.notes[case.group] = collective(
                    runs.figures(WATER, AGAIN), runs.figures(MANY, MANY)
                )
        except (subprocess.CalledProcessError, ExplosionError) as error:
            print(
                f"  failed ({error}), see {arguments.out / 'cases' / case.directory / 'log.txt'}",
                flush=True,
            )
            continue
        book.references |= runs.made()
        book.write(path)


if __name__ == "__main__":
    main()
