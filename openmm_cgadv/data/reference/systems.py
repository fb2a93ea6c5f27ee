"""Built-in all-atom liquids: force field, initial positions and expected density."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openmm
from openmm import app, unit
from scipy.spatial.transform import Rotation

from ...errors import InputError
from ...platforms import default_platforms, find_platform
from ...threads import available_cores
from ...units import KB

DALTON_PER_NM3 = 1.66053906660e-3
"""One dalton a cubic nanometre in g/cm^3."""
BAR = 0.0602214076
"""One bar in kJ/mol/nm^3."""
DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class BoxSettings:
    """Settings of the initial box and its nonbonded interactions."""

    cutoff: float = 0.9
    """Cutoff of Lennard-Jones interactions and of the direct sum of PME (nm), if the box is large
    enough."""
    switch: float = 0.9
    """Distance at which the switching function of uncharged liquids begins, as a fraction of the
    cutoff."""
    fewest_molecules: int = 20
    """In a smaller box the cutoff excludes part of the first coordination shell."""
    jitter: float = 0.15
    """Largest random displacement of molecules from their lattice sites, in lattice constants."""
    lattice_constant: float = 0.5
    """Initial lattice constant of molecules that `Modeller` does not place (nm)."""


@dataclass(frozen=True)
class Molecule:
    """Residue, atoms and bonds of a molecule of a liquid.

    Attributes
    ----------
    residue : str
        Name of its residue, which is also the name of its bead type.
    atoms : tuple of (str, str, tuple)
        Name, element and position (nm) of each atom.
    bonds : tuple of (int, int)
    """

    residue: str
    atoms: tuple[tuple[str, str, tuple[float, float, float]], ...]
    bonds: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Liquid:
    """A liquid by its force field, and its properties at 1 bar."""

    force_field: str
    """A file of OpenMM's own, or a path."""
    masses: tuple[float, ...]
    """Mass of a molecule of each component (dalton). Components have equal numbers of molecules."""
    known_at: float
    """Temperature of the following properties (K)."""
    density: float
    """Density (g/cm^3)."""
    expansion: float
    """Thermal expansion coefficient (1/K)."""
    compressibility: float
    """Isothermal compressibility (1/bar)."""
    range: tuple[float, float]
    """Lowest and highest temperature of the (metastable) liquid at 1 bar (K)."""
    molecules: tuple[Molecule, ...] = ()
    """One for each component; empty for water, which `Modeller` places."""
    charged: bool = True
    """Whether the electrostatic interactions need PME."""


ARGON = Molecule("AR", (("AR", "Ar", (0.0, 0.0, 0.0)),))
KRYPTON = Molecule("KR", (("KR", "Kr", (0.0, 0.0, 0.0)),))
METHANOL = Molecule(
    "MOH",
    (
        ("C", "C", (0.0, 0.0, 0.0)),
        ("O", "O", (0.141, 0.0, 0.0)),
        ("H1", "H", (-0.0364, 0.1027, 0.0)),
        ("H2", "H", (-0.0364, -0.0514, 0.0890)),
        ("H3", "H", (-0.0364, -0.0514, -0.0890)),
        ("HO", "H", (0.1710, -0.0896, 0.0)),
    ),
    ((0, 1), (0, 2), (0, 3), (0, 4), (1, 5)),
)

