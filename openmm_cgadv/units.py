"""The unit system of the package: nm, ps, kJ/mol, dalton, kelvin, as in OpenMM."""
from __future__ import annotations

KB = 0.00831446261815324
"""Boltzmann constant times Avogadro number, kJ/mol/K."""


def plain(x, unit):
    """Number in the package's units, from a plain number or an OpenMM quantity.

    Parameters
    ----------
    x : float, array or openmm.unit.Quantity
        A value without a unit is taken to be in `unit` already and is returned as it is.
    unit : openmm.unit.Unit, or a callable that returns one
        The unit of the result, such as ``openmm.unit.picosecond``. As a callable
        (``lambda: openmm.unit.picosecond``) it spares the import of OpenMM when `x` is plain.

    Raises
    ------
    ValueError
        `x` has a unit of another dimension.
    """
    if not hasattr(x, "value_in_unit"):
        return x
    if callable(unit) and not hasattr(unit, "is_compatible"):
        unit = unit()
    if not x.unit.is_compatible(unit):
        raise ValueError(f"expected a quantity in {unit}, found one in {x.unit}")
    return x.value_in_unit(unit)
