"""Velocity rescaling gives the canonical distribution of the kinetic energy with its relaxation time, where friction is negligible."""

from dataclasses import replace

import numpy as np
import openmm
import pytest
from models import make_model, make_pair_model, quiet
from openmm import app, unit
from production_runs import SHORT, interrupt
from scipy import stats

from openmm_cgadv import BeadTrajectory, VelocityRescaling, run_production
from openmm_cgadv.dynamics import LangevinParameters
from openmm_cgadv.simulation import run as production
from openmm_cgadv.simulation.thermostat import needs_thermostat
from openmm_cgadv.units import KB

BEADS = 20


def free(model, **settings):
    """A simulation without forces or friction, whose kinetic energy the thermostat alone changes."""
    system = openmm.System()
    for mass in model.masses[model.types]:
        system.addParticle(mass)
    simulation = app.Simulation(
        model.topology,
        system,
        openmm.VerletIntegrator(0.02),
        openmm.Platform.getPlatform("Reference"),
    )
    simulation.context.setPositions(model.positions)
    simulation.reporters.append(VelocityRescaling(5, model, **settings))
    return simulation


def kinetic(simulation):
    return (
        simulation.context.getState(energy=True)
        .getKineticEnergy()
        .value_in_unit(unit.kilojoule_per_mole)
    )


def kinetics(simulation):
    """Kinetic energies along a run."""
    found = []
    for _ in range(1500):
        simulation.step(100)
        found.append(kinetic(simulation))
    return found


def without_friction(model, friction=0.01):
    return replace(
        model,
        friction=LangevinParameters(np.full([len(model.masses), 1, 1], friction)),
    )


@pytest.fixture(scope="module")
def model():
    return quiet(make_model(n_types=2, n=BEADS, memory=0))


@pytest.mark.parametrize("seed", [1, 2])
def test_kinetic_energy_is_canonical(model, seed):
    simulation = free(model, temperature=200 * unit.kelvin, seed=seed)
    simulation.context.setVelocitiesToTemperature(200.0, seed)
    found = kinetics(simulation)
    expected = stats.gamma(1.5 * BEADS, scale=KB * 200.0)
    assert stats.kstest(found, expected.cdf).pvalue > 0.001
    assert np.var(found) == pytest.approx(expected.var(), rel=0.25)


def test_kinetic_energy_decorrelates_in_the_relaxation_time(model):
    """Its mean relaxes exponentially, and no velocity changes its direction."""
    simulation, mean = free(model), 1.5 * BEADS * KB * model.temperature
    simulation.context.setVelocitiesToTemperature(model.temperature, 1)
    velocities = simulation.context.getState(velocities=True).getVelocities(asNumpy=True)
    hot = np.sqrt(4 * mean / kinetic(simulation))
    times, found = [25, 50, 100], []
    for _ in range(200):
        simulation.context.setVelocities(hot * velocities)
        before, row = 0, []
        for time in times:
            simulation.step(time - before)
            row.append(kinetic(simulation))
            before = time
        found.append(row)
    after = simulation.context.getState(velocities=True).getVelocities(asNumpy=True)
    ratio = np.asarray(after / velocities)
    assert np.ptp(ratio) < 1e-6 and ratio[0, 0] > 0
    expected = mean * (1 + 3 * np.exp(-0.02 * np.array(times)))
    errors = np.std(found, axis=0) / np.sqrt(len(found))
    assert np.all(np.abs(np.mean(found, axis=0) - expected) < 4 * errors)
    assert np.all(errors < 0.03 * expected)


def test_beads_without_centre_of_mass_motion_have_three_degrees_of_freedom_less():
    model = make_pair_model(n=BEADS)
    assert model.friction.conserves_momentum
    simulation = free(model, temperature=300.0)
    simulation.context.setVelocitiesToTemperature(300.0, 1)
    found = kinetics(simulation)
    assert np.mean(found) == pytest.approx(1.5 * (BEADS - 1) * KB * 300.0, rel=0.02)


def test_a_system_with_a_cm_motion_remover_has_three_degrees_of_freedom_less(model):
    simulation = free(model, temperature=300.0)
    simulation.system.addForce(openmm.CMMotionRemover(1))
    simulation.context.reinitialize(preserveState=True)
    simulation.context.setVelocitiesToTemperature(300.0, 1)
    found = kinetics(simulation)
    assert np.mean(found) == pytest.approx(1.5 * (BEADS - 1) * KB * 300.0, rel=0.02)


def test_production_holds_the_temperature_however_rare_its_frames_are(tmp_path, monkeypatch):
    """From a much higher temperature it is reached before the first frame."""
    hot = without_friction(quiet(make_model(n=64)), 0.0)
    warm = openmm.Context.setVelocitiesToTemperature
    monkeypatch.setattr(
        openmm.Context,
        "setVelocitiesToTemperature",
        lambda self, kelvin, seed: warm(self, 1.5 * kelvin, seed),
    )
    run = run_production(hot, tmp_path, length=40.0, equilibration=0.0, frame_interval=10.0)
    with BeadTrajectory.open(run.beads) as trajectory:
        v = trajectory.velocities()
    temperature = (hot.masses[0] * v**2).sum(axis=(1, 2)) / (3 * 64 * KB)
    assert np.abs(temperature / hot.temperature - 1).max() < 4 * np.sqrt(2 / (3 * 64))
    assert temperature.mean() == pytest.approx(hot.temperature, rel=4 * np.sqrt(2 / (3 * 64 * 4)))


def test_wrong_arguments_are_rejected(model):
    for interval in (0, 2.5):
        with pytest.raises(ValueError, match="interval: found"):
            VelocityRescaling(interval, model)
    with pytest.raises(ValueError, match="temperature: found -5 K, expected more than 0"):
        VelocityRescaling(5, model, temperature=-5 * unit.kelvin)


def test_models_with_friction_need_none(model):
    assert (
        not needs_thermostat(model)
        and needs_thermostat(without_friction(model))
        and not needs_thermostat(make_pair_model(n=BEADS))
    )


def test_production_without_friction_reaches_its_temperature_and_resumes_bit_for_bit(
    tmp_path, monkeypatch
):
    model = without_friction(quiet(make_model(n=64)), 0.0)
    monkeypatch.setattr(production, "CHECKPOINT_SECONDS", -1.0)
    interrupt(model, tmp_path / "a")
    parts = run_production(model, tmp_path / "a", **SHORT)
    whole = run_production(model, tmp_path / "b", **SHORT)
    with BeadTrajectory.open(parts.beads) as a, BeadTrajectory.open(whole.beads) as b:
        np.testing.assert_array_equal(a.positions(), b.positions())
    long = run_production(
        model, tmp_path / "c", length=100.0, equilibration=5.0, frame_interval=0.1
    )
    with BeadTrajectory.open(long.beads) as trajectory:
        v = trajectory.velocities()
    temperature = (model.masses[0] * v**2).sum(axis=(1, 2)) / (3 * 64 * KB)
    spread = model.temperature * np.sqrt(2 / (3 * 64))
    assert temperature.mean() == pytest.approx(
        model.temperature, abs=5 * spread * np.sqrt(2 * 2.0 / 100.0)
    )
    assert temperature.std() == pytest.approx(spread, rel=0.3)
