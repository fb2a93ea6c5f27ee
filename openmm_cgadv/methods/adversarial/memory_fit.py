"""Initial and final fits of the memory kernel to the mean squared displacement, at a fixed potential."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from torch import Tensor

from ...dynamics import GeneralizedLangevin, running_friction_on_grid
from ...random_streams import Purpose, numpy_stream
from .generators import Generator, SingleParticleGenerator
from .held_out import means_by_type
from .linear_response import MsdMeasurement, fit_kernel
from .training import AdversarialTraining
from .windows import center_of_mass_frame


@torch.no_grad()
def fit_initial_kernel(training: AdversarialTraining, progress: Callable[[], None]) -> None:
    """Fit the initial memory kernel to the mean squared displacement.

    The discriminators detect a kernel that is far off, but their gradient may lead away from the right one.

    Parameters
    ----------
    training : AdversarialTraining
        Training of single-particle friction. Its parameters are unchanged after an error.
    progress : callable
        Called after each rollout.

    Raises
    ------
    ExplosionError
        A rollout exploded.
    """
    given = [parameter.detach().clone() for parameter in training.parameters]
    with training.temporarily_set(given):
        sizes = training.hyperparameters.kernel_fit.initial_rollouts
        first = np.cumsum([0, *sizes]).tolist()
        rounds = [range(*ends) for ends in zip(first, first[1:])]
        fit_kernel_to_msd(training, rounds, 1, 1, Purpose.INITIAL_KERNEL_FIT, lambda n: progress())
        found = [parameter.detach().clone() for parameter in training.parameters]
    training.set_parameters(found)


@torch.no_grad()
def fit_final_kernel(
    training: AdversarialTraining,
    values: list[Tensor],
    rollouts: int,
    progress: Callable[[int], None],
) -> list[Tensor]:
    """Return values of the parameters after a fit of the memory kernel to the mean squared displacement.

    The kernel of single-particle friction follows from the linear response of the mean squared displacement, see
    :mod:`~openmm_cgadv.methods.adversarial.linear_response`. For pairwise friction, whose response is not known, only
    the amplitude of the slowest auxiliary variable is fitted, to the late-time increment.

    Parameters
    ----------
    training : AdversarialTraining
        Its persistent chains continue; its parameters are left unchanged.
    values : list of Tensor
        Values of the parameters before the fit.
    rollouts : int
        Number of rollouts.
    progress : callable
        Called with the number of rollouts done.

    Raises
    ------
    ExplosionError
        A rollout exploded.
    """
    settings = training.hyperparameters.kernel_fit
    with training.temporarily_set(values):
        if rollouts and not training.motion.linear_response:
            fit_slowest_amplitude(training, rollouts, progress)
        elif rollouts:
            rounds = settings.final_rounds
            ends = [rollouts * part // rounds for part in range(rounds + 1)]
            fit_kernel_to_msd(
                training,
                [range(*pair) for pair in zip(ends, ends[1:])],
                settings.final_windows,
                settings.final_starts,
                Purpose.FINAL_KERNEL_FIT,
                progress,
            )
        return [parameter.detach().clone() for parameter in training.parameters]


def fit_slowest_amplitude(
    training: AdversarialTraining, rollouts: int, progress: Callable[[int], None]
) -> None:
    """Fit the amplitude of the slowest auxiliary variable to the late-time MSD increment, where a generator has one.

    One rollout determines the increment to 10 %, so amplitudes are averaged over the rollouts after equilibration.
    """
    motion, amplitudes = training.motion, []
    if motion.slowest is None:
        return
    for n in range(rollouts):
        iteration = training.iteration + 1 + n
        random = training.random(Purpose.FINAL_KERNEL_FIT, n)
        _, start, frames = training.simulate_chains(iteration, training.window_steps, random)
        windows = training.generated_windows(frames, start, random)
        motion.restrain(training.reference_motion.excess(windows))
        amplitudes.append(motion.slowest.clone())
        progress(n + 1)
    discarded = int(training.hyperparameters.kernel_fit.discarded * rollouts)
    motion.slowest.copy_(torch.stack(amplitudes[discarded:]).mean(0))


def fit_kernel_to_msd(
    training: AdversarialTraining,
    rounds: list[range],
    windows: int,
    starts: int,
    purpose: Purpose,
    progress: Callable[[int], None],
) -> None:
    """Fit the memory kernel to the mean squared displacement, in several rounds.

    After each round of rollouts, the kernel is fitted to all rollouts so far. Each round measures the response at the
    result of the one before.

    Parameters
    ----------
    training : AdversarialTraining
    rounds : list of range
        Numbers of the rollouts of each round.
    windows : int
        Windows in a rollout.
    starts : int
        Starting points of each fit.
    purpose : Purpose
        Random numbers of the rollouts.
    progress : callable
        Called with the number of rollouts done.
    """
    settings = training.hyperparameters.kernel_fit
    # A generator whose linear response is known has drift matrices of single beads.
    motion = cast(SingleParticleGenerator, training.motion)
    frame, window = training.window_steps[1], training.window_steps[-1]
    # The lags of the reference are multiples of the stride.
    widest = max(1, window // settings.times)
    stride = max(one for one in range(1, widest + 1) if frame % one == 0)
    step, number = stride * training.dt, window // stride + 1
    reference = training.reference_motion.msd
    at = np.rint(reference.lags / step).astype(int) - 1

    def running(values: np.ndarray) -> np.ndarray:
        trials = GeneralizedLangevin(len(values), motion.n_auxiliary, 1.0, motion.floor)
        set_kernel_parameters(trials, slice(None), values)
        return running_friction_on_grid(trials.drift(), step, number).numpy()

    measurements: list[list[MsdMeasurement]] = [[] for _ in range(motion.n_types)]
    for round_number, numbers in enumerate(rounds):
        if len(numbers) < 2:
            continue
        squares = measure_msd(training, stride, numbers, windows, purpose, progress)
        present = running_friction_on_grid(motion.drift(), step, number).numpy()
        for bead in range(motion.n_types):
            target = reference.blocks[:, bead].mean(0)
            # Corrected for rounding errors, the mean squared displacement of slow beads may vanish.
            usable = target > 0
            if not usable.any():
                continue
            msd, sampled = squares[:, bead].mean(0), squares[:, bead, at[usable]]
            share = windows * training.lags[-1].item() / reference.length
            covariance = shrunk_covariance(sampled / sampled.mean(0)) * (1 / len(sampled) + share)
            log_ratio = np.log(target[usable] / sampled.mean(0))
            measurements[bead].append(MsdMeasurement(msd, present[bead], log_ratio, covariance))

            thermal = training.kT / training.masses[training.types == bead].mean().item()
            given = kernel_parameters(motion, bead)
            found = fit_kernel(
                given,
                running,
                measurements[bead],
                at[usable],
                step,
                thermal,
                starts,
                numpy_stream(
                    training.settings.seed,
                    Purpose.KERNEL_FIT_STARTS,
                    training.recoveries,
                    purpose,
                    round_number,
                    bead,
                ),
                settings.response,
            )
            set_kernel_parameters(motion, bead, found)
            smallest = training.hyperparameters.time_scales.smallest_friction
            least = (smallest * training.einstein_friction[bead]).item()
            if motion.bead_friction()[bead] < least:
                # In simple liquids the conservative forces alone determine the diffusion. Negligible friction is then
                # consistent with the mean squared displacement, and the fit has no lower bound.
                set_kernel_parameters(motion, bead, given)
                motion.limit_friction(bead, least)


@torch.no_grad()
def measure_msd(
    training: AdversarialTraining,
    stride: int,
    numbers: range,
    windows: int,
    purpose: Purpose,
    progress: Callable[[int], None],
) -> np.ndarray:
    """Return mean squared displacements [S, n_types, T] (nm²) of rollouts, up to the length of a window.

    Parameters
    ----------
    training : AdversarialTraining
    stride : int
        Steps between times.
    numbers : range
        Numbers of the rollouts.
    windows : int
        Windows in a rollout.
    purpose : Purpose
        Random numbers of the rollouts.
    progress : callable
        Called with the number of rollouts done.
    """
    window = training.window_steps[-1]
    steps = list(range(0, windows * window + 1, stride))
    squares = []
    for n in numbers:
        iteration = training.iteration + 1 + n
        _, _, frames = training.simulate_chains(iteration, steps, training.random(purpose, n))
        squares += [
            msd_over_origins(one, training.types, training.motion.n_types, window // stride)
            for one in center_of_mass_frame(frames, training.masses)
        ]
        progress(n + 1)
    return torch.stack(squares).numpy()


def msd_over_origins(positions: Tensor, types: Tensor, n_types: int, longest: int) -> Tensor:
    """Return mean squared displacements [n_types, longest] (nm²) in frames [T, N, 3], with time origins half a lag apart."""
    moved = (positions - positions[0]).float()
    squares = torch.stack(
        [
            (moved[lag :: max(1, lag // 2)] - moved[: -lag : max(1, lag // 2)])
            .square_()
            .sum(-1)
            .mean(0)
            for lag in range(1, longest + 1)
        ],
        1,
    ).double()
    return means_by_type(squares, types, n_types)


def shrunk_covariance(rows: np.ndarray) -> np.ndarray:
    """Return the covariance [L, L] of rows [S, L], shrunk towards its diagonal if there are few rows."""
    found = np.atleast_2d(np.cov(rows, rowvar=False))
    share = len(found) / (len(found) + len(rows))
    return (1 - share) * found + share * np.diag(np.diag(found))


def kernel_parameters(motion: Generator, bead: int) -> np.ndarray:
    """Return the friction parameters of one bead type [P]."""
    return torch.cat([parameter[bead].flatten() for parameter in motion.parameters()]).numpy()


def set_kernel_parameters(motion: torch.nn.Module, bead: int | slice, values: np.ndarray) -> None:
    """Set the friction parameters of one bead type [P], or of several [B, P]."""
    sizes = [parameter[0].numel() for parameter in motion.parameters()]
    for parameter, own in zip(motion.parameters(), torch.from_numpy(values).split(sizes, -1)):
        parameter[bead] = own.reshape(parameter[bead].shape)
