"""Cost of a training iteration, and of a discriminator's step in it, split into its parts.

The discriminator of single beads is compared with `discriminator: {kind: graph}`, which adds one of neighbourhoods. The
settings are those of an experiment file's defaults: 343 beads of SPC/E water, memory K = 3, 5 fs, windows of 1.6 ps, one
replica a thread.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from importlib import import_module

import torch
from measure import TEMPERATURE, cores, describe, spce_beads, table

from openmm_cgadv.config import Discriminator, Experiment
from openmm_cgadv.data.trajectory import BeadTrajectory
from openmm_cgadv.methods.adversarial import AdversarialTraining, Hyperparameters

rollouts = import_module("openmm_cgadv.kernels.rollout")
HYPERPARAMETERS = Hyperparameters()


class Stopwatch:
    """Adds up the time that functions take."""

    def __init__(self):
        self.spent = defaultdict(float)

    def __call__(self, name, function):
        def timed(*arguments, **named):
            begun = time.perf_counter()
            result = function(*arguments, **named)
            self.spent[name] += time.perf_counter() - begun
            return result

        return timed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--iterations", type=int, default=15)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a small system and short windows, to see that it works",
    )
    options = parser.parse_args()
    molecules, iterations, length, window = 343, options.iterations, 5.0, 1.6
    if options.quick:
        molecules, iterations, length, window = 216, 2, 0.5, 0.16
    describe("e3nn")
    torch.set_num_threads(cores())
    path, fit = spce_beads(molecules, length)
    experiment = Experiment.model_validate(
        {
            "reference": {
                "temperature_K": TEMPERATURE,
                "water": "spce",
                "molecules": molecules,
                "length_ps": length,
            },
            "training": {"window_ps": window},
        }
    )
    plain_backward = rollouts._Rollout.backward
    with BeadTrajectory.open(path) as trajectory:
        for threads in sorted({1, cores()}):
            torch.set_num_threads(threads)
            fastest = {}
            for kind in ("equivariant", "graph"):
                chosen = experiment.model_copy(update={"discriminator": Discriminator(kind=kind)})
                training = AdversarialTraining(trajectory, fit, chosen)
                fastest[kind] = measure(training, plain_backward, iterations, molecules, threads)
            print(
                f"GRAPH: a whole iteration takes {fastest['graph'] / fastest['equivariant']:.1f} times as long"
            )


def measure(training, plain_backward, iterations: int, molecules: int, threads: int) -> float:
    """Print the parts of an iteration; returns the time of the fastest (s)."""
    watch = Stopwatch()
    training.motion.roll_out = watch("rollout, forward", training.motion.roll_out)
    rollouts._Rollout.backward = staticmethod(watch("rollout, backward", plain_backward))
    trainers = list(training.motion_discriminators.trainers.values())
    settings = HYPERPARAMETERS.motion_discriminators.training
    for trainer in trainers:
        name = f"discriminator, {settings.steps} steps of {2 * settings.batch} windows"
        trainer.update = watch(name, trainer.update)
    training.entropy.coordinates = watch(
        "relative entropy's gradient", training.entropy.coordinates
    )
    best, seconds = {}, []
    for iteration in range(iterations + 1):
        watch.spent.clear()
        begun = time.perf_counter()
        training.step()
        whole = time.perf_counter() - begun
        if iteration == 0:
            continue
        seconds.append(whole)
        parts = dict(watch.spent)
        parts["the rest: generator's loss through the discriminator, Adam"] = whole - sum(
            parts.values()
        )
        for name, value in parts.items():
            best[name] = min(best.get(name, value), value)
    beads, steps = HYPERPARAMETERS.iteration.rollouts * molecules, training.frames[-1]
    kinds = " and ".join(type(trainer.module).__name__ for trainer in trainers)
    print(
        f"\n{kinds}: ms, {HYPERPARAMETERS.iteration.rollouts} replicas of {molecules} beads, {steps} steps, {threads} "
        f"thread{'s' * (threads > 1)}; fastest of {iterations} for each part"
    )
    table(best)
    learn = next(value for name, value in best.items() if name.startswith("discriminator"))
    table(
        {
            "one step of a discriminator": learn / settings.steps / len(trainers),
            "a whole iteration, fastest": min(seconds),
            "a whole iteration, median": sorted(seconds)[len(seconds) // 2],
        }
    )
    if "rollout, backward" in best:
        forward, backward = best["rollout, forward"], best["rollout, backward"]
        print(
            f"  rollout a bead and step: {1e9 * forward / beads / steps:.0f} ns forward, "
            f"{1e9 * backward / beads / steps:.0f} ns backward (of {threads} "
            f"thread{'s' * (threads > 1)})"
        )
    print(f"SHARE of the discriminator's steps in an iteration: {100 * learn / min(seconds):.0f} %")
    return min(seconds)


if __name__ == "__main__":
    main()
