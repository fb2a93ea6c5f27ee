"""History of the training: a CSV file and TensorBoard events."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import TextIO

from ...files import read_csv, replacing

COLUMNS = (
    "seconds",
    "friction",
    "dynamics_discriminator_loss",
    "dynamics_generator_loss",
    "dynamics_gap",
    "long_discriminator_loss",
    "long_generator_loss",
    "long_gap",
    "neighbors_discriminator_loss",
    "neighbors_generator_loss",
    "neighbors_gap",
    "transverse_discriminator_loss",
    "transverse_generator_loss",
    "transverse_gap",
    "held_out_gap",
    "held_out_displacement",
    "structure_gradient",
    "held_out_structure",
    "structure_discriminator_loss",
    "structure_gap",
    "validation_diffusion",
    "validation_diffusion_stderr",
    "validation_diffusion_deviation",
    "validation_diffusion_deviation_stderr",
    "validation_rdf_l1",
    "validation_rdf_l1_stderr",
    "validation_adf_l1",
    "validation_adf_l1_stderr",
    "validation_vacf_rms",
    "validation_vacf_rms_stderr",
    "validation_msd",
    "validation_msd_stderr",
    "validation_transverse_current_difference",
    "validation_transverse_current_difference_stderr",
    "validation_shared_difference",
    "validation_shared_difference_stderr",
    "validation_temperature",
    "validation_length",
)
"""Columns after the iteration. The parameters of the generator are inserted after the second one."""


CORRUPT_LOG = "delete it, and the training goes on with a new log"
"""What to do with a log that is not text."""


def log_columns(parameters: list[str]) -> list[str]:
    """Return all columns after the iteration, given the names of the generator's parameters."""
    return [*COLUMNS[:2], *parameters, *COLUMNS[2:]]


def current_column(name: str) -> str:
    """Return the present name of a column of a file that an older version wrote."""
    name = re.sub(r"_margin$", "_gap", name).replace("_critic_loss", "_discriminator_loss")
    return re.sub(r"^shear_", "transverse_", name)


class TrainingLog:
    """Append rows to ``log.csv`` and scalars to TensorBoard events.

    The columns are fixed when the file is created, because rows with a validation have more values than others.

    Parameters
    ----------
    directory : Path
    columns : list of str
        Columns after the iteration.
    iteration : int
        Iteration to resume from. Later rows of an interrupted run are dropped.

    Attributes
    ----------
    seconds : float
        Wall time up to the last row that was kept (s).
    """

    def __init__(self, directory: Path, columns: list[str], iteration: int):
        from torch.utils.tensorboard import SummaryWriter

        directory.mkdir(parents=True, exist_ok=True)
        path = directory / "log.csv"
        kept = []
        if path.exists() and iteration > 0:
            kept = _rows_up_to(path, iteration)
        self.seconds = float(kept[-1].get("seconds") or 0.0) if kept else 0.0
        self.columns = ["iteration", *columns]
        with replacing(path) as partial, open(partial, "w", newline="") as file:
            self._rows(file).writeheader()
            self._rows(file).writerows(kept)
        self._file = open(path, "a", newline="")
        self._writer = self._rows(self._file)
        self._events = SummaryWriter(str(directory), purge_step=iteration + 1)

    def _rows(self, file: TextIO) -> csv.DictWriter:
        return csv.DictWriter(file, self.columns, restval="", extrasaction="ignore")

    def write(self, iteration: int, values: dict[str, float]) -> None:
        """Append the values of one iteration."""
        self._writer.writerow(
            {"iteration": iteration, **{k: f"{v:.6g}" for k, v in values.items()}}
        )
        self._file.flush()
        for name, value in values.items():
            self._events.add_scalar(name, value, iteration)

    def close(self) -> None:
        """Close both files."""
        self._file.close()
        self._events.close()


def _rows_up_to(path: Path, iteration: int) -> list[dict[str, str]]:
    """Return the rows of a log up to an iteration; rows that a crash has cut are left out."""
    names, *rows = read_csv(path, CORRUPT_LOG) or [[]]
    kept = []
    for row in rows:
        found = {current_column(name): value for name, value in zip(names, row) if name}
        try:
            if len(row) == len(names) and int(found["iteration"]) <= iteration:
                float(found.get("seconds") or 0.0)
                kept.append(found)
        except (KeyError, ValueError):
            continue
    return kept
