"""The README's examples run as they stand, the longest commands in a short form."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from systems import jittered_lattice, liquid_box, random_spec, random_theta
from test_reference import all_atom, save, wrap
from typer.testing import CliRunner

from openmm_cgadv import BeadTrajectory
from openmm_cgadv.cli import app
from openmm_cgadv.dynamics import GeneralizedLangevin
from openmm_cgadv.export import Model, save_bundle

README = Path(__file__).parents[1] / "README.md"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the commands are given, with the bundle that they name."""
    box = liquid_box(60, 33.0).numpy()
    spec = random_spec(1, r_cut=0.5)
    model = Model(
        spec=spec,
        theta=random_theta(spec, 0),
        masses=np.array([18.0]),
        temperature=298.15,
        timestep=0.005,
        equation="generalized_langevin",
        drift=GeneralizedLangevin(1, 2, 20.0).drift().detach(),
        types=np.zeros(60, int),
        positions=jittered_lattice(60, liquid_box(60, 33.0), 0.1, 0).numpy(),
        box=box,
    )
    save_bundle(model, tmp_path / "runs" / "water" / "model.cg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_readme_examples_run(folder):
    first, second = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len([line for line in first.splitlines() if line.strip()]) <= 12
    names = {}
    exec(compile(first + second, str(README), "exec"), names)
    state = names["simulation"].context.getState(energy=True)
    assert state.getStepCount() == 21000
    names["simulation"].reporters[0].close()
    with BeadTrajectory.open("beads.h5") as beads:
        assert beads.n_frames == 5000
    assert json.loads((folder / "figures.json").read_text())["diffusion_cm2_per_s"] > 0
    assert np.isfinite(state.getPotentialEnergy()._value)
    kinetic = state.getKineticEnergy()._value
    assert kinetic == pytest.approx(1.5 * 60 * 0.0083145 * 298.15, rel=0.35)


def command(name):
    """Words of the README's command of a name, after `cgadv`."""
    (line,) = re.findall(rf"^\.venv/bin/cgadv ({name} .*)$", README.read_text(), re.MULTILINE)
    return line.split()


def test_readme_simulation_runs(folder):
    words = command("simulate")
    assert words[1:6:2] == ["runs/water/model.cg", "100000", "5000"]
    words[3], words[5] = "100", "200"
    run = CliRunner().invoke(app, [*words, "--equilibration-ps", "0.1"])
    assert run.exit_code == 0, run.output
    out = folder / "runs" / "bulk"
    assert all((out / name).exists() for name in ("trajectory.dcd", "topology.pdb", "state.csv"))


def test_readme_mapping_runs(folder):
    topology, x, boxes = all_atom(molecules=30, box=2.0 * np.eye(3), speed=0.05)
    save(folder / "water.gro", topology, x[:1], boxes[:1])
    save(folder / "water.xtc", topology, wrap(x, boxes), boxes)
    run = CliRunner().invoke(app, command("map"))
    assert run.exit_code == 0, run.output
    with BeadTrajectory.open("beads.h5") as beads:
        assert beads.n_beads == 30
