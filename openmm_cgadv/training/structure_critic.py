"""The critic of the arrangement of beads, and where it sends the potential."""

from __future__ import annotations

import torch
from torch import Tensor

from ..baselines import RelativeEntropy
from ..baselines.ranges import sample_frames
from ..discriminator import StructureDiscriminator
from ..trajectory import BeadTrajectory
from .game import Critic, one_thread

RATE = 1e-2

PENALTY = 0.1
"""Weight of the gradient penalties."""

BATCH = 64
"""Real and as many generated configurations a critic step."""

FRAMES = 1000
"""Of the reference, that the critic is shown."""


class StructureCritic:
    r"""A critic of configurations, which the potential follows.

    A critic that has learned all there is says of a configuration the logarithm of how much more often it occurs in the
    reference, and an energy lower by kT times that makes it as frequent. Where the energy is linear in its parameters and
    the critic in the same functions (:class:`~openmm_cgadv.discriminator.StructureDiscriminator`), that is another energy of the
    same form, so the critic's slope is what the parameters lack. Close to the end it is also the gradient of the
    relative entropy, the generator's step of the game of the Kullback–Leibler divergence (Nowozin, Cseke and Tomioka 2016,
    arXiv:1606.00709). No trajectory need be differentiated for it, as the ensemble of a potential depends neither on friction
    nor on the past.

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
        frames = sample_frames(trajectory, FRAMES, stop=stop)
        self.reference = entropy.coordinates(
            torch.from_numpy(trajectory.positions(frames)), torch.from_numpy(trajectory.boxes(frames))
        ).float()
        module = StructureDiscriminator(self.reference.shape[1])
        self.critic = Critic(module, RATE, batch=BATCH, penalty=PENALTY)

    def judge(self, coordinates: Tensor, random: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Let the critic learn; where the potential should go.

        Parameters
        ----------
        coordinates : Tensor [F, P]
            Of generated configurations, see :meth:`RelativeEntropy.coordinates`.
        random : torch.Generator

        Returns
        -------
        Tensor [P]
            Direction along which :meth:`RelativeEntropy.descend` lowers the relative entropy, as the critic has it.
        dict
            The critic's loss and margin.
        """

        def real():
            return (self.reference[torch.randint(len(self.reference), [BATCH], generator=random)],)

        fake = coordinates.float()
        with one_thread():
            loss, _ = self.critic.learn(real, (fake,), random)
            margin = self.margin(fake)
        return self.gradient(margin), {"critic_loss": loss, "margin": margin}

    @torch.no_grad()
    def margin(self, inputs: Tensor) -> float:
        """Mean difference of the logits of the reference and of generated inputs [F, P]."""
        module = self.critic.module
        return (module(self.reference).mean() - module(inputs).mean()).item()

    def gradient(self, margin: float) -> Tensor:
        """What the critic says of the relative entropy's gradient [P].

        The slope, of standardized inputs, is the distance of their means, and the margin its square, of a critic that is right. One that
        tells all configurations apart need not be: its logits are then as large as it takes, and the slope
        is less than the margin says.
        """
        slope = self.critic.module.slope.double()
        return slope * max(1.0, margin / float(slope.square().sum().clamp_min(1e-12)))

    def state_dict(self) -> dict:
        return self.critic.state_dict()

    def load_state_dict(self, saved: dict) -> None:
        self.critic.load_state_dict(saved)
