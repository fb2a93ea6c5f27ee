"""The observables by which a coarse-grained run is compared with its all-atom reference, as plain numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from .adf import adf_l1
from .blocks import Unmeasurable, jackknife, split_halves
from .diffusion import split_half_diffusion
from .green_kubo import GreenKuboViscosity
from .measurement import Measurement
from .msd import Msd
from .rdf import rdf_l1
from .transverse_viscosity import damping
from .vacf import vacf_rms

CURRENT_SHOWN = 3.0
"""Longest lag, ps, of current correlations that is written down."""
INTEGRAL_POINTS = 100
LARGE_DRIFT = 0.05
CURVED = 0.25


def metrics(
    measured: Measurement,
    reference: Measurement | None = None,
    *,
    friction_per_ps: float | None = None,
    timestep_fs: float | None = None,
    conserves_momentum: bool | None = None,
    reasons: dict[str, str] | None = None,
) -> dict:
    """Return the observables of one run as plain numbers and lists, ready for JSON.

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
        Reasons for observables that the caller knows to be absent.

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
        ``n_frames``, ``length_ps``, ``frame_interval_fs``; ``notes``, sentences on observables to be
        read with care. An observable that could not be computed is None, and ``reasons`` says why.
    """
    out = _Observables(reasons)
    if conserves_momentum is False:
        lost = dict.fromkeys(("viscosity", "box_correction"), _DAMPED)
        measured = replace(
            measured, viscosity=None, box_correction=None, reasons=measured.reasons | lost
        )
    absent = measured.reasons
    _compare(out, "rdf", rdf_l1, "rdf_l1", measured, reference)
    _compare(out, "adf", adf_l1, "adf_l1", measured, reference)
    _compare(out, "second_adf", adf_l1, "second_adf_l1", measured, reference)
    notes = []

    found = measured.diffusion
    out.put("diffusion_cm2_per_s", found and found.value, absent.get("diffusion"))
    out.put("diffusion_stderr", found and found.stderr, absent.get("diffusion"))
    out.put(
        "diffusion_fit_ps", found and list(map(_plain, found.fit_range)), absent.get("diffusion")
    )
    if found and len(found.by_type) > 1:
        out.put(
            "diffusion_by_type",
            {
                name: {"cm2_per_s": _plain(d), "stderr": _plain(e)}
                for name, (d, e) in found.by_type.items()
            },
        )
    if found and abs(found.linearity - 1) > max(CURVED, 3 * found.linearity_stderr):
        notes.append(
            f"The mean squared displacement is not a straight line between {found.fit_range[0]:g} "
            f"and {found.fit_range[1]:g} ps (its slope changes by a factor of "
            f"{found.linearity:.2f}), so the diffusion coefficient depends on that range."
        )

    gain = measured.box_correction or (None, None)
    out.put("diffusion_box_correction_cm2_per_s", gain[0], absent.get("box_correction"))
    out.put("diffusion_box_correction_stderr", gain[1], absent.get("box_correction"))

    msd = measured.msd
    if msd is None:
        for name in ("msd_nm2", "msd_stderr", "msd_ratio"):
            out.put(name, None, absent["msd"])
    else:
        shown = np.isin(
            np.rint(msd.lags / measured.frame_interval),
            np.rint(measured.grid / measured.frame_interval),
        )
        lags = msd.lags[shown]

        def displacements(own: Msd, other: Msd | None) -> dict:
            values, errors = own.values()[shown], own.stderr[shown]
            ratio = None
            if reference is not None and other is not None:
                ratio = _ratio(lags, values, errors, other, reference.grid)
            return {
                "msd_nm2": _curve(lags, values),
                "msd_stderr": _curve(lags, errors),
                "msd_ratio": ratio,
            }

        truth = reference.msd if reference else None
        for name, value in displacements(msd, truth).items():
            out.put(name, value, _ITSELF if reference is None else reference.reasons.get("msd"))
        if len(msd.type_names) > 1:
            others = {kind: truth.of(kind) for kind in truth.type_names} if truth else {}
            out.put(
                "msd_by_type",
                {kind: displacements(msd.of(kind), others.get(kind)) for kind in msd.type_names},
            )
        lag = found.fit_range[1] if found else lags[-1]
        if measured.n_beads > 1 and (share := msd.drift_share(lag)) > LARGE_DRIFT:
            notes.append(
                f"The drift of the whole system, {100 * share:.0f} % of the mean squared "
                f"displacement at {lag:g} ps, is left out of all displacements."
            )

    vacf = measured.vacf
    out.put("vacf", vacf and _curve(vacf.lags, vacf.values()), absent.get("vacf"))
    out.put("vacf_stderr", vacf and _curve(vacf.lags, vacf.stderr), absent.get("vacf"))
    _compare(out, "vacf", vacf_rms, "vacf_rms", measured, reference)

    warmth = measured.temperature or (None, None)
    out.put("temperature_K", warmth[0], absent.get("temperature"))
    out.put("temperature_stderr", warmth[1], absent.get("temperature"))
    out.put("friction_per_ps", friction_per_ps, "no friction was stated for this run")
    out.put("timestep_fs", timestep_fs, "no time step was stated for this run")
    out.put("conserves_momentum", conserves_momentum, "no friction was stated for this run")
    rdf = measured.rdf
    out.put(
        "rdf",
        rdf
        and [
            {
                "types": list(pair),
                "r_nm": _list(rdf.r),
                "g": _list(g),
                "stderr": _list(e),
                "first_shell_nm": _plain((measured.radii or {}).get(pair)),
            }
            for pair, g, e in zip(rdf.pairs, rdf.g(), rdf.stderr)
        ],
        absent.get("rdf"),
    )
    for name in ("adf", "second_adf"):
        found = getattr(measured, name)
        out.put(
            name,
            found
            and [
                {
                    "centre": centre,
                    "theta_rad": _list(found.theta),
                    "p": _list(p),
                    "stderr": _list(e),
                }
                for centre, p, e in zip(found.centres, found.p(), found.stderr)
            ],
            absent.get(name),
        )
    _collective(out, measured)
    out.put("n_beads", measured.n_beads)
    out.put("volume_nm3", measured.volume)
    out.put("n_frames", measured.n_frames)
    out.put("length_ps", measured.length)
    out.put("frame_interval_fs", 1e3 * measured.frame_interval)
    return out.finish(notes)


def noise_floor(reference: Measurement) -> dict:
    """Return the statistical noise floor: the difference of the two halves of the reference, as in `metrics`.

    Displacements that start in the first half may end in the second. Half as long a run is twice
    as uncertain in the variance, so two halves differ about twice as much as the whole reference
    differs from the truth.

    Returns
    -------
    dict
        As from `metrics`; diffusion is None, and ``diffusion_of_halves_cm2_per_s`` has both values.
    """
    out = _Observables(None)

    def compare(part: str, function: Callable, name: str):
        curve = getattr(reference, part)
        try:
            if curve is None:
                raise Unmeasurable(reference.reasons[part])
            first, second = split_halves(curve.n_blocks)
            out.put(name, function(curve, curve, second, first))
        except Unmeasurable as why:
            out.put(name, None, str(why))
        out.put(f"{name}_stderr", None, _TWO_HALVES)

    compare("rdf", rdf_l1, "rdf_l1")
    compare("adf", adf_l1, "adf_l1")
    compare("second_adf", adf_l1, "second_adf_l1")
    compare("vacf", vacf_rms, "vacf_rms")
    msd, found = reference.msd, reference.diffusion
    try:
        if msd is None:
            raise Unmeasurable(reference.reasons["msd"])
        first, second = split_halves(msd.n_blocks)
        lags = reference.grid
        near = np.array([np.argmin(np.abs(msd.lags - t)) for t in lags])
        a, b = msd.values(first)[near], msd.values(second)[near]
        out.put("msd_ratio", [[_plain(t), _plain(y / x), None] for t, x, y in zip(lags, a, b)])
        out.put(
            "diffusion_of_halves_cm2_per_s",
            found and [_plain(d) for d in split_half_diffusion(msd, found.fit_range)],
            reference.reasons.get("diffusion"),
        )
    except Unmeasurable as why:
        out.put("msd_ratio", None, str(why))
        out.put("diffusion_of_halves_cm2_per_s", None, str(why))
    for name in (
        "diffusion_cm2_per_s",
        "diffusion_stderr",
        "msd_nm2",
        "msd_stderr",
        "vacf",
        "temperature_K",
        "friction_per_ps",
        "timestep_fs",
        "viscosity_mPa_s",
        "stress_viscosity_mPa_s",
        "diffusion_box_correction_cm2_per_s",
        "transverse_current",
        "displacement_correlation",
    ):
        out.put(name, None, _TWO_HALVES)
    return out.finish([])


_ITSELF = "this is the reference that the other runs are compared with"
_TWO_HALVES = "a noise floor compares two halves of one run and has no such figure"
_DAMPED = (
    "friction on single beads takes momentum out of the liquid, so that the viscosity grows with "
    "the box and has no limit"
)
_ONE_BLOCK = "the run is too short for an error bar"


class _Observables:
    """Observables and the reasons for those that are missing."""

    def __init__(self, reasons: dict[str, str] | None):
        self.values: dict[str, Any] = {}
        self.reasons: dict[str, str] = {}
        self.known = reasons or {}

    def put(self, name: str, value: Any, reason: str | None = None):
        if isinstance(value, (float, np.floating)):
            value = _plain(value)
            reason = reason or _ONE_BLOCK
        if value is None:
            self.reasons[name] = self.known.get(name) or reason or _ONE_BLOCK
        self.values[name] = value

    def finish(self, notes: list[str]):
        return {**self.values, "notes": notes, "reasons": self.reasons}


def _compare(
    out: _Observables,
    part: str,
    function: Callable,
    name: str,
    measured: Measurement,
    reference: Measurement | None,
):
    """Put a distance between a curve and the reference's, with its jackknife error."""
    error = f"{name}_stderr"
    curve = getattr(measured, part)
    other = getattr(reference, part) if reference else None
    if reference is None or curve is None or other is None:
        why = (
            _ITSELF
            if reference is None
            else (measured if curve is None else reference).reasons[part]
        )
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


