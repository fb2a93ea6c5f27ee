"""Discriminators of motion: of all lags of a window, of its longest lags, of neighbourhoods, and of transverse modes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ... import config
from ...errors import InputError
from ...fit.ranges import neighbor_range
from .current_modes import MODE_TYPES, transverse_displacements
from .discriminators import DynamicsDiscriminator, GramDiscriminator, GraphDiscriminator
from .losses import DiscriminatorSettings, DiscriminatorTrainer
from .windows import ReferenceWindows, Windows, root_mean_squares

MotionDiscriminator = GramDiscriminator | GraphDiscriminator | DynamicsDiscriminator


@dataclass(frozen=True)
class MotionDiscriminatorSettings:
    """Hyperparameters of the discriminators of motion.

    Attributes
    ----------
    training : DiscriminatorSettings
        Common settings; the learning rate follows from the type of discriminator.
    learning_rate_equivariant, learning_rate_gram, learning_rate_graph : float
    graph_beads : int
        Most beads of generated windows that a graph discriminator classifies in an iteration.
    long_lags : int
        Longest lags of a window that the second discriminator observes.
    standardization_windows, standardization_starts : int
        Windows of single beads that standardize the features, and the number of frames at which they start.
    mode_windows : int
        Windows of the whole system that standardize the transverse displacements.
    mode_systems : int
        Windows of the whole system in an all-atom batch of transverse displacements. Their modes are about as many as
        the windows in a batch.
    weight_transverse : float
        Weight of the generator's loss for transverse modes, relative to that for single beads. A system has few such
        modes, so their gradient is noisier.
    weight_neighbors : float
        The same for neighbourhoods. Their all-atom distribution is never reached exactly, and a larger weight
        distorts what can be learned (``docs/development/decisions/pairwise_friction.md``).
    """

    training: DiscriminatorSettings = DiscriminatorSettings()
    learning_rate_equivariant: float = 2e-3
    learning_rate_gram: float = 1e-3
    learning_rate_graph: float = 2e-3
    graph_beads: int = 1024
    long_lags: int = 2
    standardization_windows: int = 4096
    standardization_starts: int = 64
    mode_windows: int = 200
    mode_systems: int = 10
    weight_transverse: float = 0.15
    weight_neighbors: float = 0.01

    def trainer(self, kind: str) -> DiscriminatorSettings:
        """Return the settings of a discriminator of type ``equivariant``, ``gram`` or ``graph``."""
        return replace(self.training, learning_rate=getattr(self, f"learning_rate_{kind}"))

    def weight(self, name: str) -> float:
        """Return the weight of the generator's loss for a discriminator."""
        weights = {"transverse": self.weight_transverse, "neighbors": self.weight_neighbors}
        return weights.get(name, 1.0)


