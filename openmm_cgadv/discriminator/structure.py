"""Tells configurations apart by how the neighbours of a bead are arranged, as the energy sees them."""

from __future__ import annotations

import torch
from torch import Tensor

from .dynamics import perceptron


class StructureDiscriminator(torch.nn.Module):
    """One logit for every bead of a configuration.

    It is given what each bead has of the functions that make the energy
    (:func:`~openmm_cgadv.potentials.bead_basis`): sums over its neighbours, and correlations of their densities in
    all orders, which are invariant. A linear map sees their means, on which the ensemble of a potential depends
    alone; a perceptron beside it sees all else of their distribution.

    Parameters
    ----------
    whitening : Tensor [P, P]
        Columns are combinations of the functions that are uncorrelated in the reference.
    hidden : int
        Width of the perceptron.
    """

    def __init__(self, whitening: Tensor, hidden: int = 64):
        super().__init__()
        n_functions = len(whitening)
        self.register_buffer("mean", torch.zeros(n_functions, dtype=torch.float64))
        self.register_buffer("whitening", whitening.clone())
        self.means = torch.nn.Linear(n_functions, 1)
        self.rest = perceptron(n_functions, hidden, 1)
        # Nothing is known at first.
        for last in (self.means, self.rest[-1]):
            torch.nn.init.zeros_(last.weight)
            torch.nn.init.zeros_(last.bias)

    def standardize(self, rows: Tensor) -> Tensor:
        """Set origin and units of the inputs from those of all-atom beads [M, P]; the units [P]."""
        self.mean.copy_(rows.mean(0))
        units = (rows @ self.whitening).std(0).clamp_min(1e-12)
        self.whitening /= units
        return units

    def inputs(self, rows: Tensor) -> Tensor:
        """Standardized inputs [M, P], in single precision, of rows [M, P]."""
        return ((rows - self.mean) @ self.whitening).to(torch.get_default_dtype())

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits [M], positive for all-atom, of standardized inputs [M, P]."""
        return (self.means(inputs) + self.rest(inputs))[:, 0]
