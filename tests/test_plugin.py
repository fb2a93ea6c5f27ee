"""The native OpenMM plugin has the energy, the forces and the dynamics of the model, without torch."""

import pickle
import re
import struct
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import openmm
import pytest
import torch
from backends import assert_same, measured
from models import energy_and_forces, make_model
from openmm import unit
from plugin_beads import MASS, Beads, context_of, coordinates, system_of
from systems import random_theta, scaled

from openmm_cgadv import kernels, save_bundle
from openmm_cgadv.bundle import PLUGIN_FILES
from openmm_cgadv.dynamics import GeneralizedLangevin, propagator, rollout
from openmm_cgadv.export import openmm_plugin
from openmm_cgadv.export.backends import plugin
from openmm_cgadv.potentials import Potential, potential
from openmm_cgadv.potentials.neighbors import neighbor_pairs
from openmm_cgadv.units import KB

pytestmark = pytest.mark.skipif(plugin.why_not() is not None, reason=str(plugin.why_not()))

PLATFORMS = ["Reference", "CPU"]
SINGLE = 2e-5
"""Largest error of a force in single precision, relative to the largest force."""


class TestForce:
    @pytest.mark.parametrize("n_types, triclinic", [(1, False), (1, True), (3, False), (2, True)])
    @pytest.mark.parametrize(
        "platform, precision, tolerance",
        [("Reference", "single", 1e-10), ("CPU", "double", 1e-10), ("CPU", "single", SINGLE)],
    )
    def test_energy_and_forces_are_those_of_the_model(
        self, n_types, triclinic, platform, precision, tolerance
    ):
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
        exclusions = np.concatenate(
            [exclusions[:, ::-1], generator.integers(0, n // 2, [9, 2]) + [0, n // 2]]
        )

        def all_pairs(x, box, r_cut):
            i, j = torch.triu_indices(n, n, 1)
            left_out = torch.zeros([n, n], dtype=torch.bool)
            left_out[exclusions[:, 0], exclusions[:, 1]] = left_out[
                exclusions[:, 1], exclusions[:, 0]
            ] = True
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
        assert_same(
            (energy - x[:, 0].sum(), forces[particles]),
            expected,
            1e-6 if platform == "CPU" else 1e-10,
        )
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
        energies = [
            context.getState(energy=True, groups={g}).getPotentialEnergy()._value for g in (0, 3)
        ]
        assert energies == [0.0, pytest.approx(beads.expected()[0])]

    def test_serialized_system_is_the_same(self):
        beads = Beads(triclinic=True)
        force = beads.force(
            precision="double", exclusions=[[3, 1], [0, 5]], description="water & <salt> 'α'"
        )
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

    def test_xml_is_read_after_importing_the_package(self, tmp_path):
        beads = Beads()
        (tmp_path / "system.xml").write_text(openmm.XmlSerializer.serialize(beads.system()))
        program = (
            "import openmm_cgadv, openmm, sys; assert 'torch' not in sys.modules\n"
            "system = openmm.XmlSerializer.deserialize(open('system.xml').read())\n"
            "print(system.getForce(0).getName())"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.stdout == "CGPotentialForce\n", done.stderr

    def test_later_versions_of_the_xml_are_rejected(self):
        text = openmm.XmlSerializer.serialize(Beads().force())
        later = text.replace(
            'type="CGPotentialForce" version="2"', 'type="CGPotentialForce" version="3"'
        )
        assert later != text
        with pytest.raises(
            openmm.OpenMMException, match="found version 3, expected 2; install a newer"
        ):
            openmm.XmlSerializer.deserialize(later)

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
            energy = Potential(
                beads.spec, torch.as_tensor(beads.theta), torch.as_tensor(beads.types)
            )(torch.as_tensor(x), box)
            assert measured(context, x)[0] == pytest.approx(energy.item(), rel=1e-10)

    def test_threads_change_nothing_but_rounding(self):
        beads = Beads(n=1000)
        one, two = (
            measured(
                context_of(beads.system(beads.force(precision="double")), "CPU", threads=k), beads.x
            )
            for k in (1, 2)
        )
        assert_same(two, one, 1e-12)


class TestRefusals:
    @pytest.mark.parametrize("platform", PLATFORMS)
    def test_positions_that_are_not_finite_are_rejected(self, platform):
        beads = Beads()
        context = context_of(beads.system(), platform)
        x = beads.x.copy()
        x[7, 1] = np.nan
        with pytest.raises(
            openmm.OpenMMException, match="position of bead 7 is not finite|coordinate is NaN"
        ):
            measured(context, x)
        # And it works again.
        assert_same(measured(context, beads.x), beads.expected(), SINGLE)

    @pytest.mark.parametrize("platform", PLATFORMS)
    def test_a_box_of_astronomic_length_is_rejected(self, platform):
        beads = Beads()
        context = context_of(beads.system(), platform)
        for length in (2e6, 1e60):
            context.setPeriodicBoxVectors(*(length * np.eye(3)))
            with pytest.raises(openmm.OpenMMException, match="nm long, expected at most 1e6 nm"):
                measured(context, beads.x)

    @pytest.mark.parametrize("platform", PLATFORMS)
    def test_a_box_below_twice_the_cutoff_is_rejected(self, platform):
        beads = Beads()
        context = context_of(beads.system(), platform)
        context.setPeriodicBoxVectors(*(0.7 * beads.box.numpy()))
        with pytest.raises(
            openmm.OpenMMException, match="cutoff 0.55.* nm is longer than half the box"
        ):
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
    def test_wrong_arguments_of_the_force_are_rejected(self, changes, message):
        beads = Beads()
        integers, numbers = kernels.pack(beads.spec)
        arguments = {
            "integers": integers,
            "numbers": numbers,
            "theta": beads.theta,
            "types": beads.types,
        }
        with pytest.raises(ValueError, match=message):
            openmm_plugin.create_force(**arguments | changes)

    @pytest.mark.parametrize(
        "settings, message",
        [
            ({"exclusions": [[0, 80]]}, "exclusion 0 names bead 80, there are beads 0 to 79"),
            (
                {"particles": np.arange(80) + 1},
                "found particle 80, expected each number below 80 at most once",
            ),
            (
                {"particles": np.zeros(80)},
                "found particle 0, expected each number below 80 at most once",
            ),
        ],
    )
    def test_exclusions_and_particles_that_do_not_exist_are_rejected(self, settings, message):
        beads = Beads()
        with pytest.raises(openmm.OpenMMException, match=message):
            context_of(beads.system(beads.force(**settings)))

    def test_types_that_do_not_fit_the_system_are_rejected(self):
        beads = Beads()
        with pytest.raises(openmm.OpenMMException, match="found types of 80 beads, expected 81"):
            context_of(system_of(beads.force(), np.full(81, MASS), beads.box))
        beads.types = beads.types + 1
        with pytest.raises(
            openmm.OpenMMException, match="bead 1 has type 2, the potential knows types 0 to 1"
        ):
            context_of(beads.system())

    def test_another_force_or_context_is_rejected(self):
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

    def test_plain_operators_are_rejected(self):
        beads = Beads()
        with pytest.raises(
            ValueError, match="plain: found True, expected False for the backend plugin"
        ):
            plugin.create_force(beads.spec, beads.theta, beads.types, plain=True)


DT = 0.005
TEMPERATURE = 298.15
KT = KB * TEMPERATURE


def random_drift(n_types, memory, seed=0):
    """Friction and memory that differ from type to type."""
    motion = GeneralizedLangevin(n_types, memory, 20.0, floor=1.0)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in motion.parameters():
            parameter += 0.5 * torch.randn(
                parameter.shape, generator=generator, dtype=torch.float64
            )
    return motion.drift().detach()


def free_beads(n, n_types, memory, seed=1, platform="CPU", mass=MASS):
    """A Context of beads without any force, and their drift."""
    drift = random_drift(n_types, memory)
    integrator = openmm_plugin.create_integrator(
        drift, np.arange(n) % n_types, TEMPERATURE, DT, seed
    )
    context = context_of(system_of(None, np.full(n, mass), np.eye(3)), platform, integrator)
    context.setPositions(np.random.default_rng(4).uniform(0, 1, [n, 3]))
    context.setVelocitiesToTemperature(TEMPERATURE, 2)
    return context, drift


def auxiliary(context, n):
    """The variables z [n, K, 3], which OpenMM shows in States alone."""
    text = openmm.XmlSerializer.serialize(context.getState(integratorParameters=True))
    numbers = ElementTree.fromstring(text).find("IntegratorParameters").get("auxiliary")
    return np.array(numbers.split(), dtype=float).reshape(n, -1, 3)


class TestIntegrator:
    @pytest.mark.parametrize("n_types, memory", [(1, 0), (1, 3), (2, 0), (3, 2), (1, 7)])
    @pytest.mark.parametrize("platform", PLATFORMS)
    def test_step_is_the_rollouts_step(self, n_types, memory, platform):
        """The same noise, number by number; after some steps with another time step and drift."""
        beads, seed = Beads(n_types, n=130), 11
        beads.theta = 0.1 * beads.theta
        n, masses = len(beads.x), 18.0 + 5.0 * beads.types
        drift = random_drift(n_types, memory)
        sigma = np.sqrt(KT / masses)[:, None, None]
        noise = kernels.noise(seed, 0, 0, 24, n, memory + 1)
        # The auxiliary variables come from the noise of another replica.
        state = torch.as_tensor(sigma) * kernels.noise(seed, 1, 0, 1, n, memory + 1)[0]
        integrator = openmm_plugin.create_integrator(drift, beads.types, TEMPERATURE, DT, seed)
        system = system_of(beads.force(precision="double"), masses, beads.box)
        context = context_of(system, platform, integrator, threads=2)
        context.setPositions(beads.x)
        context.setVelocities(state[:, 0].numpy())
        x, first = torch.as_tensor(beads.x)[None], 0
        for steps, dt, scale in ((16, DT, 1.0), (4, 0.003, 1.0), (4, 0.003, 1.6)):
            integrator.setStepSize(dt)
            if scale != 1.0:
                openmm_plugin.set_drift(integrator, scale * drift)
            integrator.step(steps)
            e, s = propagator(scale * drift, dt)
            _, x, state = rollout(
                x,
                state.reshape(1, n, memory + 1, 3),
                beads.box[None],
                types=torch.as_tensor(beads.types),
                masses=torch.as_tensor(masses),
                kT=KT,
                dt=dt,
                frames=[steps],
                theta=torch.as_tensor(beads.theta),
                spec=beads.spec,
                e=e,
                s=s,
                noise=noise[first : first + steps, None],
            )
            first += steps
            found_x, found_v = coordinates(context)
            np.testing.assert_allclose(found_x, x[0], rtol=0, atol=1e-11)
            np.testing.assert_allclose(found_v, state[0, :, 0], rtol=0, atol=1e-10)
            if memory:
                np.testing.assert_allclose(
                    auxiliary(context, n), state[0, :, 1:], rtol=0, atol=1e-10
                )
        end = context.getState(energy=True)
        assert (
            end.getTime()._value == pytest.approx(16 * DT + 8 * 0.003) and end.getStepCount() == 24
        )
        expected = 0.5 * (masses * (state[0, :, 0].numpy() ** 2).sum(1)).sum()
        assert end.getKineticEnergy()._value == pytest.approx(expected, rel=1e-9)

    @pytest.mark.parametrize("dt", [1e-4, 0.005, 0.5])
    def test_propagator_is_that_of_training(self, dt):
        """At 0 K the state is multiplied by E; from rest it gets S times the noise.

        Slow enough that no bead moves too far in the longest step.
        """
        size, seed = 5, 3
        drift = random_drift(1, size - 1, seed=6)
        e, s = propagator(drift, dt)
        for temperature in (0.0, 0.1 * TEMPERATURE):
            integrator = openmm_plugin.create_integrator(
                drift, np.zeros(size), temperature, dt, seed
            )
            context = context_of(
                system_of(None, np.full(size, MASS), np.eye(3)), integrator=integrator
            )
            context.setPositions(np.zeros([size, 3]))
            start = 0.1 * np.repeat(np.eye(size)[:, :, None], 3, 2) * (temperature == 0)
            context.setVelocities(start[:, 0])
            state = context.getState(velocities=True, positions=True, integratorParameters=True)
            document = ElementTree.fromstring(openmm.XmlSerializer.serialize(state))
            values = " ".join(map(repr, start[:, 1:].ravel().tolist()))
            document.find("IntegratorParameters").set("auxiliary", values)
            context.setState(
                openmm.XmlSerializer.deserialize(ElementTree.tostring(document, encoding="unicode"))
            )
            integrator.step(1)
            found = np.concatenate([coordinates(context)[1][:, None], auxiliary(context, size)], 1)
            if temperature == 0:
                np.testing.assert_allclose(found[:, :, 0].T, 0.1 * e[0], rtol=0, atol=1e-15)
            else:
                noise = kernels.noise(seed, 0, 0, 1, size, size)[0].numpy()
                thermal = np.sqrt(0.1 * KT / MASS)
                expected = thermal * np.einsum("ab,nbc->nac", s[0].numpy(), noise)
                np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)

    @pytest.mark.parametrize("n_types, memory", [(1, 3), (3, 0), (2, 2)])
    def test_equilibrium_is_kept_from_the_first_step_on(self, n_types, memory):
        """<s sᵀ> is kT/m·1 for every type: variances, and correlations of v and z."""
        n = 6000
        context, _ = free_beads(n, n_types, memory)
        for steps in (1, 60):
            context.getIntegrator().step(steps)
            s = coordinates(context)[1][:, None]
            if memory:
                s = np.concatenate([s, auxiliary(context, n)], 1)
            for kind in range(n_types):
                samples = np.sqrt(MASS / KT) * s[np.arange(n) % n_types == kind].swapaxes(
                    0, 1
                ).reshape(memory + 1, -1)
                covariance = samples @ samples.T / samples.shape[1]
                # Five standard errors of a variance of independent samples.
                bound = 5 * np.sqrt(2 / samples.shape[1])
                np.testing.assert_allclose(covariance, np.eye(memory + 1), rtol=0, atol=bound)

    @pytest.mark.parametrize("n_types, memory", [(1, 3), (2, 0)])
    def test_velocity_correlation_is_that_of_the_drift(self, n_types, memory):
        """<v(0) v(t)> of free beads is (kT/m) exp(−A t)_00 for every type."""
        n, lag = 20000, 12
        context, drift = free_beads(n, n_types, memory)
        context.getIntegrator().step(1)
        before = coordinates(context)[1]
        context.getIntegrator().step(lag)
        product = (before * coordinates(context)[1] * MASS / KT).mean(1)
        expected = torch.matrix_exp(-drift * DT * lag)[:, 0, 0]
        for kind in range(n_types):
            here = product[np.arange(n) % n_types == kind]
            assert here.mean() == pytest.approx(
                expected[kind].item(), abs=5 * here.std() / np.sqrt(len(here))
            )

    def test_beads_in_a_liquid_have_the_temperature(self):
        beads = Beads(1, n=512)
        beads.theta = 0.1 * beads.theta
        integrator = openmm_plugin.create_integrator(
            random_drift(1, 3), beads.types, TEMPERATURE, 0.002, 5
        )
        context = context_of(beads.system(), "CPU", integrator)
        context.setPositions(beads.x)
        context.setVelocitiesToTemperature(10.0, 1)
        integrator.step(500)
        found = []
        for _ in range(40):
            integrator.step(25)
            found.append(
                context.getState(energy=True).getKineticEnergy()._value / (1.5 * len(beads.x) * KT)
            )
        # A 10th of the 40 as good as independent, 5 standard errors; and a little for the time step.
        assert np.mean(found) == pytest.approx(1.0, abs=5 * np.sqrt(2 / (3 * 512) / 4) + 0.01)

    def test_massless_particles_stay_and_leave_the_noise_of_others(self):
        n = 70
        drift = random_drift(1, 2)
        ends = []
        for massless in (False, True):
            masses = np.full(n, MASS)
            masses[::7] = 0 if massless else MASS
            integrator = openmm_plugin.create_integrator(drift, np.zeros(n), TEMPERATURE, DT, 3)
            context = context_of(system_of(None, masses, np.eye(3)), integrator=integrator)
            context.setPositions(np.zeros([n, 3]))
            integrator.step(5)
            ends.append(coordinates(context)[0])
        moving = np.arange(n) % 7 > 0
        np.testing.assert_array_equal(ends[0][moving], ends[1][moving])
        assert np.all(ends[1][~moving] == 0) and np.all(ends[0] != 0)

    def test_seed_repeats_the_trajectory_and_zero_is_a_fresh_one(self):
        ends = []
        for seed in (1, 1, 2, 0, 0):
            context, _ = free_beads(20, 1, 2, seed)
            context.getIntegrator().step(3)
            ends.append(coordinates(context)[0])
        np.testing.assert_array_equal(ends[0], ends[1])
        assert len({end.tobytes() for end in ends}) == 4

    def test_seed_may_be_negative_and_is_that_of_the_next_context(self):
        ends = []
        for seed in (-1, -1, -(2**31), 7):
            context, _ = free_beads(20, 1, 2, seed=7)
            state = context.getState(positions=True, velocities=True)
            context.getIntegrator().setRandomNumberSeed(seed)
            assert context.getIntegrator().getRandomNumberSeed() == seed
            context.reinitialize()
            context.setState(state)
            context.getIntegrator().step(3)
            ends.append(coordinates(context)[0])
        created, _ = free_beads(20, 1, 2, seed=-1)
        created.setState(state)
        created.getIntegrator().step(3)
        np.testing.assert_array_equal(ends[0], ends[1])
        np.testing.assert_array_equal(ends[0], coordinates(created)[0])
        assert len({end.tobytes() for end in ends}) == 3

    def test_methods_are_those_of_openmm(self):
        drift = random_drift(1, 2).numpy()
        integrator = openmm_plugin.create_integrator(drift, np.zeros(6), TEMPERATURE, DT, 1)
        context = context_of(system_of(None, np.full(6, MASS), np.eye(3)), integrator=integrator)
        context.setPositions(np.zeros([6, 3]))
        assert context.getIntegrator() is integrator and isinstance(integrator, openmm.Integrator)
        integrator.setTemperature(36.85 * unit.kelvin)
        assert integrator.getTemperature().value_in_unit(unit.kelvin) == 36.85
        integrator.setTemperature(310)
        integrator.setDrift(2.0 * unit.Quantity(drift, unit.picosecond**-1))
        integrator.setRandomNumberSeed(-3)
        for same in (integrator, deepcopy(integrator), pickle.loads(pickle.dumps(integrator))):
            assert isinstance(same, openmm_plugin.GeneralizedLangevinIntegrator)
            assert same.getTemperature() == 310 * unit.kelvin and same.getRandomNumberSeed() == -3
            np.testing.assert_array_equal(
                same.getDrift().value_in_unit(unit.picosecond**-1), 2.0 * drift
            )
        # From XML OpenMM knows the base class alone; the functions take it.
        bare = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(integrator))
        openmm_plugin.set_temperature(bare, 250.0)
        openmm_plugin.set_seed(bare, 4)
        found = openmm_plugin.read_integrator(bare)
        assert (found["temperature"], found["seed"]) == (250.0, 4)
        with pytest.raises(
            ValueError, match="found a temperature of -1.0+ K, expected 0 K or more"
        ):
            integrator.setTemperature(-1.0)
        with pytest.raises(
            ValueError, match="found another integrator, expected a GeneralizedLangevinIntegrator"
        ):
            openmm_plugin.set_temperature(openmm.VerletIntegrator(0.001), 300.0)

    def test_temperature_takes_effect_at_the_next_step(self):
        """At 0 K there is no noise: beads that rest stay at rest."""
        integrator = openmm_plugin.create_integrator(
            np.ones([1, 1, 1]), np.zeros(6), TEMPERATURE, DT, 1
        )
        context = context_of(system_of(None, np.full(6, MASS), np.eye(3)), integrator=integrator)
        context.setPositions(np.zeros([6, 3]))
        integrator.step(1)
        context.setVelocities(np.zeros([6, 3]))
        before = coordinates(context)[0]
        integrator.setTemperature(0.0)
        integrator.step(1)
        np.testing.assert_array_equal(coordinates(context)[0], before)
        integrator.setTemperature(TEMPERATURE)
        integrator.step(1)
        assert np.all(coordinates(context)[0] != before)

    def test_new_context_and_reinitialization_start_the_noise_again(self):
        context, _ = free_beads(20, 1, 2, seed=5)
        state = context.getState(positions=True, velocities=True)
        context.getIntegrator().step(3)
        first = coordinates(context)
        context.reinitialize()
        context.setState(state)
        context.getIntegrator().step(3)
        for a, b in zip(first, coordinates(context)):
            np.testing.assert_array_equal(a, b)

    @pytest.mark.parametrize("n_types, memory", [(2, 0), (2, 3)])
    def test_serialized_integrator_is_the_same(self, n_types, memory):
        drift, types = random_drift(n_types, memory), np.arange(40) % n_types
        integrator = openmm_plugin.create_integrator(drift, types, 310.0, 0.004, 9)
        integrator.setIntegrationForceGroups(5)
        text = openmm.XmlSerializer.serialize(integrator)
        copy = openmm.XmlSerializer.deserialize(text)
        assert openmm.XmlSerializer.serialize(copy) == text
        assert openmm_plugin.is_integrator(copy) and not openmm_plugin.is_integrator(
            openmm.VerletIntegrator(1)
        )
        assert copy.getStepSize()._value == 0.004 and copy.getIntegrationForceGroups() == 5
        found = openmm_plugin.read_integrator(copy)
        np.testing.assert_array_equal(found.pop("drift"), drift)
        np.testing.assert_array_equal(found.pop("types"), types)
        assert found == {"temperature": 310.0, "timestep": 0.004, "seed": 9}

    def test_state_holds_the_auxiliary_variables(self):
        context, drift = free_beads(30, 2, 2)
        context.getIntegrator().step(2)
        state = context.getState(positions=True, velocities=True, integratorParameters=True)
        text = openmm.XmlSerializer.serialize(state)
        other, _ = free_beads(30, 2, 2, seed=8)
        other.setState(openmm.XmlSerializer.deserialize(text))
        np.testing.assert_array_equal(auxiliary(other, 30), auxiliary(context, 30))

    def test_state_of_another_integrator_leaves_the_auxiliary_variables(self):
        context, _ = free_beads(30, 1, 2)
        context.getIntegrator().step(2)
        before = auxiliary(context, 30)
        simple = context_of(
            system_of(None, np.full(30, MASS), np.eye(3)),
            "CPU",
            openmm.LangevinMiddleIntegrator(300, 1, DT),
        )
        simple.setPositions(np.zeros([30, 3]))
        context.setState(
            simple.getState(positions=True, velocities=True, integratorParameters=True)
        )
        np.testing.assert_array_equal(auxiliary(context, 30), before)
        assert np.all(coordinates(context)[0] == 0)
        own = openmm.CustomIntegrator(DT)
        own.addGlobalVariable("a", 1.0)
        custom = context_of(system_of(None, np.full(30, MASS), np.eye(3)), "CPU", own)
        custom.setPositions(np.zeros([30, 3]))
        with pytest.raises(
            openmm.OpenMMException, match="found parameters of another integrator in the State"
        ):
            context.setState(custom.getState(positions=True, integratorParameters=True))

    def test_centre_of_mass_stays_without_friction(self):
        """CMMotionRemover takes its motion away; pair forces and no noise leave it at rest."""
        beads = Beads(1)
        system = beads.system()
        system.addForce(openmm.CMMotionRemover(1))
        integrator = openmm_plugin.create_integrator(
            np.zeros([1, 1, 1]), beads.types, TEMPERATURE, 1e-4, 1
        )
        context = context_of(system, "CPU", integrator)
        context.setPositions(beads.x)
        context.setVelocities(np.ones_like(beads.x))
        integrator.step(5)
        assert np.abs(coordinates(context)[1].mean(0)).max() < 1e-5

    @pytest.mark.parametrize("platform", PLATFORMS)
    def test_barostat_changes_the_box_and_energies_follow(self, platform):
        beads = Beads(2, n=216)
        beads.theta = 0.1 * beads.theta
        system = beads.system(beads.force(precision="double"))
        barostat = openmm.MonteCarloBarostat(1000 * unit.bar, TEMPERATURE * unit.kelvin, 5)
        barostat.setRandomNumberSeed(3)
        system.addForce(barostat)
        integrator = openmm_plugin.create_integrator(
            random_drift(2, 2), beads.types, TEMPERATURE, 0.002, 5
        )
        context = context_of(system, platform, integrator)
        context.setPositions(beads.x)
        context.setVelocitiesToTemperature(TEMPERATURE, 1)
        integrator.step(300)
        state = context.getState(positions=True, energy=True)
        box = state.getPeriodicBoxVectors(asNumpy=True)._value
        assert box[0, 0] != beads.box[0, 0]
        beads.box = torch.as_tensor(box)
        expected = beads.expected(state.getPositions(asNumpy=True)._value)[0]
        assert state.getPotentialEnergy()._value == pytest.approx(expected, abs=1e-7)


class TestCheckpoint:
    """A Context made new from a checkpoint goes on bit for bit."""

    def run(self, make, platform, threads=1):
        beads = Beads(2, n=600)
        beads.theta = 0.1 * beads.theta

        def fresh(seed):
            integrator = make(beads, seed)
            context = context_of(beads.system(), platform, integrator, threads)
            context.setPositions(beads.x)
            context.setVelocitiesToTemperature(TEMPERATURE, seed)
            return context

        context = fresh(3)
        context.getIntegrator().step(30)
        checkpoint = context.createCheckpoint()
        context.getIntegrator().step(30)
        new = fresh(8)
        new.getIntegrator().step(7)
        new.loadCheckpoint(checkpoint)
        assert new.getStepCount() == 30
        new.getIntegrator().step(30)
        for a, b in zip(coordinates(context), coordinates(new)):
            np.testing.assert_array_equal(a, b)
        return context, new

    @pytest.mark.parametrize("platform, threads", [("Reference", 1), ("CPU", 1), ("CPU", 2)])
    @pytest.mark.parametrize("memory", [0, 3])
    def test_with_the_integrator_of_the_plugin(self, platform, threads, memory):
        drift = random_drift(2, memory)
        context, new = self.run(
            lambda beads, seed: openmm_plugin.create_integrator(
                drift, beads.types, TEMPERATURE, 0.002, seed
            ),
            platform,
            threads,
        )
        np.testing.assert_array_equal(auxiliary(context, 600), auxiliary(new, 600))

    def test_with_langevin_middle_on_the_reference_platform(self):
        def make(beads, seed):
            integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 10.0, 0.002)
            integrator.setRandomNumberSeed(seed)
            return integrator

        # Its random numbers are those of the process, so the second run needs them back.
        beads = Beads(2, n=300)
        beads.theta = 0.1 * beads.theta
        context = context_of(beads.system(), "Reference", make(beads, 1))
        context.setPositions(beads.x)
        context.setVelocitiesToTemperature(TEMPERATURE, 1)
        context.getIntegrator().step(20)
        checkpoint = context.createCheckpoint()
        context.getIntegrator().step(20)
        new = context_of(beads.system(), "Reference", make(beads, 2))
        new.loadCheckpoint(checkpoint)
        new.getIntegrator().step(20)
        for a, b in zip(coordinates(context), coordinates(new)):
            np.testing.assert_array_equal(a, b)

    def test_of_another_integrator_is_rejected(self):
        context, _ = free_beads(20, 1, 2, platform="Reference")
        other, _ = free_beads(20, 1, 3, platform="Reference")
        context.getIntegrator().step(1)
        with pytest.raises(
            openmm.OpenMMException, match="found a checkpoint of another integrator"
        ):
            other.loadCheckpoint(context.createCheckpoint())

    def test_a_corrupt_checkpoint_is_rejected(self):
        context, _ = free_beads(20, 1, 2, seed=5, platform="Reference")
        context.getIntegrator().step(1)
        checkpoint = context.createCheckpoint()
        # The end of a checkpoint: version, seed, count of steps and of numbers, then 2·3·20 numbers.
        end = 8 * (4 + 2 * 3 * 20)
        head = struct.pack("<4q", 1, 5, 1, 120)
        assert checkpoint[-end:].startswith(head)
        before = auxiliary(context, 20)
        for at, garbage, sentence in (
            (0, struct.pack("<q", 9), "found a checkpoint of another integrator"),
            (
                8,
                struct.pack("<q", 2**40),
                "found a seed, a count of steps or auxiliary variables that no",
            ),
            (
                16,
                struct.pack("<q", -1),
                "found a seed, a count of steps or auxiliary variables that no",
            ),
            (24, struct.pack("<q", -120), "found a checkpoint of another integrator"),
            (
                64,
                struct.pack("<d", np.nan),
                "found a seed, a count of steps or auxiliary variables that no",
            ),
            (
                64,
                struct.pack("<d", np.inf),
                "found a seed, a count of steps or auxiliary variables that no",
            ),
        ):
            start = len(checkpoint) - end + at
            with pytest.raises(openmm.OpenMMException, match=sentence) as caught:
                context.loadCheckpoint(checkpoint[:start] + garbage + checkpoint[start + 8 :])
            assert "\n" not in str(caught.value)
            np.testing.assert_array_equal(auxiliary(context, 20), before)
        with pytest.raises(
            openmm.OpenMMException, match="the checkpoint ends before its integrator does"
        ):
            context.loadCheckpoint(checkpoint[:-8])
        context.loadCheckpoint(checkpoint)


