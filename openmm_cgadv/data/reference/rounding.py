"""Rounding of coordinates by file formats: its detection, and its effect on displacements of beads.

XTC files have a precision of 0.001 nm by default, GRO and most PDB files of 0.001 or 0.01 nm. The rounding error of a coordinate
is uniform over one rounding step. It is independent from frame to frame if atoms move by half a step or more between
frames. A bead with atom weights w then has an independent error of variance Σ w² step²/12 in each component and
frame, which adds six times this variance to the MSD at every lag.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ..mapping import Mapping

ROUNDING_STEPS = (0.01, 0.005, 0.002, 0.001, 0.0005, 0.0002, 0.0001)
"""Rounding steps of file formats (nm)."""
TOLERANCE = 0.02
"""Default of the largest distance from a multiple, in steps: the error of single precision."""


def rounding_step(positions: ArrayLike, tolerance: float = TOLERANCE) -> float | None:
    """Return the rounding step of coordinates (nm), None if they are not rounded.

    Parameters
    ----------
    positions : array [T, n, 3]
        Coordinates as read from the file (nm).
    tolerance : float
        Largest distance of a coordinate from a multiple of the step, in steps.
    """
    for step in ROUNDING_STEPS:
        scaled = np.asarray(positions, dtype=np.float64) / step
        if np.abs(scaled - np.round(scaled)).max() < tolerance:
            return step
    return None


def rounding(step: float, mapping: Mapping) -> dict:
    """Return the errors of bead positions from atom positions that are rounded to `step`.

    Parameters
    ----------
    step : float
        nm.
    mapping : Mapping

    Returns
    -------
    dict
        ``step_nm`` and ``bead_error_nm``, the standard deviation of each component of a bead's position,
        one number for each bead type.
    """
    squares = np.array([np.sum(weights**2) for weights in mapping.weights])
    variance = step**2 / 12 * np.bincount(mapping.types, squares) / np.bincount(mapping.types)
    return {"step_nm": step, "bead_error_nm": np.sqrt(variance).tolist()}
