"""All-atom liquids are made at their density and temperature; trajectories at hand become true beads."""

import mdtraj
import numpy as np
import openmm
import pytest
from all_atom_files import HOT, INTERVAL, all_atom, save, wrap
from mdtraj.formats import TRRTrajectoryFile

from openmm_cgadv.data.mapping import Mapping
from openmm_cgadv.data.reference import read_trajectory, run_liquid, select_frames, simulate
from openmm_cgadv.data.reference.read import ReadSettings
from openmm_cgadv.data.reference.steps import Steps
from openmm_cgadv.data.reference.systems import expected_density, liquid_box, volume_uncertainty
from openmm_cgadv.data.trajectory import BeadTrajectory, BeadWriter
from openmm_cgadv.errors import LockedError
from openmm_cgadv.units import KB

TRICLINIC = np.array([[1.6, 0, 0], [0.5, 1.5, 0], [-0.4, 0.3, 1.4]])


# Water made to order


@pytest.fixture(scope="module")
def water(tmp_path_factory):
    path = tmp_path_factory.mktemp("water") / "beads.h5"
    run_liquid(
        path,
        liquid="spce",
        molecules=64,
        temperature=320.0,
        length=6.0,
        equilibration_ps=5.0,
        threads=1,
    )
    with BeadTrajectory.open(path) as read:
        yield read


def assert_at_rest(read):
    """The whole has no momentum, but for single precision."""
    thermal = np.sqrt(read.masses.sum() * KB * read.temperature)
    assert np.abs(read.masses @ read.velocities()[:, :]).max() < 1e-3 * thermal


def test_beads_have_the_temperature_of_the_water(water):
    v = water.velocities()
    n = water.n_beads
    kinetic = (water.masses[:, None] * v**2).sum(axis=(1, 2)).mean()
    assert kinetic / (3 * (n - 1) * KB) == pytest.approx(320.0, abs=50)  # 5 sd
    assert_at_rest(water)


def test_what_a_time_step_adds_to_the_kinetic_energy_is_that_of_oscillators():
    """Positions and half-step velocities of x'' = -w^2 x circle on x = A cos(p n), v = A w sin(p (n + 1/2)); their canonical
    distribution is that of the action A^2 w cos(p / 2) / 2 times the frequency p / dt, with p = 2 asin(w dt / 2)."""
    dt, frequencies = 0.002, np.repeat([20.0, 140.0, 300.0], 100)
    system, force = openmm.System(), openmm.CustomExternalForce("0.5 * k * (x^2 + y^2 + z^2)")
    force.addPerParticleParameter("k")
    for i, w in enumerate(frequencies):
        system.addParticle(2.0)
        force.addParticle(i, [2.0 * w**2])
    system.addForce(force)
    context = openmm.Context(
        system, openmm.VerletIntegrator(dt), openmm.Platform.getPlatformByName("Reference")
    )
    p = 2 * np.arcsin(frequencies * dt / 2)
    amplitude = np.sqrt(
        2 / (frequencies * np.cos(p / 2) * p / dt)
    )  # of a mean action times frequency of 1
    phase = np.random.default_rng(1).uniform(0, 2 * np.pi, [len(p), 3])
    context.setPositions(amplitude[:, None] * np.cos(phase))
    context.setVelocities(-(amplitude * frequencies)[:, None] * np.sin(phase - p[:, None] / 2))
    exact = np.mean(amplitude**2 * frequencies**2) / 2 - 1
    assert simulate.half_step_excess(context) == pytest.approx(exact, rel=0.05)


def test_water_has_its_density(water):
    volume = np.linalg.det(water.boxes())
    assert np.ptp(volume) == 0
    density = water.masses.sum() * 1.66053906660e-3 / volume[0]
    assert density == pytest.approx(water.provenance["density"], rel=1e-4)
    assert density == pytest.approx(expected_density("spce", 320.0)[0], rel=0.02)


def test_bead_positions_are_continuous_and_follow_the_velocities(water):
    x, v = water.positions(), water.velocities()
    assert (water.n_frames, water.frame_interval) == (300, INTERVAL)
    assert np.abs(np.diff(x, axis=0)).max() < 0.1
    slope = (x[2:] - x[:-2]) / (2 * INTERVAL)
    assert np.corrcoef(slope.ravel(), v[1:-1].ravel())[0, 1] > 0.95


@pytest.mark.parametrize(
    "liquid, temperature",
    [
        ("tip3p", 298.15),
        ("tip4pew", 298.15),
        ("argon", 87.0),
        ("lj_mixture", 115.0),
        ("methanol", 298.15),
    ],
)
def test_bead_forces_are_the_rate_of_change_of_momentum(liquid, temperature, tmp_path):
    path = run_liquid(
        tmp_path / "beads.h5",
        liquid=liquid,
        molecules=30,
        temperature=temperature,
        length=0.04,
        frame_interval=0.002,
        equilibration_ps=0.5,
        threads=1,
    )
    with BeadTrajectory.open(path) as read:
        rate = read.masses[:, None] * np.diff(read.velocities(), axis=0) / 0.002
        force = read.forces()[:-1]
        # Taking the drift of the center of mass away costs every molecule a little momentum.
        assert np.abs(rate - force).max() < 0.02 * np.abs(force).max()


