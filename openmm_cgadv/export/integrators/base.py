"""The interface of the OpenMM integrators of one equation of motion."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np
import openmm

from ...dynamics import Friction
from .. import openmm_plugin

Update = Callable[[], None]
"""A function that changes an integrator, also in an existing Context."""


F = TypeVar("F", bound=Friction)


class Integrators(ABC, Generic[F]):
    """Create and update the OpenMM integrators of one equation of motion. An implementation has no state."""

    @abstractmethod
    def create(
        self,
        friction: F,
        types: np.ndarray,
        temperature: float,
        timestep: float,
        seed: int | None = None,
        backend: str | None = None,
    ) -> openmm.Integrator:
        """Return an integrator.

        Parameters
        ----------
        friction : Friction
        types : ndarray [N] of int
            Bead types, in the order of the System's particles.
        temperature : float
            (K)
        timestep : float
            (ps)
        seed : int, optional
            Seed of the noise; drawn by OpenMM when absent.
        backend : {"openmm", "plugin"}, optional
            OpenMM's own integrators or those of the plugin; by default the fastest that loads.

        Raises
        ------
        ValueError
            The backend does not support the equation.
        ImportError
            The plugin is needed and does not load.
        """

    @abstractmethod
    def recognizes(self, integrator: openmm.Integrator) -> bool:
        """Return whether an integrator is one that only :meth:`create` of this equation returns."""

    @abstractmethod
    def updates(
        self,
        integrator: openmm.Integrator,
        friction: F,
        types: np.ndarray,
        temperature: float,
    ) -> list[Update]:
        """Return functions that set the friction and the temperature (K) of an integrator.

        Nothing changes before the updates are called. The list is empty for an integrator that :meth:`create` does not
        return. Auxiliary variables keep their values.

        Raises
        ------
        ValueError
            The friction does not fit the integrator.
        """

    def take_moment(self, integrator: openmm.Integrator) -> np.ndarray | None:
        """Return the virial of the friction [3, 3], summed over steps since the last call (kJ/mol ps).

        None where friction does not act between beads (`Friction.between_beads`).
        """
        return None


def check_plugin(friction: type[Friction]) -> None:
    """Raise an ImportError if an equation needs the OpenMM plugin and the plugin does not load."""
    if friction.needs and (reason := openmm_plugin.why_not()) is not None:
        raise ImportError(f"{friction.needs}: {reason}")


def check_auxiliary(found: int, friction: Friction) -> None:
    """Raise a ValueError if the numbers of auxiliary variables of an integrator and of the friction differ."""
    if found != friction.n_auxiliary:
        raise ValueError(
            f"integrator: found {found} auxiliary variables, expected {friction.n_auxiliary} as in the model"
        )
