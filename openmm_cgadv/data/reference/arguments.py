"""Compare the arguments of a reference on disk with those of the present call."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from ...errors import InputError
from ..trajectory import BeadTrajectory

SAMPLE_BYTES = 65536
"""Bytes of each sample of a fingerprint. A constant: another value changes all fingerprints."""


def fingerprint(file: Path) -> str:
    """Return a hash of a file's size, beginning, middle and end.

    It distinguishes files of equal size without reading them completely.
    """
    size = file.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with open(file, "rb") as opened:
        for start in (0, size // 2, max(0, size - SAMPLE_BYTES)):
            opened.seek(start)
            digest.update(opened.read(SAMPLE_BYTES))
    return digest.hexdigest()[:16]


def is_finished(path: str | os.PathLike, arguments: dict[str, Any]) -> bool:
    """Return whether the CG trajectory at `path` is complete, after a check of its arguments.

    Raises
    ------
    InputError
        It was made with other arguments, complete or not; the message names the first that differs.
    """
    with BeadTrajectory.open(path) as old:
        found, complete = old.provenance.get("arguments", {}), old.complete
    expected = json.loads(json.dumps(arguments))
    for name in [*expected, *(name for name in found if name not in expected)]:
        if found.get(name) != expected.get(name):
            raise InputError(
                f"{path}: found a trajectory made with {name} = {found.get(name)}, expected "
                f"{expected.get(name)}: delete the file to make it again, or write to another path"
            )
    return complete
