"""A library of OpenMM-Torch that lacks a symbol is found before it ends the process."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import openmm
import pytest
from backends import needs_torchforce

from openmm_cgadv.attempts import Attempt, attempt_each, describe_end
from openmm_cgadv.platforms import platform_names

LIBRARIES = Path(openmm.version.openmm_library_path)
HERE = Path(__file__).parent

# Torch is imported last, as in scripts that know nothing of it, or first, when OpenMM loads the
# library by itself.
MODEL = """
import sys
{first}
sys.path.insert(0, {here!r})
import logging
logging.basicConfig(level=logging.INFO, format="%(message)s")
import openmm
from models import make_model
from openmm_cgadv.export.backends import plugin, torchforce
from openmm_cgadv.simulation.run import create_simulation
model = make_model()
"""


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """A function that makes a folder of OpenMM's plugins in which OpenMM-Torch's for a platform is broken."""

    def make(library: str, *platforms: str) -> Path:
        root = tmp_path_factory.mktemp(library)
        folder = root / "plugins"
        folder.mkdir()
        # Plugins look for the libraries of OpenMM in the folder above theirs.
        for file in LIBRARIES.rglob("*.so"):
            (root / file.relative_to(LIBRARIES)).symlink_to(file)
        path = folder / f"libOpenMMTorch{library}.so"
        path.unlink()
        subprocess.run(
            [
                shutil.which("c++") or "g++", "-std=c++17", "-shared", "-fPIC", "-Wl,-z,lazy",
                '-DPLATFORMS="{}"'.format('","'.join(platforms)), f"-I{LIBRARIES.parent / 'include'}",
                str(HERE / "cpp" / "broken_torchforce.cpp"), "-o", str(path),
                f"-L{LIBRARIES}", "-lOpenMM",
                # Like the real one it needs torch, without which it does not load.
                "-Wl,--no-as-needed", "-lOpenMMTorch", "-Wl,-rpath,$ORIGIN/..",
            ],
            check=True,
        )  # fmt: skip
        return folder

    return make


def run(folder: Path, script: str, first: str = "") -> subprocess.CompletedProcess:
    code = MODEL.format(here=str(HERE), first=first) + script
    environment = dict(
        os.environ,
        OPENMM_PLUGIN_DIR=str(folder),
        PYTHONPATH=os.pathsep.join(filter(None, sys.path)),
    )
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )


SENTENCE = "needs the symbol _ZN6OpenMM24functionOfAnotherVersionEv, which is missing: it was built for another version"


@needs_torchforce
@pytest.mark.parametrize("first", ["", "import torch"])
@pytest.mark.slow
def test_next_backend_is_chosen_with_a_warning(broken, first):
    """The library for Reference and CPU is broken, and the plugin is not there."""
    script = """
plugin.why_not = lambda *_: "it was not built"
simulation = create_simulation(model)
simulation.step(3)
assert isinstance(simulation.system.getForce(0), openmm.PythonForce)
print("survived")
"""
    folder = broken("Reference", "Reference", "CPU")
    if "OpenCL" in platform_names():
        # TorchForce works on OpenCL there, and is no choice for a simulation on the processor.
        script = script.replace(
            "create_simulation(model)", 'create_simulation(model, platform="CPU")'
        )
    done = run(folder, script, first)
    assert done.returncode == 0, done.stderr
    assert "survived" in done.stdout
    assert SENTENCE in done.stderr, done.stderr
    (said,) = [line for line in done.stderr.splitlines() if SENTENCE in line]
    assert said.startswith(
        "energy through pythonforce: plugin can't be used: it was not built; torchforce"
    )
    assert "libOpenMMTorchReference.so" in said and "pip install" in said


@needs_torchforce
@pytest.mark.skipif("OpenCL" not in platform_names(), reason="OpenMM has no platform OpenCL here")
@pytest.mark.slow
def test_a_broken_library_for_opencl_leaves_the_other_platforms(broken):
    """OpenMM's first choice is OpenCL. It is not taken, though the script names no platform."""
    script = """
print(torchforce.why_not("OpenCL"))
assert torchforce.why_not("CPU") is None and torchforce.why_not() is None
system = model.create_system(backend="torchforce")
context = openmm.Context(system, openmm.VerletIntegrator(0.001))
context.setPositions(model.positions)
context.getState(energy=True)
print(context.getPlatform().getName())
"""
    done = run(broken("OpenCL", "OpenCL"), script)
    assert done.returncode == 0, done.stderr
    reason, platform = done.stdout.splitlines()[-2:]
    assert "libOpenMMTorchOpenCL.so" in reason and SENTENCE in reason
    assert platform == "CPU"


