"""Every example does what it says, in a short form."""

import json
import re
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import openmm
import pytest
from models import make_model, quiet
from openmm import app, unit

from openmm_cgadv import BeadTrajectory, load, save_bundle
from openmm_cgadv.export import openmm_plugin

EXAMPLES = Path(__file__).parent.parent / "examples"
SHORT_TRAINING = [
    "training.iterations=2",
    "training.validate_every=2",
    "training.checkpoint_every=2",
    "training.chains=2",
    "training.window_ps=0.4",
    "production.length_ps=4",
    "production.equilibration_ps=0.5",
]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return save_bundle(quiet(make_model(n=64)), tmp_path_factory.mktemp("bundle") / "model.cg")


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Runs an example with arguments in a folder of its own; its output."""
    monkeypatch.chdir(tmp_path)

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_production_resumes_from_its_checkpoint(bundle, run):
    arguments = [bundle, "--molecules", 100, "--equilibration-ps", 0.5, "--out", "long"]
    first = run("production_plugin.py", *arguments, "--length-ns", 0.01)
    assert "100.0%" in first
    assert ("another backend" in first) == (openmm_plugin.why_not() is not None)
    with BeadTrajectory.open("long/beads.h5") as beads:
        assert beads.n_frames == 10 and beads.frame_interval == pytest.approx(1.0)
    second = run("production_plugin.py", *arguments, "--length-ns", 0.02)
    assert "100.0%" in second and "50.0%" not in second
    with BeadTrajectory.open("long/beads.h5") as beads:
        assert beads.n_frames == 20 and beads.n_beads == 100
        assert np.abs(np.diff(beads.positions(), axis=0)).max() < 2.0
    assert Path("long/trajectory.dcd").stat().st_size > 2 * 100 * 12


def test_killed_production_resumes_from_its_checkpoint(bundle, tmp_path):
    out = tmp_path / "long"
    command = [
        sys.executable,
        EXAMPLES / "production_plugin.py",
        bundle,
        "--molecules",
        100,
        "--equilibration-ps",
        0.5,
        "--out",
        out,
        "--length-ns",
    ]
    command = [str(word) for word in command]
    process = subprocess.Popen([*command, "1000"], stdout=subprocess.DEVNULL)
    for _ in range(600):
        if (out / "checkpoint.chk").exists():
            break
        time.sleep(0.1)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    with BeadTrajectory.open(out / "beads.h5") as beads:
        assert beads.n_frames >= 10
    length = 0.01 * (beads.n_frames // 10 + 1)
    again = subprocess.run([*command, f"{length:.2f}"], capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    with BeadTrajectory.open(out / "beads.h5") as beads:
        assert beads.n_frames == round(length * 1000)
        assert np.abs(np.diff(beads.positions(), axis=0)).max() < 2.0


def test_openmm_ml_makes_the_same_system(bundle, run):
    openmmml = pytest.importorskip("openmmml", reason="the package openmmml is not installed")
    from openmm_cgadv.openmmml import Factory

    # As OpenMM-ML does where this package is installed, not only on the path.
    openmmml.MLPotential.registerImplFactory("cgadv", Factory())
    lines = run("openmmml_route.py", bundle, "--steps", 100, "--report-interval", 10).splitlines()
    temperatures = [float(line.split(",")[2]) for line in lines[1:]]
    assert len(temperatures) == 10 and 100 < np.mean(temperatures) < 600


@pytest.mark.parametrize("with_openmm_torch", [True, False])
def test_bundle_runs_without_this_package(bundle, with_openmm_torch):
    script = f"""
import runpy, sys
if not {with_openmm_torch}:
    sys.modules["openmmtorch"] = None
