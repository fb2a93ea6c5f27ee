"""Three-body energy as a correlation of neighbour densities, linear in the number of neighbours."""

from dataclasses import dataclass

import numpy as np
import openmm
import torch
from torch import Tensor

from ...errors import InputError
from ..splines import spline_weights, tabulated_spline
from .base import Term, check_range

MAX_L = 8
"""Highest ``l_max`` that the compiled kernels handle."""

LEAST_DEVIATION = 0.01
"""Default of the lower bound of the standard deviation of basis functions, relative to its root mean square over all of
them. Basis functions below the bound belong to contacts that hardly occur, such as large beads at distances of small ones.
Without the bound, training would assign such contacts energies that the repulsive core cannot balance."""


@dataclass(frozen=True)
class ThreeBodySpec(Term):
    """Three-body energy Σ_i Σ_{q≤q'} Σ_l c_{a_i q q' l} Σ_{j≠k} g_q(r_ij) g_q'(r_ik) P_l(cos θ_jik).

    A channel q is a bead type of the neighbour and a radial function. Its parameters are the coefficients c
    [n_types, n_channel_pairs, l_max + 1] (kJ/mol).

    Attributes
    ----------
    r_min, r_cut : float
        First knot and cutoff of the splines of the radial functions (nm).
    n_basis : int
        Number of cubic B-splines.
    radial : tuple of tuple of float
        Coefficients ``[n_radial][n_basis]`` of the radial functions g_n in those splines.
    l_max : int
        Highest Legendre order of the angle.
    """

    r_min: float
    r_cut: float
    n_basis: int
    radial: tuple[tuple[float, ...], ...]
    l_max: int

    tag = "three_body"
    schema = 1
    code = 2

    def __post_init__(self) -> None:
        check_range("three_body", self.n_basis, self.r_cut, self.r_min)
        if not self.radial or any(len(row) != self.n_basis for row in self.radial):
            raise InputError(
                f"three_body.radial: found rows of {sorted({len(row) for row in self.radial})} "
                f"coefficients, expected one row or more of {self.n_basis}"
            )
        if not np.isfinite(self.radial).all():
            raise InputError("three_body.radial: found a coefficient that is not finite")
        if self.l_max < 0:
            raise InputError(f"three_body.l_max: found {self.l_max}, expected 0 or more")

    @classmethod
    def splines(cls, r_min: float, r_cut: float, n_radial: int, l_max: int) -> "ThreeBodySpec":
        """Return the term with ``n_radial`` B-splines as radial functions."""
        identity = tuple(tuple(row) for row in np.eye(n_radial).tolist())
        return cls(r_min, r_cut, n_radial, identity, l_max)

    @property
    def n_radial(self) -> int:
        """Number of radial functions."""
        return len(self.radial)

    def n_channel_pairs(self, n_types: int) -> int:
        """Return the number of unordered pairs of channels."""
        channels = n_types * self.n_radial
        return channels * (channels + 1) // 2

    def n_parameters(self, n_types: int) -> int:
        return n_types * self.n_channel_pairs(n_types) * (self.l_max + 1)

    def module(self, n_types: int) -> "ThreeBodyDensity":
        return ThreeBodyDensity(self, n_types)

    def penalty(self, n_types: int) -> np.ndarray:
        """Return the matrix of the sum of the squared coefficients."""
        return np.eye(self.n_parameters(n_types))

    def least_deviation(self, deviation: Tensor) -> Tensor:
        return deviation.clamp_min(LEAST_DEVIATION * float(deviation.square().mean().sqrt()))

    def summary(self) -> dict[str, float]:
        return {"three_body_cutoff": self.r_cut}

    def pack(self) -> tuple[list[int], list[float]]:
        if self.l_max > MAX_L:
            raise InputError(
                f"three_body.l_max: found {self.l_max}, the compiled kernels handle up to {MAX_L}"
            )
        numbers = [self.r_min, self.r_cut, *(g for row in self.radial for g in row)]
        return [self.n_basis, self.n_radial, self.l_max], numbers

    def openmm_forces(
        self, theta: np.ndarray, types: np.ndarray, n_types: int
    ) -> list[openmm.Force]:
        """Return a CustomManyParticleForce.

        Its cost grows with the number of triplets, that of the density form with the number of neighbours.
        """
        n, radial, orders = n_types, self.n_radial, self.l_max + 1
        channels = n * radial
        upper = theta.reshape(n, self.n_channel_pairs(n), orders)
        # An unordered pair of neighbours contributes to every ordered pair of channels once, to equal ones twice.
        full = np.zeros([n, channels, channels, orders])
        q, q2 = np.triu_indices(channels)
        full[:, q, q2] = upper
        full[:, q2, q] += upper
        full = full.reshape(n, n, radial, n, radial, orders).transpose(2, 4, 5, 0, 1, 3)

        tables, where = {}, f"(type1*{n}+type2)*{n}+type3"
        definitions = []
        for k in range(radial):
            weights = np.asarray(self.radial[k])
            tables[f"g{k}"], slope = tabulated_spline(weights, self.r_min, self.r_cut)
            for end in "23":
                definitions.append(
                    f"g{k}{end} = g{k}(max(r{end},{self.r_min!r}))"
                    f" + ({slope!r})*min(r{end}-{self.r_min!r},0)"
                )
        legendre = {0: "1", 1: "c"}
        for order in range(2, orders):
            definitions.append(
                f"p{order} = ({2 * order - 1}*c*{legendre[order - 1]}"
                f" - {order - 1}*{legendre[order - 2]})/{order}"
            )
            legendre[order] = f"p{order}"
        terms = []
        for order in range(orders):
            products = []
            for k in range(radial):
                for k2 in range(radial):
                    values = full[k, k2, order]
                    if n == 1:
                        factor = f"({float(values.item())!r})"
                    else:
                        tables[f"c{k}{k2}{order}"] = openmm.Discrete1DFunction(values.ravel())
                        factor = f"c{k}{k2}{order}(where)"
                    products.append(f"{factor}*g{k}2*g{k2}3")
            terms.append(f"{legendre[order]}*({' + '.join(products)})")
        # A definition may use later ones.
        lines = [" + ".join(terms), *reversed(definitions)]
        lines += ["c = cos(angle(p2,p1,p3))", "r2 = distance(p1,p2)", "r3 = distance(p1,p3)"]
        if n > 1:
            lines.append(f"where = {where}")
        inside = f"step({self.r_cut!r}-r2)*step({self.r_cut!r}-r3)"
        lines[0] = f"{inside}*({lines[0]})"
        force = openmm.CustomManyParticleForce(3, "; ".join(lines))
        for name, table in tables.items():
            force.addTabulatedFunction(name, table)
        if n > 1:
            force.addPerParticleParameter("type")
        for bead_type in types:
            force.addParticle([float(bead_type)] if n > 1 else [], 0)
        force.setPermutationMode(openmm.CustomManyParticleForce.UniqueCentralParticle)
        force.setNonbondedMethod(openmm.CustomManyParticleForce.CutoffPeriodic)
        force.setCutoffDistance(self.r_cut)
        force.setName("CGAdvThreeBody")
        return [force]


