"""Models without adversarial training, to start from and to compare with."""

from .exponentials import fit_exponentials
from .fit import InitialFit, fit_initial
from .pair_residuals import PairResiduals
from .relative_entropy import RelativeEntropy

__all__ = ["InitialFit", "PairResiduals", "RelativeEntropy", "fit_exponentials", "fit_initial"]
