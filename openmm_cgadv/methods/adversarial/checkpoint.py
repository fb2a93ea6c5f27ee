"""Checkpoints of the training, written atomically and loaded without executing code."""

from __future__ import annotations

import zipfile
from pathlib import Path

import torch

from ...errors import InputError
from ...files import replacing
from .convergence import GAP

SCHEMA = 3

KEEP = 2
"""Checkpoints that are kept. The second one is used if the newest is corrupt."""


def save_checkpoint(directory: Path, iteration: int, content: dict) -> None:
    """Write ``iteration-NNNNNN.pt`` and delete all but the last `KEEP` checkpoints."""
    with replacing(directory / f"iteration-{iteration:06d}.pt") as partial:
        torch.save({"schema": SCHEMA, "iteration": iteration, **content}, partial)
    for old in sorted(directory.glob("iteration-*.pt"))[:-KEEP]:
        old.unlink()


def load_checkpoint(directory: Path) -> dict | None:
    """Return the newest readable checkpoint, or None if there is none.

    Raises
    ------
    InputError
        All checkpoints are corrupt, or one has an unknown schema.
    """
    found = sorted(directory.glob("iteration-*.pt"), reverse=True)
    for path in found:
        content = _read(path)
        if content is None:
            continue
        schema = content.get("schema")
        if schema == 2:
            content = _from_schema_2(content)
        elif schema != SCHEMA:
            raise InputError(f"{path}: found checkpoint schema {schema}, expected {SCHEMA}")
        return content
    if found:
        raise InputError(
            f"{directory}: found {len(found)} corrupt checkpoints, expected at least one readable one; delete them to "
            "start the training again"
        )
    return None


def _read(path: Path) -> dict | None:
    """Return the content of a checkpoint, or None if its archive is corrupt."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                return None
    except (zipfile.BadZipFile, OSError):
        return None
    return torch.load(path, weights_only=True)


def _from_schema_2(content: dict) -> dict:
    """Return the content of a checkpoint of schema 2 under its present names."""
    discriminators = {
        {"shear": "transverse"}.get(name, name): _renamed_weights(state)
        for name, state in content["dynamics"].items()
    }
    loop = content["loop"]
    rows = {
        ("gap" if name == "margin" else name.replace("margin of ", GAP)): values
        for name, values in loop["course"]["rows"].items()
    }
    rows = {name.replace(f"{GAP}shear", f"{GAP}transverse"): rows[name] for name in rows}
    return {
        "schema": SCHEMA,
        "iteration": content["iteration"],
        **{
            name: content[name]
            for name in ("phi", "motion", "optimizer", "average", "chains", "recoveries")
        },
        "motion_discriminators": discriminators,
        "configurational_discriminator": content["structure"],
        "loop": {
            "decay_start": loop["begun"],
            "history": {"rows": rows, "mobility": loop["course"]["mobility"]},
            "candidates": [
                one | {"values": {_value_name(name): v for name, v in one["values"].items()}}
                for one in loop["candidates"]
            ],
            "interval_sums": loop["rests"],
            "validations": loop["validations"],
            "losses": loop["losses"],
            "reinitializations": loop["renewals"],
            "reason": loop["why"],
            "converged": loop["arrived"],
            "warnings": loop["warnings"],
        },
    }


def _renamed_weights(state: dict) -> dict:
    names = {"kind.weight": "type_embedding.weight"}
    return state | {"module": {names.get(name, name): w for name, w in state["module"].items()}}


def _value_name(name: str) -> str:
    return name.replace("held_out_windows", "held_out_msd")
