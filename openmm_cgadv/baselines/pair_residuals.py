"""Pair friction from all-atom forces alone: how the forces that the potential leaves out are shared by neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.integrate import trapezoid
from scipy.optimize import nnls

from ..potentials import PotentialSpec
from ..potentials.neighbors import neighbor_pairs
from ..potentials.pair import type_pairs
from ..potentials.splines import spline_weights
from ..trajectory import BeadTrajectory
from ..units import KB
from .residuals import residual_forces

BIN = 0.02
"""Width of the bins of distance (nm)."""
LONGEST = 64
"""Frames between two forces that are compared, at most."""
ORIGINS = 100
STIFFNESS = 1e-3
"""Weight with which coefficients of the splines are kept small where there are no pairs."""


@dataclass(frozen=True, eq=False)
class PairResiduals:
    r"""Correlation of residual forces in time and between neighbours.

    The residual force δF = F_AA − F_CG on a bead is what friction and noise stand for. Where noise acts between pairs
    it is shared with opposite signs, so that at distance r, along and across the pair at time 0,

        K(r, t) = −⟨δF_i(0) δF_j(t) | r⟩ / (μ kT)

    is the memory of the pair's friction: the pairwise form of what Izvekov and Voth (2006,
    doi:10.1063/1.2360580) do with friction on each bead. Forces of all beads sum to zero in the reference and in
    the model, so that the sum over all neighbours is the correlation of a bead's force with itself.
    Forces move by the real dynamics here and not by the projected one, so that this is memory at short times alone.

    Attributes
    ----------
    times : ndarray [T]
        (ps)
    r : ndarray [R]
        Centres of the bins of distance (nm).
    memory : ndarray [n_type_pairs, 2, R, T]
        K along and across (1/ps²).
    neighbors : ndarray [n_type_pairs, R]
        Mean number of pairs in a bin, over the number of beads.
    own : ndarray [n_types, T]
        ⟨δF_i(0) · δF_i(t)⟩ / (3 m kT) (1/ps²).
    """

    times: np.ndarray
    r: np.ndarray
    memory: np.ndarray
    neighbors: np.ndarray
    own: np.ndarray

    @classmethod
    def measure(cls, trajectory: BeadTrajectory, spec: PotentialSpec, theta: np.ndarray) -> PairResiduals:
        """Correlate the forces of a reference, less those of a potential, up to the cutoff of the potential."""
        types, masses = torch.from_numpy(trajectory.types), trajectory.masses
        n_types, kT = spec.n_types, KB * trajectory.temperature
        lags = time_lags(trajectory.n_frames)
        edges = np.arange(0.0, spec.pair.r_cut + 1e-9, BIN)
        pairs, bins = n_types * (n_types + 1) // 2, len(edges) - 1
        sums = np.zeros([2, pairs * bins * len(lags)])
        counts = np.zeros(pairs * bins)
        own = np.zeros([n_types, len(lags)])
        numbers = np.bincount(trajectory.types, minlength=n_types)
        origins = np.unique(np.linspace(0, trajectory.n_frames - 1 - lags[-1], ORIGINS).astype(int))
        for origin in origins:
            residual = residual_forces(trajectory, spec, theta, list(origin + lags))
            x, box = (torch.from_numpy(part[0]) for part in (trajectory.positions([origin]), trajectory.boxes([origin])))
            i, j, d, r = neighbor_pairs(x, box, edges[-1])
            place = (type_pairs(types[i], types[j], n_types) * bins + (r / BIN).to(torch.int64).clamp(max=bins - 1)).numpy()
            i, j, unit = i.numpy(), j.numpy(), (d / r[:, None]).numpy()
            counts += np.bincount(place, minlength=len(counts))
            at = place[None] * len(lags) + np.arange(len(lags))[:, None]
            mass = 2.0 * masses[i] * masses[j] / (masses[i] + masses[j])
            for a, b in ((i, j), (j, i)):
                along = np.einsum("mc,mc->m", residual[0, a], unit) * np.einsum("tmc,mc->tm", residual[:, b], unit)
                across = 0.5 * (np.einsum("mc,tmc->tm", residual[0, a], residual[:, b]) - along)
                for total, part in zip(sums, (along, across)):
                    total -= np.bincount(at.ravel(), (0.5 * part / (mass * kT)).ravel(), minlength=len(total))
            each = np.einsum("nc,tnc->tn", residual[0], residual) / (3.0 * masses * kT)
            for kind in range(n_types):
                own[kind] += each[:, trajectory.types == kind].sum(1) / numbers[kind]
        memory = (sums.reshape(2, pairs, bins, -1) / np.maximum(counts, 1).reshape(pairs, bins, 1)).swapaxes(0, 1)
        return cls(
            lags * trajectory.frame_interval, 0.5 * (edges[1:] + edges[:-1]), memory,
            counts.reshape(pairs, bins) / (len(origins) * trajectory.n_beads), own / len(origins),
        )  # fmt: skip

    def splines(self, rates: np.ndarray, r_min: np.ndarray, r_cut: float, n_basis: int) -> np.ndarray:
        """Functions of pair friction that have this memory.

        At every distance ``K(t) = Σ_k f_k² exp(−α_k t)`` is fitted with the given rates; what has decayed in the next
        frame acts instantly, with the area that the trapezoidal rule gives it.

        Parameters
        ----------
        rates : ndarray [n_type_pairs, K]
            α_k (1/ps).
        r_min : ndarray [n_type_pairs]
            Start of the splines (nm).
        r_cut : float
            Their end (nm).
        n_basis : int

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
                torch.from_numpy(self.r[used]), torch.full([int(used.sum())], r_min[p]), r_cut, n_basis
            )
            values = np.zeros([int(used.sum()), n_basis + 3])
            np.put_along_axis(values, first.numpy()[:, None] + np.arange(4), weights.numpy(), 1)
            values, n = values[:, :n_basis], self.neighbors[p, used][:, None]
            normal = values.T @ (n * values)
            normal += STIFFNESS * np.trace(normal) / n_basis * np.eye(n_basis)
            for direction in range(2):
                squares = np.array([nnls(design, k)[0] for k in self.memory[p, direction, used]]) * area
                out[p, :, direction] = np.linalg.solve(normal, values.T @ (n * np.sqrt(squares))).T
        return out

    def own_friction(self, longest: float) -> np.ndarray:
        """Integral of the correlation of a bead's force with itself up to a time (ps) [n_types] (1/ps)."""
        used = self.times <= longest * (1 + 1e-9)
        return trapezoid(self.own[:, used], self.times[used])

    def to_dict(self) -> dict[str, Any]:
        """All there is in plain JSON types."""
        return {name: getattr(self, name).tolist() for name in ("times", "r", "memory", "neighbors", "own")}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> PairResiduals:
        """What :meth:`to_dict` made."""
        return cls(**{name: np.array(value) for name, value in data.items()})


def time_lags(n_frames: int) -> np.ndarray:
    """Frames between two forces: every one at first, then spaced by a fifth of the time."""
    lags = [0]
    while lags[-1] < min(LONGEST, n_frames // 4):
        lags.append(max(lags[-1] + 1, round(1.2 * lags[-1])))
    return np.array(lags)
