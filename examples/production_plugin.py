"""A long production run of a trained model with the native plugin: 20 ns of 5000 waters by default.

    python production_plugin.py runs/water/model.cg --out runs/long

It is a usual OpenMM script, to begin from for what `cgadv simulate` doesn't do. Run again, it goes
on from its last checkpoint.
"""

import argparse
import sys
from pathlib import Path

import openmm
from openmm import app, unit

import openmm_cgadv as cg

parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument("bundle", nargs="?", default="runs/water/model.cg")
parser.add_argument("--molecules", type=int, default=5000)
parser.add_argument("--length-ns", type=float, default=20.0)
parser.add_argument("--equilibration-ps", type=float, default=20.0)
parser.add_argument("--out", type=Path, default="runs/long")
parser.add_argument("--threads", default="1", help="of OpenMM's CPU platform")
options = parser.parse_args()
options.out.mkdir(parents=True, exist_ok=True)

# The bundle's configuration, repeated and cut to as many molecules at its own density.
model = cg.bulk_model(cg.load(options.bundle), molecules=options.molecules)
try:
    system = model.create_system(backend="plugin")
    integrator = model.create_integrator(backend="plugin")
except ImportError as reason:
    print(f"{reason}; running through another backend, more slowly")
    system = model.create_system()
    integrator = model.create_integrator(backend="openmm")
simulation = app.Simulation(
    model.topology,
    system,
    integrator,
    openmm.Platform.getPlatform("CPU"),
    {"Threads": options.threads},
)

picosecond = round(1.0 / model.timestep)  # in steps
length = round(options.length_ns * 1000 / model.timestep)
checkpoint = options.out / "checkpoint.chk"
resumed = checkpoint.exists()
if resumed:
    simulation.loadCheckpoint(str(checkpoint))
else:
    simulation.context.setPositions(model.positions)
    # At the faces of a cut box beads may overlap.
    simulation.minimizeEnergy(maxIterations=200)
    simulation.context.setVelocitiesToTemperature(model.temperature * unit.kelvin)
    simulation.step(round(options.equilibration_ps / model.timestep))
    simulation.currentStep = 0
    simulation.context.setTime(0.0)
    with open(options.out / "topology.pdb", "w") as file:
        app.PDBFile.writeFile(model.topology, model.positions * unit.nanometer, file)

simulation.reporters += [
    # Unwrapped positions, read by cg.BeadTrajectory. Before the checkpoint, so that the file never
    # ends before it; frames after it are dropped.
    cg.H5MDReporter(options.out / "beads.h5", picosecond, model, append=resumed),
    app.DCDReporter(str(options.out / "trajectory.dcd"), 10 * picosecond, append=resumed),
    app.CheckpointReporter(str(checkpoint), 10 * picosecond),
    # g(r), mean squared displacements and diffusion, after every 100 ps.
    cg.AnalysisReporter(options.out / "figures.json", picosecond // 10, model),
    app.StateDataReporter(
        sys.stdout,
        10 * picosecond,
        time=True,
        potentialEnergy=True,
        temperature=True,
        speed=True,
        progress=True,
        remainingTime=True,
        totalSteps=length,
    ),
]
simulation.step(max(length - simulation.currentStep, 0))
