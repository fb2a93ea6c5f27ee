"""A program: measure the time of a step of a model bundle, for each BACKEND:PLATFORM named.

Its first arguments are the bundle, the time step (ps, or nothing for that of the model) and the wall
time of each measurement (s).
"""

import sys
import time

from openmm_cgadv.attempts import run_each
from openmm_cgadv.bundle import load
from openmm_cgadv.export.system import BACKENDS
from openmm_cgadv.simulation.run import create_simulation


def milliseconds(name: str) -> str:
    """Return the wall time of a step (ms)."""
    backend, platform = name.split(":")
    if (reason := BACKENDS[backend].why_not(platform)) is not None:
        raise ImportError(reason)
    model = load(path)
    simulation = create_simulation(
        model,
        timestep=float(timestep) if timestep else None,
        backend=backend,
        platform=platform,
    )
    simulation.context.setVelocitiesToTemperature(model.temperature, 1)
    integrator = simulation.integrator
    integrator.step(10)
    steps, begun = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - begun) < float(least):
        integrator.step(10)
        # OpenMM's GPU platforms return before the steps are done.
        simulation.context.getState(energy=True)
        steps += 10
    return f"{1e3 * elapsed / steps:.3g}"


if __name__ == "__main__":
    path, timestep, least, *names = sys.argv[1:]
    run_each(names, milliseconds)
