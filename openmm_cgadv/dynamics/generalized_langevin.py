"""Generalized Langevin dynamics: friction with memory, by auxiliary variables that ride on every bead."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class GeneralizedLangevin(torch.nn.Module):
    r"""Memory in extended Markovian form, one set of parameters per bead type.

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
        Number K of auxiliary variables a degree of freedom; without any this is Langevin dynamics.
    friction : float or sequence of float
        Effective friction ∫K dt to start from, of all bead types or of each (1/ps).
    floor : float
        Lowest rate of an auxiliary variable (1/ps). Memory slower than a training window cannot be seen in
        it, and is ruled out this way.
    rates : (float, float)
        Slowest and fastest rate of auxiliary variables above the floor to start from (1/ps).
    """

    def __init__(self, n_types: int, n_auxiliary: int, friction, floor: float = 0.0, rates=(3.0, 40.0)):
        super().__init__()
        k = n_auxiliary
        self.floor = float(floor)
        total = torch.as_tensor(friction, dtype=torch.float64).broadcast_to([n_types])
        # Half of the friction without memory, half spread evenly over rates from slow to fast.
        instant = total if k == 0 else 0.5 * total
        spread = initial_rates(k, rates)
        couplings = (0.5 * total[:, None] / max(k, 1) * (spread + self.floor)).sqrt()
        self.log_friction = torch.nn.Parameter(instant.log())
        self.log_rates = torch.nn.Parameter(spread.log().repeat(n_types, 1))
        self.log_couplings = torch.nn.Parameter(couplings.log())
        self.rotations = torch.nn.Parameter(torch.zeros([n_types, k * (k - 1) // 2], dtype=torch.float64))

    @property
    def n_types(self) -> int:
        return self.log_friction.shape[0]

    @property
    def n_auxiliary(self) -> int:
        return self.log_rates.shape[1]

    def drift(self) -> Tensor:
        """The matrices A [n_types, K + 1, K + 1] (1/ps)."""
        k = self.n_auxiliary
        diagonal = torch.cat([self.log_friction.exp()[:, None], self.floor + self.log_rates.exp()], dim=1)
        upper = torch.zeros([self.n_types, k + 1, k + 1], dtype=torch.float64)
        row, column = torch.triu_indices(k, k, 1) + 1
        upper[:, 0, 1:] = self.log_couplings.exp()
        upper[:, row, column] = 10.0 * self.rotations
        return torch.diag_embed(diagonal) + upper - upper.mT

    def propagator(self, dt: float) -> tuple[Tensor, Tensor]:
        """Exact Ornstein–Uhlenbeck matrices of one time step (ps); see :func:`propagator`."""
        return propagator(self.drift(), dt)

    def bead_friction(self) -> Tensor:
        """∫K dt of each bead type [n_types] (1/ps), what a slow probe feels."""
        return effective_friction(self.drift())

    def running_friction(self, times: Tensor) -> Tensor:
        """∫K dt up to some times (ps) [n_types, T] (1/ps); see :func:`running_friction`."""
        return running_friction(self.drift(), times)


def initial_rates(number: int, span: tuple[float, float]) -> Tensor:
    """Rates [number] from the slowest to the fastest, evenly spaced in their logarithm; one alone is in the middle."""
    low, high = (math.log(rate) for rate in span)
    ends = (low, high) if number != 1 else (0.5 * (low + high),) * 2
    return torch.linspace(*ends, number, dtype=torch.float64).exp()


class Langevin(GeneralizedLangevin):
    """Langevin dynamics without memory, one friction per bead type."""

    def __init__(self, n_types: int, friction: float):
        super().__init__(n_types, 0, friction)


def propagator(drift: Tensor, dt: float) -> tuple[Tensor, Tensor]:
    """``E = exp(−A Δt)`` and lower triangular ``S`` with ``S Sᵀ = 1 − E Eᵀ``.

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
    """:func:`running_friction` at ``0, step … (number − 1) step``, by powers of one exponential: tens of times faster.

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
    c, hidden = drift[:, 0, 1:], drift[:, 1:, 1:]
    left, power = c[:, None], torch.matrix_exp(-hidden * step)
    while left.shape[1] < number:  # twice as many each time
        left, power = torch.cat([left, left @ power], 1), power @ power
    integral = (c[:, None] - left[:, :number]) @ torch.linalg.solve(hidden, c)[..., None]
    return drift[:, 0, :1] + integral[..., 0]


def effective_friction(drift: Tensor) -> Tensor:
    """``1 / (A⁻¹)_00 = γ_0 + cᵀ (α + w)⁻¹ c`` (1/ps) of drift matrices [n_types, K + 1, K + 1]."""
    return 1.0 / torch.linalg.inv(drift)[:, 0, 0]


def memory_kernel(drift: Tensor, times: Tensor) -> Tensor:
    """The part of the memory kernel that is not instantaneous, ``cᵀ exp(−(α + w) t) c``.

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
    """``γ_0 + ∫_0^t K(s) ds = γ_0 + cᵀ (1 − exp(−(α + w) t)) (α + w)⁻¹ c``: what a probe that moves with a
    period of t feels.

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
    hidden = drift[:, None, 1:, 1:]
    one = torch.eye(hidden.shape[-1], dtype=drift.dtype)
    lost = one - torch.matrix_exp(-hidden * times[None, :, None, None])
    integral = torch.einsum("ak,atkl,al->at", c, lost @ torch.linalg.inv(hidden), c)
    return drift[:, 0, :1] + integral
