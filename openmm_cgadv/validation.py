"""Live validation: what the averaged parameters do in OpenMM, measured while training goes on."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from openmm import app

from .analysis import differences, dynamics
from .analysis import metrics as figures
from .analysis.blocks import Unmeasurable
from .analysis.verdict import bead_types, of_type
from .config import Production
from .export import Model
from .production import ProductionExploded, create_simulation, openmm_seed, run_production
from .training import TrainedPairParameters, TrainedParameters
from .trajectory import BeadTrajectory

VALIDATION_LENGTH = 40.0
"""Longest live validation (ps)."""

SHORTEST_LAG = 0.02
"""Shortest lag (ps) at which displacements are compared; the longest that so short a run tells is some picoseconds."""


class LiveValidation:
    """Runs averaged parameters in OpenMM during training and measures structure and diffusion, and where friction acts
    between pairs how beads move together.

    All runs start from the last frame of the reference, in one Context, which is given the new
    parameters and random numbers that depend on the iteration alone: what is found does not depend
    on the runs before.

    Parameters
    ----------
    trajectory : BeadTrajectory
        The all-atom reference.
    build : callable
        Makes a model of parameters.
    settings : Production
    frame_interval : float
        (ps)
    directory : Path
        Holds a run as long as it is measured.
    say : callable
        Told what was found.
    """

    def __init__(
        self,
        trajectory: BeadTrajectory,
        build: Callable[[TrainedParameters | TrainedPairParameters], Model],
        settings: Production,
        frame_interval: float,
        directory: Path,
        say: Callable[[str], None],
    ):
        self.trajectory = trajectory
        self.build = build
        self.settings = settings
        self.directory = directory
        self.say = say
        self.length = min(VALIDATION_LENGTH, trajectory.n_frames * trajectory.frame_interval)
        self.frame_interval = frame_interval
        self.measured: figures.Measurement | None = None
        self.skip = figures.SLOW
        self.simulation: app.Simulation | None = None
        self.last = ""

    def reference(self) -> figures.Measurement:
        """The reference, with its diffusion over the lags that a validation run supports."""
        if self.measured is None:
            whole = figures.measure(self.trajectory, skip=self.skip)
            interval = self.trajectory.frame_interval
            reasons = {k: v for k, v in whole.reasons.items() if k != "diffusion"}
            diffusion = None
            try:
                within = dynamics.fit_range(self.length, interval)
                lags = dynamics.fit_lags(interval, within)
                diffusion = dynamics.diffusion(dynamics.msd(self.trajectory, lags), within)
            except Unmeasurable as why:
                reasons["diffusion"] = str(why)
            self.measured = replace(whole, diffusion=diffusion, reasons=reasons)
        return self.measured

    @cached_property
    def reference_figures(self) -> dict:
        """The figures of the reference."""
        return figures.metrics(self.reference())

    def __call__(self, parameters: TrainedParameters | TrainedPairParameters, iteration: int) -> dict[str, float]:
        model = self.build(parameters)
        if model.pair_friction is not None:
            self.skip = ("second_adf", "van_hove")
        shutil.rmtree(self.directory, ignore_errors=True)
        if self.simulation is None:
            self.simulation = create_simulation(
                model,
                seed=iteration,
                platform=self.settings.platform,
                backend=self.settings.backend,
            )
        else:
            self.simulation.integrator.setRandomNumberSeed(openmm_seed(iteration))
            self.simulation.context.reinitialize()
            self.simulation.context.setPositions(model.positions)
        try:
            run = run_production(
                model,
                self.directory,
                length=self.length,
                frame_interval=self.frame_interval,
                equilibration=0.1 * self.length,
                seed=iteration,
                backend=self.settings.backend,
                simulation=self.simulation,
            )
        except ProductionExploded as error:
            self.say(f"train: live validation at iteration {iteration}: {error}")
            return {}
        with BeadTrajectory.open(run.beads) as beads:
            reference = self.reference()
            measured = figures.measure(beads, reference, skip=self.skip)
            found = figures.metrics(measured, reference)
        shutil.rmtree(self.directory, ignore_errors=True)
        values = {f"validation_{name}": value for name, value in self.figures(found).items() if value is not None}
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
        self.say(f"train: live validation at iteration {iteration}: {self.last}")
        return values

    def figures(self, found: dict) -> dict[str, float | None]:
        """What is logged of the figures of a run; ``_deviation`` is relative to the reference. Of several bead types each
        moves by itself: the one that is furthest off counts."""
        beads = bead_types(found, self.reference_figures) or [""]
        worst, spread = furthest([worst_displacement(of_type(found, bead)) for bead in beads])
        off, doubt = furthest([diffusion_off(of_type(found, bead), of_type(self.reference_figures, bead)) for bead in beads])
        values = {
            "diffusion": found["diffusion_cm2_per_s"],
            "diffusion_stderr": found["diffusion_stderr"],
            "diffusion_deviation": off,
            "diffusion_deviation_stderr": doubt,
            "msd": worst,
            "msd_stderr": spread,
            "temperature": found["temperature_K"],
            "length": self.length,
        }
        for name in ("rdf_l1", "adf_l1", "vacf_rms"):
            values |= {name: found[name], f"{name}_stderr": found[f"{name}_stderr"]}
        if "currents" not in self.skip:
            values |= collective_differences(found, self.reference_figures)
        return values


def worst_displacement(run: dict) -> tuple[float | None, float | None]:
    """Largest relative deviation from all-atom of the mean squared displacement from `SHORTEST_LAG` on, and its
    standard error."""
    inside = [(ratio - 1, error) for lag, ratio, error in run.get("msd_ratio") or [] if lag >= SHORTEST_LAG - 1e-6]
    return furthest(inside)


def diffusion_off(run: dict, reference: dict) -> tuple[float | None, float | None]:
    """Relative deviation of the diffusion coefficient from the reference's, and the standard error of the run's."""
    value, error, truth = run["diffusion_cm2_per_s"], run["diffusion_stderr"], reference["diffusion_cm2_per_s"]
    if value is None or truth is None:
        return None, None
    return value / truth - 1, None if error is None else error / truth


def furthest(deviations: list[tuple[float | None, float | None]]) -> tuple[float | None, float | None]:
    """The largest of some deviations with its standard error; None of both if none is known."""
    return max((one for one in deviations if one[0] is not None), key=lambda one: abs(one[0]), default=(None, None))


def collective_differences(run: dict, reference: dict) -> dict[str, float]:
    """Largest differences from all-atom, and their standard errors, of the transverse current of the longest wave and of
    the displacements that neighbours share; what is not known is left out."""
    values = {}
    for curve in (differences.transverse_current, differences.shared):
        if found := list(curve(run, reference)):
            name, worst = f"{curve.__name__}_difference", max(found, key=lambda one: abs(one.value))
            values |= {name: abs(worst.value), f"{name}_stderr": math.hypot(worst.error, worst.reference_error)}
    return values
