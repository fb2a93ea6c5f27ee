"""The number of threads of a computation."""

from __future__ import annotations

import os

from .errors import InputError

MOST_THREADS = 1024
"""More threads than any machine has cores are a mistake."""


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def thread_count(asked: int | None = None) -> int:
    """Return the number of threads to use.

    Parameters
    ----------
    asked : int, optional
        By default the environment variable OMP_NUM_THREADS, else the cores that this process may use.

    Raises
    ------
    InputError
        `asked` is less than 1 or more than `MOST_THREADS`.
    """
    if asked is not None:
        if not 1 <= asked <= MOST_THREADS:
            raise InputError(f"threads: found {asked}, expected 1 or more, up to {MOST_THREADS}")
        return int(asked)
    from_environment = os.environ.get("OMP_NUM_THREADS", "")
    if from_environment.isdigit() and int(from_environment) > 0:
        return int(from_environment)
    return available_cores()
