"""OpenMM integrators for the learned friction: LangevinMiddle, memory by the plugin or a CustomIntegrator, pairs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import openmm
import torch
from openmm import unit

from .. import openmm_plugin
from ..units import KB

if TYPE_CHECKING:
    from .bundle import Model

GPU_PLATFORMS = {"CUDA", "HIP", "OpenCL"}
BACKENDS = ("openmm", "plugin")
NEEDS_PLUGIN = (
    "the friction of this model acts between pairs of beads, which only the OpenMM plugin of openmm_cgadv can "
    "integrate, on the platforms Reference and CPU"
)


def model_integrator(
    model: Model,
    types: np.ndarray,
    temperature: float,
    timestep: float,
    seed: int | None = None,
    backend: str | None = None,
) -> openmm.Integrator:
    """See :meth:`openmm_cgadv.Model.create_integrator`."""
    if model.pair_friction is None:
        return create_integrator(model.drift, types, temperature, timestep, seed, backend)
    _check_backend(backend)
    if backend == "openmm":
        raise ValueError(f"backend: found 'openmm', expected 'plugin': {NEEDS_PLUGIN}")
    check_plugin()
    return openmm_plugin.create_pair_integrator(model.pair_friction, types, temperature, timestep, seed or 0)


def check_plugin() -> None:
    """Raise an ImportError, in one sentence, where friction between pairs can't be integrated."""
    if (reason := openmm_plugin.why_not()) is not None:
        raise ImportError(f"{NEEDS_PLUGIN}: {reason}")


def create_integrator(
    drift: np.ndarray,
    types: np.ndarray,
    temperature: float,
    timestep: float,
    seed: int | None = None,
    backend: str | None = None,
) -> openmm.Integrator:
    """The integrator of friction on single beads, with matrices A [n_types, K + 1, K + 1] (1/ps)."""
    _check_backend(backend)
    friction = drift[np.unique(types), 0, 0]
    if backend != "plugin" and drift.shape[-1] == 1 and np.ptp(friction) == 0:
        return langevin_integrator(float(friction[0]), temperature, timestep, seed)
    if backend == "plugin" or (backend is None and _plugin_runs_everywhere()):
        return openmm_plugin.create_integrator(drift, types, temperature, timestep, seed or 0)
    return memory_integrator(drift, types, temperature, timestep, seed)


def _check_backend(backend: str | None) -> None:
    if backend is not None and backend not in BACKENDS:
        raise ValueError(f"backend: found {backend!r}, expected one of {', '.join(BACKENDS)}")


def _plugin_runs_everywhere() -> bool:
    """Whether the plugin loads and has kernels for every platform that OpenMM may choose."""
    platforms = {openmm.Platform.getPlatform(k).getName() for k in range(openmm.Platform.getNumPlatforms())}
    return openmm_plugin.why_not() is None and not platforms & GPU_PLATFORMS


def langevin_integrator(
    friction: float, temperature: float, timestep: float, seed: int | None = None
) -> openmm.LangevinMiddleIntegrator:
    """Langevin dynamics with one friction for all beads.

    Parameters
    ----------
    friction : float
        (1/ps)
    temperature : float
        (K)
    timestep : float
        (ps)
    seed : int, optional
        Of the noise; drawn by OpenMM when absent.
    """
    integrator = openmm.LangevinMiddleIntegrator(
        temperature * unit.kelvin, friction / unit.picosecond, timestep * unit.picosecond
    )
    if seed is not None:
        integrator.setRandomNumberSeed(seed)
    return integrator


