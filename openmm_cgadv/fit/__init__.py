"""Fits of a potential to a reference without adversarial training."""

from .initial import InitialFit, fit_initial
from .relative_entropy import RelativeEntropy

__all__ = ["InitialFit", "RelativeEntropy", "fit_initial"]
