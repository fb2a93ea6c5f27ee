"""The loop of training: iterations, when it has arrived, what it exports, and what is done when it goes wrong."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

from .adversarial import AdversarialTraining
from .alarms import CRITIC, all_frozen, blind_critics, frozen_chains, noisy, open_gap, ran_away, slow_memory, why_off
from .checkpoint import load_checkpoint, save_checkpoint
from .choice import Candidate, choose, improves
from .course import CHECK, Course, mean_and_error
from .log import TrainingLog
from .outcome import Outcome, wander
from .parameters import TrainedPairParameters, TrainedParameters
from .schedule import Schedule
from .settle import begin, settle

Validate = Callable[[TrainedParameters | TrainedPairParameters, int], dict[str, float]]

MOST_RECOVERIES = 5

MOST_RENEWALS = 2
"""A critic that ends like the two before it has not collapsed."""

JUDGED = {
    "dynamics": "windows", "long": "the longest lags", "neighbors": "neighbourhoods", "shear": "shear waves", "structure": "configurations",
}  # fmt: skip
"""What each critic judges."""

SETTLE, SETTLE_PAIRS = 1, 2
"""Rollouts in which memory settles at the end, in iterations of the fall: of a bead, longer ones, and of pairs."""

RESTS = 4
"""Parts of the fall whose means tell how far the parameters wander."""


class TrainingDiverged(RuntimeError):
    """The generator kept exploding although training went back to its last good state."""


class ChainsFroze(RuntimeError):
    """Nothing moves any more."""


class FrictionRanAway(RuntimeError):
    """Friction between pairs has grown beyond all that motion can tell."""


class Loop:
    """What training knows of itself beside the state of the model: how far it is, its trends, what may be exported.

    Parameters
    ----------
    training : AdversarialTraining
    """

    def __init__(self, training: AdversarialTraining):
        self.training = training
        self.schedule = Schedule(training.settings.iterations, alone=training.structure is not None)
        self.course = Course(training.settings.chains)
        self.candidates: list[Candidate] = []
        self.rests: list[list[Tensor]] = []
        self.validations: list[dict[str, float]] = []
        self.losses: list[float] = []
        self.renewals = 0
        self.why = ""
        self.arrived = False
        self.warnings: list[str] = []
        self.validated = False

    @property
    def done(self) -> bool:
        """Whether there is nothing left to do."""
        return self.training.iteration >= self.schedule.end

    def step(self) -> dict[str, float]:
        """One iteration; raises RuntimeError if the model explodes or freezes."""
        training, schedule = self.training, self.schedule
        training.rate = schedule.rate(training.iteration + 1)
        training.decay = schedule.decay(training.iteration + 1)
        values = training.step()
        seen = training.seen
        self.course.see(seen)
        self.losses = [*self.losses, values["dynamics_generator_loss"]][-CHECK:]
        frozen = all_frozen(self.course.mobility, seen.structure, len(training.phi))
        if frozen is not None:
            raise ChainsFroze(frozen)
        if training.pairs:
            start = torch.tensor(training.scales.friction_per_ps, dtype=torch.float64)
            runaway = ran_away(training.motion.bead_friction(), training.free_friction[:, 0], start, training.sees_neighbors)
            if runaway is not None:
                raise FrictionRanAway(runaway)
        if schedule.begun is not None:
            self._rest()
        return values

    def mend(self) -> list[str]:
        """Look for what is wrong, do what can be done about it, and say it."""
        training, course = self.training, self.course
        said = []
        for chain in frozen_chains(course.mobility):
            training.chains.start(chain, training.random(-10 - training.iteration))
            course.mobility[chain] = torch.nan
            said.append(
                f"chain {chain + 1} moved far less than the others and was taken to be frozen; it starts again from "
                "a frame of the reference"
            )
        late = training.iteration >= self.schedule.latest
        blind = blind_critics(course.margins(CHECK)) if training.iteration % CHECK == 0 else []
        if blind and self.renewals <= MOST_RENEWALS:
            again = self._renew(blind)
            said.append(
                f"the critic has collapsed: that of {' and that of '.join(JUDGED[name] for name in blind)} gives all that it is shown the "
                f"same score; {'it begins anew' if again else 'it has begun anew before'}"
            )
        if self.schedule.begun is None and (late or training.iteration % CHECK == 0):
            drifting = self._drifting()
            # Where gradients are noise, friction walks at random and may never settle: the alarms are asked at the latest too.
            asked = course.full and (late or not drifting)
            alarm = why_off(course, training.held_out.error, sum(self.losses) / len(self.losses)) if asked else None
            if alarm is not None and alarm.kind == CRITIC and not late and self._renew(training.dynamics.critics):
                said.append(f"{alarm.sentence}; it begins anew")
            elif late or not drifting:
                alarm = alarm or (noisy(course) if asked else None)
                if alarm is not None:
                    said.append(alarm.sentence)
                if drifting:
                    self._fall(f"{', '.join(drifting)} had not settled")
                else:
                    self._fall("friction, memory, displacements, structure and live validation had settled")
                    self.arrived = True
        if training.iteration == self.schedule.end:
            gap = open_gap(course.stretch("margin"), training.pairs) if training.sees_neighbors else None
            if gap is not None:
                said.append(gap.sentence)
            if self.validated and not any(candidate.values for candidate in self.candidates):
                said.append(
                    "no average was measured in live validation, where models run for longer than in training: what is "
                    "exported may explode; a shorter dynamics.timestep_fs may help"
                )
        self.warnings += [f"iteration {training.iteration}: {sentence}" for sentence in said]
        return said

    def restart(self) -> None:
        """Start all chains again from frames of the reference."""
        for chain in range(self.training.settings.chains):
            self.training.chains.start(chain, self.training.random(-10 - chain))
        self.course.mobility.fill_(torch.nan)

    def validates(self) -> bool:
        """Whether live validation is due: at even distances before the fall, and again from its beginning."""
        every, begun = self.training.settings.validate_every, self.schedule.begun or 0
        return (self.training.iteration - begun) % every == 0 or self.done

    def consider(self, values: dict[str, float]) -> None:
        """Take in what live validation found, nothing if the model exploded in it; the present averages may be exported
        if rates are falling."""
        self.validations = [*self.validations, values][-2:]
        if self.schedule.begun is not None or self.done:
            average = [value.clone() for value in self.training.average]
            seen = self.course.windows(self.training.settings.validate_every, self.training.held_out.error) if values else {}
            self.candidates.append(Candidate(self.training.iteration, average, values | seen))

    def finish(self, validate: Validate | None, progress: Callable[[int, int], None]) -> Candidate:
        """The averages to be exported: those chosen, with memory that has followed displacements, if that is not worse.

        Parameters
        ----------
        validate : callable or None
            Measures what has followed, as it measured all others.
        progress : callable
            Told the rollouts done and their number while memory follows.
        """
        training = self.training
        chosen = choose(self.candidates or [Candidate(training.iteration, training.average, {})])
        if not training.settles:
            return chosen
        rollouts = (SETTLE_PAIRS if training.pairs else SETTLE) * self.schedule.fall
        try:
            average = settle(training, chosen.average, rollouts, lambda done: progress(done, rollouts))
        except RuntimeError as error:
            self.warnings.append(f"iteration {training.iteration}: memory was not settled: {error}")
            return chosen
        iteration = training.iteration + rollouts
        values = validate(training.averaged(average), iteration) if validate is not None else {}
        followed = Candidate(iteration, average, values)
        best = choose([chosen, followed])
        if best is chosen:
            self.warnings.append(
                f"iteration {iteration}: live validation found the model worse where memory had followed displacements, so "
                f"memory stays as it was at iteration {chosen.iteration}"
            )
        return best

    def outcome(self, exported: Candidate) -> Outcome:
        """What is known of the parameters that are exported."""
        training = self.training
        slow = slow_memory(*training.memory(exported.average))
        if slow is not None:
            self.warnings.append(f"iteration {training.iteration}: {slow}")
        parameters = training.averaged(exported.average)
        rests = [training.averaged(rest) for rest in self._rests_taken()]
        return Outcome(
            parameters=parameters,
            iterations=training.iteration,
            settled=self.schedule.begun,
            arrived=self.arrived,
            exported=exported.iteration,
            why=self.why,
            warnings=self.warnings,
            wander=wander(rests, training.spec, training.kT),
            held_out=self._held_out(),
            validated=[{"iteration": one.iteration, **one.values} for one in self.candidates],
            figures=exported.values,
        )

    def state_dict(self) -> dict:
        return {
            "begun": self.schedule.begun,
            "course": self.course.state_dict(),
            "candidates": [candidate.state() for candidate in self.candidates],
            "rests": self.rests,
            "validations": self.validations,
            "losses": self.losses,
            "renewals": self.renewals,
            "why": self.why,
            "arrived": self.arrived,
            "warnings": self.warnings,
        }

    def load_state_dict(self, saved: dict) -> None:
        self.schedule.begun = saved["begun"]
        self.course.load_state_dict(saved["course"])
        self.candidates = [Candidate(**state) for state in saved["candidates"]]
        self.rests = [list(rest) for rest in saved["rests"]]
        self.validations = list(saved["validations"])
        self.losses = list(saved["losses"])
        self.renewals = saved["renewals"]
        self.why = saved["why"]
        self.arrived = saved["arrived"]
        self.warnings = list(saved["warnings"])

    def _drifting(self) -> list[str]:
        """What has not settled yet."""
        found = self.course.drifting() if self.course.full else ["friction", "displacements", "structure"]
        if len(self.validations) == 2 and improves(*self.validations):
            found.append("live validation")
        return found

    def _renew(self, critics: Iterable[str]) -> bool:
        """Let critics begin anew, and settle anew if rates have not begun to fall; False if critics have done so too often."""
        self.renewals += 1
        if self.renewals > MOST_RENEWALS:
            return False
        self.training.renew(critics)
        if self.schedule.begun is None and self.training.iteration < self.schedule.latest:
            self.course.forget()
        return True

    def _fall(self, why: str) -> None:
        iteration = min(self.training.iteration, self.schedule.latest)
        self.schedule.begun = iteration
        self.why = f"after {iteration} iterations {why}"

    def _rest(self) -> None:
        """Add the present parameters to the sum of their part of the fall."""
        done = self.training.iteration - self.schedule.begun - 1
        part = min(RESTS - 1, RESTS * done // max(1, self.schedule.fall))
        current = [parameter.detach() for parameter in self.training.parameters]
        current.append(torch.ones(1, dtype=torch.float64))
        if part < len(self.rests):
            current = [a + b for a, b in zip(self.rests[part], current)]
            self.rests[part] = current
        else:
            self.rests.append([value.clone() for value in current])

    def _rests_taken(self) -> list[list[Tensor]]:
        return [[value / rest[-1] for value in rest[:-1]] for rest in self.rests]

    def _held_out(self) -> dict:
        """Displacements in generated windows over those held out, in the last half of a stretch."""
        if not self.course.rows:
            return {}
        values = self.course.stretch("displacement")
        mean, own = mean_and_error(values[len(values) // 2 :])
        error = torch.hypot(own, self.training.held_out.error.flatten())
        shape = self.training.held_out.squares.shape
        return {
            "lags_ps": self.training.lags.tolist(),
            "displacement_ratio": _plain(mean.exp().reshape(shape).tolist()),
            "displacement_ratio_stderr": _plain((mean.exp() * error).reshape(shape).tolist()),
            "structure": _plain(self.course.stretch("structure")[-len(values) // 2 :].exp().mean().item()),
            "margin": _plain(self.course.stretch("margin").mean().item()),
        }


def _plain(value):
    """Numbers for JSON; None where there is none."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value if math.isfinite(value) else None


