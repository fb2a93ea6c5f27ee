"""Relative entropy: the potential whose own ensemble has the reference's averages of every basis function."""

from __future__ import annotations

import torch
from torch import Tensor

from ..potentials import PotentialSpec, basis
from ..trajectory import BeadTrajectory
from .ranges import sample_frames

FLOOR = 1e-2
"""Smallest eigenvalue of the correlation matrix that is trusted; below it a direction is damped."""

RARE = 0.01
"""Three-body functions that vary less than this part of the root mean square over all of them are taken to vary that
much. They are those of contacts that hardly occur, such as large beads as near as only small ones come, and a step
by their own deviation would give such a contact, when it occurs, an energy that no core holds against."""

NATURAL_RATE = 0.1
"""Part of the way to the minimum, as its quadratic approximation has it, that a step goes."""

LARGEST_GRADIENT = 3.0
"""Longest gradient that a step follows (standard deviations of the reference). Far from the minimum the approximation
does not hold, and a step stays below 0.3 kT."""


class RelativeEntropy:
    r"""The gradient of the relative entropy, and the coordinates in which one step size serves all parameters.

    ``dS/dθ = β (⟨B⟩_AA − ⟨B⟩_CG)`` (Shell 2008, doi:10.1063/1.2992060). In whitened coordinates,
    θ = W φ with W = Cov(B)^{−1/2}, a unit step in any direction changes the energy by one standard deviation
    of the reference.

    Parameters
    ----------
    trajectory : BeadTrajectory
        The all-atom reference.
    spec : PotentialSpec
    n_frames : int
        Frames to average over.
    stop : int, optional
        The frame before which they are.
    """

    def __init__(
        self, trajectory: BeadTrajectory, spec: PotentialSpec, n_frames: int = 1000, stop: int | None = None
    ):
        self.spec = spec
        self.types = torch.from_numpy(trajectory.types)
        frames = sample_frames(trajectory, n_frames, stop=stop)
        rows = basis(
            torch.from_numpy(trajectory.positions(frames)), torch.from_numpy(trajectory.boxes(frames)), self.types, spec
        )
        self.mean = rows.mean(0)
        deviation = rows.std(0).clamp_min(1e-12)
        three_body = deviation[spec.n_pair_parameters :]
        if len(three_body):
            three_body.clamp_(min=RARE * float(three_body.square().mean().sqrt()))
        correlation = torch.corrcoef((rows / deviation).T).nan_to_num()
        values, vectors = torch.linalg.eigh(correlation)
        self.whitening = (vectors / (values.clamp_min(0) + FLOOR).sqrt()) @ vectors.T / deviation[:, None]

    def theta(self, phi: Tensor) -> Tensor:
        """Parameters θ = W φ [P] (kJ/mol), differentiable."""
        return self.whitening @ phi

    def phi(self, theta: Tensor) -> Tensor:
        """Whitened coordinates of parameters."""
        return torch.linalg.solve(self.whitening, theta)

    def coordinates(self, positions: Tensor, boxes: Tensor) -> Tensor:
        """Whitened basis functions [F, P] of configurations [F, N, 3], from the reference's mean.

        Their mean over the model's own ensemble is minus the gradient, ``−kT dS/dφ`` [P].
        """
        return (basis(positions, boxes, self.types, self.spec) - self.mean) @ self.whitening

    @torch.no_grad()
    def descend(self, phi: Tensor, gradient: Tensor, kT: float, rate: float = 1.0) -> None:
        """Step along the natural gradient, in place.

        The second derivative of the relative entropy is β² times the covariance of the basis functions, so that of
        ``kT S`` in whitened coordinates is β: ``φ ← φ − η kT g`` goes the same part η of the way in all directions, however
        far it is. A step of fixed length would take longer the farther the start.

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
        bounded = min(1.0, LARGEST_GRADIENT / float(gradient.norm().clamp_min(1e-12)))
        phi -= rate * NATURAL_RATE * kT * bounded * gradient
