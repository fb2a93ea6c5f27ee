"""The shape of a learned potential: bead types, spline ranges and basis sizes, without its parameters."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np


@dataclass(frozen=True)
class PairSpec:
    """Ranges of the pair splines, one ``r_min`` and ``core`` per pair of bead types.

    Attributes
    ----------
    r_min : tuple of float
        Where each spline begins (nm), in row-major upper-triangle order of the type pairs.
        Below it the spline goes on linearly and the repulsive core acts.
    r_cut : float
        Cutoff (nm), where energy, force and second derivative are zero.
    n_basis : int
        Number of cubic B-splines per pair of types.
    core : tuple of float
        Stiffness κ of the core κ/6 (r_min − r)³ (kJ/mol/nm³), one per pair of types.
    """

    r_min: tuple[float, ...]
    r_cut: float
    n_basis: int
    core: tuple[float, ...]

    def __post_init__(self):
        _check_range("pair", self.n_basis, self.r_cut, *self.r_min)
        for stiffness in self.core:
            if not 0 <= stiffness < math.inf:
                raise ValueError(f"pair.core: found {stiffness}, expected 0 or more")


@dataclass(frozen=True)
class ThreeBodySpec:
    """Ranges and sizes of the three-body density-correlation term.

    Attributes
    ----------
    r_min, r_cut : float
        Range of the splines from which the radial functions are made (nm).
    n_basis : int
        Number of cubic B-splines on that range.
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

    def __post_init__(self):
        _check_range("three_body", self.n_basis, self.r_cut, self.r_min)
        if not self.radial or any(len(row) != self.n_basis for row in self.radial):
            raise ValueError(
                f"three_body.radial: found rows of {sorted({len(row) for row in self.radial})} "
                f"coefficients, expected one row or more of {self.n_basis}"
            )
        if not np.isfinite(self.radial).all():
            raise ValueError("three_body.radial: found a coefficient that is not finite")
        if self.l_max < 0:
            raise ValueError(f"three_body.l_max: found {self.l_max}, expected 0 or more")

    @classmethod
    def splines(cls, r_min: float, r_cut: float, n_radial: int, l_max: int) -> ThreeBodySpec:
        """Radial functions that are the ``n_radial`` B-splines themselves."""
        identity = tuple(tuple(row) for row in np.eye(n_radial).tolist())
        return cls(r_min, r_cut, n_radial, identity, l_max)

    @property
    def n_radial(self) -> int:
        return len(self.radial)


@dataclass(frozen=True)
class PotentialSpec:
    """Everything about a potential but its parameter vector θ.

    The parameters are one vector: pair coefficients ``[n_type_pairs, n_basis]``, then three-body
    coefficients ``[n_types, n_channel_pairs, l_max + 1]``, each flattened.
    """

    type_names: tuple[str, ...]
    pair: PairSpec
    three_body: ThreeBodySpec | None = None

    def __post_init__(self):
        for name in ("r_min", "core"):
            found = len(getattr(self.pair, name))
            if found != self.n_type_pairs:
                raise ValueError(
                    f"pair.{name}: found {found} numbers for {self.n_types} bead types, expected "
                    f"{self.n_type_pairs}, one for each pair of types"
                )

    @property
    def n_types(self) -> int:
        return len(self.type_names)

    @property
    def n_type_pairs(self) -> int:
        return self.n_types * (self.n_types + 1) // 2

    @property
    def n_channel_pairs(self) -> int:
        if self.three_body is None:
            return 0
        channels = self.n_types * self.three_body.n_radial
        return channels * (channels + 1) // 2

    @property
    def n_pair_parameters(self) -> int:
        return self.n_type_pairs * self.pair.n_basis

    @property
    def n_parameters(self) -> int:
        if self.three_body is None:
            return self.n_pair_parameters
        angular = self.three_body.l_max + 1
        return self.n_pair_parameters + self.n_types * self.n_channel_pairs * angular

    @property
    def r_cut(self) -> float:
        """The longest range of any term (nm)."""
        return max(self.pair.r_cut, self.three_body.r_cut if self.three_body else 0.0)

    def type_pair(self, a: int, b: int) -> int:
        """Index of the unordered pair of types ``a``, ``b``."""
        a, b = min(a, b), max(a, b)
        return a * self.n_types - a * (a - 1) // 2 + (b - a)

    def to_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict) -> PotentialSpec:
        pair = data["pair"]
        three_body = data.get("three_body")
        return cls(
            tuple(data["type_names"]),
            PairSpec(tuple(pair["r_min"]), pair["r_cut"], pair["n_basis"], tuple(pair["core"])),
            three_body
            and ThreeBodySpec(
                three_body["r_min"],
                three_body["r_cut"],
                three_body["n_basis"],
                tuple(tuple(row) for row in three_body["radial"]),
                three_body["l_max"],
            ),
        )


def _check_range(term: str, n_basis: int, r_cut: float, *r_min: float) -> None:
    if n_basis < 1:
        raise ValueError(f"{term}.n_basis: found {n_basis}, expected 1 or more")
    if not 0 < r_cut < math.inf:
        raise ValueError(f"{term}.r_cut: found {r_cut} nm, expected more than 0")
    for r in r_min:
        if not 0 <= r < r_cut:
            raise ValueError(f"{term}.r_min: found {r} nm, expected 0 to the cutoff of {r_cut} nm")
