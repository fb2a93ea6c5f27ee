"""A trained model and its bundle `NAME.cg/`, the folder in which it is kept and shared.

=================  =================================================================================
file               content
=================  =================================================================================
model.json         schema version, units, bead types, masses, cutoff, temperature, time step,
                   friction, shape of the potential, provenance, training metrics
parameters.npz     arrays: parameters, drift matrices, bead types, a configuration and its box
potential.pt       TorchScript of plain torch operators, `forward(positions, box) -> energy`, for
                   the beads of topology.pdb
topology.pdb       the beads of that configuration
system.xml         an OpenMM System of them that needs OpenMM alone
integrator.xml     the integrator at the model's time step, which needs OpenMM alone
*_plugin.xml       faster versions of these two, which need this package to be imported; where its
                   OpenMM plugin was there at saving
forcefield.xml     for `openmm.app.ForceField`
=================  =================================================================================

Pair friction is in model.json alone, and only the plugin can integrate it: such a bundle has a
README.txt that says so, no drift and no integrator.xml.

Loading reads `model.json` and `parameters.npz` and executes nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..dynamics import Neighborhood, PairFrictionParameters
from ..potentials import PotentialSpec
from ..units import plain

if TYPE_CHECKING:
    import openmm

SCHEMA_VERSION = 3
"""2 brought pair friction, 3 friction of each bead beside it. Bundles without them are written as 1 and 2, for packages of
before."""
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
ARRAYS = ("theta", "masses", "drift", "types", "positions", "box")
"""What is in parameters.npz; `drift` is not there with pair friction."""
UNITS = {
    "length": "nm",
    "time": "ps",
    "energy": "kJ/mol",
    "mass": "dalton",
    "temperature": "kelvin",
}
PAIR = "pair"
EQUATIONS = ("langevin", "generalized_langevin", PAIR)


class BundleError(ValueError):
    """A bundle can't be opened or written; the message is one sentence for a person."""


