"""Python face of the compiled core: energies, their derivatives and whole rollouts, fused.

Everything here needs the library that ``pip install .`` builds where it finds a C++ compiler.
Without it :func:`available` is False, :func:`why_not` says why, and the plain-torch modules
:mod:`openmm_cgadv.potentials` and :mod:`openmm_cgadv.dynamics` do the same, only slower.
Lengths are in nm, times in ps, energies in kJ/mol, masses in dalton; all tensors are on the CPU.
"""

import ctypes
import logging
import json
import math
from functools import lru_cache
from pathlib import Path
from typing import Optional

import torch
from torch import Tensor

_LIBRARY = Path(__file__).parent / "_lib" / "libcgadv_torch.so"
MAX_L = 8
MAX_PAIR_EXTRA = 6


def _load() -> str:
    if not _LIBRARY.exists():
        return (
            "the fused kernels were not built: install the package where cmake and a C++ compiler "
            "are found (pip install .)"
        )
    try:
        torch.ops.load_library(str(_LIBRARY))
        torch.ops.cgadv.noise(0, 0, 0, 0, 0, 0)
    except (OSError, RuntimeError) as error:
        return f"the fused kernels could not be loaded: {error}; install the package again"
    return ""


def library() -> Path:
    """Path of the operator library, for ``torch.ops.load_library`` in other programs."""
    return _LIBRARY


def instruction_set() -> str:
    """Name of the build that runs on this processor, such as ``x86_64_v3``.

    The environment variable ``CGADV_KERNELS`` set to such a name chooses another one.
    """
    lib = ctypes.CDLL(str(_LIBRARY))
    lib.cgadv_instruction_set.restype = ctypes.c_char_p
    return lib.cgadv_instruction_set().decode()


def compiler() -> str:
    """Name and version of the compiler that built the library."""
    lib = ctypes.CDLL(str(_LIBRARY))
    lib.cgadv_compiler.restype = ctypes.c_char_p
    return lib.cgadv_compiler().decode()


_WHY_NOT = _load()
log = logging.getLogger(__name__)


def available() -> bool:
    """Whether the compiled core is loaded; where it is not, the log says once what is lost."""
    if _WHY_NOT:
        _say_once()
    return not _WHY_NOT


@lru_cache
def _say_once() -> None:
    log.warning("plain torch is used, one to two orders slower: %s", _WHY_NOT)


def why_not() -> str:
    """One line that says why :func:`available` is False; empty if it is True."""
    return _WHY_NOT


def _ops():
    if _WHY_NOT:
        raise RuntimeError(_WHY_NOT)
    return torch.ops.cgadv


@lru_cache(maxsize=64)
def _packed(spec) -> tuple[Tensor, Tensor]:
    three = spec.three_body
    if three is not None and three.l_max > MAX_L:
        raise ValueError(
            f"three_body.l_max: found {three.l_max}, the compiled kernels handle up to {MAX_L}"
        )
    ints = [len(spec.type_names), spec.pair.n_basis, int(three is not None)]
    floats = [spec.pair.r_cut, *spec.pair.r_min, *spec.pair.core]
    if three is None:
        ints += [0, 0, 0]
    else:
        ints += [three.n_basis, len(three.radial), three.l_max]
        floats += [three.r_min, three.r_cut, *(g for row in three.radial for g in row)]
    return torch.tensor(ints, dtype=torch.int64), torch.tensor(floats, dtype=torch.float64)


def pack(spec) -> tuple[Tensor, Tensor]:
    """A PotentialSpec as two tensors, the form in which the operators take it.

    Returns
    -------
    ispec : Tensor int64 [6]
        Number of types, pair basis functions, whether there is a three-body term, its basis
        functions, radial functions and ``l_max``.
    fspec : Tensor float64
        Pair cutoff, ``r_min`` and ``core`` of every pair of types, then the three-body range and
        the coefficients of the radial functions.

    Raises
    ------
    ValueError
        If the spec is outside what the kernels handle.
    """
    ispec, fspec = _packed(spec)
    return ispec.clone(), fspec.clone()


@lru_cache(maxsize=64)
def _packed_without_core(spec) -> tuple[Tensor, Tensor]:
    ispec, fspec = pack(spec)
    pairs = len(spec.pair.core)
    fspec[1 + pairs : 1 + 2 * pairs] = 0.0
    return ispec, fspec


