"""Every backend stands what OpenMM users do to a System: barostats, virtual sites, topology files."""

from dataclasses import replace

import mdtraj
import numpy as np
import openmm
import pytest
import torch
from backends import (
    BACKENDS,
    PLATFORMS,
    assert_same,
    context_of,
    measured,
    skip_missing_operators,
    tolerance,
)
from models import energy_and_forces, make_model, quiet, shifted_configurations
from openmm import app, unit
from systems import scaled

from openmm_cgadv import kernels, save_bundle
from openmm_cgadv.export.backends import plugin
from openmm_cgadv.potentials import PotentialSpec

everywhere = [
    pytest.mark.parametrize("backend", BACKENDS),
    pytest.mark.parametrize("platform", PLATFORMS),
]


def on_all(test):
    for mark in everywhere:
        test = mark(test)
    return test


def system_of(model, backend, **keywords):
    return model.create_system(backend=backend, **keywords)


class TestBarostat:
    @on_all
    @pytest.mark.parametrize("triclinic", [False, True])
    def test_energy_of_a_changed_box_is_that_of_a_system_made_with_it(
        self, backend, platform, triclinic
    ):
        model = make_model(n_types=2, n=125, triclinic=triclinic)
        context = context_of(system_of(model, backend), platform=platform)
        measured(context, model.positions)
        within = tolerance(backend, platform)
        for scale in (1.07, [1.02, 1.0, 1.05], 0.99):
            changed = replace(
                model, box=model.box * scale, positions=model.positions * np.asarray(scale)
            )
            context.setPeriodicBoxVectors(*changed.box)
            found = measured(context, changed.positions)
            assert_same(found, energy_and_forces(changed, changed.positions), within)
            fresh = context_of(system_of(changed, backend), platform=platform)
            assert_same(found, measured(fresh, changed.positions), within)

    @on_all
    def test_energy_changes_with_volume_by_the_virial(self, backend, platform):
        model = make_model(n_types=2)
        context = context_of(system_of(model, backend), platform=platform)
        energies = []
        # Energies to single precision need a wider difference.
        double = tolerance(backend, platform) < 1e-6
        step = 1e-4 if double else 1e-3
        for scale in (1 - step, 1 + step):
            context.setPeriodicBoxVectors(*(scale * model.box))
            energies.append(measured(context, scale * model.positions)[0])
        found = (energies[1] - energies[0]) / (2 * step)
        assert found == pytest.approx(virial(model), rel=1e-5 if double else 5e-3)

    @on_all
    def test_barostat_moves_the_box_and_the_energy_follows(self, backend, platform):
        model = quiet(make_model(n_types=2, n=125))
        system = system_of(model, backend)
        barostat = openmm.MonteCarloBarostat(500 * unit.bar, 298.15 * unit.kelvin, 2)
        barostat.setRandomNumberSeed(3)
        system.addForce(barostat)
        integrator = model.create_integrator(
            seed=2, backend=None if platform in plugin.PLATFORMS else "openmm"
        )
        context = context_of(system, integrator, platform)
        context.setPositions(model.positions)
        context.setVelocitiesToTemperature(298.15, 1)
        context.getIntegrator().step(60)
        state = context.getState(positions=True, energy=True, forces=True)
        box = state.getPeriodicBoxVectors(asNumpy=True)._value
        assert abs(np.linalg.det(box) / np.linalg.det(model.box) - 1) > 1e-4
        now = replace(model, box=box)
        positions = state.getPositions(asNumpy=True)._value
        found = state.getPotentialEnergy()._value, state.getForces(asNumpy=True)._value
        assert_same(found, energy_and_forces(now, positions), tolerance(backend, platform))


def virial(model):
    """dU/dλ of positions and box scaled by λ, by automatic differentiation (kJ/mol)."""
    scale = torch.ones([], dtype=torch.float64, requires_grad=True)
    x, box = torch.as_tensor(model.positions), torch.as_tensor(model.box)
    energy = model.potential()(scale * x, scale * box)
    return torch.autograd.grad(energy, scale)[0].item()


@on_all
@pytest.mark.skipif(not kernels.available(), reason=kernels.why_not())
def test_a_position_that_is_not_finite_is_named(backend, platform):
    model = make_model()
    context = context_of(system_of(model, backend), platform=platform)
    positions = model.positions.copy()
    positions[3, 1] = np.nan
    with pytest.raises(openmm.OpenMMException, match="bead 3 is not finite|coordinate is NaN"):
        measured(context, positions)


