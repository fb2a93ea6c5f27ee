"""The native OpenMM plugin: a Force and two integrators in C++, which OpenMM runs without torch or Python.

Importing :mod:`openmm_cgadv` loads it into OpenMM, so that Systems and integrators that hold ``CGPotentialForce``,
``GeneralizedLangevinIntegrator`` or ``PairFrictionIntegrator`` can be read from XML. :func:`why_not` says why it is
not there. OpenMM's Python gives these objects out by the names of their base classes, ``openmm.Force`` and
``openmm.Integrator``; what those lack is here. An integrator from :func:`create_integrator` has the methods of
:class:`GeneralizedLangevinIntegrator` as well, one from :func:`create_pair_integrator` those of
:class:`PairFrictionIntegrator`. One that OpenMM gives out, read from XML by ``XmlSerializer`` or by
``CompoundIntegrator.getIntegrator``, has not: the functions of this module take both.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import ArrayLike

from ..units import plain

if TYPE_CHECKING:
    from openmm.unit import Quantity

    from ..dynamics import PairFrictionParameters

LIBRARY = Path(__file__).parents[1] / "_lib" / "libcgadv_openmm.so"
REBUILD = "pip install --force-reinstall --no-deps . in the sources of openmm_cgadv"


def _load() -> str | None:
    if not LIBRARY.exists():
        return (
            "the OpenMM plugin was not built: install openmm_cgadv where openmm, cmake and a C++ compiler are found "
            "(pip install --no-build-isolation .)"
        )
    try:
        import openmm

        openmm.Platform.loadPluginLibrary(str(LIBRARY))
    except Exception as error:
        reason = " ".join(str(error).split())
        return f"the OpenMM plugin does not load ({reason}); build it for the OpenMM that is here with {REBUILD}"
    return None


_WHY_NOT = _load()


def why_not() -> str | None:
    """Why the plugin can't be used here, with what to do, or None."""
    return _WHY_NOT


def create_force(
    integers: ArrayLike,
    numbers: ArrayLike,
    theta: ArrayLike,
    types: ArrayLike,
    particles: ArrayLike | None = None,
    exclusions: np.ndarray | None = None,
    precision: str = "single",
    description: str = "",
) -> openmm.Force:
    """A ``CGPotentialForce``: the learned energy of beads.

    The Context's global parameter ``cgadv_scale``, 1 by default, multiplies energy and forces; States offer the
    derivative of the energy with respect to it.

    Parameters
    ----------
    integers, numbers : ndarray
        The potential as :func:`openmm_cgadv.kernels.pack` makes it.
    theta : ndarray [P]
        Parameters (kJ/mol).
    types : ndarray [N] of int
        Bead types.
    particles : ndarray [N] of int, optional
        The particle of the System that each bead is; by default beads are all its particles.
    exclusions : ndarray [n, 2] of int, optional
        Pairs of beads, counted as `types` are, that are no neighbours: they have no pair energy and neither counts
        in the other's three-body energy.
    precision : {"single", "double"}
        Arithmetic on the CPU platform. The Reference platform always computes in double precision.
    description : str
        A text that stays with the force.

    Returns
    -------
    openmm.Force

    Raises
    ------
    ValueError
        The arguments do not match each other.
    """
    if precision not in ("single", "double"):
        raise ValueError(f"precision: found {precision!r}, expected 'single' or 'double'")
    return _from_xml(
        "cgadv_force_xml",
        *_integers(integers),
        *_doubles(numbers),
        *_doubles(theta),
        *_integers(types),
        *_integers(particles),
        *_integers(exclusions),
        ctypes.c_int32(precision == "single"),
        description.encode(),
    )


def is_force(force: openmm.Force) -> bool:
    """Whether an ``openmm.Force`` is a ``CGPotentialForce``."""
    return _WHY_NOT is None and bool(_library().cgadv_is_force(_address(force)))


