"""Interfaces of an equation of motion: its fitted parameters, and the trainable module."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from .neighborhood import Neighborhood


class Friction(ABC):
    """The fitted parameters of one equation of motion: friction and memory, without the potential.

    Subclasses are frozen dataclasses of numbers and arrays. Their constructors raise ValueError where the
    parameters define no equation of motion. The friction of a single bead depends on its neighbours where friction acts
    between beads. The methods that need them take a :class:`~openmm_cgadv.dynamics.Neighborhood`, measured within
    ``reach``; it is None where ``reach`` is 0.

    Attributes
    ----------
    name : str
        Name of the equation in experiment files, model bundles and :data:`~openmm_cgadv.dynamics.FRICTIONS`.
    title : str
        Name of the equation in a sentence, followed by "dynamics".
    schema : int
        First schema version of model bundles that can hold the equation.
    section : str or None
        Key of ``model.json`` that holds :meth:`to_dict`. None: ``model.json`` has its entries beside all others,
        and :meth:`arrays` are in ``parameters.npz``, as in bundles of schema 1.
    needs : str or None
        Why OpenMM's own integrators cannot integrate the equation, as one clause; None if they can.
    between_beads : bool
        Whether friction acts between beads, so that it contributes to the stress.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    schema: ClassVar[int] = 4
    section: ClassVar[str | None] = "friction"
    needs: ClassVar[str | None] = None
    between_beads: ClassVar[bool] = False

    @property
    @abstractmethod
    def n_types(self) -> int:
        """Number of bead types."""

    @property
    @abstractmethod
    def n_auxiliary(self) -> int:
        """Number of auxiliary variables of a degree of freedom or of a pair; 0 without memory."""

    @property
    @abstractmethod
    def reach(self) -> float:
        """Cutoff of the friction between beads (nm); 0 without friction between beads."""

    @property
    @abstractmethod
    def conserves_momentum(self) -> bool:
        """Whether friction conserves the total momentum of the beads."""

    @property
    def required_schema(self) -> int:
        """First schema version of model bundles that can hold these parameters."""
        return self.schema

    @abstractmethod
    def bead_friction(self, neighborhood: Neighborhood | None = None) -> Tensor:
        """Return the integrated (zero-frequency) friction ∫K dt of a bead of each type [n_types] (1/ps)."""

    @abstractmethod
    def instantaneous_friction(self, neighborhood: Neighborhood | None = None) -> Tensor:
        """Return the instantaneous (Markovian) part of :meth:`bead_friction` [n_types] (1/ps)."""

    @abstractmethod
    def memory_kernel(self, times: Tensor, neighborhood: Neighborhood | None = None) -> Tensor:
        """Return the memory kernel of a bead of each type [n_types, T] (1/ps²) at times [T] (ps).

        The instantaneous part, a δ function at zero, is not in it.
        """

    def pair_ranges(self) -> list[tuple[float, float]]:
        """Return the range of distances (nm) in which the friction of each pair of types is fitted.

        Pairs of types are in the order of ``torch.triu_indices``. The list is empty without friction between beads.
        """
        return []

    def friction(self, r: np.ndarray) -> np.ndarray:
        """Return the integrated friction between two beads, ∫K dt, parallel and perpendicular to the pair vector.

        Parameters
        ----------
        r : ndarray [R]
            Distances (nm).

        Returns
        -------
        ndarray [n_type_pairs, 2, R]
            (1/ps)
        """
        return np.zeros([self.n_types * (self.n_types + 1) // 2, 2, len(r)])

    @abstractmethod
    def scalars(
        self, type_names: tuple[str, ...], neighborhood: Neighborhood | None = None
    ) -> dict[str, float]:
        """Return values for the training log by name; the names contain the bead types if there are several."""

    def remark(self) -> str:
        """Return a clause that follows :attr:`title` in a report, or an empty string."""
        return ""

    @abstractmethod
    def arrays(self) -> dict[str, np.ndarray]:
        """Return the parameters as arrays by name, for NPZ files."""

    @classmethod
    @abstractmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Friction:
        """Return the parameters from the result of :meth:`arrays`; other arrays in the mapping are ignored."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return the parameters as plain JSON types."""

    @classmethod
    @abstractmethod
    def from_dict(cls, data: dict[str, Any]) -> Friction:
        """Return the parameters from the result of :meth:`to_dict`; other entries are ignored."""


class TrainableFriction(torch.nn.Module, ABC):
    """An equation of motion as a differentiable function of its parameters.

    The state of the beads is one tensor [N, S, 3] (nm/ps): the velocities, then the auxiliary variables of each bead.

    Attributes
    ----------
    floor : float
        Lowest decay rate of the memory kernel (1/ps).
    neighborhood : Neighborhood or None
        Neighbours of a bead in the reference; needed where friction acts between beads.
    """

    floor: float
    neighborhood: Neighborhood | None = None

    @property
    @abstractmethod
    def n_types(self) -> int:
        """Number of bead types."""

    @property
    @abstractmethod
    def n_auxiliary(self) -> int:
        """Number of auxiliary variables of a degree of freedom or of a pair."""

    @abstractmethod
    def start(self, masses: Tensor, kT: float, generator: torch.Generator) -> Tensor:
        """Draw the state [N, S, 3] (nm/ps) of beads with masses [N] (dalton) from equilibrium at kT (kJ/mol)."""

    @abstractmethod
    def roll_out(
        self, positions: Tensor, state: Tensor, boxes: Tensor, *, dt: float, **options: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Integrate replicas, as :func:`openmm_cgadv.dynamics.rollout` does with the same options.

        Parameters
        ----------
        positions : Tensor [B, N, 3]
            (nm)
        state : Tensor [B, N, S, 3]
            (nm/ps)
        boxes : Tensor [B, 3, 3]
            (nm)
        dt : float
            Time step (ps).
        options
            ``types``, ``masses``, ``spec``, ``theta``, ``kT``, ``frames``, ``damping_time``, ``seed`` or ``noise``.

        Returns
        -------
        frames, positions, state : Tensor
            [B, len(frames), N, 3] (nm), [B, N, 3] (nm) and [B, N, S, 3] (nm/ps)
        """

    @abstractmethod
    def rates(self) -> Tensor:
        """Return the decay rates of the memory kernel [n_types or n_type_pairs, K] (1/ps)."""

    @abstractmethod
    def bead_friction(self) -> Tensor:
        """Return the integrated friction ∫K dt of a bead of each type [n_types] (1/ps)."""

    @abstractmethod
    def running_friction(self, times: Tensor) -> Tensor:
        """Return the integral of the kernel up to times [T] (ps), [n_types, T] (1/ps)."""

    @abstractmethod
    def export(self) -> Friction:
        """Return the current parameters as numbers."""