class TestVirtualSites:
    @on_all
    def test_a_bead_can_be_a_virtual_site(self, backend, platform):
        """Its energy is the model's where it sits, and its force goes to those that carry it."""
        model = make_model(n_types=2)
        last = len(model.types) - 1
        system = system_of(model, backend)
        system.setParticleMass(last, 0.0)
        system.setVirtualSite(last, openmm.TwoParticleAverageSite(0, 5, 0.3, 0.7))
        context = context_of(system, platform=platform)
        positions = model.positions.copy()
        positions[last] = 0.3 * positions[0] + 0.7 * positions[5]
        context.setPositions(model.positions)
        context.computeVirtualSites()
        state = context.getState(energy=True, forces=True)
        energy, forces = energy_and_forces(model, positions)
        forces[0] += 0.3 * forces[last]
        forces[5] += 0.7 * forces[last]
        found = state.getForces(asNumpy=True)._value
        forces[last] = found[last]
        found = state.getPotentialEnergy()._value, found
        assert_same(found, (energy, forces), tolerance(backend, platform))

    @on_all
    @pytest.mark.parametrize("plain", [True, False])
    def test_particles_that_are_no_beads_are_rejected(self, backend, platform, plain):
        skip_missing_operators(backend, plain)
        model = make_model()
        system = system_of(model, backend, plain=plain)
        index = system.addParticle(0.0)
        system.setVirtualSite(index, openmm.TwoParticleAverageSite(0, 1, 0.5, 0.5))
        with pytest.raises(openmm.OpenMMException, match="64.*expected 65|65.*expected 64"):
            context = context_of(system, platform=platform)
            measured(context, np.vstack([model.positions, [0, 0, 0]]))

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_topology_with_a_virtual_site_is_rejected(self, backend):
        model = make_model()
        topology = model.topology
        topology.addAtom("M", None, list(topology.residues())[-1])
        with pytest.raises(ValueError, match="residue T0 64 with 2 atoms, expected one bead"):
            model.create_system(topology, backend=backend)


@on_all
@pytest.mark.parametrize("memory", [0, 2])
def test_new_context_resumes_from_a_checkpoint_bit_for_bit(backend, platform, memory):
    """Of the backend plugin this is tested with the plugin, whose integrator sees to it."""
    if backend == "plugin" and platform == "CPU":
        pytest.skip("the plugin keeps its lists in step with its own integrator")
    model = quiet(make_model(n_types=2, memory=memory))
    model = replace(model, friction=scaled(model.friction, 0.1))

    def new():
        integrator = model.create_integrator(seed=4, backend="openmm")
        return context_of(system_of(model, backend), integrator, platform)

    def end(context):
        # Far enough for new neighbour lists.
        context.getIntegrator().step(120)
        return context.getState(positions=True).getPositions(asNumpy=True)._value

    first = new()
    first.setPositions(model.positions)
    first.setVelocitiesToTemperature(model.temperature, 1)
    first.getIntegrator().step(37)
    kernels.forget_lists()
    checkpoint = first.createCheckpoint()
    begun = first.getState(positions=True).getPositions(asNumpy=True)._value
    expected = end(first)
    assert np.abs(expected - begun).max() > 0.1
    second = new()
    kernels.forget_lists()
    second.loadCheckpoint(checkpoint)
    np.testing.assert_array_equal(end(second), expected)


@on_all
def test_constraints_hold_with_one_friction(backend, platform):
    model = quiet(make_model(memory=0))
    system = system_of(model, backend)
    lengths = {}
    for i, j in ((0, 1), (2, 3)):
        lengths[i, j] = np.linalg.norm(model.positions[i] - model.positions[j])
        system.addConstraint(i, j, lengths[i, j])
    context = context_of(system, model.create_integrator(seed=1), platform)
    context.setPositions(model.positions)
    context.setVelocitiesToTemperature(model.temperature, 1)
    context.getIntegrator().step(10)
    x = context.getState(positions=True).getPositions(asNumpy=True)._value
    assert np.abs(x - model.positions).max() > 1e-3
    for (i, j), length in lengths.items():
        assert np.linalg.norm(x[i] - x[j]) == pytest.approx(length, rel=1e-4)


def renamed(names, **keywords):
    model = make_model(n_types=len(names), **keywords)
    spec = PotentialSpec(tuple(names), model.spec.terms)
    return replace(model, spec=spec)


def write_pdb(model, path):
    with open(path, "w") as file:
        app.PDBFile.writeFile(model.topology, model.positions * unit.nanometer, file)
    return app.PDBFile(str(path)).topology


