"""Neighbour pairs in a periodic, possibly triclinic box, at a cost linear in the number of beads."""

import torch
from torch import Tensor


def minimum_image(d: Tensor, box: Tensor) -> Tensor:
    """Return the nearest periodic image of each displacement.

    Parameters
    ----------
    d : Tensor [..., 3]
        Displacements (nm).
    box : Tensor [3, 3]
        Box vectors in rows, in OpenMM's reduced form (nm).
    """
    d = d - torch.round(d[..., 2:3] / box[2, 2]).detach() * box[2]
    d = d - torch.round(d[..., 1:2] / box[1, 1]).detach() * box[1]
    d = d - torch.round(d[..., 0:1] / box[0, 0]).detach() * box[0]
    return d


def _candidate_pairs(
    positions: Tensor, box: Tensor, cutoff: float, all_pairs_below: int = 1000
) -> Tensor:
    """Return pairs [2, M] with i < j that include all pairs inside the cutoff.

    Up to ``all_pairs_below`` beads, all pairs are faster than a cell list.
    """
    n = positions.shape[0]
    device = positions.device
    # A box in reduced form is lower triangular, so the inverse's columns give the heights.
    inverse = torch.linalg.inv(box)
    heights = 1.0 / torch.linalg.vector_norm(inverse, dim=0)
    cells = torch.floor(heights / cutoff).to(torch.int64)
    if n <= all_pairs_below or bool((cells < 3).any()):
        return torch.triu_indices(n, n, 1, device=device)

    fraction = positions @ inverse
    fraction = fraction - torch.floor(fraction)
    index = torch.minimum((fraction * cells).to(torch.int64), cells - 1)
    strides = torch.stack([cells[1] * cells[2], cells[2], torch.ones_like(cells[2])])
    flat = (index * strides).sum(-1)
    n_cells = int(cells.prod())
    counts = torch.bincount(flat, minlength=n_cells)
    capacity = int(counts.max())
    order = torch.argsort(flat)
    start = torch.cumsum(counts, 0) - counts
    table = torch.full([n_cells, capacity], -1, dtype=torch.int64, device=device)
    table[flat[order], torch.arange(n, device=device) - start[flat[order]]] = order

    step = torch.arange(-1, 2, device=device)
    steps = torch.cartesian_prod(step, step, step)
    around = torch.remainder(index[:, None, :] + steps[None, :, :], cells)
    candidates = table[(around * strides).sum(-1)].reshape(n, -1)
    i = torch.arange(n, device=device)[:, None].expand_as(candidates)
    keep = candidates > i
    return torch.stack([i[keep], candidates[keep]])


def neighbor_pairs(
    positions: Tensor, box: Tensor, cutoff: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return every pair of beads closer than the cutoff, once.

    Parameters
    ----------
    positions : Tensor [N, 3]
        Bead positions (nm), in any periodic image.
    box : Tensor [3, 3]
        Box vectors in rows, in OpenMM's reduced form (nm). Each height must be at least twice the cutoff.
    cutoff : float
        (nm)

    Returns
    -------
    i, j : Tensor [M] of int64
    displacement : Tensor [M, 3]
        Minimum image of ``positions[j] − positions[i]``, differentiable.
    distance : Tensor [M]
        Length of the displacement (nm); 0 with a zero gradient for coinciding beads.
    """
    pairs = _candidate_pairs(positions.detach(), box.detach(), cutoff)
    d = minimum_image(positions.detach()[pairs[1]] - positions.detach()[pairs[0]], box.detach())
    pairs = pairs[:, (d * d).sum(-1) < cutoff * cutoff]
    i, j = pairs[0], pairs[1]
    d = minimum_image(positions[j] - positions[i], box)
    square = (d * d).sum(-1)
    apart = square > 0.0
    r = torch.where(
        apart, torch.where(apart, square, torch.ones_like(square)).sqrt(), torch.zeros_like(square)
    )
    return i, j, d, r
