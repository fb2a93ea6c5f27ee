"""Persistent chains: replicas that go on from rollout to rollout, so that windows come from the model's own equilibrium."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .windows import ReferenceWindows

RENEWAL = 0.01
"""Probability that a chain starts again from an all-atom frame before a rollout."""


class Chains:
    """States of the chains.

    Parameters
    ----------
    reference : ReferenceWindows
        Gives the starting frames.
    number : int
        Number of chains.
    state : callable
        Draws velocities, and what else beads carry with them, from equilibrium [N, C, 3] (nm/ps).
    generator : torch.Generator
    """

    def __init__(
        self, reference: ReferenceWindows, number: int, state: Callable[[torch.Generator], Tensor],
        generator: torch.Generator,
    ):  # fmt: skip
        self.reference = reference
        self.draw = state
        starts = [(*reference.frame(generator), state(generator)) for _ in range(number)]
        self.positions, self.boxes, self.state = (torch.stack(parts) for parts in zip(*starts))

    def start(self, chain: int, generator: torch.Generator) -> None:
        """Start a chain again from an all-atom frame."""
        self.positions[chain], self.boxes[chain] = self.reference.frame(generator)
        self.state[chain] = self.draw(generator)

    def take(self, chosen: list[int], generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Positions, states and boxes of the chosen chains, some of them started again."""
        for chain in chosen:
            if torch.rand(1, generator=generator).item() < RENEWAL:
                self.start(chain, generator)
        return self.positions[chosen], self.state[chosen], self.boxes[chosen]

    def put(self, chosen: list[int], positions: Tensor, state: Tensor) -> None:
        """Where the chosen chains have come to."""
        self.positions[chosen], self.state[chosen] = positions.detach(), state.detach()

    def state_dict(self) -> dict[str, Tensor]:
        return {"positions": self.positions, "state": self.state, "boxes": self.boxes}

    def load_state_dict(self, saved: dict[str, Tensor]) -> None:
        for name, value in saved.items():
            getattr(self, name).copy_(value)
