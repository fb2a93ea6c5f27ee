"""A model keeps its energy, forces and dynamics on the way into OpenMM and through its bundle."""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

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
    needs_torchforce,
    skip_missing_operators,
    tolerance,
)
from models import (
    assert_equal_models,
    energy_and_forces,
    make_model,
    make_pair_model,
    quiet,
    shifted_configurations,
)
from openmm import app, unit
from systems import random_spec

from openmm_cgadv import bundle as bundles
from openmm_cgadv import load, save_bundle
from openmm_cgadv.bundle import FILES, PLUGIN_FILES
from openmm_cgadv.dynamics import LangevinParameters, PairFriction, integrated_friction, propagator
from openmm_cgadv.errors import InputError
from openmm_cgadv.export import system as systems
from openmm_cgadv.export.backends import plugin, torchforce
from openmm_cgadv.export.integrators.generalized_langevin import memory_integrator
from openmm_cgadv.export.native import native_forces
from openmm_cgadv.platforms import platform_names
from openmm_cgadv.units import KB
from openmm_cgadv.workflow.report_stage import memories


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    model = make_model(n_types=2)
    path = save_bundle(model, tmp_path_factory.mktemp("bundle") / "mixture.cg")
    return model, path


class TestBundle:
    def test_round_trip_is_exact(self, bundle):
        model, path = bundle
        loaded = load(path)
        assert_equal_models(model, loaded)
        assert loaded.provenance == {"reference": "random", "seed": 0}
        assert loaded.metrics == {"rdf_l1": 0.0123, "adf_l1": None}
        np.testing.assert_allclose(
            loaded.bead_friction,
            integrated_friction(torch.as_tensor(model.friction.drift)).numpy(),
            rtol=1e-12,
        )

    def test_holds_every_promised_file_and_its_units(self, bundle):
        _, path = bundle
        expected = FILES if plugin.why_not() else FILES + PLUGIN_FILES
        assert sorted(p.name for p in path.iterdir()) == sorted(expected)
        description = json.loads((path / "model.json").read_text())
        assert description["schema_version"] == 1
        assert description["units"]["length"] == "nm"
        assert description["cutoff"] == 0.55
        assert [t["name"] for t in description["bead_types"]] == ["T0", "T1"]

    def test_loading_executes_nothing(self, bundle, tmp_path):
        _, path = bundle
        (tmp_path / "b.cg").mkdir()
        for file in path.iterdir():
            (tmp_path / "b.cg" / file.name).write_bytes(file.read_bytes())
        # An array of Python objects is where NumPy's format would run code.
        np.savez(tmp_path / "b.cg" / "parameters.npz", theta=np.array([object()], dtype=object))
        with pytest.raises(ValueError, match="parameters.npz: can't be read"):
            load(tmp_path / "b.cg")

    @pytest.mark.parametrize(
        "damage, message",
        [
            (lambda p: (p / "model.json").unlink(), "found no model.json, expected a bundle"),
            (lambda p: (p / "system.xml").unlink(), "found no system.xml, expected all files"),
            (lambda p: (p / "model.json").write_text("{}"), "found no schema_version"),
            (
                lambda p: (p / "model.json").write_text('{"schema_version": 7}'),
                "found schema_version 7, expected 1 to 3; install a newer openmm_cgadv",
            ),
            (
                lambda p: (p / "parameters.npz").write_bytes(
                    (p / "parameters.npz").read_bytes()[:900]
                ),
                "parameters.npz: can't be read, it is truncated",
            ),
        ],
    )
    def test_damage_is_named_in_one_sentence(self, bundle, tmp_path, damage, message):
        _, path = bundle
        copy = tmp_path / "copy.cg"
        copy.mkdir()
        for file in path.iterdir():
            (copy / file.name).write_bytes(file.read_bytes())
        damage(copy)
        with pytest.raises(ValueError, match=message) as caught:
            load(copy)
        assert "\n" not in str(caught.value) and str(copy) in str(caught.value)

    def test_missing_bundle_is_named(self, tmp_path):
        with pytest.raises(ValueError, match="no.cg: found no such folder"):
            load(tmp_path / "no.cg")

    def test_replaces_a_bundle_but_nothing_else(self, bundle, tmp_path):
        model, _ = bundle
        save_bundle(make_model(n_types=2, seed=3), tmp_path / "a.cg")
        save_bundle(model, tmp_path / "a.cg")
        assert_equal_models(load(tmp_path / "a.cg"), model)
        assert [p.name for p in tmp_path.iterdir()] == ["a.cg"]
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "thesis.txt").write_text("ten years")
        (tmp_path / "data" / "model.json").write_text("{}")
        with pytest.raises(ValueError, match="thesis.txt, which is not of a bundle"):
            save_bundle(model, tmp_path / "data")
        assert (tmp_path / "data" / "thesis.txt").exists()
        with pytest.raises(ValueError, match="found a file"):
            save_bundle(model, tmp_path / "data" / "thesis.txt")

    @pytest.mark.parametrize("renames", range(4))
    def test_a_crash_while_a_bundle_is_replaced_leaves_the_old_or_the_new_one(
        self, tmp_path, monkeypatch, renames
    ):
        """The process ends after so many renames, and removes nothing."""
        old, new = make_model(n_types=2, seed=3), make_model(seed=4)
        path = save_bundle(old, tmp_path / "a.cg")
        done = []

        class Crash(BaseException):
            pass

        def rename(source, target):
            if len(done) == renames:
                raise Crash
            done.append(source)
            Path(source).rename(target)

        with monkeypatch.context() as patched:
            patched.setattr(bundles.os, "replace", rename)
            patched.setattr(bundles.shutil, "rmtree", lambda *_, **__: None)
            try:
                save_bundle(new, path)
            except Crash:
                pass
        assert len(done) == min(renames, 3)
        assert_equal_models(load(path), new if renames > 1 else old)
        save_bundle(old, path)
        assert_equal_models(load(path), old)
        assert not [p.name for p in tmp_path.iterdir() if p.name.endswith((".new", ".old"))]

    def test_a_type_without_friction_or_without_beads_is_kept(self, tmp_path):
        model = make_model(n_types=2, memory=0)
        drift = np.array(model.friction.drift)
        drift[1] = 0.0
        still = load(
            save_bundle(replace(model, friction=LangevinParameters(drift)), tmp_path / "still.cg")
        )
        assert still.bead_friction == pytest.approx([model.bead_friction[0], 0.0])
        pair = make_pair_model(n_types=2)
        for kind in (0, 1):
            alone = replace(pair, types=np.full(len(pair.types), kind))
            found = load(save_bundle(alone, tmp_path / f"{kind}.cg")).bead_friction
            expected = replace(
                pair, types=np.full(len(pair.types), kind), spec=pair.spec
            ).bead_friction
            assert (
                np.isfinite(found).all()
                and found[1 - kind] == 0
                and found[kind] == expected[kind] > 0
            )

    def test_a_box_has_to_hold_the_range_of_friction_too(self):
        far = make_pair_model(n=64)
        far = replace(far, friction=replace(far.friction, r_cut=0.6 * far.box[0, 0]))
        with pytest.raises(ValueError, match="twice the cutoff"):
            far.create_system()

    def test_pair_friction_is_kept_bit_for_bit(self, tmp_path):
        model = make_pair_model(n_types=2)
        path = save_bundle(model, tmp_path / "pair.cg")
        found = load(path)
        assert_equal_models(found, model)
        for name in ("r_min", "r_cut", "splines", "memory"):
            np.testing.assert_array_equal(
                getattr(found.friction, name), getattr(model.friction, name)
            )

    def test_pair_friction_of_a_bead_is_that_with_its_neighbours(self):
        """Instant and slow part add up, and make the effective friction."""
        model = make_pair_model(n_types=2)
        x = model.positions
        d = x[:, None] - x
        r = np.linalg.norm(d - model.box.diagonal() * np.round(d / model.box.diagonal()), axis=-1)
        pair = model.friction.friction(np.maximum(r, 1e-9).ravel()).reshape(3, 2, *r.shape)
        kinds = np.array([[0, 1], [1, 2]])[np.ix_(model.types, model.types)]
        along, across = (np.take_along_axis(pair[:, k], kinds[None], 0)[0] for k in (0, 1))
        m = model.masses[model.types]
        share = 2 * m / (m[:, None] + m) * (along + 2 * across) / 3 * ~np.eye(len(x), dtype=bool)
        expected = [share.sum(1)[model.types == kind].mean() for kind in (0, 1)]
        np.testing.assert_allclose(model.bead_friction, expected, rtol=0.01)
        for memory, friction in zip(memories("model", model), model.bead_friction):
            slow = float(
                torch.trapezoid(torch.as_tensor(memory.kernel), torch.as_tensor(memory.time))
            )
            assert memory.instantaneous + slow == pytest.approx(friction, rel=0.02)
            assert memory.effective == friction

    def test_pair_friction_says_what_it_needs(self, tmp_path):
        """And packages that do not know it refuse the bundle by its schema version."""
        path = save_bundle(make_pair_model(), tmp_path / "pair.cg")
        description = json.loads((path / "model.json").read_text())
        assert description["schema_version"] == 2
        for text in (description["needs"], (path / "README.txt").read_text()):
            assert "only the OpenMM plugin of openmm_cgadv can integrate" in text
        assert not (path / "integrator.xml").exists()

    def test_friction_of_beads_beside_that_of_pairs(self, tmp_path):
        """It adds to a bead's friction, takes up momentum, and needs a newer schema, also of the integrator."""
        without = make_pair_model()
        model = replace(without, friction=replace(without.friction, self_friction=(3.0,)))
        path = save_bundle(model, tmp_path / "pair.cg")
        assert json.loads((path / "model.json").read_text())["schema_version"] == 3
        again = load(path)
        assert again.friction.self_friction == (3.0,)
        np.testing.assert_allclose(again.bead_friction, without.bead_friction + 3.0, rtol=1e-12)
        for each, removers in ((without, 1), (again, 0)):
            forces = each.create_system(backend="pythonforce").getForces()
            assert sum(isinstance(f, openmm.CMMotionRemover) for f in forces) == removers

    @pytest.mark.parametrize(
        "change, message",
        [
            (
                {"friction": PairFriction(2, 1, 10.0).export()},
                "friction: found 2 bead types, expected 1",
            ),
            ({"friction": LangevinParameters(np.ones([3, 1, 1]))}, "friction: found 3 bead types"),
        ],
    )
    def test_friction_of_other_bead_types_is_rejected(self, change, message):
        with pytest.raises(ValueError, match=message):
            replace(make_pair_model(), **change)

    def test_model_of_wrong_shape_is_refused(self):
        model = make_model()
        with pytest.raises(ValueError, match=r"theta: found shape \(3,\)"):
            replace(model, theta=np.zeros(3))
        with pytest.raises(ValueError, match="not finite"):
            replace(model, theta=np.full_like(model.theta, np.nan))


