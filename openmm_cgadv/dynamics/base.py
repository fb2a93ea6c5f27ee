"""What an equation of motion is: its fitted parameters, and the module that training differentiates."""

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
    parameters define no equation of motion. What a friction between beads does to a single bead depends on where
    its neighbours are: the methods that need them take a :class:`~openmm_cgadv.dynamics.Neighborhood`, measured
    within ``reach``, which is None where ``reach`` is 0.

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
        """Distance from which on beads have no friction between them (nm); 0 if they never do."""

    @property
    @abstractmethod
    def conserves_momentum(self) -> bool:
        """Whether friction leaves the total momentum of the beads as it is."""

    @property
    def required_schema(self) -> int:
        """First schema version of model bundles that can hold these parameters."""
        return self.schema

    @abstractmethod
    def bead_friction(self, neighborhood: Neighborhood | None = None) -> Tensor:
        """Return the friction ∫K dt of a bead of each type [n_types] (1/ps), as a slow probe feels it."""

    @abstractmethod
    def instantaneous_friction(self, neighborhood: Neighborhood | None = None) -> Tensor:
        """Return the part of :meth:`bead_friction` without memory [n_types] (1/ps)."""

    @abstractmethod
    def memory_kernel(self, times: Tensor, neighborhood: Neighborhood | None = None) -> Tensor:
        """Return the memory kernel of a bead of each type [n_types, T] (1/ps²) at times [T] (ps).

        The instantaneous part, a δ function at zero, is not in it.
        """

    def pair_ranges(self) -> list[tuple[float, float]]:
        """Return the shortest and the longest distance (nm) at which the friction of each pair of types is fitted.

        Pairs are in the order of ``torch.triu_indices``. Empty where friction does not act between beads.
        """
        return []

    def friction(self, r: np.ndarray) -> np.ndarray:
        """Return the friction between two beads, ∫K dt, parallel and perpendicular to the line through them.

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
        """Return numbers for a training log by name, with the bead types in the name if there are several."""

    def remark(self) -> str:
        """Return a clause about these parameters that a title adds to the name, or an empty string."""
        return ""

    @abstractmethod
    def arrays(self) -> dict[str, np.ndarray]:
        """Return the parameters as arrays by name, for NPZ files."""

    @classmethod
    @abstractmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Friction:
        """Return the parameters of which :meth:`arrays` made a mapping; others in it are ignored."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return the parameters as plain JSON types."""

    @classmethod
    @abstractmethod
    def from_dict(cls, data: dict[str, Any]) -> Friction:
        """Return the parameters of which :meth:`to_dict` made a dictionary; others in it are ignored."""


class TrainableFriction(torch.nn.Module, ABC):
    """An equation of motion as a differentiable function of its parameters.

    The state of the beads is their velocity and what else the equation keeps of each of them, in one tensor
    [N, S, 3] (nm/ps) with the velocities first.

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
            ``types``, ``masses``, ``spec``, ``theta``, ``kT``, ``frames``, ``forget``, ``seed`` or ``noise``.

        Returns
        -------
        frames, positions, state : Tensor
            [B, len(frames), N, 3] (nm), [B, N, 3] (nm) and [B, N, S, 3] (nm/ps)
        """

    @abstractmethod
    def rates(self) -> Tensor:
        """Return the decay rates of the memory [n_types or n_type_pairs, K] (1/ps)."""

    @abstractmethod
    def bead_friction(self) -> Tensor:
        """Return the friction ∫K dt of a bead of each type [n_types] (1/ps); see :meth:`Friction.bead_friction`."""

    @abstractmethod
    def running_friction(self, times: Tensor) -> Tensor:
        """Return the integral of the kernel up to some times (ps) [n_types, T] (1/ps)."""

    @abstractmethod
    def export(self) -> Friction:
        """Return the present parameters."""
