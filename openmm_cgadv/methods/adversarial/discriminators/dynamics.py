"""Discriminator of the motion of single beads: equivariant tokens with attention over time."""

from __future__ import annotations

import torch
from torch import Tensor

from ....errors import InputError
from .channels import EquivariantLinear, Linear


class Invariants(torch.nn.Module):
    """Scalar products of two learned linear combinations of vectors."""

    def __init__(self, vectors: int, products: int):
        super().__init__()
        self.left = EquivariantLinear(f"{vectors}x1o", f"{products}x1o")
        self.right = EquivariantLinear(f"{vectors}x1o", f"{products}x1o")

    def forward(self, vectors: Tensor) -> Tensor:
        """Return scalars [products, ...] of vectors [vectors, 3, ...]."""
        (left,), (right,) = self.left(vectors), self.right(vectors)
        return (left * right).sum(1)


def perceptron(inputs: int, hidden: int, outputs: int) -> torch.nn.Sequential:
    """Return two linear layers with a SiLU activation in between."""
    return torch.nn.Sequential(Linear(inputs, hidden), torch.nn.SiLU(), Linear(hidden, outputs))


def lengths(vectors: Tensor, dim: int = -1) -> Tensor:
    """Return the lengths of vectors with components along `dim`, smoothed to be differentiable at zero."""
    return (vectors.square().sum(dim) + 1e-6).sqrt()


def pair_products(vectors: Tensor) -> Tensor:
    """Return the Gram matrix of vectors [W, n, 3] as its upper triangle [W, n (n + 1) / 2]."""
    row, column = torch.triu_indices(vectors.shape[1], vectors.shape[1])
    return (vectors @ vectors.mT)[:, row, column]


class IncrementProducts(torch.nn.Module):
    """Standardized Gram-matrix features of the increments of a window.

    Independent normal increments of mean square 1 have scalar products of variance 2/3 with themselves and of variance
    1/3 with each other.

    Parameters
    ----------
    tokens : int
        Number of increments.
    """

    mean: Tensor
    factor: Tensor

    def __init__(self, tokens: int):
        super().__init__()
        row, column = torch.triu_indices(tokens, tokens)
        same = (row == column).to(torch.get_default_dtype())
        self.number = len(row)
        self.register_buffer("mean", same)
        self.register_buffer("factor", ((1 + same) / 3).rsqrt())

    def forward(self, increments: Tensor) -> Tensor:
        """Return features [W, lags (lags + 1) / 2] of increments [W, lags, 3] of mean square 1."""
        return (pair_products(increments) - self.mean) * self.factor


