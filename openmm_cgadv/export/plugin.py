"""Backend `plugin`: the energy inside OpenMM by the native plugin, without torch or Python."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import openmm

from .. import kernels, openmm_plugin
from ..potentials import PotentialSpec
from .backend import Beads


def why_not() -> str | None:
    """Why this backend can't be used here, with what to install, or None."""
    return openmm_plugin.why_not()


def create_force(
    spec: PotentialSpec,
    theta: np.ndarray,
    types: np.ndarray,
    plain: bool,
    particles: Sequence[int] | None = None,
) -> openmm.Force:
    if plain:
        raise ValueError(
            "plain: found True, expected False for the backend plugin, which runs compiled kernels only"
        )
    integers, numbers = kernels.pack(spec)
    return openmm_plugin.create_force(
        integers, numbers, theta, types, particles, description=json.dumps(spec.to_dict())
    )


def read(force: openmm.Force) -> Beads | None:
    if not openmm_plugin.is_force(force):
        return None
    found = openmm_plugin.read_force(force)
    if not found["description"]:
        return None
    return Beads(PotentialSpec.from_dict(json.loads(found["description"])), found["types"])


def update(context: openmm.Context, force: openmm.Force, theta: np.ndarray) -> None:
    openmm_plugin.set_parameters(force, theta, context)
