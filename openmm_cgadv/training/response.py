"""How displacements in windows answer to the memory of friction, and the memory that makes them the reference's.

What a bead feels beside its friction, from its neighbours, hardly depends on that friction. The velocity correlation Ĉ(s) = 1/(s + K̂(s) + K̂'(s)),
normalized and as Laplace transforms, with the memory K of the friction and K' of all else, then answers to a small change of K by −Ĉ² δK̂, and the
mean squared displacement M by

    δM(t) = −m/(6 kT) ∫_0^t (Ṁ * Ṁ)(t − u) dδG(u),    G(t) = ∫_0^t K(s) ds,

where * is a convolution and G(0) the friction at once. M comes from rollouts, so that no model of the liquid is needed. Where neighbours do
answer, too, displacements change by more: in water up to half as much again around 1 ps, nothing before 0.3 ps (``docs/recipe.md``). What is
told from rollouts once more after a change makes up for it. Compare the iterative reconstruction of memory of Jung, Hanke and Schmid (2017),
doi:10.1021/acs.jctc.7b00274.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

SPREAD = 4.0
"""Standard deviation of what logarithms of friction, rates and couplings may have to change by."""

INEXACT = 0.3
"""Error of the response, relative to the change of the displacements."""

PRECISION = 1e-4
"""Relative change of the sum of squares at which the fit ends."""

DIFFERENCE = 1.5e-8
"""Of parameters, relative, that slopes are found from."""

SHAKEN, EVALUATIONS = 0.5, 200
"""Standard deviation by which further beginnings of a fit differ from what is expected, and the most evaluations, slopes apart, of each of those."""


@dataclass(frozen=True)
class Seen:
    """What rollouts of one model showed of the motion of beads of one type.

    Attributes
    ----------
    moved : ndarray [T]
        Mean squared displacements at times ``h, 2 h … T h`` (nm²).
    running : ndarray [T + 1]
        Running integral of the memory at ``0, h … T h`` with which they moved (1/ps).
    ratio : ndarray [lags]
        Logarithms of the reference's displacements over theirs, at the lags that are compared.
    covariance : ndarray [lags, lags]
        Of their statistical errors.
    """

    moved: np.ndarray
    running: np.ndarray
    ratio: np.ndarray
    covariance: np.ndarray


def response(moved: np.ndarray, change: np.ndarray, interval: float, thermal: float) -> np.ndarray:
    """Change of mean squared displacements with the running integral of the memory.

    Parameters
    ----------
    moved : ndarray [T]
        Mean squared displacements at times ``h, 2 h … T h`` (nm²).
    change : ndarray [T + 1]
        Of the running integral, at ``0, h … T h`` (1/ps).
    interval : float
        h (ps).
    thermal : float
        kT/m (nm²/ps²).

    Returns
    -------
    ndarray [T]
        (nm²)
    """
    steps = np.diff(moved, prepend=0.0)
    # Intervals j and k make a time of (j + k + 1) h in the mean.
    both = np.concatenate([[0.0], np.convolve(steps, steps)[: len(steps)]])
    delayed = np.convolve(0.5 * (both[1:] + both[:-1]), np.diff(change))[: len(steps)]
    return -(both[1:] * change[0] + delayed) / (6 * thermal * interval)


def fit_memory(
    start: np.ndarray, running: Callable[[np.ndarray], np.ndarray], seen: list[Seen], at: np.ndarray, interval: float, thermal: float,
    beginnings: int = 1,
) -> np.ndarray:  # fmt: skip
    """The most likely parameters of the memory of one bead type, by nonlinear least squares.

    Parameters
    ----------
    start : ndarray [P]
        Parameters that are expected, each with a standard deviation of `SPREAD`.
    running : callable
        Running integrals of the memory [B, T + 1] (1/ps) at ``0, h … T h``, for sets of parameters [B, P].
    seen : list of Seen
        Of one model or several.
    at : ndarray [lags] of int
        Which of the times ``h, 2 h … T h`` are the lags that are compared.
    interval : float
        h (ps).
    thermal : float
        kT/m (nm²/ps²).
    beginnings : int
        From how many places least squares begin, ``start`` the first; the least of them all is taken. Exponentials have more minima than one.

    Returns
    -------
    ndarray [P]
    """
    # Displacements answer linearly to the running integral: what is left of them is ``wanted - shown @ running``, in standard errors.
    wanted, shown = [], []
    for one in seen:
        white = np.linalg.cholesky(np.linalg.inv(one.covariance + np.diag((INEXACT * one.ratio) ** 2))).T
        units = np.eye(len(one.running))
        answer = np.stack([response(one.moved, unit, interval, thermal)[at] for unit in units], 1) / one.moved[at, None]
        shown.append(white @ answer)
        wanted.append(white @ one.ratio + shown[-1] @ one.running)
    wanted, shown = np.concatenate(wanted), np.concatenate(shown)

    def residuals(parameters: np.ndarray) -> np.ndarray:
        return np.concatenate([(parameters - start) / SPREAD, wanted - shown @ running(parameters[None])[0]])

    def slopes(parameters: np.ndarray) -> np.ndarray:
        steps = DIFFERENCE * np.maximum(1.0, np.abs(parameters))
        found = running(np.vstack([parameters, parameters + np.diag(steps)]))
        return np.concatenate([np.eye(len(start)) / SPREAD, -shown @ (found[1:] - found[0]).T / steps])

    fits = [least_squares(residuals, start, slopes, method="lm", ftol=PRECISION)]
    for shaken in start + SHAKEN * np.random.default_rng(0).normal(size=[beginnings - 1, len(start)]):
        with np.errstate(all="ignore"):  # where one begins too far off
            fits.append(least_squares(residuals, shaken, slopes, method="lm", ftol=PRECISION, max_nfev=EVALUATIONS))
    return min(fits, key=lambda fit: fit.cost if np.isfinite(fit.cost) else np.inf).x
