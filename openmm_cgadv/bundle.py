"""The bundle `NAME.cg/` of a model, the folder in which it is stored and shared.

=================  =================================================================================
file               content
=================  =================================================================================
model.json         schema version, units, bead types, masses, cutoff, temperature, time step,
                   friction, shape of the potential, provenance, training metrics
parameters.npz     arrays: parameters, bead types, a configuration and its box; drift matrices
potential.pt       TorchScript of plain torch operators, `forward(positions, box) -> energy`, for
                   the beads of topology.pdb
topology.pdb       the beads of that configuration
system.xml         an OpenMM System of them that needs OpenMM alone
integrator.xml     the integrator at the model's time step, which needs OpenMM alone
*_plugin.xml       faster versions of these two, which need this package to be imported; absent if
                   its OpenMM plugin did not load at saving
forcefield.xml     for `openmm.app.ForceField`
=================  =================================================================================

A model whose equation of motion OpenMM's own integrators cannot integrate has a README.txt that
says so and no integrator.xml.

Loading reads `model.json` and `parameters.npz` and executes nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .dynamics import FRICTIONS, Friction
from .model import Model
from .potentials import PotentialSpec
from .potentials.terms import TERMS

SCHEMA_VERSION = max(
    3,
    *(term.schema for term in TERMS.values()),
    *(friction.schema for friction in FRICTIONS.values()),
)
"""Version 2 added pair friction, 3 friction on each bead beside it, later ones further terms of the potential and further
equations of motion. A bundle is written with the lowest version that can hold it."""
MODEL, PARAMETERS, POTENTIAL = "model.json", "parameters.npz", "potential.pt"
TOPOLOGY, SYSTEM, INTEGRATOR, FORCE_FIELD = (
    "topology.pdb",
    "system.xml",
    "integrator.xml",
    "forcefield.xml",
)
FILES = (MODEL, PARAMETERS, POTENTIAL, TOPOLOGY, SYSTEM, INTEGRATOR, FORCE_FIELD)
PLUGIN_FILES = ("system_plugin.xml", "integrator_plugin.xml")
README = "README.txt"
ARRAYS = ("theta", "masses", "types", "positions", "box")
"""Arrays of a model in parameters.npz, beside those of some frictions (`Friction.section`)."""
UNITS = {
    "length": "nm",
    "time": "ps",
    "energy": "kJ/mol",
    "mass": "dalton",
    "temperature": "kelvin",
}


class BundleError(ValueError):
    """A bundle can't be opened or written; the message is one sentence for a person."""


