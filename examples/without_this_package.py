"""Run a bundle where openmm_cgadv is not installed, with OpenMM and torch alone.

    python without_this_package.py runs/water/model.cg --steps 1000

The energy comes from `potential.pt`, TorchScript of plain torch operators, through openmm-torch
where it is installed, else through OpenMM's own PythonForce. That is exact, but far slower than the
compiled kernels of the package.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import openmm

# Before OpenMM, whose plugin for torch looks for its libraries when OpenMM is imported.
import torch
from openmm import app, unit

parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument("bundle", nargs="?", default="runs/water/model.cg", type=Path)
parser.add_argument("--steps", type=int, default=1000)
parser.add_argument("--report-interval", type=int, default=100)
parser.add_argument("--platform", default="CPU", help="an OpenMM platform, such as CUDA")
options = parser.parse_args()


def force_of_openmm_torch(file: Path) -> openmm.Force:
    import openmmtorch

    return openmmtorch.TorchForce(str(file))


def force_of_openmm(file: Path) -> openmm.Force:
    potential = torch.jit.load(file)

    def energy_and_forces(state):
        positions = torch.tensor(state.getPositions(asNumpy=True)._value, requires_grad=True)
        box = torch.tensor(state.getPeriodicBoxVectors(asNumpy=True)._value)
        energy = potential(positions, box)
        (gradient,) = torch.autograd.grad(energy, positions)
        return energy.item(), -gradient.numpy()

    return openmm.PythonForce(energy_and_forces)


try:
    force = force_of_openmm_torch(options.bundle / "potential.pt")
    print("energy through openmm-torch")
except ImportError:
    force = force_of_openmm(options.bundle / "potential.pt")
    print("energy through PythonForce")
force.setUsesPeriodicBoundaryConditions(True)

if not (options.bundle / "integrator.xml").exists():
    parser.error(
        f"{options.bundle} has friction between neighbours, whose dynamics needs openmm_cgadv"
    )
# Masses, box and configuration are plain arrays; the integrator is an XML file of OpenMM.
temperature = json.loads((options.bundle / "model.json").read_text())["temperature_K"]
arrays = np.load(options.bundle / "parameters.npz")
system = openmm.System()
for kind in arrays["types"]:
    system.addParticle(arrays["masses"][kind])
system.setDefaultPeriodicBoxVectors(*arrays["box"])
system.addForce(force)
integrator = openmm.XmlSerializer.deserialize((options.bundle / "integrator.xml").read_text())

topology = app.PDBFile(str(options.bundle / "topology.pdb")).topology
platform = openmm.Platform.getPlatform(options.platform)
simulation = app.Simulation(topology, system, integrator, platform)
simulation.context.setPositions(arrays["positions"])
simulation.context.setVelocitiesToTemperature(temperature * unit.kelvin)
simulation.reporters.append(
    app.StateDataReporter(
        sys.stdout,
        options.report_interval,
        time=True,
        potentialEnergy=True,
        temperature=True,
        speed=True,
    )
)
simulation.step(options.steps)
