"""How the beads of a window move together: displacements of its longest shear waves."""

from __future__ import annotations

import torch
from torch import Tensor

from .windows import Windows

KINDS = 3
"""Lengths of waves: those of the wave vectors (1 0 0), (1 1 0) and (1 1 1) of a cubic box."""

WAVES = 26
"""Waves of a system: two, of cosine and sine, for each of 13 wave vectors; those opposite to them are the same waves."""


def shear_waves(windows: Windows, masses: Tensor) -> tuple[Tensor, Tensor]:
    r"""Displacements of the longest shear waves, which motion of single beads says nothing of.

    For every wave vector k of the box,

        u(t) = √(2/Σ m_i²) Σ_i m_i (1 − k̂ k̂ᵀ) [x_i(t) − x_i(0)] cos k·x_i(0)

    and the same with the sine: a time integral of the transverse current. Where beads move independently, its mean square is
    two thirds of theirs. Gradients go to the displacements and not to the phases.

    Parameters
    ----------
    windows : Windows
        Of S systems.
    masses : Tensor [N]

    Returns
    -------
    Tensor [S · WAVES, lags + 1, 3]
        (nm)
    Tensor [S · WAVES] of int64
        Kinds of the waves, 0 to KINDS − 1.
    """
    x = windows.positions
    numbers = torch.cartesian_prod(*[torch.arange(-1, 2)] * 3)[WAVES // 2 + 1 :]
    k = 2 * torch.pi * numbers.to(x.dtype) @ torch.linalg.inv(windows.boxes).mT
    phase = torch.einsum("snc,skc->skn", x[:, 0].detach(), k)
    both = torch.stack([phase.cos(), phase.sin()], 2) * masses * (2 / masses.square().sum()).sqrt()
    u = torch.einsum("skpn,stnc->skptc", both, x - x[:, :1])
    unit = (k / k.norm(dim=-1, keepdim=True))[:, :, None, None]
    u = u - unit * (unit * u).sum(-1, keepdim=True)
    kinds = numbers.square().sum(1) - 1
    return u.flatten(0, 2), kinds[None, :, None].expand(u.shape[:3]).flatten()
