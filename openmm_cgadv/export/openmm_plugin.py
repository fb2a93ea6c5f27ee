"""The native OpenMM plugin: a Force and two integrators in C++, which OpenMM runs without torch or Python.

Importing :mod:`openmm_cgadv` loads the plugin, so that XML files with a ``CGPotentialForce``,
``GeneralizedLangevinIntegrator`` or ``PairFrictionIntegrator`` can be read. :func:`why_not` returns why it is not
available. In Python these objects have the types of their base classes, ``openmm.Force`` and ``openmm.Integrator``;
this module has functions for their other properties. An integrator from :func:`create_integrator` has the methods of
:class:`GeneralizedLangevinIntegrator` as well, and one from :func:`create_pair_integrator` those of
:class:`PairFrictionIntegrator`. An integrator from ``XmlSerializer`` or ``CompoundIntegrator.getIntegrator`` lacks
these methods; the functions of this module accept both.
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
"""The shared library of the plugin."""
REBUILD = "pip install --force-reinstall --no-deps . in the sources of openmm_cgadv"
"""How to build the plugin again."""


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
    """Return why the plugin can't be used on this machine, with a remedy, or None."""
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
    """Create a ``CGPotentialForce``, the learned energy of beads.

    The Context's global parameter ``cgadv_scale``, 1 by default, multiplies energy and forces. A State can contain
    the derivative of the energy with respect to it.

    Parameters
    ----------
    integers, numbers : ndarray
        The potential in the form of :func:`openmm_cgadv.kernels.pack`.
    theta : ndarray [P]
        Parameters (kJ/mol).
    types : ndarray [N] of int
        Bead types.
    particles : ndarray [N] of int, optional
        Index of the particle of each bead in the System; by default beads are all its particles.
    exclusions : ndarray [n, 2] of int, optional
        Pairs of beads, as indices into `types`, that are not neighbours: they have no pair energy, and neither of
        them contributes to the three-body energy of the other.
    precision : {"single", "double"}
        Precision on the CPU platform. The Reference platform always computes in double precision.
    description : str
        A text that the force stores.

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
    """Return whether an ``openmm.Force`` is a ``CGPotentialForce``."""
    return _WHY_NOT is None and bool(_library().cgadv_is_force(_address(force)))


def read_force(force: openmm.Force) -> dict[str, Any]:
    """Return the arguments of :func:`create_force` that a ``CGPotentialForce`` contains."""
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
        A Context with this force, where the parameters change as well. It is not reinitialized.

    Raises
    ------
    ValueError
        The number of parameters differs, or the Context does not have this force.
    """
    _call("cgadv_set_parameters", _address(force), *_doubles(theta))
    if context is not None:
        _call("cgadv_update_context", _address(force), _address(context))


def create_integrator(
    drift: np.ndarray, types: np.ndarray, temperature: float, timestep: float, seed: int = 0
) -> GeneralizedLangevinIntegrator:
    r"""Create a ``GeneralizedLangevinIntegrator``: Langevin dynamics with memory, or with one friction per bead type.

    The step is that of :func:`openmm_cgadv.dynamics.rollout`, with the state ``s = (v, z_1 … z_K)`` of every degree
    of freedom, ``E = exp(−A Δt)`` and ``S Sᵀ = 1 − E Eᵀ``:

        v ← v + Δt F/m;   x ← x + Δt/2 v;   s ← E s + √(kT/m) S ξ;   x ← x + Δt/2 v.

    The integrator draws z from its stationary distribution at the first step. Checkpoints contain z, the seed and the
    step count, and States with ``integratorParameters=True`` contain z. The time step can change at any time.

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
        Seed of the noise, from -2³¹ to 2³¹ - 1; with 0 each Context has a random seed.

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
    """Return whether an ``openmm.Integrator`` is a ``GeneralizedLangevinIntegrator``."""
    return _WHY_NOT is None and bool(_library().cgadv_is_integrator(_address(integrator)))


def read_integrator(integrator: openmm.Integrator) -> dict[str, Any]:
    """Return the arguments of :func:`create_integrator` that a ``GeneralizedLangevinIntegrator`` contains."""
    root, common = _read_xml(integrator)
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

    The change takes effect at the next step, also in an existing Context.
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
    r"""Create a ``PairFrictionIntegrator``: pairwise friction with memory, which conserves momentum.

    The step and its noise are those of :func:`openmm_cgadv.dynamics.pair_rollout`: a rollout of replica 0 with the
    same seed is the same trajectory. Every pair of beads within the cutoff carries auxiliary vectors, drawn from their
    stationary distribution when the pair enters the cutoff and at the first step. Checkpoints contain them, the seed
    and the step count. States with ``integratorParameters=True`` contain them and the step count, and resume bit for
    bit with an integrator of the same seed. Neighbours are found in the periodic box of the System. The time step can
    change at any time. Particles without mass do not move and have no friction.

    A step changes velocities by the forces of the System, moves beads by Δt/2 v, applies friction and noise, and moves
    beads by Δt/2 v again. A step that would move a bead by more than 0.2 nm raises an error that names the step and the
    bead.

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
        Seed of the noise, from -2³¹ to 2³¹ - 1; with 0 each Context has a random seed.
    tolerance : float
        Tolerance of the solver of the velocities: root mean square of the residual over that of the velocities, at
        most 0.001. A larger tolerance lowers the temperature.

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
    """Return whether an ``openmm.Integrator`` is a ``PairFrictionIntegrator``."""
    return _WHY_NOT is None and bool(_library().cgadv_is_pair_integrator(_address(integrator)))


