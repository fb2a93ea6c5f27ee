"""Persistent chains: replicas that continue from rollout to rollout (as in persistent contrastive divergence).

Windows from persistent chains come from the model's own equilibrium, not from that of the reference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .windows import ReferenceWindows


@dataclass(frozen=True)
class ChainSettings:
    """Hyperparameters of the persistent chains.

    Attributes
    ----------
    restart_probability : float
        Probability that a chain restarts from an all-atom frame before a rollout. Restarts keep the chains close to
        the reference without disturbing their equilibrium much.
    """

    restart_probability: float = 0.01


class PersistentChains:
    """Store the states of the chains.

    Parameters
    ----------
    reference : ReferenceWindows
        Provides the starting frames.
    masses : Tensor [N]
        (Da)
    number : int
        Number of chains.
    state : callable
        Draws velocities and auxiliary variables [N, C, 3] from equilibrium (nm/ps).
    generator : torch.Generator
    settings : ChainSettings
    """

    def __init__(
        self,
        reference: ReferenceWindows,
        masses: Tensor,
        number: int,
        state: Callable[[torch.Generator], Tensor],
        generator: torch.Generator,
        settings: ChainSettings = ChainSettings(),
    ):
        self.reference, self.masses, self.settings = reference, masses, settings
        self.draw = state
        starts = [(*reference.frame(generator), state(generator)) for _ in range(number)]
        self.positions, self.boxes, self.state = (torch.stack(parts) for parts in zip(*starts))

    def restart(self, chain: int, generator: torch.Generator) -> None:
        """Restart a chain from an all-atom frame."""
        self.positions[chain], self.boxes[chain] = self.reference.frame(generator)
        self.state[chain] = self.draw(generator)

    def rescale(self, chain: int, generator: torch.Generator) -> None:
        """Rescale the velocities of a chain to a kinetic energy drawn from the canonical distribution.

        In simple liquids the conservative forces alone determine the diffusion, and the friction is negligible. Such
        friction would need tens of picoseconds to restore the temperature.
        """
        velocities, drawn = self.state[chain, :, 0], self.draw(generator)[:, 0]
        velocities *= (self.kinetic_energy(drawn) / self.kinetic_energy(velocities)).sqrt()

    def kinetic_energy(self, velocities: Tensor) -> Tensor:
        """Return the kinetic energy (kJ/mol) of velocities [N, 3] (nm/ps)."""
        return 0.5 * (self.masses @ velocities.square()).sum()

    def load(self, chosen: list[int], generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Return positions, states and boxes of chains, after a restart or a rescaling of each."""
        for chain in chosen:
            if torch.rand(1, generator=generator).item() < self.settings.restart_probability:
                self.restart(chain, generator)
            else:
                self.rescale(chain, generator)
        return self.positions[chosen], self.state[chosen], self.boxes[chosen]

    def store(self, chosen: list[int], positions: Tensor, state: Tensor) -> None:
        """Store the final positions and states of chains."""
        self.positions[chosen], self.state[chosen] = positions.detach(), state.detach()

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state for a checkpoint."""
        return {"positions": self.positions, "state": self.state, "boxes": self.boxes}

    def load_state_dict(self, saved: dict[str, Tensor]) -> None:
        """Restore the state from a checkpoint."""
        for name, value in saved.items():
            getattr(self, name).copy_(value)
