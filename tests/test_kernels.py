"""The compiled core: the same physics as the plain-torch reference, faster."""

import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from random_systems import Motion, System
from systems import jittered_lattice, liquid_box, random_spec, random_theta

from openmm_cgadv import kernels
from openmm_cgadv.errors import ExplosionError, InputError
from openmm_cgadv.potentials import PairSpec, Potential, PotentialSpec

needs_library = pytest.mark.skipif(not kernels.available(), reason=kernels.why_not() or "built")
CORE = Path(kernels.__file__).parents[1] / "csrc" / "core"


def relative(found, expected):
    """Largest deviation over the largest expected entry, where that is not itself rounding noise."""
    return float(
        (found.detach() - expected.detach()).abs().max() / (expected.detach().abs().max() + 1e-4)
    )


@needs_library
@pytest.mark.parametrize("number", range(24))
def test_values_and_derivatives_are_those_of_plain_torch(number):
    system = System(number)
    energy, gradient, d_theta, product, mixed = system.reference()
    found, forces = kernels.energy_forces(system.x, *system.arguments)
    # Beads of an ideal gas may overlap so much that the energy is all core: compare to its parts.
    scale = float(energy.abs()) + float((system.theta * d_theta).abs().sum())
    assert abs(float(found - energy)) <= 1e-10 * scale
    assert relative(-forces, gradient) < 1e-10
    assert (
        relative(kernels.basis(system.x[None], system.box, system.types, system.spec)[0], d_theta)
        < 1e-10
    )
    found, found_mixed = kernels.hvp(system.x, *system.arguments, system.direction)
    assert relative(found, product) < 1e-10
    assert relative(found_mixed, mixed) < 1e-10
    each = kernels.basis_forces(system.x, system.box, system.types, system.spec)
    core = kernels.core_forces(system.x, system.box, system.types, system.spec)
    assert relative(core + torch.einsum("p,pnc->nc", system.theta, each), -gradient) < 1e-10


@needs_library
@pytest.mark.parametrize("number, n", [(1, 700), (2, 2000), (4, 2000)])
def test_large_systems_are_those_of_plain_torch(number, n):
    system = System(number, n)
    potential = Potential(system.spec, system.theta, system.types)
    x = system.x.clone().requires_grad_()
    energy = potential(x, system.box)
    gradient, d_theta = torch.autograd.grad(energy, [x, potential.theta])
    found, forces = kernels.energy_forces(system.x, *system.arguments)
    assert relative(found, energy) < 1e-10
    assert relative(-forces, gradient) < 1e-10
    assert (
        relative(kernels.basis(system.x[None], system.box, system.types, system.spec)[0], d_theta)
        < 1e-10
    )


@needs_library
@pytest.mark.parametrize("l_max", [2, 4, 8])
def test_single_precision_is_good_to_a_hundred_thousandth(l_max):
    for seed in range(3):
        spec = random_spec(2, l_max=l_max)
        box = liquid_box(200, 33.4, triclinic=True)
        x, types = jittered_lattice(200, box, 0.3, seed), torch.arange(200) % 2
        arguments = box, types, random_theta(spec, seed), spec
        direction = torch.from_numpy(np.random.default_rng(seed).normal(size=[200, 3]))
        _, forces = kernels.energy_forces(x, *arguments)
        _, single = kernels.energy_forces(x, *arguments, precision="single")
        assert relative(single, forces) < 1e-5
        expected = kernels.hvp(x, *arguments, direction)
        for found, reference in zip(
            kernels.hvp(x, *arguments, direction, precision="single"), expected
        ):
            assert relative(found, reference) < 1e-5


@needs_library
def test_forces_are_minus_energy_gradient_and_hessian_is_their_slope():
    system = System(5, 60)
    step = 1e-6
    ahead = kernels.energy_forces(system.x + step * system.direction, *system.arguments)
    behind = kernels.energy_forces(system.x - step * system.direction, *system.arguments)
    _, forces = kernels.energy_forces(system.x, *system.arguments)
    slope = float(ahead[0] - behind[0]) / (2 * step)
    assert slope == pytest.approx(-float((forces * system.direction).sum()), rel=1e-5)
    product, _ = kernels.hvp(system.x, *system.arguments, system.direction)
    assert relative(-(ahead[1] - behind[1]) / (2 * step), product) < 1e-5


