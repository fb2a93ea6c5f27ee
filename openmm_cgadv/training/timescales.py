"""Time scales of the training, all from the reference: from its frame interval and how its beads move.

The rule, for everything that the experiment file leaves open:

======================  ==========================================================================================
window                  1.5 t, where t is the first lag, of 2, 4, 8 … frames, from which on the slope of the mean
                        squared displacement over [t/2, t] is within 8 % of that over [2t, 4t]: its end shows diffusion;
                        3 t of friction between pairs, whose slowest memory shows little in the motion of one bead;
                        memoryless Langevin dynamics, which can only be right past the memory, is judged at the first
                        such lag for 5 %, and at twice that
lags                    1, 2, 4 … frames up to the window, and its end
auxiliary variables     one, and another for every factor of four between frame interval and window; of eight between pairs
floor of their rates    2/window: slower memory could not be seen, and would bend the displacement past t by more
                        than that; 4/window of friction between pairs, the same rate, and three times as much of each
                        further variable; above them no more than 1/frame interval there, as faster memory can't be
                        told from friction at once
their initial rates     those of the exponentials that fit the residual forces' correlation best; without forces
                        the floor on top of what is log-spaced from 4/window to 0.8/frame interval, but to no less than
                        ω/4 and no more than 4/3 ω
initial friction        what the residual forces of the fit show within a window or 72 frames, ∫⟨δF(0) δF(t)⟩ dt/(3 m kT), but at most
                        kT/(2 m D), the value without forces, and at least a thousandth of kT/(m D); on single beads friction and
                        memory then follow displacements before the critics begin
forgetting              2.1/ω, the adjoint's memory of feedback through the forces
structure               a generated configuration every 13th of a window enters the relative entropy
======================  ==========================================================================================

ω² = ⟨F²⟩/(3 m kT) is the mean curvature that a bead of the fitted potential feels, its Einstein frequency (the
fastest of the types); D is from the displacement at the window's end. Water at 298 K with a frame every 20 fs
(ω = 30/ps) gets windows of 1.92 ps, of 3.84 ps for friction between pairs, four auxiliary variables (three between pairs) and 0.07 ps of forgetting.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np

from ..analysis.blocks import Unmeasurable, standard_error
from ..analysis.dynamics import Msd, msd, temperature
from ..baselines import InitialFit
from ..baselines.ranges import sample_frames
from ..baselines.residuals import modelled_forces
from ..config import Experiment
from ..trajectory import BeadTrajectory
from ..units import KB
from .windows import window_lags

DIFFUSIVE = 0.08
"""Change of the slope of the mean squared displacement, from a lag to four times that, below which motion is diffusive. From a lag
to twice that it is small, too, where the slope has its maximum: backflow comes after."""
DIFFUSIVE_MEMORYLESS = 0.05
"""The same where friction has no memory, and what is left of it at the window's lags would bend the friction."""
PAST, PAST_MEMORYLESS, PAST_PAIRS = 1.5, 2.0, 3.0
"""End of a window, in units of the lag from which on motion is diffusive."""
LONGEST = 10.0
"""Longest lag that is tried (ps)."""
SHARE = 1 / 8
"""The same as a share of the reference's length."""
FRAMES = 20_000
"""Frames, evenly many at every length, that displacements are measured in."""
OCTAVES, OCTAVES_PAIRS = 2, 3
"""Factors of two between frame interval and window for every auxiliary variable after the first."""
FLOOR, FLOOR_PAIRS = 2.0, 4.0
"""Lowest rate of auxiliary variables of a bead and of a pair of beads, in units of 1/window."""
SLOWEST, FASTEST = 4.0, 0.8
"""Initial rates, in units of 1/window and 1/frame interval."""
FASTEST_OMEGA, LEAST_OMEGA = 4 / 3, 1 / 4
"""The fastest initial rate is at most and at least this (ω)."""
LEAST_FRICTION = 0.001
"""Least friction to start from, as a share of kT/(m D)."""
FORGET = 2.1
"""(1/ω)"""
STRUCTURE_FRAMES = 13
RESOLVED = 1.0
"""Longest frame interval at which residual forces can be integrated over time (1/ω)."""
COLDER = 0.02
"""Relative difference from the temperature that is given, above which that of stored velocities is told."""
UNLIKE, CLOSE = 0.25, 0.8
"""Relative difference from the kinetic energy of the temperature above which that of the displacements of the first frames is told, where
that of two frames is at least this part of that of one."""
BLURRED = 0.1
"""Share of the shortest mean squared displacement by rounding, beyond which that is not held against the temperature."""
ROUNDING_SHOWN = 0.005
"""Share of the mean squared displacement from which errors by rounding are told."""


