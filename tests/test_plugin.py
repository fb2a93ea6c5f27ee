"""The native OpenMM plugin has the energy, the forces and the dynamics of the model, without torch."""

import subprocess
import sys

import numpy as np
import openmm
import pytest
import torch
from openmm import unit
from systems import jittered_lattice, liquid_box, random_spec, random_theta

from openmm_cgadv import kernels, openmm_plugin
from openmm_cgadv.export import plugin
from openmm_cgadv.potentials import Potential, potential
from openmm_cgadv.potentials.neighbors import neighbor_pairs

pytestmark = pytest.mark.skipif(plugin.why_not() is not None, reason=str(plugin.why_not()))

PLATFORMS = ["Reference", "CPU"]
SINGLE = 2e-5
"""Largest error of a force in single precision, relative to the largest force."""
MASS = 18.0


class Beads:
    """Beads of several types in a box, with a potential of every term."""

    def __init__(self, n_types=2, n=80, triclinic=False, seed=0, r_cut=0.55):
        self.spec = random_spec(n_types, r_cut=r_cut)
        self.theta = random_theta(self.spec, seed).numpy()
        self.box = liquid_box(n, 33.0, triclinic)
        self.x = jittered_lattice(n, self.box, 0.25, seed).numpy()
        self.types = np.arange(n) % n_types

    def force(self, **settings):
        return openmm_plugin.create_force(*kernels.pack(self.spec), self.theta, self.types, **settings)

    def system(self, force=None):
        return system_of(force or self.force(), np.full(len(self.x), MASS), self.box)

    def shifted(self, count=2):
        """Configurations whose beads are moved by whole box vectors, each on its own."""
        generator = np.random.default_rng(5)
        for k in range(count):
            x = jittered_lattice(len(self.x), self.box, 0.25, 10 + k).numpy()
            yield x + generator.integers(-2, 3, x.shape) @ self.box.numpy()

    def expected(self, x=None, theta=None):
        """Energy and forces by plain torch."""
        theta = torch.as_tensor(self.theta if theta is None else theta)
        x = torch.tensor(self.x if x is None else x, requires_grad=True)
        energy = Potential(self.spec, theta, torch.as_tensor(self.types))(x, self.box)
        return energy.item(), -torch.autograd.grad(energy, x)[0].numpy()


def system_of(force, masses, box):
    system = openmm.System()
    for mass in masses:
        system.addParticle(mass)
    system.setDefaultPeriodicBoxVectors(*np.asarray(box))
    if force is not None:
        system.addForce(force)
    return system


def context_of(system, platform="Reference", integrator=None, threads=1):
    properties = {"Threads": str(threads)} if platform == "CPU" else {}
    integrator = integrator or openmm.VerletIntegrator(0.001)
    return openmm.Context(system, integrator, openmm.Platform.getPlatform(platform), properties)


def measured(context, x=None):
    if x is not None:
        context.setPositions(x)
    state = context.getState(energy=True, forces=True)
    return state.getPotentialEnergy()._value, state.getForces(asNumpy=True)._value


def assert_same(found, expected, tolerance):
    """Energies, of either sign, to 1 kJ/mol a bead times the tolerance; forces to the largest times it."""
    assert abs(found[0] - expected[0]) <= tolerance * max(abs(expected[0]), len(expected[1]))
    assert np.abs(found[1] - expected[1]).max() <= tolerance * np.abs(expected[1]).max()


