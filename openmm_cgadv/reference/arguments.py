"""The arguments that a reference on disk was made with, held against those asked for now."""
from __future__ import annotations

import hashlib
import json
from pathlib import Path

from ..trajectory import BeadTrajectory


ENDS = 65536
"""Bytes at the beginning, in the middle and at the end of a file by which it is known again."""


def fingerprint(file: Path) -> str:
    """What tells a file from another one, of the same size too, without reading all of it."""
    size = file.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with open(file, "rb") as opened:
        for start in (0, size // 2, max(0, size - ENDS)):
            opened.seek(start)
            digest.update(opened.read(ENDS))
    return digest.hexdigest()[:16]


def is_finished(path, arguments) -> bool:
    """Whether the bead trajectory at `path` is complete, and was made with `arguments`.

    Raises
    ------
    ValueError
        It was made with others, complete or not; the sentence names the first that differs.
    """
    with BeadTrajectory.open(path) as old:
        found, complete = old.provenance.get("arguments", {}), old.complete
    expected = json.loads(json.dumps(arguments))
    for name in [*expected, *(name for name in found if name not in expected)]:
        if found.get(name) != expected.get(name):
            raise ValueError(f"{path} was made with {name} = {found.get(name)}, but "
                             f"{expected.get(name)} is asked for now: delete it to make it again, "
                             "or write to another place")
    return complete