@needs_library
def test_energy_can_be_differentiated_twice():
    system = System(7, 8)
    theta = system.theta.clone().requires_grad_()
    x = torch.stack([system.x, system.x + 0.01 * system.direction]).requires_grad_()

    def energies(x, theta):
        return kernels.energy(x, system.box, system.types, theta, system.spec)

    assert torch.autograd.gradcheck(energies, [x, theta], eps=1e-6, atol=1e-4, rtol=1e-5)
    weights = torch.tensor([1.0, -0.7], dtype=torch.float64)
    (gradient,) = torch.autograd.grad((weights * energies(x, theta)).sum(), x, create_graph=True)
    squared = torch.autograd.grad(gradient.square().sum(), [x, theta])

    potential = Potential(system.spec, system.theta, system.types)
    y = x.detach().clone().requires_grad_()
    plain = sum(w * potential(row, system.box) for w, row in zip(weights, y))
    (expected,) = torch.autograd.grad(plain, y, create_graph=True)
    expected_squared = torch.autograd.grad(expected.square().sum(), [y, potential.theta])
    assert relative(gradient, expected) < 1e-10
    for found, reference in zip(squared, expected_squared):
        assert relative(found, reference) < 1e-10


@needs_library
def test_neighbour_list_never_misses_a_pair():
    """Beads that diffuse, jump by box vectors, and a box that changes: the kept list stays right."""
    system = System(4, 300)
    potential = Potential(system.spec, system.theta, system.types)
    rng = np.random.default_rng(0)
    x, box = system.x.clone(), system.box.clone()
    for step in range(60):
        size = 0.004 if step % 10 else 0.05
        x = x + size * torch.from_numpy(rng.normal(size=x.shape))
        if step % 7 == 3:
            x = x + torch.from_numpy(rng.integers(-2, 3, x.shape).astype(float)) @ box
        if step % 17 == 5:
            x, box = 1.01 * x, 1.01 * box
        with torch.no_grad():
            expected = potential(x, box)
        found, _ = kernels.energy_forces(x, box, system.types, system.theta, system.spec)
        assert relative(found, expected) < 1e-10, f"step {step}"


@needs_library
def test_beads_many_boxes_away_feel_the_same_forces():
    system = System(4, 100)
    _, near = kernels.energy_forces(system.x, *system.arguments)
    far = system.x.clone()
    far[::2] += torch.tensor([1000.0, -2000.0, 500.0], dtype=torch.float64) @ system.box
    _, forces = kernels.energy_forces(far, *system.arguments)
    assert relative(forces, near) < 1e-8


@needs_library
def test_degenerate_systems_have_finite_energies():
    spec = random_spec(1)
    theta = random_theta(spec, 0)
    box = 1.5 * torch.eye(3, dtype=torch.float64)

    def run(x):
        types = torch.zeros(len(x), dtype=torch.int64)
        energy, forces = kernels.energy_forces(x, box, types, theta, spec)
        product, mixed = kernels.hvp(x, box, types, theta, spec, torch.ones_like(x))
        for tensor in (energy, forces, product, mixed):
            assert bool(torch.isfinite(tensor).all())
        return float(energy), forces

    assert run(torch.zeros(1, 3, dtype=torch.float64))[0] == 0
    lonely = torch.tensor([[0.0, 0, 0], [0.7, 0.7, 0.7]], dtype=torch.float64)
    energy, forces = run(lonely)
    assert energy == 0 and float(forces.abs().max()) == 0
    coincident = torch.tensor(
        [[0.1, 0.2, 0.3], [0.1, 0.2, 0.3], [0.3, 0.2, 0.3]], dtype=torch.float64
    )
    energy, forces = run(coincident)
    assert abs(energy) > 1
    assert float(forces.sum(0).abs().max()) < 1e-9 * float(forces.abs().max())


