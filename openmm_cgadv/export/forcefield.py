"""The model as an OpenMM ForceField file, for `app.ForceField("NAME.cg/forcefield.xml")`."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
import openmm
from openmm import app

from ..potentials import PotentialSpec
from .beads import known_names
from .system import BACKENDS, checked_box, choose_backend

if TYPE_CHECKING:
    from ..model import Model

ELEMENT = "CGAdvForce"
"""Name of the XML element that contains the learned energy."""


def force_field_xml(model: Model) -> str:
    """Return the text of a ForceField file with the beads as residue templates and the learned energy.

    OpenMM's ForceField does not know learned energies, so the file asks it to import this package
    when it is loaded.
    """
    root = ElementTree.Element("ForceField")
    types = ElementTree.SubElement(root, "AtomTypes")
    residues = ElementTree.SubElement(root, "Residues")
    for name, mass in zip(model.type_names, model.masses):
        label = _label(name)
        ElementTree.SubElement(
            types, "Type", {"name": label, "class": label, "mass": repr(float(mass))}
        )
        residue = ElementTree.SubElement(residues, "Residue", name=name)
        ElementTree.SubElement(residue, "Atom", name=name, type=label)
    energy = ElementTree.SubElement(root, ELEMENT)
    energy.text = json.dumps(
        {
            "potential": model.spec.to_dict(),
            "theta": model.theta.tolist(),
        }
    )
    script = ElementTree.SubElement(root, "InitializationScript")
    script.text = (
        "\nfrom openmm_cgadv.export.forcefield import register\nregister(self, tree.getroot())\n"
    )
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def register(force_field: app.ForceField, root: ElementTree.Element) -> None:
    """Register the learned energies of a ForceField file in an OpenMM ForceField."""
    for element in root.findall(ELEMENT):
        generator = Generator(json.loads(element.text or "null"))
        force_field.registerGenerator(generator)
        force_field.registerTemplateMatcher(generator.match)


class Generator:
    """Add the learned energy to a System, for `ForceField.createSystem`."""

    def __init__(self, data: dict) -> None:
        self.spec = PotentialSpec.from_dict(data["potential"])
        self.theta = np.array(data["theta"])
        self.known = known_names(self.spec.type_names)

    def match(
        self,
        force_field: app.ForceField,
        residue: app.topology.Residue,
        bonded_to_atom: list[set[int]],
        *ignored: object,
    ) -> Any:
        """Return the template of a bead, with the element that the file's reader assigned, or None."""
        bead_type = self.known.get(residue.name)
        if bead_type is None or len(residue) != 1:
            return None
        template = copy.deepcopy(force_field._templates[self.spec.type_names[bead_type]])
        template.atoms[0].element = next(residue.atoms()).element
        return template

    def createForce(
        self,
        system: openmm.System,
        data: Any,
        nonbondedMethod: Any,
        nonbondedCutoff: Any,
        args: Any,
    ) -> None:
        """Add the force; `createSystem` takes `backend` and `plain` as keywords.

        The learned energy has its own cutoff; `nonbondedMethod` and `nonbondedCutoff` do not apply.
        The CMMotionRemover that `createSystem` adds by default reduces the diffusion coefficient by
        a fraction of one over the number of beads; ``removeCMMotion=False`` omits it.
        """
        numbers = {_label(name): bead_type for bead_type, name in enumerate(self.spec.type_names)}
        for atom in data.atoms:
            if data.atomType[atom] not in numbers:
                raise ValueError(
                    f"topology: found residue {atom.residue.name} {atom.residue.id}, which another "
                    "force field knows, expected beads of this model alone; "
                    'MLPotential("cgadv", path=...).createMixedSystem of OpenMM-ML mixes them'
                )
        types = np.array([numbers[data.atomType[atom]] for atom in data.atoms])
        checked_box(data.atoms[0].residue.chain.topology, self.spec.r_cut)
        plain = bool(args.get("plain", False)) or not self.spec.compiled
        backend = BACKENDS[choose_backend(args.get("backend", None), plain)]
        system.addForce(backend.create_force(self.spec, self.theta, types, plain))


def _label(name: str) -> str:
    return f"cgadv-{name}"