class TestExplosion:
    @pytest.mark.parametrize("platform", PLATFORMS)
    @pytest.mark.parametrize("memory", [0, 2])
    @pytest.mark.parametrize(
        "value, cause",
        [
            (1e6, r"bead 2 moved .* nm, the force on it is 1e\+06 kJ/mol/nm"),
            (np.nan, "bead 2 moved -?nan nm"),
        ],
    )
    def test_step_bead_and_force_are_named(self, platform, memory, value, cause):
        force = openmm.CustomExternalForce("-f*x")
        force.addGlobalParameter("f", 0.0)
        force.addParticle(2)
        integrator = openmm_plugin.create_integrator(
            random_drift(1, memory), np.zeros(4), TEMPERATURE, DT, 1
        )
        context = context_of(system_of(force, np.full(4, MASS), np.eye(3)), platform, integrator)
        context.setPositions(0.2 * np.arange(12).reshape(4, 3))
        integrator.step(3)
        context.setParameter("f", value)
        with pytest.raises(openmm.OpenMMException, match=f"failed at step 4: {cause}|NaN"):
            integrator.step(1)

    def test_a_time_step_in_femtoseconds_is_an_explosion(self):
        """A time step of 5 ps, where 5 fs was meant, moves beads by more than 0.2 nm at once."""
        context, drift = free_beads(8, 1, 1)
        integrator = openmm_plugin.create_integrator(drift, np.zeros(8), TEMPERATURE, 5.0, 1)
        context = context_of(system_of(None, np.full(8, MASS), np.eye(3)), "CPU", integrator)
        context.setPositions(np.zeros([8, 3]))
        context.setVelocitiesToTemperature(TEMPERATURE, 2)
        with pytest.raises(openmm.OpenMMException, match="failed at step 1: bead 0 moved"):
            integrator.step(1)


