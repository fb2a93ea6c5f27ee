"""A step of coarse-grained water in OpenMM, against all-atom SPC/E and OpenMM's own three-body force.

The 512 beads carry pair splines to 0.7 nm and three-body densities to 0.40 nm, fitted to forces of a short
SPC/E run that the first call makes. All cases run on OpenMM's CPU platform in the same process, in turns.
"""

from __future__ import annotations

import argparse

import numpy as np
import openmm
import torch
from measure import (
    KT,
    TEMPERATURE,
    cores,
    describe,
    drift,
    interleaved,
    liquid,
    spce_beads,
    table,
    verdict,
)

from openmm_cgadv import kernels
from openmm_cgadv.data.reference.systems import liquid_box
from openmm_cgadv.data.trajectory import BeadTrajectory
from openmm_cgadv.dynamics import GeneralizedLangevinParameters, LangevinParameters
from openmm_cgadv.export.backends import plugin
from openmm_cgadv.export.backends.torchforce import _openmmtorch
from openmm_cgadv.export.backends.torchforce import why_not as no_torchforce
from openmm_cgadv.model import Model
from openmm_cgadv.potentials.stillinger_weber import KCAL, mw_water

BEAD_STEP, ATOM_STEP = 0.010, 0.002
PLATFORM = openmm.Platform.getPlatformByName("CPU")


class Nothing(torch.nn.Module):
    """An energy of zero, to see what TorchForce itself costs."""

    def forward(
        self, positions: torch.Tensor, box: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros([], dtype=positions.dtype), torch.zeros_like(positions)


def context(system, integrator, positions, threads: int, box=None) -> openmm.Context:
    made = openmm.Context(system, integrator, PLATFORM, {"Threads": str(threads)})
    if box is not None:
        made.setPeriodicBoxVectors(*np.asarray(box))
    made.setPositions(np.asarray(positions))
    made.setVelocitiesToTemperature(TEMPERATURE, 1)
    return made


def all_atom(molecules: int, threads: int) -> openmm.Context:
    """SPC/E with PME and rigid molecules, brought near equilibrium."""
    _, system, positions = liquid_box("spce", molecules, TEMPERATURE)
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 10.0, ATOM_STEP)
    made = context(system, integrator, positions, threads)
    openmm.LocalEnergyMinimizer.minimize(made, maxIterations=100)
    made.setVelocitiesToTemperature(TEMPERATURE, 1)
    integrator.step(200)
    integrator.setFriction(0.1)
    return made


def bare(beads: int, mass: float, box) -> openmm.System:
    system = openmm.System()
    system.setDefaultPeriodicBoxVectors(*np.asarray(box))
    for _ in range(beads):
        system.addParticle(mass)
    return system


def stillinger_weber(beads: int, mass: float, box) -> openmm.System:
    """mW water by OpenMM's CustomNonbondedForce and CustomManyParticleForce."""
    system = bare(beads, mass, box)
    constants = f"eps={6.189 * KCAL}; sigma=0.23925; a=1.8; A=7.049556277; B=0.6022245584; lambda=23.15; gamma=1.2"
    pair = openmm.CustomNonbondedForce(
        f"step(a*sigma-r)*A*eps*(B*(sigma/r)^4-1)*exp(sigma/(min(r,0.99999*a*sigma)-a*sigma)); {constants}"
    )
    three = openmm.CustomManyParticleForce(
        3,
        "lambda*eps*(cos(angle(p2,p1,p3))+1/3)^2*g2*g3;"
        "g2=step(a*sigma-r2)*exp(gamma*sigma/(min(r2,0.99999*a*sigma)-a*sigma));"
        "g3=step(a*sigma-r3)*exp(gamma*sigma/(min(r3,0.99999*a*sigma)-a*sigma));"
        f"r2=distance(p1,p2); r3=distance(p1,p3); {constants}",
    )
    three.setPermutationMode(openmm.CustomManyParticleForce.UniqueCentralParticle)
    for force in (pair, three):
        force.setNonbondedMethod(type(force).CutoffPeriodic)
        force.setCutoffDistance(1.8 * 0.23925)
        for _ in range(beads):
            force.addParticle([])
        system.addForce(force)
    return system


