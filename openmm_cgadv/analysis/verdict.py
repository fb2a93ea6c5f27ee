"""What is good enough, what is not, why, and what to change: rules on plain figures, each a sentence.

`standing` holds a figure of a run from `metrics.metrics` against its bar, and `judgement` says all of
them in words. Each bar is the larger of what a good model may deviate by (`BARS`) and of what the reference itself
leaves open: twice its statistical error, or of distributions a multiple of the difference of its halves (`FLOORS`). That of
angles is the latter alone, where there are halves. A figure whose own error is larger than its bar is `OPEN`, wherever it lies.
"""
from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace

from . import differences

BARS = {"diffusion": 0.03, "msd": 0.03, "vacf_rms": 0.015, "rdf_l1": 0.01, "adf_l1": 0.02, "second_adf_l1": 0.02}
"""Deviations from all-atom that a good model stays below, where the reference is exact; relative for
diffusion and msd."""

TOGETHER = {"viscosity": 0.10, "stress_viscosity": 0.10, "transverse_current": 0.06, "shared": 0.05}
"""The same for how beads move together, where friction acts between them; viscosities are relative."""

FLOORS = {"rdf_l1": 2.0, "adf_l1": 2.0, "second_adf_l1": 2.0, "vacf_rms": 1.0}
"""Multiples of the difference of the two halves of the reference that are allowed. Two halves differ by
about twice the error of the whole."""

LONGEST_LAG = 100.0
"""Longest lag, ps, whose mean squared displacement is judged."""

FROZEN = 0.2
"""Part of the displacement of all-atom at the longest lag, below which beads have frozen: of a run, and of a chain in training."""

SURE = 2.0
"""Standard errors of the run itself by which a bar has to be missed to be sure."""

WANTED = 0.02
"""Relative error of the reference's diffusion coefficient that allows to judge a model."""

GOOD, MISSED, OPEN = "good", "missed", "open"


@dataclass(frozen=True)
class Settings:
    """What the rules know of how a model was made.

    Attributes
    ----------
    equation : str
        "langevin", "generalized_langevin" or "pair".
    auxiliary_variables : int
    three_body : bool
    potential : str
        "relative_entropy" or "adversarial".
    window_ps : float
        Longest lag that training compared.
    timestep_fs : float
        That the model was trained with.
    settled : bool
        Whether training had settled before its rates fell.
    critic : str
        "equivariant", "gram" or "graph".
    self_friction : float
        Given to each bead beside friction between pairs, 1/ps.
    temperature_K : float or None
        That runs were told to have.
    """

    equation: str = "generalized_langevin"
    auxiliary_variables: int = 3
    three_body: bool = True
    potential: str = "relative_entropy"
    window_ps: float = 1.92
    timestep_fs: float = 5.0
    settled: bool = True
    critic: str = "equivariant"
    self_friction: float = 0.0
    temperature_K: float | None = None

    @property
    def memory(self) -> bool:
        """Whether friction has memory."""
        return self.equation != "langevin" and self.auxiliary_variables > 0


@dataclass(frozen=True)
class Standing:
    """One figure of a run against its bar.

    Attributes
    ----------
    figure : str
    state : str
        `GOOD`, `MISSED`, or `OPEN` where the run's own error or a missing figure doesn't tell.
    found, bar : float or None
        Deviation from all-atom, and its bar.
    bead : str
        The type of bead whose motion it is; empty where it is that of all.
    run : str
        Which run of the model it is, of several; empty of the first.
    """

    figure: str
    state: str
    found: float | None
    bar: float | None
    bead: str = field(default="", kw_only=True)
    run: str = field(default="", kw_only=True)

    @property
    def name(self) -> str:
        """Of the figure, with the type of bead."""
        return f"{self.figure} of {self.bead}" if self.bead else self.figure


@dataclass(frozen=True)
class Finding(Standing):
    """The same with a sentence that says it."""

    sentence: str


