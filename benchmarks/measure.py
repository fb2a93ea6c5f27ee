"""What the benchmarks share: the machine's description, interleaved timing, and water to measure with."""

from __future__ import annotations

import importlib.util
import math
import os
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).parents[1]
if importlib.util.find_spec("openmm_cgadv") is None:
    sys.path.insert(0, str(ROOT))

from openmm_cgadv import kernels  # noqa: E402
from openmm_cgadv.dynamics import GeneralizedLangevin, propagator  # noqa: E402
from openmm_cgadv.units import KB  # noqa: E402

CACHE = ROOT / "runs" / "benchmarks"
TEMPERATURE = 298.15
KT = KB * TEMPERATURE
MASS = 18.01528
"""Of a water molecule (dalton)."""
DENSITY = 33.36
"""Water molecules per nm³ at 298 K and 1 bar."""
FRICTION = 20.0
"""Of the beads (1/ps), about what training finds for water."""


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def describe(*packages: str) -> None:
    """Print the machine, the build of the kernels and the versions of what is measured."""
    name = next(
        (
            line.split(":")[1].strip()
            for line in open("/proc/cpuinfo")
            if line.startswith("model name")
        ),
        "unknown",
    )
    build = kernels.instruction_set() if kernels.available() else f"none: {kernels.why_not()}"
    found = [f"python {sys.version.split()[0]}"]
    for package in ("torch", "numpy", *packages):
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            found.append(f"{package} not installed")
    print(f"machine   {name}, {cores()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"kernels   {build}")
    print(f"versions  {', '.join(found)}", flush=True)


def interleaved(
    cases: dict[str, Callable[[int], None]], repeats: int, seconds: float
) -> dict[str, float]:
    """Time a step of each case (s): the fastest of some blocks, taken in turns.

    Parameters
    ----------
    cases : dict of callable
        Each does as many steps as it is told.
    repeats : int
        Number of turns.
    seconds : float
        About the length of a block.
    """
    steps, best = {}, dict.fromkeys(cases, math.inf)
    for name, case in cases.items():
        case(1)
        number, spent = 1, 0.0
        while True:
            begun = time.perf_counter()
            case(number)
            spent = time.perf_counter() - begun
            if spent > 0.2 * seconds:
                break
            number = math.ceil(number * min(10.0, 0.5 * seconds / max(spent, 1e-9)))
        steps[name] = max(1, round(number * seconds / spent))
    for _ in range(repeats):
        for name, case in cases.items():
            begun = time.perf_counter()
            case(steps[name])
            best[name] = min(best[name], (time.perf_counter() - begun) / steps[name])
    return best


def table(rows: dict[str, float], unit: str = "ms", scale: float = 1e3) -> None:
    """Print times (s), one a line."""
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"  {name:<{width}}  {value * scale:10.4f} {unit}", flush=True)


def verdict(label: str, ratio: float, target: float | None) -> None:
    """Print a ratio beside the smallest that is wanted, if there is one."""
    wanted = ""
    if target is not None:
        wanted = f" (target >= {target:g}: {'met' if ratio >= target else 'MISSED'})"
    print(f"RATIO {label}: {ratio:.1f}{wanted}", flush=True)


def spce_beads(molecules: int, length: float):
    """All-atom SPC/E water and the potential that force matching finds for its molecules as beads.

    Made once and kept under ``runs/benchmarks``.

    Parameters
    ----------
    length : float
        Of the all-atom run after its equilibration, which is as long (ps).

    Returns
    -------
    trajectory : Path
        H5MD file of beads.
    fit : InitialFit
    """
    from openmm_cgadv.config import Potential
    from openmm_cgadv.data.reference import run_liquid
    from openmm_cgadv.data.trajectory import BeadTrajectory
    from openmm_cgadv.fit import InitialFit, fit_initial

    directory = CACHE / f"spce{molecules}_{length:g}ps"
    path = run_liquid(
        directory / "beads.h5",
        liquid="spce",
        molecules=molecules,
        temperature=TEMPERATURE,
        length=length,
        equilibration_ps=length,
        platform="CPU",
    )
    if not (directory / "fit.json").exists():
        with BeadTrajectory.open(path) as trajectory:
            fit_initial(trajectory, Potential()).save(directory)
    return path, InitialFit.load(directory)


def drift(auxiliary: int) -> torch.Tensor:
    """Friction and memory matrix [1, K + 1, K + 1] (1/ps) of beads of water."""
    return (
        GeneralizedLangevin(1, auxiliary, FRICTION, floor=0.6 if auxiliary else 0.0)
        .drift()
        .detach()
    )


def thermal_state(replicas: int, beads: int, auxiliary: int, seed: int = 0) -> torch.Tensor:
    """Velocities and auxiliary variables [B, N, K + 1, 3] (nm/ps) in equilibrium."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(
        [replicas, beads, auxiliary + 1, 3], dtype=torch.float64, generator=generator
    )
    return noise * math.sqrt(KT / MASS)


def liquid(spec, theta: torch.Tensor, beads: int, length: float, dt: float = 0.005, seed: int = 0):
    """Positions [N, 3] and box [3, 3] (nm) of beads at the density of water.

    They melt from a lattice and move for ``length`` ps.
    """
    edge = (beads / DENSITY) ** (1 / 3)
    side = math.ceil(beads ** (1 / 3) - 1e-9)
    sites = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1).reshape(-1, 3)
    kept = np.random.default_rng(seed).permutation(len(sites))[:beads]
    x = torch.from_numpy((sites[kept] + 0.5) * edge / side)[None]
    box = torch.eye(3, dtype=torch.float64) * edge
    state = thermal_state(1, beads, 0, seed)
    for part, (step, duration) in enumerate(((0.2 * dt, 0.1), (dt, length))):
        e, s = propagator(drift(0), step)
        _, x, state = kernels.rollout(
            x,
            state,
            box[None],
            torch.zeros(beads, dtype=torch.int64),
            torch.full([beads], MASS),
            KT,
            step,
            [max(1, round(duration / step))],
            theta,
            spec,
            e,
            s,
            seed + part,
        )
    return x[0], box
