"""The report of an experiment: a page that people look at and a file that programs read.

Both are made from plain numbers (`metrics.metrics`) and a few arrays, so that a report can be made
again, or beside that of another experiment, without the trajectories.
"""
from __future__ import annotations

import base64
import csv
import json
import math
from dataclasses import asdict, dataclass, field
from functools import partial
from html import escape
from pathlib import Path

import numpy as np

from . import cost, plots
from .verdict import (BARS, GOOD, LONGEST_LAG, MISSED, OPEN, Finding, at_lags, bar,
                      confidence_sentence, furthest, headline, msd_bar, of_type, standing, steadiness, worst_lag)

SCHEMA_VERSION = 1
LOG_POINTS = 1500
TRAINING_PANELS = (
    ("against the held-out part of the reference", ("held_out",)),
    ("losses", ("loss", "penalty")),
    ("margins: mean logit of real minus generated", ("margin",)),
    ("friction and memory / ps⁻¹", ("friction", "memory", "gamma", "alpha", "coupling", "rotation")),
    ("potential", ("potential", "structure", "theta", "coefficient")),
)
NOT_DRAWN = ("seconds", "seed", "rate")
VALIDATION = "validation_"


@dataclass(frozen=True)
class Run:
    """One run: the name it has in the report, and its figures from `metrics.metrics`."""

    label: str
    metrics: dict


@dataclass(frozen=True)
class PairPotential:
    """Learned pair potential of two bead types.

    Attributes
    ----------
    types : (str, str)
    r : array [n]
        nm.
    initial, trained : array [n] or None
        kJ/mol.
    r_min : float, optional
        Below this distance, nm, there are no data and the fixed repulsive core acts.
    """

    types: tuple[str, str]
    r: np.ndarray
    initial: np.ndarray | None
    trained: np.ndarray | None
    r_min: float | None = None


@dataclass(frozen=True)
class PairFrictionCurve:
    """Friction between two bead types as a function of their distance.

    Attributes
    ----------
    types : (str, str)
    r : array [n]
        nm.
    initial, trained : array [2, n]
        Of slow relative motion, along and across the pair, 1/ps.
    """

    types: tuple[str, str]
    r: np.ndarray
    initial: np.ndarray
    trained: np.ndarray


@dataclass(frozen=True)
class Memory:
    """Friction of a model: an instantaneous part and a kernel,
    ``dv = F/m dt - gamma_0 v dt - (integral K(s) v(t - s) ds) dt + noise``.

    Attributes
    ----------
    label : str
        Such as "initial", "trained", "trained, HOH".
    time : array [n]
        ps, from 0.
    kernel : array [n]
        K, 1/ps^2; zeros for memoryless friction.
    instantaneous, effective : float
        gamma_0 and gamma_0 + integral K, 1/ps.
    """

    label: str
    time: np.ndarray
    kernel: np.ndarray
    instantaneous: float
    effective: float


@dataclass(frozen=True)
class Timings:
    """Wall time and speed.

    Attributes
    ----------
    wall_seconds : dict
        ``{stage: seconds}`` in the order of the stages.
    all_atom_ns_per_day, coarse_grained_ns_per_day : float or None
        Speed of production on one machine.
    hardware : str
        What they were measured on.
    """

    wall_seconds: dict[str, float] = field(default_factory=dict)
    all_atom_ns_per_day: float | None = None
    coarse_grained_ns_per_day: float | None = None
    hardware: str = ""


@dataclass(frozen=True)
class ReportInput:
    """Everything that a report shows; what is left out is reported as missing, with its reason.

    Attributes
    ----------
    title : str
    reference : Run
        All-atom.
    initial, trained : Run, optional
        The model before and after training.
    noise_floor : dict
        From `metrics.noise_floor`.
    comparison : list of Run
        Further runs to show beside: other time steps, other equations of motion.
    potentials : list of PairPotential
    pair_friction : list of PairFrictionCurve
        Of a model whose friction acts between pairs.
    memory : list of Memory
    training_log : path, optional
        CSV with a column ``iteration`` and named curves, with empty cells where a curve has no
        point. Columns ``validation_...`` are figures of live validation, named as in `metrics`
        with errors in ``..._stderr``; diffusion as ``validation_diffusion_deviation``, relative to all-atom in the same
        range of lags.
    timings : Timings
    findings : list of Finding
        Every figure of the trained model against its bar, in words; from `verdict.judgement`.
    confidence : dict
        From `verdict.confidence`.
    outcome : dict
        How training ended: ``sentence``, ``warnings`` and what else is known.
    rule : list of str
        By what rule windows and memory were chosen, and what it gave, in sentences.
    provenance : dict
        What made this: versions, seeds, the experiment file. Dictionaries in it are flattened.
    reasons : dict
        Why something is missing: ``{"initial" | "trained" | "noise_floor" | "potentials" |
        "memory" | "training" | "validation" | "timings": sentence}``.
    """

    title: str
    reference: Run
    initial: Run | None = None
    trained: Run | None = None
    noise_floor: dict = field(default_factory=dict)
    comparison: list[Run] = field(default_factory=list)
    potentials: list[PairPotential] = field(default_factory=list)
    pair_friction: list[PairFrictionCurve] = field(default_factory=list)
    memory: list[Memory] = field(default_factory=list)
    training_log: Path | None = None
    timings: Timings = field(default_factory=Timings)
    findings: list[Finding] = field(default_factory=list)
    confidence: dict = field(default_factory=dict)
    outcome: dict = field(default_factory=dict)
    rule: list[str] = field(default_factory=list)
    provenance: dict = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)


