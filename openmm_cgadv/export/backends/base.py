"""What a backend does: it puts the learned energy of beads into one OpenMM force."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Sequence
from typing import BinaryIO, NamedTuple, Protocol

import numpy as np
import openmm

from ...potentials import PotentialSpec


class Beads(NamedTuple):
    """Whose energy a force computes.

    Attributes
    ----------
    spec : PotentialSpec
    types : ndarray [N] of int
        Bead types.
    """

    spec: PotentialSpec
    types: np.ndarray


class Backend(Protocol):
    """A module of this package that offers these functions."""

    def why_not(self, platform: str | None = None) -> str | None:
        """Return why this backend can't be used, with what to install, or None.

        Parameters
        ----------
        platform : str, optional
            Name of the OpenMM platform that a Context is to use. Without it the answer is about
            Contexts that leave the platform to OpenMM.
        """

    def create_force(
        self,
        spec: PotentialSpec,
        theta: np.ndarray,
        types: np.ndarray,
        plain: bool,
        particles: Sequence[int] | None = None,
    ) -> openmm.Force:
        """The energy of beads as one OpenMM force, periodic.

        Parameters
        ----------
        spec : PotentialSpec
        theta : ndarray [P]
            Parameters (kJ/mol).
        types : ndarray [N] of int
            Bead types.
        plain : bool
            Plain torch operators even where the compiled kernels are there.
        particles : sequence of int, optional
            The particle of the System that each bead is; by default beads are all its particles.

        Raises
        ------
        ValueError
            It has no plain torch operators, or can't act on a part of a System.
        """

    def read(self, force: openmm.Force) -> Beads | None:
        """Whose energy a force of a System computes, or None if it is not of this backend."""

    def update(self, context: openmm.Context, force: openmm.Force, theta: np.ndarray) -> None:
        """Give new parameters theta [P] (kJ/mol) to a force, which `read` knows, of a Context."""


DELIVERY = "cgadv_delivery"
"""Global parameter of a force by which :func:`deliver` reaches the function inside it."""
DELIVERIES = os.path.join(tempfile.gettempdir(), "cgadv-delivery-")
"""Path of a file with new parameters, but for the number that ends it."""


def deliver(context: openmm.Context, force: openmm.Force, theta: np.ndarray) -> None:
    """Hand new parameters [P] to the function inside a force.

    OpenMM does not give out the function that a Context calls, but hands it global parameters. If
    ``DELIVERY`` is not 0, it is the number of a file from which the function takes its parameters
    before it computes. The file exists during this call alone.
    """
    number, file = _new_file()
    try:
        with file:
            file.write(np.asarray(theta, dtype=np.float64).tobytes())
        context.setParameter(DELIVERY, number)
        context.getState(energy=True, groups={force.getForceGroup()})
    finally:
        context.setParameter(DELIVERY, 0)
        os.unlink(file.name)


def _new_file() -> tuple[int, BinaryIO]:
    while True:
        # Single precision holds it.
        number = 1 + secrets.randbelow(2**24 - 1)
        try:
            return number, open(f"{DELIVERIES}{number}", "xb")
        except FileExistsError:
            continue