@dataclass(frozen=True, eq=False)
class Model:
    """A coarse-grained force field with its dynamics, and a configuration to start from.

    Attributes
    ----------
    spec : PotentialSpec
        Bead types and shape of the potential.
    theta : ndarray [P]
        Parameters of the potential (kJ/mol).
    masses : ndarray [n_types]
        Bead masses (dalton).
    temperature : float
        (K)
    timestep : float
        Time step it was trained with (ps).
    equation : str
        ``"langevin"``, ``"generalized_langevin"`` or ``"pair"``.
    drift : ndarray [n_types, K + 1, K + 1] or None
        Matrices A of friction and memory (1/ps); K = 0 without memory. None with ``"pair"``.
    types : ndarray [N] of int
        Bead types of the configuration.
    positions : ndarray [N, 3]
        A configuration (nm).
    box : ndarray [3, 3]
        Its box vectors in rows, in OpenMM's reduced form (nm).
    provenance : dict
        Where it comes from: reference, settings, versions.
    metrics : dict
        What training measured.
    pair_friction : PairFrictionParameters or None
        Friction between pairs of beads, with ``"pair"`` and only then.
    """

    spec: PotentialSpec
    theta: np.ndarray
    masses: np.ndarray
    temperature: float
    timestep: float
    equation: str
    drift: np.ndarray | None
    types: np.ndarray
    positions: np.ndarray
    box: np.ndarray
    provenance: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    pair_friction: PairFrictionParameters | None = None

    def __post_init__(self):
        if self.equation not in EQUATIONS:
            raise ValueError(
                f"equation: found {self.equation!r}, expected one of {', '.join(EQUATIONS)}"
            )
        pair = self.equation == PAIR
        for name, wanted in (("drift", not pair), ("pair_friction", pair)):
            if (getattr(self, name) is not None) != wanted:
                raise ValueError(
                    f"{name}: found {'none' if wanted else 'one'} with the equation "
                    f"{self.equation!r}, expected {'one' if wanted else 'none'}"
                )
        for name in ("theta", "masses", "positions", "box") + (() if pair else ("drift",)):
            value = np.array(_numpy(getattr(self, name)), dtype=np.float64)
            object.__setattr__(self, name, value)
            if not np.isfinite(value).all():
                raise ValueError(f"{name}: found a value that is not finite, expected numbers")
        object.__setattr__(self, "types", np.array(_numpy(self.types), dtype=np.int64))
        n, beads = self.spec.n_types, len(self.types)
        expected = {
            "theta": (self.spec.n_parameters,),
            "masses": (n,),
            "types": (beads,),
            "positions": (beads, 3),
            "box": (3, 3),
        }
        size = 1
        if not pair:
            size = max(self.drift.shape[-1], 1) if self.drift.ndim == 3 else 1
            expected["drift"] = (n, size, size)
        for name, shape in expected.items():
            found = getattr(self, name).shape
            if found != shape:
                raise ValueError(f"{name}: found shape {found}, expected {shape}")
        if pair and self.pair_friction.n_types != n:
            raise ValueError(
                f"pair_friction: found {self.pair_friction.n_types} bead types, expected {n}"
            )
        if beads and not 0 <= self.types.min() <= self.types.max() < n:
            raise ValueError(f"types: found {self.types.max()}, expected numbers below {n}")
        for name in ("temperature", "timestep"):
            value = float(getattr(self, name))
            object.__setattr__(self, name, value)
            if not (np.isfinite(value) and value > 0):
                raise ValueError(f"{name}: found {value}, expected more than 0")
        if (self.masses <= 0).any():
            raise ValueError(f"masses: found {self.masses.min()}, expected more than 0")
        if self.equation == "langevin" and size > 1:
            raise ValueError(f"drift: found {size - 1} auxiliary variables, expected none")

    @property
    def type_names(self) -> tuple[str, ...]:
        """Names of the bead types, which are residue names."""
        return self.spec.type_names

    @property
    def friction(self) -> np.ndarray:
        """Effective friction ∫K dt of each bead type [n_types] (1/ps).

        With pair friction, which is a function of distance (:meth:`PairFrictionParameters.friction`),
        that of a bead among the neighbours of the configuration, if they move independently of it.
        """
        if self.pair_friction is not None:
            return self.pair_friction.bead_friction(self.neighborhood).numpy()
        instant, memory = self.drift[:, 0, 0], self.drift[:, 1:, 1:]
        # 1/(A⁻¹)_00, which has a value where there is no friction at all, too.
        return instant - np.einsum("tk,tk->t", self.drift[:, 0, 1:], np.linalg.solve(memory, self.drift[:, 1:, :1])[..., 0])

    @property
    def reach(self) -> float:
        """The longest range of what acts between beads, energy or friction (nm)."""
        return max(self.spec.r_cut, self.pair_friction.r_cut if self.pair_friction is not None else 0.0)

    @property
    def conserves_momentum(self) -> bool:
        """Whether friction acts between beads alone."""
        return self.pair_friction is not None and self.pair_friction.conserves_momentum

    @cached_property
    def neighborhood(self) -> Neighborhood:
        """The neighbours in the configuration, within the range of pair friction."""
        frames, boxes, types, masses = (
            torch.as_tensor(value)
            for value in (self.positions[None], self.box[None], self.types, self.masses[self.types])
        )
        return Neighborhood.measure(frames, boxes, types, masses, self.pair_friction.r_cut, self.spec.n_types)

    @cached_property
    def topology(self) -> openmm.app.Topology:
        """The beads of the configuration, one a residue."""
        import openmm

        from ..mapping import bead_topology

        topology = bead_topology(self.types, self.type_names)
        vectors = [openmm.Vec3(*row) for row in self.box]
        topology.setPeriodicBoxVectors(vectors * openmm.unit.nanometer)
        return topology

    def potential(self, types: np.ndarray | None = None) -> torch.nn.Module:
        """The energy as a plain torch module `forward(positions [N, 3], box [3, 3])`.

        Parameters
        ----------
        types : ndarray [N] of int, optional
            Bead types; those of the configuration by default.
        """
        from ..potentials import Potential

        types = self.types if types is None else types
        module = Potential(self.spec, torch.as_tensor(self.theta), torch.as_tensor(types))
        return module.requires_grad_(False)

    def create_system(
        self,
        topology: openmm.app.Topology | None = None,
        backend: str | None = None,
        plain: bool = False,
    ) -> openmm.System:
        """An OpenMM System in which the beads of a topology move.

        With pair friction alone it has a CMMotionRemover as well: friction between beads keeps
        their total momentum, which velocities drawn at random begin with.

        Parameters
        ----------
        topology : openmm.app.Topology, optional
            One bead a residue, with a periodic box; that of the bundle by default.
        backend : {"torchforce", "plugin", "pythonforce"}, optional
            How OpenMM calls the energy. By default the first of these that loads; the choice is
            logged once.
        plain : bool
            Plain torch operators even where the compiled kernels are there; `plugin` has none.

        Raises
        ------
        ValueError
            The topology does not match the model, has no box, or one that is too small.
        ImportError
            The backend can't load; the message names what is missing.

        Notes
        -----
        A Context made new from a checkpoint goes on bit for bit through `plugin` with its
        integrator. The other backends keep neighbour lists that no checkpoint holds, and go on to
        rounding, or bit for bit where :func:`openmm_cgadv.kernels.forget_lists` is called before a
        checkpoint is made and before it is loaded, as :func:`openmm_cgadv.run_production` does.
        """
        from .system import create_system

        return create_system(self, topology or self.topology, backend, plain)

    def create_integrator(
        self,
        topology: openmm.app.Topology | None = None,
        timestep=None,
        temperature=None,
        seed: int | None = None,
        backend: str | None = None,
    ) -> openmm.Integrator:
        """The integrator of the learned dynamics.

        A LangevinMiddleIntegrator where one friction without memory acts on all beads. Else the
        GeneralizedLangevinIntegrator of this package's OpenMM plugin or, where that does not load
        or OpenMM has a platform for GPUs, on which it could not run, a CustomIntegrator. Friction
        between pairs of beads needs the plugin's PairFrictionIntegrator, whatever computes the
        energy; it runs on the platforms Reference and CPU. The integrator's
        parameters are those of continuous time, so other time steps are possible as long as the
        potential is not too stiff for them.

        Parameters
        ----------
        topology : openmm.app.Topology, optional
            Needed where bead types differ and the System is not that of the bundle.
        timestep, temperature : optional
            (ps), (K); those of the training by default.
        seed : int, optional
            Of the noise; drawn by OpenMM when absent.
        backend : {"openmm", "plugin"}, optional
            Insist on OpenMM's own integrators or on that of the plugin.

        Raises
        ------
        ImportError
            The plugin is asked for, or needed, and does not load; the message says why.
        """
        from openmm import unit

        from .integrators import model_integrator
        from .system import bead_types

        timestep = self.timestep if timestep is None else plain(timestep, unit.picosecond)
        temperature = self.temperature if temperature is None else plain(temperature, unit.kelvin)
        if not timestep > 0:
            raise ValueError(f"timestep: found {timestep} ps, expected more than 0")
        types = self.types if topology is None else bead_types(topology, self.type_names)
        return model_integrator(self, types, temperature, timestep, seed, backend)

    def update_context(self, context: openmm.Context) -> None:
        """Put the parameters of this model into a running Context.

        The Context is one of a System from :meth:`create_system`, of a model with the same bead
        types and shape of the potential. Its positions, velocities, auxiliary variables, time and
        neighbour lists stay as they are. Friction, memory and temperature are set as well, at the
        time step that it runs with, where its integrator is from :meth:`create_integrator` or a
        CompoundIntegrator of such; another integrator is left alone, and so is the temperature of
        a barostat. With 512 beads it takes 3 ms (`torchforce`), 1 ms (`plugin`) or
        2 ms (`pythonforce`), a new Context 9, 2 or 2 ms; the energy is evaluated once.

        Whether other Contexts of the same System follow, and those made of it later, depends on the
        backend: give each a System of its own, from :meth:`create_system` of the new model. After
        ``context.reinitialize()``, also with ``preserveState=True``, the energy of `torchforce` is
        again that of the parameters that the System was made with: call this method again.

        Parameters
        ----------
        context : openmm.Context
            With positions.

        Raises
        ------
        ValueError
            The System has no force from this package, or one of other bead types or another
            potential; friction is negative; the integrator has another number of auxiliary
            variables, or one friction where the bead types of the model differ in theirs, or
            friction of pairs where the model's is of single beads, or the other way round. Nothing
            has changed then.
        """
        from .system import update_context

        update_context(self, context)

    def save(self, path: str | os.PathLike) -> Path:
        """Write the bundle; see :func:`save_bundle`."""
        return save_bundle(self, path)


