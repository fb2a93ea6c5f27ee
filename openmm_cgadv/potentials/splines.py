"""Cubic B-splines on uniform knots that vanish to second order at the end of their range."""

import torch
from torch import Tensor


def spline_weights(r: Tensor, r_min: Tensor, r_max: float, n_basis: int) -> tuple[Tensor, Tensor]:
    """The four B-splines that are not zero at each distance.

    The interval width is ``h = (r_max − r_min) / n_basis``; function k is the cardinal cubic
    B-spline on the four intervals that end at ``r_min + (k + 1) h``. The three functions that would not
    vanish to second order at ``r_max`` are left out. Below ``r_min`` each function goes on linearly.

    Parameters
    ----------
    r : Tensor [M]
        Distances (nm), below ``r_max``.
    r_min : Tensor [M]
        Start of the range for each distance (nm).
    r_max : float
        End of the range (nm).
    n_basis : int
        Number of functions.

    Returns
    -------
    first : Tensor [M] of int64
        Index of the first of four consecutive functions; indices ``>= n_basis`` are zero functions.
    weights : Tensor [M, 4]
        Their values.
    """
    t = (r - r_min) * (n_basis / (r_max - r_min))
    first = t.detach().floor().clamp(0, n_basis - 1)
    f = torch.clamp(t, min=0.0) - first
    below = torch.clamp(t, max=0.0)
    g = 1.0 - f
    weights = torch.stack(
        [
            g * g * g / 6.0 - 0.5 * below,
            (3.0 * f * f * f - 6.0 * f * f + 4.0) / 6.0,
            (3.0 * g * g * g - 6.0 * g * g + 4.0) / 6.0 + 0.5 * below,
            f * f * f / 6.0,
        ],
        dim=-1,
    )
    return first.to(torch.int64), weights
