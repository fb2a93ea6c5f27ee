"""Cost of accuracy: deviations of validations in OpenMM against the wall-clock time of training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..analysis.tolerances import TOLERANCES

COLUMNS = {
    "diffusion": "validation_diffusion_deviation",
    "msd": "validation_msd",
    "vacf_rms": "validation_vacf_rms",
    "rdf_l1": "validation_rdf_l1",
    "adf_l1": "validation_adf_l1",
}
"""Columns of the training log with the deviations of observables."""


@dataclass(frozen=True)
class ValidationSeries:
    """Deviations of one observable in validations during training.

    Attributes
    ----------
    observable : str
    seconds, deviation, error : array [n]
        Wall-clock time, and the deviation from the reference with its standard error.
    tolerance : float
        For runs of the length of a validation.
    """

    observable: str
    seconds: np.ndarray
    deviation: np.ndarray
    error: np.ndarray
    tolerance: float

    @property
    def met_after(self) -> float | None:
        """Time, s, from which on no validation exceeds the tolerance by more than its statistical error.

        None if the last one does.
        """
        limit = self.tolerance + TOLERANCES.standard_errors * self.error
        beyond = np.flatnonzero(self.deviation > limit)
        first = beyond[-1] + 1 if len(beyond) else 0
        return float(self.seconds[first]) if first < len(self.seconds) else None


def validations(log: dict, reference: dict, floor: dict) -> list[ValidationSeries]:
    """Return the validations in a training log.

    Parameters
    ----------
    log : dict
        From `inputs.read_training_log`. ``validation_length`` is the length of the runs, ps.
    reference : dict
        From `metrics.metrics`.
    floor : dict
        From `metrics.noise_floor`.
    """
    if "seconds" not in log:
        return []
    clock = dict(zip(*log["seconds"]))
    found = []
    for observable, column in COLUMNS.items():
        if column not in log:
            continue
        iterations, values = log[column]
        errors = dict(zip(*log.get(f"{column}_stderr", ((), ()))))
        known = [k for k, iteration in enumerate(iterations) if iteration in clock]
        if not known:
            continue
        found.append(
            ValidationSeries(
                observable,
                np.array([clock[iterations[k]] for k in known]),
                np.abs(values[known]),
                np.array([errors.get(iterations[k], 0.0) for k in known]),
                TOLERANCES.of_short_run(observable, reference, floor, validation_length(log)),
            )
        )
    return found


def validation_length(log: dict) -> float | None:
    """Return the length of the validations in a training log, ps, or None if there are none."""
    _, lengths = log.get("validation_length", ((), ()))
    return float(lengths[-1]) if len(lengths) else None


def summary(found: list[ValidationSeries]) -> dict:
    """Return plain numbers: for each observable its tolerance, when it was met, and all validations."""
    met = [seconds for one in found if (seconds := one.met_after) is not None]
    return {
        "met_after_seconds": max(met) if met and len(met) == len(found) else None,
        "observables": {
            one.observable: {
                "tolerance": one.tolerance,
                "met_after_seconds": one.met_after,
                "deviation": [
                    [float(x) for x in row] for row in zip(one.seconds, one.deviation, one.error)
                ],
            }
            for one in found
        },
    }


def sentence(found: list[ValidationSeries], names: dict[str, str]) -> str:
    """Return when the tolerances were met, in words."""
    after = {one.observable: one.met_after for one in found}
    late = [names[observable] for observable, seconds in after.items() if seconds is None]
    if late:
        return f"At the end of training these were beyond their tolerance: {', '.join(late)}."
    seconds, last = max((one.met_after or 0.0, one.observable) for one in found)
    return (
        f"All observables were within tolerance after {seconds:.0f} s of training, within twice the error of a "
        f"validation. The last was: {names[last]}."
    )
