"""Every term of the energy obeys the contract of terms; files and packed forms tell what they hold."""

import dataclasses

import numpy as np
import openmm
import pytest
import torch
from systems import jittered_lattice, liquid_box, random_spec, random_theta
from term_contract import TermContract

from openmm_cgadv import kernels
from openmm_cgadv.bundle import load, save_bundle
from openmm_cgadv.dynamics import LangevinParameters
from openmm_cgadv.errors import InputError
from openmm_cgadv.kernels import packing
from openmm_cgadv.kernels.library import operators
from openmm_cgadv.model import Model
from openmm_cgadv.potentials import PairSpec, PotentialSpec, ThreeBodySpec
from openmm_cgadv.potentials.terms import TERMS


class TestPairTerm(TermContract):
    def make(self, n_types):
        pairs = n_types * (n_types + 1) // 2
        r_min = tuple(0.24 + 0.01 * p for p in range(pairs))
        return PairSpec(r_min, 0.5, 12, (2e5,) * pairs)


class TestThreeBodyTerm(TermContract):
    def make(self, n_types):
        return ThreeBodySpec.splines(0.22, 0.45, 2, 4)


def test_every_registered_term_is_under_contract():
    made = {test().make(1).tag for test in TermContract.__subclasses__()}
    assert made == set(TERMS)


def test_written_potentials_are_those_of_before():
    """The keys `pair` and `three_body` are what the first versions read and wrote."""
    spec = random_spec(2)
    pair, three_body = map(dataclasses.asdict, spec.terms)
    assert spec.to_dict() == {
        "type_names": ("T0", "T1"),
        "pair": pair,
        "three_body": three_body,
    }
    before = {"type_names": ["T0", "T1"], "pair": pair, "three_body": None}
    assert PotentialSpec.from_dict(before) == PotentialSpec(("T0", "T1"), spec.terms[:1])


def test_unknown_terms_are_rejected():
    content = random_spec(1).to_dict() | {"dipole": {"r_cut": 0.5}}
    with pytest.raises(InputError, match="found the term 'dipole'.* install a newer"):
        PotentialSpec.from_dict(content)


def test_terms_come_once_and_fit_the_types():
    pair = PairSpec((0.25,), 0.6, 8, (1e5,))
    for terms in ((), (pair, pair)):
        with pytest.raises(InputError, match="terms: found .* expected one or more, each once"):
            PotentialSpec(("A",), terms)
    with pytest.raises(InputError, match="r_min: found 1 numbers for 2 bead types, expected 3"):
        PotentialSpec(("A", "B"), (pair,))


def test_a_term_without_compiled_kernels_runs_in_plain_torch(tmp_path, monkeypatch):
    """From a model to its bundle and back to an OpenMM Context."""
    spec, box = random_spec(1), liquid_box(60, 33.4)
    model = Model(
        spec=spec,
        theta=random_theta(spec, 1),
        masses=[18.0],
        temperature=300.0,
        timestep=0.004,
        friction=LangevinParameters([[[5.0]]]),
        types=np.zeros(60),
        positions=jittered_lattice(60, box, 0.2, 1),
        box=box,
    )
    expected = model.potential()(torch.as_tensor(model.positions), box).item()
    monkeypatch.setattr(ThreeBodySpec, "code", None)
    assert not spec.compiled and not kernels.available(spec)
    packing.packed.cache_clear()
    with pytest.raises(InputError, match="found the term 'three_body', which the compiled kernels"):
        kernels.pack(spec)
    save_bundle(model, tmp_path / "model.cg")
    assert not (tmp_path / "model.cg" / "system_plugin.xml").exists()
    again = load(tmp_path / "model.cg")
    context = openmm.Context(
        again.create_system(),
        openmm.VerletIntegrator(0.001),
        openmm.Platform.getPlatform("Reference"),
    )
    context.setPositions(again.positions)
    energy = context.getState(energy=True).getPotentialEnergy()._value
    assert energy == pytest.approx(expected, rel=1e-6)


@pytest.mark.skipif(not kernels.available(), reason=kernels.why_not())
class TestPackedForm:
    """Integers: format, types, terms; each term's code, its numbers of integers and floats, its integers."""

    def parameters(self, integers, floats):
        """Number of parameters of a packed potential, as the operators' message says."""
        x, box = torch.zeros(2, 3, dtype=torch.float64), 10 * torch.eye(3, dtype=torch.float64)
        types, theta = torch.zeros(2, dtype=torch.int64), torch.zeros(0, dtype=torch.float64)
        with pytest.raises(InputError) as caught:
            operators().energy_forces(
                x,
                box,
                types,
                theta,
                torch.tensor(integers),
                torch.tensor(floats, dtype=torch.float64),
                False,
                1,
            )
        return str(caught.value)

    def test_lengths_and_codes_are_checked(self):
        integers, floats = (packed.tolist() for packed in kernels.pack(random_spec(1)))
        assert f"expected {random_spec(1).n_parameters}" in self.parameters(integers, floats)
        assert "wrong number of integers" in self.parameters([*integers, 1], floats)
        assert "wrong number of floats" in self.parameters(integers, floats[:-1])
        integers[3] = 99
        assert "a term 99 that this version does not have" in self.parameters(integers, floats)

    def test_the_form_of_before_is_read(self):
        """Number of types, pair functions, whether there is a three-body term, its three sizes."""
        spec = random_spec(2)
        numbers = kernels.pack(spec)[1].tolist()
        for integers, floats in (
            ([2, 12, 1, 2, 2, 4], numbers),
            ([2, 12, 0, 0, 0, 0], numbers[:7]),
        ):
            size = spec.n_parameters if integers[2] else spec.slices["pair"].stop
            assert f"expected {size}" in self.parameters(integers, floats)