FOREIGN = """
import json, sys
import torch, openmm, openmmtorch
path, platform = sys.argv[1:]
data = json.load(open(path + "/cases.json"))
force = openmmtorch.TorchForce(path + "/potential.pt")
force.setUsesPeriodicBoundaryConditions(True)
system = openmm.System()
for mass in data["masses"]:
    system.addParticle(mass)
system.setDefaultPeriodicBoxVectors(*data["box"])
system.addForce(force)
platform = openmm.Platform.getPlatformByName(platform)
context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
found = []
for positions in data["positions"]:
    context.setPositions(positions)
    state = context.getState(getEnergy=True, getForces=True)
    found.append([state.getPotentialEnergy()._value, [list(f) for f in state.getForces()._value]])
assert not any(name.startswith("openmm_cgadv") for name in sys.modules)
print(json.dumps(found))
"""


@needs_torchforce
@pytest.mark.parametrize("platform", PLATFORMS)
def test_potential_runs_in_torchforce_without_this_package(tmp_path, platform):
    model = make_model(n_types=2, triclinic=True)
    path = save_bundle(model, tmp_path / "a.cg")
    cases = list(shifted_configurations(model, 20))
    (path / "cases.json").write_text(
        json.dumps(
            {
                "masses": model.masses[model.types].tolist(),
                "box": model.box.tolist(),
                "positions": [c.tolist() for c in cases],
            }
        )
    )
    library = torchforce.nvrtc()
    run = subprocess.run(
        [sys.executable, "-I", "-c", FOREIGN, str(path), platform],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=dict(os.environ) | ({"LD_LIBRARY_PATH": str(library.parent)} if library else {}),
    )
    assert run.returncode == 0, run.stderr
    # OpenMM prints a warning about some OpenCL devices before.
    results = json.loads(run.stdout.splitlines()[-1])
    # Contexts on OpenCL are in single precision by default.
    within = 2e-5 if platform == "OpenCL" else 1e-10
    for found, positions in zip(results, cases, strict=True):
        assert_same((found[0], np.array(found[1])), energy_and_forces(model, positions), within)


