"""The speed of a model through every backend on every OpenMM platform of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..attempts import Attempt, attempt_each
from ..export.system import BACKENDS
from ..platforms import platform_names

MEASUREMENT_SECONDS = 0.5
"""Default wall time of each measurement (s)."""


def combinations() -> Iterator[tuple[str, str]]:
    """Yield every backend with every platform, in the order of preference."""
    for backend in BACKENDS:
        for platform in platform_names():
            yield backend, platform


def measure_speeds(
    bundle: Path, timestep: float | None = None, seconds: float = MEASUREMENT_SECONDS
) -> dict[tuple[str, str], Attempt]:
    """Measure a model with every backend on every platform, in child processes.

    Parameters
    ----------
    bundle : path
        A model bundle.
    timestep : float, optional
        (ps); that of the model by default.
    seconds : float
        Wall time of each measurement (s).
    Returns
    -------
    dict of (backend, platform) to Attempt
        Its output is the wall time of a step in milliseconds.
    """
    names = {f"{backend}:{platform}": (backend, platform) for backend, platform in combinations()}
    child = Path(__file__).with_name("speed_child.py")
    found = attempt_each(child, [str(bundle), str(timestep or ""), str(seconds)], names)
    return {names[name]: found[name] for name in names}