@dataclass(frozen=True)
class TimeScales:
    """What the rule at the top of this file found, or was given.

    Attributes
    ----------
    frame_interval : float
        (ps)
    diffusive_ps : float or None
        Lag from which on motion is diffusive, None if that was not seen.
    window_ps : float
    lags_ps : tuple of float
    auxiliary_variables : int
    floor_per_ps : float
        Lowest rate of an auxiliary variable, 0 if there is none.
    rates_per_ps : (float, float)
        Slowest and fastest rate of auxiliary variables to start from.
    free_friction_per_ps : tuple of float
        kT/(m D) of each bead type: the friction of a bead that diffuses so and feels no other force.
    friction_per_ps : tuple of float
        To start from, of each bead type.
    residuals_tell : bool
        Whether there are residual forces, in frames close enough, that memory can start from.
    omega_per_ps : float
        Einstein frequency of the fitted potential.
    forget_ps : float
    structure_ps : float
        Time between configurations that enter the relative entropy.
    limits : tuple of str
        Sentences on what this reference can't teach.
    """

    frame_interval: float
    diffusive_ps: float | None
    window_ps: float
    lags_ps: tuple[float, ...]
    auxiliary_variables: int
    floor_per_ps: float
    rates_per_ps: tuple[float, float]
    free_friction_per_ps: tuple[float, ...]
    friction_per_ps: tuple[float, ...]
    residuals_tell: bool
    omega_per_ps: float
    forget_ps: float
    structure_ps: float
    limits: tuple[str, ...]

    def resolved(self, experiment: Experiment) -> Experiment:
        """The experiment with what it left open."""
        motion = experiment.dynamics.model_copy(update={"auxiliary_variables": self.auxiliary_variables})
        training = experiment.training.model_copy(
            update={"window_ps": self.window_ps, "forget_ps": self.forget_ps}
        )
        return experiment.model_copy(update={"dynamics": motion, "training": training})

    def figures(self) -> dict:
        """All but the limits as plain numbers."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
            if name != "limits"
        }

    def rule(self, experiment: Experiment) -> str:
        """By what rule it was chosen, for a person."""
        memoryless, pairs = experiment.dynamics.memory == 0, experiment.dynamics.equation == "pair"
        past = PAST_MEMORYLESS if memoryless else PAST_PAIRS if pairs else PAST
        window = (
            f"Windows end at {past:g} times the lag from which on the slope of the mean squared displacement changes by less "
            f"than {100 * (DIFFUSIVE_MEMORYLESS if memoryless else DIFFUSIVE):g} %"
        )
        if experiment.training.window_ps is not None:
            window = "The window is given"
        if memoryless:
            return f"{window}; friction is taught at its end and half of that."
        number = f"one auxiliary variable, and another for every factor of {2 ** (OCTAVES_PAIRS if pairs else OCTAVES)} between frame interval and window"
        if experiment.dynamics.auxiliary_variables is not None:
            number = "as many auxiliary variables as are given"
        return (
            f"{window}; lags double from the frame interval to there. There is {number}, whose rates start between "
            f"{SLOWEST:g}/window and {FASTEST:g}/frame interval, but no faster than 4/3 of the frequency that beads feel in the "
            f"fitted potential, on top of a floor of {FLOOR_PAIRS if pairs else FLOOR:g}/window."
        )

    def sentence(self) -> str:
        """What was chosen, for a person."""
        lags = ", ".join(f"{lag:.4g}" for lag in self.lags_ps)
        seen = "" if self.diffusive_ps is None else f" (motion is diffusive from {self.diffusive_ps:.3g} ps on)"
        memory = "no memory"
        if self.auxiliary_variables:
            slow, fast = self.rates_per_ps
            memory = (
                f"{self.auxiliary_variables} auxiliary variable{'s' * (self.auxiliary_variables > 1)} with rates from "
                f"{slow:.3g} to {fast:.3g}/ps, none below {self.floor_per_ps:.3g}/ps"
            )
        start = ", ".join(f"{value:.3g}" for value in self.friction_per_ps)
        return f"lags of {lags} ps{seen}, {memory}, friction from {start}/ps, forgetting in {self.forget_ps:.2g} ps"


def time_scales(trajectory: BeadTrajectory, fit: InitialFit, experiment: Experiment) -> TimeScales:
    """Follow the rule at the top of this file.

    Parameters
    ----------
    trajectory : BeadTrajectory
        The all-atom reference.
    fit : InitialFit
        Potential to start from.
    experiment : Experiment
        What it gives is taken as it is.
    """
    motion, training = experiment.dynamics, experiment.training
    interval, memoryless, pairs = trajectory.frame_interval, motion.memory == 0, motion.equation == "pair"
    limits = []
    moved, longest = displacements(trajectory)
    tolerance = DIFFUSIVE_MEMORYLESS if memoryless else DIFFUSIVE
    diffusive, known = (None, True) if moved is None else diffusive_lag(moved, tolerance)
    if not known and training.window_ps is None:
        limits.append(
            f"Motion seems to be diffusive from {diffusive:.3g} ps on, but {_length(trajectory)} with {trajectory.n_beads} beads can't tell: "
            "windows may be too short, and diffusion wrong; a longer reference is needed."
        )
    window = training.window_ps
    if window is None:
        chosen = diffusive or max(longest, 2 * interval)
        window = (PAST_MEMORYLESS if memoryless else PAST_PAIRS if pairs else PAST) * chosen
        if diffusive is None:
            limits.append(
                f"Motion is not seen to become diffusive within {longest:.3g} ps, as far as {_length(trajectory)} and windows up to {LONGEST:g} ps allow to look, so that diffusion "
                "beyond is not taught: a longer reference may help, if this is a liquid."
            )
    lags = window_lags(interval, window, not memoryless)
    last = lags[-1] * interval
    omega = einstein_frequency(trajectory, fit)
    forget = training.forget_ps or (min(FORGET / omega, last) if omega else last)
    slow, fast = SLOWEST / last, FASTEST / interval
    if omega:
        fast = max(min(fast, FASTEST_OMEGA * omega), LEAST_OMEGA * omega)
    number = 0
    if not memoryless:
        number = motion.auxiliary_variables
        if number is None:
            number = 1 + int(math.log2(lags[-1])) // (OCTAVES_PAIRS if pairs else OCTAVES)
    floor = (FLOOR_PAIRS if pairs else FLOOR) / last if number else 0.0
    free = free_friction(trajectory, moved, last)
    start = 0.5 * free
    tells = fit.residuals is not None and interval * omega <= RESOLVED
    most = np.maximum(fit.residuals.own_friction(last), start) if tells else start
    if (motion.self_friction_per_ps or 0.0) > most.min():
        limits.append(
            f"dynamics.self_friction_per_ps is {motion.self_friction_per_ps:g}/ps, more than the {most.min():.3g}/ps that "
            "the forces and the diffusion of the reference leave room for: beads will likely diffuse too slowly."
        )
    if motion.initial_friction_per_ps is not None:
        start = np.full_like(free, motion.initial_friction_per_ps)
    elif tells:
        start = np.clip(fit.residuals.own_friction(last), LEAST_FRICTION * free, start)
    if not trajectory.provenance.get("whole", True):
        limits.append(
            "The selection leaves out atoms of its residues: forces and velocities of the reference, which are not those of such beads, are not "
            "used, and beads may not move as fast as their masses say; select whole residues for centres of mass."
        )
    limits += warmed(trajectory)
    limits += ballistic(trajectory, moved)
    limits += rounded(trajectory, moved)
    limits += sparse(interval, omega, diffusive, last, memoryless)
    return TimeScales(
        interval, diffusive, window, tuple(float(lag * interval) for lag in lags), number, floor, (slow, max(slow, fast)),
        tuple(free.tolist()), tuple(start.tolist()), tells, omega, forget, last / STRUCTURE_FRAMES, tuple(limits),
    )  # fmt: skip


def _length(trajectory: BeadTrajectory) -> str:
    return f"a reference of {trajectory.n_frames * trajectory.frame_interval:.4g} ps"


def sparse(interval: float, omega: float, diffusive: float | None, last: float, memoryless: bool) -> list[str]:
    """What frames so far apart can't teach, in sentences.

    Parameters
    ----------
    interval, omega, last
        Frame interval (ps), Einstein frequency (1/ps) and end of the window (ps).
    diffusive : float or None
        Lag from which on motion is diffusive (ps).
    memoryless : bool
    """
    found = []
    if interval * omega > math.pi:
        found.append(
            f"Frames {interval:.3g} ps apart don't show the vibration of a bead among its neighbours, whose half period "
            f"is {math.pi / omega:.2g} ps: motion and memory faster than a frame are not taught, and the model's velocity "
            "correlation is not that of the reference."
        )
    if not memoryless and interval * omega > math.pi and diffusive is not None and diffusive <= 2.5 * interval:
        found.append(
            f"Motion is diffusive within two frames, so that the memory of friction shows in nothing but how far beads "
            f"are ahead of their diffusion at {interval:.3g} ps."
        )
    if memoryless:
        found.append(
            f"Friction without memory is taught at {0.5 * last:.3g} and {last:.3g} ps, past the memory of the motion: "
            "displacements at shorter times are not taught, and no friction makes both right."
        )
    return found


def warmed(trajectory: BeadTrajectory) -> list[str]:
    """Whether the reference moves as its temperature says, in a sentence if it does not."""
    try:
        found, error = temperature(trajectory)
    except Unmeasurable:
        return []
    stated = trajectory.temperature
    if not abs(found - stated) > max(COLDER * stated, 5 * error):
        return []
    return [
        f"The velocities of the reference are those of {found:.1f} ± {error:.1f} K, but its temperature is given as {stated:g} K: "
        "all forces and all friction are taught for the latter; give the former as reference.temperature_K if it is right."
    ]


def ballistic(trajectory: BeadTrajectory, moved: Msd | None) -> list[str]:
    """Whether beads begin to move as fast as their temperature and frame interval say, in a sentence if they don't.

    The mean squared displacement is 3kT/m · t² (1 − c t² + …), so that two lags tell its beginning, if frames are close enough.
    """
    if moved is None or 6 * trajectory.position_errors.max() ** 2 > BLURRED * moved.values()[0]:
        return []
    if trajectory.provenance.get("rounding") is not None and not trajectory.position_errors.any():
        return []
    free = 3 * KB * trajectory.temperature / trajectory.type_masses[:, None] * moved.lags[:2] ** 2
    share = moved.blocks[..., :2] / free
    begins = (4 * share[..., 0] - share[..., 1]) / 3
    # At constant energy few beads keep the temperature that they happen to have: its variance is k/C, with 3k for each.
    chance = np.sqrt(1 / 3 / np.bincount(trajectory.types))
    found, error = begins.mean(0), np.hypot(chance, np.nan_to_num(standard_error(begins)))
    off = (np.abs(found - 1) > np.maximum(UNLIKE, 5 * error)) & (share.mean(0)[:, 1] > CLOSE * share.mean(0)[:, 0])
    if not off.any():
        return []
    worst = found[off][np.abs(np.log(found[off])).argmax()]
    return [
        f"In one frame and in two, beads move as if they had {worst:.2g} times the kinetic energy of {trajectory.temperature:g} K: the frame "
        f"interval of {1e3 * trajectory.frame_interval:g} fs, the temperature or the masses are wrong, and with them friction and diffusion."
    ]


def rounded(trajectory: BeadTrajectory, moved: Msd | None) -> list[str]:
    """What rounded coordinates do to the shortest lag, in sentences."""
    found = trajectory.provenance.get("rounding")
    if found is None:
        return []
    head, interval = f"Coordinates are rounded to {found['step_nm']:g} nm", trajectory.frame_interval
    if not trajectory.position_errors.any():
        return [
            f"{head}, and beads move by little more than that in the {interval:.3g} ps from frame to frame: displacements at "
            "the shortest lags are wrong and can't be corrected; take fewer of these frames (reference.beads, with a longer "
            "reference.frame_interval_fs), or full precision."
        ]
    if moved is None:
        return []
    added = 6 * trajectory.position_errors.max() ** 2 / moved.values()[0]
    if added < ROUNDING_SHOWN:
        return []
    return [
        f"{head}, which adds {100 * added:.2g} % to the mean squared displacement of {interval:.3g} ps: the generated windows "
        "are given the same errors, and displacements and velocity correlations are shown without them."
    ]


def displacements(trajectory: BeadTrajectory) -> tuple[Msd | None, float]:
    """Mean squared displacements at lags of 1, 2, 4 … frames, and the longest that `diffusive_lag` may find (ps).

    There are none of a reference of fewer than 16 frames.
    """
    interval = trajectory.frame_interval
    stop = min(trajectory.n_frames, max(FRAMES, round(2 * LONGEST / SHARE / interval)))
    longest = min(max(LONGEST, 2 * interval), SHARE * stop * interval)
    number = int(math.log2(longest / interval) + 1e-9) if longest >= interval else 0
    lags = interval * 2.0 ** np.arange(number + 3)
    try:
        return msd(trajectory, lags, stop=stop), interval * 2**number
    except Unmeasurable:
        return None, interval


def diffusive_lag(moved: Msd, tolerance: float) -> tuple[float | None, bool]:
    """Lag from which on the motion of all bead types is diffusive (ps), None if that is not reached; and whether that is known, as
    an error larger than the tolerance lets anything pass.

    The slope of the mean squared displacement over [t/2, t] is held against that over [2t, 4t], at t and all
    longer lags, with an allowance of one standard error of their difference.

    Parameters
    ----------
    moved : Msd
        At lags that double.
    tolerance : float
        Largest relative change of the slope.
    """
    if len(moved.lags) < 4:
        return None, True
    slopes = np.diff(moved.blocks, axis=-1) / np.diff(moved.lags)
    change = slopes[..., :-2] - slopes[..., 2:]
    error = np.stack([standard_error(change[:, kind]) for kind in range(change.shape[1])])
    error = np.nan_to_num(error) * moved.overlap[3:]
    tolerated = tolerance * np.abs(slopes[..., 2:].mean(0))
    fails = np.flatnonzero((np.abs(change.mean(0)) > tolerated + error).any(0))
    first = fails[-1] + 1 if len(fails) else 0
    if first == change.shape[-1]:
        return None, True
    return float(moved.lags[first + 1]), bool((error <= tolerated)[:, first].all())


def einstein_frequency(trajectory: BeadTrajectory, fit: InitialFit, frames: int = 20) -> float:
    """√(⟨F²⟩/(3 m kT)) of the fitted potential in the reference, the highest over bead types (1/ps)."""
    chosen = sample_frames(trajectory, frames)
    f = modelled_forces(trajectory, fit.spec, fit.theta, chosen)
    each = np.square(f).mean((0, 2)) / (trajectory.masses * KB * trajectory.temperature)
    return math.sqrt(max(each[trajectory.types == kind].mean() for kind in np.unique(trajectory.types)))


def free_friction(trajectory: BeadTrajectory, moved: Msd | None, window: float) -> np.ndarray:
    """kT/(m D) [n_types] (1/ps), with D from the displacement at a window's end.

    Parameters
    ----------
    trajectory : BeadTrajectory
    moved : Msd or None
        At lags among which the window's end is.
    window : float
        (ps)
    """
    if moved is None:
        moved = msd(trajectory, [trajectory.frame_interval])
    squared = np.array([np.interp(window, moved.lags, curve) for curve in moved.blocks.mean(0)])
    return 6 * min(window, moved.lags[-1]) * KB * trajectory.temperature / (trajectory.type_masses * squared)