@pytest.fixture(
    scope="module",
    params=[
        ("argon", 90.0, (("AR", 39.948),)),
        ("lj_mixture", 115.0, (("AR", 39.948), ("KR", 83.798))),
        ("methanol", 298.15, (("MOH", 32.042),)),
    ],
    ids=lambda case: case[0],
)
def other(request, tmp_path_factory):
    """A short run of another liquid than water, with its name, temperature and beads."""
    liquid, temperature, beads = request.param
    path = tmp_path_factory.mktemp(liquid) / "beads.h5"
    run_liquid(
        path,
        liquid=liquid,
        molecules=40,
        temperature=temperature,
        length=3.0,
        equilibration_ps=3.0,
        threads=1,
    )
    with BeadTrajectory.open(path) as read:
        yield read, liquid, temperature, beads


def test_other_liquids_have_their_beads_density_and_temperature(other):
    read, liquid, temperature, beads = other
    assert read.type_names == tuple(name for name, _ in beads)
    for kind, (_, mass) in enumerate(beads):
        assert (read.types == kind).sum() == 40 / len(beads)
        assert read.masses[read.types == kind] == pytest.approx(mass, abs=2e-3)
    density = read.masses.sum() * 1.66053906660e-3 / np.linalg.det(read.boxes()[0])
    assert density == pytest.approx(expected_density(liquid, temperature)[0], rel=0.03)
    assert density == pytest.approx(read.provenance["density"], rel=1e-4)
    v = read.velocities()
    kinetic = (read.masses[:, None] * v**2).sum(axis=(1, 2)).mean()
    # 117 degrees of freedom, renewed about ten times in 3 ps: five standard deviations.
    assert kinetic / (3 * 39 * KB * temperature) == pytest.approx(1, abs=0.25)
    assert_at_rest(read)


def test_other_liquids_flow(other):
    """In a crystal at its melting point atoms stay within 0.05 nm of where they were."""
    read = other[0]
    x = read.positions()
    assert np.sqrt(((x[-1] - x[0]) ** 2).sum(-1).mean()) > 0.08


def test_unlike_atoms_of_methanol_mix_geometrically():
    """The energy of one pair of molecules is that of the published parameters, pair by pair."""
    _, system, _ = liquid_box("methanol", 2, 298.15)
    force = next(f for f in system.getForces() if isinstance(f, openmm.CustomNonbondedForce))
    alone = openmm.System()
    for _i in range(12):
        alone.addParticle(1.0)
    force = openmm.XmlSerializer.clone(force)
    force.setNonbondedMethod(force.NoCutoff)
    alone.addForce(force)
    x = np.random.default_rng(0).uniform(0, 0.3, (12, 3))
    x[6:, 0] += 0.5
    context = openmm.Context(
        alone, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )
    context.setPositions(x)
    sigma = np.array([0.35, 0.312, 0.25, 0.25, 0.25, 0.1])
    epsilon = 4.184 * np.array([0.066, 0.170, 0.030, 0.030, 0.030, 0.0])
    r = np.linalg.norm(x[:6, None] - x[None, 6:], axis=-1)
    s = (np.sqrt(np.outer(sigma, sigma)) / r) ** 6
    expected = (4 * np.sqrt(np.outer(epsilon, epsilon)) * (s**2 - s)).sum()
    assert context.getState(energy=True).getPotentialEnergy()._value == pytest.approx(
        expected, rel=1e-4
    )


FREQUENT_CHECKPOINTS = simulate.LiquidProtocol(checkpoint_frames=10)
SMALL_CHUNKS = ReadSettings(chunk_atoms=15 * 16)


def arguments(**changes):
    return (
        dict(
            liquid="spce",
            molecules=20,
            temperature=298.15,
            length=0.12,
            frame_interval=0.004,
            equilibration_ps=0.1,
            platform="Reference",
            threads=1,
        )
        | changes
    )


class Stop(Exception):
    pass


def stop_at(time):
    def progress(done, total):
        assert total == pytest.approx(0.22)
        if done > time:
            raise Stop

    return progress


def test_part_of_a_bead_trajectory_is_its_own_frames(water, tmp_path):
    asked = dict(beads=water.path, frame_interval=0.1, temperature=320.0, length=4.0)
    path = select_frames(tmp_path / "part.h5", **asked)
    with BeadTrajectory.open(path) as part:
        assert (part.n_frames, part.frame_interval, part.complete) == (40, 0.1, True)
        for name in ("positions", "velocities", "forces", "boxes"):
            assert np.array_equal(getattr(part, name)(), getattr(water, name)(slice(0, 200, 5)))
        assert np.array_equal(part.masses, water.masses) and part.type_names == water.type_names
    before = path.stat().st_mtime_ns
    select_frames(path, **asked)
    assert path.stat().st_mtime_ns == before
    whole = select_frames(tmp_path / "whole.h5", **asked | {"length": None})
    with BeadTrajectory.open(whole) as part:
        assert part.n_frames == 60
    for change, sentence in (
        ({"frame_interval": 0.05}, "frame_interval_fs: found 50, expected a multiple of the 20 fs"),
        ({"temperature": 300.0}, "temperature_K: found 300, expected the 320 K of .*beads.h5"),
        ({"length": 7.0}, "length_ps: found 7, expected at most the 6 ps of .*beads.h5"),
    ):
        with pytest.raises(ValueError, match=sentence):
            select_frames(tmp_path / "no.h5", **asked | change)


