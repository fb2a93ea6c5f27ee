"""Time scales of the training, from the frame interval of the reference and the motion of its beads.

Rules for everything that the experiment file leaves open:

======================  ==========================================================================================
window                  1.5 t, where t is the first lag among 2, 4, 8 … frames from which on the slope of the mean
                        squared displacement over [t/2, t] is within 8 % of that over [2t, 4t], so that the window's
                        end is diffusive; 3 t for pairwise friction, whose slowest memory hardly shows in the motion of
                        single beads; for memoryless Langevin dynamics, which can only be right at long times, the same
                        with 5 %, and 2 t
lags                    1, 2, 4 … frames up to the window, and its end
auxiliary variables     one, and one more for every factor of 4 (pairwise friction: 8) between frame interval and window
floor of decay rates    2/window, because slower memory does not show and would distort the displacement after t;
                        4/window for pairwise friction, and three times as much for each further variable. Pairwise
                        decay rates exceed their floor by at most 1/frame interval, because faster memory is equivalent
                        to instantaneous friction
initial decay rates     from a fit of exponentials to the autocorrelation of the residual forces; without forces
                        log-spaced from 4/window to 0.8/frame interval above the floor, with a fastest one between ω/4
                        and 4/3 ω
initial friction        from the residual forces within a window or 72 frames, ∫⟨δF(0) δF(t)⟩ dt/(3 m kT), but at most
                        kT/(2 m D), which is also the value without forces, and at least 0.001 kT/(m D). The kernel of
                        single-particle friction is then fitted to the mean squared displacement
adjoint damping         2.1/ω, the damping time of the adjoint's feedback through the forces
structure               13 generated configurations of each window enter the relative entropy
======================  ==========================================================================================

ω² = ⟨F²⟩/(3 m kT) is the squared Einstein frequency of the fitted potential, the largest over bead types. D follows
from the displacement at the window's end. For water at 298 K with a frame every 20 fs, ω = 30/ps. The window is
1.92 ps (pairwise friction: 3.84 ps), with four (three) auxiliary variables, and the adjoint damping time is 0.07 ps.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np

from ...analysis.blocks import Unmeasurable, standard_error
from ...analysis.msd import Msd, msd
from ...config import Experiment
from ...data.trajectory import BeadTrajectory
from ...fit import InitialFit
from ...fit.ranges import sample_frames
from ...friction.residual_forces import modelled_forces
from ...units import KB
from .equations import EQUATIONS, EquationSettings
from .reference_checks import (
    ReferenceCheckSettings,
    check_ballistic_motion,
    check_rounding,
    check_sampling,
    check_temperature,
)
from .windows import window_lags


@dataclass(frozen=True)
class TimeScaleSettings:
    """Hyperparameters of the rules.

    Attributes
    ----------
    diffusive : float
        Largest relative change of the slope of the mean squared displacement, from a lag to four times that, at which
        motion is diffusive. From a lag to twice that, the change is also small near the maximum of the slope.
    diffusive_memoryless : float
        The same without memory kernel, where the remaining change would distort the friction.
    window_memoryless : float
        End of the window without memory kernel, in units of the lag from which on motion is diffusive; see
        :class:`~openmm_cgadv.methods.adversarial.equations.EquationSettings` for others.
    longest : float
        Longest lag at which motion is tested for being diffusive (ps).
    longest_share : float
        The same as a fraction of the reference's length.
    frames : int
        Most frames in which displacements are measured.
    slowest_rate : float
        Smallest initial decay rate, in units of 1/window.
    fastest_rate : float
        Largest initial decay rate, in units of 1/frame interval.
    fastest_omega, least_omega : float
        Bounds of the largest initial decay rate, in units of ω.
    initial_friction : float
        Largest initial friction, in units of the Einstein friction kT/(m D), and the initial friction without forces.
    smallest_friction : float
        Smallest initial friction, in the same unit.
    adjoint_damping : float
        Damping time of the adjoint, in units of 1/ω.
    structure_frames : int
        Configurations of a window that enter the relative entropy.
    resolved : float
        Longest frame interval at which the autocorrelation of residual forces is resolved, in units of 1/ω.
    checks : ReferenceCheckSettings
    """

    diffusive: float = 0.08
    diffusive_memoryless: float = 0.05
    window_memoryless: float = 2.0
    longest: float = 10.0
    longest_share: float = 1 / 8
    frames: int = 20_000
    slowest_rate: float = 4.0
    fastest_rate: float = 0.8
    fastest_omega: float = 4 / 3
    least_omega: float = 1 / 4
    initial_friction: float = 0.5
    smallest_friction: float = 0.001
    adjoint_damping: float = 2.1
    structure_frames: int = 13
    resolved: float = 1.0
    checks: ReferenceCheckSettings = ReferenceCheckSettings()


@dataclass(frozen=True)
class TimeScales:
    """Time scales that follow from the reference, or that the experiment file gives.

    Attributes
    ----------
    frame_interval : float
        (ps)
    diffusive_ps : float or None
        Lag from which on motion is diffusive (ps), None if not reached.
    window_ps : float
        Length of a window (ps).
    lags_ps : tuple of float
        Lags of a window (ps).
    auxiliary_variables : int
    floor_per_ps : float
        Smallest decay rate of the memory kernel (1/ps), 0 without auxiliary variables.
    rates_per_ps : (float, float)
        Smallest and largest initial decay rate (1/ps).
    einstein_friction_per_ps : tuple of float
        kT/(m D) of each bead type (1/ps): the friction of a bead that diffuses as in the reference without other
        forces. Infinite for a bead type that does not move.
    least_friction_per_ps : tuple of float
        Smallest initial friction of each bead type (1/ps).
    friction_per_ps : tuple of float
        Initial friction of each bead type (1/ps).
    residuals_resolved : bool
        Whether residual forces are known and frames are close enough to start the memory kernel from them.
    omega_per_ps : float
        Einstein frequency of the fitted potential (1/ps).
    forget_ps : float
        Damping time of the adjoint (ps).
    structure_ps : float
        Time between configurations that enter the relative entropy (ps).
    warnings : tuple of str
        Sentences on what this reference cannot determine.
    """

    frame_interval: float
    diffusive_ps: float | None
    window_ps: float
    lags_ps: tuple[float, ...]
    auxiliary_variables: int
    floor_per_ps: float
    rates_per_ps: tuple[float, float]
    einstein_friction_per_ps: tuple[float, ...]
    least_friction_per_ps: tuple[float, ...]
    friction_per_ps: tuple[float, ...]
    residuals_resolved: bool
    omega_per_ps: float
    forget_ps: float
    structure_ps: float
    warnings: tuple[str, ...]

    def resolved(self, experiment: Experiment) -> Experiment:
        """Return the experiment with these values where it leaves them open."""
        motion = experiment.dynamics.model_copy(
            update={"auxiliary_variables": self.auxiliary_variables}
        )
        training = experiment.training.model_copy(
            update={"window_ps": self.window_ps, "forget_ps": self.forget_ps}
        )
        return experiment.model_copy(update={"dynamics": motion, "training": training})

    def to_dict(self) -> dict:
        """Return all fields but the warnings as JSON values."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
            if name != "warnings"
        }

    def sentence(self) -> str:
        """Return a summary of the time scales."""
        lags = ", ".join(f"{lag:.4g}" for lag in self.lags_ps)
        diffusive = ""
        if self.diffusive_ps is not None:
            diffusive = f" (motion is diffusive from {self.diffusive_ps:.3g} ps on)"
        memory = "no memory"
        if self.auxiliary_variables:
            slow, fast = self.rates_per_ps
            memory = (
                f"{self.auxiliary_variables} auxiliary variable{'s' * (self.auxiliary_variables > 1)} with decay rates "
                f"from {slow:.3g} to {fast:.3g}/ps, none below {self.floor_per_ps:.3g}/ps"
            )
        start = ", ".join(f"{value:.3g}" for value in self.friction_per_ps)
        return (
            f"lags of {lags} ps{diffusive}, {memory}, initial friction {start}/ps, adjoint damping time "
            f"{self.forget_ps:.2g} ps"
        )


