"""Status of the observables of a run: within their tolerance, beyond it, or undetermined."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..analysis import differences
from ..analysis.tolerances import TOLERANCES, Tolerances

GOOD, MISSED, OPEN = "good", "missed", "open"
"""Within the tolerance; beyond it; undetermined, because the statistical error of the run is too large or the observable
is missing."""


@dataclass(frozen=True)
class Status:
    """An observable of a run against its tolerance.

    Attributes
    ----------
    observable : str
    status : str
        `GOOD`, `MISSED` or `OPEN`.
    deviation : float or None
        Deviation from the reference; None if it is not known.
    tolerance : float
    bead : str
        Type of the beads that were measured; empty for all beads.
    run : str
        Name of the run, if it is not the main one of the model.
    """

    observable: str
    status: str
    deviation: float | None
    tolerance: float
    bead: str = field(default="", kw_only=True)
    run: str = field(default="", kw_only=True)

    @property
    def name(self) -> str:
        """The observable with the type of beads."""
        return f"{self.observable} of {self.bead}" if self.bead else self.observable


def classify(
    deviation: float | None,
    error: float | None,
    tolerance: float,
    tolerances: Tolerances = TOLERANCES,
) -> str:
    """Return `GOOD`, `MISSED` or `OPEN` for a deviation with its standard error."""
    error = error or 0.0
    if deviation is None:
        return OPEN
    if abs(deviation) <= tolerance:
        return GOOD if error <= tolerance else OPEN
    return OPEN if abs(deviation) - tolerances.standard_errors * error <= tolerance else MISSED


def status(
    observable: str, run: dict, reference: dict, floor: dict, tolerances: Tolerances = TOLERANCES
) -> Status:
    """Return the status of one of `tolerances.OBSERVABLES` of a run.

    That of "msd" is the status at the `worst_lag`.

    Parameters
    ----------
    observable : str
    run, reference : dict
        From `metrics.metrics`.
    floor : dict
        From `metrics.noise_floor`; may be empty.
    tolerances : Tolerances
    """
    allowed = tolerances.of(observable, reference, floor)
    if observable == "msd":
        at = status_by_lag(run, reference, tolerances)
        if at:
            return at[worst_lag(at)]
        deviation = error = None
    elif observable == "diffusion":
        value, truth = run.get("diffusion_cm2_per_s"), reference.get("diffusion_cm2_per_s")
        deviation = None if value is None or not truth else value / truth - 1
        error = (run.get("diffusion_stderr") or 0.0) / truth if truth else None
    else:
        deviation, error = run.get(observable), run.get(f"{observable}_stderr")
    return Status(observable, classify(deviation, error, allowed, tolerances), deviation, allowed)


def status_by_lag(
    run: dict, reference: dict, tolerances: Tolerances = TOLERANCES
) -> dict[float, Status]:
    """Return the status of the mean squared displacement at every lag, ps, that is assessed."""
    values = dict(run.get("msd_nm2") or [])
    own = {
        lag: error / values[lag]
        for lag, error in run.get("msd_stderr") or []
        if error is not None and values.get(lag)
    }
    out = {}
    for lag, ratio, _ in run.get("msd_ratio") or []:
        if lag <= tolerances.longest_lag_ps * (1 + 1e-9):
            deviation, allowed = ratio - 1, tolerances.of_msd(lag, reference)
            found = classify(deviation, own.get(lag), allowed, tolerances)
            out[lag] = Status("msd", found, deviation, allowed)
    return out


def worst_lag(at: dict[float, Status]) -> float:
    """Return the lag, ps, at which the deviation is largest in units of its tolerance.

    Lags beyond their tolerance come before undetermined ones, and these before all others.
    """
    found = next(
        one for one in (MISSED, OPEN, GOOD) if any(status.status == one for status in at.values())
    )
    return max(
        (lag for lag in at if at[lag].status == found),
        key=lambda lag: abs(at[lag].deviation or 0.0) / (at[lag].tolerance or 1.0),
    )


def largest_difference(
    observable: str, run: dict, reference: dict, tolerances: Tolerances = TOLERANCES
) -> tuple[differences.Difference, Status] | None:
    """Return the largest difference, in units of its tolerance, of a correlation function, and its status.

    Parameters
    ----------
    observable : str
        "transverse_current" or "displacement_correlation".
    run, reference : dict
        From `metrics.metrics`.

    Returns
    -------
    (Difference, Status) or None
        None if either function is not known.
    """
    every = [
        (one, max(getattr(tolerances, observable), 2 * one.reference_error))
        for one in getattr(differences, observable)(run, reference)
    ]
    if not every:
        return None
    worst, allowed = max(every, key=lambda one: abs(one[0].value) / one[1])
    found = classify(worst.value, worst.error, allowed, tolerances)
    return worst, Status(observable, found, worst.value, allowed)