def read_pair_integrator(integrator: openmm.Integrator) -> dict[str, Any]:
    """Return the arguments of :func:`create_pair_integrator` that a ``PairFrictionIntegrator`` contains."""
    from ..dynamics import PairFrictionParameters

    root, common = _read_xml(integrator)
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
            tuple(float(gamma) for gamma in found.get("self", "").split()),
        ),
        **common,
        "tolerance": float(_attribute(root, "tolerance")),
    }


def set_friction(integrator: openmm.Integrator, friction: PairFrictionParameters) -> None:
    """Change the friction of a ``PairFrictionIntegrator``, except the number of auxiliary vectors.

    The change takes effect at the next step, also in an existing Context. Auxiliary vectors keep their values.
    """
    _call("cgadv_set_friction", _address(integrator), *_friction(friction))


def set_tolerance(integrator: openmm.Integrator, tolerance: float) -> None:
    """Change the tolerance of the solver of a ``PairFrictionIntegrator``, which takes effect at the next step."""
    _call("cgadv_set_tolerance", _address(integrator), ctypes.c_double(tolerance))


def take_moment(integrator: openmm.Integrator) -> np.ndarray:
    """Return the virial of friction and noise of a ``PairFrictionIntegrator``, summed since the last call.

    Divided by the time since the last call, it is their contribution to the stress
    (:func:`openmm_cgadv.simulation.stress.stress_series`).

    Returns
    -------
    ndarray [3, 3]
        ``Σ r_a p_b`` over pairs and steps (kJ/mol ps), with r = x_i − x_j and p the change of the momentum of i. Zeros
        at the first call in a Context, which starts the sum.
    """
    moment = np.zeros([3, 3])
    _call("cgadv_take_moment", _address(integrator), ctypes.c_void_p(moment.ctypes.data))
    return moment


def set_temperature(integrator: openmm.Integrator, temperature: float) -> None:
    """Change the temperature (K) of an integrator of the plugin.

    The change takes effect at the next step, also in an existing Context. Velocities and auxiliary variables keep
    their values and relax.
    """
    _call("cgadv_set_temperature", _address(integrator), ctypes.c_double(temperature))


def set_seed(integrator: openmm.Integrator, seed: int) -> None:
    """Change the seed of an integrator of the plugin, which takes effect when a Context is created or reinitialized."""
    _call("cgadv_set_seed", _address(integrator), _seed(seed))


if _WHY_NOT is None:
    import openmm
    from openmm import unit

    class _BeadIntegrator(openmm.Integrator):
        """The methods of OpenMM's own Langevin integrators. Numbers without a unit are in K."""

        def getTemperature(self) -> unit.Quantity:
            """Return the temperature (K)."""
            return float(self._attribute("temperature")) * unit.kelvin

        def setTemperature(self, temperature: float | Quantity) -> None:
            """Change the temperature (K), as :func:`set_temperature` does."""
            set_temperature(self, plain(temperature, unit.kelvin))

        def getRandomNumberSeed(self) -> int:
            """Return the seed of the noise; with 0 each Context has a random seed."""
            return int(self._attribute("randomSeed"))

        def setRandomNumberSeed(self, seed: int) -> None:
            """Change the seed of the noise, as :func:`set_seed` does."""
            set_seed(self, seed)

        def _attribute(self, name: str) -> str:
            return _attribute(ElementTree.fromstring(openmm.XmlSerializer.serialize(self)), name)

    class GeneralizedLangevinIntegrator(_BeadIntegrator):
        """The integrator of :func:`create_integrator`. Numbers without a unit are in K and 1/ps."""

        def getDrift(self) -> unit.Quantity:
            """Return the matrices A [n_types, K + 1, K + 1] (1/ps)."""
            return unit.Quantity(read_integrator(self)["drift"], unit.picosecond**-1)

        def setDrift(self, drift: ArrayLike) -> None:
            """Change the matrices A [n_types, K + 1, K + 1] (1/ps), as :func:`set_drift` does."""
            set_drift(self, plain(drift, unit.picosecond**-1))

    class PairFrictionIntegrator(_BeadIntegrator):
        """The integrator of :func:`create_pair_integrator`. Numbers without a unit are in K."""

        def getFriction(self) -> PairFrictionParameters:
            """Return the friction."""
            return read_pair_integrator(self)["friction"]

        def setFriction(self, friction: PairFrictionParameters) -> None:
            """Change the friction, as :func:`set_friction` does."""
            set_friction(self, friction)

        def getTolerance(self) -> float:
            """Return the tolerance of the solver of the velocities."""
            return float(self._attribute("tolerance"))

        def takeMoment(self) -> np.ndarray:
            """Return the virial of friction and noise since the last call, as :func:`take_moment` does."""
            return take_moment(self)

        def setTolerance(self, tolerance: float) -> None:
            """Change the tolerance of the solver, as :func:`set_tolerance` does."""
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


def _read_xml(integrator: openmm.Integrator) -> tuple[ElementTree.Element, dict[str, Any]]:
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
    """Return the temperature (K) and the time step (ps) for a function of the plugin."""
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
    """Call a function of the plugin, and raise its error."""
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
