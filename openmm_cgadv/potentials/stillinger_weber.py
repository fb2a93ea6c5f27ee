"""The Stillinger–Weber potential, and mW water, as a special case of pair splines and three-body densities."""

from __future__ import annotations

import numpy as np
import torch

from .spec import PairSpec, PotentialSpec, ThreeBodySpec
from .splines import spline_weights

KCAL = 4.184


def spline_fit(function, r_min: float, r_max: float, n: int) -> np.ndarray:
    """Coefficients of the splines closest to a function that vanishes with its derivatives at ``r_max``."""
    r = r_min + (r_max - r_min) * (np.arange(8 * n) + 0.5) / (8 * n)
    first, weights = spline_weights(torch.from_numpy(r), torch.full([len(r)], r_min, dtype=torch.float64), r_max, n)
    design = np.zeros([len(r), n + 3])
    np.put_along_axis(design, first.numpy()[:, None] + np.arange(4), weights.numpy(), 1)
    return np.linalg.lstsq(design[:, :n], function(r), rcond=None)[0]


def stillinger_weber(
    *, epsilon: float, sigma: float, a: float, strength: float, gamma: float, cos_theta: float, A: float, B: float,
    p: float, q: float, type_name: str = "A", n_basis: int = 600, r_min: float | None = None,
) -> tuple[PotentialSpec, torch.Tensor]:
    r"""One-component Stillinger–Weber potential (Stillinger and Weber 1985, doi:10.1103/PhysRevB.31.5262).

    ``U = Σ_{i<j} A ε [B (σ/r)^p − (σ/r)^q] e^{σ/(r − aσ)}
    + Σ_i Σ_{j<k} λ ε (cos θ_jik − cos θ_0)² e^{γσ/(r_ij − aσ)} e^{γσ/(r_ik − aσ)}``

    The angular factor is exact in Legendre polynomials up to l = 2; both radial functions are splines, which with
    the default number differ from them by less than 10⁻⁶ of their largest value where r > ``r_min``.

    Parameters
    ----------
    epsilon : float
        (kJ/mol)
    sigma : float
        (nm)
    strength : float
        λ.
    r_min : float, optional
        Where the splines begin (nm), 0.8 σ by default; a repulsive core acts below.

    Returns
    -------
    spec : PotentialSpec
    theta : Tensor [P]
        (kJ/mol)
    """
    r_cut = a * sigma
    r_min = 0.8 * sigma if r_min is None else r_min

    def pair(r):
        return A * epsilon * (B * (sigma / r) ** p - (sigma / r) ** q) * np.exp(sigma / (r - r_cut))

    def radial(r):
        return np.exp(gamma * sigma / (r - r_cut))

    theta_pair = spline_fit(pair, r_min, r_cut, n_basis)
    g = spline_fit(radial, r_min, r_cut, n_basis)
    # (cos θ − c)² = P_0 (1/3 + c²) − 2 c P_1 + 2/3 P_2; the sum over ordered pairs counts every triplet twice.
    angular = 0.5 * strength * epsilon * np.array([1 / 3 + cos_theta**2, -2 * cos_theta, 2 / 3])
    spec = PotentialSpec(
        (type_name,),
        PairSpec((r_min,), r_cut, n_basis, (1e6 * epsilon / sigma**3,)),
        ThreeBodySpec(r_min, r_cut, n_basis, (tuple(g.tolist()),), 2),
    )
    return spec, torch.from_numpy(np.concatenate([theta_pair, angular]))


def mw_water(n_basis: int = 600) -> tuple[PotentialSpec, torch.Tensor]:
    """Monatomic water (Molinero and Moore 2009, doi:10.1021/jp805227c)."""
    return stillinger_weber(
        epsilon=6.189 * KCAL, sigma=0.23925, a=1.8, strength=23.15, gamma=1.2, cos_theta=-1 / 3,
        A=7.049556277, B=0.6022245584, p=4.0, q=0.0, type_name="mW", n_basis=n_basis,
    )  # fmt: skip
