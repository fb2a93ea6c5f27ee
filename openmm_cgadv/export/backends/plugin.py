"""Backend `plugin`: the native OpenMM plugin computes the energy, without torch or Python."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import openmm

from ... import kernels
from ...potentials import PotentialSpec
from .. import openmm_plugin
from .base import Beads

PLATFORMS = ("Reference", "CPU")
"""OpenMM platforms with kernels of the plugin."""


def why_not(platform: str | None = None) -> str | None:
    """Return why this backend can't be used on a platform, or on any platform, with a remedy, or None."""
    if platform is not None and platform not in PLATFORMS:
        return f"the OpenMM plugin has no kernels for the platform {platform}; use the backend torchforce or pythonforce there"
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
        integers.numpy(),
        numbers.numpy(),
        theta,
        types,
        particles,
        description=json.dumps(spec.to_dict()),
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
