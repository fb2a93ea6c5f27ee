"""Training knows when it has arrived, which of its averages is best, and what is wrong with it."""

import math
import re

import pytest
import torch

from openmm_cgadv.methods.adversarial import diagnostics
from openmm_cgadv.methods.adversarial.convergence import (
    ConvergenceHistory,
    ConvergenceSettings,
    Observation,
    drifts,
)
from openmm_cgadv.methods.adversarial.diagnostics import Cause
from openmm_cgadv.methods.adversarial.schedule import Schedule, ScheduleSettings
from openmm_cgadv.methods.adversarial.selection import Candidate, choose, improves

STRETCH, TOLERANCE = ConvergenceSettings().history, ConvergenceSettings().tolerance
SETTINGS = ScheduleSettings()


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def circling(scale, period=18.0, columns=8):
    """Values that go round as the game does: by turns of about ``period`` iterations, with noise."""
    time = torch.arange(STRETCH, dtype=torch.float64)[:, None]
    phase = torch.linspace(0, 3, columns, dtype=torch.float64)
    return scale * (torch.sin(2 * math.pi * time / period + phase) + 0.2 * random(STRETCH, columns))


def test_values_that_circle_are_not_taken_to_drift_but_those_that_leave_are():
    for period in (13.0, 18.0, 23.0):
        assert not drifts(circling(0.1, period))
        for sign in (1, -1):
            trend = sign * 0.1 * torch.linspace(0, 1, STRETCH)[:, None]
            moving = circling(0.1, period)
            moving[:, 3:4] += trend
            assert drifts(moving)


def test_changes_below_the_tolerance_are_no_drift_however_small_the_scatter():
    still = 1e-6 * random(STRETCH, 3)
    assert not drifts(still + 1.9 * TOLERANCE * torch.linspace(0, 1, STRETCH)[:, None])
    assert drifts(still + 2.2 * TOLERANCE * torch.linspace(0, 1, STRETCH)[:, None])


