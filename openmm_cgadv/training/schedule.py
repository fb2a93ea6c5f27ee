"""Learning rates of the generator over training: rising while the critics learn what to look for, constant until it has
settled, then falling along a cosine."""

from __future__ import annotations

import math

RISE = 30
"""Iterations along which the rates rise: what critics say that know nothing yet leads a good start astray."""

FALL = 200
"""Iterations along which the rates fall. The average that is exported is taken along them."""

FALL_ALONE = 600
"""The same where everything comes from critics: nothing but the average is left then to take out how the parameters wander."""

SHARE = 0.6
"""The fall takes at most this part of the most iterations."""

FINAL_RATE = 0.05
"""Rates at the end, of those before the fall."""

MEMORY = 50
"""Iterations that the moving average of the parameters reaches back, before the fall. Along it this grows to half of
the iterations that it has taken, so that what came before it is soon forgotten."""


class Schedule:
    """When the rates fall.

    Parameters
    ----------
    most : int
        Iterations that training takes at most.
    alone : bool
        Whether everything comes from critics.

    Attributes
    ----------
    begun : int or None
        Last iteration with constant rates, None as long as that is open.
    """

    def __init__(self, most: int, alone: bool = False):
        self.most = most
        self.fall = min(FALL_ALONE if alone else FALL, round(SHARE * most))
        self.begun: int | None = None

    @property
    def latest(self) -> int:
        """Iteration after which the rates have to fall, so that training ends in time."""
        return self.most - self.fall

    @property
    def end(self) -> int:
        """The last iteration, as far as it is known."""
        return self.most if self.begun is None else self.begun + self.fall

    def rate(self, iteration: int) -> float:
        """Factor of the learning rates at an iteration."""
        risen = min(1.0, iteration / RISE)
        if self.begun is None:
            return risen
        done = min(1.0, (iteration - self.begun) / self.fall)
        return risen * (FINAL_RATE + (1 - FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * done)))

    def decay(self, iteration: int) -> float:
        """Decay of the moving average at an iteration; shorter at first, to forget the start."""
        memory = MEMORY if self.begun is None else max(MEMORY, 0.5 * (iteration - self.begun))
        return min(1 - 1 / memory, iteration / (iteration + 4))
