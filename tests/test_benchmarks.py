"""The benchmarks run, and find what does not depend on the speed of the machine."""

import importlib.util
import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from models import make_model, quiet

from openmm_cgadv import kernels, save_bundle
from openmm_cgadv.dynamics import LangevinParameters
from openmm_cgadv.export.backends import plugin

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not kernels.available(), reason=kernels.why_not()),
]
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def run():
    """Run a benchmark in its quick form; returns what it prints."""

    def go(name: str) -> str:
        done = subprocess.run(
            [sys.executable, BENCHMARKS / name, "--quick"],
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "OMP_WAIT_POLICY": "passive"},
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    return go


def test_rollout_memory_is_that_of_positions_and_states(run):
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("peaks of the resident memory are known on Linux only")
    ratios = [float(ratio) for ratio in re.findall(r"RATIO ([\d.-]+)", run("memory.py"))]
    assert ratios == pytest.approx([1.0, 1.0], abs=0.25)


def test_rollout_is_compared_with_plain_torch(run):
    ratios = [
        float(ratio)
        for ratio in re.findall(r"RATIO \w+, plain torch / ours: ([\d.]+)", run("rollout.py"))
    ]
    assert len(ratios) == 2 and min(ratios) > 0


def test_scaling_measures_every_size(run):
    rows = re.findall(r"^ +(500|5000)((?: +[\d.]+)+)$", run("scaling.py"), re.MULTILINE)
    assert len(rows) == 2
    assert all(float(value) > 0 for _, row in rows for value in row.split())


def test_sensitivity_to_the_memory_of_pairs_agrees_between_adjoint_and_runs(run):
    """Within 0.16 ps the adjoint is hardly damped."""
    number = r"(-?[\d.]+) ± ([\d.]+)"
    rows = re.findall(rf"^\| (0\.\d+) \| {number} \| {number}", run("slow_memory.py"), re.MULTILINE)
    assert [float(row[0]) for row in rows] == [0.02, 0.04, 0.08, 0.16]
    for row in rows:
        runs, error, adjoint, doubt = map(float, row[1:])
        assert abs(runs - adjoint) < 5 * math.hypot(error, doubt, 0.02)


def test_exact_gradient_of_a_short_rollout_is_the_true_one(run):
    """Over 0.1 ps nothing has exploded yet."""
    text = run("adjoint_damping.py")
    for friction in (15, 6):
        true, error = map(
            float, re.search(rf"\| {friction} \| true \| ([\d.-]+) ± ([\d.]+)", text).groups()
        )
        exact, own = map(
            float, re.search(rf"\| {friction} \| inf \| ([\d.-]+) ± ([\d.]+)", text).groups()
        )
        assert true < 0 and abs(exact - true) < 6 * math.hypot(error, own)


def test_every_discriminator_trains_from_too_low_and_too_high_friction(run):
    rows = re.findall(
        r"^(\w.*?)  +too (?:slow|fast) +((?:[\d.]+ )+) *([\d.]+) +(-?[\d.]+) +([\d.]+)$",
        run("approach.py"),
        re.MULTILINE,
    )
    assert len(rows) == 10
    for _, friction, *_ in rows:
        assert all(10 < float(value) < 40 for value in friction.split())


def test_a_three_body_basis_is_compared_with_none(run):
    rows = re.findall(
        r"^\| (none|3, l ≤ 4) \| (\d+) \| 3 \| ([\d.]+) \| ([\d.]+) ", run("basis.py"), re.MULTILINE
    )
    assert [(name, int(number)) for name, number, *_ in rows] == [("none", 26), ("3, l ≤ 4", 56)]
    assert all(0 < float(value) < 1 for *_, rdf, adf in rows for value in (rdf, adf))


def test_iteration_is_the_sum_of_its_parts(run):
    text = run("critic.py")
    for block in text.split("\n\n")[1:]:
        times = [float(value) for value in re.findall(r"([\d.]+) ms$", block, re.MULTILINE)]
        parts, (_, fastest, median) = times[:-3], times[-3:]
        # Each part is the fastest of its own iterations.
        assert 0 < sum(parts) <= fastest * 1.001 <= median * 1.002


