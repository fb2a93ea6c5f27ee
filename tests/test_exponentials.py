"""Memory to start from is that of the correlation it was taken from."""

import numpy as np
import pytest
import torch

from openmm_cgadv.friction import PairResiduals, fit_exponentials
from openmm_cgadv.methods.adversarial.generators import SingleParticleGenerator

TIMES = np.arange(65) * 0.02


def test_exponentials_have_the_integral_of_the_correlation():
    rates, weights = np.array([1.3, 9.0]), np.array([20.0, 60.0])
    correlation = np.exp(-TIMES[:, None] * rates) @ weights
    correlation[0] += 2 * 3.0 / TIMES[1]  # An instant part of 3, by the trapezoidal rule.
    instant, found, size = fit_exponentials(TIMES, correlation, 2, 1.0, 40.0)
    assert instant == pytest.approx(3.0, rel=0.1)
    for time in (0.1, 0.4, 1.28):
        integral = (weights / rates * -np.expm1(-rates * time)).sum()
        assert (size / found * -np.expm1(-found * time)).sum() == pytest.approx(integral, rel=0.06)
    assert found[0] == pytest.approx(1.3, rel=0.3) and 1.0 <= found[0] < found[1] <= 40.0


def test_no_term_starts_at_nothing_and_noise_is_no_memory():
    instant, rates, weights = fit_exponentials(TIMES, np.exp(-3 * TIMES), 3, 1.0, 40.0)
    areas = np.array([instant, *weights / rates])
    assert (areas >= 0.019 * areas.sum()).all()
    instant, _, weights = fit_exponentials(TIMES, -np.exp(-3 * TIMES), 3, 1.0, 40.0)
    assert instant == 0 and not weights.any()


def test_motion_takes_the_shape_of_residual_forces_and_keeps_its_friction():
    slow, fast = 20 * np.exp(-1.3 * TIMES), 60 * np.exp(-9.0 * TIMES)
    nothing = np.zeros([3, 2, 1, len(TIMES)])
    own = np.stack([slow + fast, -slow])
    residuals = PairResiduals(TIMES, np.array([0.3]), nothing, np.zeros([3, 1]), own)
    motion = SingleParticleGenerator(2, 2, [40.0, 10.0], floor=0.78, rates=(3.0, 40.0))
    before = motion.drift().detach()
    motion.fit_residuals(residuals)
    torch.testing.assert_close(
        motion.bead_friction(), torch.tensor([40.0, 10.0], dtype=torch.float64)
    )
    # No memory to be seen leaves the second type as it was.
    torch.testing.assert_close(motion.drift()[1], before[1])
    felt = motion.running_friction(torch.tensor([0.1, 1.28], dtype=torch.float64))[0].detach()
    total = 20 / 1.3 + 60 / 9
    expected = [20 / 1.3 * -np.expm1(-1.3 * t) + 60 / 9 * -np.expm1(-9 * t) for t in (0.1, 1.28)]
    # The slow part goes on beyond the window, where the floor of the rates lets it be 20 % longer.
    assert felt[0] / felt[1] == pytest.approx(expected[0] / expected[1], rel=0.1)
    assert 0.6 < felt[1] / 40 < 1.0 and total > expected[1]
