"""Pairwise friction from the correlation of residual forces of neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.integrate import trapezoid
from scipy.optimize import nnls

from ..data.trajectory import BeadTrajectory
from ..potentials import PotentialSpec
from ..potentials.neighbors import neighbor_pairs
from ..potentials.splines import spline_weights
from ..potentials.terms.type_pairs import type_pairs
from ..units import KB
from .residual_forces import residual_forces


@dataclass(frozen=True)
class ResidualSettings:
    """Settings of the correlation of residual forces."""

    bin_width: float = 0.02
    """Width of the bins of distance (nm)."""
    longest: int = 64
    """Largest lag (frames)."""
    origins: int = 100
    """Largest number of time origins."""
    ridge: float = 1e-3
    """Weight of the regularization of spline coefficients, relative to the mean diagonal of the
    normal matrix; it matters at distances without pairs."""


@dataclass(frozen=True, eq=False)
class PairResiduals:
    r"""Correlation functions of residual forces of single beads and of pairs of beads.

    Friction and noise represent the residual force δF = F_AA − F_CG on a bead. Pairwise noise acts on both beads with
    opposite signs. At distance r, parallel and perpendicular to the pair vector at time 0,

        K(r, t) = −⟨δF_i(0) δF_j(t) | r⟩ / (μ kT)

    is the memory kernel of pairwise friction: the pairwise form of the estimator of Izvekov and Voth (2006,
    doi:10.1063/1.2360580) for single-particle friction. The forces on all beads sum to zero in the reference and in the
    model, so the sum over all neighbours is the autocorrelation of the force on a bead. The forces evolve with the real
    dynamics, not the projected one, so the estimate is valid only at short times.

    Attributes
    ----------
    times : ndarray [T]
        (ps)
    r : ndarray [R]
        Centres of the bins of distance (nm).
    memory : ndarray [n_type_pairs, 2, R, T]
        K parallel and perpendicular to the pair vector (1/ps²).
    neighbors : ndarray [n_type_pairs, R]
        Mean number of pairs in a bin, divided by the number of beads.
    own : ndarray [n_types, T]
        ⟨δF_i(0) · δF_i(t)⟩ / (3 m kT) (1/ps²).
    """

    times: np.ndarray
    r: np.ndarray
    memory: np.ndarray
    neighbors: np.ndarray
    own: np.ndarray

    @classmethod
    def measure(
        cls,
        trajectory: BeadTrajectory,
        spec: PotentialSpec,
        theta: np.ndarray,
        settings: ResidualSettings = ResidualSettings(),
    ) -> PairResiduals:
        """Compute the correlation functions up to the cutoff of a potential.

        Parameters
        ----------
        trajectory : BeadTrajectory
            Reference with forces.
        spec : PotentialSpec
        theta : ndarray [P]
            (kJ/mol)
        settings : ResidualSettings
        """
        types, masses = torch.from_numpy(trajectory.types), trajectory.masses
        n_types, kT = spec.n_types, KB * trajectory.temperature
        lags = time_lags(trajectory.n_frames, settings.longest)
        edges = np.arange(0.0, spec.r_cut + 1e-9, settings.bin_width)
        pairs, bins = n_types * (n_types + 1) // 2, len(edges) - 1
        sums = np.zeros([2, pairs * bins * len(lags)])
        counts = np.zeros(pairs * bins)
        own = np.zeros([n_types, len(lags)])
        numbers = np.bincount(trajectory.types, minlength=n_types)
        origins = np.unique(
            np.linspace(0, trajectory.n_frames - 1 - lags[-1], settings.origins).astype(int)
        )
        for origin in origins:
            residual = residual_forces(trajectory, spec, theta, list(origin + lags))
            x, box = (
                torch.from_numpy(part[0])
                for part in (trajectory.positions([origin]), trajectory.boxes([origin]))
            )
            pair_i, pair_j, d, r = neighbor_pairs(x, box, edges[-1])
            place = (
                type_pairs(types[pair_i], types[pair_j], n_types) * bins
                + (r / settings.bin_width).to(torch.int64).clamp(max=bins - 1)
            ).numpy()
            i, j, unit = pair_i.numpy(), pair_j.numpy(), (d / r[:, None]).numpy()
            counts += np.bincount(place, minlength=len(counts))
            at = place[None] * len(lags) + np.arange(len(lags))[:, None]
            mass = 2.0 * masses[i] * masses[j] / (masses[i] + masses[j])
            for a, b in ((i, j), (j, i)):
                parallel = np.einsum("mc,mc->m", residual[0, a], unit) * np.einsum(
                    "tmc,mc->tm", residual[:, b], unit
                )
                perpendicular = 0.5 * (
                    np.einsum("mc,tmc->tm", residual[0, a], residual[:, b]) - parallel
                )
                for total, part in zip(sums, (parallel, perpendicular)):
                    total -= np.bincount(
                        at.ravel(), (0.5 * part / (mass * kT)).ravel(), minlength=len(total)
                    )
            each = np.einsum("nc,tnc->tn", residual[0], residual) / (3.0 * masses * kT)
            for bead_type in range(n_types):
                own[bead_type] += each[:, trajectory.types == bead_type].sum(1) / numbers[bead_type]
        memory = (
            sums.reshape(2, pairs, bins, -1) / np.maximum(counts, 1).reshape(pairs, bins, 1)
        ).swapaxes(0, 1)
        return cls(
            lags * trajectory.frame_interval,
            0.5 * (edges[1:] + edges[:-1]),
            memory,
            counts.reshape(pairs, bins) / (len(origins) * trajectory.n_beads),
            own / len(origins),
        )

    def splines(
        self,
        rates: np.ndarray,
        r_min: np.ndarray,
        r_cut: float,
        n_basis: int,
        ridge: float = ResidualSettings.ridge,
    ) -> np.ndarray:
        """Return spline coefficients of pairwise friction with this memory kernel.

        At every distance ``K(t) = Σ_k f_k² exp(−α_k t)`` is fitted with the given rates. The part that decays within one
        frame becomes instantaneous (Markovian) friction, with its area by the trapezoidal rule.

        Parameters
        ----------
        rates : ndarray [n_type_pairs, K]
            α_k (1/ps).
        r_min : ndarray [n_type_pairs]
            Start of the splines (nm).
        r_cut : float
            Cutoff of the splines (nm).
        n_basis : int
            Number of splines.
        ridge : float
            See :class:`ResidualSettings`.

        Returns
        -------
        ndarray [n_type_pairs, K + 1, 2, n_basis]
            Coefficients as in :class:`~openmm_cgadv.dynamics.PairFriction`.
        """
        out = np.zeros([len(rates), rates.shape[1] + 1, 2, n_basis])
        for p, alpha in enumerate(rates):
            decay = np.exp(-alpha * self.times[:, None])
            design = np.concatenate([(self.times == 0.0)[:, None].astype(float), decay], 1)
            area = np.append(0.5 * self.times[1], np.ones(len(alpha)))
            used = (self.neighbors[p] > 0) & (self.r < r_cut)
            first, weights = spline_weights(
                torch.from_numpy(self.r[used]),
                torch.full([int(used.sum())], r_min[p]),
                r_cut,
                n_basis,
            )
            values = np.zeros([int(used.sum()), n_basis + 3])
            np.put_along_axis(values, first.numpy()[:, None] + np.arange(4), weights.numpy(), 1)
            values, n = values[:, :n_basis], self.neighbors[p, used][:, None]
            normal = values.T @ (n * values)
            normal += ridge * np.trace(normal) / n_basis * np.eye(n_basis)
            for direction in range(2):
                squares = (
                    np.array([nnls(design, k)[0] for k in self.memory[p, direction, used]]) * area
                )
                out[p, :, direction] = np.linalg.solve(normal, values.T @ (n * np.sqrt(squares))).T
        return out

    def own_friction(self, longest: float) -> np.ndarray:
        """Return the integral of the force autocorrelation up to the time `longest` (ps) [n_types] (1/ps)."""
        used = self.times <= longest * (1 + 1e-9)
        return trapezoid(self.own[:, used], self.times[used])

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes in JSON types."""
        return {
            name: getattr(self, name).tolist()
            for name in ("times", "r", "memory", "neighbors", "own")
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> PairResiduals:
        """Return the object that :meth:`to_dict` described."""
        return cls(**{name: np.array(value) for name, value in data.items()})


def time_lags(n_frames: int, longest: int = ResidualSettings.longest) -> np.ndarray:
    """Return lags (frames): all small ones, then with a ratio of 1.2, up to `longest`."""
    lags = [0]
    while lags[-1] < min(longest, n_frames // 4):
        lags.append(max(lags[-1] + 1, round(1.2 * lags[-1])))
    return np.array(lags)
