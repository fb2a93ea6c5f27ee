"""What works on this machine: versions, platforms, backends, kernels, GPU, threads."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

import openmm
import torch

from . import __version__, kernels
from .export.system import BACKENDS

PACKAGES = (
    "openmmtorch",
    "e3nn",
    "mdtraj",
    "h5py",
    "numpy",
    "pydantic",
    "matplotlib",
    "tensorboard",
)

PLATFORM_PLUGINS = ("OpenMMCUDA", "OpenMMHIP", "OpenMMOpenCL")


def findings() -> Iterator[str]:
    """Lines of what was found; `no` is followed by the reason and by what to install."""
    yield _line(
        "openmm_cgadv",
        f"{__version__} on Python {platform.python_version()}, {platform.platform()}",
    )
    yield _line("torch", torch.__version__)
    yield _line("openmm", openmm.version.version)
    for name in PACKAGES:
        try:
            yield _line(name, version(name))
        except PackageNotFoundError:
            yield _line(name, "not installed")
    for k in range(openmm.Platform.getNumPlatforms()):
        found = openmm.Platform.getPlatform(k)
        yield _line(f"platform {found.getName()}", _works(found))
    for failure in openmm.Platform.getPluginLoadFailures():
        path, _, reason = failure.removeprefix("Error loading library ").partition(": ")
        name = os.path.basename(path).removeprefix("lib").split(".")[0]
        # Those named after a platform are the platforms themselves; others only follow them.
        if name in PLATFORM_PLUGINS:
            yield _line(f"platform {name.removeprefix('OpenMM')}", f"no: {reason}")
    for name, backend in BACKENDS.items():
        reason = backend.why_not()
        yield _line(f"backend {name}", "works" if reason is None else f"no: {reason}")
    if kernels.available():
        yield _line("kernels", f"compiled, {kernels.instruction_set()}")
    else:
        yield _line(
            "kernels", f"no, plain torch is used, one to two orders slower: {kernels.why_not()}"
        )
    if torch.cuda.is_available():
        yield _line("GPU", torch.cuda.get_device_name(0))
    else:
        yield _line("GPU", "none that torch can use")
    yield _line("threads", f"{torch.get_num_threads()} (set OMP_NUM_THREADS to change)")


def _works(found: openmm.Platform) -> str:
    """Whether a platform runs a particle."""
    system = openmm.System()
    system.addParticle(1.0)
    try:
        context = openmm.Context(system, openmm.VerletIntegrator(0.001), found)
        context.setPositions([[0.0, 0.0, 0.0]])
        context.getIntegrator().step(1)
    except openmm.OpenMMException as error:
        return f"no: {error}"
    return "works"


def _line(name: str, text: str) -> str:
    return f"{name:<21} {text}"
