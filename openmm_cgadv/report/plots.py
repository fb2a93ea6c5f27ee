"""Figures of the report, each as one SVG document, drawn from the plain numbers of `metrics`."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
from scipy.integrate import trapezoid

from ..analysis.tolerances import OBSERVABLES, TOLERANCES

WIDTH = 7.4
COLUMNS = 3
REFERENCE = "#1a1a1a"
INITIAL = "#d98200"
TRAINED = "#0067b1"
OTHERS = ("#008f6b", "#b5539a", "#7a6a00", "#c23b22")
BAND = "#dcefe0"
CURRENT_DRAWN, SPECTRUM_DRAWN = 2.0, 40.0
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "grid.color": "#e9e9e9",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "lines.linewidth": 1.5,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "svg.fonttype": "path",
    "svg.hashsalt": "openmm_cgadv",
    "figure.constrained_layout.use": True,
}


@dataclass(frozen=True)
class Series:
    """A run as it is drawn in all figures: its name, its observables, its colour and line."""

    label: str
    metrics: dict
    color: str
    line: str = "-"


def rdf(reference: Series, others: list[Series]) -> str:
    """Draw g(r) of every pair of types, and the difference from all-atom."""
    curves = reference.metrics["rdf"]
    with _style():
        figure, panels = _stacked(len(curves), 3, 4.0)
        for (top, bottom), curve in zip(panels, curves):
            r, g, error = _arrays(curve, "r_nm", "g", "stderr")
            top.plot(r, g, color=reference.color, lw=3, label=reference.label)
            bottom.fill_between(r, -2 * error, 2 * error, color="#cccccc", lw=0)
            bottom.axhline(0, color=reference.color, lw=0.8)
            for run in others:
                own = _same(run.metrics.get("rdf"), "types", curve["types"])
                if own is None:
                    continue
                top.plot(*_arrays(own, "r_nm", "g"), color=run.color, ls=run.line, label=run.label)
                if len(own["g"]) == len(g):
                    bottom.plot(r, _arrays(own, "g")[0] - g, color=run.color, ls=run.line, lw=1.2)
            if curve["first_shell_nm"]:
                top.axvline(curve["first_shell_nm"], color="#777777", lw=1, ls=":")
            top.set_ylim(0)
            top.set_xlim(_onset(r, g), r[-1])
            if len(curves) > 1:
                top.set_title("–".join(curve["types"]), loc="left")
            bottom.set_xlabel("distance r / nm")
        panels[0][0].set_ylabel("g(r)")
        panels[0][1].set_ylabel("g − g(all-atom)")
        panels[min(len(curves), COLUMNS) - 1][0].legend()
        return _svg(figure)


def adf(reference: Series, others: list[Series], name: str = "adf") -> str:
    """Draw P(theta) in a shell of every centre type, and the difference from all-atom; `name` is the key in the metrics."""
    curves = reference.metrics[name]
    with _style():
        figure, panels = _stacked(len(curves), 3, 3.8)
        for (top, bottom), curve in zip(panels, curves):
            theta, p, error = _arrays(curve, "theta_rad", "p", "stderr")
            degrees = np.degrees(theta)
            top.plot(
                degrees,
                np.sin(theta) / 2,
                color="#aaaaaa",
                ls=":",
                lw=1.2,
                label="random directions",
            )
            top.plot(degrees, p, color=reference.color, lw=3, label=reference.label)
            bottom.fill_between(degrees, -2 * error, 2 * error, color="#cccccc", lw=0)
            bottom.axhline(0, color=reference.color, lw=0.8)
            for run in others:
                own = _same(run.metrics.get(name), "centre", curve["centre"])
                if own is None:
                    continue
                q = _arrays(own, "p")[0]
                top.plot(degrees, q, color=run.color, ls=run.line, label=run.label)
                bottom.plot(degrees, q - p, color=run.color, ls=run.line, lw=1.2)
            top.set_ylim(0)
            top.set_xlim(0, 180)
            top.set_xticks(range(0, 181, 30))
            if len(curves) > 1:
                top.set_title(f"around {curve['centre']}", loc="left")
            bottom.set_xlabel("angle θ / degrees")
        panels[0][0].set_ylabel("P(θ) / rad⁻¹")
        panels[0][1].set_ylabel("P − P(all-atom)")
        panels[min(len(curves), COLUMNS) - 1][0].legend()
        return _svg(figure)


def msd(reference: Series, others: list[Series]) -> str:
    """Draw the mean squared displacement over lag, both logarithmic, and the ratio to all-atom with its tolerance."""
    with _style():
        figure, [(top, bottom)] = _stacked(1, 1.2, 5.0)
        lag, value = np.array(reference.metrics["msd_nm2"], float).T
        error = np.array(reference.metrics["msd_stderr"], float)[:, 1]
        top.plot(lag, value, color=reference.color, lw=3, marker="o", ms=6, label=reference.label)
        inside = lag[lag <= TOLERANCES.longest_lag_ps * (1 + 1e-9)]
        allowed = np.array([TOLERANCES.of_msd(t, reference.metrics) for t in inside])
        bottom.fill_between(inside, 1 - allowed, 1 + allowed, color=BAND, lw=0, label="tolerance")
        bottom.fill_between(
            lag,
            1 - error / value,
            1 + error / value,
            color="#cccccc",
            lw=0,
            label="all-atom, ± 1 standard error",
        )
        bottom.axhline(1, color=reference.color, lw=0.8)
        reach = 1.2 * max(allowed, default=TOLERANCES.msd)
        seen = [1 - reach, 1 + reach]
        for run in others:
            if not run.metrics.get("msd_nm2"):
                continue
            top.plot(
                *np.array(run.metrics["msd_nm2"], float).T,
                color=run.color,
                ls=run.line,
                marker="o",
                ms=3,
                label=run.label,
            )
            if run.metrics.get("msd_ratio"):
                t, ratio, spread = np.array(run.metrics["msd_ratio"], float).T
                bottom.errorbar(
                    t,
                    ratio,
                    spread,
                    color=run.color,
                    ls=run.line,
                    marker="o",
                    ms=3,
                    capsize=2,
                    elinewidth=0.9,
                )
                reach = np.nan_to_num(spread)
                seen += [(ratio - reach).min() - 0.02, (ratio + reach).max() + 0.02]
        top.set(xscale="log", yscale="log", ylabel="mean squared displacement / nm²")
        bottom.set(xlabel="lag / ps", ylabel="ratio to all-atom", ylim=(min(seen), max(seen)))
        bottom.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        bottom.xaxis.set_minor_formatter(NullFormatter())
        top.legend(loc="lower right")
        bottom.legend(fontsize=8, ncol=2, loc="best")
        return _svg(figure)


def vacf(reference: Series, others: list[Series]) -> str:
    """Draw the normalized velocity autocorrelation function, and the difference from all-atom."""
    with _style():
        figure, [(top, bottom)] = _stacked(1, 3, 4.0)
        lag, value = np.array(reference.metrics["vacf"], float).T
        error = np.array(reference.metrics["vacf_stderr"], float)[:, 1]
        top.plot(lag, value, color=reference.color, lw=3, label=reference.label)
        bottom.fill_between(lag, -2 * error, 2 * error, color="#cccccc", lw=0)
        bottom.axhline(0, color=reference.color, lw=0.8)
        for run in others:
            if not run.metrics.get("vacf"):
                continue
            t, c = np.array(run.metrics["vacf"], float).T
            top.plot(t, c, color=run.color, ls=run.line, label=run.label)
            if len(t) == len(lag) and np.allclose(t, lag):
                bottom.plot(t, c - value, color=run.color, ls=run.line, lw=1.2)
        top.axhline(0, color="#888888", lw=0.8)
        top.set_xlim(0, lag[-1])
        top.set_ylabel("⟨v(0)·v(t)⟩ / ⟨v²⟩")
        bottom.set(xlabel="time t / ps", ylabel="difference")
        top.legend()
        return _svg(figure)


def collective(reference: Series, others: list[Series]) -> str:
    """Draw collective motion: currents of the longest wave and their spectra, viscosities, displacement correlations,
    displacements of the longest wave, and the distinct van Hove function."""
    runs = [reference, *others]
    panels = []
    if any(run.metrics.get("transverse_current") for run in runs):
        panels += [_current("transverse"), _current("longitudinal"), _spectra]
    if any(run.metrics.get("apparent_viscosity") for run in runs):
        panels.append(_apparent_viscosity)
    if any(run.metrics.get("displacement_correlation") for run in runs):
        panels += [
            _neighbours("transverse", "perpendicular"),
            _neighbours("longitudinal", "parallel"),
            _waves,
        ]
    if any(run.metrics.get("van_hove_distinct") for run in runs):
        panels.append(_van_hove)
    if any(run.metrics.get("stress_integral") for run in runs):
        panels.append(_stress_integral)
    with _style():
        columns = min(len(panels), 2)
        rows = -(-len(panels) // columns)
        figure = Figure(figsize=(WIDTH, 2.9 * rows))
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for axis, draw in zip(axes, panels):
            draw(axis, runs)
        for axis in axes[len(panels) :]:
            axis.set_visible(False)
        if axes[0].get_legend_handles_labels()[0]:
            axes[0].legend()
        return _svg(figure)


def _current(component):
    def draw(axis, runs):
        for run in runs:
            if run.metrics.get(f"{component}_current"):
                t, c = np.array(run.metrics[f"{component}_current"], float).T
                axis.plot(
                    t,
                    c,
                    color=run.color,
                    ls=run.line,
                    lw=3 if run is runs[0] else None,
                    label=run.label,
                )
        axis.axhline(0, color="#888888", lw=0.8)
        axis.set(xlabel="time t / ps", ylabel="C(k₁, t) / C(k₁, 0)", xlim=(0, CURRENT_DRAWN))
        axis.set_title(f"{component} current, longest wave", loc="left")

    return draw


def _spectra(axis, runs):
    omega = np.linspace(0, SPECTRUM_DRAWN, 200)
    for run in runs:
        for component, width in (("transverse", 1.5), ("longitudinal", 0.8)):
            if run.metrics.get(f"{component}_current"):
                t, c = np.array(run.metrics[f"{component}_current"], float).T
                tapered = c * np.cos(0.5 * np.pi * t / t[-1]) ** 2
                spectrum = trapezoid(tapered * np.cos(np.outer(omega, t)), t)
                axis.plot(omega, spectrum, color=run.color, ls=run.line, lw=width)
    axis.set(
        xlabel="frequency ω / ps⁻¹", ylabel="∫ C(k₁, t) cos ωt dt / ps", xlim=(0, SPECTRUM_DRAWN)
    )
    axis.set_title("spectra of the currents", loc="left")


def _waves(axis, runs):
    for run in runs:
        found = run.metrics.get("collective_displacement")
        for component, width in (("transverse", 1.5), ("longitudinal", 0.8)):
            if found and found.get(component):
                t, value, error = np.array(found[component], float).T
                axis.errorbar(
                    t,
                    value,
                    error,
                    color=run.color,
                    ls=run.line,
                    marker="o",
                    ms=3 * width / 1.5,
                    lw=width,
                    capsize=2,
                    elinewidth=0.9,
                )
    axis.set(
        xscale="log", yscale="log", xlabel="lag / ps", ylabel="⟨|Σ dᵢ exp(ikrᵢ)|²⟩ / (N MSD/3)"
    )
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_title("displacements of the longest wave", loc="left")


def _apparent_viscosity(axis, runs):
    for run in runs:
        if run.metrics.get("apparent_viscosity"):
            k, eta, error = np.array(run.metrics["apparent_viscosity"], float).T
            axis.errorbar(
                k,
                eta,
                error,
                color=run.color,
                ls=run.line,
                marker="o",
                ms=5 if run is runs[0] else 3,
                capsize=2,
                elinewidth=0.9,
                label=run.label,
            )
    axis.set(xlabel="wave vector k / nm⁻¹", ylabel="η(k) / mPa s", xlim=(0, None), ylim=(0, None))
    axis.set_title("viscosity by wave vector", loc="left")


def _stress_integral(axis, runs):
    for run in runs:
        if run.metrics.get("stress_integral"):
            t, eta, error = np.array(run.metrics["stress_integral"], float).T
            axis.plot(t, eta, color=run.color, ls=run.line, label=run.label)
            axis.fill_between(t, eta - error, eta + error, color=run.color, lw=0, alpha=0.2)
    axis.set(xlabel="time t / ps", ylabel="V/kT ∫₀ᵗ ⟨σσ⟩ / mPa s", xlim=(0, None), ylim=(0, None))
    axis.set_title("Green–Kubo viscosity", loc="left")


def _neighbours(component, words):
    def draw(axis, runs):
        for run in runs:
            found = run.metrics.get("displacement_correlation")
            for shell, width in (("first_shell", 1.5), ("second_shell", 0.8)):
                if found and shell in found[component]:
                    t, value, error = np.array(found[component][shell], float).T
                    axis.errorbar(
                        t,
                        value,
                        error,
                        color=run.color,
                        ls=run.line,
                        marker="o",
                        ms=(5 if run is runs[0] else 3) * width / 1.5,
                        lw=width,
                        capsize=2,
                        elinewidth=0.9,
                    )
        axis.axhline(0, color="#888888", lw=0.8)
        axis.set(xscale="log", xlabel="lag / ps", ylabel="⟨dᵢ dⱼ⟩ / (MSD/3)")
        axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_title(f"displacement correlation of neighbours, {words}", loc="left")

    return draw


def _van_hove(axis, runs):
    found = next(
        run.metrics["van_hove_distinct"] for run in runs if run.metrics.get("van_hove_distinct")
    )
    shown = found[len(found) // 2]
    for run in runs:
        same = [
            c
            for c in run.metrics.get("van_hove_distinct") or []
            if c["types"] == shown["types"] and abs(c["lag_ps"] - shown["lag_ps"]) < 1e-6
        ]
        for curve in same:
            r, g = _arrays(curve, "r_nm", "g")
            far = r > 2 * (r[1] - r[0])
            axis.plot(
                r[far],
                g[far],
                color=run.color,
                ls=run.line,
                lw=3 if run is runs[0] else None,
                label=run.label,
            )
    axis.set(
        xlabel="distance r / nm",
        ylabel=f"G(r, {shown['lag_ps']:g} ps) / density",
        xlim=(0, None),
        ylim=(0, None),
    )
    pair = "" if len({tuple(c["types"]) for c in found}) == 1 else f", {'–'.join(shown['types'])}"
    axis.set_title(f"distinct van Hove function{pair}", loc="left")


def _by_pair(curves, label, draw) -> str:
    """One panel for every pair of types, drawn by ``draw(panel, curve)``."""
    with _style():
        columns = min(len(curves), COLUMNS)
        rows = -(-len(curves) // columns)
        figure = Figure(figsize=(WIDTH, 2.9 * rows))
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for panel, curve in zip(panels, curves):
            draw(panel, curve)
            panel.set_title("–".join(curve.types), loc="left")
            panel.set_xlabel("distance r / nm")
        for panel in panels[len(curves) :]:
            panel.set_visible(False)
        panels[0].set_ylabel(label)
        panels[0].legend()
        return _svg(figure)


def potentials(curves) -> str:
    """Draw pair potentials, one panel for every pair of types.

    Parameters
    ----------
    curves : sequence of inputs.PairPotential
    """
    return _by_pair(curves, "u(r) / kJ mol⁻¹", _potential)


def _potential(panel, curve):
    r = np.asarray(curve.r, float)
    drawn = []
    for values, color, line, label in (
        (curve.initial, INITIAL, "--", "initial"),
        (curve.trained, TRAINED, "-", "trained"),
    ):
        if values is not None:
            values = np.asarray(values, float)
            panel.plot(r, values, color=color, ls=line, label=label)
            drawn.append(values)
    panel.axhline(0, color="#888888", lw=0.8)
    floor = min(v.min() for v in drawn)
    known = r >= curve.r_min if curve.r_min is not None else r > 0
    outer = max(v[known & (r > np.quantile(r[known], 0.25))].max() for v in drawn)
    height = max(2.5 * max(outer, 0), 2.0 * abs(floor), 0.5)
    panel.set_ylim(floor - 0.15 * height, height)
    left = min(r[v <= height][0] for v in drawn if (v <= height).any())
    left = max(min(left, curve.r_min or left) - 0.03, r[0])
    if curve.r_min is not None and curve.r_min > left:
        panel.axvspan(left, curve.r_min, color="#f0f0f0", lw=0)
    panel.set_xlim(left, r[-1])


def pair_friction(curves) -> str:
    """Draw friction between beads, one panel for every pair of types.

    Parameters
    ----------
    curves : sequence of inputs.PairFrictionCurve
    """
    return _by_pair(curves, "friction / ps⁻¹", _friction)


def _friction(panel, curve):
    for pair, color, name in (
        (curve.initial, INITIAL, "initial"),
        (curve.trained, TRAINED, "trained"),
    ):
        for values, line, direction in zip(pair, ("-", ":"), ("parallel", "perpendicular")):
            panel.plot(curve.r, values, color=color, ls=line, label=f"{name}, {direction}")
    panel.set_xlim(curve.r[0], curve.r[-1])
    panel.set_ylim(bottom=0)


def memory(kernels) -> str:
    """Return memory kernels K(t) and their running integrals.

    Parameters
    ----------
    kernels : sequence of inputs.Memory
    """
    with _style():
        figure = Figure(figsize=(WIDTH, 3.0))
        left, right = figure.subplots(1, 2)
        palette = {"initial": (INITIAL, "--"), "trained": (TRAINED, "-")}
        spare = iter(OTHERS * 4)
        for kernel in kernels:
            color, line = palette.get(kernel.label) or (next(spare), "-")
            t, k = np.asarray(kernel.time, float), np.asarray(kernel.kernel, float)
            left.plot(t, k, color=color, ls=line, label=kernel.label)
            steps = np.diff(t) * (k[1:] + k[:-1]) / 2
            grown = kernel.instantaneous + np.concatenate([[0.0], np.cumsum(steps)])
            right.plot(t, grown, color=color, ls=line, label=kernel.label)
            right.axhline(kernel.effective, color=color, lw=0.9, ls=":")
        left.axhline(0, color="#888888", lw=0.8)
        left.set(xlabel="time t / ps", ylabel="K(t) / ps⁻²", xlim=(0, None))
        left.set_title("memory kernel", loc="left")
        right.set(xlabel="time t / ps", ylabel="γ₀ + ∫₀ᵗ K / ps⁻¹", xlim=(0, None))
        right.set_ylim(min(0, right.get_ylim()[0]))
        right.set_title("running friction (dotted: integrated friction)", loc="left")
        left.legend()
        return _svg(figure)


def training(panels: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]) -> str:
    """Draw curves over training iterations, one panel for each group.

    Parameters
    ----------
    panels : dict
        ``{title: {curve name: (iterations, values)}}``.
    """
    with _style():
        columns = min(len(panels), 2)
        rows = -(-len(panels) // columns)
        figure = Figure(figsize=(WIDTH, 2.7 * rows))
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        colors = (TRAINED, INITIAL, *OTHERS, "#555555", "#56b4e9", "#8c564b", "#9acd32")
        for axis, (title, curves) in zip(axes, panels.items()):
            for color, (name, (x, y)) in zip(colors, curves.items()):
                axis.plot(x, y, color=color, lw=1.3, label=name)
            values = np.concatenate([y for _, y in curves.values()])
            if values.min() > 0 and values.max() > 50 * values.min():
                axis.set_yscale("log")
            axis.set_title(title, loc="left")
            axis.set_xlabel("iteration")
            axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            if len(curves) < 5:
                axis.legend(fontsize=7.5)
                continue
            # Many names need room of their own above the curves.
            bottom, top = axis.get_ylim()
            room = (
                (top / bottom) ** 0.6
                if axis.get_yscale() == "log"
                else 1 + 0.6 * (1 - bottom / top)
            )
            axis.set_ylim(bottom, top * room)
            axis.legend(fontsize=7, ncol=3, loc="upper center", columnspacing=1.0, handlelength=1.2)
        for axis in axes[len(panels) :]:
            axis.set_visible(False)
        return _svg(figure)


def validation(
    curves: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]],
    reference: dict,
    floor: dict,
    length: float | None = None,
) -> str:
    """Draw the observables of validations in OpenMM during training, with all-atom and the tolerances.

    Parameters
    ----------
    curves : dict
        ``{observable: (iterations, values, standard errors)}``, named as in `metrics`; "diffusion" and "msd" relative to all-atom.
    reference, floor : dict
        Observables of the reference and its noise floor.
    length : float, optional
        Length of a validation, ps.
    """
    with _style():
        columns = min(len(curves), 2)
        rows = -(-len(curves) // columns)
        figure = Figure(figsize=(WIDTH, 2.7 * rows))
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for axis, (name, (x, y, error)) in zip(axes, curves.items()):
            axis.errorbar(
                x,
                y,
                error if error.any() else None,
                color=TRAINED,
                marker="o",
                ms=3,
                capsize=2,
                elinewidth=0.9,
            )
            known = reference.get(name)
            if known is not None:
                axis.axhline(known, color=REFERENCE, lw=1, label="all-atom")
            if name in ("msd", "diffusion"):
                t = TOLERANCES.of(name, reference, floor)
                axis.axhline(0, color=REFERENCE, lw=1, label="all-atom")
                axis.axhspan(-t, t, color=BAND, lw=0, label="tolerance")
            elif name in OBSERVABLES:
                t = TOLERANCES.of_short_run(name, reference, floor, length)
                axis.axhspan(0, t, color=BAND, lw=0, label="tolerance")
                axis.set_ylim(0, max(1.2 * t, axis.get_ylim()[1]))
                if floor.get(name) is not None:
                    axis.axhline(
                        floor[name],
                        color="#777777",
                        ls=":",
                        lw=1.2,
                        label="noise floor of all-atom",
                    )
            axis.set_title(VALIDATION_TITLES.get(name, name), loc="left")
            axis.set_xlabel("iteration")
            axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            if axis.get_legend_handles_labels()[0]:
                axis.legend(fontsize=7.5)
        for axis in axes[len(curves) :]:
            axis.set_visible(False)
        return _svg(figure)


def cost(series, titles: dict[str, str]) -> str:
    """Draw the deviations of validations against the wall-clock time of training.

    Parameters
    ----------
    series : list of cost.ValidationSeries
    titles : dict
        Name of each observable.
    """
    with _style():
        columns = min(len(series), COLUMNS)
        rows = -(-len(series) // columns)
        figure = Figure(figsize=(WIDTH, 2.5 * rows))
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for axis, one in zip(axes, series):
            least = 0.05 * one.tolerance
            axis.axhspan(least, one.tolerance, color=BAND, lw=0, label="tolerance")
            shown = np.maximum(one.deviation, least)
            low = np.minimum(one.error, shown - 0.9 * least)
            axis.errorbar(
                one.seconds,
                shown,
                [low, one.error],
                color=TRAINED,
                marker="o",
                ms=3,
                capsize=2,
                elinewidth=0.9,
            )
            axis.set_yscale("log")
            axis.set_ylim(least)
            axis.set_xlim(0)
            if one.met_after is not None:
                axis.axvline(
                    one.met_after, color="#777777", ls=":", lw=1.2, label="within tolerance after"
                )
            axis.set_title(titles[one.observable], loc="left")
            axis.set_xlabel("time / s")
            axis.xaxis.set_major_locator(MaxNLocator(4))
        axes[0].legend(fontsize=7.5)
        for axis in axes[len(series) :]:
            axis.set_visible(False)
        return _svg(figure)


VALIDATION_TITLES = {
    "msd": "MSD: largest relative deviation",
    "diffusion": "D: relative deviation",
    "rdf_l1": "g(r): relative difference",
    "adf_l1": "angles: difference",
    "vacf_rms": "VACF: rms difference",
    "temperature_K": "temperature / K",
    "transverse_current_difference": "transverse current: largest difference",
    "shared_difference": "displacement correlation: largest difference",
}


def _style():
    return matplotlib.rc_context(STYLE)


def _stacked(n, ratio, height):
    """Figure with n pairs of a large panel above a small one that share their x axis."""
    columns = min(n, COLUMNS)
    rows = -(-n // columns)
    figure = Figure(figsize=(WIDTH, height * rows))
    axes = figure.subplots(
        2 * rows, columns, squeeze=False, gridspec_kw={"height_ratios": [ratio, 1] * rows}
    )
    panels = [
        (axes[2 * row, k], axes[2 * row + 1, k]) for row in range(rows) for k in range(columns)
    ]
    for top, bottom in panels[:n]:
        top.sharex(bottom)
        top.tick_params(labelbottom=False)
    for unused in panels[n:]:
        for axis in unused:
            axis.set_visible(False)
    return figure, panels[:n]


def _svg(figure):
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _arrays(curve, *names):
    return [np.array(curve[name], dtype=float) for name in names]


def _same(curves, key, value):
    return next((c for c in curves or [] if c[key] == value), None)


def _onset(r, g):
    """Where the axis of a g(r) starts: a little before its first value above 0.01."""
    return max(r[np.argmax(g > 0.01)] - 0.05, 0.0)
