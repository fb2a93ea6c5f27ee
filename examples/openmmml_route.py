"""A trained model through OpenMM-ML, as any other learned potential (`pip install openmmml`).

python openmmml_route.py runs/water/model.cg --steps 10000
"""

import argparse
import sys

from openmm import app, unit
from openmmml import MLPotential

import openmm_cgadv as cg

parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument("bundle", nargs="?", default="runs/water/model.cg")
parser.add_argument("--steps", type=int, default=10000)
parser.add_argument("--report-interval", type=int, default=1000)
options = parser.parse_args()

# Any topology with one bead a residue and a periodic box; this one is in every bundle.
pdb = app.PDBFile(f"{options.bundle}/topology.pdb")
potential = MLPotential("cgadv", path=options.bundle)
# OpenMM-ML takes the motion of the centre of mass out unless told otherwise; the model was
# trained with it.
system = potential.createSystem(pdb.topology, removeCMMotion=False)

# The energy is half of the model. The friction, and its memory, are in the integrator.
model = cg.load(options.bundle)
simulation = app.Simulation(pdb.topology, system, model.create_integrator(pdb.topology))
simulation.context.setPositions(pdb.positions)
simulation.context.setVelocitiesToTemperature(model.temperature * unit.kelvin)
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
