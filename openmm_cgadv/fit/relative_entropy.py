"""Relative entropy: the potential whose ensemble reproduces the reference averages of all basis functions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.trajectory import BeadTrajectory
from ..potentials import PotentialSpec
from .basis import basis
from .ranges import sample_frames


@dataclass(frozen=True)
class RelativeEntropySettings:
    """Settings of the whitening and of the steps."""

    n_frames: int = 1000
    """Largest number of reference frames to average over."""
    floor: float = 1e-2
    """Added to the eigenvalues of the correlation matrix: damps directions with smaller ones."""
    rate: float = 0.1
    """Step as a fraction of the distance to the minimum of the quadratic approximation."""
    largest_gradient: float = 3.0
    """Largest norm of the gradient of a step (standard deviations of the reference). The quadratic
    approximation fails far from the minimum; a step stays below 0.3 kT."""


class RelativeEntropy:
    r"""Compute the gradient of the relative entropy in whitened coordinates, which need only one step size.

    ``dS/dθ = β (⟨B⟩_AA − ⟨B⟩_CG)`` (Shell 2008, doi:10.1063/1.2992060). In whitened coordinates,
    θ = W φ with W = Cov(B)^{−1/2}, a unit step in any direction changes the energy by one standard deviation
    of the reference.

    Parameters
    ----------
    trajectory : BeadTrajectory
        The all-atom reference.
    spec : PotentialSpec
    stop : int, optional
        Only frames before this one are used.
    settings : RelativeEntropySettings

    Attributes
    ----------
    mean : Tensor [P]
        Reference average of the basis functions.
    whitening : Tensor [P, P]
        W.
    """

    def __init__(
        self,
        trajectory: BeadTrajectory,
        spec: PotentialSpec,
        stop: int | None = None,
        settings: RelativeEntropySettings = RelativeEntropySettings(),
    ) -> None:
        self.spec = spec
        self.settings = settings
        self.types = torch.from_numpy(trajectory.types)
        frames = sample_frames(trajectory, settings.n_frames, stop=stop)
        rows = basis(
            torch.from_numpy(trajectory.positions(frames)),
            torch.from_numpy(trajectory.boxes(frames)),
            self.types,
            spec,
        )
        self.mean = rows.mean(0)
        deviation = rows.std(0).clamp_min(1e-12)
        deviation = torch.cat([term.least_deviation(part) for term, part in spec.split(deviation)])
        correlation = torch.corrcoef((rows / deviation).T).nan_to_num()
        values, vectors = torch.linalg.eigh(correlation)
        self.whitening = (
            (vectors / (values.clamp_min(0) + settings.floor).sqrt())
            @ vectors.T
            / deviation[:, None]
        )

    def theta(self, phi: Tensor) -> Tensor:
        """Return the parameters θ = W φ [P] (kJ/mol), differentiable."""
        return self.whitening @ phi

    def phi(self, theta: Tensor) -> Tensor:
        """Return the whitened coordinates φ [P] of parameters θ [P]."""
        return torch.linalg.solve(self.whitening, theta)

    def coordinates(self, positions: Tensor, boxes: Tensor) -> Tensor:
        """Return whitened basis functions [F, P] of configurations [F, N, 3], relative to the reference mean.

        Their mean over the ensemble of the model is minus the gradient, ``−kT dS/dφ`` [P].
        """
        return (basis(positions, boxes, self.types, self.spec) - self.mean) @ self.whitening

    @torch.no_grad()
    def descend(self, phi: Tensor, gradient: Tensor, kT: float, rate: float = 1.0) -> None:
        """Step along the natural gradient, in place.

        The Hessian of the relative entropy is β² times the covariance of the basis functions, so that of ``kT S`` in
        whitened coordinates is β: ``φ ← φ − η kT g`` covers the same fraction η of the distance in all directions. With
        steps of constant length, the number of steps would grow with the distance.

        Parameters
        ----------
        phi : Tensor [P]
            Whitened coordinates (kJ/mol).
        gradient : Tensor [P]
            ``kT dS/dφ``, see :meth:`coordinates`.
        kT : float
            (kJ/mol)
        rate : float
            Factor of the step.
        """
        bounded = min(1.0, self.settings.largest_gradient / float(gradient.norm().clamp_min(1e-12)))
        phi -= rate * self.settings.rate * kT * bounded * gradient
