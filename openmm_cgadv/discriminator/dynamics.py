"""Tells trajectories apart by how a bead moves: equivariant tokens with attention over time."""

from __future__ import annotations

import torch
from torch import Tensor

from .channels import EquivariantLinear, Linear


class Invariants(torch.nn.Module):
    """Dot products [products, ...] of two learned mixtures of vectors [vectors, 3, ...]."""

    def __init__(self, vectors: int, products: int):
        super().__init__()
        self.left = EquivariantLinear(f"{vectors}x1o", f"{products}x1o")
        self.right = EquivariantLinear(f"{vectors}x1o", f"{products}x1o")

    def forward(self, vectors: Tensor) -> Tensor:
        (left,), (right,) = self.left(vectors), self.right(vectors)
        return (left * right).sum(1)


def perceptron(inputs: int, hidden: int, outputs: int) -> torch.nn.Sequential:
    """Two linear layers with SiLU between them."""
    return torch.nn.Sequential(Linear(inputs, hidden), torch.nn.SiLU(), Linear(hidden, outputs))


def lengths(vectors: Tensor, dim: int = -1) -> Tensor:
    """Lengths of vectors whose components are along ``dim``, with a gradient everywhere."""
    return (vectors.square().sum(dim) + 1e-6).sqrt()


def pair_products(vectors: Tensor) -> Tensor:
    """Scalar products [W, n (n + 1) / 2] of all pairs of vectors [W, n, 3], of each with itself among them."""
    row, column = torch.triu_indices(vectors.shape[1], vectors.shape[1])
    return (vectors @ vectors.mT)[:, row, column]


class IncrementProducts(torch.nn.Module):
    """Scalar products of all pairs of increments of a window, in units of what chance makes of them.

    Increments of mean square 1 that are normal and independent have products of variance 2/3 with themselves and 1/3 with
    each other.
    """

    def __init__(self, tokens: int):
        super().__init__()
        row, column = torch.triu_indices(tokens, tokens)
        same = (row == column).to(torch.get_default_dtype())
        self.number = len(row)
        self.register_buffer("mean", same)
        self.register_buffer("factor", ((1 + same) / 3).rsqrt())

    def forward(self, increments: Tensor) -> Tensor:
        """[W, lags, 3] -> [W, lags (lags + 1) / 2]"""
        return (pair_products(increments) - self.mean) * self.factor