@needs_torchforce
@pytest.mark.skipif("OpenCL" not in platform_names(), reason="OpenMM has no platform OpenCL here")
@pytest.mark.slow
def test_a_broken_library_that_openmm_has_loaded_is_rejected(broken):
    """Torch came first, so that OpenMM loaded the library: only named platforms are safe."""
    script = """
print(torchforce.why_not())
simulation = create_simulation(model, backend="torchforce", platform="CPU")
simulation.step(3)
try:
    model.create_system(backend="torchforce")
except ImportError as error:
    print(error)
"""
    done = run(broken("OpenCL", "OpenCL"), script, "import torch")
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines()[-2:]:
        assert "OpenMM would choose the platform OpenCL" in line and SENTENCE in line


PROGRAM = """
import os, signal, sys
from openmm_cgadv.attempts import run_each

def work(name):
    if name == "killed":
        os.kill(os.getpid(), signal.SIGSEGV)
    if name == "wrong":
        raise ValueError("found 1,\\nexpected 2")
    return name.upper()

run_each(sys.argv[1:], work)
"""


def test_every_attempt_is_made_whatever_happens_to_the_others(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    found = attempt_each(program, [], ["a", "killed", "b", "wrong", "c"])
    assert found == {
        "a": Attempt("A"),
        "killed": Attempt(failure="it ends the process with SIGSEGV"),
        "b": Attempt("B"),
        "wrong": Attempt(failure="found 1, expected 2"),
        "c": Attempt("C"),
    }


def test_an_attempt_imports_from_the_same_places_as_this_process(tmp_path, monkeypatch):
    """Neither the working directory nor the program's own folder hides an installed package."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM + "\nimport numpy\nassert not hasattr(numpy, 'wrong')")
    (tmp_path / "numpy.py").write_text("wrong = True")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    assert attempt_each(program, [], ["a"]) == {"a": Attempt("A")}


def test_a_program_that_does_not_start_fails_for_all(tmp_path):
    program = tmp_path / "program.py"
    program.write_text("import nothing_of_this_name")
    found = attempt_each(program, [], ["a", "b"])
    reason = "ModuleNotFoundError: No module named 'nothing_of_this_name'"
    assert found == {"a": Attempt(failure=reason), "b": Attempt(failure=reason)}


def test_a_program_that_hangs_is_ended(tmp_path):
    program = tmp_path / "program.py"
    program.write_text("import time; print('begin a', flush=True); time.sleep(60)")
    found = attempt_each(program, [], ["a"], timeout=2)
    assert found == {"a": Attempt(failure="it does not end within 2 s")}


@pytest.mark.parametrize(
    "status, errors, sentence",
    [
        (-11, "", "it ends the process with SIGSEGV"),
        (3, "", "it ends the process with status 3"),
        (1, "Traceback\nImportError: no", "ImportError: no"),
        (127, "python: symbol lookup error: /a/libX.so: undefined symbol: _Zf", "libX.so needs the symbol _Zf"),
    ],
)  # fmt: skip
def test_end_of_a_process_is_described(status, errors, sentence):
    assert describe_end(status, errors).startswith(sentence)
