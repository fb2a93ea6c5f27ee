"""Differences of the correlation functions of collective motion between a run and the reference, lag by lag."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

DISPLACEMENT_LAGS = (0.1, 5.0)
"""Range of lags, ps, in which displacement correlations are compared."""


class Difference(NamedTuple):
    """Difference of one observable at one lag; errors are zero where they are not known.

    Attributes
    ----------
    name : str
    lag : float
        (ps)
    value : float
    error, reference_error : float
        Standard errors of the observable of the run and of the reference.
    """

    name: str
    lag: float
    value: float
    error: float
    reference_error: float


def displacement_correlation(run: dict, reference: dict) -> Iterator[Difference]:
    """Yield the differences of the displacement correlation by component and shell, within `DISPLACEMENT_LAGS`.

    Parameters
    ----------
    run, reference : dict
        Observables from `metrics.metrics`.
    """
    for component, shells in (reference.get("displacement_correlation") or {}).items():
        if component == "reasons":
            continue
        for shell, theirs in shells.items():
            own = (run.get("displacement_correlation") or {}).get(component, {}).get(shell, [])
            for one in _differences(f"{component}, {shell.replace('_', ' ')}", own, theirs):
                if (
                    DISPLACEMENT_LAGS[0] * (1 - 1e-6)
                    <= one.lag
                    <= DISPLACEMENT_LAGS[1] * (1 + 1e-6)
                ):
                    yield one


def transverse_current(run: dict, reference: dict) -> Iterator[Difference]:
    """Yield the differences of the normalized transverse current of the longest wave, C_T, as in `displacement_correlation`."""
    curves = [
        [
            (lag, value, error)
            for (lag, value), (_, error) in zip(
                of["transverse_current"], of["transverse_current_stderr"]
            )
        ]
        if of.get("transverse_current")
        else []
        for of in (run, reference)
    ]
    yield from _differences("C_T", *curves)


def _differences(name: str, own: list, theirs: list) -> Iterator[Difference]:
    known = {lag: (value, error) for lag, value, error in own}
    for lag, value, error in theirs:
        if lag in known:
            yield Difference(name, lag, known[lag][0] - value, known[lag][1] or 0.0, error or 0.0)