def write_report(directory, data: ReportInput) -> Path:
    """Write ``index.html`` and ``metrics.json`` into a directory, which is made if need be.

    The page is one file that opens offline.

    Returns
    -------
    Path
        Of ``index.html``.

    Raises
    ------
    ValueError
        The training log can't be read, or the reference has no figures.
    """
    if not data.reference.metrics:
        raise ValueError("a report needs the figures of the reference, found none")
    directory = Path(directory)
    log = read_training_log(data.training_log) if data.training_log else {}
    directory.mkdir(parents=True, exist_ok=True)
    numbers = json.dumps(_programs_view(data, log), indent=1, allow_nan=False)
    (directory / "metrics.json").write_text(numbers + "\n", encoding="utf-8")
    page = directory / "index.html"
    page.write_text(_page(data, log), encoding="utf-8")
    return page


def read_training_log(path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Curves of a training log, ``{column: (iterations, values)}``; empty cells are left out.

    An unfinished last line is left out too, so that a log can be read while it is written. Of
    iterations that were gone through twice, after a return to an earlier state, the last counts.

    Raises
    ------
    ValueError
        The file is missing or has no column ``iteration``, or a cell is no number.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"the training log {path} does not exist")
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    if not rows or "iteration" not in rows[0]:
        raise ValueError(f"the training log {path} has no column 'iteration'")
    names = rows[0]
    if len(rows) > 1 and len(rows[-1]) < len(names):
        rows.pop()
    at = names.index("iteration")
    curves: dict[str, dict] = {name: {} for name in names if name != "iteration"}
    for line, row in enumerate(rows[1:], 2):
        for name, cell in zip(names, row):
            if name == "iteration" or not cell:
                continue
            try:
                iteration, value = float(row[at]), float(cell)
            except ValueError as error:
                raise ValueError(f"the training log {path}, line {line}, column '{name}': expected "
                                 f"a number, found '{cell}'") from error
            if math.isfinite(value):
                curves[name][iteration] = value
    return {name: tuple(np.array(sorted(points.items())).T)
            for name, points in curves.items() if points}


def _programs_view(data, log):
    """The content of metrics.json."""
    timings = data.timings
    missing = {}
    speeds = {"all_atom_ns_per_day": timings.all_atom_ns_per_day,
              "coarse_grained_ns_per_day": timings.coarse_grained_ns_per_day,
              "speed_up": _speed_up(timings)}
    for name, value in speeds.items():
        if value is None:
            missing[name] = data.reasons.get("timings", "the speed was not measured")
    out = {
        "schema_version": SCHEMA_VERSION,
        "reference": data.reference.metrics,
        "initial": data.initial.metrics if data.initial else None,
        "trained": data.trained.metrics if data.trained else None,
        "noise_floor": data.noise_floor or None,
        "comparison": {run.label: run.metrics for run in data.comparison},
        "timings": {"wall_seconds": {k: float(v) for k, v in timings.wall_seconds.items()},
                    **speeds, "hardware": timings.hardware, "reasons": missing},
        "labels": {name: run.label for name, run in (("reference", data.reference),
                                                     ("initial", data.initial),
                                                     ("trained", data.trained)) if run},
        "targets": _targets(data),
        "verdict": {"headline": headline(data.findings), "findings": [asdict(f) for f in data.findings]}
        if data.findings else None,
        "confidence": data.confidence or None,
        "training": data.outcome or None,
        "cost": cost.summary(cost.descents(log, data.reference.metrics, data.noise_floor or {})),
        "provenance": data.provenance,
    }
    out["reasons"] = {name: data.reasons.get(name, _ABSENT[name]) for name, value in out.items()
                      if value is None and name in _ABSENT}
    return out


def _targets(data):
    """The findings on the figures of `BARS` of the trained model's first run, by name."""
    out = {one.name: {"value": one.found, "target": one.bar, "met": {GOOD: True, MISSED: False}.get(one.state)}
           for one in data.findings if one.figure in BARS and not one.run}
    for name in out:
        if name.startswith("msd"):
            lags = list(at_lags(data.trained.metrics, data.reference.metrics))
            out[name]["lags_ps"] = [lags[0], lags[-1]] if lags else None
    return out or None


_ABSENT = {
    "initial": "the initial model was not run",
    "trained": "there is no trained model yet",
    "noise_floor": "the noise floor was not measured",
    "targets": "no model was held against its bars",
    "verdict": "no model was held against its bars",
    "confidence": "there is no trained model yet",
    "potentials": "no potential was given",
    "memory": "no friction was given",
    "training": "there is no training log",
    "validation": "no live validation was logged",
    "timings": "no times were taken",
}


def _page(data, log):
    reference = plots.Series(data.reference.label, data.reference.metrics, plots.REFERENCE)
    others = []
    if data.initial:
        others.append(plots.Series(data.initial.label, data.initial.metrics, plots.INITIAL, "--"))
    if data.trained:
        others.append(plots.Series(data.trained.label, data.trained.metrics, plots.TRAINED))
    for k, run in enumerate(data.comparison):
        others.append(plots.Series(run.label, run.metrics, plots.OTHERS[k % len(plots.OTHERS)],
                                   "-." if k % 2 else "-"))
    sections = [
        ("Verdict", _verdict(data)),
        ("Figures", _table(data)),
        ("Structure", _structure(data, reference, others)),
        ("Motion", _motion(data, reference, others)),
        ("The model", _model(data)),
        ("Training", _training(data, log)),
        ("Speed and time", _speed(data)),
        ("Provenance", _provenance(data)),
    ]
    links = " ".join(f'<a href="#{_anchor(name)}">{name}</a>' for name, _ in sections)
    body = "\n".join(f'<section id="{_anchor(name)}"><h2>{name}</h2>\n{content}\n</section>'
                     for name, content in sections)
    return (f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(data.title)}</title>\n<style>{_CSS}</style></head>\n<body><main>\n"
            f"<h1>{escape(data.title)}</h1>\n<p class=lead>{_lead(data)}</p>\n<nav>{links}</nav>\n"
            f"{body}\n</main></body></html>\n")


