"""Generalized Langevin dynamics: friction with memory, by auxiliary variables of every degree of freedom."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .base import Friction, TrainableFriction
from .neighborhood import Neighborhood
from .rollout import rollout


@dataclass(frozen=True, eq=False)
class GeneralizedLangevinParameters(Friction):
    """The parameters of :class:`GeneralizedLangevin` as numbers.

    Attributes
    ----------
    drift : ndarray [n_types, K + 1, K + 1]
        Matrices A (1/ps); K = 0 without memory.

    Raises
    ------
    ValueError
        The matrices are not square or not finite.
    """

    name = "generalized_langevin"
    title = "generalized Langevin"
    schema = 1
    section = None

    drift: np.ndarray

    def __post_init__(self) -> None:
        drift = self.drift.detach().cpu().numpy() if isinstance(self.drift, Tensor) else self.drift
        drift = np.array(drift, dtype=np.float64)
        object.__setattr__(self, "drift", drift)
        if drift.ndim != 3 or not drift.shape[1] == drift.shape[2] > 0:
            raise ValueError(f"drift: found shape {drift.shape}, expected (n_types, K + 1, K + 1)")
        if not np.isfinite(drift).all():
            raise ValueError("drift: found a value that is not finite, expected numbers")

    @property
    def n_types(self) -> int:
        return len(self.drift)

    @property
    def n_auxiliary(self) -> int:
        return self.drift.shape[-1] - 1

    @property
    def reach(self) -> float:
        return 0.0

    @property
    def conserves_momentum(self) -> bool:
        return False

    def bead_friction(self, neighborhood: Neighborhood | None = None) -> Tensor:
        instant, memory = self.drift[:, 0, 0], self.drift[:, 1:, 1:]
        # This is 1/(A⁻¹)_00, but also defined where there is no friction.
        slow = np.linalg.solve(memory, self.drift[:, 1:, :1])[..., 0]
        return torch.from_numpy(instant - np.einsum("tk,tk->t", self.drift[:, 0, 1:], slow))

    def instantaneous_friction(self, neighborhood: Neighborhood | None = None) -> Tensor:
        return torch.from_numpy(self.drift[:, 0, 0].copy())

    def memory_kernel(self, times: Tensor, neighborhood: Neighborhood | None = None) -> Tensor:
        return memory_kernel(torch.from_numpy(self.drift), times)

    def scalars(
        self, type_names: tuple[str, ...], neighborhood: Neighborhood | None = None
    ) -> dict[str, float]:
        """Return ``gamma_0``, ``alpha_k`` and ``coupling_k`` of every bead type (1/ps)."""
        values = {}
        for name, drift in zip(type_names, self.drift.tolist()):
            suffix = f"_{name}" if len(type_names) > 1 else ""
            values[f"gamma_0{suffix}"] = drift[0][0]
            for k in range(1, len(drift)):
                values[f"alpha_{k}{suffix}"] = drift[k][k]
                values[f"coupling_{k}{suffix}"] = drift[0][k]
        return values

    def arrays(self) -> dict[str, np.ndarray]:
        return {"drift": self.drift}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> GeneralizedLangevinParameters:
        return cls(arrays["drift"])

    def to_dict(self) -> dict[str, Any]:
        return {"drift": self.drift.tolist()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> GeneralizedLangevinParameters:
        return cls(np.array(data["drift"], dtype=np.float64))


class GeneralizedLangevin(TrainableFriction):
    r"""Generalized Langevin dynamics in extended Markovian form, one set of parameters per bead type.

    Every degree of freedom carries ``s = (v, z_1 … z_K)``, with

        dx = v dt,   ds = (F/m, 0 …) dt − A s dt + B dW,

        A = diag(γ_0, α_1 … α_K) + antisymmetric part (c_k between v and z_k, w_kl between z_k and z_l).

    The symmetric part of A is a positive diagonal, so the stationary covariance of s is kT/m for every value
    of the parameters: the fluctuation–dissipation theorem holds by construction. The memory kernel is
    ``K(t) = 2 γ_0 δ(t) + cᵀ exp(−(α + w) t) c`` (Ceriotti, Bussi and Parrinello 2010,
    doi:10.1021/ct900563s).

    ==========  ==============================  ======
    symbol      attribute                       unit
    ==========  ==============================  ======
    γ_0         ``exp(log_friction)``           1/ps
    α_k         ``floor + exp(log_rates)``      1/ps
    c_k         ``exp(log_couplings)``          1/ps
    w_kl        ``10 rotations``                1/ps
    ==========  ==============================  ======

    Parameters
    ----------
    n_types : int
        Number of bead types.
    n_auxiliary : int
        Number K of auxiliary variables of a degree of freedom; K = 0 is Langevin dynamics.
    friction : float or sequence of float
        Initial integrated friction ∫K dt of all bead types or of each (1/ps).
    floor : float
        Lowest decay rate of an auxiliary variable (1/ps). A training window does not determine memory that is slower
        than the window, and the floor excludes it.
    rates : (float, float)
        Slowest and fastest initial decay rate above the floor (1/ps).
    """

    def __init__(
        self,
        n_types: int,
        n_auxiliary: int,
        friction: float | Sequence[float],
        floor: float = 0.0,
        rates: tuple[float, float] = (3.0, 40.0),
    ):
        super().__init__()
        k = n_auxiliary
        self.floor = float(floor)
        total = torch.as_tensor(friction, dtype=torch.float64).broadcast_to([n_types])
        # Half of the friction is instantaneous; the rest is divided evenly among the rates.
        instant = total if k == 0 else 0.5 * total
        spread = initial_rates(k, rates)
        couplings = (0.5 * total[:, None] / max(k, 1) * (spread + self.floor)).sqrt()
        self.log_friction = torch.nn.Parameter(instant.log())
        self.log_rates = torch.nn.Parameter(spread.log().repeat(n_types, 1))
        self.log_couplings = torch.nn.Parameter(couplings.log())
        self.rotations = torch.nn.Parameter(
            torch.zeros([n_types, k * (k - 1) // 2], dtype=torch.float64)
        )

    @property
    def n_types(self) -> int:
        return self.log_friction.shape[0]

    @property
    def n_auxiliary(self) -> int:
        return self.log_rates.shape[1]

    def drift(self) -> Tensor:
        """Return the matrices A [n_types, K + 1, K + 1] (1/ps)."""
        k = self.n_auxiliary
        diagonal = torch.cat(
            [self.log_friction.exp()[:, None], self.floor + self.log_rates.exp()], dim=1
        )
        upper = torch.zeros([self.n_types, k + 1, k + 1], dtype=torch.float64)
        row, column = torch.triu_indices(k, k, 1) + 1
        upper[:, 0, 1:] = self.log_couplings.exp()
        upper[:, row, column] = 10.0 * self.rotations
        return torch.diag_embed(diagonal) + upper - upper.mT

    def propagator(self, dt: float) -> tuple[Tensor, Tensor]:
        """Return the exact Ornstein–Uhlenbeck matrices of one time step (ps); see :func:`propagator`."""
        return propagator(self.drift(), dt)

    def start(self, masses: Tensor, kT: float, generator: torch.Generator) -> Tensor:
        """Draw velocities and auxiliary variables [N, K + 1, 3] (nm/ps) from equilibrium."""
        noise = torch.randn(
            [len(masses), self.n_auxiliary + 1, 3], generator=generator, dtype=torch.float64
        )
        return (kT / masses).sqrt()[:, None, None] * noise

    def roll_out(
        self, positions: Tensor, state: Tensor, boxes: Tensor, *, dt: float, **options: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Integrate replicas with :func:`openmm_cgadv.dynamics.rollout`."""
        e, s = self.propagator(dt)
        return rollout(positions, state, boxes, e=e, s=s, dt=dt, **options)

    def rates(self) -> Tensor:
        return torch.diagonal(self.drift(), dim1=1, dim2=2)[:, 1:]

    def bead_friction(self) -> Tensor:
        return integrated_friction(self.drift())

    def running_friction(self, times: Tensor) -> Tensor:
        """Return what the function :func:`running_friction` returns, [n_types, T] (1/ps), for times [T] (ps)."""
        return running_friction(self.drift(), times)

    def export(self) -> GeneralizedLangevinParameters:
        return GeneralizedLangevinParameters(self.drift().detach().numpy())