def test_argon_has_the_viscosity_of_argon(run):
    text = run("viscosity.py")
    value, error = map(
        float, re.search(r"OpenMM with splines +([\d.]+) ± ([\d.]+) mPa s", text).groups()
    )
    assert abs(value - 0.28) < 6 * error and error < 0.15


def test_imposed_shear_waves_die_with_the_friction_on_single_beads(tmp_path):
    gas = make_model(n_types=1, n=343)
    gas = replace(gas, theta=np.zeros_like(gas.theta), friction=LangevinParameters([[[8.0]]]))
    bundle = save_bundle(quiet(gas), tmp_path / "gas.cg")
    command = [sys.executable, BENCHMARKS / "shear_waves.py", "--quick", bundle]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "friction on single beads 8/ps" in done.stdout
    pair = r"([\d.]+) ± +([\d.]+) +"
    rows = re.findall(rf"^ +[\d.]+ +([\d.]+) ± +[\d.]+ +{pair}{pair}", done.stdout, re.MULTILINE)
    assert len(rows) == 2
    for expected, imposed, error, spontaneous, other in np.array(rows, float):
        # beads that fly freely carry the shorter wave away a little faster
        assert 8 <= expected and abs(imposed - expected) < 6 * error + 0.15 * expected
        assert abs(spontaneous - expected) < 6 * other + 0.15 * expected


def test_interrupted_measurement_of_quality_resumes(tmp_path):
    # Sources in the current folder are not what is measured.
    (tmp_path / "openmm_cgadv").mkdir()
    (tmp_path / "openmm_cgadv" / "__init__.py").write_text(
        "raise ImportError('found in the current folder')"
    )
    unknown = subprocess.run(
        [sys.executable, BENCHMARKS / "quality.py", "nothing"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (
        unknown.returncode == 2 and "unknown group nothing, expected some of spce" in unknown.stderr
    )
    command = [
        sys.executable,
        BENCHMARKS / "quality.py",
        "truth",
        "extrapolation",
        "--quick",
        "--out",
        tmp_path,
    ]
    for seconds in (900, 60):
        run = subprocess.run(command, capture_output=True, text=True, timeout=seconds, cwd=tmp_path)
        assert run.returncode == 0 and "failed" not in run.stdout, run.stdout + run.stderr
    text = (tmp_path / "quality.md").read_text()
    rows = re.findall(r"^\| (10 fs, seed 1|8 times as many molecules).*$", text, re.MULTILINE)
    assert rows == ["10 fs, seed 1", "8 times as many molecules"]
    for low, high in re.findall(r"([\d.]+) – ([\d.]+)", text):
        assert 0.2 < float(low) <= float(high) < 5


@pytest.mark.skipif(plugin.why_not() is not None, reason=str(plugin.why_not()))
def test_steps_are_measured_with_every_backend_and_size(run):
    text = run("plugin.py")
    ratios = re.findall(r"RATIO (\d+) beads, (\d+) threads?, (.*): ([\d.]+) ", text)
    measured = {(size, threads) for size, threads, _, _ in ratios}
    assert {int(size) for size, _ in measured} == {500, 5000} and all(
        float(ratio) > 0 for *_, ratio in ratios
    )
    assert len(ratios) == len(measured) * len({what for _, _, what, _ in ratios})
    for row in ("plugin, Langevin", "plugin, pair friction, K=3", "kernel alone, single"):
        assert len(re.findall(rf"^  {row} ", text, re.MULTILINE)) == len(measured)


@pytest.mark.skipif(
    importlib.util.find_spec("openmmtorch") is None, reason="openmmtorch is not installed"
)
def test_production_is_compared_with_atoms(run):
    text = run("production.py")
    assert float(re.search(r"beads with Langevin / all-atom: ([\d.]+)", text)[1]) > 0
    temperatures = [
        float(value) for value in re.findall(r"kinetic temperature of .*: (\d+) K", text)
    ]
    # One row of the plugin for each number of threads, which are the same on a single core.
    assert len(temperatures) >= (6 if plugin.why_not() is None else 4) and all(
        200 < value < 400 for value in temperatures
    )