def read_force(force: openmm.Force) -> dict[str, Any]:
    """What a ``CGPotentialForce`` holds: the arguments of :func:`create_force`."""
    import openmm

    root = ElementTree.fromstring(openmm.XmlSerializer.serialize(force))
    potential, beads = _child(root, "Potential").attrib, _child(root, "Beads").attrib

    def integers(name: str) -> np.ndarray | None:
        return np.array(beads[name].split(), dtype=np.int64) if name in beads else None

    exclusions = integers("exclusions")
    return {
        "integers": np.array(potential["integers"].split(), dtype=np.int64),
        "numbers": np.array(potential["numbers"].split(), dtype=np.float64),
        "theta": np.array(potential["parameters"].split(), dtype=np.float64),
        "types": integers("types"),
        "particles": integers("particles"),
        "exclusions": None if exclusions is None else exclusions.reshape(-1, 2),
        "precision": root.get("precision"),
        "description": potential["description"],
    }


def set_parameters(
    force: openmm.Force, theta: np.ndarray, context: openmm.Context | None = None
) -> None:
    """Change the parameters of a ``CGPotentialForce``.

    Parameters
    ----------
    theta : ndarray [P]
        (kJ/mol)
    context : openmm.Context, optional
        One that has this force, to change it there as well. Nothing is rebuilt.

    Raises
    ------
    ValueError
        The number of parameters is another one, or the Context does not have this force.
    """
    _call("cgadv_set_parameters", _address(force), *_doubles(theta))
    if context is not None:
        _call("cgadv_update_context", _address(force), _address(context))


def create_integrator(
    drift: np.ndarray, types: np.ndarray, temperature: float, timestep: float, seed: int = 0
) -> GeneralizedLangevinIntegrator:
    r"""A ``GeneralizedLangevinIntegrator``: Langevin dynamics with memory, or with a friction per bead type.

    The step is that of :func:`openmm_cgadv.dynamics.rollout`, with the state ``s = (v, z_1 … z_K)`` of every degree
    of freedom, ``E = exp(−A Δt)`` and ``S Sᵀ = 1 − E Eᵀ``:

        v ← v + Δt F/m;   x ← x + Δt/2 v;   s ← E s + √(kT/m) S ξ;   x ← x + Δt/2 v.

    It draws z from its stationary distribution at the first step; checkpoints hold z, the seed and the count of
    steps, and States with ``integratorParameters=True`` hold z. The time step can be changed at any time.

    Parameters
    ----------
    drift : ndarray [n_types, K + 1, K + 1]
        Matrices A (1/ps).
    types : ndarray [N] of int
        Bead types of all particles of the System.
    temperature : float or Quantity
        (K)
    timestep : float or Quantity
        (ps)
    seed : int
        Of the noise, from -2³¹ to 2³¹ - 1; 0 asks for a fresh one whenever a Context is made.

    Returns
    -------
    GeneralizedLangevinIntegrator

    Raises
    ------
    ValueError
        The arguments do not match each other.
    """
    drift = np.asarray(drift, dtype=np.float64)
    if drift.ndim != 3 or drift.shape[1] != drift.shape[2]:
        raise ValueError(f"drift: found shape {drift.shape}, expected [n_types, K + 1, K + 1]")
    integrator = _from_xml(
        "cgadv_integrator_xml",
        *_doubles(drift),
        ctypes.c_int64(len(drift)),
        *_integers(types),
        *_state(temperature, timestep),
        _seed(seed),
    )
    integrator.__class__ = GeneralizedLangevinIntegrator
    return integrator


def is_integrator(integrator: openmm.Integrator) -> bool:
    """Whether an ``openmm.Integrator`` is a ``GeneralizedLangevinIntegrator``."""
    return _WHY_NOT is None and bool(_library().cgadv_is_integrator(_address(integrator)))


