"""The benchmarks run, and find what does not depend on the speed of the machine."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from openmm_cgadv import kernels
from openmm_cgadv.export import plugin

pytestmark = pytest.mark.skipif(not kernels.available(), reason=kernels.why_not())
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def run():
    """Run a benchmark in its quick form; returns what it prints."""

    def go(name: str) -> str:
        done = subprocess.run(
            [sys.executable, BENCHMARKS / name, "--quick"], capture_output=True, text=True, timeout=300,
            env={**os.environ, "OMP_WAIT_POLICY": "passive"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    return go


def test_rollout_memory_is_that_of_positions_and_states(run):
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("peaks of the resident memory are known on Linux only")
    ratios = [float(ratio) for ratio in re.findall(r"RATIO ([\d.-]+)", run("memory.py"))]
    assert ratios == pytest.approx([1.0, 1.0], abs=0.25)


def test_rollout_is_compared_with_plain_torch(run):
    ratios = [float(ratio) for ratio in re.findall(r"RATIO \w+, plain torch / ours: ([\d.]+)", run("rollout.py"))]
    assert len(ratios) == 2 and min(ratios) > 0


def test_scaling_measures_every_size(run):
    rows = re.findall(r"^ +(500|5000)((?: +[\d.]+)+)$", run("scaling.py"), re.MULTILINE)
    assert len(rows) == 2
    assert all(float(value) > 0 for _, row in rows for value in row.split())


def test_iteration_is_the_sum_of_its_parts(run):
    text = run("critic.py")
    for block in text.split("\n\n")[1:]:
        times = [float(value) for value in re.findall(r"([\d.]+) ms$", block, re.MULTILINE)]
        parts, (_, fastest, median) = times[:-3], times[-3:]
        # Each part is the fastest of its own iterations.
        assert 0 < sum(parts) <= fastest * 1.001 <= median * 1.002


def test_quality_is_measured_and_goes_on(tmp_path):
    command = [sys.executable, BENCHMARKS / "quality.py", "data", "--quick", "--out", tmp_path]
    for seconds in (300, 30):
        run = subprocess.run(command, capture_output=True, text=True, timeout=seconds, cwd=tmp_path)
        assert run.returncode == 0 and "failed" not in run.stdout, run.stdout + run.stderr
    row = (tmp_path / "quality.md").read_text().splitlines()[-1]
    assert row.startswith("| 25 ps of reference |")
    low, high = re.search(r"([\d.]+) – ([\d.]+)", row).groups()
    assert 0.2 < float(low) <= float(high) < 5


@pytest.mark.skipif(plugin.why_not() is not None, reason=str(plugin.why_not()))
def test_steps_are_measured_with_every_backend_and_size(run):
    text = run("plugin.py")
    ratios = re.findall(r"RATIO (\d+) beads, \d+ threads?, .*: ([\d.]+) ", text)
    assert {int(size) for size, _ in ratios} == {500, 5000} and all(float(ratio) > 0 for _, ratio in ratios)
    assert len(re.findall(r"^  plugin, Langevin ", text, re.MULTILINE)) == len(ratios) // 2


@pytest.mark.skipif(importlib.util.find_spec("openmmtorch") is None, reason="openmmtorch is not installed")
def test_production_is_compared_with_atoms(run):
    text = run("production.py")
    assert float(re.search(r"beads with Langevin / all-atom: ([\d.]+)", text)[1]) > 0
    temperatures = [float(value) for value in re.findall(r"kinetic temperature of .*: (\d+) K", text)]
    assert len(temperatures) == (8 if plugin.why_not() is None else 4) and all(200 < value < 400 for value in temperatures)
