"""The figures by which a coarse-grained run is compared with its all-atom reference.

`measure` looks at one trajectory, `metrics` turns what it found into plain numbers that JSON holds
(the M of ``report/metrics.json``), and `noise_floor` compares the two halves of the reference with each
other. What is good enough, `verdict` says.
"""
from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

from . import collective, dynamics, structure
from .blocks import Unmeasurable, halves, jackknife
from .collective import ApparentViscosity, Currents, SharedDisplacements, VanHove
from .dynamics import Diffusion, Msd, Vacf
from .finite_size import box_correction
from .stress import StressViscosity, stress_viscosity
from .structure import Adf, Rdf

CURRENT_SHOWN = 3.0
"""Longest lag, ps, of current correlations that is written down."""

INTEGRAL_POINTS = 100

LARGE_DRIFT = 0.05
CURVED = 0.25


@dataclass(frozen=True)
class Measurement:
    """What one trajectory says about structure and motion, each part with its blocks.

    Attributes
    ----------
    n_frames, n_beads : int
    volume : float
        Of the box, nm^3.
    frame_interval, length : float
        ps.
    rdf, adf, second_adf, msd, diffusion, vacf, currents, apparent_viscosity, shared, van_hove
        Results of `structure`, `dynamics` and `collective`; None where the trajectory does not
        support them.
    radii : dict or None
        First-shell radii, nm, that the angles were taken within.
    grid : ndarray
        Lags, ps, of `msd` that are reported; the others serve the fit of the diffusion.
    temperature : (float, float) or None
        Value and standard error, K.
    viscosity : (float, float) or None
        From the transverse currents: value and standard error, mPa s.
    stress_viscosity : StressViscosity or None
        From the stress.
    box_correction : (float, float) or None
        What diffusion gains from this box to an infinite one by hydrodynamics with `viscosity`:
        value and standard error, cm^2/s.
    second_radii : dict or None
        Where the second shell ends, nm.
    reasons : dict
        Why a part is None: ``{part: sentence}``.
    """

    n_frames: int
    n_beads: int
    volume: float
    frame_interval: float
    length: float
    rdf: Rdf | None
    radii: dict[tuple[str, str], float] | None
    adf: Adf | None
    second_adf: Adf | None
    msd: Msd | None
    grid: np.ndarray
    diffusion: Diffusion | None
    vacf: Vacf | None
    temperature: tuple[float, float] | None
    second_radii: dict[tuple[str, str], float] | None
    currents: Currents | None
    apparent_viscosity: ApparentViscosity | None
    viscosity: tuple[float, float] | None
    stress_viscosity: StressViscosity | None
    box_correction: tuple[float, float] | None
    shared: SharedDisplacements | None
    van_hove: VanHove | None
    reasons: dict[str, str] = field(default_factory=dict)


