"""What training exports: a potential, and a friction of beads or of pairs of beads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..dynamics import Neighborhood, PairFrictionParameters, effective_friction


@dataclass(frozen=True)
class TrainedParameters:
    """Averages over the iterations of training, with friction on each bead.

    Attributes
    ----------
    theta : Tensor [P]
        Parameters of the potential (kJ/mol).
    drift : Tensor [n_types, K + 1, K + 1]
        Friction and memory matrices (1/ps).
    """

    theta: Tensor
    drift: Tensor

    @property
    def friction(self) -> Tensor:
        """Effective friction of each bead type (1/ps)."""
        return effective_friction(self.drift)

    def named(self, type_names: tuple[str, ...]) -> dict[str, float]:
        """Friction, rates and couplings by name, for the log; with the bead type if there are several."""
        values = _frictions(self.friction, type_names)
        for name, drift in zip(type_names, self.drift):
            suffix = f"_{name}" if len(type_names) > 1 else ""
            values[f"gamma_0{suffix}"] = drift[0, 0].item()
            for k in range(1, len(drift)):
                values[f"alpha_{k}{suffix}"] = drift[k, k].item()
                values[f"coupling_{k}{suffix}"] = drift[0, k].item()
        return values

    def model(self) -> dict[str, Any]:
        """The arguments of a :class:`~openmm_cgadv.Model` that they decide."""
        equation = "generalized_langevin" if self.drift.shape[-1] > 1 else "langevin"
        return {"theta": self.theta, "equation": equation, "drift": self.drift}

    def arrays(self) -> dict[str, np.ndarray]:
        """All there is, to be kept in a file; see :func:`from_arrays`."""
        return {"theta": self.theta.numpy(), "drift": self.drift.numpy()}


@dataclass(frozen=True)
class TrainedPairParameters:
    """Averages over the iterations of training, with friction between pairs of beads.

    Attributes
    ----------
    theta : Tensor [P]
        Parameters of the potential (kJ/mol).
    pair_friction : PairFrictionParameters
    neighborhood : Neighborhood
        Of the reference.
    """

    theta: Tensor
    pair_friction: PairFrictionParameters
    neighborhood: Neighborhood

    @property
    def friction(self) -> Tensor:
        """Friction (1/ps) of a bead of each type whose neighbours move independently of it."""
        return self.pair_friction.bead_friction(self.neighborhood)

    def named(self, type_names: tuple[str, ...]) -> dict[str, float]:
        """Friction, rates and functions by name, for the log.

        ``along_k`` and ``across_k`` are the largest absolute values of the functions f_k; pairs of bead types are
        named if there are several.
        """
        values = _frictions(self.friction, type_names)
        labels = [f"{a}-{b}" for i, a in enumerate(type_names) for b in type_names[i:]]
        r = self.neighborhood.r.numpy()
        curves = abs(self.pair_friction.functions(r))
        for label, start, rates, curve in zip(
            labels, self.pair_friction.r_min, self.pair_friction.memory, curves
        ):
            suffix = f"_{label}" if len(labels) > 1 else ""
            for k, (along, across) in enumerate(curve[..., r >= start].max(-1)):
                values |= {f"along_{k}{suffix}": float(along), f"across_{k}{suffix}": float(across)}
            values |= {f"alpha_{k + 1}{suffix}": float(rate) for k, rate in enumerate(np.diag(rates))}
        return values

    def model(self) -> dict[str, Any]:
        """The arguments of a :class:`~openmm_cgadv.Model` that they decide."""
        return {"theta": self.theta, "equation": "pair", "drift": None, "pair_friction": self.pair_friction}

    def arrays(self) -> dict[str, np.ndarray]:
        """All there is, to be kept in a file; see :func:`from_arrays`."""
        friction = self.pair_friction
        return {
            "theta": self.theta.numpy(), "splines": friction.splines, "memory": friction.memory,
            "r_min": np.array(friction.r_min), "r_cut": np.array(friction.r_cut),
            "self_friction": np.array(friction.self_friction),
            "distances": self.neighborhood.r.numpy(), "neighbors": self.neighborhood.numbers.numpy(),
        }  # fmt: skip


def from_arrays(arrays) -> TrainedParameters | TrainedPairParameters:
    """The parameters of which ``arrays`` of either kind made a mapping of arrays."""
    theta = torch.from_numpy(arrays["theta"])
    if "drift" in arrays:
        return TrainedParameters(theta, torch.from_numpy(arrays["drift"]))
    own = tuple(arrays["self_friction"]) if "self_friction" in arrays else ()
    friction = PairFrictionParameters(
        tuple(arrays["r_min"]), float(arrays["r_cut"]), arrays["splines"], arrays["memory"], own
    )
    neighborhood = Neighborhood(torch.from_numpy(arrays["distances"]), torch.from_numpy(arrays["neighbors"]))
    return TrainedPairParameters(theta, friction, neighborhood)


def _frictions(friction: Tensor, type_names: tuple[str, ...]) -> dict[str, float]:
    """The mean over the bead types, and the friction of each if there are several."""
    values = {"averaged_friction": friction.mean().item()}
    if len(type_names) > 1:
        values |= {f"averaged_friction_{name}": value.item() for name, value in zip(type_names, friction)}
    return values
