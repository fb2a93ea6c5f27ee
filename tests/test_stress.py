"""The stress is the energy's response to strain, and its fluctuations give the shear viscosity."""

import numpy as np
import openmm
import pytest
import torch
from models import random_friction
from scipy.signal import lfilter
from systems import jittered_lattice, liquid_box, random_spec, random_theta

from openmm_cgadv import kernels
from openmm_cgadv.analysis import currents, measurement, metrics, transverse_viscosity
from openmm_cgadv.analysis.blocks import Unmeasurable
from openmm_cgadv.analysis.green_kubo import green_kubo_viscosity
from openmm_cgadv.data.trajectory import BeadTrajectory, BeadWriter
from openmm_cgadv.dynamics import Langevin, PairFriction
from openmm_cgadv.export import openmm_plugin
from openmm_cgadv.model import Model
from openmm_cgadv.potentials import PairSpec, PotentialSpec
from openmm_cgadv.simulation import stress
from openmm_cgadv.simulation.run import run_production
from openmm_cgadv.units import KB, MPA_S

needs_kernels = pytest.mark.skipif(not kernels.available(), reason=kernels.why_not())
TEMPERATURE = 300.0


def frames(n_types, triclinic, beads=120, count=4):
    """Frames of drifting beads in any periodic image, in a box that changes."""
    box = liquid_box(beads, 33.0, triclinic)
    generator = np.random.default_rng(1)
    x = jittered_lattice(beads, box, 0.25, 0).numpy()
    moves = np.cumsum(0.02 * generator.normal(size=(count, beads, 3)), axis=0)
    away = generator.integers(-2, 3, size=(beads, 3)) @ box.numpy()
    boxes = box * torch.linspace(1.0, 1.03, count, dtype=torch.float64)[:, None, None]
    return torch.from_numpy(x + moves + away), boxes, torch.arange(beads) % n_types


@needs_kernels
@pytest.mark.parametrize("n_types, triclinic", [(1, False), (2, False), (1, True), (2, True)])
def test_virial_is_minus_the_energys_response_to_strain(monkeypatch, n_types, triclinic):
    x, boxes, types = frames(n_types, triclinic)
    spec = random_spec(n_types)
    theta = random_theta(spec, 3)
    found = {p: kernels.virial(x, boxes, types, theta, spec, p) for p in ("double", "single")}
    for precision, tolerance in (("double", 1e-11), ("single", 1e-5)):
        value = found[precision]
        assert (value - value.mT).abs().max() < tolerance * value.abs().max()
    monkeypatch.setattr(stress.kernels, "available", lambda *spec: False)
    exact = stress.virial(x, boxes, types, theta, spec)
    assert exact.abs().max() > 100
    torch.testing.assert_close(found["double"], exact, rtol=1e-10, atol=1e-9)
    torch.testing.assert_close(
        found["single"], exact, rtol=1e-4, atol=1e-4 * exact.abs().max().item()
    )
    step = 1e-5
    for a, b in ((0, 0), (0, 1), (2, 1)):
        strain = torch.zeros(3, 3, dtype=torch.float64)
        strain[a, b] = step
        up, down = (
            stress.Potential(spec, theta, types)(
                x[0] + s * x[0] @ strain, boxes[0] + s * boxes[0] @ strain
            )
            for s in (1, -1)
        )
        assert -(up - down).item() / (2 * step) == pytest.approx(
            exact[0, a, b].item(), rel=1e-5, abs=1e-3
        )


@needs_kernels
def test_virial_of_many_threads_is_that_of_one():
    x, boxes, types = frames(1, False, beads=1100, count=2)
    spec = random_spec(1, 0.5)
    theta, threads = random_theta(spec, 4), torch.get_num_threads()
    one = kernels.virial(x, boxes, types, theta, spec, "double")
    try:
        torch.set_num_threads(3)
        several = kernels.virial(x, boxes, types, theta, spec, "double")
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(several, one, rtol=1e-10, atol=1e-8)


