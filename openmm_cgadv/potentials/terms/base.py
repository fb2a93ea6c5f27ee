"""The interface of an energy term."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar, cast

import numpy as np
import openmm
import torch
from torch import Tensor

from ...errors import InputError


@dataclass(frozen=True)
class PairCurve:
    """The energy u(r) of two isolated beads, ``u(r) = fixed(r) + basis(r) θ[parameters]``.

    Attributes
    ----------
    types : tuple of int
        Types of the two beads.
    r_min : float
        Shortest distance at which the energy is fitted to data (nm); 0 if the term has no such limit.
    r_cut : float
        Distance beyond which the energy is zero (nm).
    parameters : ndarray [P] of int
        Numbers of the parameters on which the energy depends.
    basis : callable
        Values of their basis functions [R, P] at distances [R] below ``r_cut``.
    fixed : callable
        Energy [R] (kJ/mol) that does not depend on parameters, at such distances.
    """

    types: tuple[int, int]
    r_min: float
    r_cut: float
    parameters: np.ndarray
    basis: Callable[[Tensor], Tensor]
    fixed: Callable[[Tensor], Tensor]

    def energy(self, theta: Tensor | np.ndarray, r: Tensor | np.ndarray) -> Tensor:
        """Return u [R] (kJ/mol) at distances [R] (nm), for parameters θ of the whole potential."""
        coefficients = torch.as_tensor(theta)[torch.from_numpy(self.parameters)]
        design, fixed = self.design(torch.as_tensor(r, dtype=torch.float64))
        return design @ coefficients + fixed

    def design(self, r: Tensor) -> tuple[Tensor, Tensor]:
        """Return basis functions [R, P] and the fixed energy [R] (kJ/mol) at any distances [R] (nm)."""
        inside = r < self.r_cut
        basis = r.new_zeros(len(r), len(self.parameters))
        fixed = torch.zeros_like(r)
        basis[inside], fixed[inside] = self.basis(r[inside]), self.fixed(r[inside])
        return basis, fixed

    def shifted(self, offset: int) -> PairCurve:
        """Return the curve with its parameters counted from another first one."""
        return replace(self, parameters=self.parameters + offset)

    @classmethod
    def sum(cls, curves: Sequence[PairCurve]) -> PairCurve:
        """Return the sum of curves of the same pair of types."""
        if len(curves) == 1:
            return curves[0]
        return cls(
            curves[0].types,
            max(curve.r_min for curve in curves),
            max(curve.r_cut for curve in curves),
            np.concatenate([curve.parameters for curve in curves]),
            lambda r: torch.cat([curve.design(r)[0] for curve in curves], 1),
            lambda r: torch.stack([curve.design(r)[1] for curve in curves]).sum(0),
        )


class Term(ABC):
    """Definition of one term of the energy: cutoffs and sizes, without its parameters.

    Subclasses are frozen dataclasses whose fields are numbers and (nested) tuples of numbers. A term is linear
    in its parameters θ, except for a part that does not depend on them:

        U(R) = U_fixed(R) + Σ_k θ_k B_k(R).

    Attributes
    ----------
    tag : str
        Name of the term in files; a potential has at most one term of a tag.
    schema : int
        First schema version of model bundles that supports the term.
    code : int or None
        Number of the term in the packed form of the compiled kernels, see :meth:`pack`; None for a term that
        only plain torch supports.
    r_cut : float
        Cutoff (nm) of the term.
    """

    tag: ClassVar[str]
    schema: ClassVar[int] = 4
    code: ClassVar[int | None] = None
    r_cut: float

    @abstractmethod
    def n_parameters(self, n_types: int) -> int:
        """Return the number of parameters for a number of bead types."""

    @abstractmethod
    def module(self, n_types: int) -> torch.nn.Module:
        """Return the energy as a module that TorchScript compiles.

        Its ``forward(theta, types, i, j, displacement, distance)`` takes the term's own parameters [n_parameters]
        (kJ/mol), the types [N] of the beads, and pairs of beads ``i``, ``j`` [M], each once, with the vectors
        [M, 3] from bead i to bead j and their lengths [M] (nm). The pairs include all pairs inside ``r_cut`` and may
        include others. It returns the energy [] (kJ/mol).
        """

    def check(self, n_types: int) -> None:  # noqa: B027 most terms fit any
        """Raise InputError if the term does not fit a potential of ``n_types`` bead types."""

    def linear_part(self) -> Term:
        """Return the term without U_fixed."""
        return self

    @abstractmethod
    def penalty(self, n_types: int) -> np.ndarray:
        """Return the matrix [P, P] of the quadratic form that regularizes the parameters in a fit.

        It determines the parameters for which there are no data, for example by smoothness.
        """

    def least_deviation(self, deviation: Tensor) -> Tensor:
        """Return the standard deviations [P] of the basis functions, with a lower bound for poorly sampled ones.

        Training scales its steps by their inverse.
        """
        return deviation

    def pair_curves(self, n_types: int) -> list[PairCurve]:
        """Return u(r) for every pair of types between which the term acts as a pair potential.

        The parameters of the curves are counted from the first one of the term.
        """
        return []

    @abstractmethod
    def summary(self) -> dict[str, float]:
        """Return the numbers for the report of a fit, by name; lengths in nm."""

    @abstractmethod
    def openmm_forces(
        self, theta: np.ndarray, types: np.ndarray, n_types: int
    ) -> list[openmm.Force]:
        """Return the term as standard OpenMM forces, for parameters [P] (kJ/mol) and types [N] of all particles."""

    def pack(self) -> tuple[list[int], list[float]]:
        """Return the integers and the numbers from which ``csrc/core/terms`` constructs the term.

        Raises
        ------
        InputError
            The compiled kernels do not support the term in this size.
        """
        raise NotImplementedError(
            f"a term with a code packs itself; {type(self).__name__} does not"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, for JSON."""
        return asdict(cast(Any, self))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Term:
        """Return the term of which :meth:`to_dict` wrote the fields; KeyError if one is missing."""
        return cls(**{field.name: _tuples(data[field.name]) for field in fields(cast(Any, cls))})


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


def check_range(term: str, n_basis: int, r_cut: float, *r_min: float) -> None:
    """Raise InputError if a term has no splines, or if r_min is not below the cutoff (nm)."""
    if n_basis < 1:
        raise InputError(f"{term}.n_basis: found {n_basis}, expected 1 or more")
    if not 0 < r_cut < float("inf"):
        raise InputError(f"{term}.r_cut: found {r_cut} nm, expected more than 0")
    for r in r_min:
        if not 0 <= r < r_cut:
            raise InputError(f"{term}.r_min: found {r} nm, expected 0 to the cutoff of {r_cut} nm")
