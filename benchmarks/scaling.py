"""Cost of energy and forces a bead and step, from hundreds to a hundred thousand beads.

The potential is that of water fitted to SPC/E. Configurations are those of Langevin dynamics at 10 fs, so that neighbour
lists age and are rebuilt as in a run; only the calls for energy and forces are timed. Every size is
a multiple of the same 500-bead liquid, so that its density and structure are the same.
"""

from __future__ import annotations

import argparse
import math
import time

import torch
from measure import FRICTION, KT, MASS, cores, describe, liquid, spce_beads

from openmm_cgadv import kernels

COPIES = {500: (1, 1, 1), 5000: (1, 2, 5), 50000: (4, 5, 5), 100000: (4, 5, 10)}
DT = 0.010


def copies(
    x: torch.Tensor, box: torch.Tensor, counts: tuple[int, int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """A liquid repeated along its box vectors: positions and box."""
    cells = torch.cartesian_prod(*(torch.arange(n) for n in counts)).to(torch.float64)
    return (x[None] + (cells @ box)[:, None]).reshape(-1, 3), box * torch.tensor(counts)[:, None]


class Run:
    """Langevin dynamics that times its forces."""

    def __init__(self, x, box, spec, theta, precision, threads):
        self.x, self.box, self.spec, self.theta = x.clone(), box, spec, theta
        self.precision, self.threads = precision, threads
        self.types = torch.zeros(len(x), dtype=torch.int64)
        self.generator = torch.Generator().manual_seed(0)
        self.v = self.noise()
        self.decay = math.exp(-FRICTION * DT)

    def noise(self):
        draw = torch.randn(self.x.shape, generator=self.generator, dtype=torch.float32)
        return math.sqrt(KT / MASS) * draw.to(torch.float64)

    def advance(self, steps: int) -> float:
        """Do some steps; returns the time of all their force calls (s)."""
        torch.set_num_threads(self.threads)
        spent = 0.0
        for _ in range(steps):
            begun = time.perf_counter()
            _, force = kernels.energy_forces(
                self.x, self.box, self.types, self.theta, self.spec, self.precision
            )
            spent += time.perf_counter() - begun
            self.v += DT / MASS * force
            self.x += 0.5 * DT * self.v
            self.v = self.decay * self.v + math.sqrt(1 - self.decay**2) * self.noise()
            self.x += 0.5 * DT * self.v
        return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument(
        "--quick", action="store_true", help="small systems and few steps, to see that it works"
    )
    options = parser.parse_args()
    sizes, repeats, molecules, length, work = list(COPIES), options.repeats, 343, 5.0, 300_000
    if options.quick:
        sizes, repeats, molecules, length, work = sizes[:2], 1, 216, 0.5, 50_000
    describe()
    torch.set_num_threads(1)
    _, fit = spce_beads(molecules, length)
    theta = torch.from_numpy(fit.theta)
    x, box = liquid(fit.spec, theta, 500, 0.2 if options.quick else 2.0, DT)
    modes = [
        (precision, threads)
        for threads in sorted({1, cores()})
        for precision in ("double", "single")
    ]
    best = {}
    for mode in modes:
        runs = {}
        for size in sizes:
            runs[size] = Run(*copies(x, box, COPIES[size]), fit.spec, theta, *mode)
            # The copies part soon, because their velocities differ.
            runs[size].advance(20)
        for _ in range(repeats):
            for size, run in runs.items():
                steps = max(10, work // size)
                spent = run.advance(steps) / steps / size
                best[size, mode] = min(best.get((size, mode), spent), spent)
    print(f"\nns per bead and step, fastest of {repeats} blocks in turns")
    print(
        f"  {'beads':>8}"
        + "".join(f"{precision + ', ' + str(n):>14}" for precision, n in modes)
        + "   (precision, threads)"
    )
    for size in sizes:
        print(f"  {size:8d}" + "".join(f"{1e9 * best[size, mode]:14.1f}" for mode in modes))
    for mode in modes:
        values = [best[size, mode] for size in sizes]
        spread = max(values) / min(values) - 1
        target = (
            f" (target <= 30 %: {'met' if spread <= 0.3 else 'MISSED'})" if mode[1] == 1 else ""
        )
        print(
            f"SPREAD {mode[0]}, {mode[1]} thread{'s' * (mode[1] > 1)}: {100 * spread:.0f} %{target}"
        )


if __name__ == "__main__":
    main()
