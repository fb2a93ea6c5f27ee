"""Pairwise friction with memory in OpenMM: the rollout's trajectories, momentum, temperature, checkpoints, models."""

import pickle
import struct
from copy import deepcopy
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import openmm
import openmm.app
import pytest
import torch
from backends import BACKENDS, measured
from models import energy_and_forces, make_model, make_pair_model, random_friction
from openmm import unit
from plugin_beads import Beads, context_of, coordinates, system_of
from systems import jittered_lattice, liquid_box

from openmm_cgadv import BeadTrajectory, bulk_model, kernels, load, run_production, save_bundle
from openmm_cgadv.bundle import PLUGIN_FILES
from openmm_cgadv.dynamics import PairFriction, pair_rollout
from openmm_cgadv.export import openmm_plugin
from openmm_cgadv.export.backends import plugin
from openmm_cgadv.potentials.stillinger_weber import mw_water
from openmm_cgadv.simulation.run import create_simulation
from openmm_cgadv.units import KB

pytestmark = pytest.mark.skipif(plugin.why_not() is not None, reason=str(plugin.why_not()))

PLATFORMS = ["Reference", "CPU"]
TEMPERATURE = 298.15
KT = KB * TEMPERATURE
DT = 0.005
SEED = 11


def liquid(n_types=2, n=130, triclinic=False):
    """Beads with soft forces, and their masses."""
    beads = Beads(n_types, n=n, triclinic=triclinic)
    beads.theta = 0.1 * beads.theta
    return beads, 18.0 + 5.0 * beads.types


def started(
    beads, masses, friction, platform="CPU", seed=SEED, threads=1, dt=DT, tolerance=1e-4, forces=()
):
    """A Context of a liquid with velocities."""
    system = system_of(beads.force(precision="double"), masses, beads.box)
    for force in forces:
        system.addForce(force)
    integrator = openmm_plugin.create_pair_integrator(
        friction, beads.types, TEMPERATURE, dt, seed, tolerance
    )
    context = context_of(system, platform, integrator, threads)
    context.setPositions(beads.x)
    context.setVelocitiesToTemperature(TEMPERATURE, 2)
    return context


def pairs_of(context):
    """The pairs in range [n, 2] and their auxiliary variables, which OpenMM shows in States alone."""
    text = openmm.XmlSerializer.serialize(context.getState(integratorParameters=True))
    node = ElementTree.fromstring(text).find("IntegratorParameters")
    numbers = [np.array(node.get(name).split(), dtype=float) for name in ("pairs", "pairAuxiliary")]
    return numbers[0].reshape(-1, 2), numbers[1]


def assert_same_coordinates(a, b):
    for found, expected in zip(coordinates(a), coordinates(b), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "n_types, k, own, triclinic",
    [(1, 0, 0.0, False), (1, 3, 0.0, True), (2, 2, 15.0, False), (3, 1, 0.0, False)],
)
@pytest.mark.parametrize("platform", PLATFORMS)
def test_trajectory_is_the_rollouts(n_types, k, own, triclinic, platform):
    """Step for step that of plain torch, which needs nothing but the seed to have the same noise."""
    beads, masses = liquid(n_types, triclinic=triclinic)
    motion = random_friction(n_types, k, own=own).requires_grad_(False)
    context = started(beads, masses, motion.export(), platform, threads=2, tolerance=1e-13)
    start = coordinates(context)[1]
    frames, _, final = pair_rollout(
        torch.as_tensor(beads.x)[None],
        torch.as_tensor(start)[None],
        beads.box[None],
        types=torch.as_tensor(beads.types),
        masses=torch.as_tensor(masses),
        spec=beads.spec,
        theta=torch.as_tensor(beads.theta),
        friction=motion,
        kT=KT,
        dt=DT,
        frames=list(range(1, 25)),
        tolerance=1e-13,
        noise=lambda replica, *address: kernels.pair_noise(SEED, replica, *address),
    )
    for expected in frames[0]:
        context.getIntegrator().step(1)
        np.testing.assert_allclose(coordinates(context)[0], expected, rtol=0, atol=1e-10)
    np.testing.assert_allclose(coordinates(context)[1], final[0], rtol=0, atol=1e-10)
    end = context.getState(energy=True)
    assert end.getTime()._value == pytest.approx(24 * DT) and end.getStepCount() == 24
    expected = 0.5 * (masses * (final[0].numpy() ** 2).sum(1)).sum()
    assert end.getKineticEnergy()._value == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("threads", [1, 2])
