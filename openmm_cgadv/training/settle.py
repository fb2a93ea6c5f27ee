"""Memory from displacements, with the potential as it is: before the critics begin, and when they are done."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..dynamics import GeneralizedLangevin, running_friction_on_grid
from .adversarial import AdversarialTraining
from .held_out import means_by_type
from .response import Seen, fit_memory
from .timescales import LEAST_FRICTION
from .windows import at_rest

POINTS = 192
"""Times of a window, at least, at which displacements are seen, if it has as many steps."""

FIRST = 8 * [10]
"""Rollouts of a window before the critics begin; memory is found after each part of them. Displacements that are off by half are
right to some percent after three parts."""

LONG = 4
"""Windows in a rollout at the end: the more there are, the more starts has the longest lag."""

ROUNDS = 3
"""Parts of the rollouts at the end; memory is found after each, from all so far."""

BEGINNINGS = 6
"""Of each fit at the end."""

STREAM = 1_000_000
"""Of the random numbers before the critics begin."""


@torch.no_grad()
def begin(training: AdversarialTraining, progress: Callable[[], None]) -> None:
    """Let the memory that training starts from follow displacements.

    Critics see what is wrong with memory that is far off, but their gradient may lead from bad to worse.

    Parameters
    ----------
    training : AdversarialTraining
        Of friction on single beads.
    progress : callable
        Told that a rollout is done.

    Raises
    ------
    RuntimeError
        The model explodes. Its parameters are as they were, then.
    """
    given = [parameter.detach().clone() for parameter in training.parameters]
    with training.holding(given):
        first = np.cumsum([STREAM, *FIRST]).tolist()
        follow_displacements(training, list(map(range, first, first[1:])), 1, 1, lambda n: progress())
        found = [parameter.detach().clone() for parameter in training.parameters]
    training.take(found)


@torch.no_grad()
def settle(training: AdversarialTraining, values: list[Tensor], rollouts: int, progress: Callable[[int], None]) -> list[Tensor]:
    """Values of the parameters in which memory has followed displacements.

    On each bead, memory takes the values that make displacements in windows those of the reference, see
    :mod:`~openmm_cgadv.training.response`. Between pairs, where no response is known, the size of the slowest follows diffusion at
    the window's end.

    Parameters
    ----------
    training : AdversarialTraining
        Its chains go on; its parameters are left as they are.
    values : list of Tensor
        Of the parameters.
    rollouts : int
        Of a window between pairs, of `LONG` windows else.
    progress : callable
        Told how many are done.

    Raises
    ------
    RuntimeError
        The model explodes.
    """
    with training.holding(values):
        if rollouts and training.pairs:
            follow_diffusion(training, rollouts, progress)
        elif rollouts:
            first = [rollouts * part // ROUNDS for part in range(ROUNDS + 1)]
            follow_displacements(training, list(map(range, first, first[1:])), LONG, BEGINNINGS, progress)
        return [parameter.detach().clone() for parameter in training.parameters]


def follow_diffusion(training: AdversarialTraining, rollouts: int, progress: Callable[[int], None]) -> None:
    """Windows of one rollout tell diffusion to a tenth: sizes are averaged, those of the first quarter left out."""
    sizes = []
    for n in range(rollouts):
        iteration = training.iteration + 1 + n
        random = training.random(iteration)
        _, start, frames = training.advance(iteration, training.window_steps, random)
        training.motion.restrain(training.excess(training.generated(frames, start, random)))
        sizes.append(training.motion.slowest.clone())
        progress(n + 1)
    training.motion.slowest.copy_(torch.stack(sizes[rollouts // 4 :]).mean(0))


def follow_displacements(
    training: AdversarialTraining, parts: list[range], windows: int, beginnings: int, progress: Callable[[int], None]
) -> None:
    """After each part of the rollouts, let memory be what follows from all of them: how displacements answer is seen anew where it has come to.

    Parameters
    ----------
    training : AdversarialTraining
    parts : list of range
        Numbers of rollouts.
    windows : int
        In a rollout.
    beginnings : int
        Of each fit.
    progress : callable
        Told how many are done.
    """
    motion, frame, window = training.motion, training.window_steps[1], training.window_steps[-1]
    # All lags are times of the even grid.
    stride = max(one for one in range(1, max(1, window // POINTS) + 1) if frame % one == 0)
    step, number = stride * training.dt, window // stride + 1
    known = training.reference_displacements
    at = np.rint(known.lags / step).astype(int) - 1

    def running(values: np.ndarray) -> np.ndarray:
        trials = GeneralizedLangevin(len(values), motion.n_auxiliary, 1.0, motion.floor)
        take_memory(trials, slice(None), values)
        return running_friction_on_grid(trials.drift(), step, number).numpy()

    seen: list[list[Seen]] = [[] for _ in range(motion.n_types)]
    for numbers in parts:
        if len(numbers) < 2:
            continue
        squares = displacements(training, stride, numbers, windows, progress)
        felt = running_friction_on_grid(motion.drift(), step, number).numpy()
        for kind in range(motion.n_types):
            wanted = known.blocks[:, kind].mean(0)
            # Rounded coordinates may leave nothing of beads that hardly move.
            told = wanted > 0
            if not told.any():
                continue
            moved, shown = squares[:, kind].mean(0), squares[:, kind, at[told]]
            covariance = shrunk(shown / shown.mean(0)) * (1 / len(shown) + windows * training.lags[-1].item() / known.length)
            seen[kind].append(Seen(moved, felt[kind], np.log(wanted[told] / shown.mean(0)), covariance))

            thermal = training.kT / training.masses[training.types == kind].mean().item()
            given = memory_of(motion, kind)
            found = fit_memory(given, running, seen[kind], at[told], step, thermal, beginnings)
            take_memory(motion, kind, found)
            least = (LEAST_FRICTION * training.free_friction[kind]).item()
            if motion.bead_friction()[kind] < least:
                # Where neighbours alone make diffusion, as in simple liquids, displacements don't tell friction from none.
                take_memory(motion, kind, given)
                weaken(motion, kind, least)


@torch.no_grad()
def displacements(training: AdversarialTraining, stride: int, numbers: range, windows: int, progress: Callable[[int], None]) -> np.ndarray:
    """Mean squared displacements [S, n_types, T] (nm²) over all starts in each of some rollouts, up to a window's end.

    Parameters
    ----------
    training : AdversarialTraining
    stride : int
        Steps between times.
    numbers : range
        Of the rollouts.
    windows : int
        In a rollout.
    progress : callable
        Told how many are done.
    """
    window = training.window_steps[-1]
    steps = list(range(0, windows * window + 1, stride))
    squares = []
    for n in numbers:
        iteration = training.iteration + 1 + n
        _, _, frames = training.advance(iteration, steps, training.random(iteration))
        squares += [
            squares_over_starts(one, training.types, training.motion.n_types, window // stride)
            for one in at_rest(frames, training.masses)
        ]
        progress(n + 1)
    return torch.stack(squares).numpy()


def squares_over_starts(positions: Tensor, types: Tensor, n_types: int, longest: int) -> Tensor:
    """Mean squared displacements [n_types, longest] (nm²) in frames [T, N, 3], over starts half a lag apart."""
    moved = (positions - positions[0]).float()
    squares = torch.stack([
        (moved[lag :: max(1, lag // 2)] - moved[: -lag : max(1, lag // 2)]).square_().sum(-1).mean(0)
        for lag in range(1, longest + 1)
    ], 1).double()  # fmt: skip
    return means_by_type(squares, types, n_types)


def shrunk(rows: np.ndarray) -> np.ndarray:
    """Covariance [L, L] of rows [S, L]; the fewer there are, the nearer to their variances alone."""
    found = np.atleast_2d(np.cov(rows, rowvar=False))
    share = len(found) / (len(found) + len(rows))
    return (1 - share) * found + share * np.diag(np.diag(found))


def weaken(motion: torch.nn.Module, kind: int, most: float) -> None:
    """Make the memory of one bead type as much smaller at all times as leaves that friction (1/ps), if it has more."""
    change = min(0.0, math.log(most / motion.bead_friction()[kind].item()))
    motion.log_friction[kind] += change
    motion.log_couplings[kind] += 0.5 * change


def memory_of(motion: torch.nn.Module, kind: int) -> np.ndarray:
    """The parameters of one bead type's friction and memory [P]."""
    return torch.cat([parameter[kind].flatten() for parameter in motion.parameters()]).numpy()


def take_memory(motion: torch.nn.Module, kind: int | slice, values: np.ndarray) -> None:
    """Give them other values, or of several types [B, P]."""
    sizes = [parameter[0].numel() for parameter in motion.parameters()]
    for parameter, own in zip(motion.parameters(), torch.from_numpy(values).split(sizes, -1)):
        parameter[kind] = own.reshape(parameter[kind].shape)
