"""Shear viscosity from the autocorrelation of the stress (Green and Kubo)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.integrate import cumulative_trapezoid

from ..units import KB, MPA_S
from .blocks import Blocks, Unmeasurable, block_numbers, jackknife
from .sampling import LAG_SHARE
from .transverse_viscosity import decayed

LONGEST_LAG = 10.0
SHORTEST_LAG = 1.0
NOISE_FACTOR = 4.0
"""Twice that of currents: the noise of a single number's correlation is itself correlated."""
SYMMETRIC, ANTISYMMETRIC = 10, 6
"""In a liquid ``<sum_ab P_ab P_ab>`` of the symmetric, traceless part, and of the antisymmetric one,
is that many times the square of one of its components."""


@dataclass(frozen=True)
class GreenKuboViscosity:
    """Running Green-Kubo integral of the stress.

    Attributes
    ----------
    lags : ndarray [n_lags]
        ps, from 0.
    blocks : ndarray [n_blocks, n_lags]
        ``<P_xy(0) P_xy(t)>/(V kT)`` by block of time origins, mPa s/ps.
    cutoff : float
        The integral ends between this time, ps, and twice as long.
    value, stderr : float
        mPa s.
    """

    lags: np.ndarray
    blocks: np.ndarray
    cutoff: float
    value: float
    stderr: float

    def running(self, blocks: Blocks = slice(None)) -> np.ndarray:
        """Integral up to every lag [n_lags], mPa s."""
        return _running(self.lags, self.blocks[blocks])

    @property
    def running_stderr(self) -> np.ndarray:
        """Standard error of `running` [n_lags]."""
        return jackknife(self.running, len(self.blocks)) * np.ones(len(self.lags))


def green_kubo_viscosity(
    stress: np.ndarray, interval: float, volume: float, temperature: float
) -> GreenKuboViscosity:
    r"""Compute the shear viscosity from a time series of the stress.

    Parameters
    ----------
    stress : array [T, 3, 3]
        Volume times the momentum flux, kJ/mol: ``P_ab = sum_i m_i v_ia v_ib + sum_pairs r_a f_b``
        at each frame, with the forces of the potential; what friction and noise between beads hand
        over, averaged since the frame before, belongs to it.
    interval : float
        Time between frames, ps.
    volume : float
        nm^3.
    temperature : float
        K.

    Raises
    ------
    Unmeasurable
        The series is shorter than 10 ps, its frames are too far apart, or the correlation has not
        decayed.

    Notes
    -----
    ``eta = 1/(V kT) integral_0^inf <P_xy(0) P_xy(t)> dt`` (R. Kubo, J. Phys. Soc. Jpn. 12, 570
    (1957)), with the average over directions ``<P_ab P_ab>/10`` of the symmetric, traceless part
    (P. J. Daivis and D. J. Evans, J. Chem. Phys. 100, 541 (1994)), by the trapezoidal rule: its
    error is the stress's power at the frequency of the frames, nothing for conservative forces at
    20 fs.

    Friction across the line between two beads turns them: the stress is not symmetric then, and
    shear waves meet the sum of this viscosity and that of its antisymmetric part, ``<P_ab P_ab>/6``
    (S. R. de Groot and P. Mazur, Non-Equilibrium Thermodynamics, chapter XII). So does this
    function; other forces have no such part.

    Friction and noise between beads hand over momentum too. Two forms are equal: the integral of
    forward with time-reversed fluxes of conservative, memory and dissipative forces plus the
    viscosity at an instant, ``sum_pairs mu <r_y (T_0^2 r)_y>/V`` (M. H. Ernst and R. Brito, Phys.
    Rev. E 72, 061102 (2005)), and the integral of the whole flux with itself, random forces
    included, whose delta function is half inside (G. Jung and F. Schmid, J. Chem. Phys. 144, 204104
    (2016)). This is the second one: of an average over the time d between frames the random part
    has the variance ``2 V kT eta_0/d``, of which the trapezoidal rule takes half of d. It holds at
    any time step, because it is Helfand's moment written out, and for any memory.

    Friction on single beads does not conserve momentum: the integral is then what the beads'
    exchange adds to the decay of shear waves, ``gamma + eta k^2/rho``, and no flow has it.

    The integral's end and its error are found as in `collective.apparent_viscosity`, but that it
    goes on for twice as long: what is left of a liquid's stress when it sinks into the noise is a
    small part of the correlation and some per cent of the integral.
    """
    stress = np.asarray(stress, float)
    n = len(stress)
    reach = int(min(LONGEST_LAG, n * interval * LAG_SHARE) / interval + 1e-6)
    if reach < 4 or reach * interval < SHORTEST_LAG * (1 - 1e-6):
        raise Unmeasurable(
            f"the stress correlation needs {SHORTEST_LAG / LAG_SHARE:g} ps of "
            f"trajectory; this one has {max(n - 1, 0) * interval:.3g} ps"
        )
    free = stress - np.trace(stress, axis1=1, axis2=2)[:, None, None] / 3 * np.eye(3)
    turned = free.swapaxes(1, 2)
    free = np.concatenate(
        [(free + turned) / (2 * SYMMETRIC**0.5), (free - turned) / (2 * ANTISYMMETRIC**0.5)], axis=1
    ).reshape(n, 18)
    block = block_numbers(n - reach)
    sums = []
    for b in range(block[-1] + 1):
        first, last = np.searchsorted(block, [b, b + 1])
        sums.append(_correlate(free[first : last + reach], last - first, reach))
    blocks = np.array(sums) * (MPA_S / (volume * KB * temperature))
    if len(blocks) < 2:
        raise Unmeasurable("the trajectory is too short for blocks of stress correlations")
    lags = interval * np.arange(reach + 1)

    def correlation(kept: Blocks = slice(None)):
        mean = blocks[kept].mean(0)
        return mean / mean[0]

    half = slice(reach // 2 + 1)
    end = decayed(
        correlation()[half], np.asarray(jackknife(correlation, len(blocks)))[half], NOISE_FACTOR
    )
    if end is None:
        raise Unmeasurable(
            f"the stress correlation has not decayed to its noise within "
            f"{lags[half][-1] / 2:.3g} ps"
        )
    end *= 2

    def integral(kept: Blocks = slice(None)):
        return _running(lags, blocks[kept])[end : 2 * end + 1].mean()

    whole = _running(lags, blocks)
    error = np.hypot(jackknife(integral, len(blocks)), (whole[2 * end] - whole[end]) / 2)
    return GreenKuboViscosity(lags, blocks, float(lags[end]), float(integral()), float(error))


def _running(lags: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    return cumulative_trapezoid(blocks.mean(0), lags, initial=0.0)


def _correlate(series: np.ndarray, n: int, reach: int):
    """Means over the first n frames [reach + 1] of products with those up to `reach` later."""
    size = 1 << int(np.ceil(np.log2(len(series))))
    late = np.fft.rfft(series, size, axis=0)
    early = np.fft.rfft(series[:n], size, axis=0)
    return np.fft.irfft((early.conj() * late).sum(1), size)[: reach + 1] / n
