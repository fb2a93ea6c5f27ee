"""What works on this machine and how fast: versions, platforms, backends, kernels, GPU, threads."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import openmm
import torch

from . import __version__, config, kernels
from .baselines.ranges import LEAST_RADIAL
from .export import Model
from .export.system import BACKENDS
from .potentials import PairSpec, PotentialSpec, ThreeBodySpec
from .production import create_simulation

PACKAGES = (
    "e3nn",
    "mdtraj",
    "h5py",
    "numpy",
    "pydantic",
    "matplotlib",
    "tensorboard",
)

OPTIONAL = ("openmmtorch", "openmmml")
PLATFORM_CURES = {
    "CUDA": "to use an NVIDIA GPU install its driver",
    "HIP": "to use an AMD GPU install its driver and ROCm",
    "OpenCL": "to use a GPU through it install its OpenCL driver",
}
SIDE = 8
"""Beads along an edge of the box whose speed is measured."""
SPEED_SECONDS = 0.5
"""Wall time of each speed figure."""


def findings() -> Iterator[str]:
    """Lines of what was found; `no` is followed by the reason and by the one thing to do."""
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
    for k in range(openmm.Platform.getNumPlatforms()):
        found = openmm.Platform.getPlatform(k)
        yield _line(f"platform {found.getName()}", _works(found))
    for failure in openmm.Platform.getPluginLoadFailures():
        path, _, reason = failure.removeprefix("Error loading library ").partition(": ")
        name = os.path.basename(path).removeprefix("libOpenMM").split(".")[0]
        # Those named after a platform are the platforms themselves; others only follow them.
        if name in PLATFORM_CURES:
            yield _line(f"platform {name}", f"no: {reason}; {PLATFORM_CURES[name]}")
    for name, backend in BACKENDS.items():
        reason = backend.why_not()
        yield _line(f"backend {name}", _speed(name) if reason is None else f"no: {reason}")
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
            cause = f"torch finds no device; {PLATFORM_CURES['CUDA']}"
        yield _line("GPU", f"no: {cause}")
    yield _line("threads", f"{torch.get_num_threads()} (set OMP_NUM_THREADS to change)")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _beads() -> Model:
    """Beads like water's, with a potential of the default shape."""
    shape = config.Potential()
    pair = PairSpec((0.25,), 0.7, shape.pair_functions, (1e5,))
    three_body = ThreeBodySpec.splines(0.25, 0.4, LEAST_RADIAL, shape.l_max)
    spec = PotentialSpec(("W",), pair, three_body)
    return Model(
        spec=spec,
        theta=np.zeros(spec.n_parameters),
        masses=[18.0],
        temperature=300.0,
        timestep=0.005,
        equation="langevin",
        drift=[[[10.0]]],
        types=np.zeros(SIDE**3),
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


def _speed(backend: str) -> str:
    """Time of a step through a backend."""
    model = _beads()
    try:
        simulation = create_simulation(model, backend=backend)
        simulation.context.setVelocitiesToTemperature(model.temperature, 1)
        spent = _milliseconds(lambda: simulation.integrator.step(10))
    except openmm.OpenMMException as error:
        return f"no: {error}"
    where = simulation.context.getPlatform().getName()
    return f"works, {spent} a step of {SIDE**3} beads ({where} platform)"


def _kernel_speed() -> str:
    """Time of energy and forces of beads that don't move."""
    model = _beads()
    x, box, types, theta = map(
        torch.as_tensor, (model.positions, model.box, model.types, model.theta)
    )

    def ten_steps():
        for _ in range(10):
            kernels.energy_forces(x, box, types, theta, model.spec)

    return f"{_milliseconds(ten_steps)} for the forces of {SIDE**3} beads"


def _works(found: openmm.Platform) -> str:
    """Whether a platform runs a particle."""
    system = openmm.System()
    system.addParticle(1.0)
    try:
        context = openmm.Context(system, openmm.VerletIntegrator(0.001), found)
        context.setPositions([[0.0, 0.0, 0.0]])
        context.getIntegrator().step(1)
    except openmm.OpenMMException as error:
        cure = PLATFORM_CURES.get(found.getName(), "use another platform")
        return f"no: {error}; {cure}"
    return "works"


def _line(name: str, text: str) -> str:
    return f"{name:<21} {text}"
