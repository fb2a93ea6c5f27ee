"""The learned energy in OpenMM's own forces: a serialized System needs nothing else to run."""

from __future__ import annotations

import numpy as np
import openmm
import torch

from ..potentials import PotentialSpec
from ..potentials.splines import spline_weights

# A cubic spline is determined by its values at its knots and by how it ends. Knots that far below
# the range leave nothing (0.27^30) of how OpenMM ends it there.
KNOTS_BELOW = 30


def native_forces(spec: PotentialSpec, theta: np.ndarray, types: np.ndarray) -> list[openmm.Force]:
    """The potential as a CustomNonbondedForce and, with three-body terms, a CustomManyParticleForce.

    OpenMM's tabulated functions are cubic splines through the tabulated values. With the values of
    a cubic B-spline sum at its own knots they are the same function, to rounding. Exact but slow:
    the three-body term visits every triplet, where the density form is linear in neighbours.

    Parameters
    ----------
    spec : PotentialSpec
    theta : ndarray [P]
        Parameters (kJ/mol).
    types : ndarray [N] of int
        Bead types, in the order of the System's particles.
    """
    theta = np.asarray(theta, dtype=np.float64)
    forces = [_pair_force(spec, theta[: spec.n_pair_parameters], types)]
    if spec.three_body is not None:
        forces.append(_three_body_force(spec, theta[spec.n_pair_parameters :], types))
    return forces


def _spline(
    coefficients: np.ndarray, r_min: float, r_cut: float
) -> tuple[openmm.Continuous1DFunction, float]:
    """A spline as a tabulated function on its own knots, and its slope at ``r_min``."""
    n = len(coefficients)
    h = (r_cut - r_min) / n
    knots = np.linspace(r_min, r_cut, n + 1)
    first, weights = spline_weights(
        torch.as_tensor(knots), torch.full([n + 1], r_min, dtype=torch.float64), r_cut, n
    )
    padded = np.concatenate([coefficients, np.zeros(4)])
    values = (weights.numpy() * padded[first.numpy()[:, None] + np.arange(4)]).sum(1)
    a, b, c, d = padded[:4]
    # Beyond its first interval the first cubic piece goes on as it is.
    t = np.arange(-KNOTS_BELOW, 0)
    below = (
        a * (1 - t) ** 3
        + b * (3 * t**3 - 6 * t**2 + 4)
        + c * (-3 * t**3 + 3 * t**2 + 3 * t + 1)
        + d * t**3
    ) / 6
    table = openmm.Continuous1DFunction(
        np.concatenate([below, values]), r_min - KNOTS_BELOW * h, r_cut
    )
    return table, float((c - a) / (2 * h))


def _pair_force(
    spec: PotentialSpec, theta: np.ndarray, types: np.ndarray
) -> openmm.CustomNonbondedForce:
    pair = spec.pair
    coefficients = theta.reshape(spec.n_type_pairs, pair.n_basis)
    terms, tables = [], {}
    for p, (r_min, core) in enumerate(zip(pair.r_min, pair.core)):
        tables[f"u{p}"], slope = _spline(coefficients[p], r_min, pair.r_cut)
        term = (
            f"u{p}(max(r,{r_min!r})) + ({slope!r})*min(r-{r_min!r},0)"
            f" + ({core / 6!r})*max({r_min!r}-r,0)^3"
        )
        terms.append(term if spec.n_types == 1 else f"delta(pair-{p})*({term})")
    n = spec.n_types
    energy = " + ".join(terms)
    if n > 1:
        energy += f"; pair = low*{n} - low*(low-1)/2 + high - low; low = min(type1,type2); high = max(type1,type2)"
    force = openmm.CustomNonbondedForce(energy)
    for name, table in tables.items():
        force.addTabulatedFunction(name, table)
    if n > 1:
        force.addPerParticleParameter("type")
    for kind in types:
        force.addParticle([float(kind)] if n > 1 else [])
    force.setNonbondedMethod(openmm.CustomNonbondedForce.CutoffPeriodic)
    force.setCutoffDistance(pair.r_cut)
    force.setName("CGAdvPair")
    return force


def _three_body_force(
    spec: PotentialSpec, theta: np.ndarray, types: np.ndarray
) -> openmm.CustomManyParticleForce:
    three_body = spec.three_body
    n, radial, orders = spec.n_types, three_body.n_radial, three_body.l_max + 1
    channels = n * radial
    upper = theta.reshape(n, spec.n_channel_pairs, orders)
    # An unordered pair of neighbours meets every ordered pair of channels once, equal ones twice.
    full = np.zeros([n, channels, channels, orders])
    q, q2 = np.triu_indices(channels)
    full[:, q, q2] = upper
    full[:, q2, q] += upper
    full = full.reshape(n, n, radial, n, radial, orders).transpose(2, 4, 5, 0, 1, 3)

    tables, where = {}, f"(type1*{n}+type2)*{n}+type3"
    definitions = []
    for k in range(radial):
        weights = np.asarray(three_body.radial[k])
        tables[f"g{k}"], slope = _spline(weights, three_body.r_min, three_body.r_cut)
        for end in "23":
            definitions.append(
                f"g{k}{end} = g{k}(max(r{end},{three_body.r_min!r}))"
                f" + ({slope!r})*min(r{end}-{three_body.r_min!r},0)"
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
    # Definitions may use what stands after them.
    lines = [" + ".join(terms), *reversed(definitions)]
    lines += ["c = cos(angle(p2,p1,p3))", "r2 = distance(p1,p2)", "r3 = distance(p1,p3)"]
    if n > 1:
        lines.append(f"where = {where}")
    inside = f"step({three_body.r_cut!r}-r2)*step({three_body.r_cut!r}-r3)"
    lines[0] = f"{inside}*({lines[0]})"
    force = openmm.CustomManyParticleForce(3, "; ".join(lines))
    for name, table in tables.items():
        force.addTabulatedFunction(name, table)
    if n > 1:
        force.addPerParticleParameter("type")
    for kind in types:
        force.addParticle([float(kind)] if n > 1 else [], 0)
    force.setPermutationMode(openmm.CustomManyParticleForce.UniqueCentralParticle)
    force.setNonbondedMethod(openmm.CustomManyParticleForce.CutoffPeriodic)
    force.setCutoffDistance(three_body.r_cut)
    force.setName("CGAdvThreeBody")
    return force
