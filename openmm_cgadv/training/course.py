"""Whether training still goes somewhere: what it showed of late, and its trends against their own scatter."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

STRETCH = 200
"""Iterations that a trend is looked for in. The game circles about its end with a period of some 20 iterations,
so that each half of them averages over a few turns; and it comes to its end within some 200, so that what is left
of a way is about twice what it went from one half to the other."""

CHECK = 25
"""Iterations between two looks."""

SCATTER = 0.25
"""A change from one half of the stretch to the other counts as drift if it exceeds this part of the standard
deviation from iteration to iteration. Means of 100 independent values differ by 0.14 of it, those of values that circle
by less."""

TOLERANCE = 0.01
"""Changes below this never count: friction in units of kT/(mD), displacements and the distance of the structure in
logarithms."""

MARGIN = "margin of "
"""What the rows of single critics are called."""

LATEST = 3
"""Rollouts of a chain that its mobility is judged by."""


@dataclass(frozen=True)
class Seen:
    """What one iteration showed, beside what is logged.

    Attributes
    ----------
    friction : Tensor [n]
        What beads feel within each lag of the window and at long times, in units of kT/(mD).
    displacement : Tensor [n_types, lags]
        Logarithm of mean squared displacements in generated windows over those held out.
    structure : float
        Distance of the structure from that held out (standard deviations of the reference).
    mobility : Tensor [C]
        Mean squared displacement of each chain that was rolled out, over that of the reference, at the longest lag.
    chains : list of int
        Those chains.
    gradient : Tensor [M]
        Gradient of the generator's loss with respect to friction and memory.
    margin : float
        Mean logit of held-out windows minus that of generated ones.
    margins : dict of str to float
        That of each critic, on what it was shown.
    """

    friction: Tensor
    displacement: Tensor
    structure: float
    mobility: Tensor
    chains: list[int]
    gradient: Tensor
    margin: float
    margins: dict[str, float]


class Course:
    """The last iterations of training.

    Parameters
    ----------
    chains : int
        Number of chains.
    """

    def __init__(self, chains: int):
        self.rows: dict[str, list[Tensor]] = {}
        self.mobility = torch.full([chains, LATEST], torch.nan, dtype=torch.float64)

    def see(self, seen: Seen) -> None:
        """Take in one iteration."""
        values = {
            "friction": seen.friction,
            "displacement": seen.displacement,
            "structure": torch.tensor([seen.structure], dtype=torch.float64).log(),
            "gradient": seen.gradient,
            "margin": torch.tensor([seen.margin], dtype=torch.float64),
        }
        values |= {f"{MARGIN}{name}": torch.tensor([value], dtype=torch.float64) for name, value in seen.margins.items()}
        for name, value in values.items():
            self.rows[name] = [*self.rows.get(name, []), value.detach().double().flatten()][-STRETCH:]
        for chain, value in zip(seen.chains, seen.mobility):
            self.mobility[chain] = torch.cat([self.mobility[chain, 1:], value.detach().reshape(1)])

    def forget(self) -> None:
        """Begin again, after something was changed from outside."""
        self.rows = {}

    @property
    def full(self) -> bool:
        """Whether a stretch has been seen."""
        return len(self.rows.get("friction", ())) == STRETCH

    def stretch(self, name: str) -> Tensor:
        """Values [iterations, n] of the last stretch."""
        return torch.stack(self.rows[name])

    def margins(self, number: int) -> dict[str, Tensor]:
        """That many last margins of each critic that has been seen for so long."""
        rows = {name.removeprefix(MARGIN): values for name, values in self.rows.items() if name.startswith(MARGIN)}
        return {name: torch.cat(values[-number:]) for name, values in rows.items() if len(values) >= number}

    def windows(self, number: int, doubt: Tensor) -> dict[str, float]:
        """How far mean squared displacements in the windows of that many last iterations are from those held out, at the lag and of
        the bead type where they are furthest, and its standard error, by its scatter and that of those held out; nothing of fewer."""
        rows = self.rows.get("displacement", [])[-number:]
        if len(rows) < number:
            return {}
        mean, error = mean_and_error(torch.stack(rows))
        worst = int(mean.abs().argmax())
        found = {"held_out_windows": abs(mean[worst].item()), "held_out_windows_stderr": torch.hypot(error, doubt.flatten())[worst].item()}
        return found if all(math.isfinite(value) for value in found.values()) else {}

    def drifting(self) -> list[str]:
        """What still drifts, of friction, displacement and structure."""
        names = {"friction": "friction", "displacements": "displacement", "structure": "structure"}
        return [name for name, rows in names.items() if drifts(self.stretch(rows))]

    def state_dict(self) -> dict:
        return {"rows": self.rows, "mobility": self.mobility}

    def load_state_dict(self, saved: dict) -> None:
        self.rows = {name: list(values) for name, values in saved["rows"].items()}
        self.mobility = saved["mobility"].clone()


def drifts(values: Tensor) -> bool:
    """Whether any column of values [iterations, n] changes from the first half of the iterations to the second by
    more than their scatter explains, and by more than can be tolerated."""
    first, last = values.chunk(2)
    scatter = (0.5 * (first.var(0) + last.var(0))).sqrt()
    return bool(((last.mean(0) - first.mean(0)).abs() > (SCATTER * scatter).clamp_min(TOLERANCE)).any())


def mean_and_error(values: Tensor, blocks: int = 5) -> tuple[Tensor, Tensor]:
    """Mean [n] and standard error of successive, correlated values [iterations, n], from blocks of them; the error is
    nan if there is only one."""
    if len(values) < 2:
        return values.mean(0), torch.full_like(values[0], torch.nan)
    means = torch.stack([part.mean(0) for part in values.chunk(blocks)])
    return values.mean(0), means.std(0) / len(means) ** 0.5
