"""The table of qualities: figures of trained models, the bars they are held against, and their spread over seeds."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean, median, stdev

import numpy as np

from openmm_cgadv.analysis import differences
from openmm_cgadv.analysis.metrics import bead_types, of_type
from openmm_cgadv.analysis.tolerances import TOLERANCES
from openmm_cgadv.model import Model
from openmm_cgadv.units import KB

LAGS = 0.02, TOLERANCES.longest_lag_ps
"""Lags of the mean squared displacements that count (ps)."""
DISTANCES = np.arange(0.26, 0.755, 0.01)
"""Where pair energies of different seeds are compared (nm)."""
SEEN = 0.05
"""g(r) above which a pair energy can be known from a reference."""
SPREADS = {"D": 0.02, "friction": 0.03, "u(r)": 0.05}
"""Bars of the spread over seeds: standard deviations of D and of friction, relative; root mean square of u(r) in kT."""


@dataclass(frozen=True)
class Bars:
    """How far a model may be off; angles by what the reference itself is uncertain."""

    diffusion: float = TOLERANCES.diffusion
    displacement: float = TOLERANCES.msd
    velocities: float = TOLERANCES.vacf_rms
    rdf: float = TOLERANCES.rdf_l1
    friction: float = 0.02
    energy: float = 0.1
    """Root mean square of u(r) against a known one, in kT."""
    viscosity: float | None = None
    """Relative. None, here and below, where collective motion is not judged."""
    shared: float = TOLERANCES.displacement_correlation
    """Of displacements that neighbours share."""
    current: float = TOLERANCES.transverse_current
    """Of the transverse current's correlation at the shortest wave vector."""


@dataclass(frozen=True)
class Result:
    """What a case has given.

    Attributes
    ----------
    group, name, setting : str
        Cases of one setting differ by their seed and start alone.
    metrics : dict
        With the figures of the run, of the reference and of its noise floor.
    model : Model
    seconds, met_after : float or None
        Time of the training, and from when on its live validations met the bars of the report.
    truth : Model or None
        What generated the reference, where that is known.
    bars : Bars or None
        None where figures are reported as they are.
    """

    group: str
    name: str
    setting: str
    metrics: dict
    model: Model
    seconds: float | None = None
    met_after: float | None = None
    truth: Model | None = None
    bars: Bars | None = Bars()

    @property
    def diffusion(self) -> float | None:
        """Deviation of D from the reference's, relative."""
        return deviation(self.metrics["trained"], self.metrics["reference"])

    @property
    def friction(self) -> float | None:
        """∫K dt, mean over bead types (1/ps); of friction between pairs what a bead feels among others at rest."""
        return float(self.model.bead_friction.mean())

    @property
    def collective(self) -> bool:
        """Whether collective motion is judged."""
        return self.bars is not None and self.bars.viscosity is not None

    def record(self) -> Record:
        """What the table shows of it."""
        run = self.metrics["trained"]
        numbers = {"D": run["diffusion_cm2_per_s"], "off": self.diffusion}
        # How strong friction between pairs is for a bead among others at rest is no property of the liquid.
        numbers["friction"] = None if self.model.friction.between_beads else self.friction
        numbers |= {name: run[name] for name in ("vacf_rms", "rdf_l1", "adf_l1")}
        numbers |= {"seconds": self.seconds, "met_after": self.met_after}
        energy = pair_energy(self.model, DISTANCES) / (KB * self.model.temperature)
        return Record(
            self.group, self.name, self.setting, row(self), numbers, energy.round(4).tolist()
        )


@dataclass(frozen=True)
class Record:
    """A row of the table, and what summaries need of it.

    Attributes
    ----------
    group, name, setting : str
    cells : dict
        By column.
    numbers : dict
        Figures that are averaged over seeds; None where there is none.
    energy : list
        u(r)/kT at `DISTANCES` of every pair of types.
    """

    group: str
    name: str
    setting: str
    cells: dict[str, str]
    numbers: dict[str, float | None]
    energy: list[list[float]]