def spherical_harmonics(unit: Tensor, l_max: int) -> Tensor:
    """Return real spherical harmonics in Racah's normalization, Σ_m C_lm(a) C_lm(b) = P_l(a·b).

    Parameters
    ----------
    unit : Tensor [M, 3]
        Unit vectors.
    l_max : int
        Highest order.

    Returns
    -------
    Tensor [M, (l_max + 1)²]
        By order l; within an order m = 0, then cosine and sine of m = 1, 2 …
    """
    x, y, z = unit[:, 0], unit[:, 1], unit[:, 2]
    one = torch.ones_like(z)
    cosine = [one]
    sine = [torch.zeros_like(z)]
    for m in range(l_max):
        cosine.append(x * cosine[m] - y * sine[m])
        sine.append(x * sine[m] + y * cosine[m])
    orders: list[list[Tensor]] = []
    for _ in range(l_max + 1):
        empty: list[Tensor] = []
        orders.append(empty)
    start = one
    for m in range(l_max + 1):
        before, legendre = torch.zeros_like(z), start
        norm = 1.0 if m == 0 else 2.0
        for k in range(2 * m):
            norm = norm / (k + 1)
        for l in range(m, l_max + 1):
            if l > m:
                following = ((2 * l - 1) * z * legendre - (l + m - 1) * before) / (l - m)
                before, legendre = legendre, following
                norm = norm * (l - m) / (l + m)
            if m == 0:
                orders[l].append(legendre)
            else:
                orders[l].append(norm**0.5 * legendre * cosine[m])
                orders[l].append(norm**0.5 * legendre * sine[m])
        start = start * (2 * m + 1)
    flat: list[Tensor] = []
    for order in orders:
        flat.extend(order)
    return torch.stack(flat, dim=-1)


