"""A thermostat for models with negligible friction, such as simple liquids with one bead for each atom."""

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

RELAXATION_TIME = 1.0
"""Relaxation time τ of the kinetic energy (ps), that of the thermostat of all-atom references."""


def needs_thermostat(model: Model) -> bool:
    """Return whether friction alone restores the temperature more slowly than in `RELAXATION_TIME`."""
    return float(model.bead_friction[np.unique(model.types)].min()) * RELAXATION_TIME < 1.0


class VelocityRescaling:
    """Stochastic velocity rescaling, a reporter (Bussi, Donadio and Parrinello 2007, doi:10.1063/1.2408420).

    ``simulation.reporters.append(VelocityRescaling(20, model))``. Training finds negligible friction where collisions with
    neighbours determine diffusion. Friction then restores the temperature only after tens of picoseconds, and the diffusion
    coefficient of simple liquids changes by 2 to 3 % for each percent of temperature. This thermostat multiplies all velocities by
    one factor, such that the kinetic energy has its canonical distribution. It hardly changes the dynamics. `run_production` uses it
    where friction is less than 1/ps.

    Parameters
    ----------
    interval : int
        Time steps between rescalings; about 0.1 ps is suitable.
    model : Model
        Model of the simulation.
    temperature : float or Quantity, optional
        (K); that of the model by default.
    seed : int
        Seed of the random numbers.

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
        """Return when OpenMM calls `report`, and the contents of its State."""
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
        """Rescale the velocities of a Context.

        Parameters
        ----------
        context : openmm.Context
        velocities : ndarray [N, 3]
            Its current velocities (nm/ps).
        elapsed : float
            Time since the last rescaling (ps).
        number : int
            Number of the rescaling, which determines the random numbers together with the seed.
        """
        masses = self._masses
        if masses is None:
            system = context.getSystem()
            masses = np.array([system.getParticleMass(k)._value for k in range(len(velocities))])
            self._masses = masses
            if any(isinstance(force, openmm.CMMotionRemover) for force in system.getForces()):
                self.constraints = 3
        kinetic = 0.5 * float(masses @ np.square(velocities).sum(1))
        degrees = 3 * int(np.count_nonzero(masses)) - self.constraints
        if kinetic > 0 and degrees > 1:
            random = np.random.default_rng([self.seed, number])
            factor = rescaling_factor(
                kinetic, degrees, KB * self.temperature, elapsed / RELAXATION_TIME, random
            )
            context.setVelocities(factor * velocities)


def rescaling_factor(
    kinetic: float, degrees: int, kT: float, elapsed: float, random: np.random.Generator
) -> float:
    """Draw the factor of all velocities, equation A7 of Bussi, Donadio and Parrinello.

    Parameters
    ----------
    kinetic : float
        Kinetic energy (kJ/mol).
    degrees : int
        Number of degrees of freedom.
    kT : float
        (kJ/mol)
    elapsed : float
        Time since the last rescaling, in units of the relaxation time of the kinetic energy.
    random : numpy.random.Generator
    """
    decay = math.exp(-elapsed)
    ratio = (1 - decay) * 0.5 * kT / kinetic
    first, others = random.standard_normal(), random.chisquare(degrees - 1)
    return math.sqrt(decay + ratio * (first**2 + others) + 2 * first * math.sqrt(decay * ratio))
