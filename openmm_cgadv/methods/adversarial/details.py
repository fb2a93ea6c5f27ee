"""Sentences on how well the parameters of a finished training are determined."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any


def details(status: dict[str, Any]) -> tuple[str, ...]:
    """Return the deviations of the held-out windows, the spread of the parameters and the scatter of the validations.

    Parameters
    ----------
    status : dict
        As in the status file: ``held_out``, ``parameter_spread``, ``validated`` and ``metrics``; any may be absent.
    """
    return (
        *_held_out(status.get("held_out") or {}),
        *_spread(status.get("parameter_spread") or {}),
        *_scatter(status.get("validated") or []),
        *_exported(status.get("metrics") or {}),
    )


def _held_out(found: dict) -> Iterator[str]:
    if not found.get("lags_ps"):
        return
    # Of several bead types the one with the largest deviation at the longest lag.
    rows = zip(found["displacement_ratio"], found["displacement_ratio_stderr"])
    ratios, errors = max(rows, key=lambda row: abs((row[0][-1] or 1.0) - 1))
    parts = ", ".join(
        f"{ratio:.3f}{'' if error is None else f' ± {error:.3f}'} at {lag:g} ps"
        for lag, ratio, error in zip(found["lags_ps"], ratios, errors)
        if ratio is not None
    )
    yield f"Mean squared displacement in the last generated windows relative to the held-out windows: {parts}."


def _spread(found: dict) -> Iterator[str]:
    for name, one in found.items():
        if one.get("stderr") is None:
            continue
        what = name.replace("_", " of ", 1)
        if name.startswith("friction"):
            yield (
                f"While the learning rates decayed, the {what} was {one['value']:.3g} ± {one['stderr']:.2g}/ps (standard "
                "error of the iterate average)."
            )
        else:
            yield (
                f"The spread of the pair {what} was {one['stderr']:.2g} kT (root mean square over distances, standard error "
                "of the iterate average)."
            )


def _scatter(validated: list[dict]) -> Iterator[str]:
    known = [
        (one["validation_diffusion"], one.get("validation_diffusion_stderr") or 0.0)
        for one in validated
        if one.get("validation_diffusion")
    ]
    if len(known) < 2:
        return
    mean = sum(value for value, _ in known) / len(known)
    spread = math.sqrt(sum((value - mean) ** 2 for value, _ in known) / (len(known) - 1)) / mean
    own = math.sqrt(sum(error**2 for _, error in known) / len(known)) / mean
    yield (
        f"D of the {len(known)} validated averages scatters by {_percent(spread)}; the statistical error of a validation is "
        f"{_percent(own)}."
    )


def _exported(found: dict) -> Iterator[str]:
    parts = [
        f"{name} {_signed(found[key])} ± {_percent(found.get(f'{key}_stderr') or 0.0)}"
        for name, key in (
            ("D", "validation_diffusion_deviation"),
            ("largest mean squared displacement", "validation_msd"),
        )
        if found.get(key) is not None
    ]
    if parts:
        yield f"Deviation of the exported model from all-atom in its validation: {', '.join(parts)}."


def _percent(value: float) -> str:
    return f"{100 * value:.2g} %"


def _signed(value: float) -> str:
    return f"{100 * value:+.1f} %".replace("-", "−")
