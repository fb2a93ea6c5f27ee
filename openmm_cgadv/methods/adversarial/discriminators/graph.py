"""Discriminator of the motion of a bead relative to its neighbours: an equivariant graph of every frame."""

from __future__ import annotations

import torch
from torch import Tensor

from ....potentials.splines import spline_weights
from .dynamics import LagsDiscriminator, lengths

SCALARS, VECTORS = 3, 5
"""Scalars and vectors of a message, for every radial function and type of neighbour."""


class GraphDiscriminator(LagsDiscriminator):
    r"""Discriminator with one logit for every lag of a bead's window, which observes the motion of neighbours.

    In every frame, edges connect a bead to its neighbours within the cutoff. An edge to j carries the distance r and
    unit vector r̂ in that frame, and the relative displacements δ_1 since the previous frame and δ_2 since the first
    one. The message that a bead receives is

        Σ_j R_n(r) {1, r̂·δ_1, r̂·δ_2 | r̂, δ_1, δ_2, (r̂·δ_1) r̂, (r̂·δ_2) r̂},

    scalars and vectors, one set for each radial function R_n and type of neighbour. Together with the two vectors of
    the bead's own motion, the message is the token of that lag, standardized by its all-atom mean and standard
    deviation. The R_n are fixed splines and are mixed after the sum, so that the sums are computed once a window.

    Gradients pass through the δ only. The arrangement of neighbours depends on the potential, not on the friction, but
    the damped adjoint would give the friction a spurious gradient through it.

    The logits are invariant to translation, rotation, reflection, permutation of like beads, and the choice of periodic
    images.

    Parameters
    ----------
    scale : Tensor [n_types, lags, 2]
        Root mean square of the increment and of the displacement at each lag, for each bead type (nm).
    r_min, r_cut : float
        Shortest distance and cutoff of the radial functions (nm).
    n_radial : int
        Number of radial functions.
    least_deviation : float
        Smallest standard deviation of a radial function's messages, relative to the largest over the radial functions.
        It limits the messages of contacts that are rare in the reference.
    options
        Widths, heads and attention of :class:`LagsDiscriminator`.
    """

    scale: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        scale: Tensor,
        r_min: float,
        r_cut: float,
        n_radial: int = 5,
        least_deviation: float = 0.1,
        **options,
    ):
        n_types, lags, _ = scale.shape
        channels = n_types * n_radial
        n_scalars, n_vectors = SCALARS * channels, 2 + VECTORS * channels
        super().__init__((n_types, lags), (n_scalars + n_vectors, n_vectors), **options)
        self.n_scalars, self.least_deviation = n_scalars, least_deviation
        self.n_types, self.r_min, self.r_cut, self.n_radial = (
            n_types,
            float(r_min),
            float(r_cut),
            n_radial,
        )
        self.register_buffer("scale", scale.to(torch.get_default_dtype()))
        self.register_buffer("mean", torch.zeros(lags, n_scalars + 3 * n_vectors))
        self.register_buffer("deviation", torch.ones(lags, n_scalars + 3 * n_vectors))

    def standardize(self, positions: Tensor, boxes: Tensor, types: Tensor, beads: Tensor) -> None:
        """Set mean and standard deviation of the tokens from all-atom windows; see :meth:`tokens`."""
        tokens = self.tokens(positions, boxes, types, beads)
        scalars, vectors = tokens.split([self.n_scalars, tokens.shape[-1] - self.n_scalars], -1)
        sizes = (
            vectors.unflatten(-1, (-1, 3)).square().mean([0, -1]).sqrt().repeat_interleave(3, -1)
        )
        found = torch.cat([scalars.std(0), sizes], -1) * self.deviation
        for start, width in ((0, SCALARS), (self.n_scalars + 6, 3 * VECTORS)):
            some = found[:, start:][:, : self.n_scalars // SCALARS * width].unflatten(
                -1, (-1, width)
            )
            some.copy_(torch.maximum(some, self.least_deviation * some.amax(1, keepdim=True)))
        self.mean[:, : self.n_scalars] += scalars.mean(0) * self.deviation[:, : self.n_scalars]
        self.deviation.copy_(torch.where(found > 0, found, 1.0))

    def neighbors(self, positions: Tensor, boxes: Tensor, beads: Tensor) -> Tensor:
        """Return the nearest beads [S, frames, M, k] of beads [S, M], at least all within the cutoff.

        Beads beyond the cutoff are included where another bead has more neighbours.
        """
        fractions = positions @ torch.linalg.inv(boxes)[:, None]
        fractions = (fractions - fractions.floor()).float().mT.contiguous()
        square = torch.stack(
            [
                torch.stack([_squared_distances(frame, box, some) for frame in frames])
                for frames, box, some in zip(fractions, boxes.float(), beads)
            ]
        )
        most = int((square < (1.000001 * self.r_cut) ** 2).sum(-1).max())
        return square.topk(most, largest=False, sorted=False).indices

    def messages(self, positions: Tensor, boxes: Tensor, types: Tensor, beads: Tensor) -> Tensor:
        """Return sums over edges [S, lags, M, n_types · n_radial, SCALARS + 3 VECTORS]; see :meth:`tokens`."""
        now = positions[:, 1:]
        near = self.neighbors(now.detach(), boxes, beads)
        moved = torch.stack([now - positions[:, :-1], now - positions[:, :1]], 3)
        system, frame = (
            torch.arange(len(now))[:, None, None, None],
            torch.arange(now.shape[1])[:, None, None],
        )
        one = beads[:, None, :, None]
        apart = (now[system, frame, near] - now[system, frame, one]) @ torch.linalg.inv(boxes)[
            :, None, None
        ]
        # No gradient passes through the arrangement of neighbours, see above.
        apart = ((apart - apart.round()) @ boxes[:, None, None]).detach()
        r = apart.square().sum(-1).sqrt()
        unit = apart / r[..., None]
        delta = moved[system, frame, near] - moved[system, frame, one]
        along = (delta * unit[..., None, :]).sum(-1)
        edges = torch.cat(
            [
                torch.ones_like(r)[..., None],
                along,
                unit,
                delta.flatten(-2),
                (along[..., None] * unit[..., None, :]).flatten(-2),
            ],
            -1,
        )
        inside = r < self.r_cut
        first, weights = spline_weights(
            r.where(inside, self.r_cut).flatten(),
            r.new_full([r.numel()], self.r_min),
            self.r_cut,
            self.n_radial,
        )
        place = first[:, None] + torch.arange(4)
        radial = r.new_zeros([r.numel(), self.n_radial + 3]).scatter(1, place, weights)[
            :, : self.n_radial
        ]
        radial = radial.unflatten(0, r.shape) * inside[..., None]
        one_hot = torch.nn.functional.one_hot(types, self.n_types).to(radial)[near]
        radial = (one_hot[..., None] * radial[..., None, :]).flatten(-2)
        return radial.mT @ edges

    def tokens(self, positions: Tensor, boxes: Tensor, types: Tensor, beads: Tensor) -> Tensor:
        """Return standardized scalars and vectors of selected beads, one system after the other.

        Parameters
        ----------
        positions : Tensor [S, lags + 1, N, 3]
            Windows of whole systems, unwrapped (nm).
        boxes : Tensor [S, 3, 3]
            Box vectors in rows, each height at least twice the cutoff (nm).
        types : Tensor [N]
        beads : Tensor [S, M]
            Indices of the selected beads of each system.

        Returns
        -------
        Tensor [S · M, lags, scalars + 3 vectors]
        """
        messages = self.messages(positions, boxes, types, beads).to(self.scale.dtype)
        system = torch.arange(len(positions))[:, None]
        own = positions.transpose(1, 2)[system, beads]
        moved = torch.stack([own[:, :, 1:] - own[:, :, :-1], own[:, :, 1:] - own[:, :, :1]], 3)
        moved = moved.to(self.scale.dtype) / self.scale[types[beads]][..., None]
        scalars, vectors = messages.transpose(1, 2).split([SCALARS, 3 * VECTORS], -1)
        tokens = torch.cat([scalars.flatten(-2), moved.flatten(-2), vectors.flatten(-2)], -1)
        return ((tokens - self.mean) / self.deviation).flatten(0, 1)

    def forward(self, tokens: Tensor, types: Tensor) -> Tensor:
        """Return logits [W, lags], positive for all-atom, of tokens of beads of types [W]."""
        scalars, vectors = (
            tokens.permute(2, 1, 0)
            .contiguous()
            .split([self.n_scalars, tokens.shape[-1] - self.n_scalars])
        )
        vectors = vectors.unflatten(0, (-1, 3))
        # The first vector is the bead's own increment, whose components have a mean square of 1.
        return self.logits(
            torch.cat([scalars, lengths(vectors, 1)]),
            vectors,
            vectors[0].permute(2, 1, 0) / 3**0.5,
            types,
        )


def _squared_distances(fractions: Tensor, box: Tensor, beads: Tensor) -> Tensor:
    """Return squared distances [M, N] (nm²) from selected beads to all, infinite from a bead to itself.

    They are correct for distances below half of every height of the box.

    Parameters
    ----------
    fractions : Tensor [3, N]
        Positions in units of the box vectors.
    box : Tensor [3, 3]
        Lower triangular (nm).
    beads : Tensor [M]
    """
    square = torch.zeros(len(beads), fractions.shape[1])
    square[torch.arange(len(beads)), beads] = torch.inf
    apart = [row[beads, None] - row for row in fractions]
    apart = [row.sub_(row.round()) for row in apart]
    for column in range(3):
        along = sum(row * size for row, size in zip(apart[column:], box[column:, column]) if size)
        square.addcmul_(along, along)
    return square
