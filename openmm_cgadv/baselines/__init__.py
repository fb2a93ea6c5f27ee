"""Models without adversarial training, to start from and to compare with."""

from .fit import InitialFit, fit_initial
from .relative_entropy import RelativeEntropy

__all__ = ["InitialFit", "RelativeEntropy", "fit_initial"]
