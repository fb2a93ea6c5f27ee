"""What a report is made from: plain numbers of runs, curves of the model, and the log of the fit."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..files import read_csv
from .assessment import Finding


@dataclass(frozen=True)
class Run:
    """A run: its name in the report, and its observables from `metrics.metrics`."""

    label: str
    metrics: dict


@dataclass(frozen=True)
class PairPotential:
    """Learned pair potential of two bead types.

    Attributes
    ----------
    types : (str, str)
    r : array [n]
        nm.
    initial, trained : array [n] or None
        kJ/mol.
    r_min : float, optional
        Below this distance, nm, there are no data and the fixed repulsive core acts.
    """

    types: tuple[str, str]
    r: np.ndarray
    initial: np.ndarray | None
    trained: np.ndarray | None
    r_min: float | None = None


@dataclass(frozen=True)
class PairFrictionCurve:
    """Friction between two bead types as a function of their distance.

    Attributes
    ----------
    types : (str, str)
    r : array [n]
        nm.
    initial, trained : array [2, n]
        Zero-frequency friction against relative motion parallel and perpendicular to the pair vector, 1/ps.
    """

    types: tuple[str, str]
    r: np.ndarray
    initial: np.ndarray
    trained: np.ndarray


@dataclass(frozen=True)
class Memory:
    """Friction of a model: an instantaneous part and a kernel,
    ``dv = F/m dt - gamma_0 v dt - (integral K(s) v(t - s) ds) dt + noise``.

    Attributes
    ----------
    label : str
        Such as "initial", "trained", "trained, HOH".
    time : array [n]
        ps, from 0.
    kernel : array [n]
        K, 1/ps^2; zeros for memoryless friction.
    instantaneous, effective : float
        gamma_0 and gamma_0 + integral K, 1/ps.
    """

    label: str
    time: np.ndarray
    kernel: np.ndarray
    instantaneous: float
    effective: float


@dataclass(frozen=True)
class Timings:
    """Wall time and speed.

    Attributes
    ----------
    wall_seconds : dict
        ``{stage: seconds}`` in the order of the stages.
    all_atom_ns_per_day, coarse_grained_ns_per_day : float or None
        Speed of production on one machine.
    hardware : str
        Processor and number of threads.
    """

    wall_seconds: dict[str, float] = field(default_factory=dict)
    all_atom_ns_per_day: float | None = None
    coarse_grained_ns_per_day: float | None = None
    hardware: str = ""

    @property
    def speed_up(self) -> float | None:
        """Speed of the CG model over that of the all-atom reference."""
        if self.all_atom_ns_per_day and self.coarse_grained_ns_per_day:
            return self.coarse_grained_ns_per_day / self.all_atom_ns_per_day
        return None


@dataclass(frozen=True)
class ReportInput:
    """Everything that a report shows. Missing parts are reported with their reason.

    Attributes
    ----------
    title : str
    reference : Run
        All-atom.
    initial, trained : Run, optional
        The model before and after training.
    noise_floor : dict
        From `metrics.noise_floor`.
    comparison : list of Run
        Further runs to show beside: other time steps, other equations of motion.
    potentials : list of PairPotential
    pair_friction : list of PairFrictionCurve
        Of a model whose friction acts between pairs.
    memory : list of Memory
    training_log : path, optional
        CSV with a column ``iteration`` and named curves, with empty cells where a curve has no
        point. Columns ``validation_...`` are observables of validation in OpenMM, named as in `metrics`, with standard
        errors in ``..._stderr``; ``validation_diffusion_deviation`` is the relative deviation of the diffusion
        coefficient in the same range of lags.
    timings : Timings
    findings : list of Finding
        From `assessment.assess`.
    precision : dict
        From `precision.diffusion_ratio`.
    outcome : dict
        Status of the fit: ``sentence``, ``warnings`` and other values.
    description : list of str
        Sentences of the method on how it chose its settings.
    details : list of str
        Sentences of the method on how well the fitted parameters are determined.
    provenance : dict
        Versions, seeds, the experiment file. Nested dictionaries are flattened.
    reasons : dict
        Why a part is missing: ``{"initial" | "trained" | "noise_floor" | "potentials" |
        "memory" | "training" | "validation" | "timings": sentence}``.
    """

    title: str
    reference: Run
    initial: Run | None = None
    trained: Run | None = None
    noise_floor: dict = field(default_factory=dict)
    comparison: list[Run] = field(default_factory=list)
    potentials: list[PairPotential] = field(default_factory=list)
    pair_friction: list[PairFrictionCurve] = field(default_factory=list)
    memory: list[Memory] = field(default_factory=list)
    training_log: Path | None = None
    timings: Timings = field(default_factory=Timings)
    findings: list[Finding] = field(default_factory=list)
    precision: dict = field(default_factory=dict)
    outcome: dict = field(default_factory=dict)
    description: list[str] = field(default_factory=list)
    details: list[str] = field(default_factory=list)
    provenance: dict = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    @property
    def others(self) -> list[Run]:
        """All runs but the reference."""
        return [run for run in (self.initial, self.trained, *self.comparison) if run]


def read_training_log(path: str | os.PathLike) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the curves of a training log, ``{column: (iterations, values)}``; empty cells are left out.

    An unfinished last line is left out too, so that a log can be read while it is written. Of
    iterations that occur twice, after a return to an earlier checkpoint, the last counts.

    Raises
    ------
    ValueError
        The file is missing or has no column ``iteration``, or a cell is no number.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"the training log {path} does not exist")
    rows = read_csv(path, "delete it, and the report is made without the course of the training")
    if not rows or "iteration" not in rows[0]:
        raise ValueError(f"the training log {path} has no column 'iteration'")
    names = rows[0]
    if len(rows) > 1 and len(rows[-1]) < len(names):
        rows.pop()
    at = names.index("iteration")
    curves: dict[str, dict] = {name: {} for name in names if name != "iteration"}
    for line, row in enumerate(rows[1:], 2):
        for name, cell in zip(names, row):
            if name == "iteration" or not cell:
                continue
            try:
                iteration, value = float(row[at]), float(cell)
            except ValueError as error:
                raise ValueError(
                    f"the training log {path}, line {line}, column '{name}': expected "
                    f"a number, found '{cell}'"
                ) from error
            if math.isfinite(value):
                curves[name][iteration] = value
    return {
        name: tuple(np.array(sorted(points.items())).T) for name, points in curves.items() if points
    }
