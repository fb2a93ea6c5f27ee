"""One iteration of the adversarial training: rollouts of the generator against windows of the all-atom reference.

The friction parameters follow the gradient of the discriminators of motion. For pairwise friction, a discriminator of
transverse modes is added, and the amplitude of the slowest auxiliary variable follows the late-time increment of the
mean squared displacement instead. The potential follows the relative entropy or, with ``potential: adversarial``, a
configurational discriminator.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from ...config import Experiment
from ...data.trajectory import BeadTrajectory
from ...dynamics import FRICTIONS
from ...errors import DivergedError
from ...fit import InitialFit, RelativeEntropy
from ...ram import check_ram
from ...random_streams import Purpose, torch_default_stream, torch_stream
from ...units import KB
from .chains import PersistentChains
from .convergence import Observation
from .equations import EQUATIONS
from .generators import GENERATORS
from .held_out import HeldOut
from .hyperparameters import Hyperparameters
from .motion_discriminators import MotionDiscriminators
from .parameters import TrainedParameters
from .reference_motion import ReferenceMotion
from .structure_discriminator import ConfigurationalDiscriminator
from .time_scales import time_scales
from .whitened_adam import WhitenedAdam
from .windows import (
    ReferenceWindows,
    Windows,
    center_of_mass_frame,
    held_out_start,
    window_lags,
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
    hyperparameters : Hyperparameters

    Attributes
    ----------
    iteration : int
        Last completed iteration.
    recoveries : int
        How often training returned to an earlier state.
    equation : EquationSettings
        Hyperparameters of the equation of motion.
    between_beads, sees_neighbors : bool
        Whether friction acts between beads, and whether a graph discriminator is used.
    rate : float
        Factor of the generator's learning rates.
    averaging_decay : float
        Decay constant of the exponential moving average of the parameters.
    average : list of Tensor
        Moving average of `parameters`.
    observation : Observation or None
        Observables of the last iteration.
    """

    def __init__(
        self,
        trajectory: BeadTrajectory,
        initial: InitialFit,
        experiment: Experiment,
        hyperparameters: Hyperparameters = Hyperparameters(),
    ):
        self.hyperparameters = hyperparameters
        self.scales = time_scales(trajectory, initial, experiment, hyperparameters.time_scales)
        experiment = self.scales.resolved(experiment)
        settings, motion = experiment.training, experiment.dynamics
        self.settings = settings
        self.equation = EQUATIONS[motion.equation]
        self.between_beads = FRICTIONS[motion.equation].between_beads
        self.sees_neighbors = experiment.discriminator.kind == "graph"
        self.iteration = 0
        self.recoveries = 0
        self.rate = 1.0
        self.averaging_decay = 0.0
        self.observation: Observation | None = None
        self.spec = initial.spec
        self.kT = KB * trajectory.temperature
        self.dt = motion.timestep
        self.types = torch.from_numpy(trajectory.types)
        self.masses = torch.from_numpy(trajectory.masses)
        assert settings.window_ps is not None and motion.memory is not None  # resolved
        lags = window_lags(trajectory.frame_interval, settings.window_ps, motion.memory > 0)
        held_out = held_out_start(trajectory.n_frames, lags[-1], hyperparameters.windows)
        self.windows = ReferenceWindows(
            trajectory, lags, stop=held_out, settings=hyperparameters.windows
        )
        self.lags = torch.tensor(lags, dtype=torch.float64) * trajectory.frame_interval
        per_frame = round(trajectory.frame_interval / self.dt)
        self.window_steps = [0, *(lag * per_frame for lag in lags)]
        # The adjoint keeps positions and states of every step.
        numbers = (
            self.window_steps[-1] * settings.chains * len(self.types) * (motion.memory + 2) * 3
        )
        check_ram(
            8 * numbers,
            f"training.chains: found {settings.chains}, whose rollouts of {settings.window_ps:g} ps need",
        )
        spacing = max(1, round(self.scales.structure_ps / self.dt))
        structure = range(spacing, self.window_steps[-1] + 1, spacing)
        self.frames = sorted({*self.window_steps, *structure})
        self.window_frames = [self.frames.index(step) for step in self.window_steps]
        self.structure_frames = [self.frames.index(step) for step in structure]

        self.longest_msd = self.windows.scale()[:, -1, 1].square()
        self.reference_motion = ReferenceMotion(
            self.windows, hyperparameters.iteration.growth_windows
        )
        self.einstein_friction = torch.tensor(
            self.scales.einstein_friction_per_ps, dtype=torch.float64
        )[:, None]
        self.motion = GENERATORS[motion.equation].initial(trajectory, initial, motion, self.scales)
        self.scales = self._with_initial_motion()
        self.entropy = RelativeEntropy(trajectory, self.spec, stop=held_out)
        self.held_out = HeldOut(trajectory, lags, held_out, self.entropy, hyperparameters.held_out)
        self.phi = torch.nn.Parameter(self.entropy.phi(torch.from_numpy(initial.theta)))
        with torch_default_stream(settings.seed, Purpose.DISCRIMINATOR_WEIGHTS, 0):
            self.motion_discriminators = MotionDiscriminators(
                self.windows,
                experiment.discriminator,
                self.random(Purpose.STANDARDIZATION),
                transverse=self.between_beads,
                settings=hyperparameters.motion_discriminators,
            )
        self.configurational_discriminator = None
        if settings.potential == "adversarial":
            with torch_default_stream(settings.seed, Purpose.DISCRIMINATOR_WEIGHTS, 1):
                self.configurational_discriminator = ConfigurationalDiscriminator(
                    trajectory, self.entropy, held_out, hyperparameters.configurational
                )
        self.optimizer = WhitenedAdam(self.motion.groups(), betas=hyperparameters.iteration.betas)
        self.average = [parameter.detach().clone() for parameter in self.parameters]
        self.chains = PersistentChains(
            self.windows,
            self.masses,
            settings.chains,
            lambda random: self.motion.start(self.masses, self.kT, random),
            self.random(Purpose.CHAIN_START),
            hyperparameters.chains,
        )

    def _with_initial_motion(self):
        """Return the time scales with the initial friction and decay rates, which residual forces may determine."""
        start, rates = self.motion.bead_friction().detach().tolist(), self.motion.rates().detach()
        scales = replace(
            self.scales,
            friction_per_ps=tuple(start),
            warnings=(*self.scales.warnings, *self._warnings()),
        )
        if rates.numel():
            scales = replace(scales, rates_per_ps=(rates.min().item(), rates.max().item()))
        return scales

    def _warnings(self) -> list[str]:
        """Return sentences on settings that are known to give bad models."""
        found = self.motion.warnings(self.hyperparameters.iteration.fewest_neighbors)
        if self.sees_neighbors and not self.between_beads:
            found.append(
                "discriminator.kind `graph` observes the correlated motion of neighbours, which single-particle friction "
                "cannot reproduce: training will distort the friction instead; use it with dynamics.equation `pair`."
            )
        return found

    @property
    def fits_kernel(self) -> bool:
        """Whether the memory kernel is also fitted to the mean squared displacement."""
        return self.motion.n_auxiliary > 0 and self.configurational_discriminator is None

    @property
    def parameters(self) -> list[Tensor]:
        """Trained parameters of the generator, those of the potential first."""
        return [self.phi, *self.motion.parameters()]

    def random(self, purpose: Purpose, *indices: int) -> torch.Generator:
        """Return a generator that depends on the seed, the number of recoveries and the arguments only."""
        return torch_stream(self.settings.seed, purpose, self.recoveries, *indices)

    def averaged(self, values: list[Tensor] | None = None) -> TrainedParameters:
        """Return the parameters to export, given values of `parameters`; the moving averages by default."""
        with self.temporarily_set(self.average if values is None else values):
            return self.motion.trained(self.entropy.theta(self.phi))

    def kernel_summary(self, values: list[Tensor]) -> tuple[Tensor, float, Tensor]:
        """Return properties of the memory kernel, given values of `parameters`.

        Returns
        -------
        Tensor [...]
            Decay rates (1/ps).
        float
            Their floor (1/ps).
        Tensor [n_types, 2]
            Integral of the kernel up to the end of the window, and to infinity (1/ps).
        """
        with self.temporarily_set(values):
            return (
                self.motion.rates().clone(),
                self.motion.floor,
                self._running_friction(self.lags[-1:]),
            )

    def _running_friction(self, lags: Tensor) -> Tensor:
        """Return the integral of the kernel up to lags [L] (ps), and to infinity [n_types, L + 1] (1/ps)."""
        running = self.motion.running_friction(lags)
        return torch.cat([running, self.motion.bead_friction()[:, None]], 1)

    @contextmanager
    def temporarily_set(self, values: list[Tensor]) -> Iterator[None]:
        """Set the parameters within a block, and restore them after it."""
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
    def set_parameters(self, values: list[Tensor]) -> None:
        """Set the parameters and their moving average."""
        for parameter, average, value in zip(self.parameters, self.average, values):
            parameter.copy_(value)
            average.copy_(value)

    def state_dict(self) -> dict:
        """Return everything that the following iterations depend on."""
        configurational = self.configurational_discriminator
        return {
            "phi": self.phi.detach(),
            "motion": self.motion.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "chains": self.chains.state_dict(),
            "motion_discriminators": self.motion_discriminators.state_dict(),
            "configurational_discriminator": configurational.state_dict()
            if configurational
            else {},
            "recoveries": self.recoveries,
        }

    def load_state_dict(self, saved: dict) -> None:
        """Restore the state from a checkpoint."""
        with torch.no_grad():
            self.phi.copy_(saved["phi"])
        self.motion.load_state_dict(saved["motion"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.average = [value.clone() for value in saved["average"]]
        self.chains.load_state_dict(saved["chains"])
        self.motion_discriminators.load_state_dict(saved["motion_discriminators"])
        if self.configurational_discriminator:
            self.configurational_discriminator.load_state_dict(
                saved["configurational_discriminator"]
            )
        self.recoveries = saved["recoveries"]

    def step(self) -> dict[str, float]:
        """Run one iteration: rollouts, updates of the discriminators, update of the generator.

        Returns
        -------
        dict
            Values for the log.

        Raises
        ------
        ExplosionError
            A rollout exploded.
        DivergedError
            A gradient is not finite.
        """
        self.iteration += 1
        random = self.random(Purpose.TRAINING, self.iteration)
        chosen, start, frames = self.simulate_chains(self.iteration, self.frames, random)
        windows = self.generated_windows(frames[:, self.window_frames], start, random)
        x, boxes = windows.positions, windows.boxes
        motion_gradient, log = self.motion_discriminators.update(windows, random)
        motion = list(self.motion.parameters())
        gradients = torch.autograd.grad(x, motion, motion_gradient, allow_unused=True)
        for parameter, gradient in zip(motion, gradients):
            parameter.grad = torch.zeros_like(parameter) if gradient is None else gradient
        self.motion.mask_gradients()

        configurations = frames.detach()[:, self.structure_frames].flatten(0, 1)
        own_boxes = boxes.repeat_interleave(len(self.structure_frames), 0)
        coordinates = self.entropy.coordinates(configurations, own_boxes)
        entropy_gradient = -coordinates.mean(0)
        log["structure_gradient"] = entropy_gradient.norm().item()
        structure_gradient = entropy_gradient
        if self.configurational_discriminator is not None:
            structure_gradient, values = self.configurational_discriminator.update(
                coordinates, random
            )
            log |= {f"structure_{name}": value for name, value in values.items()}
        self.phi.grad = structure_gradient

        for group in self.optimizer.param_groups:
            group["lr"] = group["rate"] * self.rate
        gaps = {
            name.removesuffix("_gap"): value for name, value in log.items() if name.endswith("_gap")
        }
        self.observation = self.observe(
            replace(windows, positions=x.detach()), chosen, entropy_gradient, gaps, random
        )
        log["held_out_gap"] = self.observation.gap
        log["held_out_displacement"] = self.observation.displacement.square().mean().sqrt().item()
        log["held_out_structure"] = self.observation.structure
        found = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        if not all(bool(torch.isfinite(gradient).all()) for gradient in found):
            raise DivergedError(
                f"a gradient of the generator is not finite at iteration {self.iteration}"
            )
        self.optimizer.step()
        if not self.motion.linear_response:
            self.motion.restrain(self.reference_motion.excess(windows))
        self.entropy.descend(self.phi, structure_gradient, self.kT, self.rate)
        with torch.no_grad():
            for average, present in zip(self.average, self.parameters):
                average.lerp_(present, 1 - self.averaging_decay)
            log["friction"] = self.motion.bead_friction().mean().item()
        return log

    def reinitialize(self, names: Iterable[str]) -> None:
        """Reinitialize discriminators, by name."""
        for name in names:
            if name == "structure" and self.configurational_discriminator is not None:
                self.configurational_discriminator.trainer.reinitialize()
            else:
                self.motion_discriminators.trainers[name].reinitialize()

    def simulate_chains(
        self, iteration: int, frames: list[int], random: torch.Generator
    ) -> tuple[list[int], tuple[Tensor, ...], Tensor]:
        """Simulate the persistent chains of an iteration.

        Parameters
        ----------
        iteration : int
            Determines which chains are simulated.
        frames : list of int
            Steps to store.
        random : torch.Generator

        Returns
        -------
        list of int
            The simulated chains.
        tuple of Tensor
            Their initial positions, states and boxes.
        Tensor [C, frames, N, 3]
            Positions (nm).
        """
        number = min(self.settings.chains, self.hyperparameters.iteration.rollouts)
        chosen = [(iteration * number + k) % self.settings.chains for k in range(number)]
        start = self.chains.load(chosen, random)
        seed = int(torch.randint(2**62, [1], generator=random))
        found, positions, state = self.roll_out(start, frames, seed)
        self.chains.store(chosen, positions, state)
        return chosen, start, found

    def roll_out(
        self, start: tuple[Tensor, ...], frames: list[int], seed: int
    ) -> tuple[Tensor, ...]:
        """Return frames, final positions and final states of rollouts from positions, states and boxes."""
        positions, state, boxes = start
        return self.motion.roll_out(
            positions,
            state,
            boxes,
            types=self.types,
            masses=self.masses,
            spec=self.spec,
            theta=self.entropy.theta(self.phi),
            kT=self.kT,
            dt=self.dt,
            frames=frames,
            damping_time=self.settings.forget_ps,
            seed=seed,
        )

    def generated_windows(
        self, frames: Tensor, start: tuple[Tensor, ...], random: torch.Generator
    ) -> Windows:
        """Return the windows of rollouts from `start`, with the rounding errors of the reference."""
        positions = center_of_mass_frame(frames, self.masses)
        return Windows.all_beads(
            self.windows.add_rounding_errors(positions, random), start[2], self.types
        )

    @torch.no_grad()
    def observe(
        self,
        windows: Windows,
        chosen: list[int],
        entropy_gradient: Tensor,
        gaps: dict[str, float],
        random: torch.Generator,
    ) -> Observation:
        """Return the observables of this iteration.

        Parameters
        ----------
        windows : Windows
            Generated windows.
        chosen : list of int
            Chains of the windows.
        entropy_gradient : Tensor [P]
            Gradient of the relative entropy.
        gaps : dict of str to float
            Gap of each discriminator.
        random : torch.Generator
        """
        own, types = windows.selected_positions, windows.selected_types
        batch = self.hyperparameters.motion_discriminators.training.batch
        friction = self._running_friction(self.lags) / self.einstein_friction
        mobility = (own[:, -1] - own[:, 0]).square().sum(-1) / self.longest_msd[types]
        held_out = self.held_out.windows.sample(batch, random)
        return Observation(
            friction=friction.flatten(),
            displacement=self.held_out.displacement(own, types),
            structure=self.held_out.structure(entropy_gradient),
            mobility=mobility.reshape(len(chosen), -1).mean(1),
            chains=chosen,
            gradient=torch.cat(
                [p.grad.flatten() for p in self.motion.parameters() if p.grad is not None]
            ),
            gap=self.motion_discriminators.gap(held_out, windows.subsample(batch, random)),
            gaps=gaps,
        )