def _lead(data):
    m = data.reference.metrics
    text = (f"{escape(data.reference.label)}: {m['n_beads']} beads, {m['length_ps']:.4g} ps, a "
            f"frame every {m['frame_interval_fs']:.4g} fs.")
    if data.trained:
        t = data.trained.metrics
        step = f" at a time step of {t['timestep_fs']:g} fs" if t.get("timestep_fs") else ""
        text += (f" {escape(data.trained.label)}: {t['length_ps']:.4g} ps of production in "
                 f"OpenMM{step}.")
    return text


_NAMES = {
    "rdf_l1": "Pair distribution", "adf_l1": "Angles in the first shell", "second_adf_l1": "Angles in the second shell",
    "diffusion": "Diffusion coefficient", "msd": "Displacement (MSD)",
    "vacf_rms": "Velocity correlation",
    "viscosity": "Viscosity (shear waves)", "stress_viscosity": "Viscosity (stress)",
    "transverse_current": "Longest shear wave", "shared": "Displacements shared by neighbours",
}

_MARKS = {GOOD: "✓", MISSED: "✗", OPEN: "?"}


def _verdict(data):
    lines = []
    if data.findings:
        lines += [f"<p class=headline>{escape(headline(data.findings))}</p>", _tiles(data)]
    else:
        lines.append(_missing(data, "verdict" if data.trained else "trained"))
    lines += _in_words(data)
    lines += _equation_of_motion(data)
    for run in (data.reference, data.initial, data.trained, *data.comparison):
        for note in (run.metrics.get("notes") or []) if run else []:
            lines.append(f"<p class=note><b>{escape(run.label)}.</b> {escape(note)}</p>")
    return "\n".join(lines)


def _tiles(data):
    """A tile for every finding on a figure of `BARS` or `TOGETHER`."""
    tiles = []
    runs = {run.label: run for run in data.comparison}
    for finding in data.findings:
        if finding.figure not in _NAMES:
            continue
        judged = runs.get(finding.run, data.trained)
        at = at_lags(*(of_type(run.metrics, finding.bead) for run in (judged, data.reference)))
        told = "not known" if finding.found is None else _against_bar(finding, at)
        of = f" of {escape(finding.bead)}" if finding.bead else ""
        of += f", {escape(finding.run)}" if finding.run else ""
        tiles.append(f"<li class={finding.state}><b>{_MARKS[finding.state]} {_NAMES[finding.figure]}{of}</b> "
                     f"<span>{told}</span></li>")
    return f"<ul class=figures>{''.join(tiles)}</ul>"


def _against_bar(one, at):
    """What a standing has found, and its bar; of displacements with the lag, of those `at` which they stand."""
    figure = one.figure
    signed = figure in ("diffusion", "msd", "viscosity", "stress_viscosity")
    where = f" at {_lag(worst_lag(at))}" if figure == "msd" else ""
    limit = f"{'±' if signed else '≤'}\u202f{_share(one.bar, figure)}"
    return f"{_share(one.found if signed else abs(one.found), figure, signed)}{where} (bar {limit})"


def _in_words(data):
    """Findings, confidence and the end of training, as paragraphs."""
    out = []
    if data.findings:
        told = [f for f in data.findings if f.state != GOOD]
        fine = [f for f in data.findings if f.state == GOOD]
        if told:
            items = "".join(f"<li class={f.state}>{escape(f.sentence)}</li>" for f in told)
            out.append(f"<ul class=findings>{items}</ul>")
        if fine:
            items = "".join(f"<li class=good>{escape(f.sentence)}</li>" for f in fine)
            out.append(f"<details><summary>What is good enough ({len(fine)})</summary>"
                       f"<ul class=findings>{items}</ul></details>")
    sure = confidence_sentence(data.confidence)
    out += [f"<p>{escape(sentence)}</p>" for sentence in [sure] if sentence]
    if data.outcome.get("sentence"):
        sentence = data.outcome["sentence"]
        out.append(f"<p>Training: {escape(sentence)}.</p>")
    out += [f"<p class=note><b>Training.</b> {escape(warning)}</p>"
            for warning in data.outcome.get("warnings", [])]
    return out


