"""Radial functions of pairwise friction."""

from __future__ import annotations

import torch
from torch import Tensor

from ..potentials.splines import spline_weights


def functions_at(splines: Tensor, r_min: Tensor, r_cut: float, r: Tensor) -> Tensor:
    """Return f_k∥ and f_k⊥ [n_type_pairs, K + 1, 2, R] (ps^(−1/2), then 1/ps) at distances [R] (nm)."""
    pairs = torch.arange(len(r_min)).repeat_interleave(len(r))
    f = radial_functions(splines, pairs, r_min, r_cut, r.repeat(len(r_min)))
    return f.unflatten(0, [len(r_min), len(r)]).movedim(1, -1)


def slow_friction(
    splines: Tensor, memory: Tensor, r_min: Tensor, r_cut: float, r: Tensor
) -> Tensor:
    """Return ``f_0² + fᵀ A⁻¹ f`` parallel and perpendicular to a pair [n_type_pairs, 2, R] (1/ps) at distances [R] (nm)."""
    f = functions_at(splines, r_min, r_cut, r)
    return f[:, 0] ** 2 + torch.einsum(
        "pkdr,pkl,pldr->pdr", f[:, 1:], torch.linalg.inv(memory), f[:, 1:]
    )


def radial_functions(
    splines: Tensor, type_pairs: Tensor, r_min: Tensor, r_cut: float, r: Tensor
) -> Tensor:
    """Return the radial functions f_k of M pairs of beads.

    Parameters
    ----------
    splines : Tensor [n_type_pairs, K + 1, 2, n_basis]
        Spline coefficients (ps^(−1/2) for k = 0, otherwise 1/ps).
    type_pairs : Tensor [M] of int64
        Index of the pair of types of each pair of beads.
    r_min : Tensor [n_type_pairs]
        Start of the splines (nm).
    r_cut : float
        Cutoff (nm); functions are zero from it on.
    r : Tensor [M]
        Distances (nm).

    Returns
    -------
    Tensor [M, K + 1, 2]
        f_k parallel and perpendicular to the pair vector, in the units of ``splines``.
    """
    first, weights = spline_weights(r, r_min[type_pairs], r_cut, splines.shape[-1])
    padded = torch.nn.functional.pad(splines, [0, 3]).movedim(-1, 1)
    used = padded[type_pairs[:, None], first[:, None] + torch.arange(4, device=first.device)]
    values = (weights[:, :, None, None] * used).sum(1)
    return torch.where((r < r_cut)[:, None, None], values, torch.zeros_like(values))
