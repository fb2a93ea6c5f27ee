"""Discriminator of the motion of single beads: a perceptron of Gram-matrix features."""

from __future__ import annotations

import torch
from torch import Tensor

from .dynamics import lengths, pair_products


class GramDiscriminator(torch.nn.Module):
    """Discriminator with one logit for a bead's window.

    Its features are the scalar products of all pairs of increments, a complete set of invariants under rotation and
    reflection, and the lengths of the displacements since the first frame. Each is standardized by its all-atom mean
    and standard deviation.

    Parameters
    ----------
    scale : Tensor [n_types, lags, 2]
        Root mean square of the increment and of the displacement at each lag, for each bead type (nm).
    hidden : int
        Width of the two hidden layers.
    """

    scale: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self, scale: Tensor, hidden: int = 64):
        super().__init__()
        n_types, lags, _ = scale.shape
        features = lags * (lags + 1) // 2 + lags
        self.register_buffer("scale", scale.to(torch.get_default_dtype()))
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(features))
        self.first = torch.nn.Linear(features, hidden)
        self.type_embedding = torch.nn.Embedding(n_types, hidden)
        self.rest = torch.nn.Sequential(
            torch.nn.SiLU(),
            torch.nn.Linear(hidden, hidden),
            torch.nn.SiLU(),
            torch.nn.Linear(hidden, 1),
        )

    def standardize(self, frames: Tensor, types: Tensor) -> None:
        """Set mean and standard deviation of the features from all-atom windows."""
        tokens = self.tokens(frames, types)
        mean, deviation = tokens.mean(0), tokens.std(0)
        self.mean.add_(mean * self.deviation)
        self.deviation.mul_(deviation)

    def tokens(self, frames: Tensor, types: Tensor) -> Tensor:
        """Return standardized features [W, lags (lags + 3) / 2] of windows [W, lags + 1, 3] (nm)."""
        scale = self.scale[types]
        increments = (frames[:, 1:] - frames[:, :-1]).to(scale.dtype) / scale[:, :, :1]
        displacements = (frames[:, 1:] - frames[:, :1]).to(scale.dtype) / scale[:, :, 1:]
        return (
            torch.cat([pair_products(increments), lengths(displacements)], -1) - self.mean
        ) / self.deviation

    def forward(self, tokens: Tensor, types: Tensor) -> Tensor:
        """Return logits [W], positive for all-atom, of standardized features."""
        return self.rest(self.first(tokens) + self.type_embedding(types))[:, 0]