def test_stress_of_a_run_has_the_momentum_that_beads_carry(tmp_path):
    x, boxes, types = frames(2, False, beads=60, count=5)
    spec = random_spec(2, 0.5)
    boxes = boxes[:1].expand(5, 3, 3)
    masses = np.array([18.0, 40.0])
    model = Model(
        spec=spec,
        theta=random_theta(spec, 0),
        masses=masses,
        temperature=TEMPERATURE,
        timestep=0.005,
        friction=Langevin(2, 5.0).export(),
        types=types,
        positions=x[0].numpy(),
        box=boxes[0].numpy(),
    )
    v = np.random.default_rng(0).normal(size=x.shape).astype(np.float32)
    about = masses[types], types.numpy(), spec.type_names, TEMPERATURE, 0.02
    with BeadWriter(tmp_path / "b.h5", *about, velocities=True) as out:
        out.append(x.numpy(), boxes.numpy(), v)
        out.finish()
    with BeadTrajectory.open(tmp_path / "b.h5") as beads:
        found = stress.stress_series(model, beads)
        stored = torch.as_tensor(beads.positions())
    kinetic = np.einsum("n,tna,tnb->tab", masses[types], v.astype(float), v.astype(float))
    exact = (
        stress.virial(stored, boxes, types, torch.as_tensor(model.theta), spec).numpy() + kinetic
    )
    np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-3 * np.abs(exact).max())


def relaxing_stress(seed, n, interval, rate, volume, white=0.0):
    """Isotropic stress [n, 3, 3] whose components across have unit variance and decay with a rate,
    plus white noise of a variance, plus a pressure that must not matter."""
    rng = np.random.default_rng(seed)
    keep = np.exp(-rate * interval)
    noise = rng.normal(size=(n, 9)) * np.sqrt(1 - keep**2)
    noise[0] = rng.normal(size=9)
    p = lfilter([1], [1, -keep], noise, axis=0) + np.sqrt(white) * rng.normal(size=(n, 9))
    p = p.reshape(n, 3, 3)
    p = (p + p.swapaxes(1, 2)) / np.sqrt(2)
    return p + (100 + 10 * rng.normal(size=n))[:, None, None] * np.eye(3)


@pytest.mark.parametrize("white", [0.0, 2.0])
def test_viscosity_is_the_integral_of_the_stress_correlation(white):
    n, interval, rate, volume, runs = 10000, 0.02, 2.0, 5.0, 20
    keep = np.exp(-rate * interval)
    # the trapezoidal rule of an exponential, exactly; half of the white part is inside
    integral = interval * (0.5 + keep / (1 - keep)) + 0.5 * white * interval
    exact = MPA_S * integral / (volume * KB * TEMPERATURE)
    found = [
        green_kubo_viscosity(
            relaxing_stress(seed, n, interval, rate, volume, white), interval, volume, TEMPERATURE
        )
        for seed in range(runs)
    ]
    value, error = np.array([(one.value, one.stderr) for one in found]).T
    z = (value - exact) / error
    assert abs((value / exact).mean() - 1) < 5 * np.sqrt((error**2).sum()) / runs / exact
    assert 0.3 < np.sqrt((z**2).mean()) < 2.2
    assert np.median(error) < 0.17 * exact
    assert all(0.3 < one.cutoff < 5 for one in found)
    np.testing.assert_allclose(
        np.mean([one.blocks.mean(0)[0] for one in found]),
        MPA_S * (1 + white) / (volume * KB * TEMPERATURE),
        rtol=0.03,
    )