@dataclass
class Book:
    """All that the table holds, kept in a file beside it, so that other groups and other machines can add to it."""

    records: list[Record] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    references: dict[str, dict] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Book:
        """What is in a file; empty if there is none."""
        if not path.exists():
            return cls()
        kept = json.loads(path.read_text())
        return cls(
            [Record(**record) for record in kept["records"]], kept["notes"], kept["references"]
        )

    def add(self, new: Record, order: list[tuple[str, str]]) -> None:
        """Put in a record in place of its forerunner; what is not in ``order``, group and name of all cases, is dropped."""
        kept = {(record.group, record.name): record for record in [*self.records, new]}
        self.records = [kept[key] for key in order if key in kept]

    def write(self, path: Path) -> None:
        """Write the file, a record a line, and the table beside it."""
        records = ",\n".join(
            json.dumps(asdict(record), ensure_ascii=False) for record in self.records
        )
        rest = json.dumps({"notes": self.notes, "references": self.references}, ensure_ascii=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'{{"records": [\n{records}\n],\n{rest[1:]}\n')
        path.with_suffix(".md").write_text(table(self.records, self.notes, self.references))


@dataclass(frozen=True)
class Figure:
    """Something that is held against a bar, which is never below twice the reference's own error."""

    name: str
    value: float | None
    bar: float

    @property
    def met(self) -> bool:
        return self.value is not None and abs(self.value) <= self.bar

    @property
    def excess(self) -> float:
        """The deviation as a multiple of the bar."""
        return float("inf") if self.value is None else abs(self.value) / self.bar


def pair_energy(model: Model, r: np.ndarray) -> np.ndarray:
    """u(r) of all pairs of types [pairs, r] (kJ/mol), 0 beyond the cutoff."""
    return np.stack([curve.energy(model.theta, r).numpy() for curve in model.spec.pair_curves()])


def energy_error(model: Model, truth: Model, rdf: list[dict]) -> float:
    """Root mean square of u(r) − u_true(r) where g(r) > SEEN, over all pairs of types (kT)."""
    squares = []
    for pair, curve in enumerate(rdf):
        r = np.array(curve["r_nm"])
        r = r[(np.array(curve["g"]) > SEEN) & (r < truth.spec.pair_curves()[pair].r_cut)]
        squares.append((pair_energy(model, r)[pair] - pair_energy(truth, r)[pair]) ** 2)
    return float(np.sqrt(np.concatenate(squares).mean()) / (KB * truth.temperature))


def deviation(run: dict, reference: dict) -> float | None:
    """Deviation of D from the reference's, relative."""
    value, truth = (figures["diffusion_cm2_per_s"] for figures in (run, reference))
    return None if value is None or truth is None else value / truth - 1


def ratios(run: dict, reference: dict) -> list[tuple[float, float, float]]:
    """Lag (ps), mean squared displacement over the reference's, and that one's relative error."""
    values, errors = (dict(map(tuple, reference[name] or ())) for name in ("msd_nm2", "msd_stderr"))
    return [
        (lag, ratio, (errors.get(lag) or 0.0) / values[lag])
        for lag, ratio, _ in run["msd_ratio"] or ()
        if LAGS[0] * (1 - 1e-6) <= lag <= LAGS[1] * (1 + 1e-6) and lag in values
    ]


def figures(result: Result) -> list[Figure]:
    """Everything of a result that has a bar."""
    bars, run = result.bars, result.metrics["trained"]
    reference, floor = result.metrics["reference"], result.metrics["noise_floor"]
    found = motion(run, reference, bars)
    for bead in bead_types(run, reference):
        found += motion(of_type(run, bead), of_type(reference, bead), bars, f"{bead}: ")
    found.append(
        Figure(
            "VACF",
            run["vacf_rms"],
            max(bars.velocities, TOLERANCES.vacf_noise_floors * (floor["vacf_rms"] or 0.0)),
        )
    )
    for name, label, bar in (
        ("rdf_l1", "g(r)", bars.rdf),
        ("adf_l1", "P(θ)", 0.0),
        ("second_adf_l1", "P(θ) of the second shell", 0.0),
    ):
        if floor[name] is not None:
            found.append(Figure(label, run[name], max(bar, TOLERANCES.noise_floors * floor[name])))
    if result.truth is not None:
        found.append(
            Figure(
                "friction",
                result.friction / float(result.truth.bead_friction.mean()) - 1,
                bars.friction,
            )
        )
        found.append(
            Figure("u(r)", energy_error(result.model, result.truth, reference["rdf"]), bars.energy)
        )
    return found if bars.viscosity is None else found + together(run, reference, bars)


