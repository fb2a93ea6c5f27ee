"""Boxes of other programs are brought to OpenMM's reduced form, whatever their file rounds."""

import mdtraj
import numpy as np
import openmm
import pytest
from openmm import app, unit
from typer.testing import CliRunner

from openmm_cgadv.data.boxes import reduced_boxes
from openmm_cgadv.errors import InputError
from openmm_cgadv.workflow.cli import app as cgadv

DODECAHEDRON = np.array([[1, 0, 0], [0, 1, 0], [0.5, 0.5, 0.5**0.5]])
OCTAHEDRON = np.array([[1, 0, 0], [1 / 3, 8**0.5 / 3, 0], [-1 / 3, 2**0.5 / 3, 6**0.5 / 3]])


def rounded(box, frames, seed=0):
    """A box as single precision and a file of angles round it, differently in every frame."""
    noise = np.random.default_rng(seed).uniform(-2e-6, 2e-6, [frames, 3, 3])
    return np.tril(box * (1 + noise)).astype(np.float32)


def nearest(d, box):
    """Length of the shortest image of displacements [M, 3], by trying all images around."""
    shifts = np.stack(np.meshgrid(*[np.arange(-3, 4)] * 3, indexing="ij"), -1).reshape(-1, 3) @ box
    return np.linalg.norm(d[:, None] + shifts, axis=2).min(1)


@pytest.mark.parametrize("shape", [DODECAHEDRON, OCTAHEDRON, np.eye(3)], ids=["rd", "to", "cube"])
@pytest.mark.parametrize("sign", [1, -1])
def test_rounding_leaves_one_form_that_openmm_takes(shape, sign):
    boxes = 2.3 * rounded(shape, 50)
    boxes[:, 2, :2] *= sign
    reduced = reduced_boxes(boxes)
    assert reduced.std(0).max() < 1e-5
    for before, after in zip(boxes, reduced):
        system = openmm.System()
        system.setDefaultPeriodicBoxVectors(*after)
        # The same lattice: a whole, unimodular change of its vectors.
        change = after @ np.linalg.inv(before.astype(float))
        assert np.abs(change - np.rint(change)).max() < 2e-5
        assert abs(abs(np.linalg.det(np.rint(change))) - 1) < 1e-9


def test_any_lower_triangular_box_is_reduced_to_the_same_lattice():
    generator = np.random.default_rng(1)
    boxes = np.tril(generator.uniform(-6, 6, [200, 3, 3]))
    boxes[:, range(3), range(3)] = generator.uniform(1, 3, [200, 3])
    for before, after in zip(boxes, reduced_boxes(boxes)):
        assert abs(after[1, 0]) <= 0.5 * after[0, 0] * (1 + 1e-12)
        assert (np.abs(after[2, :2]) <= 0.5 * after[[0, 1], [0, 1]] * (1 + 1e-12)).all()
        change = after @ np.linalg.inv(before)
        assert np.abs(change - np.rint(change)).max() < 1e-8


def test_distances_are_those_of_the_box_in_the_file():
    box = 2.0 * OCTAHEDRON
    d = np.random.default_rng(2).uniform(-1, 1, [40, 3])
    assert nearest(d, reduced_boxes(box[None])[0]) == pytest.approx(nearest(d, box), abs=1e-9)


@pytest.mark.parametrize(
    "box", [[[1, 0.2, 0], [0, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, -1, 0], [0, 0, 1]]]
)
def test_rotated_boxes_are_refused(box):
    with pytest.raises(InputError, match="found box vectors .* expected a along x, b in the plane"):
        reduced_boxes(np.array([box], float))


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["dodecahedron", "octahedron"])
def test_every_stage_runs_in_the_boxes_of_solutes(tmp_path, shape):
    """Real water from an XTC file, the rounding of which takes its box out of the reduced form."""
    force_field = app.ForceField("spce.xml")
    modeller = app.Modeller(app.Topology(), [] * unit.nanometer)
    modeller.addSolvent(force_field, model="spce", numAdded=250, boxShape=shape)
    topology, positions = modeller.topology, modeller.positions
    system = force_field.createSystem(
        topology, nonbondedMethod=app.CutoffPeriodic, nonbondedCutoff=0.7 * unit.nanometer
    )
    integrator = openmm.NoseHooverIntegrator(298.15, 2.0, 0.002)
    platform = openmm.Platform.getPlatform("CPU")
    simulation = app.Simulation(topology, system, integrator, platform, {"Threads": "2"})
    simulation.context.setPositions(positions)
    simulation.minimizeEnergy(maxIterations=200)
    simulation.context.setVelocitiesToTemperature(298.15, 1)
    simulation.step(1500)
    frames, boxes = [], []
    for _ in range(300):
        simulation.step(10)
        state = simulation.context.getState(positions=True, enforcePeriodicBox=True)
        frames.append(state.getPositions(asNumpy=True)._value)
        boxes.append(state.getPeriodicBoxVectors(asNumpy=True)._value)
    times = 0.02 * np.arange(len(frames))
    known = mdtraj.Topology.from_openmm(topology)
    written = mdtraj.Trajectory(np.array(frames), known, times)
    written.unitcell_vectors = np.array(boxes) * (1 + np.tril(np.full([3, 3], 2e-6), -1))
    written.save_xtc(str(tmp_path / "water.xtc"))
    written[0].save_gro(str(tmp_path / "water.gro"))
    (tmp_path / "water.yaml").write_text(
        "reference:\n  temperature_K: 298.15\n"
        "  trajectory: {topology: water.gro, files: water.xtc, frame_interval_fs: 20}\n"
        "training: {iterations: 3, validate_every: 2, chains: 2, window_ps: 0.4}\n"
        "production: {length_ps: 4, equilibration_ps: 0.5}\n"
    )
    out = tmp_path / "out"
    run = CliRunner().invoke(cgadv, ["run", str(tmp_path / "water.yaml"), "--out", str(out)])
    assert run.exit_code == 0, run.stderr
    assert (out / "report" / "index.html").exists()