def judgement(run: dict, reference: dict, floor: dict, settings: Settings) -> list[Finding]:
    """Every figure of a run against its bar.

    Parameters
    ----------
    run, reference : dict
        From `metrics.metrics`.
    floor : dict
        From `metrics.noise_floor`.
    settings : Settings

    Returns
    -------
    list of Finding
        The reference itself first, then temperature, structure and motion: what comes first is to be
        mended first, as it may cause what follows. Of several bead types each moves by itself, so that
        one which is too fast does not make up for another which is too slow.
    """
    found = [reference_enough(reference), temperature(run, reference, settings)]
    found += [structure(name, run, floor, settings) for name in ("rdf_l1", "adf_l1")]
    if floor.get("second_adf_l1") is not None:
        found.append(structure("second_adf_l1", run, floor, settings))
    for bead in bead_types(run, reference) or ("",):
        own, truth = of_type(run, bead), of_type(reference, bead)
        for moved in (displacements(own, truth, settings), diffusion(own, truth, settings)):
            found.append(replace(moved, bead=bead, sentence=f"{bead}: {moved.sentence}") if bead else moved)
    found.append(velocities(run, floor, settings))
    if settings.equation == "pair":
        found += collective(run, reference, settings)
    return [finding for finding in found if finding is not None]


def judgement_of_other(name: str, timestep_fs: float, findings: list[Finding]) -> list[Finding]:
    """What `judgement` finds of another run of the same model, at another time step: all but the reference, named."""
    return [replace(one, run=name, sentence=f"At {timestep_fs:g} fs: {one.sentence}") for one in findings if one.figure != "reference"]


def unstable(name: str, timestep_fs: float, reason: str) -> Finding:
    """The finding on another run of the same model that could not be made."""
    return Finding("stability", MISSED, None, None, f"At {timestep_fs:g} fs: {reason.rstrip('.')}.", run=name)


def bead_types(run: dict, reference: dict) -> list[str]:
    """The types of beads whose motion is judged by itself: all, if there are several."""
    known = [figures.get("msd_by_type") or {} for figures in (run, reference)]
    return [bead for bead in known[0] if bead in known[1]]


def of_type(figures: dict, bead: str) -> dict:
    """Figures of a run with the motion of the beads of one type in place of that of all; as they are without a type."""
    if not bead:
        return figures
    slope = (figures.get("diffusion_by_type") or {}).get(bead, {})
    own = {"diffusion_cm2_per_s": slope.get("cm2_per_s"), "diffusion_stderr": slope.get("stderr")}
    return figures | figures["msd_by_type"][bead] | own


def standing(figure: str, run: dict, reference: dict, floor: dict) -> Standing:
    """One figure of any run against its bar.

    Parameters
    ----------
    figure : str
        Of `BARS`. Displacements stand as at the `worst_lag`, and are `GOOD` if they are at every lag.
    run, reference : dict
        From `metrics.metrics`.
    floor : dict
        From `metrics.noise_floor`; may be empty.

    Returns
    -------
    Standing
        A missing figure is `OPEN`, with None found.
    """
    allowed = bar(figure, reference, floor)
    if figure == "msd":
        at = at_lags(run, reference)
        if at:
            return at[worst_lag(at)]
        found = error = None
    elif figure == "diffusion":
        value, truth = run.get("diffusion_cm2_per_s"), reference.get("diffusion_cm2_per_s")
        found = None if value is None or not truth else value / truth - 1
        error = (run.get("diffusion_stderr") or 0.0) / truth if truth else None
    else:
        found, error = run.get(figure), run.get(f"{figure}_stderr")
    return Standing(figure, _state(found, error, allowed), found, allowed)


def at_lags(run: dict, reference: dict) -> dict[float, Standing]:
    """The mean squared displacement at every lag, ps, up to `LONGEST_LAG` against the bar of that lag."""
    values = {lag: value for lag, value in run.get("msd_nm2") or []}
    own = {lag: error / values[lag] for lag, error in run.get("msd_stderr") or []
           if error is not None and values.get(lag)}
    out = {}
    for lag, ratio, _ in run.get("msd_ratio") or []:
        if lag <= LONGEST_LAG * (1 + 1e-9):
            off, allowed = ratio - 1, msd_bar(lag, reference)
            out[lag] = Standing("msd", _state(off, own.get(lag), allowed), off, allowed)
    return out


