"""The shape of a learned potential: bead types and a list of terms, without their parameters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from ..errors import InputError
from .terms import TERMS, PairCurve, Term

Parameters = TypeVar("Parameters", np.ndarray, Tensor)


@dataclass(frozen=True)
class PotentialSpec:
    """Definition of a potential without its parameter vector θ.

    Attributes
    ----------
    type_names : tuple of str
        Names of the bead types.
    terms : tuple of Term
        The terms whose sum is the energy. θ contains the flattened parameters of each, in this order.
    """

    type_names: tuple[str, ...]
    terms: tuple[Term, ...]

    def __post_init__(self) -> None:
        tags = [term.tag for term in self.terms]
        if not tags or len(set(tags)) < len(tags):
            raise InputError(
                f"terms: found {', '.join(tags) or 'none'}, expected one or more, each once"
            )
        for term in self.terms:
            term.check(self.n_types)

    @property
    def n_types(self) -> int:
        """Number of bead types."""
        return len(self.type_names)

    @property
    def n_type_pairs(self) -> int:
        """Number of unordered pairs of bead types."""
        return self.n_types * (self.n_types + 1) // 2

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Range of the parameters of each term in θ, by tag."""
        found, start = {}, 0
        for term in self.terms:
            stop = start + term.n_parameters(self.n_types)
            found[term.tag] = slice(start, stop)
            start = stop
        return found

    @cached_property
    def n_parameters(self) -> int:
        """Number P of parameters."""
        return sum(term.n_parameters(self.n_types) for term in self.terms)

    @property
    def r_cut(self) -> float:
        """Longest cutoff of the terms (nm)."""
        return max(term.r_cut for term in self.terms)

    @property
    def schema(self) -> int:
        """First schema version of model bundles that supports every term."""
        return max(term.schema for term in self.terms)

    @property
    def compiled(self) -> bool:
        """Whether the compiled kernels support every term; otherwise plain torch evaluates the potential."""
        return all(term.code is not None for term in self.terms)

    def term(self, tag: str) -> Term:
        """Return the term of a tag; KeyError if there is none."""
        return {term.tag: term for term in self.terms}[tag]

    def split(self, theta: Parameters) -> Iterator[tuple[Term, Parameters]]:
        """Iterate over the terms with their parameters, views of θ [P]."""
        for term in self.terms:
            yield term, theta[self.slices[term.tag]]

    def type_pair(self, a: int, b: int) -> int:
        """Return the index of the unordered pair of types ``a``, ``b``."""
        a, b = min(a, b), max(a, b)
        return a * self.n_types - a * (a - 1) // 2 + (b - a)

    def pair_curves(self) -> list[PairCurve]:
        """Return u(r) of two isolated beads for every pair of types between which a term acts, summed over terms."""
        found: dict[tuple[int, int], list[PairCurve]] = {}
        for term in self.terms:
            for curve in term.pair_curves(self.n_types):
                shifted = curve.shifted(self.slices[term.tag].start)
                found.setdefault(curve.types, []).append(shifted)
        return [PairCurve.sum(curves) for curves in found.values()]

    def penalty(self) -> np.ndarray:
        """Return the matrix [P, P] of the regularization of a fit, see :meth:`Term.penalty`."""
        penalty = np.zeros([self.n_parameters, self.n_parameters])
        for term in self.terms:
            own = self.slices[term.tag]
            penalty[own, own] = term.penalty(self.n_types)
        return penalty

    def to_dict(self) -> dict[str, Any]:
        """Return the type names and the terms by their tags, for JSON.

        The keys ``pair`` and ``three_body`` are those of older versions, which can read them.
        """
        return {"type_names": self.type_names} | {term.tag: term.to_dict() for term in self.terms}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> PotentialSpec:
        """Return the potential that :meth:`to_dict` described.

        Raises
        ------
        InputError
            This version does not have one of the terms.
        KeyError
            A field is missing.
        """
        terms = []
        for tag, fields in data.items():
            if tag == "type_names" or fields is None:
                continue
            if tag not in TERMS:
                raise InputError(
                    f"potential: found the term {tag!r}, expected {' or '.join(TERMS)}; install a newer openmm_cgadv"
                )
            terms.append(TERMS[tag].from_dict(fields))
        return cls(tuple(data["type_names"]), tuple(terms))
