"""Backend `torchforce`: the energy as a TorchScript module inside OpenMM-Torch's TorchForce."""

from __future__ import annotations

import ctypes
import json
import logging
import re
from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import openmm
import torch

from .. import kernels
from ..potentials import Potential, PotentialSpec
from .backend import DELIVERIES, DELIVERY, Beads, deliver

INSTALL = 'pip install "torch==2.9.1" "openmm==8.6.1" "openmmtorch==1.5"'


@lru_cache
def why_not() -> str | None:
    """Why this backend can't be used here, with what to install, or None."""
    try:
        openmmtorch = _openmmtorch()
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == "openmmtorch"
        cause = (
            "the package openmmtorch is missing"
            if missing
            else (f"openmmtorch does not load with torch {torch.__version__} ({error})")
        )
        return f"{cause}; install it with {INSTALL}"
    try:
        found = version("openmmtorch")
    except PackageNotFoundError:
        found = ""
    # Release 1.5 declares no torch version; with 2.10 it fails as late as in a Context.
    if found == "1.5" and tuple(map(int, torch.__version__.split(".")[:2])) > (2, 9):
        return (
            f"openmmtorch 1.5 works with torch 2.9, found {torch.__version__}; "
            f"install them with {INSTALL}"
        )
    try:
        force = openmmtorch.TorchForce(torch.jit.script(_Probe()))
        system = openmm.System()
        system.addParticle(1.0)
        system.addForce(force)
        platform = openmm.Platform.getPlatform("Reference")
        context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
        context.setPositions([[1.0, 0.0, 0.0]])
        context.getState(energy=True)
    except Exception as error:
        return f"TorchForce fails with torch {torch.__version__} ({error}); install {INSTALL}"
    return None


def _openmmtorch():
    """The package, with its kernels loaded.

    OpenMM loads all plugins when it is imported. Those of OpenMM-Torch find the libraries of torch
    only if torch was imported before, so they get a second chance here.
    """
    library = nvrtc()
    if library is not None:
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    disabled = logging.root.manager.disable
    # It imports OpenMM under its former name, which warns.
    logging.disable(logging.WARNING)
    try:
        import openmmtorch
    finally:
        logging.disable(disabled)
    for failure in openmm.Platform.getPluginLoadFailures():
        found = re.match(r"Error loading library (.*OpenMMTorch[^:]*): ", failure)
        if found and found[1] not in _loaded:
            try:
                openmm.Platform.loadPluginLibrary(found[1])
                _loaded.add(found[1])
            except openmm.OpenMMException:
                # That of a GPU, on a machine without one.
                continue
    return openmmtorch


def nvrtc() -> Path | None:
    """NVIDIA's run-time compiler of CUDA 13, where a package has brought it.

    The wheels of openmmtorch 1.5 for Python 3.10 and 3.13 are linked to it, those for 3.11 and 3.12 to that of
    CUDA 12, which comes with torch 2.9. A program without this package finds it by LD_LIBRARY_PATH.
    """
    for package in getattr(find_spec("nvidia"), "submodule_search_locations", None) or ():
        library = Path(package) / "cu13" / "lib" / "libnvrtc.so.13"
        if library.exists():
            return library
    return None


_loaded: set[str] = set()


class _Probe(torch.nn.Module):
    def forward(self, positions: torch.Tensor) -> torch.Tensor:
        return (positions * positions).sum()


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
    fused = kernels.available() and not plain
    theta, types = torch.as_tensor(theta), torch.as_tensor(types)
    if fused:
        module = kernels.FusedPotential(
            spec, theta, types, precision="double", deliveries=DELIVERIES
        )
    else:
        module = PlainPotential(Potential(spec, theta, types).requires_grad_(False))
    force = TorchForce(torch.jit.script(module))
    force.setUsesPeriodicBoundaryConditions(True)
    force.setOutputsForces(fused)
    force.addGlobalParameter(DELIVERY, 0.0)
    return force


class PlainPotential(torch.nn.Module):
    """A potential whose parameters a Context can change, see :func:`.backend.deliver`."""

    def __init__(self, potential: Potential):
        super().__init__()
        self.potential = potential
        self.types = potential.types
        self.description = potential.description
        self.deliveries = DELIVERIES

    def forward(
        self, positions: torch.Tensor, box: torch.Tensor, delivery: torch.Tensor
    ) -> torch.Tensor:
        # Errors are raised here: OpenMM-Torch crashes on those from inside a module of a module.
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
    if why_not():
        return None
    TorchForce = _openmmtorch().TorchForce
    if not TorchForce.isinstance(force):
        return None
    # A copy: the Context's own module stays inside OpenMM.
    module = TorchForce.cast(force).getModule()
    if not hasattr(module, "deliveries"):
        return None
    spec = PotentialSpec.from_dict(json.loads(module.description))
    return Beads(spec, module.types.cpu().numpy())


def update(context: openmm.Context, force: openmm.Force, theta: np.ndarray) -> None:
    deliver(context, force, theta)