def measure(trajectory, reference: Measurement | None = None, *, stress=None, start: int = 0,
            stop: int | None = None, skip: tuple[str, ...] = ()) -> Measurement:
    """Measure structure and motion of a trajectory.

    Parameters
    ----------
    trajectory : BeadTrajectory
    reference : Measurement, optional
        Range and bins of g(r), radii of the shells, velocity interval and the range of the
        diffusion fit are taken from it, so that the two can be compared.
    stress : array [n_frames, 3, 3], optional
        Of all frames, as `stress.stress_viscosity` takes it.
    start, stop : int
        Range of frames.
    skip : tuple of str
        Of `SLOW`, what is not measured.

    Returns
    -------
    Measurement
        What can't be measured is None there, with the reason.
    """
    stop = trajectory.n_frames if stop is None else min(stop, trajectory.n_frames)
    n_frames = max(stop - start, 0)
    interval = trajectory.frame_interval
    length = n_frames * interval
    reasons: dict[str, str] = {}
    part = dict(start=start, stop=stop)

    def attempt(name, function, *needs):
        for need in needs:
            if need in reasons:
                reasons[name] = reasons[need]
                return None
        try:
            return function()
        except Unmeasurable as why:
            reasons[name] = str(why)
            return None

    like_rdf = reference.rdf if reference else None
    rdf = attempt("rdf", lambda: structure.rdf(
        trajectory, r_max=like_rdf.edges[-1] if like_rdf else None, **part))
    if reference is None:
        radii = attempt("adf", lambda: structure.shell_radii(rdf), "rdf")
    else:
        radii = reference.radii
        if radii is None:
            reasons["adf"] = reference.reasons["adf"]
    adf = attempt("adf", lambda: structure.adf(trajectory, radii, **part), "adf")

    grid = dynamics.lag_grid(interval, length)
    within = attempt("diffusion", lambda: _fit_range(reference, length, interval))
    lags = grid
    if within is not None:
        fitted = dynamics.fit_lags(interval, within)
        lags = np.unique(np.rint(np.concatenate([grid, fitted]) / interval)) * interval
    msd = attempt("msd", lambda: dynamics.msd(trajectory, lags, **part))
    diffusion = attempt("diffusion", lambda: dynamics.diffusion(msd, within), "msd", "diffusion")
    like_vacf = reference.vacf if reference else None
    vacf = attempt("vacf", lambda: dynamics.vacf(
        trajectory, like_vacf.interval if like_vacf else None, **part))
    temperature = attempt("temperature", lambda: dynamics.temperature(trajectory, **part))
    reasons |= dict.fromkeys(skip, _SKIPPED)
    if reference is None:
        second = attempt("second_radii", lambda: structure.second_shell_radii(rdf, radii),
                         "second_radii", "adf", "rdf")
    else:
        second = reference.second_radii
        if second is None:
            reasons["second_radii"] = reference.reasons["second_radii"]
    second_adf = attempt("second_adf", lambda: structure.adf(
        trajectory, second, radii, max_frames=structure.SECOND_SHELL_FRAMES, **part),
        "second_adf", "second_radii")
    currents = attempt("currents", lambda: collective.currents(trajectory, **part), "currents")
    apparent = attempt("apparent_viscosity", lambda: collective.apparent_viscosity(currents),
                       "currents")
    viscosity = attempt("viscosity", lambda: collective.viscosity(apparent), "apparent_viscosity")
    box = _box(trajectory, start, stop)
    volume = float(abs(np.linalg.det(box)))
    gain = attempt("box_correction", lambda: box_correction(
        viscosity, trajectory.temperature, box), "viscosity")
    if stress is None:
        reasons["stress_viscosity"] = "the stress of this run is not known"
    from_stress = attempt("stress_viscosity", lambda: stress_viscosity(
        stress[start:stop], interval, volume, trajectory.temperature),
        "stress_viscosity")
    if radii is None:
        reasons.setdefault("shared", reasons["adf"])
    shared = attempt("shared", lambda: collective.shared_displacements(
        trajectory, [radii] if second is None else [radii, second], **part), "shared")
    van_hove = attempt("van_hove", lambda: collective.van_hove(
        trajectory, r_max=like_rdf.edges[-1] if like_rdf else None, **part), "van_hove")
    return Measurement(n_frames, trajectory.n_beads, volume, interval, length, rdf, radii, adf, second_adf,
                       msd, grid, diffusion, vacf, temperature, second, currents, apparent, viscosity,
                       from_stress, gain, shared, van_hove, reasons)


