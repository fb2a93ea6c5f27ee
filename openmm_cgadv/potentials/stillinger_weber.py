"""The Stillinger–Weber potential, and mW water, as a special case of pair splines and three-body densities."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from .spec import PotentialSpec
from .splines import spline_basis
from .terms import PairSpec, ThreeBodySpec

KCAL = 4.184
"""One kilocalorie (kJ)."""


def spline_fit(
    function: Callable[[np.ndarray], np.ndarray], r_min: float, r_max: float, n: int
) -> np.ndarray:
    """Return the least-squares spline coefficients [n] of a function that vanishes smoothly at ``r_max``."""
    r = r_min + (r_max - r_min) * (np.arange(8 * n) + 0.5) / (8 * n)
    design = spline_basis(torch.from_numpy(r), r_min, r_max, n).numpy()
    return np.linalg.lstsq(design, function(r), rcond=None)[0]


def stillinger_weber(
    *,
    epsilon: float,
    sigma: float,
    a: float,
    strength: float,
    gamma: float,
    cos_theta: float,
    A: float,
    B: float,
    p: float,
    q: float,
    type_name: str = "A",
    n_basis: int = 600,
    r_min: float | None = None,
) -> tuple[PotentialSpec, torch.Tensor]:
    r"""Return a one-component Stillinger–Weber potential (Stillinger and Weber 1985, doi:10.1103/PhysRevB.31.5262).

    ``U = Σ_{i<j} A ε [B (σ/r)^p − (σ/r)^q] e^{σ/(r − aσ)}
    + Σ_i Σ_{j<k} λ ε (cos θ_jik − cos θ_0)² e^{γσ/(r_ij − aσ)} e^{γσ/(r_ik − aσ)}``

    The angular factor is exact in Legendre polynomials up to l = 2. Splines approximate both radial functions; with the
    default number their error is below 10⁻⁶ of the largest value for r > ``r_min``.

    Parameters
    ----------
    epsilon : float
        (kJ/mol)
    sigma : float
        (nm)
    strength : float
        λ.
    r_min : float, optional
        First knot of the splines (nm), 0.8 σ by default; a repulsive core acts below.

    Returns
    -------
    spec : PotentialSpec
    theta : Tensor [P]
        (kJ/mol)
    """
    r_cut = a * sigma
    r_min = 0.8 * sigma if r_min is None else r_min

    def pair(r: np.ndarray) -> np.ndarray:
        return A * epsilon * (B * (sigma / r) ** p - (sigma / r) ** q) * np.exp(sigma / (r - r_cut))

    def radial(r: np.ndarray) -> np.ndarray:
        return np.exp(gamma * sigma / (r - r_cut))

    theta_pair = spline_fit(pair, r_min, r_cut, n_basis)
    g = spline_fit(radial, r_min, r_cut, n_basis)
    # (cos θ − c)² = P_0 (1/3 + c²) − 2 c P_1 + 2/3 P_2; the sum over ordered pairs counts every triplet twice.
    angular = 0.5 * strength * epsilon * np.array([1 / 3 + cos_theta**2, -2 * cos_theta, 2 / 3])
    spec = PotentialSpec(
        (type_name,),
        (
            PairSpec((r_min,), r_cut, n_basis, (1e6 * epsilon / sigma**3,)),
            ThreeBodySpec(r_min, r_cut, n_basis, (tuple(g.tolist()),), 2),
        ),
    )
    return spec, torch.from_numpy(np.concatenate([theta_pair, angular]))


def mw_water(n_basis: int = 600) -> tuple[PotentialSpec, torch.Tensor]:
    """Return the mW model of monatomic water (Molinero and Moore 2009, doi:10.1021/jp805227c)."""
    return stillinger_weber(
        epsilon=6.189 * KCAL,
        sigma=0.23925,
        a=1.8,
        strength=23.15,
        gamma=1.2,
        cos_theta=-1 / 3,
        A=7.049556277,
        B=0.6022245584,
        p=4.0,
        q=0.0,
        type_name="mW",
        n_basis=n_basis,
    )