def read_integrator(integrator: openmm.Integrator) -> dict[str, Any]:
    """What a ``GeneralizedLangevinIntegrator`` holds: the arguments of :func:`create_integrator`."""
    root, common = _held(integrator)
    element = _child(root, "Drift")
    drift = np.array(_attribute(element, "matrices").split(), dtype=np.float64)
    n_types = int(_attribute(element, "types"))
    size = round((len(drift) / n_types) ** 0.5)
    return {
        "drift": drift.reshape(n_types, size, size),
        **common,
    }


def set_drift(integrator: openmm.Integrator, drift: np.ndarray) -> None:
    """Change the matrices A [n_types, K + 1, K + 1] (1/ps) of a ``GeneralizedLangevinIntegrator``.

    It takes effect at the next step, also in a Context that runs.
    """
    _call("cgadv_set_drift", _address(integrator), *_doubles(drift))


def create_pair_integrator(
    friction: PairFrictionParameters,
    types: np.ndarray,
    temperature: float,
    timestep: float,
    seed: int = 0,
    tolerance: float = 1e-4,
) -> PairFrictionIntegrator:
    r"""A ``PairFrictionIntegrator``: friction with memory between neighbours, which keeps momentum.

    The step is that of :func:`openmm_cgadv.dynamics.pair_rollout`, and so is its noise: a rollout of replica 0 with
    the same seed is the same trajectory. Every pair of beads in range carries auxiliary vectors, drawn from their
    stationary distribution when the two come together and at the first step. Checkpoints hold them, the seed and
    the count of steps; States with ``integratorParameters=True`` hold them and the count of steps, and go on bit
    for bit with an integrator of the same seed. Neighbours are found in the periodic box of the System. The time
    step can be changed at any time. Particles without mass stay where they are and have no friction.

    It moves a bead by Δt/2 v, lets friction and noise act between neighbours and moves it by Δt/2 v again: forces may
    come from any Force of the System. A step that would move a bead by more than 0.2 nm raises an error that names
    the step and the bead.

    Parameters
    ----------
    friction : PairFrictionParameters
    types : ndarray [N] of int
        Bead types of all particles of the System.
    temperature : float or Quantity
        (K)
    timestep : float or Quantity
        (ps)
    seed : int
        Of the noise, from -2³¹ to 2³¹ - 1; 0 asks for a fresh one whenever a Context is made.
    tolerance : float
        Where the solver of the velocities stops: root mean square of the residual over that of the velocities, at
        most 0.001. Looser ones cool the beads.

    Returns
    -------
    PairFrictionIntegrator

    Raises
    ------
    ValueError
        The arguments do not match each other.
    """
    integrator = _from_xml(
        "cgadv_pair_integrator_xml",
        *_friction(friction),
        *_integers(types),
        *_state(temperature, timestep),
        ctypes.c_double(tolerance),
        _seed(seed),
    )
    integrator.__class__ = PairFrictionIntegrator
    return integrator


def is_pair_integrator(integrator: openmm.Integrator) -> bool:
    """Whether an ``openmm.Integrator`` is a ``PairFrictionIntegrator``."""
    return _WHY_NOT is None and bool(_library().cgadv_is_pair_integrator(_address(integrator)))


def read_pair_integrator(integrator: openmm.Integrator) -> dict[str, Any]:
    """What a ``PairFrictionIntegrator`` holds: the arguments of :func:`create_pair_integrator`."""
    from ..dynamics import PairFrictionParameters

    root, common = _held(integrator)
    found = _child(root, "PairFriction").attrib
    numbers = {
        name: np.array(found[name].split(), dtype=np.float64)
        for name in ("rMin", "splines", "memory")
    }
    pairs, k = len(numbers["rMin"]), int(found["auxiliary"])
    return {
        "friction": PairFrictionParameters(
            tuple(numbers["rMin"].tolist()),
            float(found["rCut"]),
            numbers["splines"].reshape(pairs, k + 1, 2, -1),
            numbers["memory"].reshape(pairs, k, k),
            tuple(float(own) for own in found.get("self", "").split()),
        ),
        **common,
        "tolerance": float(_attribute(root, "tolerance")),
    }