class TestForce:
    @pytest.mark.parametrize("n_types, triclinic", [(1, False), (1, True), (3, False), (2, True)])
    @pytest.mark.parametrize(
        "platform, precision, tolerance",
        [("Reference", "single", 1e-10), ("CPU", "double", 1e-10), ("CPU", "single", SINGLE)],
    )
    def test_energy_and_forces_are_those_of_the_model(self, n_types, triclinic, platform, precision, tolerance):
        beads = Beads(n_types, triclinic=triclinic)
        context = context_of(beads.system(beads.force(precision=precision)), platform)
        for x in beads.shifted():
            assert_same(measured(context, x), beads.expected(x), tolerance)

    @pytest.mark.parametrize("platform", PLATFORMS)
    def test_neighbour_list_follows_the_beads(self, platform):
        """Small moves keep the list, a long one and a new box do not: forces are right after each."""
        beads = Beads(n=300)
        context = context_of(beads.system(beads.force(precision="double")), platform)
        generator, x = np.random.default_rng(1), beads.x.copy()
        for size in (0.0, 0.02, 0.02, 0.02, 0.5, 0.0):
            x += size * generator.uniform(-1, 1, x.shape)
            assert_same(measured(context, x), beads.expected(x), 1e-9)
        beads.box = 1.1 * beads.box
        context.setPeriodicBoxVectors(*beads.box.numpy())
        assert_same(measured(context), beads.expected(x), 1e-9)

    @pytest.mark.parametrize("platform", PLATFORMS)
    @pytest.mark.parametrize("n", [80, 700])
    def test_excluded_pairs_are_no_neighbours(self, monkeypatch, platform, n):
        """Against a sum over all pairs that leaves the excluded ones out."""
        beads = Beads(n=n, triclinic=n > 100)
        i, j, _, r = neighbor_pairs(torch.as_tensor(beads.x), beads.box, 0.4)
        generator = np.random.default_rng(2)
        chosen = generator.permutation(len(i))[: n // 2]
        exclusions = np.stack([i[chosen], j[chosen]], 1)
        # Some more, most of them of beads that are far from each other.
        exclusions = np.concatenate([exclusions[:, ::-1], generator.integers(0, n // 2, [9, 2]) + [0, n // 2]])

        def all_pairs(x, box, r_cut):
            i, j = torch.triu_indices(n, n, 1)
            left_out = torch.zeros([n, n], dtype=torch.bool)
            left_out[exclusions[:, 0], exclusions[:, 1]] = left_out[exclusions[:, 1], exclusions[:, 0]] = True
            i, j = i[~left_out[i, j]], j[~left_out[i, j]]
            d = x[j] - x[i]
            for axis in (2, 1, 0):
                d = d - torch.round(d[:, axis : axis + 1].detach() / box[axis, axis]) * box[axis]
            return i, j, d, d.norm(dim=1)

        with_all = beads.expected()
        monkeypatch.setattr(potential, "neighbor_pairs", all_pairs)
        expected = beads.expected()
        assert abs(expected[0] - with_all[0]) > 1.0
        force = beads.force(exclusions=exclusions, precision="double")
        context = context_of(beads.system(force), platform)
        assert_same(measured(context, beads.x), expected, 1e-10)
        copy = openmm.XmlSerializer.clone(force)
        assert_same(measured(context_of(beads.system(copy), platform), beads.x), expected, 1e-10)

    @pytest.mark.parametrize("platform", PLATFORMS)
    def test_beads_can_be_some_of_the_particles(self, platform):
        """The others feel nothing; another force acts on all of them."""
        beads = Beads()
        generator = np.random.default_rng(3)
        particles = generator.permutation(100)[: len(beads.x)]
        x = generator.uniform(0, 1, [100, 3])
        x[particles] = beads.x
        force = beads.force(particles=particles, precision="double")
        system = system_of(force, np.full(100, MASS), beads.box)
        spring = openmm.CustomExternalForce("x")
        for k in range(100):
            spring.addParticle(k)
        system.addForce(spring)
        energy, forces = measured(context_of(system, platform), x)
        expected = beads.expected()
        forces = forces + [1, 0, 0]
        assert_same((energy - x[:, 0].sum(), forces[particles]), expected, 1e-6 if platform == "CPU" else 1e-10)
        assert np.abs(np.delete(forces, particles, 0)).max() < 1e-6

    @pytest.mark.parametrize("platform", PLATFORMS)
    def test_scale_multiplies_energy_and_forces(self, platform):
        beads = Beads()
        context = context_of(beads.system(beads.force(precision="double")), platform)
        assert context.getParameter("cgadv_scale") == 1.0
        energy, forces = measured(context, beads.x)
        context.setParameter("cgadv_scale", 0.3)
        assert_same(measured(context), (0.3 * energy, 0.3 * forces), 1e-12)
        derivatives = context.getState(parameterDerivatives=True).getEnergyParameterDerivatives()
        assert derivatives["cgadv_scale"] == pytest.approx(energy, rel=1e-12)

    @pytest.mark.parametrize("platform", PLATFORMS)
    def test_parameters_change_in_a_live_context(self, platform):
        beads = Beads()
        force = beads.force(precision="double")
        context = context_of(beads.system(force), platform)
        measured(context, beads.x)
        theta = random_theta(beads.spec, 7).numpy()
        openmm_plugin.set_parameters(force, theta)
        assert_same(measured(context), beads.expected(), 1e-10)
        openmm_plugin.set_parameters(force, theta, context)
        assert_same(measured(context), beads.expected(theta=theta), 1e-10)
        np.testing.assert_array_equal(openmm_plugin.read_force(force)["theta"], theta)
        context.reinitialize(preserveState=True)
        assert_same(measured(context), beads.expected(theta=theta), 1e-10)

    def test_force_group_is_respected(self):
        beads = Beads()
        force = beads.force()
        force.setForceGroup(3)
        context = context_of(beads.system(force))
        context.setPositions(beads.x)
        energies = [context.getState(energy=True, groups={g}).getPotentialEnergy()._value for g in (0, 3)]
        assert energies == [0.0, pytest.approx(beads.expected()[0])]

    def test_serialized_system_is_the_same(self):
        beads = Beads(triclinic=True)
        force = beads.force(precision="double", exclusions=[[3, 1], [0, 5]], description="water & <salt> 'α'")
        force.setName("beads")
        force.setForceGroup(2)
        original = beads.system(force)
        text = openmm.XmlSerializer.serialize(original)
        system = openmm.XmlSerializer.deserialize(text)
        assert openmm.XmlSerializer.serialize(system) == text
        copy = system.getForce(0)
        assert openmm_plugin.is_force(copy) and copy.usesPeriodicBoundaryConditions()
        assert (copy.getName(), copy.getForceGroup()) == ("beads", 2)
        found = openmm_plugin.read_force(copy)
        np.testing.assert_array_equal(found["theta"], beads.theta)
        np.testing.assert_array_equal(found["exclusions"], [[3, 1], [0, 5]])
        assert found["precision"] == "double" and found["description"] == "water & <salt> 'α'"
        again = measured(context_of(system), beads.x)
        assert_same(again, measured(context_of(original), beads.x), 0.0)

    def test_xml_is_known_after_importing_the_package(self, tmp_path):
        beads = Beads()
        (tmp_path / "system.xml").write_text(openmm.XmlSerializer.serialize(beads.system()))
        program = (
            "import openmm_cgadv, openmm, sys; assert 'torch' not in sys.modules\n"
            "system = openmm.XmlSerializer.deserialize(open('system.xml').read())\n"
            "print(system.getForce(0).getName())"
        )
        done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
        assert done.stdout == "CGPotentialForce\n", done.stderr

    def test_later_versions_of_the_xml_are_refused(self):
        text = openmm.XmlSerializer.serialize(Beads().force()).replace('version="1"><', 'version="2"><')
        text = text.replace('type="CGPotentialForce" version="1"', 'type="CGPotentialForce" version="2"')
        with pytest.raises(openmm.OpenMMException, match="found version 2, expected 1; install a newer"):
            openmm.XmlSerializer.deserialize(text)

    def test_reference_forces_do_not_depend_on_what_was_before(self):
        beads = Beads(n=300)
        context = context_of(beads.system())
        for x in (beads.x + 0.013, beads.x):
            energy, forces = measured(context, x)
        fresh = measured(context_of(beads.system()), beads.x)
        assert energy == fresh[0]
        np.testing.assert_array_equal(forces, fresh[1])

    @pytest.mark.parametrize("platform", PLATFORMS)
    def test_force_is_minus_the_gradient_under_a_barostat(self, platform):
        """Energies follow the box: what a barostat's trial move sees is the energy of the model."""
        beads = Beads(n=216)
        context = context_of(beads.system(beads.force(precision="double")), platform)
        for factor in (1.0, 1.01, 0.99):
            box = factor * beads.box
            context.setPeriodicBoxVectors(*box.numpy())
            x = factor * beads.x
            energy = Potential(beads.spec, torch.as_tensor(beads.theta), torch.as_tensor(beads.types))(
                torch.as_tensor(x), box
            )
            assert measured(context, x)[0] == pytest.approx(energy.item(), rel=1e-10)

    def test_threads_change_nothing_but_rounding(self):
        beads = Beads(n=1000)
        one, two = (
            measured(context_of(beads.system(beads.force(precision="double")), "CPU", threads=k), beads.x)
            for k in (1, 2)
        )
        assert_same(two, one, 1e-12)


class TestRefusals:
    @pytest.mark.parametrize("platform", PLATFORMS)
    def test_positions_that_are_not_numbers(self, platform):
        beads = Beads()
        context = context_of(beads.system(), platform)
        x = beads.x.copy()
        x[7, 1] = np.nan
        with pytest.raises(openmm.OpenMMException, match="position of bead 7 is not finite|coordinate is NaN"):
            measured(context, x)
        # And it works again.
        assert_same(measured(context, beads.x), beads.expected(), SINGLE)

    @pytest.mark.parametrize("platform", PLATFORMS)
    def test_box_that_is_too_small(self, platform):
        beads = Beads()
        context = context_of(beads.system(), platform)
        context.setPeriodicBoxVectors(*(0.7 * beads.box.numpy()))
        with pytest.raises(openmm.OpenMMException, match="cutoff 0.55.* nm is longer than half the box"):
            measured(context, beads.x)

    @pytest.mark.parametrize(
        "changes, message",
        [
            ({"theta": np.zeros(3)}, "found 3 parameters, expected"),
            ({"integers": np.zeros(2)}, "wrong number of integers"),
            ({"exclusions": [[0, 1, 2]]}, "found 3 beads in the exclusions, expected pairs"),
            ({"particles": [4]}, "found 1 particles, expected 80"),
            ({"precision": "half"}, "precision: found 'half', expected 'single' or 'double'"),
        ],
    )
    def test_forces_that_do_not_fit_together(self, changes, message):
        beads = Beads()
        integers, numbers = kernels.pack(beads.spec)
        arguments = {"integers": integers, "numbers": numbers, "theta": beads.theta, "types": beads.types}
        with pytest.raises(ValueError, match=message):
            openmm_plugin.create_force(**arguments | changes)

    @pytest.mark.parametrize(
        "settings, message",
        [
            ({"exclusions": [[0, 80]]}, "exclusion 0 names bead 80, there are beads 0 to 79"),
            ({"particles": np.arange(80) + 1}, "found particle 80, expected each number below 80 at most once"),
            ({"particles": np.zeros(80)}, "found particle 0, expected each number below 80 at most once"),
        ],
    )
    def test_forces_that_do_not_fit_the_system(self, settings, message):
        beads = Beads()
        with pytest.raises(openmm.OpenMMException, match=message):
            context_of(beads.system(beads.force(**settings)))

    def test_types_that_do_not_fit_the_system(self):
        beads = Beads()
        with pytest.raises(openmm.OpenMMException, match="found types of 80 beads, expected 81"):
            context_of(system_of(beads.force(), np.full(81, MASS), beads.box))
        beads.types = beads.types + 1
        with pytest.raises(openmm.OpenMMException, match="bead 1 has type 2, the potential knows types 0 to 1"):
            context_of(beads.system())

    def test_another_force_and_another_context(self):
        beads = Beads()
        force = beads.force()
        spring = openmm.CustomExternalForce("x")
        assert not openmm_plugin.is_force(spring)
        with pytest.raises(ValueError, match="found another force, expected a CGPotentialForce"):
            openmm_plugin.set_parameters(spring, beads.theta)
        other = context_of(beads.system())
        with pytest.raises(ValueError, match="This Force is not present in the Context"):
            openmm_plugin.set_parameters(force, beads.theta, other)
        with pytest.raises(ValueError, match="found 1 parameters"):
            openmm_plugin.set_parameters(force, [1.0])

    def test_plain_operators(self):
        beads = Beads()
        with pytest.raises(ValueError, match="plain: found True, expected False for the backend plugin"):
            plugin.create_force(beads.spec, beads.theta, beads.types, plain=True)
