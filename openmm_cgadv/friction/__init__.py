"""Estimators of friction and memory kernels from a reference, without simulation."""

from .exponentials import fit_exponentials
from .pairwise_residual_forces import PairResiduals

__all__ = ["PairResiduals", "fit_exponentials"]