def test_potential_takes_single_precision_positions(bundle):
    model, path = bundle
    potential = torch.jit.load(path / "potential.pt")
    for positions in shifted_configurations(model, 3):
        x = torch.tensor(positions, dtype=torch.float32, requires_grad=True)
        energy = potential(x, torch.tensor(model.box, dtype=torch.float32))
        (gradient,) = torch.autograd.grad(energy, x)
        expected = energy_and_forces(model, x.detach().double().numpy())
        assert_same((energy.item(), -gradient.double().numpy()), expected, 1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("platform", PLATFORMS)
def test_systems_have_the_energy_and_forces_of_the_model(backend, plain, platform):
    skip_missing_operators(backend, plain)
    model = make_model(n_types=2)
    context = context_of(model.create_system(backend=backend, plain=plain), platform=platform)
    within = tolerance(backend, platform)
    for positions in shifted_configurations(model, 3):
        assert_same(measured(context, positions), energy_and_forces(model, positions), within)


@pytest.mark.parametrize("n_types", [1, 2])
@pytest.mark.parametrize("platform, tolerance", [("Reference", 1e-10), ("CPU", 1e-5)])
def test_system_xml_needs_openmm_alone_and_has_the_models_energy(
    tmp_path, n_types, platform, tolerance
):
    model = make_model(n_types=n_types, n=40, triclinic=True)
    model = replace(model, spec=random_spec(n_types, r_cut=0.5))
    path = save_bundle(model, tmp_path / "a.cg")
    system = openmm.XmlSerializer.deserialize((path / "system.xml").read_text())
    context = context_of(system, platform=platform)
    # Below r_min the spline goes on linearly and the core acts: two beads are put there.
    for positions in shifted_configurations(model, 2):
        positions[1] = positions[0] + [0.15, 0.02, -0.01]
        assert_same(measured(context, positions), energy_and_forces(model, positions), tolerance)


STANDALONE = """
import sys
import openmm
from openmm import app
path = sys.argv[1]
pdb = app.PDBFile(path + "/topology.pdb")
system = openmm.XmlSerializer.deserialize(open(path + "/system.xml").read())
integrator = openmm.XmlSerializer.deserialize(open(path + "/integrator.xml").read())
platform = openmm.Platform.getPlatformByName("CPU")
simulation = app.Simulation(pdb.topology, system, integrator, platform, {"Threads": "1"})
simulation.context.setPositions(pdb.positions)
simulation.context.setVelocitiesToTemperature(298.15, 1)
simulation.step(50)
energy = simulation.context.getState(getEnergy=True).getPotentialEnergy()._value
assert energy == energy
assert not any(m.startswith(("openmm_cgadv", "torch")) for m in sys.modules)
"""


@pytest.mark.parametrize("memory", [0, 2])
def test_bundle_files_make_a_running_simulation_with_openmm_alone(tmp_path, memory):
    path = save_bundle(quiet(make_model(memory=memory)), tmp_path / "a.cg")
    run = subprocess.run(
        [sys.executable, "-I", "-c", STANDALONE, str(path)], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr


def test_python_force_survives_serialization():
    model = make_model()
    system = model.create_system(backend="pythonforce", plain=True)
    copy = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(system))
    expected = energy_and_forces(model, model.positions)
    assert_same(measured(context_of(copy), model.positions), expected, 1e-10)


class TestTopology:
    def test_types_follow_the_topology_not_the_bundle(self):
        model = make_model(n_types=2)
        order = np.random.default_rng(1).permutation(len(model.types))
        topology = app.Topology()
        chain = topology.addChain()
        for kind in model.types[order]:
            topology.addAtom("X", None, topology.addResidue(model.type_names[kind], chain))
        topology.setPeriodicBoxVectors(model.topology.getPeriodicBoxVectors())
        context = context_of(model.create_system(topology, backend="pythonforce", plain=True))
        energy, forces = measured(context, model.positions[order])
        assert_same(
            (energy, forces[np.argsort(order)]), energy_and_forces(model, model.positions), 1e-10
        )

    @pytest.mark.parametrize("name", ["SOL", "WATER", "HOH"])
    def test_names_that_pdb_files_change_are_known(self, tmp_path, name):
        model = make_model()
        spec = type(model.spec)((name,), model.spec.terms)
        model = replace(model, spec=spec)
        path = save_bundle(model, tmp_path / "a.cg")
        pdb = app.PDBFile(str(path / "topology.pdb"))
        assert model.create_system(pdb.topology, plain=True).getNumParticles() == len(model.types)
        field = app.ForceField(str(path / "forcefield.xml"))
        assert field.createSystem(pdb.topology).getNumParticles() == len(model.types)
        np.testing.assert_allclose(
            pdb.getPositions(asNumpy=True)._value, model.positions, atol=1e-4
        )

    def test_unknown_beads_are_refused(self):
        topology = make_model(n_types=2).topology
        with pytest.raises(ValueError, match="found residue T1 2, expected one of .* T0"):
            make_model(n_types=1).create_system(topology)

    def test_atoms_instead_of_beads_are_refused(self):
        topology = make_model().topology
        topology.addAtom("H", None, list(topology.residues())[-1])
        with pytest.raises(ValueError, match="with 2 atoms, expected one bead per residue"):
            make_model().create_system(topology)

    def test_box_below_twice_the_cutoff_is_refused(self):
        topology = make_model().topology
        topology.setUnitCellDimensions([1.0, 2.0, 2.0] * unit.nanometer)
        with pytest.raises(ValueError, match="found a box of 1 nm, expected at least 1.1 nm"):
            make_model().create_system(topology)

    def test_box_is_needed(self):
        topology = make_model().topology
        topology.setPeriodicBoxVectors(None)
        with pytest.raises(ValueError, match="found no periodic box"):
            make_model().create_system(topology)


class TestBackendChoice:
    def test_unknown_backend_is_refused(self):
        with pytest.raises(
            ValueError, match="found 'cuda', expected one of plugin, torchforce, pythonforce"
        ):
            make_model().create_system(backend="cuda")

    def test_missing_backend_names_what_to_install(self, monkeypatch):
        monkeypatch.setattr(
            torchforce, "why_not", lambda *_: "openmmtorch is missing; pip install it"
        )
        with pytest.raises(ImportError, match="torchforce can't be used: .* pip install"):
            make_model().create_system(backend="torchforce")
        force = make_model().create_system(plain=True).getForce(0)
        assert isinstance(force, openmm.PythonForce)

    def test_the_fastest_that_works_is_taken(self, monkeypatch):
        monkeypatch.setattr(torchforce, "why_not", lambda *_: None)
        monkeypatch.setattr(plugin, "why_not", lambda *_: None)
        assert systems.choose_backend() == "plugin"
        assert systems.choose_backend(plain=True) == "torchforce"
        assert systems.choose_backend(part=True) == "plugin"
        monkeypatch.setattr(plugin, "why_not", lambda *_: "the plugin was not built")
        assert systems.choose_backend() == "torchforce"
        assert systems.choose_backend(part=True) == "pythonforce"
        monkeypatch.setattr(torchforce, "why_not", lambda *_: "openmmtorch is missing")
        assert systems.choose_backend() == "pythonforce"

    def test_platform_decides_where_the_fastest_has_no_kernels(self, monkeypatch):
        monkeypatch.setattr(torchforce, "why_not", lambda *_: None)
        assert systems.choose_backend(platform="OpenCL") == "torchforce"
        with pytest.raises(ImportError, match="no kernels for the platform OpenCL"):
            systems.choose_backend("plugin", platform="OpenCL")

    def test_fallback_is_said_once_with_its_reason(self, monkeypatch, caplog):
        monkeypatch.setattr(torchforce, "why_not", lambda *_: "the package openmmtorch is missing")
        systems._log_once.cache_clear()
        for _ in range(2):
            make_model().create_system(plain=True)
        assert [r.getMessage() for r in caplog.records if "can't be used" in r.getMessage()] == [
            "energy through pythonforce: torchforce can't be used: the package openmmtorch is missing"
        ]

    @pytest.mark.parametrize("gpu", [False, True])
    def test_opencl_on_the_processor_is_warned_of_where_openmm_chooses(
        self, monkeypatch, caplog, gpu
    ):
        if "OpenCL" not in platform_names():
            pytest.skip("OpenMM has no platform OpenCL here")
        monkeypatch.setattr(systems, "has_opencl_gpu", lambda: gpu)
        systems._warn_about_opencl.cache_clear()
        make_model().create_system(backend="plugin")
        make_model().create_system(backend="pythonforce", platform="CPU")
        assert not any("name the platform" in r.getMessage() for r in caplog.records)
        make_model().create_system(backend="pythonforce")
        systems._warn_about_opencl.cache_clear()
        found = [r for r in caplog.records if "name the platform CPU" in r.getMessage()]
        assert len(found) == (0 if gpu else 1)

    def test_a_backend_that_fails_on_the_platform_of_the_simulation_is_passed_over(
        self, monkeypatch
    ):
        """TorchForce works on OpenCL, and its library for Reference and CPU is broken."""
        monkeypatch.setattr(plugin, "why_not", lambda *_: "the plugin was not built")
        broken = {"Reference": "a symbol is missing", "CPU": "a symbol is missing"}
        monkeypatch.setattr(torchforce, "why_not", lambda platform=None: broken.get(platform))
        assert systems.choose_backend() == "torchforce"
        assert systems.choose_backend(beads=100) == "pythonforce"
        with pytest.raises(ImportError, match="a symbol is missing"):
            systems.choose_backend("torchforce", beads=100)

    def test_hidden_package_is_named(self, monkeypatch):
        monkeypatch.setattr(torchforce, "find_spec", lambda name: None)
        torchforce._reasons.cache_clear()
        try:
            assert "openmmtorch" in torchforce.why_not() and "pip install" in torchforce.why_not()
        finally:
            torchforce._reasons.cache_clear()


@pytest.mark.parametrize("n_types", [1, 2])
@pytest.mark.parametrize("backend", BACKENDS)
def test_force_field_file_makes_the_same_system(tmp_path, n_types, backend):
    model = make_model(n_types=n_types)
    path = save_bundle(model, tmp_path / "a.cg")
    field = app.ForceField(str(path / "forcefield.xml"))
    for topology in (model.topology, app.PDBFile(str(path / "topology.pdb")).topology):
        system = field.createSystem(topology, backend=backend, removeCMMotion=False)
        masses = [system.getParticleMass(k)._value for k in range(len(model.types))]
        np.testing.assert_array_equal(masses, model.masses[model.types])
        context = context_of(system)
        context.setPeriodicBoxVectors(*model.box)
        expected = energy_and_forces(model, model.positions)
        assert_same(measured(context, model.positions), expected, 1e-10)


class TestFirstSteps:
    """What a newcomer tries first, in one sentence that says what to do."""

    def test_directory_of_an_experiment_is_not_a_bundle(self, tmp_path):
        for name in ("initial.cg", "model.cg"):
            save_bundle(make_model(), tmp_path / "water" / name)
        with pytest.raises(bundles.BundleError) as caught:
            load(tmp_path / "water")
        assert str(caught.value) == (
            f"{tmp_path / 'water'}: found no model.json, expected a bundle, such as "
            f"{tmp_path / 'water' / 'model.cg'}"
        )

    def test_pdb_file_is_not_a_topology(self, tmp_path):
        model = make_model()
        bundle = save_bundle(model, tmp_path / "model.cg")
        pdb = app.PDBFile(str(bundle / "topology.pdb"))
        sentence = "topology: found PDBFile, expected an openmm.app.Topology, such as its attribute"
        for make in (model.create_system, model.create_integrator):
            with pytest.raises(InputError, match=sentence):
                make(pdb)
        with pytest.raises(InputError, match="topology: found float, expected"):
            model.create_integrator(0.005)

    @pytest.mark.parametrize("n_types", [1, 2])
    def test_a_model_prints_in_a_few_lines(self, n_types):
        text = str(make_model(n_types))
        assert len(text.splitlines()) <= 10 and max(map(len, text.splitlines())) < 80
        assert text.startswith("Model of 64 T0 in" if n_types == 1 else "Model of 32 T0, 32 T1 in")
        assert "298.15 K" in text and "5 fs" in text and "does not conserve momentum" in text


class TestIntegrator:
    @pytest.mark.parametrize(
        "options, sentence",
        [
            ({"timestep": 5}, "timestep: found 5 ps, in which thermal motion moves a bead by"),
            ({"timestep": 5 * unit.picosecond}, "expected at most 0.1[0-9] ps"),
            ({"timestep": -0.005}, "timestep: found -0.005 ps, expected more than 0"),
            ({"temperature": 0}, "temperature: found 0 K, expected more than 0"),
            ({"temperature": math.nan}, "temperature: found nan K, expected more than 0"),
        ],
    )
    def test_impossible_conditions_are_refused(self, options, sentence):
        with pytest.raises(InputError, match=sentence):
            make_model().create_integrator(**options)

    @pytest.mark.parametrize(
        "options, sentence",
        [
            ({}, None),
            ({"timestep": 10 * unit.femtosecond}, None),
            ({"timestep": 5e-6}, "found a time step of 0.005 fs, which is 0.001 times that of the"),
            (
                {"timestep": 0.02},
                "found a time step of 20 fs, which is 4 times that of the training",
            ),
            ({"temperature": 350}, "found a temperature of 350 K, but the model is valid at"),
        ],
    )
    def test_conditions_unlike_the_training_are_warned_of(self, caplog, options, sentence):
        make_model().create_integrator(**options)
        found = [record.getMessage() for record in caplog.records]
        assert len(found) == (sentence is not None)
        assert sentence is None or found[0].startswith(sentence)

    def test_one_friction_without_memory_is_langevin_middle(self):
        integrator = make_model(memory=0).create_integrator(seed=4)
        assert isinstance(integrator, openmm.LangevinMiddleIntegrator)
        assert integrator.getFriction()._value == pytest.approx(12.0)
        assert integrator.getStepSize()._value == 0.005
        assert integrator.getTemperature()._value == 298.15
        assert integrator.getRandomNumberSeed() == 4

    def test_units_are_accepted(self):
        integrator = make_model(memory=0).create_integrator(
            timestep=10 * unit.femtosecond, temperature=300 * unit.kelvin
        )
        assert integrator.getStepSize()._value == pytest.approx(0.01)
        assert integrator.getTemperature()._value == 300

    @pytest.mark.parametrize("n_types, memory", [(1, 3), (2, 2), (2, 0), (1, 0)])
    @pytest.mark.parametrize("platform", PLATFORMS)
    def test_step_is_the_rollouts_step(self, n_types, memory, platform):
        """x and s follow the equations of the step, written here once more, noise replayed."""
        model = quiet(make_model(n_types=n_types, memory=memory))
        n, size, dt = len(model.types), memory + 1, 0.005
        integrator = memory_integrator(
            model.friction.drift, model.types, model.temperature, dt, replay_noise=True
        )
        system = model.create_system(backend="pythonforce", plain=True)
        context = context_of(system, integrator, platform)
        generator = np.random.default_rng(2)
        mass = model.masses[model.types][:, None]
        sigma = np.sqrt(KB * model.temperature / mass)
        s = sigma[:, None] * generator.normal(size=(n, size, 3))
        x = model.positions.copy()
        context.setPositions(x)
        context.setVelocities(s[:, 0])
        for k in range(1, size):
            integrator.setPerDofVariableByName(f"z{k}", s[:, k])
        e, noise_factor = (
            m.numpy()[model.types] for m in propagator(torch.as_tensor(model.friction.drift), dt)
        )
        for _ in range(20):
            xi = generator.normal(size=(n, size, 3))
            for k in range(size):
                integrator.setPerDofVariableByName(f"xi{k}", xi[:, k])
            integrator.step(1)
            s[:, 0] += dt * energy_and_forces(model, x)[1] / mass
            x = x + 0.5 * dt * s[:, 0]
            s = np.einsum("nab,nbd->nad", e, s) + sigma[:, None] * np.einsum(
                "nab,nbd->nad", noise_factor, xi
            )
            x = x + 0.5 * dt * s[:, 0]
        state = context.getState(positions=True, velocities=True)
        np.testing.assert_allclose(state.getPositions(asNumpy=True)._value, x, atol=1e-10)
        np.testing.assert_allclose(state.getVelocities(asNumpy=True)._value, s[:, 0], atol=1e-9)
        for k in range(1, size):
            z = np.array(integrator.getPerDofVariableByName(f"z{k}"))
            np.testing.assert_allclose(z, s[:, k], atol=1e-9)

    @pytest.mark.parametrize("n_types", [1, 2])
    def test_free_beads_keep_the_stationary_distribution(self, n_types):
        """From the first step on, <s sᵀ> is kT/m·1: variances, and correlations of v and z."""
        model = make_model(n_types=n_types, memory=2, n=1000)
        integrator = model.create_integrator(seed=3, backend="openmm")
        system = systems.system_without_forces(model, model.topology)
        context = context_of(system, integrator)
        context.setPositions(model.positions)
        context.setVelocitiesToTemperature(model.temperature, 8)
        scale = np.sqrt(model.masses[model.types] / (KB * model.temperature))[:, None]
        for steps in (1, 40):
            integrator.step(steps)
            v = context.getState(velocities=True).getVelocities(asNumpy=True)._value
            s = np.stack(
                [v] + [np.array(integrator.getPerDofVariableByName(f"z{k}")) for k in (1, 2)]
            )
            for kind in range(n_types):
                here = model.types == kind
                samples = (s * scale)[:, here].reshape(3, -1)
                covariance = samples @ samples.T / samples.shape[1]
                # Five standard errors of a variance of independent samples.
                tolerance = 5 * np.sqrt(2 / samples.shape[1])
                np.testing.assert_allclose(covariance, np.eye(3), atol=tolerance)

    def test_memory_gives_the_velocity_correlation_of_its_drift_matrix(self):
        """<v(0) v(t)> of free beads is (kT/m) exp(−A t)_00."""
        model = make_model(memory=2, n=1000)
        integrator = model.create_integrator(seed=3, backend="openmm")
        context = context_of(systems.system_without_forces(model, model.topology), integrator)
        context.setPositions(model.positions)
        context.setVelocitiesToTemperature(model.temperature, 8)
        velocities = []
        for _ in range(60):
            velocities.append(context.getState(velocities=True).getVelocities(asNumpy=True)._value)
            integrator.step(1)
        v = np.array(velocities) * np.sqrt(model.masses[0] / (KB * model.temperature))
        for lag in (4, 12, 25):
            found = (v[lag:] * v[:-lag]).mean()
            expected = torch.matrix_exp(-torch.as_tensor(model.friction.drift[0]) * 0.005 * lag)[
                0, 0
            ].item()
            assert found == pytest.approx(expected, abs=0.03)

    def test_beads_in_the_liquid_have_maxwell_boltzmann_velocities(self):
        from scipy import stats

        model = quiet(make_model(memory=2, n=216))
        integrator = model.create_integrator(seed=5, backend="openmm")
        system = systems.system_without_forces(model, model.topology)
        for force in native_forces(model.spec, model.theta, model.types):
            system.addForce(force)
        context = context_of(system, integrator, "CPU")
        context.setPositions(model.positions)
        context.setVelocitiesToTemperature(model.temperature, 1)
        integrator.step(200)
        samples = []
        for _ in range(20):
            integrator.step(100)
            samples.append(context.getState(velocities=True).getVelocities(asNumpy=True)._value)
        u = np.array(samples).ravel() * np.sqrt(model.masses[0] / (KB * model.temperature))
        assert stats.kstest(u, "norm").pvalue > 1e-3

    def test_seed_repeats_the_trajectory(self):
        model = quiet(make_model())
        ends = []
        for seed in (1, 1, 2):
            integrator = model.create_integrator(seed=seed, backend="openmm")
            context = context_of(model.create_system(backend="pythonforce"), integrator)
            context.setPositions(model.positions)
            context.setVelocitiesToTemperature(model.temperature, 1)
            integrator.step(5)
            ends.append(context.getState(positions=True).getPositions(asNumpy=True)._value)
        np.testing.assert_array_equal(ends[0], ends[1])
        assert np.abs(ends[0] - ends[2]).max() > 1e-6