def _table(data):
    runs = [run for run in (data.reference, data.initial, data.trained) if run]
    runs += data.comparison
    m_ref = data.reference.metrics
    footnotes: list[str] = []

    def cell(value, m=None, name=None):
        if value is not None:
            return value
        why = _why(m, name)
        if why not in footnotes:
            footnotes.append(why)
        return f"<span class=none>–</span><sup>{footnotes.index(why) + 1}</sup>"

    def with_error(m, name, error, scale, digits, tick=""):
        value, spread = m.get(name), m.get(error)
        if value is None:
            return None
        below = "" if spread is None else f"<small>± {spread * scale:.{digits}f}</small>"
        return f"{value * scale:.{digits}f}{tick}{below}"

    def tick(one):
        return "" if one.found is None else (
            f' <span class="tick {one.state}">{_MARKS[one.state]}</span>')

    rows = []

    def row(title, hint, contents, floor, allowed=""):
        rows.append(f"<tr><th scope=row>{title}<small>{hint}</small></th><td>{allowed}</td>"
                    + "".join(f"<td>{c}</td>" for c in contents) + f"<td>{floor}</td></tr>")

    floor = data.noise_floor or {"reasons": {}}
    if not data.noise_floor:
        why = data.reasons.get("noise_floor", _ABSENT["noise_floor"])
        floor = {"reasons": dict.fromkeys(("rdf_l1", "adf_l1", "second_adf_l1", "vacf_rms",
                                           "msd_ratio", "diffusion_of_halves_cm2_per_s"), why)}
    distances = (("rdf_l1", "g(r)", "area of the difference, %", 100, 2),
                 ("adf_l1", "P(θ)", "area of the difference, %", 100, 2),
                 ("second_adf_l1", "P(θ), second shell", "area of the difference, %", 100, 2),
                 ("vacf_rms", "VACF", "rms difference, 0–2 ps", 1, 4))
    for name, title, hint, scale, digits in distances:
        contents = ["<span class=none>0</span>"]
        for run in runs[1:]:
            mark = tick(standing(name, run.metrics, m_ref, floor))
            contents.append(cell(with_error(run.metrics, name, f"{name}_stderr", scale, digits, mark),
                                 run.metrics, name))
        low = floor.get(name)
        row(title, hint, contents,
            cell(None if low is None else f"{low * scale:.{digits}f}", floor, name),
            f"≤ {bar(name, m_ref, floor) * scale:.{digits}f}" if low is not None or name != "second_adf_l1" else "")

    def furthest(m, mark=""):
        at = at_lags(m, m_ref)
        if not at:
            return None
        lag = worst_lag(at)
        return f"{_signed(at[lag].found)}{mark}<small>at {_lag(lag)}</small>"

    bars = [100 * msd_bar(lag, m_ref) for lag, _ in m_ref.get("msd_nm2") or []
            if lag <= LONGEST_LAG * (1 + 1e-9)] or [100 * BARS["msd"]]
    widest = f" to {max(bars):.2g}" if max(bars) > 1.05 * min(bars) else ""
    row("MSD", "largest deviation by the bar of its lag, %",
        ["<span class=none>0</span>"] + [
            cell(furthest(run.metrics, tick(standing("msd", run.metrics, m_ref, floor))), run.metrics,
                 "msd_ratio") for run in runs[1:]],
        cell(furthest(floor), floor, "msd_ratio"), f"± {min(bars):.2g}{widest}")
    halves = floor.get("diffusion_of_halves_cm2_per_s")
    row("Diffusion", "10⁻⁵ cm² s⁻¹",
        [cell(with_error(run.metrics, "diffusion_cm2_per_s", "diffusion_stderr", 1e5, 2),
              run.metrics, "diffusion_cm2_per_s") for run in runs],
        cell(halves and f"{1e5 * halves[0]:.2f}, {1e5 * halves[1]:.2f}", floor,
             "diffusion_of_halves_cm2_per_s"))
    relative = [standing("diffusion", run.metrics, m_ref, floor) for run in runs[1:]]
    row("", "deviation from all-atom, %",
        ["<span class=none>0</span>"] + [
            cell(None if one.found is None else _signed(one.found), run.metrics, "diffusion_cm2_per_s")
            + tick(one) for run, one in zip(runs[1:], relative)],
        cell(halves and _signed(halves[1] / halves[0] - 1), floor,
             "diffusion_of_halves_cm2_per_s"), f"± {100 * bar('diffusion', m_ref, floor):.2g}")
    for name, hint in (("viscosity", "mPa s, from shear waves, for long ones"),
                       ("stress_viscosity", "mPa s, from the stress; of no flow where "
                        "friction acts on single beads")):
        row("Viscosity" if name == "viscosity" else "", hint,
            [cell(with_error(run.metrics, f"{name}_mPa_s", f"{name}_stderr", 1, 2), run.metrics,
                  f"{name}_mPa_s") for run in runs], "")
    row("Temperature", "K, from velocities",
        [cell(with_error(run.metrics, "temperature_K", "temperature_stderr", 1, 1), run.metrics,
              "temperature_K") for run in runs], "")
    for name, title, hint in (("friction_per_ps", "Effective friction", "ps⁻¹"),
                              ("timestep_fs", "Time step", "fs"), ("length_ps", "Length", "ps")):
        row(title, hint, [cell(None if run.metrics.get(name) is None
                               else f"{run.metrics[name]:.4g}", run.metrics, name)
                          for run in runs], "")
    heads = "".join(f"<th scope=col>{escape(run.label)}</th>" for run in runs)
    notes = "".join(f"<li>{escape(why[:1].upper() + why[1:])}.</li>" for why in footnotes)
    return (f"<div class=wide><table><thead><tr><th></th><th scope=col>Bar</th>{heads}"
            f"<th scope=col>Noise floor</th></tr></thead><tbody>{''.join(rows)}</tbody></table>"
            f"</div>\n{f'<ol class=footnotes>{notes}</ol>' if notes else ''}\n"
            "<p class=caption>± is one standard error, from ten blocks of each run. A bar is what a good "
            "model may deviate by, or what the statistical error of all-atom leaves open if that is more; "
            "✓ is within it, ✗ beyond it, ? beyond it by less than two standard errors of the run. The noise "
            "floor compares the second half of the all-atom run with the first: a model that "
            "differs no more than that can't be told from all-atom by this reference.</p>\n"
            f"<details><summary>How the figures are defined</summary>{_DEFINITIONS}</details>")