def motion(run: dict, reference: dict, bars: Bars, of: str = "") -> list[Figure]:
    """Diffusion and displacements, of all beads or of those that a name begins with."""
    error = reference["diffusion_stderr"]
    allowed = 2 * error / reference["diffusion_cm2_per_s"] if error is not None else 0.0
    found = [Figure(f"{of}D", deviation(run, reference), max(bars.diffusion, allowed))]
    return found + [
        Figure(f"{of}MSD at {lag:g} ps", ratio - 1, max(bars.displacement, 2 * error))
        for lag, ratio, error in ratios(run, reference)
    ]


def together(run: dict, reference: dict, bars: Bars) -> list[Figure]:
    """Collective motion: viscosities, displacements that neighbours share, and the decay of shear waves."""
    truth, error = reference["viscosity_mPa_s"], reference["viscosity_stderr"] or 0.0
    found = []
    for name, kind in (("viscosity_mPa_s", "waves"), ("stress_viscosity_mPa_s", "stress")):
        off = None if run[name] is None or truth is None else run[name] / truth - 1
        found.append(
            Figure(
                f"η of the {kind}", off, max(bars.viscosity, 2 * error / truth if truth else 0.0)
            )
        )
    for name, curve, bar in (
        ("shared ", differences.displacement_correlation, bars.shared),
        ("", differences.transverse_current, bars.current),
    ):
        found += [
            Figure(
                f"{name}{one.name} at {one.lag:g} ps", one.value, max(bar, 2 * one.reference_error)
            )
            for one in curve(run, reference)
        ]
    return found


def largest(found: list[Figure], start: str) -> float | None:
    """The largest deviation of figures whose names start so."""
    values = [abs(figure.value) for figure in found if figure.name.startswith(start)]
    return max(values, default=None)


def number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def missed(result: Result) -> str:
    """Bars that are missed, by name; of curves the worst lag."""
    if result.bars is None:
        return "–"
    worst: dict[str, Figure] = {}
    for figure in figures(result):
        if not figure.met:
            curve = figure.name.split(" at ")[0]
            if curve not in worst or figure.excess > worst[curve].excess:
                worst[curve] = figure
    return ", ".join(figure.name for figure in worst.values()) or "none"


def row(result: Result) -> dict[str, str]:
    """Cells of the table by column."""
    run, reference, floor = (
        result.metrics[name] for name in ("trained", "reference", "noise_floor")
    )
    value, moved = run["diffusion_cm2_per_s"], [ratio for _, ratio, _ in ratios(run, reference)]
    error = reference["diffusion_stderr"]
    cells = {
        "case": result.name,
        "D, 10⁻⁵ cm²/s": "–"
        if value is None
        else f"{1e5 * value:.3f} ± {number(run['diffusion_stderr'] and 1e5 * run['diffusion_stderr'], 3)}",
        "D − reference, % (its error)": "–"
        if result.diffusion is None
        else f"{100 * result.diffusion:+.1f} "
        f"({number(error and 100 * error / reference['diffusion_cm2_per_s'], 1)})",
        "MSD / reference": f"{min(moved):.3f} – {max(moved):.3f}" if moved else "–",
        "VACF rms": number(run["vacf_rms"], 4),
    }
    for name, label in (
        ("rdf_l1", "g(r)"),
        ("adf_l1", "P(θ)"),
        ("second_adf_l1", "P(θ), second shell"),
    ):
        cells[f"{label} (floor)"] = f"{number(run[name], 4)} ({number(floor[name], 4)})"
    cells["∫K dt, 1/ps"] = number(result.friction, 2)
    if result.collective:
        for name, kind in (("viscosity", "waves"), ("stress_viscosity", "stress")):
            cells[f"η of the {kind}, mPa·s"] = (
                f"{number(run[f'{name}_mPa_s'], 3)} ± {number(run[f'{name}_stderr'], 3)}"
            )
        found = together(run, reference, result.bars)
        cells["shared, largest difference"] = number(largest(found, "shared"), 3)
        cells["C_T(k₁), largest difference"] = number(largest(found, "C_T"), 3)
    if result.truth is not None:
        wrong = {figure.name: figure.value for figure in figures(result)}
        cells["∫K dt − truth, %"] = f"{100 * wrong['friction']:+.1f}"
        cells["u(r) − truth, kT"] = f"{wrong['u(r)']:.3f}"
    cells["training, s (live validation good from)"] = (
        f"{number(result.seconds, 0)} ({number(result.met_after, 0)})"
    )
    cells["bars missed"] = missed(result)
    return cells


