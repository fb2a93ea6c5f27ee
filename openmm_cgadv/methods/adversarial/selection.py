"""Selection of the exported model among the validated averages of the parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from ...analysis.tolerances import OBSERVABLES, Tolerances

VALIDATED = {name: getattr(Tolerances(), name) for name in OBSERVABLES}
TOLERANCES = {**VALIDATED, "held_out_msd": VALIDATED["msd"]}
"""Tolerance of each observable: those of the validation in OpenMM, and mean squared displacements in windows relative to
the held-out ones."""


@dataclass(frozen=True)
class SelectionSettings:
    """Hyperparameters of the selection.

    Attributes
    ----------
    significance : float
        Smallest significant difference of two deviations, in standard errors of the difference.
    improvement : float
        Smallest improvement between two validations that counts, as a fraction of the tolerance.
    """

    significance: float = 2.0
    improvement: float = 0.5


@dataclass(frozen=True)
class Candidate:
    """Average of the parameters at one iteration, with its validation.

    Attributes
    ----------
    iteration : int
    average : list of Tensor
        Averaged parameters of the generator.
    values : dict of str to float
        Observables from the validation in OpenMM and from the held-out windows; empty if the simulation exploded.
    """

    iteration: int
    average: list[Tensor]
    values: dict[str, float]

    def state(self) -> dict:
        """Return the fields for a checkpoint."""
        return {"iteration": self.iteration, "average": self.average, "values": self.values}

    def deviation(self, observable: str) -> tuple[float, float] | None:
        """Return the deviation of an observable from the reference and its standard error, or None if not measured."""
        names = {"diffusion": "validation_diffusion_deviation", "held_out_msd": "held_out_msd"}
        name = names.get(observable, f"validation_{observable}")
        value, error = self.values.get(name), self.values.get(f"{name}_stderr", 0.0)
        return None if value is None else (abs(value), error)


def improves(
    before: dict[str, float],
    after: dict[str, float],
    settings: SelectionSettings = SelectionSettings(),
) -> bool:
    """Return whether any observable of a validation is significantly closer to the reference than before."""
    earlier, later = Candidate(0, [], before), Candidate(0, [], after)
    for observable, tolerance in VALIDATED.items():
        first_deviation, last_deviation = earlier.deviation(observable), later.deviation(observable)
        if first_deviation is not None and last_deviation is not None:
            (first, first_error), (last, last_error) = first_deviation, last_deviation
            noise = settings.significance * math.hypot(first_error, last_error)
            if first - last > max(settings.improvement * tolerance, noise):
                return True
    return False


def choose(
    candidates: list[Candidate], settings: SelectionSettings = SelectionSettings()
) -> Candidate:
    """Return the last candidate whose observables are all, within errors, as close to the reference as the best one's.

    The best candidate has the smallest sum of deviations in units of `TOLERANCES`. Later candidates have smaller
    learning rates, so a later one is preferred unless it is significantly worse.
    """
    measured = [one for one in candidates if any(one.deviation(name) for name in VALIDATED)]
    if not measured:
        return candidates[-1]
    observables = [name for name in TOLERANCES if all(one.deviation(name) for one in measured)]

    def deviations(one: Candidate) -> list[tuple[float, float]]:
        found = (one.deviation(name) for name in observables)
        return [deviation for deviation in found if deviation is not None]

    tolerances = [TOLERANCES[name] for name in observables]
    best = min(
        measured,
        key=lambda one: sum(
            value / tolerance for (value, _), tolerance in zip(deviations(one), tolerances)
        ),
    )

    def as_good(one: Candidate) -> bool:
        for (value, error), (least, least_error) in zip(deviations(one), deviations(best)):
            if value > least + settings.significance * math.hypot(error, least_error):
                return False
        return True

    return [one for one in measured if as_good(one)][-1]
