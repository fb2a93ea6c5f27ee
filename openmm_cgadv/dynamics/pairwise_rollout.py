r"""The reparameterized rollout with pairwise friction and memory.

One step, with h = Δt/2:

    v ← v + Δt F(x)/m;   x ← x + h v;   s ← O s;   x ← x + h v,

where s are the velocities and the auxiliary vectors σ of all pairs inside the friction's cutoff at the midpoint
position. O is the implicit midpoint rule for ``ds = −M s dt + B dW`` (:class:`~openmm_cgadv.dynamics.PairFriction`),

    s̄ = (1 + h M)⁻¹ (s + N/2),   s ← 2 s̄ − s,   ⟨N Nᵀ⟩ = Δt B Bᵀ,

a Cayley transform, which keeps the equilibrium covariance exactly for every M and Δt. The σ of each pair are
eliminated with C = (1 + h A)⁻¹. The remaining equations for the velocities are

    m v̄ + Σ_pairs ± μ [h T_0² + h² Σ_kl T_k C_kl T_l] (v̄_i − v̄_j) = right side.

All T_k of a pair have the same principal axes, so the bracket is one number parallel and one perpendicular to the pair
vector. Both are quadratic forms of C and depend only on its symmetric part. The system is therefore symmetric and
positive definite also where A has an antisymmetric part. The conjugate gradient method solves it, starting from v. The
solution conserves momentum at every ``tolerance``. Since s̄ contains v̄, a step moves x by Δt v̄.

Single-particle friction γ is part of M: it adds h m γ v̄ to the left side, as a larger mass would.

A pair that enters the cutoff draws its σ from equilibrium, and so do all pairs at the start of a rollout. In
equilibrium σ is independent of x and v, so a rollout that resumes from the end of another one keeps equilibrium.

The adjoint solves the same system with the couplings between v and σ reversed. As in
:func:`openmm_cgadv.dynamics.rollout`, the adjoint of the positions is the sum of a direct part, the derivative of the
loss with respect to the frames, and a feedback part μ, which returns through the forces. Friction and noise are forces
that depend on positions, too. So half of a step's damping follows O, and half follows the potential's force:

    μ ← exp(−Δt/2τ) (μ + (∂O/∂x)ᵀ λ_s);   …   μ ← exp(−Δt/2τ) (μ − (Δt/m) H λ_v).

τ = ∞ is the exact adjoint.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .. import kernels
from ..errors import DivergedError
from ..potentials import Potential, PotentialSpec
from ..potentials.neighbors import minimum_image, neighbor_pairs
from ..potentials.terms.type_pairs import type_pairs
from .pairwise_noise import pair_noise
from .radial_functions import radial_functions
from .rollout import check_step, energy_and_forces

if TYPE_CHECKING:
    from .pairwise import PairFriction, PairFrictionParameters

MAX_ITERATIONS = 1000
"""Limit of the conjugate gradient iterations, far above those needed: the condition number is about 1 + friction · Δt."""
PairNoise = Callable[[int, int, Tensor, Tensor, int, bool], Tensor]
"""Function of (replica, step, i, j, count, fresh) that returns what :func:`pair_noise` returns."""


def pair_rollout(
    positions: Tensor,
    velocities: Tensor,
    boxes: Tensor,
    *,
    types: Tensor,
    masses: Tensor,
    spec: PotentialSpec,
    theta: Tensor,
    friction: PairFriction | PairFrictionParameters,
    kT: float,
    dt: float,
    frames: list[int],
    damping_time: float = math.inf,
    tolerance: float = 1e-4,
    seed: int | None = None,
    noise: PairNoise | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Integrate replicas of a system of beads and return the chosen frames.

    Gradients flow to positions, velocities, ``theta`` and the parameters of the friction.

    Parameters
    ----------
    positions : Tensor [B, N, 3]
        Initial positions of B replicas (nm), unwrapped; so are the frames.
    velocities : Tensor [B, N, 3]
        (nm/ps)
    boxes : Tensor [B, 3, 3]
        Box vectors in rows (nm).
    types, masses : Tensor [N]
        Bead types and masses (dalton).
    spec, theta
        The potential.
    friction : PairFriction or PairFrictionParameters
    kT : float
        (kJ/mol)
    dt : float
        Time step (ps).
    frames : list of int
        Increasing step numbers of the frames to return; 0 is the initial state. The last one ends the run.
    damping_time : float
        τ (ps), the adjoint damping time.
    tolerance : float
        Conjugate gradients stop at this ratio of the root mean square of the residual to that of the velocities and of
        the initial residual.
    seed : int, optional
        Seed of the noise, which is a function of the seed, the pair of beads and the step.
    noise : callable, optional
        Noise to replay instead; the rollout then runs in plain torch.

    Returns
    -------
    frames : Tensor [B, len(frames), N, 3]
        (nm)
    positions : Tensor [B, N, 3]
        Final positions (nm).
    velocities : Tensor [B, N, 3]
        Final velocities (nm/ps).

    Raises
    ------
    DivergedError
        If the trajectory explodes; the message names the step.
    """
    if (seed is None) == (noise is None):
        raise ValueError("pair_rollout: expected either a seed or a noise function")
    if friction.n_types != spec.n_types:
        raise ValueError(
            f"friction: found {friction.n_types} bead types, expected the potential's {spec.n_types}"
        )
    splines, memory, r_min, gamma = friction.tensors()
    if (
        seed is not None
        and kernels.available(spec)
        and friction.n_auxiliary <= kernels.MAX_PAIR_EXTRA
    ):
        return kernels.pair_rollout(
            positions,
            velocities,
            boxes,
            types,
            masses,
            kT,
            dt,
            frames,
            theta,
            spec,
            splines,
            memory,
            r_min,
            friction.r_cut,
            seed,
            damping_time,
            tolerance,
            self_friction=gamma,
        )
    if seed is not None:

        def noise(replica: int, *address):
            return pair_noise(seed, replica, *address)

    return _PairRollout.apply(
        positions,
        velocities,
        theta,
        splines,
        memory,
        boxes,
        types,
        masses,
        spec,
        r_min,
        gamma[types],
        friction.r_cut,
        kT,
        dt,
        frames,
        damping_time,
        tolerance,
        noise,
    )


