"""The README's example runs as it stands."""

import re
from pathlib import Path

import numpy as np
import pytest
from systems import jittered_lattice, liquid_box, random_spec, random_theta

from openmm_cgadv.dynamics import GeneralizedLangevin
from openmm_cgadv.export import Model, save_bundle

README = Path(__file__).parents[1] / "README.md"


def test_readme_example_runs(tmp_path, monkeypatch):
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len([line for line in example.splitlines() if line.strip()]) <= 12
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
    names = {}
    exec(compile(example, str(README), "exec"), names)
    state = names["simulation"].context.getState(energy=True)
    assert state.getStepCount() == 1000
    assert np.isfinite(state.getPotentialEnergy()._value)
    kinetic = state.getKineticEnergy()._value
    assert kinetic == pytest.approx(1.5 * 60 * 0.0083145 * 298.15, rel=0.35)
