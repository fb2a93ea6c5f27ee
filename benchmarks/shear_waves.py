"""Hydrodynamics of models in a large box: shear waves imposed on the velocities, and how fast they die.

    python benchmarks/shear_waves.py runs/pair/model.cg runs/self/model.cg

Transverse waves of velocity are added to a liquid in equilibrium, once with each sign, and followed. Where
momentum is conserved they die at the rate ν k², with ν = η/ρ of the liquid in equilibrium, and longer waves live
longer; friction on single beads kills waves of any length at γ + ν k². The rate is one over the integral of the
normalized decay. Beside it stands that of the spontaneous currents of the same wave vectors in equilibrium, which by
Onsager's regression is the same, and what the stress says by Green and Kubo: ν, with γ the effective friction on
single beads.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from measure import describe

from openmm_cgadv import bulk_model, load
from openmm_cgadv.analysis.blocks import jackknife
from openmm_cgadv.analysis.currents import currents
from openmm_cgadv.analysis.green_kubo import green_kubo_viscosity
from openmm_cgadv.analysis.transverse_viscosity import decayed
from openmm_cgadv.data.trajectory import BeadTrajectory
from openmm_cgadv.simulation.run import create_simulation, run_production
from openmm_cgadv.simulation.stress import stress_series
from openmm_cgadv.units import KB, MPA_S

SPEED = 0.1
"""Amplitude of each wave, in thermal velocities of a bead: six of them heat the liquid by 1 %, which friction soon takes away."""
NUMBERS = (1, 2)
"""Wave lengths in a box."""
INTERVAL = 0.02
"""Between looks at a wave (ps)."""
FIRST_LAG = 0.2
"""Where the decay is taken to have ended at the earliest (ps)."""


class Waves:
    """The transverse waves of one length that fit a rectangular box: three directions, each two ways across."""

    def __init__(self, box: np.ndarray, number: int, masses: np.ndarray):
        self.k = 2 * np.pi * number / np.diagonal(box)
        self.masses = masses / masses.sum()
        self.pairs = [
            (along, across) for along in range(3) for across in range(3) if along != across
        ]

    def shape(self, x: np.ndarray) -> np.ndarray:
        """Cosines [3, N] of the phases of beads."""
        return np.cos(x * self.k).T

    def imposed(self, x: np.ndarray, speed: float) -> np.ndarray:
        """Velocities [N, 3] of all waves together, at rest as a whole."""
        v = np.zeros_like(x)
        for along, across in self.pairs:
            v[:, across] += speed * self.shape(x)[along]
        return v - self.masses @ v

    def amplitudes(self, x: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Of the six waves in velocities [N, 3]."""
        shape = self.shape(x) * self.masses
        return np.array([2 * shape[along] @ v[:, across] for along, across in self.pairs])


def configuration(context) -> tuple[np.ndarray, np.ndarray]:
    state = context.getState(positions=True, velocities=True)
    return state.getPositions(asNumpy=True)._value, state.getVelocities(asNumpy=True)._value


def imposed_decays(
    simulation, waves: Waves, speed: float, length: float, shots: int, pause: int
) -> np.ndarray:
    """Decays [shots, n_lags] of waves over their imposed amplitude, from differences of two signs."""
    context, integrator = simulation.context, simulation.integrator
    steps = round(INTERVAL / integrator.getStepSize()._value)
    decays = []
    for _ in range(shots):
        integrator.step(pause)
        x, v = configuration(context)
        both = []
        for sign in (1, -1):
            context.setPositions(x)
            context.setVelocities(v + waves.imposed(x, sign * speed))
            seen = [waves.amplitudes(*configuration(context))]
            for _ in range(round(length / INTERVAL)):
                integrator.step(steps)
                seen.append(waves.amplitudes(*configuration(context)))
            both.append(np.array(seen))
        difference = (both[0] - both[1]).mean(1)
        decays.append(difference / difference[0])
        context.setPositions(x)
        context.setVelocities(v)
    return np.array(decays)


