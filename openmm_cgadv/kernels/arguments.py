"""Checks of what is handed to the compiled core, which trusts shapes and types."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import InputError

if TYPE_CHECKING:
    from ..potentials import PotentialSpec


def contiguous(x: Tensor) -> Tensor:
    """Return a detached, contiguous tensor of float64."""
    return x.detach().to(torch.float64).contiguous()


def checked_system(
    positions: Tensor, boxes: Tensor, types: Tensor, spec: PotentialSpec
) -> tuple[Tensor, Tensor, Tensor]:
    """Contiguous positions [B,N,3], boxes [B,3,3] and types, after checks."""
    if positions.dim() not in (2, 3) or positions.shape[-1] != 3:
        raise InputError(
            f"positions: found shape {tuple(positions.shape)}, expected [N,3] or [B,N,3]"
        )
    batch = positions.shape[:-2]
    count = math.prod(batch)
    if boxes.shape[-2:] != (3, 3) or boxes.numel() not in (9, 9 * count):
        raise InputError(
            f"box: found shape {tuple(boxes.shape)} for positions of shape {tuple(positions.shape)}, "
            "expected [3,3] or one such box per replica"
        )
    if types.shape != positions.shape[-2:-1]:
        raise InputError(
            f"types: found shape {tuple(types.shape)} for {positions.shape[-2]} beads, expected one type a bead"
        )
    if positions.is_complex():
        raise InputError(f"positions: found {positions.dtype}, expected real numbers")
    if types.is_floating_point() or types.is_complex():
        raise InputError(f"types: found {types.dtype}, expected whole numbers")
    boxes = contiguous(boxes).reshape(-1, 3, 3)
    check_boxes(boxes, spec.r_cut, "cutoff")
    boxes = boxes.expand(count, 3, 3).contiguous()
    x = contiguous(positions).reshape(count, positions.shape[-2], 3)
    return x, boxes, types.to(torch.int64).contiguous()


def check_one_system(positions: Tensor) -> None:
    if positions.dim() != 2:
        raise InputError(
            f"positions: found shape {tuple(positions.shape)}, expected [N,3] of one system"
        )


def checked_parameters(theta: Tensor, spec: PotentialSpec) -> Tensor:
    if theta.shape != (spec.n_parameters,):
        raise InputError(
            f"theta: found shape {tuple(theta.shape)}, expected ({spec.n_parameters},)"
        )
    return contiguous(theta)


def check_boxes(boxes: Tensor, reach: float, what: str) -> None:
    shortest = float(torch.diagonal(boxes, dim1=-2, dim2=-1).min()) if boxes.numel() else math.inf
    if 2.0 * reach > shortest * (1.0 + 1e-7):
        raise InputError(
            f"box: found a shortest edge of {shortest:.6g} nm, expected at least twice the {what} of {reach:.6g} nm"
        )


def checked_replicas(
    positions: Tensor, boxes: Tensor, types: Tensor, theta: Tensor, spec: PotentialSpec
) -> tuple[Tensor, Tensor]:
    """Contiguous boxes [B,3,3] and types of a rollout, after checks."""
    if positions.dim() != 3:
        raise InputError(f"positions: found shape {tuple(positions.shape)}, expected [B,N,3]")
    _, boxes, types = checked_system(positions, boxes, types, spec)
    checked_parameters(theta, spec)
    return boxes, types


def checked_frames(frames: list[int], damping_time: float) -> Tensor:
    frames = [int(f) for f in frames]
    if not frames or frames[0] < 0 or any(b <= a for a, b in zip(frames, frames[1:])):
        raise InputError(f"frames: found {frames}, expected increasing step numbers from 0 on")
    if not damping_time > 0:
        raise InputError(f"damping_time: found {damping_time}, expected a positive time in ps")
    return torch.tensor(frames, dtype=torch.int64)


def check_masses(masses: Tensor, types: Tensor) -> None:
    if masses.shape != types.shape:
        raise InputError(
            f"masses: found shape {tuple(masses.shape)}, expected {tuple(types.shape)}"
        )
    if not bool(((masses > 0) & masses.isfinite()).all()):
        raise InputError("masses: found one that is not finite and above 0")


def is_single(precision: str) -> bool:
    if precision not in ("double", "single"):
        raise InputError(f"precision: found {precision!r}, expected 'double' or 'single'")
    return precision == "single"