def test_an_interrupted_run_ends_as_the_uninterrupted_one(tmp_path):
    whole = run_liquid(tmp_path / "whole.h5", **arguments(protocol=FREQUENT_CHECKPOINTS))
    path = tmp_path / "parts.h5"
    for time in (0.05, 0.1 + 14.5 * 0.004, 0.1 + 25.5 * 0.004):
        with pytest.raises(Stop):
            run_liquid(path, **arguments(protocol=FREQUENT_CHECKPOINTS), progress=stop_at(time))
    with BeadTrajectory.open(path) as read:
        assert not read.complete and read.n_frames == 26
    run_liquid(path, **arguments(protocol=FREQUENT_CHECKPOINTS))
    assert not path.with_name("parts.h5.checkpoint").exists()
    with BeadTrajectory.open(path) as parts, BeadTrajectory.open(whole) as one:
        assert parts.complete and parts.n_frames == one.n_frames == 30
        assert parts.provenance == one.provenance
        for name in ("positions", "velocities", "forces", "boxes"):
            assert np.array_equal(getattr(parts, name)(), getattr(one, name)())


def test_a_finished_run_is_not_run_again(tmp_path):
    path = run_liquid(tmp_path / "beads.h5", **arguments())
    before = path.read_bytes()
    run_liquid(path, **arguments(), progress=stop_at(0))
    assert path.read_bytes() == before
    for name, value in (("seed", 2), ("temperature", 300.0), ("liquid", "tip3p")):
        with pytest.raises(
            ValueError, match=f"h5: found a trajectory made with {name} = .*, expected {value}"
        ):
            run_liquid(path, **arguments(**{name: value}))


def test_a_deleted_trajectory_is_computed_again_whatever_files_remain(tmp_path):
    path = tmp_path / "beads.h5"
    with pytest.raises(Stop):
        run_liquid(path, **arguments(protocol=FREQUENT_CHECKPOINTS), progress=stop_at(0.2))
    path.unlink()
    run_liquid(path, **arguments(seed=3, protocol=FREQUENT_CHECKPOINTS))
    with BeadTrajectory.open(path) as read:
        assert read.complete and read.n_frames == 30
        assert read.provenance["arguments"]["seed"] == 3


def test_an_unfinished_run_is_not_continued_with_other_arguments(tmp_path):
    with pytest.raises(Stop):
        run_liquid(tmp_path / "beads.h5", **arguments(), progress=stop_at(0.15))
    with pytest.raises(ValueError, match="made with length = 0.12, expected 0.2"):
        run_liquid(tmp_path / "beads.h5", **arguments(length=0.2))
    checkpoint = tmp_path / "beads.h5.checkpoint"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    with pytest.raises(ValueError, match="beads.h5.checkpoint is corrupt"):
        run_liquid(tmp_path / "beads.h5", **arguments())
    (tmp_path / "beads.h5").write_bytes((tmp_path / "beads.h5").read_bytes()[:-100])
    with pytest.raises(ValueError, match="beads.h5 is not a complete HDF5 file"):
        run_liquid(tmp_path / "beads.h5", **arguments())


@pytest.mark.parametrize(
    "change, words",
    [
        ({"liquid": "spc"}, "liquid: found 'spc', expected one of spce, tip3p, tip4pew, argon"),
        (
            {"liquid": "argon"},
            "temperature: found 298.15 K, expected 80 to 110 K, where argon is a liquid",
        ),
        ({"molecules": 8}, "molecules: found 8, expected at least 20"),
        ({"frame_interval": 0.003}, "frame_interval: found 0.003 ps, expected a multiple"),
        ({"temperature": -1.0}, "temperature: found -1.0, expected a positive number"),
        ({"length": 0.005}, "length: found 0.005 ps, expected at least two frame intervals"),
        ({"platform": "Abacus"}, "platform: found 'Abacus', expected one of Reference"),
    ],
)
def test_bad_arguments_are_named_before_any_work(tmp_path, change, words):
    with pytest.raises(ValueError, match=words):
        run_liquid(tmp_path / "beads.h5", **arguments(**change))
    assert not list(tmp_path.iterdir())


def test_shorter_runs_at_constant_pressure_have_a_larger_volume_uncertainty():
    assert volume_uncertainty("spce", 298.15, 10.3, 20.0) == pytest.approx(0.0074, rel=0.02)
    assert volume_uncertainty("spce", 298.15, 10.3, 80.0) == pytest.approx(0.0037, rel=0.02)
    assert expected_density("tip4pew", 298.15) == (0.9954, 0.003)


# Trajectories at hand


def at_rest(beads):
    """Equal beads relative to their centre, which stays where it was at first."""
    center = beads.mean(axis=1, keepdims=True)
    return beads - center + center[0]


@pytest.fixture
def topology_file(tmp_path):
    topology, x, boxes = all_atom(1)
    return save(tmp_path / "top.pdb", topology, x, boxes)


