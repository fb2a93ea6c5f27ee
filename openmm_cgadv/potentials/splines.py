"""Cubic B-splines on uniform knots that vanish to second order at the cutoff."""

import numpy as np
import openmm
import torch
from torch import Tensor

KNOTS_BELOW = 30
"""Additional knots below r_min of a tabulated spline. The boundary condition of OpenMM at the first knot decays by a
factor of 0.27 per knot, to rounding after 30. A numerical constant: fewer knots make the table inexact."""


def spline_weights(r: Tensor, r_min: Tensor, r_max: float, n_basis: int) -> tuple[Tensor, Tensor]:
    """Return the four non-zero B-splines at each distance.

    The interval width is ``h = (r_max − r_min) / n_basis``; function k is the cardinal cubic
    B-spline on the four intervals that end at ``r_min + (k + 1) h``. The three functions that would not
    vanish to second order at ``r_max`` are excluded. Below ``r_min`` each function continues linearly.

    Parameters
    ----------
    r : Tensor [M]
        Distances (nm), below ``r_max``.
    r_min : Tensor [M]
        First knot for each distance (nm).
    r_max : float
        Cutoff (nm).
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


def spline_basis(r: Tensor, r_min: float, r_max: float, n_basis: int) -> Tensor:
    """Return the values of all functions of :func:`spline_weights` [M, n_basis] at distances [M] (nm)."""
    first, weights = spline_weights(r, torch.full_like(r, r_min), r_max, n_basis)
    values = torch.zeros([len(r), n_basis + 3], dtype=weights.dtype)
    return values.scatter(1, first[:, None] + torch.arange(4), weights)[:, :n_basis]


def tabulated_spline(
    coefficients: np.ndarray, r_min: float, r_cut: float
) -> tuple[openmm.Continuous1DFunction, float]:
    """Return a spline as a tabulated function of OpenMM, and its slope at ``r_min``.

    OpenMM's tabulated functions are cubic splines through the tabulated values. With the values of a sum of cubic
    B-splines at its knots they are the same function, to rounding.

    Parameters
    ----------
    coefficients : ndarray [n_basis]
        (kJ/mol)
    r_min, r_cut : float
        First knot and cutoff (nm).
    """
    n = len(coefficients)
    h = (r_cut - r_min) / n
    knots = np.linspace(r_min, r_cut, n + 1)
    first, weights = spline_weights(
        torch.as_tensor(knots), torch.full([n + 1], r_min, dtype=torch.float64), r_cut, n
    )
    padded = np.concatenate([coefficients, np.zeros(4)])
    values = (weights.numpy() * padded[first.numpy()[:, None] + np.arange(4)]).sum(1)
    a, b, c, d = padded[:4]
    # Extrapolate the first cubic piece below its interval.
    t = np.arange(-KNOTS_BELOW, 0)
    below = (
        a * (1 - t) ** 3
        + b * (3 * t**3 - 6 * t**2 + 4)
        + c * (-3 * t**3 + 3 * t**2 + 3 * t + 1)
        + d * t**3
    ) / 6
    table = openmm.Continuous1DFunction(
        np.concatenate([below, values]), r_min - KNOTS_BELOW * h, r_cut
    )
    return table, float((c - a) / (2 * h))