def _double(x: Tensor) -> Tensor:
    return x.detach().to(torch.float64).contiguous()


def _system(positions: Tensor, boxes: Tensor, types: Tensor, spec) -> tuple[Tensor, Tensor, Tensor]:
    """Contiguous positions [B,N,3], boxes [B,3,3] and types, after checks."""
    if positions.dim() not in (2, 3) or positions.shape[-1] != 3:
        raise ValueError(f"positions: found shape {tuple(positions.shape)}, expected [N,3] or [B,N,3]")
    batch = positions.shape[:-2]
    count = math.prod(batch)
    if boxes.shape[-2:] != (3, 3) or boxes.numel() not in (9, 9 * count):
        raise ValueError(
            f"box: found shape {tuple(boxes.shape)} for positions of shape {tuple(positions.shape)}, "
            "expected [3,3] or one such box per replica"
        )
    if types.shape != positions.shape[-2:-1]:
        raise ValueError(
            f"types: found shape {tuple(types.shape)} for {positions.shape[-2]} beads, expected one type a bead"
        )
    if positions.is_complex():
        raise ValueError(f"positions: found {positions.dtype}, expected real numbers")
    if types.is_floating_point() or types.is_complex():
        raise ValueError(f"types: found {types.dtype}, expected whole numbers")
    boxes = _double(boxes).reshape(-1, 3, 3)
    _check_boxes(boxes, spec.r_cut, "cutoff")
    boxes = boxes.expand(count, 3, 3).contiguous()
    x = _double(positions).reshape(count, positions.shape[-2], 3)
    return x, boxes, types.to(torch.int64).contiguous()


def _one_system(positions: Tensor) -> None:
    if positions.dim() != 2:
        raise ValueError(f"positions: found shape {tuple(positions.shape)}, expected [N,3] of one system")


def forget_lists() -> None:
    """Let the next :func:`energy_forces` of each system build a new neighbour list.

    The order in which neighbours are summed up, and so the last bits of energies and forces, depend
    on where the list was built. After this they depend on positions alone, so a run that goes on and
    one that starts from its checkpoint stay the same to the last bit. Does nothing without the
    compiled core.
    """
    if available():
        ctypes.CDLL(str(_LIBRARY)).cgadv_forget_lists()


def _parameters(theta: Tensor, spec) -> Tensor:
    if theta.shape != (spec.n_parameters,):
        raise ValueError(f"theta: found shape {tuple(theta.shape)}, expected ({spec.n_parameters},)")
    return _double(theta)


def _check_boxes(boxes: Tensor, reach: float, what: str) -> None:
    shortest = float(torch.diagonal(boxes, dim1=-2, dim2=-1).min()) if boxes.numel() else math.inf
    if 2.0 * reach > shortest * (1.0 + 1e-7):
        raise ValueError(
            f"box: found a shortest edge of {shortest:.6g} nm, expected at least twice the {what} of {reach:.6g} nm"
        )


def _replicas(positions: Tensor, boxes: Tensor, types: Tensor, theta: Tensor, spec) -> tuple[Tensor, Tensor]:
    """Contiguous boxes [B,3,3] and types of a rollout, after checks."""
    if positions.dim() != 3:
        raise ValueError(f"positions: found shape {tuple(positions.shape)}, expected [B,N,3]")
    _, boxes, types = _system(positions, boxes, types, spec)
    _parameters(theta, spec)
    return boxes, types


def _checked_frames(frames: list[int], forget: float) -> Tensor:
    frames = [int(f) for f in frames]
    if not frames or frames[0] < 0 or any(b <= a for a, b in zip(frames, frames[1:])):
        raise ValueError(f"frames: found {frames}, expected increasing step numbers from 0 on")
    if not forget > 0:
        raise ValueError(f"forget: found {forget}, expected a positive time in ps")
    return torch.tensor(frames, dtype=torch.int64)


def _check_masses(masses: Tensor, types: Tensor) -> None:
    if masses.shape != types.shape:
        raise ValueError(f"masses: found shape {tuple(masses.shape)}, expected {tuple(types.shape)}")
    if not bool(((masses > 0) & masses.isfinite()).all()):
        raise ValueError("masses: found one that is not finite and above 0")


def _single(precision: str) -> bool:
    if precision not in ("double", "single"):
        raise ValueError(f"precision: found {precision!r}, expected 'double' or 'single'")
    return precision == "single"


