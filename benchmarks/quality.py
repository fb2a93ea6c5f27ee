"""How good trained models are: liquids, starts, seeds and options, all by the same defaults.

Makes all-atom references, trains on each, runs the models in OpenMM and writes the table
``benchmarks/quality.md``. Takes hours, goes on where it stopped, and writes the table anew after
every experiment. Groups may be named: ``scripts/quality spce liquids``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "benchmarks" / "quality.md"
LONGEST_LAG = 100.0
"""Of the mean squared displacements that count (ps)."""
TOO_HIGH, TOO_LOW = 80.0, 5.0
"""Four times, and a quarter of, the friction of water's beads (1/ps)."""

REFERENCES = {
    "SPC/E 298 K": {"water": "spce", "temperature_K": 298.15, "length_ps": 1000},
    "TIP3P 310 K": {"water": "tip3p", "temperature_K": 310.0, "length_ps": 800},
    "TIP4P-Ew 298 K": {"water": "tip4pew", "temperature_K": 298.15, "length_ps": 1000},
    "SPC/E 275 K": {"water": "spce", "temperature_K": 275.0, "length_ps": 1600},
    "SPC/E 340 K": {"water": "spce", "temperature_K": 340.0, "length_ps": 600},
    "argon 87 K": {"liquid": "argon", "temperature_K": 87.0, "length_ps": 1000},
    "argon-krypton 115 K": {"liquid": "lj_mixture", "temperature_K": 115.0, "length_ps": 1000},
    "methanol 298 K": {"liquid": "methanol", "temperature_K": 298.15, "length_ps": 800},
}


@dataclass(frozen=True)
class Case:
    """One training with the runs of its model."""

    group: str
    name: str
    reference: str
    settings: dict = field(default_factory=dict)

    @property
    def directory(self) -> str:
        return "".join(c if c.isalnum() else "-" for c in f"{self.group}-{self.name}")


def cases() -> list[Case]:
    """Every training of the table, the most telling first."""
    found = []
    for seed in range(1, 6):
        friction = TOO_HIGH if seed % 2 else TOO_LOW
        initial = "boltzmann_inversion" if seed in (2, 3) else "force_matching"
        for step in (5, 10):
            start = "too high" if seed % 2 else "too low"
            how = "Boltzmann inversion" if seed in (2, 3) else "force matching"
            found.append(Case(
                "spce", f"{step} fs, seed {seed}, friction {start}, {how}", "SPC/E 298 K",
                {"dynamics.timestep_fs": step, "dynamics.initial_friction_per_ps": friction,
                 "potential.initial": initial, "training.seed": seed},
            ))  # fmt: skip
    found += [Case("liquids", name, name) for name in REFERENCES]
    for seed in (1, 2, 3):
        options = {
            "everything adversarial": {"training.potential": "adversarial"},
            "no attention": {"discriminator.attention": False},
            "Langevin, windows of 1 ps": {"dynamics.equation": "langevin", "training.window_ps": 1.0},
            "Langevin, windows of 4 ps": {"dynamics.equation": "langevin", "training.window_ps": 4.0},
        }
        for name, settings in options.items():
            found.append(Case("options", f"{name}, seed {seed}", "SPC/E 298 K",
                              {"dynamics.timestep_fs": 10, "training.seed": seed} | settings))  # fmt: skip
    for length in (25, 50, 100, 200, 800):
        found.append(Case("data", f"{length} ps of reference", "SPC/E 298 K",
                          {"dynamics.timestep_fs": 10, "reference.length_ps": length}))  # fmt: skip
    for interval in (40, 100, 500, 2000):
        found.append(Case("frames", f"a frame every {interval} fs", "SPC/E 298 K",
                          {"dynamics.timestep_fs": 10, "reference.frame_interval_fs": interval,
                           "production.frame_interval_fs": interval,
                           "training.window_ps": max(1.6, 4e-3 * interval)}))  # fmt: skip
    return found


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
    program = "from openmm_cgadv.cli import app; app()"
    with open(directory / "log.txt", "a") as log:
        subprocess.run(
            [sys.executable, "-c", program, command, str(directory / "quality.yaml"), "--out", str(directory)],
            stdout=log, stderr=subprocess.STDOUT, check=True,
        )  # fmt: skip


