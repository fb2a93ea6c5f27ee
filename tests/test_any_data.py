"""Trajectories as people have them give the motion that their beads had, or a refusal."""

import mdtraj
import numpy as np
import openmm
import pytest
import torch
from openmm import unit

from openmm_cgadv.analysis.msd import msd
from openmm_cgadv.analysis.vacf import vacf
from openmm_cgadv.data.mapping import Mapping
from openmm_cgadv.data.reference import read_trajectory, select_frames
from openmm_cgadv.data.reference.rounding import rounding_step
from openmm_cgadv.data.reference.systems import create_context, liquid_box
from openmm_cgadv.data.trajectory import BeadTrajectory, BeadWriter
from openmm_cgadv.methods.adversarial.windows import ReferenceWindows

INTERVAL = 0.02
LAGS = INTERVAL * 2.0 ** np.arange(6)


def run(liquid, molecules, temperature, frames, pressure=None):
    """All-atom topology, unwrapped positions [T, n, 3] and boxes [T, 3, 3] of a short run."""
    topology, system, positions = liquid_box(liquid, molecules, temperature)
    if pressure is not None:
        barostat = openmm.MonteCarloBarostat(pressure, temperature, 10)
        barostat.setRandomNumberSeed(1)
        system.addForce(barostat)

    def integrator():
        made = openmm.LangevinMiddleIntegrator(temperature, 1.0, 0.002)
        made.setRandomNumberSeed(1)
        return made

    context = create_context(system, integrator, threads=1)
    context.setPositions(positions)
    openmm.LocalEnergyMinimizer.minimize(context, maxIterations=100)
    context.setVelocitiesToTemperature(temperature, 1)
    context.getIntegrator().step(1000)
    context.getIntegrator().setFriction(0.1)
    x, boxes = [], []
    for _ in range(frames):
        context.getIntegrator().step(10)
        state = context.getState(positions=True)
        x.append(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer))
        boxes.append(state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer))
    return mdtraj.Topology.from_openmm(topology), np.array(x), np.array(boxes)


@pytest.fixture(scope="module")
def water():
    return run("spce", 64, 298.15, 200)


@pytest.fixture(scope="module")
def argon():
    return run("argon", 150, 87.0, 800)


@pytest.fixture(scope="module")
def argon_at_constant_pressure():
    return run("argon", 150, 87.0, 800, pressure=1.0)


def wrapped(x, boxes, each=1):
    """Atoms, or molecules of `each` atoms, put back into the box."""
    by = np.repeat(x[:, ::each], each, axis=1)
    return x - np.floor(by @ np.linalg.inv(boxes)) @ boxes


def read(folder, topology, x, boxes, kind="trr", **options):
    """Beads of a trajectory that was written in a format and read again."""
    folder.mkdir(exist_ok=True)
    trajectory = mdtraj.Trajectory(x, topology, time=INTERVAL * np.arange(len(x)))
    trajectory.unitcell_vectors = boxes
    trajectory[0].save_pdb(str(folder / "top.pdb"))
    trajectory.save(str(folder / f"a.{kind}"))
    path = read_trajectory(
        folder / "beads.h5",
        topology=folder / "top.pdb",
        files=folder / f"a.{kind}",
        frame_interval=INTERVAL,
        temperature=298.15,
        **options,
    )
    return BeadTrajectory.open(path)


def displacements(beads):
    return msd(beads, LAGS).values()


def exact(folder, topology, x, boxes):
    """Mean squared displacements of whole, unwrapped molecules."""
    mapping = Mapping.per_residue(topology)
    about = mapping.masses, mapping.types, mapping.type_names, 298.15, INTERVAL, {}
    with BeadWriter(folder / "exact.h5", *about) as writer:
        writer.append(mapping.positions(x), boxes)
        writer.finish()
    with BeadTrajectory.open(folder / "exact.h5") as beads:
        return displacements(beads)


@pytest.mark.parametrize("how", ["unwrapped", "whole", "broken"])
def test_whole_broken_wrapped_and_unwrapped_molecules_move_alike(tmp_path, water, how):
    topology, x, boxes = water
    truth = exact(tmp_path, topology, x, boxes)
    seen = {"unwrapped": x, "whole": wrapped(x, boxes, 3), "broken": wrapped(x, boxes)}[how]
    with read(tmp_path, topology, seen, boxes) as beads:
        assert displacements(beads) == pytest.approx(truth, rel=1e-3)


