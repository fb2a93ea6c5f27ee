"""The parameters that training exports: those of the potential and of the friction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ...dynamics import Friction, Neighborhood


@dataclass(frozen=True)
class TrainedParameters:
    """Averages over the iterations of training.

    Attributes
    ----------
    theta : Tensor [P]
        Parameters of the potential (kJ/mol).
    friction : Friction
    neighborhood : Neighborhood, optional
        Neighbours of a bead in the reference, where friction acts between beads.
    """

    theta: Tensor
    friction: Friction
    neighborhood: Neighborhood | None = None

    @property
    def bead_friction(self) -> Tensor:
        """Effective friction of each bead type [n_types] (1/ps)."""
        return self.friction.bead_friction(self.neighborhood)

    def named(self, type_names: tuple[str, ...]) -> dict[str, float]:
        """Return the friction and its parameters by name, for the log; with the bead types if there are several."""
        each = self.bead_friction
        values = {"averaged_friction": each.mean().item()}
        if len(type_names) > 1:
            values |= {
                f"averaged_friction_{name}": value for name, value in zip(type_names, each.tolist())
            }
        return values | self.friction.scalars(type_names, self.neighborhood)

    def model(self) -> dict[str, Any]:
        """Return the arguments of a :class:`~openmm_cgadv.Model` that training determines."""
        return {"theta": self.theta, "friction": self.friction}
