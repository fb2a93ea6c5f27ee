"""The checkpoint of an unfinished production run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..files import read_npz, replacing


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run, from which it resumes.

    Attributes
    ----------
    state : bytes
        Checkpoint of the OpenMM Context.
    frames : int
        Frames of the run up to the state.
    viewer_size : int
        Bytes of the trajectory for viewers up to the state.
    arguments : dict
        Arguments of the run.
    seconds : dict
        Wall time by part of the run, ``equilibration`` and ``production`` (s).
    """

    state: bytes
    frames: int
    viewer_size: int
    arguments: dict
    seconds: dict[str, float]

    def save(self, path: Path) -> None:
        """Write the checkpoint to an NPZ file, atomically."""
        with replacing(path) as partial, open(partial, "wb") as file:
            np.savez(
                file,
                state=np.frombuffer(self.state, np.uint8),
                frames=self.frames,
                viewer_size=self.viewer_size,
                description=json.dumps([self.arguments, self.seconds]),
            )

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Read a checkpoint.

        Raises
        ------
        InputError
            The file is corrupt.
        """
        remedy = f"delete {path.parent}, and the run starts again"
        found = read_npz(path, remedy)
        try:
            # Older versions wrote `kept` and `about`.
            older = "kept" in found
            arguments, seconds = json.loads(str(found["about" if older else "description"]))
            frames, size = int(found["frames"]), int(found["kept" if older else "viewer_size"])
            return cls(found["state"].tobytes(), frames, size, arguments, seconds)
        except (KeyError, ValueError, TypeError) as error:
            raise InputError(f"{path} is corrupt: {remedy}") from error
