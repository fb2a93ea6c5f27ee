"""A sum of decaying exponentials that has the running integral of a measured correlation."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from scipy.integrate import cumulative_trapezoid
from scipy.optimize import nnls

GRID = 14
"""Rates that are tried."""

LEAST = 0.02
"""Least part of the integral that each term is given, so that none starts at nothing."""


def fit_exponentials(
    times: np.ndarray, correlation: np.ndarray, number: int, slowest: float, fastest: float
) -> tuple[float, np.ndarray, np.ndarray]:
    """Instant part, rates and weights of ``a δ(t) + Σ_k b_k exp(−α_k t)`` with non-negative a, b_k.

    The running integral is fitted, which is what motion of a period feels of a memory, at all times alike. Of all
    sets of rates on a grid, even in the logarithm, the best is taken (Lawson and Hanson's non-negative least squares
    for each).

    Parameters
    ----------
    times : ndarray [T]
        From 0 on.
    correlation : ndarray [T]
    number : int
        Of exponentials, at most 14.
    slowest, fastest : float
        Ends of the grid of rates.

    Returns
    -------
    float
        Integral of the instant part, ``a``.
    ndarray [number]
        Rates α_k, from slow to fast.
    ndarray [number]
        Weights b_k.
    """
    grid = np.geomspace(slowest, fastest, GRID)
    integral = cumulative_trapezoid(correlation, times)
    terms = np.column_stack([np.ones(len(integral)), -np.expm1(-grid * times[1:, None])])
    best = min(
        ([0, *(1 + k for k in chosen)] for chosen in combinations(range(GRID), number)),
        key=lambda columns: nnls(terms[:, columns], integral)[1],
    )
    areas = nnls(terms[:, best], integral)[0]
    areas = np.maximum(areas, LEAST * areas.sum())
    rates = grid[np.array(best[1:], dtype=int) - 1]
    return areas[0], rates, areas[1:] * rates
