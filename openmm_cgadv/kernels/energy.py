"""Energies of configurations and their derivatives, by the compiled core."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import InputError
from .arguments import check_one_system, checked_parameters, checked_system, contiguous, is_single
from .library import available, library_path, operators
from .packing import packed, packed_linear

if TYPE_CHECKING:
    from ..potentials import PotentialSpec


class _Gradient(torch.autograd.Function):
    """Energy [B], dU/dx [B,N,3] and dU/dtheta [B,P]; its own derivative is the dual-number kernel.

    The energy output carries no gradient: _Energy sees to that.
    """

    @staticmethod
    def forward(
        ctx: Any,
        positions: Tensor,
        theta: Tensor,
        boxes: Tensor,
        types: Tensor,
        spec: PotentialSpec,
        single: bool,
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(positions, theta, boxes, types)
        ctx.spec, ctx.single = spec, single
        _, gradient, d_theta = operators().value(
            positions, boxes, types, theta, *packed(spec), True, single, torch.get_num_threads()
        )
        return gradient, d_theta

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, v_positions: Tensor, v_theta: Tensor) -> tuple[Tensor | None, ...]:
        positions, theta, boxes, types = ctx.saved_tensors
        threads = torch.get_num_threads()
        product, d_theta = operators().hvp(
            positions,
            boxes,
            types,
            theta,
            *packed(ctx.spec),
            v_positions.contiguous(),
            ctx.single,
            threads,
        )
        # U is linear in theta but for its fixed core: v . dU/dtheta is the energy at theta = v
        # without the core.
        _, mixed, _ = operators().value(
            positions,
            boxes,
            types,
            v_theta.contiguous(),
            *packed_linear(ctx.spec),
            False,
            ctx.single,
            threads,
        )
        return product + mixed, d_theta.sum(0), None, None, None, None


class _Energy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        positions: Tensor,
        theta: Tensor,
        boxes: Tensor,
        types: Tensor,
        spec: PotentialSpec,
        single: bool,
    ) -> Tensor:
        ctx.save_for_backward(positions, theta, boxes, types)
        ctx.spec, ctx.single = spec, single
        value, _, _ = operators().value(
            positions, boxes, types, theta, *packed(spec), False, single, torch.get_num_threads()
        )
        return value

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
        positions, theta, boxes, types = ctx.saved_tensors
        gradient, d_theta = _Gradient.apply(positions, theta, boxes, types, ctx.spec, ctx.single)
        return v[:, None, None] * gradient, v @ d_theta, None, None, None, None


def energy(
    positions: Tensor,
    box: Tensor,
    types: Tensor,
    theta: Tensor,
    spec: PotentialSpec,
    precision: str = "double",
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
    InputError
        If shapes do not match or the cutoff is longer than half the box.
    """
    if box.requires_grad:
        raise InputError(
            "box: found one that requires a gradient, expected none: there is no such derivative"
        )
    _, boxes, types = checked_system(positions, box, types, spec)
    checked_parameters(theta, spec)
    x = positions.to(torch.float64).reshape(len(boxes), *positions.shape[-2:]).contiguous()
    value = _Energy.apply(
        x, theta.to(torch.float64).contiguous(), boxes, types, spec, is_single(precision)
    )
    return value.reshape(positions.shape[:-2])


def energy_forces(
    positions: Tensor,
    box: Tensor,
    types: Tensor,
    theta: Tensor,
    spec: PotentialSpec,
    precision: str = "double",
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
    check_one_system(positions)
    x, boxes, types = checked_system(positions, box, types, spec)
    return operators().energy_forces(
        x[0],
        boxes,
        types,
        checked_parameters(theta, spec),
        *packed(spec),
        is_single(precision),
        torch.get_num_threads(),
    )


def hvp(
    positions: Tensor,
    box: Tensor,
    types: Tensor,
    theta: Tensor,
    spec: PotentialSpec,
    direction: Tensor,
    precision: str = "double",
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
        raise InputError(
            f"direction: found shape {tuple(direction.shape)}, expected that of the positions, "
            f"{tuple(positions.shape)}"
        )
    x, boxes, types = checked_system(positions, box, types, spec)
    product, d_theta = operators().hvp(
        x,
        boxes,
        types,
        checked_parameters(theta, spec),
        *packed(spec),
        contiguous(direction).reshape(x.shape),
        is_single(precision),
        torch.get_num_threads(),
    )
    return product.reshape(positions.shape), d_theta.reshape(
        *positions.shape[:-2], spec.n_parameters
    )


def basis(positions: Tensor, boxes: Tensor, types: Tensor, spec: PotentialSpec) -> Tensor:
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
    x, boxes, types = checked_system(positions, boxes, types, spec)
    theta = torch.zeros(spec.n_parameters, dtype=torch.float64)
    _, _, d_theta = operators().value(
        x, boxes, types, theta, *packed(spec), True, False, torch.get_num_threads()
    )
    return d_theta.reshape(*positions.shape[:-2], spec.n_parameters)


def virial(
    positions: Tensor,
    boxes: Tensor,
    types: Tensor,
    theta: Tensor,
    spec: PotentialSpec,
    precision: str = "single",
) -> Tensor:
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
    x, boxes, types = checked_system(positions, boxes, types, spec)
    return operators().virial(
        x,
        boxes,
        types,
        checked_parameters(theta, spec),
        *packed(spec),
        is_single(precision),
        torch.get_num_threads(),
    )


def basis_forces(positions: Tensor, box: Tensor, types: Tensor, spec: PotentialSpec) -> Tensor:
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
    check_one_system(positions)
    x, boxes, types = checked_system(positions, box, types, spec)
    theta = torch.zeros(spec.n_parameters, dtype=torch.float64)
    return operators().basis_forces(
        x[0], boxes, types, theta, *packed(spec), torch.get_num_threads()
    )


def core_forces(positions: Tensor, box: Tensor, types: Tensor, spec: PotentialSpec) -> Tensor:
    """Forces [N, 3] (kJ/mol/nm) of the fixed repulsive core alone."""
    theta = torch.zeros(spec.n_parameters, dtype=torch.float64)
    return energy_forces(positions, box, types, theta, spec)[1]


def forget_lists() -> None:
    """Let the next :func:`energy_forces` of each system build a new neighbour list.

    The order in which neighbours are summed up, and so the last bits of energies and forces, depend
    on where the list was built. After this they depend on positions alone, so a run that goes on and
    one that starts from its checkpoint stay the same to the last bit. Does nothing without the
    compiled core.
    """
    if available():
        ctypes.CDLL(str(library_path())).cgadv_forget_lists()
