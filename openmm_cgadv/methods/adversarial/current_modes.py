"""Transverse displacements of a system's longest wave vectors, a measure of the collective motion of beads."""

from __future__ import annotations

import torch
from torch import Tensor

from .windows import Windows

MODE_TYPES = 3
"""Lengths of the wave vectors (1 0 0), (1 1 0) and (1 1 1) of a cubic box."""

MODES = 26
"""Modes of a system: a cosine and a sine for each of 13 wave vectors. Opposite wave vectors give the same modes."""


def transverse_displacements(windows: Windows, masses: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return the displacements of the longest transverse modes.

    For every wave vector k of the box,

        u(t) = √(2/Σ m_i²) Σ_i m_i (1 − k̂ k̂ᵀ) [x_i(t) − x_i(0)] cos k·x_i(0)

    and the same with the sine: a time integral of the transverse current (Hansen and McDonald, Theory of Simple
    Liquids, chapter 8). If beads move independently, its mean square is two thirds of theirs. Gradients pass through
    the displacements, not through the phases.

    Parameters
    ----------
    windows : Windows
        Windows of S systems.
    masses : Tensor [N]
        (Da)

    Returns
    -------
    Tensor [S · MODES, lags + 1, 3]
        Displacements (nm).
    Tensor [S · MODES] of int64
        Types of the modes, 0 to MODE_TYPES − 1, by the length of the wave vector.
    """
    x = windows.positions
    numbers = torch.cartesian_prod(*[torch.arange(-1, 2)] * 3)[MODES // 2 + 1 :]
    k = 2 * torch.pi * numbers.to(x.dtype) @ torch.linalg.inv(windows.boxes).mT
    phase = torch.einsum("snc,skc->skn", x[:, 0].detach(), k)
    both = torch.stack([phase.cos(), phase.sin()], 2) * masses * (2 / masses.square().sum()).sqrt()
    u = torch.einsum("skpn,stnc->skptc", both, x - x[:, :1])
    unit = (k / k.norm(dim=-1, keepdim=True))[:, :, None, None]
    u = u - unit * (unit * u).sum(-1, keepdim=True)
    types = numbers.square().sum(1) - 1
    return u.flatten(0, 2), types[None, :, None].expand(u.shape[:3]).flatten()
