"""How displacements answer to the memory of pairs: what the forgetful adjoint says of it, and runs on either side.

What is differentiated is the logarithm of the mean squared displacement, to the logarithm of the size of each part of the memory of
neighbours in water, the slowest first. Of a trained directory (`equation: pair`) if one is given, else of the friction that training starts from.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from measure import TEMPERATURE, describe, spce_beads

from openmm_cgadv.config import Experiment, load_experiment
from openmm_cgadv.data.trajectory import BeadTrajectory
from openmm_cgadv.fit import InitialFit
from openmm_cgadv.methods.adversarial import AdversarialTraining
from openmm_cgadv.methods.adversarial.checkpoint import load_checkpoint
from openmm_cgadv.methods.adversarial.held_out import window_msd
from openmm_cgadv.random_streams import Purpose
from openmm_cgadv.workflow.report_stage import BEADS

STEP = 0.2
"""Change of the logarithm on either side."""


def displacements(training: AdversarialTraining, iteration: int) -> torch.Tensor:
    """Mean squared displacements [lags] (nm²) of the next windows of some chains."""
    random = training.random(Purpose.TRAINING, iteration)
    _, start, frames = training.simulate_chains(iteration, training.window_steps, random)
    windows = training.generated_windows(frames, start, random)
    return window_msd(windows.selected_positions, windows.selected_types, 1)[0]


def by_adjoint(training: AdversarialTraining, rollouts: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Derivatives [lags, memory] and their standard errors."""
    sizes, rows = training.motion.log_sizes, []
    for iteration in range(rollouts):
        moved = displacements(training, iteration)
        rows.append(
            torch.stack(
                [
                    torch.autograd.grad(one.log(), sizes, retain_graph=True)[0][0, 1:]
                    for one in moved
                ]
            )
        )
    rows = torch.stack(rows)
    return rows.mean(0), rows.std(0) / rollouts**0.5


@torch.no_grad()
def by_runs(training: AdversarialTraining, rollouts: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Derivatives [lags, memory] and their standard errors."""
    sizes, columns = training.motion.log_sizes, []
    for number in range(1, sizes.shape[1]):
        sides = []
        for side in (STEP, -STEP):
            sizes[0, number] += side
            sides.append(
                torch.stack([displacements(training, iteration) for iteration in range(rollouts)])
            )
            sizes[0, number] -= side
        slope = (sides[0].mean(0).log() - sides[1].mean(0).log()) / (2 * STEP)
        error = sum((side.std(0) / side.mean(0)).square() / rollouts for side in sides).sqrt() / (
            2 * STEP
        )
        columns.append((slope, error))
    return tuple(torch.stack(parts, 1) for parts in zip(*columns))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "directory", nargs="?", type=Path, help="of a training of friction between pairs"
    )
    parser.add_argument(
        "--rollouts", type=int, default=60, help="of the adjoint; four times as many for runs"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a small system and short windows, to see that it works",
    )
    options = parser.parse_args()
    rollouts = 8 if options.quick else options.rollouts
    describe()
    torch.set_num_threads(1)
    directory = options.directory
    if directory is None:
        path, fit = spce_beads(216 if options.quick else 343, 0.5 if options.quick else 5.0)
        experiment = Experiment.model_validate(
            {
                "reference": {"temperature_K": TEMPERATURE, "beads": path},
                "dynamics": {
                    "equation": "pair",
                    "timestep_fs": 10.0,
                    "initial_friction_per_ps": 150.0,
                    "auxiliary_variables": 3,
                },
                "training": {"window_ps": 0.16 if options.quick else 1.92},
            }
        )
    else:
        path, fit, experiment = (
            directory / BEADS,
            InitialFit.load(directory / "fit"),
            load_experiment(directory / "experiment.yaml"),
        )
    with BeadTrajectory.open(path) as trajectory:
        training = AdversarialTraining(trajectory, fit, experiment)
        if directory is not None:
            training.load_state_dict(load_checkpoint(directory / "train" / "checkpoints"))
        with training.temporarily_set(training.average):
            measure(training, rollouts)


def measure(training: AdversarialTraining, rollouts: int) -> None:
    """Print both derivatives side by side."""
    order = training.motion.rates()[0].argsort()
    print(f"rates {', '.join(f'{rate:.3g}' for rate in training.motion.rates()[0, order])}/ps")
    with torch.enable_grad():
        adjoint, doubt = by_adjoint(training, rollouts)
    runs, error = by_runs(training, 4 * rollouts)
    head = " | ".join(f"memory {number + 1}: runs | adjoint" for number in range(len(order)))
    print(f"| lag, ps | {head} |\n|---{'|---' * 2 * len(order)}|")
    for lag, a, da, b, db in zip(training.lags, adjoint, doubt, runs, error):
        cells = " | ".join(f"{b[k]:.3f} ± {db[k]:.3f} | {a[k]:.3f} ± {da[k]:.3f}" for k in order)
        print(f"| {lag:g} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
