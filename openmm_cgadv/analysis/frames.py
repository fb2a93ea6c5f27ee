"""What the analysis needs to know of a trajectory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class Frames(Protocol):
    """Positions of beads over time, such as a :class:`~openmm_cgadv.data.trajectory.BeadTrajectory`.

    Attributes
    ----------
    frame_interval : float
        Time between frames, ps.
    n_frames, n_beads : int
    types : ndarray [N]
        Index of each bead's type.
    type_names : sequence of str
    position_errors : ndarray [n_types]
        Standard deviation of a coordinate by rounding in the file, nm.
    """

    @property
    def frame_interval(self) -> float: ...
    @property
    def n_frames(self) -> int: ...
    @property
    def n_beads(self) -> int: ...
    @property
    def types(self) -> np.ndarray: ...
    @property
    def masses(self) -> np.ndarray: ...
    @property
    def type_names(self) -> Sequence[str]: ...
    @property
    def position_errors(self) -> np.ndarray: ...

    def positions(self, frames: slice | Sequence[int] | np.ndarray = slice(None)) -> np.ndarray:
        """Return unwrapped positions [n, N, 3], nm."""
        ...

    def boxes(self, frames: slice | Sequence[int] | np.ndarray = slice(None)) -> np.ndarray:
        """Return box vectors [n, 3, 3], nm."""
        ...