def worst_lag(at: dict[float, Standing]) -> float:
    """The lag, ps, of those from `at_lags` whose deviation is the largest part or multiple of its bar; one that misses
    its bar before one whose error does not tell, and that before all others."""
    state = next(state for state in (MISSED, OPEN, GOOD) if any(one.state == state for one in at.values()))
    return max((lag for lag in at if at[lag].state == state), key=lambda lag: abs(at[lag].found) / at[lag].bar)


def _state(found, error, allowed):
    error = error or 0.0
    if found is None:
        return OPEN
    if abs(found) <= allowed:
        return GOOD if error <= allowed else OPEN
    return OPEN if abs(found) - SURE * error <= allowed else MISSED


def bar(figure: str, reference: dict, floor: dict) -> float:
    """The deviation allowed to a figure of `BARS`: its bar, or what the reference itself leaves open, which is all that
    counts for angles if it is known.

    For "msd", the largest deviation over lags, it is that of the diffusion coefficient, as the lags at which
    the deviation is largest are those at which the reference is as uncertain. Each lag has its own bar, see
    `msd_bar`.
    """
    if figure in ("diffusion", "msd"):
        value, error = reference.get("diffusion_cm2_per_s"), reference.get("diffusion_stderr")
        return max(BARS[figure], 2 * error / value) if value and error else BARS[figure]
    if figure in FLOORS and floor.get(figure) is not None:
        least = 0.0 if figure.endswith("adf_l1") else BARS[figure]
        return max(least, FLOORS[figure] * floor[figure])
    return BARS[figure]


def msd_bar(lag: float, reference: dict) -> float:
    """The relative deviation allowed to the mean squared displacement at a lag, ps."""
    values = {t: v for t, v in reference.get("msd_nm2") or []}
    errors = {t: e for t, e in reference.get("msd_stderr") or []}
    near = min(values, key=lambda t: abs(t - lag), default=None)
    if near is None or not values[near] or errors.get(near) is None:
        return BARS["msd"]
    return max(BARS["msd"], 2 * errors[near] / values[near])


def reference_enough(reference: dict) -> Finding | None:
    """Whether the reference is long enough to teach and to judge a diffusion coefficient."""
    value, error = reference.get("diffusion_cm2_per_s"), reference.get("diffusion_stderr")
    if not value or error is None:
        why = (reference.get("reasons") or {}).get("diffusion_cm2_per_s", "it could not be measured")
        return Finding("reference", OPEN, None, WANTED, (
            f"The diffusion coefficient of the reference is not known ({why}), so that of the model "
            "can't be judged: make the reference longer."))
    share = error / value
    length = reference["length_ps"]
    if share <= WANTED:
        return Finding("reference", GOOD, share, WANTED, (
            f"The reference gives its diffusion coefficient to {_percent(share)}."))
    needed = length * (share / WANTED)**2
    return Finding("reference", OPEN, share, WANTED, (
        f"The reference gives its own diffusion coefficient to {_percent(share)} only, expected "
        f"{_percent(WANTED)}: no model trained on it can be known to be better, so make it longer, about "
        f"{_round(needed)} ps instead of {length:.0f}."))


def temperature(run: dict, reference: dict, settings: Settings) -> Finding | None:
    """Whether the run has the temperature of the reference; if not, the time step is too long, or it was told another one."""
    value, error = run.get("temperature_K"), run.get("temperature_stderr")
    # A reference without velocities has the temperature that was given.
    wanted = reference.get("temperature_K") or settings.temperature_K
    if value is None or wanted is None:
        return None
    off = value / wanted - 1
    doubt = math.hypot(error or 0.0, reference.get("temperature_stderr") or 0.0) / wanted
    if abs(off) <= max(0.01, 3 * doubt):
        return Finding("temperature", GOOD, off, 0.01, f"The temperature is right ({value:.1f} K).")
    told = settings.temperature_K
    if told is not None and abs(value - told) <= max(0.01 * told, 3 * (error or 0.0)):
        return Finding("temperature", MISSED, off, 0.01, (
            f"The temperature is {value:.1f} K, as runs were told, but that of the reference's velocities is {wanted:.1f} K: "
            "reference.temperature_K is not the temperature of the reference, or the reference is too short to tell."))
    step = run.get("timestep_fs") or settings.timestep_fs
    return Finding("temperature", MISSED, off, 0.01, (
        f"The temperature is {value:.1f} K, expected {wanted:.1f} K: the time step of {step:g} fs is too "
        "long for this potential, so make it shorter (dynamics.timestep_fs, production.timesteps_fs)."))