def _collective(out: _Observables, measured: Measurement):
    """Put the observables of collective motion."""
    absent = measured.reasons
    value, error = measured.viscosity or (None, None)
    out.put("viscosity_mPa_s", value, absent.get("viscosity"))
    out.put("viscosity_stderr", error, absent.get("viscosity"))
    found = measured.apparent_viscosity
    out.put(
        "apparent_viscosity",
        found and [list(map(_plain, three)) for three in zip(found.k, found.values, found.stderr)],
        absent.get("apparent_viscosity"),
    )
    stress = measured.stress_viscosity
    for name, figure in (
        ("stress_viscosity_mPa_s", stress and stress.value),
        ("stress_viscosity_stderr", stress and stress.stderr),
        ("stress_integral", stress and _integral(stress)),
    ):
        out.put(name, figure, absent.get("stress_viscosity"))
    rate, error = damping(found) if found else (None, None)
    out.put("shear_damping_per_ps", rate, absent.get("apparent_viscosity"))
    out.put("shear_damping_stderr", error, absent.get("apparent_viscosity"))
    currents = measured.currents
    shown = slice(None)
    if currents is not None:
        shown = slice(int(np.searchsorted(currents.lags, CURRENT_SHOWN * (1 + 1e-6))))
    for component in ("transverse", "longitudinal"):
        out.put(
            f"{component}_current",
            currents and _curve(currents.lags[shown], currents.values(component)[0, shown]),
            absent.get("currents"),
        )
        out.put(
            f"{component}_current_stderr",
            currents and _curve(currents.lags[shown], currents.stderr(component)[0, shown]),
            absent.get("currents"),
        )

    correlation = measured.displacement_correlation
    pairs, waves = None, None
    if correlation:
        pair_correlation, pairs_error = correlation.pair_correlation(), correlation.pair_stderr
        mode_ratio, waves_error = correlation.mode_ratio(), correlation.mode_stderr
        pairs, waves = {}, {}
        for c, component in enumerate(("longitudinal", "transverse")):
            pairs[component] = {
                shell: _with_errors(correlation.lags, pair_correlation[c, s], pairs_error[c, s])
                for s, shell in enumerate(correlation.shells)
            }
            waves[component] = _with_errors(correlation.lags, mode_ratio[c], waves_error[c])
        if len(correlation.shells) < 2:
            pairs["reasons"] = {"second_shell": absent["second_radii"]}
    out.put("displacement_correlation", pairs, absent.get("displacement_correlation"))
    out.put("collective_displacement", waves, absent.get("displacement_correlation"))

    hove = measured.van_hove
    out.put(
        "van_hove_distinct",
        hove
        and [
            {
                "types": list(pair),
                "lag_ps": _plain(lag),
                "r_nm": _list(hove.r),
                "g": _list(g),
                "stderr": _list(e),
            }
            for lag, curves, errors in zip(hove.lags, hove.distinct(), hove.distinct_stderr)
            for pair, g, e in zip(hove.pairs, curves, errors)
        ],
        absent.get("van_hove"),
    )
    out.put(
        "van_hove_self",
        hove
        and [
            {
                "type": name,
                "lag_ps": _plain(lag),
                "r_nm": _list(hove.r),
                "p": _list(p),
                "stderr": _list(e),
            }
            for lag, curves, errors in zip(hove.lags, hove.self_part(), hove.self_stderr)
            for name, p, e in zip(hove.type_names, curves, errors)
        ],
        absent.get("van_hove"),
    )


