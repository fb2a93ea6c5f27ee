"""Adversarial training as a :class:`~openmm_cgadv.methods.base.Method`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...config import Experiment
from ...data.trajectory import BeadTrajectory
from ...fit import InitialFit
from ...model import Model
from ..base import HISTORY, STATUS, Progress, Result, Validate, build_model, read_status
from .advice import advice
from .details import details
from .parameters import TrainedParameters
from .time_scales import describe_rules
from .trainer import train
from .training import AdversarialTraining


class AdversarialMethod:
    """Adversarial training of the potential, the friction and its memory kernel (Wang and Voth 2025)."""

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
        """Train a model; see :meth:`openmm_cgadv.methods.base.Method.fit`."""
        training = AdversarialTraining(reference, initial, experiment)
        scales = training.scales
        if warn is not None:
            for sentence in (scales.sentence(), *scales.warnings):
                warn(sentence)

        def build(parameters: TrainedParameters, metrics: dict[str, Any] | None = None) -> Model:
            return build_model(reference, initial, experiment, parameters.model(), metrics)

        # Before its first iteration, the training holds the friction that it starts from.
        start = build(training.averaged())

        def report_progress(iteration: int, total: int, values: dict[str, float]) -> None:
            if progress is not None:
                progress(iteration, total, f"friction {values['averaged_friction']:.3g}/ps")

        def measure(parameters: TrainedParameters, iteration: int) -> dict[str, float]:
            return {} if validate is None else validate(build(parameters), iteration)

        trained = train(
            training,
            directory,
            validate=None if validate is None else measure,
            progress=None if progress is None else report_progress,
            warn=warn,
        )
        status = read_status(directory / STATUS)
        return Result(
            model=build(trained, status["metrics"]),
            initial=start,
            history=directory / HISTORY,
            status=status,
            settings=scales.to_dict(),
            description=(describe_rules(experiment), f"That gives {scales.sentence()}."),
            warnings=scales.warnings,
            details=details(status),
            advice=advice(experiment, scales, status["converged"]),
        )