@needs_library
@pytest.mark.parametrize("n_types", [1, 2])
def test_coinciding_beads_have_the_energy_of_plain_torch(n_types):
    spec = random_spec(n_types)
    theta = random_theta(spec, 0)
    box = liquid_box(80, 33.0)
    x = jittered_lattice(80, box, 0.2, 0)
    x[7], x[8], x[20] = x[3], x[3], x[30]
    types = torch.arange(80) % n_types
    moving = x.clone().requires_grad_()
    potential = Potential(spec, theta, types)
    energy = potential(moving, box)
    gradient, d_theta = torch.autograd.grad(energy, [moving, potential.theta])
    found, forces = kernels.energy_forces(x, box, types, theta, spec)
    assert relative(found, energy) < 1e-10
    assert relative(-forces, gradient) < 1e-10
    assert relative(kernels.basis(x[None], box, types, spec)[0], d_theta) < 1e-10


@needs_library
@pytest.mark.parametrize(
    "n_types, extra, damping_time", [(1, 0, math.inf), (2, 2, math.inf), (2, 1, 0.05), (3, 3, 0.07)]
)
def test_fused_rollout_is_the_plain_one(n_types, extra, damping_time):
    motion = Motion(n_types, extra)
    fused, plain = motion.fused(damping_time), motion.plain(damping_time)
    for found, expected in zip(fused, plain):
        assert relative(found, expected) < 1e-10
    for found, expected in zip(motion.gradients(fused), motion.gradients(plain)):
        assert relative(found, expected) < 1e-10


@needs_library
def test_exact_adjoint_is_the_slope_of_the_loss():
    motion = Motion(2, 1)
    x, _, theta, e, _ = motion.inputs

    def loss():
        frames, last, state = motion.fused()
        return (motion.weights * (frames + frames**2)).sum() + (last**3).sum() + (state**2).sum()

    gradients = motion.gradients(motion.fused())
    for which, tensor in enumerate((x, theta, e)):
        gradient = gradients[{0: 0, 1: 2, 2: 3}[which]]
        direction = torch.from_numpy(np.random.default_rng(which).normal(size=tensor.shape))
        with torch.no_grad():
            tensor += 1e-6 * direction
            ahead = loss()
            tensor -= 2e-6 * direction
            behind = loss()
            tensor += 1e-6 * direction
        assert float(ahead - behind) / 2e-6 == pytest.approx(
            float((gradient * direction).sum()), rel=1e-5
        )


@needs_library
def test_single_precision_rollout_follows_the_double_one():
    motion = Motion(1, 3, n=100)
    double, single = motion.fused(0.07), motion.fused(0.07, "single")
    assert relative(single[1], double[1]) < 1e-6
    for found, expected in zip(motion.gradients(single), motion.gradients(double)):
        assert relative(found, expected) < 1e-4


@needs_library
@pytest.mark.parametrize("n, replicas", [(100, 3), (3200, 1)])
def test_results_do_not_depend_on_threads(n, replicas):
    motion = Motion(2, 1, n=n, replicas=replicas)
    before = torch.get_num_threads()
    runs = []
    try:
        for threads in (1, 2, 3, 3):
            torch.set_num_threads(threads)
            outputs = motion.fused(0.07)
            runs.append([*outputs, *motion.gradients(outputs)])
    finally:
        torch.set_num_threads(before)
    for other in runs[1:]:
        for found, expected in zip(other, runs[0]):
            assert relative(found, expected) < 1e-12
    assert all(torch.equal(a, b) for a, b in zip(runs[2], runs[3]))


@needs_library
def test_noise_is_standard_normal_and_addressed_by_replica_step_and_bead():
    noise = kernels.noise(7, 0, 0, 100, 500, 4)
    n = noise.numel()
    assert abs(float(noise.mean())) < 5 / math.sqrt(n)
    assert abs(float(noise.square().mean()) - 1) < 5 * math.sqrt(2 / n)
    assert abs(float((noise**4).mean()) - 3) < 5 * math.sqrt(96 / n)
    flat = noise.reshape(100, -1)
    assert float((flat[1:] * flat[:-1]).mean().abs()) < 5 / math.sqrt(n)
    assert torch.equal(kernels.noise(7, 0, 40, 3, 20, 4), noise[40:43, :20])
    for other in (kernels.noise(8, 0, 0, 100, 500, 4), kernels.noise(7, 1, 0, 100, 500, 4)):
        assert float((other * noise).mean().abs()) < 5 / math.sqrt(n)