class _Gradient(torch.autograd.Function):
    """Energy [B], dU/dx [B,N,3] and dU/dtheta [B,P]; its own derivative is the dual-number kernel.

    The energy output carries no gradient: _Energy sees to that.
    """

    @staticmethod
    def forward(ctx, positions, theta, boxes, types, spec, single):
        ctx.save_for_backward(positions, theta, boxes, types)
        ctx.spec, ctx.single = spec, single
        _, gradient, d_theta = _ops().value(
            positions, boxes, types, theta, *_packed(spec), True, single, torch.get_num_threads()
        )
        return gradient, d_theta

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, v_positions, v_theta):
        positions, theta, boxes, types = ctx.saved_tensors
        threads = torch.get_num_threads()
        product, d_theta = _ops().hvp(
            positions, boxes, types, theta, *_packed(ctx.spec), v_positions.contiguous(), ctx.single, threads
        )
        # U is linear in theta but for its fixed core: v . dU/dtheta is the energy at theta = v
        # without the core.
        _, mixed, _ = _ops().value(
            positions, boxes, types, v_theta.contiguous(), *_packed_without_core(ctx.spec), False, ctx.single, threads
        )
        return product + mixed, d_theta.sum(0), None, None, None, None


class _Energy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, positions, theta, boxes, types, spec, single):
        ctx.save_for_backward(positions, theta, boxes, types)
        ctx.spec, ctx.single = spec, single
        value, _, _ = _ops().value(
            positions, boxes, types, theta, *_packed(spec), False, single, torch.get_num_threads()
        )
        return value

    @staticmethod
    def backward(ctx, v):
        positions, theta, boxes, types = ctx.saved_tensors
        gradient, d_theta = _Gradient.apply(positions, theta, boxes, types, ctx.spec, ctx.single)
        return v[:, None, None] * gradient, v @ d_theta, None, None, None, None


def energy(
    positions: Tensor, box: Tensor, types: Tensor, theta: Tensor, spec, precision: str = "double"
) -> Tensor:
    """Potential energy, differentiable twice in positions and parameters.

    Parameters
    ----------
    positions : Tensor [N, 3] or [B, N, 3]
        (nm), in any periodic image.
    box : Tensor [3, 3] or [B, 3, 3]
        Box vectors in rows, in OpenMM's reduced form (nm).
    types : Tensor [N] of int64
    theta : Tensor [P]
        (kJ/mol)
    spec : PotentialSpec
    precision : {"double", "single"}
        Arithmetic inside the kernel.

    Returns
    -------
    Tensor [] or [B]
        (kJ/mol), float64.

    Raises
    ------
    ValueError
        If shapes do not match or the cutoff is longer than half the box.
    """
    if box.requires_grad:
        raise ValueError("box: found one that requires a gradient, expected none: there is no such derivative")
    _, boxes, types = _system(positions, box, types, spec)
    _parameters(theta, spec)
    x = positions.to(torch.float64).reshape(len(boxes), *positions.shape[-2:]).contiguous()
    value = _Energy.apply(x, theta.to(torch.float64).contiguous(), boxes, types, spec, _single(precision))
    return value.reshape(positions.shape[:-2])


def energy_forces(
    positions: Tensor, box: Tensor, types: Tensor, theta: Tensor, spec, precision: str = "double"
) -> tuple[Tensor, Tensor]:
    """Energy and forces of one system, without autograd; fast when called along a trajectory.

    The neighbour list is kept from call to call and checked against the positions each time.

    Returns
    -------
    energy : Tensor []
        (kJ/mol)
    forces : Tensor [N, 3]
        (kJ/mol/nm)
    """
    _one_system(positions)
    x, boxes, types = _system(positions, box, types, spec)
    return _ops().energy_forces(
        x[0], boxes, types, _parameters(theta, spec), *_packed(spec), _single(precision), torch.get_num_threads()
    )


def hvp(
    positions: Tensor, box: Tensor, types: Tensor, theta: Tensor, spec, direction: Tensor, precision: str = "double"
) -> tuple[Tensor, Tensor]:
    """Derivatives of the energy's gradient along a direction, by dual numbers.

    Parameters
    ----------
    direction : Tensor, like positions

    Returns
    -------
    product : Tensor, like positions
        Hessian of the energy times the direction.
    d_theta : Tensor [P] or [B, P]
        Derivative of ``(gradient · direction)`` with respect to the parameters.
    """
    if direction.shape != positions.shape:
        raise ValueError(
            f"direction: found shape {tuple(direction.shape)}, expected that of the positions, "
            f"{tuple(positions.shape)}"
        )
    x, boxes, types = _system(positions, box, types, spec)
    product, d_theta = _ops().hvp(
        x, boxes, types, _parameters(theta, spec), *_packed(spec), _double(direction).reshape(x.shape),
        _single(precision), torch.get_num_threads(),
    )
    return product.reshape(positions.shape), d_theta.reshape(*positions.shape[:-2], spec.n_parameters)


