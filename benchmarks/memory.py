"""Peak memory of a differentiable rollout, forward and backward, against what it has to keep.

The backward pass needs the positions and the state of every step: T · B · N · (K + 2) · 24 bytes. Each length runs in a
process of its own after a rollout of one step. Linux tells the peak of the resident memory from then on.
"""

from __future__ import annotations

import argparse
import ctypes
import subprocess
import sys
from pathlib import Path

import torch
from measure import KT, MASS, describe, drift, liquid, thermal_state

from openmm_cgadv import kernels
from openmm_cgadv.dynamics import propagator
from openmm_cgadv.potentials.stillinger_weber import mw_water

DT, AUXILIARY = 0.005, 3


def resident(field: str) -> int:
    """``VmRSS`` or its peak ``VmHWM`` of this process (bytes)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def growth(steps: int, replicas: int, beads: int) -> int:
    """How far the resident memory grows above its start (bytes) in a rollout and its gradient."""
    torch.set_num_threads(1)
    spec, theta = mw_water()
    x, box = liquid(spec, theta, beads, 0.05)
    theta.requires_grad_()
    e, s = (m.requires_grad_() for m in propagator(drift(AUXILIARY), DT))
    state = thermal_state(replicas, beads, AUXILIARY)

    def run(steps: int) -> None:
        frames, _, _ = kernels.rollout(
            x.repeat(replicas, 1, 1),
            state,
            box.repeat(replicas, 1, 1),
            torch.zeros(beads, dtype=torch.int64),
            torch.full([beads], MASS),
            KT,
            DT,
            [steps],
            theta,
            spec,
            e,
            s,
            1,
            damping_time=0.07,
        )
        frames.square().mean().backward()

    # Memory that is free but not returned to the system would hide growth.
    getattr(ctypes.CDLL(None), "malloc_trim", int)(0)
    run(1)
    # Forget the peak so far.
    Path("/proc/self/clear_refs").write_text("5")
    start = resident("VmRSS")
    run(steps)
    return resident("VmHWM") - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, nargs="+", default=[50, 500])
    parser.add_argument("--beads", type=int, default=2000)
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="few steps, to see that it works")
    parser.add_argument("--grow", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    replicas, beads = options.replicas, options.beads
    if not Path("/proc/self/clear_refs").exists():
        raise SystemExit(
            "the peak of the resident memory is not known on this system, only on Linux"
        )
    if options.grow is not None:
        print(growth(options.grow, replicas, beads))
        return
    describe()
    print(f"\n{replicas} replicas of {beads} beads, K = {AUXILIARY}, forward and backward")
    for steps in [50, 100] if options.quick else options.steps:
        command = [
            sys.executable,
            __file__,
            "--grow",
            str(steps),
            "--beads",
            str(beads),
            "--replicas",
            str(replicas),
        ]
        found = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        predicted = steps * replicas * beads * (AUXILIARY + 2) * 24
        print(
            f"  T = {steps:4d}: {found / 2**20:8.1f} MiB, predicted {predicted / 2**20:8.1f} MiB, "
            f"RATIO {found / predicted:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