def spread(records: list[Record]) -> dict[str, str]:
    """Cells of the summary of several seeds of one setting."""

    def every(name):
        return [record.numbers[name] for record in records if record.numbers[name] is not None]

    def over(name, form=".4f", unit=1.0):
        values = every(name)
        return f"{unit * mean(values):{form}}" if values else "–"

    def middle(name):
        values = every(name)
        return number(median(values) if values else None, 0)

    def relative(name):
        values = every(name)
        return held(name, stdev(values) / mean(values) if len(values) == len(records) else None)

    def held(name, value):
        return "–" if value is None else f"{value:.3f}{'' if value <= SPREADS[name] else ' ✗'}"

    energies = np.array([record.energy for record in records])
    return {
        "setting": records[0].setting,
        "seeds": str(len(records)),
        "D − reference, %": over("off", "+.1f", 100),
        f"sd of D (bar {SPREADS['D']:g})": relative("D"),
        f"sd of ∫K dt (bar {SPREADS['friction']:g})": relative("friction"),
        f"u(r), rms, kT (bar {SPREADS['u(r)']:g})": held(
            "u(r)", float(np.sqrt(energies.var(0, ddof=1).mean()))
        ),
        "VACF rms": over("vacf_rms"),
        "g(r)": over("rdf_l1"),
        "P(θ)": over("adf_l1"),
        "training, median, s": middle("seconds"),
        "live validation good from, median, s": middle("met_after"),
        "all bars met by": f"{sum(record.cells['bars missed'] == 'none' for record in records)} of {len(records)}",
    }


def lines_of(rows: list[dict[str, str]]) -> list[str]:
    """A Markdown table of rows that have the same columns."""
    head = "| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])
    return [*head, *("| " + " | ".join(cells.values()) + " |" for cells in rows)]


def table(records: list[Record], notes: dict[str, str], references: dict[str, dict]) -> str:
    """The whole file: groups with their summaries, then what the references took.

    Parameters
    ----------
    records : list of Record
    notes : dict
        A sentence or two for some groups.
    references : dict
        Of each reference, ``seconds`` of wall time and ``ns_per_day`` where they are known.
    """
    lines = [
        "# Quality of trained models",
        "",
        "Written by `scripts/quality`: every row is one training by the defaults, but for what its name says, and 2 ns of OpenMM production.",
        "What was other than now when a row was made, a note at its group says.",
        "Models of SPC/E at 298 K are measured against another run that training has not seen: of one of 800 and one of 1600 ps the",
        "shorter teaches, and the longer where friction is between pairs. ± is one standard error; floors compare two",
        "halves of the reference that training saw. A bar is missed by more than the larger of the bar and twice",
        f"the reference's own error: D and mean squared displacements ({LAGS[0]:g} to {LAGS[1]:g} ps, but no more than a fifth of the reference) 3 %, in other liquids D 5 %, of a known truth D 2 %,",
        "friction 2 % and u(r) 0.1 kT; VACF rms 0.015; g(r) the larger of 0.01 and twice the floor; P(θ) twice the floor. Where friction is",
        "between pairs: D and displacements 4 %, VACF 0.02, viscosity, from shear waves and from the stress, 10 %, displacements that neighbours",
        f"share ({differences.DISPLACEMENT_LAGS[0]:g} to {differences.DISPLACEMENT_LAGS[1]:g} ps, two shells) 0.05, the decay of the longest shear wave 0.06. The all-atom viscosity there is",
        "the mean of both references, as one alone tells it to 5 % only, and runs take 4 ns, those of 8 times as many molecules 0.5 ns.",
    ]
    for group in dict.fromkeys(record.group for record in records):
        here = [record for record in records if record.group == group]
        lines += [""] * (lines[-1] != "") + [f"## {group}", ""]
        if notes.get(group):
            lines += [notes[group], ""]
        for columns in dict.fromkeys(tuple(record.cells) for record in here):
            lines += [
                *lines_of([record.cells for record in here if tuple(record.cells) == columns]),
                "",
            ]
        settings = [
            [r for r in here if r.setting == name]
            for name in dict.fromkeys(r.setting for r in here)
        ]
        summary = [spread(same) for same in settings if len(same) > 1]
        if summary:
            lines += lines_of(summary)
    if references:
        lines += [""] * (lines[-1] != "") + ["## references", ""]
        lines += lines_of(
            [
                {
                    "reference": name,
                    "wall time, s": number(known.get("seconds"), 0),
                    "all-atom, ns/day": number(known.get("ns_per_day"), 1),
                }
                for name, known in references.items()
            ]
        )
    return "\n".join(lines).rstrip() + "\n"
