"""OpenMM integrators of generalized Langevin dynamics: that of the plugin, or a CustomIntegrator."""

from __future__ import annotations

import numpy as np
import openmm
import torch
from openmm import unit

from ...dynamics import GeneralizedLangevinParameters
from ...units import KB
from .. import openmm_plugin
from .base import Integrators, Update, check_auxiliary


class GeneralizedLangevinIntegrators(Integrators[GeneralizedLangevinParameters]):
    """Integrators of :class:`~openmm_cgadv.dynamics.GeneralizedLangevinParameters`."""

    def create(
        self,
        friction: GeneralizedLangevinParameters,
        types: np.ndarray,
        temperature: float,
        timestep: float,
        seed: int | None = None,
        backend: str | None = None,
    ) -> openmm.Integrator:
        drift = friction.drift
        if backend == "plugin" or (backend is None and openmm_plugin.why_not() is None):
            return openmm_plugin.create_integrator(drift, types, temperature, timestep, seed or 0)
        return memory_integrator(drift, types, temperature, timestep, seed)

    def recognizes(self, integrator: openmm.Integrator) -> bool:
        return openmm_plugin.is_integrator(integrator) or "kicked" in _per_dof_names(integrator)

    def updates(
        self,
        integrator: openmm.Integrator,
        friction: GeneralizedLangevinParameters,
        types: np.ndarray,
        temperature: float,
    ) -> list[Update]:
        drift = friction.drift
        lowest = drift[np.unique(types), 0, 0].min()
        if lowest < 0:
            raise ValueError(f"drift: found a friction of {lowest:g}/ps, expected 0 or more")
        if openmm_plugin.is_integrator(integrator):
            found = openmm_plugin.read_integrator(integrator)["drift"].shape[-1] - 1
            check_auxiliary(found, friction)
            return [
                lambda: openmm_plugin.set_drift(integrator, drift),
                lambda: openmm_plugin.set_temperature(integrator, temperature),
            ]
        names = _per_dof_names(integrator)
        if "kicked" not in names:
            return []
        check_auxiliary(sum(f"z{k}" in names for k in range(1, len(names))), friction)
        timestep = integrator.getStepSize().value_in_unit(unit.picosecond)
        matrices = _step_matrices(drift, timestep)
        return [
            lambda: _set_entries(integrator, matrices, types),
            lambda: integrator.setGlobalVariableByName("kT", KB * temperature),
        ]


def memory_integrator(
    drift: np.ndarray,
    types: np.ndarray,
    temperature: float,
    timestep: float,
    seed: int | None = None,
    replay_noise: bool = False,
) -> openmm.CustomIntegrator:
    r"""Return a CustomIntegrator of generalized Langevin dynamics.

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
    ``w = P⁻¹ E s + √(kT/m) D ξ; s = P w``, which takes one random number for each row of w.
    At its first step the integrator draws z from its stationary distribution, normal with
    variance kT/m, so the dynamics start in equilibrium if the velocities do. E and S depend on
    the time step: a different step size needs a new integrator.

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
        Seed of the noise; drawn by OpenMM when absent.
    replay_noise : bool
        Read ξ from per-dof variables ``xi0`` … ``xiK`` and the initial z from theirs instead of
        drawing them, for tests that replay a trajectory.

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
        """Return the name of an entry: a global variable, or a per-dof variable if there are several types."""
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


def _per_dof_names(integrator: openmm.Integrator) -> list[str]:
    if not isinstance(integrator, openmm.CustomIntegrator):
        return []
    count = integrator.getNumPerDofVariables()
    return [integrator.getPerDofVariableName(k) for k in range(count)]


def _step_matrices(drift: np.ndarray, timestep: float) -> dict[str, np.ndarray]:
    """Return F = P⁻¹ E, P and D of each bead type [n_types, K + 1, K + 1]."""
    e = torch.matrix_exp(-timestep * torch.as_tensor(np.asarray(drift, dtype=np.float64))).numpy()
    s = np.array([_lower(np.eye(len(one)) - one @ one.T) for one in e])
    diagonal = np.diagonal(s, axis1=1, axis2=2)[:, None, :]
    p = np.where(diagonal > 0, s / np.where(diagonal > 0, diagonal, 1.0), np.eye(e.shape[-1]))
    return {"F": np.linalg.solve(p, e), "P": p, "D": s}


def _lower(covariance: np.ndarray) -> np.ndarray:
    """Return the lower Cholesky factor; a component without friction has no noise."""
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
    entries: dict[str, tuple[np.ndarray, ...]] = {
        "F": tuple(np.indices([size, size]).reshape(2, -1)),
        "P": np.tril_indices(size, -1),
        "D": np.diag_indices(size),
    }
    for name, (rows, columns) in entries.items():
        for row, column in zip(rows, columns):
            values = matrices[name][types, row, column]
            variable = f"{name}{row}{column}"
            if several:
                integrator.setPerDofVariableByName(variable, np.repeat(values[:, None], 3, axis=1))
            else:
                integrator.setGlobalVariableByName(variable, float(values[0]))
