"""Bundles written by earlier versions open, and mean what they meant."""

from pathlib import Path

import numpy as np
import openmm
import pytest
import torch

import openmm_cgadv as cg
from openmm_cgadv.export import openmm_plugin

BUNDLE = Path(__file__).parent / "data" / "schema1.cg"
PAIR_BUNDLE = BUNDLE.with_name("schema2.cg")
"""The same potential, with friction between pairs."""
PAIR_FRICTION = (9.477172560718971, 42.406706264834796)
"""Along and across a pair 0.3 nm apart (1/ps)."""
ENERGY, FRICTION = -115.86254245181776, 12.0
"""What version 0.1.0 found in it (kJ/mol, 1/ps)."""


def energy_of(system, positions):
    platform = openmm.Platform.getPlatform("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    context.setPositions(positions)
    return context.getState(energy=True).getPotentialEnergy()._value


def read(name, bundle=BUNDLE):
    return openmm.XmlSerializer.deserialize((bundle / name).read_text())


def test_model_has_the_energy_it_had():
    model = cg.load(BUNDLE)
    assert model.bead_friction == pytest.approx([FRICTION], rel=1e-9)
    positions, box = torch.as_tensor(model.positions), torch.as_tensor(model.box)
    assert model.potential()(positions, box).item() == pytest.approx(ENERGY, rel=1e-10)
    script = torch.jit.load(str(BUNDLE / "potential.pt"))
    assert script(positions, box).item() == pytest.approx(ENERGY, rel=1e-10)
    assert energy_of(read("system.xml"), model.positions) == pytest.approx(ENERGY, rel=1e-10)
    assert np.isclose(read("integrator.xml").getStepSize()._value, model.timestep)


@pytest.mark.skipif(openmm_plugin.why_not() is not None, reason=str(openmm_plugin.why_not()))
def test_plugins_xml_has_the_energy_it_had():
    model = cg.load(BUNDLE)
    assert energy_of(read("system_plugin.xml"), model.positions) == pytest.approx(ENERGY, rel=1e-10)
    integrator = read("integrator_plugin.xml")
    assert openmm_plugin.is_integrator(integrator)
    np.testing.assert_array_equal(
        openmm_plugin.read_integrator(integrator)["drift"], model.friction.drift
    )


def test_pair_friction_is_what_it_was():
    model = cg.load(PAIR_BUNDLE)
    assert model.friction.friction([0.3]).ravel() == pytest.approx(PAIR_FRICTION, rel=1e-12)
    assert energy_of(read("system.xml", PAIR_BUNDLE), model.positions) == pytest.approx(
        ENERGY, rel=1e-10
    )


@pytest.mark.skipif(openmm_plugin.why_not() is not None, reason=str(openmm_plugin.why_not()))
def test_plugins_xml_has_the_pair_friction_it_had():
    model = cg.load(PAIR_BUNDLE)
    integrator = read("integrator_plugin.xml", PAIR_BUNDLE)
    found = openmm_plugin.read_pair_integrator(integrator)["friction"]
    assert found.to_dict() == model.friction.to_dict()
    context = openmm.Context(
        read("system_plugin.xml", PAIR_BUNDLE), integrator, openmm.Platform.getPlatform("Reference")
    )
    context.setPositions(model.positions)
    integrator.step(2)
