"""Adversarial training from start to export, with checkpoints and recovery from explosions."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import DivergedError, ExplosionError, OutOfMemoryError
from .checkpoint import load_checkpoint, save_checkpoint
from .log import TrainingLog, log_columns
from .loop import Failure, TrainingLoop, Validate
from .memory_fit import fit_initial_kernel
from .parameters import TrainedParameters
from .training import AdversarialTraining

Progress = Callable[[int, int, dict[str, float]], None]


@dataclass(frozen=True)
class _GoodState:
    """State that training returns to after a failure."""

    iteration: int
    training: dict
    loop: dict

    @classmethod
    def of(cls, loop: TrainingLoop) -> _GoodState:
        training = loop.training
        return cls(training.iteration, _copy(training.state_dict()), _copy(loop.state_dict()))

    def restore(self, loop: TrainingLoop, failure: Failure) -> str:
        """Return to this state, keeping the warnings and counting the recovery; return a message.

        Raises
        ------
        DivergedError
            Training had to recover too often.
        """
        training = loop.training
        recoveries, warnings = training.recoveries + 1, loop.warnings
        if recoveries > loop.settings.most_recoveries:
            raise DivergedError(
                f"training diverged {recoveries} times, last from iteration {self.iteration}: {failure.message}; use a "
                "shorter dynamics.timestep_fs or a longer reference"
            )
        training.iteration = self.iteration
        training.load_state_dict(_copy(self.training))
        loop.load_state_dict(_copy(self.loop))
        loop.warnings, training.recoveries = warnings, recoveries
        if failure.restart_chains:
            loop.restart_chains()
        message = f"{failure.message}; training returned to iteration {self.iteration}"
        loop.warnings.append(message)
        return message


def train(
    training: AdversarialTraining,
    directory: Path,
    *,
    validate: Validate | None = None,
    progress: Progress | None = None,
    warn: Callable[[str], None] | None = None,
) -> TrainedParameters:
    """Train a model, or resume from the last checkpoint in `directory`.

    1. For single-particle friction, fit the initial memory kernel to the mean squared displacement
       (:func:`~openmm_cgadv.methods.adversarial.memory_fit.fit_initial_kernel`).
    2. Iterate with constant learning rates until friction, memory kernel, mean squared displacements, structure and
       the validation in OpenMM have converged. Mean squared displacements and structure are compared with a part of
       the reference that is not used for training.
    3. Iterate with learning rates that decay along a cosine, and validate moving averages of the parameters.
    4. Select the last average whose observables are, within errors, as good as the best one's.
    5. Fit its memory kernel to the mean squared displacement
       (:func:`~openmm_cgadv.methods.adversarial.memory_fit.fit_final_kernel`) and validate the result, which is
       exported unless it is worse.

    Parameters
    ----------
    training : AdversarialTraining
    directory : Path
        Receives ``log.csv``, TensorBoard events, ``checkpoints/`` and ``outcome.json``.
    validate : callable, optional
        Validates averaged parameters every ``validate_every`` iterations. Its result is logged.
    progress : callable, optional
        Called with the iteration, the expected number of iterations, and the logged values.
    warn : callable, optional
        Called with a sentence for each problem, and with the reason for the end of the training.

    Returns
    -------
    TrainedParameters
        The exported parameters.

    Raises
    ------
    DivergedError
        Training had to return to its last good state too often.
    OutOfMemoryError
        There is not enough RAM. The last checkpoint stays.
    """
    warn = warn or (lambda sentence: None)
    progress = progress or (lambda iteration, total, values: None)
    loop = TrainingLoop(training)
    checkpoints = directory / "checkpoints"
    saved = load_checkpoint(checkpoints)
    started = time.monotonic()
    if saved is None:
        _fit_initial_kernel(loop, progress, warn)
    else:
        training.load_state_dict(saved)
        training.iteration = saved["iteration"]
        loop.load_state_dict(saved["loop"])
    names = training.spec.type_names
    columns = log_columns(list(training.averaged().named(names)))
    log = TrainingLog(directory, columns, training.iteration)
    started -= log.seconds
    good = _GoodState.of(loop)
    try:
        while not loop.done:
            try:
                values = loop.step()
            except OutOfMemoryError as error:
                raise OutOfMemoryError(
                    f"{error}; use fewer training.chains or a shorter training.window_ps"
                ) from error
            if isinstance(values, Failure):
                warn(good.restore(loop, values))
                continue
            iteration = training.iteration
            averaged = training.averaged()
            values |= averaged.named(names)
            if loop.validation_due():
                found = validate(averaged, iteration) if validate is not None else {}
                loop.validated = validate is not None
                values |= found
                loop.record_validation(found)
            for message in loop.diagnose():
                warn(message)
            values["seconds"] = time.monotonic() - started
            log.write(iteration, values)
            if iteration % training.settings.checkpoint_every == 0 or loop.done:
                good = _GoodState.of(loop)
                save_checkpoint(checkpoints, iteration, {**good.training, "loop": good.loop})
            progress(iteration, loop.schedule.end, values)
        end, reported = training.iteration, len(loop.warnings)
        named = training.averaged().named(names)
        exported = loop.finish(
            validate, lambda done, total: progress(end + done, end + total, named)
        )
        status = loop.status(exported)
        if exported.iteration > end:
            values = status.parameters.named(names) | exported.values
            log.write(exported.iteration, values | {"seconds": time.monotonic() - started})
    finally:
        log.close()
    status.save(directory)
    for message in loop.warnings[reported:]:
        warn(message)
    warn(status.sentence())
    return status.parameters


def _fit_initial_kernel(
    loop: TrainingLoop, progress: Progress, warn: Callable[[str], None]
) -> None:
    training = loop.training
    if not training.fits_kernel or not training.motion.linear_response:
        return
    named = training.averaged().named(training.spec.type_names)
    try:
        fit_initial_kernel(training, lambda: progress(0, loop.schedule.end, named))
    except (ExplosionError, DivergedError, torch.linalg.LinAlgError) as error:
        loop.warnings.append(f"the initial fit of the memory kernel failed: {error}")
        warn(loop.warnings[-1])


def _copy(state: Any) -> Any:
    """Return a copy of nested containers of tensors."""
    if isinstance(state, Tensor):
        return state.detach().clone()
    if isinstance(state, dict):
        return {key: _copy(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return [_copy(value) for value in state]
    return state