def read(tmp_path, topology_file, files, **changes):
    path = read_trajectory(
        tmp_path / "beads.h5",
        topology=topology_file,
        files=files,
        **dict(frame_interval=INTERVAL, temperature=HOT) | changes,
    )
    return BeadTrajectory.open(path)


@pytest.mark.parametrize(
    "kind, error",
    [("xtc", 2e-3), ("trr", 1e-6), ("dcd", 1e-6), ("nc", 1e-6), ("gro", 2e-3), ("pdb", 2e-3)],
)
@pytest.mark.parametrize("box", [1.5 * np.eye(3), TRICLINIC], ids=["cubic", "triclinic"])
def test_wrapped_and_broken_molecules_give_the_beads_of_whole_ones(
    tmp_path, topology_file, kind, error, box
):
    topology, x, boxes = all_atom(box=box)
    truth = Mapping.per_residue(topology).positions(x)
    truth -= np.round((truth[0] - wrap(truth, boxes)[0]) @ np.linalg.inv(box)) @ box
    for atomwise in (True, False):
        file = save(tmp_path / f"{atomwise}.{kind}", topology, wrap(x, boxes, atomwise), boxes)
        with read(tmp_path, topology_file, file, settings=SMALL_CHUNKS) as beads:
            assert beads.complete and beads.n_frames == 40
            assert beads.boxes() == pytest.approx(boxes, abs=1e-3)
            found = beads.positions()
            shift = np.round((found[0] - truth[0]) @ np.linalg.inv(box)) @ box
            assert np.abs(found - shift - at_rest(truth)).max() < error
            assert np.abs(found[-1] - found[0]).max() > 1.0
        (tmp_path / "beads.h5").unlink()


def test_velocities_and_forces_of_trr_are_mapped(tmp_path, topology_file):
    topology, x, boxes = all_atom()
    v, f = np.random.default_rng(1).normal(size=(2, *x.shape)).astype(np.float32)
    file = save(tmp_path / "a.trr", topology, x, boxes, velocities=v, forces=f)
    mapping = Mapping.per_residue(topology)
    with read(tmp_path, topology_file, file) as beads:
        assert beads.velocities() == pytest.approx(mapping.velocities(v), abs=1e-6)
        assert beads.forces() == pytest.approx(mapping.forces(f), abs=1e-5)
    with read(tmp_path / "other", topology_file, save(tmp_path / "b.trr", topology, x, boxes)) as b:
        assert not b.has_velocities and not b.has_forces


def test_what_only_some_frames_of_trr_hold_is_left_out(tmp_path, topology_file):
    """Intervals of output may differ, and MDTraj fills what is not there with what was in memory."""
    topology, x, boxes = all_atom()
    v, f = np.random.default_rng(1).normal(size=(2, *x.shape)).astype(np.float32)
    file = tmp_path / "a.trr"
    with TRRTrajectoryFile(str(file), "w") as opened:
        for t in range(len(x)):
            one = slice(t, t + 1)
            opened._write(
                x[one].astype(np.float32),
                np.float32([INTERVAL * t]),
                np.int32([t]),
                boxes[one].astype(np.float32),
                np.zeros(1, np.float32),
                v[one] if t % 5 == 0 else None,
                f[one],
            )
    with read(tmp_path, topology_file, file) as beads:
        assert not beads.has_velocities
        assert beads.forces() == pytest.approx(Mapping.per_residue(topology).forces(f), abs=1e-5)


def test_beads_of_another_mapping_are_not_reused(tmp_path, topology_file):
    topology, x, boxes = all_atom()
    file = save(tmp_path / "a.trr", topology, x, boxes)
    one = Mapping.per_residue(topology)
    groups = one.groups, one.weights
    read(
        tmp_path,
        topology_file,
        file,
        mapping=Mapping(*groups, one.masses, one.types, one.type_names),
    ).close()
    read(
        tmp_path,
        topology_file,
        file,
        mapping=Mapping(*groups, one.masses, one.types, one.type_names),
    ).close()
    for other in (
        Mapping(*groups, 2 * one.masses, one.types, one.type_names),
        Mapping(*groups, one.masses, np.arange(5) % 2, ("A", "B")),
        Mapping(*groups, one.masses, one.types, ("W",)),
    ):
        with pytest.raises(ValueError, match="mapping"):
            read(tmp_path, topology_file, file, mapping=other)


@pytest.mark.parametrize("box", [1.5 * np.eye(3), TRICLINIC], ids=["cubic", "triclinic"])
def test_fractional_coordinates_of_beads_are_kept_in_changing_boxes(tmp_path, topology_file, box):
    topology, x, boxes = all_atom(box=box, strain=0.01)
    v, f = np.random.default_rng(1).normal(size=(2, *x.shape)).astype(np.float32)
    file = save(tmp_path / "a.trr", topology, wrap(x, boxes), boxes, velocities=v, forces=f)
    mapping = Mapping.per_residue(topology)
    with read(tmp_path, topology_file, file) as beads:
        assert beads.complete and not list(tmp_path.glob("beads.h5.*"))
        mean = beads.boxes()
        assert mean == pytest.approx(np.broadcast_to(boxes.mean(0), boxes.shape), abs=1e-6)
        place = at_rest(mapping.positions(x) @ np.linalg.inv(boxes))
        apart = beads.positions() @ np.linalg.inv(mean) - place
        assert np.abs(apart - np.round(apart[0])).max() < 1e-5
        assert beads.velocities() == pytest.approx(mapping.velocities(v), abs=1e-6)
        assert beads.forces() == pytest.approx(mapping.forces(f), abs=1e-5)