def test_figures_tell_the_viscosity_from_stress_or_why_there_is_none(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.random((1200, 8, 3)) * 2
    with BeadWriter(
        tmp_path / "b.h5", np.ones(8), np.zeros(8, int), ("A",), TEMPERATURE, 0.02
    ) as out:
        out.append(x, np.eye(3) * 2)
        out.finish()
    series = relaxing_stress(1, 1200, 0.02, 2.0, 8.0)
    with BeadTrajectory.open(tmp_path / "b.h5") as beads:
        found = measurement.measure(beads, stress=series, skip=measurement.SLOW)
        without = metrics.metrics(measurement.measure(beads, skip=measurement.SLOW))
        figures = metrics.metrics(found)
    exact = green_kubo_viscosity(series, 0.02, 8.0, TEMPERATURE)
    assert figures["stress_viscosity_mPa_s"] == pytest.approx(exact.value, rel=1e-6)
    assert figures["stress_viscosity_stderr"] == pytest.approx(exact.stderr, rel=1e-6)
    lag, value, _ = figures["stress_integral"][-1]
    assert lag <= 2 * exact.cutoff + 1e-6
    assert value == pytest.approx(np.interp(lag, exact.lags, exact.running()), rel=1e-6)
    for name in ("stress_viscosity_mPa_s", "stress_viscosity_stderr", "stress_integral"):
        assert (
            without[name] is None
            and without["reasons"][name] == "the stress of this run is not known"
        )


def test_viscosity_from_stress_needs_time():
    series = relaxing_stress(0, 2000, 0.02, 2.0, 1.0)
    with pytest.raises(Unmeasurable, match="needs 10 ps of trajectory; this one has 8 ps"):
        green_kubo_viscosity(series[:401], 0.02, 1.0, TEMPERATURE)
    slow = np.cumsum(np.random.default_rng(0).normal(size=(2000, 3, 3)), axis=0)
    with pytest.raises(Unmeasurable, match="has not decayed to its noise within 1 ps"):
        green_kubo_viscosity(slow, 0.02, 1.0, TEMPERATURE)


# friction between beads

needs_plugin = pytest.mark.skipif(
    openmm_plugin.why_not() is not None, reason=openmm_plugin.why_not() or ""
)


def pair_context(friction, x, v, box, types, masses, platform="Reference", threads=1, seed=5):
    """Beads without any force, and their integrator."""
    system = openmm.System()
    for mass in masses:
        system.addParticle(mass)
    system.setDefaultPeriodicBoxVectors(*box)
    system.addForce(periodic_force(len(masses)))
    integrator = openmm_plugin.create_pair_integrator(
        friction, types, TEMPERATURE, 0.01, seed, tolerance=1e-12
    )
    properties = {"Threads": str(threads)} if platform == "CPU" else {}
    context = openmm.Context(system, integrator, openmm.Platform.getPlatform(platform), properties)
    context.setPositions(x)
    context.setVelocities(v)
    return context, integrator


def periodic_force(beads):
    """That does nothing but make a System periodic."""
    force = openmm.CustomNonbondedForce("0*r")
    force.setNonbondedMethod(openmm.CustomNonbondedForce.CutoffPeriodic)
    force.setCutoffDistance(0.5)
    for _ in range(beads):
        force.addParticle()
    return force


def state_of(context):
    state = context.getState(positions=True, velocities=True)
    return (
        np.array(a._value)
        for a in (state.getPositions(asNumpy=True), state.getVelocities(asNumpy=True))
    )


@needs_plugin
@pytest.mark.parametrize("k, platform", [(0, "Reference"), (2, "Reference"), (2, "CPU")])
def test_friction_counts_the_momentum_that_a_pair_hands_over(k, platform):
    rng = np.random.default_rng(0)
    edge, pairs = 4.0, 64
    centre = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), -1).reshape(-1, 3)
    centre = centre + rng.integers(-3, 4, (pairs, 3)) * edge
    axis = rng.normal(size=(pairs, 3))
    axis *= 0.15 / np.linalg.norm(axis, axis=1, keepdims=True)
    x = np.concatenate([centre + axis, centre - axis + rng.integers(-1, 2, (pairs, 3)) * edge])
    types = rng.integers(0, 2, 2 * pairs)
    masses = np.where(types, 45.0, 18.0)
    v = 0.4 * rng.normal(size=x.shape)
    friction = random_friction(2, k).export()
    context, integrator = pair_context(friction, x, v, edge * np.eye(3), types, masses, platform)
    assert (openmm_plugin.take_moment(integrator) == 0).all()
    expected = np.zeros([3, 3])
    for _ in range(3):
        before, v = state_of(context)
        integrator.step(1)
        _, after = state_of(context)
        middle = before + 0.005 * v
        d = middle[:pairs] - middle[pairs:]
        d -= edge * np.rint(d / edge)
        handed = masses[:pairs, None] * (after - v)[:pairs]
        assert np.abs(handed).max() > 0.1
        expected += d.T @ handed
    np.testing.assert_allclose(
        openmm_plugin.take_moment(integrator), expected, atol=1e-9 * np.abs(expected).max()
    )
    integrator.step(1)
    assert np.abs(openmm_plugin.take_moment(integrator)).max() < 0.9 * np.abs(expected).sum()


