"""Convergence of the training: the history of its observables, and their drift relative to their scatter."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

GAP = "gap of "
"""Prefix of the history of a single discriminator's gap."""


@dataclass(frozen=True)
class ConvergenceSettings:
    """Hyperparameters of the convergence test.

    Attributes
    ----------
    history : int
        Iterations in which a drift is looked for. Generator and discriminator oscillate around their equilibrium with
        a period of about 20 iterations, so each half of the history averages over several periods. They converge
        within about 200 iterations, so the remaining drift is about twice the change between the two halves.
    check_interval : int
        Iterations between two tests.
    drift_threshold : float
        Smallest significant change between the halves of the history, in standard deviations from iteration to
        iteration. Means of 100 independent values differ by 0.14 standard deviations; those of oscillating values
        differ by less.
    tolerance : float
        Largest change that counts as converged whatever the scatter. Friction is in units of the Einstein friction
        kT/(mD); mean squared displacements and the structural distance are logarithms.
    mobility_rollouts : int
        Last rollouts of a chain in which its mobility is averaged.
    """

    history: int = 200
    check_interval: int = 25
    drift_threshold: float = 0.25
    tolerance: float = 0.01
    mobility_rollouts: int = 3


@dataclass(frozen=True)
class Observation:
    """Observables of one iteration, in addition to the logged values.

    Attributes
    ----------
    friction : Tensor [n]
        Running integral of the memory kernel at each lag and integrated friction, in units of kT/(mD).
    displacement : Tensor [n_types, lags]
        Logarithm of the ratio of mean squared displacements, generated to held-out.
    structure : float
        Distance between the generated structure and the held-out one, in standard deviations of the reference.
    mobility : Tensor [C]
        Mean squared displacement of each simulated chain at the longest lag, relative to the reference's.
    chains : list of int
        The simulated chains.
    gradient : Tensor [M]
        Gradient of the generator's loss with respect to the friction parameters.
    gap : float
        Mean logit difference between held-out and generated windows.
    gaps : dict of str to float
        Mean logit difference between training and generated samples, by discriminator.
    """

    friction: Tensor
    displacement: Tensor
    structure: float
    mobility: Tensor
    chains: list[int]
    gradient: Tensor
    gap: float
    gaps: dict[str, float]


class ConvergenceHistory:
    """Store the observables of the last iterations.

    Parameters
    ----------
    chains : int
        Number of persistent chains.
    settings : ConvergenceSettings

    Attributes
    ----------
    rows : dict of str to list of Tensor
        Values of each observable, one tensor an iteration.
    mobility : Tensor [chains, mobility_rollouts]
        Last mobilities of each chain; NaN where a chain was not simulated yet.
    """

    def __init__(self, chains: int, settings: ConvergenceSettings = ConvergenceSettings()):
        self.settings = settings
        self.rows: dict[str, list[Tensor]] = {}
        self.mobility = torch.full(
            [chains, settings.mobility_rollouts], torch.nan, dtype=torch.float64
        )

    def record(self, observed: Observation) -> None:
        """Append the observables of one iteration."""
        values = {
            "friction": observed.friction,
            "displacement": observed.displacement,
            "structure": torch.tensor([observed.structure], dtype=torch.float64).log(),
            "gradient": observed.gradient,
            "gap": torch.tensor([observed.gap], dtype=torch.float64),
        }
        values |= {
            f"{GAP}{name}": torch.tensor([value], dtype=torch.float64)
            for name, value in observed.gaps.items()
        }
        for name, value in values.items():
            rows = [*self.rows.get(name, []), value.detach().double().flatten()]
            self.rows[name] = rows[-self.settings.history :]
        for chain, value in zip(observed.chains, observed.mobility):
            self.mobility[chain] = torch.cat([self.mobility[chain, 1:], value.detach().reshape(1)])

    def clear(self) -> None:
        """Discard the history after an external change of the training."""
        self.rows = {}

    @property
    def full(self) -> bool:
        """Whether the history has its full length."""
        return len(self.rows.get("friction", ())) == self.settings.history

    def values(self, name: str) -> Tensor:
        """Return the values [iterations, n] of an observable."""
        return torch.stack(self.rows[name])

    def gaps(self, number: int) -> dict[str, Tensor]:
        """Return the last `number` gaps of each discriminator whose history is that long."""
        rows = {
            name.removeprefix(GAP): values
            for name, values in self.rows.items()
            if name.startswith(GAP)
        }
        return {
            name: torch.cat(values[-number:])
            for name, values in rows.items()
            if len(values) >= number
        }

    def held_out_deviation(self, number: int, error: Tensor) -> dict[str, float]:
        """Return the largest deviation of mean squared displacements from the held-out ones, over lags and bead types.

        Parameters
        ----------
        number : int
            Last iterations to average over.
        error : Tensor [n_types, lags]
            Relative standard error of the held-out values.

        Returns
        -------
        dict
            ``held_out_msd``, the absolute logarithmic deviation, and ``held_out_msd_stderr``. Empty if the history is
            shorter or a value is not finite.
        """
        rows = self.rows.get("displacement", [])[-number:]
        if len(rows) < number:
            return {}
        mean, own = mean_and_error(torch.stack(rows))
        worst = int(mean.abs().argmax())
        found = {
            "held_out_msd": abs(mean[worst].item()),
            "held_out_msd_stderr": torch.hypot(own, error.flatten())[worst].item(),
        }
        return found if all(math.isfinite(value) for value in found.values()) else {}

    def drifting(self) -> list[str]:
        """Return which of friction, mean squared displacements and structure still drift."""
        names = {
            "friction": "friction",
            "mean squared displacements": "displacement",
            "structure": "structure",
        }
        return [
            name for name, row in names.items() if drifts(self.values(row), settings=self.settings)
        ]

    def state_dict(self) -> dict:
        """Return the history for a checkpoint."""
        return {"rows": self.rows, "mobility": self.mobility}

    def load_state_dict(self, saved: dict) -> None:
        """Restore the history from a checkpoint."""
        self.rows = {name: list(values) for name, values in saved["rows"].items()}
        self.mobility = saved["mobility"].clone()


def drifts(values: Tensor, settings: ConvergenceSettings = ConvergenceSettings()) -> bool:
    """Return whether any column of `values` [iterations, n] changes significantly from the first to the second half.

    A change is significant if it exceeds both the scatter from iteration to iteration and the tolerance, see
    :class:`ConvergenceSettings`.
    """
    first, last = values.chunk(2)
    scatter = (0.5 * (first.var(0) + last.var(0))).sqrt()
    threshold = (settings.drift_threshold * scatter).clamp_min(settings.tolerance)
    return bool(((last.mean(0) - first.mean(0)).abs() > threshold).any())


def mean_and_error(values: Tensor, blocks: int = 5) -> tuple[Tensor, Tensor]:
    """Return mean and standard error [n] of correlated values [iterations, n].

    The standard error follows from block averages (Flyvbjerg and Petersen 1989) and is NaN for a single value.
    """
    if len(values) < 2:
        return values.mean(0), torch.full_like(values[0], torch.nan)
    means = torch.stack([part.mean(0) for part in values.chunk(blocks)])
    return values.mean(0), means.std(0) / len(means) ** 0.5
