"""Value and gradient of a rollout, against plain torch and JAX-MD.

Part one: 343 beads of mW water, 40 steps of Langevin dynamics. JAX-MD runs its neighbour-list Stillinger–Weber energy in
``lax.scan`` with checkpointing of each step, in another process, and gives gradients with respect to
its 6 parameters and the friction. Ours are with respect to the splines, 603 numbers, and the friction.
Part two: 343 beads of the potential fitted to SPC/E, 320 steps with three auxiliary variables, and the same with
pairwise friction, whose whole step is compared with one of Langevin dynamics, hardly more than a force.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from measure import (
    FRICTION,
    KT,
    MASS,
    cores,
    describe,
    drift,
    interleaved,
    liquid,
    spce_beads,
    table,
    thermal_state,
    verdict,
)

from openmm_cgadv import kernels
from openmm_cgadv.dynamics import PairFriction, propagator
from openmm_cgadv.dynamics import rollout as any_rollout
from openmm_cgadv.potentials import Potential
from openmm_cgadv.potentials.stillinger_weber import mw_water

DT = 0.005
PROTOTYPE = {"forward": 0.127, "gradient": 0.253 + 0.127}
"""Seconds that the project's first prototype took on the same machine, one thread, double precision."""


class JaxRollout:
    """JAX-MD at work in another process."""

    def __init__(self, python: str, file: Path, precision: str, use: list[int]):
        script = Path(__file__).with_name("jax_rollout.py")
        self.process = subprocess.Popen(
            [python, script, file, precision, ",".join(map(str, use))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def wait(self) -> bool:
        """Wait until it is compiled; False if it does not work."""
        line = self.process.stdout.readline()
        self.said = json.loads(line) if line else None
        return bool(line)

    def run(self, what: str) -> None:
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        if not self.process.stdout.readline():
            raise RuntimeError("the process of JAX-MD ended")

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


class Rollout:
    """Some replicas of one liquid, and what to do with them."""

    def __init__(self, spec, theta, x, box, auxiliary: int, replicas: int, steps: int):
        beads = len(x)
        self.spec, self.theta, self.steps = spec, theta, steps
        self.x, self.boxes = x.repeat(replicas, 1, 1), box.repeat(replicas, 1, 1)
        self.state = thermal_state(replicas, beads, auxiliary)
        self.types, self.masses = torch.zeros(beads, dtype=torch.int64), torch.full([beads], MASS)
        self.e, self.s = propagator(drift(auxiliary), DT)

    def run(self, gradient: bool, threads: int, precision: str = "double") -> None:
        """Mean square displacement, or its gradient, by the compiled kernels."""
        torch.set_num_threads(threads)
        theta, e, s = (t.detach().requires_grad_(gradient) for t in (self.theta, self.e, self.s))
        frames, _, _ = kernels.rollout(
            self.x,
            self.state,
            self.boxes,
            self.types,
            self.masses,
            KT,
            DT,
            [self.steps],
            theta,
            self.spec,
            e,
            s,
            1,
            precision=precision,
        )
        if gradient:
            torch.autograd.grad((frames[:, 0] - self.x).square().mean(), [theta, e, s])

    def run_plain(self, gradient: bool, steps: int) -> None:
        """The same in plain torch, of fewer steps."""
        torch.set_num_threads(1)
        theta, e, s = (t.detach().requires_grad_(gradient) for t in (self.theta, self.e, self.s))
        noise = torch.randn([steps, *self.state.shape], dtype=torch.float64)
        frames, _, _ = any_rollout(
            self.x,
            self.state,
            self.boxes,
            types=self.types,
            masses=self.masses,
            spec=self.spec,
            theta=theta,
            e=e,
            s=s,
            kT=KT,
            dt=DT,
            frames=[steps],
            noise=noise,
        )
        if gradient:
            torch.autograd.grad((frames[:, 0] - self.x).square().mean(), [theta, e, s])


class PairRollout(Rollout):
    """The same replicas with pairwise friction."""

    def run(self, gradient: bool, threads: int, precision: str = "double") -> None:
        torch.set_num_threads(threads)
        motion = PairFriction(1, self.state.shape[2] - 1, 2.0 * FRICTION, floor=0.6).requires_grad_(
            gradient
        )
        theta = self.theta.detach().requires_grad_(gradient)
        frames, _, _ = kernels.pair_rollout(
            self.x,
            self.state[:, :, 0],
            self.boxes,
            self.types,
            self.masses,
            KT,
            DT,
            [self.steps],
            theta,
            self.spec,
            motion.splines,
            motion.memory(),
            motion.r_min,
            motion.r_cut,
            1,
            precision=precision,
        )
        if gradient:
            torch.autograd.grad(
                (frames[:, 0] - self.x).square().mean(), [theta, motion.shapes, motion.log_rates]
            )


def repeated(work, *arguments):
    """``work`` as many times as it is told."""

    def run(number):
        for _ in range(number):
            work(*arguments)

    return run


def start_jax(python: str, rollout: Rollout, x, box) -> dict[tuple[str, int], JaxRollout]:
    """Processes of JAX-MD for precisions and numbers of cores; none if it does not work."""
    runs, usable = {}, sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        for precision, kind, use in [
            ("double", np.float64, usable[:1]),
            ("single", np.float32, usable[-1:]),
            ("double", np.float64, usable),
        ]:
            file = Path(folder) / f"{precision}.npz"
            np.savez(
                file,
                x=x.numpy().astype(kind),
                v=rollout.state[0, :, 0].numpy().astype(kind),
                edge=box[0, 0].item(),
                dt=DT,
                kT=KT,
                mass=MASS,
                steps=rollout.steps,
                friction=FRICTION,
            )
            if (precision, len(use)) not in runs:
                runs[precision, len(use)] = JaxRollout(python, file, precision, use)
        if not all(run.wait() for run in runs.values()):
            print(f"JAX-MD does not work with {python}; it is left out")
            return {}
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--jax-python", default=sys.executable, help="interpreter that has jax and jax-md"
    )
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument(
        "--quick", action="store_true", help="few steps and no JAX-MD, to see that it works"
    )
    options = parser.parse_args()
    beads, steps, long, plain, repeats, seconds, length = 343, 40, 320, 3, options.repeats, 0.4, 5.0
    if options.quick:
        beads, steps, long, plain, repeats, seconds, length = 216, 5, 10, 1, 1, 0.02, 0.5
    describe()
    torch.set_num_threads(1)
    spec, theta = mw_water()
    x, box = liquid(spec, theta, beads, 0.2 if options.quick else 5.0)
    one = Rollout(spec, theta, x, box, 0, 1, steps)
    counts = sorted({1, cores()})

    jax_runs = {} if options.quick else start_jax(options.jax_python, one, x, box)
    if jax_runs:
        ours = Potential(spec, theta, one.types)(x, box).item()
        said = jax_runs["double", 1].said
        print(
            f"JAX-MD    {said['versions']}; room for {said['neighbors']} neighbours, overflow: {said['overflow']}; "
            f"its gradients that are not numbers: {', '.join(said['not_finite']) or 'none'}"
        )
        print(f"energy    {said['energy']:.4f} kJ/mol in JAX-MD, {ours:.4f} here")

    cases = {}
    for what in ("forward", "gradient"):
        for number in counts:
            s = "s" * (number > 1)
            for replicas in (1, 2):
                several = Rollout(spec, theta, x, box, 0, replicas, steps)
                cases[f"{what}, ours, B={replicas}, {number} thread{s}"] = repeated(
                    several.run, what == "gradient", number
                )
            for precision in ("double", "single"):
                if (precision, number) in jax_runs:
                    cases[f"{what}, JAX-MD, {precision}, {number} core{s}"] = repeated(
                        jax_runs[precision, number].run, what
                    )
        cases[f"{what}, ours in single, B=1, 1 thread"] = repeated(
            one.run, what == "gradient", 1, "single"
        )
        cases[f"{what}, plain torch, 1 thread"] = repeated(one.run_plain, what == "gradient", plain)
    times = interleaved(cases, repeats, seconds)
    for run in jax_runs.values():
        run.close()
    for name in times:
        times[name] /= plain if "plain" in name else steps
        times[name] /= 2 if "B=2" in name else 1
    print(
        f"\nms per step and replica, mW, {beads} beads, rollouts of {steps} steps (plain torch: {plain}); gradient "
        f"includes forward; fastest of {repeats} blocks in turns"
    )
    table(times)
    for what in ("forward", "gradient"):
        ours = times[f"{what}, ours, B=1, 1 thread"]
        print(
            f"RATIO {what}, plain torch / ours: {times[f'{what}, plain torch, 1 thread'] / ours:.0f}"
        )
        if jax_runs:
            verdict(
                f"{what}, JAX-MD / ours, double, one core",
                times[f"{what}, JAX-MD, double, 1 core"] / ours,
                10,
            )
            single = times[f"{what}, ours in single, B=1, 1 thread"]
            verdict(
                f"{what}, JAX-MD in single / ours in single, one core",
                times[f"{what}, JAX-MD, single, 1 core"] / single,
                10,
            )
            if cores() > 1:
                n = cores()
                verdict(
                    f"{what}, JAX-MD / ours with B=2, double, {n} cores, a replica",
                    times[f"{what}, JAX-MD, double, {n} cores"]
                    / times[f"{what}, ours, B=2, {n} threads"],
                    10,
                )

    _, fit = spce_beads(beads, length)
    theta = torch.from_numpy(fit.theta)
    x, box = liquid(fit.spec, theta, beads, 0.2 if options.quick else 2.0)
    cases = {}
    for replicas, number in [(1, 1), (1, cores()), (2, 1), (2, cores())]:
        several = Rollout(fit.spec, theta, x, box, 3, replicas, long)
        for what in ("forward", "gradient"):
            cases[f"{what}, B={replicas}, {number} thread{'s' * (number > 1)}"] = repeated(
                several.run, what == "gradient", number
            )
    single = Rollout(fit.spec, theta, x, box, 3, 1, long)
    for what in ("forward", "gradient"):
        cases[f"{what}, single, B=1, 1 thread"] = repeated(
            single.run, what == "gradient", 1, "single"
        )
    pairs, langevin = (
        kind(fit.spec, theta, x, box, k, 1, long) for kind, k in ((PairRollout, 3), (Rollout, 0))
    )
    for precision in ("double", "single"):
        cases[f"forward, Langevin, {precision}, 1 thread"] = repeated(
            langevin.run, False, 1, precision
        )
        cases[f"forward, pair friction, {precision}, 1 thread"] = repeated(
            pairs.run, False, 1, precision
        )
    cases["gradient, pair friction, double, 1 thread"] = repeated(pairs.run, True, 1)
    times = interleaved(cases, repeats, seconds)
    print(
        f"\nms per rollout of all replicas, SPC/E beads, {beads} beads, {long} steps, K=3; gradient includes forward; "
        f"fastest of {repeats} blocks in turns"
    )
    table(times)
    if not options.quick:
        forward, both = times["forward, B=1, 1 thread"], times["gradient, B=1, 1 thread"]
        verdict("prototype's 127 ms / forward, one thread", PROTOTYPE["forward"] / forward, 3)
        verdict(
            "prototype's 253 ms / backward, one thread",
            (PROTOTYPE["gradient"] - PROTOTYPE["forward"]) / (both - forward),
            3,
        )
        for precision in ("double", "single"):
            whole, force = (
                times[f"forward, {name}, {precision}, 1 thread"]
                for name in ("pair friction", "Langevin")
            )
            verdict(
                f"2.5 Langevin steps / step with pair friction, {precision}", 2.5 * force / whole, 1
            )


if __name__ == "__main__":
    main()
