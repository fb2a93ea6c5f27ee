"""Numbers in words."""

from __future__ import annotations

import math


def percent(value: float) -> str:
    """Return a share as a percentage of two digits."""
    return f"{100 * value:.2g} %" if value < 0.0995 else f"{100 * value:.0f} %"


def signed(value: float) -> str:
    """Return a relative deviation as a percentage with its sign, without the unit."""
    return f"{100 * value:+.1f}".replace("-", "−")


def rounded_up(value: float) -> str:
    """Return a number rounded up to two digits."""
    digits = max(0, int(math.log10(value)) - 1)
    return f"{math.ceil(value / 10**digits) * 10**digits:.0f}"


def lag_words(lag: float) -> str:
    """Return a lag, ps, in fs or ps."""
    return f"{1e3 * lag:g} fs" if lag < 1 else f"{lag:g} ps"


def duration(seconds: float) -> str:
    """Return a duration in seconds, minutes or hours."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"


def listed(what: str, parts: list[str]) -> str:
    """Return a sentence that lists parts, or nothing if there are none."""
    return f"{what}: {'; '.join(parts)}." if parts else ""


def reason(m: dict | None, name: str) -> str:
    """Return why an observable is missing."""
    return ((m or {}).get("reasons") or {}).get(name) or "not measured"


def in_unit(value: float, observable: str, with_sign: bool = False) -> str:
    """Return a deviation in the unit of its observable: a percentage, or a number of three digits."""
    if observable in ("vacf_rms", "transverse_current", "displacement_correlation"):
        return f"{value:.3f}"
    text = 100 * value
    return f"{signed(value) if with_sign else f'{text:.1f}' if text % 1 else f'{text:g}'}\u202f%"
