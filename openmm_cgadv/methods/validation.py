"""Validation in OpenMM: short simulations of intermediate models while a method fits."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from openmm import app

from ..analysis import differences, diffusion
from ..analysis.blocks import Unmeasurable
from ..analysis.measurement import SLOW, Measurement, measure
from ..analysis.metrics import bead_types, metrics, of_type
from ..analysis.msd import msd
from ..config import Production
from ..data.trajectory import BeadTrajectory
from ..errors import ExplosionError
from ..model import Model
from ..random_streams import Purpose, openmm_seed, stream_seed
from ..simulation.run import create_simulation, run_production


@dataclass(frozen=True)
class ValidationSettings:
    """Hyperparameters of the validation in OpenMM.

    Attributes
    ----------
    length : float
        Length of a simulation (ps), or the length of the reference if that is shorter. It is a compromise: the
        simulations must cost little beside the fit, and their errors must resolve the acceptance thresholds.
    equilibration : float
        Length of the equilibration before it, as a fraction of `length`.
    shortest_lag : float
        Shortest lag at which mean squared displacements are compared (ps).
    """

    length: float = 40.0
    equilibration: float = 0.1
    shortest_lag: float = 0.02


class Validation:
    """Simulate intermediate models in OpenMM and measure structure and dynamics.

    All simulations start from the last frame of the reference and share one Context, which receives the parameters of
    each model. Random numbers depend on seed and iteration only, so a result does not depend on the simulations before it.

    Parameters
    ----------
    trajectory : BeadTrajectory
        The all-atom reference.
    production : Production
        Platform and backend.
    frame_interval : float
        Time between frames (ps).
    directory : Path
        Holds the files of a simulation until it is measured.
    report : callable
        Called with one sentence after each simulation.
    settings : ValidationSettings
    seed : int
        Seed of the random numbers, together with the iteration.
    threads : int, optional
        Threads of OpenMM's CPU platform.

    Attributes
    ----------
    last : str
        Summary of the last simulation.
    """

    def __init__(
        self,
        trajectory: BeadTrajectory,
        production: Production,
        frame_interval: float,
        directory: Path,
        report: Callable[[str], None],
        settings: ValidationSettings = ValidationSettings(),
        seed: int = 1,
        threads: int | None = None,
    ):
        self.trajectory = trajectory
        self.production = production
        self.directory = directory
        self.report = report
        self.threads = threads
        self.settings = settings
        self.seed = seed
        self.length = min(settings.length, trajectory.n_frames * trajectory.frame_interval)
        self.frame_interval = frame_interval
        self.measured: Measurement | None = None
        self.skip: tuple[str, ...] = SLOW
        self.simulation: app.Simulation | None = None
        self.last = ""

    def reference(self) -> Measurement:
        """Return the reference's observables, with its diffusion coefficient at the lags that a validation supports."""
        if self.measured is None:
            whole = measure(self.trajectory, skip=self.skip)
            interval = self.trajectory.frame_interval
            reasons = {k: v for k, v in whole.reasons.items() if k != "diffusion"}
            slope = None
            try:
                within = diffusion.fit_range(self.length, interval)
                lags = diffusion.fit_lags(interval, within)
                slope = diffusion.diffusion(msd(self.trajectory, lags), within)
            except Unmeasurable as why:
                reasons["diffusion"] = str(why)
            self.measured = replace(whole, diffusion=slope, reasons=reasons)
        return self.measured

    @cached_property
    def reference_metrics(self) -> dict:
        """Metrics of the reference."""
        return metrics(self.reference())

    def __call__(self, model: Model, iteration: int) -> dict[str, float]:
        """Simulate a model and return its observables by name, or nothing if the simulation exploded.

        Parameters
        ----------
        model : Model
        iteration : int
            Determines the random numbers, together with the seed.
        """
        seed = stream_seed(self.seed, Purpose.VALIDATION, iteration)
        if model.friction.between_beads:
            self.skip = ("second_adf", "van_hove")
        shutil.rmtree(self.directory, ignore_errors=True)
        if self.simulation is None:
            self.simulation = create_simulation(
                model,
                seed=seed,
                platform=self.production.platform,
                backend=self.production.backend,
                threads=self.threads,
            )
        else:
            self.simulation.integrator.setRandomNumberSeed(openmm_seed(seed))
            self.simulation.context.reinitialize()
            self.simulation.context.setPositions(model.positions)
        try:
            run = run_production(
                model,
                self.directory,
                length=self.length,
                frame_interval=self.frame_interval,
                equilibration=self.settings.equilibration * self.length,
                seed=seed,
                backend=self.production.backend,
                simulation=self.simulation,
            )
        except ExplosionError as error:
            self.report(f"validation in OpenMM at iteration {iteration}: {error}")
            return {}
        assert run.beads is not None
        with BeadTrajectory.open(run.beads) as beads:
            reference = self.reference()
            measured = measure(beads, reference, skip=self.skip)
            found = metrics(measured, reference)
        shutil.rmtree(self.directory, ignore_errors=True)
        values = {
            f"validation_{name}": value
            for name, value in self.observables(found).items()
            if value is not None
        }
        shown = {
            "D": ("validation_diffusion", 1e5, "e-5 cm²/s"),
            "MSD": ("validation_msd", 100, " % off"),
            "rdf": ("validation_rdf_l1", 1, ""),
        }
        self.last = ", ".join(
            f"{label} {values[name] * scale:.3g}{unit}"
            for label, (name, scale, unit) in shown.items()
            if name in values
        )
        self.report(f"validation in OpenMM at iteration {iteration}: {self.last}")
        return values

    def observables(self, found: dict) -> dict[str, float | None]:
        """Return what the training log records of a simulation.

        Names that end in ``_deviation`` are relative to the reference. With several bead types the one that deviates
        most counts, so that one that is too fast does not compensate one that is too slow.

        Parameters
        ----------
        found : dict
            Metrics of the simulation.
        """
        beads = bead_types(found, self.reference_metrics) or [""]
        msd, msd_error = largest_deviation(
            [msd_deviation(of_type(found, bead), self.settings.shortest_lag) for bead in beads]
        )
        diffusion, diffusion_error = largest_deviation(
            [
                diffusion_deviation(of_type(found, bead), of_type(self.reference_metrics, bead))
                for bead in beads
            ]
        )
        values = {
            "diffusion": found["diffusion_cm2_per_s"],
            "diffusion_stderr": found["diffusion_stderr"],
            "diffusion_deviation": diffusion,
            "diffusion_deviation_stderr": diffusion_error,
            "msd": msd,
            "msd_stderr": msd_error,
            "temperature": found["temperature_K"],
            "length": self.length,
        }
        for name in ("rdf_l1", "adf_l1", "vacf_rms"):
            values |= {name: found[name], f"{name}_stderr": found[f"{name}_stderr"]}
        if "currents" not in self.skip:
            values |= collective_differences(found, self.reference_metrics)
        return values


