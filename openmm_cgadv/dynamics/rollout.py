r"""The reparameterized rollout: trajectories as differentiable functions of the model's parameters.

One step is that of OpenMM's LangevinMiddleIntegrator, with the friction extended to memory
(Zhang, Liu, Yan, Tuckerman and Liu 2019, doi:10.1021/acs.jpca.9b02771):

    v ← v + Δt F(x)/m;   x ← x + Δt/2 v;   s ← E s + √(kT/m) S ξ;   x ← x + Δt/2 v,

where ``s = (v, z_1 … z_K)``. Gradients flow to θ, E, S and the initial state by a hand-written adjoint. The
exact adjoint of a chaotic system grows exponentially, so the part that returns through the Jacobian of the forces can
be damped. The adjoint of the positions is the sum of a direct part, the derivative of the loss with respect to the
frames, and a feedback part μ,

    μ ← exp(−Δt/τ) (μ − (Δt/m) H λ_v),

where H is the Hessian of the energy and τ the adjoint damping time. τ = ∞ is the exact adjoint.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .. import kernels
from ..errors import ExplosionError
from ..potentials import Potential, PotentialSpec

MAX_DISPLACEMENT = 0.2
"""Largest displacement of a bead in one time step before the trajectory has exploded (nm), as in the compiled core."""


def rollout(
    positions: Tensor,
    state: Tensor,
    boxes: Tensor,
    *,
    types: Tensor,
    masses: Tensor,
    spec: PotentialSpec,
    theta: Tensor,
    e: Tensor,
    s: Tensor,
    kT: float,
    dt: float,
    frames: list[int],
    damping_time: float = math.inf,
    seed: int | None = None,
    noise: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Integrate replicas of a system of beads and return the chosen frames.

    Parameters
    ----------
    positions : Tensor [B, N, 3]
        Initial positions of B replicas (nm), unwrapped; so are the frames.
    state : Tensor [B, N, K + 1, 3]
        Initial velocities and auxiliary variables (nm/ps).
    boxes : Tensor [B, 3, 3]
        Box vectors in rows (nm).
    types, masses : Tensor [N]
        Bead types and masses (dalton).
    spec, theta
        The potential.
    e, s : Tensor [n_types, K + 1, K + 1]
        Ornstein–Uhlenbeck matrices of one time step.
    kT : float
        (kJ/mol)
    dt : float
        Time step (ps).
    frames : list of int
        Increasing step numbers of the frames to return; 0 is the initial state. The last one ends the run.
    damping_time : float
        τ (ps), the adjoint damping time.
    seed : int, optional
        Seed of the noise, which a counter-based generator draws inside the compiled library.
    noise : Tensor [steps, B, N, K + 1, 3], optional
        Standard normal numbers, to replay; the rollout then runs in plain torch.

    Returns
    -------
    frames : Tensor [B, len(frames), N, 3]
        (nm)
    positions : Tensor [B, N, 3]
        Final positions (nm).
    state : Tensor [B, N, K + 1, 3]
        Final velocities and auxiliary variables (nm/ps).

    Raises
    ------
    ExplosionError
        If the trajectory explodes; the message names the step.
    """
    if (seed is None) == (noise is None):
        raise ValueError("rollout: expected either a seed or a noise tensor")
    steps = frames[-1]
    if seed is not None and kernels.available(spec):
        return kernels.rollout(
            positions,
            state,
            boxes,
            types,
            masses,
            kT,
            dt,
            frames,
            theta,
            spec,
            e,
            s,
            seed,
            damping_time,
        )
    if seed is not None:
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn([steps, *state.shape], dtype=state.dtype, generator=generator)
    return _Rollout.apply(
        positions,
        state,
        theta,
        e,
        s,
        boxes,
        types,
        masses,
        spec,
        kT,
        dt,
        frames,
        damping_time,
        noise,
    )


