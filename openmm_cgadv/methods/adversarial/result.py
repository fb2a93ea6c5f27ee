"""Status of a finished training: why it ended, what it exports, and the spread of the parameters."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from ...files import write_atomic
from ...potentials import PotentialSpec
from ..base import STATUS
from .parameters import TrainedParameters


@dataclass(frozen=True)
class TrainingStatus:
    """Parameters and status at the end of the training.

    Attributes
    ----------
    parameters : TrainedParameters
        The exported parameters.
    iterations : int
        Number of iterations.
    decay_start : int or None
        Last iteration with constant learning rates.
    converged : bool
        Whether the training had converged at that iteration.
    exported : int
        Iteration of the exported average. It is larger than `iterations` after a final fit of the memory kernel.
    reason : str
        Why the learning rates began to decay.
    warnings : list of str
        Problems and what was done about them.
    parameter_spread : dict
        See :func:`parameter_spread`.
    held_out : dict
        Deviation of the last generated windows and structures from the held-out ones.
    validated : list of dict
        Validations in OpenMM during the decay, each with its ``iteration``.
    metrics : dict
        Validation of the exported parameters.
    """

    parameters: TrainedParameters
    iterations: int
    decay_start: int | None
    converged: bool
    exported: int
    reason: str
    warnings: list[str]
    parameter_spread: dict
    held_out: dict
    validated: list[dict[str, float]]
    metrics: dict[str, float]

    def sentence(self) -> str:
        """Return why the training ended and what it exports, as a sentence."""
        if self.decay_start is None:
            return f"training ended after {self.iterations} iterations"
        if self.exported > self.iterations:
            exported = (
                "a final fit of the memory kernel to the mean squared displacement followed up to iteration "
                f"{self.exported}, and its result is exported"
            )
        else:
            exported = f"the average at iteration {self.exported} is exported"
        return f"{self.reason}; the learning rates decayed until iteration {self.iterations}; {exported}"

    def save(self, directory: Path) -> None:
        """Write everything but the parameters into ``outcome.json``, atomically."""
        content = {name: value for name, value in self.__dict__.items() if name != "parameters"}
        content["sentence"] = self.sentence()
        write_atomic(directory / STATUS, json.dumps(content, indent=1))


def parameter_spread(
    averages: list[TrainedParameters],
    spec: PotentialSpec,
    kT: float,
) -> dict[str, dict[str, float]]:
    """Return the spread of the parameters while the learning rates decay.

    Parameters
    ----------
    averages : list of TrainedParameters
        Averages over successive intervals of the decay.
    spec : PotentialSpec
    kT : float
        (kJ/mol)

    Returns
    -------
    dict
        For each friction ``{"value", "stderr"}`` (1/ps), mean and standard error over the intervals. For each pair of
        bead types ``{"stderr"}``, the standard error of u(r) in kT, root mean square over distances. Empty with fewer
        than two intervals.
    """
    if len(averages) < 2:
        return {}
    parts = [average.named(spec.type_names) for average in averages]
    out = {}
    for name in [name for name in parts[0] if name.startswith("averaged_friction")]:
        values = torch.tensor([part[name] for part in parts], dtype=torch.float64)
        out[name.replace("averaged_", "")] = {
            "value": values.mean().item(),
            "stderr": _error(values).item(),
        }
    for p, curves in enumerate(zip(*(pair_curves(average.theta, spec) for average in averages))):
        error = _error(torch.stack(curves)) / kT
        out[f"potential_{pair_labels(spec)[p]}"] = {"stderr": error.square().mean().sqrt().item()}
    return out


def pair_curves(theta: torch.Tensor, spec: PotentialSpec) -> list[torch.Tensor]:
    """Return u(r) of every pair of bead types from the shortest distance with data to the cutoff (kJ/mol)."""
    return [
        curve.energy(theta, torch.linspace(curve.r_min, curve.r_cut, 101, dtype=torch.float64)[:-1])
        for curve in spec.pair_curves()
    ]


def pair_labels(spec: PotentialSpec) -> list[str]:
    """Return the names of the pairs of bead types of :func:`pair_curves`."""
    return ["-".join(spec.type_names[a] for a in curve.types) for curve in spec.pair_curves()]


def _error(values: torch.Tensor) -> torch.Tensor:
    return values.std(0) / len(values) ** 0.5
