"""The adversarial loop: rollouts of the generator against windows of the all-atom reference.

Friction and memory follow the critic of the motion of beads. The potential follows the relative entropy,
or, with ``potential: adversarial``, the same critic and one of the arrangement of beads.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..baselines import InitialFit, RelativeEntropy
from ..config import Experiment
from ..discriminator import DynamicsDiscriminator, StructureDiscriminator
from ..dynamics import GeneralizedLangevin, effective_friction, rollout
from ..trajectory import BeadTrajectory
from ..units import KB
from .chains import Chains
from .checkpoint import load_checkpoint, save_checkpoint
from .game import BATCH, Critic
from .log import TrainingLog
from .windows import ReferenceWindows, window_lags

FRICTION_RATE = 0.03
POTENTIAL_RATE = 0.02
DYNAMICS_CRITIC_RATE = 2e-3
STRUCTURE_CRITIC_RATE = 1e-3
CONSTANT_PART = 0.4
"""Part of the run with constant learning rates; then they fall to FINAL_RATE along a cosine."""
FINAL_RATE = 0.05
STRUCTURE_INTERVAL = 0.1
"""Time between the generated configurations that the relative entropy averages over (ps)."""
ROLLOUTS = 2
"""Chains that are rolled out in an iteration; more threads than this are left to the critics."""
MOST_RECOVERIES = 5


class TrainingDiverged(RuntimeError):
    """The generator kept exploding although training went back to its last good state."""


@dataclass(frozen=True)
class TrainedParameters:
    """What training exports: averages over its iterations.

    Attributes
    ----------
    theta : Tensor [P]
        Parameters of the potential (kJ/mol).
    drift : Tensor [n_types, K + 1, K + 1]
        Friction and memory matrices (1/ps).
    """

    theta: Tensor
    drift: Tensor

    @property
    def friction(self) -> Tensor:
        """Effective friction of each bead type (1/ps)."""
        return effective_friction(self.drift)

    def named(self, type_names: tuple[str, ...]) -> dict[str, float]:
        """Friction, rates and couplings by name, for the log; with the bead type if there are several."""
        values = {"averaged_friction": self.friction.mean().item()}
        for name, drift, friction in zip(type_names, self.drift, self.friction):
            suffix = f"_{name}" if len(type_names) > 1 else ""
            values[f"averaged_friction{suffix}"] = friction.item()
            values[f"gamma_0{suffix}"] = drift[0, 0].item()
            for k in range(1, len(drift)):
                values[f"alpha_{k}{suffix}"] = drift[k, k].item()
                values[f"coupling_{k}{suffix}"] = drift[0, k].item()
        return values


def einstein_friction(windows: ReferenceWindows, displacement: Tensor, kT: float) -> float:
    """Half of kT/(m D), an order of magnitude to start from (1/ps), with D from the longest lag of the windows.

    ``displacement`` [n_types] is the root mean square one at that lag (nm).
    """
    lag = float(windows.offsets[-1]) * windows.trajectory.frame_interval
    masses = torch.from_numpy(windows.trajectory.masses)
    kinds = torch.arange(len(displacement))
    mass = torch.stack([masses[windows.types == kind].mean() for kind in kinds])
    diffusion = displacement.square() / (6 * lag)
    return float((0.5 * kT / (mass * diffusion)).mean())


class AdversarialTraining:
    """State of the training of one model.

    Parameters
    ----------
    trajectory : BeadTrajectory
        The all-atom reference.
    initial : InitialFit
        Potential to start from.
    experiment : Experiment
    """

    def __init__(self, trajectory: BeadTrajectory, initial: InitialFit, experiment: Experiment):
        settings, motion = experiment.training, experiment.dynamics
        self.settings = settings
        self.iteration = 0
        self.recoveries = 0
        self.spec = initial.spec
        self.kT = KB * trajectory.temperature
        self.dt = motion.timestep
        self.types = torch.from_numpy(trajectory.types)
        self.masses = torch.from_numpy(trajectory.masses)
        lags = window_lags(trajectory.frame_interval, settings.window_ps, motion.memory > 0)
        self.windows = ReferenceWindows(trajectory, lags)
        per_frame = round(trajectory.frame_interval / self.dt)
        self.window_steps = [0, *(lag * per_frame for lag in lags)]
        spacing = max(1, round(STRUCTURE_INTERVAL / self.dt))
        structure = range(spacing, self.window_steps[-1] + 1, spacing)
        self.frames = sorted({*self.window_steps, *structure})
        self.window_frames = [self.frames.index(step) for step in self.window_steps]
        self.structure_frames = [self.frames.index(step) for step in structure]

        window = lags[-1] * trajectory.frame_interval
        scale = self.windows.scale()
        friction = motion.initial_friction_per_ps or einstein_friction(self.windows, scale[:, -1, 1], self.kT)
        torch.manual_seed(settings.seed)
        self.motion = GeneralizedLangevin(
            len(trajectory.type_names), motion.memory, friction, floor=1.0 / window if motion.memory else 0.0
        )
        self.entropy = RelativeEntropy(trajectory, self.spec)
        self.phi = torch.nn.Parameter(self.entropy.phi(torch.from_numpy(initial.theta)))
        options = experiment.discriminator
        self.dynamics = Critic(
            DynamicsDiscriminator(
                scale, options.scalars, options.vectors, options.heads, options.attention
            ),
            DYNAMICS_CRITIC_RATE,
        )
        self.structure = None
        if settings.potential == "adversarial":
            module = StructureDiscriminator(
                len(trajectory.type_names), min(self.spec.pair.r_min), self.spec.pair.r_cut
            )
            generator = self.random(-1)
            frames = [self.windows.frame(generator) for _ in range(8)]
            module.standardize(torch.cat([module.densities(x, box, self.types) for x, box in frames]))
            self.structure = Critic(module, STRUCTURE_CRITIC_RATE)
        self.optimizer = torch.optim.Adam(
            [
                {"params": list(self.motion.parameters()), "lr": FRICTION_RATE},
                {"params": [self.phi], "lr": POTENTIAL_RATE},
            ],
            betas=(0.5, 0.95),
        )
        self.average = [parameter.detach().clone() for parameter in self.parameters]
        self.chains = Chains(
            self.windows, settings.chains, self.masses, self.kT, motion.memory, self.random(-2)
        )

    @property
    def parameters(self) -> list[Tensor]:
        """Trained parameters of the generator: of the potential first."""
        return [self.phi, *self.motion.parameters()]

    def random(self, stream: int) -> torch.Generator:
        """A generator that depends on the seed, the stream and the number of recoveries alone."""
        seed = (self.settings.seed * 1_000_003 + stream) * 1_009 + self.recoveries
        return torch.Generator().manual_seed(seed % 2**63)

    def averaged(self) -> TrainedParameters:
        """The exported parameters: moving averages."""
        current = [parameter.detach().clone() for parameter in self.parameters]
        with torch.no_grad():
            for parameter, average in zip(self.parameters, self.average):
                parameter.copy_(average)
            result = TrainedParameters(self.entropy.theta(self.phi).clone(), self.motion.drift().clone())
            for parameter, value in zip(self.parameters, current):
                parameter.copy_(value)
        return result

    def state_dict(self) -> dict:
        """Everything that the following iterations depend on."""
        return {
            "phi": self.phi.detach(),
            "motion": self.motion.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "chains": self.chains.state_dict(),
            "dynamics": self.dynamics.state_dict(),
            "structure": self.structure.state_dict() if self.structure else {},
            "recoveries": self.recoveries,
        }

    def load_state_dict(self, saved: dict) -> None:
        with torch.no_grad():
            self.phi.copy_(saved["phi"])
        self.motion.load_state_dict(saved["motion"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.average = [value.clone() for value in saved["average"]]
        self.chains.load_state_dict(saved["chains"])
        self.dynamics.load_state_dict(saved["dynamics"])
        if self.structure:
            self.structure.load_state_dict(saved["structure"])
        self.recoveries = saved["recoveries"]

    def schedule(self) -> float:
        """Factor of the generator's learning rates at this iteration."""
        done = self.iteration / max(1, self.settings.iterations)
        falling = max(0.0, (done - CONSTANT_PART) / (1 - CONSTANT_PART))
        return FINAL_RATE + (1 - FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * falling))

    def step(self) -> dict[str, float]:
        """One iteration: rollouts, critics' steps, the generator's step. Returns what is logged."""
        self.iteration += 1
        random = self.random(self.iteration)
        number = min(self.settings.chains, ROLLOUTS)
        chosen = [(self.iteration * number + k) % self.settings.chains for k in range(number)]
        positions, state, boxes = self.chains.take(chosen, random)
        e, s = self.motion.propagator(self.dt)
        frames, positions, state = rollout(
            positions, state, boxes, types=self.types, masses=self.masses, spec=self.spec,
            theta=self.entropy.theta(self.phi), e=e, s=s, kT=self.kT, dt=self.dt, frames=self.frames,
            forget=self.settings.forget_ps, seed=int(torch.randint(2**62, [1], generator=random)),
        )  # fmt: skip
        self.chains.put(chosen, positions, state)

        critic = self.dynamics.module
        types = self.types.repeat(number)
        windows = frames[:, self.window_frames].transpose(1, 2).flatten(0, 1)
        fake = critic.tokens(windows, types)

        def real():
            sampled, kinds = self.windows.sample(BATCH, random)
            return critic.tokens(sampled, kinds), kinds

        judged, values = self.dynamics.judge(real, (fake, types), frames, random)
        log = {f"dynamics_{name}": value for name, value in values.items()}
        motion = list(self.motion.parameters())
        used = motion if self.structure is None else [*motion, self.phi]
        gradients = torch.autograd.grad(
            frames, used, judged, retain_graph=self.structure is not None, allow_unused=True
        )
        for parameter, gradient in zip(used, gradients):
            parameter.grad = torch.zeros_like(parameter) if gradient is None else gradient

        entropy = self.entropy.gradient(
            frames.detach()[:, self.structure_frames].flatten(0, 1), boxes.repeat_interleave(len(self.structure_frames), 0)
        )
        log["structure_gradient"] = entropy.norm().item()
        if self.structure is None:
            self.phi.grad = entropy
        else:
            gradient, values = self.judge_structure(frames[:, -1], boxes, random)
            self.phi.grad += gradient
            log |= {f"structure_{name}": value for name, value in values.items()}

        for group, rate in zip(self.optimizer.param_groups, (FRICTION_RATE, POTENTIAL_RATE)):
            group["lr"] = rate * self.schedule()
        if not all(bool(torch.isfinite(parameter.grad).all()) for parameter in self.parameters):
            raise RuntimeError(f"a gradient of the generator is not finite at iteration {self.iteration}")
        self.optimizer.step()
        decay = 0.98 if self.iteration < CONSTANT_PART * self.settings.iterations else 0.99
        decay = min(decay, self.iteration / (self.iteration + 4))
        with torch.no_grad():
            for average, parameter in zip(self.average, self.parameters):
                average.lerp_(parameter, 1 - decay)
            log["friction"] = self.motion.effective_friction().mean().item()
        return log

    def judge_structure(
        self, x: Tensor, boxes: Tensor, random: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """Let the structural critic learn from the last frames; the gradient of its judgement to φ."""
        critic = self.structure.module

        def inputs(configurations):
            return torch.cat([critic.inputs(critic.densities(one, box, self.types)) for one, box in configurations])

        fake = inputs(zip(x, boxes))
        types = self.types.repeat(len(x))
        reference = inputs(self.windows.frame(random) for _ in range(2))
        kinds = self.types.repeat(2)

        def real():
            chosen = torch.randint(len(reference), [BATCH], generator=random)
            return reference[chosen], kinds[chosen]

        judged, values = self.structure.judge(real, (fake, types), x, random)
        return torch.autograd.grad(x, self.phi, judged)[0], values


def train(
    training: AdversarialTraining,
    directory: Path,
    *,
    validate: Callable[[TrainedParameters, int], dict[str, float]] | None = None,
    progress: Callable[[int, int, dict[str, float]], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> TrainedParameters:
    """Train a model; goes on from the last checkpoint in ``directory`` if there is one.

    Parameters
    ----------
    training : AdversarialTraining
    directory : Path
        Gets ``log.csv``, TensorBoard events and ``checkpoints/``.
    validate : callable, optional
        Measures the averaged parameters, every ``validate_every`` iterations; what it returns is logged.
    progress : callable, optional
        Told the iteration, the number of iterations and the logged values.
    warn : callable, optional
        Told in one sentence when training went back to its last good state.

    Raises
    ------
    TrainingDiverged
        If that happened too often.
    """
    settings = training.settings
    checkpoints = directory / "checkpoints"
    saved = load_checkpoint(checkpoints)
    if saved is not None:
        training.load_state_dict(saved)
        training.iteration = saved["iteration"]
    names = training.spec.type_names
    columns = ["seconds", "friction", *training.averaged().named(names), "dynamics_critic_loss", "dynamics_generator_loss",
               "dynamics_margin", "structure_gradient", "structure_critic_loss", "structure_generator_loss",
               "structure_margin", "validation_diffusion", "validation_diffusion_stderr", "validation_rdf_l1",
               "validation_adf_l1", "validation_temperature"]  # fmt: skip
    log = TrainingLog(directory, columns, training.iteration)
    begun = time.monotonic() - log.seconds
    good = (training.iteration, _copy(training.state_dict()))
    try:
        while training.iteration < settings.iterations:
            try:
                values = training.step()
            except RuntimeError as error:
                training.iteration = good[0]
                recoveries = training.recoveries + 1
                if recoveries > MOST_RECOVERIES:
                    raise TrainingDiverged(
                        f"training diverged {recoveries} times, last from iteration {good[0]}: {error}; "
                        "a shorter dynamics.timestep_fs or a longer reference may help"
                    ) from error
                training.load_state_dict(_copy(good[1]))
                training.recoveries = recoveries
                if warn is not None:
                    warn(f"{error}; training went back to iteration {good[0]}")
                continue
            iteration = training.iteration
            averaged = training.averaged()
            values |= averaged.named(names)
            if validate is not None and (iteration % settings.validate_every == 0 or iteration == settings.iterations):
                values |= validate(averaged, iteration)
            values["seconds"] = time.monotonic() - begun
            log.write(iteration, values)
            if iteration % settings.checkpoint_every == 0 or iteration == settings.iterations:
                good = (iteration, _copy(training.state_dict()))
                save_checkpoint(checkpoints, iteration, good[1])
            if progress is not None:
                progress(iteration, settings.iterations, values)
    finally:
        log.close()
    return training.averaged()


def _copy(state):
    """A copy of nested containers of tensors that later steps don't change."""
    if isinstance(state, Tensor):
        return state.detach().clone()
    if isinstance(state, dict):
        return {key: _copy(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return [_copy(value) for value in state]
    return state
