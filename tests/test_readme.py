"""The README is short, and its examples run as they stand."""

import numpy as np
import pytest
from documents import ROOT, blocks, prepare

from openmm_cgadv.config import load_experiment

README = ROOT / "README.md"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the commands are given, with the bundle that they name."""
    prepare(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def of_language(language):
    return [block.text for block in blocks(README) if block.language == language]


def test_readme_has_at_most_120_lines():
    assert len(README.read_text().splitlines()) <= 120


def test_readme_simulation_runs_on_the_platform_that_it_names(folder):
    (text,) = of_language("python")
    assert len([line for line in text.splitlines() if line.strip()]) <= 12
    names = {}
    exec(compile(text, str(README), "exec"), names)
    context = names["simulation"].context
    state = context.getState(energy=True)
    assert context.getPlatform().getName() == "CPU"
    assert state.getStepCount() == 1000
    assert np.isfinite(state.getPotentialEnergy()._value)
    kinetic = state.getKineticEnergy()._value
    assert kinetic == pytest.approx(1.5 * 60 * 0.0083145 * 298.15, rel=0.35)


def test_readme_experiment_is_valid(folder):
    (text,) = of_language("yaml")
    (folder / "water.yaml").write_text(text)
    load_experiment(folder / "water.yaml").check()
    (command,) = [
        line for block in of_language("bash") for line in block.splitlines() if "cgadv run" in line
    ]
    assert command == "cgadv run water.yaml --out runs/mine"
