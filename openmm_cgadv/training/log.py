"""The curves of training, for programs (CSV) and for people (TensorBoard)."""

from __future__ import annotations

import csv
import os
from pathlib import Path


class TrainingLog:
    """Appends rows to ``log.csv`` and scalars to TensorBoard events; goes on after a given iteration.

    Rows have different columns (validation is rare), so the columns are fixed when the file is begun.

    Parameters
    ----------
    directory : Path
    columns : list of str
    iteration : int
        Rows after this iteration, left by an interrupted run, are dropped.

    Attributes
    ----------
    seconds : float
        Time spent up to the last row that was kept.
    """

    def __init__(self, directory: Path, columns: list[str], iteration: int):
        from torch.utils.tensorboard import SummaryWriter

        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / "log.csv"
        kept = []
        if self.path.exists() and iteration > 0:
            with open(self.path, newline="") as file:
                kept = [row for row in csv.DictReader(file) if int(row["iteration"]) <= iteration]
        self.seconds = float(kept[-1].get("seconds") or 0.0) if kept else 0.0
        self.columns = ["iteration", *columns]
        part = directory / "log.csv.part"
        with open(part, "w", newline="") as file:
            self._rows(file).writeheader()
            self._rows(file).writerows(kept)
        os.replace(part, self.path)
        self._file = open(self.path, "a", newline="")
        self._writer = self._rows(self._file)
        self._events = SummaryWriter(str(directory), purge_step=iteration + 1)

    def _rows(self, file) -> csv.DictWriter:
        return csv.DictWriter(file, self.columns, restval="", extrasaction="ignore")

    def write(self, iteration: int, values: dict[str, float]) -> None:
        self._writer.writerow({"iteration": iteration, **{k: f"{v:.6g}" for k, v in values.items()}})
        self._file.flush()
        for name, value in values.items():
            self._events.add_scalar(name, value, iteration)

    def close(self) -> None:
        self._file.close()
        self._events.close()