@pytest.mark.parametrize("kind", ["xtc", "dcd"])
def test_frames_repeated_where_files_meet_are_dropped(tmp_path, topology_file, kind):
    topology, x, boxes = all_atom()
    one = save(tmp_path / f"one.{kind}", topology, wrap(x[:7], boxes[:7]), boxes[:7])
    two = save(
        tmp_path / f"two.{kind}", topology, wrap(x[6:], boxes[6:]), boxes[6:], start=6 * INTERVAL
    )
    whole = save(tmp_path / f"whole.{kind}", topology, wrap(x, boxes), boxes)
    with (
        read(tmp_path, topology_file, [one, two]) as beads,
        read(tmp_path / "other", topology_file, whole) as truth,
    ):
        assert beads.n_frames == 40
        assert np.allclose(beads.positions(), truth.positions(), atol=1e-6)


@pytest.mark.parametrize(
    "start, words",
    [
        (
            5.0,
            "two.xtc: found frame 0 4.9 ps after the last one of .*one.xtc",
        ),
        (0.0, "two.xtc: found frame 0 -0.1 ps after the last one"),
    ],
)
def test_gaps_and_overlaps_between_files_are_rejected(tmp_path, topology_file, start, words):
    topology, x, boxes = all_atom()
    one = save(tmp_path / "one.xtc", topology, x[:6], boxes[:6])
    two = save(tmp_path / "two.xtc", topology, x[6:], boxes[6:], start=start)
    with pytest.raises(ValueError, match=words):
        read(tmp_path, topology_file, [one, two])


def test_another_run_is_not_mistaken_for_the_continuation(tmp_path, topology_file):
    topology, x, boxes = all_atom(200)
    other = all_atom(200, seed=5)[1]
    files = [
        save(tmp_path / "one.dcd", topology, x, boxes),
        save(tmp_path / "two.dcd", topology, other, boxes),
    ]
    with pytest.raises(ValueError, match="two.dcd does not continue .*one.dcd"):
        read(tmp_path, topology_file, files)


def test_frames_too_far_apart_to_unwrap_are_rejected(tmp_path, topology_file):
    topology, x, boxes = all_atom(400)
    file = save(tmp_path / "a.xtc", topology, wrap(x, boxes)[::80], boxes[::80])
    with pytest.raises(
        ValueError, match="a.xtc: found displacements of .* nm .* frames closer in time"
    ):
        read(tmp_path, topology_file, file)


def test_a_frame_interval_other_than_that_of_the_file_is_rejected(tmp_path, topology_file):
    topology, x, boxes = all_atom()
    file = save(tmp_path / "a.xtc", topology, x, boxes, interval=0.05)
    words = "frame 1 0.05 ps after the previous one .*, expected the frame interval of 0.02 ps"
    with pytest.raises(ValueError, match=words):
        read(tmp_path, topology_file, file)
    with read(tmp_path, topology_file, file, frame_interval=0.05) as beads:
        assert beads.frame_interval == 0.05


