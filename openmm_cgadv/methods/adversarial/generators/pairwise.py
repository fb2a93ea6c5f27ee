"""Training of pairwise friction with memory."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .... import config
from ....data.trajectory import BeadTrajectory
from ....dynamics import Neighborhood, PairFriction
from ....fit import InitialFit
from ....fit.ranges import friction_range, sample_frames
from ....friction import PairResiduals
from ..time_scales import TimeScales
from .base import LEARNING_RATES, Generator

NEIGHBORHOOD_FRAMES = 60
"""Frames of the reference in which the neighbours of a bead are counted."""


class PairwiseGenerator(Generator, PairFriction):
    """Pairwise friction with memory.

    Parameters
    ----------
    neighborhood : Neighborhood
        Neighbours of a bead in the reference.
    ceiling : float
        Largest decay rate above its floor (1/ps).
    others
        Those of :class:`~openmm_cgadv.dynamics.PairFriction`.
    """

    linear_response = False

    def __init__(
        self,
        neighborhood: Neighborhood,
        *arguments: Any,
        ceiling: float = math.inf,
        **options: Any,
    ):
        options["neighborhood"] = neighborhood
        super().__init__(*arguments, **options)
        self.ceiling = float(ceiling)
        self.log_sizes = torch.nn.Parameter(torch.zeros(self.shapes.shape[:2], dtype=torch.float64))

    @classmethod
    def initial(
        cls,
        trajectory: BeadTrajectory,
        fit: InitialFit,
        settings: config.Dynamics,
        scales: TimeScales,
    ) -> PairwiseGenerator:
        """Return the generator that training starts from; see :meth:`Generator.initial`.

        Its size is that of the residual forces, too, if no initial friction is given.
        """
        n_types = len(trajectory.type_names)
        r_min, r_cut = friction_range(trajectory, settings.friction_cutoff_nm)
        frames = sample_frames(trajectory, NEIGHBORHOOD_FRAMES)
        neighborhood = Neighborhood.measure(
            torch.from_numpy(trajectory.positions(frames)),
            torch.from_numpy(trajectory.boxes(frames)),
            torch.from_numpy(trajectory.types),
            torch.from_numpy(trajectory.masses),
            r_cut,
            n_types,
        )
        generator = cls(
            neighborhood,
            n_types,
            settings.memory,
            1.0,
            r_min,
            r_cut,
            floor=scales.floor_per_ps,
            rates=scales.rates_per_ps,
            ceiling=1 / trajectory.frame_interval,
            self_friction=settings.self_friction_per_ps or 0.0,
        )
        if fit.residuals is not None and scales.residuals_resolved:
            generator.fit_residuals(fit.residuals)
        if not scales.residuals_resolved or settings.initial_friction_per_ps is not None:
            generator.set_friction(sum(scales.friction_per_ps) / n_types)
        else:
            least = sum(scales.least_friction_per_ps) / n_types
            own = generator.self_friction
            if (generator.bead_friction() - own).mean().item() < least < math.inf:
                generator.set_friction(least + own.mean().item())
        return generator

    @property
    def splines(self) -> Tensor:
        """Coefficients of the functions, each times its amplitude."""
        return self.log_sizes.exp()[:, :, None, None] * super().splines

    @torch.no_grad()
    def set_friction(self, friction: float) -> None:
        """Scale all functions so that the mean friction of a bead is ``friction`` (1/ps).

        At least a tenth of it acts between pairs, whatever the single-particle friction.
        """
        own = self.self_friction.mean()
        wanted = (friction - own).clamp_min(0.1 * friction)
        self.unit *= (wanted / (self.bead_friction().mean() - own)).sqrt()

    @torch.no_grad()
    def fit_residuals(self, residuals: PairResiduals) -> None:
        """Fit the functions to the correlation of the residual forces.

        Training changes coefficients relative to their size: the motion of single beads does not determine how friction
        depends on distance and direction, so training keeps what the forces determine.
        """
        rates = self.rates()
        splines = torch.from_numpy(
            residuals.splines(rates.numpy(), self.r_min.numpy(), self.r_cut, self.shapes.shape[-1])
        )
        scale = torch.cat([rates.new_ones(len(rates), 1), rates.sqrt()], 1)[:, :, None, None]
        coefficients = (splines / scale).abs()
        least = (
            LEARNING_RATES.smallest_coefficient
            * coefficients.square().mean((1, 2, 3), keepdim=True).sqrt()
        )
        self.unit.copy_(scale * torch.maximum(coefficients, least))
        self.shapes.copy_(splines / self.unit)

    @property
    def slowest(self) -> Tensor:
        """Logarithm of the amplitude of the slowest auxiliary variable [n_type_pairs]."""
        return self.log_sizes.detach()[:, 1]

    def mask_gradients(self) -> None:
        """Leave the amplitude of the slowest auxiliary variable to :meth:`restrain`."""
        if self.log_sizes.grad is not None:
            self.log_sizes.grad[:, 1:2] = 0.0

    def warnings(self, fewest_neighbors: float) -> list[str]:
        assert self.neighborhood is not None
        near = self.neighborhood.numbers.sum((1, 2)).min().item()
        if near >= fewest_neighbors:
            return []
        return [
            f"The cutoff of the pairwise friction is {self.r_cut:g} nm, within which a bead has {near:.2g} neighbours. "
            f"With fewer than {fewest_neighbors:g} neighbours, pairwise friction holds beads together and hardly slows "
            "them; leave out dynamics.friction_cutoff_nm."
        ]

    @torch.no_grad()
    def restrain(self, excess: Tensor) -> None:
        """Limit the decay rates, and adjust the slowest auxiliary variable to the late-time MSD increment.

        The increment depends on its amplitude more than on any other parameter, and determines it better than the
        discriminators, because adjoint damping removes most of their gradient at late times. The rate of the adjustment
        does not decay with the learning rates, so it compensates for the effect of the other parameters.

        Parameters
        ----------
        excess : Tensor [n_types]
            Late-time MSD increment over that of the reference, minus one.
        """
        if self.n_auxiliary:
            first, second = torch.triu_indices(self.n_types, self.n_types)
            self.slowest.add_(
                0.5
                * LEARNING_RATES.slowest_amplitude
                * (excess[first] + excess[second]).clamp(-1, 1)
            )
            self.log_rates.clamp_(max=math.log(self.ceiling))

    def groups(self) -> list[dict[str, Any]]:
        together = [self.log_sizes, self.log_rates, self.rotations]
        return [
            {"params": together, "rate": LEARNING_RATES.logarithms, "whitened": True},
            {"params": [self.shapes], "rate": LEARNING_RATES.functions},
        ]