def memory_integrator(
    drift: np.ndarray,
    types: np.ndarray,
    temperature: float,
    timestep: float,
    seed: int | None = None,
    replay_noise: bool = False,
) -> openmm.CustomIntegrator:
    r"""Generalized Langevin dynamics, or Langevin dynamics with a friction per bead type.

    The step is that of :func:`openmm_cgadv.dynamics.rollout`, with the state
    ``s = (v, z_1 … z_K)`` of every degree of freedom:

        v ← v + Δt F/m;   x ← x + Δt/2 v;   s ← E s + √(kT/m) S ξ;   x ← x + Δt/2 v.

    ========  ====================================================  =======================
    symbol    meaning                                               in the integrator
    ========  ====================================================  =======================
    z_k       auxiliary variables (nm/ps)                           per-dof ``z1`` … ``zK``
    E         ``exp(−A Δt)``                                        global, or per-dof
    S         lower triangular, ``S Sᵀ = 1 − E Eᵀ``                 global, or per-dof
    ========  ====================================================  =======================

    With ``S = P D``, P unit lower triangular and D diagonal, the middle part is
    ``w = P⁻¹ E s + √(kT/m) D ξ; s = P w``, which takes one new number a row of w.
    At its first step the integrator draws z from its stationary distribution, normal with
    variance kT/m, so it needs nothing but velocities to start in equilibrium. E and S belong to
    the time step: a changed step size needs a new integrator.

    Parameters
    ----------
    drift : ndarray [n_types, K + 1, K + 1]
        Matrices A (1/ps).
    types : ndarray [N] of int
        Bead types, in the order of the System's particles.
    temperature : float
        (K)
    timestep : float
        (ps)
    seed : int, optional
        Of the noise; drawn by OpenMM when absent.
    replay_noise : bool
        Take ξ from per-dof variables ``xi0`` … ``xiK`` and the initial z from what they are set
        to, instead of drawing them: for tests that replay a trajectory.

    Returns
    -------
    openmm.CustomIntegrator
    """
    types = np.asarray(types, dtype=np.int64)
    matrices = _step_matrices(drift, timestep)
    size = matrices["F"].shape[-1]

    integrator = openmm.CustomIntegrator(timestep * unit.picosecond)
    if seed is not None:
        integrator.setRandomNumberSeed(seed)
    integrator.addGlobalVariable("kT", KB * temperature)
    state = ["v"] + [f"z{k}" for k in range(1, size)]
    middle = ["v"] + [f"w{k}" for k in range(1, size)]
    for name in state[1:] + middle[1:] + ["kicked"]:
        integrator.addPerDofVariable(name, 0.0)

    uniform = len(np.unique(types)) == 1

    def matrix_entry(name: str, row: int, column: int) -> str:
        """The name of an entry: a global variable, or a per-dof one where types differ."""
        variable = f"{name}{row}{column}"
        add = integrator.addGlobalVariable if uniform else integrator.addPerDofVariable
        add(variable, 0.0)
        return variable

    def product(name: str, row: int, factors: list[str]) -> str:
        return " + ".join(
            f"{matrix_entry(name, row, column)}*{factor}" for column, factor in enumerate(factors)
        )

    def noise(row: int) -> str:
        scale = matrix_entry("D", row, row)
        if not replay_noise:
            return f"{scale}*sqrt(kT/m)*gaussian"
        integrator.addPerDofVariable(f"xi{row}", 0.0)
        return f"{scale}*sqrt(kT/m)*xi{row}"

    if size > 1 and not replay_noise:
        integrator.addGlobalVariable("started", 0.0)
        integrator.beginIfBlock("started = 0")
        for name in state[1:]:
            integrator.addComputePerDof(name, "sqrt(kT/m)*gaussian")
        integrator.addComputeGlobal("started", "1")
        integrator.endBlock()
    integrator.addUpdateContextState()
    # Each computation costs as much as a random number, so both drifts of x are made in one.
    integrator.addComputePerDof("kicked", "v + dt*f/m")
    for row in reversed(range(size)):
        before = product("F", row, ["kicked", *state[1:]])
        integrator.addComputePerDof(middle[row], f"{before} + {noise(row)}")
    for row in range(1, size):
        below = product("P", row, middle[:row])
        integrator.addComputePerDof(state[row], f"{middle[row]} + {below}")
    integrator.addComputePerDof("x", "x + 0.5*dt*(kicked + v)")
    _set_entries(integrator, matrices, types)
    return integrator


def integrator_update(integrator: openmm.Integrator, model: Model, types: np.ndarray) -> Callable[[], None]:
    """What gives new friction, memory and temperature to an integrator that this module made.

    The integrator may be in a Context or not. Of a CompoundIntegrator all integrators are updated.
    Those that this module does not make are left alone, and so is a LangevinMiddleIntegrator where
    the new model has memory or friction of pairs. Auxiliary variables keep their values.

    Parameters
    ----------
    integrator : openmm.Integrator
    model : Model
    types : ndarray [N] of int
        Bead types.

    Returns
    -------
    callable
        It makes the update. Nothing has changed before.

    Raises
    ------
    ValueError
        Friction is negative; an integrator has another number of auxiliary variables, or one
        friction where bead types differ in theirs, or friction of pairs where the model's is of
        single beads, or the other way round.
    """
    if isinstance(integrator, openmm.CompoundIntegrator):
        parts = (integrator.getIntegrator(k) for k in range(integrator.getNumIntegrators()))
        updates = [integrator_update(part, model, types) for part in parts]
    elif model.pair_friction is None:
        updates = _single_updates(integrator, model.drift, types, model.temperature)
    else:
        updates = _pair_updates(integrator, model.pair_friction, model.temperature)

    def apply():
        for update in updates:
            update()

    return apply


