"""State of the training loop: convergence, diagnostics, recovery, and the averages that may be exported."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...errors import DivergedError, ExplosionError
from ...random_streams import Purpose
from .convergence import ConvergenceHistory, mean_and_error
from .diagnostics import (
    Cause,
    collapsed_discriminators,
    diagnose_gap,
    diagnose_gradient,
    diagnose_motion,
    diverged_friction,
    frozen_model,
    non_mixing_chains,
    unresolved_memory,
)
from .memory_fit import fit_final_kernel
from .parameters import TrainedParameters
from .result import TrainingStatus, parameter_spread
from .schedule import Schedule
from .selection import Candidate, choose, improves
from .training import AdversarialTraining

Validate = Callable[[TrainedParameters, int], dict[str, float]]

SAMPLES = {
    "dynamics": "windows",
    "long": "the longest lags",
    "neighbors": "neighbourhoods",
    "transverse": "transverse current modes",
    "structure": "configurations",
}
"""What each discriminator classifies."""


@dataclass(frozen=True)
class Failure:
    """Why training has to return to its last good state.

    Attributes
    ----------
    message : str
    restart_chains : bool
        Whether all persistent chains have to restart from frames of the reference.
    """

    message: str
    restart_chains: bool = False


class TrainingLoop:
    """Run iterations and store what the training needs in addition to the state of the model.

    Parameters
    ----------
    training : AdversarialTraining

    Attributes
    ----------
    schedule : Schedule
    history : ConvergenceHistory
    candidates : list of Candidate
        Validated averages since the start of the decay.
    converged : bool
        Whether training had converged when the decay started.
    reason : str
        Why the decay started.
    warnings : list of str
    validated : bool
        Whether a validation was asked for.
    """

    def __init__(self, training: AdversarialTraining):
        self.training = training
        self.hyperparameters = training.hyperparameters
        self.settings = training.hyperparameters.loop
        self.schedule = Schedule(
            training.settings.iterations,
            training.configurational_discriminator is not None,
            self.hyperparameters.schedule,
        )
        self.history = ConvergenceHistory(
            training.settings.chains, self.hyperparameters.convergence
        )
        self.candidates: list[Candidate] = []
        self.interval_sums: list[list[Tensor]] = []
        self.validations: list[dict[str, float]] = []
        self.losses: list[float] = []
        self.reinitializations = 0
        self.reason = ""
        self.converged = False
        self.warnings: list[str] = []
        self.validated = False

    @property
    def done(self) -> bool:
        """Whether the last iteration is done."""
        return self.training.iteration >= self.schedule.end

    def step(self) -> dict[str, float] | Failure:
        """Run one iteration; return the logged values, or why it failed."""
        training, schedule = self.training, self.schedule
        training.rate = schedule.rate(training.iteration + 1)
        training.averaging_decay = schedule.averaging_decay(training.iteration + 1)
        try:
            values = training.step()
        except (ExplosionError, DivergedError, torch.linalg.LinAlgError) as error:
            return Failure(str(error))
        observed = training.observation
        assert observed is not None
        self.history.record(observed)
        interval = self.history.settings.check_interval
        self.losses = [*self.losses, values["dynamics_generator_loss"]][-interval:]
        frozen = frozen_model(
            self.history.mobility,
            observed.structure,
            len(training.phi),
            self.hyperparameters.diagnostics,
        )
        if frozen is not None:
            return Failure(frozen, restart_chains=True)
        if training.between_beads:
            start = torch.tensor(training.scales.friction_per_ps, dtype=torch.float64)
            diverged = diverged_friction(
                training.motion.bead_friction(),
                training.einstein_friction[:, 0],
                start,
                training.sees_neighbors,
                self.hyperparameters.diagnostics,
            )
            if diverged is not None:
                return Failure(diverged)
        if schedule.decay_start is not None:
            self._accumulate()
        return values

    def diagnose(self) -> list[str]:
        """Look for problems, recover from those that allow it, and return a sentence for each."""
        messages = [*self._restart_non_mixing_chains(), *self._recover_discriminators()]
        if self.schedule.decay_start is None:
            messages += self._test_convergence()
        if self.training.iteration == self.schedule.end:
            messages += self._final_diagnosis()
        self.warnings += [f"iteration {self.training.iteration}: {message}" for message in messages]
        return messages

    def restart_chains(self) -> None:
        """Restart all chains from frames of the reference."""
        for chain in range(self.training.settings.chains):
            self._restart_chain(chain)
        self.history.mobility.fill_(torch.nan)

    def validation_due(self) -> bool:
        """Return whether a validation is due, counting anew from the start of the decay."""
        every, start = self.training.settings.validate_every, self.schedule.decay_start or 0
        return (self.training.iteration - start) % every == 0 or self.done

    def record_validation(self, values: dict[str, float]) -> None:
        """Store a validation of the present averages, empty if the simulation exploded.

        During the decay the averages become a candidate for export.
        """
        self.validations = [*self.validations, values][-2:]
        if self.schedule.decay_start is not None or self.done:
            average = [value.clone() for value in self.training.average]
            deviation = {}
            if values:
                deviation = self.history.held_out_deviation(
                    self.training.settings.validate_every, self.training.held_out.error
                )
            self.candidates.append(Candidate(self.training.iteration, average, values | deviation))

    def finish(self, validate: Validate | None, progress: Callable[[int, int], None]) -> Candidate:
        """Select the exported averages and fit their memory kernel to the mean squared displacement.

        The result of the fit is exported unless its validation is significantly worse.

        Parameters
        ----------
        validate : callable or None
            Validates the result of the fit.
        progress : callable
            Called with the number of rollouts done and their total during the fit.
        """
        training = self.training
        selection = self.hyperparameters.selection
        chosen = choose(
            self.candidates or [Candidate(training.iteration, training.average, {})], selection
        )
        if not training.fits_kernel:
            return chosen
        rollouts = training.equation.final_fit_rollouts * self.schedule.decay_iterations
        try:
            average = fit_final_kernel(
                training, chosen.average, rollouts, lambda done: progress(done, rollouts)
            )
        except (ExplosionError, DivergedError, torch.linalg.LinAlgError) as error:
            self.warnings.append(
                f"iteration {training.iteration}: the final fit of the memory kernel failed: {error}"
            )
            return chosen
        iteration = training.iteration + rollouts
        values = validate(training.averaged(average), iteration) if validate is not None else {}
        best = choose([chosen, Candidate(iteration, average, values)], selection)
        if best is chosen:
            self.warnings.append(
                f"iteration {iteration}: the validation in OpenMM is worse after the final fit of the memory kernel, so "
                f"the average at iteration {chosen.iteration} is exported"
            )
        return best

    def status(self, exported: Candidate) -> TrainingStatus:
        """Return the status of the finished training."""
        training = self.training
        message = unresolved_memory(
            *training.kernel_summary(exported.average), self.hyperparameters.diagnostics
        )
        if message is not None:
            self.warnings.append(f"iteration {training.iteration}: {message}")
        averages = [training.averaged(one) for one in self._interval_averages()]
        return TrainingStatus(
            parameters=training.averaged(exported.average),
            iterations=training.iteration,
            decay_start=self.schedule.decay_start,
            converged=self.converged,
            exported=exported.iteration,
            reason=self.reason,
            warnings=self.warnings,
            parameter_spread=parameter_spread(averages, training.spec, training.kT),
            held_out=self._held_out(),
            validated=[{"iteration": one.iteration, **one.values} for one in self.candidates],
            metrics=exported.values,
        )

    def state_dict(self) -> dict:
        """Return the state for a checkpoint."""
        return {
            "decay_start": self.schedule.decay_start,
            "history": self.history.state_dict(),
            "candidates": [candidate.state() for candidate in self.candidates],
            "interval_sums": self.interval_sums,
            "validations": self.validations,
            "losses": self.losses,
            "reinitializations": self.reinitializations,
            "reason": self.reason,
            "converged": self.converged,
            "warnings": self.warnings,
        }

    def load_state_dict(self, saved: dict) -> None:
        """Restore the state from a checkpoint."""
        self.schedule.decay_start = saved["decay_start"]
        self.history.load_state_dict(saved["history"])
        self.candidates = [Candidate(**state) for state in saved["candidates"]]
        self.interval_sums = [list(sums) for sums in saved["interval_sums"]]
        self.validations = list(saved["validations"])
        self.losses = list(saved["losses"])
        self.reinitializations = saved["reinitializations"]
        self.reason = saved["reason"]
        self.converged = saved["converged"]
        self.warnings = list(saved["warnings"])

    def _restart_chain(self, chain: int) -> None:
        random = self.training.random(Purpose.CHAIN_RESTART, self.training.iteration, chain)
        self.training.chains.restart(chain, random)

    @property
    def _check_due(self) -> bool:
        return self.training.iteration % self.history.settings.check_interval == 0

    def _restart_non_mixing_chains(self) -> list[str]:
        messages = []
        for chain in non_mixing_chains(self.history.mobility, self.hyperparameters.diagnostics):
            self._restart_chain(chain)
            self.history.mobility[chain] = torch.nan
            messages.append(
                f"chain {chain + 1} moved far less than the others and counts as frozen; it restarts from a frame of the "
                "reference"
            )
        return messages

    def _recover_discriminators(self) -> list[str]:
        if not self._check_due or self.reinitializations > self.settings.most_reinitializations:
            return []
        collapsed = collapsed_discriminators(
            self.history.gaps(self.history.settings.check_interval),
            self.hyperparameters.diagnostics,
        )
        if not collapsed:
            return []
        done = self._reinitialize(collapsed)
        samples = " and ".join(SAMPLES[name] for name in collapsed)
        action = "it is reinitialized" if done else "it was reinitialized before and is kept"
        return [f"the discriminator of {samples} has collapsed: its output is constant; {action}"]

    def _test_convergence(self) -> list[str]:
        """Start the decay if nothing drifts or if iterations run out, and diagnose what has converged to."""
        training, history = self.training, self.history
        late = training.iteration >= self.schedule.latest_decay_start
        if not late and not self._check_due:
            return []
        drifting = self._drifting()
        # With a gradient of noise the friction walks at random and may never converge, so the diagnostics also run at
        # the latest start of the decay.
        diagnosable = history.full and (late or not drifting)
        diagnosis = None
        if diagnosable:
            diagnosis = diagnose_motion(
                history,
                training.held_out.error,
                sum(self.losses) / len(self.losses),
                self.hyperparameters.diagnostics,
            )
        if (
            diagnosis is not None
            and diagnosis.cause is Cause.DISCRIMINATOR
            and not late
            and self._reinitialize(training.motion_discriminators.trainers)
        ):
            return [f"{diagnosis.message}; it is reinitialized"]
        if not late and drifting:
            return []
        if diagnosis is None and diagnosable:
            diagnosis = diagnose_gradient(history, self.hyperparameters.diagnostics)
        if drifting:
            self._start_decay(f"{', '.join(drifting)} had not converged")
        else:
            self._start_decay(
                "friction, memory kernel, mean squared displacements, structure and validation had converged"
            )
            self.converged = True
        return [] if diagnosis is None else [diagnosis.message]

    def _final_diagnosis(self) -> list[str]:
        messages = []
        if self.training.sees_neighbors:
            diagnosis = diagnose_gap(
                self.history.values("gap"),
                self.training.between_beads,
                self.hyperparameters.diagnostics,
            )
            if diagnosis is not None:
                messages.append(diagnosis.message)
        if self.validated and not any(candidate.values for candidate in self.candidates):
            messages.append(
                "every validation in OpenMM exploded, which simulates longer than the training: the exported model may "
                "explode; use a shorter dynamics.timestep_fs"
            )
        return messages

    def _drifting(self) -> list[str]:
        """Return what has not converged."""
        found = ["friction", "mean squared displacements", "structure"]
        if self.history.full:
            found = self.history.drifting()
        if len(self.validations) == 2:
            before, after = self.validations
            if improves(before, after, self.hyperparameters.selection):
                found.append("validation in OpenMM")
        return found

    def _reinitialize(self, names: Iterable[str]) -> bool:
        """Reinitialize discriminators and, before the decay, the convergence test; return False if done too often."""
        self.reinitializations += 1
        if self.reinitializations > self.settings.most_reinitializations:
            return False
        self.training.reinitialize(names)
        if (
            self.schedule.decay_start is None
            and self.training.iteration < self.schedule.latest_decay_start
        ):
            self.history.clear()
        return True

    def _start_decay(self, state: str) -> None:
        start = min(self.training.iteration, self.schedule.latest_decay_start)
        self.schedule.decay_start = start
        self.reason = f"after {start} iterations {state}"

    def _accumulate(self) -> None:
        """Add the present parameters, and a one, to the sums of the present interval of the decay."""
        assert self.schedule.decay_start is not None
        done = self.training.iteration - self.schedule.decay_start - 1
        intervals = self.settings.averaging_intervals
        interval = min(intervals - 1, intervals * done // max(1, self.schedule.decay_iterations))
        current = [parameter.detach() for parameter in self.training.parameters]
        current.append(torch.ones(1, dtype=torch.float64))
        if interval < len(self.interval_sums):
            sums = self.interval_sums[interval]
            self.interval_sums[interval] = [a + b for a, b in zip(sums, current)]
        else:
            self.interval_sums.append([value.clone() for value in current])

    def _interval_averages(self) -> list[list[Tensor]]:
        return [[value / sums[-1] for value in sums[:-1]] for sums in self.interval_sums]

    def _held_out(self) -> dict:
        """Return deviations from the held-out part of the reference, averaged over the last half of the history."""
        if not self.history.rows:
            return {}
        values = self.history.values("displacement")
        mean, own = mean_and_error(values[len(values) // 2 :])
        error = torch.hypot(own, self.training.held_out.error.flatten())
        shape = self.training.held_out.msd.shape
        structure = self.history.values("structure")[-len(values) // 2 :]
        return {
            "lags_ps": self.training.lags.tolist(),
            "displacement_ratio": _finite(mean.exp().reshape(shape).tolist()),
            "displacement_ratio_stderr": _finite((mean.exp() * error).reshape(shape).tolist()),
            "structure": _finite(structure.exp().mean().item()),
            "gap": _finite(self.history.values("gap").mean().item()),
        }


def _finite(value: Any) -> Any:
    """Return numbers for JSON, with None for those that are not finite."""
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return value if math.isfinite(value) else None
