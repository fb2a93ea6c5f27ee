"""Windows of the all-atom trajectory: what the critics are shown as real."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..trajectory import BeadTrajectory

IN_MEMORY = 2**30
"""Trajectories whose positions take less than this (bytes) are kept in memory."""


def window_lags(frame_interval: float, window: float, memory: bool) -> list[int]:
    """Frames of a window after its first, in units of the reference's frame interval.

    Dynamics with memory is judged at log-spaced lags, which show short and long times alike. Memoryless
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
        return [2**k for k in range(longest.bit_length())]
    return [longest // 2, longest]


class ReferenceWindows:
    """Draws all-atom windows and starting frames.

    Parameters
    ----------
    trajectory : BeadTrajectory
    lags : list of int
        Frames of a window after its first.
    """

    def __init__(self, trajectory: BeadTrajectory, lags: list[int]):
        if trajectory.n_frames <= lags[-1]:
            raise ValueError(
                f"training.window_ps: found a reference of {trajectory.n_frames} frames, expected more than the "
                f"{lags[-1]} frames of a window"
            )
        self.trajectory = trajectory
        self.offsets = np.array([0, *lags])
        self.types = torch.from_numpy(trajectory.types)
        self._memory = None
        if 4 * 3 * trajectory.n_frames * trajectory.n_beads < IN_MEMORY:
            self._memory = np.empty([trajectory.n_frames, trajectory.n_beads, 3], np.float32)
            for start in range(0, trajectory.n_frames, 1000):
                self._memory[start : start + 1000] = trajectory.positions(slice(start, start + 1000))

    def _window(self, start: int) -> np.ndarray:
        """Positions [lags + 1, N, 3] of one window (nm)."""
        if self._memory is not None:
            return self._memory[start + self.offsets]
        return self.trajectory.positions(slice(start, start + self.offsets[-1] + 1))[self.offsets]

    def scale(self, windows: int = 200) -> Tensor:
        """Root mean square increments and displacements [n_types, lags, 2] (nm)."""
        last = self.trajectory.n_frames - self.offsets[-1]
        sums = torch.zeros([len(self.trajectory.type_names), len(self.offsets) - 1, 2], dtype=torch.float64)
        starts = np.unique(np.linspace(0, last - 1, windows).astype(int))
        numbers = torch.bincount(self.types, minlength=len(sums))
        for start in starts:
            x = torch.from_numpy(self._window(start).astype(np.float64))
            both = torch.stack([x[1:] - x[:-1], x[1:] - x[:1]], -1).square().sum(2)
            sums.index_add_(0, self.types, both.transpose(0, 1))
        return (sums / (len(starts) * numbers[:, None, None])).sqrt()

    def sample(self, number: int, generator: torch.Generator, starts: int = 16) -> tuple[Tensor, Tensor]:
        """Windows [number, lags + 1, 3] (nm) of random beads, and the types of the beads."""
        last = self.trajectory.n_frames - int(self.offsets[-1])
        each = -(-number // starts)
        windows, types = [], []
        for start in torch.randint(last, [starts], generator=generator).tolist():
            beads = torch.randint(self.trajectory.n_beads, [each], generator=generator)
            windows.append(torch.from_numpy(np.ascontiguousarray(self._window(start)[:, beads.numpy()])).transpose(0, 1))
            types.append(self.types[beads])
        return torch.cat(windows)[:number], torch.cat(types)[:number]

    def frame(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Positions [N, 3] and box [3, 3] (nm) of a random frame."""
        index = int(torch.randint(self.trajectory.n_frames, [1], generator=generator))
        one = slice(index, index + 1)
        return torch.from_numpy(self.trajectory.positions(one)[0]), torch.from_numpy(self.trajectory.boxes(one)[0])
