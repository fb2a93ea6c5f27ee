"""The force-matched baseline, from which training starts."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .. import config
from ..data.trajectory import BeadTrajectory
from ..errors import InputError
from ..files import read_json, write_atomic
from ..friction.pairwise_residual_forces import PairResiduals
from ..potentials import PotentialSpec
from .boltzmann_inversion import boltzmann_inversion
from .force_matching import force_matching
from .ranges import potential_spec


@dataclass(frozen=True)
class InitialFit:
    """The force-matched baseline: a potential, the standard errors of its parameters, and its residual forces.

    Attributes
    ----------
    spec : PotentialSpec
    theta, stderr : ndarray [P]
        (kJ/mol)
    report : dict
        Errors of the fit and cutoffs (nm), by name.
    residuals : PairResiduals or None
        Correlations of the residual forces, from which the friction is estimated; None without reference forces.
    """

    spec: PotentialSpec
    theta: np.ndarray
    stderr: np.ndarray
    report: dict[str, Any] = field(default_factory=dict)
    residuals: PairResiduals | None = None

    def save(self, directory: Path) -> None:
        """Write ``fit.json`` into a directory, atomically."""
        content = {
            "potential": self.spec.to_dict(),
            "theta": self.theta.tolist(),
            "stderr": self.stderr.tolist(),
            "report": self.report,
            "residuals": self.residuals and self.residuals.to_dict(),
        }
        write_atomic(directory / "fit.json", json.dumps(content, indent=1))

    @classmethod
    def load(cls, directory: Path) -> InitialFit:
        """Return the fit that :meth:`save` wrote.

        Raises
        ------
        InputError
            The file is corrupt.
        """
        path = directory / "fit.json"
        remedy = "delete it, and the fit is made again"
        content = read_json(path, remedy)
        try:
            spec = PotentialSpec.from_dict(content["potential"])
            residuals = content.get("residuals") and PairResiduals.from_dict(content["residuals"])
            return cls(
                spec,
                np.array(content["theta"]),
                np.array(content["stderr"]),
                content["report"],
                residuals,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{path} is corrupt: {remedy}") from error


def fit_initial(trajectory: BeadTrajectory, settings: config.Potential) -> InitialFit:
    """Fit the baseline by force matching, or by Boltzmann inversion if the reference has no forces.

    Raises
    ------
    InputError
        Force matching is requested, and the reference contains no forces.
    """
    method = settings.initial
    if method == "auto":
        method = "force_matching" if trajectory.has_forces else "boltzmann_inversion"
    if method == "force_matching" and not trajectory.has_forces:
        raise InputError(
            "potential.initial: found force_matching and a reference without forces, expected boltzmann_inversion or auto"
        )
    spec = potential_spec(trajectory, settings)
    fit = force_matching if method == "force_matching" else boltzmann_inversion
    theta, stderr, report = fit(trajectory, spec)
    cutoffs = {name: value for term in spec.terms for name, value in term.summary().items()}
    residuals = PairResiduals.measure(trajectory, spec, theta) if trajectory.has_forces else None
    return InitialFit(spec, theta, stderr, report | cutoffs, residuals)
