"""OpenMM-ML makes Systems of a bundle, whole or mixed with a conventional force field."""

import subprocess
import sys
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, distribution

import numpy as np
import openmm
import pytest
from backends import BACKENDS, assert_same, context_of, measured
from models import energy_and_forces, make_model
from openmm import app, unit

from openmm_cgadv import Model, save_bundle

openmmml = pytest.importorskip("openmmml", reason="the package openmmml is not installed")

from openmm_cgadv.openmmml import Factory  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def registered():
    """Where the sources are used without being installed, OpenMM-ML finds no entry point."""
    openmmml.MLPotential._implFactories.setdefault("cgadv", Factory())


def test_installed_package_is_found_by_its_entry_point():
    try:
        points = distribution("openmm_cgadv").entry_points.select(group="openmmml.potentials")
    except PackageNotFoundError:
        pytest.skip("openmm_cgadv is not installed")
    assert [(point.name, point.load()) for point in points] == [("cgadv", Factory)]


@pytest.mark.parametrize("module", ["openmm_cgadv.openmmml", "openmm_cgadv.openmmml.potential"])
def test_each_module_is_imported_first_where_the_package_is_installed(tmp_path, module):
    installed = tmp_path / "openmm_cgadv-0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: openmm_cgadv\nVersion: 0\n")
    (installed / "entry_points.txt").write_text(
        "[openmmml.potentials]\ncgadv = openmm_cgadv.openmmml:Factory\n"
    )
    program = (
        f"import sys; sys.path[:] = {[str(tmp_path), *sys.path]!r}; import {module}, openmmml; "
        "print(type(openmmml.MLPotential._implFactories['cgadv']).__name__)"
    )
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert child.stdout.strip() == "Factory", child.stderr


@pytest.fixture(scope="module")
def water(tmp_path_factory):
    """A bundle of one bead type, T0."""
    model = make_model()
    return model, save_bundle(model, tmp_path_factory.mktemp("bundle") / "water.cg")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("n_types", [1, 2])
def test_system_has_the_energy_and_masses_of_the_model(tmp_path, backend, n_types):
    model = make_model(n_types=n_types)
    path = save_bundle(model, tmp_path / "a.cg")
    potential = openmmml.MLPotential("cgadv", path=path)
    system = potential.createSystem(model.topology, backend=backend)
    assert isinstance(system.getForce(1), openmm.CMMotionRemover)
    masses = [system.getParticleMass(k)._value for k in range(system.getNumParticles())]
    np.testing.assert_array_equal(masses, model.masses[model.types])
    found = measured(context_of(system), model.positions)
    assert_same(found, energy_and_forces(model, model.positions), 1e-10)


def test_system_can_be_updated_and_keep_its_centre_of_mass_motion(water):
    model, path = water
    system = openmmml.MLPotential("cgadv", path=str(path)).createSystem(
        model.topology, removeCMMotion=False
    )
    assert system.getNumForces() == 1
    context = context_of(system)
    context.setPositions(model.positions)
    model.update_context(context)


def mixture(model: Model, solutes: int):
    """The model's beads with the last few of another kind, as a topology and a System of LJ beads."""
    topology = app.Topology()
    chain = topology.addChain()
    beads = len(model.types)
    system, force = openmm.System(), openmm.NonbondedForce()
    force.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
    force.setCutoffDistance(0.55)
    for k in range(beads):
        name = "T0" if k < beads - solutes else "ION"
        topology.addAtom(name, None, topology.addResidue(name, chain))
        system.addParticle(40.0)
        force.addParticle(0.0, 0.3, 0.5 + 0.01 * k)
    topology.setPeriodicBoxVectors(model.topology.getPeriodicBoxVectors())
    system.setDefaultPeriodicBoxVectors(*topology.getPeriodicBoxVectors())
    system.addForce(force)
    return topology, system