def test_a_drifting_center_of_mass_does_not_count(tmp_path, water):
    topology, x, boxes = water
    truth = exact(tmp_path, topology, x, boxes)
    drift = np.arange(len(x))[:, None, None] * np.array([0.01, -0.02, 0.005])
    with read(tmp_path, topology, wrapped(x + drift, boxes), boxes) as beads:
        assert displacements(beads) == pytest.approx(truth, rel=1e-3)
    with read(
        tmp_path / "some", topology, wrapped(x + drift, boxes), boxes, selection="resid < 40"
    ) as beads:
        assert displacements(beads)[-1] == pytest.approx(truth[-1], rel=0.3)
    with read(
        tmp_path / "half", topology, wrapped(x + drift / 0.02 * boxes[0, 0, 0], boxes), boxes
    ) as beads:
        assert displacements(beads) == pytest.approx(truth, rel=1e-3)


def test_a_fluctuating_box_does_not_count_as_motion(tmp_path, water):
    topology, x, boxes = water
    truth = exact(tmp_path, topology, x, boxes)
    rng = np.random.default_rng(0)
    strain = np.zeros(len(x))
    for t in range(1, len(x)):
        strain[t] = 0.98 * strain[t - 1] + 0.001 * rng.normal()
    strain -= strain.mean()
    # Molecules keep their shape while their centres are scaled with the box, as by a barostat.
    centers = np.repeat(Mapping.per_residue(topology).positions(x), 3, axis=1)
    scaled = x + strain[:, None, None] * centers
    changing = boxes * (1 + strain)[:, None, None]
    for name, seen in (
        ("broken", wrapped(scaled, changing)),
        ("whole", wrapped(scaled, changing, 3)),
    ):
        with read(tmp_path / name, topology, seen, changing) as beads:
            assert np.ptp(beads.boxes(), axis=0).max() == 0
            assert beads.boxes([0])[0] == pytest.approx(changing.mean(0), abs=1e-5)
            assert displacements(beads) == pytest.approx(truth, rel=2e-3)
            assert beads.provenance["box_fluctuation"] == pytest.approx(strain.std(), rel=0.01)


def test_a_run_at_constant_pressure_moves_as_one_at_constant_volume(
    tmp_path, argon, argon_at_constant_pressure
):
    found = []
    for name, (topology, x, boxes) in (("v", argon), ("p", argon_at_constant_pressure)):
        assert (np.ptp(boxes, axis=0).max() > 0.01) == (name == "p")
        with read(tmp_path / name, topology, wrapped(x, boxes), boxes) as beads:
            found.append(displacements(beads))
    # The thermal speed is within 1.5 %, but densities differ by one or two, and D by some 10 %.
    assert found[1][:4] / found[0][:4] == pytest.approx(np.ones(4), abs=0.1)


def test_boxes_that_change_too_much_or_unwrapped_in_changing_boxes_are_rejected(tmp_path, argon):
    topology, x, boxes = argon
    shrinking = np.linspace(1.1, 1.0, len(x))[:, None, None]
    with pytest.raises(
        ValueError, match=r"a box that changes by 2.8 % .*, expected at most 2 %: remove the equil"
    ):
        read(tmp_path / "a", topology, wrapped(x, boxes) * shrinking, boxes * shrinking)
    some = 1 + 0.002 * np.sin(np.arange(len(x)))[:, None, None]
    far = x + np.where(np.arange(x.shape[1]) % 2, 2.0, 0.0)[None, :, None] * boxes[0, 0, 0]
    with pytest.raises(ValueError, match="unwrapped coordinates that extend over .* boxes"):
        read(tmp_path / "b", topology, far * some, boxes * some)
    # Wrapped at first, and never again: some have left the box, none came back.
    gone = x - np.floor(x[:1] / boxes[0, 0, 0]) * boxes[0, 0, 0]
    assert 1.1 < np.ptp(gone, axis=1).max() / boxes[0, 0, 0] < 2
    with pytest.raises(ValueError, match="unwrapped coordinates that extend over 1.* boxes"):
        read(tmp_path / "c", topology, gone * some, boxes * some)
    assert not list(tmp_path.rglob("*.partial"))