def make_reference(name: str, out: Path, quick: bool) -> Path:
    """The bead file of an all-atom reference."""
    settings = {"molecules": 343} | REFERENCES[name]
    if quick:
        settings |= {"molecules": 125, "length_ps": 10, "equilibration_ps": 4}
    directory = out / "references" / "".join(c if c.isalnum() else "-" for c in name)
    if not (directory / "reference" / "beads.h5").exists():
        cgadv("reference", {"reference": settings}, directory)
    return directory / "reference" / "beads.h5"


def run_case(case: Case, out: Path, quick: bool) -> Path:
    """Train and measure; the path of ``metrics.json``."""
    directory = out / "cases" / case.directory
    metrics = directory / "report" / "metrics.json"
    if metrics.exists():
        return metrics
    experiment = nested(case.settings)
    temperature = REFERENCES[case.reference]["temperature_K"]
    beads = make_reference(case.reference, out, quick)
    experiment.setdefault("reference", {}).update(temperature_K=temperature, beads=str(beads))
    experiment.setdefault("production", {})["length_ps"] = 2000
    if quick:
        experiment["reference"].pop("length_ps", None)
        experiment["production"] |= {"length_ps": 10, "equilibration_ps": 1}
        experiment.setdefault("training", {}).update(iterations=4, validate_every=4, window_ps=0.4)
    cgadv("run", experiment, directory)
    return metrics


def row(case: Case, metrics: dict) -> list[str]:
    """Cells of the table."""
    run, reference, floor = metrics["trained"], metrics["reference"], metrics["noise_floor"]

    def number(value, digits):
        return "–" if value is None else f"{value:.{digits}f}"

    diffusion, truth = run["diffusion_cm2_per_s"], reference["diffusion_cm2_per_s"]
    ratio = "–"
    if diffusion is not None and truth is not None:
        ratio = f"{100 * (diffusion / truth - 1):+.1f} ({100 * reference['diffusion_stderr'] / truth:.1f})"
    ratios = [r for lag, r, _ in run["msd_ratio"] or () if lag <= LONGEST_LAG * (1 + 1e-9)]
    return [
        case.name,
        "–" if diffusion is None else f"{1e5 * diffusion:.3f} ± {1e5 * run['diffusion_stderr']:.3f}",
        ratio,
        f"{min(ratios):.3f} – {max(ratios):.3f}" if ratios else "–",
        number(run["vacf_rms"], 4),
        f"{number(run['rdf_l1'], 4)} ({number(floor['rdf_l1'], 4)})",
        f"{number(run['adf_l1'], 4)} ({number(floor['adf_l1'], 4)})",
        number(run["friction_per_ps"], 2),
        number(metrics["timings"]["wall_seconds"].get("train"), 0),
    ]


HEADER = ["case", "D, 10⁻⁵ cm²/s", "D against all-atom, % (its error)", "MSD / all-atom",
          "VACF rms", "rdf_l1 (floor)", "adf_l1 (floor)", "friction, 1/ps", "training, s"]  # fmt: skip


def table(done: list[tuple[Case, dict]]) -> str:
    """The table, by group."""
    lines = [
        "# Quality of trained models",
        "",
        "Written by `scripts/quality`: every row is one training by the defaults, but for what its name says, and 2 ns of OpenMM production.",
        "± is one standard error; floors compare two halves of the reference.",
    ]
    for group in dict.fromkeys(case.group for case, _ in done):
        lines += ["", f"## {group}", "", "| " + " | ".join(HEADER) + " |", "|" + "---|" * len(HEADER)]
        lines += ["| " + " | ".join(row(case, metrics)) + " |" for case, metrics in done if case.group == group]
    return "\n".join(lines) + "\n"


def main() -> None:
    every = cases()
    groups = list(dict.fromkeys(case.group for case in every))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"{', '.join(groups)}; all by default")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "quality")
    parser.add_argument("--quick", action="store_true", help="only show that it works: tiny runs of the first of each group")
    arguments = parser.parse_args()
    chosen = [case for case in every if not arguments.groups or case.group in arguments.groups]
    if arguments.quick:
        chosen = list({case.group: case for case in reversed(chosen)}.values())[::-1]
    target = arguments.out / "quality.md" if arguments.quick else TABLE
    done = []
    for k, case in enumerate(chosen):
        print(f"{k + 1} of {len(chosen)}: {case.group}, {case.name}", flush=True)
        try:
            done.append((case, json.loads(run_case(case, arguments.out, arguments.quick).read_text())))
        except subprocess.CalledProcessError:
            print(f"  failed, see {arguments.out / 'cases' / case.directory / 'log.txt'}", flush=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(table(done))


if __name__ == "__main__":
    main()
