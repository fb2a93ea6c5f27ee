"""Every equation of motion obeys the contract of frictions."""

from typing import get_args

import openmm
import torch
from friction_contract import FrictionContract
from models import random_friction

from openmm_cgadv import config
from openmm_cgadv.dynamics import FRICTIONS, GeneralizedLangevin, Langevin
from openmm_cgadv.export.integrators import INTEGRATORS
from openmm_cgadv.methods.adversarial.equations import EQUATIONS
from openmm_cgadv.methods.adversarial.generators import GENERATORS


class TestLangevin(FrictionContract):
    def make(self, n_types):
        return Langevin(n_types, [9.0, 13.0][:n_types])


class TestGeneralizedLangevin(FrictionContract):
    def make(self, n_types):
        motion = GeneralizedLangevin(n_types, 2, [9.0, 13.0][:n_types], floor=1.0)
        with torch.no_grad():
            motion.rotations += 0.5
        return motion


class TestPairFriction(FrictionContract):
    def make(self, n_types):
        return random_friction(n_types, 2, size=8.0)


class TestPairFrictionBesideBeadFriction(FrictionContract):
    def make(self, n_types):
        return random_friction(n_types, 2, size=8.0, own=6.0)


def test_every_registered_friction_is_under_contract():
    made = {test().make(1).export().name for test in FrictionContract.__subclasses__()}
    assert made == set(FRICTIONS) == set(INTEGRATORS)
    assert (
        set(FRICTIONS)
        == set(config.EQUATIONS)
        == set(get_args(config.Dynamics.model_fields["equation"].annotation))
        == set(GENERATORS)
        == set(EQUATIONS)
    )


def test_integrators_of_openmm_are_not_mistaken_for_ours():
    for integrator in (openmm.VerletIntegrator(0.001), openmm.CustomIntegrator(0.001)):
        assert not any(each.recognizes(integrator) for each in INTEGRATORS.values())