class ThreeBodyDensity(torch.nn.Module):
    """Compute the three-body energy in plain torch operators, see :class:`ThreeBodySpec` and :meth:`Term.module`.

    The sum over ordered pairs of neighbours j ≠ k is Σ_m A_qlm A_q'lm minus its self term j = k, with the densities
    A_qlm = Σ_j g_q(r_ij) C_lm(r_ij) and Racah-normalized real spherical harmonics C_lm
    (Bartók, Kondor and Csányi 2013, doi:10.1103/PhysRevB.87.184115). Beads at the position of i
    do not count as its neighbours.
    """

    r_min: Tensor
    radial: Tensor
    q: Tensor
    q2: Tensor
    sum_over_m: Tensor

    def __init__(self, term: ThreeBodySpec, n_types: int) -> None:
        super().__init__()
        self.r_cut: float = float(term.r_cut)
        self.n_basis: int = term.n_basis
        self.n_types: int = n_types
        self.n_radial: int = term.n_radial
        self.l_max: int = term.l_max
        channels = self.n_types * self.n_radial
        q, q2 = torch.triu_indices(channels, channels)
        order = torch.repeat_interleave(
            torch.arange(self.l_max + 1), 2 * torch.arange(self.l_max + 1) + 1
        )
        self.register_buffer("r_min", torch.tensor(term.r_min, dtype=torch.float64))
        self.register_buffer("radial", torch.tensor(term.radial, dtype=torch.float64))
        self.register_buffer("q", q)
        self.register_buffer("q2", q2)
        self.register_buffer("sum_over_m", torch.nn.functional.one_hot(order).to(torch.float64))

    def forward(
        self,
        theta: Tensor,
        types: Tensor,
        i: Tensor,
        j: Tensor,
        displacement: Tensor,
        distance: Tensor,
    ) -> Tensor:
        near = distance < self.r_cut
        i, j = torch.cat([i[near], j[near]]), torch.cat([j[near], i[near]])
        displacement = torch.cat([displacement[near], -displacement[near]])
        distance = torch.cat([distance[near], distance[near]])
        n = types.shape[0]
        first, weights = spline_weights(
            distance, self.r_min.expand_as(distance), self.r_cut, self.n_basis
        )
        table = torch.nn.functional.pad(self.radial, [0, 3]).T
        index = first[:, None] + torch.arange(4, device=first.device)
        # A neighbour at the position of the bead has no direction and does not count.
        apart = distance > 0.0
        weights = torch.where(apart[:, None], weights, torch.zeros_like(weights))
        g = (weights[:, :, None] * table[index]).sum(1)
        unit = displacement / torch.where(apart, distance, torch.ones_like(distance))[:, None]
        harmonics = spherical_harmonics(unit, self.l_max)

        channels = self.n_types * self.n_radial
        where = i * self.n_types + types[j]
        density = torch.zeros(
            [n * self.n_types, self.n_radial, harmonics.shape[1]], dtype=g.dtype, device=g.device
        )
        density = density.index_add(0, where, g[:, :, None] * harmonics[:, None, :])
        density = density.reshape(n, channels, -1)
        both = (density[:, self.q] * density[:, self.q2]) @ self.sum_over_m

        own = torch.zeros(
            [n * self.n_types, self.n_radial, self.n_radial], dtype=g.dtype, device=g.device
        )
        own = own.index_add(0, where, g[:, :, None] * g[:, None, :])
        own = own.reshape(n, self.n_types, self.n_radial, self.n_radial)
        radial, radial2 = self.q % self.n_radial, self.q2 % self.n_radial
        type1 = torch.div(self.q, self.n_radial, rounding_mode="floor")
        type2 = torch.div(self.q2, self.n_radial, rounding_mode="floor")
        own_pairs = own[:, type1, radial, radial2] * (type1 == type2)
        own_orders = torch.ones_like(both) * own_pairs[:, :, None]
        coefficients = theta.reshape(self.n_types, len(self.q), -1)
        return (coefficients[types] * (both - own_orders)).sum([1, 2]).sum()