def set_friction(integrator: openmm.Integrator, friction: PairFrictionParameters) -> None:
    """Change the friction of a ``PairFrictionIntegrator``, all of it but the number of auxiliary vectors.

    It takes effect at the next step, also in a Context that runs. Auxiliary vectors keep their values.
    """
    _call("cgadv_set_friction", _address(integrator), *_friction(friction))


def set_tolerance(integrator: openmm.Integrator, tolerance: float) -> None:
    """Change where the solver of a ``PairFrictionIntegrator`` stops, from the next step on."""
    _call("cgadv_set_tolerance", _address(integrator), ctypes.c_double(tolerance))


def take_moment(integrator: openmm.Integrator) -> np.ndarray:
    """What friction and noise of a ``PairFrictionIntegrator`` handed over between beads since the last call.

    Divided by that time it is their part of the stress, see :func:`openmm_cgadv.analysis.stress.stress_viscosity`.

    Returns
    -------
    ndarray [3, 3]
        ``Σ r_a p_b`` over pairs and steps (kJ/mol ps), with r = x_i − x_j and p the momentum given to i. Zeros at
        the first call in a Context, which begins to count.
    """
    moment = np.zeros([3, 3])
    _call("cgadv_take_moment", _address(integrator), ctypes.c_void_p(moment.ctypes.data))
    return moment


def set_temperature(integrator: openmm.Integrator, temperature: float) -> None:
    """Change the temperature (K) of an integrator of the plugin.

    It takes effect at the next step, also in a Context that runs. Velocities and auxiliary variables keep their
    values and relax.
    """
    _call("cgadv_set_temperature", _address(integrator), ctypes.c_double(temperature))


def set_seed(integrator: openmm.Integrator, seed: int) -> None:
    """Change the seed of an integrator of the plugin, for Contexts that are made or reinitialized later."""
    _call("cgadv_set_seed", _address(integrator), _seed(seed))


if _WHY_NOT is None:
    import openmm
    from openmm import unit

    class _BeadIntegrator(openmm.Integrator):
        """The methods that OpenMM's own Langevin integrators have. Numbers without a unit are in K."""

        def getTemperature(self) -> unit.Quantity:
            """Temperature (K)."""
            return float(self._attribute("temperature")) * unit.kelvin

        def setTemperature(self, temperature: float | Quantity) -> None:
            """See :func:`set_temperature`."""
            set_temperature(self, plain(temperature, unit.kelvin))

        def getRandomNumberSeed(self) -> int:
            """Seed of the noise; 0 is a fresh one for every Context."""
            return int(self._attribute("randomSeed"))

        def setRandomNumberSeed(self, seed: int) -> None:
            """See :func:`set_seed`."""
            set_seed(self, seed)

        def _attribute(self, name: str) -> str:
            return _attribute(ElementTree.fromstring(openmm.XmlSerializer.serialize(self)), name)

    class GeneralizedLangevinIntegrator(_BeadIntegrator):
        """What :func:`create_integrator` makes. Numbers without a unit are in K and 1/ps."""

        def getDrift(self) -> unit.Quantity:
            """Matrices A [n_types, K + 1, K + 1] (1/ps)."""
            return unit.Quantity(read_integrator(self)["drift"], unit.picosecond**-1)

        def setDrift(self, drift: ArrayLike) -> None:
            """See :func:`set_drift`."""
            set_drift(self, plain(drift, unit.picosecond**-1))

    class PairFrictionIntegrator(_BeadIntegrator):
        """What :func:`create_pair_integrator` makes. Numbers without a unit are in K."""

        def getFriction(self) -> PairFrictionParameters:
            """The friction."""
            return read_pair_integrator(self)["friction"]

        def setFriction(self, friction: PairFrictionParameters) -> None:
            """See :func:`set_friction`."""
            set_friction(self, friction)

        def getTolerance(self) -> float:
            """Where the solver of the velocities stops."""
            return float(self._attribute("tolerance"))

        def takeMoment(self) -> np.ndarray:
            """See :func:`take_moment`."""
            return take_moment(self)

        def setTolerance(self, tolerance: float) -> None:
            """See :func:`set_tolerance`."""
            set_tolerance(self, tolerance)


