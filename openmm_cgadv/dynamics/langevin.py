"""Parameters of Langevin dynamics, friction without memory on every bead; `rollout.langevin_step` is the step."""

from __future__ import annotations

from collections.abc import Sequence

from .generalized_langevin import GeneralizedLangevin, GeneralizedLangevinParameters


class LangevinParameters(GeneralizedLangevinParameters):
    """The friction of every bead type, as generalized Langevin dynamics with K = 0.

    Raises
    ------
    ValueError
        There is a matrix of more than one element.
    """

    name = "langevin"
    title = "Langevin"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_auxiliary:
            raise ValueError(f"drift: found {self.n_auxiliary} auxiliary variables, expected none")


class Langevin(GeneralizedLangevin):
    """Langevin dynamics without memory, one friction (1/ps) per bead type."""

    def __init__(self, n_types: int, friction: float | Sequence[float]):
        super().__init__(n_types, 0, friction)

    def export(self) -> LangevinParameters:
        return LangevinParameters(self.drift().detach().numpy())
