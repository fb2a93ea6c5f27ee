"""Correction of the diffusion coefficient for the size of a periodic box."""

from __future__ import annotations

import math

import numpy as np

from ..units import CM2_PER_S, KB, MPA_S
from .blocks import Unmeasurable

XI = 2.837297
"""Of the lattice of images of a cubic box."""
CUBIC = 0.02


def box_correction(
    viscosity: tuple[float, float], temperature: float, box: np.ndarray
) -> tuple[float, float]:
    """Return the diffusion coefficient of an infinite liquid minus that in a periodic cubic box, and its standard error.

    ``xi kT/(6 pi eta L)`` (B. Duenweg and K. Kremer, J. Chem. Phys. 99, 6983 (1993); I.-C. Yeh and
    G. Hummer, J. Phys. Chem. B 108, 15873 (2004)): flow around a bead meets the flow around its
    images. It holds where momentum is conserved.

    Parameters
    ----------
    viscosity : (float, float)
        Value and standard error, mPa s.
    temperature : float
        K.
    box : array [3, 3]
        Box vectors as rows, nm.

    Returns
    -------
    (float, float)
        cm^2/s.

    Raises
    ------
    Unmeasurable
        The box is not a cube.
    """
    edge = abs(np.linalg.det(box)) ** (1 / 3)
    if np.abs(np.asarray(box) - edge * np.eye(3)).max() > CUBIC * edge:
        raise Unmeasurable(
            "how diffusion depends on the box is known for cubic boxes, and this one is not a cube"
        )
    value, error = viscosity
    gain = XI * KB * temperature / (6 * math.pi * value / MPA_S * edge) * CM2_PER_S
    return gain, gain * error / value