def _structure(data, reference, others):
    out = []
    for name, draw, words in (
            ("rdf", plots.rdf, "Pair distribution g(r), and below it what is left after "
             "subtracting all-atom (grey: ± 2 standard errors of all-atom). Dotted: end of the "
             "first shell."),
            ("adf", plots.adf, "Angle at a bead between two neighbours of its first shell, and "
             "below it the difference from all-atom (grey: ± 2 standard errors of all-atom)."),
            ("second_adf", partial(plots.adf, name="second_adf"), "The same for two neighbours of "
             "the second shell, which begins at the first minimum of the all-atom g(r) and ends at "
             "its second.")):
        if not reference.metrics.get(name):
            out.append(_none("No " + {"rdf": "pair distribution", "adf": "angles",
                                      "second_adf": "angles in the second shell"}[name],
                             _why(reference.metrics, name)))
            continue
        out.append(_figure(draw(reference, others), words + " " + _distances(
            data, f"{name}_l1", lambda v, n=name: _share(v, f"{n}_l1"))))
    return "\n".join(out)


def _motion(data, reference, others):
    out = []
    if reference.metrics.get("msd_nm2"):
        longest = reference.metrics["msd_nm2"][-1][0]
        words = (f"Mean squared displacement of a bead from one frame to {longest:g} ps, a fifth "
                 "of the all-atom run at most, and below it the ratio to all-atom; error bars are "
                 "one standard error of the ratio. A slope of 2 at the left is free flight, of 1 "
                 "at the right diffusion. ")
        found = [(run.label, at_lags(run.metrics, reference.metrics)) for run in _others(data)]
        words += _sentence("Largest deviation by the bar of its lag", [
            f"{label} {_against_bar(at[worst_lag(at)], at)}" for label, at in found if at])
        out.append(_figure(plots.msd(reference, others), words))
    else:
        out.append(_none("No displacements", _why(reference.metrics, "msd_nm2")))
    if reference.metrics.get("vacf"):
        interval = 1e3 * reference.metrics["vacf"][1][0]
        out.append(_figure(plots.vacf(reference, others), (
            "Velocity autocorrelation, and below it the difference from all-atom (grey: ± 2 "
            f"standard errors). Velocities are displacements over {interval:g} fs, in every run "
            "alike. ") + _distances(data, "vacf_rms", lambda v: f"{v:.3f}", "rms difference")))
    else:
        out.append(_none("No velocity correlation", _why(reference.metrics, "vacf")))
    drawn = ("transverse_current", "displacement_correlation", "van_hove_distinct")
    if any(reference.metrics.get(name) for name in drawn):
        out.append(_figure(plots.together(reference, others), _collective_words(data)))
    else:
        out.append(_none("No collective motion",
                         _why(reference.metrics, "displacement_correlation")))
    out.append(_size_of_the_box(data))
    return "\n".join(out)


def _collective_words(data):
    """Caption of the figure of collective motion, which tells what friction on single beads
    costs."""
    m = data.reference.metrics
    words = ("Collective motion. The mass currents of the longest waves of shear and of sound that "
             "fit the box and their spectra (thin: sound), and the viscosity that shear waves "
             "meet; displacements that "
             "neighbours share across and along their separation at the start, 0 if they move by "
             "themselves and 1 if they move as one (error bars: one standard error; thin lines: "
             "the second shell), and how far all beads move together in the longest wave, 1 if "
             "each moves by itself (thin: along it); where other beads are a while after a bead was at the origin, 1 "
             "once its place is forgotten; the running integral of the stress correlation, which "
             "ends at the viscosity where momentum is conserved. ")
    apparent = m.get("apparent_viscosity")
    if not apparent:
        return words + f"No viscosity: {_why(m, 'apparent_viscosity')}."
    k, value, error = apparent[0]
    runs = [run for run in _others(data) if run.metrics.get("apparent_viscosity")]
    found = [f"{data.reference.label} {value:.2f} ± {error:.2f} mPa\u202fs"]
    found += ["{} {:.2f} ± {:.2f}".format(run.label, *run.metrics["apparent_viscosity"][0][1:])
              for run in runs]
    words += _sentence(f"Viscosity for a shear wave of {2 * math.pi / k:.3g} nm", found)
    damped = ["{} at {:.3g} ± {:.2g} ps⁻¹".format(run.label, *damping) for run in runs
              if (damping := damped_shear(run.metrics, m))]
    if damped:
        words += (" Friction on single beads damps shear waves of any length "
                  f"({'; '.join(damped)}): beads may diffuse as they should, but neighbours don't "
                  "move together, flow is not that of the liquid, and the viscosity grows with "
                  "the box.")
    return words


def damped_shear(m: dict, reference: dict) -> tuple[float, float] | None:
    """Rate at which friction on single beads damps shear waves in a run, with its standard error
    (1/ps), or None where it does not, beyond doubt, or where nothing is known of it."""
    if not m.get("apparent_viscosity") or not reference.get("apparent_viscosity"):
        return None
    _, eta, spread = m["apparent_viscosity"][0]
    _, value, error = reference["apparent_viscosity"][0]
    rate, doubt = m["shear_damping_per_ps"], m["shear_damping_stderr"]
    known = m.get("conserves_momentum")
    damped = m["viscosity_mPa_s"] is None and rate > 4 * doubt and known is not True
    beyond = known is False or eta - value > 4 * math.hypot(spread, error)
    return (rate, doubt) if damped and beyond else None


CAUSES = {
    "single": "The equation of motion is the cause: friction on single beads does not conserve "
              "momentum, and no training can mend that. Friction between neighbours alone "
              "(equation: pair, without self_friction_per_ps) does.",
    "pair": "Momentum is conserved, so it is the range, the size or the memory of the friction "
            "between neighbours that is not right yet.",
    "unknown": "Whether momentum is conserved could not be told from this run.",
}


