"""The record of a finished production run, `production.json`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import read_json, write_atomic

RECORD_FILE = "production.json"
"""Name of the record in the directory of a run."""


@dataclass(frozen=True)
class ProductionRun:
    """A finished run.

    Attributes
    ----------
    trajectory : Path
        Wrapped positions for viewers, beside ``topology.pdb``.
    beads : Path or None
        Unwrapped positions and velocities, an H5MD file.
    ns_per_day : float
        Speed after the equilibration, including the writing of frames.
    seconds : float
        Wall time, including the equilibration.
    platform, backend : str
    threads : int
    """

    trajectory: Path
    beads: Path | None
    ns_per_day: float
    seconds: float
    platform: str
    backend: str
    threads: int


def write_record(directory: Path, arguments: dict, run: ProductionRun, about: dict) -> None:
    """Write the record of a finished run.

    Parameters
    ----------
    directory : Path
    arguments : dict
        Arguments of the run, against which later calls are compared.
    run : ProductionRun
    about : dict
        Further plain values: the dynamics of the model, versions.
    """
    content = {"arguments": arguments, **asdict(run), **about}
    for name in ("trajectory", "beads"):
        content[name] = content[name] and content[name].name
    write_atomic(directory / RECORD_FILE, json.dumps(content, indent=2))


def read_record(directory: Path) -> dict[str, Any] | None:
    """Return the record of a finished run as plain values, None where there is none.

    ``equation``, ``conserves_momentum`` and ``friction_per_ps`` describe the dynamics of the model;
    records of older versions lack them.

    Raises
    ------
    InputError
        The record is corrupt.
    """
    path = directory / RECORD_FILE
    if not path.exists():
        return None
    content = read_json(path, _remedy(path))
    if not isinstance(content.get("arguments"), dict):
        raise _corrupt(path)
    return content


def finished_run(directory: Path, arguments: dict) -> ProductionRun | None:
    """Return the finished run of these arguments in a directory, None where there is none.

    Raises
    ------
    InputError
        The directory contains a run with other arguments, or its record is corrupt.
    """
    content = read_record(directory)
    if content is None:
        return None
    names = ("ns_per_day", "seconds", "platform", "backend", "threads")
    try:
        run = ProductionRun(
            directory / content["trajectory"],
            content["beads"] and directory / content["beads"],
            *(content[name] for name in names),
        )
    except KeyError as error:
        raise _corrupt(directory / RECORD_FILE) from error
    check_same(directory, content["arguments"], arguments)
    return run if (run.beads or run.trajectory).exists() else None


def check_same(directory: Path, found: dict, expected: dict) -> None:
    """Compare the arguments of the run in a directory with those of this call.

    Raises
    ------
    InputError
        An argument differs; the message names the first that does.
    """
    for name, value in expected.items():
        recorded = found.get(name)
        if recorded == value:
            continue
        if name == "length":
            step = expected["timestep"]
            recorded, value = (f"{x:g} ps ({x / step:.0f} steps)" for x in (recorded, value))
        raise InputError(
            f"{directory}: found a run with {name} = {recorded}, expected {value}: delete it to run "
            "again, or write to another directory"
        )


def _corrupt(path: Path) -> InputError:
    return InputError(f"{path} is corrupt: {_remedy(path)}")


def _remedy(path: Path) -> str:
    return f"delete {path.parent}, and the run starts again"
