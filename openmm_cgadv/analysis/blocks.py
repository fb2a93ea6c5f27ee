"""Error bars of time averages from contiguous blocks of a trajectory.

A trajectory is cut into `N_BLOCKS` equal stretches and every estimator keeps its sums a block, so
that its mean, its standard error and the noise floor (the difference of the two halves) come from one pass.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

N_BLOCKS = 10

Blocks = slice | np.ndarray
"""Selects blocks: a slice, or an array of their numbers."""


class Unmeasurable(ValueError):
    """An observable that a trajectory does not determine; the message is the reason, one sentence."""


def block_numbers(n_samples: int) -> np.ndarray:
    """Return the block [n_samples] that each of `n_samples` successive samples belongs to."""
    return np.arange(n_samples) * min(N_BLOCKS, n_samples) // max(n_samples, 1)


def standard_error(values: np.ndarray) -> np.ndarray | float:
    """Return the standard error of the mean of independent block values [n_blocks, ...]; nan for one block."""
    values = np.asarray(values, dtype=float)
    n = len(values)
    if n < 2:
        return np.full(values.shape[1:], np.nan)[()]
    return values.std(axis=0, ddof=1) / np.sqrt(n)


def jackknife(function: Callable, n_blocks: int) -> np.ndarray | float:
    """Return the standard error of a function of block sums, by leaving out one block at a time.

    Parameters
    ----------
    function : callable
        Takes an array of block numbers, returns the observable computed from those blocks.
    n_blocks : int

    Returns
    -------
    float or ndarray
        ``sqrt((n - 1)/n sum_i (f_i - mean f)^2)`` (Efron, 1982); nan for one block.
    """
    if n_blocks < 2:
        return np.nan
    every = np.arange(n_blocks)
    values = np.array([function(np.delete(every, i)) for i in every])
    return np.sqrt((n_blocks - 1) * values.var(axis=0))


def split_halves(n_blocks: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the block numbers of the first and of the second half of a trajectory.

    Raises
    ------
    Unmeasurable
        There is only one block.
    """
    if n_blocks < 2:
        raise Unmeasurable("the trajectory is too short to be cut into halves")
    return np.arange(n_blocks // 2), np.arange(n_blocks - n_blocks // 2, n_blocks)


def overlap_factor(lag: float, span: float, n_blocks: int) -> float:
    """Return the factor on the standard error of a mean squared displacement for blocks that are not
    independent.

    Displacements over `lag` that start in neighbouring blocks share part of the trajectory. For
    Brownian motion squared displacements that start a time s apart correlate as (1 - s/lag)^2,
    which gives the variance of a mean over any stretch in closed form; the factor is the square
    root of the true variance of the mean over all blocks, divided by what `standard_error` is
    expected to find.

    Parameters
    ----------
    lag, span : float
        The lag, and the length of the stretch over which displacements start, in one unit.
    n_blocks : int
    """
    if n_blocks < 2:
        return np.nan
    of_all = _variance_of_mean(lag, span)
    of_block = _variance_of_mean(lag, span / n_blocks)
    return float(np.sqrt((n_blocks - 1) * of_all / (of_block - of_all)))


def brownian_error(lag: float, span: float, n_beads: int) -> float:
    """Return the relative standard error of the mean squared displacement of independent Brownian beads.

    That of one displacement is the square root of 2/3 (a sum of three squares of Gaussian numbers).

    Parameters
    ----------
    lag, span : float
        The lag, and the length of the stretch over which displacements start, in one unit.
    n_beads : int
    """
    return float(np.sqrt(2 / 3 / n_beads * _variance_of_mean(lag, span)))


def _variance_of_mean(lag: float, length: float):
    """(2/B^2) integral_0^min(B, lag) (B - s) (1 - s/lag)^2 ds with B = `length`."""
    x = length / lag
    if x >= 1:
        return 2 / x**2 * (x / 3 - 1 / 12)
    return 2 * (1 / 2 - x / 3 + x**2 / 12)
