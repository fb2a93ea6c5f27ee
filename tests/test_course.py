"""Training knows when it has arrived, which of its averages is best, and what is wrong with it."""

import math
import re

import pytest
import torch

from openmm_cgadv.training import alarms
from openmm_cgadv.training.alarms import CRITIC, EQUATION, GRADIENT
from openmm_cgadv.training.choice import Candidate, choose, improves
from openmm_cgadv.training.course import STRETCH, TOLERANCE, Course, Seen, drifts
from openmm_cgadv.training.schedule import FALL, FALL_ALONE, FINAL_RATE, Schedule


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


@pytest.mark.parametrize("alone, fall", [(False, FALL), (True, FALL_ALONE)])
def test_rates_are_constant_until_training_settles_and_fall_along_a_cosine_of_fixed_length(alone, fall):
    schedule = Schedule(1200, alone)
    assert schedule.end == 1200 and schedule.rate(999) == 1.0
    schedule.begun = 300
    assert schedule.end == 300 + fall
    assert schedule.rate(300) == 1.0
    assert schedule.rate(300 + fall // 2) == pytest.approx((1 + FINAL_RATE) / 2)
    assert schedule.rate(schedule.end) == pytest.approx(FINAL_RATE)
    # What came before the fall has nearly left the average at its end.
    left = math.prod(schedule.decay(k) for k in range(301, schedule.end + 1))
    assert left < 0.05
    short = Schedule(5)
    assert 0 < short.latest < 5


def figures(diffusion, error=0.01, rdf=0.004):
    return {"validation_diffusion_deviation": diffusion, "validation_diffusion_deviation_stderr": error,
            "validation_rdf_l1": rdf, "validation_rdf_l1_stderr": 0.0005}  # fmt: skip


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
        return course(off).windows(50, torch.full([1, 3], error, dtype=torch.float64))

    found = windows(0.08)
    assert found["held_out_windows"] == pytest.approx(0.08, abs=0.02) and 0.005 < found["held_out_windows_stderr"] < 0.02
    assert course().windows(STRETCH + 1, EXACT) == {} and windows(0.08, math.nan) == {}

    def chosen(*offs, error=0.005):
        return choose([Candidate(k, [], figures(0.01) | windows(off, error)) for k, off in enumerate(offs)]).iteration

    assert chosen(0.0, 0.1) == 0 and chosen(0.0, 0.0) == 1
    # Windows that are known no better leave it to live validation.
    assert chosen(0.0, 0.1, error=0.1) == 1


def test_live_validation_improves_only_by_more_than_its_errors():
    assert improves(figures(0.10), figures(0.02))
    assert improves(figures(0.01, rdf=0.02), figures(0.01, rdf=0.005))
    assert not improves(figures(0.10, error=0.05), figures(0.02, error=0.05))
    assert not improves(figures(0.02), figures(0.10))
    assert not improves({}, figures(0.10))


def course(displacement=0.0, margin=0.0, persistence=0.9, margin_scatter=1e-4):
    """A stretch of training that has come to rest at some displacement, in logarithms."""
    found = Course(chains=4)
    push = random(10, seed=1)
    noise = random(STRETCH, 10, seed=2)
    for k in range(STRETCH):
        # The direction turns with the game, or is new in every iteration.
        turned = torch.cat([push[:5] * math.cos(k / 3), push[5:] * math.sin(k / 3)])
        gradient = math.sqrt(persistence) * turned + math.sqrt(1 - persistence) * noise[k]
        found.see(Seen(
            friction=0.4 + 0.01 * random(3, seed=k), displacement=displacement + 0.03 * random(1, 3, seed=900 + k),
            structure=2.0, mobility=torch.ones(2, dtype=torch.float64), chains=[k % 2, 2 + k % 2], gradient=gradient,
            margin=margin + margin_scatter * random(1, seed=500 + k).item(),
            margins={"dynamics": margin + margin_scatter * random(1, seed=500 + k).item(), "long": margin},
        ))  # fmt: skip
    return found


EXACT = torch.full([1, 3], 0.01, dtype=torch.float64)


def test_a_critic_that_gives_all_the_same_score_is_blind_though_motion_is_right():
    assert alarms.blind_critics(course(margin=0.001).margins(25)) == ["long"]
    assert course().margins(STRETCH + 1) == {}


def test_motion_that_is_right_raises_no_alarm():
    assert not course().drifting()
    assert alarms.why_off(course(), EXACT, 0.69) is None
    # Nor one that the held-out part is too short to tell.
    assert alarms.why_off(course(0.3), torch.full([1, 3], 0.1), 0.69) is None
    assert alarms.why_off(course(0.3), torch.full([1, 3], torch.nan), 0.69) is None


def test_a_critic_that_sees_nothing_of_a_difference_has_collapsed():
    alarm = alarms.why_off(course(0.3), EXACT, 0.69)
    assert alarm.kind == CRITIC and re.search(r"\+3[3-7] % off", alarm.sentence) and "sees no difference" in alarm.sentence


def test_a_critic_that_is_sure_but_gives_no_direction_has_collapsed():
    alarm = alarms.why_off(course(-0.3, margin=12.0, persistence=0.0), EXACT, 9.0)
    assert alarm.kind == CRITIC and "is sure of every window" in alarm.sentence


def test_a_gradient_that_is_new_in_every_iteration_is_noise():
    alarm = alarms.why_off(course(0.3, margin=0.01, persistence=0.0), EXACT, 0.70)
    assert alarm.kind == GRADIENT and "training.forget_ps" in alarm.sentence


def test_a_difference_that_is_seen_but_stays_is_blamed_on_the_equation():
    alarm = alarms.why_off(course(0.3, margin=0.01), EXACT, 0.70)
    assert alarm.kind == EQUATION and "can't follow" in alarm.sentence


def test_a_chain_that_stands_still_among_others_is_found_but_slow_models_are_not():
    mobility = 1 + 0.05 * random(6, 3)
    assert alarms.frozen_chains(mobility) == []
    assert alarms.frozen_chains(0.05 * mobility) == []
    mobility[2] = 0.02
    assert alarms.frozen_chains(mobility) == [2]
    # One slow rollout is not enough, nor what has not been seen often enough.
    mobility[2, 0] = 1.0
    assert alarms.frozen_chains(mobility) == []
    mobility[2] = torch.tensor([torch.nan, 0.02, 0.02])
    assert alarms.frozen_chains(mobility) == []


def test_chains_that_all_stand_still_far_from_the_liquid_have_frozen():
    still = torch.full([4, 3], 0.01, dtype=torch.float64)
    assert "froze" in alarms.all_frozen(still, structure=60.0, parameters=56)
    assert alarms.all_frozen(still, structure=5.0, parameters=56) is None
    assert alarms.all_frozen(100 * still, structure=60.0, parameters=56) is None
    still[0, 0] = torch.nan
    assert alarms.all_frozen(still, structure=60.0, parameters=56) is None


def test_memory_slower_than_the_window_is_said():
    rates = torch.tensor([[1.6, 20.0, 100.0]])
    within = torch.tensor([[22.0, 25.0]])
    assert alarms.slow_memory(rates, 0.78, within) is None
    pinned = torch.tensor([[0.80, 20.0]])
    assert alarms.slow_memory(pinned, 0.78, torch.tensor([[23.0, 25.0]])) is None
    assert "at its floor of 0.78/ps" in alarms.slow_memory(pinned, 0.78, torch.tensor([[22.0, 25.0]]))
    assert "40 % of the friction acts after the end" in alarms.slow_memory(rates, 0.78, torch.tensor([[15.0, 25.0]]))
    assert alarms.slow_memory(torch.zeros([1, 0]), 0.0, torch.tensor([[15.0, 15.0]])) is None
