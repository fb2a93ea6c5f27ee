"""New parameters reach a running Context, and nothing else of it changes."""

import copy
from dataclasses import replace

import numpy as np
import openmm
import pytest
from backends import (
    BACKENDS,
    PLATFORMS,
    assert_same,
    context_of,
    measured,
    skip_missing_operators,
    tolerance,
)
from models import energy_and_forces, make_model, quiet
from systems import scaled

from openmm_cgadv.export import openmm_plugin
from openmm_cgadv.export import system as systems
from openmm_cgadv.export.integrators.generalized_langevin import memory_integrator
from openmm_cgadv.units import KB


def other(model, seed=7):
    """A model of the same shape with other parameters, friction and memory."""
    return replace(
        model,
        theta=model.theta + 0.05 * np.random.default_rng(seed).normal(size=model.theta.shape),
        friction=scaled(model.friction, 1.7),
    )


def running(model, backend, platform="Reference", plain=False, steps=3, integrator="openmm"):
    """A Context of the model after a few steps."""
    system = model.create_system(backend=backend, plain=plain)
    context = context_of(system, model.create_integrator(seed=1, backend=integrator), platform)
    context.setPositions(model.positions)
    context.setVelocitiesToTemperature(model.temperature, 1)
    context.getIntegrator().step(steps)
    return context


def mechanical_state(context):
    state = context.getState(positions=True, velocities=True)
    return (
        state.getTime()._value,
        state.getStepCount(),
        state.getPositions(asNumpy=True)._value,
        state.getVelocities(asNumpy=True)._value,
    )


def assert_fresh_and_updated_agree(model, context, backend, plain=False):
    """Energy and forces of the Context are those of a new one with the model's parameters."""
    positions = context.getState(positions=True).getPositions(asNumpy=True)._value
    state = context.getState(energy=True, forces=True)
    found = state.getPotentialEnergy()._value, state.getForces(asNumpy=True)._value
    platform = context.getPlatform().getName()
    fresh = context_of(model.create_system(backend=backend, plain=plain), platform=platform)
    assert_same(found, measured(fresh, positions), tolerance(backend, platform, 1e-12))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("plain", [True, False])
def test_updated_context_has_the_energies_of_a_new_one(backend, platform, plain):
    skip_missing_operators(backend, plain)
    model = quiet(make_model(n_types=2))
    context = running(model, backend, platform, plain)
    before = mechanical_state(context)
    new = other(model)
    kept = new.theta.copy(), model.theta.copy()
    new.update_context(context)
    for found, expected in zip(mechanical_state(context), before):
        np.testing.assert_array_equal(found, expected)
    assert_fresh_and_updated_agree(new, context, backend, plain)
    context.getIntegrator().step(3)
    assert_fresh_and_updated_agree(new, context, backend, plain)
    # And back; no model is changed by it.
    model.update_context(context)
    assert_fresh_and_updated_agree(model, context, backend, plain)
    np.testing.assert_array_equal(kept[0], new.theta)
    np.testing.assert_array_equal(kept[1], model.theta)


@pytest.mark.parametrize("backend", BACKENDS)
def test_three_body_terms_are_updated_too(backend):
    model = make_model(n_types=2)
    context = running(model, backend, steps=0)
    new = other(model)
    new.update_context(context)
    found = measured(context, new.positions)
    assert_same(found, energy_and_forces(new, new.positions), 1e-10)


@pytest.mark.parametrize("backend", BACKENDS)
def test_reinitialized_context_has_the_new_energy_but_for_torchforce(backend):
    model = quiet(make_model())
    context = running(model, backend)
    new = other(model)
    new.update_context(context)
    context.reinitialize(preserveState=True)
    assert_fresh_and_updated_agree(model if backend == "torchforce" else new, context, backend)
    new.update_context(context)
    assert_fresh_and_updated_agree(new, context, backend)