_NAMES = {
    "rdf_l1": "The pair distribution", "adf_l1": "The angles in the first shell", "second_adf_l1": "The angles in the second shell",
}  # fmt: skip


def structure(figure: str, run: dict, floor: dict, settings: Settings) -> Finding:
    """g(r) or the angles; the potential is at fault."""
    here, name = standing(figure, run, {}, floor), _NAMES[figure]
    if here.found is None:
        return _not_known(here, name, run, figure)
    verb = "differ" if name.endswith("shell") else "differs"
    return _told(here, (f"{name} {verb} from all-atom by {_percent(here.found)}, expected at most "
                        f"{_percent(here.bar)}"), _structural_cause(figure, settings))


def _structural_cause(figure, settings):
    if not settings.settled:
        return "the potential was still changing when training ran out of iterations; raise training.iterations"
    if settings.potential == "adversarial":
        return ("critics see less of the structure than the relative entropy does; use "
                "`training.potential: relative_entropy`")
    if figure.endswith("adf_l1"):
        if not settings.three_body:
            return "pair energies alone can't hold angles; use `potential.three_body: true`"
        return ("the three-body energy is too coarse; use more potential.radial_functions or a larger "
                "potential.l_max")
    return ("the pair energy is too coarse or too short; use more potential.pair_functions or a larger "
            "potential.cutoff_nm")


def displacements(run: dict, reference: dict, settings: Settings) -> Finding:
    """The mean squared displacement at every lag up to `LONGEST_LAG`; the cause follows from the lags
    at which it is off."""
    here, at = standing("msd", run, reference, {}), at_lags(run, reference)
    if not at:
        return _not_known(here, "The mean squared displacement", run, "msd_ratio")
    lag, lags = worst_lag(at), list(at)
    if at[lags[-1]].found < FROZEN - 1:
        return _told(here, (
            f"Beads hardly move: their mean squared displacement at {lags[-1]:g} ps is {_percent(1 + at[lags[-1]].found)} of "
            "all-atom"), (
            "the model froze or crystallized; a potential of more training.iterations or a longer reference, or less "
            "dynamics.initial_friction_per_ps, may keep it liquid"))
    if here.state == GOOD:
        return _told(here, (
            f"Displacements are right at every lag to {lags[-1]:g} ps; nearest to its bar of "
            f"{_percent(here.bar)} is the mean square at {lag:g} ps, with {_signed(here.found)}"))
    if here.state == OPEN and abs(here.found) <= here.bar:
        return _told(here, f"The mean squared displacement is {_signed(here.found)} off at {lag:g} ps, within its bar of {_percent(here.bar)}")
    missed = [t for t, one in at.items() if one.state == here.state]
    return _told(here, (
        f"The mean squared displacement is {_signed(here.found)} off at {lag:g} ps, expected at most "
        f"{_percent(here.bar)}, and beyond its bar {_lags(missed, lags)}"), _motion_cause(missed, settings))


def diffusion(run: dict, reference: dict, settings: Settings) -> Finding:
    """The diffusion coefficient; as the slope at long lags it tells of memory slower than the window."""
    here = standing("diffusion", run, reference, {})
    if here.found is None:
        lacking = reference if run.get("diffusion_cm2_per_s") else run
        return _not_known(here, "The diffusion coefficient", lacking, "diffusion_cm2_per_s")
    value, truth = run["diffusion_cm2_per_s"], reference["diffusion_cm2_per_s"]
    start = (run.get("diffusion_fit_ps") or [settings.window_ps * 1.01])[0]
    missed = [lag for lag, one in at_lags(run, reference).items() if lag < start and one.state != GOOD]
    return _told(here, (
        f"D is {1e5 * value:.3f} ± {1e5 * (run.get('diffusion_stderr') or 0.0):.3f} · 10⁻⁵ cm²/s, "
        f"{_signed(here.found)} from all-atom ({1e5 * truth:.3f}), expected within {_percent(here.bar)}"),
        _motion_cause([*missed, max(start, settings.window_ps * 1.01)], settings))