@needs_library
def test_explosion_names_step_replica_and_bead():
    motion = Motion(1, 0)
    with torch.no_grad():
        motion.inputs[1][1, 4, 0] = 100.0
    with pytest.raises(
        ExplosionError,
        match=r"^rollout exploded at step 1 of 20 in replica 1: bead 4 moved 0\.\d+ nm",
    ) as caught:
        motion.fused()
    assert (caught.value.step, caught.value.replica, caught.value.bead) == (0, 1, 4)
    motion = Motion(1, 0)
    with torch.no_grad():
        motion.inputs[2][3] = math.inf
    with pytest.raises(
        RuntimeError, match=r"exploded at step 1 of 20 in replica 0: bead \d+ moved"
    ):
        motion.fused()


def arguments_of_short_range(types):
    spec = PotentialSpec(("A",), (PairSpec((0.1,), 0.2, 5, (1e5,)),))
    return types.new_zeros(len(types)), torch.zeros(5, dtype=torch.float64), spec


@needs_library
def test_wrong_input_is_named():
    system = System(4, 100)
    box, types, theta, spec = system.arguments
    with pytest.raises(ValueError, match="box: .*twice the cutoff"):
        kernels.energy_forces(system.x, 0.3 * box, types, theta, spec)
    with pytest.raises(ValueError, match="theta: found shape"):
        kernels.energy_forces(system.x, box, types, theta[:-1], spec)
    with pytest.raises(ValueError, match="types: found shape"):
        kernels.energy_forces(system.x, box, types[:-1], theta, spec)
    with pytest.raises(ExplosionError, match="bead 3 is not finite") as caught:
        x = system.x.clone()
        x[3, 1] = math.nan
        kernels.energy_forces(x, box, types, theta, spec)
    assert (caught.value.step, caught.value.bead) == (None, 3)
    with pytest.raises(RuntimeError, match="bead 3 is too far from the box"):
        x[3, 1] = 1.7e308
        kernels.energy_forces(x, 0.9 * box / box.max(), *arguments_of_short_range(types))
    with pytest.raises(ValueError, match="types: found torch.float64"):
        kernels.energy_forces(system.x, box, types.double(), theta, spec)
    with pytest.raises(ValueError, match="direction: found shape"):
        kernels.hvp(system.x, box, types, theta, spec, system.direction.T)
    for change, sentence in (
        ({"r_cut": math.nan}, "pair.r_cut: found nan"),
        ({"r_min": (math.nan,) * len(spec.term("pair").r_min)}, "pair.r_min: found nan"),
        ({"n_basis": 0}, "pair.n_basis: found 0"),
        ({"core": ()}, "pair.core: found 0 numbers"),
    ):
        with pytest.raises(ValueError, match=sentence):
            replace(spec, terms=(replace(spec.term("pair"), **change),))
    with pytest.raises(InputError, match="reduced form"):
        kernels.energy_forces(system.x, box.T + 0.01, types, theta, spec)
    with pytest.raises(ValueError, match="l_max"):
        kernels.pack(random_spec(1, l_max=12))


@needs_library
@pytest.mark.parametrize("precision, tolerance", [("double", 1e-12), ("single", 1e-5)])
def test_potential_survives_torchscript(tmp_path, precision, tolerance):
    system = System(4, 100)
    module = kernels.FusedPotential(system.spec, system.theta, system.types, precision, threads=1)
    torch.jit.script(module).save(str(tmp_path / "potential.pt"))
    loaded = torch.jit.load(str(tmp_path / "potential.pt"))
    energy, gradient, *_ = system.reference()
    found, forces = loaded(system.x, system.box)
    assert relative(found, energy) < 10 * tolerance and relative(-forces, gradient) < tolerance
    assert loaded(system.x.float(), system.box.float())[1].dtype == torch.float32


@needs_library
def test_potential_runs_in_torchforce():
    openmmtorch = pytest.importorskip(
        "openmmtorch", reason="openmmtorch is not installed", exc_type=ImportError
    )
    openmm = pytest.importorskip("openmm")
    system = System(4, 100)
    force = openmmtorch.TorchForce(
        torch.jit.script(kernels.FusedPotential(system.spec, system.theta, system.types))
    )
    force.setOutputsForces(True)
    force.setUsesPeriodicBoundaryConditions(True)
    bodies = openmm.System()
    for _ in range(system.n):
        bodies.addParticle(18.0)
    bodies.setDefaultPeriodicBoxVectors(*system.box.tolist())
    bodies.addForce(force)
    context = openmm.Context(
        bodies, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )
    context.setPositions(system.x.numpy())
    state = context.getState(getEnergy=True, getForces=True)
    energy, gradient, *_ = system.reference()
    forces = torch.from_numpy(state.getForces(asNumpy=True)._value)
    assert state.getPotentialEnergy()._value == pytest.approx(float(energy), rel=1e-5)
    assert relative(-forces, gradient) < 1e-5


