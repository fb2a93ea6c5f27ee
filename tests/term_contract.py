"""What every term of the energy must do. A test of a term inherits :class:`TermContract` and names the term."""

from __future__ import annotations

import json

import numpy as np
import openmm
import pytest
import torch
from systems import jittered_lattice, liquid_box

from openmm_cgadv import kernels
from openmm_cgadv.fit.basis import basis, basis_forces
from openmm_cgadv.potentials import Potential, PotentialSpec, Term
from openmm_cgadv.potentials.terms import TERMS

N, DENSITY = 64, 33.4
TYPES = pytest.mark.parametrize("n_types", [1, 2])


class TermContract:
    """Contract of a term, checked for one and two bead types in a triclinic liquid.

    Subclasses implement :meth:`make`. A term with parameters of a scale that is not 1 kJ/mol sets ``scale``.
    """

    scale = 1.0

    def make(self, n_types: int) -> Term:
        """Return the term, with a cutoff of at most 0.55 nm and nonzero energy at distances of 0.25 nm and more."""
        raise NotImplementedError

    def system(self, n_types: int, seed: int = 0):
        """Return a potential of the term alone, its θ, and positions, box and types of a liquid."""
        spec = PotentialSpec(tuple("AB"[:n_types]), (self.make(n_types),))
        generator = torch.Generator().manual_seed(seed)
        theta = self.scale * torch.randn(
            spec.n_parameters, dtype=torch.float64, generator=generator
        )
        box = liquid_box(N, DENSITY, triclinic=True)
        x = jittered_lattice(N, box, 0.3, seed)
        types = torch.from_numpy(np.random.default_rng(seed).integers(0, n_types, N))
        return spec, theta, x, box, types

    @TYPES
    def test_sizes_agree(self, n_types):
        term = self.make(n_types)
        n = term.n_parameters(n_types)
        spec = PotentialSpec(tuple("AB"[:n_types]), (term,))
        assert spec.n_parameters == n and spec.slices == {term.tag: slice(0, n)}
        penalty = term.penalty(n_types)
        assert penalty.shape == (n, n)
        assert np.linalg.eigvalsh(penalty).min() > 0
        deviation = torch.rand(n, dtype=torch.float64)
        assert (term.least_deviation(deviation) >= deviation).all()
        assert TERMS[term.tag] is type(term)
        assert all(np.isfinite(value) for value in term.summary().values())

    @TYPES
    def test_files_keep_it(self, n_types):
        spec = self.system(n_types)[0]
        assert PotentialSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
        assert hash(spec) == hash(PotentialSpec.from_dict(spec.to_dict()))

    @TYPES
    def test_energy_is_invariant(self, n_types):
        """To translation, rotation of beads and box, permutation of beads, and periodic images."""
        spec, theta, x, box, types = self.system(n_types)
        potential = Potential(spec, theta, types)
        energy = potential(x, box).item()
        assert abs(energy) > 1e-3
        rng = np.random.default_rng(1)
        images = torch.from_numpy(rng.integers(-3, 4, x.shape).astype(float)) @ box
        shift = torch.tensor([0.3, -0.7, 1.9])
        assert potential(x + images + shift, box).item() == pytest.approx(energy, rel=1e-9)
        order = torch.from_numpy(rng.permutation(N))
        other = Potential(spec, theta, types[order])
        assert other(x[order], box).item() == pytest.approx(energy, rel=1e-9)
        rotation, _ = torch.linalg.qr(torch.from_numpy(rng.normal(size=[3, 3])))
        free = 10 * torch.eye(3, dtype=torch.float64)  # no bead sees an image
        assert potential(x @ rotation, free).item() == pytest.approx(
            potential(x, free).item(), rel=1e-9
        )

    @TYPES
    def test_forces_are_minus_the_gradient(self, n_types):
        spec, theta, x, box, types = self.system(n_types)
        potential = Potential(spec, theta, types)
        x.requires_grad_()
        (gradient,) = torch.autograd.grad(potential(x, box), x)
        assert torch.allclose(gradient.sum(0), torch.zeros(3, dtype=torch.float64), atol=1e-9)
        direction = torch.randn(x.shape, dtype=torch.float64)
        step = 1e-5
        with torch.no_grad():
            ahead, behind = (potential(x + s * step * direction, box) for s in (1, -1))
        slope = (gradient * direction).sum().item()
        error = 1e-6 * gradient.norm().item() * direction.norm().item()
        assert ((ahead - behind) / (2 * step)).item() == pytest.approx(slope, abs=error)

    @TYPES
    def test_energy_is_a_fixed_part_and_a_sum_of_basis_functions(self, n_types):
        spec, theta, x, box, types = self.system(n_types)

        def energy(theta, spec=spec):
            return Potential(spec, theta, types)(x, box).item()

        fixed = energy(torch.zeros_like(theta))
        rows = basis(x[None], box[None], types, spec)[0]
        assert energy(theta) == pytest.approx(fixed + (rows @ theta).item(), rel=1e-9)
        linear = PotentialSpec(spec.type_names, (spec.terms[0].linear_part(),))
        assert energy(theta, linear) == pytest.approx((rows @ theta).item(), rel=1e-9)
        forces, core = basis_forces(x, box, types, spec)
        x.requires_grad_()
        (gradient,) = torch.autograd.grad(Potential(spec, theta, types)(x, box), x)
        found = core + torch.einsum("p,pnc->nc", theta, forces)
        assert torch.allclose(found, -gradient, rtol=1e-8, atol=1e-8 * float(gradient.abs().max()))

    @TYPES
    def test_energy_and_forces_vanish_smoothly_at_the_cutoff(self, n_types):
        """No energy beyond it; on the way to it forces and their slope go to zero."""
        spec, theta, x, _, types = self.system(n_types)
        potential = Potential(spec, theta, types[:3])
        box = 10 * torch.eye(3, dtype=torch.float64)
        r_cut = spec.r_cut

        def force(r):
            """Of a bead at distance r of one of two beads that are near each other."""
            x = torch.tensor([[0.0, 0, 0], [0, -0.28, 0], [r, 0, 0]], dtype=torch.float64)
            x.requires_grad_()
            (gradient,) = torch.autograd.grad(potential(x, box), x)
            return gradient[2].norm().item()

        assert force(r_cut + 1e-6) == 0.0
        far, near = force(r_cut - 2e-3), force(r_cut - 1e-3)
        assert near < 0.5 * far or far < 1e-12

    @TYPES
    def test_pair_curves_are_energies_of_two_beads(self, n_types):
        spec, theta, *_ = self.system(n_types)
        box = 10 * torch.eye(3, dtype=torch.float64)
        curves = spec.pair_curves()
        between = {curve.types: curve for curve in curves}
        assert len(between) == len(curves)
        r = torch.linspace(0.8 * 0.25, 1.1 * spec.r_cut, 9, dtype=torch.float64)
        for a in range(n_types):
            for b in range(a, n_types):
                potential = Potential(spec, theta, torch.tensor([a, b]))
                energies = []
                for distance in r:
                    x = torch.zeros([2, 3], dtype=torch.float64)
                    x[1, 0] = distance
                    energies.append(potential(x, box).item())
                curve = between.get((a, b))
                u = torch.zeros_like(r) if curve is None else curve.energy(theta, r)
                assert u.tolist() == pytest.approx(energies, rel=1e-9, abs=1e-9)

    @TYPES
    def test_torchscript_compiles_it(self, n_types):
        spec, theta, x, box, types = self.system(n_types)
        potential = Potential(spec, theta, types)
        found = torch.jit.script(potential)(x, box).item()
        assert found == pytest.approx(potential(x, box).item(), rel=1e-12)

    @TYPES
    def test_openmm_has_it_in_forces_of_its_own(self, n_types):
        spec, theta, x, box, types = self.system(n_types)
        system = openmm.System()
        system.setDefaultPeriodicBoxVectors(*box.tolist())
        for _ in range(N):
            system.addParticle(1.0)
        (term,) = spec.terms
        for force in term.openmm_forces(theta.numpy(), types.numpy(), n_types):
            system.addForce(force)
        platform = openmm.Platform.getPlatform("Reference")
        context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
        context.setPositions(x.numpy())
        state = context.getState(energy=True, forces=True)
        x.requires_grad_()
        energy = Potential(spec, theta, types)(x, box)
        (gradient,) = torch.autograd.grad(energy, x)
        assert state.getPotentialEnergy()._value == pytest.approx(energy.item(), rel=1e-6)
        forces = state.getForces(asNumpy=True)._value
        np.testing.assert_allclose(
            forces, -gradient.numpy(), atol=1e-5 * float(gradient.abs().max())
        )

    @TYPES
    def test_compiled_kernels_agree_with_plain_torch(self, n_types):
        spec, theta, x, box, types = self.system(n_types)
        if not kernels.available(spec):
            pytest.skip("the compiled kernels do not have the term")
        x.requires_grad_()
        potential = Potential(spec, theta, types)
        energy = potential(x, box)
        gradient, d_theta = torch.autograd.grad(
            energy, [x, potential.theta], create_graph=True, materialize_grads=True
        )
        direction = torch.randn(x.shape, dtype=torch.float64)
        product, mixed = torch.autograd.grad(
            (gradient * direction).sum(), [x, potential.theta], materialize_grads=True
        )
        strain = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
        (response,) = torch.autograd.grad(potential(x + x @ strain, box + box @ strain), strain)
        x.requires_grad_(False)
        for precision, tolerance in (("double", 1e-9), ("single", 1e-4)):
            arguments = x, box, types, theta, spec
            found, forces = kernels.energy_forces(*arguments, precision=precision)
            pairs = [
                (found, energy),
                (forces, -gradient),
                (kernels.virial(x[None], box, types, theta, spec, precision)[0], -response),
                *zip(kernels.hvp(*arguments, direction, precision=precision), (product, mixed)),
            ]
            for of_kernel, expected in pairs:
                scale = float(expected.detach().abs().max())
                torch.testing.assert_close(
                    of_kernel, expected.detach(), rtol=0, atol=tolerance * scale
                )
        rows = kernels.basis(x[None], box, types, spec)[0]
        torch.testing.assert_close(rows, d_theta.detach(), rtol=1e-9, atol=1e-9)