def decay_rate(decays: np.ndarray, interval: float) -> tuple[float, float]:
    """One over the integral of a mean decay from 1, and its standard error (1/ps)."""

    def mean(kept=slice(None)):
        return decays[kept].mean(0)

    end = decayed(mean(), jackknife(mean, len(decays))) or (decays.shape[1] - 1) // 2
    end = max(end, round(FIRST_LAG / interval))

    def rate(kept=slice(None)):
        running = interval * (np.cumsum(mean(kept)) - (1 + mean(kept)) / 2)
        return 1 / running[end : 2 * end + 1].mean()

    return float(rate()), float(jackknife(rate, len(decays)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--beads", type=int, default=5000)
    parser.add_argument("--timestep-fs", type=float, default=10.0)
    parser.add_argument("--shots", type=int, default=40)
    parser.add_argument("--decay-ps", type=float, default=4.0)
    parser.add_argument("--equilibrium-ps", type=float, default=100.0)
    parser.add_argument(
        "--quick", action="store_true", help="a small box and short runs, to see that it works"
    )
    options = parser.parse_args()
    beads, shots, decay, equilibrium = (
        options.beads,
        options.shots,
        options.decay_ps,
        options.equilibrium_ps,
    )
    if options.quick:
        beads, shots, decay, equilibrium = 343, 3, 1.0, 12.0
    torch.set_num_threads(1)
    describe("openmm")
    for path in options.bundles:
        small = load(path)
        model = bulk_model(small, molecules=beads) if beads != len(small.types) else small
        model = replace(model, timestep=1e-3 * options.timestep_fs)
        friction = model.friction
        on_single = float(
            np.mean(friction.self_friction if friction.between_beads else model.bead_friction)
        )
        masses = model.masses[model.types]
        with tempfile.TemporaryDirectory() as folder:
            run = run_production(
                model,
                Path(folder) / "run",
                length=equilibrium,
                frame_interval=INTERVAL,
                minimize=True,
                equilibration=20.0,
            )
            with BeadTrajectory.open(run.beads) as trajectory:
                volume = float(np.linalg.det(model.box))
                from_stress = green_kubo_viscosity(
                    stress_series(model, trajectory), INTERVAL, volume, model.temperature
                )
                equilibrium_waves = currents(trajectory)
                model = replace(model, positions=trajectory.positions([-1])[0])
        density = masses.sum() / volume
        nu, nu_error = (
            value / (MPA_S * density) for value in (from_stress.value, from_stress.stderr)
        )
        print(
            f"\n{path}: {model.friction.name}, {beads} beads in {model.box[0, 0]:.3g} nm, friction on single beads "
            f"{on_single:.3g}/ps, viscosity from the stress {from_stress.value:.3f} ± {from_stress.stderr:.3f} "
            "mPa s"
        )
        heads = ("expected, 1/ps", "imposed waves", "in equilibrium")
        print(
            f"{'k, 1/nm':>8} {' '.join(f'{head:>18}' for head in heads)} {'apparent viscosity':>20}"
        )
        simulation = create_simulation(model, seed=2)
        simulation.context.setVelocitiesToTemperature(model.temperature, 3)
        speed = SPEED * np.sqrt(KB * model.temperature / masses.mean())
        for number in NUMBERS:
            waves = Waves(model.box, number, masses)
            k = float(waves.k.mean())
            decays = imposed_decays(
                simulation, waves, speed, decay, shots, round(1.0 / model.timestep)
            )
            found = [f"{on_single + nu * k * k:10.3f} ± {nu_error * k * k:5.3f}"]
            rate, error = decay_rate(decays, INTERVAL)
            found.append(f"{rate:10.3f} ± {error:5.3f}")
            (same,) = np.flatnonzero(np.abs(equilibrium_waves.k / k - 1) < 0.01)
            transverse = equilibrium_waves.transverse[:, same]
            spontaneous = transverse / transverse[:, :1]
            found.append(
                "{:10.3f} ± {:5.3f}".format(*decay_rate(spontaneous, equilibrium_waves.lags[1]))
            )
            scale = MPA_S * density / k**2
            print(
                f"{k:8.3f} "
                + " ".join(f"{text:>18}" for text in found)
                + f" {rate * scale:11.3f} ± {error * scale:5.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
