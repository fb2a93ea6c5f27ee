"""The parts of the page: what each section says and shows, as values that the template lays out."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from ..analysis.metrics import of_type
from ..analysis.tolerances import TOLERANCES
from . import cost, plots, precision
from .assessment import headline
from .inputs import ReportInput
from .numbers import ABSENT
from .status import GOOD, MISSED, largest_difference, status, status_by_lag, worst_lag
from .text import duration, in_unit, lag_words, listed, reason

NAMES = {
    "rdf_l1": "Radial distribution function",
    "adf_l1": "Angles in the first shell",
    "second_adf_l1": "Angles in the second shell",
    "diffusion": "Diffusion coefficient",
    "msd": "Mean squared displacement",
    "vacf_rms": "Velocity autocorrelation",
    "viscosity": "Viscosity (transverse currents)",
    "stress_viscosity": "Viscosity (Green–Kubo)",
    "transverse_current": "Transverse current of the longest wave",
    "displacement_correlation": "Displacement correlation of neighbours",
}
WITH_SIGN = ("diffusion", "msd", "viscosity", "stress_viscosity")

TRAINING_PANELS = (
    ("against the held-out part of the reference", ("held_out",)),
    ("losses", ("loss", "penalty")),
    ("discriminator gaps: mean logit of all-atom minus generated", ("gap", "margin")),
    (
        "friction and memory / ps⁻¹",
        ("friction", "memory", "gamma", "alpha", "coupling", "rotation"),
    ),
    ("potential", ("potential", "structure", "theta", "coefficient")),
)
"""Titles of the panels of the history, and words that columns of each contain."""

NOT_DRAWN = ("seconds", "seed", "rate")
VALIDATION = "validation_"
LOG_POINTS = 1500
OTHER_BOX = 0.02
"""Relative difference from which on the size of two boxes is different."""
DAMPED = 4.0
"""Standard errors beyond which shear waves are damped."""

CAUSES = {
    "single": "Friction on single beads does not conserve momentum, and no parameters of it can correct this.",
    "pair": "Momentum is conserved, so the range, the amplitude or the memory of the friction between beads is wrong.",
    "unknown": "This run does not show whether momentum is conserved.",
}


@dataclass(frozen=True)
class Part:
    """A part of a section.

    Attributes
    ----------
    text : str
        A paragraph; the caption of a figure; or the reason why something is missing.
    svg : str
        The figure as Base64.
    label : str
        Label of a note.
    absent : str
        What is missing.
    """

    text: str
    svg: str = ""
    label: str = ""
    absent: str = ""


def figure(svg: str, caption: str) -> Part:
    """Return a figure with its caption."""
    return Part(caption, svg=base64.b64encode(svg.encode()).decode())


def missing(data: ReportInput, name: str) -> Part:
    """Return a note that a part of the input is missing, and why."""
    what = {
        "trained": "trained model",
        "memory": "friction and memory",
        "training": "training curves",
        "validation": "validation in OpenMM",
    }.get(name, name)
    return Part(data.reasons.get(name, ABSENT[name]), absent=f"No {what}")


def lead(data: ReportInput) -> str:
    """Return what the reference and the production of the model are."""
    m = data.reference.metrics
    text = (
        f"{data.reference.label}: {m['n_beads']} beads, {m['length_ps']:.4g} ps, a frame every "
        f"{m['frame_interval_fs']:.4g} fs."
    )
    if data.trained:
        t = data.trained.metrics
        step = f" at a time step of {t['timestep_fs']:g} fs" if t.get("timestep_fs") else ""
        text += f" {data.trained.label}: {t['length_ps']:.4g} ps of production in OpenMM{step}."
    return text


def assessment(data: ReportInput) -> dict:
    """Return the headline, a tile for each observable, the findings and notes."""
    parts = []
    if not data.findings:
        parts.append(missing(data, "assessment" if data.trained else "trained"))
    ratio = precision.sentence(data.precision)
    if ratio:
        parts.append(Part(ratio))
    if data.outcome.get("sentence"):
        parts.append(Part(f"Training: {data.outcome['sentence']}."))
    parts += [Part(warning, label="Training") for warning in data.outcome.get("warnings", [])]
    parts += _momentum(data)
    for run in (data.reference, *data.others):
        parts += [Part(text, label=run.label) for text in run.metrics.get("notes") or []]
    return {
        "headline": headline(data.findings) if data.findings else None,
        "tiles": [_tile(data, one) for one in data.findings if one.observable in NAMES],
        "others": [one for one in data.findings if one.status != GOOD],
        "good": [one for one in data.findings if one.status == GOOD],
        "parts": parts,
    }


def _tile(data, finding):
    runs = {run.label: run for run in data.comparison}
    run = runs.get(finding.run, data.trained)
    own, truth = (of_type(one.metrics, finding.bead) for one in (run, data.reference))
    at = status_by_lag(own, truth)
    name = NAMES[finding.observable]
    name += f" of {finding.bead}" if finding.bead else ""
    name += f", {finding.run}" if finding.run else ""
    text = "not known" if finding.deviation is None else _against_tolerance(finding, at)
    return {"status": finding.status, "name": name, "text": text}


def _against_tolerance(one, at):
    """Return the deviation and the tolerance of a status; that of the MSD with the worst of its lags."""
    with_sign = one.observable in WITH_SIGN
    where = f" at {lag_words(worst_lag(at))}" if one.observable == "msd" else ""
    value = one.deviation if with_sign else abs(one.deviation)
    limit = f"{'±' if with_sign else '≤'}\u202f{in_unit(one.tolerance, one.observable)}"
    return f"{in_unit(value, one.observable, with_sign)}{where} (tolerance {limit})"


def _momentum(data):
    """Return notes on runs whose single beads move as in the reference and whose collective motion differs."""
    m = data.reference.metrics
    found: dict[str, list[str]] = {}
    for run in (data.trained, *data.comparison):
        if run is None:
            continue
        largest = largest_difference("transverse_current", run.metrics, m)
        right = all(
            status(name, run.metrics, m, data.noise_floor).status == GOOD
            for name in ("msd", "vacf_rms")
        )
        if largest is None or largest[1].status != MISSED or not right:
            continue
        worst = largest[0]
        value = dict(run.metrics["transverse_current"])[worst.lag]
        known = run.metrics.get("conserves_momentum")
        if known is None:
            cause = "single" if damped_shear(run.metrics, m) else "unknown"
        else:
            cause = "pair" if known else "single"
        found.setdefault(cause, []).append(
            f"{run.label} {value:.2f} instead of {value - worst.value:.2f} at {worst.lag:.2g} ps"
        )
    return [
        Part(
            f"Single beads move as in the reference, but collective motion differs: transverse current of the longest wave, "
            f"{'; '.join(runs)}. {CAUSES[cause]}",
            label="Collective motion",
        )
        for cause, runs in found.items()
    ]


def damped_shear(m: dict, reference: dict) -> tuple[float, float] | None:
    """Return the rate at which friction on single beads damps shear waves of a run, and its standard error, 1/ps.

    None if it is not significant, or not known.
    """
    if not m.get("apparent_viscosity") or not reference.get("apparent_viscosity"):
        return None
    _, eta, spread = m["apparent_viscosity"][0]
    _, value, error = reference["apparent_viscosity"][0]
    rate, rate_error = m["shear_damping_per_ps"], m["shear_damping_stderr"]
    known = m.get("conserves_momentum")
    damped = m["viscosity_mPa_s"] is None and rate > DAMPED * rate_error and known is not True
    beyond = known is False or eta - value > DAMPED * math.hypot(spread, error)
    return (rate, rate_error) if damped and beyond else None


def structure(data: ReportInput, reference, others) -> list[Part]:
    """Return the figures of g(r) and of the angular distribution functions."""
    out = []
    for name, draw, what, words in (
        (
            "rdf",
            plots.rdf,
            "radial distribution function",
            "Radial distribution function g(r), and the difference from all-atom (grey: ± 2 standard errors of all-atom). "
            "Dotted: end of the first shell.",
        ),
        (
            "adf",
            plots.adf,
            "angular distribution function",
            "Angular distribution function of two neighbours in the first shell of a bead, and the difference from "
            "all-atom (grey: ± 2 standard errors of all-atom).",
        ),
        (
            "second_adf",
            partial(plots.adf, name="second_adf"),
            "angular distribution function of the second shell",
            "The same for two neighbours in the second shell.",
        ),
    ):
        if not reference.metrics.get(name):
            out.append(Part(reason(reference.metrics, name), absent=f"No {what}"))
            continue
        numbers = _distances(data, f"{name}_l1", "Difference from all-atom")
        out.append(figure(draw(reference, others), f"{words} {numbers}"))
    return out


def _distances(data, name, what):
    """Return a sentence with the distance of every run from the reference, the tolerance and the noise floor."""
    found = [
        f"{run.label} {in_unit(run.metrics[name], name)}"
        for run in data.others
        if run.metrics.get(name) is not None
    ]
    if not found:
        return ""
    allowed = TOLERANCES.of(name, data.reference.metrics, data.noise_floor)
    limits = [f"tolerance {in_unit(allowed, name)}"]
    if data.noise_floor.get(name) is not None:
        limits.append(f"noise floor {in_unit(data.noise_floor[name], name)}")
    return f"{listed(what, found)[:-1]} ({', '.join(limits)})."


def motion(data: ReportInput, reference, others) -> list[Part]:
    """Return the figures of single-particle and collective motion."""
    m, out = reference.metrics, []
    if m.get("msd_nm2"):
        words = (
            f"Mean squared displacement from one frame to {m['msd_nm2'][-1][0]:g} ps, and the ratio to all-atom; error bars "
            "are one standard error of the ratio. The slope is 2 in the ballistic regime at the left, and 1 in the "
            "diffusive regime at the right. "
        )
        at = [(run.label, status_by_lag(run.metrics, m)) for run in data.others]
        words += listed(
            "Largest deviation in units of its tolerance",
            [f"{label} {_against_tolerance(one[worst_lag(one)], one)}" for label, one in at if one],
        )
        out.append(figure(plots.msd(reference, others), words))
    else:
        out.append(Part(reason(m, "msd_nm2"), absent="No displacements"))
    if m.get("vacf"):
        words = (
            "Velocity autocorrelation function, and the difference from all-atom (grey: ± 2 standard errors). Velocities "
            f"are displacements over {1e3 * m['vacf'][1][0]:g} fs in every run. "
        )
        words += _distances(data, "vacf_rms", "Rms difference")
        out.append(figure(plots.vacf(reference, others), words))
    else:
        out.append(Part(reason(m, "vacf"), absent="No velocity autocorrelation function"))
    drawn = ("transverse_current", "displacement_correlation", "van_hove_distinct")
    if any(m.get(name) for name in drawn):
        out.append(figure(plots.collective(reference, others), _collective_caption(data)))
    else:
        out.append(Part(reason(m, "displacement_correlation"), absent="No collective motion"))
    out.append(_infinite_box(data))
    return out


def _collective_caption(data):
    m = data.reference.metrics
    words = (
        "Collective motion. Transverse and longitudinal mass currents of the longest wave that fits the box; their spectra "
        "(thin: longitudinal); viscosity by wave vector; correlation of the displacements of neighbours, perpendicular and "
        "parallel to the pair vector, 0 for independent beads and 1 for a rigid body (thin: second shell); displacement of "
        "the longest wave, 1 for independent beads (thin: longitudinal); distinct van Hove function, 1 without "
        "correlation; running Green–Kubo integral, whose limit is the viscosity where momentum is conserved. Error bars "
        "are one standard error. "
    )
    apparent = m.get("apparent_viscosity")
    if not apparent:
        return f"{words}No viscosity: {reason(m, 'apparent_viscosity')}."
    k, value, error = apparent[0]
    runs = [run for run in data.others if run.metrics.get("apparent_viscosity")]
    found = [f"{data.reference.label} {value:.2f} ± {error:.2f} mPa\u202fs"]
    found += [
        "{} {:.2f} ± {:.2f}".format(run.label, *run.metrics["apparent_viscosity"][0][1:])
        for run in runs
    ]
    words += listed(f"Viscosity at a wave length of {2 * math.pi / k:.3g} nm", found)
    damped = [
        "{} at {:.3g} ± {:.2g} ps⁻¹".format(run.label, *rate)
        for run in runs
        if (rate := damped_shear(run.metrics, m))
    ]
    if damped:
        words += (
            f" Friction on single beads damps shear waves of any length ({'; '.join(damped)}): the diffusion coefficient "
            "can be right, but the displacements of neighbours are not correlated, and the viscosity grows with the box."
        )
    return words


def _infinite_box(data):
    """Return how the diffusion coefficient depends on the size of the box."""
    m = data.reference.metrics
    gain, error = (m.get(f"diffusion_box_correction_{name}") for name in ("cm2_per_s", "stderr"))
    d, spread = m.get("diffusion_cm2_per_s"), m.get("diffusion_stderr")
    edge = m["volume_nm3"] ** (1 / 3)
    if d is None or gain is None:
        name = "diffusion_cm2_per_s" if d is None else "diffusion_box_correction_cm2_per_s"
        return Part(reason(m, name), absent="Diffusion in an infinite box is not known")
    words = (
        f"Where momentum is conserved, the diffusion coefficient depends on the size of the periodic box. With the viscosity "
        f"of all-atom, {m['viscosity_mPa_s']:.2f} mPa\u202fs, it is {_d(d + gain, math.hypot(spread or 0, error))} in an "
        f"infinite box, against {_d(d, spread)} in this one of {edge:.3g} nm (Yeh and Hummer, 2004)."
    )
    for run in data.others:
        box = (run.metrics.get("volume_nm3") or m["volume_nm3"]) ** (1 / 3)
        if abs(box / edge - 1) > OTHER_BOX:
            there = d + gain * (1 - edge / box)
            words += (
                f" In the box of {run.label}, {box:.3g} nm, all-atom is expected at "
                f"{_d(there, math.hypot(spread or 0, error * (1 - edge / box)))}."
            )
    own = [
        (run, run.metrics["diffusion_box_correction_cm2_per_s"])
        for run in data.others
        if run.metrics.get("diffusion_box_correction_cm2_per_s")
        and run.metrics.get("diffusion_cm2_per_s")
    ]
    if own:
        words += " " + listed(
            "With the viscosity of each run, in an infinite box",
            [
                f"{run.label} {_d(run.metrics['diffusion_cm2_per_s'] + more, None)}"
                for run, more in own
            ],
        )
    single = [run.label for run in data.others if damped_shear(run.metrics, m)]
    if single:
        words += (
            f" With friction on single beads ({', '.join(single)}) the diffusion coefficient does not depend on the size of "
            "the box."
        )
    return Part(words)


def _d(value, error):
    beside = "" if error is None else f" ± {1e5 * error:.2f}"
    return f"{1e5 * value:.2f}{beside} · 10⁻⁵ cm²/s"


def model(data: ReportInput) -> list[Part]:
    """Return the figures of the potential and of the friction."""
    out = []
    if data.potentials:
        shaded = any(p.r_min is not None for p in data.potentials)
        words = "Pair potential before and after training."
        if shaded:
            words += " Shaded: distances without all-atom data, where a fixed repulsive core acts."
        words += " Three-body terms, where the model has any, are not included."
        out.append(figure(plots.potentials(data.potentials), words))
    else:
        out.append(missing(data, "potentials"))
    if data.pair_friction:
        words = (
            "Zero-frequency friction between two beads, parallel and perpendicular to the pair vector, before and after "
            "training."
        )
        out.append(figure(plots.pair_friction(data.pair_friction), words))
    if not data.memory:
        return [*out, missing(data, "memory")]
    frictions = [
        f"{m.label} {m.effective:.3g} ps⁻¹"
        + (f", of which {m.instantaneous:.3g} ps⁻¹ instantaneous" if np.any(m.kernel) else "")
        for m in data.memory
    ]
    words = (
        "Left: memory kernel of the friction. Right: its running integral plus the instantaneous friction γ₀. The limit is "
        f"the integrated friction. {listed('Integrated friction', frictions)}"
    )
    return [*out, figure(plots.memory(data.memory), words)]


def training(data: ReportInput, log: dict) -> list[Part]:
    """Return the figures of the history of the fit."""
    if not log:
        return [missing(data, "training")]
    out = [Part(line) for line in data.description]
    reference, floor = data.reference.metrics, data.noise_floor
    validated, panels = sort_curves(log)
    if validated:
        words = (
            "Validation in OpenMM of the averaged parameters during training. At the end the points should lie in the green "
            "bands and be constant."
        )
        svg = plots.validation(validated, reference, floor, cost.validation_length(log))
        out.append(figure(svg, words))
    else:
        out.append(missing(data, "validation"))
    found = cost.validations(log, reference, floor)
    if found:
        names = {observable: name.lower() for observable, name in NAMES.items()}
        words = (
            "Deviations of the validations from all-atom against the wall-clock time of training, and the tolerances. "
            f"{cost.sentence(found, names)}"
        )
        out.append(figure(plots.cost(found, NAMES), words))
    out += [Part(line) for line in data.details]
    if panels:
        words = (
            "Losses and parameters during training. Adversarial losses need not decrease; a difference of the logits near 0 "
            "means that the discriminators cannot distinguish the model from all-atom. Parameters should converge."
        )
        out.append(figure(plots.training(panels), words))
    return out


def sort_curves(log: dict) -> tuple[dict, dict]:
    """Return the curves of validations, with standard errors, and the other curves by panel."""
    validated: dict = {}
    panels: dict = {}
    for column, (x, y) in log.items():
        name = column.replace("/", "_")
        if name.startswith(VALIDATION):
            observable = name[len(VALIDATION) :]
            # Validations are too short for the lags that D of the report is fitted to, so the deviation is drawn.
            if observable in ("diffusion", "length") or observable.endswith("_stderr"):
                continue
            errors = dict(zip(*log.get(f"{column}_stderr", ((), ()))))
            observable = {
                "diffusion_deviation": "diffusion",
                "temperature": "temperature_K",
            }.get(observable, observable)
            validated[observable] = (x, y, np.array([errors.get(i, 0.0) for i in x]))
        elif not any(word in name for word in NOT_DRAWN):
            title = next(
                (title for title, words in TRAINING_PANELS if any(word in name for word in words)),
                "other",
            )
            every = -(-len(x) // LOG_POINTS)
            panels.setdefault(title, {})[name.replace("_", " ")] = (x[::every], y[::every])
    order = [title for title, _ in TRAINING_PANELS] + ["other"]
    return validated, {title: panels[title] for title in order if title in panels}


def speed(data: ReportInput) -> dict:
    """Return the speed of production and the time of each stage."""
    timings, parts, tiles = data.timings, [], []
    if timings.all_atom_ns_per_day or timings.coarse_grained_ns_per_day:
        for label, value, unit in (
            ("all-atom", timings.all_atom_ns_per_day, "ns/day"),
            ("coarse-grained", timings.coarse_grained_ns_per_day, "ns/day"),
            ("speed-up", timings.speed_up, "×"),
        ):
            shown = "–" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
            tiles.append({"label": label, "value": shown if value is None else f"{shown} {unit}"})
    else:
        parts.append(
            Part(data.reasons.get("timings", "the speed was not measured"), absent="No speeds")
        )
    stages = []
    if timings.wall_seconds:
        longest = max(timings.wall_seconds.values()) or 1
        stages = [
            {"name": name, "time": duration(seconds), "share": f"{100 * seconds / longest:.1f}"}
            for name, seconds in timings.wall_seconds.items()
        ]
    else:
        why = data.reasons.get("timings", ABSENT["timings"])
        parts.append(Part(why, absent="No times of stages"))
    return {
        "tiles": tiles,
        "hardware": timings.hardware,
        "stages": stages,
        "total": duration(sum(timings.wall_seconds.values())),
        "parts": parts,
    }


def provenance(value: dict, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the keys and values of nested dictionaries as text."""
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, dict):
            yield from provenance(item, f"{name}.")
        else:
            yield name, ", ".join(map(str, item)) if isinstance(item, (list, tuple)) else str(item)