def basis(positions: Tensor, boxes: Tensor, types: Tensor, spec) -> Tensor:
    """Derivatives of the energy with respect to the parameters, the basis functions summed up.

    Parameters
    ----------
    positions : Tensor [B, N, 3]
    boxes : Tensor [3, 3] or [B, 3, 3]

    Returns
    -------
    Tensor [B, P]
        Dimensionless.
    """
    x, boxes, types = _system(positions, boxes, types, spec)
    theta = torch.zeros(spec.n_parameters, dtype=torch.float64)
    _, _, d_theta = _ops().value(x, boxes, types, theta, *_packed(spec), True, False, torch.get_num_threads())
    return d_theta.reshape(*positions.shape[:-2], spec.n_parameters)


def virial(positions: Tensor, boxes: Tensor, types: Tensor, theta: Tensor, spec, precision: str = "single") -> Tensor:
    """Virial tensors of the frames of a trajectory, ``-Σ d_a ∂U/∂d_b`` over distances d between beads.

    The neighbour list is kept from frame to frame, so frames that follow each other closely are fast.

    Parameters
    ----------
    positions : Tensor [T, N, 3]
    boxes : Tensor [3, 3] or [T, 3, 3]
    precision : {"double", "single"}
        Arithmetic of each term; sums are in double in any case.

    Returns
    -------
    Tensor [T, 3, 3]
        (kJ/mol)
    """
    x, boxes, types = _system(positions, boxes, types, spec)
    return _ops().virial(
        x, boxes, types, _parameters(theta, spec), *_packed(spec), _single(precision), torch.get_num_threads()
    )


def basis_forces(positions: Tensor, box: Tensor, types: Tensor, spec) -> Tensor:
    """Forces of each parameter's basis function.

    Parameters
    ----------
    positions : Tensor [N, 3]
    box : Tensor [3, 3]

    Returns
    -------
    Tensor [P, N, 3]
        (1/nm): forces are ``core_forces + theta @ basis_forces``.
    """
    _one_system(positions)
    x, boxes, types = _system(positions, box, types, spec)
    theta = torch.zeros(spec.n_parameters, dtype=torch.float64)
    return _ops().basis_forces(x[0], boxes, types, theta, *_packed(spec), torch.get_num_threads())


def core_forces(positions: Tensor, box: Tensor, types: Tensor, spec) -> Tensor:
    """Forces [N, 3] (kJ/mol/nm) of the fixed repulsive core alone."""
    theta = torch.zeros(spec.n_parameters, dtype=torch.float64)
    return energy_forces(positions, box, types, theta, spec)[1]


