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
    masses : Tensor [N]
        (Da)
    number : int
        Number of chains.
    state : callable
        Draws velocities, and what else beads carry with them, from equilibrium [N, C, 3] (nm/ps).
    generator : torch.Generator
    """

    def __init__(
        self, reference: ReferenceWindows, masses: Tensor, number: int, state: Callable[[torch.Generator], Tensor],
        generator: torch.Generator,
    ):  # fmt: skip
        self.reference, self.masses = reference, masses
        self.draw = state
        starts = [(*reference.frame(generator), state(generator)) for _ in range(number)]
        self.positions, self.boxes, self.state = (torch.stack(parts) for parts in zip(*starts))

    def start(self, chain: int, generator: torch.Generator) -> None:
        """Start a chain again from an all-atom frame."""
        self.positions[chain], self.boxes[chain] = self.reference.frame(generator)
        self.state[chain] = self.draw(generator)

    def warm(self, chain: int, generator: torch.Generator) -> None:
        """Give a chain another kinetic energy of equilibrium, as a thermostat by rescaling does; velocities keep their directions.

        Where neighbours alone make diffusion, as in simple liquids, friction next to none is right, which takes tens of picoseconds
        to bring a temperature back.
        """
        velocities, drawn = self.state[chain, :, 0], self.draw(generator)[:, 0]
        velocities *= (self.kinetic(drawn) / self.kinetic(velocities)).sqrt()

    def kinetic(self, velocities: Tensor) -> Tensor:
        """Kinetic energy (kJ/mol) of velocities [N, 3]."""
        return 0.5 * (self.masses @ velocities.square()).sum()

    def take(self, chosen: list[int], generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Positions, states and boxes of the chosen chains, with other kinetic energies, some of them started again."""
        for chain in chosen:
            if torch.rand(1, generator=generator).item() < RENEWAL:
                self.start(chain, generator)
            else:
                self.warm(chain, generator)
        return self.positions[chosen], self.state[chosen], self.boxes[chosen]

    def put(self, chosen: list[int], positions: Tensor, state: Tensor) -> None:
        """Where the chosen chains have come to."""
        self.positions[chosen], self.state[chosen] = positions.detach(), state.detach()

    def state_dict(self) -> dict[str, Tensor]:
        return {"positions": self.positions, "state": self.state, "boxes": self.boxes}

    def load_state_dict(self, saved: dict[str, Tensor]) -> None:
        for name, value in saved.items():
            getattr(self, name).copy_(value)
