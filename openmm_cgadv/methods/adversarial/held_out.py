"""The held-out part of the reference, and the deviation of generated windows and structures from it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...analysis.blocks import brownian_error, overlap_factor, standard_error
from ...data.trajectory import BeadTrajectory
from ...fit import RelativeEntropy
from ...fit.ranges import sample_frames
from .windows import ReferenceWindows


@dataclass(frozen=True)
class HeldOutSettings:
    """Hyperparameters of the comparison with the held-out part.

    Attributes
    ----------
    windows, frames : int
        Most windows and frames that are averaged over. More would be correlated.
    blocks : int
        Blocks of windows for the standard error.
    """

    windows: int = 200
    frames: int = 200
    blocks: int = 5


class HeldOut:
    """Measure the held-out part of the reference.

    Parameters
    ----------
    trajectory : BeadTrajectory
    lags : list of int
        Lags of a window (frames).
    start : int
        First held-out frame.
    entropy : RelativeEntropy
        Of the frames before.
    settings : HeldOutSettings

    Attributes
    ----------
    windows : ReferenceWindows
    msd : Tensor [n_types, lags]
        Mean squared displacements from the first frame of a window (nm²).
    error : Tensor [n_types, lags]
        Their relative standard errors from block averages, corrected for the overlap of windows; NaN for one window.
    """

    def __init__(
        self,
        trajectory: BeadTrajectory,
        lags: list[int],
        start: int,
        entropy: RelativeEntropy,
        settings: HeldOutSettings = HeldOutSettings(),
    ):
        self.windows = ReferenceWindows(trajectory, lags, start)
        self.n_types = len(trajectory.type_names)
        squares = torch.stack(
            [
                window_msd(one.selected_positions, one.selected_types, self.n_types)
                for one in self.windows.evenly_spaced(settings.windows)
            ]
        )
        self.msd = squares.mean(0)
        blocks = torch.stack([part.mean(0) for part in squares.chunk(settings.blocks)]).numpy()
        span = trajectory.n_frames - start - lags[-1]
        shared = torch.tensor([overlap_factor(lag, span, len(blocks)) for lag in lags])
        error = torch.from_numpy(standard_error(blocks)).reshape(self.msd.shape)
        # If the windows overlap almost entirely, block averages underestimate the error; that of independent Brownian
        # beads is a lower bound.
        numbers = torch.bincount(self.windows.types, minlength=self.n_types).tolist()
        least = torch.tensor(
            [[brownian_error(lag, span, number) for lag in lags] for number in numbers]
        )
        self.error = torch.maximum(shared * error / self.msd, least)
        frames = sample_frames(trajectory, settings.frames, start)
        self._shift = entropy.coordinates(
            torch.from_numpy(trajectory.positions(frames)),
            torch.from_numpy(trajectory.boxes(frames)),
        ).mean(0)

    def displacement(self, windows: Tensor, types: Tensor) -> Tensor:
        """Return the logarithm [n_types, lags] of the ratio of mean squared displacements, generated to held-out.

        Parameters
        ----------
        windows : Tensor [W, lags + 1, 3]
            Generated windows of single beads (nm).
        types : Tensor [W]
        """
        return (window_msd(windows, types, self.n_types) / self.msd).log()

    def structure(self, gradient: Tensor) -> float:
        """Return the distance between the averages of the basis functions, generated and held-out.

        Parameters
        ----------
        gradient : Tensor [P]
            Gradient of the relative entropy, in standard deviations of the reference.
        """
        return (gradient + self._shift).norm().item()


def window_msd(windows: Tensor, types: Tensor, n_types: int) -> Tensor:
    """Return mean squared displacements [n_types, lags] (nm²) from the first frame of windows [W, lags + 1, 3]."""
    return means_by_type((windows[:, 1:] - windows[:, :1]).square().sum(-1), types, n_types)


def means_by_type(values: Tensor, types: Tensor, n_types: int) -> Tensor:
    """Return the means [n_types, L] of the rows of `values` [W, L] over the beads of each type."""
    sums = values.new_zeros([n_types, values.shape[1]]).index_add_(0, types, values)
    return sums / torch.bincount(types, minlength=n_types)[:, None]
