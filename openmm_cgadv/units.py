"""The unit system of the package: nm, ps, kJ/mol, dalton, kelvin, as in OpenMM."""

from __future__ import annotations

from typing import Any

from .errors import InputError

KB = 0.00831446261815324
"""Boltzmann constant times Avogadro number, kJ/mol/K."""

CM2_PER_S = 1e-2
"""Number of cm^2/s in one nm^2/ps."""

MPA_S = 1.66053906660e-3
"""Number of mPa s in one dalton/(nm ps)."""


def plain(x: Any, unit: Any) -> Any:
    """Return a number in the package's units, from a plain number or an OpenMM quantity.

    Parameters
    ----------
    x : float, array or openmm.unit.Quantity
        A value without a unit counts as one in `unit` and is returned unchanged.
    unit : openmm.unit.Unit, or a callable that returns one
        The unit of the result, such as ``openmm.unit.picosecond``. As a callable
        (``lambda: openmm.unit.picosecond``) it avoids the import of OpenMM if `x` has no unit.

    Raises
    ------
    InputError
        `x` has a unit of another dimension.
    """
    if not hasattr(x, "value_in_unit"):
        return x
    if callable(unit) and not hasattr(unit, "is_compatible"):
        unit = unit()
    if not x.unit.is_compatible(unit):
        raise InputError(f"expected a quantity in {unit}, found one in {x.unit}")
    return x.value_in_unit(unit)
