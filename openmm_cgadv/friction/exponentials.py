"""Fit of a sum of decaying exponentials to the running integral of a correlation function."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from scipy.integrate import cumulative_trapezoid
from scipy.optimize import nnls

GRID = 14
"""Default number of rates of the grid."""
LEAST = 0.02
"""Default of the least fraction of the integral for each term: training needs non-zero terms."""


def fit_exponentials(
    times: np.ndarray,
    correlation: np.ndarray,
    number: int,
    slowest: float,
    fastest: float,
    grid: int = GRID,
    least: float = LEAST,
) -> tuple[float, np.ndarray, np.ndarray]:
    """Return a, α_k and b_k of ``a δ(t) + Σ_k b_k exp(−α_k t)`` with non-negative a, b_k.

    The running integral is fitted with equal weights at all times: it is the friction of motion on each time scale. All
    sets of rates on a logarithmic grid are tried with non-negative least squares (Lawson and Hanson), and the best is
    returned.

    Parameters
    ----------
    times : ndarray [T]
        Times from 0 on, with the unit of the inverse rates.
    correlation : ndarray [T]
    number : int
        Number of exponentials, at most `grid`.
    slowest, fastest : float
        First and last rate of the grid.
    grid : int
        Number of rates of the grid.
    least : float
        Least fraction of the integral for each term.

    Returns
    -------
    float
        Integral of the instantaneous (Markovian) part, ``a``.
    ndarray [number]
        Rates α_k, from slow to fast.
    ndarray [number]
        Weights b_k.
    """
    tried = np.geomspace(slowest, fastest, grid)
    integral = cumulative_trapezoid(correlation, times)
    terms = np.column_stack([np.ones(len(integral)), -np.expm1(-tried * times[1:, None])])
    best = min(
        ([0, *(1 + k for k in chosen)] for chosen in combinations(range(grid), number)),
        key=lambda columns: nnls(terms[:, columns], integral)[1],
    )
    areas = nnls(terms[:, best], integral)[0]
    areas = np.maximum(areas, least * areas.sum())
    rates = tried[np.array(best[1:], dtype=int) - 1]
    return areas[0], rates, areas[1:] * rates