def save_bundle(model: Model, path: str | os.PathLike) -> Path:
    """Write a model as a bundle, all of it or nothing.

    Parameters
    ----------
    model : Model
    path : path
        The folder, usually `NAME.cg`. A bundle that is there already is replaced.

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

    from . import plugin
    from .forcefield import force_field_xml
    from .native import native_forces
    from .system import bare_system

    path = Path(path)
    if path.is_file():
        raise BundleError(f"{path}: found a file, expected nothing there or a bundle")
    foreign = sorted({one.name for one in path.iterdir()} - {*FILES, *PLUGIN_FILES, README}) if path.exists() else []
    if foreign:
        raise BundleError(f"{path}: found {foreign[0]}, which is not of a bundle, expected nothing there or a bundle alone")
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.parent / f".{path.name}.{os.getpid()}"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    pair = model.pair_friction is not None
    try:
        (scratch / MODEL).write_text(
            json.dumps(_description(model), indent=2, allow_nan=False) + "\n"
        )
        arrays = {name: getattr(model, name) for name in ARRAYS if name != "drift" or not pair}
        np.savez(scratch / PARAMETERS, **arrays)
        torch.jit.script(model.potential()).save(str(scratch / POTENTIAL))
        with open(scratch / TOPOLOGY, "w") as file:
            app.PDBFile.writeFile(model.topology, model.positions * openmm.unit.nanometer, file)
        system = bare_system(model, model.topology)
        for force in native_forces(model.spec, model.theta, model.types):
            system.addForce(force)
        (scratch / SYSTEM).write_text(openmm.XmlSerializer.serialize(system))
        if pair:
            (scratch / README).write_text(_readme(model.pair_friction))
        else:
            integrator = model.create_integrator(backend="openmm")
            (scratch / INTEGRATOR).write_text(openmm.XmlSerializer.serialize(integrator))
        if plugin.why_not() is None:
            system = model.create_system(backend="plugin")
            integrator = model.create_integrator(backend="plugin")
            for name, made in zip(PLUGIN_FILES, (system, integrator)):
                (scratch / name).write_text(openmm.XmlSerializer.serialize(made))
        (scratch / FORCE_FIELD).write_text(force_field_xml(model))
        _replace(scratch, path)
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
    if not path.is_dir():
        raise BundleError(f"{path}: found no such folder, expected a bundle")
    if not (path / MODEL).is_file():
        raise BundleError(f"{path}: found no {MODEL}, expected a bundle")
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
    pair = description.get("equation") == PAIR
    missing = [
        name
        for name in FILES
        if not (path / name).is_file() and not (pair and name == INTEGRATOR)
    ]
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
            equation=description["equation"],
            provenance=description["provenance"],
            metrics=description["metrics"],
            pair_friction=(
                PairFrictionParameters.from_dict(description["pair_friction"]) if pair else None
            ),
            **{name: None if pair and name == "drift" else arrays[name] for name in ARRAYS},
        )
    except KeyError as error:
        raise BundleError(f"{path}: found no {error.args[0]!r}, expected it in a bundle") from error
    except (ValueError, TypeError) as error:
        raise BundleError(f"{path}: {error}") from error


def _description(model: Model) -> dict:
    from .. import __version__
    from .integrators import NEEDS_PLUGIN

    pair = model.pair_friction
    if pair is None:
        dynamics = {
            "auxiliary_variables": model.drift.shape[-1] - 1,
            "drift": model.drift.tolist(),
        }
    else:
        dynamics = {
            "needs": NEEDS_PLUGIN,
            "auxiliary_variables": pair.n_auxiliary,
            "pair_friction": pair.to_dict(),
        }
    return {
        "schema_version": 1 if pair is None else 2 if pair.conserves_momentum else SCHEMA_VERSION,
        "written_by": f"openmm_cgadv {__version__}",
        "units": UNITS,
        "bead_types": [
            {"name": name, "mass": float(mass), "friction": float(friction)}
            for name, mass, friction in zip(model.type_names, model.masses, model.friction)
        ],
        "n_beads": len(model.types),
        "cutoff": model.spec.r_cut,
        "temperature_K": model.temperature,
        "timestep_ps": model.timestep,
        "equation": model.equation,
        **dynamics,
        "potential": model.spec.to_dict(),
        "provenance": _jsonable(model.provenance),
        "metrics": _jsonable(model.metrics),
    }


def _readme(friction: PairFrictionParameters) -> str:
    from .integrators import NEEDS_PLUGIN

    own = ", ".join(f"{g:g}" for g in friction.self_friction)
    return (
        "This bundle of openmm_cgadv needs openmm_cgadv, with its OpenMM plugin, to run:\n"
        f"{NEEDS_PLUGIN}.\n\n"
        "    import openmm_cgadv\n"
        '    model = openmm_cgadv.load("this folder")\n'
        "    system, integrator = model.create_system(), model.create_integrator()\n\n"
        "Or `import openmm_cgadv`, then read system_plugin.xml and integrator_plugin.xml by\n"
        "openmm.XmlSerializer. system.xml and potential.pt hold the potential alone and need no\n"
        "plugin: with another integrator they have the right structure and other dynamics.\n"
    ) + ("" if friction.conserves_momentum else f"\nEach bead has friction of its own besides ({own}/ps by type).\n")


def _replace(scratch: Path, path: Path) -> None:
    """Put the finished folder in the place of an older one."""
    old = scratch.with_name(scratch.name + ".old")
    if path.exists():
        os.replace(path, old)
    os.replace(scratch, path)
    shutil.rmtree(old, ignore_errors=True)


def _numpy(value):
    return value.detach().cpu().numpy() if hasattr(value, "detach") else value


def _jsonable(value):
    """Plain JSON types; numbers that are not finite become null."""
    value = _numpy(value)
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
