"""An experiment file is checked before any work; every error names field, found and expected."""

from pathlib import Path

import mdtraj
import numpy as np
import pytest
import yaml

from openmm_cgadv.config import ConfigError, Experiment, load_experiment
from openmm_cgadv.random_streams import openmm_seed

WATER = "reference: {temperature_K: 298.15, water: spce, molecules: 343, length_ps: 200}\n"
OWN = """reference:
  temperature_K: 298.15
  trajectory: {topology: water.gro, files: [water.xtc], frame_interval_fs: 20}
"""


def write(tmp_path, text) -> Path:
    path = tmp_path / "experiment.yaml"
    path.write_text(text)
    return path


def write_trajectory(folder, box=2.2, atoms=8, topology_atoms=8):
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    for _ in range(max(atoms, topology_atoms)):
        topology.add_atom("O", mdtraj.element.oxygen, topology.add_residue("HOH", chain))
    xyz = np.random.default_rng(0).uniform(0, box, (3, topology.n_atoms, 3)).astype(np.float32)
    whole = mdtraj.Trajectory(
        xyz, topology, unitcell_lengths=np.full((3, 3), box), unitcell_angles=np.full((3, 3), 90.0)
    )
    whole.atom_slice(range(atoms)).save_xtc(str(folder / "water.xtc"))
    whole[0].atom_slice(range(topology_atoms)).save_gro(str(folder / "water.gro"))


def test_the_shortest_files_are_enough(tmp_path):
    made = load_experiment(write(tmp_path, WATER))
    assert made.reference.water == "spce" and made.mapping == "per_residue"
    assert made.reference.frame_interval == pytest.approx(0.02)
    assert made.dynamics.memory is None and made.dynamics.timestep == 0.005
    write_trajectory(tmp_path)
    own = load_experiment(write(tmp_path, OWN))
    own.check()
    assert own.reference.frame_interval == pytest.approx(0.02)
    assert own.reference.trajectory.topology == tmp_path.resolve() / "water.gro"


def test_langevin_has_no_memory(tmp_path):
    text = WATER + "dynamics: {equation: langevin}\ntraining: {window_ps: 1.0}\n"
    assert load_experiment(write(tmp_path, text)).dynamics.memory == 0


def test_section_without_fields_means_its_defaults(tmp_path):
    text = WATER + "training:\n  # seed: 2\n"
    assert load_experiment(write(tmp_path, text)).training.seed == 1


def test_fields_can_be_set_from_outside(tmp_path):
    path = write(tmp_path, WATER)
    experiment = load_experiment(path, ["training.seed=7", "production.timesteps_fs=[5, 10]"])
    assert experiment.training.seed == 7
    assert experiment.production.timesteps_fs == [5, 10]


def test_what_was_set_is_enough_to_make_it_again(tmp_path):
    experiment = load_experiment(write(tmp_path, OWN), ["training.seed=7"])
    text = yaml.safe_dump(experiment.model_dump(mode="json", exclude_unset=True))
    again = load_experiment(write(tmp_path, text))
    assert again == experiment


