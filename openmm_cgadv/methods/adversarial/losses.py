"""Adversarial losses, and the training of one discriminator with gradient penalties and a replay buffer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import softplus


@dataclass(frozen=True)
class DiscriminatorSettings:
    """Hyperparameters of the training of one discriminator.

    Attributes
    ----------
    learning_rate : float
        Learning rate of Adam.
    betas : (float, float)
        Decay constants of Adam. Both are below the defaults because the loss is not stationary.
    penalty : float
        Weight of the zero-centred gradient penalties on all-atom and generated samples (R1 and R2).
    steps : int
        Steps in an iteration.
    batch : int
        All-atom samples, and as many generated ones, in a step.
    replay : int
        Last iterations whose generated samples are in the replay buffer. It damps oscillations.
    """

    learning_rate: float = 2e-3
    betas: tuple[float, float] = (0.5, 0.9)
    penalty: float = 1.0
    steps: int = 3
    batch: int = 256
    replay: int = 6


@contextmanager
def one_thread() -> Iterator[None]:
    """Limit torch to one thread: tensors as small as the discriminators' gain nothing from more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def generator_loss(logits: Tensor) -> Tensor:
    """Return the non-saturating loss ⟨softplus(−logit)⟩ (Goodfellow et al. 2014, arXiv:1406.2661)."""
    return softplus(-logits).mean()


def discriminator_loss(
    discriminator: Callable,
    real: tuple[Tensor, ...],
    fake: tuple[Tensor, ...],
    generator: torch.Generator,
    weight: float,
) -> tuple[Tensor, float]:
    """Return the loss of a discriminator and its gap, the mean logit difference.

    The gradient penalties are zero-centred (Mescheder, Geiger and Nowozin 2018, arXiv:1801.04406). With random signs
    of a sample's logits, one backward pass gives an unbiased estimate of the sum of their squared gradients.

    Parameters
    ----------
    discriminator : callable
        Maps inputs [W, ...] and further arguments to logits [W, ...].
    real, fake : tuple of Tensor
        All-atom and generated inputs, and further arguments such as bead types.
    generator : torch.Generator
    weight : float
        Weight of the penalties.
    """
    inputs = torch.cat([real[0], fake[0]]).detach().requires_grad_()
    logits = discriminator(inputs, *(torch.cat(pair) for pair in zip(real[1:], fake[1:])))
    signs = torch.randint(0, 2, logits.shape, generator=generator) * 2.0 - 1.0
    (gradient,) = torch.autograd.grad((signs * logits).sum(), inputs, create_graph=True)
    number = len(real[0])
    penalty = weight * gradient.square().sum() / logits[:number].numel()
    loss = softplus(-logits[:number]).mean() + softplus(logits[number:]).mean() + penalty
    return loss, (logits[:number].mean() - logits[number:].mean()).item()


Discriminator = TypeVar("Discriminator", bound=torch.nn.Module)


class DiscriminatorTrainer(Generic[Discriminator]):
    """Train a discriminator with its own optimizer and replay buffer.

    Parameters
    ----------
    module : torch.nn.Module
        The discriminator.
    settings : DiscriminatorSettings
    """

    def __init__(
        self, module: Discriminator, settings: DiscriminatorSettings = DiscriminatorSettings()
    ):
        self.module, self.settings = module, settings
        self.optimizer = torch.optim.Adam(
            module.parameters(), settings.learning_rate, betas=settings.betas
        )
        self.replay: list[tuple[Tensor, ...]] = []
        self._initial = deepcopy(self.state_dict())

    def update(
        self,
        real: Callable[[], tuple[Tensor, ...]],
        fake: tuple[Tensor, ...],
        generator: torch.Generator,
    ) -> tuple[float, float]:
        """Update the discriminator; return its last loss and gap.

        Parameters
        ----------
        real : callable
            Draws a batch of all-atom inputs and further arguments.
        fake : tuple of Tensor
            Generated inputs of this iteration and further arguments.
        generator : torch.Generator
        """
        latest = tuple(part.detach() for part in fake)
        self.replay = [*self.replay, latest][-self.settings.replay :]
        buffer = [torch.cat(parts) for parts in zip(*self.replay)]
        for _ in range(self.settings.steps):
            chosen = torch.randint(len(buffer[0]), [self.settings.batch], generator=generator)
            fakes = tuple(part[chosen] for part in buffer)
            loss, gap = discriminator_loss(
                self.module, real(), fakes, generator, self.settings.penalty
            )
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        return loss.item(), gap

    def update_and_differentiate(
        self,
        real: Callable[[], tuple[Tensor, ...]],
        fake: tuple[Tensor, ...],
        x: Tensor,
        generator: torch.Generator,
    ) -> tuple[Tensor, dict[str, float]]:
        """Update the discriminator; return the gradient of the generator's loss.

        Parameters
        ----------
        real, fake, generator
            As in :meth:`update`.
        x : Tensor
            Generated positions, of which `fake` is a differentiable function.

        Returns
        -------
        Tensor
            Gradient with respect to `x`.
        dict
            Losses of the discriminator and of the generator, and the gap.
        """
        with one_thread():
            own_loss, gap = self.update(real, fake, generator)
            loss = generator_loss(self.module(*fake))
            (gradient,) = torch.autograd.grad(loss, x)
        values = {"discriminator_loss": own_loss, "generator_loss": loss.item(), "gap": gap}
        return gradient, values

    def reinitialize(self) -> None:
        """Restore the initial weights and clear optimizer and replay buffer."""
        self.load_state_dict(self._initial)

    def state_dict(self) -> dict:
        """Return the state for a checkpoint."""
        return {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "replay": [list(parts) for parts in self.replay],
        }

    def load_state_dict(self, saved: dict) -> None:
        """Restore the state from a checkpoint."""
        self.module.load_state_dict(saved["module"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.replay = [tuple(parts) for parts in saved["replay"]]
