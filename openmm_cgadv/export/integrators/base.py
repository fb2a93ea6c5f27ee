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
"""Changes an integrator, or a Context that has it."""


F = TypeVar("F", bound=Friction)


class Integrators(ABC, Generic[F]):
    """Create and update the OpenMM integrators of one equation of motion. An implementation keeps no state."""

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
            Whether OpenMM's own integrators are needed, or those of the plugin; by default the fastest that loads.

        Raises
        ------
        ValueError
            The backend does not have the equation.
        ImportError
            The plugin is needed and does not load.
        """

    @abstractmethod
    def recognizes(self, integrator: openmm.Integrator) -> bool:
        """Return whether an integrator integrates this equation and no other, so that it came from :meth:`create`."""

    @abstractmethod
    def updates(
        self,
        integrator: openmm.Integrator,
        friction: F,
        types: np.ndarray,
        temperature: float,
    ) -> list[Update]:
        """Return what sets the friction and the temperature (K) of an integrator.

        Nothing changes before the updates are called. There are none for an integrator that :meth:`create` does not
        make. Auxiliary variables keep their values.

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
    """Raise an ImportError, in one sentence, if an equation needs the OpenMM plugin and it does not load."""
    if friction.needs and (reason := openmm_plugin.why_not()) is not None:
        raise ImportError(f"{friction.needs}: {reason}")


def check_auxiliary(found: int, friction: Friction) -> None:
    """Raise a ValueError if an integrator has another number of auxiliary variables than the friction."""
    if found != friction.n_auxiliary:
        raise ValueError(
            f"integrator: found {found} auxiliary variables, expected {friction.n_auxiliary} as in the model"
        )