def velocities(run: dict, floor: dict, settings: Settings) -> Finding:
    """The velocity autocorrelation, which shows the memory of friction at short times."""
    here = standing("vacf_rms", run, {}, floor)
    if here.found is None:
        return _not_known(here, "The velocity autocorrelation", run, "vacf_rms")
    return _told(here, (f"The velocity autocorrelation differs from all-atom by {here.found:.4f} (rms), expected "
                        f"at most {here.bar:.4f}"), _motion_cause([0.1], settings))


def collective(run: dict, reference: dict, settings: Settings) -> list[Finding]:
    """How beads move together: viscosity from shear waves and from the stress, the current of the longest shear
    wave, and the displacements that neighbours share. There is no viscosity where beads have friction of their own."""
    viscosities = (("viscosity", "shear waves"), ("stress_viscosity", "the stress"))
    if settings.self_friction:
        viscosities, cause = (), _given(settings)
    elif not settings.settled:
        cause = "friction was still changing when training ran out of iterations; raise training.iterations"
    else:
        cause = ("the range, the size or the memory of the friction between neighbours is not right; train again with "
                 "another training.seed to see whether that is chance, then on a longer reference")
    truth, doubt = reference.get("viscosity_mPa_s"), reference.get("viscosity_stderr") or 0.0
    found = []
    for figure, by in viscosities:
        value, error = run.get(f"{figure}_mPa_s"), run.get(f"{figure}_stderr") or 0.0
        allowed = max(TOGETHER[figure], 2 * doubt / truth if truth else 0.0)
        off = None if value is None or not truth else value / truth - 1
        here = Standing(figure, _state(off, error / truth if truth else None, allowed), off, allowed)
        if value is None:
            found.append(_not_known(here, f"The viscosity by {by}", run, f"{figure}_mPa_s"))
        elif off is None:
            found.append(_not_known(here, "The viscosity of all-atom", reference, "viscosity_mPa_s"))
        else:
            found.append(_told(here, (
                f"The viscosity by {by} is {value:.2f} ± {error:.2f} mPa\u202fs, {_signed(off)} from all-atom "
                f"({truth:.2f}), expected within {_percent(allowed)}"), cause))
    for figure, name in (
        ("transverse_current", "The current of the longest shear wave"),
        ("shared", "What neighbours share of their displacements"),
    ):
        off = furthest(figure, run, reference)
        if off is None:
            lacking = "displacement_correlation" if figure == "shared" else figure
            here = Standing(figure, OPEN, None, TOGETHER[figure])
            found.append(_not_known(here, name, run if run.get(lacking) is None else reference, lacking))
            continue
        worst, here = off
        where = f" ({worst.name.removeprefix('shared ')})" if figure == "shared" else ""
        found.append(_told(here, (
            f"{name} differs by {abs(worst.value):.3f} from all-atom at {worst.lag:g} ps{where}, expected at most "
            f"{here.bar:.3f}"), cause))
    return found


def furthest(figure: str, run: dict, reference: dict) -> tuple[differences.Difference, Standing] | None:
    """Of "transverse_current" or "shared" the difference that is the largest part or multiple of its bar, and how it
    stands; None if it is not known."""
    every = [(one, max(TOGETHER[figure], 2 * one.reference_error)) for one in getattr(differences, figure)(run, reference)]
    if not every:
        return None
    worst, allowed = max(every, key=lambda one: abs(one[0].value) / one[1])
    return worst, Standing(figure, _state(worst.value, worst.error, allowed), worst.value, allowed)


def _told(here, what, cause=""):
    """A standing in words; the cause is that of a figure that misses its bar."""
    more = {GOOD: "", MISSED: f": {cause}", OPEN: (
        "; the error of this run is too large to tell, and a longer production.length_ps would")}
    return Finding(**asdict(here), sentence=f"{what}{more[here.state]}.")


