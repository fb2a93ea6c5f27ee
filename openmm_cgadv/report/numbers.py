"""The content of ``metrics.json``, which programs read."""

from __future__ import annotations

from dataclasses import asdict

from ..analysis.tolerances import OBSERVABLES
from . import cost
from .assessment import headline
from .inputs import ReportInput
from .status import GOOD, MISSED, status_by_lag

SCHEMA_VERSION = 2

ABSENT = {
    "initial": "the initial model was not run",
    "trained": "there is no trained model yet",
    "noise_floor": "the noise floor was not measured",
    "targets": "no model was assessed",
    "assessment": "no model was assessed",
    "precision": "there is no trained model yet",
    "potentials": "no potential was given",
    "memory": "no friction was given",
    "training": "there is no training log",
    "validation": "no validation in OpenMM was logged",
    "timings": "no times were measured",
}
"""Why a part is missing, if the input gives no reason."""


def metrics_json(data: ReportInput, log: dict) -> dict:
    """Return the content of ``metrics.json``.

    Parameters
    ----------
    data : ReportInput
    log : dict
        From `inputs.read_training_log`.
    """
    timings = data.timings
    speeds = {
        "all_atom_ns_per_day": timings.all_atom_ns_per_day,
        "coarse_grained_ns_per_day": timings.coarse_grained_ns_per_day,
        "speed_up": timings.speed_up,
    }
    why = data.reasons.get("timings", "the speed was not measured")
    runs = {"reference": data.reference, "initial": data.initial, "trained": data.trained}
    assessment = None
    if data.findings:
        assessment = {
            "headline": headline(data.findings),
            "findings": [asdict(finding) for finding in data.findings],
        }
    out = {
        "schema_version": SCHEMA_VERSION,
        **{name: run.metrics if run else None for name, run in runs.items()},
        "noise_floor": data.noise_floor or None,
        "comparison": {run.label: run.metrics for run in data.comparison},
        "timings": {
            "wall_seconds": {k: float(v) for k, v in timings.wall_seconds.items()},
            **speeds,
            "hardware": timings.hardware,
            "reasons": {name: why for name, value in speeds.items() if value is None},
        },
        "labels": {name: run.label for name, run in runs.items() if run},
        "targets": _targets(data),
        "assessment": assessment,
        "precision": data.precision or None,
        "training": data.outcome or None,
        "cost": cost.summary(cost.validations(log, data.reference.metrics, data.noise_floor)),
        "provenance": data.provenance,
    }
    out["reasons"] = {
        name: data.reasons.get(name, ABSENT[name])
        for name, value in out.items()
        if value is None and name in ABSENT
    }
    return out


def _targets(data: ReportInput) -> dict[str, dict] | None:
    """Return deviations and tolerances of the trained model's main run by observable."""
    out: dict[str, dict] = {
        one.name: {
            "value": one.deviation,
            "target": one.tolerance,
            "met": {GOOD: True, MISSED: False}.get(one.status),
        }
        for one in data.findings
        if one.observable in OBSERVABLES and not one.run
    }
    for name in out:
        if name.startswith("msd") and data.trained is not None:
            lags = list(status_by_lag(data.trained.metrics, data.reference.metrics))
            out[name]["lags_ps"] = [lags[0], lags[-1]] if lags else None
    return out or None