@dataclass
class _Pairs:
    """The M pairs of beads inside the friction's cutoff, sorted, and the friction between them."""

    i: Tensor
    """First beads [M]."""
    j: Tensor
    """Second beads [M], ``i < j``."""
    unit: Tensor
    """Unit vectors r̂ from i to j [M, 3]."""
    type_pair: Tensor
    """Indices of the pairs of types [M]."""
    mass: Tensor
    """Masses μ [M, 1, 1] (dalton)."""
    f: Tensor
    """Values of f_k∥ and f_k⊥ [M, K + 1, 2] (ps^(−1/2) for k = 0, otherwise 1/ps)."""

    @classmethod
    def find(
        cls,
        x: Tensor,
        box: Tensor,
        types: Tensor,
        masses: Tensor,
        splines: Tensor,
        r_min: Tensor,
        r_cut: float,
    ):
        i, j, _, distance = neighbor_pairs(x.detach(), box, r_cut)
        # Beads at the same place have no direction between them and no friction.
        i, j = i[distance > 0], j[distance > 0]
        order = torch.argsort(i * len(x) + j)
        i, j = i[order], j[order]
        d = minimum_image(x[j] - x[i], box)
        r = d.norm(dim=-1)
        type_pair = type_pairs(types[i], types[j], int((2 * len(r_min)) ** 0.5))
        mass = (2.0 * masses[i] * masses[j] / (masses[i] + masses[j]))[:, None, None]
        return cls(
            i,
            j,
            d / r[:, None],
            type_pair,
            mass,
            radial_functions(splines, type_pair, r_min, r_cut, r),
        )

    def difference(self, v: Tensor) -> Tensor:
        """Return v_i − v_j [M, 1, 3]."""
        return (v[self.i] - v[self.j])[:, None]

    def force(self, g: Tensor, like: Tensor) -> Tensor:
        """Return the forces [N, 3] of pair forces that are g [M, 3] on i and −g on j."""
        return torch.zeros_like(like).index_add_(0, self.i, g).index_add_(0, self.j, -g)

    def apply_tensor(self, f: Tensor, x: Tensor) -> Tensor:
        """Return ``(f∥ r̂ r̂ᵀ + f⊥ (1 − r̂ r̂ᵀ)) x`` for f [M, k, 2] and x [M, k, 3]."""
        unit = self.unit[:, None]
        parallel = (x * unit).sum(-1, keepdim=True) * unit
        return f[..., :1] * parallel + f[..., 1:] * (x - parallel)

    def step_noise(self, xi: Tensor, memory: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """Return the noise N of the pair forces [M, 3] and of σ [M, K, 3]; ``scale`` is √(kT Δt)."""
        instant = (2.0 * self.mass).sqrt() * scale * self.apply_tensor(self.f[:, :1], xi[:, :1])
        rates = torch.diagonal(memory, dim1=-2, dim2=-1)[self.type_pair][..., None]
        return instant[:, 0], (2.0 * rates / self.mass).sqrt() * scale * xi[:, 1:]


def _solve(
    pairs: _Pairs,
    masses: Tensor,
    gamma: Tensor,
    h: float,
    inverse: Tensor,
    v: Tensor,
    sigma: Tensor,
    direction: float,
    start: Tensor,
    tolerance: float,
):
    """Solve ``(1 + h M) (v̄, σ̄) = (v, σ)``, or the adjoint system where ``direction`` is −1.

    ``gamma`` is the single-particle friction [N] (1/ps), ``inverse`` is ``C = (1 + h A)⁻¹`` of each pair [M, K, K], and
    conjugate gradients start from the velocities ``start`` [N, 3].
    """
    damping = (1.0 + h * gamma)[:, None]
    damped_masses = masses[:, None] * damping
    f0, f = pairs.f[:, :1], pairs.f[:, 1:]
    uncoupled = inverse @ sigma
    response = h * f0**2 + h * h * torch.einsum("mkd,mkl,mld->md", f, inverse, f)[:, None]
    right = (
        v / damping
        - pairs.force(direction * h * (pairs.mass * pairs.apply_tensor(f, uncoupled)).sum(1), v)
        / damped_masses
    )

    def multiply(v: Tensor):
        return (
            v
            + pairs.force((pairs.mass * pairs.apply_tensor(response, pairs.difference(v)))[:, 0], v)
            / damped_masses
        )

    def dot(a: Tensor, b: Tensor):
        return (damped_masses * a * b).sum()

    mean = start.clone()
    residual = right - multiply(mean)
    search, square = residual.clone(), dot(residual, residual)
    goal = tolerance**2 * (dot(start, start) + square)
    for _ in range(MAX_ITERATIONS):
        if not bool(square > goal):
            break
        image = multiply(search)
        length = square / dot(search, image)
        mean = mean + length * search
        residual = residual - length * image
        before, square = square, dot(residual, residual)
        search = residual + square / before * search
    else:
        raise DivergedError(
            f"friction: conjugate gradients did not reach the tolerance {tolerance:g} in {MAX_ITERATIONS} iterations"
        )
    return mean, uncoupled + direction * h * inverse @ pairs.apply_tensor(
        f, pairs.difference(mean).expand_as(uncoupled)
    )


class _PairRollout(torch.autograd.Function):
    """The rollout in plain torch, the reference of the compiled one."""

    @staticmethod
    def forward(
        ctx: Any,
        positions: Tensor,
        velocities: Tensor,
        theta: Tensor,
        splines: Tensor,
        memory: Tensor,
        boxes: Tensor,
        types: Tensor,
        masses: Tensor,
        spec: PotentialSpec,
        r_min: Tensor,
        gamma: Tensor,
        r_cut: float,
        kT: float,
        dt: float,
        frames: list[int],
        damping_time: float,
        tolerance: float,
        noise: PairNoise,
    ):
        potential = Potential(spec, theta, types)
        n, k, h, steps = positions.shape[1], memory.shape[-1], 0.5 * dt, frames[-1]
        inverse = torch.linalg.inv(torch.eye(k, dtype=memory.dtype) + h * memory)
        halves = positions.new_empty([2 * steps + 1, *positions.shape])
        beads = torch.arange(n)[gamma > 0]
        bead_noise = (0.5 * kT * dt * gamma / masses).sqrt()[beads, None]
        kept = {}
        final = torch.empty_like(velocities)
        for b in range(positions.shape[0]):
            x, v = positions[b], velocities[b]
            halves[0, b] = x
            # Indices of the last step's pairs and their σ; the last entry is a sentinel.
            numbers, sigma = torch.tensor([n * n]), positions.new_zeros([1, k, 3])
            for step in range(steps):
                _, force = energy_and_forces(potential, x, boxes[b])
                v = v + dt * force / masses[:, None]
                pairs = _Pairs.find(x + h * v, boxes[b], types, masses, splines, r_min, r_cut)
                number = pairs.i * n + pairs.j
                before = torch.searchsorted(numbers, number)
                known = numbers[before] == number
                fresh = (kT / pairs.mass).sqrt() * noise(b, step, pairs.i, pairs.j, k, True)
                sigma = torch.where(known[:, None, None], sigma[before], fresh)
                xi = noise(b, step, pairs.i, pairs.j, k + 1, False)
                force_noise, sigma_noise = pairs.step_noise(xi, memory, math.sqrt(kT * dt))
                right = v + 0.5 * pairs.force(force_noise, v) / masses[:, None]
                if len(beads):
                    # Its address is that of a pair of a bead with itself.
                    right = right.index_add(
                        0, beads, bead_noise * noise(b, step, beads, beads, 1, False)[:, 0]
                    )
                mean, sigma_mean = _solve(
                    pairs,
                    masses,
                    gamma,
                    h,
                    inverse[pairs.type_pair],
                    right,
                    sigma + 0.5 * sigma_noise,
                    1.0,
                    v,
                    tolerance,
                )
                kept[b, step] = sigma_mean, torch.where(known, before, -1)
                halves[2 * step + 1, b] = x + h * v
                halves[2 * step + 2, b] = x + dt * mean
                v, sigma = (
                    2.0 * mean - v,
                    torch.cat([2.0 * sigma_mean - sigma, sigma.new_zeros([1, k, 3])]),
                )
                numbers = torch.cat([number, torch.tensor([n * n])])
                check_step(dt * mean, force, step, steps, b)
                x = halves[2 * step + 2, b]
            final[b] = v
        ctx.save_for_backward(theta, splines, memory, boxes, types, masses, halves)
        ctx.settings = (
            spec,
            r_min,
            gamma,
            r_cut,
            kT,
            dt,
            frames,
            damping_time,
            tolerance,
            noise,
            kept,
        )
        return (
            halves[[2 * f for f in frames]].transpose(0, 1).contiguous(),
            halves[-1].clone(),
            final,
        )

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_frames: Tensor, grad_x: Tensor, grad_v: Tensor):
        theta, splines, memory, boxes, types, masses, halves = ctx.saved_tensors
        spec, r_min, gamma, r_cut, kT, dt, frames, damping_time, tolerance, noise, kept = (
            ctx.settings
        )
        potential = Potential(spec, theta, types)
        k, h, mass = memory.shape[-1], 0.5 * dt, masses[:, None]
        damping = math.exp(-h / damping_time)
        inverse = torch.linalg.inv(torch.eye(k, dtype=memory.dtype) + h * memory).mT
        grad_theta, grad_splines, grad_memory = (
            torch.zeros_like(t) for t in (theta, splines, memory)
        )
        grad_x0, grad_v0 = torch.empty_like(grad_x), torch.empty_like(grad_v)
        at = {step: f for f, step in enumerate(frames)}
        for b in range(grad_x.shape[0]):
            direct, feedback, adjoint = (
                grad_x[b].clone(),
                torch.zeros_like(grad_x[b]),
                grad_v[b].clone(),
            )
            if frames[-1] in at:
                direct += grad_frames[b, at[frames[-1]]]
            sigma_adjoint: Tensor | None = None
            after: Tensor | None = None
            for step in reversed(range(frames[-1])):
                adjoint += h * (direct + feedback)
                sigma_mean, before = kept[b, step]
                mean = (halves[2 * step + 2, b] - halves[2 * step, b]) / dt
                with torch.enable_grad():
                    inputs = [
                        t.detach().requires_grad_()
                        for t in (halves[2 * step + 1, b], splines, memory)
                    ]
                    pairs = _Pairs.find(inputs[0], boxes[b], types, masses, inputs[1], r_min, r_cut)
                # Adjoints over masses transform like velocities and σ.
                end, sigma_end = adjoint / mass, torch.zeros_like(sigma_mean)
                if after is not None and sigma_adjoint is not None:
                    sigma_end[after[after >= 0]] = sigma_adjoint[after >= 0]
                with torch.no_grad():
                    eta, sigma_eta = _solve(
                        pairs,
                        masses,
                        gamma,
                        h,
                        inverse[pairs.type_pair],
                        2.0 * end,
                        2.0 * sigma_end,
                        -1.0,
                        2.0 * end,
                        tolerance,
                    )
                adjoint, sigma_adjoint, after = mass * (eta - end), sigma_eta - sigma_end, before
                xi = noise(b, step, pairs.i, pairs.j, k + 1, False)
                with torch.enable_grad():
                    f0, f = pairs.f[:, :1], pairs.f[:, 1:]
                    u, d_eta = pairs.difference(mean), pairs.difference(eta)
                    force_noise, sigma_noise = pairs.step_noise(xi, inputs[2], math.sqrt(kT * dt))
                    drift = d_eta * (
                        pairs.apply_tensor(f0**2, u)
                        + pairs.apply_tensor(f, sigma_mean).sum(1, keepdim=True)
                    )
                    growth = (
                        pairs.apply_tensor(f, u.expand_as(sigma_mean))
                        - inputs[2][pairs.type_pair] @ sigma_mean
                    )
                    work = (
                        h * (pairs.mass * (sigma_eta * growth)).sum()
                        - h * (pairs.mass * drift).sum()
                    )
                    work = (
                        work
                        + 0.5 * (d_eta[:, 0] * force_noise).sum()
                        + 0.5 * (pairs.mass * sigma_eta * sigma_noise).sum()
                    )
                    through_friction, to_splines, to_memory = torch.autograd.grad(work, inputs)
                    x = halves[2 * step, b].detach().requires_grad_()
                grad_splines += to_splines
                grad_memory += to_memory
                feedback = damping * (feedback + through_friction)
                adjoint += h * (direct + feedback)
                with torch.enable_grad():
                    _, force = energy_and_forces(potential, x, boxes[b], create_graph=True)
                    pull = dt / mass * adjoint
                    through_x, through_theta = torch.autograd.grad(
                        (force * pull).sum(), [x, potential.theta]
                    )
                grad_theta += through_theta
                feedback = damping * (feedback + through_x)
                if step in at:
                    direct += grad_frames[b, at[step]]
            grad_x0[b], grad_v0[b] = direct + feedback, adjoint
        return grad_x0, grad_v0, grad_theta, grad_splines, grad_memory, *[None] * 13
