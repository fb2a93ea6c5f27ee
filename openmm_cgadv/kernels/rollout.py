"""Rollouts and their adjoints in the compiled core."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import InputError
from .arguments import (
    check_boxes,
    check_masses,
    checked_frames,
    checked_replicas,
    contiguous,
    is_single,
)
from .library import operators
from .packing import packed

MAX_PAIR_EXTRA = 6

if TYPE_CHECKING:
    from ..potentials import PotentialSpec


class _Rollout(torch.autograd.Function):
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
        frames: Tensor,
        spec: PotentialSpec,
        numbers: tuple[float | int, ...],
        single: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        keep = any(ctx.needs_input_grad[:5])
        frame_positions, last, last_state, kept_x, kept_s = operators().rollout(
            positions,
            boxes,
            types,
            theta,
            *packed(spec),
            state,
            masses,
            e,
            s,
            frames,
            *numbers,
            keep,
            single,
            torch.get_num_threads(),
        )
        ctx.save_for_backward(positions, theta, e, s, boxes, types, masses, frames, kept_x, kept_s)
        ctx.settings = spec, numbers, single
        return frame_positions, last, last_state

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any, d_frames: Tensor, d_last: Tensor, d_last_state: Tensor
    ) -> tuple[Tensor | None, ...]:
        positions, theta, e, s, boxes, types, masses, frames, kept_x, kept_s = ctx.saved_tensors
        spec, numbers, single = ctx.settings
        gradients = operators().rollout_backward(
            positions,
            boxes,
            types,
            theta,
            *packed(spec),
            masses,
            e,
            s,
            frames,
            *numbers,
            kept_x,
            kept_s,
            d_frames.contiguous(),
            d_last.contiguous(),
            d_last_state.contiguous(),
            single,
            torch.get_num_threads(),
        )
        return *gradients, *[None] * 7


def rollout(
    positions: Tensor,
    state: Tensor,
    boxes: Tensor,
    types: Tensor,
    masses: Tensor,
    kT: float,
    dt: float,
    frames: list[int],
    theta: Tensor,
    spec: PotentialSpec,
    E: Tensor,
    S: Tensor,
    seed: int,
    damping_time: float = math.inf,
    precision: str = "double",
) -> tuple[Tensor, Tensor, Tensor]:
    """Integrate replicas of a system of beads in one call; differentiable.

    The equations are those of :func:`openmm_cgadv.dynamics.rollout`, the noise that of
    :func:`noise`. The backward pass keeps positions and states of each step,
    O(steps · B · N · (K + 1)) numbers, and gives gradients for ``positions``, ``state``,
    ``theta``, ``E`` and ``S``.

    Parameters
    ----------
    positions : Tensor [B, N, 3]
    state : Tensor [B, N, K + 1, 3]
        Velocities and auxiliary variables (nm/ps).
    boxes : Tensor [B, 3, 3]
    types : Tensor [N] of int64
    masses : Tensor [N]
        (dalton)
    kT : float
        (kJ/mol)
    dt : float
        (ps)
    frames : list of int
        Increasing step numbers; 0 is the start, the last one ends the run.
    E, S : Tensor [n_types, K + 1, K + 1]
        Ornstein–Uhlenbeck matrices of one time step.
    seed : int
        Seed of the random number generator.
    damping_time : float
        Damping time τ (ps) of the adjoint's Jacobian (Hessian) term; infinity is the exact adjoint.
    precision : {"double", "single"}
        Arithmetic of energies and forces. Positions and states are in double in any case.

    Returns
    -------
    frames : Tensor [B, len(frames), N, 3]
        Positions, unwrapped (nm).
    positions : Tensor [B, N, 3]
        Final positions.
    state : Tensor [B, N, K + 1, 3]
        Final state.

    Raises
    ------
    InputError
        If shapes do not match, frames do not increase, or the cutoff is longer than half the box.
    ExplosionError
        If a bead moves more than 0.2 nm in a step; its attributes are replica, step and bead.
    """
    boxes, types = checked_replicas(positions, boxes, types, theta, spec)
    extra = E.shape[-1]
    if E.shape != (len(spec.type_names), extra, extra) or S.shape != E.shape:
        raise InputError(
            f"E, S: found shapes {tuple(E.shape)} and {tuple(S.shape)}, "
            f"expected [{len(spec.type_names)},K+1,K+1] for both"
        )
    if state.shape != (*positions.shape[:2], extra, 3):
        raise InputError(
            f"state: found shape {tuple(state.shape)}, expected {(*positions.shape[:2], extra, 3)}"
        )
    check_masses(masses, types)
    at = checked_frames(frames, damping_time)
    tensors = [t.to(torch.float64).contiguous() for t in (positions, state, theta, E, S)]
    return _Rollout.apply(
        *tensors,
        boxes,
        types,
        contiguous(masses),
        at,
        spec,
        (float(kT), float(dt), float(damping_time), int(seed)),
        is_single(precision),
    )


class _PairRollout(torch.autograd.Function):
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
        r_min: Tensor,
        own: Tensor,
        frames: Tensor,
        spec: PotentialSpec,
        numbers: tuple[float | int, ...],
        single: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        keep = any(ctx.needs_input_grad[:5])
        frame_positions, last, last_velocities, kept = operators().pair_rollout(
            positions,
            boxes,
            types,
            theta,
            *packed(spec),
            velocities,
            masses,
            r_min,
            splines,
            memory,
            own,
            frames,
            *numbers,
            keep,
            single,
            torch.get_num_threads(),
        )
        ctx.save_for_backward(
            positions, theta, splines, memory, boxes, types, masses, r_min, own, frames, kept
        )
        ctx.settings = spec, numbers, single
        return frame_positions, last, last_velocities

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any, d_frames: Tensor, d_last: Tensor, d_last_velocities: Tensor
    ) -> tuple[Tensor | None, ...]:
        positions, theta, splines, memory, boxes, types, masses, r_min, own, frames, kept = (
            ctx.saved_tensors
        )
        spec, numbers, single = ctx.settings
        gradients = operators().pair_rollout_backward(
            positions,
            boxes,
            types,
            theta,
            *packed(spec),
            masses,
            r_min,
            splines,
            memory,
            own,
            frames,
            *numbers,
            kept,
            d_frames.contiguous(),
            d_last.contiguous(),
            d_last_velocities.contiguous(),
            single,
            torch.get_num_threads(),
        )
        return *gradients, *[None] * 9


def pair_rollout(
    positions: Tensor,
    velocities: Tensor,
    boxes: Tensor,
    types: Tensor,
    masses: Tensor,
    kT: float,
    dt: float,
    frames: list[int],
    theta: Tensor,
    spec: PotentialSpec,
    splines: Tensor,
    memory: Tensor,
    r_min: Tensor,
    r_cut: float,
    seed: int,
    damping_time: float = math.inf,
    tolerance: float = 1e-4,
    precision: str = "double",
    self_friction: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Integrate replicas with pairwise friction in one call; differentiable.

    The equations are those of :func:`openmm_cgadv.dynamics.pair_rollout`, the noise that of
    :func:`pair_noise`. For the backward pass positions at each half step are kept, 6 B · N numbers a step. It
    finds the pairs' auxiliary variables again by a replay, for which it holds 3 K + 2 numbers a pair and step, for
    all steps or for as many at a time as fit into 256 MiB a thread. It gives gradients for ``positions``,
    ``velocities``, ``theta``, ``splines`` and ``memory``.

    Parameters
    ----------
    positions, velocities : Tensor [B, N, 3]
        (nm, nm/ps)
    boxes : Tensor [B, 3, 3]
    types : Tensor [N] of int64
    masses : Tensor [N]
        (dalton)
    kT : float
        (kJ/mol)
    dt : float
        (ps)
    frames : list of int
        Increasing step numbers; 0 is the start, the last one ends the run.
    splines : Tensor [n_type_pairs, K + 1, 2, n_basis]
        Coefficients of the radial functions parallel and perpendicular to the pair vector (ps^(−1/2), then 1/ps).
    memory : Tensor [n_type_pairs, K, K]
        Drift matrices: decay rates on the diagonal, antisymmetric off-diagonal elements (1/ps).
    r_min : Tensor [n_type_pairs]
    r_cut : float
        Cutoff of the splines (nm).
    seed : int
        Seed of the random number generator.
    damping_time : float
        Damping time τ (ps) of the adjoint's Jacobian (Hessian) term; infinity is the exact adjoint.
    tolerance : float
        Relative residual at which conjugate gradients stop.
    precision : {"double", "single"}
        Arithmetic of energies and forces. All else is in double in any case.
    self_friction : Tensor [n_types], optional
        Additional single-particle friction (1/ps); there is no gradient for it.

    Returns
    -------
    frames : Tensor [B, len(frames), N, 3]
        Positions, unwrapped (nm).
    positions, velocities : Tensor [B, N, 3]
        At the end.

    Raises
    ------
    InputError
        If shapes do not match, frames do not increase, or a cutoff is longer than half the box.
    ExplosionError
        If a bead moves more than 0.2 nm in a step; its attributes are replica, step and bead.
    """
    boxes, types = checked_replicas(positions, boxes, types, theta, spec)
    if velocities.shape != positions.shape:
        raise InputError(
            f"velocities: found shape {tuple(velocities.shape)}, expected {tuple(positions.shape)}"
        )
    kinds = len(spec.type_names) * (len(spec.type_names) + 1) // 2
    if (
        splines.dim() != 4
        or splines.shape[0] != kinds
        or splines.shape[2] != 2
        or r_min.shape != (kinds,)
    ):
        raise InputError(
            f"splines, r_min: found shapes {tuple(splines.shape)} and {tuple(r_min.shape)}, "
            f"expected [{kinds},K+1,2,n_basis] and [{kinds}]"
        )
    extra = splines.shape[1] - 1
    if memory.shape != (kinds, extra, extra):
        raise InputError(
            f"memory: found shape {tuple(memory.shape)}, expected {(kinds, extra, extra)}"
        )
    if extra > MAX_PAIR_EXTRA:
        raise InputError(
            f"splines: found {extra} auxiliary vectors a pair, the compiled kernels handle {MAX_PAIR_EXTRA}"
        )
    check_boxes(boxes, r_cut, "friction's range")
    check_masses(masses, types)
    at = checked_frames(frames, damping_time)
    if not 0 < tolerance < 1:
        raise InputError(f"tolerance: found {tolerance}, expected a number between 0 and 1")
    own = (
        boxes.new_zeros(len(spec.type_names))
        if self_friction is None
        else contiguous(self_friction)
    )
    if own.shape != (len(spec.type_names),) or not bool(((own >= 0) & own.isfinite()).all()):
        raise InputError(
            f"self_friction: found {own.tolist()}/ps, expected 0 or more for each bead type"
        )
    tensors = [
        t.to(torch.float64).contiguous() for t in (positions, velocities, theta, splines, memory)
    ]
    return _PairRollout.apply(
        *tensors,
        boxes,
        types,
        contiguous(masses),
        contiguous(r_min),
        own,
        at,
        spec,
        (float(r_cut), float(kT), float(dt), float(tolerance), float(damping_time), int(seed)),
        is_single(precision),
    )


def pair_noise(
    seed: int, replica: int, step: int, i: Tensor, j: Tensor, count: int, fresh: bool
) -> Tensor:
    """Return the standard normal numbers of pairs of beads of a rollout.

    Those of :func:`openmm_cgadv.dynamics.pairwise_noise.pair_noise`, where the arguments are explained, in the core's
    single precision.

    Returns
    -------
    Tensor [M, count, 3]
    """
    return operators().pair_noise(seed, replica, step, torch.stack([i, j]), count, fresh)


def noise(
    seed: int, replica: int, step0: int, n_steps: int, n_beads: int, components: int
) -> Tensor:
    """Return the standard normal numbers of a rollout.

    Parameters
    ----------
    replica : int
        Index in the batch.
    step0, n_steps : int
        First step and number of steps.
    components : int
        K + 1, components of a bead's state.

    Returns
    -------
    Tensor [n_steps, n_beads, components, 3]
    """
    return operators().noise(seed, replica, step0, n_steps, n_beads, components - 1)
