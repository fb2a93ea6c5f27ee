"""Tells trajectories apart by how a bead moves among its neighbours: an equivariant graph of every frame."""

from __future__ import annotations

import torch
from torch import Tensor

from ..potentials.splines import spline_weights
from .dynamics import LagsDiscriminator, lengths

SCALARS, VECTORS = 3, 5
"""What a message carries for every radial function and type of neighbour."""

RARE = 0.1
"""Least unit of a radial function's messages, in units of the largest of all: those of contacts that hardly ever occur are
small numbers, and no large ones when they do."""


class GraphDiscriminator(LagsDiscriminator):
    r"""One logit for every lag of a bead's window, which knows how the bead's neighbours moved.

    In every frame of a window the beads are a graph: edges join a bead to the neighbours that it has in that frame. An
    edge to j knows the distance r and unit vector r̂ in that frame and, of the increment since the frame before and of
    the displacement since the first frame, what δ the neighbour has moved by more than the bead itself. The message that
    a bead gets is

        Σ_j R_n(r) {1, r̂·δ_1, r̂·δ_2 | r̂, δ_1, δ_2, (r̂·δ_1) r̂, (r̂·δ_2) r̂},

    scalars and vectors, one set for each radial function R_n and type of neighbour. With the two vectors of the
    bead's own motion it makes the token of that lag, all of them in units of their all-atom mean and deviation.
    The R_n are fixed splines and are mixed after the sum, so that the sums are computed once a window, outside the
    discriminator's own steps.

    Gradients pass through the δ alone. How neighbours are arranged belongs to the potential, and through a trajectory
    whose sensitivity forgets, friction would seem to change it.

    Nothing depends on where the system is, how it is turned or mirrored, on the order of beads of a type or on the
    periodic image they are in.

    Parameters
    ----------
    scale : Tensor [n_types, lags, 2]
        Root mean square of the increment and of the displacement at each lag, for each bead type (nm).
    r_min, r_cut : float
        Range of the radial functions (nm).
    n_radial : int
        Number of radial functions.
    options
        Widths, heads and attention of :class:`LagsDiscriminator`.
    """

    def __init__(self, scale: Tensor, r_min: float, r_cut: float, n_radial: int = 5, **options):
        n_types, lags, _ = scale.shape
        channels = n_types * n_radial
        self.numbers, arrows = SCALARS * channels, 2 + VECTORS * channels
        super().__init__((n_types, lags), (self.numbers + arrows, arrows), **options)
        self.n_types, self.r_min, self.r_cut, self.n_radial = n_types, float(r_min), float(r_cut), n_radial
        self.register_buffer("scale", scale.to(torch.get_default_dtype()))
        self.register_buffer("mean", torch.zeros(lags, self.numbers + 3 * arrows))
        self.register_buffer("deviation", torch.ones(lags, self.numbers + 3 * arrows))

    def standardize(self, positions: Tensor, boxes: Tensor, types: Tensor, beads: Tensor) -> None:
        """Set the units of the messages from all-atom windows; see :meth:`tokens`."""
        tokens = self.tokens(positions, boxes, types, beads)
        numbers, arrows = tokens.split([self.numbers, tokens.shape[-1] - self.numbers], -1)
        sizes = arrows.unflatten(-1, (-1, 3)).square().mean([0, -1]).sqrt().repeat_interleave(3, -1)
        found = torch.cat([numbers.std(0), sizes], -1) * self.deviation
        for start, width in ((0, SCALARS), (self.numbers + 6, 3 * VECTORS)):
            some = found[:, start:][:, : self.numbers // SCALARS * width].unflatten(-1, (-1, width))
            some.copy_(torch.maximum(some, RARE * some.amax(1, keepdim=True)))
        self.mean[:, : self.numbers] += numbers.mean(0) * self.deviation[:, : self.numbers]
        self.deviation.copy_(torch.where(found > 0, found, 1.0))

    def neighbors(self, positions: Tensor, boxes: Tensor, beads: Tensor) -> Tensor:
        """The nearest beads [S, frames, M, k] of some beads, at least all within the range.

        A bead that is too far is among them where another bead has more neighbours.
        """
        fractions = positions @ torch.linalg.inv(boxes)[:, None]
        fractions = (fractions - fractions.floor()).float().mT.contiguous()
        square = torch.stack([
            torch.stack([_squared_distances(frame, box, some) for frame in frames])
            for frames, box, some in zip(fractions, boxes.float(), beads)
        ])  # fmt: skip
        most = int((square < (1.000001 * self.r_cut) ** 2).sum(-1).max())
        return square.topk(most, largest=False, sorted=False).indices

    def messages(self, positions: Tensor, boxes: Tensor, types: Tensor, beads: Tensor) -> Tensor:
        """Sums over the edges [S, lags, M, n_types · n_radial, SCALARS + 3 VECTORS]; see :meth:`tokens`."""
        now = positions[:, 1:]
        near = self.neighbors(now.detach(), boxes, beads)
        moved = torch.stack([now - positions[:, :-1], now - positions[:, :1]], 3)
        system, frame = torch.arange(len(now))[:, None, None, None], torch.arange(now.shape[1])[:, None, None]
        one = beads[:, None, :, None]
        apart = (now[system, frame, near] - now[system, frame, one]) @ torch.linalg.inv(boxes)[:, None, None]
        # The generator learns from how neighbours move; how they are arranged is the potential's.
        apart = ((apart - apart.round()) @ boxes[:, None, None]).detach()
        r = apart.square().sum(-1).sqrt()
        unit = apart / r[..., None]
        delta = moved[system, frame, near] - moved[system, frame, one]
        along = (delta * unit[..., None, :]).sum(-1)
        edges = torch.cat(
            [torch.ones_like(r)[..., None], along, unit, delta.flatten(-2), (along[..., None] * unit[..., None, :]).flatten(-2)], -1
        )
        inside = r < self.r_cut
        first, weights = spline_weights(
            r.where(inside, self.r_cut).flatten(), r.new_full([r.numel()], self.r_min), self.r_cut, self.n_radial
        )
        place = first[:, None] + torch.arange(4)
        radial = r.new_zeros([r.numel(), self.n_radial + 3]).scatter(1, place, weights)[:, : self.n_radial]
        radial = radial.unflatten(0, r.shape) * inside[..., None]
        kinds = torch.nn.functional.one_hot(types, self.n_types).to(radial)[near]
        radial = (kinds[..., None] * radial[..., None, :]).flatten(-2)
        return radial.mT @ edges

    def tokens(self, positions: Tensor, boxes: Tensor, types: Tensor, beads: Tensor) -> Tensor:
        """Standardized scalars and vectors of some beads of each system, one system after the other.

        Parameters
        ----------
        positions : Tensor [S, lags + 1, N, 3]
            Windows of whole systems, unwrapped (nm).
        boxes : Tensor [S, 3, 3]
            Box vectors in rows, each height at least twice the range (nm).
        types : Tensor [N]
        beads : Tensor [S, M]
            Which beads of each system.

        Returns
        -------
        Tensor [S · M, lags, scalars + 3 vectors]
        """
        messages = self.messages(positions, boxes, types, beads).to(self.scale.dtype)
        system = torch.arange(len(positions))[:, None]
        own = positions.transpose(1, 2)[system, beads]
        moved = torch.stack([own[:, :, 1:] - own[:, :, :-1], own[:, :, 1:] - own[:, :, :1]], 3)
        moved = moved.to(self.scale.dtype) / self.scale[types[beads]][..., None]
        numbers, arrows = messages.transpose(1, 2).split([SCALARS, 3 * VECTORS], -1)
        tokens = torch.cat([numbers.flatten(-2), moved.flatten(-2), arrows.flatten(-2)], -1)
        return ((tokens - self.mean) / self.deviation).flatten(0, 1)

    def forward(self, tokens: Tensor, types: Tensor) -> Tensor:
        """Logits [W, lags], positive for all-atom, of tokens of beads of the given types [W]."""
        numbers, arrows = tokens.permute(2, 1, 0).contiguous().split([self.numbers, tokens.shape[-1] - self.numbers])
        arrows = arrows.unflatten(0, (-1, 3))
        # The first vector is the bead's own increment; its components have mean squares of 1.
        return self.judge(torch.cat([numbers, lengths(arrows, 1)]), arrows, arrows[0].permute(2, 1, 0) / 3**0.5, types)


def _squared_distances(fractions: Tensor, box: Tensor, beads: Tensor) -> Tensor:
    """From some beads to all [M, N] (nm²), infinite from a bead to itself; right where the nearest image is closer than
    half of every height of the box.

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
