"""Self-diffusion coefficients from the slope of the mean squared displacement."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..units import CM2_PER_S
from .blocks import Unmeasurable, split_halves, standard_error
from .msd import Msd

FIT_START = 2.0
FIT_POINTS = 10


@dataclass(frozen=True)
class Diffusion:
    """Self-diffusion coefficient from the slope of the mean squared displacement.

    Attributes
    ----------
    value, stderr : float
        cm^2/s.
    by_type : dict
        ``{type name: (value, stderr)}``.
    fit_range : (float, float)
        Lags of the fit, ps.
    linearity, linearity_stderr : float
        Slope over the second half of the range divided by that over the first; 1 if diffusive.
    """

    value: float
    stderr: float
    by_type: dict[str, tuple[float, float]]
    fit_range: tuple[float, float]
    linearity: float
    linearity_stderr: float


def fit_range(length: float, frame_interval: float = 0.0) -> tuple[float, float]:
    """Range of lags, ps, from which diffusion is measured.

    From 2 ps, or one frame if that is longer, to ten times as long, but no further than a tenth of
    the trajectory, or twice the start, or three frames more, where a tenth is shorter.

    Raises
    ------
    Unmeasurable
        The trajectory is shorter than four times the least end.
    """
    begin = max(FIT_START, frame_interval)
    least = max(2 * begin, begin + 3 * frame_interval)
    end = min(10 * begin, max(length / 10, least))
    if end > length / 4 * (1 + 1e-9):
        raise Unmeasurable(
            f"diffusion is fitted from {begin:g} to at least {least:g} ps, "
            f"which needs {4 * least:g} ps of trajectory; this one has "
            f"{length:.3g} ps"
        )
    return begin, end


def fit_lags(frame_interval: float, within: tuple[float, float]) -> np.ndarray:
    """Evenly spaced lags, ps, whole numbers of frames, of a fit over a range."""
    frames = np.unique(np.rint(np.linspace(*within, FIT_POINTS) / frame_interval).astype(int))
    return frames[frames > 0] * frame_interval


def diffusion(displacements: Msd, within: tuple[float, float]) -> Diffusion:
    """Self-diffusion coefficient: a sixth of the slope of a straight line through the mean
    squared displacement.

    Parameters
    ----------
    displacements : Msd
        Its lags must hold at least four within the range.
    within : (float, float)
        Range of lags, ps.

    Raises
    ------
    Unmeasurable
        There are fewer lags in the range.

    Notes
    -----
    Einstein's relation; least squares, all lags weighted alike; no finite-size correction, which
    would be the same for two systems of the same size and viscosity. The standard error is that of
    the slopes of the blocks.
    """
    use = _within(displacements, within)
    lags = displacements.lags[use]
    if len(lags) < 4:
        raise Unmeasurable(
            f"only {len(lags)} lags lie between {within[0]:g} and {within[1]:g} ps, "
            "too few for a fit"
        )
    factor = displacements.overlap[use][-1]

    def fitted(kind: str | None = None):
        slopes = _slope(lags, displacements.by_block(kind)[:, use]) * CM2_PER_S / 6
        return float(slopes.mean()), float(standard_error(slopes) * factor)

    value, stderr = fitted()
    middle = len(lags) // 2
    curves = displacements.by_block()[:, use]
    early, late = (
        _slope(lags[part], curves[:, part])
        for part in (slice(None, middle + 1), slice(middle, None))
    )
    linearity = late.mean() / early.mean()
    spread = standard_error(late - linearity * early) * factor / abs(early.mean())
    return Diffusion(
        value,
        stderr,
        {name: fitted(name) for name in displacements.type_names},
        (float(lags[0]), float(lags[-1])),
        float(linearity),
        float(spread),
    )


def split_half_diffusion(displacements: Msd, within: tuple[float, float]) -> tuple[float, float]:
    """Return the diffusion coefficients, cm^2/s, of displacements that start in either half of a trajectory.

    Raises
    ------
    Unmeasurable
        There is only one block.
    """
    use = _within(displacements, within)
    first, second = (
        float(_slope(displacements.lags[use], displacements.values(part)[use]) * CM2_PER_S / 6)
        for part in split_halves(displacements.n_blocks)
    )
    return first, second


def _within(displacements: Msd, limits: tuple[float, float]):
    return (displacements.lags >= limits[0] - 1e-6) & (displacements.lags <= limits[1] + 1e-6)


def _slope(lags: np.ndarray, curves: np.ndarray):
    """Least-squares slopes [n] of curves [n, n_lags] over lags."""
    centred = lags - lags.mean()
    return curves @ centred / (centred @ centred)
