"""A model: a potential with its dynamics, and a configuration to start from."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .data.topology import bead_topology
from .dynamics import Friction, Neighborhood
from .potentials import Potential, PotentialSpec

if TYPE_CHECKING:
    import openmm


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
    friction : Friction
        Equation of motion with its parameters: friction and memory.
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

    Raises
    ------
    ValueError
        Shapes or numbers of bead types do not match each other, or a value is out of its range.
    """

    spec: PotentialSpec
    theta: np.ndarray
    masses: np.ndarray
    temperature: float
    timestep: float
    friction: Friction
    types: np.ndarray
    positions: np.ndarray
    box: np.ndarray
    provenance: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("theta", "masses", "positions", "box"):
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
        for name, shape in expected.items():
            found = getattr(self, name).shape
            if found != shape:
                raise ValueError(f"{name}: found shape {found}, expected {shape}")
        if self.friction.n_types != n:
            raise ValueError(f"friction: found {self.friction.n_types} bead types, expected {n}")
        if beads and not 0 <= self.types.min() <= self.types.max() < n:
            raise ValueError(f"types: found {self.types.max()}, expected numbers below {n}")
        for name in ("temperature", "timestep"):
            number = float(getattr(self, name))
            object.__setattr__(self, name, number)
            if not (np.isfinite(number) and number > 0):
                raise ValueError(f"{name}: found {number}, expected more than 0")
        if (self.masses <= 0).any():
            raise ValueError(f"masses: found {self.masses.min()}, expected more than 0")

    def __repr__(self) -> str:
        """Return the model in a few lines: beads, energy, friction, temperature and time step."""
        counts = np.bincount(self.types, minlength=self.spec.n_types)
        beads = ", ".join(f"{count} {name}" for name, count in zip(self.type_names, counts))
        edges = " × ".join(f"{edge:.4g}" for edge in np.linalg.norm(self.box, axis=1))
        terms = ", ".join(type(term).__name__.removesuffix("Spec") for term in self.spec.terms)
        friction = ", ".join(f"{value:.4g}" for value in self.bead_friction)
        momentum = "conserves" if self.friction.conserves_momentum else "does not conserve"
        return (
            f"Model of {beads} in a box of {edges} nm\n"
            f"  energy: {terms}; {len(self.theta)} parameters, cutoff {self.spec.r_cut:.4g} nm\n"
            f"  dynamics: {self.friction.name}, {momentum} momentum\n"
            f"  integrated friction: {friction} /ps\n"
            f"  temperature: {self.temperature:g} K\n"
            f"  time step: {1e3 * self.timestep:g} fs"
        )

    @property
    def type_names(self) -> tuple[str, ...]:
        """Names of the bead types, which are residue names."""
        return self.spec.type_names

    @cached_property
    def bead_friction(self) -> np.ndarray:
        """Integrated friction ∫K dt of each bead type [n_types] (1/ps).

        Where friction acts between beads, it is that of a bead among the neighbours of the configuration, if they
        move independently of it.
        """
        return self.friction.bead_friction(self.neighborhood).numpy()

    @property
    def reach(self) -> float:
        """Largest cutoff of the energy and the friction between beads (nm)."""
        return max(self.spec.r_cut, self.friction.reach)

    @cached_property
    def neighborhood(self) -> Neighborhood | None:
        """Neighbours in the configuration within the cutoff of the friction; None if it has none."""
        if not self.friction.reach:
            return None
        frames, boxes, types, masses = (
            torch.as_tensor(value)
            for value in (self.positions[None], self.box[None], self.types, self.masses[self.types])
        )
        return Neighborhood.measure(
            frames, boxes, types, masses, self.friction.reach, self.spec.n_types
        )

    @cached_property
    def topology(self) -> openmm.app.Topology:
        """Topology of the configuration, one bead per residue."""
        import openmm

        topology = bead_topology(self.types, self.type_names)
        vectors = [openmm.Vec3(*row) for row in self.box]
        topology.setPeriodicBoxVectors(vectors * openmm.unit.nanometer)
        return topology

    def potential(self, types: np.ndarray | None = None) -> torch.nn.Module:
        """Return the energy as a plain torch module `forward(positions [N, 3], box [3, 3])`.

        Parameters
        ----------
        types : ndarray [N] of int, optional
            Bead types; those of the configuration by default.
        """
        types = self.types if types is None else types
        module = Potential(self.spec, torch.as_tensor(self.theta), torch.as_tensor(types))
        return module.requires_grad_(False)

    def create_system(
        self,
        topology: openmm.app.Topology | None = None,
        backend: str | None = None,
        plain: bool = False,
        platform: str | None = None,
    ) -> openmm.System:
        """Return an OpenMM System in which the beads of a topology move.

        Where friction conserves momentum, the System has a CMMotionRemover as well, because velocities drawn at
        random have a total momentum.

        Parameters
        ----------
        topology : openmm.app.Topology, optional
            One bead a residue, with a periodic box; that of the bundle by default.
        backend : {"plugin", "torchforce", "pythonforce"}, optional
            How OpenMM calls the energy. By default the first of these that works; the choice is
            logged once.
        plain : bool
            Plain torch operators even where the compiled kernels are there; `plugin` has none.
        platform : str, optional
            Name of the OpenMM platform on which the System will run, so that the backend is one that works there.

        Raises
        ------
        ValueError
            The topology does not match the model, has no box, or one that is too small.
        ImportError
            The backend can't load; the message names what is missing.

        Notes
        -----
        A new Context that loads a checkpoint continues bit for bit through `plugin` with its
        integrator. The other backends keep neighbour lists that no checkpoint holds, and continue to
        rounding, or bit for bit where :func:`openmm_cgadv.kernels.forget_lists` is called before a
        checkpoint is made and before it is loaded, as :func:`openmm_cgadv.run_production` does.
        """
        from .export.system import create_system

        return create_system(self, topology or self.topology, backend, plain, platform)

    def create_integrator(
        self,
        topology: openmm.app.Topology | None = None,
        timestep: float | openmm.unit.Quantity | None = None,
        temperature: float | openmm.unit.Quantity | None = None,
        seed: int | None = None,
        backend: str | None = None,
    ) -> openmm.Integrator:
        """Return the integrator of the learned dynamics.

        It is a LangevinMiddleIntegrator where one friction without memory acts on all beads. Otherwise it is the
        GeneralizedLangevinIntegrator of this package's OpenMM plugin, which runs on the platforms Reference and
        CPU, or a CustomIntegrator where the plugin does not load. Friction between pairs of beads needs the
        plugin's PairFrictionIntegrator, which runs on the platforms Reference and CPU. The integrator's
        parameters are those of continuous time, so other time steps are possible as long as the potential is not
        too stiff for them.

        Parameters
        ----------
        topology : openmm.app.Topology, optional
            Needed where bead types differ and the System is not that of the bundle.
        timestep : float or Quantity, optional
            (ps); that of the training by default.
        temperature : float or Quantity, optional
            (K); that of the training by default.
        seed : int, optional
            Seed of the noise; drawn by OpenMM when absent.
        backend : {"openmm", "plugin"}, optional
            Insist on OpenMM's own integrators, for a Context on OpenCL or CUDA, or on that of
            the plugin.

        Raises
        ------
        InputError
            The time step or the temperature is not positive, or thermal motion alone would move a bead by more than
            0.05 nm in a time step.
        ImportError
            The plugin is asked for, or needed, and does not load; the message says why.
        """
        from .export.integrators import create_integrator

        return create_integrator(self, topology, timestep, temperature, seed, backend)

    def update_context(self, context: openmm.Context) -> None:
        """Set the parameters of this model in a Context.

        The Context is one of a System from :meth:`create_system`, of a model with the same bead
        types and shape of the potential. Its positions, velocities, auxiliary variables, time and
        neighbour lists do not change. Friction, memory and temperature are set as well, at the time step of the
        Context, where its integrator is from :meth:`create_integrator` or a CompoundIntegrator of such. Another
        integrator does not change, and neither does the temperature of a barostat. With 512 beads it takes 3 ms (`torchforce`), 1 ms (`plugin`) or
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
            variables, one friction where the bead types of the model differ in theirs, or another equation of
            motion than the model. Nothing has changed then.
        """
        from .export.system import update_context

        update_context(self, context)


def _numpy(value: Any) -> Any:
    return value.detach().cpu().numpy() if hasattr(value, "detach") else value
