"""Pair energy: a cubic B-spline for every pair of bead types, with a fixed repulsive core."""

import math
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import openmm
import torch
from torch import Tensor

from ...errors import InputError
from ..splines import spline_basis, spline_weights, tabulated_spline
from .base import PairCurve, Term, check_range
from .type_pairs import n_type_pairs, type_pairs


@dataclass(frozen=True)
class PairSpec(Term):
    """Pair energy Σ_{i<j} u_ab(r_ij), with u_ab(r) = Σ_k c_abk B_k(r) + κ_ab/6 (r_min − r)³ below r_min.

    Its parameters are the coefficients c [n_type_pairs, n_basis] (kJ/mol).

    Attributes
    ----------
    r_min : tuple of float
        First knot of each spline (nm), in row-major upper-triangle order of the type pairs.
        Below it the spline continues linearly and the repulsive core acts.
    r_cut : float
        Cutoff (nm), where energy, force and second derivative are zero.
    n_basis : int
        Number of cubic B-splines per pair of types.
    core : tuple of float
        Stiffness κ of the core (kJ/mol/nm³), one per pair of types.
    """

    r_min: tuple[float, ...]
    r_cut: float
    n_basis: int
    core: tuple[float, ...]

    tag = "pair"
    schema = 1
    code = 1

    def __post_init__(self) -> None:
        check_range("pair", self.n_basis, self.r_cut, *self.r_min)
        for stiffness in self.core:
            if not 0 <= stiffness < math.inf:
                raise InputError(f"pair.core: found {stiffness}, expected 0 or more")

    def check(self, n_types: int) -> None:
        for name in ("r_min", "core"):
            found, expected = len(getattr(self, name)), n_type_pairs(n_types)
            if found != expected:
                raise InputError(
                    f"pair.{name}: found {found} numbers for {n_types} bead types, expected "
                    f"{expected}, one for each pair of types"
                )

    def n_parameters(self, n_types: int) -> int:
        return n_type_pairs(n_types) * self.n_basis

    def module(self, n_types: int) -> "PairSplines":
        return PairSplines(self, n_types)

    def linear_part(self) -> "PairSpec":
        return replace(self, core=(0.0,) * len(self.core))

    def penalty(self, n_types: int) -> np.ndarray:
        """Return the matrix of the squared second differences of the coefficients, plus 0.001 times their squares."""
        n = self.n_basis
        difference = np.diff(np.eye(n + 3), 2, axis=0)[:, :n]
        block = difference.T @ difference + 1e-3 * np.eye(n)
        return np.kron(np.eye(n_type_pairs(n_types)), block)

    def pair_curves(self, n_types: int) -> list[PairCurve]:
        n = self.n_basis
        curves: list[PairCurve] = []
        for a in range(n_types):
            for b in range(a, n_types):
                p = len(curves)
                r_min, core = self.r_min[p], self.core[p]
                curves.append(
                    PairCurve(
                        (a, b),
                        r_min,
                        self.r_cut,
                        np.arange(p * n, (p + 1) * n),
                        partial(spline_basis, r_min=r_min, r_max=self.r_cut, n_basis=n),
                        partial(_core_energy, r_min=r_min, core=core),
                    )
                )
        return curves

    def summary(self) -> dict[str, float]:
        return {"cutoff": self.r_cut}

    def pack(self) -> tuple[list[int], list[float]]:
        return [self.n_basis], [self.r_cut, *self.r_min, *self.core]

    def openmm_forces(
        self, theta: np.ndarray, types: np.ndarray, n_types: int
    ) -> list[openmm.Force]:
        """Return a CustomNonbondedForce."""
        coefficients = theta.reshape(-1, self.n_basis)
        n, terms, tables = n_types, [], {}
        for p, (r_min, core) in enumerate(zip(self.r_min, self.core)):
            tables[f"u{p}"], slope = tabulated_spline(coefficients[p], r_min, self.r_cut)
            term = (
                f"u{p}(max(r,{r_min!r})) + ({slope!r})*min(r-{r_min!r},0)"
                f" + ({core / 6!r})*max({r_min!r}-r,0)^3"
            )
            terms.append(term if n == 1 else f"delta(pair-{p})*({term})")
        energy = " + ".join(terms)
        if n > 1:
            energy += f"; pair = low*{n} - low*(low-1)/2 + high - low; low = min(type1,type2); high = max(type1,type2)"
        force = openmm.CustomNonbondedForce(energy)
        for name, table in tables.items():
            force.addTabulatedFunction(name, table)
        if n > 1:
            force.addPerParticleParameter("type")
        for bead_type in types:
            force.addParticle([float(bead_type)] if n > 1 else [])
        force.setNonbondedMethod(openmm.CustomNonbondedForce.CutoffPeriodic)
        force.setCutoffDistance(self.r_cut)
        force.setName("CGAdvPair")
        return [force]


def _core_energy(r: Tensor, r_min: float, core: float) -> Tensor:
    overlap = torch.clamp(r_min - r, min=0.0)
    return core / 6.0 * overlap * overlap * overlap


class PairSplines(torch.nn.Module):
    """Compute the pair energy in plain torch operators, see :class:`PairSpec` and :meth:`Term.module`."""

    r_min: Tensor
    core: Tensor

    def __init__(self, term: PairSpec, n_types: int) -> None:
        super().__init__()
        self.r_cut: float = float(term.r_cut)
        self.n_basis: int = term.n_basis
        self.n_types: int = n_types
        self.register_buffer("r_min", torch.tensor(term.r_min, dtype=torch.float64))
        self.register_buffer("core", torch.tensor(term.core, dtype=torch.float64))

    def forward(
        self,
        theta: Tensor,
        types: Tensor,
        i: Tensor,
        j: Tensor,
        displacement: Tensor,
        distance: Tensor,
    ) -> Tensor:
        near = distance < self.r_cut
        i, j, r = i[near], j[near], distance[near]
        pair = type_pairs(types[i], types[j], self.n_types)
        r_min = self.r_min[pair]
        first, weights = spline_weights(r, r_min, self.r_cut, self.n_basis)
        padded = torch.nn.functional.pad(theta.reshape(-1, self.n_basis), [0, 3]).reshape(-1)
        index = (pair * (self.n_basis + 3) + first)[:, None] + torch.arange(4, device=first.device)
        overlap = torch.clamp(r_min - r, min=0.0)
        energy = (weights * padded[index]).sum(-1)
        return (energy + self.core[pair] / 6.0 * overlap * overlap * overlap).sum()