class TestIntegratorRefusals:
    def refused(self, system, message, n=4):
        integrator = openmm_plugin.create_integrator(
            random_drift(1, 1), np.zeros(n), TEMPERATURE, DT
        )
        with pytest.raises(openmm.OpenMMException, match=message):
            context_of(system, integrator=integrator)

    def test_virtual_sites_are_rejected(self):
        system = system_of(None, [MASS, MASS, MASS, 0.0], np.eye(3))
        system.setVirtualSite(3, openmm.TwoParticleAverageSite(0, 1, 0.5, 0.5))
        self.refused(system, "found that particle 3 is a virtual site, expected beads")

    def test_constraints_are_rejected(self):
        system = system_of(None, np.full(4, MASS), np.eye(3))
        system.addConstraint(0, 1, 0.1)
        self.refused(system, "found 1 constraints in the System, expected none")

    def test_another_number_of_particles_is_rejected(self):
        self.refused(
            system_of(None, np.full(5, MASS), np.eye(3)), "found types of 4 beads, expected 5"
        )

    @pytest.mark.parametrize(
        "changes, message",
        [
            (
                {"drift": np.eye(2)},
                r"drift: found shape \(2, 2\), expected \[n_types, K \+ 1, K \+ 1\]",
            ),
            ({"types": [0, 2]}, "found type 2, expected numbers below 1"),
            ({"temperature": -1.0}, "found a temperature of -1.0+ K, expected 0 K or more"),
            ({"temperature": np.inf}, "found a temperature of inf K, expected 0 K or more"),
            (
                {"seed": 2**31},
                "seed: found 2147483648, expected a number from -2147483648 to 2147483647",
            ),
        ],
    )
    def test_wrong_arguments_are_rejected(self, changes, message):
        arguments = {
            "drift": np.ones([1, 1, 1]),
            "types": [0, 0],
            "temperature": TEMPERATURE,
            "timestep": DT,
        }
        with pytest.raises(ValueError, match=message):
            openmm_plugin.create_integrator(**arguments | changes)

    def test_a_drift_without_equilibrium_is_rejected(self):
        integrator = openmm_plugin.create_integrator(
            -np.ones([1, 1, 1]), np.zeros(2), TEMPERATURE, DT
        )
        context = context_of(system_of(None, np.full(2, MASS), np.eye(3)), integrator=integrator)
        context.setPositions(np.zeros([2, 3]))
        with pytest.raises(
            openmm.OpenMMException, match="symmetric part is not positive, expected friction"
        ):
            integrator.step(1)

    def test_a_drift_of_another_size_is_rejected(self):
        integrator = openmm_plugin.create_integrator(
            random_drift(1, 2), np.zeros(2), TEMPERATURE, DT
        )
        with pytest.raises(ValueError, match="found a drift of 16 numbers, expected 9"):
            openmm_plugin.set_drift(integrator, random_drift(1, 3))
        with pytest.raises(ValueError, match="found another integrator"):
            openmm_plugin.set_drift(openmm.VerletIntegrator(0.001), random_drift(1, 2))


