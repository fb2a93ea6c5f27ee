"""Adam along directions in which the gradients of a group of parameters are uncorrelated."""

from __future__ import annotations

import torch

REACH = 5
"""Steps that the correlation of gradients reaches back, for each parameter: fewer than one could not tell it."""

LEAST = 0.03
"""Added to the eigenvalues of that correlation, whose mean is 1: directions with less of it are taken to be noise."""


class WhitenedAdam(torch.optim.Optimizer):
    r"""Adam (Kingma and Ba 2014, arXiv:1412.6980), followed in some groups by what makes its steps uncorrelated.

    With the gradient g, its moving average m and that of its square v, a step is

        −rate · (R + ε)^(−1/2) m/√v,   R = moving average of u uᵀ,   u = g/√v,

    over all parameters of the group. Adam alone, R = 1, gives each parameter steps of the same size. Where many of them
    change what the critics see alike, all of them follow that one direction and its noise, and what their differences
    do hardly shows; here each direction moves by how far its gradient stands out from its own noise, as in AdaGrad
    with full matrices (Duchi, Hazan and Singer 2011, https://jmlr.org/papers/v12/duchi11a.html).

    Parameters
    ----------
    groups : list of dict
        ``params``, ``lr``, and ``whitened`` where a group is (False by default: plain Adam). Parameters of a whitened
        group should be few: a step takes the third power of their number.
    betas : (float, float)
        Decay of m and v.
    """

    def __init__(self, groups: list[dict], betas: tuple[float, float] = (0.9, 0.999)):
        super().__init__(groups, {"lr": 1e-3, "betas": betas, "whitened": False})

    @torch.no_grad()
    def step(self) -> None:
        """Change all parameters by their gradients, which all of them must have."""
        for group in self.param_groups:
            parameters = group["params"]
            gradient = torch.cat([parameter.grad.flatten() for parameter in parameters])
            state = self.state[parameters[0]]
            if not state:
                state |= {"steps": 0, "mean": torch.zeros_like(gradient), "square": torch.zeros_like(gradient)}
                if group["whitened"]:
                    state["correlation"] = torch.eye(len(gradient), dtype=gradient.dtype)
            state["steps"] += 1
            first, second = group["betas"]
            state["mean"] = torch.lerp(gradient, state["mean"], first)
            state["square"] = torch.lerp(gradient.square(), state["square"], second)
            size = (state["square"] / (1 - second ** state["steps"])).sqrt() + 1e-30
            direction = state["mean"] / (1 - first ** state["steps"]) / size
            if group["whitened"]:
                unit = gradient / size
                state["correlation"] = torch.lerp(state["correlation"], torch.outer(unit, unit), 1 / (REACH * len(unit)))
                values, vectors = torch.linalg.eigh(state["correlation"])
                direction = vectors @ ((vectors.T @ direction) / (values.clamp_min(0) + LEAST).sqrt())
            parts = direction.split([parameter.numel() for parameter in parameters])
            for parameter, part in zip(parameters, parts):
                parameter -= group["lr"] * part.reshape(parameter.shape)
