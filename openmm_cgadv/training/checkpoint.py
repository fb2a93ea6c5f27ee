"""Checkpoints on disk, written whole or not at all, and opened without executing code."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import torch

SCHEMA = 2
KEEP = 2


def save_checkpoint(directory: Path, iteration: int, content: dict) -> None:
    """Write ``iteration-NNNNNN.pt`` and keep the last few."""
    directory.mkdir(parents=True, exist_ok=True)
    part = directory / "checkpoint.part"
    torch.save({"schema": SCHEMA, "iteration": iteration, **content}, part)
    os.replace(part, directory / f"iteration-{iteration:06d}.pt")
    for old in sorted(directory.glob("iteration-*.pt"))[:-KEEP]:
        old.unlink()


def load_checkpoint(directory: Path) -> dict | None:
    """The newest checkpoint that is whole, or None.

    Raises
    ------
    ValueError
        If none of the checkpoints there can be read.
    """
    found = sorted(directory.glob("iteration-*.pt"), reverse=True)
    for path in found:
        try:
            content = torch.load(path, weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError, OSError):
            continue
        if content.get("schema") != SCHEMA:
            raise ValueError(f"{path}: found checkpoint schema {content.get('schema')}, expected {SCHEMA}")
        return content
    if found:
        raise ValueError(f"{directory}: found {len(found)} damaged checkpoints, expected a whole one; delete them to start again")
    return None