@pytest.mark.parametrize(
    "override, sentence",
    [
        (
            "reference.molecles=343",
            "unknown field `reference.molecles`, .* did you mean `molecules`?",
        ),
        ("trainin.seed=1", "unknown field `trainin`, .* did you mean `training`?"),
        (
            "reference.water=spc",
            "reference.water: found 'spc', expected 'spce', 'tip3p' or 'tip4pew'",
        ),
        (
            "reference.water=null",
            "reference: found none of `water`, `liquid`, `trajectory` and `beads`",
        ),
        (
            "reference.liquid=argon",
            "reference: found `water` and `liquid` of `water`, `liquid`, `trajectory` and `beads`",
        ),
        (
            "reference.liquid=spce",
            "reference.liquid: found 'spce', expected 'argon', 'lj_mixture' or 'methanol'",
        ),
        (
            "reference.trajectory={topology: a, files: b, frame_interval_fs: 20}",
            "reference: found `water` and `trajectory` of `water`, `liquid`, `trajectory` and `beads`",
        ),
        ("reference.temperature_K=null", "reference.temperature_K: found None, expected a number"),
        ("reference.temperature_K=-3", "reference.temperature_K: found -3, expected more than 0"),
        ("reference.molecules=1.5", "reference.molecules: found 1.5, expected a whole number"),
        ("reference.timestep_fs=5", "reference.timestep_fs: found 5, expected at most 4"),
        (
            "training.window_ps=300",
            "reference.length_ps: found 200, expected at least 600.04, two windows",
        ),
        (
            "discriminator.critics=2; dynamics.equation=langevin",
            "discriminator.critics: found 2 with dynamics without memory",
        ),
        (
            "discriminator.critics=2; training.window_ps=0.04",
            "training.window_ps: found 0.04 with 2 discriminator.critics, expected at least three frames",
        ),
        (
            "reference.frame_interval_fs=25",
            "reference: found frame_interval_fs 25, expected a multiple",
        ),
        (
            "dynamics.timestep_fs=7",
            "dynamics.timestep_fs: found 7, expected a step that divides the reference frame interval 20",
        ),
        (
            "production.timesteps_fs=[5, 8]",
            "production.timesteps_fs: found 8, expected a step that divides the (production.frame_interval|reference frame interval)",
        ),
        (
            "production.timesteps_fs=[8]; production.frame_interval_fs=24",
            "dynamics.timestep_fs: found 5, expected a step that divides the production.frame_interval_fs 24 fs",
        ),
        ("production.frame_interval_fs=13", "dynamics.timestep_fs: found 5, .* 13 fs"),
        ("potential.cutoff_nm=-0.7", "potential.cutoff_nm: found -0.7, expected more than 0"),
        (
            "potential.cutoff_nm=1.3",
            "potential.cutoff_nm: found 1.3, expected at most 1.087, half the box of 343 molecules of spce",
        ),
        (
            "potential={cutoff_nm: 0.7, three_body_cutoff_nm: 0.9}",
            "potential: found three_body_cutoff_nm 0.9, expected at most cutoff_nm 0.7",
        ),
        (
            "potential.three_body=perhaps",
            "potential.three_body: found 'perhaps', expected true or false",
        ),
        (
            "training.window_ps=0.03",
            "training.window_ps: found 0.03, expected at least two frames",
        ),
        ("training.seed=one", "training.seed: found 'one', expected a whole number"),
        ("training.forget_ps=.nan", "training.forget_ps: found nan, expected a finite number"),
        (
            "discriminator.heads=5",
            "discriminator: found scalars 24, expected a multiple of heads 5",
        ),
        (
            "reference.molecules=1000000000",
            "molecules: found 1000000000, which need about 1.4e\\+03 GB of RAM, expected at most",
        ),
        ("reference.length_ps=.inf", "reference.length_ps: found inf, expected a finite number"),
        (
            "reference.length_ps=1.0e+12",
            "reference.length_ps: found 1000000000000.0, expected at most 1e\\+09",
        ),
        ("training.threads=100000", "training.threads: found 100000, expected at most 1024"),
        (
            "training.iterations=1000000000",
            "training.iterations: found 1000000000, expected at most 1e\\+07",
        ),
        (
            f"training.seed={2**63}",
            "training.seed: found 9223372036854775808, expected less than 9.22337e\\+18",
        ),
        (
            "dynamics.timestep_fs=1.0e-9",
            "dynamics.timestep_fs: found 1e-09, expected at least 0.01",
        ),
        (
            "production.timesteps_fs=[1.0e-9]",
            "production.timesteps_fs.0: found 1e-09, expected at least 0.01",
        ),
        (
            "production.length_ps=0.01",
            "production.length_ps: found 0.01, expected at least the 0.02 ps between",
        ),
        ("mapping=atoms", "mapping: found 'atoms', expected 'per_residue'"),
        ("training=3", "training: found 3, expected a section with fields seed, iterations"),
        ("seed", "--set: found 'seed', expected `section.field=value`"),
    ],
)
def test_wrong_fields_are_named_in_one_sentence(tmp_path, override, sentence):
    path = write(tmp_path, WATER)
    with pytest.raises(ConfigError, match=sentence) as caught:
        load_experiment(path, override.split("; "))
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("--set" if sentence.startswith("--set") else f"{path}: ")


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("", "found an empty file"),
        ("- a\n- b\n", "found a list, expected sections"),
        ("reference: {temperature_K: 298\n", "line 2: found text that is not YAML"),
        ("training: {seed: 1}\n", "required field `reference` is missing"),
        (
            "reference: {temperature_K: 298, water: spce, temperature_K: 310}\n",
            "line 1: found text that is not YAML .the key `temperature_K` occurs twice",
        ),
        ("training: {}\ntraining: {}\n", "line 2: .*the key `training` occurs twice"),
        ("reference: {water: spce}\n", "required field `reference.temperature_K` is missing"),
        (
            "reference: {temperature_K: 298, trajectory: {topology: a.gro, files: [a.xtc]}}\n",
            "required field `reference.trajectory.frame_interval_fs` is missing",
        ),
        (
            "reference: {temperature_K: 298, trajectory: {topology: a.gro, files: [], "
            "frame_interval_fs: 20}}\n",
            "files: found .*, expected at least 1 entry",
        ),
        (
            "reference: {temperature_K: 298, molecules: 30, trajectory: {topology: a.gro, files: a.xtc, "
            "frame_interval_fs: 20}}\n",
            "found `molecules` beside `trajectory`",
        ),
    ],
)
def test_wrong_files_are_named_in_one_sentence(tmp_path, text, sentence):
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=sentence) as caught:
        load_experiment(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="no.yaml: found no such file"):
        load_experiment(tmp_path / "no.yaml")