def metrics(measured: Measurement, reference: Measurement | None = None, *,
            friction_per_ps: float | None = None, timestep_fs: float | None = None,
            conserves_momentum: bool | None = None, reasons: dict[str, str] | None = None) -> dict:
    """Figures of one run as plain numbers and lists, ready for JSON.

    Parameters
    ----------
    measured : Measurement
    reference : Measurement, optional
        What to compare with; None if `measured` is the reference itself.
    friction_per_ps : float, optional
        Effective friction of the run, 1/ps.
    timestep_fs : float, optional
    conserves_momentum : bool, optional
        Whether friction acts between beads alone; where it does not there is no viscosity.
    reasons : dict, optional
        Sentences for figures that the caller knows to be absent.

    Returns
    -------
    dict
        ``rdf_l1``, ``adf_l1``, ``second_adf_l1``, ``vacf_rms`` and their ``_stderr`` (jackknife
        over the blocks of both runs); ``diffusion_cm2_per_s``, ``diffusion_stderr``;
        ``diffusion_box_correction_cm2_per_s``, ``diffusion_box_correction_stderr``, what it gains
        from this box to an infinite one where momentum is conserved; ``msd_nm2``, ``msd_stderr``,
        ``vacf``, ``vacf_stderr`` as lists of ``[lag in ps, value]``, ``msd_ratio`` to the reference
        as a list of ``[lag, ratio, standard error]``; of several bead types ``diffusion_by_type``
        and ``msd_by_type``, the same of each; ``temperature_K``, ``temperature_stderr``,
        ``friction_per_ps``, ``timestep_fs``; the curves ``rdf``, ``adf`` and ``second_adf``;
        ``viscosity_mPa_s``, ``viscosity_stderr``, and ``apparent_viscosity`` by wave vector as a
        list of ``[k in 1/nm, mPa s, standard error]``; ``stress_viscosity_mPa_s``,
        ``stress_viscosity_stderr`` and ``stress_integral``, the running Green-Kubo integral as a
        list of ``[lag, mPa s, standard error]``; ``shear_damping_per_ps``,
        ``shear_damping_stderr``, the rate at which shear waves of any length decay, 0 if momentum
        is conserved; at the shortest wave vector of the box ``transverse_current`` and
        ``longitudinal_current`` as lists of ``[lag, value]``, with ``_stderr``, and
        ``collective_displacement``; ``displacement_correlation`` of neighbours by shell; these two
        with lists of ``[lag, value, standard error]`` under "transverse" and "longitudinal"; the
        van Hove function, ``van_hove_distinct`` and ``van_hove_self``; ``n_beads``, ``volume_nm3``,
        ``n_frames``, ``length_ps``, ``frame_interval_fs``; ``notes``, sentences on figures to be
        read with care. A figure that could not be computed is None, and ``reasons`` says why.
    """
    out = _Figures(reasons)
    if conserves_momentum is False:
        lost = ("viscosity", "box_correction")
        measured = replace(measured, **dict.fromkeys(lost),
                           reasons=measured.reasons | dict.fromkeys(lost, _DAMPED))
    absent = measured.reasons
    _compare(out, "rdf", structure.rdf_l1, "rdf_l1", measured, reference)
    _compare(out, "adf", structure.adf_l1, "adf_l1", measured, reference)
    _compare(out, "second_adf", structure.adf_l1, "second_adf_l1", measured, reference)
    notes = []

    found = measured.diffusion
    out.put("diffusion_cm2_per_s", found and found.value, absent.get("diffusion"))
    out.put("diffusion_stderr", found and found.stderr, absent.get("diffusion"))
    out.put("diffusion_fit_ps", found and list(map(_plain, found.fit_range)),
            absent.get("diffusion"))
    if found and len(found.by_type) > 1:
        out.put("diffusion_by_type", {name: {"cm2_per_s": _plain(d), "stderr": _plain(e)}
                                      for name, (d, e) in found.by_type.items()})
    if found and abs(found.linearity - 1) > max(CURVED, 3 * found.linearity_stderr):
        notes.append(
            f"The mean squared displacement is not a straight line between {found.fit_range[0]:g} "
            f"and {found.fit_range[1]:g} ps (its slope changes by a factor of "
            f"{found.linearity:.2f}), so the diffusion coefficient depends on that range.")

    gain = measured.box_correction or (None, None)
    out.put("diffusion_box_correction_cm2_per_s", gain[0], absent.get("box_correction"))
    out.put("diffusion_box_correction_stderr", gain[1], absent.get("box_correction"))

    msd = measured.msd
    if msd is None:
        for name in ("msd_nm2", "msd_stderr", "msd_ratio"):
            out.put(name, None, absent["msd"])
    else:
        shown = np.isin(np.rint(msd.lags / measured.frame_interval),
                        np.rint(measured.grid / measured.frame_interval))
        lags = msd.lags[shown]

        def displacements(own: dynamics.Msd, other: dynamics.Msd | None) -> dict:
            values, errors = own.values()[shown], own.stderr[shown]
            ratio = other and _ratio(lags, values, errors, other, reference.grid)
            return {"msd_nm2": _curve(lags, values), "msd_stderr": _curve(lags, errors), "msd_ratio": ratio}

        truth = reference.msd if reference else None
        for name, value in displacements(msd, truth).items():
            out.put(name, value, _ITSELF if reference is None else reference.reasons.get("msd"))
        if len(msd.type_names) > 1:
            known = truth.type_names if truth else ()
            out.put("msd_by_type", {kind: displacements(msd.of(kind), truth.of(kind) if kind in known else None)
                                    for kind in msd.type_names})
        lag = found.fit_range[1] if found else lags[-1]
        if measured.n_beads > 1 and (share := msd.drift_share(lag)) > LARGE_DRIFT:
            notes.append(
                f"The drift of the whole system, {100 * share:.0f} % of the mean squared "
                f"displacement at {lag:g} ps, is left out of all displacements.")

    vacf = measured.vacf
    out.put("vacf", vacf and _curve(vacf.lags, vacf.values()), absent.get("vacf"))
    out.put("vacf_stderr", vacf and _curve(vacf.lags, vacf.stderr), absent.get("vacf"))
    _compare(out, "vacf", dynamics.vacf_rms, "vacf_rms", measured, reference)

    warmth = measured.temperature or (None, None)
    out.put("temperature_K", warmth[0], absent.get("temperature"))
    out.put("temperature_stderr", warmth[1], absent.get("temperature"))
    out.put("friction_per_ps", friction_per_ps, "no friction was stated for this run")
    out.put("timestep_fs", timestep_fs, "no time step was stated for this run")
    out.put("conserves_momentum", conserves_momentum, "no friction was stated for this run")
    rdf = measured.rdf
    out.put("rdf", rdf and [
        {"types": list(pair), "r_nm": _list(rdf.r), "g": _list(g), "stderr": _list(e),
         "first_shell_nm": _plain((measured.radii or {}).get(pair))}
        for pair, g, e in zip(rdf.pairs, rdf.g(), rdf.stderr)], absent.get("rdf"))
    for name in ("adf", "second_adf"):
        found = getattr(measured, name)
        out.put(name, found and [
            {"centre": centre, "theta_rad": _list(found.theta), "p": _list(p), "stderr": _list(e)}
            for centre, p, e in zip(found.centres, found.p(), found.stderr)], absent.get(name))
    _together(out, measured)
    out.put("n_beads", measured.n_beads)
    out.put("volume_nm3", measured.volume)
    out.put("n_frames", measured.n_frames)
    out.put("length_ps", measured.length)
    out.put("frame_interval_fs", 1e3 * measured.frame_interval)
    return out.finish(notes)


