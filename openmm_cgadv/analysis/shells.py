"""Radii of the first and the second coordination shell, from minima of g(r)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.signal import find_peaks

from .blocks import Unmeasurable
from .rdf import Rdf


def first_shell_radius(r: np.ndarray, g: np.ndarray) -> float:
    """First minimum of g(r) behind its first peak, nm.

    It is looked for on the curve smoothed over 0.01 nm, where a peak counts if it stands out by 0.1
    at least, and refined as the minimum of a cubic through the unsmoothed points within 0.03 nm.

    Parameters
    ----------
    r, g : array [n_bins]
        Evenly spaced bin centres, nm, and the curve.

    Raises
    ------
    Unmeasurable
        g(r) shows no peak sampled_beads by a minimum.
    """
    r, g = np.asarray(r), np.asarray(g)
    smooth = gaussian_filter1d(g, 0.01 / (r[1] - r[0]), mode="nearest")
    peaks, _ = find_peaks(smooth, prominence=0.1, height=1.0)
    if not len(peaks):
        raise Unmeasurable(f"g(r) shows no first shell up to {r[-1]:.2f} nm")
    return _minimum(r, g, smooth, peaks, "first")


def second_shell_radius(r: np.ndarray, g: np.ndarray, first: float) -> float:
    """First minimum of g(r) behind its second peak, nm.

    As `first_shell_radius`, on the curve smoothed over 0.02 nm behind the end of the first shell,
    where a peak counts if it stands out by 0.03 at least.

    Parameters
    ----------
    r, g : array [n_bins]
        Evenly spaced bin centres, nm, and the curve.
    first : float
        Where the first shell ends, nm.

    Raises
    ------
    Unmeasurable
        g(r) shows no second peak sampled_beads by a minimum.
    """
    r, g = np.asarray(r), np.asarray(g)
    smooth = gaussian_filter1d(g, 0.02 / (r[1] - r[0]), mode="nearest")
    start = np.searchsorted(r, first)
    peaks, _ = find_peaks(smooth[start:], prominence=0.03)
    if not len(peaks):
        raise Unmeasurable(f"g(r) shows no second shell up to {r[-1]:.2f} nm")
    return _minimum(r, g, smooth, peaks + start, "second")


def _minimum(r: np.ndarray, g: np.ndarray, smooth: np.ndarray, peaks: np.ndarray, which: str):
    """Minimum of a curve between its first two peaks, sought on the smoothed one."""
    end = peaks[1] if len(peaks) > 1 else len(r)
    low = peaks[0] + int(np.argmin(smooth[peaks[0] : end]))
    if low == len(r) - 1:
        raise Unmeasurable(f"g(r) shows no minimum behind its {which} peak up to {r[-1]:.2f} nm")
    near = (np.abs(r - r[low]) < 0.03) & (np.arange(len(r)) > peaks[0])
    if near.sum() > 4:
        cubic = np.polynomial.Polynomial.fit(r[near], g[near], 3)
        fine = np.linspace(r[near][0], r[near][-1], 1001)
        lowest = int(np.argmin(cubic(fine)))
        if 0 < lowest < 1000:
            return float(fine[lowest])
    return float(r[low])


def shell_radii(curves: Rdf) -> dict[tuple[str, str], float]:
    """First-shell radius, nm, of every pair of types; pairs without a first shell are left out.

    Raises
    ------
    Unmeasurable
        No pair of types shows a first shell.
    """
    return _where_there_is_one(curves, lambda pair, g: first_shell_radius(curves.r, g))


def second_shell_radii(
    curves: Rdf, first: dict[tuple[str, str], float]
) -> dict[tuple[str, str], float]:
    """Where the second shell ends, nm, for every pair of types that has a first shell; those
    without a second are left out.

    Raises
    ------
    Unmeasurable
        No pair of types shows a second shell.
    """
    return _where_there_is_one(
        curves, lambda pair, g: second_shell_radius(curves.r, g, first.get(pair, np.inf))
    )


def _where_there_is_one(curves: Rdf, find: Callable):
    """Results of `find` for the pairs of types where it finds something."""
    radii, why = {}, Unmeasurable("there is no pair of types")
    for pair, g in zip(curves.pairs, curves.g()):
        try:
            radii[pair] = find(pair, g)
        except Unmeasurable as error:
            why = error
    if not radii:
        raise why
    return radii