# SPC/E: Berendsen et al., J. Phys. Chem. 91, 6269 (1987). TIP4P-Ew: Horn et al., J. Chem. Phys.
# 120, 9665 (2004). TIP3P with Ewald summation: 0.98 to 0.986 in the literature, 0.985(5) in a run
# of 60 ps of 216 molecules with this force field. Expansion and compressibility of SPC/E and TIP3P:
# Vega and Abascal, Phys. Chem. Chem. Phys. 13, 19663 (2011). Runs with these force fields: argon
# 1.397(1) at 87 K and 1.334(2) at 97 K (real argon at 87.3 K: 1.396), the mixture 1.876(2) at 115 K
# and 1.807(3) at 125 K (500 atoms, 300 to 500 ps); methanol 0.777(2) (216 molecules, 40 ps; real
# methanol: 0.787), with the expansion of real methanol.
LIQUIDS = {
    "spce": Liquid("spce.xml", (18.0153,), 298.15, 0.998, 4.86e-4, 46.1e-6, (220.0, 400.0)),
    "tip3p": Liquid("tip3p.xml", (18.0153,), 298.15, 0.985, 9.2e-4, 57.4e-6, (220.0, 400.0)),
    "tip4pew": Liquid("tip4pew.xml", (18.0153,), 298.15, 0.9954, 3.2e-4, 48.1e-6, (220.0, 400.0)),
    "argon": Liquid(
        str(DATA / "argon_krypton.xml"),
        (39.948,),
        87.0,
        1.397,
        4.5e-3,
        2.1e-4,
        (80.0, 110.0),
        (ARGON,),
        charged=False,
    ),
    "lj_mixture": Liquid(
        str(DATA / "argon_krypton.xml"),
        (39.948, 83.798),
        115.0,
        1.876,
        3.8e-3,
        2.1e-4,
        (100.0, 135.0),
        (ARGON, KRYPTON),
        charged=False,
    ),
    "methanol": Liquid(
        str(DATA / "methanol.xml"),
        (32.042,),
        298.15,
        0.776,
        1.2e-3,
        1.0e-4,
        (220.0, 350.0),
        (METHANOL,),
    ),
}


def expected_density(liquid: str, temperature: float) -> tuple[float, float]:
    """Return the density of a liquid at 1 bar and its uncertainty.

    The density in `LIQUIDS` is extrapolated to `temperature` by the thermal expansion coefficient.
    Its relative uncertainty is 0.3 %, the spread of published values due to their cutoffs, plus
    0.02 % for each kelvin of extrapolation.

    Parameters
    ----------
    liquid : str
        Key of `LIQUIDS`.
    temperature : float
        K.

    Returns
    -------
    density : float
        g/cm^3.
    uncertainty : float
        Relative standard error.
    """
    model = LIQUIDS[liquid]
    away = temperature - model.known_at
    return model.density * np.exp(-model.expansion * away), 0.003 + 2e-4 * abs(away)


def volume_uncertainty(liquid: str, temperature: float, volume: float, length: float) -> float:
    """Return the relative standard error of a volume averaged over `length` ps at constant pressure.

    The variance of the volume is kT kappa V. A run of length t counts as t / 6 ps independent
    values: the correlation decays to a half within 1 ps, but due to a slow component means over
    40 to 60 ps have a standard deviation of 0.3 % (SPC/E) to 0.9 % (TIP4P-Ew; both 216 molecules,
    298 K).

    Parameters
    ----------
    liquid : str
        Key of `LIQUIDS`.
    temperature : float
        K.
    volume : float
        nm^3.
    length : float
        ps.
    """
    kappa = LIQUIDS[liquid].compressibility / BAR
    return float(np.sqrt(KB * temperature * kappa / volume * 6.0 / length))


def box_edge(liquid: str, molecules: int, temperature: float) -> float:
    """Return the edge (nm) of the cubic box of a number of molecules at the expected density."""
    masses = LIQUIDS[liquid].masses
    mass = sum(masses[i % len(masses)] for i in range(molecules))
    density, _ = expected_density(liquid, temperature)
    return float((mass * DALTON_PER_NM3 / density) ** (1 / 3))