def noise_floor(reference: Measurement) -> dict:
    """How much the second half of the reference differs from the first, in the terms of `metrics`.

    Displacements that start in the first half may end in the second. Half as long a run is twice
    as uncertain in the variance, so two halves differ about twice as much as the whole reference
    differs from the truth.

    Returns
    -------
    dict
        As from `metrics`; diffusion is None, and ``diffusion_of_halves_cm2_per_s`` has both values.
    """
    out = _Figures(None)

    def compare(part, function, name):
        curve = getattr(reference, part)
        try:
            if curve is None:
                raise Unmeasurable(reference.reasons[part])
            first, second = halves(curve.n_blocks)
            out.put(name, function(curve, curve, second, first))
        except Unmeasurable as why:
            out.put(name, None, str(why))
        out.put(f"{name}_stderr", None, _TWO_HALVES)

    compare("rdf", structure.rdf_l1, "rdf_l1")
    compare("adf", structure.adf_l1, "adf_l1")
    compare("second_adf", structure.adf_l1, "second_adf_l1")
    compare("vacf", dynamics.vacf_rms, "vacf_rms")
    msd, found = reference.msd, reference.diffusion
    try:
        if msd is None:
            raise Unmeasurable(reference.reasons["msd"])
        first, second = halves(msd.n_blocks)
        lags = reference.grid
        near = np.array([np.argmin(np.abs(msd.lags - t)) for t in lags])
        a, b = msd.values(first)[near], msd.values(second)[near]
        out.put("msd_ratio", [[_plain(t), _plain(y / x), None] for t, x, y in zip(lags, a, b)])
        out.put("diffusion_of_halves_cm2_per_s", found and [
            _plain(d) for d in dynamics.slopes_of_halves(msd, found.fit_range)],
            reference.reasons.get("diffusion"))
    except Unmeasurable as why:
        out.put("msd_ratio", None, str(why))
        out.put("diffusion_of_halves_cm2_per_s", None, str(why))
    for name in ("diffusion_cm2_per_s", "diffusion_stderr", "msd_nm2", "msd_stderr", "vacf",
                 "temperature_K", "friction_per_ps", "timestep_fs", "viscosity_mPa_s",
                 "stress_viscosity_mPa_s", "diffusion_box_correction_cm2_per_s", "transverse_current", "displacement_correlation"):
        out.put(name, None, _TWO_HALVES)
    return out.finish([])


