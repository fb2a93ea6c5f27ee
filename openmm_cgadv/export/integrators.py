"""OpenMM integrators for the learned friction: LangevinMiddle, and memory as a CustomIntegrator."""

from __future__ import annotations

import numpy as np
import openmm
import torch
from openmm import unit

from ..dynamics import propagator
from ..units import KB


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
    E         ``exp(−A Δt)``                                        numbers, or per-dof
    S         lower triangular, ``S Sᵀ = 1 − E Eᵀ``                 numbers, or per-dof
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
    drift = np.asarray(drift, dtype=np.float64)
    types = np.asarray(types, dtype=np.int64)
    size = drift.shape[-1]
    e, s = (m.numpy() for m in propagator(torch.as_tensor(drift), timestep))
    diagonal = np.diagonal(s, axis1=1, axis2=2)
    p = s / diagonal[:, None, :]
    f = np.linalg.solve(p, e)

    integrator = openmm.CustomIntegrator(timestep * unit.picosecond)
    if seed is not None:
        integrator.setRandomNumberSeed(seed)
    integrator.addGlobalVariable("kT", KB * temperature)
    state = ["v"] + [f"z{k}" for k in range(1, size)]
    middle = ["v"] + [f"w{k}" for k in range(1, size)]
    for name in state[1:] + middle[1:] + ["kicked"]:
        integrator.addPerDofVariable(name, 0.0)

    uniform = len(np.unique(types)) == 1

    def matrix_entry(name: str, matrix: np.ndarray, row: int, column: int) -> str:
        """The entry as a number, or as a per-dof variable where types differ."""
        values = matrix[:, row, column]
        if uniform:
            return f"({float(values[types[0]])!r})"
        variable = f"{name}{row}{column}"
        integrator.addPerDofVariable(variable, 0.0)
        integrator.setPerDofVariableByName(variable, np.repeat(values[types][:, None], 3, axis=1))
        return variable

    def product(name: str, matrix: np.ndarray, row: int, factors: list[str]) -> str:
        return " + ".join(
            f"{matrix_entry(name, matrix, row, column)}*{factor}"
            for column, factor in enumerate(factors)
        )

    def noise(row: int) -> str:
        scale = matrix_entry("D", s, row, row)
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
        before = product("F", f, row, ["kicked", *state[1:]])
        integrator.addComputePerDof(middle[row], f"{before} + {noise(row)}")
    for row in range(1, size):
        below = product("P", p, row, middle[:row])
        integrator.addComputePerDof(state[row], f"{middle[row]} + {below}")
    integrator.addComputePerDof("x", "x + 0.5*dt*(kicked + v)")
    return integrator
