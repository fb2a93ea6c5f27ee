"""Beads whose forces the OpenMM plugin computes, and what their Context holds."""

import numpy as np
import openmm
import torch
from systems import jittered_lattice, liquid_box, random_spec, random_theta

from openmm_cgadv import kernels
from openmm_cgadv.export import openmm_plugin
from openmm_cgadv.potentials import Potential

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
        return openmm_plugin.create_force(
            *kernels.pack(self.spec), self.theta, self.types, **settings
        )

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


def coordinates(context):
    state = context.getState(positions=True, velocities=True)
    return state.getPositions(asNumpy=True)._value, state.getVelocities(asNumpy=True)._value