def _equation_of_motion(data):
    """What says that the equation of motion is the cause, where collective motion is wrong and a
    bead's own motion is right."""
    m = data.reference.metrics
    found: dict[str, list[str]] = {}
    for run in (data.trained, *data.comparison):
        if run is None:
            continue
        off = furthest("transverse_current", run.metrics, m)
        if off is None or off[1].state != MISSED or any(standing(name, run.metrics, m, data.noise_floor).state != GOOD
                              for name in ("msd", "vacf_rms")):
            continue
        worst = off[0]
        value = dict(run.metrics["transverse_current"])[worst.lag]
        known = run.metrics.get("conserves_momentum")
        if known is None:
            cause = "single" if damped_shear(run.metrics, m) else "unknown"
        else:
            cause = "pair" if known else "single"
        found.setdefault(cause, []).append(
            f"{run.label} {value:.2f} instead of {value - worst.value:.2f} at {worst.lag:.2g} ps")
    return [f"<p class=note>Each bead moves as it should, but beads don't move together as they "
            f"should: transverse current of the longest wave, {escape('; '.join(runs))}. "
            f"{escape(CAUSES[cause])}</p>" for cause, runs in found.items()]


def _size_of_the_box(data):
    """What hydrodynamics says of the diffusion in boxes of other sizes."""
    m = data.reference.metrics
    gain, error = (m.get(f"diffusion_box_correction_{name}") for name in ("cm2_per_s", "stderr"))
    d, spread = m.get("diffusion_cm2_per_s"), m.get("diffusion_stderr")
    edge = m["volume_nm3"] ** (1 / 3)
    if d is None or gain is None:
        name = "diffusion_cm2_per_s" if d is None else "diffusion_box_correction_cm2_per_s"
        return _none("Diffusion in an infinite box is not known", _why(m, name))
    words = (f"Diffusion depends on the size of a periodic box where momentum is conserved. With "
             f"the viscosity of all-atom, {m['viscosity_mPa_s']:.2f} mPa\u202fs, it is "
             f"{_d(d + gain, math.hypot(spread or 0, error))} in an infinite box, against "
             f"{_d(d, spread)} in this one of {edge:.3g} nm (Yeh and Hummer, 2004).")
    for run in _others(data):
        box = (run.metrics.get("volume_nm3") or m["volume_nm3"]) ** (1 / 3)
        if abs(box / edge - 1) > 0.02:
            there = d + gain * (1 - edge / box)
            words += (f" In the box of {run.label}, {box:.3g} nm, all-atom is expected at "
                      f"{_d(there, math.hypot(spread or 0, error * (1 - edge / box)))}.")
    single = [run.label for run in _others(data) if damped_shear(run.metrics, m)]
    own = [(run, run.metrics["diffusion_box_correction_cm2_per_s"]) for run in _others(data)
           if run.metrics.get("diffusion_box_correction_cm2_per_s") and
           run.metrics.get("diffusion_cm2_per_s")]
    if own:
        words += " " + _sentence("By their own viscosity, in an infinite box", [
            f"{run.label} {_d(run.metrics['diffusion_cm2_per_s'] + more, None)}"
            for run, more in own])
    if single:
        words += (f" With friction on single beads ({', '.join(single)}) there is no such effect: "
                  "diffusion is the same in a box of any size, that of the box trained in.")
    return f"<p>{escape(words)}</p>"


def _d(value, error):
    beside = "" if error is None else f" ± {1e5 * error:.2f}"
    return f"{1e5 * value:.2f}{beside} · 10⁻⁵ cm²/s"


def _others(data):
    return [run for run in (data.initial, data.trained, *data.comparison) if run]


def _model(data):
    out = []
    if data.potentials:
        shaded = any(p.r_min is not None for p in data.potentials)
        out.append(_figure(plots.potentials(data.potentials), (
            "Learned pair potential before and after training."
            + (" Shaded: no all-atom data, where the potential continues with a fixed repulsive "
               "core." if shaded else "")
            + " A three-body term, where the model has one, comes on top of it.")))
    else:
        out.append(_missing(data, "potentials"))
    if data.pair_friction:
        out.append(_figure(plots.pair_friction(data.pair_friction), (
            "Friction between two beads against slow relative motion, along their separation and "
            "across it, before and after training.")))
    if data.memory:
        frictions = _sentence("Effective friction", [
            f"{m.label} {m.effective:.3g} ps⁻¹" + (
                f", of which {m.instantaneous:.3g} ps⁻¹ instantaneous" if np.any(m.kernel) else "")
            for m in data.memory])
        out.append(_figure(plots.memory(data.memory), (
            "Left: memory kernel, how friction at one time depends on the velocity a time t "
            "earlier. Right: its running integral on top of the instantaneous friction γ₀, which "
            "ends at the effective friction. " + frictions)))
    else:
        out.append(_missing(data, "memory"))
    return "\n".join(out)


def _training(data, log):
    if not log:
        return _missing(data, "training")
    out = [f"<p>{escape(line)}</p>" for line in data.rule]
    live, panels = _sort_curves(log)
    if live:
        out.append(_figure(plots.validation(
            live, data.reference.metrics, data.noise_floor or {}, cost.live_length(log)), (
            "Live validation: the averaged parameters, run in OpenMM during training. The last "
            "points should lie in the green bands and have stopped moving.")))
    else:
        out.append(_missing(data, "validation"))
    found = cost.descents(log, data.reference.metrics, data.noise_floor or {})
    if found:
        names = {figure: name.lower() for figure, name in _NAMES.items()}
        out.append(_figure(plots.cost(found, _NAMES), (
            "What accuracy costs: deviations of live validation from all-atom against the wall-clock "
            "time of training, and the bars. " + cost.sentence(found, names))))
    out += [f"<p>{escape(line)}</p>" for line in steadiness(data.outcome)]
    if panels:
        out.append(_figure(plots.training(panels), (
            "Losses and parameters over training. Adversarial losses need not fall; margins near "
            "0 mean that the discriminators can't tell the model from all-atom. Parameters should "
            "level off.")))
    return "\n".join(out)