def by_instruction_set(program):
    """What a program that begins with the name of the instruction set prints, with each that runs here."""
    names = [
        f.stem.removeprefix("libcgadv_kernels_")
        for f in kernels.library_path().parent.glob("libcgadv_kernels_*.so")
    ]
    here = Path(__file__).parent
    start = "import sys; sys.path[:0] = sys.argv[1:]\nimport math\nimport torch\nfrom random_systems import System, Motion, kernels\nprint(kernels.instruction_set())\n"
    for name in names:
        if name > kernels.instruction_set():
            continue
        run = subprocess.run(
            [
                sys.executable,
                "-c",
                start + program,
                str(here),
                str(kernels.library_path().parents[2]),
            ],
            capture_output=True,
            text=True,
            env={**os.environ, "CGADV_KERNELS": name},
        )
        assert run.returncode == 0, f"{name}: {run.returncode} {run.stderr}"
        used, *lines = run.stdout.splitlines()
        assert used == name
        yield lines


@needs_library
def test_numbers_that_are_not_finite_are_found_with_every_instruction_set():
    program = """
def error(call, *arguments):
    try:
        return call(*arguments)
    except (RuntimeError, ValueError) as error:
        return error

for n_types in (1, 2):
    for bead in (0, 7):
        motion = Motion(n_types, 1)
        x, spec, theta = motion.inputs[0][0], motion.spec, motion.inputs[2]
        kernels.energy_forces(x.detach(), motion.boxes[0], motion.types, theta.detach(), spec)
        y = x.detach().clone()
        y[bead, 1] = math.nan
        print(error(kernels.energy_forces, y, motion.boxes[0], motion.types, theta.detach(), spec))
        with torch.no_grad():
            motion.inputs[1][1, bead, 0] = math.nan
        print(error(motion.fused))
"""
    for lines in by_instruction_set(program):
        for found, bead in zip(lines[::2], (0, 7, 0, 7), strict=True):
            assert found == f"position of bead {bead} is not finite"
        for found, bead in zip(lines[1::2], (0, 7, 0, 7), strict=True):
            assert (
                f"exploded at step 1 of 20 in replica 1: bead {bead} moved" in found
                and "nan nm" in found
            )


@needs_library
def test_every_instruction_set_gives_the_same_numbers():
    program = (
        "s = System(4, 100); e, f = kernels.energy_forces(s.x, *s.arguments)\n"
        "p, m = kernels.hvp(s.x, *s.arguments, s.direction)\n"
        "print(float(e), float((f * s.direction).sum()), float(p.square().sum()))\n"
    )
    found = [
        np.array([float(v) for v in lines[0].split()]) for lines in by_instruction_set(program)
    ]
    for numbers in found:
        np.testing.assert_allclose(numbers, found[0], rtol=1e-10)


@pytest.mark.parametrize("flags", [["-march=native"], []], ids=["native", "baseline"])
@pytest.mark.slow
def test_core_is_clean_under_sanitizers(tmp_path, flags):
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler (g++ or clang++) is there")
    program = tmp_path / "core_test"
    command = [
        compiler,
        "-std=c++17",
        "-O0",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=undefined",
        "-fopenmp",
        "-ffp-contract=fast",
        "-Wno-psabi",
        "-Wno-ignored-attributes",
        *flags,
        "-I",
        str(CORE),
        str(Path(__file__).parent / "cpp" / "core_test.cpp"),
        "-o",
        str(program),
    ]
    build = subprocess.run(command, capture_output=True, text=True)
    if build.returncode and "san" in build.stderr and "cannot find" in build.stderr:
        pytest.skip("the compiler has no sanitizer libraries")
    assert build.returncode == 0, build.stderr
    run = subprocess.run([str(program)], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
