"""Tells trajectories apart by how a bead moves: equivariant tokens with attention over time."""

from __future__ import annotations

import torch
from e3nn import o3
from torch import Tensor


class Invariants(torch.nn.Module):
    """Dot products of two learned mixtures of the vectors."""

    def __init__(self, vectors: int, products: int):
        super().__init__()
        self.left = o3.Linear(f"{vectors}x1o", f"{products}x1o")
        self.right = o3.Linear(f"{vectors}x1o", f"{products}x1o")

    def forward(self, vectors: Tensor) -> Tensor:
        return (self.left(vectors) * self.right(vectors)).unflatten(-1, (-1, 3)).sum(-1)


def perceptron(inputs: int, hidden: int, outputs: int) -> torch.nn.Sequential:
    """Two linear layers with SiLU between them."""
    return torch.nn.Sequential(
        torch.nn.Linear(inputs, hidden), torch.nn.SiLU(), torch.nn.Linear(hidden, outputs)
    )


class TimeAttention(torch.nn.Module):
    """Attention among the frames of a window, with invariant scores and equivariant values.

    A token sees itself and the longer lags, so the logit of the longest lag depends on it alone.
    """

    def __init__(self, tokens: int, scalars: int, vectors: int, heads: int):
        super().__init__()
        self.heads, self.scalars, self.vectors = heads, scalars, vectors
        irreps = o3.Irreps(f"{scalars}x0e + {vectors}x1o")
        self.query, self.key, self.value, self.out = (o3.Linear(irreps, irreps) for _ in range(4))
        self.bias = torch.nn.Parameter(torch.zeros(heads, tokens, tokens))
        self.register_buffer("hidden", torch.ones(tokens, tokens, dtype=torch.bool).tril(-1))

    def split(self, features: Tensor) -> Tensor:
        """[B, P, irreps] -> [B, heads, P, channels of one head]."""
        scalars, vectors = features.split([self.scalars, 3 * self.vectors], -1)
        shape = [*features.shape[:2], self.heads, -1]
        return torch.cat([scalars.reshape(shape), vectors.reshape(shape)], -1).transpose(1, 2)

    def join(self, features: Tensor) -> Tensor:
        """The inverse of :meth:`split`."""
        features = features.transpose(1, 2)
        scalars, vectors = features.split([self.scalars // self.heads, 3 * self.vectors // self.heads], -1)
        return torch.cat([scalars.flatten(-2), vectors.flatten(-2)], -1)

    def forward(self, features: Tensor) -> Tensor:
        query, key, value = (self.split(f(features)) for f in (self.query, self.key, self.value))
        scores = query @ key.mT / query.shape[-1] ** 0.5 + self.bias
        weights = scores.masked_fill(self.hidden, -torch.inf).softmax(-1)
        return self.out(self.join(weights @ value))


class DynamicsDiscriminator(torch.nn.Module):
    """One logit for every lag of a bead's window.

    Each lag is a token with two vectors: the displacement since the frame before and the displacement since
    the first frame, both in units of their all-atom root mean square. Translation drops out because
    displacements are differences; rotation and reflection act on the vectors and leave the logits; beads
    are judged one by one, so their order does not matter.

    Further vectors of the neighbourhood can be given to every token (``extra_vectors``). With friction on each
    bead by itself they must not be: a generator that cannot move neighbours together would bend its
    friction instead.

    Parameters
    ----------
    scale : Tensor [n_types, lags, 2]
        Root mean square of the increment and of the displacement at each lag, for each bead type (nm).
    scalars, vectors, heads : int
        Width of the tokens, and heads of the attention; both widths are multiples of the heads.
    attention : bool
        Without it every lag is judged alone.
    extra_vectors : int
        Number of further vectors a token.
    """

    def __init__(
        self, scale: Tensor, scalars: int = 24, vectors: int = 8, heads: int = 2, attention: bool = True,
        extra_vectors: int = 0,
    ):  # fmt: skip
        super().__init__()
        if scalars % heads or vectors % heads:
            raise ValueError(f"discriminator: found {scalars} scalars, {vectors} vectors, expected multiples of {heads} heads")
        (n_types, tokens, _), inputs = scale.shape, 2 + extra_vectors
        self.vectors, self.extra_vectors = vectors, extra_vectors
        self.register_buffer("scale", scale.to(torch.get_default_dtype()))
        self.norms = torch.nn.Linear(inputs, scalars)
        self.kind = torch.nn.Embedding(n_types, scalars)
        self.lag = torch.nn.Parameter(0.1 * torch.randn(tokens, scalars))
        self.embed = o3.Linear(f"{inputs}x1o", f"{vectors}x1o")
        self.gate = torch.nn.Parameter(torch.ones(tokens, vectors, 1))
        self.invariants = Invariants(inputs, vectors)
        self.embed_invariants = perceptron(vectors, scalars, scalars)
        self.attention = TimeAttention(tokens, scalars, vectors, heads) if attention else None
        self.invariants_after = Invariants(vectors, vectors)
        self.update = perceptron(scalars + vectors, scalars, scalars)
        self.logit = perceptron(scalars, scalars, 1)

    def tokens(self, frames: Tensor, types: Tensor) -> Tensor:
        """Scaled increments and displacements [W, lags, 2, 3] of windows [W, lags + 1, 3] (nm) of beads."""
        displacement = frames[:, 1:] - frames[:, :1]
        increment = frames[:, 1:] - frames[:, :-1]
        return torch.stack([increment, displacement], 2).to(self.scale.dtype) / self.scale[types, :, :, None]

    def forward(self, tokens: Tensor, types: Tensor) -> Tensor:
        """Logits [W, lags], positive for all-atom, of tokens [W, lags, 2 + extra_vectors, 3] of beads."""
        flat = tokens.flatten(-2)
        lengths = (tokens.square().sum(-1) + 1e-6).sqrt()
        scalars = self.norms(lengths) + self.lag + self.kind(types)[:, None] + self.embed_invariants(self.invariants(flat))
        vectors = (self.embed(flat).unflatten(-1, (self.vectors, 3)) * self.gate).flatten(-2)
        if self.attention is not None:
            change = self.attention(torch.cat([scalars, vectors], -1))
            scalars = scalars + change[..., : scalars.shape[-1]]
            vectors = vectors + change[..., scalars.shape[-1] :]
        scalars = scalars + self.update(torch.cat([scalars, self.invariants_after(vectors)], -1))
        return self.logit(scalars)[..., 0]
