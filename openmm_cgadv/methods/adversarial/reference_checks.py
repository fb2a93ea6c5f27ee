"""Checks of the reference: what its frames, velocities and coordinates cannot determine, or contradict."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ...analysis.blocks import Unmeasurable, standard_error
from ...analysis.msd import Msd
from ...analysis.temperature import temperature
from ...data.trajectory import BeadTrajectory
from ...units import KB


@dataclass(frozen=True)
class ReferenceCheckSettings:
    """Thresholds of the checks.

    Attributes
    ----------
    temperature : float
        Relative difference between kinetic and stated temperature that is reported.
    kinetic_energy : float
        Relative difference between the kinetic energy of the first displacements and that of the stated temperature
        that is reported.
    ballistic : float
        The first two frames are in the ballistic regime if the kinetic energy from two frames is at least this
        fraction of that from one.
    blurred : float
        Largest fraction of the shortest mean squared displacement by rounding at which the kinetic energy is checked.
    rounding : float
        Fraction of the shortest mean squared displacement by rounding that is reported.
    errors : float
        Smallest reported difference in standard errors.
    diffusive_frames : float
        Motion that is diffusive from this number of frames on shows no memory kernel.
    """

    temperature: float = 0.02
    kinetic_energy: float = 0.25
    ballistic: float = 0.8
    blurred: float = 0.1
    rounding: float = 0.005
    errors: float = 5.0
    diffusive_frames: float = 2.5


DEFAULT = ReferenceCheckSettings()


def check_sampling(
    interval: float,
    omega: float,
    diffusive: float | None,
    window: float,
    memoryless: bool,
    settings: ReferenceCheckSettings = DEFAULT,
) -> list[str]:
    """Return warnings about motion that the frame interval or a memoryless equation cannot resolve.

    Parameters
    ----------
    interval : float
        Frame interval (ps).
    omega : float
        Einstein frequency (1/ps).
    diffusive : float or None
        Lag from which on motion is diffusive (ps).
    window : float
        End of the window (ps).
    memoryless : bool
        Whether the equation of motion has no memory kernel.
    settings : ReferenceCheckSettings
    """
    found = []
    if interval * omega > math.pi:
        found.append(
            f"Frames {interval:.3g} ps apart do not resolve the vibration of a bead among its neighbours, whose half "
            f"period is {math.pi / omega:.2g} ps: motion and memory faster than a frame are not trained, and the model's "
            "velocity autocorrelation function will differ from the reference's."
        )
        if (
            not memoryless
            and diffusive is not None
            and diffusive <= settings.diffusive_frames * interval
        ):
            found.append(
                "Motion is diffusive within two frames, so the memory kernel shows only in the deviation from diffusion "
                f"at {interval:.3g} ps."
            )
    if memoryless:
        found.append(
            f"Friction without memory is trained at {0.5 * window:.3g} and {window:.3g} ps, after the memory of the "
            "motion has decayed: displacements at shorter times are not trained, and no friction reproduces both."
        )
    return found


def check_temperature(
    trajectory: BeadTrajectory, settings: ReferenceCheckSettings = DEFAULT
) -> list[str]:
    """Return a warning if the kinetic temperature of the stored velocities differs from the stated temperature."""
    try:
        found, error = temperature(trajectory)
    except Unmeasurable:
        return []
    stated = trajectory.temperature
    if not abs(found - stated) > max(settings.temperature * stated, settings.errors * error):
        return []
    return [
        f"The velocities of the reference have a kinetic temperature of {found:.1f} ± {error:.1f} K, but its temperature "
        f"is given as {stated:g} K. Forces and friction are trained for {stated:g} K; correct reference.temperature_K if "
        "it is wrong."
    ]


def check_ballistic_motion(
    trajectory: BeadTrajectory, measured: Msd | None, settings: ReferenceCheckSettings = DEFAULT
) -> list[str]:
    """Return a warning if the ballistic regime contradicts temperature, masses or frame interval.

    The mean squared displacement is 3kT/m · t² (1 − c t² + …), so two lags give its prefactor if frames are close
    enough.

    Parameters
    ----------
    trajectory : BeadTrajectory
    measured : Msd or None
        Mean squared displacements at lags of 1, 2 … frames.
    settings : ReferenceCheckSettings
    """
    if measured is None:
        return []
    if _rounding_share(trajectory, measured) > settings.blurred or _unusable_rounding(trajectory):
        return []
    thermal = 3 * KB * trajectory.temperature / trajectory.type_masses[:, None]
    ratio = measured.blocks[..., :2] / (thermal * measured.lags[:2] ** 2)
    prefactor = (4 * ratio[..., 0] - ratio[..., 1]) / 3
    # At constant energy, few beads keep the temperature they happen to have, whose variance is k/C with C = 3k a bead.
    chance = np.sqrt(1 / 3 / np.bincount(trajectory.types))
    found, error = prefactor.mean(0), np.hypot(chance, np.nan_to_num(standard_error(prefactor)))
    is_ballistic = ratio.mean(0)[:, 1] > settings.ballistic * ratio.mean(0)[:, 0]
    threshold = np.maximum(settings.kinetic_energy, settings.errors * error)
    wrong = (np.abs(found - 1) > threshold) & is_ballistic
    if not wrong.any():
        return []
    worst = found[wrong][np.abs(np.log(found[wrong])).argmax()]
    return [
        f"In one and two frames, beads move as if they had {worst:.2g} times the kinetic energy of "
        f"{trajectory.temperature:g} K: the frame interval of {1e3 * trajectory.frame_interval:g} fs, the temperature or "
        "the masses are wrong, and so will be friction and diffusion."
    ]


def check_rounding(
    trajectory: BeadTrajectory, measured: Msd | None, settings: ReferenceCheckSettings = DEFAULT
) -> list[str]:
    """Return a warning about the effect of rounded coordinates on the shortest lag."""
    found = trajectory.provenance.get("rounding")
    if found is None:
        return []
    interval = trajectory.frame_interval
    start = f"Coordinates are rounded to {found['step_nm']:g} nm"
    if _unusable_rounding(trajectory):
        return [
            f"{start}, and beads move by little more than that in the {interval:.3g} ps between frames: displacements at "
            "the shortest lags are wrong and can't be corrected; use fewer of these frames (reference.beads, with a "
            "longer reference.frame_interval_fs), or full precision."
        ]
    if measured is None:
        return []
    share = _rounding_share(trajectory, measured)
    if share < settings.rounding:
        return []
    return [
        f"{start}, which adds {100 * share:.2g} % to the mean squared displacement at {interval:.3g} ps: generated "
        "windows get the same errors, and the report shows displacements and velocity autocorrelation functions "
        "without them."
    ]


def _unusable_rounding(trajectory: BeadTrajectory) -> bool:
    """Return whether coordinates are rounded by an amount that could not be estimated."""
    return (
        trajectory.provenance.get("rounding") is not None and not trajectory.position_errors.any()
    )


def _rounding_share(trajectory: BeadTrajectory, measured: Msd) -> float:
    """Return the fraction of the shortest mean squared displacement that rounding adds."""
    added, total = 6 * trajectory.position_errors.max() ** 2, measured.values()[0]
    return added / total if added > 0 and total > 0 else (math.inf if added > 0 else 0.0)