def train(
    training: AdversarialTraining,
    directory: Path,
    *,
    validate: Validate | None = None,
    progress: Callable[[int, int, dict[str, float]], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> TrainedParameters | TrainedPairParameters:
    """Train a model; goes on from the last checkpoint in ``directory`` if there is one.

    Friction on single beads begins with a memory that makes displacements those of the reference, see
    :func:`~openmm_cgadv.training.settle.begin`. Learning rates are constant until friction, memory, displacements in windows and the structure, the latter two
    compared with a part of the reference that training never sees, have stopped changing by more than their own
    scatter, and live validation finds no improvement. Then they fall along a cosine of fixed length. Of the moving averages
    that were validated along it the last is taken whose figures are within their errors as good as the best. Its memory
    follows displacements in some more rollouts, see :func:`~openmm_cgadv.training.settle.settle`, is validated once more, and
    is exported by the same rule.

    Parameters
    ----------
    training : AdversarialTraining
    directory : Path
        Gets ``log.csv``, TensorBoard events, ``checkpoints/`` and ``outcome.json``.
    validate : callable, optional
        Measures averaged parameters, every ``validate_every`` iterations; what it returns is logged.
    progress : callable, optional
        Told the iteration, the number of iterations as far as it is known, and the logged values.
    warn : callable, optional
        Told in one sentence what went wrong and what was done about it, and why training stopped.

    Raises
    ------
    TrainingDiverged
        If training had to go back to its last good state too often.
    MemoryError
        If there is not enough of it. The last checkpoint stays.
    """
    settings = training.settings
    say = warn or (lambda sentence: None)
    loop = Loop(training)
    checkpoints = directory / "checkpoints"
    saved = load_checkpoint(checkpoints)
    if saved is not None:
        training.load_state_dict(saved)
        training.iteration = saved["iteration"]
        loop.load_state_dict(saved["loop"])
    names = training.spec.type_names
    clock = time.monotonic()
    if saved is None and training.settles and not training.pairs:
        named = training.averaged().named(names)
        try:
            begin(training, lambda: progress(0, loop.schedule.end, named) if progress is not None else None)
        except RuntimeError as error:
            loop.warnings.append(f"memory did not follow displacements before the first iteration: {error}")
            say(loop.warnings[-1])
    log = TrainingLog(directory, [*COLUMNS[:2], *training.averaged().named(names), *COLUMNS[2:]], training.iteration)
    begun = clock - log.seconds
    good = (training.iteration, _copy(training.state_dict()), _copy(loop.state_dict()))
    try:
        while not loop.done:
            try:
                values = loop.step()
            except RuntimeError as error:
                if "alloc" in str(error):  # no explosion but an allocator's, and what follows a return would take as much
                    raise MemoryError(f"{error}; fewer training.chains or a shorter training.window_ps take less memory") from error
                training.iteration = good[0]
                recoveries = training.recoveries + 1
                if recoveries > MOST_RECOVERIES:
                    raise TrainingDiverged(
                        f"training diverged {recoveries} times, last from iteration {good[0]}: {error}; "
                        "a shorter dynamics.timestep_fs or a longer reference may help"
                    ) from error
                warnings = loop.warnings
                training.load_state_dict(_copy(good[1]))
                loop.load_state_dict(_copy(good[2]))
                loop.warnings = warnings
                training.recoveries = recoveries
                if isinstance(error, ChainsFroze):
                    loop.restart()
                said = f"{error}; training went back to iteration {good[0]}"
                loop.warnings.append(said)
                say(said)
                continue
            iteration = training.iteration
            averaged = training.averaged()
            values |= averaged.named(names)
            if loop.validates():
                found = validate(averaged, iteration) if validate is not None else {}
                loop.validated = validate is not None
                values |= found
                loop.consider(found)
            for sentence in loop.mend():
                say(sentence)
            values["seconds"] = time.monotonic() - begun
            log.write(iteration, values)
            if iteration % settings.checkpoint_every == 0 or loop.done:
                good = (iteration, _copy(training.state_dict()), _copy(loop.state_dict()))
                save_checkpoint(checkpoints, iteration, {**good[1], "loop": good[2]})
            if progress is not None:
                progress(iteration, loop.schedule.end, values)
        end, named, warned = training.iteration, training.averaged().named(names), len(loop.warnings)
        exported = loop.finish(
            validate, lambda done, total: progress(end + done, end + total, named) if progress is not None else None
        )
        outcome = loop.outcome(exported)
        if exported.iteration > end:
            known = outcome.parameters.named(names) | exported.values
            log.write(exported.iteration, known | {"seconds": time.monotonic() - begun})
    finally:
        log.close()
    outcome.save(directory)
    for sentence in loop.warnings[warned:]:
        say(sentence)
    say(outcome.sentence())
    return outcome.parameters


COLUMNS = (
    "seconds", "friction", "dynamics_critic_loss", "dynamics_generator_loss", "dynamics_margin", "long_critic_loss",
    "long_generator_loss", "long_margin", "neighbors_critic_loss", "neighbors_generator_loss", "neighbors_margin",
    "shear_critic_loss", "shear_generator_loss", "shear_margin",
    "held_out_margin", "held_out_displacement", "structure_gradient",
    "held_out_structure", "structure_critic_loss", "structure_margin",
    "validation_diffusion", "validation_diffusion_stderr", "validation_diffusion_deviation",
    "validation_diffusion_deviation_stderr", "validation_rdf_l1",
    "validation_rdf_l1_stderr", "validation_adf_l1", "validation_adf_l1_stderr", "validation_vacf_rms",
    "validation_vacf_rms_stderr", "validation_msd", "validation_msd_stderr", "validation_transverse_current_difference",
    "validation_transverse_current_difference_stderr", "validation_shared_difference",
    "validation_shared_difference_stderr", "validation_temperature", "validation_length",
)  # fmt: skip
"""Columns of the log after the iteration; the parameters stand after the second."""


def _copy(state):
    """A copy of nested containers of tensors that later steps don't change."""
    if isinstance(state, Tensor):
        return state.detach().clone()
    if isinstance(state, dict):
        return {key: _copy(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return [_copy(value) for value in state]
    return state
