"""What the form of the energy can reach in structure: relative entropy alone, for several three-body bases.

Each fit starts from force matching and descends along the relative entropy over persistent chains, by the steps of the
training, but with a fixed friction, which structure does not depend on. The last quarter of its parameters is averaged, run, and compared with the reference.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from pathlib import Path

import torch
from measure import TEMPERATURE, describe, spce_beads

from openmm_cgadv import config
from openmm_cgadv.analysis.adf import adf, adf_l1
from openmm_cgadv.analysis.blocks import split_halves
from openmm_cgadv.analysis.rdf import rdf, rdf_l1
from openmm_cgadv.analysis.shells import shell_radii
from openmm_cgadv.data.trajectory import BeadTrajectory, BeadWriter
from openmm_cgadv.dynamics import Langevin, rollout
from openmm_cgadv.fit import RelativeEntropy, fit_initial
from openmm_cgadv.units import KB

FRICTION = 15.0
"""(1/ps)"""
DT = 0.01
"""(ps)"""
EVERY = 10
"""Steps between the configurations that are averaged over."""
CHAINS = 4

BASES = [
    ("none", {"three_body": False}, 450),
    ("1, l ≤ 4", {"radial_functions": 1}, 450),
    ("2, l ≤ 4", {"radial_functions": 2}, 150),
    ("2, l ≤ 4", {"radial_functions": 2}, 450),
    ("2, l ≤ 4", {"radial_functions": 2}, 1500),
    ("3, l ≤ 4", {}, 450),
    ("3, l ≤ 6", {"l_max": 6}, 450),
    ("4, l ≤ 6", {"radial_functions": 4, "l_max": 6}, 450),
    ("3, l ≤ 4", {}, 1500),
]
"""Radial functions and orders; settings of the section `potential`; iterations."""


class Liquid:
    """Persistent chains of a potential with a fixed friction."""

    def __init__(self, trajectory: BeadTrajectory, spec, chains: int):
        starts = torch.linspace(0, trajectory.n_frames - 1, chains).long().tolist()
        self.x = torch.from_numpy(trajectory.positions(starts))
        self.boxes = torch.from_numpy(trajectory.boxes(starts))
        self.types, self.masses = (
            torch.from_numpy(trajectory.types),
            torch.from_numpy(trajectory.masses),
        )
        self.kT = KB * trajectory.temperature
        thermal = (self.kT / self.masses).sqrt()[None, :, None, None]
        self.state = thermal * torch.randn([chains, trajectory.n_beads, 1, 3], dtype=torch.float64)
        self.spec, self.seed = spec, 0
        self.e, self.s = (
            part.detach() for part in Langevin(len(trajectory.type_names), FRICTION).propagator(DT)
        )

    def run(self, theta: torch.Tensor, configurations: int) -> torch.Tensor:
        """Configurations [chains, configurations, N, 3] as the chains go on."""
        self.seed += 1
        frames = [EVERY * (k + 1) for k in range(configurations)]
        with torch.no_grad():
            found, self.x, self.state = rollout(
                self.x,
                self.state,
                self.boxes,
                types=self.types,
                masses=self.masses,
                spec=self.spec,
                theta=theta,
                e=self.e,
                s=self.s,
                kT=self.kT,
                dt=DT,
                frames=frames,
                damping_time=math.inf,
                seed=self.seed,
            )
        return found


def fit(trajectory: BeadTrajectory, settings: dict, iterations: int):
    """Potential and averaged parameters, and the chains."""
    initial = fit_initial(trajectory, config.Potential(**settings))
    entropy = RelativeEntropy(trajectory, initial.spec)
    phi = entropy.phi(torch.from_numpy(initial.theta))
    liquid, kept = Liquid(trajectory, initial.spec, CHAINS), []
    boxes = liquid.boxes.repeat_interleave(6, 0)
    for iteration in range(iterations):
        gradient = -entropy.coordinates(
            liquid.run(entropy.theta(phi), 6).flatten(0, 1), boxes
        ).mean(0)
        rate = 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * iteration / iterations))
        entropy.descend(phi, gradient, liquid.kT, rate)
        if iteration >= int(0.75 * iterations):
            kept.append(phi.clone())
    return initial.spec, entropy.theta(torch.stack(kept).mean(0)), liquid


def write(
    path: Path, trajectory: BeadTrajectory, liquid: Liquid, theta: torch.Tensor, length: float
) -> None:
    """Run a potential and write its configurations one chain after the other (structure alone is measured)."""
    parts = math.ceil(length / (CHAINS * 100 * EVERY * DT))
    liquid.run(theta, 200)
    found = [liquid.run(theta, 100) for _ in range(parts)]
    with BeadWriter(
        path,
        trajectory.masses,
        trajectory.types,
        trajectory.type_names,
        trajectory.temperature,
        EVERY * DT,
        {},
    ) as writer:
        for chain, box in enumerate(liquid.boxes.numpy()):
            for part in found:
                x = part[chain].numpy()
                writer.append(x, box[None].repeat(len(x), 0))
        writer.finish()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--beads",
        type=Path,
        help="bead file of the reference; a short one of SPC/E water is made by default",
    )
    parser.add_argument(
        "--length", type=float, default=400.0, help="length of the runs that are measured (ps)"
    )
    parser.add_argument("--quick", action="store_true", help="only show that it works")
    options = parser.parse_args()
    describe("e3nn")
    torch.manual_seed(1)
    rows, length = BASES, options.length
    if options.quick:
        rows, length = [(name, settings, 3) for name, settings, _ in (BASES[0], BASES[5])], 4.0
    beads = (
        options.beads
        or spce_beads(216 if options.quick else 343, 0.5 if options.quick else 240.0)[0]
    )
    with BeadTrajectory.open(beads) as trajectory, tempfile.TemporaryDirectory() as folder:
        pairs = rdf(trajectory)
        radii = shell_radii(pairs)
        angles = adf(trajectory, radii)
        first, second = split_halves(pairs.n_blocks)
        print(
            f"{trajectory.n_beads} beads, {trajectory.n_frames * trajectory.frame_interval:g} ps, {TEMPERATURE} K; between the halves: "
            f"rdf_l1 {rdf_l1(pairs, pairs, second, first):.4f}, adf_l1 {adf_l1(angles, angles, second, first):.4f}\n"
        )
        print(
            "| radial functions, orders | parameters | iterations | rdf_l1 | adf_l1 | fit, s |\n|---|---|---|---|---|---|"
        )
        for k, (name, settings, iterations) in enumerate(rows):
            begun = time.process_time()
            spec, theta, liquid = fit(trajectory, settings, iterations)
            seconds = time.process_time() - begun
            path = Path(folder) / f"{k}.h5"
            write(path, trajectory, liquid, theta, length)
            with BeadTrajectory.open(path) as run:
                found = rdf(run, r_max=pairs.edges[-1])
                own = adf(run, radii)
            print(
                f"| {name} | {spec.n_parameters} | {iterations} | {rdf_l1(found, pairs):.4f} | "
                f"{adf_l1(own, angles):.4f} | {seconds:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
