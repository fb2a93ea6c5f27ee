"""Shear viscosity from the decay of transverse currents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline

from ..units import MPA_S
from .blocks import Blocks, Unmeasurable
from .currents import Currents

RESOLVED = 0.3
"""What must be left of a current one frame later for its decay to be sampled_beads."""


@dataclass(frozen=True)
class ApparentViscosity:
    """Shear viscosity by wave vector, ``eta(k) = rho / (k^2 integral C_T(k, t)/C_T(k, 0) dt)``.

    Attributes
    ----------
    k : ndarray [n_k]
        1/nm.
    values, stderr : ndarray [n_k]
        mPa s.
    cutoffs : ndarray [n_k]
        Where the integrals end: between these times, ps, and twice as long.
    left_out : ndarray [n_blocks, n_k]
        The values with one block left out, for errors of what follows from them.
    cutoff_error : ndarray [n_k]
        The part of `stderr` that is owed to the cutoff.
    density : float
        Dalton/nm^3.
    """

    k: np.ndarray
    values: np.ndarray
    stderr: np.ndarray
    cutoffs: np.ndarray
    left_out: np.ndarray
    cutoff_error: np.ndarray
    density: float


def apparent_viscosity(found: Currents) -> ApparentViscosity:
    """Compute the shear viscosity at each wave vector from the decay of the transverse current.

    Raises
    ------
    Unmeasurable
        Frames are too far apart to follow the decay, or the trajectory is too short to see its end.

    Notes
    -----
    ``integral C_T dt = rho/(eta k^2)`` (B. J. Palmer, Phys. Rev. E 49, 359 (1994)), by a cubic
    spline through the normalised correlation. It has ended at the first time t from which to 2t
    its root mean square is that of its noise; the integral is the mean of the running one over
    that stretch. The error is that of a jackknife over blocks and, in quadrature, half of what the
    running integral still changes from t to 2t. Friction g on single beads adds rho g/k^2: that of
    a weak thermostat (0.1/ps) two per cent for water in a box of 2 nm, and more in a larger one.
    """
    c, noise = found.values("transverse"), found.stderr("transverse")
    if not np.isfinite(noise).all():
        raise Unmeasurable("the trajectory is too short for blocks of current correlations")
    for k, one in zip(found.k, c):
        if one[1] < RESOLVED:
            raise Unmeasurable(
                f"frames are {1e3 * found.lags[1]:g} fs apart, by when the "
                f"transverse current at {k:.3g}/nm has fallen to {one[1]:.2f} of "
                "its start: too long to follow its decay"
            )
    ends: list[int] = []
    for k, one, deviation in zip(found.k, c, noise):
        end = decayed(one, deviation)
        if end is None:
            raise Unmeasurable(
                f"the transverse current at {k:.3g}/nm has not decayed to its noise "
                f"within {found.lags[-1] / 2:.3g} ps; a longer trajectory shows "
                "later times, up to a twentieth of it"
            )
        ends.append(end)
    factor = MPA_S * found.density / found.k**2

    def running(blocks: Blocks = slice(None)):
        spline = CubicSpline(found.lags, found.values("transverse", blocks), axis=-1)
        return spline.antiderivative()(found.lags)

    def viscosities(blocks: Blocks = slice(None)):
        integrals = [one[end : 2 * end + 1].mean() for one, end in zip(running(blocks), ends)]
        return factor / np.array(integrals)

    values = viscosities()
    every = np.arange(found.n_blocks)
    left_out = np.array([viscosities(np.delete(every, i)) for i in every])
    spread = np.sqrt((found.n_blocks - 1) * left_out.var(axis=0))
    change = np.array([one[2 * end] - one[end] for one, end in zip(running(), ends)])
    cutoff_error = np.abs(change / 2 * values**2 / factor)
    return ApparentViscosity(
        found.k,
        values,
        np.hypot(spread, cutoff_error),
        found.lags[ends],
        left_out,
        cutoff_error,
        found.density,
    )


def decayed(c: np.ndarray, noise: np.ndarray, doubt: float = 2.0) -> int | None:
    """Return the number of the lag at which a correlation has decayed to its noise, or None.

    This is the first lag t for which the mean square between t and 2t is at most `doubt` times that of the noise.
    """
    square = np.concatenate([[0], np.cumsum(c**2)])
    chance = np.concatenate([[0], np.cumsum(noise**2)])
    first = np.arange(1, (len(c) - 1) // 2 + 1)
    ended = square[2 * first + 1] - square[first] <= doubt * (chance[2 * first + 1] - chance[first])
    return int(first[np.argmax(ended)]) if ended.any() else None


def damping(apparent: ApparentViscosity) -> tuple[float, float]:
    """Rate at which shear waves decay however long they are, and its standard error, 1/ps.

    Zero where momentum is conserved; the effective friction where that acts on single beads. It is
    the intercept of a line through the rates ``eta(k) k^2/rho`` over k^2, weighted by their errors.
    A viscosity that falls with k bends the line and adds to it, up to a fifth of the lowest rate.
    """
    rates = apparent.k**2 / (MPA_S * apparent.density)
    return _limit(apparent, lambda eta: eta * rates, rates)


def viscosity(apparent: ApparentViscosity) -> tuple[float, float]:
    """Extrapolate the shear viscosity to k = 0; return it and its standard error, mPa s.

    Raises
    ------
    Unmeasurable
        It has no limit, because `damping` is more than half, by two standard errors, of
        the rate at which the longest wave decays; or it is lost in its error.

    Notes
    -----
    ``eta(k) = eta/(1 + a k^2)``, a least-squares line through 1/eta(k) over k^2 weighted by the
    errors. The error adds, in quadrature, the difference from the other usual form,
    ``eta (1 - a k^2)`` (Palmer, 1994; B. Hess, J. Chem. Phys. 116, 209 (2002)), and the errors of
    the cutoffs.
    """
    eta, k = apparent.values, apparent.k
    rate, rate_error = damping(apparent)
    if rate - 2 * rate_error > eta[0] * k[0] ** 2 / (2 * MPA_S * apparent.density):
        raise Unmeasurable(
            f"shear waves of any length are damped at {rate:.3g}/ps, as by friction on single "
            "beads, so that the viscosity grows with the box and has no limit; it is "
            f"{eta[0]:.3g} mPa s for the longest wave in this one, {2 * np.pi / k[0]:.3g} nm"
        )
    fluidity, error = _limit(apparent, lambda eta: 1 / eta, -1 / eta**2)
    other, _ = _limit(apparent, lambda eta: eta, np.ones_like(eta))
    value, error = 1 / fluidity, np.hypot(error / fluidity**2, 1 / fluidity - other)
    if not 0 < 2 * error < value:
        raise Unmeasurable(
            "the trajectory is too short for a viscosity: its error is above half of it"
        )
    return value, float(error)


def _limit(apparent: ApparentViscosity, function: Callable, slope: np.ndarray):
    """Intercept of a weighted line through a function of the viscosities over k^2, and its error;
    `slope` is the function's derivative."""
    lines = np.stack([np.ones_like(apparent.k), apparent.k**2], 1)
    weight = 1 / (np.abs(slope) * apparent.stderr)
    share = np.linalg.pinv(lines * weight[:, None])[0] * weight
    by_block = function(apparent.left_out) @ share
    spread = np.sqrt((len(by_block) - 1) * by_block.var())
    cutoff = np.linalg.norm(share * slope * apparent.cutoff_error)
    return float(share @ function(apparent.values)), float(np.hypot(spread, cutoff))