def _pair_updates(integrator, friction, temperature: float) -> list[Callable[[], None]]:
    if openmm_plugin.is_integrator(integrator) or "kicked" in _per_dof_names(integrator):
        raise ValueError(
            "integrator: found one with friction of single beads, expected that of a model with friction between "
            "pairs of beads (model.create_integrator)"
        )
    if not openmm_plugin.is_pair_integrator(integrator):
        return []
    found = openmm_plugin.read_pair_integrator(integrator)["friction"]
    _check_auxiliary(found.n_auxiliary, friction.n_auxiliary)
    return [
        lambda: openmm_plugin.set_friction(integrator, friction),
        lambda: openmm_plugin.set_temperature(integrator, temperature),
    ]


def _single_updates(integrator, drift: np.ndarray, types: np.ndarray, temperature: float) -> list[Callable[[], None]]:
    size = drift.shape[-1]
    friction = drift[np.unique(types), 0, 0]
    if friction.min() < 0:
        raise ValueError(f"drift: found a friction of {friction.min():g}/ps, expected 0 or more")
    updates = []
    if isinstance(integrator, openmm.LangevinMiddleIntegrator) and size == 1:
        if np.ptp(friction) > 0:
            raise ValueError(
                "integrator: found a LangevinMiddleIntegrator, which has one friction, expected "
                "that of a model whose bead types have different friction (model.create_integrator)"
            )
        updates.append(lambda: integrator.setFriction(friction[0] / unit.picosecond))
        updates.append(lambda: integrator.setTemperature(temperature * unit.kelvin))
    elif "kicked" in (names := _per_dof_names(integrator)):
        _check_auxiliary(sum(f"z{k}" in names for k in range(1, len(names))), size - 1)
        timestep = integrator.getStepSize().value_in_unit(unit.picosecond)
        matrices = _step_matrices(drift, timestep)
        updates.append(lambda: _set_entries(integrator, matrices, types))
        updates.append(lambda: integrator.setGlobalVariableByName("kT", KB * temperature))
    elif openmm_plugin.is_integrator(integrator):
        found = openmm_plugin.read_integrator(integrator)
        _check_auxiliary(found["drift"].shape[-1] - 1, size - 1)
        updates.append(lambda: openmm_plugin.set_drift(integrator, drift))
        updates.append(lambda: openmm_plugin.set_temperature(integrator, temperature))
    elif openmm_plugin.is_pair_integrator(integrator):
        raise ValueError(
            "integrator: found a PairFrictionIntegrator, expected that of a model with friction of single beads "
            "(model.create_integrator)"
        )
    return updates


def _per_dof_names(integrator: openmm.Integrator) -> list[str]:
    if not isinstance(integrator, openmm.CustomIntegrator):
        return []
    count = integrator.getNumPerDofVariables()
    return [integrator.getPerDofVariableName(k) for k in range(count)]


def _check_auxiliary(found: int, expected: int) -> None:
    if found != expected:
        raise ValueError(
            f"integrator: found {found} auxiliary variables, expected {expected} as in the model"
        )


def _step_matrices(drift: np.ndarray, timestep: float) -> dict[str, np.ndarray]:
    """F = P⁻¹ E, P and D of each bead type [n_types, K + 1, K + 1]."""
    e = torch.matrix_exp(-timestep * torch.as_tensor(np.asarray(drift, dtype=np.float64))).numpy()
    s = np.array([_lower(np.eye(len(one)) - one @ one.T) for one in e])
    own = np.diagonal(s, axis1=1, axis2=2)[:, None, :]
    p = np.where(own > 0, s / np.where(own > 0, own, 1.0), np.eye(e.shape[-1]))
    return {"F": np.linalg.solve(p, e), "P": p, "D": s}


def _lower(covariance: np.ndarray) -> np.ndarray:
    """Its Cholesky factor; a component without friction gets no noise of its own."""
    s = np.zeros_like(covariance)
    for j in range(len(s)):
        left = covariance[j:, j] - s[j:, :j] @ s[j, :j]
        if left[0] > 1e-14:
            s[j:, j] = left / np.sqrt(left[0])
    return s


def _set_entries(
    integrator: openmm.CustomIntegrator, matrices: dict[str, np.ndarray], types: np.ndarray
) -> None:
    several = "D00" in _per_dof_names(integrator)
    size = matrices["F"].shape[-1]
    for name, rows, columns in (
        ("F", *np.indices([size, size]).reshape(2, -1)),
        ("P", *np.tril_indices(size, -1)),
        ("D", *np.diag_indices(size)),
    ):
        for row, column in zip(rows, columns):
            values = matrices[name][types, row, column]
            variable = f"{name}{row}{column}"
            if several:
                integrator.setPerDofVariableByName(variable, np.repeat(values[:, None], 3, axis=1))
            else:
                integrator.setGlobalVariableByName(variable, float(values[0]))
