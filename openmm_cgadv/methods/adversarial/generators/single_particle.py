"""Training of single-particle friction, with memory or without."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .... import config
from ....data.trajectory import BeadTrajectory
from ....dynamics import (
    GeneralizedLangevin,
    GeneralizedLangevinParameters,
    LangevinParameters,
)
from ....fit import InitialFit
from ....friction import PairResiduals, fit_exponentials
from ..time_scales import TimeScales
from .base import LEARNING_RATES, Generator


class SingleParticleGenerator(Generator, GeneralizedLangevin):
    """Langevin dynamics, or generalized Langevin dynamics where there are auxiliary variables."""

    @classmethod
    def initial(
        cls,
        trajectory: BeadTrajectory,
        fit: InitialFit,
        settings: config.Dynamics,
        scales: TimeScales,
    ) -> SingleParticleGenerator:
        generator = cls(
            len(trajectory.type_names),
            settings.memory or 0,
            scales.friction_per_ps,
            floor=scales.floor_per_ps,
            rates=scales.rates_per_ps,
        )
        if fit.residuals is not None and scales.residuals_resolved and settings.memory:
            generator.fit_residuals(fit.residuals)
        return generator

    @torch.no_grad()
    def limit_friction(self, bead: int, largest: float) -> None:
        """Scale the memory kernel of one bead type down to an integrated friction of at most ``largest`` (1/ps)."""
        change = min(0.0, math.log(largest / self.bead_friction()[bead].item()))
        self.log_friction[bead] += change
        self.log_couplings[bead] += 0.5 * change

    @torch.no_grad()
    def set_friction(self, friction: Tensor) -> None:
        """Scale the memory so that its integral is ``friction`` [n_types] (1/ps)."""
        change = (friction / self.bead_friction()).log()
        self.log_friction.add_(change)
        self.log_couplings.add_(0.5 * change[:, None])

    @torch.no_grad()
    def fit_residuals(self, residuals: PairResiduals) -> None:
        """Fit the memory kernel to the correlation of the residual forces, without changing its integral."""
        friction, fastest = self.bead_friction(), self.rates().max().item()
        for bead, own in enumerate(residuals.own):
            instant, rates, weights = fit_exponentials(
                residuals.times,
                own,
                self.n_auxiliary,
                LEARNING_RATES.slowest_rate * self.floor,
                fastest,
            )
            if not weights.sum() > 0:
                continue
            self.log_friction[bead] = math.log(instant)
            self.log_rates[bead] = torch.from_numpy(rates - self.floor).log()
            self.log_couplings[bead] = 0.5 * torch.from_numpy(weights).log()
        self.set_friction(friction)

    def export(self) -> GeneralizedLangevinParameters:
        """Return the present parameters; those of Langevin dynamics if there are no auxiliary variables."""
        parameters = GeneralizedLangevinParameters if self.n_auxiliary else LangevinParameters
        return parameters(self.drift().detach().numpy())

    def groups(self) -> list[dict[str, Any]]:
        rate = LEARNING_RATES.logarithms
        return [{"params": list(self.parameters()), "rate": rate, "whitened": True}]
