"""Python face of the compiled core: energies, their derivatives and whole rollouts, fused.

Everything here needs the library that ``pip install .`` builds where it finds a C++ compiler.
Without it :func:`available` is False, :func:`why_not` says why, and the plain-torch modules
:mod:`openmm_cgadv.potentials` and :mod:`openmm_cgadv.dynamics` do the same, only slower.
Lengths are in nm, times in ps, energies in kJ/mol, masses in dalton; all tensors are on the CPU.
"""

from .energy import (
    basis,
    basis_forces,
    core_forces,
    energy,
    energy_forces,
    forget_lists,
    hvp,
    virial,
)
from .library import available, compiler, instruction_set, library_path, why_not
from .module import FusedPotential
from .packing import pack
from .rollout import MAX_PAIR_EXTRA, noise, pair_noise, pair_rollout, rollout

__all__ = [
    "MAX_PAIR_EXTRA",
    "FusedPotential",
    "available",
    "basis",
    "basis_forces",
    "compiler",
    "core_forces",
    "energy",
    "energy_forces",
    "forget_lists",
    "hvp",
    "instruction_set",
    "library_path",
    "noise",
    "pack",
    "pair_noise",
    "pair_rollout",
    "rollout",
    "virial",
    "why_not",
]