def test_momentum_is_conserved(threads):
    beads, masses = liquid(2, n=1100)
    context = started(beads, masses, random_friction(2, 3).export(), threads=threads)
    before = masses @ coordinates(context)[1]
    context.getIntegrator().step(50)
    after = masses @ coordinates(context)[1]
    assert (
        np.abs(after - before).max()
        < 1e-12 * np.abs(masses[:, None] * coordinates(context)[1]).sum()
    )


def test_a_single_bead_diffuses_by_its_own_friction():
    """D = kT/(m γ), which the step has exactly in any time step; and no bead jostles another."""
    n, gamma, dt, steps, lag = 1000, 40.0, 0.01, 400, 100
    spec, theta = mw_water()
    types = np.zeros(n, np.int64)
    # Apart: on a grid wider than all ranges.
    x = 5.0 * np.stack(np.meshgrid(*3 * [np.arange(10.0)], indexing="ij"), -1).reshape(-1, 3)
    force = openmm_plugin.create_force(*kernels.pack(spec), theta, types)
    friction = PairFriction(1, 1, 60.0, floor=1.0, self_friction=gamma).export()
    integrator = openmm_plugin.create_pair_integrator(friction, types, TEMPERATURE, dt, 5)
    context = context_of(
        system_of(force, np.full(n, 18.0), 50.0 * torch.eye(3, dtype=torch.float64)),
        "CPU",
        integrator,
    )
    context.setPositions(x)
    context.setVelocities(np.sqrt(KT / 18.0) * np.random.default_rng(2).normal(size=[n, 3]))
    ends = []
    for _ in range(steps // lag):
        start = coordinates(context)[0]
        integrator.step(lag)
        ends.append(coordinates(context)[0] - start)
    moved, free = np.array(ends), KT / 18.0
    # Of the velocities' correlation c^k with c = (1 - γ dt/2)/(1 + γ dt/2), summed up over the middles of steps.
    t = lag * dt
    slow = (
        2 * free / gamma * (t - (1 - ((1 - gamma * dt / 2) / (1 + gamma * dt / 2)) ** lag) / gamma)
    )
    assert moved.var() == pytest.approx(slow, rel=5 * np.sqrt(2 / moved.size))
    others = np.einsum("tic,tjc->ij", moved[:, :100], moved[:, :100])[~np.eye(100, dtype=bool)]
    assert abs(others.mean()) < 5 * moved.var() * np.sqrt(12 / len(others))


@pytest.mark.parametrize("dt, own", [(0.005, 0.0), (0.01, 0.0), (0.01, 20.0)])
def test_kinetic_temperature_is_right_at_any_time_step(dt, own):
    """Within 0.5 % in liquid water, with twice its friction."""
    n, samples, every = 512, 3000, 0.04
    spec, theta = mw_water()
    box = liquid_box(n, 33.4)
    types, masses = np.zeros(n, np.int64), np.full(n, 18.015)
    force = openmm_plugin.create_force(*kernels.pack(spec), theta, types)
    friction = PairFriction(1, 3, 60.0, floor=1.0, self_friction=own).export()
    integrator = openmm_plugin.create_pair_integrator(friction, types, TEMPERATURE, dt, 5)
    context = context_of(system_of(force, masses, box), "CPU", integrator)
    context.setPositions(jittered_lattice(n, box, 0.1, 0).numpy())
    v = np.sqrt(KT / 18.015) * np.random.default_rng(1).normal(size=[n, 3])
    context.setVelocities(v - v.mean(0))
    integrator.step(round(2.0 / dt))
    found = []
    for _ in range(samples):
        integrator.step(round(every / dt))
        found.append(
            context.getState(energy=True).getKineticEnergy()._value / (1.5 * (n - (own == 0)) * KT)
        )
    # A third of the samples are as good as independent: the standard error is 0.0011.
    assert abs(np.mean(found) - 1) < 0.005


def test_step_follows_what_changes():
    """Time step, temperature and friction take effect at the next step, and pairs keep their variables."""
    beads, masses = liquid(1)
    motion = random_friction(1, 2)
    still = replace(motion.export(), splines=0.0 * motion.export().splines)
    context = started(beads, masses, motion.export())
    integrator = context.getIntegrator()
    integrator.step(3)
    pairs, before = pairs_of(context)
    integrator.setTemperature(0.0)
    integrator.setFriction(still)
    integrator.setStepSize(1e-7)
    integrator.step(1)
    again, after = pairs_of(context)
    kept = {tuple(pair): value for pair, value in zip(pairs, before.reshape(len(pairs), -1))}
    same = [k for k, pair in enumerate(again) if tuple(pair) in kept]
    assert len(same) > 0.98 * len(pairs)
    expected = np.array([kept[tuple(again[k])] for k in same])
    np.testing.assert_allclose(
        after.reshape(len(again), -1)[same], expected, rtol=0, atol=1e-4 * np.abs(before).max()
    )
    # Without friction and noise it is the leap-frog that OpenMM calls Verlet.
    integrator.setStepSize(0.001)
    twin = started(beads, masses, still, dt=0.001)
    twin.getIntegrator().setTemperature(0.0)
    other = context_of(twin.getSystem(), "CPU", openmm.VerletIntegrator(0.001))
    other.setPositions(beads.x)
    other.setVelocities(coordinates(twin)[1])
    for each in (twin, other):
        each.getIntegrator().step(20)
    np.testing.assert_allclose(coordinates(twin)[0], coordinates(other)[0], rtol=0, atol=1e-6)


def test_threads_change_nothing_but_rounding():
    beads, masses = liquid(2, n=1100)
    ends = []
    for threads in (1, 2):
        context = started(
            beads, masses, random_friction(2, 2).export(), threads=threads, tolerance=1e-12
        )
        context.getIntegrator().step(10)
        ends.append(coordinates(context)[0])
    np.testing.assert_allclose(ends[0], ends[1], rtol=0, atol=1e-11)


def test_centre_of_mass_motion_can_be_removed():
    """Which changes nothing where there is none, and pair friction makes none."""
    beads, masses = liquid(2)
    ends = []
    for forces in ((), (openmm.CMMotionRemover(1),)):
        context = started(beads, masses, random_friction(2, 2).export(), forces=forces)
        v = coordinates(context)[1]
        context.setVelocities(v - (masses @ v) / masses.sum())
        context.getIntegrator().step(20)
        ends.append(coordinates(context)[0])
    np.testing.assert_allclose(ends[0], ends[1], rtol=0, atol=1e-9)


def test_barostat_changes_the_box_and_pairs_follow():
    beads, masses = liquid(2, n=216)
    barostat = openmm.MonteCarloBarostat(1000 * unit.bar, TEMPERATURE * unit.kelvin, 5)
    barostat.setRandomNumberSeed(3)
    context = started(beads, masses, random_friction(2, 2).export(), dt=0.002, forces=[barostat])
    context.getIntegrator().step(200)
    state = context.getState(positions=True)
    box = state.getPeriodicBoxVectors(asNumpy=True)._value
    assert box[0, 0] != float(beads.box[0, 0])
    # The pairs are those in range at the middle of the last step, which a half step hardly changes.
    x = state.getPositions(asNumpy=True)._value
    i, j = np.triu_indices(len(x), 1)
    d = x[j] - x[i]
    r = np.linalg.norm(d - box.diagonal() * np.round(d / box.diagonal()), axis=1)
    found = np.zeros([len(x), len(x)], bool)
    found[tuple(pairs_of(context)[0].astype(int).T)] = True
    assert found[i, j][r < 0.43].all() and not found[i, j][r > 0.45].any()


def test_massless_particles_stay():
    beads, masses = liquid(1)
    masses[::7] = 0
    context = started(beads, masses, random_friction(1, 2).export())
    context.getIntegrator().step(5)
    still = np.all(coordinates(context)[0] == beads.x, axis=1)
    np.testing.assert_array_equal(still, masses == 0)


def test_seed_repeats_the_trajectory_and_zero_is_a_fresh_one():
    beads, masses = liquid(1)
    ends = []
    for seed in (1, 1, 2, -1, 0, 0):
        context = started(beads, masses, random_friction(1, 2).export(), seed=seed)
        context.getIntegrator().step(3)
        ends.append(coordinates(context)[0])
    np.testing.assert_array_equal(ends[0], ends[1])
    assert len({end.tobytes() for end in ends}) == 5


class TestGoingOn:
    """A run that is taken up again goes on bit for bit."""

    @pytest.mark.parametrize("platform, threads", [("Reference", 1), ("CPU", 1), ("CPU", 2)])
    @pytest.mark.parametrize("k", [0, 3])
    def test_from_a_checkpoint(self, platform, threads, k):
        beads, masses = liquid(2, n=1100)
        friction = random_friction(2, k).export()
        context = started(beads, masses, friction, platform, 3, threads)
        context.getIntegrator().step(12)
        checkpoint = context.createCheckpoint()
        context.getIntegrator().step(12)
        new = started(beads, masses, friction, platform, 8, threads)
        new.getIntegrator().step(4)
        new.loadCheckpoint(checkpoint)
        assert new.getStepCount() == 12
        new.getIntegrator().step(12)
        assert_same_coordinates(context, new)
        for a, b in zip(pairs_of(context), pairs_of(new)):
            np.testing.assert_array_equal(a, b)

    @pytest.mark.parametrize("platform", PLATFORMS)
    def test_from_a_state(self, platform):
        """With an integrator of the same seed; another seed goes on with other noise."""
        beads, masses = liquid(2, n=600)
        friction = random_friction(2, 2).export()
        context = started(beads, masses, friction, platform)
        context.getIntegrator().step(12)
        state = context.getState(positions=True, velocities=True, integratorParameters=True)
        text = openmm.XmlSerializer.serialize(state)
        context.getIntegrator().step(12)
        ends = []
        for seed in (SEED, SEED + 1):
            new = started(beads, masses, friction, platform, seed)
            new.setState(openmm.XmlSerializer.deserialize(text))
            np.testing.assert_array_equal(pairs_of(new)[1], np.array(pairs_in(text)))
            new.getIntegrator().step(12)
            ends.append(coordinates(new)[0])
        np.testing.assert_array_equal(ends[0], coordinates(context)[0])
        assert np.all(ends[1] != ends[0])

    def test_checkpoint_of_another_integrator_is_refused(self):
        beads, masses = liquid(1)
        checkpoints = []
        for make in (
            lambda: openmm_plugin.create_pair_integrator(
                random_friction(1, 2).export(), beads.types, TEMPERATURE, DT
            ),
            lambda: openmm_plugin.create_pair_integrator(
                random_friction(1, 1).export(), beads.types, TEMPERATURE, DT
            ),
            lambda: openmm_plugin.create_integrator(
                np.ones([1, 1, 1]), beads.types, TEMPERATURE, DT
            ),
        ):
            context = context_of(system_of(beads.force(), masses, beads.box), integrator=make())
            context.setPositions(beads.x)
            context.getIntegrator().step(1)
            checkpoints.append(context.createCheckpoint())
        for made in (0, 1):
            with pytest.raises(
                openmm.OpenMMException, match="found a checkpoint of another integrator"
            ):
                context.loadCheckpoint(checkpoints[made])
        context = started(beads, masses, random_friction(1, 2).export(), "Reference")
        for made in (1, 2):
            with pytest.raises(
                openmm.OpenMMException, match="found a checkpoint of another integrator"
            ):
                context.loadCheckpoint(checkpoints[made])

    def test_state_of_another_integrator_is_refused(self):
        beads, masses = liquid(1)
        other = openmm_plugin.create_integrator(np.ones([1, 1, 1]), beads.types, TEMPERATURE, DT)
        other = context_of(system_of(None, masses, beads.box), integrator=other)
        other.setPositions(beads.x)
        context = started(beads, masses, random_friction(1, 2).export())
        states = [
            each.getState(positions=True, integratorParameters=True) for each in (context, other)
        ]
        for each, state, name in (
            (context, states[1], "Pair"),
            (other, states[0], "GeneralizedLangevin"),
        ):
            message = f"{name}.*: found parameters of another integrator in the State"
            with pytest.raises(openmm.OpenMMException, match=message):
                each.setState(state)

    def test_garbage_is_refused(self):
        beads, masses = liquid(1, n=64)
        context = started(beads, masses, random_friction(1, 1).export(), "Reference")
        context.getIntegrator().step(1)
        checkpoint = context.createCheckpoint()
        pairs, auxiliary = pairs_of(context)
        head = struct.pack("<6q", 2, SEED, 1, 1, 64, len(pairs))
        end = len(head) + 8 * len(pairs) + 8 * len(auxiliary)
        assert checkpoint[-end:].startswith(head)
        wrong, another = (
            "pairs or auxiliary variables that no",
            "found a checkpoint of another integrator",
        )
        for at, garbage, sentence in (
            (0, struct.pack("<q", 9), another),
            (8, struct.pack("<q", 2**40), wrong),
            (16, struct.pack("<q", -1), wrong),
            (32, struct.pack("<q", 65), another),
            (40, struct.pack("<q", 10**9), wrong),
            (48, struct.pack("<2i", 5, 5), wrong),
            (48, struct.pack("<2i", 5, 64), wrong),
            (end - 8, struct.pack("<d", np.nan), wrong),
        ):
            start = len(checkpoint) - end + at
            with pytest.raises(openmm.OpenMMException, match=sentence) as caught:
                context.loadCheckpoint(checkpoint[:start] + garbage + checkpoint[start + 8 :])
            assert "\n" not in str(caught.value)
            np.testing.assert_array_equal(pairs_of(context)[1], auxiliary)
        with pytest.raises(
            openmm.OpenMMException, match="the checkpoint ends before its integrator does"
        ):
            context.loadCheckpoint(checkpoint[:-8])
        context.loadCheckpoint(checkpoint)


def pairs_in(state):
    """The auxiliary variables in the XML of a State."""
    node = ElementTree.fromstring(state).find("IntegratorParameters")
    return [float(number) for number in node.get("pairAuxiliary").split()]


@pytest.mark.parametrize("n_types, k, own", [(1, 0, 0.0), (2, 3, 0.0), (2, 1, 4.0)])
def test_serialized_integrator_is_the_same(n_types, k, own):
    friction, types = random_friction(n_types, k, own=own).export(), np.arange(40) % n_types
    integrator = openmm_plugin.create_pair_integrator(friction, types, 310.0, 0.004, 9, 1e-6)
    integrator.setIntegrationForceGroups(5)
    text = openmm.XmlSerializer.serialize(integrator)
    assert "the OpenMM plugin of openmm_cgadv" in text
    # Plugins that don't know of friction of single beads refuse it, and read all else.
    assert ElementTree.fromstring(text).get("version") == ("2" if own else "1")
    copy = openmm.XmlSerializer.deserialize(text)
    assert openmm.XmlSerializer.serialize(copy) == text
    assert openmm_plugin.is_pair_integrator(copy) and not openmm_plugin.is_integrator(copy)
    assert copy.getStepSize()._value == 0.004 and copy.getIntegrationForceGroups() == 5
    found = openmm_plugin.read_pair_integrator(copy)
    same = found.pop("friction")
    assert same.to_dict() == friction.to_dict() and same.self_friction == friction.self_friction
    np.testing.assert_array_equal(found.pop("types"), types)
    assert found == {"temperature": 310.0, "timestep": 0.004, "seed": 9, "tolerance": 1e-6}


def test_temperature_and_time_step_may_be_quantities():
    made = openmm_plugin.create_pair_integrator(
        random_friction(1, 2).export(), np.zeros(4), 300 * unit.kelvin, 5 * unit.femtoseconds
    )
    assert (
        made.getTemperature() == 300 * unit.kelvin
        and made.getStepSize() == 0.005 * unit.picoseconds
    )
    bead = openmm_plugin.create_integrator(
        np.full([1, 1, 1], 20.0), np.zeros(4), 300 * unit.kelvin, 5 * unit.femtoseconds
    )
    assert bead.getStepSize() == 0.005 * unit.picoseconds


def test_methods_are_those_of_openmm():
    friction = random_friction(1, 2).export()
    integrator = openmm_plugin.create_pair_integrator(friction, np.zeros(6), TEMPERATURE, DT, 1)
    context = context_of(system_of(None, np.full(6, 18.0), np.eye(3)), integrator=integrator)
    context.setPositions(np.zeros([6, 3]))
    assert context.getIntegrator() is integrator and isinstance(integrator, openmm.Integrator)
    integrator.setTemperature(36.85 * unit.kelvin)
    assert integrator.getTemperature().value_in_unit(unit.kelvin) == 36.85
    integrator.setRandomNumberSeed(-3)
    integrator.setTolerance(1e-7)
    changed = replace(friction, splines=2.0 * friction.splines)
    integrator.setFriction(changed)
    for same in (integrator, deepcopy(integrator), pickle.loads(pickle.dumps(integrator))):
        assert isinstance(same, openmm_plugin.PairFrictionIntegrator)
        assert same.getTemperature() == 36.85 * unit.kelvin and same.getRandomNumberSeed() == -3
        assert same.getTolerance() == 1e-7 and same.getStepSize()._value == DT
        assert same.getFriction().to_dict() == changed.to_dict()
    # From XML OpenMM knows the base class alone; the functions take it.
    bare = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(integrator))
    openmm_plugin.set_temperature(bare, 250.0)
    openmm_plugin.set_seed(bare, 4)
    found = openmm_plugin.read_pair_integrator(bare)
    assert (found["temperature"], found["seed"]) == (250.0, 4)


