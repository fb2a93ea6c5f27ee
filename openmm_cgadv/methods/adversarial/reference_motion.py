"""Mean squared displacements of the reference, and those of generated windows relative to them."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ...analysis.msd import Msd, msd
from .held_out import window_msd
from .windows import ReferenceWindows, Windows, msd_lags


class ReferenceMotion:
    """Measure the motion in the training part of the reference, each quantity when it is first used.

    Parameters
    ----------
    windows : ReferenceWindows
    growth_windows : int
        Most windows that the late-time increment is averaged over.
    """

    def __init__(self, windows: ReferenceWindows, growth_windows: int):
        self.windows, self.growth_windows = windows, growth_windows
        self.n_types = len(windows.trajectory.type_names)
        longest = windows.offsets[-1]
        self._half = max(k for k, lag in enumerate(windows.offsets) if 2 * lag <= longest)

    @cached_property
    def msd(self) -> Msd:
        """Mean squared displacements over all time origins, at lags a factor of √2 apart up to the window's end."""
        interval = self.windows.trajectory.frame_interval
        lags = msd_lags(int(self.windows.offsets[-1]))
        return msd(self.windows.trajectory, interval * np.array(lags), stop=self.windows.n_frames)

    @cached_property
    def late_increment(self) -> Tensor:
        """Late-time increment of the mean squared displacement [n_types] (nm²)."""
        return torch.stack(
            [
                self._increment(one.selected_positions, one.selected_types)
                for one in self.windows.evenly_spaced(self.growth_windows)
            ]
        ).mean(0)

    def excess(self, windows: Windows) -> Tensor:
        """Return the relative excess [n_types] of the late-time increment in generated windows.

        It is zero for bead types that do not move in the reference.
        """
        found = self._increment(windows.selected_positions.detach(), windows.selected_types)
        return torch.where(self.late_increment > 0, found / self.late_increment - 1, 0.0)

    def _increment(self, windows: Tensor, types: Tensor) -> Tensor:
        """Return the increment [n_types] (nm²) from half of windows [W, lags + 1, 3], or the lag before, to their end."""
        squares = window_msd(windows[:, [0, self._half, -1]], types, self.n_types)
        return squares[:, 1] - squares[:, 0]
