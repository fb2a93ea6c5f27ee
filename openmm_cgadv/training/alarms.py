"""What can go wrong in training without an explosion: each is found by what it does, and said in one sentence."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..analysis.verdict import FROZEN
from .course import Course, mean_and_error

OFF = 0.10
"""Mean squared displacements that differ from those held out by more than this, and by five standard errors, are off."""

DISTORTED = 3.0
"""The structure of frozen chains differs by more than this, times the root of the number of the potential's parameters,
from that of the reference: a single frame of the reference differs by about once that root."""

NOISE = 0.1
"""Correlation of the generator's gradient from one iteration to the next below which it is noise. Where it has
something to say it is 0.4 to 0.7, as critics change little in an iteration, and still 0.16 to 0.46 where motion has come to be right."""

SATURATED = 3.0
"""Generator's loss (0.69 where windows can't be told apart) above which a critic is sure about every window."""

ALIKE = 1e-5
"""Standard deviation of a critic's margin from one iteration to the next below which it gives the same score to all it is shown:
windows differ, so that the margin of a critic which sees anything changes, by 4e-4 in the least of all trainings."""

SLOW = 0.25
"""Part of the friction beyond the window above which memory is too slow to be learned from windows of this length."""

PINNED, SOME = 0.1, 0.1
"""A rate is at its floor if it exceeds it by less than this part, which is worth a word from this part of the friction beyond the
window on: windows are chosen so that a rate may well end at the floor and what they don't show still be less."""

OPEN = 0.06
"""Margin above which a critic of neighbourhoods tells generated windows from others: with friction between pairs it comes to
0.02 to 0.03 in windows of 2 ps of water and stays at 0.04 to 0.11 in those of 4 ps, with friction on single beads it stays at
0.11 in 2 ps, and at 0.2 to 0.3 where nothing else acts."""

RAN_AWAY = 10.0
"""Friction between pairs above which it has run away (kT/(m D)): a bead that nothing but friction slows has 1."""

FROM_START = 2.0
"""The same of training that was told to start from more, in units of that."""

CRITIC, EQUATION, GRADIENT = "critic", "equation", "gradient"


@dataclass(frozen=True)
class Alarm:
    """Something that is wrong: its kind, and one sentence."""

    kind: str
    sentence: str


def frozen_chains(mobility: Tensor) -> list[int]:
    """Chains that move far less than the others, from the last mobilities [chains, n] of each.

    A model with too much friction slows all of them alike, and none is named.
    """
    latest = mobility.max(1).values
    found = []
    for chain, value in enumerate(latest):
        others = torch.cat([latest[:chain], latest[chain + 1 :]])
        others = others[others.isfinite()]
        if len(others) and value < FROZEN * others.median():
            found.append(chain)
    return found


def all_frozen(mobility: Tensor, structure: float, parameters: int) -> str | None:
    """Why the model itself has frozen or crystallized: nothing moves, and nothing is where it is in the liquid."""
    latest = mobility.max(1).values
    if not latest.isfinite().all() or latest.median() >= FROZEN or structure < DISTORTED * parameters**0.5:
        return None
    return (
        f"the chains froze: beads move {latest.median():.2g} times as far as in the reference (mean square), and the "
        f"structure is {structure:.0f} standard deviations from it"
    )


def blind_critics(margins: dict[str, Tensor]) -> list[str]:
    """Names of the critics that have collapsed, whether or not motion is right without them.

    Parameters
    ----------
    margins : dict of str to Tensor [iterations]
        Mean logits of real samples minus those of generated ones, of successive iterations.
    """
    return [name for name, values in margins.items() if values.std() < ALIKE]


