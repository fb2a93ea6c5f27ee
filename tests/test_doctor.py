"""`cgadv doctor` says what works and how fast, and for what does not, the one thing to do."""

import re
from importlib.metadata import PackageNotFoundError

import openmm
import pytest
from typer.testing import CliRunner

from openmm_cgadv import kernels
from openmm_cgadv.attempts import Attempt
from openmm_cgadv.export.system import BACKENDS
from openmm_cgadv.platforms import platform_names
from openmm_cgadv.workflow import doctor
from openmm_cgadv.workflow.cli import app


def report() -> dict[str, str]:
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0, result.stdout
    lines = [(line[:24].strip(), line[25:]) for line in result.stdout.splitlines()]
    return dict(lines)


@pytest.fixture
def quick(monkeypatch):
    """Leave out the measurements."""
    monkeypatch.setattr(doctor, "measure_speeds", lambda *_, **__: {})


def test_everything_here_is_listed_with_a_speed(monkeypatch):
    monkeypatch.setattr(doctor, "SPEED_SECONDS", 1e-3)
    lines = report()
    for name in ("openmm_cgadv", "torch", "openmm", "numpy", "openmm-torch", "GPU", "threads"):
        assert name in lines
    assert lines["platform Reference"] == lines["platform CPU"] == "works"
    for name, backend in BACKENDS.items():
        for platform in platform_names():
            found = lines[f"{name} on {platform}"]
            if backend.why_not(platform) is None:
                speed = re.fullmatch(r"works, (\S+) ms a step of 512 beads", found)
                assert speed, f"{name} on {platform}: {found}"
                assert 0.001 < float(speed[1]) < 1000
            else:
                assert found.startswith("no: ")
    if kernels.available():
        pattern = (
            rf"{kernels.instruction_set()}, built with (GCC|.*[Cc]lang) ?\d+.*, "
            r"[\d.e+-]+ ms for the forces of 512 beads"
        )
        assert re.fullmatch(pattern, lines["kernels"])


def test_a_missing_package_is_named_with_its_installation(monkeypatch, quick):
    def version(name):
        if name in ("mdtraj", "openmmml"):
            raise PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(doctor, "version", version)
    lines = report()
    assert lines["mdtraj"] == "no: not installed; pip install mdtraj"
    assert lines["openmmml"] == "not installed, optional; pip install openmmml"


def test_a_combination_that_fails_or_ends_its_process_is_listed_with_its_reason(monkeypatch, quick):
    failures = {
        ("plugin", "CPU"): Attempt(failure="it is missing; pip install it"),
        ("torchforce", "OpenCL"): Attempt(failure="it ends the process with SIGSEGV"),
        ("pythonforce", "CPU"): Attempt(output="0.25"),
    }
    monkeypatch.setattr(doctor, "measure_speeds", lambda *_, **__: failures)
    lines = report()
    assert lines["plugin on CPU"] == "no: it is missing; pip install it"
    assert lines["torchforce on OpenCL"] == "no: it ends the process with SIGSEGV"
    assert lines["pythonforce on CPU"] == "works, 0.25 ms a step of 512 beads"


def test_missing_kernels_and_platforms_have_a_cure(monkeypatch, quick):
    monkeypatch.setattr(kernels.library, "_WHY_NOT", "they were not built: pip install .")
    failures = [
        "Error loading library /lib/libOpenMMCUDA.so: libcuda.so.1: cannot open",
        "Error loading library /lib/libOpenMMRPMDCUDA.so: libOpenMMCUDA.so: cannot open",
    ]
    monkeypatch.setattr(openmm.Platform, "getPluginLoadFailures", lambda: failures)
    lines = report()
    assert "one to two orders slower: they were not built: pip install ." in lines["kernels"]
    assert lines["platform CUDA"] == (
        "no: libcuda.so.1: cannot open; to use an NVIDIA GPU install its driver"
    )
    assert not any("RPMD" in name for name in lines)
