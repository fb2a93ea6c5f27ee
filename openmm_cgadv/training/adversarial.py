"""The adversarial loop: rollouts of the generator against windows of the all-atom reference.

Friction and memory follow the critic of the motion of beads, and between pairs one of shear waves, but for the size of the
slowest memory of pairs, which follows diffusion at the end of windows. The potential follows the relative entropy,
or, with ``potential: adversarial``, a critic of the arrangement of beads. Before and after, memory is taken from displacements (`settle`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..analysis.dynamics import Msd, msd
from ..baselines import InitialFit, RelativeEntropy
from ..config import Experiment
from ..trajectory import BeadTrajectory
from ..units import KB
from .chains import Chains
from .course import Seen
from .game import BATCH
from .held_out import HeldOut, mean_squares
from .motion import initial_motion
from .motion_critics import MotionCritics
from .parameters import TrainedPairParameters, TrainedParameters
from .structure_critic import StructureCritic
from .timescales import time_scales
from .whitened_adam import WhitenedAdam
from .windows import ReferenceWindows, Windows, at_rest, displacement_lags, held_out_start, window_lags

ROLLOUTS = 2
"""Chains that are rolled out in an iteration; more threads than this are left to the critics."""

WINDOWS = 2000
"""Windows of the reference that its diffusion is measured in."""

LEAST_NEIGHBORS = 7
"""Within the range of friction between pairs; 0.36 nm in water, which is too short, has fewer (``docs/recipe.md``)."""

BEADS_SEEN_TOGETHER = (
    "discriminator.kind `graph` sees how neighbours move together, which friction on single beads can't bring about: it will bend the "
    "friction instead; use it with dynamics.equation `pair`."
)


class AdversarialTraining:
    """State of the training of one model.

    Parameters
    ----------
    trajectory : BeadTrajectory
        The all-atom reference.
    initial : InitialFit
        Potential to start from.
    experiment : Experiment

    Attributes
    ----------
    iteration : int
        The last that was done.
    pairs, sees_neighbors : bool
        Whether friction acts between pairs, and whether the critic sees neighbours.
    rate : float
        Factor of the generator's learning rates.
    decay : float
        Of the moving average.
    seen : Seen or None
        What the last iteration showed.
    """

    def __init__(self, trajectory: BeadTrajectory, initial: InitialFit, experiment: Experiment):
        self.scales = time_scales(trajectory, initial, experiment)
        experiment = self.scales.resolved(experiment)
        settings, motion = experiment.training, experiment.dynamics
        self.settings = settings
        self.pairs = motion.equation == "pair"
        self.sees_neighbors = experiment.discriminator.kind == "graph"
        self.iteration = 0
        self.recoveries = 0
        self.rate = 1.0
        self.decay = 0.0
        self.seen: Seen | None = None
        self.spec = initial.spec
        self.kT = KB * trajectory.temperature
        self.dt = motion.timestep
        self.types = torch.from_numpy(trajectory.types)
        self.masses = torch.from_numpy(trajectory.masses)
        lags = window_lags(trajectory.frame_interval, settings.window_ps, motion.memory > 0)
        held_out = held_out_start(trajectory.n_frames, lags[-1])
        self.windows = ReferenceWindows(trajectory, lags, stop=held_out)
        per_frame = round(trajectory.frame_interval / self.dt)
        self.window_steps = [0, *(lag * per_frame for lag in lags)]
        spacing = max(1, round(self.scales.structure_ps / self.dt))
        structure = range(spacing, self.window_steps[-1] + 1, spacing)
        self.frames = sorted({*self.window_steps, *structure})
        self.window_frames = [self.frames.index(step) for step in self.window_steps]
        self.structure_frames = [self.frames.index(step) for step in structure]

        longest = self.windows.scale()[:, -1, 1]
        self.lags = torch.tensor(lags, dtype=torch.float64) * trajectory.frame_interval
        self.reference_squares = longest.square()
        self.half = max(k for k, lag in enumerate([0, *lags]) if 2 * lag <= lags[-1])
        self.free_friction = torch.tensor(self.scales.free_friction_per_ps, dtype=torch.float64)[:, None]
        torch.manual_seed(settings.seed)
        self.motion = initial_motion(trajectory, initial, motion, self.scales)
        self.scales = replace(self.scales, limits=(*self.scales.limits, *self.doubts()))
        # Residual forces may tell more than the rule.
        start, rates = self.motion.bead_friction().detach().tolist(), self.motion.rates().detach()
        if rates.numel():
            self.scales = replace(self.scales, rates_per_ps=(rates.min().item(), rates.max().item()))
        self.scales = replace(self.scales, friction_per_ps=tuple(start))
        self.entropy = RelativeEntropy(trajectory, self.spec, stop=held_out)
        self.held_out = HeldOut(trajectory, lags, held_out, self.entropy)
        self.phi = torch.nn.Parameter(self.entropy.phi(torch.from_numpy(initial.theta)))
        self.dynamics = MotionCritics(self.windows, experiment.discriminator, self.random(-3), waves=self.pairs)
        self.structure = None
        if settings.potential == "adversarial":
            self.structure = StructureCritic(trajectory, self.entropy, held_out)
        self.optimizer = WhitenedAdam(self.motion.groups(), betas=(0.5, 0.95))
        self.average = [parameter.detach().clone() for parameter in self.parameters]
        self.chains = Chains(
            self.windows, self.masses, settings.chains, lambda random: self.motion.start(self.masses, self.kT, random),
            self.random(-2),
        )  # fmt: skip

    def doubts(self) -> list[str]:
        """What is known before training to end badly."""
        if not self.pairs:
            return [BEADS_SEEN_TOGETHER] if self.sees_neighbors else []
        near = self.motion.neighborhood.numbers.sum((1, 2)).min().item()
        if near >= LEAST_NEIGHBORS:
            return []
        return [
            f"Friction between pairs reaches {self.motion.r_cut:g} nm, where a bead has {near:.2g} neighbours: with fewer than "
            f"{LEAST_NEIGHBORS} it was found to hold beads together and hardly to slow them; leave out dynamics.friction_cutoff_nm."
        ]

    @property
    def settles(self) -> bool:
        """Whether memory follows displacements before and after the critics, and not all is to come from them."""
        return self.motion.n_auxiliary > 0 and self.structure is None

    @property
    def parameters(self) -> list[Tensor]:
        """Trained parameters of the generator: of the potential first."""
        return [self.phi, *self.motion.parameters()]

    def random(self, stream: int) -> torch.Generator:
        """A generator that depends on the seed, the stream and the number of recoveries alone."""
        seed = (self.settings.seed * 1_000_003 + stream) * 1_009 + self.recoveries
        return torch.Generator().manual_seed(seed % 2**63)

    def averaged(self, values: list[Tensor] | None = None) -> TrainedParameters | TrainedPairParameters:
        """The exported parameters of moving averages, the present ones by default."""
        with self.holding(self.average if values is None else values):
            return self.motion.trained(self.entropy.theta(self.phi))

    def memory(self, values: list[Tensor]) -> tuple[Tensor, float, Tensor]:
        """Rates of the memory, their floor, and its friction within the window and at long times (1/ps), of values of the parameters."""
        with self.holding(values):
            felt = torch.cat([self.motion.running_friction(self.lags[-1:]), self.motion.bead_friction()[:, None]], 1)
            return self.motion.rates().clone(), self.motion.floor, felt

    @contextmanager
    def holding(self, values: list[Tensor]) -> Iterator[None]:
        """Let the parameters have other values for a moment, without gradients."""
        current = [parameter.detach().clone() for parameter in self.parameters]
        with torch.no_grad():
            try:
                for parameter, value in zip(self.parameters, values):
                    parameter.copy_(value)
                yield
            finally:
                for parameter, value in zip(self.parameters, current):
                    parameter.copy_(value)

    @torch.no_grad()
    def take(self, values: list[Tensor]) -> None:
        """Go on from other values of the parameters."""
        for parameter, average, value in zip(self.parameters, self.average, values):
            parameter.copy_(value)
            average.copy_(value)

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

    def step(self) -> dict[str, float]:
        """One iteration: rollouts, critics' steps, the generator's step. Returns what is logged."""
        self.iteration += 1
        random = self.random(self.iteration)
        chosen, start, frames = self.advance(self.iteration, self.frames, random)
        windows = self.generated(frames[:, self.window_frames], start, random)
        x, boxes = windows.positions, windows.boxes
        judged, log = self.dynamics.judge(windows, random)
        motion = list(self.motion.parameters())
        gradients = torch.autograd.grad(x, motion, judged, allow_unused=True)
        for parameter, gradient in zip(motion, gradients):
            parameter.grad = torch.zeros_like(parameter) if gradient is None else gradient
        if self.pairs:
            # The slowest memory's is told by diffusion, see `restrain`.
            self.motion.log_sizes.grad[:, 1:2] = 0.0

        configurations = frames.detach()[:, self.structure_frames].flatten(0, 1)
        own_boxes = boxes.repeat_interleave(len(self.structure_frames), 0)
        coordinates = self.entropy.coordinates(configurations, own_boxes)
        entropy = -coordinates.mean(0)
        log["structure_gradient"] = entropy.norm().item()
        self.phi.grad = entropy
        if self.structure is not None:
            self.phi.grad, values = self.structure.judge(coordinates, random)
            log |= {f"structure_{name}": value for name, value in values.items()}

        for group in self.optimizer.param_groups:
            group["lr"] = group["rate"] * self.rate
        margins = {name.removesuffix("_margin"): value for name, value in log.items() if name.endswith("_margin")}
        self.seen = self.look(replace(windows, positions=x.detach()), chosen, entropy, margins, random)
        log["held_out_margin"] = self.seen.margin
        log["held_out_displacement"] = self.seen.displacement.square().mean().sqrt().item()
        log["held_out_structure"] = self.seen.structure
        if not all(bool(torch.isfinite(parameter.grad).all()) for parameter in self.parameters):
            raise RuntimeError(f"a gradient of the generator is not finite at iteration {self.iteration}")
        self.optimizer.step()
        if self.pairs:
            self.motion.restrain(self.excess(windows))
        self.entropy.descend(self.phi, self.phi.grad, self.kT, self.rate)
        with torch.no_grad():
            for average, parameter in zip(self.average, self.parameters):
                average.lerp_(parameter, 1 - self.decay)
            log["friction"] = self.motion.bead_friction().mean().item()
        return log

    def renew(self, critics: Iterable[str]) -> None:
        """Let critics, by name, begin again."""
        for name in critics:
            (self.structure.critic if name == "structure" else self.dynamics.critics[name]).renew()

    def advance(self, iteration: int, frames: list[int], random: torch.Generator) -> tuple[list[int], tuple[Tensor, ...], Tensor]:
        """Roll out the chains whose turn it is: which they are, where they started, and the frames."""
        number = min(self.settings.chains, ROLLOUTS)
        chosen = [(iteration * number + k) % self.settings.chains for k in range(number)]
        start = self.chains.take(chosen, random)
        seed = int(torch.randint(2**62, [1], generator=random))
        found, positions, state = self.roll_out(start, frames, seed)
        self.chains.put(chosen, positions, state)
        return chosen, start, found

    def roll_out(self, start: tuple[Tensor, ...], frames: list[int], seed: int) -> tuple[Tensor, ...]:
        """Frames, positions and states at the end of rollouts from positions, states and boxes."""
        positions, state, boxes = start
        return self.motion.roll_out(
            positions, state, boxes, types=self.types, masses=self.masses, spec=self.spec,
            theta=self.entropy.theta(self.phi), kT=self.kT, dt=self.dt, frames=frames,
            forget=self.settings.forget_ps, seed=seed,
        )  # fmt: skip

    def generated(self, frames: Tensor, start: tuple[Tensor, ...], random: torch.Generator) -> Windows:
        """Windows of rollouts from ``start``, as critics see them."""
        return Windows.whole(self.windows.rounded(at_rest(frames, self.masses), random), start[2], self.types)

    @cached_property
    def reference_growth(self) -> Tensor:
        """The reference's :meth:`growth`; friction without memory, which does not follow it, never reads the windows for it."""
        return torch.stack([self.growth(one.own, one.types) for one in self.windows.spread(WINDOWS)]).mean(0)

    @cached_property
    def reference_displacements(self) -> Msd:
        """Mean squared displacements of the reference, over all starts, which memory follows before and after the critics."""
        interval = self.windows.trajectory.frame_interval
        lags = displacement_lags(self.window_steps[-1] // self.window_steps[1])
        return msd(self.windows.trajectory, interval * np.array(lags), stop=self.windows.n_frames)

    def growth(self, windows: Tensor, types: Tensor) -> Tensor:
        """By how much mean squared displacements [n_types] (nm²) grow from half of windows [W, lags + 1, 3], or the last lag before,
        to their end, where motion is diffusive."""
        squares = mean_squares(windows[:, [0, self.half, -1]], types, len(self.reference_squares))
        return squares[:, 1] - squares[:, 0]

    def excess(self, windows: Windows) -> Tensor:
        """That growth in generated windows over the reference's, minus one [n_types]; zero where the reference stands still."""
        excess = self.growth(windows.own.detach(), windows.types) / self.reference_growth - 1
        return torch.where(self.reference_growth > 0, excess, 0.0)

    @torch.no_grad()
    def look(
        self, windows: Windows, chosen: list[int], entropy: Tensor, margins: dict[str, float], random: torch.Generator
    ) -> Seen:
        """What this iteration showed.

        Parameters
        ----------
        windows : Windows
            Generated.
        chosen : list of int
            The chains that they are of.
        entropy : Tensor [P]
            Gradient of the relative entropy.
        margins : dict of str to float
            Of the critics.
        random : torch.Generator
        """
        own, types = windows.own, windows.types
        felt = self.motion.running_friction(self.lags)
        felt = torch.cat([felt, self.motion.bead_friction()[:, None]], 1) / self.free_friction
        moved = (own[:, -1] - own[:, 0]).square().sum(-1) / self.reference_squares[types]
        drawn = self.held_out.windows.sample(BATCH, random)
        return Seen(
            friction=felt.flatten(),
            displacement=self.held_out.displacement(own, types),
            structure=self.held_out.structure(entropy),
            mobility=moved.reshape(len(chosen), -1).mean(1),
            chains=chosen,
            gradient=torch.cat([parameter.grad.flatten() for parameter in self.motion.parameters()]),
            margin=self.dynamics.margin(drawn, windows.some(BATCH, random)),
            margins=margins,
        )
