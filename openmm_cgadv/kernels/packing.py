"""The form in which potentials are handed to the compiled core."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import InputError

if TYPE_CHECKING:
    from ..potentials import PotentialSpec, Term

FORMAT = -2
"""First integer of the packed form. Files of before terms had an interface begin with the number of bead types."""


def pack(spec: PotentialSpec) -> tuple[Tensor, Tensor]:
    """Return a potential as two tensors, the form in which the operators take it.

    Returns
    -------
    ispec : Tensor int64
        ``FORMAT``, the number of bead types, the number of terms; then for every term its code, how many integers
        and numbers it has, and its integers (:meth:`Term.pack`).
    fspec : Tensor float64
        The numbers of all terms.

    Raises
    ------
    InputError
        If the compiled core does not have one of the terms, or not in its size.
    """
    ispec, fspec = packed(spec)
    return ispec.clone(), fspec.clone()


@lru_cache(maxsize=64)
def packed(spec: PotentialSpec) -> tuple[Tensor, Tensor]:
    """Return what :func:`pack` returns, to be read only."""
    return _pack(spec.n_types, spec.terms)


@lru_cache(maxsize=64)
def packed_linear(spec: PotentialSpec) -> tuple[Tensor, Tensor]:
    """Return the packed potential without the energy that depends on no parameter, to be read only."""
    return _pack(spec.n_types, tuple(term.linear_part() for term in spec.terms))


def _pack(n_types: int, terms: tuple[Term, ...]) -> tuple[Tensor, Tensor]:
    integers, numbers = [FORMAT, n_types, len(terms)], []
    for term in terms:
        if term.code is None:
            raise InputError(
                f"potential: found the term {term.tag!r}, which the compiled kernels do not have; "
                "expected plain torch operators (plain=True) or the backend pythonforce"
            )
        own_integers, own_numbers = term.pack()
        integers += [term.code, len(own_integers), len(own_numbers), *own_integers]
        numbers += own_numbers
    return torch.tensor(integers, dtype=torch.int64), torch.tensor(numbers, dtype=torch.float64)
