"""`cgadv doctor` says what works and how fast, and for what does not, the one thing to do."""

import re
from importlib.metadata import PackageNotFoundError

import openmm
import pytest
from typer.testing import CliRunner

from openmm_cgadv import doctor, kernels
from openmm_cgadv.cli import app
from openmm_cgadv.export.system import BACKENDS


def report() -> dict[str, str]:
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0, result.stdout
    lines = [re.split(r"  +", line, maxsplit=1) for line in result.stdout.splitlines()]
    return {name: text for name, text in lines}


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(doctor, "SPEED_SECONDS", 1e-3)


def test_everything_here_is_listed_with_a_speed(quick):
    lines = report()
    for name in ("openmm_cgadv", "torch", "openmm", "numpy", "openmmtorch", "GPU", "threads"):
        assert name in lines
    assert lines["platform Reference"] == lines["platform CPU"] == "works"
    for name, backend in BACKENDS.items():
        if backend.why_not() is None:
            found = re.fullmatch(
                r"works, (\S+) ms a step of 512 beads \(\w+ platform\)", lines[f"backend {name}"]
            )
            assert 0.001 < float(found[1]) < 1000
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


@pytest.mark.parametrize("name", BACKENDS)
def test_a_backend_that_does_not_load_says_why(monkeypatch, quick, name):
    monkeypatch.setattr(BACKENDS[name], "why_not", lambda: "it is missing; pip install it")
    assert report()[f"backend {name}"] == "no: it is missing; pip install it"


def test_a_backend_that_fails_when_it_runs_is_found(monkeypatch, quick):
    def broken(*arguments, **keywords):
        raise openmm.OpenMMException("no kernel")

    monkeypatch.setattr(doctor, "create_simulation", broken)
    assert report()["backend pythonforce"] == "no: no kernel"


def test_missing_kernels_and_platforms_have_a_cure(monkeypatch, quick):
    monkeypatch.setattr(kernels, "_WHY_NOT", "they were not built: pip install .")
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
