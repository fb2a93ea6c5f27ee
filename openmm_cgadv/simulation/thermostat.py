"""A thermostat for models whose friction is next to none, as in simple liquids whose every atom is a bead."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import openmm
from openmm import app, unit
from openmm.unit import Quantity

from ..errors import InputError
from ..units import KB, plain
from .reporters import checked_interval, next_report, timestep_of

if TYPE_CHECKING:
    from ..model import Model

RELAXATION = 1.0
"""Time in which the kinetic energy forgets itself (ps), as with the thermostat of all-atom references."""


def is_needed(model: Model) -> bool:
    """Whether friction alone takes longer than `RELAXATION` to bring a temperature back."""
    return float(model.bead_friction[np.unique(model.types)].min()) * RELAXATION < 1.0


class VelocityRescaling:
    """Stochastic velocity rescaling, a reporter (Bussi, Donadio and Parrinello 2007, doi:10.1063/1.2408420).

    ``simulation.reporters.append(VelocityRescaling(20, model))``. Training finds friction next to none where neighbours alone make
    diffusion. The temperature then needs tens of picoseconds to come back, and diffusion of simple liquids changes by 2 to 3 % with
    each percent of it. Here all velocities together are brought to a kinetic energy that wanders as it does in the canonical ensemble,
    which leaves motion as it is. `run_production` does the same where friction is less than 1/ps.

    Parameters
    ----------
    interval : int
        Time steps between changes, a tenth of a picosecond or so.
    model : Model
        Of the beads of the simulation.
    temperature : float or Quantity, optional
        (K); that of the model by default.
    seed : int

    Raises
    ------
    InputError
        The interval is not a whole number of steps, or the temperature is not more than 0.
    """

    def __init__(
        self,
        interval: int,
        model: Model,
        temperature: float | Quantity | None = None,
        seed: int = 1,
    ) -> None:
        self.interval = checked_interval(interval)
        self.temperature = float(
            model.temperature if temperature is None else plain(temperature, unit.kelvin)
        )
        if not self.temperature > 0:
            raise InputError(f"temperature: found {self.temperature:g} K, expected more than 0")
        self.constraints = 3 * model.friction.conserves_momentum
        self.seed = int(seed) % 2**63
        self._masses: np.ndarray | None = None

    def describeNextReport(self, simulation: app.Simulation) -> dict:
        """What OpenMM is asked for, and in how many steps."""
        return next_report(simulation, self.interval, ["velocities"])

    def report(self, simulation: app.Simulation, state: openmm.State) -> None:
        """Rescale the velocities of the simulation."""
        elapsed = self.interval * timestep_of(simulation)
        self.rescale(
            simulation.context,
            state.getVelocities(asNumpy=True)._value,
            elapsed,
            simulation.currentStep,
        )

    def rescale(
        self, context: openmm.Context, velocities: np.ndarray, elapsed: float, number: int
    ) -> None:
        """Give a context other velocities.

        Parameters
        ----------
        context : openmm.Context
        velocities : ndarray [N, 3]
            That it has (nm/ps).
        elapsed : float
            Time since the last change (ps).
        number : int
            Of the change; the same number and seed draw the same.
        """
        masses = self._masses
        if masses is None:
            system = context.getSystem()
            masses = np.array([system.getParticleMass(k)._value for k in range(len(velocities))])
            self._masses = masses
            if any(isinstance(force, openmm.CMMotionRemover) for force in system.getForces()):
                self.constraints = 3
        kinetic = 0.5 * float(masses @ np.square(velocities).sum(1))
        free = 3 * int(np.count_nonzero(masses)) - self.constraints
        if kinetic > 0 and free > 1:
            random = np.random.default_rng([self.seed, number])
            factor = rescaling(kinetic, free, KB * self.temperature, elapsed / RELAXATION, random)
            context.setVelocities(factor * velocities)


def rescaling(
    kinetic: float, free: int, kT: float, elapsed: float, random: np.random.Generator
) -> float:
    """The factor of all velocities, equation A7 of Bussi, Donadio and Parrinello.

    Parameters
    ----------
    kinetic : float
        Kinetic energy (kJ/mol).
    free : int
        Degrees of freedom.
    kT : float
        (kJ/mol)
    elapsed : float
        In units of the time in which kinetic energy forgets itself.
    random : numpy.random.Generator
    """
    kept = math.exp(-elapsed)
    share = (1 - kept) * 0.5 * kT / kinetic
    first, others = random.standard_normal(), random.chisquare(free - 1)
    return math.sqrt(kept + share * (first**2 + others) + 2 * first * math.sqrt(kept * share))