def describe_rules(
    experiment: Experiment, settings: TimeScaleSettings = TimeScaleSettings()
) -> str:
    """Return the rules that determined the time scales of an experiment."""
    memoryless, equation = experiment.dynamics.memory == 0, EQUATIONS[experiment.dynamics.equation]
    factor, tolerance = _window_rule(memoryless, equation, settings)
    window = (
        f"Windows end at {factor:g} times the lag from which on the slope of the mean squared displacement changes by "
        f"less than {100 * tolerance:g} %"
    )
    if experiment.training.window_ps is not None:
        window = "The window is given"
    if memoryless:
        return f"{window}; friction is trained at its end and half of that."
    number = f"one auxiliary variable, and one more for every factor of {2**equation.factors} between frame interval and window"
    if experiment.dynamics.auxiliary_variables is not None:
        number = "the given number of auxiliary variables"
    return (
        f"{window}; lags double from the frame interval to there. There is {number}. Initial decay rates are between "
        f"{settings.slowest_rate:g}/window and {settings.fastest_rate:g}/frame interval, at most 4/3 of the Einstein "
        f"frequency of the fitted potential, above a floor of {equation.floor:g}/window."
    )


def time_scales(
    trajectory: BeadTrajectory,
    fit: InitialFit,
    experiment: Experiment,
    settings: TimeScaleSettings = TimeScaleSettings(),
) -> TimeScales:
    """Apply the rules at the top of this file.

    Parameters
    ----------
    trajectory : BeadTrajectory
        The all-atom reference.
    fit : InitialFit
        Potential to start from.
    experiment : Experiment
        Values that it gives are kept.
    settings : TimeScaleSettings
    """
    motion, training = experiment.dynamics, experiment.training
    interval, memoryless = trajectory.frame_interval, motion.memory == 0
    equation = EQUATIONS[motion.equation]
    measured, longest = measure_msd(trajectory, settings)
    factor, tolerance = _window_rule(memoryless, equation, settings)
    diffusive, known = (None, True) if measured is None else diffusive_lag(measured, tolerance)
    warnings = []
    window = training.window_ps
    if window is None:
        window = factor * (diffusive or max(longest, 2 * interval))
        warnings += _window_warnings(trajectory, diffusive, known, longest, settings)
    lags = window_lags(interval, window, not memoryless)
    last = lags[-1] * interval
    omega = einstein_frequency(trajectory, fit)
    slow, fast = settings.slowest_rate / last, settings.fastest_rate / interval
    damping = last
    if omega:
        fast = max(min(fast, settings.fastest_omega * omega), settings.least_omega * omega)
        damping = min(settings.adjoint_damping / omega, last)
    number = 0
    if not memoryless:
        given = motion.auxiliary_variables
        number = 1 + int(math.log2(lags[-1])) // equation.factors if given is None else given
    floor = equation.floor / last if number else 0.0
    einstein = einstein_friction(trajectory, measured, last)
    least = np.where(np.isfinite(einstein), settings.smallest_friction * einstein, 0.0)
    resolved = fit.residuals is not None and interval * omega <= settings.resolved
    residual = None
    if resolved and fit.residuals is not None:
        residual = fit.residuals.own_friction(last)
    start = settings.initial_friction * einstein
    largest = start if residual is None else np.maximum(residual, start)
    if (motion.self_friction_per_ps or 0.0) > largest.min():
        warnings.append(
            f"dynamics.self_friction_per_ps is {motion.self_friction_per_ps:g}/ps, more than the {largest.min():.3g}/ps "
            "that the forces and the diffusion of the reference allow: beads will likely diffuse too slowly."
        )
    if motion.initial_friction_per_ps is not None:
        start = np.full_like(einstein, motion.initial_friction_per_ps)
    elif residual is not None:
        start = np.clip(residual, least, start)
    if not trajectory.provenance.get("whole", True):
        warnings.append(
            "The selection leaves out atoms of its residues. The forces and velocities of the reference are not those of "
            "such beads and are not used, and the masses of the beads may be wrong; select whole residues for centres "
            "of mass."
        )
    warnings += check_temperature(trajectory, settings.checks)
    warnings += check_ballistic_motion(trajectory, measured, settings.checks)
    warnings += check_rounding(trajectory, measured, settings.checks)
    warnings += check_sampling(interval, omega, diffusive, last, memoryless, settings.checks)
    return TimeScales(
        frame_interval=interval,
        diffusive_ps=diffusive,
        window_ps=window,
        lags_ps=tuple(float(lag * interval) for lag in lags),
        auxiliary_variables=number,
        floor_per_ps=floor,
        rates_per_ps=(slow, max(slow, fast)),
        einstein_friction_per_ps=tuple(einstein.tolist()),
        least_friction_per_ps=tuple(least.tolist()),
        friction_per_ps=tuple(start.tolist()),
        residuals_resolved=resolved,
        omega_per_ps=omega,
        forget_ps=training.forget_ps or damping,
        structure_ps=last / settings.structure_frames,
        warnings=tuple(warnings),
    )


