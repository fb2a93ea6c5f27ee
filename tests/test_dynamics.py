"""The rollout and its gradients, and the exactness of fluctuation and dissipation."""

import math

import numpy as np
import pytest
import scipy.integrate
import torch
from systems import jittered_lattice, liquid_box, random_spec, random_theta

from openmm_cgadv.dynamics import (
    GeneralizedLangevin,
    Langevin,
    integrated_friction,
    memory_kernel,
    propagator,
    rollout,
    running_friction_on_grid,
)
from openmm_cgadv.dynamics.rollout import energy_and_forces
from openmm_cgadv.potentials import Potential

KT = 2.479
DT = 0.005


def random_memory(n_types, k, seed=0):
    motion = GeneralizedLangevin(n_types, k, 20.0, floor=1.0)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in motion.parameters():
            parameter += 0.5 * torch.randn(
                parameter.shape, generator=generator, dtype=torch.float64
            )
    return motion


@pytest.mark.parametrize("k", [0, 1, 3])
def test_equilibrium_is_kept_by_every_memory(k):
    for seed in range(3):
        e, s = random_memory(2, k, seed).propagator(DT)
        covariance = e @ e.mT + s @ s.mT
        np.testing.assert_allclose(
            covariance.detach(), np.broadcast_to(np.eye(k + 1), covariance.shape), atol=1e-12
        )


def test_integrated_friction_is_the_integral_of_the_kernel():
    motion = random_memory(1, 3)
    drift = motion.drift().detach()

    def kernel(t):
        return memory_kernel(drift, torch.tensor([t], dtype=torch.float64)).item()

    integral, _ = scipy.integrate.quad(kernel, 0, 40, limit=400)
    assert integrated_friction(drift).item() == pytest.approx(
        math.exp(motion.log_friction.item()) + integral, rel=1e-6
    )


def test_initial_friction_is_the_given_one():
    assert GeneralizedLangevin(2, 3, 17.0, floor=0.7).bead_friction().tolist() == pytest.approx(
        [17.0] * 2
    )
    assert Langevin(1, 17.0).bead_friction().item() == pytest.approx(17.0)


def test_langevin_propagator_is_that_of_langevin_middle():
    e, s = propagator(Langevin(1, 5.0).drift(), DT)
    assert e.item() == pytest.approx(math.exp(-5.0 * DT))
    assert s.item() == pytest.approx(math.sqrt(1 - math.exp(-10.0 * DT)))


class Case:
    """Two replicas of a small two-type liquid and a smooth loss on frames and final state."""

    def __init__(self, k=2, n=24, steps=12, dt=DT, seed=0):
        rng = np.random.default_rng(seed)
        self.spec = random_spec(2, r_cut=0.42)
        self.theta = random_theta(self.spec, seed, 2.0).requires_grad_()
        box = liquid_box(n, 33.0)
        self.boxes = torch.stack([box, 1.02 * box])
        self.x = torch.stack(
            [jittered_lattice(n, b, 0.2, seed + i) for i, b in enumerate(self.boxes)]
        ).requires_grad_()
        self.types = torch.from_numpy(rng.integers(0, 2, n))
        self.masses = torch.where(self.types == 0, 18.0, 30.0).to(torch.float64)
        self.s = torch.from_numpy(rng.normal(size=[2, n, k + 1, 3]) * 0.37).requires_grad_()
        self.motion = random_memory(2, k, seed)
        self.noise = torch.from_numpy(rng.normal(size=[steps, 2, n, k + 1, 3]))
        self.frames = [0, 3, 7, steps] if steps > 7 else [0, steps]
        self.dt = dt
        self.weights = torch.from_numpy(rng.normal(size=[2, len(self.frames), n, 3]))
        self.final = torch.from_numpy(rng.normal(size=self.s.shape))

    def loss(self, frames, x, s):
        return (
            (self.weights * frames + 0.3 * frames**2).sum() + (self.final * s).sum() + (x**3).sum()
        )

    @property
    def inputs(self):
        return [self.x, self.s, self.theta, *self.motion.parameters()]

    def run(self, damping_time=math.inf, **noise):
        e, s = self.motion.propagator(self.dt)
        return rollout(
            self.x,
            self.s,
            self.boxes,
            types=self.types,
            masses=self.masses,
            spec=self.spec,
            theta=self.theta,
            e=e,
            s=s,
            kT=KT,
            dt=self.dt,
            frames=self.frames,
            damping_time=damping_time,
            **(noise or {"noise": self.noise}),
        )

    def plain(self):
        """The same trajectories, each step written out, for autograd to differentiate."""
        e, s = self.motion.propagator(self.dt)
        e, s = e[self.types], s[self.types] * (KT / self.masses).sqrt()[:, None, None]
        runs = []
        for b in range(2):
            potential = Potential(self.spec, self.theta, self.types)
            del potential.theta
            potential.theta = self.theta
            x, state, frames = self.x[b], self.s[b], []
            for step in range(self.frames[-1] + 1):
                if step in self.frames:
                    frames.append(x)
                if step == self.frames[-1]:
                    break
                (gradient,) = torch.autograd.grad(potential(x, self.boxes[b]), x, create_graph=True)
                v = state[:, 0] - self.dt * gradient / self.masses[:, None]
                x = x + 0.5 * self.dt * v
                state = e @ torch.cat([v[:, None], state[:, 1:]], 1) + s @ self.noise[step, b]
                x = x + 0.5 * self.dt * state[:, 0]
            runs.append((torch.stack(frames), x, state))
        return [torch.stack(part) for part in zip(*runs)]


