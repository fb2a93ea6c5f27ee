"""Live validation: what the averaged parameters do in OpenMM, measured while training goes on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from openmm import app

from .analysis import metrics as figures
from .config import Production
from .export import Model
from .production import ProductionExploded, create_simulation, run_production, wrapped
from .training import TrainedParameters
from .trajectory import BeadTrajectory

VALIDATION_LENGTH = 40.0
"""Longest live validation (ps)."""


class LiveValidation:
    """Runs averaged parameters in OpenMM during training and measures structure and diffusion.

    Each run starts from where the one before ended, in the same Context, which is given the new
    parameters.

    Parameters
    ----------
    trajectory : BeadTrajectory
        The all-atom reference.
    build : callable
        Makes a model of parameters.
    settings : Production
    directory : Path
        Holds a run as long as it is measured.
    say : callable
        Told what was found.
    """

    def __init__(
        self,
        trajectory: BeadTrajectory,
        build: Callable[[TrainedParameters], Model],
        settings: Production,
        directory: Path,
        say: Callable[[str], None],
    ):
        self.trajectory = trajectory
        self.build = build
        self.settings = settings
        self.directory = directory
        self.say = say
        self.length = min(VALIDATION_LENGTH, trajectory.n_frames * trajectory.frame_interval)
        self.frame_interval = settings.frame_interval_fs * 1e-3
        self.measured: figures.Measurement | None = None
        self.positions: np.ndarray | None = None
        self.simulation: app.Simulation | None = None
        self.last = ""

    def reference(self) -> figures.Measurement:
        """The reference, with the diffusion of a part as long as a validation run."""
        if self.measured is None:
            whole = figures.measure(self.trajectory, together=False)
            part = figures.measure(
                self.trajectory,
                stop=round(self.length / self.trajectory.frame_interval),
                together=False,
            )
            reasons = {k: v for k, v in whole.reasons.items() if k != "diffusion"}
            reasons |= {k: v for k, v in part.reasons.items() if k == "diffusion"}
            self.measured = replace(whole, diffusion=part.diffusion, reasons=reasons)
        return self.measured

    def __call__(self, parameters: TrainedParameters, iteration: int) -> dict[str, float]:
        model = self.build(parameters)
        if self.positions is not None:
            model = replace(model, positions=self.positions)
        shutil.rmtree(self.directory, ignore_errors=True)
        if self.simulation is None:
            self.simulation = create_simulation(
                model,
                seed=iteration,
                platform=self.settings.platform,
                backend=self.settings.backend,
            )
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
            # What it exploded into is left behind.
            self.simulation = None
            return {}
        with BeadTrajectory.open(run.beads) as beads:
            reference = self.reference()
            measured = figures.measure(beads, reference, together=False)
            found = figures.metrics(measured, reference)
            last = beads.n_frames - 1
            self.positions = wrapped(beads.positions([last])[0], beads.boxes([last])[0])
        shutil.rmtree(self.directory, ignore_errors=True)
        values = {
            "validation_diffusion": found["diffusion_cm2_per_s"],
            "validation_diffusion_stderr": found["diffusion_stderr"],
            "validation_rdf_l1": found["rdf_l1"],
            "validation_adf_l1": found["adf_l1"],
            "validation_temperature": found["temperature_K"],
        }
        values = {name: value for name, value in values.items() if value is not None}
        shown = {
            "D": ("validation_diffusion", 1e5, "e-5 cm²/s"),
            "rdf": ("validation_rdf_l1", 1, ""),
        }
        self.last = ", ".join(
            f"{label} {values[name] * scale:.3g}{unit}"
            for label, (name, scale, unit) in shown.items()
            if name in values
        )
        self.say(f"train: live validation at iteration {iteration}: {self.last}")
        return values
