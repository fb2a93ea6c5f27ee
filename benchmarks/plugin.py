"""A step in OpenMM with each backend, from hundreds to a hundred thousand beads, and what its parts cost.

The potential is that of water fitted to SPC/E, on OpenMM's CPU platform, with Langevin dynamics at 10 fs. Every size is a
multiple of the same 500-bead liquid. Beside whole steps stand the bare kernel, called along a trajectory, and the
integrators without any force. Friction between pairs reaches as far as the first shell and is as strong as that of a
model trained on water.
"""

from __future__ import annotations

import argparse

import numpy as np
import openmm
import torch
from measure import (
    MASS,
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
from scaling import COPIES, copies

from openmm_cgadv import kernels
from openmm_cgadv.dynamics import (
    LangevinParameters,
    Neighborhood,
    PairFriction,
    PairFrictionParameters,
)
from openmm_cgadv.export import openmm_plugin
from openmm_cgadv.export.integrators import INTEGRATORS
from openmm_cgadv.export.integrators.generalized_langevin import memory_integrator
from openmm_cgadv.export.system import BACKENDS

DT = 0.010
MEMORY = 3
PAIR_FRICTION = 125.0
"""What a bead among independent neighbours feels (1/ps), see quality.md."""


def context(force, integrator, x, box, threads: int) -> openmm.Context:
    system = openmm.System()
    for _ in x:
        system.addParticle(MASS)
    system.setDefaultPeriodicBoxVectors(*np.asarray(box))
    if force is not None:
        system.addForce(force)
    made = openmm.Context(
        system, integrator, openmm.Platform.getPlatform("CPU"), {"Threads": str(threads)}
    )
    made.setPositions(np.asarray(x))
    made.setVelocitiesToTemperature(TEMPERATURE, 1)
    return made


def pair_friction(x: torch.Tensor, box: torch.Tensor) -> PairFrictionParameters:
    """Friction with memory between pairs, in a configuration of the liquid."""
    types, masses = (
        torch.zeros(len(x), dtype=torch.int64),
        torch.full([len(x)], MASS, dtype=torch.float64),
    )
    motion = PairFriction(1, MEMORY, 1.0, floor=0.6).requires_grad_(False)
    around = Neighborhood.measure(x[None], box[None], types, masses, motion.r_cut, motion.n_types)
    strength = PAIR_FRICTION / float(around.mean(motion.friction(around.r)))
    return PairFriction(1, MEMORY, strength, floor=0.6).export()


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument(
        "--quick", action="store_true", help="small systems and short blocks, to see that it works"
    )
    options = parser.parse_args()
    if (reason := openmm_plugin.why_not()) is not None:
        raise SystemExit(reason)
    sizes, repeats, molecules, length, seconds, steps = (
        list(COPIES),
        options.repeats,
        343,
        5.0,
        0.4,
        100,
    )
    if options.quick:
        sizes, repeats, molecules, length, seconds, steps = sizes[:2], 1, 216, 0.5, 0.05, 5
    describe("openmm", "openmmtorch")
    _, fit = spce_beads(molecules, length)
    theta = torch.from_numpy(fit.theta)
    x500, box500 = liquid(fit.spec, theta, 500, length)
    backends = [name for name, module in BACKENDS.items() if module.why_not() is None]
    ratios = {}
    for size in sizes:
        x, box = copies(x500, box500, COPIES[size])
        types = np.zeros(size, np.int64)
        for threads in sorted({1, cores()}):
            torch.set_num_threads(threads)
            contexts = {
                f"{name}, Langevin": context(
                    BACKENDS[name].create_force(fit.spec, fit.theta, types, plain=False),
                    INTEGRATORS["langevin"].create(
                        LangevinParameters(drift(0)), types, TEMPERATURE, DT, 1
                    ),
                    x,
                    box,
                    threads,
                )
                for name in backends
            }
            memory = drift(MEMORY).numpy()
            contexts["plugin, its integrator, K=3"] = context(
                BACKENDS["plugin"].create_force(fit.spec, fit.theta, types, plain=False),
                openmm_plugin.create_integrator(memory, types, TEMPERATURE, DT, 1),
                x,
                box,
                threads,
            )
            contexts["plugin, pair friction, K=3"] = context(
                BACKENDS["plugin"].create_force(fit.spec, fit.theta, types, plain=False),
                openmm_plugin.create_pair_integrator(
                    pair_friction(x500, box500), types, TEMPERATURE, DT, 1
                ),
                x,
                box,
                threads,
            )
            for name, make in (
                ("the plugin's integrator", openmm_plugin.create_integrator),
                ("CustomIntegrator", memory_integrator),
            ):
                contexts[f"no force, {name}, K=3"] = context(
                    None, make(memory, types, TEMPERATURE, DT, 1), x, box, threads
                )
            no_force = INTEGRATORS["langevin"].create(
                LangevinParameters(drift(0)), types, TEMPERATURE, DT, 1
            )
            contexts["no force, Langevin"] = context(None, no_force, x, box, threads)
            for made in contexts.values():
                made.getIntegrator().step(5)
            # So long that its neighbour list ages as in a run, and no longer than memory allows.
            frames = trajectory_of(
                contexts["plugin, Langevin"], max(20, min(steps, 2_000_000 // size))
            )

            def kernel(number: int, frames=frames, box=box, types=torch.from_numpy(types)) -> None:
                for step in range(number):
                    # There and back, so that neighbouring calls see neighbouring configurations.
                    at = step % (2 * len(frames) - 2)
                    frame = frames[at if at < len(frames) else 2 * len(frames) - 2 - at]
                    kernels.energy_forces(frame, box, types, theta, fit.spec, "single")

            cases = {name: made.getIntegrator().step for name, made in contexts.items()}
            cases["kernel alone, single"] = kernel
            times = interleaved(cases, repeats, seconds)
            print(
                f"\nms per step, {size} beads, {threads} thread{'s' * (threads > 1)}, fastest of {repeats} blocks in turns"
            )
            table(times)
            ratios[size, threads] = {
                "step with the plugin / bare kernel": times["plugin, Langevin"]
                / times["kernel alone, single"],
                "step with pair friction / bare kernel": times["plugin, pair friction, K=3"]
                / times["kernel alone, single"],
                "integrator": times["no force, CustomIntegrator, K=3"]
                / times["no force, the plugin's integrator, K=3"],
            }
    print()
    for (size, threads), found in ratios.items():
        for what, target in (
            ("step with the plugin / bare kernel", 1.5),
            ("step with pair friction / bare kernel", 2.5),
        ):
            met = "met" if found[what] <= target else "MISSED"
            print(
                f"RATIO {size} beads, {threads} threads, {what}: {found[what]:.2f} (target <= {target}: {met})"
            )
    for (size, threads), found in ratios.items():
        label = f"{size} beads, {threads} threads, K=3, CustomIntegrator / the plugin's integrator"
        verdict(label, found["integrator"], 5)


if __name__ == "__main__":
    main()
