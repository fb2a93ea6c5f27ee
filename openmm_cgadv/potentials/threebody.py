"""Three-body energy as a correlation of neighbour densities, linear in the number of neighbours."""

import torch
from torch import Tensor

from .spec import PotentialSpec
from .splines import spline_weights


def spherical_harmonics(unit: Tensor, l_max: int) -> Tensor:
    """Real spherical harmonics in Racah's normalization, Σ_m C_lm(a) C_lm(b) = P_l(a·b).

    Parameters
    ----------
    unit : Tensor [M, 3]
        Unit vectors.
    l_max : int
        Highest order.

    Returns
    -------
    Tensor [M, (l_max + 1)²]
        Orders in turn; inside an order m = 0, then cosine and sine of m = 1, 2 …
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
    """Σ_i Σ_{q≤q'} Σ_l c_{a_i q q' l} Σ_{j≠k} g_q(r_ij) g_q'(r_ik) P_l(cos θ_jik).

    A channel q is a bead type of the neighbour and a radial function. The sum over ordered pairs of
    neighbours j ≠ k is Σ_m A_qlm A_q'lm minus its self term j = k, with the densities
    A_qlm = Σ_j g_q(r_ij) C_lm(r_ij) and Racah-normalized real spherical harmonics C_lm
    (Bartók, Kondor and Csányi 2013, doi:10.1103/PhysRevB.87.184115). Beads at the very place of i
    are not among its neighbours.
    """

    def __init__(self, spec: PotentialSpec):
        super().__init__()
        three_body = spec.three_body
        assert three_body is not None
        self.r_cut: float = float(three_body.r_cut)
        self.n_basis: int = three_body.n_basis
        self.n_types: int = spec.n_types
        self.n_radial: int = three_body.n_radial
        self.l_max: int = three_body.l_max
        channels = self.n_types * self.n_radial
        q, q2 = torch.triu_indices(channels, channels)
        order = torch.repeat_interleave(torch.arange(self.l_max + 1), 2 * torch.arange(self.l_max + 1) + 1)
        self.register_buffer("r_min", torch.tensor(three_body.r_min, dtype=torch.float64))
        self.register_buffer("radial", torch.tensor(three_body.radial, dtype=torch.float64))
        self.register_buffer("q", q)
        self.register_buffer("q2", q2)
        self.register_buffer("sum_over_m", torch.nn.functional.one_hot(order).to(torch.float64))

    def forward(
        self, coefficients: Tensor, types: Tensor, i: Tensor, j: Tensor, displacement: Tensor, distance: Tensor
    ) -> Tensor:
        """Energies of the beads.

        Parameters
        ----------
        coefficients : Tensor [n_types, n_channel_pairs, l_max + 1]
            (kJ/mol)
        types : Tensor [N] of int64
        i, j : Tensor [M] of int64
            Every ordered pair of neighbours inside the cutoff.
        displacement, distance : Tensor [M, 3], [M]
            From bead i to bead j (nm).

        Returns
        -------
        Tensor [N]
            (kJ/mol)
        """
        n = types.shape[0]
        first, weights = spline_weights(distance, self.r_min.expand_as(distance), self.r_cut, self.n_basis)
        table = torch.nn.functional.pad(self.radial, [0, 3]).T
        index = first[:, None] + torch.arange(4, device=first.device)
        # A neighbour at the very place of the bead lies in no direction and does not count.
        apart = distance > 0.0
        weights = torch.where(apart[:, None], weights, torch.zeros_like(weights))
        g = (weights[:, :, None] * table[index]).sum(1)
        unit = displacement / torch.where(apart, distance, torch.ones_like(distance))[:, None]
        harmonics = spherical_harmonics(unit, self.l_max)

        channels = self.n_types * self.n_radial
        where = i * self.n_types + types[j]
        density = torch.zeros([n * self.n_types, self.n_radial, harmonics.shape[1]], dtype=g.dtype, device=g.device)
        density = density.index_add(0, where, g[:, :, None] * harmonics[:, None, :])
        density = density.reshape(n, channels, -1)
        both = (density[:, self.q] * density[:, self.q2]) @ self.sum_over_m

        own = torch.zeros([n * self.n_types, self.n_radial, self.n_radial], dtype=g.dtype, device=g.device)
        own = own.index_add(0, where, g[:, :, None] * g[:, None, :])
        own = own.reshape(n, self.n_types, self.n_radial, self.n_radial)
        radial, radial2 = self.q % self.n_radial, self.q2 % self.n_radial
        kind = torch.div(self.q, self.n_radial, rounding_mode="floor")
        kind2 = torch.div(self.q2, self.n_radial, rounding_mode="floor")
        own_pairs = own[:, kind, radial, radial2] * (kind == kind2)
        own_orders = torch.ones_like(both) * own_pairs[:, :, None]
        return (coefficients[types] * (both - own_orders)).sum([1, 2])
