"""Random potentials, configurations and rollouts with which the compiled core is compared to plain torch."""

import math

import numpy as np
import torch
from systems import jittered_lattice, liquid_box, random_spec, random_theta

from openmm_cgadv import kernels
from openmm_cgadv.dynamics import rollout
from openmm_cgadv.potentials import PairSpec, Potential, PotentialSpec, ThreeBodySpec


class System:
    """A random potential and a random configuration, from a numbered recipe."""

    def __init__(self, number, n=None):
        rng = np.random.default_rng(number)
        self.n = n = n or int(rng.choice([2, 3, 9, 27, 64, 100, 150]))
        n_types = int(rng.integers(1, 4))
        n_radial, l_max = int(rng.integers(1, 5)), int(rng.integers(0, 9))
        self.box = liquid_box(n, rng.choice([5.0, 33.4, 60.0]), triclinic=bool(rng.integers(2)))
        longest = min(0.6, 0.499 * float(self.box.diagonal().min()))
        r_cut, r_cut3 = longest * rng.choice([0.7, 1.0]), longest * rng.choice([0.5, 0.75, 1.0])
        pairs = n_types * (n_types + 1) // 2
        three = ThreeBodySpec(
            0.4 * r_cut3, r_cut3, 5, tuple(map(tuple, rng.normal(size=[n_radial, 5]))), l_max
        )
        self.spec = PotentialSpec(
            tuple("ABC"[:n_types]),
            (
                PairSpec(
                    tuple(r_cut * rng.uniform(0.3, 0.6, pairs)),
                    r_cut,
                    int(rng.integers(1, 40)),
                    tuple(rng.uniform(1e4, 1e5, pairs)),
                ),
                *([three] if rng.random() < 0.9 else []),
            ),
        )
        self.theta = random_theta(self.spec, number)
        # One in three is an ideal gas, whose beads overlap at random.
        ideal = torch.from_numpy(rng.random([n, 3])) @ self.box
        self.x = jittered_lattice(n, self.box, 0.3, number) if number % 3 else ideal
        self.x = self.x + torch.from_numpy(rng.integers(-3, 4, [n, 3]).astype(float)) @ self.box
        self.types = torch.from_numpy(rng.integers(0, n_types, n))
        self.direction = torch.from_numpy(rng.normal(size=[n, 3]))
        self.arguments = self.box, self.types, self.theta, self.spec

    def reference(self):
        """Energy, gradient, dU/dtheta, Hessian times direction, d(gradient . direction)/dtheta."""
        potential = Potential(self.spec, self.theta, self.types)
        x = self.x.clone().requires_grad_()
        energy = potential(x, self.box)
        gradient, d_theta = torch.autograd.grad(energy, [x, potential.theta], create_graph=True)
        along = (gradient * self.direction).sum()
        product, mixed = torch.autograd.grad(along, [x, potential.theta], allow_unused=True)
        mixed = torch.zeros_like(d_theta) if mixed is None else mixed
        return energy.detach(), gradient.detach(), d_theta.detach(), product, mixed


class Motion:
    """Replicas of a small liquid with memory."""

    def __init__(self, n_types, extra, n=24, replicas=2, seed=0):
        rng = np.random.default_rng(seed)
        self.spec = random_spec(n_types, r_cut=0.42)
        box = liquid_box(n, 33.0)
        self.boxes = torch.stack([box * (1 + 0.02 * b) for b in range(replicas)])
        x = torch.stack([jittered_lattice(n, b, 0.2, seed + i) for i, b in enumerate(self.boxes)])
        state = torch.from_numpy(0.3 * rng.normal(size=[replicas, n, extra + 1, 3]))
        self.types = torch.from_numpy(rng.integers(0, n_types, n))
        self.masses = torch.from_numpy(rng.uniform(15, 30, n))
        drift = torch.from_numpy(4 * rng.normal(size=[n_types, extra + 1, extra + 1]))
        eye = torch.eye(extra + 1, dtype=torch.float64)
        e = torch.matrix_exp(-0.005 * (drift - drift.mT + 5 * eye))
        s = torch.linalg.cholesky(eye - e @ e.mT)
        self.inputs = [t.requires_grad_() for t in (x, state, random_theta(self.spec, seed), e, s)]
        self.extra, self.n, self.replicas, self.frames = extra, n, replicas, [0, 3, 7, 20]
        self.weights = torch.from_numpy(rng.normal(size=[replicas, len(self.frames), n, 3]))

    def fused(self, damping_time=math.inf, precision="double", seed=5):
        x, state, theta, e, s = self.inputs
        return kernels.rollout(
            x,
            state,
            self.boxes,
            self.types,
            self.masses,
            2.479,
            0.005,
            self.frames,
            theta,
            self.spec,
            e,
            s,
            seed,
            damping_time,
            precision,
        )

    def plain(self, damping_time=math.inf, seed=5):
        x, state, theta, e, s = self.inputs
        noise = [
            kernels.noise(seed, b, 0, self.frames[-1], self.n, self.extra + 1)
            for b in range(self.replicas)
        ]
        return rollout(
            x,
            state,
            self.boxes,
            types=self.types,
            masses=self.masses,
            spec=self.spec,
            theta=theta,
            e=e,
            s=s,
            kT=2.479,
            dt=0.005,
            frames=self.frames,
            damping_time=damping_time,
            noise=torch.stack(noise, 1),
        )

    def gradients(self, outputs):
        frames, x, state = outputs
        loss = (self.weights * (frames + frames**2)).sum() + (x**3).sum() + (state**2).sum()
        return torch.autograd.grad(loss, self.inputs)