def _not_known(here, name, lacking, figure):
    """A figure that `lacking`, a run or the reference, does not have."""
    why = (lacking.get("reasons") or {}).get(figure, "not measured")
    verb = "are" if name.endswith("shell") else "is"
    return Finding(**asdict(here), sentence=f"{name} {verb} not known: {why}.")


def _given(settings):
    return (f"friction of {settings.self_friction:g}/ps on each bead is given, not trained, and takes momentum out of the "
            "liquid; change dynamics.self_friction_per_ps, or leave it out if no solvent acts on the beads")


def _motion_cause(lags, settings):
    """Why motion is off at some lags, ps, and what to change."""
    if settings.self_friction:
        return _given(settings)
    if not settings.settled:
        return "friction was still changing when training ran out of iterations; raise training.iterations"
    if settings.critic == "graph" and settings.equation != "pair":
        return ("the critic sees that neighbours move together, which friction on each bead by itself can't do, and "
                "training bent the friction to hide it; use `dynamics.equation: pair`, or "
                "`discriminator.kind: equivariant`")
    if not settings.memory:
        return ("friction without memory can't be right at short and at long times at once; use "
                "`dynamics.equation: generalized_langevin`, or a longer training.window_ps if only long times "
                "count")
    if min(lags) > settings.window_ps:
        return (f"training compared lags up to {settings.window_ps:g} ps alone, and memory slower than that "
                "escapes it; use a longer training.window_ps, and a longer reference if it is short")
    if max(lags) < 4 * settings.timestep_fs * 1e-3:
        return "so short a lag is a matter of the time step; use a shorter dynamics.timestep_fs"
    if settings.auxiliary_variables < 3:
        return (f"memory of {settings.auxiliary_variables} auxiliary variable"
                f"{'s' * (settings.auxiliary_variables > 1)} is too simple; use more dynamics.auxiliary_variables, or a reference with "
                "more frames if they follow from its frame interval")
    return ("the friction that training found is not the right one; train again with another training.seed "
            "to see whether that is chance, then on a longer reference")


def confidence(run: dict, reference: dict, mass: float, kT: float, friction_stderr: float | None) -> dict:
    """How sure the ratio of the model's diffusion coefficient to all-atom is, and by what.

    The wandering of the friction γ in training reaches D as if frictions of different origin were to
    add, ``D = kT / (m (γ + γ'))``, so ``δD/D = m D δγ / kT``.

    Parameters
    ----------
    run, reference : dict
        From `metrics.metrics`.
    mass : float
        Of a bead, dalton.
    kT : float
        kJ/mol.
    friction_stderr : float or None
        Standard error of the friction from its wandering in training, 1/ps; None where memory followed displacements in
        the end, so that what is exported does not wander so.

    Returns
    -------
    dict
        ``diffusion_ratio`` and relative standard errors ``from_reference``, ``from_production``,
        ``from_training`` and ``stderr``, all of them together; None what is not known.
    """
    value, truth = run.get("diffusion_cm2_per_s"), reference.get("diffusion_cm2_per_s")
    out = dict.fromkeys(("diffusion_ratio", "from_reference", "from_production", "from_training", "stderr"))
    if not value or not truth:
        return out
    out["diffusion_ratio"] = value / truth
    if reference.get("diffusion_stderr") is not None:
        out["from_reference"] = reference["diffusion_stderr"] / truth
    if run.get("diffusion_stderr") is not None:
        out["from_production"] = run["diffusion_stderr"] / value
    if friction_stderr is not None:
        out["from_training"] = mass * NM2_PER_PS * value * friction_stderr / kT
    known = [v for name, v in out.items() if name.startswith("from_") and v is not None]
    out["stderr"] = out["diffusion_ratio"] * math.hypot(*known) if known else None
    return out


NM2_PER_PS = 100.0
"""cm²/s in nm²/ps."""


def confidence_sentence(found: dict) -> str | None:
    """The confidence in one sentence."""
    if found.get("stderr") is None:
        return None
    parts = {"from_reference": "the reference", "from_production": "production",
             "from_training": "the wandering of friction in training"}
    told = ", ".join(f"{_percent(found[name])} from {what}" for name, what in parts.items()
                     if found[name] is not None)
    return (f"D relative to all-atom is {found['diffusion_ratio']:.3f} ± {found['stderr']:.3f}; of that error "
            f"{told}.")


