"""Everything that the report needs of one trajectory: structure, motion of single beads, collective motion."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..data.trajectory import BeadTrajectory
from . import (
    adf,
    currents,
    diffusion,
    displacement_correlation,
    finite_size,
    green_kubo,
    msd,
    rdf,
    shells,
    temperature,
    transverse_viscosity,
    vacf,
    van_hove,
)
from .adf import Adf
from .blocks import Unmeasurable
from .currents import Currents
from .diffusion import Diffusion
from .displacement_correlation import DisplacementCorrelation
from .green_kubo import GreenKuboViscosity
from .msd import Msd
from .rdf import Rdf
from .sampling import mean_box
from .transverse_viscosity import ApparentViscosity
from .vacf import Vacf
from .van_hove import VanHove

COLLECTIVE = ("currents", "displacement_correlation", "van_hove")
"""Collective observables."""

SLOW = ("second_radii", "second_adf", *COLLECTIVE)
"""Observables whose measurement takes most of the time."""

_SKIPPED = "it was left out"


@dataclass(frozen=True)
class Measurement:
    """Observables of one trajectory, each with its values by block.

    Attributes
    ----------
    n_frames, n_beads : int
    volume : float
        Mean volume of the box, nm^3.
    frame_interval, length : float
        ps.
    rdf, adf, second_adf, msd, diffusion, vacf, currents, displacement_correlation, van_hove
        Results of the functions of the same name; None where the trajectory does not support them.
    radii, second_radii : dict or None
        Radii of the first and of the second coordination shell, nm, by pair of types.
    grid : ndarray
        Lags, ps, of `msd` that are reported; the others serve the fit of the diffusion coefficient.
    temperature : (float, float) or None
        Kinetic temperature and standard error, K.
    apparent_viscosity : ApparentViscosity or None
        From the transverse currents, by wave vector.
    viscosity : (float, float) or None
        Its limit for long waves and standard error, mPa s.
    stress_viscosity : GreenKuboViscosity or None
        From the stress.
    box_correction : (float, float) or None
        Diffusion coefficient in an infinite box minus that in this box, by hydrodynamics with
        `viscosity`, and standard error, cm^2/s.
    reasons : dict
        Why an observable is None: ``{attribute: sentence}``.
    """

    n_frames: int
    n_beads: int
    volume: float
    frame_interval: float
    length: float
    rdf: Rdf | None
    radii: dict[tuple[str, str], float] | None
    adf: Adf | None
    second_radii: dict[tuple[str, str], float] | None
    second_adf: Adf | None
    msd: Msd | None
    grid: np.ndarray
    diffusion: Diffusion | None
    vacf: Vacf | None
    temperature: tuple[float, float] | None
    currents: Currents | None
    apparent_viscosity: ApparentViscosity | None
    viscosity: tuple[float, float] | None
    stress_viscosity: GreenKuboViscosity | None
    box_correction: tuple[float, float] | None
    displacement_correlation: DisplacementCorrelation | None
    van_hove: VanHove | None
    reasons: dict[str, str] = field(default_factory=dict)


def measure(
    trajectory: BeadTrajectory,
    reference: Measurement | None = None,
    *,
    stress: np.ndarray | None = None,
    start: int = 0,
    stop: int | None = None,
    skip: tuple[str, ...] = (),
) -> Measurement:
    """Measure structure and motion of a trajectory.

    Parameters
    ----------
    trajectory : BeadTrajectory
    reference : Measurement, optional
        Provides the range and the bins of g(r), the shell radii, the interval of velocities and the
        lags of the diffusion fit, so that both measurements can be compared.
    stress : array [n_frames, 3, 3], optional
        Stress at every frame, see `green_kubo.green_kubo_viscosity`.
    start, stop : int
        Range of frames.
    skip : tuple of str
        Observables of `SLOW` that are not measured.

    Returns
    -------
    Measurement
        Observables that cannot be measured are None, with the reason.
    """
    stop = trajectory.n_frames if stop is None else min(stop, trajectory.n_frames)
    interval = trajectory.frame_interval
    length = max(stop - start, 0) * interval
    part: dict[str, Any] = dict(start=start, stop=stop)
    found: dict = {}
    reasons = dict.fromkeys(skip, _SKIPPED)

    def attempt(name: str, function: Callable, *needs):
        """Store the result of a function of the observables that it needs, or the reason why there is none."""
        found[name] = None
        missing = next((one for one in (name, *needs) if one in reasons), None)
        if missing is not None:
            reasons[name] = reasons[missing]
            return
        try:
            found[name] = function(*[found[one] for one in needs])
        except Unmeasurable as why:
            reasons[name] = str(why)

    def from_reference(name: str):
        """Return an observable of the reference."""
        assert reference is not None
        value = getattr(reference, name)
        if value is None:
            raise Unmeasurable(reference.reasons[name])
        return value

    def viscosity_of_stress():
        if stress is None:
            raise Unmeasurable("the stress of this run is not known")
        return green_kubo.green_kubo_viscosity(
            stress[start:stop], interval, volume, trajectory.temperature
        )

    r_max = reference.rdf.edges[-1] if reference and reference.rdf else None
    grid = msd.lag_grid(interval, length)
    box = mean_box(trajectory, start, stop)
    volume = float(abs(np.linalg.det(box)))

    def measure_pairs():
        attempt("rdf", lambda: rdf.rdf(trajectory, r_max=r_max, **part))
        if reference is None:
            attempt("radii", shells.shell_radii, "rdf")
            attempt("second_radii", shells.second_shell_radii, "rdf", "radii")
        else:
            attempt("radii", lambda: from_reference("radii"))
            attempt("second_radii", lambda: from_reference("second_radii"))
        attempt("adf", lambda radii: adf.adf(trajectory, radii, **part), "radii")
        attempt(
            "second_adf",
            lambda second, first: adf.adf(
                trajectory, second, first, max_frames=adf.SECOND_SHELL_FRAMES, **part
            ),
            "second_radii",
            "radii",
        )
        attempt(
            "displacement_correlation",
            lambda first: displacement_correlation.displacement_correlation(
                trajectory,
                [ends for ends in (first, found["second_radii"]) if ends is not None],
                **part,
            ),
            "radii",
        )
        attempt("van_hove", lambda: van_hove.van_hove(trajectory, r_max=r_max, **part))

    def measure_time_series():
        attempt("fit_range", lambda: _fit_range(reference, length, interval))
        lags = grid
        if within := found["fit_range"]:
            fitted = diffusion.fit_lags(interval, within)
            lags = np.unique(np.rint(np.concatenate([grid, fitted]) / interval)) * interval
        attempt("msd", lambda: msd.msd(trajectory, lags, **part))
        attempt("diffusion", diffusion.diffusion, "msd", "fit_range")
        velocity_interval = reference.vacf.interval if reference and reference.vacf else None
        attempt("vacf", lambda: vacf.vacf(trajectory, velocity_interval, **part))
        attempt("temperature", lambda: temperature.temperature(trajectory, **part))
        attempt("currents", lambda: currents.currents(trajectory, **part))
        attempt("apparent_viscosity", transverse_viscosity.apparent_viscosity, "currents")
        attempt("viscosity", transverse_viscosity.viscosity, "apparent_viscosity")
        attempt(
            "box_correction",
            lambda eta: finite_size.box_correction(eta, trajectory.temperature, box),
            "viscosity",
        )
        attempt("stress_viscosity", viscosity_of_stress)

    # Both take about as long, and NumPy releases the interpreter while it computes.
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(measure_pairs), pool.submit(measure_time_series)]:
            done.result()
    del found["fit_range"]
    reasons.pop("fit_range", None)
    return Measurement(
        n_frames=max(stop - start, 0),
        n_beads=trajectory.n_beads,
        volume=volume,
        frame_interval=interval,
        length=length,
        grid=grid,
        reasons=reasons,
        **found,
    )


def _fit_range(reference: Measurement | None, length: float, interval: float):
    """Return the range of lags, ps, of the diffusion fit: that of the reference where there is one."""
    if reference is None:
        return diffusion.fit_range(length, interval)
    if reference.diffusion is None:
        raise Unmeasurable(reference.reasons["diffusion"])
    start, end = reference.diffusion.fit_range
    if end > length / 4 * (1 + 1e-9):
        raise Unmeasurable(
            f"the fit of the reference's diffusion coefficient ends at {end:g} ps, which needs "
            f"{4 * end:g} ps of trajectory; this one has {length:.3g} ps"
        )
    return start, end
