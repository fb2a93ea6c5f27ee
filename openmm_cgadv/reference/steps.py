"""How far beads move from frame to frame, held against what their temperature allows and against each other."""
from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import median_filter
from scipy.stats import chi2

from ..units import KB

CHANCE = 1e-9
"""Chance of a step as long as is refused, among beads that move independently of each other."""
COLLECTIVE = 2.0
"""Factor on that excess, as beads don't move independently."""
MARGIN = 0.5
"""Excess that is allowed in any case, of many beads: a temperature that is still settling. One missing frame doubles the mean square of
motion that is diffusive, and makes it four times as large where it is not yet hindered."""
APART = 6.0
"""Standard deviations of the steps themselves beyond which one is too long: neighbours move together, most where motion is diffusive."""
NORMAL = 0.6745
"""Median of the absolute values of a normal distribution, in standard deviations."""
SURE = 8.0
"""Standard deviations beyond which a change that lasts is none of chance."""
REPEATED = 1e-6
"""Part of the usual mean square below which a frame repeats the one before."""
BESIDE = 9
"""Steps whose median a gap is held against: up to four long ones side by side don't hide each other."""
STRETCHES = 5, 25, 125
"""Steps whose medians are held against each other where the frame interval may change: the fewer, the nearer to the ends."""


class Steps:
    """Mass-weighted mean squares of the displacements from each frame to the next, as they are read.

    Parameters
    ----------
    masses : array [N]
        Dalton.
    """

    def __init__(self, masses):
        self._share = np.asarray(masses) / len(masses)
        self._values: list[np.ndarray] = []
        self._frames: list[tuple[object, np.ndarray]] = []
        self._each = np.zeros(len(masses))
        self._last: np.ndarray | None = None

    def follow(self, file, numbers, positions) -> None:
        """Take in unwrapped positions [T, N, 3] (nm) in frames of these numbers in a file, which go on from those of the frames before."""
        begins = self._last is None
        moves = np.diff(positions, axis=0, prepend=positions[:1] if begins else self._last)[int(begins) :]
        self._last = positions[-1:]
        if len(self._share) > 1:
            # Beside the drift of their common centre of mass.
            moves = moves - np.einsum("tnc,n->tc", moves, self._share / self._share.sum())[:, None]
        self.add(file, numbers[int(begins) :], moves)

    def add(self, file, numbers, moves) -> None:
        """Take in displacements [T, N, 3] (nm) from the frames before to those of these numbers in a file."""
        squares = np.einsum("tnc,tnc->tn", moves, moves)
        self._values.append(squares @ self._share)
        self._frames.append((file, np.asarray(numbers)))
        self._each += squares.sum(0)

    def check(self, interval: float, temperature: float, rounding: float | None, centres_of_mass: bool) -> None:
        """See that the frames are as far apart as is said, all by the same time, and that none is missing or repeated.

        No bead moves further, in the mean square, than it would without forces: 3kT/m · t².

        Parameters
        ----------
        interval : float
            ps
        temperature : float
            K
        rounding : float or None
            Step that coordinates are rounded to, nm.
        centres_of_mass : bool
            Whether beads are centres of mass, to which alone this bound applies.

        Raises
        ------
        ValueError
            With one sentence that names the file, and the frame if it is one.
        """
        values = np.concatenate(self._values) if self._values else np.zeros(0)
        if not len(values):
            return
        file, _ = self._frames[0]
        usual = float(np.median(values))
        if usual == 0.0:
            raise ValueError(f"{file}: no bead moves from one frame to the next, expected a simulation")
        # A heavy bead among light ones may be most of the mean.
        parts = self._share * self._each
        n = 3 * parts.sum() ** 2 / np.square(parts).sum()
        longest = 1 + max(MARGIN, COLLECTIVE * (chi2.isf(CHANCE, n) / n - 1))
        # Both ends are off by the variance of a uniform distribution, in three directions.
        blur = 0.0 if rounding is None else 3 * 2 * rounding**2 / 12 * self._share.sum()
        free = 3 * KB * temperature * interval**2 + blur if centres_of_mass else math.inf
        if usual > longest * free:
            ratio = usual / free
            raise ValueError(
                f"{file}: beads move {ratio:.3g} times as far from frame to frame (mean square) as at {temperature:g} K they could in "
                f"{1e3 * interval:g} fs without any force, expected at most once: frames seem to be {1e3 * interval * ratio**0.5:.3g} fs apart "
                "or more (frame_interval_fs), or the temperature, the masses (topology) or the unit of length are wrong"
            )
        repeated = values < REPEATED * usual
        if repeated.any():
            file, number = self._frame(int(np.argmax(repeated)))
            raise ValueError(f"{file}: frame {number} repeats the one before it, expected frames at equal distances in time")
        # Steps before and after count, too: a liquid that is still getting warm has no gap.
        beside = np.maximum(usual, median_filter(values, BESIDE, mode="nearest"))
        scatter = np.median(np.abs(np.log(values / beside))) / NORMAL
        far = values > max(longest, math.exp(APART * scatter)) * np.maximum(beside, blur)
        if far.any():
            worst = int(np.argmax(np.where(far, values / beside, 0.0)))
            file, number = self._frame(worst)
            raise ValueError(
                f"{file}: beads move {values[worst] / beside[worst]:.3g} times as far to frame {number} (mean square) as they usually do "
                "from frame to frame: frames before it seem to be missing, expected a trajectory without gaps"
            )
        change = _change(values)
        if change is not None:
            worst, ratio = change
            file, number = self._frame(worst)
            raise ValueError(
                f"{file}: from about frame {number} on beads move {ratio:.3g} times as far from frame to frame (mean square) as before: the frame "
                "interval seems to change there, or the liquid does, expected neither"
            )

    def _frame(self, step: int) -> tuple[object, int]:
        """The file and the number of the frame that a step leads to."""
        for file, numbers in self._frames:
            if step < len(numbers):
                return file, int(numbers[step])
            step -= len(numbers)
        raise IndexError(step)


def _change(values: np.ndarray) -> tuple[int, float] | None:
    """Where steps change at once and for good, and by how much; a liquid that is getting warm also changes before and after."""
    for stretch in STRETCHES:
        if len(values) < 4 * stretch:
            return None
        medians = np.log(np.median(np.lib.stride_tricks.sliding_window_view(values, stretch), axis=1))
        # Of four stretches side by side.
        first, last, then, end = (medians[k * stretch : len(medians) - (3 - k) * stretch] for k in range(4))
        jump = then - last
        scatter = np.median(np.abs(jump)) / NORMAL
        excess = np.minimum(np.abs(jump), np.abs(end - first)) - np.maximum(np.abs(last - first), np.abs(end - then))
        # Where a change is, all stretches that meet at it jump; the largest does where they meet exactly.
        worst = int(np.argmax(excess))
        if excess[worst] > max(math.log(1 + MARGIN), SURE * scatter):
            return worst + 2 * stretch, math.exp(jump[worst])
    return None
