"""Adam with uncorrelated steps: an optimizer that whitens the gradients of a group of parameters."""

from __future__ import annotations

import torch


class WhitenedAdam(torch.optim.Optimizer):
    r"""Adam (Kingma and Ba 2014, arXiv:1412.6980), optionally with whitened steps.

    With the gradient g, its moving average m and the moving average v of its square, a whitened step is

        −rate · (R + ε)^(−1/2) m/√v,   R = moving average of u uᵀ,   u = g/√v,

    over all parameters of the group. Adam, with R = 1, gives each parameter steps of the same size. If the gradients of
    many parameters are correlated, their common direction and its noise dominate these steps, and other directions
    hardly change. Whitening scales each direction by its own gradient noise, as in AdaGrad with full matrices (Duchi,
    Hazan and Singer 2011, https://jmlr.org/papers/v12/duchi11a.html).

    Parameters
    ----------
    groups : list of dict
        ``params``, ``lr``, and ``whitened``, which is False by default. The cost of a whitened step grows with the third
        power of the number of parameters.
    betas : (float, float)
        Decay constants of m and v.
    correlation_time : float
        Steps over which R is averaged, for each parameter of the group. With fewer than one, R could not be estimated.
    regularization : float
        ε. The mean eigenvalue of R is 1, and directions with a smaller eigenvalue than ε count as noise.
    """

    def __init__(
        self,
        groups: list[dict],
        betas: tuple[float, float] = (0.9, 0.999),
        correlation_time: float = 5.0,
        regularization: float = 0.03,
    ):
        self.correlation_time, self.regularization = correlation_time, regularization
        super().__init__(groups, {"lr": 1e-3, "betas": betas, "whitened": False})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # takes no closure
        """Update all parameters, each of which must have a gradient."""
        for group in self.param_groups:
            parameters = group["params"]
            gradient = torch.cat([parameter.grad.flatten() for parameter in parameters])
            state = self.state[parameters[0]]
            if not state:
                state |= {
                    "steps": 0,
                    "mean": torch.zeros_like(gradient),
                    "square": torch.zeros_like(gradient),
                }
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
                state["correlation"] = torch.lerp(
                    state["correlation"],
                    torch.outer(unit, unit),
                    1 / (self.correlation_time * len(unit)),
                )
                values, vectors = torch.linalg.eigh(state["correlation"])
                direction = vectors @ (
                    (vectors.T @ direction) / (values.clamp_min(0) + self.regularization).sqrt()
                )
            parts = direction.split([parameter.numel() for parameter in parameters])
            for parameter, part in zip(parameters, parts):
                parameter -= group["lr"] * part.reshape(parameter.shape)
