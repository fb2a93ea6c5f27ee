"""How training ended: why, with what, and how sure that is."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from ..potentials import PotentialSpec
from ..potentials.pair import PairSplines
from .parameters import TrainedPairParameters, TrainedParameters

FILE = "outcome.json"


@dataclass(frozen=True)
class Outcome:
    """What is known at the end of training.

    Attributes
    ----------
    parameters : TrainedParameters or TrainedPairParameters
        To be exported.
    iterations : int
        That were done.
    settled : int or None
        The iteration at which learning rates began to fall.
    arrived : bool
        Whether it was because nothing drifted any more.
    exported : int
        The iteration whose averages are exported; after the last one, if memory followed displacements then.
    why : str
        Why learning rates began to fall.
    warnings : list of str
        What went wrong, and what was done about it.
    wander : dict
        See :func:`wander`.
    held_out : dict
        How the last generated windows and structures differ from those held out.
    validated : list of dict
        What live validation found of the averages while learning rates fell, with the ``iteration``.
    figures : dict
        The same of what is exported.
    """

    parameters: TrainedParameters | TrainedPairParameters
    iterations: int
    settled: int | None
    arrived: bool
    exported: int
    why: str
    warnings: list[str]
    wander: dict
    held_out: dict
    validated: list[dict[str, float]]
    figures: dict[str, float]

    def sentence(self) -> str:
        """Why training stopped, for a person."""
        if self.settled is None:
            return f"training stopped after {self.iterations} iterations"
        if self.exported > self.iterations:
            what = f"memory followed displacements to iteration {self.exported}, and that is exported"
        else:
            what = f"and the average of iteration {self.exported} is exported"
        return f"{self.why}; learning rates fell from there to iteration {self.iterations}, {what}"

    def save(self, directory: Path) -> None:
        """Write all but the parameters into ``outcome.json``, whole or not at all."""
        content = {name: value for name, value in self.__dict__.items() if name != "parameters"}
        content["sentence"] = self.sentence()
        directory.mkdir(parents=True, exist_ok=True)
        part = directory / f"{FILE}.part"
        part.write_text(json.dumps(content, indent=1))
        os.replace(part, directory / FILE)


def wander(
    rests: list[TrainedParameters | TrainedPairParameters],
    spec: PotentialSpec,
    kT: float,
) -> dict[str, dict[str, float]]:
    """How much the parameters wander while learning rates fall.

    Parameters
    ----------
    rests : list of TrainedParameters or TrainedPairParameters
        Means over successive parts of the fall.
    spec : PotentialSpec
    kT : float
        (kJ/mol)

    Returns
    -------
    dict
        For the friction of each bead type and for the memory: ``{"value", "stderr"}`` (1/ps), mean and standard error
        of the parts; for each pair of bead types ``{"stderr"}``, the root mean square over distances of that
        of u(r) (kT). Empty with fewer than two parts.
    """
    if len(rests) < 2:
        return {}
    parts = [rest.named(spec.type_names) for rest in rests]
    out = {}
    for name in [name for name in parts[0] if name.startswith("averaged_friction")]:
        values = torch.tensor([part[name] for part in parts], dtype=torch.float64)
        out[name.replace("averaged_", "")] = {"value": values.mean().item(), "stderr": _error(values).item()}
    for p, curves in enumerate(zip(*(pair_curves(rest.theta, spec) for rest in rests))):
        error = _error(torch.stack(curves)) / kT
        out[f"potential_{pair_labels(spec)[p]}"] = {"stderr": error.square().mean().sqrt().item()}
    return out


def pair_labels(spec: PotentialSpec) -> list[str]:
    """Names of the pairs of bead types, in their order."""
    names = spec.type_names
    return [f"{a}-{b}" for i, a in enumerate(names) for b in names[i:]]


def pair_curves(theta: torch.Tensor, spec: PotentialSpec) -> list[torch.Tensor]:
    """u(r) of every pair of bead types from the shortest distance with data to the cutoff (kJ/mol)."""
    coefficients = theta[: spec.n_pair_parameters].reshape(spec.n_type_pairs, -1)
    curves = []
    for a in range(spec.n_types):
        for b in range(a, spec.n_types):
            r = torch.linspace(spec.pair.r_min[spec.type_pair(a, b)], spec.pair.r_cut, 101, dtype=torch.float64)[:-1]
            kinds = torch.full([len(r)], a), torch.full([len(r)], b)
            curves.append(PairSplines(spec)(coefficients, *kinds, r))
    return curves


def _error(values: torch.Tensor) -> torch.Tensor:
    return values.std(0) / len(values) ** 0.5
