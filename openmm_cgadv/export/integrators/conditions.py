"""Time steps and temperatures that a model can run at."""

from __future__ import annotations

import logging

import numpy as np

from ...errors import InputError
from ...model import Model
from ...units import KB

log = logging.getLogger(__name__)

LONGEST_THERMAL_DISPLACEMENT = 0.05
"""Largest root mean square displacement of a bead's coordinate in a time step, nm.

It is a quarter of the displacement at which a run stops as exploded, so that the tail of the Maxwell–Boltzmann
distribution stays below that.
"""

SIMILAR_STEPS = (0.1, 3.0)
"""Range of the time step relative to that of the training without a warning."""

SIMILAR_TEMPERATURES = 0.01
"""Relative difference from the temperature of the training without a warning."""


def check_temperature(model: Model, temperature: float) -> None:
    """Check a temperature (K); log a warning if it is not that of the model.

    Raises
    ------
    InputError
        It is not positive and finite.
    """
    if not 0 < temperature < np.inf:
        raise InputError(f"temperature: found {temperature:g} K, expected more than 0")
    if abs(temperature / model.temperature - 1) > SIMILAR_TEMPERATURES:
        log.warning(
            "found a temperature of %g K, but the model is valid at the temperature of its reference alone, %g K",
            temperature,
            model.temperature,
        )


def check_timestep(model: Model, timestep: float, temperature: float) -> None:
    """Check a time step (ps); log a warning if it is far from that of the training.

    Raises
    ------
    InputError
        It is not positive, or thermal motion alone moves a bead too far in it.
    """
    if not timestep > 0:
        raise InputError(f"timestep: found {timestep:g} ps, expected more than 0")
    speed = np.sqrt(KB * temperature / model.masses.min())
    if not timestep * speed <= LONGEST_THERMAL_DISPLACEMENT:
        raise InputError(
            f"timestep: found {timestep:g} ps, in which thermal motion moves a bead by {timestep * speed:.2g} nm, expected "
            f"at most {LONGEST_THERMAL_DISPLACEMENT / speed:.2g} ps (1 fs is 0.001 ps)"
        )
    ratio = timestep / model.timestep
    if not SIMILAR_STEPS[0] <= ratio <= SIMILAR_STEPS[1]:
        log.warning(
            "found a time step of %g fs, which is %.2g times that of the training, %g fs",
            1e3 * timestep,
            ratio,
            1e3 * model.timestep,
        )
