"""The table of observables: a row an observable, a column a run."""

from __future__ import annotations

from dataclasses import dataclass

from ..analysis.tolerances import TOLERANCES
from .inputs import ReportInput
from .numbers import ABSENT
from .status import status, status_by_lag, worst_lag
from .text import lag_words, reason, signed

DISTANCES = (
    ("rdf_l1", "g(r)", "area of the difference, %", 100, 2),
    ("adf_l1", "P(θ)", "area of the difference, %", 100, 2),
    ("second_adf_l1", "P(θ), second shell", "area of the difference, %", 100, 2),
    ("vacf_rms", "VACF", "rms difference, 0–2 ps", 1, 4),
)
FLOORS = (*(name for name, *_ in DISTANCES), "msd_ratio", "diffusion_of_halves_cm2_per_s")


@dataclass(frozen=True)
class Cell:
    """A cell of the table.

    Attributes
    ----------
    text : str or None
    small : str or None
        Below the text.
    status : str or None
        Of the observable.
    note : int or None
        Number of the footnote that says why there is no text.
    muted : bool
        Whether the text is of no importance.
    """

    text: str | None
    small: str | None = None
    status: str | None = None
    note: int | None = None
    muted: bool = False


ZERO = Cell("0", muted=True)


class _Table:
    """Rows of cells, and footnotes that say why a cell is empty."""

    def __init__(self):
        self.rows = []
        self.footnotes = []

    def cell(self, text, m, name, small=None, status=None):
        """Return a cell; without a text it refers to the reason in `m`."""
        if text is not None:
            return Cell(text, small, status)
        why = reason(m, name)
        if why not in self.footnotes:
            self.footnotes.append(why)
        return Cell(None, note=self.footnotes.index(why) + 1)

    def value(self, m, name, error, scale, digits, status=None):
        """Return a cell with an observable and its standard error."""
        value, spread = m.get(name), m.get(error)
        if value is None:
            return self.cell(None, m, name)
        small = None if spread is None else f"± {spread * scale:.{digits}f}"
        return self.cell(f"{value * scale:.{digits}f}", m, name, small, status)

    def row(self, title, hint, cells, floor=None, tolerance=""):
        self.rows.append(
            {"title": title, "hint": hint, "cells": cells, "floor": floor, "tolerance": tolerance}
        )


def table(data: ReportInput) -> dict:
    """Return the labels of the runs, the rows and the footnotes of the table."""
    runs = [data.reference, *data.others]
    reference = data.reference.metrics
    floor = data.noise_floor
    if not floor:
        why = data.reasons.get("noise_floor", ABSENT["noise_floor"])
        floor = {"reasons": dict.fromkeys(FLOORS, why)}
    out = _Table()

    def mark(observable, run):
        found = status(observable, run.metrics, reference, floor)
        return None if found.deviation is None else found.status

    for name, title, hint, scale, digits in DISTANCES:
        allowed = TOLERANCES.of(name, reference, floor)
        assessed = floor.get(name) is not None or name != "second_adf_l1"
        out.row(
            title,
            hint,
            [ZERO]
            + [
                out.value(run.metrics, name, f"{name}_stderr", scale, digits, mark(name, run))
                for run in runs[1:]
            ],
            out.value(floor, name, None, scale, digits),
            f"≤ {allowed * scale:.{digits}f}" if assessed else "",
        )
    _displacements(out, runs, reference, floor, mark)
    _diffusion(out, runs, reference, floor, mark)
    for name, title, hint in (
        ("viscosity", "Viscosity", "mPa s, from transverse currents, extrapolated to k = 0"),
        (
            "stress_viscosity",
            "",
            "mPa s, Green–Kubo; not the viscosity of the liquid where friction acts on single beads",
        ),
    ):
        cells = [out.value(run.metrics, f"{name}_mPa_s", f"{name}_stderr", 1, 2) for run in runs]
        out.row(title, hint, cells)
    cells = [out.value(run.metrics, "temperature_K", "temperature_stderr", 1, 1) for run in runs]
    out.row("Temperature", "K, from velocities", cells)
    for name, title, hint in (
        ("friction_per_ps", "Integrated friction", "ps⁻¹"),
        ("timestep_fs", "Time step", "fs"),
        ("length_ps", "Length", "ps"),
    ):
        values = [run.metrics.get(name) for run in runs]
        out.row(
            title,
            hint,
            [
                out.cell(None if value is None else f"{value:.4g}", run.metrics, name)
                for run, value in zip(runs, values)
            ],
        )
    return {"runs": [run.label for run in runs], "rows": out.rows, "footnotes": out.footnotes}


def _displacements(out, runs, reference, floor, mark):
    def furthest(m, status=None):
        at = status_by_lag(m, reference)
        if not at:
            return out.cell(None, m, "msd_ratio")
        lag = worst_lag(at)
        small = f"at {lag_words(lag)}"
        deviation = at[lag].deviation
        return out.cell(
            None if deviation is None else signed(deviation), m, "msd_ratio", small, status
        )

    allowed = [
        100 * TOLERANCES.of_msd(lag, reference)
        for lag, _ in reference.get("msd_nm2") or []
        if lag <= TOLERANCES.longest_lag_ps * (1 + 1e-9)
    ] or [100 * TOLERANCES.msd]
    widest = f" to {max(allowed):.2g}" if max(allowed) > 1.05 * min(allowed) else ""
    out.row(
        "MSD",
        "largest deviation in units of its tolerance, %",
        [ZERO] + [furthest(run.metrics, mark("msd", run)) for run in runs[1:]],
        furthest(floor),
        f"± {min(allowed):.2g}{widest}",
    )


def _diffusion(out, runs, reference, floor, mark):
    name, floor_name = "diffusion_cm2_per_s", "diffusion_of_halves_cm2_per_s"
    halves = floor.get(floor_name)
    both = halves and f"{1e5 * halves[0]:.2f}, {1e5 * halves[1]:.2f}"
    out.row(
        "Diffusion",
        "10⁻⁵ cm² s⁻¹",
        [out.value(run.metrics, name, "diffusion_stderr", 1e5, 2) for run in runs],
        out.cell(both, floor, floor_name),
    )
    cells = [ZERO]
    for run in runs[1:]:
        deviation = status("diffusion", run.metrics, reference, floor).deviation
        text = None if deviation is None else signed(deviation)
        cells.append(out.cell(text, run.metrics, name, status=mark("diffusion", run)))
    out.row(
        "",
        "deviation from all-atom, %",
        cells,
        out.cell(halves and signed(halves[1] / halves[0] - 1), floor, floor_name),
        f"± {100 * TOLERANCES.of('diffusion', reference, floor):.2g}",
    )