def initial_rates(number: int, span: tuple[float, float]) -> Tensor:
    """Return rates [number] (1/ps), evenly spaced in their logarithm over a span (1/ps); one rate is its geometric mean."""
    low, high = (math.log(rate) for rate in span)
    ends = (low, high) if number != 1 else (0.5 * (low + high),) * 2
    return torch.linspace(*ends, number, dtype=torch.float64).exp()


def propagator(drift: Tensor, dt: float) -> tuple[Tensor, Tensor]:
    """Return ``E = exp(−A Δt)`` and lower triangular ``S`` with ``S Sᵀ = 1 − E Eᵀ``.

    Parameters
    ----------
    drift : Tensor [n_types, K + 1, K + 1]
        (1/ps)
    dt : float
        (ps)

    Returns
    -------
    E, S : Tensor [n_types, K + 1, K + 1]
        The step is ``s ← E s + √(kT/m) S ξ`` with standard normal ξ.
    """
    e = torch.matrix_exp(-drift * dt)
    return e, torch.linalg.cholesky(torch.eye(drift.shape[-1], dtype=drift.dtype) - e @ e.mT)


def running_friction_on_grid(drift: Tensor, step: float, number: int) -> Tensor:
    """Return :func:`running_friction` at ``0, step … (number − 1) step``, from powers of one matrix exponential.

    Parameters
    ----------
    drift : Tensor [n_types, K + 1, K + 1]
        (1/ps)
    step : float
        (ps)
    number : int

    Returns
    -------
    Tensor [n_types, number]
        (1/ps)
    """
    c, auxiliary = drift[:, 0, 1:], drift[:, 1:, 1:]
    decayed, power = c[:, None], torch.matrix_exp(-auxiliary * step)
    while decayed.shape[1] < number:  # each iteration doubles the number of times
        decayed, power = torch.cat([decayed, decayed @ power], 1), power @ power
    integral = (c[:, None] - decayed[:, :number]) @ torch.linalg.solve(auxiliary, c)[..., None]
    return drift[:, 0, :1] + integral[..., 0]


