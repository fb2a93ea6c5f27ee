"""Displacements answer to memory as the response says, and memory is found from them."""

import numpy as np
import pytest
import torch

from openmm_cgadv.dynamics import GeneralizedLangevin, running_friction_on_grid
from openmm_cgadv.methods.adversarial.linear_response import (
    MsdMeasurement,
    fit_kernel,
    msd_response,
)

KT_M, STEP, LENGTH, FLOOR = 0.1377, 0.01, 192, 1.0
TIMES = STEP * np.arange(1, LENGTH + 1)
AT = np.array([1, 3, 7, 15, 31, 63, 127, 191])


def memory(seed, spread):
    return shaken(GeneralizedLangevin(1, 3, 20.0, floor=FLOOR, rates=(3.0, 40.0)), seed, spread)


def shaken(one, seed, spread):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in one.parameters():
            parameter += spread * torch.randn(
                parameter.shape, generator=generator, dtype=torch.float64
            )
    return one


def of(friction, rates, couplings, rotation):
    """Memory of these, with the last two variables turning into each other (1/ps)."""
    one = memory(0, 0.0)
    with torch.no_grad():
        one.log_friction.fill_(np.log(friction))
        one.log_rates.copy_(torch.tensor([rates]).log())
        one.log_couplings.copy_(torch.tensor([couplings]).log())
        one.rotations[0, -1] = rotation / 10
    return one


def running(values):
    """Running integral of one set of parameters [P], or of several [B, P]."""
    found = []
    for own in np.atleast_2d(values):
        one = memory(0, 0.0)
        torch.nn.utils.vector_to_parameters(torch.from_numpy(own), one.parameters())
        found.append(running_friction_on_grid(one.drift().detach(), STEP, LENGTH + 1)[0].numpy())
    return np.array(found).reshape(*values.shape[:-1], LENGTH + 1)


def values(one):
    return torch.nn.utils.parameters_to_vector(one.parameters()).detach().numpy()


def moved(one, held=0.0):
    """Mean squared displacements of a bead with that memory in closed form, and with the exponential one of its surroundings."""
    own = one.drift()[0].detach()
    size = len(own) + 1
    drift = torch.nn.functional.pad(own, (0, 1, 0, 1))
    drift[0, -1], drift[-1, 0], drift[-1, -1] = held, -held, 5.0
    # d⟨x s⟩/dt = ⟨v s⟩ − A ⟨x s⟩ and d⟨x²⟩/dt = 2 ⟨x v⟩, from zero; the last is a one.
    generator = torch.zeros([size + 2, size + 2], dtype=torch.float64)
    generator[:size, :size] = -drift
    generator[0, -1], generator[size, 0] = KT_M, 2.0
    return (
        3
        * torch.matrix_exp(generator * torch.from_numpy(TIMES)[:, None, None])[:, size, -1].numpy()
    )


@pytest.mark.parametrize("held", [0.0, 20.0])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_small_change_of_memory_changes_displacements_as_the_response_says(seed, held):
    one, other = memory(0, 0.0), memory(seed, 0.01)
    before = moved(one, held)
    change = moved(other, held) / before - 1
    told = msd_response(before, running(values(other)) - running(values(one)), STEP, KT_M) / before
    largest = np.abs(change).max()
    assert largest > 1e-3
    np.testing.assert_allclose(told[2:], change[2:], atol=0.03 * largest)


@pytest.mark.parametrize("held", [0.0, 20.0])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_memory_is_found_from_displacements_alone(seed, held):
    """Friction is right to a hundredth, and displacements to a thousandth, though parameters that displacements don't tell stay apart."""
    truth, start = memory(seed, 0.15), values(memory(0, 0.0))
    wanted, seen, given = moved(truth, held)[AT], [], start
    covariance = 1e-8 * np.eye(len(AT))
    off = []
    for _ in range(3):
        model = memory(0, 0.0)
        torch.nn.utils.vector_to_parameters(torch.from_numpy(given), model.parameters())
        found = moved(model, held)
        ratio = np.log(wanted / found[AT])
        off.append(np.abs(ratio).max())
        seen.append(MsdMeasurement(found, running(given), ratio, covariance))
        given = fit_kernel(start, running, seen, AT, STEP, KT_M)
    assert off[0] > 0.01 and off[-1] < 1e-3, off
    right = running(values(truth))[-1]
    assert abs(running(start)[-1] / right - 1) > 0.02
    assert running(given)[-1] == pytest.approx(right, rel=0.01)


@pytest.mark.parametrize("seed", range(4))
def test_variables_too_fast_to_matter_are_found_other_rates(seed):
    """Memory that swings takes three variables, of which the start has two that decay within a step or two."""
    truth = shaken(of(1.5, [0.15, 2.0, 15.0], [1.5, 10.0, 8.0], 25.0), seed, 0.15)
    model, seen = of(0.3, [0.3, 70.0, 95.0], [1.7, 25.0, 27.0], 0.0), []
    wanted, given = moved(truth, 20.0)[AT], values(model)
    for _ in range(3):
        found = moved(model, 20.0)
        seen.append(
            MsdMeasurement(
                found, running(given), np.log(wanted / found[AT]), 1e-6 * np.eye(len(AT))
            )
        )
        given = fit_kernel(given, running, seen, AT, STEP, KT_M)
        torch.nn.utils.vector_to_parameters(torch.from_numpy(given), model.parameters())
    np.testing.assert_allclose(moved(model, 20.0)[AT], wanted, rtol=0.01)
    assert running(given)[-1] == pytest.approx(running(values(truth))[-1], rel=0.02)


def test_a_fit_of_several_beginnings_leaves_a_place_that_is_only_the_best_nearby():
    """Friction 20 h(p) with humps of h at 0 and every 0.31, of which the first is too low."""
    free = 2 * KT_M / 20 * (TIMES - (1 - np.exp(-20 * TIMES)) / 20)
    growth = 1 - np.exp(-np.append(0.0, TIMES) / 0.2)

    def hump(p):
        return 1 + 0.05 * np.cos(20 * p) + 0.3 * p

    def friction(parameters):
        return 20 * hump(parameters[..., :1]) * growth

    start = np.array([-0.05])
    wanted = msd_response(free, 20 * 1.12 * growth - friction(start), STEP, KT_M) / free
    seen = [MsdMeasurement(free, friction(start), wanted[AT], 1e-8 * np.eye(len(AT)))]
    near, far = (
        fit_kernel(start, friction, seen, AT, STEP, KT_M, beginnings)[0] for beginnings in (1, 6)
    )
    assert abs(near) < 0.1 and hump(near) < 1.07
    assert hump(far) == pytest.approx(1.12, abs=1e-3)
