"""Pairwise friction with memory: momentum, equilibrium, and the gradients of its rollout."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from models import random_friction
from systems import jittered_lattice, liquid_box, random_spec, random_theta

from openmm_cgadv import kernels
from openmm_cgadv.dynamics import (
    PairFriction,
    PairFrictionParameters,
    pair_rollout,
)
from openmm_cgadv.dynamics.pairwise_noise import pair_noise
from openmm_cgadv.dynamics.pairwise_rollout import _Pairs, _solve
from openmm_cgadv.dynamics.rollout import energy_and_forces
from openmm_cgadv.potentials import Potential
from openmm_cgadv.potentials.stillinger_weber import mw_water

needs_library = pytest.mark.skipif(not kernels.available(), reason=kernels.why_not() or "built")
KT = 2.479
DT = 0.005


class Case:
    """Two replicas of a small two-type liquid and a smooth loss on frames and final velocities."""

    def __init__(self, k=2, n=24, steps=12, dt=DT, seed=0, n_types=2, density=33.0, own=0.0):
        rng = np.random.default_rng(seed)
        self.spec = random_spec(n_types, r_cut=0.42)
        self.theta = random_theta(self.spec, seed, 2.0).requires_grad_()
        # The second replica's is triclinic.
        self.boxes = torch.stack([liquid_box(n, density), 1.02 * liquid_box(n, density, n > 60)])
        self.x = torch.stack(
            [jittered_lattice(n, b, 0.2, seed + i) for i, b in enumerate(self.boxes)]
        ).requires_grad_()
        self.types = torch.from_numpy(rng.integers(0, n_types, n))
        self.masses = torch.where(self.types == 0, 18.0, 45.0).to(torch.float64)
        self.v = torch.from_numpy(rng.normal(size=[2, n, 3]) * 0.37).requires_grad_()
        self.motion = random_friction(n_types, k, seed, own=own)
        self.frames = [0, 3, 7, steps] if steps > 7 else [0, steps]
        self.dt = dt
        self.weights = torch.from_numpy(rng.normal(size=[2, len(self.frames), n, 3]))
        self.final = torch.from_numpy(rng.normal(size=self.v.shape))

    def loss(self, frames, x, v):
        return (
            (self.weights * frames + 0.3 * frames**2).sum() + (self.final * v).sum() + (x**3).sum()
        )

    @property
    def inputs(self):
        return [self.x, self.v, self.theta, *self.motion.parameters()]

    @property
    def system(self):
        return {
            "types": self.types,
            "masses": self.masses,
            "spec": self.spec,
            "kT": KT,
            "dt": self.dt,
        }

    def noise(self, replica, *address):
        return pair_noise(5, replica, *address)

    def run(self, damping_time=math.inf, tolerance=1e-13, noise=None):
        return pair_rollout(
            self.x,
            self.v,
            self.boxes,
            **self.system,
            theta=self.theta,
            friction=self.motion,
            frames=self.frames,
            damping_time=damping_time,
            tolerance=tolerance,
            noise=noise or self.noise,
        )

    def plain(self, frozen=False):
        """The same trajectories by dense matrices, each step written out, for autograd to differentiate.

        With ``frozen`` the forces, those of friction and noise included, are given functions of time.
        """
        stop = torch.Tensor.detach if frozen else (lambda t: t)
        runs = []
        for b in range(2):
            potential = Potential(self.spec, self.theta, self.types)
            del potential.theta
            potential.theta = self.theta
            x, v, frames, sigma = self.x[b], self.v[b], [], {}
            for step in range(self.frames[-1] + 1):
                if step in self.frames:
                    frames.append(x)
                if step == self.frames[-1]:
                    break
                start = stop(x) if frozen else x
                start = start if start.requires_grad else start.requires_grad_()
                (gradient,) = torch.autograd.grad(
                    potential(start, self.boxes[b]), start, create_graph=not frozen
                )
                v = v - self.dt * gradient / self.masses[:, None]
                x = x + 0.5 * self.dt * v
                pairs, drift, noise_matrix = dense(
                    self.motion, stop(x), self.boxes[b], self.types, self.masses
                )
                i, j = torch.tensor(pairs).T
                fresh = self.noise(b, step, i, j, self.motion.n_auxiliary, True)
                every = torch.arange(len(v))
                xi = torch.cat(
                    [
                        self.noise(b, step, i, j, self.motion.n_auxiliary + 1, False).reshape(-1),
                        self.noise(b, step, every, every, 1, False).reshape(-1),
                    ]
                )
                scaled = [self.masses[:, None].sqrt() * v]
                for p, (a, c) in enumerate(pairs):
                    2 * self.masses[a] * self.masses[c] / (self.masses[a] + self.masses[c])
                    scaled.append(sigma[a, c] if (a, c) in sigma else (KT**0.5 * fresh[p]))
                s = torch.cat(scaled).reshape(-1)
                eye = torch.eye(len(s), dtype=torch.float64)
                s_noise = (KT * self.dt) ** 0.5 * noise_matrix @ xi
                mean = torch.linalg.solve(eye + 0.5 * self.dt * drift, s + 0.5 * s_noise)
                s = (2 * mean - s).reshape(-1, 3)
                v, rest = (
                    s[: len(v)] / self.masses[:, None].sqrt(),
                    s[len(v) :].unflatten(0, [len(pairs), -1]),
                )
                sigma = dict(zip(pairs, rest))
                x = x + 0.5 * self.dt * v
            runs.append((torch.stack(frames), x, v))
        return [torch.stack(part) for part in zip(*runs)]


def dense(motion, x, box, types, masses):
    """Pairs in range and the matrices M and B of ds = −M s dt + √kT B dW, written out entry by entry.

    s are velocities times √m, then each pair's σ times √μ. Noises of single beads are behind those of pairs.
    """
    n, k = len(x), motion.n_auxiliary
    memory = motion.memory()
    diagonal = torch.linalg.inv(box)
    pairs, blocks = [], []
    for a in range(n):
        for c in range(a + 1, n):
            d = x[c] - x[a]
            d = d - torch.round(d.detach() @ diagonal) @ box
            r = d.norm()
            if r < motion.r_cut:
                pairs.append((a, c))
                low, high = sorted((int(types[a]), int(types[c])))
                type_pair = low * motion.n_types - low * (low - 1) // 2 + high - low
                f = motion.functions(r[None])[type_pair, :, :, 0]
                p = torch.outer(d, d) / r**2
                blocks.append(
                    (type_pair, [f[m, 0] * p + f[m, 1] * (torch.eye(3) - p) for m in range(k + 1)])
                )
    size = 3 * n + 3 * k * len(pairs)
    drift = torch.zeros(size, size, dtype=torch.float64)
    noise_matrix = torch.zeros(size, 3 * (k + 1) * len(pairs), dtype=torch.float64)
    eye = torch.eye(3, dtype=torch.float64)
    for q, ((a, c), (type_pair, t)) in enumerate(zip(pairs, blocks)):
        reduced = 2 / (1 / masses[a] + 1 / masses[c])
        select = torch.zeros(3, size, dtype=torch.float64)
        select[:, 3 * a : 3 * a + 3] = eye * (reduced / masses[a]).sqrt()
        select[:, 3 * c : 3 * c + 3] = -eye * (reduced / masses[c]).sqrt()
        noise = 3 * (k + 1) * q
        at = 3 * n + 3 * k * q
        mine = [torch.zeros(3, size, dtype=torch.float64) for _ in range(k)]
        for m in range(k):
            mine[m][:, at + 3 * m : at + 3 * m + 3] = eye
        drift = drift + select.T @ t[0] @ t[0] @ select
        noise_matrix = noise_matrix + select.T @ torch.nn.functional.pad(
            2**0.5 * t[0], [noise, noise_matrix.shape[1] - noise - 3]
        )
        for m in range(k):
            drift = drift + select.T @ t[m + 1] @ mine[m] - mine[m].T @ t[m + 1] @ select
            for o in range(k):
                drift = drift + memory[type_pair, m, o] * mine[m].T @ mine[o]
            block = noise + 3 * (m + 1)
            spread = (2 * memory[type_pair, m, m]).sqrt() * eye
            noise_matrix = noise_matrix + mine[m].T @ torch.nn.functional.pad(
                spread, [block, noise_matrix.shape[1] - block - 3]
            )
    own = torch.zeros(size, dtype=torch.float64)
    own[: 3 * n] = motion.self_friction[types].repeat_interleave(3)
    return (
        pairs,
        drift + torch.diag(own),
        torch.cat([noise_matrix, torch.diag((2.0 * own).sqrt())[:, : 3 * n]], 1),
    )


@pytest.mark.parametrize("k, own", [(0, 0.0), (1, 0.0), (3, 0.0), (2, 7.0)])
def test_friction_and_noise_balance(k, own):
    """M + Mᵀ = B Bᵀ: with it the stationary covariance is kT/m in velocities, kT/μ in σ."""
    case = Case(k, n=10, density=13.0, own=own)
    _, drift, noise_matrix = dense(
        case.motion, case.x[0].detach(), case.boxes[0], case.types, case.masses
    )
    torch.testing.assert_close(drift + drift.T, noise_matrix @ noise_matrix.T, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "k, dt, own", [(0, 0.005, 0.0), (3, 0.005, 0.0), (3, 0.05, 0.0), (2, 0.05, 60.0)]
)
def test_step_keeps_the_covariance_of_equilibrium(k, dt, own):
    """At frozen positions the step is linear: s ← R s + Q ξ with R C Rᵀ + Q Qᵀ = C, however long it is."""
    case = Case(k, n=10, density=13.0, own=own)
    motion, n = case.motion, 10
    with torch.no_grad():
        pairs = _Pairs.find(
            case.x[0],
            case.boxes[0],
            case.types,
            case.masses,
            motion.splines,
            motion.r_min,
            motion.r_cut,
        )
        assert len(pairs.i) > n
        inverse = torch.linalg.inv(torch.eye(k, dtype=torch.float64) + 0.5 * dt * motion.memory())[
            pairs.type_pair
        ]
        m, friction = len(pairs.i), motion.self_friction[case.types]
        bead_noise = (0.5 * KT * dt * friction / case.masses).sqrt()[:, None]

        def step(s, xi):
            v, sigma = s[: 3 * n].reshape(n, 3), s[3 * n :].reshape(m, k, 3)
            force_noise, sigma_noise = pairs.step_noise(
                xi[3 * n :].reshape(m, k + 1, 3), motion.memory(), math.sqrt(KT * dt)
            )
            right = (
                v
                + 0.5 * pairs.force(force_noise, v) / case.masses[:, None]
                + bead_noise * xi[: 3 * n].reshape(n, 3)
            )
            mean, sigma_mean = _solve(
                pairs,
                case.masses,
                friction,
                0.5 * dt,
                inverse,
                right,
                sigma + 0.5 * sigma_noise,
                1.0,
                v,
                1e-14,
            )
            return torch.cat([(2 * mean - v).reshape(-1), (2 * sigma_mean - sigma).reshape(-1)])

        size, noises = 3 * n + 3 * k * m, 3 * n + 3 * (k + 1) * m
        still, quiet = (
            torch.zeros(size, dtype=torch.float64),
            torch.zeros(noises, dtype=torch.float64),
        )
        r = torch.stack([step(e, quiet) for e in torch.eye(size, dtype=torch.float64)], 1)
        q = torch.stack([step(still, e) for e in torch.eye(noises, dtype=torch.float64)], 1)
        variance = KT / torch.cat(
            [case.masses.repeat_interleave(3), pairs.mass.flatten().repeat_interleave(3 * k)]
        )
        torch.testing.assert_close(
            r * variance @ r.T + q @ q.T, torch.diag(variance), rtol=0, atol=1e-10
        )


@pytest.mark.parametrize("tolerance", [1e-10, 0.03])
def test_momentum_is_conserved_to_rounding(tolerance):
    case = Case(2)
    with torch.no_grad():
        _, _, v = case.run(tolerance=tolerance)
        before, after = (torch.einsum("n,bnc->bc", case.masses, v) for v in (case.v, v))
    moved = (case.masses[:, None] * (v - case.v.detach())).abs().sum()
    assert float(moved) > 100
    assert float((after - before).abs().max()) < 1e-13 * float(moved)


def test_nothing_is_left_without_friction():
    """With all functions zero the step is that of leapfrog."""
    case = Case(2)
    with torch.no_grad():
        case.motion.shapes.zero_()
        frames, x, v = case.run()
        for b in range(2):
            potential, y, w = Potential(case.spec, case.theta, case.types), case.x[b], case.v[b]
            for _step in range(case.frames[-1]):
                w = (
                    w
                    + case.dt
                    * energy_and_forces(potential, y, case.boxes[b])[1]
                    / case.masses[:, None]
                )
                y = y + case.dt * w
            torch.testing.assert_close(x[b], y, rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(v[b], w, rtol=1e-12, atol=1e-12)


def test_images_and_order_of_beads_do_not_matter():
    case = Case(2)
    with torch.no_grad():
        expected = case.run()
        shift = (
            torch.from_numpy(np.random.default_rng(0).integers(-3, 4, [2, 24, 3]).astype(float))
            @ case.boxes
        )
        case.x += shift
        frames, x, v = case.run()
        torch.testing.assert_close(frames - shift[:, None], expected[0], rtol=0, atol=1e-10)
        torch.testing.assert_close(v, expected[2], rtol=0, atol=1e-10)
        case.x -= shift

        order = torch.from_numpy(np.random.default_rng(1).permutation(24))
        for name in ("x", "v"):
            setattr(case, name, getattr(case, name)[:, order])
        case.types, case.masses = case.types[order], case.masses[order]

        def same_pairs(replica, step, i, j, count, fresh):
            i, j = order[i], order[j]
            numbers = pair_noise(
                5, replica, step, torch.minimum(i, j), torch.maximum(i, j), count, fresh
            )
            return torch.where((i < j)[:, None, None], numbers, -numbers)

        frames, _, v = case.run(noise=same_pairs)
        torch.testing.assert_close(frames, expected[0][:, :, order], rtol=0, atol=1e-10)
        torch.testing.assert_close(v, expected[2][:, order], rtol=0, atol=1e-10)


@pytest.mark.parametrize("k, own", [(0, 0.0), (1, 0.0), (3, 0.0), (2, 20.0)])
def test_adjoint_without_damping_is_autograd(k, own):
    case = Case(k, n=10, steps=8, density=13.0, own=own)
    for ours, plain in zip(case.run(), case.plain()):
        torch.testing.assert_close(ours, plain, rtol=1e-11, atol=1e-11)
    expected = torch.autograd.grad(case.loss(*case.plain()), case.inputs, allow_unused=True)
    found = torch.autograd.grad(case.loss(*case.run()), case.inputs, allow_unused=True)
    for a, b in zip(found, expected):
        if b is not None and b.numel():
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9 * b.abs().max().item())


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


def test_adjoint_damping_acts_on_the_feedback_part_alone():
    """With τ → 0 the gradient is that of a rollout whose forces are given functions of time."""
    case = Case(2, n=10, steps=6, density=13.0)
    inputs = [case.v, *case.motion.parameters()]
    found = torch.autograd.grad(case.loss(*case.run(damping_time=1e-6)), inputs)
    expected = torch.autograd.grad(case.loss(*case.plain(frozen=True)), inputs)
    for a, b in zip(found, expected):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9 * b.abs().max().item())


def test_noise_is_standard_normal_and_addressed_by_replica_step_and_pair():
    i, j = torch.triu_indices(100, 100, 1)
    noise = pair_noise(7, 0, 3, i, j, 4, False)
    n = noise.numel()
    assert noise.shape == (4950, 4, 3)
    assert abs(float(noise.mean())) < 5 / math.sqrt(n)
    assert abs(float(noise.square().mean()) - 1) < 5 * math.sqrt(2 / n)
    assert abs(float((noise**4).mean()) - 3) < 5 * math.sqrt(96 / n)
    some = torch.tensor([4000, 17, 2])
    assert torch.equal(pair_noise(7, 0, 3, i[some], j[some], 4, False), noise[some])
    swapped = pair_noise(7, 0, 3, j, i, 4, False)
    addresses = [
        (8, 0, 3, False),
        (7, 1, 3, False),
        (7, 0, 4, False),
        (7, 0, 3, True),
        (7, 0, 3 + 2**32, False),
    ]
    others = [pair_noise(*address, i, j, 4, fresh) for *address, fresh in addresses]
    for other in [*others, swapped, noise.roll(1, 0)]:
        assert float((other * noise).mean().abs()) < 5 / math.sqrt(n)


def test_wrong_ranges_are_named():
    with pytest.raises(ValueError, match="r_min: found 2 numbers, expected one for each of 3"):
        PairFriction(2, 1, 20.0, (0.2, 0.3))
    with pytest.raises(
        ValueError, match="r_min: found .* expected numbers from 0 to the cutoff of 0.2"
    ):
        PairFriction(1, 1, 20.0, 0.24, 0.2)
    with pytest.raises(
        ValueError, match="self_friction: found -1.0, expected one number of 0/ps or more"
    ):
        PairFriction(1, 1, 20.0, self_friction=-1.0)
    case = Case(1)
    case.motion = random_friction(1, 1)
    with pytest.raises(
        ValueError, match="friction: found 1 bead types, expected the potential's 2"
    ):
        case.run()


def test_starting_friction_is_the_one_asked_for():
    motion = PairFriction(2, 3, 17.0, floor=0.7)
    friction = motion.friction(torch.tensor([0.24, 0.34, 0.44], dtype=torch.float64))
    assert friction[:, :, 0].flatten().tolist() == pytest.approx([17.0] * 6)
    assert friction[:, :, 1].flatten().tolist() == pytest.approx([17.0 / 4] * 6)
    assert float(friction.detach()[:, :, 2].max()) < 1e-20


def test_rates_cannot_come_close_to_each_other():
    motion = PairFriction(2, 3, 17.0, floor=0.7)
    with torch.no_grad():
        motion.log_rates.fill_(-30.0)
    assert motion.memory().diagonal(dim1=1, dim2=2).flatten().tolist() == pytest.approx(
        [0.7, 2.1, 6.3] * 3
    )


class TestParameters:
    """The numbers of a friction, apart from its module."""

    @pytest.mark.parametrize("k", [0, 1, 3])
    @pytest.mark.parametrize("n_types", [1, 2])
    def test_json_keeps_every_bit(self, n_types, k):
        motion = random_friction(n_types, k)
        found = PairFrictionParameters.from_dict(json.loads(json.dumps(motion.export().to_dict())))
        np.testing.assert_array_equal(found.splines, motion.splines.detach())
        np.testing.assert_array_equal(found.memory, motion.memory().detach())
        assert (found.r_min, found.r_cut) == (tuple(motion.r_min.tolist()), motion.r_cut)
        assert (found.n_types, found.n_auxiliary) == (n_types, k)
        r = torch.linspace(0.22, 0.45, 9, dtype=torch.float64)
        np.testing.assert_allclose(
            found.friction(r.numpy()), motion.friction(r).detach().numpy(), rtol=1e-12
        )

    def test_rollout_is_that_of_the_module(self):
        case = Case(2)
        expected = case.run()
        case.motion = case.motion.export()
        for a, b in zip(case.run(), expected):
            assert torch.equal(a, b)

    @pytest.mark.parametrize(
        "change, message",
        [
            ({"r_min": (0.2, 0.2)}, "r_min: found 2 numbers, expected one for each pair"),
            (
                {"r_min": (0.2, 0.2, 0.5)},
                "r_min: found .* expected numbers from 0 to the cutoff of 0.44",
            ),
            (
                {"memory": np.zeros([3, 2, 1])},
                r"memory: found shape \(3, 2, 1\), expected \(3, K, K\)",
            ),
            (
                {"splines": np.zeros([3, 2, 2, 8])},
                r"splines: found shape .* expected \(3, 3, 2, n_basis\)",
            ),
            (
                {"splines": np.full([3, 3, 2, 8], np.nan)},
                "splines: found a value that is not finite",
            ),
            (
                {"memory": np.zeros([3, 2, 2])},
                "memory: found a decay rate of 0/ps, expected more than 0",
            ),
            (
                {"memory": np.ones([3, 2, 2])},
                "memory: found off-diagonal elements with a symmetric part",
            ),
        ],
    )
    def test_wrong_numbers_are_named(self, change, message):
        with pytest.raises(ValueError, match=message):
            replace(random_friction(2, 2).export(), **change)


def relative(found, expected):
    return float(
        (found.detach() - expected.detach()).abs().max() / (expected.detach().abs().max() + 1e-4)
    )


def core_noise(replica, *address):
    return kernels.pair_noise(5, replica, *address)


def fused(case, damping_time=math.inf, tolerance=1e-13, precision="double"):
    motion = case.motion
    return kernels.pair_rollout(
        case.x,
        case.v,
        case.boxes,
        case.types,
        case.masses,
        KT,
        case.dt,
        case.frames,
        case.theta,
        case.spec,
        motion.splines,
        motion.memory(),
        motion.r_min,
        motion.r_cut,
        5,
        damping_time,
        tolerance,
        precision,
        motion.self_friction,
    )


def gradients(case, outputs):
    return torch.autograd.grad(case.loss(*outputs), case.inputs, allow_unused=True)


@needs_library
def test_noise_of_the_core_is_that_of_plain_torch():
    i, j = torch.triu_indices(40, 40, 1)
    for fresh, step in [(False, 3), (True, 2**32 + 5)]:
        found, expected = (
            kernels.pair_noise(-7, 2, step, i, j, 4, fresh),
            pair_noise(-7, 2, step, i, j, 4, fresh),
        )
        assert float((found - expected).square().mean().sqrt()) < 1e-5


@needs_library
@pytest.mark.parametrize(
    "n_types, k, damping_time, own",
    [
        (1, 0, math.inf, 0.0),
        (2, 2, math.inf, 0.0),
        (2, 1, 0.05, 0.0),
        (3, 3, 0.07, 9.0),
        (1, 6, math.inf, 0.0),
    ],
)
def test_fused_rollout_is_the_plain_one(n_types, k, damping_time, own):
    case = Case(k, n_types=n_types, n=70 if k == 2 else 40, steps=20, own=own)
    outputs, plain = fused(case, damping_time), case.run(damping_time, noise=core_noise)
    for found, expected in zip(outputs, plain):
        assert relative(found, expected) < 1e-10
    for found, expected in zip(gradients(case, outputs), gradients(case, plain)):
        if expected is not None and expected.numel():
            assert relative(found, expected) < 1e-10


@needs_library
def test_fused_rollout_follows_pairs_through_many_lists():
    """Pairs that leave and come back, in a box of many cells, while the neighbour list is made anew."""
    case = Case(1, n=300, steps=8, dt=0.01)
    case.frames = [0, 40]
    with torch.no_grad():
        case.x, case.v, case.boxes = case.x[:1], 2.0 * case.v[:1], case.boxes[:1]
        outputs, plain = fused(case), case.run(noise=core_noise)
    for found, expected in zip(outputs, plain):
        assert relative(found, expected) < 1e-9


@needs_library
def test_exact_adjoint_of_the_fused_rollout_is_the_slope_of_the_loss():
    case = Case(3, n=40, steps=20)
    found = gradients(case, fused(case))
    rng = np.random.default_rng(5)
    for parameter, gradient in zip(case.inputs, found):
        direction = torch.from_numpy(rng.normal(size=parameter.shape))
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter += sign * 1e-7 * direction
                values.append(case.loss(*fused(case)).item())
                parameter -= sign * 1e-7 * direction
        assert (values[0] - values[1]) / 2e-7 == pytest.approx(
            (gradient * direction).sum().item(), rel=1e-5, abs=1e-5
        )


@needs_library
def test_single_precision_follows_double_and_both_keep_momentum():
    case = Case(3, n=100, steps=20)
    double, single = fused(case, 0.07), fused(case, 0.07, precision="single")
    assert relative(single[1], double[1]) < 1e-6
    for a, b in zip(gradients(case, single), gradients(case, double)):
        assert relative(a, b) < 1e-4
    for tolerance in (1e-10, 0.03):
        v = fused(case, tolerance=tolerance)[2].detach()
        change = torch.einsum("n,bnc->bc", case.masses, v - case.v.detach())
        assert float(change.abs().max()) < 1e-13 * float(
            (case.masses[:, None] * (v - case.v.detach()).abs()).sum()
        )


@needs_library
@pytest.mark.parametrize("n, replicas", [(100, 2), (1600, 1)])
def test_results_do_not_depend_on_threads(n, replicas):
    case = Case(1, n=n, steps=5)
    case.x, case.v, case.boxes = case.x[:replicas], case.v[:replicas], case.boxes[:replicas]
    case.weights, case.final = case.weights[:replicas], case.final[:replicas]
    before = torch.get_num_threads()
    runs = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            outputs = fused(case, 0.07)
            runs.append([*outputs, *(g for g in gradients(case, outputs)[2:] if g.numel())])
    finally:
        torch.set_num_threads(before)
    for other in runs[1:]:
        for found, expected in zip(other, runs[0]):
            assert relative(found, expected) < 1e-11


@needs_library
def test_explosion_names_step_replica_and_bead():
    for speed, moved in [(100.0, r"0\.\d+"), (math.inf, r"\S+")]:
        case = Case(0)
        with torch.no_grad():
            case.v[1, 4, 0] = speed
            with pytest.raises(
                RuntimeError,
                match=rf"exploded at step 1 of 12 in replica 1: bead 4 moved {moved} nm",
            ):
                fused(case)


@needs_library
def test_wrong_input_of_the_core_is_named():
    case = Case(1)
    arguments = [
        case.x,
        case.v,
        case.boxes,
        case.types,
        case.masses,
        KT,
        DT,
        [3],
        case.theta,
        case.spec,
        case.motion.splines,
        case.motion.memory(),
        case.motion.r_min,
        case.motion.r_cut,
        5,
    ]
    for place, wrong, message in [
        (1, case.v[:, 1:], "velocities: found shape"),
        (7, [3, 2], "frames: found"),
        (10, case.motion.splines[:1], "splines, r_min: found shapes"),
        (11, torch.zeros(3, 2, 2), "memory: found shape"),
        (13, 0.6, "box: .*twice the friction's range"),
    ]:
        with pytest.raises(ValueError, match=message):
            kernels.pair_rollout(*arguments[:place], wrong, *arguments[place + 1 :])
    with pytest.raises(ValueError, match="tolerance: found 0.0"):
        kernels.pair_rollout(*arguments, tolerance=0.0)
    many = PairFriction(2, 7, 20.0)
    arguments[10:12] = many.splines, many.memory()
    with pytest.raises(ValueError, match="found 7 auxiliary vectors"):
        kernels.pair_rollout(*arguments)


@needs_library
@pytest.mark.parametrize("dt", [0.005, 0.01])
def test_kinetic_temperature_is_right_at_any_time_step(dt):
    """In liquid water of beads with twice its friction, solved to the usual tolerance, as far as so short runs tell."""
    n, replicas, runs, rest = 216, 4, 480, 60
    spec, theta = mw_water()
    box = liquid_box(n, 33.4)
    x, boxes = jittered_lattice(n, box, 0.1, 0).repeat(replicas, 1, 1), box.repeat(replicas, 1, 1)
    types, masses = torch.zeros(n, dtype=torch.int64), torch.full([n], 18.015, dtype=torch.float64)
    v = (KT / 18.015) ** 0.5 * torch.randn(
        x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    v = v - v.mean(1, keepdim=True)
    motion = PairFriction(1, 3, 60.0, floor=1.0).requires_grad_(False)
    ratios = []
    for run in range(runs):
        _, x, v = pair_rollout(
            x,
            v,
            boxes,
            types=types,
            masses=masses,
            spec=spec,
            theta=theta,
            friction=motion,
            kT=KT,
            dt=dt,
            frames=[round(0.04 / dt)],
            seed=run,
        )
        ratios.append((18.015 * v.square()).sum([1, 2]) / (3 * n - 3) / KT)
    ratios = torch.stack(ratios[rest:])
    # Samples 0.04 ps apart are not independent: blocks are.
    error = ratios.mean(1).reshape(-1, 42).mean(1).std() / math.sqrt((runs - rest) / 42)
    assert abs(float(ratios.mean()) - 1) < 0.005 + 4 * float(error), (
        f"{float(ratios.mean())} ± {float(error)}"
    )