def _sort_curves(log):
    """Curves of live validation, with errors, and the other curves by panel."""
    live, panels = {}, {}
    for column, (x, y) in log.items():
        name = column.replace("/", "_")
        if name.startswith(VALIDATION):
            figure = name[len(VALIDATION):]
            # Runs are too short for the lags that D of the report is fitted to, so D is compared with all-atom in their own.
            if figure not in ("diffusion", "length") and not figure.endswith("_stderr"):
                errors = dict(zip(*log.get(f"{column}_stderr", ((), ()))))
                figure = {"diffusion_deviation": "diffusion", "temperature": "temperature_K"}.get(figure, figure)
                live[figure] = (x, y, np.array([errors.get(i, 0.0) for i in x]))
        elif not any(word in name for word in NOT_DRAWN):
            title = next((title for title, words in TRAINING_PANELS
                          if any(word in name for word in words)), "other")
            every = -(-len(x) // LOG_POINTS)
            panels.setdefault(title, {})[name.replace("_", " ")] = (x[::every], y[::every])
    order = [title for title, _ in TRAINING_PANELS] + ["other"]
    return live, {title: panels[title] for title in order if title in panels}


def _speed(data):
    timings = data.timings
    out = []
    if timings.all_atom_ns_per_day or timings.coarse_grained_ns_per_day:
        tiles = []
        for label, value, unit in (
                ("all-atom", timings.all_atom_ns_per_day, "ns/day"),
                ("coarse-grained", timings.coarse_grained_ns_per_day, "ns/day"),
                ("speed-up", _speed_up(timings), "×")):
            shown = "–" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
            tiles.append(f"<div><b>{shown} {unit if value is not None else ''}</b>"
                         f"<span>{label}</span></div>")
        out.append(f"<div class=tiles>{''.join(tiles)}</div>")
        if timings.hardware:
            out.append(f"<p class=caption>Production speed on {escape(timings.hardware)}.</p>")
    else:
        out.append(_none("No speeds", data.reasons.get("timings", "the speed was not measured")))
    if timings.wall_seconds:
        longest = max(timings.wall_seconds.values()) or 1
        rows = "".join(
            f"<tr><th scope=row>{escape(stage)}</th><td>{_duration(seconds)}</td><td class=bar>"
            f'<i style="width:{100 * seconds / longest:.1f}%"></i></td></tr>'
            for stage, seconds in timings.wall_seconds.items())
        total = _duration(sum(timings.wall_seconds.values()))
        out.append(f"<table class=stages><tbody>{rows}<tr class=total><th scope=row>total</th>"
                   f"<td>{total}</td><td></td></tr></tbody></table>")
    else:
        out.append(_none("No times of stages", data.reasons.get("timings", _ABSENT["timings"])))
    return "\n".join(out)


def _provenance(data):
    flat = list(_flatten(data.provenance))
    if not flat:
        return _none("No provenance", "none was given")
    rows = "".join(f"<tr><th scope=row>{escape(key)}</th><td>{escape(value)}</td></tr>"
                   for key, value in flat)
    return f"<table class=plain><tbody>{rows}</tbody></table>"


def _flatten(value, prefix=""):
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, dict):
            yield from _flatten(item, f"{name}.")
        else:
            yield name, ", ".join(map(str, item)) if isinstance(item, (list, tuple)) else str(item)


def _distances(data, name, write, what="Difference from all-atom"):
    """Sentence with one distance of every run, its bar and its noise floor."""
    found = [f"{run.label} {write(run.metrics[name])}"
             for run in (data.initial, data.trained, *data.comparison)
             if run and run.metrics.get(name) is not None]
    if not found:
        return ""
    limits = [f"bar {write(bar(name, data.reference.metrics, data.noise_floor))}"] if name in BARS else []
    if data.noise_floor.get(name) is not None:
        limits.append(f"two halves of all-atom {write(data.noise_floor[name])}")
    beside = f" ({', '.join(limits)})" if limits else ""
    return _sentence(what[:1].upper() + what[1:], found)[:-1] + f"{beside}."


def _sentence(what, parts):
    return f"{what}: {'; '.join(parts)}." if parts else ""


def _share(value, name, signed=False):
    if name in ("vacf_rms", "transverse_current", "shared"):
        return f"{value:.3f}"
    percent = 100 * value
    text = _signed(value) if signed else f"{percent:.1f}" if percent % 1 else f"{percent:g}"
    return f"{text}\u202f%"


def _lag(t):
    return f"{1e3 * t:g} fs" if t < 1 else f"{t:g} ps"


def _signed(value):
    """Percentage of a relative deviation, with its sign."""
    return f"{100 * value:+.1f}".replace("-", "−")


def _speed_up(timings):
    if timings.all_atom_ns_per_day and timings.coarse_grained_ns_per_day:
        return timings.coarse_grained_ns_per_day / timings.all_atom_ns_per_day
    return None


def _duration(seconds):
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"


def _why(m, name):
    return ((m or {}).get("reasons") or {}).get(name) or "not measured"


def _missing(data, name):
    what = {"trained": "trained model", "memory": "friction and memory",
            "training": "training curves", "validation": "live validation"}.get(name, name)
    return _none(f"No {what}", data.reasons.get(name, _ABSENT[name]))


def _none(what, why):
    return f"<p class=absent>{escape(what)}: {escape(why)}.</p>"


def _figure(svg, caption):
    encoded = base64.b64encode(svg.encode()).decode()
    return (f'<figure><img alt="{escape(caption, quote=True)}" '
            f'src="data:image/svg+xml;base64,{encoded}">'
            f"<figcaption>{escape(caption)}</figcaption></figure>")


