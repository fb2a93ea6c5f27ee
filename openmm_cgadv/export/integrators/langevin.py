"""OpenMM integrators of Langevin dynamics."""

from __future__ import annotations

import numpy as np
import openmm
from openmm import unit

from ...dynamics import GeneralizedLangevinParameters
from .base import Update
from .generalized_langevin import GeneralizedLangevinIntegrators


class LangevinIntegrators(GeneralizedLangevinIntegrators):
    """A LangevinMiddleIntegrator if all beads have the same friction, otherwise one of generalized Langevin dynamics."""

    def create(
        self,
        friction: GeneralizedLangevinParameters,
        types: np.ndarray,
        temperature: float,
        timestep: float,
        seed: int | None = None,
        backend: str | None = None,
    ) -> openmm.Integrator:
        each = friction.drift[np.unique(types), 0, 0]
        if backend == "plugin" or np.ptp(each) > 0:
            return super().create(friction, types, temperature, timestep, seed, backend)
        integrator = openmm.LangevinMiddleIntegrator(
            temperature * unit.kelvin, each[0] / unit.picosecond, timestep * unit.picosecond
        )
        if seed is not None:
            integrator.setRandomNumberSeed(seed)
        return integrator

    def updates(
        self,
        integrator: openmm.Integrator,
        friction: GeneralizedLangevinParameters,
        types: np.ndarray,
        temperature: float,
    ) -> list[Update]:
        updates = super().updates(integrator, friction, types, temperature)
        if not isinstance(integrator, openmm.LangevinMiddleIntegrator):
            return updates
        each = friction.drift[np.unique(types), 0, 0]
        if np.ptp(each) > 0:
            raise ValueError(
                "integrator: found a LangevinMiddleIntegrator, which has one friction, expected "
                "that of a model whose bead types have different friction (model.create_integrator)"
            )
        return [
            lambda: integrator.setFriction(each[0] / unit.picosecond),
            lambda: integrator.setTemperature(temperature * unit.kelvin),
        ]
