"""Checks of the displacements between frames: against the ballistic limit and against each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import median_filter
from scipy.stats import chi2

from ...errors import InputError
from ...units import KB

NORMAL = 0.6745
"""Median of the absolute values of a standard normal distribution."""


@dataclass(frozen=True)
class StepTolerances:
    """Tolerances of the mean squared displacements from frame to frame."""

    false_positive: float = 1e-9
    """Probability that independent beads exceed the accepted displacement."""
    collective: float = 2.0
    """Factor on that excess, as the motion of beads is correlated."""
    margin: float = 0.5
    """Relative excess that is always accepted: a temperature that is not yet constant. One missing
    frame doubles the mean square of diffusive motion and quadruples that of ballistic motion."""
    gap: float = 6.0
    """Standard deviations of the logarithm of the steps beyond which a step counts as a gap."""
    change: float = 8.0
    """Standard deviations beyond which a lasting change of the steps is significant."""
    repetition: float = 1e-6
    """Fraction of the median squared displacement below which a frame repeats the previous one."""
    median_steps: int = 9
    """Steps of the running median that a gap is compared with: it resists four long steps in a row."""
    segments: tuple[int, ...] = (5, 25, 125)
    """Lengths (steps) of the segments whose medians are compared to find a change of the frame
    interval: short ones find it near the ends, long ones find small changes."""


class Steps:
    """Collect the mass-weighted mean squared displacements from each frame to the next.

    Parameters
    ----------
    masses : array [N]
        (dalton)
    tolerances : StepTolerances
    """

    def __init__(self, masses: np.ndarray, tolerances: StepTolerances = StepTolerances()) -> None:
        self._tolerances = tolerances
        self._share = np.asarray(masses) / len(masses)
        self._values: list[np.ndarray] = []
        self._frames: list[tuple[object, np.ndarray]] = []
        self._each = np.zeros(len(masses))
        self._last: np.ndarray | None = None

    def follow(
        self, file: object, numbers: Sequence[int] | np.ndarray, positions: np.ndarray
    ) -> None:
        """Add unwrapped positions [T, N, 3] (nm) of the frames of a file that follow the previous ones.

        Parameters
        ----------
        file : path
            Named in messages.
        numbers : sequence of int [T]
            Frame numbers in the file.
        positions : ndarray [T, N, 3]
            (nm)
        """
        begins = self._last is None
        before = positions[:1] if self._last is None else self._last
        moves = np.diff(positions, axis=0, prepend=before)[int(begins) :]
        self._last = positions[-1:]
        if len(self._share) > 1:
            # Displacements in the centre-of-mass frame.
            moves = moves - np.einsum("tnc,n->tc", moves, self._share / self._share.sum())[:, None]
        self.add(file, numbers[int(begins) :], moves)

    def add(self, file: object, numbers: Sequence[int] | np.ndarray, moves: np.ndarray) -> None:
        """Add displacements [T, N, 3] (nm) that lead to the frames of these numbers of a file."""
        squares = np.einsum("tnc,tnc->tn", moves, moves)
        self._values.append(squares @ self._share)
        self._frames.append((file, np.asarray(numbers)))
        self._each += squares.sum(0)

    def check(
        self, interval: float, temperature: float, rounding: float | None, centres_of_mass: bool
    ) -> None:
        """Check that the frames are equidistant in time, at the stated interval, without gaps and repetitions.

        The mean squared displacement of a bead has the ballistic limit 3kT/m · t².

        Parameters
        ----------
        interval : float
            ps
        temperature : float
            K
        rounding : float or None
            Step that coordinates are rounded to (nm).
        centres_of_mass : bool
            Whether beads are centres of mass; the limit holds only for these.

        Raises
        ------
        InputError
            A check fails; the message names the file, and the frame if there is one.
        """
        limits = self._tolerances
        values = np.concatenate(self._values) if self._values else np.zeros(0)
        if not len(values):
            return
        file, _ = self._frames[0]
        usual = float(np.median(values))
        if usual == 0.0:
            raise InputError(
                f"{file}: found no displacement from frame to frame, expected a simulation"
            )
        # Effective degrees of freedom: a heavy bead among light ones may dominate the mean.
        parts = self._share * self._each
        n = 3 * parts.sum() ** 2 / np.square(parts).sum()
        longest = 1 + max(
            limits.margin, limits.collective * (chi2.isf(limits.false_positive, n) / n - 1)
        )
        # Rounding adds the variance of a uniform distribution at both ends, in three directions.
        blur = 0.0 if rounding is None else 3 * 2 * rounding**2 / 12 * self._share.sum()
        free = 3 * KB * temperature * interval**2 + blur if centres_of_mass else math.inf
        if usual > longest * free:
            ratio = usual / free
            raise InputError(
                f"{file}: found a mean squared displacement from frame to frame that is {ratio:.3g} times the ballistic limit at "
                f"{temperature:g} K and {1e3 * interval:g} fs, expected at most 1: check frame_interval_fs (the displacement fits "
                f"{1e3 * interval * ratio**0.5:.3g} fs or more), the temperature, the masses (topology) and the unit of length"
            )
        repeated = values < limits.repetition * usual
        if repeated.any():
            file, number = self._frame(int(np.argmax(repeated)))
            raise InputError(
                f"{file}: found frame {number} equal to the previous one, expected equidistant frames: remove the repetition"
            )
        # The running median follows a drift of the temperature, which is not a gap.
        beside = np.maximum(usual, median_filter(values, limits.median_steps, mode="nearest"))
        scatter = np.median(np.abs(np.log(values / beside))) / NORMAL
        far = values > max(longest, math.exp(limits.gap * scatter)) * np.maximum(beside, blur)
        if far.any():
            worst = int(np.argmax(np.where(far, values / beside, 0.0)))
            file, number = self._frame(worst)
            raise InputError(
                f"{file}: found a mean squared displacement to frame {number} that is {values[worst] / beside[worst]:.3g} times the "
                "median, expected a trajectory without gaps: frames before it seem to be missing"
            )
        change = _change(values, limits)
        if change is not None:
            worst, ratio = change
            file, number = self._frame(worst)
            raise InputError(
                f"{file}: found mean squared displacements that change by a factor of {ratio:.3g} at about frame {number}, expected a constant "
                "frame interval and an equilibrated liquid: use the part before or after it"
            )

    def _frame(self, step: int) -> tuple[object, int]:
        """Return the file and the number of the frame at the end of a step."""
        for file, numbers in self._frames:
            if step < len(numbers):
                return file, int(numbers[step])
            step -= len(numbers)
        raise IndexError(step)


def _change(values: np.ndarray, limits: StepTolerances) -> tuple[int, float] | None:
    """Return where the steps change suddenly and permanently, and by which factor; None if they do not.

    Four adjacent segments are compared: a drift of the temperature changes all of them.
    """
    for segment in limits.segments:
        if len(values) < 4 * segment:
            return None
        medians = np.log(
            np.median(np.lib.stride_tricks.sliding_window_view(values, segment), axis=1)
        )
        first, last, then, end = (
            medians[k * segment : len(medians) - (3 - k) * segment] for k in range(4)
        )
        jump = then - last
        scatter = np.median(np.abs(jump)) / NORMAL
        excess = np.minimum(np.abs(jump), np.abs(end - first)) - np.maximum(
            np.abs(last - first), np.abs(end - then)
        )
        # The jump of the medians is largest where two segments meet exactly at the change.
        worst = int(np.argmax(excess))
        if excess[worst] > max(math.log(1 + limits.margin), limits.change * scatter):
            return worst + 2 * segment, math.exp(jump[worst])
    return None
