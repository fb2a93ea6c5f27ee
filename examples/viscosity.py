"""Shear viscosity of water by friction between neighbours and by friction on single beads.

    python viscosity.py --out runs/viscosity

Makes all-atom water, trains both models on it and runs them in OpenMM, which takes about three quarters of
an hour on two cores, or some minutes with `--quick`. Run again, it goes on where it stopped, and prints what was
measured. DIR/pair/report/index.html shows both beside all-atom water.
"""

import argparse
import json
import sys
from pathlib import Path

import yaml

from openmm_cgadv.workflow.cli import app as cgadv

parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument("--out", default="runs/viscosity", type=Path)
parser.add_argument("--quick", action="store_true", help="a small box and short runs: large errors")
parser.add_argument("--set", default=[], nargs="+", help="such as training.seed=2")
options = parser.parse_args()

water = {"temperature_K": 298.15, "water": "spce", "molecules": 343, "length_ps": 400}
settings = {"production": {"length_ps": 1000}}
if options.quick:
    water |= {"molecules": 125, "length_ps": 40, "equilibration_ps": 15}
    settings = {"training": {"iterations": 100}, "production": {"length_ps": 100}}
# Long reference runs pay: the viscosity of all-atom water is the least certain figure of all.
beads = str((options.out / "single" / "reference" / "beads.h5").resolve())
experiments = {
    "single": ("generalized_langevin", water),
    "pair": ("pair", {"temperature_K": 298.15, "beads": beads}),
}
figures = {}
for name, (equation, reference) in experiments.items():
    folder = options.out / name
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "viscosity.yaml"
    content = {"reference": reference, "dynamics": {"equation": equation, "timestep_fs": 10}}
    file.write_text(yaml.safe_dump(content | settings, sort_keys=False))
    arguments = ["run", str(file), "--out", str(folder)]
    if name == "pair":
        arguments += ["--compare", str(options.out / "single")]
    for change in options.set:
        # The reference is made once; its temperature and frames are told of it.
        told = ("reference.temperature_K=", "reference.frame_interval_fs=")
        if name == "single" or not change.startswith("reference.") or change.startswith(told):
            arguments += ["--set", change]
    status = cgadv(arguments, standalone_mode=False)
    if status:
        sys.exit(status)
    figures[name] = json.loads((folder / "report" / "metrics.json").read_text())

runs = {
    "all-atom": figures["single"]["reference"],
    "friction on single beads": figures["single"]["trained"],
    "friction between neighbours": figures["pair"]["trained"],
}
print("shear viscosity, mPa s, for long waves")
for label, run in runs.items():
    print(f"  {label}")
    for how, name in (("by shear waves", "viscosity"), ("by the stress", "stress_viscosity")):
        value, error = run[f"{name}_mPa_s"], run[f"{name}_stderr"]
        found = (
            run["reasons"].get(f"{name}_mPa_s") if value is None else f"{value:.2f} ± {error:.2f}"
        )
        print(f"    {how:<16}{found}")
print(
    "With friction on single beads the stress is that of the energy alone, and no flow has that viscosity."
)
for label, name in (
    ("friction on single beads", "single"),
    ("friction between neighbours", "pair"),
):
    print(
        f"{label}: {figures[name]['assessment']['headline']} See {options.out / name}/report/index.html."
    )
