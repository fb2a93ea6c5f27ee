"""The critic of the arrangement of beads, and where it sends the potential."""

from __future__ import annotations

import torch
from torch import Tensor

from ..baselines import RelativeEntropy
from ..baselines.ranges import sample_frames
from ..discriminator import StructureDiscriminator
from ..potentials import bead_basis
from ..trajectory import BeadTrajectory
from .game import Critic, one_thread

RATE = 1e-3

PENALTY = 0.1
"""Weight of the gradient penalties. The arrangements of beads in two liquids that are nearly the same overlap far more
than they differ, and a penalty of 1 leaves little of what the critic could say."""

BATCH = 4096
"""Real and as many generated beads a critic step."""

MOST_FRAMES, MOST_BEADS = 1000, 400_000
"""Of the reference, that the critic is shown."""


class StructureCritic:
    r"""A critic of single beads' neighbourhoods, which the potential follows.

    A critic that has learned all there is says of a neighbourhood the logarithm of how much more often it occurs in the
    reference. So averages over the reference are those over generated beads with weights exp(logit), and

        kT dS/dφ = ⟨B⟩_AA − ⟨B⟩ = ⟨Σ_i (exp(logit_i)/⟨exp(logit)⟩ − 1) b_i⟩,

    b_i what bead i has of the basis functions, is what the critic alone says about the relative entropy: the generator of
    an adversarial game for the Kullback–Leibler divergence (Nowozin, Cseke and Tomioka 2016, arXiv:1606.00709). No trajectory need be
    differentiated for it, as the ensemble of a potential depends neither on friction nor on the past.

    Parameters
    ----------
    trajectory : BeadTrajectory
        The all-atom reference.
    entropy : RelativeEntropy
        Whose coordinates of the potential are used.
    stop : int
        Frame of the reference before which those are that the critic is shown.
    """

    def __init__(self, trajectory: BeadTrajectory, entropy: RelativeEntropy, stop: int):
        self.types, self.spec = torch.from_numpy(trajectory.types), entropy.spec
        number = max(1, min(MOST_FRAMES, MOST_BEADS // trajectory.n_beads))
        frames = sample_frames(trajectory, number, stop=stop)
        rows = self._rows(torch.from_numpy(trajectory.positions(frames)), torch.from_numpy(trajectory.boxes(frames)))
        module = StructureDiscriminator(entropy.whitening)
        # Of the standardized inputs, in those of the potential's coordinates.
        self.units = module.standardize(rows)
        self.reference = module.inputs(rows)
        self.critic = Critic(module, RATE, batch=BATCH, penalty=PENALTY)
        covariance = torch.cov(self.reference.T).double() * torch.outer(self.units, self.units)
        self.metric = trajectory.n_beads * covariance + torch.eye(len(covariance), dtype=torch.float64)

    def _rows(self, positions: Tensor, boxes: Tensor) -> Tensor:
        """What all beads of configurations [F, N, 3] have of the basis functions [F · N, P]."""
        return torch.cat([bead_basis(x, box, self.types, self.spec) for x, box in zip(positions, boxes)])

    def judge(self, positions: Tensor, boxes: Tensor, random: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Let the critic learn; where the potential should go.

        Parameters
        ----------
        positions : Tensor [F, N, 3]
            Generated configurations (nm).
        boxes : Tensor [F, 3, 3]
            (nm)
        random : torch.Generator

        Returns
        -------
        Tensor [P]
            Direction along which :meth:`RelativeEntropy.descend` lowers the relative entropy, as the critic has it.
        dict
            The critic's loss and margin.
        """
        module = self.critic.module
        fake = module.inputs(self._rows(positions, boxes))

        def real():
            return (self.reference[torch.randint(len(self.reference), [BATCH], generator=random)],)

        # What a step is shown is also all that is worth keeping.
        shown = fake[torch.randperm(len(fake), generator=random)[:BATCH]]
        with one_thread():
            loss, margin = self.critic.learn(real, (shown,), random)
            gradient = self.damped(self.gradient(fake))
        return gradient, {"critic_loss": loss, "margin": margin}

    @torch.no_grad()
    def gradient(self, inputs: Tensor) -> Tensor:
        """What the critic says of the relative entropy [P], from standardized inputs [F · N, P] of generated beads."""
        weights = torch.softmax(self.critic.module(inputs), 0) - 1 / len(inputs)
        return len(self.types) * self.units * (weights @ inputs)

    def damped(self, gradient: Tensor) -> Tensor:
        """A gradient [P] that is smaller in directions in which beads differ far more than configurations do.

        Where beads make up for each other, as in how many neighbours they have at long distances, what is a large deviation
        of a configuration is too small for a critic of beads to see at once. Followed at full length, it would
        come too late and be overrun, time and again.
        """
        return torch.linalg.solve(self.metric, gradient)

    def state_dict(self) -> dict:
        return self.critic.state_dict()

    def load_state_dict(self, saved: dict) -> None:
        self.critic.load_state_dict(saved)
