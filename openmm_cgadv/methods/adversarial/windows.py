"""Windows of the all-atom trajectory: short trajectory segments, sampled at a few lags."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ...data.trajectory import BeadTrajectory
from ...errors import InputError


@dataclass(frozen=True)
class WindowSettings:
    """Hyperparameters of the windows.

    Attributes
    ----------
    largest_in_ram : int
        Largest size of a trajectory whose positions are kept in RAM (bytes).
    held_out : float
        Fraction of the reference, at its end, that is held out from training.
    scale_windows : int
        Windows that give the root mean square displacements.
    """

    largest_in_ram: int = 2**30
    held_out: float = 0.1
    scale_windows: int = 200


def window_lags(frame_interval: float, window: float, memory: bool) -> list[int]:
    """Return the lags of a window, in units of the reference's frame interval.

    With a memory kernel, the lags are spaced by factors of 2 up to the window's end, so that short and long times
    count alike. Without memory, the dynamics can only be right at long times, and the lags are half the window and its
    end.

    Parameters
    ----------
    frame_interval, window : float
        (ps)
    memory : bool
        Whether the equation of motion has a memory kernel.
    """
    longest = int(window / frame_interval + 1e-9)
    if memory:
        return sorted({*(2**k for k in range(longest.bit_length())), longest})
    return [longest // 2, longest]


def msd_lags(longest: int) -> list[int]:
    """Return the lags at which mean squared displacements are compared, spaced by factors of √2.

    The memory kernel can oscillate between the lags of a window, which are spaced by factors of 2.

    Parameters
    ----------
    longest : int
        Longest lag of a window (frames).
    """
    return sorted({round(longest * 2 ** (-k / 2)) for k in range(2 * longest.bit_length())} - {0})


def held_out_start(n_frames: int, longest: int, settings: WindowSettings = WindowSettings()) -> int:
    """Return the first frame of the held-out part of a reference, which has at least the length of a window.

    Parameters
    ----------
    n_frames : int
    longest : int
        Longest lag of a window (frames).
    settings : WindowSettings

    Raises
    ------
    InputError
        The reference is not longer than two windows.
    """
    held_out = max(round(settings.held_out * n_frames), longest + 1)
    if n_frames - held_out <= longest:
        raise InputError(
            f"training.window_ps: found a reference of {n_frames} frames, expected more than the {2 * longest + 1} "
            "frames of two windows, of which one is held out"
        )
    return n_frames - held_out


def center_of_mass_frame(positions: Tensor, masses: Tensor) -> Tensor:
    """Return positions [..., N, 3] relative to the centre of mass of each frame (nm).

    Single-particle friction lets the centre of mass diffuse, which it does not in an all-atom window.
    """
    return positions - torch.einsum("...nc,n->...c", positions, masses / masses.sum())[..., None, :]


@dataclass(frozen=True)
class Windows:
    """Windows of whole systems, and the beads in them that are compared.

    Attributes
    ----------
    positions : Tensor [S, lags + 1, N, 3]
        Unwrapped positions relative to the centre of mass (nm).
    boxes : Tensor [S, 3, 3]
        (nm)
    types : Tensor [N]
        Types of all beads.
    beads : Tensor [S, M]
        Indices of the selected beads of each system.
    """

    positions: Tensor
    boxes: Tensor
    types: Tensor
    beads: Tensor

    @classmethod
    def all_beads(cls, positions: Tensor, boxes: Tensor, types: Tensor) -> Windows:
        """Return windows in which all beads are selected."""
        return cls(positions, boxes, types, torch.arange(len(types)).expand(len(positions), -1))

    @property
    def selected_positions(self) -> Tensor:
        """Positions [S · M, lags + 1, 3] of the selected beads, one system after the other (nm)."""
        system = torch.arange(len(self.positions))[:, None]
        return self.positions.transpose(1, 2)[system, self.beads].flatten(0, 1)

    @property
    def selected_types(self) -> Tensor:
        """Types [S · M] of the selected beads."""
        return self.types[self.beads].flatten()

    def subsample(self, number: int, generator: torch.Generator) -> Windows:
        """Return the same windows with at most `number` randomly selected beads in all."""
        number = min(number // len(self.beads), self.beads.shape[1])
        chosen = torch.stack(
            [torch.randperm(self.beads.shape[1], generator=generator)[:number] for _ in self.beads]
        )
        return replace(self, beads=self.beads.gather(1, chosen))


class ReferenceWindows:
    """Draw windows and starting frames from a part of the all-atom reference.

    Parameters
    ----------
    trajectory : BeadTrajectory
    lags : list of int
        Lags of a window (frames).
    start, stop : int
        Range of frames; all by default.
    settings : WindowSettings
    """

    def __init__(
        self,
        trajectory: BeadTrajectory,
        lags: list[int],
        start: int = 0,
        stop: int | None = None,
        settings: WindowSettings = WindowSettings(),
    ):
        self.trajectory, self.settings = trajectory, settings
        self.start = start
        self.n_frames = (trajectory.n_frames if stop is None else stop) - start
        self.offsets = np.array([0, *lags])
        self.boxes = torch.from_numpy(trajectory.boxes(slice(start, start + self.n_frames)))
        self.types = torch.from_numpy(trajectory.types)
        self.masses = torch.from_numpy(trajectory.masses)
        self.errors = torch.from_numpy(trajectory.position_errors)
        self._cache = None
        if 4 * 3 * self.n_frames * trajectory.n_beads < settings.largest_in_ram:
            self._cache = np.empty([self.n_frames, trajectory.n_beads, 3], np.float32)
            for first in range(0, self.n_frames, 1000):
                last = min(first + 1000, self.n_frames)
                self._cache[first:last] = self._positions(slice(start + first, start + last))

    def _window(self, start: int) -> np.ndarray:
        """Return the positions [lags + 1, N, 3] of one window relative to the centre of mass (nm)."""
        if self._cache is not None:
            return self._cache[start + self.offsets]
        first = self.start + start
        return self._positions(slice(first, first + self.offsets[-1] + 1))[self.offsets]

    def _positions(self, frames: slice) -> np.ndarray:
        """Return positions [T, N, 3] relative to the centre of mass (nm)."""
        positions = torch.from_numpy(self.trajectory.positions(frames))
        return center_of_mass_frame(positions, self.masses).numpy()

    def evenly_spaced(self, number: int) -> Iterator[Windows]:
        """Iterate over at most `number` evenly spaced windows of all beads."""
        last = self.n_frames - self.offsets[-1]
        for start in np.unique(np.linspace(0, last - 1, number).astype(int)):
            positions = torch.from_numpy(self._window(start).astype(np.float64))
            yield Windows.all_beads(positions[None], self.boxes[start, None], self.types)

    def scale(self, frames: list[int] | None = None, windows: int | None = None) -> Tensor:
        """Return root mean square increments and displacements [n_types, lags, 2] (nm).

        Parameters
        ----------
        frames : list of int, optional
            Frames of a window; all by default.
        windows : int, optional
            Number of windows.
        """
        frames = list(range(len(self.offsets))) if frames is None else frames
        parts = (
            (one.selected_positions[:, frames], one.selected_types)
            for one in self.evenly_spaced(windows or self.settings.scale_windows)
        )
        return root_mean_squares(parts, len(self.trajectory.type_names))

    def sample(self, number: int, generator: torch.Generator, starts: int = 16) -> Windows:
        """Return random windows with randomly selected beads.

        Parameters
        ----------
        number : int
            Selected beads in all, rounded down to a multiple of `starts`.
        generator : torch.Generator
        starts : int
            Number of first frames.
        """
        last = self.n_frames - int(self.offsets[-1])
        positions, boxes, beads = [], [], []
        for start in torch.randint(last, [starts], generator=generator).tolist():
            beads.append(
                torch.randint(self.trajectory.n_beads, [number // starts], generator=generator)
            )
            positions.append(torch.from_numpy(self._window(start)))
            boxes.append(self.boxes[start])
        return Windows(
            torch.stack(positions).double(), torch.stack(boxes), self.types, torch.stack(beads)
        )

    def add_rounding_errors(self, positions: Tensor, generator: torch.Generator) -> Tensor:
        """Return generated positions [..., N, 3] (nm) with the errors of the reference's rounded coordinates."""
        if not self.errors.any():
            return positions
        noise = torch.randn(positions.shape, generator=generator, dtype=positions.dtype)
        return positions + self.errors[self.types][:, None] * noise

    def frame(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return positions [N, 3] and box [3, 3] (nm) of a random frame."""
        index = int(torch.randint(self.n_frames, [1], generator=generator))
        one = slice(self.start + index, self.start + index + 1)
        return torch.from_numpy(self.trajectory.positions(one)[0]), self.boxes[index]


def root_mean_squares(windows: Iterable[tuple[Tensor, Tensor]], n_types: int) -> Tensor:
    """Return root mean square increments and displacements [n_types, lags, 2] (nm).

    Parameters
    ----------
    windows : iterable of (Tensor [W, lags + 1, 3], Tensor [W])
        Windows (nm) and their types.
    n_types : int
    """
    sums, numbers = torch.zeros([], dtype=torch.float64), torch.zeros(n_types, dtype=torch.float64)
    for x, types in windows:
        both = torch.stack([x[:, 1:] - x[:, :-1], x[:, 1:] - x[:, :1]], -1).square().sum(2)
        sums = sums + both.new_zeros([n_types, *both.shape[1:]]).index_add_(0, types, both)
        numbers += torch.bincount(types, minlength=n_types)
    return (sums / numbers[:, None, None]).sqrt()