def test_missing_trajectory_is_named_before_any_work(tmp_path):
    experiment = load_experiment(write(tmp_path, OWN))
    with pytest.raises(
        ConfigError, match="reference.trajectory.topology: found no file .*water.gro"
    ):
        experiment.check()
    write_trajectory(tmp_path)
    (tmp_path / "water.xtc").unlink()
    with pytest.raises(ConfigError, match="reference.trajectory.files: found no file .*water.xtc"):
        experiment.check()


def test_cutoff_above_half_the_box_of_a_trajectory_is_rejected_before_any_work(tmp_path):
    write_trajectory(tmp_path, box=1.3)
    with pytest.raises(
        ConfigError, match="cutoff_nm: found 0.7, expected at most 0.65, half the box"
    ):
        load_experiment(write(tmp_path, OWN), ["potential.cutoff_nm=0.7"]).check()


def test_a_built_in_reference_system_is_chosen_by_its_name(tmp_path):
    text = "reference: {temperature_K: 87, liquid: argon}\n"
    experiment = load_experiment(write(tmp_path, text))
    assert experiment.reference.made == "argon" and experiment.reference.length == 200
    with pytest.raises(
        ConfigError, match="cutoff_nm: found 1.3, .* half the box of 343 molecules of argon"
    ):
        load_experiment(write(tmp_path, text), ["potential.cutoff_nm=1.3"])


def test_defaults_are_valid_and_frozen():
    experiment = Experiment(reference={"temperature_K": 300, "water": "tip3p"})
    with pytest.raises(ValueError, match="frozen"):
        experiment.training.seed = 3


def test_a_date_is_a_seed_of_everything(tmp_path):
    experiment = load_experiment(
        write(tmp_path, WATER),
        [f"{section}.seed=20261124093000" for section in ("reference", "training", "production")],
    )
    assert experiment.training.seed == 20261124093000
    assert 0 < openmm_seed(experiment.reference.seed) < 2**31
