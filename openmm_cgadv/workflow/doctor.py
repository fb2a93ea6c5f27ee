"""Report what works on this machine: versions, platforms, backends, kernels, GPU, threads, speeds."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import openmm
import torch

from .. import __version__, config, kernels
from ..bundle import save_bundle
from ..dynamics import LangevinParameters
from ..export.backends import torchforce
from ..fit.ranges import RangeSettings
from ..model import Model
from ..platforms import has_opencl_gpu, platform_names
from ..potentials import PairSpec, PotentialSpec, ThreeBodySpec
from ..simulation.speed import measure_speeds

PACKAGES = (
    "e3nn",
    "mdtraj",
    "h5py",
    "numpy",
    "pydantic",
    "matplotlib",
    "tensorboard",
)

TORCHFORCE = (
    "openmmtorch",
    "acellera-openmmtorch-cpu",
    "acellera-openmmtorch-cu12",
    "acellera-openmmtorch-cu13",
)
"""Packages that contain TorchForce; one of them is sufficient."""
OPTIONAL = ("openmmml",)
PLATFORM_ADVICE = {
    "CUDA": "to use an NVIDIA GPU install its driver",
    "HIP": "to use an AMD GPU install its driver and ROCm",
    "OpenCL": "to use a GPU through it install its OpenCL driver",
}
SIDE = 8
"""Beads along an edge of the box of the speed test."""
SPEED_SECONDS = 0.5
"""Wall time of each speed test (s)."""


def findings() -> Iterator[str]:
    """Yield the lines of the report; `no` is followed by the reason and by what to do."""
    yield _line(
        "openmm_cgadv",
        f"{__version__} on Python {platform.python_version()}, {platform.platform()}",
    )
    yield _line("torch", torch.__version__)
    yield _line("openmm", openmm.version.version)
    for name in PACKAGES:
        yield _line(name, _version(name) or f"no: not installed; pip install {name}")
    for name in OPTIONAL:
        yield _line(name, _version(name) or f"not installed, optional; pip install {name}")
    installed = [f"{name} {found}" for name in TORCHFORCE if (found := _version(name))]
    if len(installed) > 1:
        installed.append("they overwrite each other: keep one of them")
    yield _line(
        "openmm-torch", "; ".join(installed) or f"not installed, optional; {torchforce.INSTALL}"
    )
    for name in platform_names():
        text = _works(openmm.Platform.getPlatform(name))
        if name == "OpenCL" and not has_opencl_gpu():
            text += ", on the processor: used only if it is named"
        yield _line(f"platform {name}", text)
    for failure in openmm.Platform.getPluginLoadFailures():
        path, _, reason = failure.removeprefix("Error loading library ").partition(": ")
        name = os.path.basename(path).removeprefix("libOpenMM").split(".")[0]
        # A library with the name of a platform is the platform itself; others depend on one.
        if name in PLATFORM_ADVICE:
            yield _line(f"platform {name}", f"no: {reason}; {PLATFORM_ADVICE[name]}")
    yield from _speeds()
    if torchforce.why_not() is None and not torchforce.reads_back():
        yield _line(
            "TorchForce from XML",
            f"no: OpenMM {openmm.version.version} ends the process when it copies, unpickles or deserializes "
            'a System with a TorchForce; to read such Systems, pip install "openmm==8.5.2" and install this package again',
        )
    if kernels.available():
        built = f"{kernels.instruction_set()}, built with {kernels.compiler()}"
        yield _line("kernels", f"{built}, {_kernel_speed()}")
    else:
        yield _line(
            "kernels", f"no, plain torch is used, one to two orders slower: {kernels.why_not()}"
        )
    if torch.cuda.is_available():
        yield _line("GPU", torch.cuda.get_device_name(0))
    else:
        cause = "torch is a build without CUDA; to use one install another build of torch"
        if torch.version.cuda is not None:
            cause = f"torch finds no device; {PLATFORM_ADVICE['CUDA']}"
        yield _line("GPU", f"no: {cause}")
    yield _line("threads", f"{torch.get_num_threads()} (set OMP_NUM_THREADS to change)")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _beads() -> Model:
    """Return a model with the size of a water bead and a potential of the default shape."""
    shape = config.Potential()
    pair = PairSpec((0.25,), 0.7, shape.pair_functions, (1e5,))
    three_body = ThreeBodySpec.splines(0.25, 0.4, RangeSettings().fewest_radial, shape.l_max)
    spec = PotentialSpec(("W",), (pair, three_body))
    return Model(
        spec=spec,
        theta=np.zeros(spec.n_parameters),
        masses=np.array([18.0]),
        temperature=300.0,
        timestep=0.005,
        friction=LangevinParameters(np.array([[[10.0]]])),
        types=np.zeros(SIDE**3, dtype=np.int64),
        positions=0.31 * np.indices([SIDE] * 3).reshape(3, -1).T,
        box=0.31 * SIDE * np.eye(3),
    )


def _milliseconds(ten_steps: Callable[[], None]) -> str:
    ten_steps()
    steps, begun = 0, time.perf_counter()
    while (seconds := time.perf_counter() - begun) < SPEED_SECONDS:
        ten_steps()
        steps += 10
    return f"{1e3 * seconds / steps:.2g} ms"


def _speeds() -> Iterator[str]:
    """Yield the time of a step of every backend on every platform."""
    with TemporaryDirectory() as folder:
        bundle = save_bundle(_beads(), Path(folder) / "beads.cg")
        speeds = measure_speeds(bundle, seconds=SPEED_SECONDS)
    for (backend, name), tried in speeds.items():
        text = f"no: {tried.failure}"
        if tried.failure is None:
            text = f"works, {tried.output} ms a step of {SIDE**3} beads"
        yield _line(f"{backend} on {name}", text)


def _kernel_speed() -> str:
    """Return the time of energy and forces at constant positions."""
    model = _beads()
    x, box, types, theta = map(
        torch.as_tensor, (model.positions, model.box, model.types, model.theta)
    )

    def ten_steps() -> None:
        for _ in range(10):
            kernels.energy_forces(x, box, types, theta, model.spec)

    return f"{_milliseconds(ten_steps)} for the forces of {SIDE**3} beads"


def _works(found: openmm.Platform) -> str:
    """Return whether a platform integrates a free particle, or why not."""
    system = openmm.System()
    system.addParticle(1.0)
    try:
        context = openmm.Context(system, openmm.VerletIntegrator(0.001), found)
        context.setPositions([[0.0, 0.0, 0.0]])
        context.getIntegrator().step(1)
    except openmm.OpenMMException as error:
        advice = PLATFORM_ADVICE.get(found.getName(), "use another platform")
        return f"no: {error}; {advice}"
    return "works"


def _line(name: str, text: str) -> str:
    return f"{name:<24} {text}"
