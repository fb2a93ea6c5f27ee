"""Bulk liquids of any size: the configuration of a model, replicated and cut to a box."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike
from openmm import unit
from openmm.unit import Quantity

from ..errors import InputError
from ..model import Model
from ..ram import check_ram
from ..units import plain

MAX_BEADS_IN_BOX = 1_000_000
"""Largest number of beads in a box of given size: a length in Å would give 1000 times too many."""

RAM_OF_BEAD = 150
"""Bytes of RAM for each bead while the configuration is replicated, as measured; a simulation takes more."""


def bulk_model(
    model: Model, molecules: int | None = None, box: ArrayLike | Quantity | None = None
) -> Model:
    """Return a model with a larger or smaller configuration of the same density and composition.

    The configuration is replicated, and a cell with the requested number of beads is cut out. Beads
    of different replicas meet at the faces of a cell that is not a multiple of the original one, so
    minimize the energy before the dynamics. Replicas are correlated until they have equilibrated, a
    few tens of ps for water.

    Parameters
    ----------
    model : Model
    molecules : int, optional
        Number of beads, in a box of the original shape. By default the number that fits into `box`.
    box : float, sequence of 3 or Quantity, optional
        Edge of a cube, or edges of a rectangular box (nm).

    Returns
    -------
    Model
        The model with new `types`, `positions` and `box`; beads are sorted by type.

    Raises
    ------
    InputError
        Both or none of `molecules` and `box` are given, or the box is too small for the cutoff.
    """
    if (molecules is None) == (box is None):
        found = "neither" if box is None else "both"
        raise InputError(f"found {found} of molecules and box, expected one of them")
    density = len(model.types) / np.linalg.det(model.box)
    if box is None:
        if molecules is None or molecules != int(molecules) or molecules < 1:
            raise InputError(f"molecules: found {molecules}, expected a whole number above 0")
        count = int(molecules)
        check_ram(RAM_OF_BEAD * count, f"molecules: found {molecules}, which need")
        cell = model.box * (count / len(model.types)) ** (1 / 3)
    else:
        edges = np.array(plain(box, unit.nanometer), dtype=np.float64)
        if edges.shape not in ((), (3,)) or not (np.isfinite(edges) & (edges > 0)).all():
            raise InputError(f"box: found {box}, expected one length or three, in nm")
        cell = np.diag(edges * np.ones(3))
        count = round(density * np.linalg.det(cell))
        if count > MAX_BEADS_IN_BOX:
            raise InputError(
                f"box: found {box} nm, which holds {count} beads, expected at most {MAX_BEADS_IN_BOX}; "
                "lengths are in nm, and `molecules` makes a box of any number of beads"
            )
    smallest = np.diagonal(cell).min()
    if smallest < 2 * model.reach:
        raise InputError(
            f"{'molecules' if box is None else 'box'}: found a box of {smallest:.4g} nm for "
            f"{count} beads, expected at least {2 * model.reach:.4g} nm, twice the cutoff"
        )
    fractions, types = _cut(model, cell, count)
    types = _with_composition(types, np.bincount(model.types, minlength=model.spec.n_types))
    order = np.argsort(types, kind="stable")
    return replace(model, types=types[order], positions=(fractions @ cell)[order], box=cell)


def _cut(model: Model, cell: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return fractional coordinates [count, 3] in the cell, and bead types [count]."""
    to_base, to_cell = np.linalg.inv(model.box), np.linalg.inv(cell)
    base = (model.positions @ to_base) % 1.0 @ model.box
    reach = 1.2
    while True:
        corners = np.stack(np.meshgrid(*[[0, reach]] * 3), -1).reshape(-1, 3) @ cell
        spanned = corners @ to_base
        first, last = np.floor(spanned.min(0)).astype(int) - 1, np.ceil(spanned.max(0)).astype(int)
        repeats = [np.arange(a, b + 1) for a, b in zip(first, last)]
        shifts = np.stack(np.meshgrid(*repeats, indexing="ij"), -1).reshape(-1, 3) @ model.box
        found = (base + shifts[:, None]).reshape(-1, 3) @ to_cell
        types = np.tile(model.types, len(shifts))
        inside = (found >= 0).all(1) & (found < reach).all(1)
        found, types = found[inside], types[inside]
        if len(found) > count:
            break
        reach *= 1.2
    # Of cells of increasing size around the same corner, take the one with `count` beads and scale it.
    size = found.max(1)
    order = np.argsort(size, kind="stable")
    last, next_ = size[order[count - 1]], size[order[count]]
    scale = 1.0 if last < 1.0 <= next_ else (last + next_) / 2
    return found[order[:count]] / scale, types[order[:count]]


def _with_composition(types: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Return types of a composition [n_types], with as few changes as possible."""
    shares = numbers / numbers.sum() * len(types)
    wanted = np.floor(shares).astype(int)
    wanted[np.argsort(wanted - shares, kind="stable")[: len(types) - wanted.sum()]] += 1
    types = types.copy()
    spare = np.bincount(types, minlength=len(numbers)) - wanted
    generator = np.random.default_rng(0)
    changed = [
        generator.choice(np.flatnonzero(types == bead_type), surplus, replace=False)
        for bead_type, surplus in enumerate(spare)
        if surplus > 0
    ]
    if changed:
        lacking = np.repeat(np.arange(len(numbers)), np.maximum(-spare, 0))
        types[generator.permutation(np.concatenate(changed))] = lacking
    return types
