"""The backends and platforms of this machine as parameters of tests, and what OpenMM computes with them."""

import numpy as np
import openmm
import pytest

from openmm_cgadv.export import system as systems
from openmm_cgadv.export.backends import torchforce
from openmm_cgadv.platforms import platform_names

needs_torchforce = pytest.mark.skipif(
    torchforce.why_not() is not None, reason=f"torchforce: {torchforce.why_not()}"
)


BACKENDS = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            module.why_not() is not None, reason=f"{name}: {module.why_not()}"
        ),
    )
    for name, module in systems.BACKENDS.items()
]


PLATFORMS = platform_names()


def tolerance(backend, platform, otherwise=1e-10):
    """What energies and forces agree to: the plugin computes in single precision on the CPU platform."""
    return 2e-5 if (backend, platform) == ("plugin", "CPU") else otherwise


def skip_missing_operators(backend, plain):
    if plain and backend == "plugin":
        pytest.skip("the plugin has no plain operators")


def context_of(system, integrator=None, platform="Reference"):
    integrator = integrator or openmm.VerletIntegrator(0.001)
    properties = {"CPU": {"Threads": "1"}, "Reference": {}}.get(platform, {"Precision": "double"})
    return openmm.Context(system, integrator, openmm.Platform.getPlatform(platform), properties)


def measured(context, positions=None):
    if positions is not None:
        context.setPositions(positions)
    state = context.getState(energy=True, forces=True)
    return state.getPotentialEnergy()._value, state.getForces(asNumpy=True)._value


def assert_same(found, expected, tolerance):
    """Energies, of either sign, to 1 kJ/mol a bead times the tolerance; forces to the largest times it."""
    assert abs(found[0] - expected[0]) <= tolerance * max(abs(expected[0]), len(expected[1]))
    assert np.abs(found[1] - expected[1]).max() <= tolerance * np.abs(expected[1]).max()