def integrated_friction(drift: Tensor) -> Tensor:
    """Return the integrated friction ``1 / (A⁻¹)_00 = γ_0 + cᵀ (α + w)⁻¹ c`` [n_types] (1/ps).

    ``drift`` is A [n_types, K + 1, K + 1] (1/ps).
    """
    return 1.0 / torch.linalg.inv(drift)[:, 0, 0]


def memory_kernel(drift: Tensor, times: Tensor) -> Tensor:
    """Return the memory kernel without its instantaneous part, ``cᵀ exp(−(α + w) t) c``.

    Parameters
    ----------
    drift : Tensor [n_types, K + 1, K + 1]
        (1/ps)
    times : Tensor [T]
        (ps)

    Returns
    -------
    Tensor [n_types, T]
        (1/ps²)
    """
    c = drift[:, 0, 1:]
    decay = torch.matrix_exp(-drift[:, None, 1:, 1:] * times[None, :, None, None])
    return torch.einsum("ak,atkl,al->at", c, decay, c)


def running_friction(drift: Tensor, times: Tensor) -> Tensor:
    """Return the running integral of the kernel, ``γ_0 + ∫_0^t K(s) ds = γ_0 + cᵀ (1 − exp(−(α + w) t)) (α + w)⁻¹ c``.

    Parameters
    ----------
    drift : Tensor [n_types, K + 1, K + 1]
        (1/ps)
    times : Tensor [T]
        (ps)

    Returns
    -------
    Tensor [n_types, T]
        (1/ps)
    """
    c = drift[:, 0, 1:]
    auxiliary = drift[:, None, 1:, 1:]
    one = torch.eye(auxiliary.shape[-1], dtype=drift.dtype)
    decayed = one - torch.matrix_exp(-auxiliary * times[None, :, None, None])
    integral = torch.einsum("ak,atkl,al->at", c, decayed @ torch.linalg.inv(auxiliary), c)
    return drift[:, 0, :1] + integral
