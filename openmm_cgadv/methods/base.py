"""The interface of a method: from a reference trajectory and an initial potential to a fitted model."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..config import Experiment
from ..data.trajectory import BeadTrajectory
from ..dynamics import friction_from_arrays
from ..files import read_json, read_npz
from ..fit import InitialFit
from ..model import Model
from ..simulation.run import wrapped

Validate = Callable[[Model, int], dict[str, float]]
"""Measures a model in OpenMM. Called with the model and the iteration, which seeds the run. Returns observables by
name, or an empty dictionary if the simulation exploded."""

Progress = Callable[[int, int, str], None]
"""Called with the number of iterations done, their expected total and a short description of the present state."""

HISTORY, STATUS = "log.csv", "outcome.json"
"""Files that every method writes into its directory: a row an iteration, and `Result.status` as JSON."""


@dataclass(frozen=True, eq=False)
class Result:
    """What a method returns, and everything that the report shows of it.

    Attributes
    ----------
    model : Model
        The fitted model.
    initial : Model
        The model that the fit started from. The report compares the two.
    history : Path
        CSV file with the column ``iteration`` and a column for each quantity that the method records.
    status : dict
        How the fit ended, as JSON values. ``sentence`` describes it for a person, ``warnings`` lists what went wrong
        and what was done about it, and ``metrics`` holds the observables that were measured of `model` during the fit.
    settings : dict
        Values that the method derived from the reference, as JSON values.
    description : tuple of str
        Sentences that explain how the method chose `settings`.
    warnings : tuple of str
        Sentences on what this reference cannot determine.
    details : tuple of str
        Sentences on how well the fitted parameters are determined.
    advice : dict of str to str
        What to change in the experiment file if an observable of the model differs from that of the reference. The
        keys are those of :data:`ADVICE`; the values are clauses that follow a semicolon.
    """

    model: Model
    initial: Model
    history: Path
    status: dict[str, Any]
    settings: dict[str, Any] = field(default_factory=dict)
    description: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    details: tuple[str, ...] = ()
    advice: dict[str, str] = field(default_factory=dict)


STATUS_NAMES = {
    "settled": "decay_start",
    "arrived": "converged",
    "why": "reason",
    "wander": "parameter_spread",
    "figures": "metrics",
}
"""Present names of the keys in status files of older versions."""


def read_status(path: Path) -> dict[str, Any]:
    """Return the status in a file that a method of this version or an older one wrote."""
    remedy = f"delete {path.parent / 'trained.npz'}, and the training ends again from its last checkpoint"
    found = read_json(path, remedy)
    return {STATUS_NAMES.get(name, name): value for name, value in found.items()}


ADVICE = {
    "pair_structure": "the radial distribution function",
    "angular_structure": "an angular distribution function",
    "motion": "the mean squared displacement or the velocity autocorrelation function",
    "slow_motion": "the mean squared displacement, at lags longer than any that the fit compared only",
    "fast_motion": "the mean squared displacement, at lags of a few time steps only",
    "frozen": "the mean squared displacement of a model whose beads do not move",
    "collective_motion": "viscosity, transverse currents or correlated displacements of neighbours",
}
"""Observables for which a method may give advice."""


class Method(Protocol):
    """A way to fit a model. An implementation keeps no state between calls."""

    def fit(
        self,
        reference: BeadTrajectory,
        initial: InitialFit,
        experiment: Experiment,
        directory: Path,
        *,
        validate: Validate | None = None,
        progress: Progress | None = None,
        warn: Callable[[str], None] | None = None,
    ) -> Result:
        """Fit a model to a reference.

        The result depends on the arguments and on ``experiment.training.seed`` only. A fit that was interrupted
        resumes from the last checkpoint in `directory` and gives the same result as an uninterrupted one.

        Parameters
        ----------
        reference : BeadTrajectory
            Trajectory of the beads of the all-atom reference.
        initial : InitialFit
            Potential to start from.
        experiment : Experiment
            Validated settings.
        directory : Path
            Directory for the files of this fit: `HISTORY`, `STATUS`, and checkpoints. Created if absent.
        validate : callable, optional
            Measures intermediate models, see `Validate`.
        progress : callable, optional
            Reports progress, see `Progress`.
        warn : callable, optional
            Called with one sentence whenever the user should know of something.

        Raises
        ------
        ValueError
            The settings do not fit the reference. Raised before any work.
        DivergedError
            The fit cannot continue.
        MemoryError
            There is not enough RAM. The last checkpoint stays.
        """
        ...


def build_model(
    reference: BeadTrajectory,
    initial: InitialFit,
    experiment: Experiment,
    parameters: dict[str, Any],
    metrics: dict[str, Any] | None = None,
) -> Model:
    """Return the model with given parameters, with the last frame of the reference as its configuration.

    Parameters
    ----------
    reference, initial, experiment
        As in :meth:`Method.fit`.
    parameters : dict
        The arguments of :class:`~openmm_cgadv.Model` that a method fits: coefficients of the potential and friction.
    metrics : dict, optional
        Observables that were measured of the model.
    """
    last = [reference.n_frames - 1]
    box = reference.boxes(last)[0]
    return Model(
        spec=initial.spec,
        masses=reference.type_masses,
        temperature=reference.temperature,
        timestep=experiment.dynamics.timestep,
        types=reference.types,
        positions=wrapped(reference.positions(last)[0], box),
        box=box,
        provenance={
            "reference": reference.provenance,
            "experiment": experiment.model_dump(mode="json"),
            "fit": initial.report,
        },
        metrics=metrics or {},
        **parameters,
    )


def save_parameters(path: Path, model: Model) -> None:
    """Write the fitted parameters of a model into an NPZ file, atomically."""
    arrays = {
        "theta": model.theta,
        "equation": np.array(model.friction.name),
        **model.friction.arrays(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with open(partial, "wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    os.replace(partial, path)


def load_parameters(path: Path) -> dict[str, Any]:
    """Return what :func:`save_parameters` wrote, as the `parameters` of :func:`build_model`."""
    arrays = read_npz(path, "delete it, and the training ends again from its last checkpoint")
    return {"theta": arrays["theta"], "friction": friction_from_arrays(arrays)}
