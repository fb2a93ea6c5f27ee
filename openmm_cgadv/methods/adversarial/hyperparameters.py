"""Hyperparameters of the adversarial training, which are not part of the experiment file."""

from __future__ import annotations

from dataclasses import dataclass

from .chains import ChainSettings
from .convergence import ConvergenceSettings
from .diagnostics import DiagnosticsSettings
from .held_out import HeldOutSettings
from .linear_response import ResponseFitSettings
from .motion_discriminators import MotionDiscriminatorSettings
from .schedule import ScheduleSettings
from .selection import SelectionSettings
from .structure_discriminator import ConfigurationalSettings
from .time_scales import TimeScaleSettings
from .windows import WindowSettings


@dataclass(frozen=True)
class IterationSettings:
    """Hyperparameters of one iteration.

    Attributes
    ----------
    rollouts : int
        Chains that are simulated in an iteration. More threads than that are left to the discriminators.
    betas : (float, float)
        Decay constants of the generator's optimizer, below the defaults of Adam because the loss is not stationary.
    growth_windows : int
        Windows of the reference that give its late-time increment of the mean squared displacement.
    fewest_neighbors : float
        Fewest neighbours within the cutoff of pairwise friction that cause no warning. The cutoff of 0.36 nm in water,
        which is too short, has fewer (``docs/development/negative_results.md``).
    """

    rollouts: int = 2
    betas: tuple[float, float] = (0.5, 0.95)
    growth_windows: int = 2000
    fewest_neighbors: float = 7


@dataclass(frozen=True)
class LoopSettings:
    """Hyperparameters of the training loop.

    Attributes
    ----------
    most_recoveries : int
        Returns to the last good state before training is given up.
    most_reinitializations : int
        How often discriminators are reinitialized. One that ends like the two before it has not collapsed.
    averaging_intervals : int
        Intervals of the decay whose averages give the spread of the parameters.
    """

    most_recoveries: int = 5
    most_reinitializations: int = 2
    averaging_intervals: int = 4


@dataclass(frozen=True)
class KernelFitSettings:
    """Hyperparameters of the initial and final fits of the memory kernel to the mean squared displacement.

    Attributes
    ----------
    times : int
        Fewest times of a window at which mean squared displacements are measured, if it has as many steps.
    initial_rollouts : tuple of int
        Rollouts of one window before each fit of the initial kernel. Three fits reduce a deviation of 50 % to a few
        percent.
    final_windows : int
        Windows in a rollout of the final fit. Longer rollouts provide more time origins for the longest lag.
    final_rounds : int
        Fits of the final kernel, each to all rollouts so far.
    final_starts : int
        Starting points of each final fit.
    discarded : float
        Fraction of the rollouts of pairwise friction that is discarded as equilibration.
    response : ResponseFitSettings
    """

    times: int = 192
    initial_rollouts: tuple[int, ...] = 8 * (10,)
    final_windows: int = 4
    final_rounds: int = 3
    final_starts: int = 6
    discarded: float = 0.25
    response: ResponseFitSettings = ResponseFitSettings()


@dataclass(frozen=True)
class Hyperparameters:
    """All hyperparameters, by part of the method."""

    time_scales: TimeScaleSettings = TimeScaleSettings()
    windows: WindowSettings = WindowSettings()
    held_out: HeldOutSettings = HeldOutSettings()
    chains: ChainSettings = ChainSettings()
    motion_discriminators: MotionDiscriminatorSettings = MotionDiscriminatorSettings()
    configurational: ConfigurationalSettings = ConfigurationalSettings()
    iteration: IterationSettings = IterationSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    convergence: ConvergenceSettings = ConvergenceSettings()
    diagnostics: DiagnosticsSettings = DiagnosticsSettings()
    selection: SelectionSettings = SelectionSettings()
    loop: LoopSettings = LoopSettings()
    kernel_fit: KernelFitSettings = KernelFitSettings()
