"""Bias and noise of the gradient through a rollout, for several adjoint damping times.

The mean squared displacement of a model of water after a time is differentiated with respect to the logarithm of its friction,
which has no memory. The reference is a finite difference of runs at a lower and a higher friction.
"""

from __future__ import annotations

import argparse
import math

import torch
from measure import KT, MASS, describe, liquid, spce_beads, thermal_state

from openmm_cgadv.dynamics import propagator, rollout

DT = 0.005
"""(ps)"""
DAMPING_TIMES = (math.inf, 0.25, 0.1, 0.07, 0.05, 0.01)
"""Adjoint damping times (ps)."""
FRICTIONS = (15.0, 6.0)
"""(1/ps)"""
STEP = 0.25
"""Difference of ln γ to either side for the finite difference."""


class Beads:
    """Beads of water in equilibrium, with a friction that is given at every run.

    Parameters
    ----------
    spec, theta
        Their energy.
    x : Tensor [N, 3]
    box : Tensor [3, 3]
        (nm)
    seed : int
    """

    def __init__(self, spec, theta: torch.Tensor, x: torch.Tensor, box: torch.Tensor, seed: int):
        self.spec, self.theta, self.x, self.box, self.seed = spec, theta, x[None], box[None], seed
        self.state = thermal_state(1, len(x), 0, seed)

    def run(
        self, friction: torch.Tensor, time: float, damping_time: float = math.inf
    ) -> torch.Tensor:
        """Mean squared displacement (nm²) over a time (ps) from where the beads are, and go on from its end."""
        self.seed += 1
        start, n = self.x, self.x.shape[1]
        e, s = propagator(friction.reshape(1, 1, 1), DT)
        frames, x, state = rollout(
            start,
            self.state,
            self.box,
            types=torch.zeros(n, dtype=torch.int64),
            masses=torch.full([n], MASS, dtype=torch.float64),
            spec=self.spec,
            theta=self.theta,
            e=e,
            s=s,
            kT=KT,
            dt=DT,
            frames=[round(time / DT)],
            damping_time=damping_time,
            seed=self.seed,
        )
        self.x, self.state = x.detach(), state.detach()
        return (frames[:, 0] - start).square().sum(-1).mean()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--time", type=float, default=1.0, help="of the displacement (ps)")
    parser.add_argument("--rollouts", type=int, default=60, help="for every adjoint damping time")
    parser.add_argument("--quick", action="store_true", help="only show that it works")
    options = parser.parse_args()
    number, time, rollouts = 343, options.time, options.rollouts
    if options.quick:
        number, time, rollouts = 216, 0.1, 8
    describe()
    _, fit = spce_beads(number, 0.5 if options.quick else 5.0)
    spec, theta = fit.spec, torch.from_numpy(fit.theta)
    x, box = liquid(spec, theta, number, 10 * time)
    print("| friction, 1/ps | τ, ps | d MSD / d ln γ, nm² | sd of one rollout |\n|---|---|---|---|")
    for friction in FRICTIONS:
        logarithm = torch.tensor(friction, dtype=torch.float64).log()
        sides = []
        with torch.no_grad():
            for sign in (-1, 1):
                beads, gamma = Beads(spec, theta, x, box, 1000), (logarithm + sign * STEP).exp()
                beads.run(gamma, 10 * time)
                sides.append(torch.stack([beads.run(gamma, time) for _ in range(5 * rollouts)]))
        slope = (sides[1].mean() - sides[0].mean()) / (2 * STEP)
        error = (sides[0].var() + sides[1].var()).sqrt() / (2 * STEP) / len(sides[0]) ** 0.5
        print(f"| {friction:g} | true | {slope:.5f} ± {error:.5f} | |", flush=True)
        for damping_time in DAMPING_TIMES:
            beads, found = Beads(spec, theta, x, box, 1), []
            with torch.no_grad():
                beads.run(logarithm.exp(), 10 * time)
            for _ in range(rollouts):
                parameter = logarithm.clone().requires_grad_()
                found.append(
                    torch.autograd.grad(beads.run(parameter.exp(), time, damping_time), parameter)[
                        0
                    ]
                )
            found = torch.stack(found)
            print(
                f"| {friction:g} | {damping_time:g} | {found.mean():.5f} ± {found.std() / len(found) ** 0.5:.5f} | {found.std():.5f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
