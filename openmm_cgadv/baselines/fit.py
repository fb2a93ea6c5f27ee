"""The model that training starts from."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .. import config
from ..potentials import PotentialSpec
from ..trajectory import BeadTrajectory
from .boltzmann_inversion import boltzmann_inversion
from .force_matching import force_matching
from .pair_residuals import PairResiduals
from .ranges import potential_spec


@dataclass(frozen=True)
class InitialFit:
    """A fitted potential, its standard errors, how well it fits, and what the forces left over tell of friction."""

    spec: PotentialSpec
    theta: np.ndarray
    stderr: np.ndarray
    report: dict = field(default_factory=dict)
    residuals: PairResiduals | None = None

    def save(self, directory: Path) -> None:
        """Write ``fit.json`` into a directory, whole or not at all."""
        directory.mkdir(parents=True, exist_ok=True)
        content = {
            "potential": self.spec.to_dict(),
            "theta": self.theta.tolist(),
            "stderr": self.stderr.tolist(),
            "report": self.report,
            "residuals": self.residuals and self.residuals.to_dict(),
        }
        part = directory / "fit.json.part"
        part.write_text(json.dumps(content, indent=1))
        os.replace(part, directory / "fit.json")

    @classmethod
    def load(cls, directory: Path) -> InitialFit:
        """Read what :meth:`save` wrote.

        Raises
        ------
        ValueError
            If the file is damaged.
        """
        path = directory / "fit.json"
        try:
            content = json.loads(path.read_text())
            spec = PotentialSpec.from_dict(content["potential"])
            residuals = content.get("residuals") and PairResiduals.from_dict(content["residuals"])
            return cls(spec, np.array(content["theta"]), np.array(content["stderr"]), content["report"], residuals)
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: found no complete fit ({error}), expected one written by `cgadv fit`") from error


def fit_initial(trajectory: BeadTrajectory, settings: config.Potential) -> InitialFit:
    """Fit the initial potential by force matching, or by Boltzmann inversion where there are no forces.

    Raises
    ------
    ValueError
        If force matching is asked for and the reference holds no forces.
    """
    method = settings.initial
    if method == "auto":
        method = "force_matching" if trajectory.has_forces else "boltzmann_inversion"
    if method == "force_matching" and not trajectory.has_forces:
        raise ValueError(
            "potential.initial: found force_matching, but the reference holds no forces; expected boltzmann_inversion or auto"
        )
    spec = potential_spec(trajectory, settings)
    fit = force_matching if method == "force_matching" else boltzmann_inversion
    theta, stderr, report = fit(trajectory, spec)
    cutoffs = {"cutoff": spec.pair.r_cut}
    if spec.three_body:
        cutoffs["three_body_cutoff"] = spec.three_body.r_cut
    residuals = PairResiduals.measure(trajectory, spec, theta) if trajectory.has_forces else None
    return InitialFit(spec, theta, stderr, report | cutoffs, residuals)
