"""The OpenMM plugin's integrator of pairwise friction."""

from __future__ import annotations

import numpy as np
import openmm

from ...dynamics import PairFrictionParameters
from .. import openmm_plugin
from .base import Integrators, Update, check_auxiliary, check_plugin


class PairwiseIntegrators(Integrators[PairFrictionParameters]):
    """Integrators of :class:`~openmm_cgadv.dynamics.PairFrictionParameters`."""

    def create(
        self,
        friction: PairFrictionParameters,
        types: np.ndarray,
        temperature: float,
        timestep: float,
        seed: int | None = None,
        backend: str | None = None,
    ) -> openmm.Integrator:
        if backend == "openmm":
            raise ValueError(f"backend: found 'openmm', expected 'plugin': {friction.needs}")
        check_plugin(type(friction))
        return openmm_plugin.create_pair_integrator(
            friction, types, temperature, timestep, seed or 0
        )

    def recognizes(self, integrator: openmm.Integrator) -> bool:
        return openmm_plugin.is_pair_integrator(integrator)

    def updates(
        self,
        integrator: openmm.Integrator,
        friction: PairFrictionParameters,
        types: np.ndarray,
        temperature: float,
    ) -> list[Update]:
        if not self.recognizes(integrator):
            return []
        found = openmm_plugin.read_pair_integrator(integrator)["friction"]
        check_auxiliary(found.n_auxiliary, friction)
        return [
            lambda: openmm_plugin.set_friction(integrator, friction),
            lambda: openmm_plugin.set_temperature(integrator, temperature),
        ]

    def take_moment(self, integrator: openmm.Integrator) -> np.ndarray:
        return openmm_plugin.take_moment(integrator)