class TestRefusals:
    def made(self, n=4, **changes):
        arguments = {
            "friction": random_friction(1, 2).export(),
            "types": np.zeros(n),
            "temperature": TEMPERATURE,
            "timestep": DT,
        }
        return openmm_plugin.create_pair_integrator(**arguments | changes)

    @pytest.mark.parametrize(
        "changes, message",
        [
            ({"types": [0, 2]}, "found type 2, expected numbers below 1"),
            ({"temperature": -1.0}, "found a temperature of -1.0+ K, expected 0 K or more"),
            ({"seed": 2**31}, "seed: found 2147483648"),
            (
                {"tolerance": 0.0},
                "found a tolerance of 0.0+, expected more than 0 and at most 0.001",
            ),
            ({"tolerance": 0.01}, "found a tolerance of 0.010+, expected more than 0"),
            (
                {"friction": random_friction(1, 7).export()},
                "found 7 auxiliary vectors a pair, expected up to 6",
            ),
        ],
    )
    def test_arguments(self, changes, message):
        with pytest.raises(ValueError, match=message):
            self.made(**changes)

    @pytest.mark.parametrize(
        "name, value, message",
        [
            ("memory", "1 2 3", "found 3 numbers of memory, expected 4"),
            ("memory", "1 2 2 1", "found memory with a symmetric coupling"),
            ("memory", "0 0 0 1", "found a rate of memory of 0.0+/ps"),
            (
                "splines",
                "1 2 3",
                "found 3 spline coefficients, expected as many for each of 6 functions",
            ),
            ("rMin", "0.5", "found r_min of 0.5.* nm, expected it from 0 to the range of 0.44"),
            ("rMin", "nan", "expected numbers|not finite"),
            ("auxiliary", "-1", "found -1 auxiliary vectors"),
            ("self", "1 2", "found 2 frictions of single beads, expected 1"),
            ("self", "-2", "found friction of single beads of -2.0+/ps, expected 0 or more"),
        ],
    )
    def test_changed_xml(self, name, value, message):
        root = ElementTree.fromstring(openmm.XmlSerializer.serialize(self.made()))
        root.find("PairFriction").set(name, value)
        with pytest.raises(openmm.OpenMMException, match=message):
            openmm.XmlSerializer.deserialize(ElementTree.tostring(root, encoding="unicode"))

    def test_systems_without_free_beads(self):
        system = system_of(None, [18.0, 18.0, 18.0, 0.0], np.eye(3))
        system.setVirtualSite(3, openmm.TwoParticleAverageSite(0, 1, 0.5, 0.5))
        with pytest.raises(
            openmm.OpenMMException, match="PairFriction.* found that particle 3 is a virtual site"
        ):
            context_of(system, integrator=self.made())
        system = system_of(None, np.full(4, 18.0), np.eye(3))
        system.addConstraint(0, 1, 0.1)
        with pytest.raises(
            openmm.OpenMMException, match="found 1 constraints in the System, expected none"
        ):
            context_of(system, integrator=self.made())
        with pytest.raises(openmm.OpenMMException, match="found types of 4 beads, expected 5"):
            context_of(system_of(None, np.full(5, 18.0), np.eye(3)), integrator=self.made())

    def test_box_shorter_than_twice_the_range(self):
        context = context_of(
            system_of(None, np.full(4, 18.0), 0.8 * np.eye(3)), integrator=self.made()
        )
        context.setPositions(np.random.default_rng(0).uniform(size=[4, 3]))
        with pytest.raises(
            openmm.OpenMMException, match="failed at step 1: cutoff 0.44.* longer than half the box"
        ):
            context.getIntegrator().step(1)

    def test_live_friction_of_another_size(self):
        with pytest.raises(ValueError, match="with 3 auxiliary vectors a pair, expected 1 with 2"):
            openmm_plugin.set_friction(self.made(), random_friction(1, 3).export())
        with pytest.raises(
            ValueError, match="found another integrator, expected a PairFrictionIntegrator"
        ):
            openmm_plugin.set_friction(
                openmm.VerletIntegrator(0.001), random_friction(1, 2).export()
            )

    @pytest.mark.parametrize(
        "value, cause",
        [
            (1e6, r"bead 2 moved .* nm, largest force 1e\+06 kJ/mol/nm"),
            (np.nan, "bead 2 moved -?nan nm"),
        ],
    )
    def test_explosion_names_step_bead_and_force(self, value, cause):
        """And leaves positions as they were."""
        force = openmm.CustomExternalForce("-f*x")
        force.addGlobalParameter("f", 0.0)
        force.addParticle(2)
        context = context_of(system_of(force, np.full(4, 18.0), np.eye(3)), integrator=self.made())
        context.setPositions(0.2 * np.arange(12).reshape(4, 3))
        context.getIntegrator().step(3)
        before = coordinates(context)[0]
        context.setParameter("f", value)
        with pytest.raises(
            openmm.OpenMMException, match=f"PairFrictionIntegrator: .* failed at step 4: {cause}"
        ):
            context.getIntegrator().step(1)
        np.testing.assert_array_equal(coordinates(context)[0], before)