def _friction(friction: PairFrictionParameters) -> tuple:
    return (
        ctypes.c_int64(friction.n_types),
        ctypes.c_int64(friction.n_auxiliary),
        ctypes.c_double(friction.r_cut),
        *_doubles(friction.r_min),
        *_doubles(friction.splines),
        *_doubles(friction.memory),
        *_doubles(friction.self_friction),
    )


def _held(integrator: openmm.Integrator) -> tuple[ElementTree.Element, dict[str, Any]]:
    """Return the XML of an integrator, and the arguments that both types of integrators have."""
    import openmm

    root = ElementTree.fromstring(openmm.XmlSerializer.serialize(integrator))
    return root, {
        "types": np.array(_attribute(_child(root, "Beads"), "types").split(), dtype=np.int64),
        "temperature": float(_attribute(root, "temperature")),
        "timestep": float(_attribute(root, "stepSize")),
        "seed": int(_attribute(root, "randomSeed")),
    }


def _child(element: ElementTree.Element, tag: str) -> ElementTree.Element:
    found = element.find(tag)
    if found is None:
        raise ValueError(f"XML of the plugin: found no element {tag}, expected one")
    return found


def _attribute(element: ElementTree.Element, name: str) -> str:
    found = element.get(name)
    if found is None:
        raise ValueError(f"XML of the plugin: found no attribute {name}, expected one")
    return found


def _state(temperature: float, timestep: float) -> tuple[ctypes.c_double, ctypes.c_double]:
    """In K and ps."""
    from openmm import unit

    return ctypes.c_double(plain(temperature, unit.kelvin)), ctypes.c_double(
        plain(timestep, unit.picosecond)
    )


def _seed(seed: int) -> ctypes.c_int32:
    if not -(2**31) <= seed < 2**31:
        raise ValueError(f"seed: found {seed}, expected a number from {-(2**31)} to {2**31 - 1}")
    return ctypes.c_int32(seed)


def _library() -> ctypes.CDLL:
    return ctypes.CDLL(str(LIBRARY))


def _call(name: str, *arguments: Any) -> None:
    """Call a function of the plugin; its error is raised."""
    if _WHY_NOT is not None:
        raise ImportError(_WHY_NOT)
    function = getattr(_library(), name)
    function.restype = ctypes.c_char_p
    error = function(*arguments)
    if error is not None:
        raise ValueError(error.decode())


def _from_xml(name: str, *arguments: Any) -> Any:
    """Return the object whose XML a function of the plugin writes; this needs no SWIG wrapper."""
    import openmm

    text = ctypes.c_char_p()
    _call(name, *arguments, ctypes.byref(text))
    if text.value is None:
        raise ValueError(f"{name}: found no XML, expected some")
    return openmm.XmlSerializer.deserialize(text.value.decode())


def _address(wrapped: Any) -> ctypes.c_void_p:
    return ctypes.c_void_p(int(wrapped.this))


def _doubles(values: ArrayLike) -> tuple[ctypes.c_void_p, ctypes.c_int64]:
    return _array(values, np.float64)


def _integers(values: ArrayLike | None) -> tuple[ctypes.c_void_p, ctypes.c_int64]:
    return _array([] if values is None else values, np.int64)


def _array(values: ArrayLike, dtype: type) -> tuple[ctypes.c_void_p, ctypes.c_int64]:
    """Return the address and the length of an array."""
    array: np.ndarray = np.ascontiguousarray(values, dtype=dtype)
    # data_as keeps a reference to the array.
    return array.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(array.size)