def torch_force(module, beads: int, mass: float, box) -> openmm.System:
    system = bare(beads, mass, box)
    force = _openmmtorch().TorchForce(torch.jit.script(module))
    force.setUsesPeriodicBoundaryConditions(True)
    force.setOutputsForces(True)
    system.addForce(force)
    return system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--molecules", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--quick", action="store_true", help="a small system and short blocks, to see that it works"
    )
    options = parser.parse_args()
    if (reason := no_torchforce()) is not None:
        raise SystemExit(f"TorchForce does not load here: {reason}")
    molecules, repeats, seconds, length = options.molecules, options.repeats, 0.5, 5.0
    if options.quick:
        molecules, repeats, seconds, length = 216, 1, 0.05, 0.5
    threads = cores()
    describe("openmm", "openmmtorch")
    torch.set_num_threads(threads)
    path, fit = spce_beads(molecules, length)
    with BeadTrajectory.open(path) as trajectory:
        x, box = trajectory.positions([-1])[0], trajectory.boxes([-1])[0]
        mass = float(trajectory.masses[0])

    def model(auxiliary: int) -> Model:
        kind = GeneralizedLangevinParameters if auxiliary else LangevinParameters
        return Model(
            spec=fit.spec,
            theta=fit.theta,
            masses=np.array([mass]),
            temperature=TEMPERATURE,
            timestep=BEAD_STEP,
            friction=kind(drift(auxiliary)),
            types=np.zeros(molecules, np.int64),
            positions=x,
            box=box,
        )

    def beads(auxiliary: int, threads: int, backend: str = "torchforce") -> openmm.Context:
        """Through TorchForce and an integrator of OpenMM itself, or the plugin's force and, for memory, integrator."""
        torch.set_num_threads(threads)
        made = model(auxiliary)
        system = made.create_system(backend=backend)
        own = "plugin" if backend == "plugin" and auxiliary else "openmm"
        return context(system, made.create_integrator(seed=1, backend=own), x, threads, box)

    mw_spec, mw_theta = mw_water()
    mw_x, mw_box = liquid(mw_spec, mw_theta, molecules, 0.5 if options.quick else 5.0)
    bead_integrator = model(0).create_integrator
    aa = f"all-atom SPC/E, 2 fs, {threads} threads"
    plugins = {}
    if plugin.why_not() is None:
        for auxiliary, motion in ((0, "Langevin"), (3, "memory K=3")):
            for number in sorted({1, threads}):
                name = f"beads, {motion}, plugin, 10 fs, {number} thread{'s' * (number > 1)}"
                plugins[name] = beads(auxiliary, number, "plugin")
    many = f"mW by CustomManyParticleForce, {threads} threads"
    contexts = {
        aa: all_atom(molecules, threads),
        f"beads, Langevin, 10 fs, {threads} threads": beads(0, threads),
        "beads, Langevin, 10 fs, 1 thread": beads(0, 1),
        f"beads, memory K=3, 10 fs, {threads} threads": beads(3, threads),
        "beads, memory K=3, 10 fs, 1 thread": beads(3, 1),
        **plugins,
        many: context(
            stillinger_weber(molecules, mass, mw_box), bead_integrator(seed=1), mw_x, threads
        ),
        "mW by these kernels, Langevin, 1 thread": context(
            torch_force(
                kernels.FusedPotential(
                    mw_spec, mw_theta, torch.zeros(molecules, dtype=torch.int64), "double", 1
                ),
                molecules,
                mass,
                mw_box,
            ),
            bead_integrator(seed=1),
            mw_x,
            1,
        ),
        "TorchForce that returns zeros, Langevin, 1 thread": context(
            torch_force(Nothing(), molecules, mass, box), bead_integrator(seed=1), x, 1
        ),
        "no force, Langevin, 1 thread": context(
            bare(molecules, mass, box), bead_integrator(seed=1), x, 1
        ),
        "no force, memory K=3, 1 thread": context(
            bare(molecules, mass, box), model(3).create_integrator(seed=1, backend="openmm"), x, 1
        ),
    }
    cases = {name: made.getIntegrator().step for name, made in contexts.items()}

    # The bare kernel along a trajectory of the model, so that its neighbour list ages as in a run.
    path_x = trajectory_of(
        contexts["beads, Langevin, 10 fs, 1 thread"], 20 if options.quick else 200
    )
    theta, types = torch.from_numpy(fit.theta), torch.zeros(molecules, dtype=torch.int64)

    def kernel(precision: str, threads: int):
        def run(steps: int) -> None:
            torch.set_num_threads(threads)
            for step in range(steps):
                # There and back, so that neighbouring calls see neighbouring configurations.
                at = step % (2 * len(path_x) - 2)
                frame = path_x[at if at < len(path_x) else 2 * len(path_x) - 2 - at]
                kernels.energy_forces(
                    frame, torch.from_numpy(box), types, theta, fit.spec, precision
                )

        return run

    for precision in ("double", "single"):
        for number in sorted({1, threads}):
            cases[f"kernel alone, {precision}, {number} thread{'s' * (number > 1)}"] = kernel(
                precision, number
            )
    for made in contexts.values():
        made.getIntegrator().step(20)
    times = interleaved(cases, repeats, seconds)

    print(f"\nms per step, {molecules} molecules, fastest of {repeats} blocks in turns")
    table(times)
    print("ns/day")
    speed = {}
    for name in times:
        if name == aa or "10 fs" in name:
            speed[name] = (ATOM_STEP if name == aa else BEAD_STEP) * 86.4 / times[name]
            print(f"  {name:<45} {speed[name]:10.0f}")
    for name in contexts:
        if "beads" in name:
            state = contexts[name].getState(energy=True)
            kinetic = state.getKineticEnergy()._value / (1.5 * molecules * KT)
            print(f"  kinetic temperature of {name}: {kinetic * TEMPERATURE:.0f} K")
    for motion, target in (
        ("Langevin, 10 fs", 40),
        ("memory K=3, 10 fs", None),
        ("Langevin, plugin", 40),
        ("memory K=3, plugin", 60),
    ):
        best = max(
            (value for name, value in speed.items() if f"beads, {motion}" in name), default=0
        )
        label = motion.removesuffix(", 10 fs")
        verdict(f"ns/day, beads with {label} / all-atom", best / speed[aa], target)
    langevin = min(value for name, value in times.items() if "beads, Langevin, 10 fs" in name)
    verdict("step, CustomManyParticleForce / beads with Langevin", times[many] / langevin, 60)
    mw = times["mW by these kernels, Langevin, 1 thread"]
    print(
        f"RATIO step, CustomManyParticleForce / the same mW by these kernels: {times[many] / mw:.1f}"
    )


def trajectory_of(made: openmm.Context, steps: int) -> list[torch.Tensor]:
    """Positions [N, 3] (nm) of every step of a run."""
    frames = []
    for _ in range(steps):
        made.getIntegrator().step(1)
        frames.append(
            torch.from_numpy(
                np.array(made.getState(positions=True).getPositions(asNumpy=True)._value)
            )
        )
    return frames


if __name__ == "__main__":
    main()
