"""How critics lead a wrong memory to a right one that is known: beads that feel friction, memory and noise alone.

Training starts from memory whose slow part is too slow, or too fast. Beads without forces make it cheap, and the truth exact.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from measure import KT, MASS, TEMPERATURE, describe, thermal_state

from openmm_cgadv import config
from openmm_cgadv.data.trajectory import BeadTrajectory, BeadWriter
from openmm_cgadv.dynamics import GeneralizedLangevin, rollout
from openmm_cgadv.fit import InitialFit
from openmm_cgadv.methods.adversarial import AdversarialTraining
from openmm_cgadv.potentials import PairSpec, PotentialSpec

DT, LENGTH, WINDOW = 0.01, 8.0, 1.92
NOTHING = InitialFit(
    PotentialSpec(("A",), (PairSpec((0.2,), 0.5, 6, (0.0,)),)), np.zeros(6), np.zeros(6)
)

# Friction without memory, rates and couplings (1/ps), much as in water.
TRUTH = (3.6, [1.3, 7.0, 40.0], [4.8, 4.4, 6.0])
STARTS = {
    "too slow": (3.3, [1.1, 20.0, 40.0], [5.1, 6.7, 8.3]),
    "too fast": (3.3, [3.0, 12.0, 40.0], [5.5, 5.0, 6.0]),
}
CRITICS = {
    "default": {},
    "default without products of increments": {},
    "no attention": {"attention": False},
    "two critics": {"critics": 2},
    "gram": {"kind": "gram"},
}


def set_memory(
    motion: GeneralizedLangevin, friction: float, rates: list[float], couplings: list[float]
) -> None:
    """Give a motion some memory."""
    with torch.no_grad():
        motion.log_friction.fill_(math.log(friction))
        motion.log_rates.copy_((torch.tensor(rates) - motion.floor).log())
        motion.log_couplings.copy_(torch.tensor(couplings).log())


def free_beads(path: Path, beads: int, frames: int, seed: int) -> BeadTrajectory:
    """A run of beads with the true memory."""
    motion = GeneralizedLangevin(1, 3, 25.0, floor=0.1)
    set_memory(motion, *TRUTH)
    box = LENGTH * torch.eye(3, dtype=torch.float64)
    x = LENGTH * torch.rand(
        [1, beads, 3], dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    with torch.no_grad():
        e, s = motion.propagator(DT)
        positions, _, _ = rollout(
            x,
            thermal_state(1, beads, 3, seed),
            box[None],
            types=torch.zeros(beads, dtype=torch.int64),
            masses=torch.full([beads], MASS, dtype=torch.float64),
            spec=NOTHING.spec,
            theta=torch.from_numpy(NOTHING.theta),
            e=e,
            s=s,
            kT=KT,
            dt=DT,
            frames=list(range(0, 2 * frames, 2)),
            seed=seed,
        )
    with BeadWriter(path, [MASS] * beads, [0] * beads, ("A",), TEMPERATURE, 2 * DT, {}) as writer:
        writer.append(positions[0].numpy(), np.broadcast_to(box.numpy(), [frames, 3, 3]))
        writer.finish()
    return BeadTrajectory.open(path)


def approach(
    trajectory: BeadTrajectory, critic: str, start: str, iterations: int, seed: int
) -> None:
    """Train for some iterations and print where the memory is on the way."""
    training = AdversarialTraining(
        trajectory,
        NOTHING,
        config.Experiment.model_validate(
            {
                "reference": {"temperature_K": TEMPERATURE, "water": "spce"},
                "potential": {"cutoff_nm": 0.5},
                "discriminator": CRITICS[critic],
                "training": {"window_ps": WINDOW, "seed": seed},
                "dynamics": {
                    "timestep_fs": 1000 * DT,
                    "initial_friction_per_ps": 20.0,
                    "auxiliary_variables": 3,
                },
            }
        ),
    )
    set_memory(training.motion, *STARTS[start])
    training.average = [parameter.detach().clone() for parameter in training.parameters]
    if critic == "default without products of increments":
        training.motion_discriminators.trainers["dynamics"].module.weights.requires_grad_(False)
    training.averaging_decay = 0.98
    moved, found, begun = [], [], time.process_time()
    for iteration in range(1, iterations + 1):
        training.rate = min(1.0, iteration / 30)
        training.step()
        moved.append(training.observation.displacement[0])
        if iteration % (iterations // 3) == 0:
            with training.temporarily_set(training.average):
                found.append(f"{training.motion.bead_friction().item():.1f}")
    last = torch.stack(moved[-iterations // 3 :]).mean(0)
    print(
        f"{critic:40} {start:10} {' '.join(found):20} {100 * last.abs().mean():8.1f} {100 * last[-1]:12.1f} "
        f"{(time.process_time() - begun) / iterations:10.3f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="only show that it works")
    arguments = parser.parse_args()
    beads, frames, iterations = (
        (40, 1500, 3) if arguments.quick else (343, 20_000, arguments.iterations)
    )
    torch.set_num_threads(1)
    describe()
    with (
        tempfile.TemporaryDirectory() as folder,
        free_beads(Path(folder) / "beads.h5", beads, frames, 0) as trajectory,
    ):
        truth = GeneralizedLangevin(1, 3, 25.0, floor=0.1)
        set_memory(truth, *TRUTH)
        print(
            f"true friction {truth.bead_friction().item():.1f}/ps; average after thirds of {iterations} iterations"
        )
        print(
            f"{'critic':40} {'start':10} {'friction, 1/ps':20} {'MSD off, %':>10} {f'at {WINDOW} ps':>10} {'s / iteration':>10}"
        )
        for critic in CRITICS:
            for start in STARTS:
                approach(trajectory, critic, start, iterations, arguments.seed)


if __name__ == "__main__":
    main()