def msd_deviation(run: dict, shortest_lag: float) -> tuple[float | None, float | None]:
    """Return the largest relative deviation of the mean squared displacement from the reference, with its standard error.

    Parameters
    ----------
    run : dict
        Metrics of a simulation.
    shortest_lag : float
        Shorter lags are ignored (ps).
    """
    inside = [
        (ratio - 1, error)
        for lag, ratio, error in run.get("msd_ratio") or []
        if lag >= shortest_lag - 1e-6
    ]
    return largest_deviation(inside)


def diffusion_deviation(run: dict, reference: dict) -> tuple[float | None, float | None]:
    """Return the relative deviation of the diffusion coefficient from the reference's, and the standard error of the run's."""
    value, error, truth = (
        run["diffusion_cm2_per_s"],
        run["diffusion_stderr"],
        reference["diffusion_cm2_per_s"],
    )
    if value is None or truth is None:
        return None, None
    return value / truth - 1, None if error is None else error / truth


def largest_deviation(
    deviations: list[tuple[float | None, float | None]],
) -> tuple[float | None, float | None]:
    """Return the deviation of largest magnitude with its standard error, or None for both if none is known."""
    return max(
        ((value, error) for value, error in deviations if value is not None),
        key=lambda one: abs(one[0]),
        default=(None, None),
    )


def collective_differences(run: dict, reference: dict) -> dict[str, float]:
    """Return the largest differences from the reference, with standard errors, of two collective quantities.

    These are the transverse current of the longest wave and the correlation between the displacements of neighbours.
    Quantities that are not known are absent.
    """
    values: dict[str, float] = {}
    for column, curve in (
        ("transverse_current", differences.transverse_current),
        ("shared", differences.displacement_correlation),
    ):
        if found := list(curve(run, reference)):
            name, worst = f"{column}_difference", max(found, key=lambda one: abs(one.value))
            values |= {
                name: abs(worst.value),
                f"{name}_stderr": math.hypot(worst.error, worst.reference_error),
            }
    return values