def _window_rule(
    memoryless: bool, equation: EquationSettings, settings: TimeScaleSettings
) -> tuple[float, float]:
    """Return the window in units of the diffusive lag, and the tolerance that defines this lag."""
    if memoryless:
        return settings.window_memoryless, settings.diffusive_memoryless
    return equation.window, settings.diffusive


def _window_warnings(
    trajectory: BeadTrajectory,
    diffusive: float | None,
    known: bool,
    longest: float,
    settings: TimeScaleSettings,
) -> list[str]:
    length = f"a reference of {trajectory.n_frames * trajectory.frame_interval:.4g} ps"
    if not known:
        return [
            f"Motion seems to be diffusive from {diffusive:.3g} ps on, but the statistical error of {length} with "
            f"{trajectory.n_beads} beads is too large to be sure: windows may be too short, and diffusion wrong; use a "
            "longer reference."
        ]
    if diffusive is None:
        return [
            f"Motion does not become diffusive within {longest:.3g} ps, the longest lag that {length} and windows up to "
            f"{settings.longest:g} ps allow, so diffusion at longer times is not trained; use a longer reference if this "
            "is a liquid."
        ]
    return []


def measure_msd(
    trajectory: BeadTrajectory, settings: TimeScaleSettings = TimeScaleSettings()
) -> tuple[Msd | None, float]:
    """Return mean squared displacements at lags of 1, 2, 4 … frames, and the longest possible diffusive lag (ps).

    The mean squared displacements are None for a reference of fewer than 16 frames.
    """
    interval = trajectory.frame_interval
    most = max(settings.frames, round(2 * settings.longest / settings.longest_share / interval))
    stop = min(trajectory.n_frames, most)
    longest = min(max(settings.longest, 2 * interval), settings.longest_share * stop * interval)
    number = int(math.log2(longest / interval) + 1e-9) if longest >= interval else 0
    lags = interval * 2.0 ** np.arange(number + 3)
    try:
        return msd(trajectory, lags, stop=stop), interval * 2**number
    except Unmeasurable:
        return None, interval


