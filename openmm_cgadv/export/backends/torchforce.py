"""Backend `torchforce`: the energy as a TorchScript module in OpenMM-Torch's TorchForce."""

from __future__ import annotations

import ctypes
import json
import logging
import re
import sys
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import numpy as np
import openmm
import torch

from ... import kernels
from ...attempts import Attempt, attempt_each
from ...platforms import platform_names
from ...potentials import Potential, PotentialSpec
from .base import DELIVERIES, DELIVERY, Beads, deliver
from .torchforce_child import XML

INSTALL = 'pip install "torch==2.12.1" "openmm==8.6.1" "acellera-openmmtorch-cpu==1.10"'
"""Command that installs a combination of versions in which TorchForce works."""
LIBRARIES = {"Reference": ("Reference", "CPU"), "OpenCL": ("OpenCL",), "CUDA": ("CUDA",)}
"""OpenMM platforms of each library libOpenMMTorchNAME."""


def why_not(platform: str | None = None) -> str | None:
    """Return why this backend can't be used on a platform, with what to install, or None.

    Without `platform`, the reason applies to a Context whose platform OpenMM chooses.
    """
    reasons = _reasons()
    if platform is not None:
        if platform not in reasons:
            return f"OpenMM has no platform {platform} on this machine"
        reason = reasons[platform]
        return reason and f"{reason}; install it with {INSTALL}"
    for name, reason in reasons.items():
        if reason is not None and _is_loaded(name):
            return (
                f"OpenMM would choose the platform {name}, where {reason}; import openmm_cgadv before "
                f"torch, or install TorchForce with {INSTALL}"
            )
    if None in reasons.values():
        return None
    return f"{next(iter(reasons.values()))}; install it with {INSTALL}"


@lru_cache
def _reasons() -> dict[str, str | None]:
    """Return why TorchForce can't be used on each platform of this machine, None where it works."""
    if find_spec("openmmtorch") is None:
        return dict.fromkeys(platform_names(), "the package openmmtorch is missing")
    return {
        name: tried.failure and f"TorchForce fails with torch {torch.__version__} ({tried.failure})"
        for name, tried in _attempts(*platform_names()).items()
    }


@lru_cache
def reads_back() -> bool:
    """Return whether a System with a TorchForce can be deserialized, copied and unpickled.

    If it can't, OpenMM ends the process: OpenMM 8.6 calls a function of its serialization
    differently from OpenMM 8.5, for which OpenMM-Torch was built.
    """
    return why_not("Reference") is None and _attempts(XML)[XML].failure is None


def _attempts(*names: str) -> dict[str, Attempt]:
    child = Path(__file__).with_name("torchforce_child.py")
    return attempt_each(child, [str(nvrtc() or "")], names)


def _is_loaded(platform: str) -> bool:
    """Return whether this process has loaded OpenMM-Torch's library for a platform."""
    return any(platform in LIBRARIES.get(_served(path), ()) for path in _loaded())


def _loaded() -> list[str]:
    return [*openmm.pluginLoadedLibNames, *_loaded_later]


def _served(path: str) -> str:
    """Return the part of a library's name that names its platform: Reference, OpenCL or CUDA."""
    found = re.search(r"OpenMMTorch(\w*)", path)
    return found[1] if found else ""


def _openmmtorch() -> ModuleType:
    """Return the package openmmtorch, with those of its libraries loaded that work.

    OpenMM loads all plugins when it is imported. Those of OpenMM-Torch find the libraries of torch
    only if torch was imported before. Otherwise they are loaded here, except those whose use would
    end the process: without them OpenMM chooses another platform.
    """
    library = nvrtc()
    if library is not None:
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    disabled = logging.root.manager.disable
    # The package imports OpenMM under its former name, which logs a warning.
    logging.disable(logging.WARNING)
    try:
        import openmmtorch
    finally:
        logging.disable(disabled)
    for failure in openmm.Platform.getPluginLoadFailures():
        found = re.match(r"Error loading library (.*OpenMMTorch[^:]*): ", failure)
        if found and found[1] not in _loaded_later:
            served = LIBRARIES.get(_served(found[1]), ())
            if all(_reasons().get(name) is None for name in served if name in _reasons()):
                try:
                    openmm.Platform.loadPluginLibrary(found[1])
                    _loaded_later.append(found[1])
                except openmm.OpenMMException:
                    # The library of a GPU platform, on a machine without a GPU.
                    continue
    return openmmtorch


_loaded_later: list[str] = []


def nvrtc() -> Path | None:
    """Return the path of NVIDIA's run-time compiler of CUDA 13 if a Python package contains it, or None.

    The wheels of openmmtorch 1.5 for Python 3.10 and 3.13 are linked to it, those for 3.11 and 3.12 to that of
    CUDA 12, which torch 2.9 contains. A program without this package finds it by LD_LIBRARY_PATH.
    """
    for package in getattr(find_spec("nvidia"), "submodule_search_locations", None) or ():
        library = Path(package) / "cu13" / "lib" / "libnvrtc.so.13"
        if library.exists():
            return library
    return None


def create_force(
    spec: PotentialSpec,
    theta: np.ndarray,
    types: np.ndarray,
    plain: bool,
    particles: Sequence[int] | None = None,
) -> openmm.Force:
    if particles is not None:
        raise ValueError(
            "backend: found 'torchforce', expected 'plugin' or 'pythonforce', which can act on a "
            "part of a System"
        )
    TorchForce = _openmmtorch().TorchForce
    fused = kernels.available(spec) and not plain
    parameters, numbers = torch.as_tensor(theta), torch.as_tensor(types)
    module: torch.nn.Module
    if fused:
        module = kernels.FusedPotential(
            spec, parameters, numbers, precision="double", deliveries=DELIVERIES
        )
    else:
        module = PlainPotential(Potential(spec, parameters, numbers).requires_grad_(False))
    force = TorchForce(torch.jit.script(module))
    force.setUsesPeriodicBoundaryConditions(True)
    force.setOutputsForces(fused)
    force.addGlobalParameter(DELIVERY, 0.0)
    return force


class PlainPotential(torch.nn.Module):
    """A potential whose parameters can change in a Context (:func:`.base.deliver`)."""

    def __init__(self, potential: Potential) -> None:
        super().__init__()
        self.potential = potential
        self.types = potential.types
        self.description = potential.description
        self.deliveries = DELIVERIES

    def forward(
        self, positions: torch.Tensor, box: torch.Tensor, delivery: torch.Tensor
    ) -> torch.Tensor:
        # Check here: OpenMM-Torch crashes on errors from submodules.
        if len(positions) != len(self.types):
            raise ValueError(
                f"System: found {len(positions)} particles, expected {len(self.types)} beads"
            )
        number = int(delivery)
        if number > 0:
            theta = self.potential.theta
            path = self.deliveries + str(number)
            theta.copy_(torch.from_file(path, False, theta.numel(), dtype=torch.float64))
        return self.potential(positions, box)


def read(force: openmm.Force) -> Beads | None:
    if "openmmtorch" not in sys.modules:
        # No force in this process is a TorchForce of this package.
        return None
    TorchForce = _openmmtorch().TorchForce
    if not TorchForce.isinstance(force):
        return None
    # This module is a copy; that of the Context is not accessible.
    module = TorchForce.cast(force).getModule()
    if not hasattr(module, "deliveries"):
        return None
    spec = PotentialSpec.from_dict(json.loads(module.description))
    return Beads(spec, module.types.cpu().numpy())


def update(context: openmm.Context, force: openmm.Force, theta: np.ndarray) -> None:
    deliver(context, force, theta)
