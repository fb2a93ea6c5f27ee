"""OpenMM integrators of the learned dynamics, one file for each equation of motion."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import openmm
from openmm import app, unit

from ...model import Model
from ...units import plain
from ..beads import bead_types
from .base import Integrators, check_plugin
from .conditions import check_temperature, check_timestep
from .generalized_langevin import GeneralizedLangevinIntegrators
from .langevin import LangevinIntegrators
from .pairwise import PairwiseIntegrators

INTEGRATORS: dict[str, Integrators] = {
    "langevin": LangevinIntegrators(),
    "generalized_langevin": GeneralizedLangevinIntegrators(),
    "pair": PairwiseIntegrators(),
}
"""Integrators of each equation of motion by its name (:data:`openmm_cgadv.dynamics.FRICTIONS`)."""

BACKENDS = ("openmm", "plugin")
"""OpenMM's own integrators, and those of the plugin."""

__all__ = [
    "BACKENDS",
    "INTEGRATORS",
    "Integrators",
    "check_plugin",
    "create_integrator",
    "integrator_update",
]


def create_integrator(
    model: Model,
    topology: app.Topology | None = None,
    timestep: float | unit.Quantity | None = None,
    temperature: float | unit.Quantity | None = None,
    seed: int | None = None,
    backend: str | None = None,
) -> openmm.Integrator:
    """Create the integrator of :meth:`openmm_cgadv.Model.create_integrator`."""
    timestep = model.timestep if timestep is None else plain(timestep, unit.picosecond)
    temperature = model.temperature if temperature is None else plain(temperature, unit.kelvin)
    check_temperature(model, temperature)
    check_timestep(model, timestep, temperature)
    if backend is not None and backend not in BACKENDS:
        raise ValueError(f"backend: found {backend!r}, expected one of {', '.join(BACKENDS)}")
    types = model.types if topology is None else bead_types(topology, model.type_names)
    return INTEGRATORS[model.friction.name].create(
        model.friction, types, temperature, timestep, seed, backend
    )


def integrator_update(
    integrator: openmm.Integrator, model: Model, types: np.ndarray
) -> Callable[[], None]:
    """Return a function that sets the friction and the temperature of a model in an integrator of this package.

    The integrator may belong to a Context. All integrators of a CompoundIntegrator are updated. Integrators of other
    origin do not change, and neither does a LangevinMiddleIntegrator unless the model has Langevin dynamics. Auxiliary
    variables keep their values.

    Parameters
    ----------
    integrator : openmm.Integrator
    model : Model
    types : ndarray [N] of int
        Bead types.

    Returns
    -------
    callable
        The update. Nothing changes before it is called.

    Raises
    ------
    ValueError
        Friction is negative, or an integrator has a different number of auxiliary variables, one friction for bead
        types with different friction, or a different equation of motion.
    """
    if isinstance(integrator, openmm.CompoundIntegrator):
        parts = (integrator.getIntegrator(k) for k in range(integrator.getNumIntegrators()))
        updates = [integrator_update(part, model, types) for part in parts]
    else:
        integrators = INTEGRATORS[model.friction.name]
        equations = [name for name, each in INTEGRATORS.items() if each.recognizes(integrator)]
        if equations and not integrators.recognizes(integrator):
            raise ValueError(
                f"integrator: found one of the equation of motion {' or '.join(equations)}, expected one of "
                f"{model.friction.name} (model.create_integrator)"
            )
        updates = integrators.updates(integrator, model.friction, types, model.temperature)

    def apply() -> None:
        for update in updates:
            update()

    return apply