_ITSELF = "this is the reference that the other runs are compared with"
_TWO_HALVES = "a noise floor compares two halves of one run and has no such figure"
COLLECTIVE = ("currents", "shared", "van_hove")
"""How beads move together."""
SLOW = ("second_radii", "second_adf", *COLLECTIVE)
"""What takes long to measure."""
_SKIPPED = "it was left out"
_DAMPED = ("friction on single beads takes momentum out of the liquid, so that the viscosity grows with "
           "the box and has no limit")
_ONE_BLOCK = "the run is too short for an error bar"


class _Figures:
    """Figures and the reasons for those that are missing."""

    def __init__(self, reasons):
        self.values = {}
        self.reasons = {}
        self.known = reasons or {}

    def put(self, name, value, reason=None):
        if isinstance(value, (float, np.floating)):
            value = _plain(value)
            reason = reason or _ONE_BLOCK
        if value is None:
            self.reasons[name] = self.known.get(name) or reason or _ONE_BLOCK
        self.values[name] = value

    def finish(self, notes):
        return {**self.values, "notes": notes, "reasons": self.reasons}


def _compare(out, part, function, name, measured, reference):
    """Put a distance between a curve and the reference's, with its jackknife error."""
    error = f"{name}_stderr"
    curve = getattr(measured, part)
    other = getattr(reference, part) if reference else None
    if reference is None or curve is None or other is None:
        why = (_ITSELF if reference is None else
               (measured if curve is None else reference).reasons[part])
        out.put(name, None, why)
        out.put(error, None, why)
        return
    try:
        out.put(name, function(curve, other))
        own = jackknife(lambda kept: function(curve, other, kept), curve.n_blocks)
        others = jackknife(lambda kept: function(curve, other, slice(None), kept), other.n_blocks)
        out.put(error, math.hypot(own, others))
    except Unmeasurable as why:
        out.put(name, None, str(why))
        out.put(error, None, str(why))