def _anchor(name):
    return name.lower().replace(" ", "-")


_DEFINITIONS = """
<dl>
<dt>g(r)</dt><dd>Σ|g − g<sub>AA</sub>| / Σ g<sub>AA</sub> over distances below 1 nm or half the
box, whichever is smaller, in bins of 0.005 nm.</dd>
<dt>P(θ)</dt><dd>∫|P − P<sub>AA</sub>| dθ. P is the distribution of the angle at a bead between
two neighbours closer than the first minimum of the all-atom g(r), or between its first minimum and
its second for the second shell, of integral 1 over radians.</dd>
<dt>MSD</dt><dd>Mean squared displacement over beads and time origins, drift of the centre of mass
left out, up to a fifth of each run.</dd>
<dt>Diffusion</dt><dd>A sixth of the slope of the MSD over the same range of lags in every run
(2 ps to a tenth of the all-atom run, 20 ps at most), not corrected for the size of the box.</dd>
<dt>VACF</dt><dd>Autocorrelation of displacements from one frame to the next, normalised to 1 at
time 0; the same for all runs, as stored velocities are not.</dd>
<dt>Viscosity</dt><dd>η(k) = ρ / (k² ∫C dt) from the normalised autocorrelation C of the transverse
mass current, at wave vectors up to twice the shortest of the box, extrapolated to k = 0 as
η/(1 + a k²). From the stress: ∫⟨P<sub>xy</sub>(0) P<sub>xy</sub>(t)⟩ dt / (V k<sub>B</sub>T),
averaged over all directions of shear.</dd>
<dt>Shared displacements</dt><dd>Mean product of the displacements of two neighbours, along or across
their separation at the start, over a third of the MSD. The first shell ends at the first minimum
of the all-atom g(r).</dd>
<dt>Temperature</dt><dd>Σ m|v − v<sub>com</sub>|² / (3(N − 1)k<sub>B</sub>), from stored
velocities.</dd>
</dl>
"""

_CSS = """
:root{color-scheme:light}
*{box-sizing:border-box}
body{margin:0;background:#fff;color:#1c1c1c;
 font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:860px;margin:0 auto;padding:2.5rem 1.25rem 5rem}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 .5rem;letter-spacing:-.01em}
h2{font-size:1.25rem;margin:2.8rem 0 .9rem;padding-top:.9rem;border-top:1px solid #ddd}
.lead{color:#555;margin:0 0 1rem}
nav{font-size:.9rem;display:flex;flex-wrap:wrap;gap:.3rem 1.1rem}
a{color:#0067b1;text-decoration:none}a:hover{text-decoration:underline}
.headline{font-size:1.15rem;font-weight:600;margin:.2rem 0 .8rem}
ul.figures{list-style:none;padding:0;margin:0 0 1rem;display:grid;gap:.5rem;
 grid-template-columns:repeat(auto-fill,minmax(250px,1fr))}
ul.figures li{border-left:4px solid #999;background:#f7f7f7;padding:.5rem .8rem;font-size:.92rem}
ul.figures b{display:block}ul.figures span{color:#555}
ul.figures li.good{border-color:#2a8a4a}ul.figures li.good b{color:#1f6e3a}
ul.figures li.missed{border-color:#c23b22}ul.figures li.missed b{color:#a53019}
ul.findings{padding-left:1.2rem;font-size:.95rem}ul.findings li{margin:.35rem 0}
ul.findings li.missed{color:#a53019}
.note,.absent{background:#fff8e5;border-left:4px solid #e0b000;padding:.55rem .8rem;
 font-size:.93rem;margin:.8rem 0}
.absent{background:#f5f5f5;border-color:#bbb;color:#555}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:.88rem;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:.42rem .6rem;border-bottom:1px solid #e6e6e6;vertical-align:top}
thead th{border-bottom:2px solid #333;text-align:right;vertical-align:bottom;line-height:1.3}
tbody th{text-align:left;font-weight:600;white-space:nowrap}
tbody th small{display:block;font-weight:400;color:#777;white-space:normal;line-height:1.25}
td{text-align:right;white-space:nowrap}td small{display:block;color:#888}
.none{color:#aaa}
sup{font-size:.7em;color:#666}
.tick{font-weight:700}.tick.good{color:#2a8a4a}.tick.missed{color:#c23b22}.tick.open{color:#8a6d00}
ol.footnotes{font-size:.82rem;color:#666;margin:.7rem 0;padding-left:1.4rem}
figure{margin:1.2rem 0 2rem}figure img{width:100%;height:auto;display:block}
figcaption,.caption{font-size:.9rem;color:#555;margin-top:.4rem}
details{font-size:.9rem;margin:.8rem 0}summary{cursor:pointer;color:#0067b1}
dt{font-weight:600;margin-top:.5rem}dd{margin:0 0 0 1.2rem;color:#444}
.tiles{display:flex;flex-wrap:wrap;gap:.8rem}
.tiles div{flex:1 1 160px;background:#f7f7f7;padding:.8rem 1rem}
.tiles b{display:block;font-size:1.35rem}.tiles span{color:#666;font-size:.9rem}
table.stages{margin-top:1.2rem}table.stages td.bar{width:55%;text-align:left}
td.bar i{display:block;height:.75rem;margin-top:.3rem;background:#9cc3e0}
tr.total th,tr.total td{border-bottom:0;border-top:2px solid #333}
table.plain th{font-weight:400;color:#666;width:32%}
table.plain td{text-align:left;white-space:normal;overflow-wrap:anywhere}
@media print{nav,details{display:none}figure{break-inside:avoid}}
"""