class TestModel:
    """What a model with pair friction makes of the plugin."""

    def test_integrator_is_that_of_the_plugin(self):
        model = make_pair_model(n_types=2)
        for backend in (None, "plugin"):
            integrator = model.create_integrator(
                seed=4, temperature=300.0, timestep=0.01, backend=backend
            )
            found = openmm_plugin.read_pair_integrator(integrator)
            assert found.pop("friction").to_dict() == model.friction.to_dict()
            np.testing.assert_array_equal(found.pop("types"), model.types)
            assert found == {"temperature": 300.0, "timestep": 0.01, "seed": 4, "tolerance": 1e-4}
        with pytest.raises(
            ValueError,
            match="backend: found 'openmm', expected 'plugin': .* between pairs of beads",
        ):
            model.create_integrator(backend="openmm")

    def test_missing_plugin_is_named_in_one_sentence(self, monkeypatch):
        monkeypatch.setattr(
            openmm_plugin, "_WHY_NOT", "the OpenMM plugin was not built: install it"
        )
        with pytest.raises(
            ImportError,
            match="only the OpenMM plugin .* can integrate.*: the OpenMM plugin was not",
        ) as caught:
            make_pair_model().create_integrator()
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_trajectory_does_not_depend_on_what_computes_the_energy(self, backend):
        model = make_pair_model(n_types=2)
        model = replace(model, theta=0.1 * model.theta)
        ends = []
        for each in (backend, "plugin"):
            context = context_of(
                model.create_system(backend=each), "Reference", model.create_integrator(seed=3)
            )
            context.setPositions(model.positions)
            context.setVelocitiesToTemperature(TEMPERATURE, 1)
            context.getIntegrator().step(20)
            ends.append(coordinates(context)[0])
        np.testing.assert_allclose(ends[0], ends[1], rtol=0, atol=1e-8)

    def test_centre_of_mass_stays_whatever_the_velocities(self):
        """Friction between beads would never stop it."""
        model = make_pair_model()
        model = replace(model, theta=0.1 * model.theta)
        simulation = create_simulation(model)
        simulation.context.setVelocities(np.full([64, 3], 0.5))
        before = coordinates(simulation.context)[0].mean(0)
        simulation.step(100)
        assert np.abs(coordinates(simulation.context)[0].mean(0) - before).max() < 1e-3

    def test_bundle_files_make_a_simulation(self, tmp_path):
        model = make_pair_model(n_types=2)
        path = save_bundle(model, tmp_path / "a.cg")
        system, integrator = (
            openmm.XmlSerializer.deserialize((path / name).read_text()) for name in PLUGIN_FILES
        )
        context = context_of(system, integrator=integrator)
        energy, _ = measured(context, model.positions)
        assert energy == pytest.approx(energy_and_forces(model, model.positions)[0], rel=1e-10)
        integrator.step(1)
        found = openmm_plugin.read_pair_integrator(integrator)["friction"]
        assert found.to_dict() == load(path).friction.to_dict()

    def test_system_of_a_force_field_file_runs_too(self, tmp_path):
        model = make_pair_model(n_types=2)
        model = replace(model, theta=0.1 * model.theta)
        path = save_bundle(model, tmp_path / "a.cg")
        system = openmm.app.ForceField(str(path / "forcefield.xml")).createSystem(
            model.topology, backend="plugin"
        )
        ends = []
        for each in (system, model.create_system(backend="plugin")):
            context = context_of(each, "CPU", model.create_integrator(model.topology, seed=3))
            context.setPositions(model.positions)
            context.getIntegrator().step(5)
            ends.append(coordinates(context)[0])
        np.testing.assert_allclose(ends[0], ends[1], rtol=0, atol=1e-10)

    def test_bulk_liquid_of_another_size_runs(self, tmp_path):
        model = make_pair_model(n_types=2)
        model = bulk_model(replace(model, theta=0.1 * model.theta), molecules=200)
        arguments = {"length": 0.2, "equilibration": 0.1, "minimize": True, "frame_interval": 0.1}
        run = run_production(model, tmp_path, **arguments)
        with BeadTrajectory.open(run.beads) as beads:
            assert (beads.n_beads, beads.n_frames) == (200, 2)
            v = beads.velocities()
        momentum = np.einsum("i,tic->tc", model.masses[model.types], v)
        assert (
            np.abs(momentum).max() < 1e-4 * (model.masses[model.types] * np.abs(v[0]).sum(1)).sum()
        )

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_update_context_sets_friction_and_memory(self, backend):
        model = make_pair_model(n_types=2)
        model = replace(model, theta=0.1 * model.theta)
        integrator = model.create_integrator(seed=1)
        context = context_of(model.create_system(backend=backend), integrator=integrator)
        context.setPositions(model.positions)
        integrator.step(1)
        stronger = replace(
            model.friction,
            r_cut=0.46,
            splines=1.3 * model.friction.splines,
            memory=1.7 * model.friction.memory,
        )
        new = replace(model, theta=0.9 * model.theta, friction=stronger, temperature=310.0)
        pairs, before = pairs_of(context)
        new.update_context(context)
        assert integrator.getFriction().to_dict() == stronger.to_dict()
        assert integrator.getTemperature() == 310.0 * unit.kelvin
        np.testing.assert_array_equal(pairs_of(context)[1], before)
        energy, _ = measured(context)
        assert energy == pytest.approx(energy_and_forces(new, coordinates(context)[0])[0], rel=1e-8)
        integrator.step(1)
        assert len(pairs_of(context)[0]) > len(pairs)
        other = replace(new, friction=PairFriction(2, 1, 10.0).export())
        with pytest.raises(ValueError, match="found 2 auxiliary variables, expected 1"):
            other.update_context(context)
        assert integrator.getFriction().to_dict() == stronger.to_dict()

    def test_update_context_knows_friction_of_beads_from_that_of_pairs(self):
        pair, single = make_pair_model(), make_model(memory=2)
        for running, new, message in (
            (
                pair,
                single,
                "found one of the equation of motion pair, expected one of generalized_langevin",
            ),
            (
                single,
                pair,
                "found one of the equation of motion langevin or generalized_langevin, expected one of pair",
            ),
        ):
            for backend in ("plugin", "openmm") if running is single else ("plugin",):
                integrator = running.create_integrator(backend=backend)
                context = context_of(running.create_system(backend="plugin"), integrator=integrator)
                context.setPositions(running.positions)
                with pytest.raises(ValueError, match=message):
                    new.update_context(context)
        compound = openmm.CompoundIntegrator()
        compound.addIntegrator(pair.create_integrator())
        compound.addIntegrator(openmm.VerletIntegrator(0.001))
        context = context_of(pair.create_system(backend="plugin"), integrator=compound)
        context.setPositions(pair.positions)
        replace(pair, temperature=310.0).update_context(context)
        assert openmm_plugin.read_pair_integrator(compound.getIntegrator(0))["temperature"] == 310.0

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_interrupted_production_goes_on_bit_for_bit(self, tmp_path, monkeypatch, backend):
        monkeypatch.setattr("openmm_cgadv.simulation.run.CHECKPOINT_SECONDS", 0.0)
        model = make_pair_model()
        model = replace(model, theta=0.1 * model.theta)

        class Killed(Exception):
            pass

        def kill(done, total):
            if done > 0.35:
                raise Killed

        arguments = {
            "length": 0.4,
            "report_interval": 0.1,
            "equilibration": 0.1,
            "backend": backend,
        }
        whole = run_production(model, tmp_path / "whole", **arguments)
        with pytest.raises(Killed):
            run_production(model, tmp_path / "cut", **arguments, progress=kill)
        cut = run_production(model, tmp_path / "cut", **arguments)
        with BeadTrajectory.open(cut.beads) as found, BeadTrajectory.open(whole.beads) as expected:
            np.testing.assert_array_equal(found.positions(), expected.positions())
            np.testing.assert_array_equal(found.velocities(), expected.velocities())
        changed = replace(model, friction=replace(model.friction, r_cut=0.45))
        with pytest.raises(ValueError, match="found a run with model"):
            run_production(changed, tmp_path / "whole", **arguments)