def liquid_box(
    liquid: str,
    molecules: int,
    temperature: float,
    settings: BoxSettings = BoxSettings(),
) -> tuple[app.Topology, openmm.System, np.ndarray]:
    """Build a periodic box of a liquid near its density.

    Charged liquids use PME and a dispersion correction. Lennard-Jones liquids use a switching
    function over the last tenth of the cutoff and a dispersion correction. Bonds to hydrogen are
    constrained, water is rigid.

    `Modeller.addSolvent` places water. Other molecules start on a cubic lattice with random
    orientations and small random displacements. All molecules are then moved as rigid bodies to the
    box of `expected_density`. Overlaps remain; minimize the energy before a simulation.

    Parameters
    ----------
    liquid : str
        Key of `LIQUIDS`.
    molecules : int
    temperature : float
        K.
    settings : BoxSettings

    Returns
    -------
    topology : openmm.app.Topology
    system : openmm.System
        Its default box is that of the positions. It removes the centre-of-mass drift.
    positions : ndarray [n_atoms, 3]
        nm.
    """
    model = LIQUIDS[liquid]
    force_field = app.ForceField(model.force_field)
    if model.molecules:
        topology, positions, loose = _lattice(model.molecules, molecules, settings)
    else:
        modeller = app.Modeller(app.Topology(), [] * unit.nanometer)
        modeller.addSolvent(force_field, model=liquid, numAdded=molecules)
        topology = modeller.topology
        positions = np.array(modeller.positions.value_in_unit(unit.nanometer))
        loose = topology.getPeriodicBoxVectors()[0][0].value_in_unit(unit.nanometer)
    edge = box_edge(liquid, molecules, temperature)
    positions = scale_molecules(positions, molecules, edge / loose)
    topology.setPeriodicBoxVectors(edge * np.eye(3))
    cutoff = min(settings.cutoff, 0.47 * edge)
    method = (
        {"nonbondedMethod": app.PME}
        if model.charged
        else {
            "nonbondedMethod": app.CutoffPeriodic,
            "switchDistance": settings.switch * cutoff * unit.nanometer,
        }
    )
    system = force_field.createSystem(
        topology,
        constraints=app.HBonds,
        rigidWater=True,
        nonbondedCutoff=cutoff * unit.nanometer,
        **method,
    )
    return topology, system, positions


def _lattice(
    components: Sequence[Molecule], number: int, settings: BoxSettings
) -> tuple[app.Topology, np.ndarray, float]:
    """Return topology, positions [n_atoms, 3] and box edge (nm) of molecules on a cubic lattice."""
    spacing = settings.lattice_constant
    side = int(np.ceil(number ** (1 / 3) - 1e-9))
    random = np.random.default_rng(0)
    sites = np.stack(np.meshgrid(*[np.arange(side)] * 3), -1).reshape(-1, 3)
    sites = sites[random.permutation(len(sites))[:number]]
    centers = spacing * (sites + random.uniform(-settings.jitter, settings.jitter, sites.shape))
    turns = Rotation.random(number, random_state=random)
    topology, positions = app.Topology(), []
    chain = topology.addChain()
    for i in range(number):
        molecule = components[i % len(components)]
        residue = topology.addResidue(molecule.residue, chain)
        atoms = [
            topology.addAtom(name, app.Element.getBySymbol(element), residue)
            for name, element, _ in molecule.atoms
        ]
        for a, b in molecule.bonds:
            topology.addBond(atoms[a], atoms[b])
        positions.append(turns[i].apply([place for _, _, place in molecule.atoms]) + centers[i])
    return topology, np.concatenate(positions), spacing * side


def scale_molecules(positions: np.ndarray, molecules: int, factor: float) -> np.ndarray:
    """Return positions [n_atoms, 3] with the centres of equal molecules scaled by `factor`."""
    each = positions.reshape(molecules, -1, 3)
    centers = each.mean(axis=1, keepdims=True)
    return (each + (factor - 1) * centers).reshape(-1, 3)


def create_context(
    system: openmm.System,
    make_integrator: Callable[[], openmm.Integrator],
    platform: str | None = None,
    threads: int | None = None,
) -> openmm.Context:
    """Create a Context on `platform`, or on the fastest one that works on this machine.

    OpenCL on the processor is never the default: OpenMM's minimizer crashes there.

    Parameters
    ----------
    system : openmm.System
    make_integrator : callable
        Returns a new integrator.
    platform : str, optional
        OpenMM platform name; by default the first of `openmm_cgadv.platforms.default_platforms` that works.
    threads : int, optional
        Threads of the CPU platform; by default the cores that this process may use.

    Raises
    ------
    InputError
        The platform does not exist or does not work here.
    """
    if platform is not None:
        find_platform(platform)
    threads = available_cores() if threads is None else threads
    reasons = []
    for name in [platform] if platform is not None else default_platforms():
        properties = {"CPU": {"Threads": str(threads)}, "Reference": {}}.get(
            name, {"Precision": "mixed"}
        )
        try:
            return openmm.Context(
                system, make_integrator(), openmm.Platform.getPlatformByName(name), properties
            )
        except openmm.OpenMMException as error:
            reasons.append(f"{name}: {error}")
    raise InputError(
        f"platform: found none that works ({'; '.join(reasons)}), expected at least one: run cgadv doctor"
    )