@pytest.mark.parametrize("k", [0, 2])
def test_adjoint_without_damping_is_autograd(k):
    case = Case(k)
    for ours, plain in zip(case.run(), case.plain()):
        torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)
    expected = torch.autograd.grad(case.loss(*case.plain()), case.inputs, allow_unused=True)
    found = torch.autograd.grad(case.loss(*case.run()), case.inputs, allow_unused=True)
    for a, b in zip(found, expected):
        if b is not None and b.numel():
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9 * b.abs().max().item())


def test_gradients_match_finite_differences():
    case = Case(2)
    gradients = torch.autograd.grad(case.loss(*case.run()), case.inputs)
    rng = np.random.default_rng(5)
    for parameter, gradient in zip(case.inputs, gradients):
        direction = torch.from_numpy(rng.normal(size=parameter.shape))
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter += sign * 1e-6 * direction
                values.append(case.loss(*case.run()).item())
                parameter -= sign * 1e-6 * direction
        assert (values[0] - values[1]) / 2e-6 == pytest.approx(
            (gradient * direction).sum().item(), rel=1e-5, abs=1e-5
        )


def test_adjoint_damping_acts_on_the_jacobian_of_the_forces_alone():
    """With τ → 0 the gradient is that of a rollout whose forces are a given function of time."""
    case = Case(2)
    found = torch.autograd.grad(
        case.loss(*case.run(damping_time=1e-6)), [case.s, *case.motion.parameters()]
    )

    e, s = case.motion.propagator(case.dt)
    e, s = e[case.types], s[case.types] * (KT / case.masses).sqrt()[:, None, None]
    total = 0.0
    for b in range(2):
        potential = Potential(case.spec, case.theta, case.types)
        x, state, frames = case.x[b].detach(), case.s[b], []
        for step in range(case.frames[-1] + 1):
            if step in case.frames:
                frames.append(x)
            if step == case.frames[-1]:
                break
            _, force = energy_and_forces(potential, x.detach(), case.boxes[b])
            v = state[:, 0] + case.dt * force / case.masses[:, None]
            middle = torch.cat([v[:, None], state[:, 1:]], 1)
            state = e @ middle + s @ case.noise[step, b]
            x = x + 0.5 * case.dt * (v + state[:, 0])
        frames = torch.stack(frames)
        total = (
            total
            + (case.weights[b] * frames + 0.3 * frames**2).sum()
            + (case.final[b] * state).sum()
            + (x**3).sum()
        )
    expected = torch.autograd.grad(total, [case.s, *case.motion.parameters()])
    for a, b in zip(found, expected):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9 * b.abs().max().item())


def test_noise_from_a_seed_is_reproducible():
    case = Case(1)
    one, same, other = (case.run(seed=seed)[0] for seed in (7, 7, 8))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_kinetic_energy_is_maxwell_boltzmann():
    """A free ideal gas started cold reaches the variance kT/m in v and in every auxiliary variable."""
    case = Case(2, n=200, steps=400)
    with torch.no_grad():
        case.theta.zero_()
        case.s.zero_()
        case.frames = [0, 400]
        _, _, state = case.run(seed=3)
    ratio = (state**2 * case.masses[:, None, None] / KT).mean([0, 1, 3])
    error = math.sqrt(2 / (2 * 200 * 3))
    assert ((ratio - 1).abs() < 4 * error).all(), ratio


def test_running_friction_is_the_integral_of_the_memory_kernel_and_ends_at_the_integrated_friction():
    motion = GeneralizedLangevin(2, 3, 20.0, floor=0.5)
    with torch.no_grad():
        motion.rotations.copy_(torch.tensor([[0.3, -0.2, 0.5], [0.1, 0.4, -0.6]]))
        drift = motion.drift()
        times = torch.linspace(0, 2, 4001, dtype=torch.float64)
        kernel = memory_kernel(drift, times)
        integral = drift[:, 0, :1] + torch.cumulative_trapezoid(kernel, times)
        found = motion.running_friction(times)
        torch.testing.assert_close(found[:, 1:], integral, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(found[:, 0], drift[:, 0, 0])
        late = motion.running_friction(torch.tensor([100.0], dtype=torch.float64))[:, 0]
        torch.testing.assert_close(late, motion.bead_friction())
        torch.testing.assert_close(
            running_friction_on_grid(drift, 0.01, 150),
            motion.running_friction(0.01 * torch.arange(150.0, dtype=torch.float64)),
        )
