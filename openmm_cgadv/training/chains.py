"""Persistent chains: replicas that go on from rollout to rollout, so that windows come from the model's own equilibrium."""

from __future__ import annotations

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
    masses : Tensor [N]
        (dalton)
    kT : float
        (kJ/mol)
    n_auxiliary : int
        Auxiliary variables a degree of freedom.
    generator : torch.Generator
    """

    def __init__(
        self, reference: ReferenceWindows, number: int, masses: Tensor, kT: float, n_auxiliary: int,
        generator: torch.Generator,
    ):  # fmt: skip
        self.reference = reference
        self.thermal = (kT / masses).sqrt()[:, None, None]
        n = len(masses)
        self.positions = torch.zeros([number, n, 3], dtype=torch.float64)
        self.state = torch.zeros([number, n, n_auxiliary + 1, 3], dtype=torch.float64)
        self.boxes = torch.zeros([number, 3, 3], dtype=torch.float64)
        for chain in range(number):
            self.start(chain, generator)

    def start(self, chain: int, generator: torch.Generator) -> None:
        """Start a chain from an all-atom frame with velocities from the Maxwell–Boltzmann distribution."""
        self.positions[chain], self.boxes[chain] = self.reference.frame(generator)
        noise = torch.randn(self.state[chain].shape, generator=generator, dtype=torch.float64)
        self.state[chain] = self.thermal * noise

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