def diffusive_lag(measured: Msd, tolerance: float) -> tuple[float | None, bool]:
    """Return the lag from which on the motion of all bead types is diffusive, and whether its error is small enough.

    The slope of the mean squared displacement over [t/2, t] is compared with that over [2t, 4t], at t and at all
    longer lags. Their difference may exceed the tolerance by one standard error.

    Parameters
    ----------
    measured : Msd
        At lags that double.
    tolerance : float
        Largest relative change of the slope.

    Returns
    -------
    float or None
        The lag (ps), None if motion does not become diffusive.
    bool
        Whether the standard error is below the tolerance.
    """
    if len(measured.lags) < 4:
        return None, True
    slopes = np.diff(measured.blocks, axis=-1) / np.diff(measured.lags)
    change = slopes[..., :-2] - slopes[..., 2:]
    error = np.stack([standard_error(change[:, bead]) for bead in range(change.shape[1])])
    error = np.nan_to_num(error) * measured.overlap[3:]
    tolerated = tolerance * np.abs(slopes[..., 2:].mean(0))
    fails = np.flatnonzero((np.abs(change.mean(0)) > tolerated + error).any(0))
    first = fails[-1] + 1 if len(fails) else 0
    if first == change.shape[-1]:
        return None, True
    return float(measured.lags[first + 1]), bool((error <= tolerated)[:, first].all())


def einstein_frequency(trajectory: BeadTrajectory, fit: InitialFit, frames: int = 20) -> float:
    """Return the Einstein frequency √(⟨F²⟩/(3 m kT)) of the fitted potential, the largest over bead types (1/ps)."""
    chosen = sample_frames(trajectory, frames)
    f = modelled_forces(trajectory, fit.spec, fit.theta, chosen)
    each = np.square(f).mean((0, 2)) / (trajectory.masses * KB * trajectory.temperature)
    return math.sqrt(
        max(each[trajectory.types == bead].mean() for bead in np.unique(trajectory.types))
    )


def einstein_friction(
    trajectory: BeadTrajectory, measured: Msd | None, window: float
) -> np.ndarray:
    """Return the Einstein friction kT/(m D) [n_types] (1/ps), with D from the displacement at the window's end.

    It is infinite for a bead type that does not move, as in frozen configurations.

    Parameters
    ----------
    trajectory : BeadTrajectory
    measured : Msd or None
        At lags up to the window's end or less.
    window : float
        (ps)
    """
    if measured is None:
        measured = msd(trajectory, [trajectory.frame_interval])
    squared = np.array(
        [np.interp(window, measured.lags, curve) for curve in measured.blocks.mean(0)]
    )
    ballistic = 6 * min(window, measured.lags[-1]) * KB * trajectory.temperature
    return np.divide(
        ballistic / trajectory.type_masses,
        squared,
        out=np.full(len(squared), np.inf),
        where=squared > 0,
    )
