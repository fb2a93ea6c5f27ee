"""The adversarial game between a critic and the generator: losses, gradient penalty, replay."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy

import torch
from torch import Tensor
from torch.nn.functional import softplus

PENALTY = 1.0
"""Weight of the zero-centred gradient penalties on real and generated samples (R1 and R2)."""

STEPS = 3
"""Critic steps an iteration."""

BATCH = 256
"""Real and as many generated samples a critic step."""

REPLAY = 6
"""Iterations from which generated samples are shown to the critic."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch on one thread: on tensors as small as the critics' more of them only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def generator_loss(logits: Tensor) -> Tensor:
    """Non-saturating loss (Goodfellow et al. 2014), mean over beads and lags."""
    return softplus(-logits).mean()


def critic_loss(
    critic: Callable, real: tuple[Tensor, ...], fake: tuple[Tensor, ...], generator: torch.Generator, weight: float
):
    """Loss of a critic and its margin, the mean difference of its logits.

    The penalties are zero-centred (Mescheder, Geiger and Nowozin 2018, arXiv:1801.04406). Random signs over
    the logits of a sample make one backward pass an unbiased estimate of the sum of their squared gradients.

    Parameters
    ----------
    critic : callable
        Logits [W, ...] of inputs [W, ...] and further arguments.
    real, fake : tuple of Tensor
        Inputs, and further arguments such as bead types.
    generator : torch.Generator
    weight : float
        Of the penalties.
    """
    inputs = torch.cat([real[0], fake[0]]).detach().requires_grad_()
    logits = critic(inputs, *(torch.cat(pair) for pair in zip(real[1:], fake[1:])))
    signs = torch.randint(0, 2, logits.shape, generator=generator) * 2.0 - 1.0
    (gradient,) = torch.autograd.grad((signs * logits).sum(), inputs, create_graph=True)
    number = len(real[0])
    penalty = weight * gradient.square().sum() / logits[:number].numel()
    loss = softplus(-logits[:number]).mean() + softplus(logits[number:]).mean() + penalty
    return loss, (logits[:number].mean() - logits[number:].mean()).item()


class Critic:
    """A discriminator with its optimizer and the generated samples it is shown again.

    Parameters
    ----------
    module : torch.nn.Module
    rate : float
        Learning rate.
    batch : int
        Generated samples a step; as many real ones are drawn.
    penalty : float
        Weight of the gradient penalties.
    """

    def __init__(self, module: torch.nn.Module, rate: float, batch: int = BATCH, penalty: float = PENALTY):
        self.module, self.batch, self.penalty = module, batch, penalty
        self.optimizer = torch.optim.Adam(module.parameters(), rate, betas=(0.5, 0.9))
        self.replay: list[tuple[Tensor, ...]] = []
        self._first = deepcopy(self.state_dict())

    def learn(self, real: Callable[[], tuple[Tensor, ...]], fake: tuple[Tensor, ...], generator: torch.Generator):
        """Take some steps against the latest generated samples; returns the last loss and margin.

        Parameters
        ----------
        real : callable
            Draws a batch of real inputs and further arguments.
        fake : tuple of Tensor
            This iteration's generated inputs and further arguments.
        """
        self.replay = [*self.replay, tuple(part.detach() for part in fake)][-REPLAY:]
        everything = [torch.cat(parts) for parts in zip(*self.replay)]
        for _ in range(STEPS):
            chosen = torch.randint(len(everything[0]), [self.batch], generator=generator)
            fakes = tuple(part[chosen] for part in everything)
            loss, margin = critic_loss(self.module, real(), fakes, generator, self.penalty)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        return loss.item(), margin

    def judge(
        self,
        real: Callable[[], tuple[Tensor, ...]],
        fake: tuple[Tensor, ...],
        x: Tensor,
        generator: torch.Generator,
    ) -> tuple[Tensor, dict[str, float]]:
        """Learn, then say how generated configurations x should change to be taken for real ones.

        Returns
        -------
        Tensor
            Gradient of the generator's loss with respect to ``x``, which ``fake`` was made from.
        dict
            Losses of the critic and of the generator, and the margin.
        """
        with one_thread():
            critic, margin = self.learn(real, fake, generator)
            loss = generator_loss(self.module(*fake))
            (gradient,) = torch.autograd.grad(loss, x)
        return gradient, {"critic_loss": critic, "generator_loss": loss.item(), "margin": margin}

    def renew(self) -> None:
        """Begin again with the first weights, and without memory of what was seen."""
        self.load_state_dict(self._first)

    def state_dict(self) -> dict:
        return {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "replay": [list(parts) for parts in self.replay],
        }

    def load_state_dict(self, saved: dict) -> None:
        self.module.load_state_dict(saved["module"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.replay = [tuple(parts) for parts in saved["replay"]]
