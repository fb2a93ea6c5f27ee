"""Diagnostics of training problems that do not end in an explosion, each described by one sentence."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from ...analysis.tolerances import TOLERANCES
from .convergence import ConvergenceHistory, mean_and_error


@dataclass(frozen=True)
class DiagnosticsSettings:
    """Thresholds of the diagnostics.

    Attributes
    ----------
    msd_deviation, msd_errors : float
        Mean squared displacements are wrong if their logarithm deviates from the held-out one by more than
        `msd_deviation` and by more than `msd_errors` standard errors.
    mobility : float
        A chain is frozen if its mean squared displacement is below this fraction of the other chains' median, or of
        the reference's for all chains.
    distortion : float
        Smallest structural distance of frozen chains, in units of √P for P parameters of the potential. A single frame
        of the reference has a distance of about √P.
    persistence : float
        Correlation of the generator's gradient between successive iterations below which it is noise. Measured
        correlations of an informative gradient are 0.4 to 0.7, and 0.16 to 0.46 after convergence.
    saturated_loss : float
        Generator's loss above which a discriminator is certain of every window. It is ln 2 = 0.69 if windows are
        indistinguishable.
    constant_output : float
        Standard deviation of a discriminator's gap between iterations below which its output is constant. The
        smallest one observed in a working discriminator is 4e-4.
    late_friction : float
        Fraction of the integrated friction beyond the window above which the memory is too slow for the window.
    at_floor, at_floor_friction : float
        A decay rate is at its floor if it exceeds the floor by less than the fraction `at_floor`. It is reported only
        if more than the fraction `at_floor_friction` of the integrated friction lies beyond the window.
    open_gap : float
        Gap of a graph discriminator above which it distinguishes generated windows. In water, pairwise friction
        reaches 0.02 to 0.03 in windows of 2 ps and 0.04 to 0.11 in windows of 4 ps. Single-particle friction reaches
        0.11 in 2 ps, and 0.2 to 0.3 without other forces.
    divergent_friction : float
        Pairwise friction above which it has diverged, in units of the Einstein friction kT/(mD), or in units of
        `divergent_from_start` times the initial friction if that is more.
    divergent_from_start : float
    """

    msd_deviation: float = 0.10
    msd_errors: float = 5.0
    mobility: float = TOLERANCES.frozen
    distortion: float = 3.0
    persistence: float = 0.1
    saturated_loss: float = 3.0
    constant_output: float = 1e-5
    late_friction: float = 0.25
    at_floor: float = 0.1
    at_floor_friction: float = 0.1
    open_gap: float = 0.06
    divergent_friction: float = 10.0
    divergent_from_start: float = 2.0


DEFAULT = DiagnosticsSettings()


class Cause(Enum):
    """Cause of a problem."""

    DISCRIMINATOR = "discriminator"
    EQUATION = "equation of motion"
    GRADIENT = "gradient"


@dataclass(frozen=True)
class Diagnosis:
    """A problem of the training: its cause and a sentence for the user."""

    cause: Cause
    message: str


def non_mixing_chains(mobility: Tensor, settings: DiagnosticsSettings = DEFAULT) -> list[int]:
    """Return the chains that move far less than the others.

    A model with too much friction slows all chains alike, so none is returned.

    Parameters
    ----------
    mobility : Tensor [chains, n]
        Last mobilities of each chain, NaN where unknown.
    settings : DiagnosticsSettings
    """
    latest = mobility.max(1).values
    found = []
    for chain, value in enumerate(latest):
        others = torch.cat([latest[:chain], latest[chain + 1 :]])
        others = others[others.isfinite()]
        if len(others) and value < settings.mobility * others.median():
            found.append(chain)
    return found


def frozen_model(
    mobility: Tensor, structure: float, parameters: int, settings: DiagnosticsSettings = DEFAULT
) -> str | None:
    """Return a message if all chains are frozen in a structure unlike the liquid, else None.

    Parameters
    ----------
    mobility : Tensor [chains, n]
        Last mobilities of each chain, NaN where unknown.
    structure : float
        Structural distance from the reference (standard deviations).
    parameters : int
        Number of parameters of the potential.
    settings : DiagnosticsSettings
    """
    latest = mobility.max(1).values
    if (
        not latest.isfinite().all()
        or latest.median() >= settings.mobility
        or structure < settings.distortion * parameters**0.5
    ):
        return None
    return (
        f"the chains froze: the mean squared displacement is {latest.median():.2g} times that of the reference, and the "
        f"structure is {structure:.0f} standard deviations from it"
    )


def collapsed_discriminators(
    gaps: dict[str, Tensor], settings: DiagnosticsSettings = DEFAULT
) -> list[str]:
    """Return the names of the discriminators whose output is constant.

    Parameters
    ----------
    gaps : dict of str to Tensor [iterations]
        Mean logit differences between training and generated samples in successive iterations.
    settings : DiagnosticsSettings
    """
    return [name for name, values in gaps.items() if values.std() < settings.constant_output]


def diagnose_motion(
    history: ConvergenceHistory,
    error: Tensor,
    generator_loss: float,
    settings: DiagnosticsSettings = DEFAULT,
) -> Diagnosis | None:
    """Return why converged mean squared displacements differ from the held-out ones, or None if they agree.

    A discriminator has collapsed if its gap is zero although windows differ, or if it is certain of every window and
    its gradient is noise. If the gap is open and the gradient is noise, training cannot follow the gradient. If both
    discriminator and gradient are informative, the equation of motion cannot represent the dynamics.

    Parameters
    ----------
    history : ConvergenceHistory
        A full history.
    error : Tensor [n_types, lags]
        Relative standard error of the held-out mean squared displacements.
    generator_loss : float
        Mean over the last iterations.
    settings : DiagnosticsSettings
    """
    values = history.values("displacement")
    mean, own = mean_and_error(values[len(values) // 2 :])
    total = torch.hypot(own, error.flatten()).nan_to_num(torch.inf)
    wrong = mean.abs() > (settings.msd_errors * total).clamp_min(settings.msd_deviation)
    if not wrong.any():
        return None
    worst = mean[wrong][mean[wrong].abs().argmax()]
    what = (
        f"mean squared displacements deviate by {100 * (worst.exp() - 1):+.0f} % and no longer "
        "improve"
    )
    gap, gap_error = mean_and_error(history.values("gap"))
    persistence = gradient_persistence(history.values("gradient"))
    is_open = bool(gap > 2 * gap_error)
    if not is_open or (
        generator_loss > settings.saturated_loss and persistence < settings.persistence
    ):
        state = "is certain of every window" if is_open else "does not distinguish the windows"
        return Diagnosis(
            Cause.DISCRIMINATOR, f"the discriminator has collapsed: {what}, but it {state}"
        )
    if persistence < settings.persistence:
        return Diagnosis(
            Cause.GRADIENT,
            f"the gradient is noise (correlation {persistence:.2f} between successive iterations): {what}; use a "
            "shorter training.forget_ps, more iterations or a longer reference",
        )
    return Diagnosis(
        Cause.EQUATION,
        f"the equation of motion cannot represent the dynamics: {what} although the discriminator distinguishes the "
        "windows",
    )


def diagnose_gradient(
    history: ConvergenceHistory, settings: DiagnosticsSettings = DEFAULT
) -> Diagnosis | None:
    """Return a diagnosis if the gradient is noise although mean squared displacements agree, else None."""
    persistence = gradient_persistence(history.values("gradient"))
    if persistence >= settings.persistence:
        return None
    return Diagnosis(
        Cause.GRADIENT,
        f"the gradient is noise (correlation {persistence:.2f} between successive iterations): the discriminators do "
        "not determine the friction and its memory kernel, which mean squared displacements alone determine; use a "
        "shorter training.forget_ps or a longer reference",
    )


def diagnose_gap(
    gaps: Tensor, between_beads: bool, settings: DiagnosticsSettings = DEFAULT
) -> Diagnosis | None:
    """Return why a graph discriminator still distinguishes generated windows, or None if it does not.

    Parameters
    ----------
    gaps : Tensor [iterations, 1]
        Gap between held-out and generated windows, over a full history.
    between_beads : bool
        Whether friction acts between beads.
    settings : DiagnosticsSettings
    """
    mean, error = (value.item() for value in mean_and_error(gaps[len(gaps) // 2 :]))
    if not mean - 2 * error > settings.open_gap:
        return None
    what = (
        "the graph discriminator still distinguishes generated from all-atom windows (gap "
        f"{mean:.2f}, expected below {settings.open_gap:g})"
    )
    if between_beads:
        return Diagnosis(
            Cause.EQUATION,
            f"{what}: pairwise friction with this cutoff and memory kernel cannot represent the dynamics; use a longer "
            "dynamics.friction_cutoff_nm or more dynamics.auxiliary_variables",
        )
    return Diagnosis(
        Cause.EQUATION,
        f"the equation of motion is the cause: {what}. Single-particle friction cannot correlate the motion of "
        "neighbours, and training distorts the friction to compensate; use dynamics.equation: pair",
    )


def diverged_friction(
    friction: Tensor,
    einstein: Tensor,
    start: Tensor,
    sees_neighbors: bool,
    settings: DiagnosticsSettings = DEFAULT,
) -> str | None:
    """Return a message if pairwise friction has diverged, else None.

    Parameters
    ----------
    friction : Tensor [n_types]
        Friction of a bead of each type (1/ps).
    einstein : Tensor [n_types]
        Einstein friction kT/(mD) of the reference (1/ps).
    start : Tensor [n_types]
        Initial friction (1/ps).
    sees_neighbors : bool
        Whether a graph discriminator is used.
    settings : DiagnosticsSettings
    """
    largest = torch.maximum(
        settings.divergent_friction * einstein, settings.divergent_from_start * start
    )
    beyond = friction > largest
    if not beyond.any():
        return None
    advice = (
        "; use discriminator.kind: equivariant, which does not observe neighbours"
        if sees_neighbors
        else ""
    )
    return (
        f"pairwise friction diverged to {(friction / einstein)[beyond].max().item():.1f} times the Einstein friction "
        f"kT/(mD){advice}"
    )


def gradient_persistence(gradients: Tensor) -> float:
    """Return the correlation of gradients [iterations, M] between successive iterations.

    Each component is scaled by its root mean square. The result is 1 for a constant direction and 0 for noise.
    """
    scaled = gradients / gradients.square().mean(0).sqrt().clamp_min(1e-300)
    return (scaled[1:] * scaled[:-1]).mean().item()


def unresolved_memory(
    rates: Tensor, floor: float, running: Tensor, settings: DiagnosticsSettings = DEFAULT
) -> str | None:
    """Return a message if the memory kernel is slower than the window can resolve, else None.

    Parameters
    ----------
    rates : Tensor [...]
        Decay rates of the kernel (1/ps).
    floor : float
        Smallest allowed decay rate (1/ps), which follows from the window.
    running : Tensor [..., 2]
        Integral of the kernel up to the end of the window, and to infinity (1/ps).
    settings : DiagnosticsSettings
    """
    beyond = float((1 - running[..., 0] / running[..., 1]).max())
    if (
        beyond > settings.at_floor_friction
        and floor > 0
        and rates.numel()
        and float(rates.min()) < (1 + settings.at_floor) * floor
    ):
        return (
            f"a decay rate of the memory kernel is at its floor of {floor:.2g}/ps, which the window sets: the memory may "
            "be slower than the window resolves; compare with a longer training.window_ps"
        )
    if beyond > settings.late_friction:
        return (
            f"{100 * beyond:.0f} % of the friction acts after the end of the window, where nothing was compared; "
            "compare with a longer training.window_ps"
        )
    return None