def _integral(stress: GreenKuboViscosity):
    """About `INTEGRAL_POINTS` points of a running integral, to where it ends."""
    end = int(np.searchsorted(stress.lags, 2 * stress.cutoff * (1 + 1e-6)))
    some = slice(0, end, -(-end // INTEGRAL_POINTS))
    return _with_errors(stress.lags[some], stress.running()[some], stress.running_stderr[some])


def _ratio(
    lags: np.ndarray, values: np.ndarray, errors: np.ndarray, reference: Msd, grid: np.ndarray
):
    """Ratios to the reference at common lags, lists of [lag, ratio, standard error]."""
    out = []
    ref_values, ref_errors = reference.values(), reference.stderr
    for lag, value, error in zip(lags, values, errors):
        k = int(np.argmin(np.abs(reference.lags - lag)))
        if abs(reference.lags[k] - lag) > 1e-6 or np.abs(grid - lag).min() > 1e-6:
            continue
        ratio = value / ref_values[k]
        out.append(
            [
                _plain(lag),
                _plain(ratio),
                _plain(ratio * math.hypot(error / value, ref_errors[k] / ref_values[k])),
            ]
        )
    return out


def _plain(x: Any):
    """Float of seven digits; None if it is none or not finite."""
    return float(f"{x:.7g}") if x is not None and math.isfinite(x) else None


def _list(values: np.ndarray):
    return [_plain(v) for v in values]


def _with_errors(lags: np.ndarray, values: np.ndarray, errors: np.ndarray):
    return [[_plain(t), _plain(v), _plain(e)] for t, v, e in zip(lags, values, errors)]


def _curve(lags: np.ndarray, values: np.ndarray):
    return [[_plain(t), _plain(v)] for t, v in zip(lags, values)]


def bead_types(run: dict, reference: dict) -> list[str]:
    """Return the bead types whose motion is measured separately in both runs: all, if there are several."""
    known = [observables.get("msd_by_type") or {} for observables in (run, reference)]
    return [bead for bead in known[0] if bead in known[1]]


def of_type(observables: dict, bead: str) -> dict:
    """Return the observables of a run with the motion of the beads of one type in place of that of all beads.

    Parameters
    ----------
    observables : dict
        From `metrics`.
    bead : str
        Type; if empty, the observables are returned unchanged.
    """
    if not bead:
        return observables
    slope = (observables.get("diffusion_by_type") or {}).get(bead, {})
    own = {"diffusion_cm2_per_s": slope.get("cm2_per_s"), "diffusion_stderr": slope.get("stderr")}
    return observables | observables["msd_by_type"][bead] | own