class MotionDiscriminators:
    """Train one or several discriminators of motion, whose generator losses add up.

    A graph discriminator is accompanied by one of single beads, because it determines the diffusion coefficient less
    precisely. The dependence of pairwise friction on distance and direction does not show in the motion of single
    beads, but in that of transverse modes.

    Parameters
    ----------
    windows : ReferenceWindows
        Training part of the reference.
    options : config.Discriminator
    generator : torch.Generator
        Draws the windows that standardize the features.
    transverse : bool
        Whether to add a discriminator of transverse modes.
    settings : MotionDiscriminatorSettings

    Attributes
    ----------
    trainers : dict of str to DiscriminatorTrainer

    Raises
    ------
    InputError
        Two discriminators are requested and the windows have only the longest lags.
    """

    def __init__(
        self,
        windows: ReferenceWindows,
        options: config.Discriminator,
        generator: torch.Generator,
        transverse: bool = False,
        settings: MotionDiscriminatorSettings = MotionDiscriminatorSettings(),
    ):
        self.windows, self.settings = windows, settings
        lags = len(windows.offsets) - 1
        every = list(range(lags + 1))
        single = "equivariant" if options.kind == "graph" else options.kind
        wanted: dict[str, tuple[str, list[int]]] = {"dynamics": (single, every)}
        if options.kind == "graph":
            wanted["neighbors"] = ("graph", every)
        if options.critics == 2:
            if lags <= settings.long_lags:
                raise InputError(
                    f"discriminator.critics: found 2 with windows of {lags} lags, expected windows of more than "
                    f"{settings.long_lags}"
                )
            wanted["long"] = (single, [0, *every[-settings.long_lags :]])
        widths = options.model_dump(include={"scalars", "vectors", "heads", "attention"})
        self.trainers: dict[str, DiscriminatorTrainer[MotionDiscriminator]] = {}
        self._frames = {name: frames for name, (_, frames) in wanted.items()}
        for name, (kind, frames) in wanted.items():
            scale = windows.scale(frames)
            module: MotionDiscriminator
            if kind == "gram":
                module = GramDiscriminator(scale)
            elif kind == "graph":
                module = GraphDiscriminator(scale, *neighbor_range(windows.trajectory), **widths)
            else:
                module = DynamicsDiscriminator(scale, **widths)
            if kind != "equivariant":
                sample = windows.sample(
                    settings.standardization_windows,
                    generator,
                    starts=settings.standardization_starts,
                )
                assert not isinstance(module, DynamicsDiscriminator)
                module.standardize(*self._inputs(name, module, sample))
            self.trainers[name] = DiscriminatorTrainer(module, settings.trainer(kind))
        if transverse:
            modes = (
                transverse_displacements(one, windows.masses)
                for one in windows.evenly_spaced(settings.mode_windows)
            )
            module = DynamicsDiscriminator(root_mean_squares(modes, MODE_TYPES), **widths)
            self.trainers["transverse"] = DiscriminatorTrainer(
                module, settings.trainer("equivariant")
            )

    def update(self, fake: Windows, random: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Update all discriminators; return the gradient of the generator's loss.

        Parameters
        ----------
        fake : Windows
            Generated windows of S systems.
        random : torch.Generator

        Returns
        -------
        Tensor [S, lags + 1, N, 3]
            Gradient of the weighted sum of the generator's losses with respect to the positions of `fake` (1/nm).
        dict
            Losses and gap of each discriminator.
        """
        x = fake.positions.detach().requires_grad_()
        fake = replace(fake, positions=x)
        total = torch.zeros_like(x)
        log: dict[str, float] = {}
        for name, trainer in self.trainers.items():

            def real(name: str = name) -> tuple[Tensor, ...]:
                if name == "transverse":
                    systems = self.settings.mode_systems
                    return self._tokens(name, self.windows.sample(systems, random, systems))
                return self._tokens(name, self.windows.sample(self.settings.training.batch, random))

            classified = fake
            if isinstance(trainer.module, GraphDiscriminator):
                classified = fake.subsample(self.settings.graph_beads, random)
            gradient, values = trainer.update_and_differentiate(
                real, self._tokens(name, classified), x, random
            )
            total += self.settings.weight(name) * gradient
            log |= {f"{name}_{key}": value for key, value in values.items()}
        return total, log

    @torch.no_grad()
    def gap(self, real: Windows, fake: Windows) -> float:
        """Return the mean logit difference between two sets of windows.

        It is that of the graph discriminator if there is one, else the mean over the discriminators of single beads.
        """
        gaps = []
        for name in ["neighbors"] if "neighbors" in self.trainers else self._frames:
            logits = [
                self.trainers[name].module(*self._tokens(name, windows)).mean()
                for windows in (real, fake)
            ]
            gaps.append((logits[0] - logits[1]).item())
        return sum(gaps) / len(gaps)

    def state_dict(self) -> dict:
        """Return the state for a checkpoint."""
        return {name: trainer.state_dict() for name, trainer in self.trainers.items()}

    def load_state_dict(self, saved: dict) -> None:
        """Restore the state from a checkpoint."""
        for name, trainer in self.trainers.items():
            trainer.load_state_dict(saved[name])

    def _tokens(self, name: str, windows: Windows) -> tuple[Tensor, Tensor]:
        """Return the features of windows for a discriminator, and the types of beads or modes."""
        module = self.trainers[name].module
        if name == "transverse":
            assert isinstance(module, DynamicsDiscriminator)
            u, types = transverse_displacements(windows, self.windows.masses)
            return module.tokens(u, types), types
        return module.tokens(*self._inputs(name, module, windows)), windows.selected_types

    def _inputs(
        self, name: str, module: MotionDiscriminator, windows: Windows
    ) -> tuple[Tensor, ...]:
        """Return the arguments of a discriminator's `tokens`: whole systems or single beads, at its lags."""
        frames = self._frames[name]
        if isinstance(module, GraphDiscriminator):
            return windows.positions[:, frames], windows.boxes, windows.types, windows.beads
        return windows.selected_positions[:, frames], windows.selected_types
