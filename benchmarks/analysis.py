"""Time of the analysis that the report of `scripts/water` needs: 240 ps of its reference and 1000 ps of production.

The trajectories are those of 343 mW beads at the density of water, every 20 fs with velocities. They are made once and
kept under ``runs/benchmarks``.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import time
from pathlib import Path

import numpy as np
import torch
from measure import CACHE, MASS, TEMPERATURE, describe, liquid, table

from openmm_cgadv.analysis.measurement import measure
from openmm_cgadv.analysis.metrics import metrics, noise_floor
from openmm_cgadv.data.trajectory import BeadTrajectory
from openmm_cgadv.dynamics import LangevinParameters
from openmm_cgadv.model import Model
from openmm_cgadv.potentials.stillinger_weber import mw_water
from openmm_cgadv.simulation.run import run_production
from openmm_cgadv.simulation.stress import stress_series

TIMESTEP, FRAME = 0.010, 0.020
"""ps"""
FRICTION = 20.0
"""1/ps"""


def water(beads: int) -> Model:
    """A model of mW water with Langevin dynamics."""
    spec, theta = mw_water(n_basis=60)
    positions, box = liquid(spec, theta, beads, 2.0)
    return Model(
        spec=spec,
        theta=theta,
        masses=np.array([MASS]),
        temperature=TEMPERATURE,
        timestep=TIMESTEP,
        friction=LangevinParameters([[[FRICTION]]]),
        types=np.zeros(beads, int),
        positions=positions.numpy(),
        box=box.numpy(),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="only show that it works")
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    parser.add_argument("--metrics", type=Path, help="write the observables of both runs as JSON")
    options = parser.parse_args()
    describe("scipy")
    beads, lengths = (64, (12, 16)) if options.quick else (343, (240, 1000))
    torch.set_num_threads(1)
    model = water(beads)
    runs = {}
    for name, length in zip(("reference", "production"), lengths):
        folder = CACHE / f"mw{beads}_{length}ps"
        run_production(
            model,
            folder,
            length=length,
            frame_interval=FRAME,
            equilibration=2.0 if options.quick else 20.0,
            seed=length,
        )
        runs[name] = folder / "beads.h5"

    profile = cProfile.Profile()
    times, found, reference = {}, {}, None
    for name, path in runs.items():
        with BeadTrajectory.open(path) as beads:
            begun = time.perf_counter()
            stress = stress_series(model, beads)
            times[f"{name}: stress of every frame"] = time.perf_counter() - begun
            begun, used = time.perf_counter(), time.process_time()
            if options.profile:
                profile.enable()
            measured = measure(beads, reference, stress=stress)
            reference = reference or measured
            found[name] = metrics(measured, None if reference is measured else reference)
            if name == "reference":
                found["noise_floor"] = noise_floor(measured)
            profile.disable()
            times[f"{name}: analysis"] = time.perf_counter() - begun
            times[f"{name}: analysis, CPU time of all threads"] = time.process_time() - used
    table(times, "s", 1.0)
    if options.profile:
        pstats.Stats(profile).sort_stats("cumulative").print_stats(45)
    if options.metrics:
        options.metrics.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
