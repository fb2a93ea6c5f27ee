"""What accuracy costs: how far live validation was from the reference, against the wall-clock time of training."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .verdict import SURE, bar

COLUMNS = {
    "diffusion": "validation_diffusion_deviation", "msd": "validation_msd",
    "vacf_rms": "validation_vacf_rms", "rdf_l1": "validation_rdf_l1", "adf_l1": "validation_adf_l1",
}
"""Columns of the training log with the deviations of those figures of `verdict.BARS` that live validation measures."""


@dataclass(frozen=True)
class Descent:
    """One figure of live validation over training.

    Attributes
    ----------
    figure : str
    seconds, deviation, error : array [n]
        Wall-clock time, and the deviation from the reference with its standard error.
    bar : float
        From `verdict.bar`, or what chance leaves in runs so short if that is more.
    """

    figure: str
    seconds: np.ndarray
    deviation: np.ndarray
    error: np.ndarray
    bar: float

    @property
    def met_after(self) -> float | None:
        """Seconds after which no validation was beyond the bar by more than twice its own error; None
        if the last one still was."""
        beyond = np.flatnonzero(self.deviation > self.bar + SURE * self.error)
        first = beyond[-1] + 1 if len(beyond) else 0
        return float(self.seconds[first]) if first < len(self.seconds) else None


def descents(log: dict, reference: dict, floor: dict) -> list[Descent]:
    """The figures of live validation in a training log, from `report.read_training_log`.

    Parameters
    ----------
    log : dict
        ``{column: (iterations, values)}``; ``validation_length`` is that of the runs, ps.
    reference : dict
        From `metrics.metrics`.
    floor : dict
        From `metrics.noise_floor`.
    """
    if "seconds" not in log:
        return []
    clock = dict(zip(*log["seconds"]))
    found = []
    for figure, column in COLUMNS.items():
        if column not in log:
            continue
        iterations, values = log[column]
        errors = dict(zip(*log.get(f"{column}_stderr", ((), ()))))
        known = [k for k, iteration in enumerate(iterations) if iteration in clock]
        if not known:
            continue
        found.append(Descent(
            figure,
            np.array([clock[iterations[k]] for k in known]),
            np.abs(values[known]),
            np.array([errors.get(iterations[k], 0.0) for k in known]),
            live_bar(figure, reference, floor, live_length(log)),
        ))
    return found


def live_length(log: dict) -> float | None:
    """Length of the runs of live validation in a training log (ps), None if there is none."""
    _, lengths = log.get("validation_length", ((), ()))
    return float(lengths[-1]) if len(lengths) else None


def live_bar(figure: str, reference: dict, floor: dict, length: float | None) -> float:
    """The bar of a figure in a run of a length (ps): of g(r) and of angles no less than by what a perfect run would be
    off. Its variance and that of each half of the reference, which the floor is the difference of, go with one over
    the length."""
    allowed = bar(figure, reference, floor)
    if length is None or figure not in ("rdf_l1", "adf_l1") or floor.get(figure) is None:
        return allowed
    return max(allowed, 0.5 * floor[figure] * (reference["length_ps"] / length + 1) ** 0.5)


def summary(found: list[Descent]) -> dict:
    """Plain numbers: for each figure its bar, when it was met for good, and ``[seconds, deviation,
    standard error]`` of every validation; and when all of them were met, None if they weren't."""
    after = [descent.met_after for descent in found]
    return {
        "met_after_seconds": max(after) if after and None not in after else None,
        "figures": {
            descent.figure: {
                "bar": descent.bar,
                "met_after_seconds": descent.met_after,
                "deviation": [[float(x) for x in row] for row in
                              zip(descent.seconds, descent.deviation, descent.error)],
            } for descent in found
        },
    }


def sentence(found: list[Descent], names: dict[str, str]) -> str:
    """When the bars were met for good, in words."""
    after = {descent.figure: descent.met_after for descent in found}
    late = [names[figure] for figure, seconds in after.items() if seconds is None]
    if late:
        return f"At the end of training live validation was still beyond the bar in: {', '.join(late)}."
    last = max(after, key=lambda figure: after[figure])
    return (f"Live validation met every bar from {after[last]:.0f} s of training on, within twice its own error; "
            f"last came: {names[last]}.")