class _Rollout(torch.autograd.Function):
    @staticmethod
    def forward(ctx, positions, state, theta, e, s, boxes, types, masses, frames, spec, numbers, single):
        keep = any(ctx.needs_input_grad[:5])
        frame_positions, last, last_state, kept_x, kept_s = _ops().rollout(
            positions, boxes, types, theta, *_packed(spec), state, masses, e, s, frames, *numbers,
            keep, single, torch.get_num_threads(),
        )
        ctx.save_for_backward(positions, theta, e, s, boxes, types, masses, frames, kept_x, kept_s)
        ctx.settings = spec, numbers, single
        return frame_positions, last, last_state

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, d_frames, d_last, d_last_state):
        positions, theta, e, s, boxes, types, masses, frames, kept_x, kept_s = ctx.saved_tensors
        spec, numbers, single = ctx.settings
        gradients = _ops().rollout_backward(
            positions, boxes, types, theta, *_packed(spec), masses, e, s, frames, *numbers, kept_x, kept_s,
            d_frames.contiguous(), d_last.contiguous(), d_last_state.contiguous(), single, torch.get_num_threads(),
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
    spec,
    E: Tensor,
    S: Tensor,
    seed: int,
    forget: float = math.inf,
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
        Of the noise.
    forget : float
        Memory τ (ps) of the adjoint's feedback part; infinity is the exact adjoint.
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
    ValueError
        If shapes do not match, frames do not increase, or the cutoff is longer than half the box.
    RuntimeError
        If a bead moves more than 0.2 nm in a step; the message names replica, step and bead.
    """
    boxes, types = _replicas(positions, boxes, types, theta, spec)
    extra = E.shape[-1]
    if E.shape != (len(spec.type_names), extra, extra) or S.shape != E.shape:
        raise ValueError(
            f"E, S: found shapes {tuple(E.shape)} and {tuple(S.shape)}, "
            f"expected [{len(spec.type_names)},K+1,K+1] for both"
        )
    if state.shape != (*positions.shape[:2], extra, 3):
        raise ValueError(
            f"state: found shape {tuple(state.shape)}, expected {(*positions.shape[:2], extra, 3)}"
        )
    _check_masses(masses, types)
    frames = _checked_frames(frames, forget)
    tensors = [t.to(torch.float64).contiguous() for t in (positions, state, theta, E, S)]
    return _Rollout.apply(
        *tensors, boxes, types, _double(masses), frames, spec,
        (float(kT), float(dt), float(forget), int(seed)), _single(precision),
    )


class _PairRollout(torch.autograd.Function):
    @staticmethod
    def forward(ctx, positions, velocities, theta, splines, memory, boxes, types, masses, r_min, own, frames, spec,
                numbers, single):  # fmt: skip
        keep = any(ctx.needs_input_grad[:5])
        frame_positions, last, last_velocities, kept = _ops().pair_rollout(
            positions, boxes, types, theta, *_packed(spec), velocities, masses, r_min, splines, memory, own,
            frames, *numbers, keep, single, torch.get_num_threads(),
        )  # fmt: skip
        ctx.save_for_backward(positions, theta, splines, memory, boxes, types, masses, r_min, own, frames, kept)
        ctx.settings = spec, numbers, single
        return frame_positions, last, last_velocities

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, d_frames, d_last, d_last_velocities):
        positions, theta, splines, memory, boxes, types, masses, r_min, own, frames, kept = ctx.saved_tensors
        spec, numbers, single = ctx.settings
        gradients = _ops().pair_rollout_backward(
            positions, boxes, types, theta, *_packed(spec), masses, r_min, splines, memory, own, frames, *numbers,
            kept, d_frames.contiguous(), d_last.contiguous(), d_last_velocities.contiguous(), single,
            torch.get_num_threads(),
        )  # fmt: skip
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
    spec,
    splines: Tensor,
    memory: Tensor,
    r_min: Tensor,
    r_cut: float,
    seed: int,
    forget: float = math.inf,
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
        Of the radial functions along and across a pair (ps^(−1/2), then 1/ps).
    memory : Tensor [n_type_pairs, K, K]
        Rates on the diagonal, an antisymmetric rest (1/ps).
    r_min : Tensor [n_type_pairs]
    r_cut : float
        Range of the splines (nm).
    seed : int
        Of the noise.
    forget : float
        Memory τ (ps) of the adjoint's feedback part; infinity is the exact adjoint.
    tolerance : float
        Where conjugate gradients stop.
    precision : {"double", "single"}
        Arithmetic of energies and forces. All else is in double in any case.
    self_friction : Tensor [n_types], optional
        Friction of each bead besides (1/ps); there is no gradient for it.

    Returns
    -------
    frames : Tensor [B, len(frames), N, 3]
        Positions, unwrapped (nm).
    positions, velocities : Tensor [B, N, 3]
        At the end.

    Raises
    ------
    ValueError
        If shapes do not match, frames do not increase, or a cutoff is longer than half the box.
    RuntimeError
        If a bead moves more than 0.2 nm in a step; the message names replica, step and bead.
    """
    boxes, types = _replicas(positions, boxes, types, theta, spec)
    if velocities.shape != positions.shape:
        raise ValueError(f"velocities: found shape {tuple(velocities.shape)}, expected {tuple(positions.shape)}")
    kinds = len(spec.type_names) * (len(spec.type_names) + 1) // 2
    if splines.dim() != 4 or splines.shape[0] != kinds or splines.shape[2] != 2 or r_min.shape != (kinds,):
        raise ValueError(
            f"splines, r_min: found shapes {tuple(splines.shape)} and {tuple(r_min.shape)}, "
            f"expected [{kinds},K+1,2,n_basis] and [{kinds}]"
        )
    extra = splines.shape[1] - 1
    if memory.shape != (kinds, extra, extra):
        raise ValueError(f"memory: found shape {tuple(memory.shape)}, expected {(kinds, extra, extra)}")
    if extra > MAX_PAIR_EXTRA:
        raise ValueError(f"splines: found {extra} auxiliary vectors a pair, the compiled kernels handle {MAX_PAIR_EXTRA}")
    _check_boxes(boxes, r_cut, "friction's range")
    _check_masses(masses, types)
    frames = _checked_frames(frames, forget)
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance: found {tolerance}, expected a number between 0 and 1")
    own = boxes.new_zeros(len(spec.type_names)) if self_friction is None else _double(self_friction)
    if own.shape != (len(spec.type_names),) or not bool(((own >= 0) & own.isfinite()).all()):
        raise ValueError(f"self_friction: found {own.tolist()}/ps, expected 0 or more for each bead type")
    tensors = [t.to(torch.float64).contiguous() for t in (positions, velocities, theta, splines, memory)]
    return _PairRollout.apply(
        *tensors, boxes, types, _double(masses), _double(r_min), own, frames, spec,
        (float(r_cut), float(kT), float(dt), float(tolerance), float(forget), int(seed)), _single(precision),
    )  # fmt: skip


def pair_noise(seed: int, replica: int, step: int, i: Tensor, j: Tensor, count: int, fresh: bool) -> Tensor:
    """The standard normal numbers of pairs of beads that a rollout uses.

    Those of :func:`openmm_cgadv.dynamics.pair_noise.pair_noise`, where the arguments are explained, in the core's
    single precision.

    Returns
    -------
    Tensor [M, count, 3]
    """
    return _ops().pair_noise(seed, replica, step, torch.stack([i, j]), count, fresh)


def noise(seed: int, replica: int, step0: int, n_steps: int, n_beads: int, components: int) -> Tensor:
    """The standard normal numbers that a rollout uses.

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
    return _ops().noise(seed, replica, step0, n_steps, n_beads, components - 1)


class FusedPotential(torch.nn.Module):
    """Energy and forces for TorchForce with ``setOutputsForces(True)``; TorchScript compiles it.

    A saved module needs ``torch.ops.load_library(openmm_cgadv.kernels.library())`` before it is
    loaded, which importing :mod:`openmm_cgadv.kernels` does.

    Parameters
    ----------
    spec : PotentialSpec
    theta : Tensor [P]
        (kJ/mol)
    types : Tensor [N] of int64
    precision : {"double", "single"}
        Arithmetic inside the kernel.
    threads : int
        Number of threads; 0 asks for as many as torch uses where the module is made.
    deliveries : str
        Path of files with new parameters, but for the number that ends it.
    """

    def __init__(
        self, spec, theta: Tensor, types: Tensor, precision: str = "single", threads: int = 0, deliveries: str = ""
    ):
        super().__init__()
        _ops()
        ispec, fspec = pack(spec)
        self.register_buffer("theta", _parameters(theta, spec).clone())
        self.register_buffer("types", types.to(torch.int64).clone())
        self.register_buffer("ispec", ispec)
        self.register_buffer("fspec", fspec)
        self.description: str = json.dumps(spec.to_dict())
        self.single: bool = _single(precision)
        self.threads: int = threads if threads > 0 else torch.get_num_threads()
        self.deliveries: str = deliveries

    def forward(
        self, positions: Tensor, box: Tensor, delivery: Optional[Tensor] = None
    ) -> tuple[Tensor, Tensor]:
        """Energy [] (kJ/mol) and forces [N, 3] (kJ/mol/nm) in the precision of the positions and where they are; computed by
        the CPU wherever OpenMM has put them.

        With a delivery above 0 the parameters are read from the file of that number before.
        """
        if delivery is not None and int(delivery) > 0:
            path = self.deliveries + str(int(delivery))
            self.theta.copy_(torch.from_file(path, False, self.theta.numel(), dtype=torch.float64))
        x = positions.detach().cpu().to(torch.float64).contiguous()
        b = box.detach().cpu().to(torch.float64).contiguous()
        energy, forces = torch.ops.cgadv.energy_forces(
            x, b, self.types.cpu(), self.theta.cpu(), self.ispec.cpu(), self.fspec.cpu(), self.single, self.threads
        )
        return energy.to(positions), forces.to(positions)
