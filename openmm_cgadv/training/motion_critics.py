"""The critics of the motion of beads: one of all lags of a window and, if wanted, one of neighbourhoods and one of the
longest lags besides."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor

from .. import config
from ..baselines.ranges import neighbor_range
from ..discriminator import DynamicsDiscriminator, GramDiscriminator, GraphDiscriminator
from .game import BATCH, Critic
from .windows import ReferenceWindows, Windows

RATES = {"equivariant": 2e-3, "gram": 1e-3, "graph": 2e-3}
"""Learning rates of the kinds of critics."""

CENTRES = 1024
"""Most beads of generated windows that a critic of neighbourhoods judges in an iteration."""

LONG = 2
"""Longest lags of a window that the second critic sees."""

STANDARD = 4096
"""Windows that the features of a critic are standardized by."""


class MotionCritics:
    """One critic or several, whose judgements add up.

    A critic of neighbourhoods has one of single beads at its side: what it sees of a bead's own motion is one thing among
    many, and diffusion is held less well by it alone.

    Parameters
    ----------
    windows : ReferenceWindows
    options : config.Discriminator
    generator : torch.Generator
        Draws the windows that features are standardized by.

    Raises
    ------
    ValueError
        If two critics are wanted and the windows have no other than the longest lags.
    """

    def __init__(self, windows: ReferenceWindows, options: config.Discriminator, generator: torch.Generator):
        self.windows = windows
        lags = len(windows.offsets) - 1
        every = list(range(lags + 1))
        single = "equivariant" if options.kind == "graph" else options.kind
        wanted = {"dynamics": (single, every)}
        if options.kind == "graph":
            wanted["neighbors"] = ("graph", every)
        if options.critics == 2:
            if lags <= LONG:
                raise ValueError(f"discriminator.critics: found 2 with windows of {lags} lags, expected windows of more than {LONG}")
            wanted["long"] = (single, [0, *every[-LONG:]])
        self.critics: dict[str, tuple[Critic, list[int]]] = {}
        for name, (kind, frames) in wanted.items():
            scale = windows.scale(frames)
            widths = options.model_dump(include={"scalars", "vectors", "heads", "attention"})
            if kind == "gram":
                module = GramDiscriminator(scale)
            elif kind == "graph":
                module = GraphDiscriminator(scale, *neighbor_range(windows.trajectory), **widths)
            else:
                module = DynamicsDiscriminator(scale, **widths)
            if kind != "equivariant":
                module.standardize(*_seen(module, frames, windows.sample(STANDARD, generator, starts=64)))
            self.critics[name] = Critic(module, RATES[kind]), frames
        self._first = deepcopy(self.state_dict())

    def judge(self, fake: Windows, random: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Let the critics learn; how generated windows should change to be taken for real ones.

        Parameters
        ----------
        fake : Windows
            Generated.
        random : torch.Generator

        Returns
        -------
        Tensor [S, lags + 1, N, 3]
            Gradient of the sum of the generator's losses with respect to the positions of ``fake`` (1/nm).
        dict
            Losses and margin of each critic.
        """
        x = fake.positions.detach().requires_grad_()
        fake = replace(fake, positions=x)
        total, log = torch.zeros_like(x), {}
        for name, (critic, frames) in self.critics.items():
            module = critic.module
            judged = fake.some(CENTRES, random) if isinstance(module, GraphDiscriminator) else fake

            def tokens(windows):
                return module.tokens(*_seen(module, frames, windows)), windows.types

            def real():
                return tokens(self.windows.sample(BATCH, random))

            gradient, values = critic.judge(real, tokens(judged), x, random)
            total += gradient
            log |= {f"{name}_{key}": value for key, value in values.items()}
        return total, log

    @torch.no_grad()
    def margin(self, real: Windows, fake: Windows) -> float:
        """Mean logit of windows minus that of others, of the critic of neighbourhoods if there is one, over all else."""
        margins = []
        for critic, frames in [self.critics["neighbors"]] if "neighbors" in self.critics else self.critics.values():
            module = critic.module
            logits = [module(module.tokens(*_seen(module, frames, some)), some.types).mean() for some in (real, fake)]
            margins.append((logits[0] - logits[1]).item())
        return sum(margins) / len(margins)

    def renew(self) -> None:
        """Begin again with the first weights, and without memory of what was seen."""
        self.load_state_dict(self._first)

    def state_dict(self) -> dict:
        return {name: critic.state_dict() for name, (critic, _) in self.critics.items()}

    def load_state_dict(self, saved: dict) -> None:
        for name, (critic, _) in self.critics.items():
            critic.load_state_dict(saved[name])


def _seen(module: torch.nn.Module, frames: list[int], windows: Windows) -> tuple[Tensor, ...]:
    """What a critic makes its tokens of: whole systems or single beads, in some frames of the windows."""
    if isinstance(module, GraphDiscriminator):
        return windows.positions[:, frames], windows.boxes, windows.kinds, windows.beads
    return windows.own[:, frames], windows.types
