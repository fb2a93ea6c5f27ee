"""Hyperparameters of the adversarial training that differ between equations of motion."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EquationSettings:
    """Hyperparameters of one equation of motion.

    Attributes
    ----------
    window : float
        End of the window, in units of the lag from which on motion is diffusive, if there is a memory kernel.
    factors : int
        Factors of two between frame interval and window for each auxiliary variable after the first.
    floor : float
        Smallest decay rate, in units of 1/window.
    final_fit_rollouts : int
        Rollouts of the final fit of the memory kernel, for each iteration of the decay. Those of pairwise friction are
        shorter, so there are more of them.
    """

    window: float = 1.5
    factors: int = 2
    floor: float = 2.0
    final_fit_rollouts: int = 1


EQUATIONS: dict[str, EquationSettings] = {
    "langevin": EquationSettings(),
    "generalized_langevin": EquationSettings(),
    "pair": EquationSettings(window=3.0, factors=3, floor=4.0, final_fit_rollouts=2),
}
"""The hyperparameters of each equation of motion by its name (:data:`openmm_cgadv.dynamics.FRICTIONS`)."""