def test_bead_files_of_a_barostat_are_rejected(tmp_path, argon_at_constant_pressure):
    """Absolute positions hold what the barostat moved, which can't be told from motion."""
    _, x, boxes = argon_at_constant_pressure
    beads = tmp_path / "beads.h5"
    with BeadWriter(
        beads, [39.95] * x.shape[1], [0] * x.shape[1], ("Ar",), 87.0, INTERVAL
    ) as writer:
        writer.append(x, boxes)
        writer.finish()
    with pytest.raises(
        ValueError, match=r"beads.h5: found a box that changes by .* %, expected a constant one"
    ):
        select_frames(tmp_path / "some.h5", beads=beads, frame_interval=INTERVAL, temperature=87.0)


def test_rounded_coordinates_are_recognized(argon):
    _, x, _ = argon
    assert rounding_step(x[:20]) is None
    for step in (0.01, 0.005, 0.002, 0.001, 0.0005, 0.0001):
        assert rounding_step((step * np.round(x[:20] / step)).astype(np.float32)) == step


def test_rounding_adds_nothing_to_reported_displacements_and_velocities(tmp_path, argon):
    topology, x, boxes = argon
    with (
        read(tmp_path / "exact", topology, x, boxes) as full,
        read(tmp_path / "xtc", topology, x, boxes, "xtc") as beads,
    ):
        assert (
            beads.provenance["rounding"]["step_nm"] == 0.001 and "rounding" not in full.provenance
        )
        assert beads.position_errors == pytest.approx([0.001 / np.sqrt(12)])
        truth, found = displacements(full), displacements(beads)
        raw = ((np.diff(beads.positions(), axis=0)) ** 2).sum(-1).mean()
        assert raw > 1.015 * truth[0]
        assert found == pytest.approx(truth, rel=3e-3)
        assert vacf(beads).values() == pytest.approx(vacf(full).values(), abs=3e-3)


def test_generated_windows_are_given_the_errors_of_a_rounded_reference(tmp_path, argon):
    topology, x, boxes = argon
    random = torch.Generator().manual_seed(1)
    with (
        read(tmp_path / "exact", topology, x, boxes) as full,
        read(tmp_path / "xtc", topology, x, boxes, "xtc") as beads,
    ):
        true = ReferenceWindows(full, [1, 2, 4])
        rounded = ReferenceWindows(beads, [1, 2, 4])
        windows = torch.cat([one.positions for one in true.evenly_spaced(400)])
        assert true.add_rounding_errors(windows, random) is windows
        given = rounded.add_rounding_errors(windows, random).transpose(1, 2).flatten(0, 1)
        windows = windows.transpose(1, 2).flatten(0, 1)
        seen = torch.cat([one.selected_positions for one in rounded.evenly_spaced(400)])

    def moments(w):
        steps = np.diff(w.numpy(), axis=1)
        return np.array([(steps**2).mean((0, 2))[0], (steps[:, 0] * steps[:, 1]).mean()])

    # Errors of neighbouring increments are anticorrelated, as a frame's error is in both.
    before, after, wanted = moments(windows), moments(given), moments(seen)
    assert wanted[0] / before[0] > 1.015
    assert after == pytest.approx(wanted, rel=0.012)


def test_coordinates_rounded_as_coarsely_as_the_motion_give_a_warning(tmp_path, argon):
    topology, x, boxes = argon
    coarse = 0.01 * np.round(x / 0.01)
    with read(tmp_path, topology, coarse, boxes) as beads:
        assert beads.provenance["rounding"]["step_nm"] == 0.01
        assert not beads.position_errors.any()
        temperature, interval = beads.temperature, beads.frame_interval
    # Of fewer frames, between which beads move more, the errors are independent and are corrected.
    sparse = select_frames(
        tmp_path / "sparse.h5",
        beads=beads.path,
        frame_interval=4 * interval,
        temperature=temperature,
    )
    with (
        BeadTrajectory.open(sparse) as thinned,
        read(tmp_path / "exact", topology, x, boxes) as full,
    ):
        assert thinned.position_errors == pytest.approx([0.01 / np.sqrt(12)])
        raw = (np.diff(thinned.positions(), axis=0) ** 2).sum(-1).mean()
        found, truth = (msd(beads, [4 * interval]).values()[0] for beads in (thinned, full))
        assert raw > 1.02 * truth
        assert found == pytest.approx(truth, rel=0.01)