def test_corrupt_and_foreign_input_is_named(tmp_path, topology_file):
    topology, x, boxes = all_atom()
    good = save(tmp_path / "good.xtc", topology, x, boxes)
    small, y, small_boxes = all_atom(molecules=4)
    fewer = save(tmp_path / "fewer.xtc", small, y, small_boxes)
    with pytest.raises(ValueError, match="fewer.xtc: found 12 atoms, expected the 15 of .*top.pdb"):
        read(tmp_path, topology_file, [good, fewer])
    cut = tmp_path / "cut.xtc"
    cut.write_bytes(good.read_bytes()[:-20])
    with pytest.raises(ValueError, match="cut.xtc can't be read: it may be corrupt"):
        read(tmp_path, topology_file, cut)
    whole = save(tmp_path / "whole.dcd", topology, x, boxes)
    cut = tmp_path / "cut.dcd"
    cut.write_bytes(whole.read_bytes()[: 2 * whole.stat().st_size // 3])
    with pytest.raises(
        ValueError, match="cut.dcd is truncated: found 2.* frames, expected the 40 of its header"
    ):
        read(tmp_path, topology_file, cut)
    with pytest.raises(ValueError, match="none.xtc does not exist"):
        read(tmp_path, topology_file, tmp_path / "none.xtc")
    (tmp_path / "a.foo").write_text("foo")
    with pytest.raises(ValueError, match="a.foo can't be read: MDTraj doesn't know its format"):
        read(tmp_path, topology_file, tmp_path / "a.foo")
    with pytest.raises(ValueError, match="a.foo can't be read: MDTraj doesn't know its format"):
        read(tmp_path, tmp_path / "a.foo", good)
    with pytest.raises(ValueError, match="top.pdb: the atom selection 'name Q' selects none"):
        read(tmp_path, topology_file, good, selection="name Q")
    with pytest.raises(ValueError, match="frame_interval: found 0.0, expected a positive"):
        read(tmp_path, topology_file, good, frame_interval=0)
    one = save(tmp_path / "one.xtc", topology, x[:1], boxes[:1])
    with pytest.raises(ValueError, match="one.xtc: found a single frame"):
        read(tmp_path, topology_file, one)


@pytest.mark.parametrize("shrink", [0.9, 0.95])
def test_a_box_that_is_too_small_for_its_beads_is_rejected(tmp_path, shrink):
    side, spacing = 7, 0.31
    boxes = np.repeat(side * spacing * np.eye(3)[None], 5, axis=0)
    topology = all_atom(1, molecules=side**3)[0]
    lattice = spacing * np.stack(np.meshgrid(*[np.arange(side)] * 3), -1).reshape(1, -1, 1, 3)
    noise = np.random.default_rng(0).uniform(-0.05, 0.05, (1, side**3, 1, 3))
    x = np.broadcast_to(lattice + noise, (5, side**3, 3, 3)).reshape(5, -1, 3)
    x = x + np.random.default_rng(1).normal(0, 1e-3, x.shape)
    top = save(tmp_path / "top.pdb", topology, x[:1], boxes[:1])
    read(tmp_path, top, save(tmp_path / "right.trr", topology, x, boxes)).close()
    wrong = save(tmp_path / "wrong.trr", topology, x, shrink * boxes)
    with pytest.raises(
        ValueError, match="wrong.trr: found .* in the first frame, .* check its box of"
    ):
        read_trajectory(
            tmp_path / "b.h5", topology=top, files=wrong, frame_interval=INTERVAL, temperature=300.0
        )


@pytest.mark.parametrize("kind", ["pdb", "cif", "mdcrd", "xtc"])
@pytest.mark.parametrize("molecules", [4, 6])
def test_frames_of_other_atoms_than_the_topology_are_rejected(
    tmp_path, topology_file, kind, molecules
):
    if not hasattr(mdtraj.Trajectory, f"save_{kind}"):
        pytest.skip(
            f"MDTraj {mdtraj.__version__}, the latest for this Python, does not write .{kind}"
        )
    topology, x, boxes = all_atom(8, molecules)
    other = save(tmp_path / f"other.{kind}", topology, x, boxes)
    with pytest.raises(
        ValueError,
        match=rf"other.{kind}: found {3 * molecules} atoms, expected the 15 of its topology .*top.pdb|can't be read",
    ):
        read(tmp_path, topology_file, other)


def steps(squares, beads=1000, seed=0):
    """Displacements of beads of one mass in successive frames, whose mean squares are these (nm²)."""
    found, rng = Steps(np.full(beads, 18.0)), np.random.default_rng(seed)
    moves = rng.normal(size=(len(squares), beads, 3)) * np.sqrt(
        np.asarray(squares)[:, None, None] / 3
    )
    found.add("a.dcd", range(1, len(squares) + 1), moves)
    return found


def test_displacements_that_chance_and_physics_explain_are_accepted():
    free = 3 * KB * 300.0 / 18.0 * 0.02**2
    for seed in range(5):
        steps(np.full(3000, free), seed=seed).check(0.02, 300.0, None, True)
        steps(np.full(3000, free), beads=2, seed=seed).check(0.02, 300.0, None, True)
        # Slow, sparse, or cold at first.
        steps(np.full(500, 0.01 * free), seed=seed).check(0.02, 300.0, None, True)
    steps(np.linspace(0.05, 1.0, 200) * free).check(0.02, 300.0, None, True)
    # Centres of geometry move faster than a mass says.
    steps(np.full(100, 4 * free)).check(0.02, 300.0, None, False)
    with pytest.raises(ValueError, match="a.dcd: found .* that is 4"):
        steps(np.full(100, 4 * free)).check(0.02, 300.0, None, True)
    gap = np.full(100, 0.02 * free)
    gap[42] *= 2.1
    with pytest.raises(ValueError, match="a.dcd: found .* to frame 43 that is 2.* missing"):
        steps(gap).check(0.02, 300.0, None, False)


@pytest.mark.parametrize("kind", ["dcd", "xtc"])
def test_displacements_that_the_frame_interval_does_not_explain_are_rejected(tmp_path, kind):
    # Free flight at the given temperature, as fast as beads can move; no times in the files, or none that tell.
    rng, molecules, box = np.random.default_rng(0), 100, np.tile(3.0 * np.eye(3), (61, 1, 1))
    topology = all_atom(1, molecules)[0]
    start = 0.6 * np.stack(np.meshgrid(*[np.arange(5)] * 3), -1).reshape(-1, 3)[:molecules]
    v = np.sqrt(KB * 300.0 / 18.015) * rng.normal(size=(molecules, 3))
    path = start + v * INTERVAL * np.arange(60)[:, None, None]
    x = (path[:, :, None] + np.zeros(3)[:, None]).reshape(60, -1, 3)
    top = save(tmp_path / "top.pdb", topology, x[:1], box[:1])

    def attempt(name, frames, **changes):
        file = save(
            tmp_path / f"{name}.{kind}",
            topology,
            x[frames],
            box[: len(frames)],
            interval=changes.get("frame_interval", INTERVAL),
        )
        return read(tmp_path, top, file, **{"temperature": 300.0} | changes)

    every = list(range(60))
    attempt("right", every).close()
    (tmp_path / "beads.h5").unlink()
    for name, frames, changes, words in (
        (
            "far",
            every,
            {"frame_interval": INTERVAL / 2},
            r"that is 4\S* times the ballistic limit .* fits 20\S* fs or more",
        ),
        ("hot", every, {"temperature": 100.0}, r"that is 3\S* times the ballistic limit"),
        (
            "gap",
            every[:20] + every[21:],
            {},
            "displacement to frame 20 .* frames before it seem to be missing",
        ),
        ("twice", every[:20] + every[19:], {}, "frame 20 equal to the previous one"),
        ("still", [0] * 30, {}, "no displacement from frame to frame"),
    ):
        with pytest.raises(ValueError, match=rf"{name}.{kind}: .*{words}"):
            attempt(name, frames, **changes)
        assert not list(tmp_path.glob("beads.h5*"))


def test_a_frame_without_a_number_or_a_box_is_named(tmp_path, topology_file):
    topology, x, boxes = all_atom()
    x[9, 4, 1] = np.nan
    with pytest.raises(ValueError, match="a.trr: found a value .* positions of frame 9"):
        read(
            tmp_path,
            topology_file,
            save(tmp_path / "a.trr", topology, x, boxes),
            settings=SMALL_CHUNKS,
        )
    x, boxes = all_atom()[1:]
    boxes[7] = 0
    with pytest.raises(ValueError, match="b.trr: frame 7 has no periodic box"):
        read(
            tmp_path,
            topology_file,
            save(tmp_path / "b.trr", topology, x, boxes),
            settings=SMALL_CHUNKS,
        )
    mdtraj.Trajectory(x, topology).save(str(tmp_path / "c.xyz"))
    with pytest.raises(ValueError, match="c.xyz: frame 0 has no periodic box"):
        read(tmp_path, topology_file, tmp_path / "c.xyz", settings=SMALL_CHUNKS)


def test_finished_beads_are_kept_and_unfinished_ones_made_again(tmp_path, topology_file):
    topology, x, boxes = all_atom()
    file = save(tmp_path / "a.xtc", topology, x, boxes)
    seen = []
    read(tmp_path, topology_file, file, progress=lambda *done: seen.append(done)).close()
    assert seen[-1] == (40, 40)
    read(tmp_path, topology_file, file, progress=lambda *done: pytest.fail("read again")).close()
    with pytest.raises(
        ValueError,
        match="beads.h5: found a trajectory made with temperature = 60000.0, expected 310.0",
    ):
        read(tmp_path, topology_file, file, temperature=310.0)
    (tmp_path / "beads.h5").unlink()
    with pytest.raises(Stop):
        read(tmp_path, topology_file, file, temperature=310.0, progress=stop_after(1))
    assert not (tmp_path / "beads.h5").exists()
    with read(tmp_path, topology_file, file) as beads:
        assert beads.complete and beads.n_frames == 40


def stop_after(frames):
    def progress(done, total):
        if done >= frames:
            raise Stop

    return progress


def test_a_full_disk_ends_the_run_with_one_sentence_and_the_run_resumes(tmp_path, monkeypatch):

    def full(self):
        raise OSError("beads.h5: the disk is full (0.0 MB free, 1.0 MB needed for the next frames)")

    with monkeypatch.context() as patch:
        patch.setattr(BeadWriter, "flush", full)
        with pytest.raises(OSError, match="disk is full"):
            run_liquid(tmp_path / "beads.h5", **arguments(protocol=FREQUENT_CHECKPOINTS))
    run_liquid(tmp_path / "beads.h5", **arguments(protocol=FREQUENT_CHECKPOINTS))
    with BeadTrajectory.open(tmp_path / "beads.h5") as beads:
        assert beads.n_frames == 30 and beads.complete


def test_a_second_writer_of_a_file_is_rejected(tmp_path):
    topology, x, boxes = all_atom()
    top, file = (
        save(tmp_path / "top.gro", topology, x[:1], boxes[:1]),
        save(tmp_path / "x.xtc", topology, wrap(x, boxes), boxes),
    )
    arguments = {"topology": top, "files": file, "frame_interval": INTERVAL, "temperature": HOT}
    path = tmp_path / "new" / "beads.h5"

    def again(done, total):
        with pytest.raises(
            LockedError, match=r"beads.h5: another cgadv works there, expected to be the only one"
        ):
            read_trajectory(path, **arguments)

    read_trajectory(path, **arguments, progress=again)
    with BeadTrajectory.open(path) as beads:
        assert beads.complete and beads.n_frames == len(x)
    assert [one.name for one in path.parent.iterdir()] == ["beads.h5"]


def test_a_changing_frame_interval_and_adjacent_gaps_are_rejected():
    free = 3 * KB * 300.0 / 18.0 * 0.02**2
    rng = np.random.default_rng(0)
    for seed in range(3):
        for beads, factor, before in (
            (64, 4.0, 600),
            (64, 9.0, 150),
            (343, 2.0, 700),
            (343, 4.0, 30),
        ):
            values = 0.02 * free * np.r_[np.ones(before), factor * np.ones(before)]
            for turned in (values, values[::-1]):
                with pytest.raises(
                    ValueError,
                    match="a.dcd: found .* that change by a factor of .*, expected a constant frame",
                ):
                    steps(turned, beads=beads, seed=seed).check(0.02, 300.0, None, True)
        gaps = np.full(300, 0.02 * free)
        gaps[100:103] *= 4
        with pytest.raises(ValueError, match="a.dcd: found .* to frame 10[123] .* missing"):
            steps(gaps, seed=seed).check(0.02, 300.0, None, True)
        # Warm only after some time, and steps of few beads that follow each other.
        rise = 1 - np.exp(-np.arange(1, 3000) / 50)
        steps(0.5 * free * rise, seed=seed).check(0.02, 300.0, None, True)
        wander = np.convolve(rng.normal(size=3100), np.exp(-np.arange(100) / 10), mode="valid")
        steps(0.1 * free * np.exp(0.15 * wander / wander.std()), beads=64, seed=seed).check(
            0.02, 300.0, None, True
        )


def test_a_heavy_bead_among_light_ones_is_no_gap():
    masses = np.r_[np.full(300, 18.0), 14_300.0]
    for seed in range(3):
        found, rng = Steps(masses), np.random.default_rng(seed)
        widths = np.sqrt(2 * 2.0 * np.r_[np.full(300, 2.3e-3), 1e-4])
        found.add("a.dcd", range(1, 5001), rng.normal(size=(5000, 301, 3)) * widths[:, None])
        found.check(2.0, 300.0, None, True)


def test_gaps_of_bead_files_are_rejected(tmp_path):
    rng = np.random.default_rng(0)
    x = np.cumsum(0.005 * rng.normal(size=(200, 100, 3)), axis=0)
    box = np.tile(3.0 * np.eye(3), (200, 1, 1))
    for name, frames, masses, words in (
        ("right", np.arange(200), np.full(100, 18.0), None),
        (
            "gap",
            np.r_[:80, 90:200],
            np.full(100, 18.0),
            "gap.h5: found .* to frame 80 .* missing",
        ),
        (
            "twice",
            np.r_[:80, 79:200],
            np.full(100, 18.0),
            "twice.h5: found frame 80 equal to the previous one",
        ),
        (
            "heavy",
            np.arange(200),
            np.r_[np.full(50, 18.0), np.full(50, 36.0)],
            "heavy.h5: beads of type W: found masses from 18 to 36 Da",
        ),
    ):
        with BeadWriter(
            tmp_path / f"{name}.h5", masses, [0] * 100, ("W",), 300.0, INTERVAL
        ) as writer:
            writer.append(x[frames], box[frames])
            writer.finish()
        asked = {"beads": tmp_path / f"{name}.h5", "frame_interval": INTERVAL, "temperature": 300.0}
        if words is None:
            select_frames(tmp_path / "some.h5", **asked)
            (tmp_path / "some.h5").unlink()
        else:
            with pytest.raises(ValueError, match=words):
                select_frames(tmp_path / "some.h5", **asked)
            assert not (tmp_path / "some.h5").exists()


def test_parts_of_residues_have_no_forces_nor_velocities(tmp_path):
    topology, x, boxes = all_atom()
    top = save(tmp_path / "top.gro", topology, x[:1], boxes[:1])
    file = save(
        tmp_path / "x.trr",
        topology,
        x,
        boxes,
        velocities=np.ones(x.shape, np.float32),
        forces=np.ones(x.shape, np.float32),
    )
    arguments = {"topology": top, "files": file, "frame_interval": INTERVAL, "temperature": HOT}
    for selection, whole in ((None, True), ("name O", False), ("resid 0 1 2", True)):
        with BeadTrajectory.open(
            read_trajectory(tmp_path / f"{whole}{selection}.h5", selection=selection, **arguments)
        ) as beads:
            assert beads.has_forces == beads.has_velocities == beads.provenance["whole"] == whole


def test_residues_of_a_name_have_one_mass():
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    for symbol in ("Ar", "Kr"):
        topology.add_atom(
            symbol, mdtraj.element.get_by_symbol(symbol), topology.add_residue("UNK", chain)
        )
    with pytest.raises(
        ValueError,
        match="beads of type UNK: found masses from 39.95 to 83.8 Da, expected one mass a type",
    ):
        Mapping.per_residue(topology)


def test_another_file_of_the_same_size_is_noticed(tmp_path):
    topology, x, boxes = all_atom()
    top, file = (
        save(tmp_path / "top.gro", topology, x[:1], boxes[:1]),
        save(tmp_path / "x.dcd", topology, x, boxes),
    )
    arguments = {"topology": top, "files": file, "frame_interval": INTERVAL, "temperature": HOT}
    read_trajectory(tmp_path / "beads.h5", **arguments)
    size = file.stat().st_size
    save(file, topology, x + 0.01, boxes)
    assert file.stat().st_size == size
    with pytest.raises(ValueError, match="beads.h5: found a trajectory made with fingerprints"):
        read_trajectory(tmp_path / "beads.h5", **arguments)
