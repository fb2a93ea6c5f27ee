"""The part of the reference that training never sees, and how windows and structures of the model differ from it."""

from __future__ import annotations

import torch
from torch import Tensor

from ..analysis.blocks import brownian_error, overlap_factor, standard_error
from ..baselines import RelativeEntropy
from ..baselines.ranges import sample_frames
from ..trajectory import BeadTrajectory
from .windows import ReferenceWindows

BLOCKS = 5
WINDOWS = 200
FRAMES = 200


class HeldOut:
    """Windows and frames after a given one.

    Parameters
    ----------
    trajectory : BeadTrajectory
    lags : list of int
        Frames of a window after its first.
    start : int
        The first frame that is held out.
    entropy : RelativeEntropy
        Of the frames before.

    Attributes
    ----------
    windows : ReferenceWindows
    squares : Tensor [n_types, lags]
        Mean squared displacements from the first frame of a window (nm²).
    error : Tensor [n_types, lags]
        Their relative standard errors, from blocks of windows, which share part of the trajectory; nan of a single window.
    """

    def __init__(self, trajectory: BeadTrajectory, lags: list[int], start: int, entropy: RelativeEntropy):
        self.windows = ReferenceWindows(trajectory, lags, start)
        self.n_types = len(trajectory.type_names)
        squares = torch.stack([
            mean_squares(one.own, one.types, self.n_types) for one in self.windows.spread(WINDOWS)
        ])
        self.squares = squares.mean(0)
        blocks = [part.mean(0) for part in squares.chunk(BLOCKS)]
        span = trajectory.n_frames - start - lags[-1]
        shared = torch.tensor([overlap_factor(lag, span, len(blocks)) for lag in lags])
        found = shared * torch.from_numpy(standard_error(torch.stack(blocks).numpy())).reshape(self.squares.shape) / self.squares
        # Where windows are nearly the same, blocks tell little: free beads by themselves have no smaller error.
        numbers = torch.bincount(self.windows.types, minlength=self.n_types).tolist()
        least = torch.tensor([[brownian_error(lag, span, number) for lag in lags] for number in numbers])
        self.error = torch.maximum(found, least)
        frames = sample_frames(trajectory, FRAMES, start)
        self._shift = entropy.coordinates(
            torch.from_numpy(trajectory.positions(frames)), torch.from_numpy(trajectory.boxes(frames))
        ).mean(0)

    def displacement(self, windows: Tensor, types: Tensor) -> Tensor:
        """Logarithm [n_types, lags] of the mean squared displacements in generated windows
        [W, lags + 1, 3] (nm) over those held out."""
        return (mean_squares(windows, types, self.n_types) / self.squares).log()

    def structure(self, gradient: Tensor) -> float:
        """How far the averages of the potential's basis functions are from those held out, in standard
        deviations of the reference, from the gradient of the relative entropy."""
        return (gradient + self._shift).norm().item()


def mean_squares(windows: Tensor, types: Tensor, n_types: int) -> Tensor:
    """Mean squared displacements [n_types, lags] (nm²) from the first frame of windows [W, lags + 1, 3]."""
    return means_by_type((windows[:, 1:] - windows[:, :1]).square().sum(-1), types, n_types)


def means_by_type(values: Tensor, types: Tensor, n_types: int) -> Tensor:
    """Means [n_types, L] of the rows [W, L] of each bead type."""
    sums = values.new_zeros([n_types, values.shape[1]]).index_add_(0, types, values)
    return sums / torch.bincount(types, minlength=n_types)[:, None]