def part(model: Model, chosen):
    """Energy and forces of the chosen beads alone."""
    few = replace(model, types=model.types[chosen], positions=model.positions[chosen])
    energy, forces = energy_and_forces(few, few.positions)
    whole = np.zeros_like(model.positions)
    whole[chosen] = forces
    return energy, whole


@pytest.mark.parametrize("platform", ["Reference", "CPU"])
@pytest.mark.parametrize("backend", [b for b in BACKENDS if b.values != ("torchforce",)])
def test_mixed_system_adds_the_model_among_its_beads_to_the_field_of_all_else(
    water, backend, platform
):
    model, path = water
    topology, field = mixture(model, 5)
    # Any order of beads, not beginning with the first.
    water_beads = [k for k in range(len(model.types) - 1, -1, -1) if k < len(model.types) - 5]
    potential = openmmml.MLPotential("cgadv", path=path)
    mixed = potential.createMixedSystem(
        topology, field, water_beads, interpolate=True, backend=backend
    )
    assert mixed.getParticleMass(0)._value == model.masses[0]
    assert mixed.getParticleMass(len(model.types) - 1)._value == 40.0
    rest = openmm.XmlSerializer.clone(field)
    for i in water_beads:
        for j in water_beads:
            if i < j:
                rest.getForce(0).addException(i, j, 0, 1, 0)
    energy, forces = measured(context_of(rest), model.positions)
    ours = part(model, water_beads)
    context = context_of(mixed, platform=platform)
    tolerance = 1e-9 if platform == "Reference" else 1e-4
    assert_same(measured(context, model.positions), (energy + ours[0], forces + ours[1]), tolerance)
    energies = []
    for scale in (0.0, 0.5, 1.0):
        context.setParameter("lambda_interpolate", scale)
        energies.append(measured(context, model.positions)[0])
    assert energies[1] == pytest.approx((energies[0] + energies[2]) / 2, rel=1e-6)
    assert abs(energies[0] - energies[2]) > 1.0
    plain = potential.createMixedSystem(topology, field, water_beads, backend=backend)
    assert_same(
        measured(context_of(plain, platform=platform), model.positions),
        (energy + ours[0], forces + ours[1]),
        tolerance,
    )


@pytest.mark.parametrize(
    "call, sentence",
    [
        (lambda m, t, s: openmmml.MLPotential("cgadv"), "found nothing, expected path="),
        (
            lambda m, t, s: openmmml.MLPotential("cgadv", path="no.cg"),
            "no.cg: found no such folder",
        ),
        (lambda m, t, s: m.createSystem(t), "found residue ION .*, expected one of the bead types"),
        (
            lambda m, t, s: m.createMixedSystem(t, s, range(62, 64)),
            "found residue ION .*, expected one of the bead types of this model: T0",
        ),
        (
            lambda m, t, s: m.createMixedSystem(t, s, range(5), backend="torchforce"),
            "backend: found 'torchforce', expected 'plugin' or 'pythonforce', which can act on a part",
        ),
        (
            lambda m, t, s: (
                t.addBond(*[list(t.atoms())[k] for k in (4, 5)]),
                m.createMixedSystem(t, s, range(5)),
            ),
            "atoms: found a bond between 4 and 5, one of them a bead of the model, expected",
        ),
    ],
)
def test_wrong_arguments_are_rejected_in_one_sentence(water, call, sentence):
    model, path = water
    topology, field = mixture(model, 5)
    with pytest.raises(ValueError, match=sentence) as caught:
        call(openmmml.MLPotential("cgadv", path=path), topology, field)
    assert "\n" not in str(caught.value)


def test_simulation_runs(water):
    model, path = water
    system = openmmml.MLPotential("cgadv", path=path).createSystem(model.topology)
    simulation = app.Simulation(
        model.topology, system, model.create_integrator(), openmm.Platform.getPlatform("Reference")
    )
    simulation.context.setPositions(model.positions * unit.nanometer)
    simulation.minimizeEnergy(maxIterations=20)
    simulation.step(5)