sys.argv = ["example", {str(bundle)!r}, "--steps", "20", "--report-interval", "2"]
runpy.run_path({str(EXAMPLES / "without_this_package.py")!r}, run_name="__main__")
assert not any(name.startswith("openmm_cgadv") for name in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, header, *lines = done.stdout.splitlines()
    assert first.startswith("energy through")
    assert with_openmm_torch or first == "energy through PythonForce"
    energies = [float(line.split(",")[1]) for line in lines]
    model = load(bundle)
    context = openmm.Context(model.create_system(), openmm.VerletIntegrator(0.001))
    context.setPositions(model.positions)
    expected = context.getState(energy=True).getPotentialEnergy()._value
    assert len(energies) == 10 and energies[0] == pytest.approx(expected, abs=15.0)


def test_scan_shows_diffusion_falling_with_friction(bundle, run):
    arguments = ["--factors", 0.25, 4.0, "--length-ps", 34, "--windows", 2]
    table = run("live_parameters.py", bundle, *arguments).splitlines()[1:]
    rows = [[float(x) for x in re.findall(r"[\d.]+", row)] for row in table]
    friction = load(bundle).bead_friction[0]
    assert [row[1] for row in rows] == pytest.approx([0.25 * friction, 4 * friction], abs=0.01)
    assert rows[0][2] > 2 * rows[1][2] > 0


@pytest.mark.skipif(openmm_plugin.why_not() is not None, reason=openmm_plugin.why_not() or "")
@pytest.mark.slow
def test_viscosity_is_reported_for_friction_on_single_beads_and_between_pairs(run):
    shorter = [
        "reference.molecules=100",
        "reference.length_ps=12",
        "reference.equilibration_ps=2",
        *SHORT_TRAINING,
        "production.length_ps=12",
    ]
    said = run("viscosity.py", "--quick", "--out", "eta", "--set", *shorter)
    _, *table = said[said.index("shear viscosity, mPa s") :].splitlines()
    table, more = table[:9], table[9:]
    # Whether so short a run is within tolerance is left to chance; that each model is assessed is not.
    assert len(more) == 3
    for line, label, run_of in zip(more[1:], ("single beads", "neighbours"), ("single", "pair")):
        assert re.search(rf"{label}: .*\d of \d+ observables within tolerance", line)
        assert line.endswith(f"See eta/{run_of}/report/index.html.")
    labels = ["all-atom", "friction on single beads", "friction between neighbours"]
    assert [line.strip() for line in table[::3]] == labels
    for line in table:
        assert line.strip() in labels or re.search(
            r"by (shear waves|the stress) +(\d+\.\d\d ± |\w+ \w+)", line
        )
    stress = [float(re.search(r"[\d.]+", line).group()) for line in table[5::3]]
    assert all(0 < value < 5 for value in stress)
    with BeadTrajectory.open("eta/pair/production/trained/beads.h5") as beads:
        assert beads.has_friction_stress


@pytest.fixture(scope="module")
def gromacs_files(tmp_path_factory):
    """A topology and a trajectory of real water as GROMACS writes them."""
    import mdtraj

    directory = tmp_path_factory.mktemp("gromacs")
    force_field = app.ForceField("spce.xml")
    modeller = app.Modeller(app.Topology(), [] * unit.nanometer)
    modeller.addSolvent(force_field, model="spce", numAdded=125)
    topology, positions = modeller.topology, modeller.positions
    # The box for this number leaves some room; the potential needs 1.4 nm.
    system = force_field.createSystem(
        topology, nonbondedMethod=app.CutoffPeriodic, nonbondedCutoff=0.7 * unit.nanometer
    )
    integrator = openmm.LangevinMiddleIntegrator(298.15, 2.0, 0.002)
    platform = openmm.Platform.getPlatform("CPU")
    simulation = app.Simulation(topology, system, integrator, platform, {"Threads": "1"})
    simulation.context.setPositions(positions)
    simulation.minimizeEnergy()
    simulation.context.setVelocitiesToTemperature(298.15)
    simulation.step(500)
    simulation.currentStep = 0
    simulation.context.setTime(0.0)
    simulation.reporters.append(app.XTCReporter(str(directory / "water.xtc"), 10))
    simulation.step(2000)
    state = simulation.context.getState(positions=True)
    frame = mdtraj.Trajectory(
        state.getPositions(asNumpy=True)._value, mdtraj.Topology.from_openmm(topology)
    )
    frame.unitcell_vectors = state.getPeriodicBoxVectors(asNumpy=True)._value[None]
    frame.save(str(directory / "water.gro"))
    return directory


@pytest.mark.slow
def test_own_trajectory_is_trained_on_and_run(gromacs_files, run, monkeypatch):
    said = run(
        "own_trajectory.py",
        "--topology",
        gromacs_files / "water.gro",
        "--trajectory",
        gromacs_files / "water.xtc",
        "--out",
        "mine",
        "--set",
        *SHORT_TRAINING,
    )
    assert re.search(r"HOH: effective friction \d+\.\d/ps", said)
    assert "to run it: cgadv simulate mine/model.cg" in said
    assert len(load("mine/model.cg").types) == 125
    metrics = json.loads(Path("mine/report/metrics.json").read_text())
    assert metrics["reference"]["n_frames"] == 200
    assert metrics["trained"]["temperature_K"] == pytest.approx(298, abs=40)


@pytest.mark.parametrize("why, status", [(ValueError("wrong"), 1), (KeyboardInterrupt(), 130)])
def test_own_trajectory_stops_with_the_status_of_a_failed_stage(run, monkeypatch, why, status):
    def fail(*_, **__):
        raise why

    monkeypatch.setattr("openmm_cgadv.workflow.stages.read_trajectory", fail)
    (Path.cwd() / "water.gro").touch()
    (Path.cwd() / "water.xtc").touch()
    with pytest.raises(SystemExit) as stop:
        run("own_trajectory.py")
    assert stop.value.code == status


@pytest.mark.slow
def test_notebook_trains_and_shows_its_plots(tmp_path):
    nbformat = pytest.importorskip("nbformat", reason="the package nbformat is not installed")
    nbclient = pytest.importorskip("nbclient", reason="the package nbclient is not installed")
    notebook = nbformat.read(EXAMPLES / "water.ipynb", as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in cells), "it keeps its outputs"
    (parameters,) = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    shorter = [
        "reference.molecules=100",
        "reference.length_ps=6",
        "reference.equilibration_ps=2",
        *SHORT_TRAINING,
    ]
    parameters.source += f"\nout, settings = {str(tmp_path / 'out')!r}, {shorter}"
    resources = {"metadata": {"path": str(EXAMPLES)}}
    nbclient.NotebookClient(notebook, timeout=600, resources=resources).execute()
    outputs = [output for cell in cells for output in cell.outputs]
    shown = [output.data for output in outputs if "data" in output]
    drawn = [kind for data in shown for kind in data if kind.startswith("image/")]
    assert drawn == 4 * ["image/svg+xml"] + ["image/png"]
    printed = "".join(o.text for o in outputs if o.output_type == "stream")
    assert re.search(r"diffusion \([\d.e-]+ ± [\d.e-]+\) cm²/s", printed)
    assert any("report: done in" in data.get("text/plain", "") for data in shown)