def write_psf(model, path):
    lines = ["PSF", "", "       1 !NTITLE", " REMARKS beads", "", f"{len(model.types):8d} !NATOM"]
    for k, kind in enumerate(model.types):
        name = model.type_names[kind]
        mass = model.masses[kind]
        lines.append(f"{k + 1:8d} W    {k + 1:<4d} {name:<4s} B    B      0.000000 {mass:13.4f} 0")
    for section in (
        "NBOND: bonds",
        "NTHETA: angles",
        "NPHI: dihedrals",
        "NIMPHI: impropers",
        "NDON: donors",
        "NACC: acceptors",
        "NNB",
    ):
        lines += ["", f"{0:8d} !{section}", ""]
    lines += [f"{0:8d}" * 8] * ((len(model.types) + 7) // 8)
    lines += ["", "       1       0 !NGRP NST2", "       0       0       0", ""]
    path.write_text("\n".join(lines) + "\n")
    box = [openmm.Vec3(*row) for row in model.box] * unit.nanometer
    return app.CharmmPsfFile(str(path), periodicBoxVectors=box).topology


def write_gro(model, path):
    lines = ["beads", f"{len(model.types)}"]
    for k, (kind, x) in enumerate(zip(model.types, model.positions), 1):
        name = model.type_names[kind]
        lines.append(f"{k:5d}{name:<5s}{'B':>5s}{k:5d}{x[0]:8.3f}{x[1]:8.3f}{x[2]:8.3f}")
    lines.append(" ".join(f"{length:.5f}" for length in np.diag(model.box)))
    path.write_text("\n".join(lines) + "\n")
    gro = mdtraj.load(path)
    topology = gro.topology.to_openmm()
    topology.setPeriodicBoxVectors(gro.openmm_boxes(0))
    return topology


class TestTopologyFiles:
    @pytest.mark.parametrize("backend", BACKENDS)
    @pytest.mark.parametrize("write", [write_pdb, write_psf, write_gro])
    @pytest.mark.parametrize("names", [("SOL",), ("SOL", "MEO"), ("HOH", "NA", "CL")])
    def test_beads_of_a_file_are_those_of_the_model(self, tmp_path, backend, write, names):
        model = renamed(names, n=66)
        path = save_bundle(model, tmp_path / "a.cg")
        topology = write(model, tmp_path / f"beads.{write.__name__[-3:]}")
        field = app.ForceField(str(path / "forcefield.xml"))
        for system in (
            model.create_system(topology, backend=backend),
            field.createSystem(topology, backend=backend),
        ):
            masses = [system.getParticleMass(k)._value for k in range(len(model.types))]
            np.testing.assert_allclose(masses, model.masses[model.types])
            context = context_of(system)
            context.setPeriodicBoxVectors(*model.box)
            for positions in shifted_configurations(model, 1):
                found = measured(context, positions)
                assert_same(found, energy_and_forces(model, positions), 1e-10)


class TestForceField:
    @pytest.fixture
    def mixture(self, tmp_path):
        model = make_model(n_types=2)
        path = save_bundle(model, tmp_path / "a.cg")
        return model, app.ForceField(str(path / "forcefield.xml"))

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_usual_arguments_change_nothing_about_the_learned_energy(self, mixture, backend):
        model, field = mixture
        system = field.createSystem(
            model.topology,
            nonbondedMethod=app.CutoffPeriodic,
            nonbondedCutoff=0.4 * unit.nanometer,
            constraints=app.AllBonds,
            rigidWater=True,
            hydrogenMass=4 * unit.dalton,
            backend=backend,
        )
        assert system.getNumConstraints() == 0
        kinds = [type(force).__name__ for force in system.getForces()]
        assert len(kinds) == 2 and kinds[-1] == "CMMotionRemover"
        found = measured(context_of(system), model.positions)
        assert_same(found, energy_and_forces(model, model.positions), 1e-10)

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_context_of_its_system_can_be_updated(self, mixture, backend):
        model, field = mixture
        context = context_of(field.createSystem(model.topology, backend=backend))
        context.setPositions(model.positions)
        new = replace(model, theta=1.1 * model.theta)
        new.update_context(context)
        found = measured(context, model.positions)
        assert_same(found, energy_and_forces(new, model.positions), 1e-10)

    def test_particles_of_another_force_field_are_rejected(self, tmp_path):
        model = make_model()
        path = save_bundle(model, tmp_path / "a.cg")
        ions = tmp_path / "ions.xml"
        ions.write_text(
            '<ForceField><AtomTypes><Type name="i" class="i" mass="35" element="Cl"/></AtomTypes>'
            '<Residues><Residue name="CL"><Atom name="CL" type="i"/></Residue></Residues></ForceField>'
        )
        field = app.ForceField(str(path / "forcefield.xml"), str(ions))
        topology = model.topology
        ion = topology.addResidue("CL", next(topology.chains()))
        topology.addAtom("CL", app.element.chlorine, ion)
        with pytest.raises(ValueError, match="residue CL 65, which another force field knows"):
            field.createSystem(topology)
