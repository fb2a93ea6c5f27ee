"""The critics of the motion of beads: one of all lags of a window and, if wanted, one of neighbourhoods, one of the longest
lags and one of shear waves besides."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from .. import config
from ..baselines.ranges import neighbor_range
from ..discriminator import DynamicsDiscriminator, GramDiscriminator, GraphDiscriminator
from .game import BATCH, Critic
from .shear_waves import KINDS, shear_waves
from .windows import ReferenceWindows, Windows, root_mean_squares

RATES = {"equivariant": 2e-3, "gram": 1e-3, "graph": 2e-3}
"""Learning rates of the kinds of critics."""

CENTRES = 1024
"""Most beads of generated windows that a critic of neighbourhoods judges in an iteration."""

LONG = 2
"""Longest lags of a window that the second critic sees."""

STANDARD = 4096
"""Windows that the features of a critic are standardized by."""

SPREAD = 200
"""Systems in whose windows shear waves are measured, for the same purpose."""

SYSTEMS = 10
"""Windows of systems whose shear waves are shown as real in a step: `BATCH` of them, or a few more."""

WEIGHTS = {"shear": 0.15, "neighbors": 0.01}
"""Of judgements; one of all others. Of shear waves a system has few: what they say is noisier than what beads say. What
neighbours do is never quite that of all-atom ones, and asks for more than there is to learn (see ``docs/recipe.md``)."""


class MotionCritics:
    """One critic or several, whose judgements add up.

    A critic of neighbourhoods has one of single beads at its side: what it sees of a bead's own motion is one thing among
    many, and diffusion is held less well by it alone. How friction between pairs is shared among distances and directions no
    motion of single beads tells, but that of shear waves does.

    Parameters
    ----------
    windows : ReferenceWindows
    options : config.Discriminator
    generator : torch.Generator
        Draws the windows that features are standardized by.
    waves : bool
        Whether there is a critic of shear waves besides.

    Attributes
    ----------
    critics : dict of str to Critic

    Raises
    ------
    ValueError
        If two critics are wanted and the windows have no other than the longest lags.
    """

    def __init__(
        self, windows: ReferenceWindows, options: config.Discriminator, generator: torch.Generator, waves: bool = False
    ):
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
        widths = options.model_dump(include={"scalars", "vectors", "heads", "attention"})
        self.critics: dict[str, Critic] = {}
        self._frames = {name: frames for name, (_, frames) in wanted.items()}
        for name, (kind, frames) in wanted.items():
            scale = windows.scale(frames)
            if kind == "gram":
                module = GramDiscriminator(scale)
            elif kind == "graph":
                module = GraphDiscriminator(scale, *neighbor_range(windows.trajectory), **widths)
            else:
                module = DynamicsDiscriminator(scale, **widths)
            if kind != "equivariant":
                module.standardize(*self._seen(name, module, windows.sample(STANDARD, generator, starts=64)))
            self.critics[name] = Critic(module, RATES[kind])
        if waves:
            seen = (shear_waves(one, windows.masses) for one in windows.spread(SPREAD))
            module = DynamicsDiscriminator(root_mean_squares(seen, KINDS), **widths)
            self.critics["shear"] = Critic(module, RATES["equivariant"])

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
        for name, critic in self.critics.items():

            def real():
                drawn = self.windows.sample(BATCH, random) if name != "shear" else self.windows.sample(SYSTEMS, random, SYSTEMS)
                return self._tokens(name, drawn)

            judged = fake.some(CENTRES, random) if isinstance(critic.module, GraphDiscriminator) else fake
            gradient, values = critic.judge(real, self._tokens(name, judged), x, random)
            total += WEIGHTS.get(name, 1.0) * gradient
            log |= {f"{name}_{key}": value for key, value in values.items()}
        return total, log

    @torch.no_grad()
    def margin(self, real: Windows, fake: Windows) -> float:
        """Mean logit of windows minus that of others, of the critic of neighbourhoods if there is one, over those of single
        beads else."""
        margins = []
        for name in ["neighbors"] if "neighbors" in self.critics else self._frames:
            logits = [self.critics[name].module(*self._tokens(name, some)).mean() for some in (real, fake)]
            margins.append((logits[0] - logits[1]).item())
        return sum(margins) / len(margins)

    def state_dict(self) -> dict:
        return {name: critic.state_dict() for name, critic in self.critics.items()}

    def load_state_dict(self, saved: dict) -> None:
        for name, critic in self.critics.items():
            critic.load_state_dict(saved[name])

    def _tokens(self, name: str, windows: Windows) -> tuple[Tensor, Tensor]:
        """What a critic is shown of windows: tokens, and types of beads or kinds of waves."""
        module = self.critics[name].module
        if name == "shear":
            u, kinds = shear_waves(windows, self.windows.masses)
            return module.tokens(u, kinds), kinds
        return module.tokens(*self._seen(name, module, windows)), windows.types

    def _seen(self, name: str, module: torch.nn.Module, windows: Windows) -> tuple[Tensor, ...]:
        """What tokens are made of: whole systems or single beads, in some frames of the windows."""
        frames = self._frames[name]
        if isinstance(module, GraphDiscriminator):
            return windows.positions[:, frames], windows.boxes, windows.kinds, windows.beads
        return windows.own[:, frames], windows.types
