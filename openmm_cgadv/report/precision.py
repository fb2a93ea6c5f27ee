"""Precision of the diffusion coefficient of a model relative to the reference, and its contributions."""

from __future__ import annotations

import math

from ..units import CM2_PER_S
from .text import percent

PARTS = {
    "from_reference": "the reference",
    "from_production": "production",
    "from_training": "the spread of the friction in training",
}


def diffusion_ratio(
    run: dict, reference: dict, mass: float, kT: float, friction_stderr: float | None
) -> dict:
    """Return the ratio of the diffusion coefficients of a model and of the reference, and its standard error.

    The friction coefficients that different forces cause are taken as additive, ``D = kT / (m (gamma + gamma'))``, so an
    error of the friction changes D by ``dD/D = m D dgamma / kT``.

    Parameters
    ----------
    run, reference : dict
        From `metrics.metrics`.
    mass : float
        Mean mass of a bead, dalton.
    kT : float
        kJ/mol.
    friction_stderr : float or None
        Standard error of the fitted friction, 1/ps; None if it is not known.

    Returns
    -------
    dict
        ``diffusion_ratio``, the relative standard errors ``from_reference``, ``from_production`` and
        ``from_training``, and the standard error ``stderr`` of the ratio; None what is not known.
    """
    value, truth = run.get("diffusion_cm2_per_s"), reference.get("diffusion_cm2_per_s")
    out: dict[str, float | None] = dict.fromkeys(("diffusion_ratio", *PARTS, "stderr"))
    if not value or not truth:
        return out
    out["diffusion_ratio"] = value / truth
    if reference.get("diffusion_stderr") is not None:
        out["from_reference"] = reference["diffusion_stderr"] / truth
    if run.get("diffusion_stderr") is not None:
        out["from_production"] = run["diffusion_stderr"] / value
    if friction_stderr is not None:
        out["from_training"] = mass * value / CM2_PER_S * friction_stderr / kT
    known = [part for name in PARTS if (part := out[name]) is not None]
    out["stderr"] = value / truth * math.hypot(*known) if known else None
    return out


def sentence(found: dict) -> str | None:
    """Return the ratio and the contributions to its error in one sentence, or None if there is none."""
    if found.get("stderr") is None:
        return None
    parts = ", ".join(
        f"{percent(found[name])} from {what}"
        for name, what in PARTS.items()
        if found[name] is not None
    )
    return (
        f"D relative to all-atom is {found['diffusion_ratio']:.3f} ± {found['stderr']:.3f}. The error has these "
        f"contributions: {parts}."
    )
