"""Tells trajectories apart by how a bead moves: the lengths and angles of its steps, in a perceptron."""

from __future__ import annotations

import torch
from torch import Tensor

from .dynamics import lengths, pair_products


class GramDiscriminator(torch.nn.Module):
    """One logit for a bead's window.

    It sees the scalar products of all pairs of increments, which say all that rotation and reflection leave
    unchanged, and the lengths of the displacements since the first frame. Each is standardized by its all-atom mean
    and deviation.

    Parameters
    ----------
    scale : Tensor [n_types, lags, 2]
        Root mean square of the increment and of the displacement at each lag, for each bead type (nm).
    hidden : int
        Width of the two hidden layers.
    """

    def __init__(self, scale: Tensor, hidden: int = 64):
        super().__init__()
        n_types, lags, _ = scale.shape
        features = lags * (lags + 1) // 2 + lags
        self.register_buffer("scale", scale.to(torch.get_default_dtype()))
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(features))
        self.first = torch.nn.Linear(features, hidden)
        self.kind = torch.nn.Embedding(n_types, hidden)
        self.rest = torch.nn.Sequential(
            torch.nn.SiLU(), torch.nn.Linear(hidden, hidden), torch.nn.SiLU(), torch.nn.Linear(hidden, 1)
        )

    def standardize(self, frames: Tensor, types: Tensor) -> None:
        """Set the units of the features from all-atom windows."""
        tokens = self.tokens(frames, types)
        mean, deviation = tokens.mean(0), tokens.std(0)
        self.mean.add_(mean * self.deviation)
        self.deviation.mul_(deviation)

    def tokens(self, frames: Tensor, types: Tensor) -> Tensor:
        """Standardized features [W, lags (lags + 3) / 2] of windows [W, lags + 1, 3] (nm) of beads."""
        scale = self.scale[types]
        increments = (frames[:, 1:] - frames[:, :-1]).to(scale.dtype) / scale[:, :, :1]
        displacements = (frames[:, 1:] - frames[:, :1]).to(scale.dtype) / scale[:, :, 1:]
        return (torch.cat([pair_products(increments), lengths(displacements)], -1) - self.mean) / self.deviation

    def forward(self, tokens: Tensor, types: Tensor) -> Tensor:
        """Logits [W], positive for all-atom, of features of beads."""
        return self.rest(self.first(tokens) + self.kind(types))[:, 0]
