"""Pairwise friction with memory, which conserves momentum and so reproduces collective motion."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .base import Friction, TrainableFriction
from .generalized_langevin import initial_rates
from .neighborhood import Neighborhood
from .pairwise_rollout import pair_rollout
from .radial_functions import functions_at, slow_friction

FLOOR_RATIO = 3.0
"""Ratio of the lowest decay rates of consecutive auxiliary vectors."""


class PairFriction(TrainableFriction):
    r"""Momentum-conserving friction with memory, one set of parameters per pair of bead types.

    Every pair of beads closer than the cutoff carries K auxiliary vectors σ_k, antisymmetric in the two beads.
    With u = v_i − v_j, the unit vector r̂ between them and the pair's mass μ = 2 m_i m_j / (m_i + m_j), which is m
    for two equal beads,

        m_i dv_i = F_i dt − Σ_j μ [T_0² u + Σ_k T_k σ_k] dt + Σ_j √(2 kT μ) T_0 dW_ij,

        dσ_k = [T_k u − Σ_l A_kl σ_l] dt + √(2 α_k kT / μ) dW_k,

        T_k(r) = f_k∥(r) r̂ r̂ᵀ + f_k⊥(r) (1 − r̂ r̂ᵀ),   A = diag(α_1 … α_K) + antisymmetric w.

    The fluctuation–dissipation theorem holds by construction. In the variables √(m_i/kT) v_i and √(μ/kT) σ_k the linear
    part is ds = −M s dt + B dW. The coupling of the velocities to σ_k, k ≥ 1, is minus the transpose of the coupling of
    σ_k to the velocities, and w is antisymmetric. The remaining parts of M + Mᵀ are 2 T_0² between velocities and 2 α_k
    between the σ_k, and these equal B Bᵀ. So the stationary covariance is kT/m in v and kT/μ in σ for every value of
    the parameters, and positions have the distribution exp(−U/kT). Forces act on both beads of a pair with opposite
    signs, so momentum is conserved. The relative velocity of two isolated beads decays with 2 (T_0² + memory) for all
    masses, because μ is twice the reduced mass.

    A bead may have single-particle friction γ in addition, ``− m γ v dt + √(2 kT m γ) dW``, as in an implicit solvent.
    It balances its own noise, and does not conserve momentum. It is given, not trained.

    The memory kernel of u is ``μ [2 T_0² δ(t) + Σ_kl T_k exp(−A t)_kl T_l]``.

    ==========  ==============================  ==================
    symbol      attribute                       unit
    ==========  ==============================  ==================
    f_0         ``splines[:, 0]``               ps^(−1/2)
    f_k         ``splines[:, k]``               1/ps
    α_k         ``floors + exp(log_rates)``     1/ps
    w_kl        ``10 rotations``                1/ps
    γ           ``self_friction``               1/ps
    ==========  ==============================  ==================

    The trained parameters of ``splines`` are ``shapes``, in units of ``unit``, the magnitude of the initial
    coefficients.

    The f_k are cubic B-splines that vanish to second order at the cutoff
    (:func:`openmm_cgadv.potentials.splines.spline_weights`). Pairs of types a ≤ b are in the order of
    ``torch.triu_indices``.

    Parameters
    ----------
    n_types : int
        Number of bead types.
    n_auxiliary : int
        Number K of auxiliary vectors of a pair; K = 0 is dissipative particle dynamics.
    friction : float
        Initial integrated friction ``T_0² + ∫ memory dt`` of a pair at ``r_min`` (1/ps), half of it without memory. It
        decreases with the square of the distance to the cutoff.
    r_min : float or sequence of float
        Start of the splines, for all pairs of types or for each (nm).
    r_cut : float
        Cutoff of the friction (nm).
    n_basis : int
        Number of splines of a function.
    floor : float
        Lowest decay rate of the first auxiliary vector (1/ps); that of each further vector is three times larger. A
        training window does not determine memory that is slower than the window, and the floor excludes it. Of two
        vectors with almost equal rates, a window determines only the sum of the squared functions.
    rates : (float, float)
        Slowest and fastest initial decay rate above the floor (1/ps).
    self_friction : float
        γ of beads of all types (1/ps).
    neighborhood : Neighborhood, optional
        Neighbours of a bead in the reference, for the friction of a bead.

    Raises
    ------
    ValueError
        The splines have no range, their number is not that of the pairs of types, or γ is negative.
    """

    floors: Tensor
    r_min: Tensor
    self_friction: Tensor
    unit: Tensor

    def __init__(
        self,
        n_types: int,
        n_auxiliary: int,
        friction: float,
        r_min: float | Sequence[float] = 0.24,
        r_cut: float = 0.44,
        n_basis: int = 8,
        floor: float = 0.0,
        rates: tuple[float, float] = (3.0, 40.0),
        self_friction: float = 0.0,
        neighborhood: Neighborhood | None = None,
    ):
        super().__init__()
        self.neighborhood = neighborhood
        if not isinstance(self_friction, (int, float)) or not 0 <= self_friction < math.inf:
            raise ValueError(
                f"self_friction: found {self_friction!r}, expected one number of 0/ps or more"
            )
        k, pairs = n_auxiliary, n_types * (n_types + 1) // 2
        starts = (
            [float(r_min)] * pairs if isinstance(r_min, (int, float)) else [float(r) for r in r_min]
        )
        if len(starts) != pairs:
            raise ValueError(
                f"r_min: found {len(starts)} numbers, expected one for each of {pairs} pairs of bead types"
            )
        if not 0 <= min(starts) <= max(starts) < r_cut:
            raise ValueError(
                f"r_min: found {starts} nm, expected numbers from 0 to the cutoff of {r_cut} nm"
            )
        self.floor = float(floor)
        self.register_buffer(
            "floors", self.floor * FLOOR_RATIO ** torch.arange(k, dtype=torch.float64)
        )
        self.r_cut = float(r_cut)
        self.register_buffer("r_min", torch.tensor(starts, dtype=torch.float64))
        gamma = torch.full([n_types], float(self_friction), dtype=torch.float64)
        self.register_buffer("self_friction", gamma, persistent=False)
        spread = initial_rates(k, rates)
        instant = friction if k == 0 else 0.5 * friction
        slow = torch.full([k], 0.5 * friction / max(k, 1), dtype=torch.float64)
        amplitudes = torch.cat(
            [torch.tensor([instant], dtype=torch.float64), slow * (spread + self.floors)]
        ).sqrt()
        # Spline c is centred at knot c − 1, so this is a straight line from 1 at r_min to 0 at r_cut.
        line = 1.0 - (torch.arange(n_basis, dtype=torch.float64) - 1.0) / n_basis
        self.register_buffer(
            "unit", amplitudes[:, None, None].expand(pairs, -1, 2, n_basis).clone()
        )
        self.shapes = torch.nn.Parameter(line.repeat(pairs, k + 1, 2, 1))
        self.log_rates = torch.nn.Parameter(spread.log().repeat(pairs, 1))
        self.rotations = torch.nn.Parameter(
            torch.zeros([pairs, k * (k - 1) // 2], dtype=torch.float64)
        )

    @property
    def n_types(self) -> int:
        return int((2 * len(self.r_min)) ** 0.5)

    @property
    def n_auxiliary(self) -> int:
        return self.log_rates.shape[1]

    @property
    def splines(self) -> Tensor:
        """Coefficients of f_k∥ and f_k⊥ [n_type_pairs, K + 1, 2, n_basis] (ps^(−1/2), then 1/ps)."""
        return self.unit * self.shapes

    def memory(self) -> Tensor:
        """Return the matrices A [n_type_pairs, K, K] (1/ps)."""
        k = self.n_auxiliary
        upper = torch.zeros([len(self.r_min), k, k], dtype=torch.float64)
        row, column = torch.triu_indices(k, k, 1)
        upper[:, row, column] = 10.0 * self.rotations
        return torch.diag_embed(self.floors + self.log_rates.exp()) + upper - upper.mT

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return ``splines``, the matrices A, ``r_min`` and ``self_friction``."""
        return self.splines, self.memory(), self.r_min, self.self_friction

    def functions(self, r: Tensor) -> Tensor:
        """Return f_k∥ and f_k⊥ [n_type_pairs, K + 1, 2, R] (ps^(−1/2), then 1/ps) at distances [R] (nm)."""
        return functions_at(self.splines, self.r_min, self.r_cut, r)

    def friction(self, r: Tensor) -> Tensor:
        """Return the integrated friction ``f_0² + fᵀ A⁻¹ f`` at distances [R] (nm).

        It is [n_type_pairs, 2, R] (1/ps), parallel and perpendicular to the pair vector.
        """
        return slow_friction(self.splines, self.memory(), self.r_min, self.r_cut, r)

    def start(self, masses: Tensor, kT: float, generator: torch.Generator) -> Tensor:
        """Draw velocities [N, 1, 3] (nm/ps) from equilibrium, with zero total momentum where friction conserves it."""
        v = (kT / masses).sqrt()[:, None] * torch.randn(
            [len(masses), 3], generator=generator, dtype=torch.float64
        )
        if not self.self_friction.any():
            v = v - masses @ v / masses.sum()
        return v[:, None]

    def roll_out(
        self, positions: Tensor, state: Tensor, boxes: Tensor, *, dt: float, **options: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Integrate replicas with :func:`openmm_cgadv.dynamics.pair_rollout`, which draws the initial auxiliary vectors."""
        frames, positions, velocities = pair_rollout(
            positions, state[:, :, 0], boxes, friction=self, dt=dt, **options
        )
        return frames, positions, velocities[:, :, None]

    def rates(self) -> Tensor:
        return torch.diagonal(self.memory(), dim1=1, dim2=2)

    def bead_friction(self) -> Tensor:
        """Return the friction [n_types] (1/ps) of a bead of each type whose neighbours move independently of it."""
        near = _required(self.neighborhood)
        return near.mean(self.friction(near.r)) + self.self_friction

    def running_friction(self, times: Tensor) -> Tensor:
        """Return the integral of the kernel of such a bead up to some times [T] (ps), [n_types, T] (1/ps)."""
        near = _required(self.neighborhood)
        memory, f = self.memory(), self.functions(near.r)
        one = torch.eye(self.n_auxiliary, dtype=memory.dtype)
        decayed = one - torch.matrix_exp(-memory[:, None] * times[None, :, None, None])
        integral = torch.einsum(
            "pkdr,ptkl,pldr->pdrt", f[:, 1:], decayed @ torch.linalg.inv(memory)[:, None], f[:, 1:]
        )
        return near.mean(f[:, 0, :, :, None] ** 2 + integral) + self.self_friction[:, None]

    def export(self) -> PairFrictionParameters:
        splines, memory = self.splines.detach().numpy(), self.memory().detach().numpy()
        gamma = tuple(self.self_friction.tolist())
        return PairFrictionParameters(
            tuple(self.r_min.tolist()), self.r_cut, splines, memory, gamma
        )


@dataclass(frozen=True, eq=False)
class PairFrictionParameters(Friction):
    """The parameters of a :class:`PairFriction` as numbers.

    Attributes
    ----------
    r_min : tuple of float
        Start of the splines, one for each pair of bead types (nm).
    r_cut : float
        Cutoff of the friction (nm).
    splines : ndarray [n_type_pairs, K + 1, 2, n_basis]
        Coefficients of f_k parallel and perpendicular to the pair vector; f_0 in ps^(−1/2), the others in 1/ps.
    memory : ndarray [n_type_pairs, K, K]
        Matrices A, diagonal decay rates plus an antisymmetric matrix (1/ps).
    self_friction : tuple of float
        Single-particle friction of each bead type (1/ps); none if empty.

    Raises
    ------
    ValueError
        Shapes do not match each other, the splines have no range, a matrix is not of that form, or friction is
        negative.
    """

    name = "pair"
    title = "pair-friction"
    schema = 2
    section = "pair_friction"
    needs = (
        "the friction of this model acts between pairs of beads, which only the OpenMM plugin of openmm_cgadv can "
        "integrate, on the platforms Reference and CPU"
    )
    between_beads = True

    r_min: tuple[float, ...]
    r_cut: float
    splines: np.ndarray
    memory: np.ndarray
    self_friction: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "r_min", tuple(float(r) for r in self.r_min))
        object.__setattr__(self, "r_cut", float(self.r_cut))
        for name in ("splines", "memory"):
            object.__setattr__(self, name, np.array(getattr(self, name), dtype=np.float64))
        pairs = len(self.r_min)
        if pairs == 0 or self.n_types * (self.n_types + 1) != 2 * pairs:
            raise ValueError(
                f"r_min: found {pairs} numbers, expected one for each pair of bead types: 1, 3, 6, …"
            )
        if not 0 <= min(self.r_min) <= max(self.r_min) < self.r_cut < math.inf:
            raise ValueError(
                f"r_min: found {self.r_min} nm, expected numbers from 0 to the cutoff of {self.r_cut} nm"
            )
        gamma = tuple(float(g) for g in self.self_friction) or (0.0,) * self.n_types
        object.__setattr__(self, "self_friction", gamma)
        if len(gamma) != self.n_types or not all(0 <= g < math.inf for g in gamma):
            raise ValueError(
                f"self_friction: found {gamma}/ps, expected 0 or more for each of {self.n_types} bead types"
            )
        k = self.n_auxiliary
        if self.memory.shape != (pairs, k, k):
            raise ValueError(f"memory: found shape {self.memory.shape}, expected ({pairs}, K, K)")
        shape = self.splines.shape
        if len(shape) != 4 or shape[:3] != (pairs, k + 1, 2) or shape[3] == 0:
            raise ValueError(
                f"splines: found shape {shape}, expected ({pairs}, {k + 1}, 2, n_basis)"
            )
        for name in ("splines", "memory"):
            if not np.isfinite(getattr(self, name)).all():
                raise ValueError(f"{name}: found a value that is not finite, expected numbers")
        rates = np.diagonal(self.memory, axis1=1, axis2=2)
        if (rates <= 0).any():
            raise ValueError(
                f"memory: found a decay rate of {rates.min():g}/ps, expected more than 0"
            )
        symmetric = self.memory + self.memory.swapaxes(1, 2) - 2.0 * rates[:, :, None] * np.eye(k)
        if (abs(symmetric) > 1e-9 * abs(self.memory).max(initial=0.0)).any():
            raise ValueError(
                "memory: found off-diagonal elements with a symmetric part, expected antisymmetric ones"
            )

    @property
    def n_types(self) -> int:
        return int((2 * len(self.r_min)) ** 0.5)

    @property
    def n_auxiliary(self) -> int:
        return self.memory.shape[-1] if self.memory.ndim else 0

    @property
    def reach(self) -> float:
        return self.r_cut

    @property
    def conserves_momentum(self) -> bool:
        """Whether there is no single-particle friction."""
        return not any(self.self_friction)

    @property
    def required_schema(self) -> int:
        """First schema version of model bundles that can hold these parameters: 3 with ``self_friction``."""
        return 2 if self.conserves_momentum else 3

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return what :meth:`PairFriction.tensors` returns."""
        return (
            torch.tensor(self.splines, dtype=torch.float64),
            torch.tensor(self.memory, dtype=torch.float64),
            torch.tensor(self.r_min, dtype=torch.float64),
            torch.tensor(self.self_friction, dtype=torch.float64),
        )

    def functions(self, r: np.ndarray) -> np.ndarray:
        """Return f_k∥ and f_k⊥ [n_type_pairs, K + 1, 2, R] (ps^(−1/2), then 1/ps) at distances [R] (nm)."""
        splines, _, r_min, _ = self.tensors()
        return functions_at(
            splines, r_min, self.r_cut, torch.as_tensor(r, dtype=torch.float64)
        ).numpy()

    def friction(self, r: np.ndarray) -> np.ndarray:
        """Return the integrated friction [n_type_pairs, 2, R] (1/ps) at distances [R] (nm)."""
        splines, memory, r_min, _ = self.tensors()
        return slow_friction(
            splines, memory, r_min, self.r_cut, torch.as_tensor(r, dtype=torch.float64)
        ).numpy()

    def pair_ranges(self) -> list[tuple[float, float]]:
        return [(start, self.r_cut) for start in self.r_min]

    def bead_friction(self, neighborhood: Neighborhood | None = None) -> Tensor:
        """Return the friction [n_types] (1/ps) of a bead of each type whose neighbours move independently of it."""
        near = _required(neighborhood)
        pair = near.mean(torch.from_numpy(self.friction(near.r.numpy())))
        return pair + torch.tensor(self.self_friction, dtype=torch.float64)

    def instantaneous_friction(self, neighborhood: Neighborhood | None = None) -> Tensor:
        near = _required(neighborhood)
        f0 = torch.from_numpy(self.functions(near.r.numpy())[:, 0])
        return near.mean(f0**2) + torch.tensor(self.self_friction, dtype=torch.float64)

    def memory_kernel(self, times: Tensor, neighborhood: Neighborhood | None = None) -> Tensor:
        """Return the memory kernel [n_types, T] (1/ps²) of a bead whose neighbours move independently of it."""
        near = _required(neighborhood)
        f = torch.from_numpy(self.functions(near.r.numpy())[:, 1:])
        decay = torch.matrix_exp(-torch.from_numpy(self.memory)[:, None] * times[:, None, None])
        return near.mean(torch.einsum("pkdr,ptkl,pldr->pdrt", f, decay, f))

    def scalars(
        self, type_names: tuple[str, ...], neighborhood: Neighborhood | None = None
    ) -> dict[str, float]:
        """Return the rates ``alpha_k`` (1/ps) and the largest absolute values of the functions f_k.

        The latter are ``along_k`` and ``across_k``, parallel and perpendicular to a pair.
        """
        labels = [f"{a}-{b}" for i, a in enumerate(type_names) for b in type_names[i:]]
        r = _required(neighborhood).r.numpy()
        values: dict[str, float] = {}
        for label, start, rates, curve in zip(
            labels, self.r_min, self.memory, abs(self.functions(r))
        ):
            suffix = f"_{label}" if len(labels) > 1 else ""
            for k, (along, across) in enumerate(curve[..., r >= start].max(-1)):
                values |= {f"along_{k}{suffix}": float(along), f"across_{k}{suffix}": float(across)}
            values |= {
                f"alpha_{k + 1}{suffix}": float(rate) for k, rate in enumerate(np.diag(rates))
            }
        return values

    def remark(self) -> str:
        if self.conserves_momentum:
            return ""
        gamma = ", ".join(f"{g:g}" for g in dict.fromkeys(self.self_friction))
        return f"and single-particle friction of {gamma}/ps"

    def arrays(self) -> dict[str, np.ndarray]:
        return {
            "splines": self.splines,
            "memory": self.memory,
            "r_min": np.array(self.r_min),
            "r_cut": np.array(self.r_cut),
            "self_friction": np.array(self.self_friction),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> PairFrictionParameters:
        gamma = tuple(arrays["self_friction"]) if "self_friction" in arrays else ()
        return cls(
            tuple(arrays["r_min"]),
            float(arrays["r_cut"]),
            arrays["splines"],
            arrays["memory"],
            gamma,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the parameters as plain JSON types, without ``self_friction`` if it is 0."""
        gamma = {} if self.conserves_momentum else {"self_friction": list(self.self_friction)}
        return {
            "r_min": list(self.r_min),
            "r_cut": self.r_cut,
            "splines": self.splines.tolist(),
            "memory": self.memory.tolist(),
            **gamma,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> PairFrictionParameters:
        splines = np.array(data["splines"], dtype=np.float64)
        shape = (len(splines), splines.shape[1] - 1, splines.shape[1] - 1)
        memory = np.array(data["memory"], dtype=np.float64).reshape(shape)
        return cls(
            data["r_min"], data["r_cut"], splines, memory, tuple(data.get("self_friction", ()))
        )


def _required(neighborhood: Neighborhood | None) -> Neighborhood:
    """Return the neighbourhood, or raise ValueError if there is none."""
    if neighborhood is None:
        raise ValueError(
            "neighborhood: found none, expected the number of neighbours, which determines the friction of a bead"
        )
    return neighborhood