def test_serialized_copy_of_a_system_has_parameters_of_its_own():
    model = quiet(make_model())
    system = model.create_system(backend="pythonforce")
    context, twin = context_of(system), context_of(copy.deepcopy(system))
    new, here = other(model), model.positions
    for one in (context, twin):
        assert_same(measured(one, here), energy_and_forces(model, here), 1e-10)
    new.update_context(context)
    assert_same(measured(context, here), energy_and_forces(new, here), 1e-10)
    assert_same(measured(twin, here), energy_and_forces(model, here), 1e-10)
    new.update_context(twin)
    assert_same(measured(twin, here), energy_and_forces(new, here), 1e-10)


class TestIntegrator:
    def test_friction_of_langevin_middle_is_set(self):
        model = quiet(make_model(memory=0))
        context = running(model, "pythonforce")
        other(model).update_context(context)
        integrator = context.getIntegrator()
        assert integrator.getFriction()._value == pytest.approx(1.7 * model.friction.drift[0, 0, 0])

    @pytest.mark.parametrize("n_types, memory", [(1, 3), (2, 2), (2, 0)])
    def test_memory_is_that_of_a_new_integrator_and_auxiliary_variables_stay(self, n_types, memory):
        model = quiet(make_model(n_types=n_types, memory=memory))
        context = running(model, "pythonforce")
        # Another time step than the model's.
        context.getIntegrator().setStepSize(0.004)
        found = context.getIntegrator()
        new = other(model)
        before = variables(found)
        new.update_context(context)
        after, expected = (
            variables(found),
            variables(new.create_integrator(timestep=0.004, backend="openmm")),
        )
        entries = [name for name in after if name[0] in "FPD"]
        assert len(entries) == (memory + 1) * (3 * memory + 4) // 2
        for name in entries:
            np.testing.assert_allclose(after[name], expected[name], rtol=1e-12, atol=1e-15)
            assert name[0] == "P" or np.any(after[name] != before[name])
        for name in set(after) - set(entries):
            np.testing.assert_array_equal(after[name], before[name])

    @pytest.mark.parametrize("memory", [0, 2])
    def test_temperature_is_set(self, memory):
        model = quiet(make_model(memory=memory))
        context = running(model, "pythonforce")
        replace(model, temperature=310.0).update_context(context)
        integrator = context.getIntegrator()
        if memory:
            found = integrator.getGlobalVariableByName("kT") / KB
        else:
            found = integrator.getTemperature()._value
        assert found == pytest.approx(310.0)

    def test_every_part_of_a_compound_integrator_is_updated(self):
        model = quiet(make_model(n_types=1, memory=0))
        kinds = ["openmm"] if openmm_plugin.why_not() else ["openmm", "plugin"]
        integrator = openmm.CompoundIntegrator()
        for part in (
            openmm.VerletIntegrator(0.001),
            *(model.create_integrator(backend=kind) for kind in kinds),
            memory_integrator(model.friction.drift, model.types, 298.15, 0.003),
        ):
            integrator.addIntegrator(part)
        context = context_of(model.create_system(backend="pythonforce"), integrator)
        context.setPositions(model.positions)
        new = replace(other(model), temperature=310.0)
        new.update_context(context)
        friction = new.friction.drift[0, 0, 0]
        _, langevin, *own, custom = (integrator.getIntegrator(k) for k in range(len(kinds) + 2))
        assert langevin.getFriction()._value == pytest.approx(friction)
        assert langevin.getTemperature()._value == pytest.approx(310.0)
        for part in own:
            found = openmm_plugin.read_integrator(part)
            assert found["drift"] == friction and found["temperature"] == 310.0
        assert custom.getGlobalVariableByName("F00") == pytest.approx(np.exp(-friction * 0.003))
        assert custom.getGlobalVariableByName("kT") == pytest.approx(KB * 310.0)

    def test_nothing_changes_where_the_force_can_not_be_updated(self, monkeypatch):
        model = quiet(make_model(memory=2))
        context = running(model, "pythonforce")
        before = variables(context.getIntegrator())

        def fails(context, force, theta):
            raise OSError("no space")

        monkeypatch.setattr(systems.BACKENDS["pythonforce"], "update", fails)
        with pytest.raises(OSError, match="no space"):
            replace(other(model), temperature=310.0).update_context(context)
        for name, found in variables(context.getIntegrator()).items():
            np.testing.assert_array_equal(found, before[name])

    def test_other_integrators_are_left_alone(self):
        model = quiet(make_model(memory=2))
        for integrator in (
            openmm.VerletIntegrator(0.001),
            openmm.LangevinMiddleIntegrator(310.0, 1.0, 0.002),
        ):
            context = context_of(model.create_system(backend="pythonforce"), integrator)
            context.setPositions(model.positions)
            other(model).update_context(context)
        assert integrator.getFriction()._value == 1.0