def steadiness(outcome: dict) -> list[str]:
    """How sure the trained parameters are, in sentences.

    Parameters
    ----------
    outcome : dict
        How training ended: ``held_out``, ``wander``, ``validated`` and ``figures``, as in ``outcome.json``.
    """
    out = []
    held = outcome.get("held_out") or {}
    if held.get("lags_ps"):
        # Of several bead types the one that is furthest off at the longest lag.
        rows = zip(held["displacement_ratio"], held["displacement_ratio_stderr"])
        ratios, errors = max(rows, key=lambda row: abs((row[0][-1] or 1.0) - 1))
        told = ", ".join(f"{ratio:.3f}{'' if error is None else f' ± {error:.3f}'} at {lag:g} ps"
                         for lag, ratio, error in zip(held["lags_ps"], ratios, errors) if ratio is not None)
        out.append(f"Mean squared displacements in the last windows that critics saw, over those held out: {told}.")
    for name, found in (outcome.get("wander") or {}).items():
        if found.get("stderr") is None:
            continue
        what = name.replace("_", " of ", 1)
        if name.startswith("friction"):
            out.append(f"While learning rates fell critics held the {what} at {found['value']:.3g} ± {found['stderr']:.2g}/ps.")
        else:
            out.append(f"The pair {what} wandered by {found['stderr']:.2g} kT (root mean square over "
                       "distances, standard error of its mean).")
    known = [(one["validation_diffusion"], one.get("validation_diffusion_stderr") or 0.0)
             for one in outcome.get("validated") or [] if one.get("validation_diffusion")]
    if len(known) > 1:
        mean = sum(value for value, _ in known) / len(known)
        spread = math.sqrt(sum((value - mean)**2 for value, _ in known) / (len(known) - 1)) / mean
        own = math.sqrt(sum(error**2 for _, error in known) / len(known)) / mean
        out.append(f"D of the {len(known)} averages that were validated scatters by {_percent(spread)}, of which "
                   f"their own runs explain {_percent(own)}.")
    figures = outcome.get("figures") or {}
    told = [f"{name} {_signed(figures[key])} ± {_percent(figures.get(f'{key}_stderr') or 0.0)}"
            for name, key in (("D", "validation_diffusion_deviation"), ("the worst mean squared displacement", "validation_msd"))
            if figures.get(key) is not None]
    if told:
        out.append(f"Live validation of what is exported, from all-atom: {', '.join(told)}.")
    return out


def headline(findings: list[Finding]) -> str:
    """Whether the model is good enough, and how many of its figures are within their bars."""
    figures = [finding for finding in findings if finding.figure in (*BARS, *TOGETHER)]
    within = f"{sum(one.state == GOOD for one in figures)} of {len(figures)} figures within their bars"
    runs = len({one.run for one in findings})
    if runs > 1:
        within += f" at {runs} time steps"
    states = {finding.state for finding in findings}
    if MISSED in states:
        missed = {one.figure for one in findings if one.state == MISSED}
        also = f"{', and its temperature is wrong' * ('temperature' in missed)}{', and it exploded' * ('stability' in missed)}"
        return f"The model is not good enough yet: {within}{also}."
    if any(one.state == OPEN for one in figures):
        return f"No figure is known to miss its bar, but not all of them can be told: {within}."
    if OPEN in states:
        return f"No figure is known to miss its bar, as far as this reference tells: {within}."
    return f"The model is good: {within}."


def _lags(missed, judged):
    if len(missed) == 1:
        return f"at {missed[0]:g} ps alone"
    if missed == judged:
        return "at every lag"
    return f"at {len(missed)} of {len(judged)} lags between {missed[0]:g} and {missed[-1]:g} ps"


def _percent(value):
    return f"{100 * value:.2g} %" if value < 0.0995 else f"{100 * value:.0f} %"


def _signed(value):
    return f"{100 * value:+.1f} %".replace("-", "−")


def _round(value):
    digits = max(0, int(math.log10(value)) - 1)
    return f"{math.ceil(value / 10**digits) * 10**digits:.0f}"