class TimeAttention(torch.nn.Module):
    """Attention between the lags of a window, with invariant scores and equivariant values.

    A token attends to itself and to longer lags.

    Parameters
    ----------
    tokens, scalars, vectors, heads : int
        Number of lags, and widths as in :class:`LagsDiscriminator`.
    """

    hidden: Tensor

    def __init__(self, tokens: int, scalars: int, vectors: int, heads: int):
        super().__init__()
        self.heads = heads
        irreps = f"{scalars}x0e + {vectors}x1o"
        self.query, self.key, self.value, self.out = (
            EquivariantLinear(irreps, irreps) for _ in range(4)
        )
        self.bias = torch.nn.Parameter(torch.zeros(heads, tokens, tokens))
        self.register_buffer("hidden", torch.ones(tokens, tokens, dtype=torch.bool).tril(-1))

    def split(self, scalars: Tensor, vectors: Tensor) -> Tensor:
        """Return channels by head [heads, channels, lags, W] of scalars [S, lags, W] and vectors [V, 3, lags, W]."""
        return torch.cat(
            [x.unflatten(0, (self.heads, -1)).flatten(1, -3) for x in (scalars, vectors)], 1
        )

    def forward(self, scalars: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Return the updates of scalars [S, lags, W] and vectors [V, 3, lags, W]."""
        query, key, value = (
            self.split(*f(scalars, vectors)) for f in (self.query, self.key, self.value)
        )
        scores = (
            torch.einsum("hclw,hcmw->hlmw", query, key) / query.shape[1] ** 0.5
            + self.bias[..., None]
        )
        # Beads are contiguous in RAM, because softmax is slow on short rows.
        weights = scores.masked_fill(self.hidden[..., None], -torch.inf).contiguous().softmax(2)
        values = torch.einsum("hlmw,hcmw->hclw", weights, value)
        sizes = [len(scalars) // self.heads, 3 * len(vectors) // self.heads]
        scalars, vectors = values.split(sizes, 1)
        return self.out(scalars.flatten(0, 1), vectors.unflatten(1, (-1, 3)).flatten(0, 1))


class LagsDiscriminator(torch.nn.Module):
    """Discriminator with one logit for every lag of a bead's window, from scalars and vectors of each lag.

    A linear function of the Gram-matrix features of the bead's increments is added to every logit. For nearly Gaussian
    motion, as at long lags, and a nearly correct model, the logarithm of the likelihood ratio is linear in these
    features. Without this term, the network does not detect deviations of a few percent.

    Parameters
    ----------
    shape : (int, int)
        Number of bead types and of lags.
    inputs : (int, int)
        Scalars and vectors of each lag.
    scalars, vectors, heads : int
        Widths of the tokens, and heads of the attention. Both widths are multiples of the number of heads.
    attention : bool
        Whether lags attend to each other. Without it, the logit of a lag depends on that lag only.

    Raises
    ------
    InputError
        A width is not a multiple of the number of heads.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        inputs: tuple[int, int],
        scalars: int = 24,
        vectors: int = 8,
        heads: int = 2,
        attention: bool = True,
    ):
        super().__init__()
        if scalars % heads or vectors % heads:
            raise InputError(
                f"discriminator: found {scalars} scalars, {vectors} vectors, expected multiples of {heads} heads"
            )
        (n_types, tokens), (n_scalars, n_vectors) = shape, inputs
        self.norms = Linear(n_scalars, scalars)
        self.type_embedding = torch.nn.Embedding(n_types, scalars)
        self.lag = torch.nn.Parameter(0.1 * torch.randn(tokens, scalars))
        self.embed = EquivariantLinear(f"{n_vectors}x1o", f"{vectors}x1o")
        self.gate = torch.nn.Parameter(torch.ones(tokens, vectors, 1))
        self.invariants = Invariants(n_vectors, vectors)
        self.embed_invariants = perceptron(vectors, scalars, scalars)
        self.attention = TimeAttention(tokens, scalars, vectors, heads) if attention else None
        self.invariants_after = Invariants(vectors, vectors)
        self.update = perceptron(scalars + vectors, scalars, scalars)
        self.logit = perceptron(scalars, scalars, 1)
        self.products = IncrementProducts(tokens)
        self.weights = torch.nn.Linear(self.products.number, tokens)
        torch.nn.init.zeros_(self.weights.weight)

    def logits(self, scalars: Tensor, vectors: Tensor, increments: Tensor, types: Tensor) -> Tensor:
        """Return logits [W, lags], positive for all-atom.

        Parameters
        ----------
        scalars : Tensor [S, lags, W]
        vectors : Tensor [V, 3, lags, W]
        increments : Tensor [W, lags, 3]
            Scaled to a mean square of 1.
        types : Tensor [W]
            Bead types.
        """
        own = self.lag.T[..., None] + self.type_embedding(types).T[:, None]
        scalars = self.norms(scalars) + own + self.embed_invariants(self.invariants(vectors))
        vectors = self.embed(vectors)[0] * self.gate.permute(1, 2, 0)[..., None]
        if self.attention is not None:
            change = self.attention(scalars, vectors)
            scalars, vectors = scalars + change[0], vectors + change[1]
        scalars = scalars + self.update(torch.cat([scalars, self.invariants_after(vectors)]))
        return self.logit(scalars)[0].T + self.weights(self.products(increments))


class DynamicsDiscriminator(LagsDiscriminator):
    """Discriminator with one logit for every lag of a bead's window.

    Each lag is a token with two vectors: the increment since the previous frame and the displacement since the first
    frame, in units of their all-atom root mean square. The logits are invariant to translation, rotation and
    reflection, and to permutation because each bead is classified by itself.

    Parameters
    ----------
    scale : Tensor [n_types, lags, 2]
        Root mean square of the increment and of the displacement at each lag, for each bead type (nm).
    options
        Widths, heads and attention of :class:`LagsDiscriminator`.
    """

    scale: Tensor

    def __init__(self, scale: Tensor, **options):
        super().__init__((scale.shape[0], scale.shape[1]), (2, 2), **options)
        self.register_buffer("scale", scale.to(torch.get_default_dtype()))

    def tokens(self, frames: Tensor, types: Tensor) -> Tensor:
        """Return scaled increments and displacements [W, lags, 2, 3] of windows [W, lags + 1, 3] (nm)."""
        displacement = frames[:, 1:] - frames[:, :1]
        increment = frames[:, 1:] - frames[:, :-1]
        return (
            torch.stack([increment, displacement], 2).to(self.scale.dtype)
            / self.scale[types, :, :, None]
        )

    def forward(self, tokens: Tensor, types: Tensor) -> Tensor:
        """Return logits [W, lags], positive for all-atom, of tokens [W, lags, 2, 3]."""
        vectors = tokens.permute(2, 3, 1, 0).contiguous()
        return self.logits(lengths(vectors, 1), vectors, tokens[:, :, 0], types)