class TestModel:
    """What a model makes of the plugin."""

    def test_integrator_is_that_of_the_plugin(self):
        model = make_model(n_types=2, memory=2)
        integrator = model.create_integrator(seed=4, temperature=300.0, timestep=0.01)
        found = openmm_plugin.read_integrator(integrator)
        np.testing.assert_array_equal(found["drift"], model.friction.drift)
        np.testing.assert_array_equal(found["types"], model.types)
        assert (found["temperature"], found["timestep"], found["seed"]) == (300.0, 0.01, 4)
        assert isinstance(model.create_integrator(backend="openmm"), openmm.CustomIntegrator)
        assert openmm_plugin.is_integrator(model.create_integrator(backend="plugin"))

    def test_one_friction_stays_with_langevin_middle(self):
        model = make_model(memory=0)
        assert isinstance(model.create_integrator(), openmm.LangevinMiddleIntegrator)
        assert openmm_plugin.is_integrator(model.create_integrator(backend="plugin"))
        with pytest.raises(
            ValueError, match="backend: found 'cuda', expected one of openmm, plugin"
        ):
            model.create_integrator(backend="cuda")

    def test_bundle_files_make_a_simulation(self, tmp_path):
        model = make_model(n_types=2, memory=2)
        path = save_bundle(model, tmp_path / "a.cg")
        system, integrator = (
            openmm.XmlSerializer.deserialize((path / name).read_text()) for name in PLUGIN_FILES
        )
        context = context_of(system, integrator=integrator)
        energy, forces = measured(context, model.positions)
        assert_same((energy, forces), energy_and_forces(model, model.positions), 1e-10)
        integrator.step(1)

    def test_update_context_sets_friction_and_memory(self):
        model = make_model(n_types=2, memory=2)
        integrator = model.create_integrator(backend="plugin", seed=1)
        context = context_of(model.create_system(backend="plugin"), integrator=integrator)
        context.setPositions(model.positions)
        integrator.step(1)
        new = replace(model, theta=0.9 * model.theta, friction=scaled(model.friction, 1.7))
        new.update_context(context)
        np.testing.assert_array_equal(
            openmm_plugin.read_integrator(integrator)["drift"], new.friction.drift
        )
        assert_same(
            measured(context, model.positions), energy_and_forces(new, model.positions), 1e-10
        )
        replace(new, temperature=310.0).update_context(context)
        assert integrator.getTemperature() == 310.0 * unit.kelvin
        fewer = replace(model.friction, drift=model.friction.drift[:, :2, :2])
        shorter = replace(model, friction=fewer)
        with pytest.raises(ValueError, match="found 2 auxiliary variables, expected 1"):
            shorter.update_context(context)


@pytest.mark.parametrize(
    "there, sentence", [(False, "was not built: install"), (True, "does not load .* build it for")]
)
def test_missing_plugin_names_its_installation(monkeypatch, tmp_path, there, sentence):
    file = tmp_path / "library.so"
    if there:
        file.write_text("not a library")
    monkeypatch.setattr(openmm_plugin, "LIBRARY", file)
    why = openmm_plugin._load()
    assert re.search(sentence, why) and "pip install" in why and "\n" not in why
    monkeypatch.setattr(openmm_plugin, "_WHY_NOT", why)
    assert plugin.why_not() == why
    with pytest.raises(ImportError, match="pip install"):
        openmm_plugin.create_integrator(np.ones([1, 1, 1]), [0], 300.0, DT)
    assert not openmm_plugin.is_force(openmm.CustomExternalForce("x"))
