"""Coarse-grained force fields with the structure and the dynamics of their all-atom reference.

The public names are loaded when first used, so that reading or analysing trajectories does not
import torch. OpenMM learns at import what `CGPotentialForce` is, for XML files that hold one.
"""

from __future__ import annotations

from importlib import import_module

from .export import openmm_plugin as openmm_plugin
from .version import __version__ as __version__

_PUBLIC = {
    "load": "openmm_cgadv.bundle",
    "Model": "openmm_cgadv.model",
    "save_bundle": "openmm_cgadv.bundle",
    "bulk_model": "openmm_cgadv.simulation.bulk",
    "H5MDReporter": "openmm_cgadv.simulation.reporters",
    "AnalysisReporter": "openmm_cgadv.simulation.reporters",
    "VelocityRescaling": "openmm_cgadv.simulation.thermostat",
    "run_production": "openmm_cgadv.simulation.run",
    "load_experiment": "openmm_cgadv.config",
    "Experiment": "openmm_cgadv.config",
    "BeadTrajectory": "openmm_cgadv.data.trajectory",
    "Mapping": "openmm_cgadv.data.mapping",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str):
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
