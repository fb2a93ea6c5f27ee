"""Windows of the all-atom trajectory: what the critics are shown as real."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..trajectory import BeadTrajectory

IN_MEMORY = 2**30
"""Trajectories whose positions take less than this (bytes) are kept in memory."""

HELD_OUT = 0.1
"""Part of the reference, its last, that training is judged by and never shown."""


def window_lags(frame_interval: float, window: float, memory: bool) -> list[int]:
    """Frames of a window after its first, in units of the reference's frame interval.

    Dynamics with memory is judged at log-spaced lags, which show short and long times alike, and at the window's end. Memoryless
    dynamics can only be right at long times, and is judged at half the window and at its end.

    Parameters
    ----------
    frame_interval, window : float
        (ps)
    memory : bool
        Whether the equation of motion has memory.
    """
    longest = int(window / frame_interval + 1e-9)
    if memory:
        return sorted({*(2**k for k in range(longest.bit_length())), longest})
    return [longest // 2, longest]


def displacement_lags(longest: int) -> list[int]:
    """Frames after which displacements are compared, two for every factor of two down from a window's end: what an oscillating memory
    does shows between the lags of windows.

    Parameters
    ----------
    longest : int
        Frames of a window after its first.
    """
    return sorted({round(longest * 2 ** (-k / 2)) for k in range(2 * longest.bit_length())} - {0})


def held_out_start(n_frames: int, longest: int) -> int:
    """First frame of the last part of a reference, which training is judged by and never shown.

    That part is `HELD_OUT` of the frames, or a window if that is longer.

    Parameters
    ----------
    n_frames : int
    longest : int
        Frames of a window after its first.

    Raises
    ------
    ValueError
        If the reference is not longer than two windows.
    """
    held_out = max(round(HELD_OUT * n_frames), longest + 1)
    if n_frames - held_out <= longest:
        raise ValueError(
            f"training.window_ps: found a reference of {n_frames} frames, expected more than the {2 * longest + 1} "
            "frames of two windows, of which one is held out"
        )
    return n_frames - held_out


def at_rest(positions: Tensor, masses: Tensor) -> Tensor:
    """Positions [..., N, 3] relative to the centre of mass of their frame (nm).

    Windows are judged so: friction on each bead lets the whole system diffuse, which no all-atom window shows.
    """
    return positions - torch.einsum("...nc,n->...c", positions, masses / masses.sum())[..., None, :]


@dataclass(frozen=True)
class Windows:
    """Windows of whole systems, and the beads in them that are judged.

    Attributes
    ----------
    positions : Tensor [S, lags + 1, N, 3]
        Unwrapped, relative to the centre of mass (nm).
    boxes : Tensor [S, 3, 3]
        (nm)
    kinds : Tensor [N]
        Types of all beads.
    beads : Tensor [S, M]
        Those judged in each system.
    """

    positions: Tensor
    boxes: Tensor
    kinds: Tensor
    beads: Tensor

    @classmethod
    def whole(cls, positions: Tensor, boxes: Tensor, kinds: Tensor) -> Windows:
        """Windows in which all beads are judged."""
        return cls(positions, boxes, kinds, torch.arange(len(kinds)).expand(len(positions), -1))

    @property
    def own(self) -> Tensor:
        """Windows [S · M, lags + 1, 3] of the beads judged, one system after the other (nm)."""
        system = torch.arange(len(self.positions))[:, None]
        return self.positions.transpose(1, 2)[system, self.beads].flatten(0, 1)

    @property
    def types(self) -> Tensor:
        """Types [S · M] of the beads judged."""
        return self.kinds[self.beads].flatten()

    def some(self, number: int, generator: torch.Generator) -> Windows:
        """The same windows, in which that many random beads at most are judged."""
        number = min(number // len(self.beads), self.beads.shape[1])
        chosen = torch.stack([torch.randperm(self.beads.shape[1], generator=generator)[:number] for _ in self.beads])
        return replace(self, beads=self.beads.gather(1, chosen))


class ReferenceWindows:
    """Draws all-atom windows, relative to the centre of mass, and starting frames from a part of a reference.

    Parameters
    ----------
    trajectory : BeadTrajectory
    lags : list of int
        Frames of a window after its first.
    start, stop : int
        Range of frames; all by default.
    """

    def __init__(
        self, trajectory: BeadTrajectory, lags: list[int], start: int = 0, stop: int | None = None
    ):
        self.trajectory = trajectory
        self.start = start
        self.n_frames = (trajectory.n_frames if stop is None else stop) - start
        self.offsets = np.array([0, *lags])
        self.boxes = torch.from_numpy(trajectory.boxes(slice(start, start + self.n_frames)))
        self.types = torch.from_numpy(trajectory.types)
        self.masses = torch.from_numpy(trajectory.masses)
        self.errors = torch.from_numpy(trajectory.position_errors)
        self._memory = None
        if 4 * 3 * self.n_frames * trajectory.n_beads < IN_MEMORY:
            self._memory = np.empty([self.n_frames, trajectory.n_beads, 3], np.float32)
            for first in range(0, self.n_frames, 1000):
                last = min(first + 1000, self.n_frames)
                self._memory[first:last] = self._positions(slice(start + first, start + last))

    def _window(self, start: int) -> np.ndarray:
        """Positions [lags + 1, N, 3] of one window relative to the centre of mass (nm)."""
        if self._memory is not None:
            return self._memory[start + self.offsets]
        first = self.start + start
        return self._positions(slice(first, first + self.offsets[-1] + 1))[self.offsets]

    def _positions(self, frames: slice) -> np.ndarray:
        """Positions [T, N, 3] relative to the centre of mass (nm)."""
        return at_rest(torch.from_numpy(self.trajectory.positions(frames)), self.masses).numpy()

    def spread(self, number: int) -> Iterator[Windows]:
        """At most ``number`` windows of all beads, one by one, spread evenly."""
        last = self.n_frames - self.offsets[-1]
        for start in np.unique(np.linspace(0, last - 1, number).astype(int)):
            positions = torch.from_numpy(self._window(start).astype(np.float64))
            yield Windows.whole(positions[None], self.boxes[start, None], self.types)

    def scale(self, frames: list[int] | None = None, windows: int = 200) -> Tensor:
        """Root mean square increments and displacements [n_types, lags, 2] (nm), among some frames of a window if wanted."""
        frames = list(range(len(self.offsets))) if frames is None else frames
        parts = ((one.own[:, frames], one.types) for one in self.spread(windows))
        return root_mean_squares(parts, len(self.trajectory.type_names))

    def sample(self, number: int, generator: torch.Generator, starts: int = 16) -> Windows:
        """Windows in which random beads are judged, ``number`` in all or few less, evenly many at each of some times."""
        last = self.n_frames - int(self.offsets[-1])
        positions, boxes, beads = [], [], []
        for start in torch.randint(last, [starts], generator=generator).tolist():
            beads.append(torch.randint(self.trajectory.n_beads, [number // starts], generator=generator))
            positions.append(torch.from_numpy(self._window(start)))
            boxes.append(self.boxes[start])
        return Windows(torch.stack(positions).double(), torch.stack(boxes), self.types, torch.stack(beads))

    def rounded(self, positions: Tensor, generator: torch.Generator) -> Tensor:
        """Generated positions [..., N, 3] (nm) with the errors that rounded coordinates of the reference have."""
        if not self.errors.any():
            return positions
        noise = torch.randn(positions.shape, generator=generator, dtype=positions.dtype)
        return positions + self.errors[self.types][:, None] * noise

    def frame(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Positions [N, 3] and box [3, 3] (nm) of a random frame."""
        index = int(torch.randint(self.n_frames, [1], generator=generator))
        one = slice(self.start + index, self.start + index + 1)
        return torch.from_numpy(self.trajectory.positions(one)[0]), self.boxes[index]


def root_mean_squares(windows: Iterable[tuple[Tensor, Tensor]], n_kinds: int) -> Tensor:
    """Root mean square increments and displacements [n_kinds, lags, 2] (nm) of windows [W, lags + 1, 3] and their kinds [W]."""
    sums, numbers = torch.zeros([], dtype=torch.float64), torch.zeros(n_kinds, dtype=torch.float64)
    for x, kinds in windows:
        both = torch.stack([x[:, 1:] - x[:, :-1], x[:, 1:] - x[:, :1]], -1).square().sum(2)
        sums = sums + both.new_zeros([n_kinds, *both.shape[1:]]).index_add_(0, kinds, both)
        numbers += torch.bincount(kinds, minlength=n_kinds)
    return (sums / numbers[:, None, None]).sqrt()
