"""What every equation of motion must do. A test of one inherits :class:`FrictionContract` and names the equation."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import openmm
import pytest
import torch
from models import make_model, quiet

from openmm_cgadv import load, save_bundle
from openmm_cgadv.dynamics import FRICTIONS, TrainableFriction, friction_from_arrays, rollout
from openmm_cgadv.export import openmm_plugin
from openmm_cgadv.export.integrators import INTEGRATORS
from openmm_cgadv.potentials import PairSpec, PotentialSpec
from openmm_cgadv.units import KB

N = 64
TYPES = pytest.mark.parametrize("n_types", [1, 2])
COLD = 1e-24
"""Temperature (K) at which noise is less than rounding, so that a trajectory does not depend on random numbers."""


class FrictionContract:
    """Contract of an equation of motion, checked for one and two bead types.

    Subclasses implement :meth:`make`.
    """

    def make(self, n_types: int) -> TrainableFriction:
        """Return the equation with parameters unlike those of its constructor, and beads' friction near 10/ps.

        Where friction acts between beads, its range is at most 0.6 nm.
        """
        raise NotImplementedError

    def system(self, n_types: int, seed: int = 0):
        """Return the equation, which knows its neighbourhood, and a model of a soft liquid with its parameters."""
        trainable = self.make(n_types).requires_grad_(False)
        model = quiet(make_model(n_types, 0, N, seed))
        model = replace(model, friction=trainable.export())
        trainable.neighborhood = model.neighborhood
        return trainable, model

    def needs_integrator(self, friction):
        if friction.needs and openmm_plugin.why_not() is not None:
            pytest.skip(openmm_plugin.why_not())

    def arguments(self, model, state, steps):
        """Those of a rollout of replicas [B] of the model's configuration from states [B, N, S, 3]."""
        return {
            "positions": torch.as_tensor(model.positions).repeat(len(state), 1, 1),
            "state": state,
            "boxes": torch.as_tensor(model.box).repeat(len(state), 1, 1),
            "types": torch.as_tensor(model.types),
            "masses": torch.as_tensor(model.masses[model.types]),
            "spec": model.spec,
            "theta": torch.as_tensor(model.theta),
            "kT": KB * model.temperature,
            "dt": model.timestep,
            "frames": list(range(steps + 1)),
        }

    def roll_out(self, trainable, model, state, steps, seed):
        return trainable.roll_out(**self.arguments(model, state, steps), seed=seed)

    def start(self, trainable, model, replicas=1, seed=3):
        generator = torch.Generator().manual_seed(seed)
        masses = torch.as_tensor(model.masses[model.types])
        draws = [
            trainable.start(masses, KB * model.temperature, generator) for _ in range(replicas)
        ]
        return torch.stack(draws)

    @TYPES
    def test_sizes_agree_and_the_name_is_registered(self, n_types):
        trainable, model = self.system(n_types)
        friction = model.friction
        assert FRICTIONS[friction.name] is type(friction)
        assert friction.name in INTEGRATORS
        assert friction.n_types == trainable.n_types == n_types
        assert friction.n_auxiliary == trainable.n_auxiliary
        assert friction.between_beads == (friction.reach > 0) == bool(friction.pair_ranges())
        assert (model.neighborhood is not None) == (friction.reach > 0)
        with pytest.raises(ValueError, match="friction: found . bead types, expected"):
            replace(model, friction=self.make(3 - n_types).export())

    @TYPES
    def test_files_hold_the_parameters_bit_for_bit(self, n_types, tmp_path):
        _, model = self.system(n_types)
        friction, kind = model.friction, type(model.friction)
        np.savez(tmp_path / "p.npz", equation=friction.name, **friction.arrays())
        with np.load(tmp_path / "p.npz") as file:
            by_name = friction_from_arrays(file)
        bundle = load(save_bundle(model, tmp_path / "m.cg"))
        for found in (
            kind.from_arrays(friction.arrays()),
            kind.from_dict(json.loads(json.dumps(friction.to_dict()))),
            by_name,
            bundle.friction,
        ):
            assert type(found) is kind and found.arrays().keys() == friction.arrays().keys()
            for name, array in friction.arrays().items():
                np.testing.assert_array_equal(found.arrays()[name], array)
        schema = json.loads((tmp_path / "m.cg" / "model.json").read_text())["schema_version"]
        assert schema == max(model.spec.schema, friction.required_schema)

    @TYPES
    def test_exported_parameters_are_those_of_the_trainable(self, n_types):
        """They give the same friction, also once the trainable has changed."""
        trainable, model = self.system(n_types)
        friction, near = model.friction, model.neighborhood
        before = trainable.bead_friction()
        torch.testing.assert_close(friction.bead_friction(near), before, rtol=1e-10, atol=0)
        state = {name: value.clone() for name, value in trainable.state_dict().items()}
        with torch.no_grad():
            for parameter in trainable.parameters():
                parameter += 0.1
        changed = trainable.export().bead_friction(near)
        torch.testing.assert_close(changed, trainable.bead_friction(), rtol=1e-10, atol=0)
        torch.testing.assert_close(friction.bead_friction(near), before, rtol=1e-10, atol=0)
        assert not torch.equal(changed, before)
        trainable.load_state_dict(state)
        again = trainable.export().arrays()
        for name, array in friction.arrays().items():
            np.testing.assert_array_equal(again[name], array)

    @TYPES
    def test_bead_friction_is_the_integral_of_the_kernel(self, n_types):
        trainable, model = self.system(n_types)
        friction, near = model.friction, model.neighborhood
        times = torch.linspace(0, 20, 40001, dtype=torch.float64)
        kernel = friction.memory_kernel(times, near)
        assert kernel.shape == (n_types, len(times))
        instant = friction.instantaneous_friction(near)
        slow = torch.trapezoid(kernel, times)
        expected = friction.bead_friction(near)
        torch.testing.assert_close(instant + slow, expected, rtol=1e-4, atol=0)
        assert (instant >= 0).all() and (expected > 0).all()
        some = times[::4000]
        running = trainable.running_friction(some)
        torch.testing.assert_close(running[:, 0], instant, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(running[:, -1], expected, rtol=1e-3, atol=0)

    @TYPES
    def test_kernel_at_zero_lag_is_the_initial_slope_of_its_integral(self, n_types):
        """It is its maximum, for the kernel is an autocorrelation function of the noise."""
        trainable, model = self.system(n_types)
        step = 1e-6
        kernel = model.friction.memory_kernel(
            torch.linspace(0, 5, 501, dtype=torch.float64), model.neighborhood
        )
        running = trainable.running_friction(torch.tensor([0.0, step], dtype=torch.float64))
        slope = (running[:, 1] - running[:, 0]) / step
        torch.testing.assert_close(slope, kernel[:, 0], rtol=1e-3, atol=1e-6)
        assert (kernel.abs() <= kernel[:, :1] + 1e-12).all()
        has_memory = model.friction.n_auxiliary > 0
        assert bool((kernel[:, 0] > 0).all()) == has_memory == bool(kernel.any())
        assert (trainable.rates() >= trainable.floor).all()

    def test_friction_between_beads_ends_at_its_reach(self):
        _, model = self.system(2)
        friction = model.friction
        r = np.linspace(0.2, 1.0, 81)
        found = friction.friction(r)
        assert found.shape == (3, 2, len(r))
        assert (found[..., r >= friction.reach] == 0).all()
        assert found.any() == friction.between_beads
        for start, stop in friction.pair_ranges():
            assert 0 <= start < stop <= friction.reach

    @TYPES
    def test_rollout_matches_the_integrator_of_openmm_step_for_step(self, n_types):
        trainable, model = self.system(n_types)
        self.needs_integrator(model.friction)
        model = replace(model, temperature=COLD)
        state = torch.zeros_like(self.start(trainable, model))
        generator = torch.Generator().manual_seed(1)
        state[..., 0, :] = torch.randn([1, N, 3], dtype=torch.float64, generator=generator)
        frames, _, _ = self.roll_out(trainable, model, state, 20, seed=5)

        system = model.create_system(backend="pythonforce")
        for k in reversed(range(system.getNumForces())):
            if isinstance(system.getForce(k), openmm.CMMotionRemover):
                system.removeForce(k)
        platform = openmm.Platform.getPlatform("Reference")
        context = openmm.Context(system, model.create_integrator(seed=1), platform)
        context.setPositions(model.positions)
        context.setVelocities(state[0, :, 0].numpy())
        for frame in frames[0]:
            found = context.getState(positions=True).getPositions(asNumpy=True)._value
            np.testing.assert_allclose(found, frame.numpy(), atol=1e-5)
            context.getIntegrator().step(1)
        # Friction has done more than the tolerance.
        unit = torch.eye(1, dtype=torch.float64).repeat(n_types, 1, 1)
        free, _, _ = rollout(
            **self.arguments(model, state[:, :, :1], 20), e=unit, s=torch.zeros_like(unit), seed=5
        )
        assert (free - frames)[0, -1].abs().max() > 1e-2

    def test_total_momentum_is_conserved_where_that_is_said(self):
        trainable, model = self.system(2)
        masses = torch.as_tensor(model.masses[model.types])
        state = self.start(trainable, model)
        drawn = masses @ state[0, :, 0]
        thermal = (masses.sum() * KB * model.temperature) ** 0.5
        _, _, after = self.roll_out(trainable, model, state, 50, seed=2)
        change = (masses @ after[0, :, 0] - drawn).abs().max()
        if model.friction.conserves_momentum:
            # At the start it is zero: nothing would ever change it.
            assert drawn.abs().max() < 1e-9 * thermal and change < 1e-6 * thermal
        else:
            assert change > 0.05 * thermal

    @TYPES
    def test_temperature_is_stationary(self, n_types):
        """Beads without forces keep exactly the distribution that they start from, at a long time step."""
        trainable, model = self.system(n_types)
        pairs = n_types * (n_types + 1) // 2
        spec = PotentialSpec(model.type_names, (PairSpec((0.2,) * pairs, 0.5, 6, (0.0,) * pairs),))
        free = np.zeros(spec.n_parameters)
        model = replace(model, theta=free, spec=spec, timestep=0.02)
        masses = torch.as_tensor(model.masses[model.types])
        kT, found = KB * model.temperature, []
        state = self.start(trainable, model, replicas=8)
        for part in range(6):
            _, _, state = self.roll_out(trainable, model, state, 25, seed=part)
            kinetic = (masses[:, None] * state[:, :, 0].square()).sum((1, 2))
            found.append(kinetic / (3 * N - 3 * model.friction.conserves_momentum) / kT)
        values = torch.cat(found)
        assert values.mean() == pytest.approx(1.0, abs=5 * (2 / (3 * N * len(values))) ** 0.5)
        assert values.std() == pytest.approx((2 / (3 * N)) ** 0.5, rel=0.35)

    @TYPES
    def test_gradients_reach_every_parameter(self, n_types):
        trainable, model = self.system(n_types)
        trainable.requires_grad_(True)
        state = self.start(trainable, model, replicas=2)
        frames, _, _ = self.roll_out(trainable, model, state, 10, seed=4)
        frames[:, -1].square().sum().backward()
        for name, parameter in trainable.named_parameters():
            assert parameter.numel() == 0 or parameter.grad.abs().max() > 0, name

    @TYPES
    def test_scalars_of_a_log_are_numbers_with_names_of_their_own(self, n_types):
        _, model = self.system(n_types)
        values = model.friction.scalars(model.type_names, model.neighborhood)
        assert values and all(np.isfinite(value) for value in values.values())
        assert all(isinstance(value, float) for value in values.values())
        assert n_types == 1 or all(any(name in key for name in model.type_names) for key in values)

    def test_openmm_can_integrate_it_unless_it_says_what_it_needs(self):
        _, model = self.system(1)
        if model.friction.needs is None:
            integrator = model.create_integrator(backend="openmm")
            text = openmm.XmlSerializer.serialize(integrator)
            assert "openmm_cgadv" not in text and "CGAdv" not in text
        else:
            with pytest.raises(ValueError, match=model.friction.needs[:40]):
                model.create_integrator(backend="openmm")

    def test_a_running_integrator_is_updated(self):
        """The next steps are those of an integrator that was made from the new model."""
        trainable, model = self.system(2)
        self.needs_integrator(model.friction)
        with torch.no_grad():
            for parameter in trainable.parameters():
                parameter += 0.3
        model = replace(model, temperature=COLD)
        new = replace(model, friction=trainable.export())
        velocities = np.random.default_rng(0).normal(size=[N, 3])
        ends = []
        for first, last in ((model, new), (new, new), (model, model)):
            context = openmm.Context(
                first.create_system(backend="pythonforce"),
                first.create_integrator(seed=1),
                openmm.Platform.getPlatform("Reference"),
            )
            context.setPositions(model.positions)
            context.setVelocities(velocities)
            last.update_context(context)
            context.getIntegrator().step(10)
            ends.append(context.getState(positions=True).getPositions(asNumpy=True)._value)
        updated, made, old = ends
        np.testing.assert_allclose(updated, made, atol=1e-6)
        assert abs(updated - old).max() > 1e-4

    def test_only_friction_between_beads_has_a_stress(self):
        _, model = self.system(1)
        self.needs_integrator(model.friction)
        integrator = model.create_integrator()
        context = openmm.Context(
            model.create_system(backend="pythonforce"),
            integrator,
            openmm.Platform.getPlatform("Reference"),
        )
        context.setPositions(model.positions)
        integrators = INTEGRATORS[model.friction.name]
        integrators.take_moment(integrator)
        context.getIntegrator().step(5)
        moment = integrators.take_moment(integrator)
        assert (moment is not None) == model.friction.between_beads
        assert moment is None or (moment.shape == (3, 3) and abs(moment).max() > 0)