def save_bundle(model: Model, path: str | os.PathLike) -> Path:
    """Write a model as a bundle.

    A bundle that is there already is replaced atomically: if the process ends at any moment, :func:`load` opens
    either the old or the new one.

    Parameters
    ----------
    model : Model
    path : path
        The folder, usually `NAME.cg`.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    BundleError
        There is something at `path` that is not a bundle.
    """
    import openmm
    from openmm import app

    from .export.backends import plugin
    from .export.forcefield import force_field_xml
    from .export.native import native_forces
    from .export.system import system_without_forces

    path = Path(path)
    _complete_swap(path)
    if path.is_file():
        raise BundleError(f"{path}: found a file, expected nothing there or a bundle")
    foreign = (
        sorted({one.name for one in path.iterdir()} - {*FILES, *PLUGIN_FILES, README})
        if path.exists()
        else []
    )
    if foreign:
        raise BundleError(
            f"{path}: found {foreign[0]}, which is not of a bundle, expected nothing there or a bundle alone"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.parent / f".{path.name}.{os.getpid()}"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        (scratch / MODEL).write_text(
            json.dumps(_description(model), indent=2, allow_nan=False) + "\n"
        )
        np.savez(scratch / PARAMETERS, allow_pickle=False, **parameter_arrays(model))
        torch.jit.script(model.potential()).save(str(scratch / POTENTIAL))
        with open(scratch / TOPOLOGY, "w") as file:
            app.PDBFile.writeFile(model.topology, model.positions * openmm.unit.nanometer, file)
        system = system_without_forces(model, model.topology)
        for force in native_forces(model.spec, model.theta, model.types):
            system.addForce(force)
        (scratch / SYSTEM).write_text(openmm.XmlSerializer.serialize(system))
        if model.friction.needs:
            (scratch / README).write_text(_readme(model.friction))
        else:
            integrator = model.create_integrator(backend="openmm")
            (scratch / INTEGRATOR).write_text(openmm.XmlSerializer.serialize(integrator))
        if plugin.why_not() is None and model.spec.compiled:
            system = model.create_system(backend="plugin")
            integrator = model.create_integrator(backend="plugin")
            for name, made in zip(PLUGIN_FILES, (system, integrator)):
                (scratch / name).write_text(openmm.XmlSerializer.serialize(made))
        (scratch / FORCE_FIELD).write_text(force_field_xml(model))
        _swap(scratch, path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return path


def load(path: str | os.PathLike) -> Model:
    """Open a bundle. Only its data are read; nothing in it is executed.

    Parameters
    ----------
    path : path
        The folder `NAME.cg`.

    Returns
    -------
    Model

    Raises
    ------
    BundleError
        With one sentence that says what is wrong with the bundle.
    """
    path = Path(path)
    _complete_swap(path)
    if not path.is_dir():
        raise BundleError(f"{path}: found no such folder, expected a bundle")
    if not (path / MODEL).is_file():
        # Of an experiment's bundles, that of the trained model.
        inside = [path / "model.cg", *(one.parent for one in sorted(path.glob(f"*/{MODEL}")))]
        hint = next((f", such as {one}" for one in inside if (one / MODEL).is_file()), "")
        raise BundleError(f"{path}: found no {MODEL}, expected a bundle{hint}")
    try:
        description = json.loads((path / MODEL).read_text())
        version = description["schema_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(
            f"{path / MODEL}: found no schema_version, expected the description of a bundle"
        ) from error
    if version not in range(1, SCHEMA_VERSION + 1):
        newer = isinstance(version, int) and version > SCHEMA_VERSION
        raise BundleError(
            f"{path / MODEL}: found schema_version {version}, expected 1 to {SCHEMA_VERSION}"
            + ("; install a newer openmm_cgadv" if newer else "")
        )
    equation = description.get("equation")
    if equation not in FRICTIONS:
        raise BundleError(
            f"{path / MODEL}: equation: found {equation!r}, expected one of {', '.join(FRICTIONS)}"
        )
    needed = [name for name in FILES if name != INTEGRATOR or not FRICTIONS[equation].needs]
    missing = [name for name in needed if not (path / name).is_file()]
    if missing:
        raise BundleError(f"{path}: found no {missing[0]}, expected all files of a bundle")
    try:
        with np.load(path / PARAMETERS, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise BundleError(
            f"{path / PARAMETERS}: can't be read, it is truncated or not of this format"
        ) from error
    try:
        return Model(
            spec=PotentialSpec.from_dict(description["potential"]),
            temperature=description["temperature_K"],
            timestep=description["timestep_ps"],
            friction=_friction(FRICTIONS[equation], description, arrays),
            provenance=description["provenance"],
            metrics=description["metrics"],
            **{name: arrays[name] for name in ARRAYS},
        )
    except KeyError as error:
        raise BundleError(f"{path}: found no {error.args[0]!r}, expected it in a bundle") from error
    except (ValueError, TypeError) as error:
        raise BundleError(f"{path}: {error}") from error


def parameter_arrays(model: Model) -> dict[str, np.ndarray]:
    """Return the arrays of parameters.npz by name."""
    friction = model.friction.arrays() if model.friction.section is None else {}
    return {
        "theta": model.theta,
        "masses": model.masses,
        **friction,
        "types": model.types,
        "positions": model.positions,
        "box": model.box,
    }


def _friction(kind: type[Friction], description: dict, arrays: dict[str, np.ndarray]) -> Friction:
    """Return the friction of a bundle, from where :func:`save_bundle` puts it."""
    if kind.section is None:
        return kind.from_arrays(arrays)
    return kind.from_dict(description[kind.section])


def _description(model: Model) -> dict[str, Any]:
    from . import __version__

    friction = model.friction
    needs = {"needs": friction.needs} if friction.needs else {}
    parameters = friction.to_dict()
    return {
        "schema_version": max(model.spec.schema, friction.required_schema),
        "written_by": f"openmm_cgadv {__version__}",
        "units": UNITS,
        "bead_types": [
            {"name": name, "mass": float(mass), "friction": float(gamma)}
            for name, mass, gamma in zip(model.type_names, model.masses, model.bead_friction)
        ],
        "n_beads": len(model.types),
        "cutoff": model.spec.r_cut,
        "temperature_K": model.temperature,
        "timestep_ps": model.timestep,
        "equation": friction.name,
        **needs,
        "auxiliary_variables": friction.n_auxiliary,
        **(parameters if friction.section is None else {friction.section: parameters}),
        "potential": model.spec.to_dict(),
        "provenance": _jsonable(model.provenance),
        "metrics": _jsonable(model.metrics),
    }


def _readme(friction: Friction) -> str:
    remark = friction.remark()
    return (
        "This bundle of openmm_cgadv needs openmm_cgadv, with its OpenMM plugin, to run:\n"
        f"{friction.needs}.\n\n"
        "    import openmm_cgadv\n"
        '    model = openmm_cgadv.load("this folder")\n'
        "    system, integrator = model.create_system(), model.create_integrator()\n\n"
        "Or `import openmm_cgadv`, then read system_plugin.xml and integrator_plugin.xml by\n"
        "openmm.XmlSerializer. system.xml and potential.pt hold the potential alone and need no\n"
        "plugin: with another integrator they have the right structure and other dynamics.\n"
    ) + (f"\nThe model has {friction.title} dynamics ({remark}).\n" if remark else "")


def _beside(path: Path) -> tuple[Path, Path]:
    """Return where a finished new bundle waits for its place, and where the one that it replaces goes."""
    return path.with_name(f".{path.name}.new"), path.with_name(f".{path.name}.old")


def _swap(scratch: Path, path: Path) -> None:
    """Replace a bundle by a finished one in a folder beside it.

    At every moment either one of the two is in its place, or the new one is where :func:`_complete_swap` finds it.
    """
    new, old = _beside(path)
    shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    os.replace(scratch, new)
    if path.exists():
        os.replace(path, old)
    _complete_swap(path)
    shutil.rmtree(old, ignore_errors=True)


def _complete_swap(path: Path) -> None:
    """Put a finished bundle into its place if a process that replaced a bundle has ended before it did."""
    new, old = _beside(path)
    if path.exists() or not new.is_dir():
        return
    try:
        os.replace(new, path)
    except FileNotFoundError:  # Another process was faster.
        return
    shutil.rmtree(old, ignore_errors=True)


def _jsonable(value: Any) -> Any:
    """Return plain JSON types; numbers that are not finite become null."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    if isinstance(value, dict):
        return {str(k): _jsonable(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return _jsonable(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_jsonable(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)
