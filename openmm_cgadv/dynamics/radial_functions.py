"""Functions of the distance of two beads, by which friction acts between them."""

from __future__ import annotations

import torch
from torch import Tensor

from ..potentials.splines import spline_weights


def functions_at(splines: Tensor, r_min: Tensor, r_cut: float, r: Tensor) -> Tensor:
    """Return f_k∥ and f_k⊥ of all pairs of types [n_type_pairs, K + 1, 2, R] at distances [R] (nm)."""
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
    splines: Tensor, kinds: Tensor, r_min: Tensor, r_cut: float, r: Tensor
) -> Tensor:
    """Return the values of the functions of M pairs of beads.

    Parameters
    ----------
    splines : Tensor [n_type_pairs, K + 1, 2, n_basis]
    kinds : Tensor [M] of int64
        Pair of types of each.
    r_min : Tensor [n_type_pairs]
        (nm)
    r_cut : float
        (nm)
    r : Tensor [M]
        Distances (nm); functions are zero from ``r_cut`` on.

    Returns
    -------
    Tensor [M, K + 1, 2]
        Parallel and perpendicular.
    """
    first, weights = spline_weights(r, r_min[kinds], r_cut, splines.shape[-1])
    padded = torch.nn.functional.pad(splines, [0, 3]).movedim(-1, 1)
    used = padded[kinds[:, None], first[:, None] + torch.arange(4, device=first.device)]
    values = (weights[:, :, None, None] * used).sum(1)
    return torch.where((r < r_cut)[:, None, None], values, torch.zeros_like(values))
