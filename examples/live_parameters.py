"""Scan a parameter in a running simulation: diffusion over friction, without a new Context.

    python live_parameters.py runs/water/model.cg --factors 0.5 1 2 --length-ps 200

`model.update_context(context)` puts the parameters of a model, those of its energy and of its
friction, into a Context that goes on from where it is. After `context.reinitialize()` call it again: a Context with
TorchForce is then back at the parameters that its System was made with.
"""

import argparse
from dataclasses import replace

from openmm import app, unit

import openmm_cgadv as cg

parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument("bundle", nargs="?", default="runs/water/model.cg")
parser.add_argument("--factors", type=float, nargs="+", default=[0.5, 0.7, 1.0, 1.4, 2.0])
parser.add_argument("--length-ps", type=float, default=200.0, help="at each factor")
parser.add_argument("--windows", type=int, default=4, help="that error bars come from")
options = parser.parse_args()

model = cg.load(options.bundle)
if model.friction.between_beads:
    parser.error(
        f"{options.bundle} has friction between neighbours, expected a bundle with friction on each bead"
    )
simulation = app.Simulation(model.topology, model.create_system(), model.create_integrator())
simulation.context.setPositions(model.positions)
simulation.context.setVelocitiesToTemperature(model.temperature * unit.kelvin)

interval = round(0.1 / model.timestep)  # in steps
reports = round(options.length_ps / options.windows / (interval * model.timestep))
print("factor  friction, 1/ps  diffusion, 1e-5 cm2/s")
for factor in options.factors:
    friction = replace(model.friction, drift=factor * model.friction.drift)
    changed = replace(model, friction=friction)
    changed.update_context(simulation.context)
    simulation.step(options.windows * interval)
    reporter = cg.AnalysisReporter(None, interval, model, window=reports)
    simulation.reporters = [reporter]
    simulation.step(options.windows * reports * interval)
    if reporter.diffusion is None:
        print(f"{factor:6.2f}  {changed.bead_friction[0]:14.2f}  {reporter.reasons['diffusion']}")
        continue
    found = 1e5 * reporter.diffusion.value, 1e5 * reporter.diffusion.stderr
    print(f"{factor:6.2f}  {changed.bead_friction[0]:14.2f}  {found[0]:.3f} ± {found[1]:.3f}")
