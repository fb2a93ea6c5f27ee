"""Learning rates of the generator: a linear warm-up, a constant rate, and a cosine decay."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class ScheduleSettings:
    """Hyperparameters of the learning-rate schedule and of the average of the parameters.

    Attributes
    ----------
    warmup : int
        Iterations of the linear warm-up. Untrained discriminators have random gradients, which would move the
        generator away from a good start.
    decay : int
        Iterations of the cosine decay. The exported average is taken during the decay.
    decay_adversarial : int
        The same if the potential is trained by a discriminator. Its gradient is noisier, so the average needs more
        iterations.
    longest_decay : float
        Longest decay, as a fraction of all iterations.
    final_rate : float
        Learning rates at the end of the decay, as a fraction of the constant rates.
    averaging_time : int
        Iterations over which the parameters are averaged before the decay. During the decay this time grows to half
        the iterations since its start, so that the average soon contains the decay alone.
    """

    warmup: int = 30
    decay: int = 200
    decay_adversarial: int = 600
    longest_decay: float = 0.6
    final_rate: float = 0.05
    averaging_time: int = 50


class Schedule:
    """Compute the factor of the learning rates and the decay constant of the average.

    Parameters
    ----------
    iterations : int
        Largest number of iterations.
    adversarial_potential : bool
        Whether a discriminator trains the potential.
    settings : ScheduleSettings

    Attributes
    ----------
    decay_start : int or None
        Last iteration with constant rates, or None if it is not determined yet.
    decay_iterations : int
        Iterations of the decay.
    """

    def __init__(
        self,
        iterations: int,
        adversarial_potential: bool = False,
        settings: ScheduleSettings = ScheduleSettings(),
    ):
        self.settings = settings
        self.iterations = iterations
        decay = settings.decay_adversarial if adversarial_potential else settings.decay
        self.decay_iterations = min(decay, round(settings.longest_decay * iterations))
        self.decay_start: int | None = None

    @property
    def latest_decay_start(self) -> int:
        """Last iteration after which the decay fits into the number of iterations."""
        return self.iterations - self.decay_iterations

    @property
    def end(self) -> int:
        """Last iteration, or the largest possible one if the decay has not started."""
        if self.decay_start is None:
            return self.iterations
        return self.decay_start + self.decay_iterations

    def rate(self, iteration: int) -> float:
        """Return the factor of the learning rates at an iteration."""
        warmup = min(1.0, iteration / self.settings.warmup)
        if self.decay_start is None:
            return warmup
        final = self.settings.final_rate
        done = min(1.0, (iteration - self.decay_start) / self.decay_iterations)
        return warmup * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done)))

    def averaging_decay(self, iteration: int) -> float:
        """Return the decay constant of the exponential moving average, less in the first iterations."""
        time: float = self.settings.averaging_time
        if self.decay_start is not None:
            time = max(time, 0.5 * (iteration - self.decay_start))
        return min(1 - 1 / time, iteration / (iteration + 4))