@pytest.mark.parametrize(
    "alone, fall", [(False, SETTINGS.decay), (True, SETTINGS.decay_adversarial)]
)
def test_rates_are_constant_until_training_settles_and_fall_along_a_cosine_of_fixed_length(
    alone, fall
):
    schedule = Schedule(1200, alone)
    assert schedule.end == 1200 and schedule.rate(999) == 1.0
    schedule.decay_start = 300
    assert schedule.end == 300 + fall
    assert schedule.rate(300) == 1.0
    assert schedule.rate(300 + fall // 2) == pytest.approx((1 + SETTINGS.final_rate) / 2)
    assert schedule.rate(schedule.end) == pytest.approx(SETTINGS.final_rate)
    # What came before the fall has nearly left the average at its end.
    left = math.prod(schedule.averaging_decay(k) for k in range(301, schedule.end + 1))
    assert left < 0.05
    short = Schedule(5)
    assert 0 < short.latest_decay_start < 5


def figures(diffusion, error=0.01, rdf=0.004):
    return {
        "validation_diffusion_deviation": diffusion,
        "validation_diffusion_deviation_stderr": error,
        "validation_rdf_l1": rdf,
        "validation_rdf_l1_stderr": 0.0005,
    }


def test_the_last_average_that_is_as_good_as_the_best_is_chosen():
    def chosen(*values):
        return choose([Candidate(k, [], v) for k, v in enumerate(values)]).iteration

    assert chosen(figures(0.05), figures(-0.01), figures(0.02)) == 2
    assert chosen(figures(0.05), figures(-0.01), figures(0.12)) == 1
    assert chosen(figures(0.01), figures(-0.01), figures(0.01, rdf=0.02)) == 1
    assert chosen(figures(0.05), figures(-0.01), {}) == 1
    assert chosen({}, {}) == 1


def test_windows_held_out_take_part_in_the_choice():
    def windows(off, error=0.005):
        return course(off).held_out_deviation(50, torch.full([1, 3], error, dtype=torch.float64))

    found = windows(0.08)
    assert (
        found["held_out_msd"] == pytest.approx(0.08, abs=0.02)
        and 0.005 < found["held_out_msd_stderr"] < 0.02
    )
    assert course().held_out_deviation(STRETCH + 1, EXACT) == {} and windows(0.08, math.nan) == {}

    def chosen(*offs, error=0.005):
        return choose(
            [Candidate(k, [], figures(0.01) | windows(off, error)) for k, off in enumerate(offs)]
        ).iteration

    assert chosen(0.0, 0.1) == 0 and chosen(0.0, 0.0) == 1
    # Windows that are known no better leave it to live validation.
    assert chosen(0.0, 0.1, error=0.1) == 1


def test_live_validation_improves_only_by_more_than_its_errors():
    assert improves(figures(0.10), figures(0.02))
    assert improves(figures(0.01, rdf=0.02), figures(0.01, rdf=0.005))
    assert not improves(figures(0.10, error=0.05), figures(0.02, error=0.05))
    assert not improves(figures(0.02), figures(0.10))
    assert not improves({}, figures(0.10))


def course(displacement=0.0, gap=0.0, persistence=0.9, gap_scatter=1e-4):
    """A stretch of training that has come to rest at some displacement, in logarithms."""
    found = ConvergenceHistory(chains=4)
    push = random(10, seed=1)
    noise = random(STRETCH, 10, seed=2)
    for k in range(STRETCH):
        # The direction turns with the game, or is new in every iteration.
        turned = torch.cat([push[:5] * math.cos(k / 3), push[5:] * math.sin(k / 3)])
        gradient = math.sqrt(persistence) * turned + math.sqrt(1 - persistence) * noise[k]
        found.record(
            Observation(
                friction=0.4 + 0.01 * random(3, seed=k),
                displacement=displacement + 0.03 * random(1, 3, seed=900 + k),
                structure=2.0,
                mobility=torch.ones(2, dtype=torch.float64),
                chains=[k % 2, 2 + k % 2],
                gradient=gradient,
                gap=gap + gap_scatter * random(1, seed=500 + k).item(),
                gaps={
                    "dynamics": gap + gap_scatter * random(1, seed=500 + k).item(),
                    "long": gap,
                },
            )
        )
    return found


EXACT = torch.full([1, 3], 0.01, dtype=torch.float64)


def test_a_critic_that_gives_all_the_same_score_is_blind_though_motion_is_right():
    assert diagnostics.collapsed_discriminators(course(gap=0.001).gaps(25)) == ["long"]
    assert course().gaps(STRETCH + 1) == {}


def test_motion_that_is_right_raises_no_alarm():
    assert not course().drifting()
    assert diagnostics.diagnose_motion(course(), EXACT, 0.69) is None
    # Nor one that the held-out part is too short to tell.
    assert diagnostics.diagnose_motion(course(0.3), torch.full([1, 3], 0.1), 0.69) is None
    assert diagnostics.diagnose_motion(course(0.3), torch.full([1, 3], torch.nan), 0.69) is None


def test_a_critic_that_sees_nothing_of_a_difference_has_collapsed():
    diagnosis = diagnostics.diagnose_motion(course(0.3), EXACT, 0.69)
    assert (
        diagnosis.cause is Cause.DISCRIMINATOR
        and re.search(r"\+3[3-7] %", diagnosis.message)
        and "does not distinguish" in diagnosis.message
    )


def test_a_critic_that_is_sure_but_gives_no_direction_has_collapsed():
    diagnosis = diagnostics.diagnose_motion(course(-0.3, gap=12.0, persistence=0.0), EXACT, 9.0)
    assert (
        diagnosis.cause is Cause.DISCRIMINATOR and "is certain of every window" in diagnosis.message
    )


def test_a_gradient_that_is_new_in_every_iteration_is_noise():
    diagnosis = diagnostics.diagnose_motion(course(0.3, gap=0.01, persistence=0.0), EXACT, 0.70)
    assert diagnosis.cause is Cause.GRADIENT and "training.forget_ps" in diagnosis.message


def test_a_difference_that_is_seen_but_stays_is_blamed_on_the_equation():
    diagnosis = diagnostics.diagnose_motion(course(0.3, gap=0.01), EXACT, 0.70)
    assert diagnosis.cause is Cause.EQUATION and "cannot represent" in diagnosis.message


def test_a_chain_that_stands_still_among_others_is_found_but_slow_models_are_not():
    mobility = 1 + 0.05 * random(6, 3)
    assert diagnostics.non_mixing_chains(mobility) == []
    assert diagnostics.non_mixing_chains(0.05 * mobility) == []
    mobility[2] = 0.02
    assert diagnostics.non_mixing_chains(mobility) == [2]
    # One slow rollout is not enough, nor what has not been seen often enough.
    mobility[2, 0] = 1.0
    assert diagnostics.non_mixing_chains(mobility) == []
    mobility[2] = torch.tensor([torch.nan, 0.02, 0.02])
    assert diagnostics.non_mixing_chains(mobility) == []


def test_chains_that_all_stand_still_far_from_the_liquid_have_frozen():
    still = torch.full([4, 3], 0.01, dtype=torch.float64)
    assert "froze" in diagnostics.frozen_model(still, structure=60.0, parameters=56)
    assert diagnostics.frozen_model(still, structure=5.0, parameters=56) is None
    assert diagnostics.frozen_model(100 * still, structure=60.0, parameters=56) is None
    still[0, 0] = torch.nan
    assert diagnostics.frozen_model(still, structure=60.0, parameters=56) is None


def test_memory_slower_than_the_window_is_said():
    rates = torch.tensor([[1.6, 20.0, 100.0]])
    within = torch.tensor([[22.0, 25.0]])
    assert diagnostics.unresolved_memory(rates, 0.78, within) is None
    pinned = torch.tensor([[0.80, 20.0]])
    assert diagnostics.unresolved_memory(pinned, 0.78, torch.tensor([[23.0, 25.0]])) is None
    assert "at its floor of 0.78/ps" in diagnostics.unresolved_memory(
        pinned, 0.78, torch.tensor([[22.0, 25.0]])
    )
    assert "40 % of the friction acts after the end" in diagnostics.unresolved_memory(
        rates, 0.78, torch.tensor([[15.0, 25.0]])
    )
    assert (
        diagnostics.unresolved_memory(torch.zeros([1, 0]), 0.0, torch.tensor([[15.0, 15.0]]))
        is None
    )
