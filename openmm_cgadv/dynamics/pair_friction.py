"""Pairwise friction with memory: friction between neighbours, which keeps momentum and so the collective motion."""

from __future__ import annotations

import torch
from torch import Tensor

from ..potentials.splines import spline_weights


class PairFriction(torch.nn.Module):
    r"""Momentum-conserving friction with memory, one set of parameters per pair of bead types.

    Every pair of beads closer than the cutoff carries K auxiliary vectors σ_k, antisymmetric in the two beads.
    With u = v_i − v_j, the unit vector r̂ between them and the pair's mass μ = 2 m_i m_j / (m_i + m_j), which is m
    for two equal beads,

        m_i dv_i = F_i dt − Σ_j μ [T_0² u + Σ_k T_k σ_k] dt + Σ_j √(2 kT μ) T_0 dW_ij,

        dσ_k = [T_k u − Σ_l A_kl σ_l] dt + √(2 α_k kT / μ) dW_k,

        T_k(r) = f_k∥(r) r̂ r̂ᵀ + f_k⊥(r) (1 − r̂ r̂ᵀ),   A = diag(α_1 … α_K) + antisymmetric w.

    Why fluctuation and dissipation balance: in the variables √(m_i/kT) v_i and √(μ/kT) σ_k the linear part is
    ds = −M s dt + B dW. What T_k, k ≥ 1, puts into the velocities is minus the transpose of what it puts into the
    σ_k, for the force on a pair is weighted with the same μ as the square of its σ; so is w antisymmetric. What is
    left of M + Mᵀ is 2 T_0² between velocities, 2 α_k between the σ_k: just B Bᵀ. So the stationary covariance
    is kT/m in v and kT/μ in σ for every value of the parameters, and positions keep the distribution exp(−U/kT).
    Forces act on both beads of a pair with opposite signs: momentum is conserved. The relative velocity of two beads
    alone decays with 2 (T_0² + memory) for all masses, which is why μ is twice the reduced mass.

    Seen from u the friction of a pair has the kernel ``μ [2 T_0² δ(t) + Σ_kl T_k exp(−A t)_kl T_l]``.

    ==========  ==============================  ==================
    symbol      attribute                       unit
    ==========  ==============================  ==================
    f_0         ``splines[:, 0]``               ps^(−1/2)
    f_k         ``splines[:, k]``               1/ps
    α_k         ``floor + exp(log_rates)``      1/ps
    w_kl        ``10 rotations``                1/ps
    ==========  ==============================  ==================

    Functions are cubic B-splines that vanish to second order at the cutoff
    (:func:`openmm_cgadv.potentials.splines.spline_weights`). Pairs of types a ≤ b are in the order of
    ``torch.triu_indices``.

    Parameters
    ----------
    n_types : int
        Number of bead types.
    n_auxiliary : int
        Number K of auxiliary vectors a pair; without any this is dissipative particle dynamics.
    friction : float
        Friction ``T_0² + ∫ memory dt`` of a pair at ``r_min`` to start from (1/ps), half of it without memory. It
        falls with the square of the distance to the cutoff.
    r_min : float or sequence of float
        Start of the splines, for all pairs of types or for each (nm).
    r_cut : float
        Range of the friction (nm).
    n_basis : int
        Number of splines a function.
    floor : float
        Lowest rate of an auxiliary variable (1/ps). Memory slower than a training window cannot be seen in
        it, and is ruled out this way.

    Raises
    ------
    ValueError
        If a range is empty or there is not one for each pair of types.
    """

    def __init__(self, n_types: int, n_auxiliary: int, friction: float, r_min=0.24, r_cut: float = 0.44,
                 n_basis: int = 8, floor: float = 0.0):  # fmt: skip
        super().__init__()
        k, pairs = n_auxiliary, n_types * (n_types + 1) // 2
        starts = [float(r_min)] * pairs if isinstance(r_min, (int, float)) else [float(r) for r in r_min]
        if len(starts) != pairs:
            raise ValueError(f"r_min: found {len(starts)} numbers, expected one for each of {pairs} pairs of bead types")
        if not 0 <= min(starts) <= max(starts) < r_cut:
            raise ValueError(f"r_min: found {starts} nm, expected numbers from 0 to the range of {r_cut} nm")
        self.floor = float(floor)
        self.r_cut = float(r_cut)
        self.register_buffer("r_min", torch.tensor(starts, dtype=torch.float64))
        rates = torch.logspace(0.5, 1.6, k, dtype=torch.float64) if k != 1 else torch.tensor([8.0], dtype=torch.float64)
        instant = friction if k == 0 else 0.5 * friction
        slow = 0.5 * friction / max(k, 1) * (rates + self.floor)
        amplitudes = torch.cat([torch.tensor([instant], dtype=torch.float64), slow]).sqrt()
        # Spline c is centred at knot c − 1: this is a straight line from 1 at r_min down to 0 at r_cut.
        line = 1.0 - (torch.arange(n_basis, dtype=torch.float64) - 1.0) / n_basis
        self.splines = torch.nn.Parameter((amplitudes[:, None, None] * line).repeat(pairs, 1, 2, 1))
        self.log_rates = torch.nn.Parameter(rates.log().repeat(pairs, 1))
        self.rotations = torch.nn.Parameter(torch.zeros([pairs, k * (k - 1) // 2], dtype=torch.float64))

    @property
    def n_types(self) -> int:
        return int((2 * len(self.r_min)) ** 0.5)

    @property
    def n_auxiliary(self) -> int:
        return self.log_rates.shape[1]

    def memory(self) -> Tensor:
        """The matrices A [n_type_pairs, K, K] (1/ps)."""
        k = self.n_auxiliary
        upper = torch.zeros([len(self.r_min), k, k], dtype=torch.float64)
        row, column = torch.triu_indices(k, k, 1)
        upper[:, row, column] = 10.0 * self.rotations
        return torch.diag_embed(self.floor + self.log_rates.exp()) + upper - upper.mT

    def functions(self, r: Tensor) -> Tensor:
        """f_k∥ and f_k⊥ [n_type_pairs, K + 1, 2, R] at distances [R] (nm)."""
        pairs = torch.arange(len(self.r_min)).repeat_interleave(len(r))
        f = radial_functions(self.splines, pairs, self.r_min, self.r_cut, r.repeat(len(self.r_min)))
        return f.unflatten(0, [len(self.r_min), len(r)]).movedim(1, -1)

    def friction(self, r: Tensor) -> Tensor:
        """Friction of slow relative motion, ``f_0² + fᵀ A⁻¹ f``, along and across [n_type_pairs, 2, R] (1/ps)."""
        f = self.functions(r)
        return f[:, 0] ** 2 + torch.einsum("pkdr,pkl,pldr->pdr", f[:, 1:], torch.linalg.inv(self.memory()), f[:, 1:])


def radial_functions(splines: Tensor, kinds: Tensor, r_min: Tensor, r_cut: float, r: Tensor) -> Tensor:
    """Values of the functions of M pairs of beads.

    Parameters
    ----------
    splines : Tensor [n_type_pairs, K + 1, 2, n_basis]
    kinds : Tensor [M] of int64
        Pair of types of each.
    r_min : Tensor [n_type_pairs]
        (nm)
    r_cut : float
        (nm)
    r : Tensor [M]
        Distances (nm); functions are zero from ``r_cut`` on.

    Returns
    -------
    Tensor [M, K + 1, 2]
        Along and across.
    """
    first, weights = spline_weights(r, r_min[kinds], r_cut, splines.shape[-1])
    padded = torch.nn.functional.pad(splines, [0, 3]).movedim(-1, 1)
    used = padded[kinds[:, None], first[:, None] + torch.arange(4, device=first.device)]
    values = (weights[:, :, None, None] * used).sum(1)
    return torch.where((r < r_cut)[:, None, None], values, torch.zeros_like(values))