def why_off(course: Course, error: Tensor, generator_loss: float) -> Alarm | None:
    """Why motion that no longer changes is not that of the reference, or None if it is.

    A critic that sees nothing although windows differ has collapsed; so has one that is sure of every window but
    gives no direction. A critic that sees the difference, with a gradient that is noise from one iteration to the
    next, can't be followed. If both are well, the equation of motion can't.

    Parameters
    ----------
    course : Course
        A whole stretch.
    error : Tensor [n_types, lags]
        Relative standard error of the displacements that are held out.
    generator_loss : float
        Mean over the last iterations.
    """
    values = course.stretch("displacement")
    mean, own = mean_and_error(values[len(values) // 2 :])
    doubt = torch.hypot(own, error.flatten()).nan_to_num(torch.inf)
    off = mean.abs() > (5 * doubt).clamp_min(OFF)
    if not off.any():
        return None
    worst = mean[off][mean[off].abs().argmax()]
    what = f"mean squared displacements are {100 * (worst.exp() - 1):+.0f} % off and no longer improve"
    margin, spread = mean_and_error(course.stretch("margin"))
    persistence = gradient_persistence(course.stretch("gradient"))
    if margin <= 2 * spread or (generator_loss > SATURATED and persistence < NOISE):
        sees = "is sure of every window" if margin > 2 * spread else "sees no difference"
        return Alarm(CRITIC, f"the critic has collapsed: {what}, but it {sees}")
    if persistence < NOISE:
        return Alarm(
            GRADIENT,
            f"the gradient is noise (correlation {persistence:.2f} from one iteration to the next): {what}; a shorter "
            "training.forget_ps, more iterations or a longer reference would help",
        )
    return Alarm(EQUATION, f"the equation of motion can't follow: {what} although the critic sees it")


def noisy(course: Course) -> Alarm | None:
    """Why motion that is right, as displacements alone may make it, is not what critics taught, or None."""
    persistence = gradient_persistence(course.stretch("gradient"))
    if persistence >= NOISE:
        return None
    return Alarm(
        GRADIENT,
        f"the gradient is noise (correlation {persistence:.2f} from one iteration to the next): critics say nothing about friction and "
        "memory, which displacements alone hold where they are; a shorter training.forget_ps or a longer reference would help",
    )


def open_gap(margins: Tensor, pairs: bool) -> Alarm | None:
    """Why a critic of neighbourhoods still tells generated windows from all-atom ones, or None if it does not.

    Parameters
    ----------
    margins : Tensor [iterations, 1]
        On windows held out, of a whole stretch.
    pairs : bool
        Whether friction acts between pairs.
    """
    mean, error = (value.item() for value in mean_and_error(margins[len(margins) // 2 :]))
    if not mean - 2 * error > OPEN:
        return None
    what = f"the critic of neighbourhoods still tells generated windows from all-atom ones (margin {mean:.2f}, expected below {OPEN:g})"
    if pairs:
        return Alarm(EQUATION, (
            f"{what}: friction between neighbours of this range and memory can't follow; a longer dynamics.friction_cutoff_nm or "
            "more dynamics.auxiliary_variables may help"
        ))  # fmt: skip
    return Alarm(EQUATION, (
        f"the equation of motion is at fault: {what}, for friction on each bead by itself can't move neighbours together, and "
        "training bends it to hide that; use dynamics.equation: pair"
    ))  # fmt: skip


def ran_away(friction: Tensor, free: Tensor, start: Tensor, sees_neighbors: bool) -> str | None:
    """Why friction between pairs has run away, if it has.

    Parameters
    ----------
    friction, free, start : Tensor [n_types]
        Of a bead of each type, of one that diffuses as in the reference and feels no other force, and what training
        started from (1/ps).
    sees_neighbors : bool
        Whether a critic does.
    """
    beyond = friction > torch.maximum(RAN_AWAY * free, FROM_START * start)
    if not beyond.any():
        return None
    cause = "; discriminator.kind: equivariant, which does not see neighbours, does not drive it there" if sees_neighbors else ""
    return (
        f"friction between pairs ran away to {(friction / free)[beyond].max().item():.1f} times that of a bead which "
        f"nothing else slows{cause}"
    )


def gradient_persistence(gradients: Tensor) -> float:
    """Correlation of gradients [iterations, M] from one iteration to the next, each component in units of its own
    root mean square: 1 for a steady direction, 0 for noise."""
    scaled = gradients / gradients.square().mean(0).sqrt().clamp_min(1e-300)
    return (scaled[1:] * scaled[:-1]).mean().item()


def slow_memory(rates: Tensor, floor: float, running: Tensor) -> str | None:
    """What is slower than the window, if anything.

    Parameters
    ----------
    rates : Tensor [...]
        Rates of the auxiliary variables (1/ps).
    floor : float
        The lowest that they can be (1/ps), which follows from the window.
    running : Tensor [..., 2]
        Friction within the window and at long times (1/ps).
    """
    beyond = float((1 - running[..., 0] / running[..., 1]).max())
    if beyond > SOME and floor > 0 and rates.numel() and float(rates.min()) < (1 + PINNED) * floor:
        return (
            f"a rate of the memory is at its floor of {floor:.2g}/ps, which the window sets: memory may be slower "
            "than windows show; a longer training.window_ps would tell"
        )
    if beyond > SLOW:
        return (
            f"{100 * beyond:.0f} % of the friction acts after the end of the window, where nothing was compared; a "
            "longer training.window_ps would tell"
        )
    return None
