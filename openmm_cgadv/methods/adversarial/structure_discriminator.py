"""The configurational discriminator, and the gradient that it gives to the potential."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...data.trajectory import BeadTrajectory
from ...fit import RelativeEntropy
from ...fit.ranges import sample_frames
from .discriminators import StructureDiscriminator
from .losses import DiscriminatorSettings, DiscriminatorTrainer, one_thread


@dataclass(frozen=True)
class ConfigurationalSettings:
    """Hyperparameters of the configurational discriminator.

    Attributes
    ----------
    training : DiscriminatorSettings
        The learning rate is larger and the penalty smaller than for windows, because the discriminator is linear.
    frames : int
        Frames of the reference that it is trained with.
    """

    training: DiscriminatorSettings = DiscriminatorSettings(
        learning_rate=1e-2, penalty=0.1, batch=64
    )
    frames: int = 1000


class ConfigurationalDiscriminator:
    r"""Train a discriminator of configurations, and derive the potential's gradient from it.

    The logit of an optimal discriminator is the logarithm of the ratio of the two densities, so adding −kT times the
    logit to the energy makes the densities equal. The energy is linear in its parameters and the discriminator is
    linear in the same basis functions (:class:`~openmm_cgadv.methods.adversarial.discriminators.StructureDiscriminator`),
    so this change is one of the parameters, given by the slope of the discriminator. Near the optimum it is also the
    gradient of the relative entropy (Nowozin, Cseke and Tomioka 2016, arXiv:1606.00709). No trajectory needs to be
    differentiated, because the ensemble of a potential depends neither on friction nor on the history.

    Parameters
    ----------
    trajectory : BeadTrajectory
        The all-atom reference.
    entropy : RelativeEntropy
        Defines the coordinates of the potential's parameters.
    stop : int
        End of the training part of the reference (frame).
    settings : ConfigurationalSettings
    """

    def __init__(
        self,
        trajectory: BeadTrajectory,
        entropy: RelativeEntropy,
        stop: int,
        settings: ConfigurationalSettings = ConfigurationalSettings(),
    ):
        self.settings = settings
        frames = sample_frames(trajectory, settings.frames, stop=stop)
        self.reference = entropy.coordinates(
            torch.from_numpy(trajectory.positions(frames)),
            torch.from_numpy(trajectory.boxes(frames)),
        ).float()
        module = StructureDiscriminator(self.reference.shape[1])
        self.trainer = DiscriminatorTrainer(module, settings.training)

    def update(
        self, coordinates: Tensor, random: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """Update the discriminator; return the gradient for the potential.

        Parameters
        ----------
        coordinates : Tensor [F, P]
            Generated configurations, see :meth:`RelativeEntropy.coordinates`.
        random : torch.Generator

        Returns
        -------
        Tensor [P]
            Estimated gradient of the relative entropy, for :meth:`RelativeEntropy.descend`.
        dict
            Loss and gap of the discriminator.
        """

        def real():
            batch = self.settings.training.batch
            return (self.reference[torch.randint(len(self.reference), [batch], generator=random)],)

        fake = coordinates.float()
        with one_thread():
            loss, _ = self.trainer.update(real, (fake,), random)
            gap = self.gap(fake)
        return self.gradient(gap), {"discriminator_loss": loss, "gap": gap}

    @torch.no_grad()
    def gap(self, inputs: Tensor) -> float:
        """Return the mean logit difference between the reference and generated inputs [F, P]."""
        module = self.trainer.module
        return (module(self.reference).mean() - module(inputs).mean()).item()

    def gradient(self, gap: float) -> Tensor:
        """Return the estimated gradient of the relative entropy [P].

        For standardized inputs, the slope of an optimal discriminator is the distance of the means, and its gap is the
        square of the slope. If the discriminator separates all configurations, its slope is smaller than its gap
        implies, and the gradient is scaled up accordingly.
        """
        slope = self.trainer.module.slope.double()
        return slope * max(1.0, gap / float(slope.square().sum().clamp_min(1e-12)))

    def state_dict(self) -> dict:
        """Return the state for a checkpoint."""
        return self.trainer.state_dict()

    def load_state_dict(self, saved: dict) -> None:
        """Restore the state from a checkpoint."""
        self.trainer.load_state_dict(saved)
