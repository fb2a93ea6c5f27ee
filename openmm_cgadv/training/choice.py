"""Which of the averages that were validated is exported."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from ..analysis.verdict import BARS

UNITS = {**BARS, "windows": BARS["msd"]}
"""What a good model may have of each figure: those of live validation, and mean squared displacements in windows over those held out."""

WITHIN = 2.0
"""Figures that differ by less than so many standard errors of their difference are equally good."""


@dataclass(frozen=True)
class Candidate:
    """Averaged parameters of an iteration, and what live validation and windows held out say of them."""

    iteration: int
    average: list[Tensor]
    values: dict[str, float]

    def state(self) -> dict:
        """For a checkpoint."""
        return {"iteration": self.iteration, "average": self.average, "values": self.values}

    def deviation(self, figure: str) -> tuple[float, float] | None:
        """How far a figure is from the reference, and its standard error."""
        name = {"diffusion": "validation_diffusion_deviation", "windows": "held_out_windows"}.get(figure, f"validation_{figure}")
        value, error = self.values.get(name), self.values.get(f"{name}_stderr", 0.0)
        return None if value is None else (abs(value), error)


def improves(before: dict[str, float], now: dict[str, float]) -> bool:
    """Whether live validation finds any figure nearer to the reference than the time before, by more than errors
    explain and by more than half of its bar."""
    one, two = Candidate(0, [], before), Candidate(0, [], now)
    for figure in BARS:
        if one.deviation(figure) and two.deviation(figure):
            (earlier, doubt), (later, error) = one.deviation(figure), two.deviation(figure)
            if earlier - later > max(0.5 * BARS[figure], WITHIN * math.hypot(doubt, error)):
                return True
    return False


def choose(candidates: list[Candidate]) -> Candidate:
    """The last candidate whose every figure is, within errors, as near to the reference as that of the best.

    The best has the smallest sum of deviations in `UNITS`. A later average is of
    smaller learning rates, so it is preferred to one that is better by chance; one that has become worse is not.
    """
    measured = [one for one in candidates if any(one.deviation(figure) for figure in BARS)]
    if not measured:
        return candidates[-1]
    figures = [figure for figure in UNITS if all(one.deviation(figure) for one in measured)]
    best = min(measured, key=lambda one: sum(one.deviation(figure)[0] / UNITS[figure] for figure in figures))

    def as_good(one: Candidate) -> bool:
        for figure in figures:
            (value, error), (least, doubt) = one.deviation(figure), best.deviation(figure)
            if value > least + WITHIN * math.hypot(error, doubt):
                return False
        return True

    return [one for one in measured if as_good(one)][-1]