@needs_plugin
def test_moment_of_a_large_liquid_does_not_depend_on_threads():
    box = liquid_box(1600, 33.0)
    x = jittered_lattice(1600, box, 0.3, 0).numpy()
    v = 0.4 * np.random.default_rng(0).normal(size=x.shape)
    friction, found = random_friction(1, 3).export(), []
    for threads in (1, 3):
        context, integrator = pair_context(
            friction, x, v, box.numpy(), np.zeros(1600, int), np.full(1600, 18.0), "CPU", threads
        )
        openmm_plugin.take_moment(integrator)
        integrator.step(5)
        found.append(openmm_plugin.take_moment(integrator))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-8, atol=1e-9 * np.abs(found[0]).max())
    # friction turns no pair: the tensor is symmetric where it is along pairs, and nearly so elsewhere
    assert np.abs(found[0]).max() > 1.0


@needs_plugin
def test_viscosity_from_the_stress_of_friction_is_that_of_shear_waves(tmp_path):
    """A gas of beads that nothing but friction and its noise keeps together."""
    beads, density = 150, 33.0
    box = liquid_box(beads, density)
    spec = PotentialSpec(("A",), (PairSpec((0.05,), 0.4, 8, (1.0,)),))
    model = Model(
        spec=spec,
        theta=np.zeros(spec.n_parameters),
        masses=np.array([18.0]),
        temperature=TEMPERATURE,
        timestep=0.01,
        friction=PairFriction(1, 2, 20.0, 0.05, 0.5).export(),
        types=np.zeros(beads, int),
        positions=jittered_lattice(beads, box, 0.4, 0).numpy(),
        box=box.numpy(),
    )
    run = run_production(model, tmp_path, length=100.0, frame_interval=0.02, equilibration=2.0)
    volume = float(np.linalg.det(model.box))
    with BeadTrajectory.open(run.beads) as trajectory:
        series = stress.stress_series(model, trajectory)
        shear = transverse_viscosity.apparent_viscosity(currents.currents(trajectory))
    found = green_kubo_viscosity(series, 0.02, volume, TEMPERATURE)
    value, error = transverse_viscosity.viscosity(shear)
    assert abs(found.value - value) < 5 * np.hypot(error, found.stderr)
    assert found.stderr < 0.2 * found.value and error < 0.3 * value
    # friction across pairs turns them: without the antisymmetric part half of it would be missing
    symmetric = green_kubo_viscosity(
        (series + series.swapaxes(1, 2)) / 2, 0.02, volume, TEMPERATURE
    )
    assert symmetric.value < 0.8 * found.value


def test_antisymmetric_stress_counts_as_much_as_shear_waves_feel_it():
    rng, n, interval = np.random.default_rng(0), 20000, 0.02
    # independent components of unit variance: half symmetric, half not
    found = green_kubo_viscosity(rng.normal(size=(n, 3, 3)), interval, 5.0, TEMPERATURE)
    exact = MPA_S * 0.5 * interval / (5.0 * KB * TEMPERATURE)
    assert abs(found.value - exact) < 5 * found.stderr and found.stderr < 0.2 * exact