def variables(integrator):
    """Global and per-dof variables of a CustomIntegrator by name, constant ones as one number."""
    found = {
        integrator.getGlobalVariableName(k): integrator.getGlobalVariable(k)
        for k in range(integrator.getNumGlobalVariables())
    }
    for k in range(integrator.getNumPerDofVariables()):
        found[integrator.getPerDofVariableName(k)] = np.array(integrator.getPerDofVariable(k))
    return found


class TestRefusal:
    def refused(self, model, context, sentence):
        before = context.getState(energy=True, parameters=True)
        with pytest.raises(ValueError, match=sentence) as caught:
            model.update_context(context)
        assert "\n" not in str(caught.value)
        after = context.getState(energy=True, parameters=True)
        assert after.getPotentialEnergy() == before.getPotentialEnergy()

    def test_context_without_our_force(self):
        model = quiet(make_model())
        system = systems.system_without_forces(model, model.topology)
        system.addForce(openmm.NonbondedForce())
        for _ in model.types:
            system.getForce(0).addParticle(0, 1, 0)
        if hasattr(openmm, "PythonForce"):
            system.addForce(openmm.PythonForce(nothing))
        context = context_of(system)
        context.setPositions(model.positions)
        self.refused(model, context, "context: found 0 forces that this package made")

    @pytest.mark.parametrize("backend", BACKENDS)
    @pytest.mark.parametrize(
        "change, sentence",
        [
            (lambda m: quiet(make_model(n_types=2)), "bead types T0, expected .* types T0, T1"),
            (lambda m: make_model(), "with 12 parameters, expected .* with 27 parameters"),
            (
                lambda m: replace(
                    m,
                    spec=replace(
                        m.spec,
                        terms=(replace(m.spec.term("pair"), r_min=(0.23,)), *m.spec.terms[1:]),
                    ),
                ),
                "with other cutoffs or basis functions, expected",
            ),
            (
                lambda m: quiet(make_model(memory=3)),
                "integrator: found 2 auxiliary variables, expected 3",
            ),
        ],
    )
    def test_model_of_another_kind(self, backend, change, sentence):
        model = quiet(make_model())
        context = running(model, backend, steps=1)
        self.refused(change(model), context, sentence)

    def test_negative_friction(self):
        model = quiet(make_model(memory=0))
        context = running(model, "pythonforce", steps=1)
        self.refused(
            replace(other(model), friction=scaled(model.friction, -1.0)),
            context,
            "drift: found a friction of -",
        )

    def test_one_friction_for_types_that_differ(self):
        model = quiet(make_model(n_types=2, memory=0))
        integrator = openmm.LangevinMiddleIntegrator(model.temperature, 1.0, 0.005)
        context = context_of(model.create_system(backend="pythonforce"), integrator)
        context.setPositions(model.positions)
        self.refused(model, context, "LangevinMiddleIntegrator, which has one friction, expected")


def nothing(state):
    return 0.0, np.zeros([len(state.getPositions()), 3])