def langevin_step(
    x: Tensor, s: Tensor, force: Tensor, mass: Tensor, e: Tensor, noise: Tensor, dt: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Integrate one time step of a system.

    Parameters
    ----------
    x, force : Tensor [N, 3]
        Positions (nm) and forces (kJ/mol/nm).
    s : Tensor [N, K + 1, 3]
        Velocities and auxiliary variables (nm/ps).
    mass : Tensor [N]
        (dalton)
    e : Tensor [N, K + 1, K + 1]
        Ornstein–Uhlenbeck matrices E of the beads.
    noise : Tensor [N, K + 1, 3]
        ``√(kT/m) S ξ`` (nm/ps).
    dt : float
        (ps)

    Returns
    -------
    x : Tensor [N, 3]
        New positions (nm).
    middle : Tensor [N, K + 1, 3]
        State before the friction acts (nm/ps).
    s : Tensor [N, K + 1, 3]
        New state (nm/ps).
    """
    middle = torch.cat([(s[:, 0] + dt * force / mass[:, None])[:, None], s[:, 1:]], dim=1)
    s = e @ middle + noise
    return x + 0.5 * dt * (middle[:, 0] + s[:, 0]), middle, s


def energy_and_forces(
    potential: Potential, x: Tensor, box: Tensor, create_graph: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the energy (kJ/mol) and forces [N, 3] (kJ/mol/nm) of positions [N, 3] (nm).

    With ``create_graph`` both are differentiable functions of ``x``.
    """
    with torch.enable_grad():
        x = x if create_graph else x.detach().requires_grad_()
        energy = potential(x, box)
        (gradient,) = torch.autograd.grad(energy, x, create_graph=create_graph)
    return energy, -gradient


def check_step(displacement: Tensor, force: Tensor, step: int, steps: int, replica: int) -> None:
    """Raise ExplosionError if a displacement [N, 3] (nm) in a step, under forces [N, 3], exceeds MAX_DISPLACEMENT."""
    moved = displacement.norm(dim=1).nan_to_num(math.inf)
    if bool((moved > MAX_DISPLACEMENT).any()):
        bead = int(moved.argmax())
        raise ExplosionError(
            f"rollout exploded at step {step + 1} of {steps} in replica {replica}: bead {bead} moved "
            f"{float(moved[bead]):.3g} nm under a force of {float(force[bead].norm()):.3g} kJ/mol/nm"
        )


class _Rollout(torch.autograd.Function):
    """The rollout in plain torch, the reference of the compiled one."""

    @staticmethod
    def forward(
        ctx: Any,
        positions: Tensor,
        state: Tensor,
        theta: Tensor,
        e: Tensor,
        s: Tensor,
        boxes: Tensor,
        types: Tensor,
        masses: Tensor,
        spec: PotentialSpec,
        kT: float,
        dt: float,
        frames: list[int],
        damping_time: float,
        noise: Tensor,
    ):
        potential = Potential(spec, theta, types)
        thermal = (kT / masses).sqrt()[:, None, None]
        all_x = positions.new_empty([frames[-1] + 1, *positions.shape])
        all_middle = state.new_empty([frames[-1], *state.shape])
        final = torch.empty_like(state)
        for b in range(positions.shape[0]):
            x, sb = positions[b], state[b]
            all_x[0, b] = x
            for step in range(frames[-1]):
                _, force = energy_and_forces(potential, x, boxes[b])
                noise_term = s[types] @ noise[step, b] * thermal
                x, all_middle[step, b], sb = langevin_step(
                    x, sb, force, masses, e[types], noise_term, dt
                )
                all_x[step + 1, b] = x
                check_step(x - all_x[step, b], force, step, frames[-1], b)
            final[b] = sb
        ctx.save_for_backward(theta, e, s, boxes, types, masses, noise, all_x, all_middle)
        ctx.settings = (spec, kT, dt, frames, damping_time)
        return all_x[frames].transpose(0, 1).contiguous(), all_x[-1].clone(), final

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_frames: Tensor, grad_x: Tensor, grad_s: Tensor):
        theta, e, s, boxes, types, masses, noise, all_x, all_middle = ctx.saved_tensors
        spec, kT, dt, frames, damping_time = ctx.settings
        potential = Potential(spec, theta, types)
        thermal = (kT / masses).sqrt()[:, None, None]
        damping = math.exp(-dt / damping_time)
        grad_theta, grad_e, grad_noise = (
            torch.zeros_like(theta),
            torch.zeros_like(e),
            torch.zeros_like(s),
        )
        grad_x0, grad_s0 = torch.empty_like(grad_x), torch.empty_like(grad_s)
        at = {step: f for f, step in enumerate(frames)}
        for b in range(grad_x.shape[0]):
            direct, feedback, adjoint = (
                grad_x[b].clone(),
                torch.zeros_like(grad_x[b]),
                grad_s[b].clone(),
            )
            if frames[-1] in at:
                direct += grad_frames[b, at[frames[-1]]]
            for step in reversed(range(frames[-1])):
                adjoint[:, 0] += 0.5 * dt * (direct + feedback)
                grad_e.index_add_(0, types, adjoint @ all_middle[step, b].mT)
                grad_noise.index_add_(0, types, adjoint @ (noise[step, b] * thermal).mT)
                adjoint = e[types].mT @ adjoint
                adjoint[:, 0] += 0.5 * dt * (direct + feedback)
                pull = dt / masses[:, None] * adjoint[:, 0]
                with torch.enable_grad():
                    x = all_x[step, b].detach().requires_grad_()
                    _, force = energy_and_forces(potential, x, boxes[b], create_graph=True)
                    through_x, through_theta = torch.autograd.grad(
                        (force * pull).sum(), [x, potential.theta]
                    )
                grad_theta += through_theta
                feedback = damping * (feedback + through_x)
                if step in at:
                    direct += grad_frames[b, at[step]]
            grad_x0[b], grad_s0[b] = direct + feedback, adjoint
        return grad_x0, grad_s0, grad_theta, grad_e, grad_noise, *[None] * 9
