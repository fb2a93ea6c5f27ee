"""Coarse-grained force fields with the structure and the dynamics of their all-atom reference.

The public names are loaded when first used, so that reading or analysing trajectories does not
import torch. OpenMM learns at import what `CGPotentialForce` is, for XML files that hold one.
"""

from __future__ import annotations

from importlib import import_module

from . import openmm_plugin as openmm_plugin

__version__ = "0.1.0"

_PUBLIC = {
    "load": "openmm_cgadv.export.bundle",
    "Model": "openmm_cgadv.export.bundle",
    "save_bundle": "openmm_cgadv.export.bundle",
    "bulk_model": "openmm_cgadv.bulk",
    "H5MDReporter": "openmm_cgadv.reporters",
    "AnalysisReporter": "openmm_cgadv.reporters",
    "VelocityRescaling": "openmm_cgadv.thermostat",
    "run_production": "openmm_cgadv.production",
    "load_experiment": "openmm_cgadv.config",
    "Experiment": "openmm_cgadv.config",
    "BeadTrajectory": "openmm_cgadv.trajectory",
    "Mapping": "openmm_cgadv.mapping",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str):
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