class TimeAttention(torch.nn.Module):
    """Attention among the frames of a window, with invariant scores and equivariant values.

    A token sees itself and the longer lags.
    """

    def __init__(self, tokens: int, scalars: int, vectors: int, heads: int):
        super().__init__()
        self.heads = heads
        irreps = f"{scalars}x0e + {vectors}x1o"
        self.query, self.key, self.value, self.out = (EquivariantLinear(irreps, irreps) for _ in range(4))
        self.bias = torch.nn.Parameter(torch.zeros(heads, tokens, tokens))
        self.register_buffer("hidden", torch.ones(tokens, tokens, dtype=torch.bool).tril(-1))

    def split(self, scalars: Tensor, vectors: Tensor) -> Tensor:
        """[scalars, lags, W], [vectors, 3, lags, W] -> [heads, channels of one head, lags, W]."""
        return torch.cat([x.unflatten(0, (self.heads, -1)).flatten(1, -3) for x in (scalars, vectors)], 1)

    def forward(self, scalars: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        query, key, value = (self.split(*f(scalars, vectors)) for f in (self.query, self.key, self.value))
        scores = torch.einsum("hclw,hcmw->hlmw", query, key) / query.shape[1] ** 0.5 + self.bias[..., None]
        # Beads are last in memory, too: softmax is slow on short rows.
        weights = scores.masked_fill(self.hidden[..., None], -torch.inf).contiguous().softmax(2)
        seen = torch.einsum("hlmw,hcmw->hclw", weights, value)
        numbers, arrows = seen.split([len(scalars) // self.heads, 3 * len(vectors) // self.heads], 1)
        return self.out(numbers.flatten(0, 1), arrows.unflatten(1, (-1, 3)).flatten(0, 1))


class LagsDiscriminator(torch.nn.Module):
    """One logit for every lag of a bead's window, of scalars and vectors that each lag is described by.

    To every logit the products of all increments of the bead are added, each with a weight. Where motion is nearly normal,
    as at long lags, and the model nearly right, the logarithm of the likelihood ratio is linear in them; without this term
    the rest has to find deviations of a few per cent in its own noise, and leaves them.

    Parameters
    ----------
    shape : (int, int)
        Number of bead types and of lags.
    inputs : (int, int)
        Scalars and vectors of each lag.
    scalars, vectors, heads : int
        Width of the tokens, and heads of the attention; both widths are multiples of the heads.
    attention : bool
        Without it every lag is judged alone.
    """

    def __init__(
        self, shape: tuple[int, int], inputs: tuple[int, int], scalars: int = 24, vectors: int = 8, heads: int = 2,
        attention: bool = True,
    ):  # fmt: skip
        super().__init__()
        if scalars % heads or vectors % heads:
            raise ValueError(f"discriminator: found {scalars} scalars, {vectors} vectors, expected multiples of {heads} heads")
        (n_types, tokens), (numbers, arrows) = shape, inputs
        self.norms = Linear(numbers, scalars)
        self.kind = torch.nn.Embedding(n_types, scalars)
        self.lag = torch.nn.Parameter(0.1 * torch.randn(tokens, scalars))
        self.embed = EquivariantLinear(f"{arrows}x1o", f"{vectors}x1o")
        self.gate = torch.nn.Parameter(torch.ones(tokens, vectors, 1))
        self.invariants = Invariants(arrows, vectors)
        self.embed_invariants = perceptron(vectors, scalars, scalars)
        self.attention = TimeAttention(tokens, scalars, vectors, heads) if attention else None
        self.invariants_after = Invariants(vectors, vectors)
        self.update = perceptron(scalars + vectors, scalars, scalars)
        self.logit = perceptron(scalars, scalars, 1)
        self.products = IncrementProducts(tokens)
        self.weights = torch.nn.Linear(self.products.number, tokens)
        torch.nn.init.zeros_(self.weights.weight)

    def judge(self, numbers: Tensor, arrows: Tensor, increments: Tensor, types: Tensor) -> Tensor:
        """Logits [W, lags], positive for all-atom, of scalars [S, lags, W] and vectors [V, 3, lags, W] of beads and of their
        increments [W, lags, 3], whose mean square is 1."""
        own = self.lag.T[..., None] + self.kind(types).T[:, None]
        scalars = self.norms(numbers) + own + self.embed_invariants(self.invariants(arrows))
        vectors = self.embed(arrows)[0] * self.gate.permute(1, 2, 0)[..., None]
        if self.attention is not None:
            change = self.attention(scalars, vectors)
            scalars, vectors = scalars + change[0], vectors + change[1]
        scalars = scalars + self.update(torch.cat([scalars, self.invariants_after(vectors)]))
        return self.logit(scalars)[0].T + self.weights(self.products(increments))


class DynamicsDiscriminator(LagsDiscriminator):
    """One logit for every lag of a bead's window.

    Each lag is a token with two vectors: the displacement since the frame before and the displacement since
    the first frame, both in units of their all-atom root mean square. Translation drops out because
    displacements are differences; rotation and reflection act on the vectors and leave the logits; beads
    are judged one by one, so their order does not matter.

    Parameters
    ----------
    scale : Tensor [n_types, lags, 2]
        Root mean square of the increment and of the displacement at each lag, for each bead type (nm).
    options
        Widths, heads and attention of :class:`LagsDiscriminator`.
    """

    def __init__(self, scale: Tensor, **options):
        super().__init__(scale.shape[:2], (2, 2), **options)
        self.register_buffer("scale", scale.to(torch.get_default_dtype()))

    def tokens(self, frames: Tensor, types: Tensor) -> Tensor:
        """Scaled increments and displacements [W, lags, 2, 3] of windows [W, lags + 1, 3] (nm) of beads."""
        displacement = frames[:, 1:] - frames[:, :1]
        increment = frames[:, 1:] - frames[:, :-1]
        return torch.stack([increment, displacement], 2).to(self.scale.dtype) / self.scale[types, :, :, None]

    def forward(self, tokens: Tensor, types: Tensor) -> Tensor:
        """Logits [W, lags], positive for all-atom, of tokens [W, lags, 2, 3] of beads."""
        arrows = tokens.permute(2, 3, 1, 0).contiguous()
        return self.judge(lengths(arrows, 1), arrows, tokens[:, :, 0], types)