def _together(out, measured):
    """Put the figures of collective motion."""
    absent = measured.reasons
    value, error = measured.viscosity or (None, None)
    out.put("viscosity_mPa_s", value, absent.get("viscosity"))
    out.put("viscosity_stderr", error, absent.get("viscosity"))
    found = measured.apparent_viscosity
    out.put("apparent_viscosity", found and [
        list(map(_plain, three)) for three in zip(found.k, found.values, found.stderr)],
        absent.get("apparent_viscosity"))
    stress = measured.stress_viscosity
    for name, figure in (("stress_viscosity_mPa_s", stress and stress.value),
                         ("stress_viscosity_stderr", stress and stress.stderr),
                         ("stress_integral", stress and _integral(stress))):
        out.put(name, figure, absent.get("stress_viscosity"))
    rate, error = collective.damping(found) if found else (None, None)
    out.put("shear_damping_per_ps", rate, absent.get("apparent_viscosity"))
    out.put("shear_damping_stderr", error, absent.get("apparent_viscosity"))
    currents = measured.currents
    shown = currents and slice(np.searchsorted(currents.lags, CURRENT_SHOWN * (1 + 1e-6)))
    for component in ("transverse", "longitudinal"):
        out.put(f"{component}_current", currents and _curve(
            currents.lags[shown], currents.values(component)[0, shown]), absent.get("currents"))
        out.put(f"{component}_current_stderr", currents and _curve(
            currents.lags[shown], currents.stderr(component)[0, shown]), absent.get("currents"))

    shared = measured.shared
    pairs, waves = None, None
    if shared:
        of_pairs, pairs_error = shared.of_pairs(), shared.pairs_stderr
        of_waves, waves_error = shared.of_waves(), shared.waves_stderr
        pairs, waves = {}, {}
        for c, component in enumerate(("longitudinal", "transverse")):
            pairs[component] = {shell: _with_errors(shared.lags, of_pairs[c, s], pairs_error[c, s])
                                for s, shell in enumerate(shared.shells)}
            waves[component] = _with_errors(shared.lags, of_waves[c], waves_error[c])
        if len(shared.shells) < 2:
            pairs["reasons"] = {"second_shell": absent["second_radii"]}
    out.put("displacement_correlation", pairs, absent.get("shared"))
    out.put("collective_displacement", waves, absent.get("shared"))

    hove = measured.van_hove
    out.put("van_hove_distinct", hove and [
        {"types": list(pair), "lag_ps": _plain(lag), "r_nm": _list(hove.r), "g": _list(g),
         "stderr": _list(e)}
        for lag, curves, errors in zip(hove.lags, hove.distinct(), hove.distinct_stderr)
        for pair, g, e in zip(hove.pairs, curves, errors)], absent.get("van_hove"))
    out.put("van_hove_self", hove and [
        {"type": name, "lag_ps": _plain(lag), "r_nm": _list(hove.r), "p": _list(p),
         "stderr": _list(e)}
        for lag, curves, errors in zip(hove.lags, hove.own(), hove.own_stderr)
        for name, p, e in zip(hove.type_names, curves, errors)], absent.get("van_hove"))


def _integral(stress):
    """About `INTEGRAL_POINTS` points of a running integral, to where it ends."""
    end = int(np.searchsorted(stress.lags, 2 * stress.cutoff * (1 + 1e-6)))
    some = slice(0, end, -(-end // INTEGRAL_POINTS))
    return _with_errors(stress.lags[some], stress.running()[some], stress.running_stderr[some])


def _box(trajectory, start, stop):
    """Mean box [3, 3], nm."""
    return trajectory.boxes(slice(start, stop, max(-(-(stop - start) // 1000), 1))).mean(0)


def _fit_range(reference, length, interval):
    if reference is None:
        return dynamics.fit_range(length, interval)
    if reference.diffusion is None:
        raise Unmeasurable(reference.reasons["diffusion"])
    start, end = reference.diffusion.fit_range
    if end > length / 4 * (1 + 1e-9):
        raise Unmeasurable(f"the fit of the reference's diffusion ends at {end:g} ps, which needs "
                           f"{4 * end:g} ps of trajectory; this one has {length:.3g} ps")
    return start, end


def _ratio(lags, values, errors, reference, grid):
    """Ratios to the reference at common lags, lists of [lag, ratio, standard error]."""
    out = []
    ref_values, ref_errors = reference.values(), reference.stderr
    for lag, value, error in zip(lags, values, errors):
        k = int(np.argmin(np.abs(reference.lags - lag)))
        if abs(reference.lags[k] - lag) > 1e-6 or np.abs(grid - lag).min() > 1e-6:
            continue
        ratio = value / ref_values[k]
        out.append([_plain(lag), _plain(ratio), _plain(
            ratio * math.hypot(error / value, ref_errors[k] / ref_values[k]))])
    return out


def _plain(x):
    """Float of seven digits; None if it is none or not finite."""
    return float(f"{x:.7g}") if x is not None and math.isfinite(x) else None


def _list(values):
    return [_plain(v) for v in values]


def _with_errors(lags, values, errors):
    return [[_plain(t), _plain(v), _plain(e)] for t, v, e in zip(lags, values, errors)]


def _curve(lags, values):
    return [[_plain(t), _plain(v)] for t, v in zip(lags, values)]
