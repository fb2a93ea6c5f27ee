"""Coordinates rounded by their file format: how to tell, and what that adds to the displacement of beads.

XTC keeps 0.001 nm if nothing else is asked for, GRO and most PDB files as much or ten times more. The error of a coordinate is spread evenly over
one step and, once atoms move by half a step or more from frame to frame, new in each frame: a bead with weights w of
its atoms gets an independent error of variance Σ w² step²/12 in each component and frame, and its squared displacement
six times that, at every lag alike.
"""
from __future__ import annotations

import numpy as np

STEPS = (0.01, 0.005, 0.002, 0.001, 0.0005, 0.0002, 0.0001)
"""Steps that formats round to (nm)."""
TOLERANCE = 0.02
"""Distance from a multiple, in steps, that single precision explains."""


def rounding_step(positions) -> float | None:
    """Step that all coordinates are multiples of (nm), None if there is none.

    Parameters
    ----------
    positions : array [T, n, 3]
        nm, as they are in the file.
    """
    for step in STEPS:
        scaled = np.asarray(positions, dtype=np.float64) / step
        if np.abs(scaled - np.round(scaled)).max() < TOLERANCE:
            return step
    return None


def rounding(step, mapping) -> dict:
    """What atoms rounded to `step` mean for beads.

    Parameters
    ----------
    step : float
        nm.
    mapping : Mapping

    Returns
    -------
    dict
        ``step_nm`` and ``bead_error_nm``, the standard deviation of each component of a bead's position
        by type.
    """
    squares = np.array([np.sum(weights ** 2) for weights in mapping.weights])
    variance = step ** 2 / 12 * np.bincount(mapping.types, squares) / np.bincount(mapping.types)
    return {"step_nm": step, "bead_error_nm": np.sqrt(variance).tolist()}
