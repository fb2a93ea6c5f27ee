"""Assessment of a model: every observable of a run against its tolerance, in sentences.

What to change in the experiment file if an observable misses its tolerance is the advice of the method that fitted the
model (`methods.base.Result.advice`); this module only selects the advice that applies.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace

from ..analysis.metrics import bead_types, of_type
from ..analysis.tolerances import (
    COLLECTIVE_OBSERVABLES,
    OBSERVABLES,
    TOLERANCES,
    Tolerances,
)
from .status import (
    GOOD,
    MISSED,
    OPEN,
    Status,
    classify,
    largest_difference,
    status,
    status_by_lag,
    worst_lag,
)
from .text import percent, rounded_up, signed

FEW_STEPS = 4
"""Number of time steps below which a lag depends on the time step."""


@dataclass(frozen=True)
class Context:
    """What the assessment needs besides the observables.

    Attributes
    ----------
    advice : dict of str to str
        From the method, by the keys of `methods.base.ADVICE`.
    longest_lag_ps : float or None
        Longest lag that the fit compared.
    timestep_fs : float
        Time step that the model was fitted with.
    temperature_K : float or None
        Temperature of the thermostat.
    collective : bool
        Whether collective motion is assessed: where friction acts between beads.
    tolerances : Tolerances
    """

    advice: dict[str, str] = field(default_factory=dict)
    longest_lag_ps: float | None = None
    timestep_fs: float = 5.0
    temperature_K: float | None = None
    collective: bool = False
    tolerances: Tolerances = TOLERANCES


@dataclass(frozen=True)
class Finding(Status):
    """A status with the sentence that describes it."""

    sentence: str


def assess(run: dict, reference: dict, floor: dict, context: Context) -> list[Finding]:
    """Assess every observable of a run.

    Parameters
    ----------
    run, reference : dict
        From `metrics.metrics`.
    floor : dict
        From `metrics.noise_floor`.
    context : Context

    Returns
    -------
    list of Finding
        The reference, the temperature, structure, motion of single beads, collective motion: each may be the cause of
        what follows it. The motion of each bead type is assessed separately.
    """
    found = [
        assess_reference(reference, context.tolerances),
        assess_temperature(run, reference, context),
    ]
    found += [assess_structure(name, run, floor, context) for name in ("rdf_l1", "adf_l1")]
    if floor.get("second_adf_l1") is not None:
        found.append(assess_structure("second_adf_l1", run, floor, context))
    for bead in bead_types(run, reference) or ("",):
        own, truth = of_type(run, bead), of_type(reference, bead)
        for one in (
            assess_displacements(own, truth, context),
            assess_diffusion(own, truth, context),
        ):
            found.append(
                replace(one, bead=bead, sentence=f"{bead}: {one.sentence}") if bead else one
            )
    found.append(assess_velocities(run, floor, context))
    if context.collective:
        found += assess_collective_motion(run, reference, context)
    return [finding for finding in found if finding is not None]


def assess_other_run(name: str, timestep_fs: float, findings: list[Finding]) -> list[Finding]:
    """Return the findings of another run of the same model, without that on the reference, with the name of the run."""
    return [
        replace(one, run=name, sentence=f"At {timestep_fs:g} fs: {one.sentence}")
        for one in findings
        if one.observable != "reference"
    ]


def unstable(name: str, timestep_fs: float, reason: str) -> Finding:
    """Return the finding on another run of the same model that exploded."""
    return Finding(
        "stability", MISSED, None, 0.0, f"At {timestep_fs:g} fs: {reason.rstrip('.')}.", run=name
    )


def assess_reference(reference: dict, tolerances: Tolerances = TOLERANCES) -> Finding:
    """Assess whether the reference determines its diffusion coefficient well enough."""
    value, error = reference.get("diffusion_cm2_per_s"), reference.get("diffusion_stderr")
    wanted = tolerances.reference_diffusion
    if not value or error is None:
        why = (reference.get("reasons") or {}).get(
            "diffusion_cm2_per_s", "it could not be measured"
        )
        sentence = (
            f"The diffusion coefficient of the reference is not known ({why}), so that of the model cannot be assessed: "
            "use a longer reference."
        )
        return Finding("reference", OPEN, None, wanted, sentence)
    share = error / value
    if share <= wanted:
        sentence = f"The reference determines its diffusion coefficient to {percent(share)}."
        return Finding("reference", GOOD, share, wanted, sentence)
    length = reference["length_ps"]
    sentence = (
        f"The reference determines its diffusion coefficient to {percent(share)} only, expected {percent(wanted)}. Use a "
        f"longer reference, about {rounded_up(length * (share / wanted) ** 2)} ps instead of {length:.0f}."
    )
    return Finding("reference", OPEN, share, wanted, sentence)


def assess_temperature(run: dict, reference: dict, context: Context) -> Finding | None:
    """Assess the kinetic temperature; None if it is not known."""
    value, error = run.get("temperature_K"), run.get("temperature_stderr")
    # A reference without velocities has the stated temperature.
    wanted = reference.get("temperature_K") or context.temperature_K
    if value is None or wanted is None:
        return None
    allowed, deviation = context.tolerances.temperature, value / wanted - 1
    spread = math.hypot(error or 0.0, reference.get("temperature_stderr") or 0.0) / wanted
    if abs(deviation) <= max(allowed, 3 * spread):
        sentence = f"The temperature is {value:.1f} K, as in the reference."
        return Finding("temperature", GOOD, deviation, allowed, sentence)
    stated = context.temperature_K
    if stated is not None and abs(value - stated) <= max(allowed * stated, 3 * (error or 0.0)):
        sentence = (
            f"The temperature is {value:.1f} K, that of the thermostat, but the velocities of the reference have "
            f"{wanted:.1f} K: reference.temperature_K is not the temperature of the reference, or the reference is too "
            "short to determine it."
        )
    else:
        step = run.get("timestep_fs") or context.timestep_fs
        sentence = (
            f"The temperature is {value:.1f} K, expected {wanted:.1f} K: the time step of {step:g} fs is too long for "
            "this potential; use a shorter one (dynamics.timestep_fs, production.timesteps_fs)."
        )
    return Finding("temperature", MISSED, deviation, allowed, sentence)


_STRUCTURE = {
    "rdf_l1": ("The radial distribution function", "pair_structure"),
    "adf_l1": ("The angular distribution function of the first shell", "angular_structure"),
    "second_adf_l1": ("The angular distribution function of the second shell", "angular_structure"),
}


def assess_structure(observable: str, run: dict, floor: dict, context: Context) -> Finding:
    """Assess g(r) or an angular distribution function."""
    here = status(observable, run, {}, floor, context.tolerances)
    name, advice = _STRUCTURE[observable]
    if here.deviation is None:
        return _missing(here, name, run, observable)
    return _finding(
        here,
        f"{name} differs from all-atom by {percent(here.deviation)}, expected at most {percent(here.tolerance)}",
        context.advice.get(advice),
    )


def assess_displacements(run: dict, reference: dict, context: Context) -> Finding:
    """Assess the mean squared displacement at every lag; the lags beyond tolerance select the advice."""
    at = status_by_lag(run, reference, context.tolerances)
    here = status("msd", run, reference, {}, context.tolerances)
    if not at:
        return _missing(here, "The mean squared displacement", run, "msd_ratio")
    lag, lags = worst_lag(at), list(at)
    last = at[lags[-1]].deviation
    if last is None or here.deviation is None:
        return _missing(here, "The mean squared displacement", run, "msd_ratio")
    if last < context.tolerances.frozen - 1:
        return _finding(
            here,
            f"The system has frozen: the mean squared displacement at {lags[-1]:g} ps is {percent(1 + last)} of all-atom",
            context.advice.get("frozen"),
        )
    where = f"{signed(here.deviation)} % off at {lag:g} ps"
    if here.status == GOOD:
        return _finding(
            here,
            f"The mean squared displacement is within its tolerance at every lag to {lags[-1]:g} ps; it is {where}, where "
            f"the tolerance is {percent(here.tolerance)}",
        )
    if abs(here.deviation) <= here.tolerance:
        return _finding(
            here,
            f"The mean squared displacement is {where}, within its tolerance of {percent(here.tolerance)}",
        )
    missed = [t for t, one in at.items() if one.status == here.status]
    return _finding(
        here,
        f"The mean squared displacement is {where}, expected at most {percent(here.tolerance)}, and beyond its tolerance "
        f"{_lags(missed, lags)}",
        _motion_advice(missed, context),
    )


def assess_diffusion(run: dict, reference: dict, context: Context) -> Finding:
    """Assess the diffusion coefficient, which depends on the slowest memory."""
    here = status("diffusion", run, reference, {}, context.tolerances)
    if here.deviation is None:
        lacking = reference if run.get("diffusion_cm2_per_s") else run
        return _missing(here, "The diffusion coefficient", lacking, "diffusion_cm2_per_s")
    value, truth = run["diffusion_cm2_per_s"], reference["diffusion_cm2_per_s"]
    beyond = 1.01 * (context.longest_lag_ps or 0.0)
    start = (run.get("diffusion_fit_ps") or [beyond])[0]
    at = status_by_lag(run, reference, context.tolerances)
    missed = [lag for lag, one in at.items() if lag < start and one.status != GOOD]
    return _finding(
        here,
        f"D is {1e5 * value:.3f} ± {1e5 * (run.get('diffusion_stderr') or 0.0):.3f} · 10⁻⁵ cm²/s, "
        f"{signed(here.deviation)} % from all-atom ({1e5 * truth:.3f}), expected within {percent(here.tolerance)}",
        _motion_advice([*missed, max(start, beyond)], context),
    )


def assess_velocities(run: dict, floor: dict, context: Context) -> Finding:
    """Assess the velocity autocorrelation function, which depends on the memory kernel at short times."""
    here = status("vacf_rms", run, {}, floor, context.tolerances)
    if here.deviation is None:
        return _missing(here, "The velocity autocorrelation function", run, "vacf_rms")
    return _finding(
        here,
        f"The velocity autocorrelation function differs from all-atom by {here.deviation:.4f} (rms), expected at most "
        f"{here.tolerance:.4f}",
        context.advice.get("motion"),
    )


def assess_collective_motion(run: dict, reference: dict, context: Context) -> list[Finding]:
    """Assess viscosities, the transverse current and displacement correlations.

    Viscosities are left out where the run does not conserve momentum: they depend on the size of the box there.
    """
    tolerances, advice = context.tolerances, context.advice.get("collective_motion")
    truth, spread = reference.get("viscosity_mPa_s"), reference.get("viscosity_stderr") or 0.0
    found = []
    viscosities = (
        ("viscosity", "The viscosity from transverse currents"),
        ("stress_viscosity", "The Green–Kubo viscosity"),
    )
    for observable, name in viscosities if run.get("conserves_momentum") is not False else ():
        value, error = run.get(f"{observable}_mPa_s"), run.get(f"{observable}_stderr") or 0.0
        allowed = max(getattr(tolerances, observable), 2 * spread / truth if truth else 0.0)
        deviation = None if value is None or not truth else value / truth - 1
        state = classify(deviation, error / truth if truth else None, allowed, tolerances)
        here = Status(observable, state, deviation, allowed)
        if value is None:
            found.append(_missing(here, name, run, f"{observable}_mPa_s"))
        elif deviation is None:
            found.append(_missing(here, "The viscosity of all-atom", reference, "viscosity_mPa_s"))
        else:
            found.append(
                _finding(
                    here,
                    f"{name} is {value:.2f} ± {error:.2f} mPa\u202fs, {signed(deviation)} % from all-atom ({truth:.2f}), "
                    f"expected within {percent(allowed)}",
                    advice,
                )
            )
    for observable, name in (
        ("transverse_current", "The transverse current of the longest wave"),
        ("displacement_correlation", "The displacement correlation of neighbours"),
    ):
        largest = largest_difference(observable, run, reference, tolerances)
        if largest is None:
            here = Status(observable, OPEN, None, getattr(tolerances, observable))
            lacking = run if run.get(observable) is None else reference
            found.append(_missing(here, name, lacking, observable))
            continue
        worst, here = largest
        where = f" ({worst.name})" if observable == "displacement_correlation" else ""
        found.append(
            _finding(
                here,
                f"{name} differs by {abs(worst.value):.3f} from all-atom at {worst.lag:g} ps{where}, expected at most "
                f"{here.tolerance:.3f}",
                advice,
            )
        )
    return found


def headline(findings: list[Finding]) -> str:
    """Return one sentence on whether the model is good enough, with the number of observables within tolerance."""
    assessed = [
        one for one in findings if one.observable in (*OBSERVABLES, *COLLECTIVE_OBSERVABLES)
    ]
    good = sum(one.status == GOOD for one in assessed)
    within = f"{good} of {len(assessed)} observables within tolerance"
    runs = len({one.run for one in findings})
    if runs > 1:
        within += f" at {runs} time steps"
    states = {finding.status for finding in findings}
    if MISSED in states:
        missed = {one.observable for one in findings if one.status == MISSED}
        also = ", and its temperature is wrong" * ("temperature" in missed)
        also += ", and it exploded" * ("stability" in missed)
        return f"The model is not good enough yet: {within}{also}."
    if any(one.status == OPEN for one in assessed):
        return (
            f"No observable is known to exceed its tolerance, but some are undetermined: {within}."
        )
    if OPEN in states:
        return f"No observable is known to exceed its tolerance, but the reference is too short: {within}."
    return f"The model is good: {within}."


def _finding(here: Status, what: str, advice: str | None = None) -> Finding:
    """Return a status in words; advice follows where the observable misses its tolerance."""
    more = {
        GOOD: "",
        MISSED: f"; {advice}" if advice else "",
        OPEN: "; the statistical error of this run is too large to decide, use a longer production.length_ps",
    }
    return Finding(**asdict(here), sentence=f"{what}{more[here.status]}.")


def _missing(here: Status, name: str, lacking: dict, observable: str) -> Finding:
    """Return the finding on an observable that `lacking`, a run or the reference, does not have."""
    why = (lacking.get("reasons") or {}).get(observable, "not measured")
    return Finding(**asdict(here), sentence=f"{name} is not known: {why}.")


def _motion_advice(lags: list[float], context: Context) -> str | None:
    """Return the advice for a deviation of single-particle motion at some lags, ps."""
    if context.longest_lag_ps and min(lags) > context.longest_lag_ps:
        return context.advice.get("slow_motion")
    if max(lags) < FEW_STEPS * context.timestep_fs * 1e-3:
        return context.advice.get("fast_motion")
    return context.advice.get("motion")


def _lags(missed: list[float], assessed: list[float]) -> str:
    if len(missed) == 1:
        return f"at {missed[0]:g} ps alone"
    if missed == assessed:
        return "at every lag"
    return f"at {len(missed)} of {len(assessed)} lags between {missed[0]:g} and {missed[-1]:g} ps"
