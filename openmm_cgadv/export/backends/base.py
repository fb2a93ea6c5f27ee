"""The interface of a backend, which computes the learned energy of beads in one OpenMM force."""

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
    """The potential of a force and the beads on which it acts.

    Attributes
    ----------
    spec : PotentialSpec
    types : ndarray [N] of int
        Bead types.
    """

    spec: PotentialSpec
    types: np.ndarray


class Backend(Protocol):
    """The functions of a module that is a backend."""

    def why_not(self, platform: str | None = None) -> str | None:
        """Return why this backend can't be used, with what to install, or None.

        Parameters
        ----------
        platform : str, optional
            Name of the OpenMM platform of a Context. By default OpenMM chooses the platform.
        """

    def create_force(
        self,
        spec: PotentialSpec,
        theta: np.ndarray,
        types: np.ndarray,
        plain: bool,
        particles: Sequence[int] | None = None,
    ) -> openmm.Force:
        """Return the energy of beads as one OpenMM force with periodic boundary conditions.

        Parameters
        ----------
        spec : PotentialSpec
        theta : ndarray [P]
            Parameters (kJ/mol).
        types : ndarray [N] of int
            Bead types.
        plain : bool
            Whether to use plain torch operators even if the compiled kernels are available.
        particles : sequence of int, optional
            The particle of the System that each bead is; by default beads are all its particles.

        Raises
        ------
        ValueError
            The backend has no plain torch operators, or can't act on a part of a System.
        """

    def read(self, force: openmm.Force) -> Beads | None:
        """Return the potential and the beads of a force of a System, or None if it is not of this backend."""

    def update(self, context: openmm.Context, force: openmm.Force, theta: np.ndarray) -> None:
        """Set the parameters theta [P] (kJ/mol) of a force of a Context, a force of this backend."""


DELIVERY = "cgadv_delivery"
"""Global parameter of a force, through which :func:`deliver` passes parameters to its function."""
DELIVERIES = os.path.join(tempfile.gettempdir(), "cgadv-delivery-")
"""Path of a file with new parameters, without the number at its end."""


def deliver(context: openmm.Context, force: openmm.Force, theta: np.ndarray) -> None:
    """Pass new parameters theta [P] (kJ/mol) to the function of a force.

    OpenMM gives no access to the function that a Context calls, but passes global parameters to it.
    If ``DELIVERY`` is not 0, it is the number of a file, from which the function reads its parameters
    before it computes. The file exists only during this call.
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
        # Single precision represents these numbers exactly.
        number = 1 + secrets.randbelow(2**24 - 1)
        try:
            return number, open(f"{DELIVERIES}{number}", "xb")
        except FileExistsError:
            continue
