"""Train a coarse-grained model on a trajectory of one's own, here water from GROMACS.

    python own_trajectory.py --topology water.gro --trajectory water.xtc --interval-fs 20

Any format that MDTraj reads will do. The frames should be 10 to 50 fs apart (with GROMACS
`nstxout-compressed = 10` at a time step of 2 fs), 100 to 200 ps of them are enough, and the
all-atom thermostat should be a global one, such as Nosé–Hoover or stochastic velocity rescaling.
Training takes some minutes; interrupted, it goes on when the script is run again.
"""

import argparse
import sys
from pathlib import Path

import yaml

import openmm_cgadv as cg
from openmm_cgadv.workflow.cli import app as cgadv

parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument("--topology", default="water.gro", help="gro, pdb, prmtop, …")
parser.add_argument("--trajectory", default=["water.xtc"], nargs="+", help="in the order of time")
parser.add_argument("--interval-fs", default=20.0, type=float, help="time between frames")
parser.add_argument("--temperature", default=298.15, type=float, help="K")
parser.add_argument("--out", default="runs/mine", type=Path)
parser.add_argument("--set", default=[], nargs="+", help="such as training.iterations=200")
options = parser.parse_args()

# What is left out has a default. Every residue becomes one bead at its centre of mass.
experiment = {
    "reference": {
        "temperature_K": options.temperature,
        "trajectory": {
            "topology": str(Path(options.topology).resolve()),
            "files": [str(Path(file).resolve()) for file in options.trajectory],
            "frame_interval_fs": options.interval_fs,
        },
    }
}
options.out.mkdir(parents=True, exist_ok=True)
file = options.out / "own_trajectory.yaml"
file.write_text(yaml.safe_dump(experiment, sort_keys=False))

# As `cgadv run FILE --out DIR` in a shell: beads, fit, training, bundle, production and report.
changes = [word for change in options.set for word in ("--set", change)]
status = cgadv(["run", str(file), "--out", str(options.out), *changes], standalone_mode=False)
if status:
    sys.exit(status)

model = cg.load(options.out / "model.cg")
for name, friction in zip(model.type_names, model.bead_friction):
    print(f"{name}: effective friction {friction:.1f}/ps")
print(f"what it looks like: {options.out / 'report' / 'index.html'}")
print(f"to run it: cgadv simulate {options.out / 'model.cg'} --steps 100000 --molecules 1000")
