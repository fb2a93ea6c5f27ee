"""The two kinds of motion that training knows, friction on each bead and friction between pairs, with one face.

Each is the module of its equation of motion, and knows in addition how chains start, how a rollout is made, what is
exported, and at which rates it is learned.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .. import config
from ..baselines import InitialFit, PairResiduals, fit_exponentials
from ..baselines.ranges import friction_range, sample_frames
from ..dynamics import GeneralizedLangevin, Neighborhood, PairFriction, pair_rollout, rollout
from ..trajectory import BeadTrajectory
from .parameters import TrainedPairParameters, TrainedParameters
from .timescales import LEAST_FRICTION, TimeScales

FRICTION_RATE = 0.02
"""Learning rate of logarithms."""

DIFFUSION_RATE = 0.04
"""By how much the logarithm of the size of the slowest memory changes in an iteration, for an excess of diffusion of one.
Diffusion, which a window tells to some per cent, answers by -1.5 times as much between pairs: it is averaged over about 15
iterations."""

SHAPE_RATE = 0.005
"""Learning rate of the coefficients of functions, relative to their size."""

LEAST_SIZE = 0.05
"""Size of coefficients that are smaller or zero at the start, in units of the root mean square of all."""

SLOWEST = 1.5
"""Least rate of memory to start from, in units of the floor. Near the floor a rate hardly moves any more, and what such memory
does past the window shows least."""


class BeadMotion(GeneralizedLangevin):
    """Friction on each bead, with memory."""

    def start(self, masses: Tensor, kT: float, generator: torch.Generator) -> Tensor:
        """Velocities and auxiliary variables [N, K + 1, 3] of beads in equilibrium (nm/ps)."""
        noise = torch.randn([len(masses), self.n_auxiliary + 1, 3], generator=generator, dtype=torch.float64)
        return (kT / masses).sqrt()[:, None, None] * noise

    def roll_out(self, positions, state, boxes, *, dt, **options) -> tuple[Tensor, Tensor, Tensor]:
        """See :func:`openmm_cgadv.dynamics.rollout`."""
        e, s = self.propagator(dt)
        return rollout(positions, state, boxes, e=e, s=s, dt=dt, **options)

    def rates(self) -> Tensor:
        """Rates of the memory [n_types, K] (1/ps)."""
        return torch.diagonal(self.drift(), dim1=1, dim2=2)[:, 1:]

    @torch.no_grad()
    def set_friction(self, friction: Tensor) -> None:
        """Scale the memory so that its integral is ``friction`` [n_types] (1/ps)."""
        change = (friction / self.bead_friction()).log()
        self.log_friction += change
        self.log_couplings += 0.5 * change[:, None]

    @torch.no_grad()
    def follow(self, residuals: PairResiduals) -> None:
        """Take the shape of the memory from the correlation of residual forces."""
        friction, fastest = self.bead_friction(), self.rates().max().item()
        for kind, own in enumerate(residuals.own):
            instant, rates, weights = fit_exponentials(
                residuals.times, own, self.n_auxiliary, SLOWEST * self.floor, fastest
            )
            if not weights.sum() > 0:
                continue
            self.log_friction[kind] = math.log(instant)
            self.log_rates[kind] = torch.from_numpy(rates - self.floor).log()
            self.log_couplings[kind] = 0.5 * torch.from_numpy(weights).log()
        self.set_friction(friction)

    def trained(self, theta: Tensor) -> TrainedParameters:
        """The present parameters with those of a potential."""
        return TrainedParameters(theta.detach().clone(), self.drift().detach().clone())

    def groups(self) -> list[dict]:
        """Parameters, their learning rates, and which move together."""
        return [{"params": list(self.parameters()), "rate": FRICTION_RATE, "whitened": True}]


class PairMotion(PairFriction):
    """Friction between pairs, with memory.

    Parameters
    ----------
    neighborhood : Neighborhood
        Of the reference, in which the friction of a bead is told.
    ceiling : float
        Highest rate of memory above its floor (1/ps).
    others
        Those of :class:`~openmm_cgadv.dynamics.PairFriction`.
    """

    def __init__(self, neighborhood: Neighborhood, *arguments, ceiling: float = math.inf, **options):
        super().__init__(*arguments, **options)
        self.neighborhood = neighborhood
        self.ceiling = float(ceiling)
        self.log_sizes = torch.nn.Parameter(torch.zeros(self.shapes.shape[:2], dtype=torch.float64))

    @property
    def splines(self) -> Tensor:
        """Coefficients of the functions, of which each as a whole has its size besides."""
        return self.log_sizes.exp()[:, :, None, None] * super().splines

    def start(self, masses: Tensor, kT: float, generator: torch.Generator) -> Tensor:
        """Velocities [N, 1, 3] of beads in equilibrium (nm/ps), with no momentum in all where friction conserves it."""
        v = (kT / masses).sqrt()[:, None] * torch.randn([len(masses), 3], generator=generator, dtype=torch.float64)
        if not self.self_friction.any():
            v = v - masses @ v / masses.sum()
        return v[:, None]

    def roll_out(self, positions, state, boxes, **options) -> tuple[Tensor, Tensor, Tensor]:
        """See :func:`openmm_cgadv.dynamics.pair_rollout`; the auxiliary variables of pairs are drawn at the start."""
        frames, positions, velocities = pair_rollout(positions, state[:, :, 0], boxes, friction=self, **options)
        return frames, positions, velocities[:, :, None]

    def bead_friction(self) -> Tensor:
        """Friction (1/ps) [n_types] of a bead of each type whose neighbours move independently of it."""
        return self.neighborhood.mean(self.friction(self.neighborhood.r)) + self.self_friction

    def running_friction(self, times: Tensor) -> Tensor:
        """The same up to some times (ps) [n_types, T] (1/ps)."""
        memory, f = self.memory(), self.functions(self.neighborhood.r)
        one = torch.eye(self.n_auxiliary, dtype=memory.dtype)
        lost = one - torch.matrix_exp(-memory[:, None] * times[None, :, None, None])
        slow = torch.einsum("pkdr,ptkl,pldr->pdrt", f[:, 1:], lost @ torch.linalg.inv(memory)[:, None], f[:, 1:])
        return self.neighborhood.mean(f[:, 0, :, :, None] ** 2 + slow) + self.self_friction[:, None]

    def rates(self) -> Tensor:
        """Rates of the memory [n_type_pairs, K] (1/ps)."""
        return torch.diagonal(self.memory(), dim1=1, dim2=2)

    @torch.no_grad()
    def set_friction(self, friction: float) -> None:
        """Scale all functions so that the mean friction of a bead is ``friction`` (1/ps), a tenth of it at least between pairs."""
        own = self.self_friction.mean()
        wanted = max(friction - own, 0.1 * friction)
        self.unit *= (wanted / (self.bead_friction().mean() - own)).sqrt()

    @torch.no_grad()
    def follow(self, residuals: PairResiduals) -> None:
        """Take the functions from the correlation of residual forces.

        Training changes each coefficient by parts of what it is: own motion of beads does not tell how friction is
        shared among distances and directions, and keeps what the forces tell of it.
        """
        rates = self.rates()
        splines = residuals.splines(rates.numpy(), self.r_min.numpy(), self.r_cut, self.shapes.shape[-1])
        splines = torch.from_numpy(splines)
        scale = torch.cat([rates.new_ones(len(rates), 1), rates.sqrt()], 1)[:, :, None, None]
        coefficients = (splines / scale).abs()
        least = LEAST_SIZE * coefficients.square().mean((1, 2, 3), keepdim=True).sqrt()
        self.unit.copy_(scale * torch.maximum(coefficients, least))
        self.shapes.copy_(splines / self.unit)

    @property
    def slowest(self) -> Tensor:
        """Logarithm of the size of the slowest memory [n_type_pairs]."""
        return self.log_sizes.detach()[:, 1]

    @torch.no_grad()
    def restrain(self, excess: Tensor) -> None:
        """Keep rates below their ceiling, and let the slowest memory grow where beads diffuse too fast at the end of windows,
        and shrink where too slowly.

        Diffusion answers to it more than to all else, and tells its size better than critics, whose gradient forgets
        most of what it does there. It follows at the same rate when those of training fall: what the other parameters still
        do to diffusion is made up for.

        Parameters
        ----------
        excess : Tensor [n_types]
            Growth of mean squared displacements over that of the reference, minus one.
        """
        if self.n_auxiliary:
            first, second = torch.triu_indices(self.n_types, self.n_types)
            self.slowest.add_(DIFFUSION_RATE * 0.5 * (excess[first] + excess[second]).clamp(-1, 1))
            self.log_rates.clamp_(max=math.log(self.ceiling))

    def trained(self, theta: Tensor) -> TrainedPairParameters:
        """The present parameters with those of a potential."""
        return TrainedPairParameters(theta.detach().clone(), self.export(), self.neighborhood)

    def groups(self) -> list[dict]:
        """Parameters, their learning rates, and which move together."""
        together = [self.log_sizes, self.log_rates, self.rotations]
        return [
            {"params": together, "rate": FRICTION_RATE, "whitened": True},
            {"params": [self.shapes], "rate": SHAPE_RATE},
        ]


def initial_motion(
    trajectory: BeadTrajectory, fit: InitialFit, settings: config.Dynamics, scales: TimeScales
) -> BeadMotion | PairMotion:
    """The motion that training starts from.

    Memory starts from the residual forces where the reference holds forces, and so does the size of friction between
    pairs if none is given.

    Parameters
    ----------
    trajectory : BeadTrajectory
        The all-atom reference.
    fit : InitialFit
    settings : Dynamics
    scales : TimeScales
    """
    n_types = len(trajectory.type_names)
    options = {"floor": scales.floor_per_ps, "rates": scales.rates_per_ps}
    if settings.equation != "pair":
        motion = BeadMotion(n_types, settings.memory, scales.friction_per_ps, **options)
        if scales.residuals_tell and settings.memory:
            motion.follow(fit.residuals)
        return motion
    r_min, r_cut = friction_range(trajectory, settings.friction_cutoff_nm)
    frames = sample_frames(trajectory, 60)
    neighborhood = Neighborhood.measure(
        torch.from_numpy(trajectory.positions(frames)), torch.from_numpy(trajectory.boxes(frames)),
        torch.from_numpy(trajectory.types), torch.from_numpy(trajectory.masses), r_cut, n_types,
    )  # fmt: skip
    ceiling = 1 / trajectory.frame_interval
    options |= {"ceiling": ceiling, "self_friction": settings.self_friction_per_ps or 0.0}
    motion = PairMotion(neighborhood, n_types, settings.memory, 1.0, r_min, r_cut, **options)
    if scales.residuals_tell:
        motion.follow(fit.residuals)
    if not scales.residuals_tell or settings.initial_friction_per_ps is not None:
        motion.set_friction(sum(scales.friction_per_ps) / n_types)
    elif (motion.bead_friction() - motion.self_friction).mean() < (least := LEAST_FRICTION * sum(scales.free_friction_per_ps) / n_types) < math.inf:
        motion.set_friction(least + motion.self_friction.mean().item())
    return motion
