"""The same rollout of mW water in JAX-MD, run by ``rollout.py`` in a process of its own.

Reads the system from an npz file, prints one JSON line when it is compiled, then does a rollout for each line that it
reads, ``forward`` or ``gradient``, and prints how long it took.
"""

from __future__ import annotations

import json
import os
import sys
import time
from importlib import metadata

import numpy as np

file, precision, cores = sys.argv[1:]
# XLA starts a thread for each core that it may use.
os.sched_setaffinity(0, {int(core) for core in cores.split(",")})

import jax

jax.config.update("jax_enable_x64", precision == "double")
import jax.numpy as jnp
from jax_md import energy, partition, space

SKIN = 0.03
"""Of the neighbour list (nm). The three-body sum runs over all pairs in the list, so a thin one is fastest."""

data = np.load(file)
edge, dt, kT, mass, steps = (float(data[name]) for name in ("edge", "dt", "kT", "mass", "steps"))
steps = int(steps)
cutoff = 1.8 * 0.23925
x0, v0 = jnp.asarray(data["x"] % edge), jnp.asarray(data["v"])
parameters = {
    name: jnp.asarray(value, x0.dtype)
    for name, value in dict(
        epsilon=6.189 * 4.184,
        sigma=0.23925,
        A=7.049556277,
        B=0.6022245584,
        lam=23.15,
        gamma=1.2,
        friction=float(data["friction"]),
    ).items()
}
displacement, shift = space.periodic(edge)


def potential(parameters):
    shape = {name: parameters[name] for name in parameters if name != "friction"}
    return energy.stillinger_weber_neighbor_list(
        displacement, edge, cutoff=cutoff, dr_threshold=SKIN, format=partition.Dense, **shape
    )


neighbor_fn, _ = potential({})
neighbors = neighbor_fn.allocate(x0)


def rollout(parameters, x, v, key, neighbors):
    """Mean square displacement (nm²) after the steps."""
    _, energy_fn = potential(parameters)
    force = jax.grad(lambda x, neighbors: -energy_fn(x, neighbors))
    decay = jnp.exp(-parameters["friction"] * dt)
    kick = jnp.sqrt(kT / mass * (1 - decay**2))

    @jax.checkpoint
    def step(carry, key):
        x, moved, v, neighbors = carry
        neighbors = neighbors.update(jax.lax.stop_gradient(x))
        v = v + dt / mass * force(x, neighbors)
        middle = decay * v + kick * jax.random.normal(key, v.shape, v.dtype)
        change = 0.5 * dt * (v + middle)
        return (shift(x, change), moved + change, middle, neighbors), None

    start = (x, jnp.zeros_like(x), v, neighbors)
    (x, moved, _, neighbors), _ = jax.lax.scan(step, start, jax.random.split(key, steps))
    return jnp.mean(moved**2), neighbors.did_buffer_overflow


work = {
    "forward": jax.jit(rollout),
    "gradient": jax.jit(jax.value_and_grad(rollout, has_aux=True)),
}
key = jax.random.PRNGKey(0)
for _name, function in work.items():
    result = jax.block_until_ready(function(parameters, x0, v0, key, neighbors))
(value, overflow), gradient = result
print(
    json.dumps(
        {
            "versions": f"jax {jax.__version__}, jax-md {metadata.version('jax-md')}",
            "energy": float(potential(parameters)[1](x0, neighbors)),
            "msd": float(value),
            "overflow": bool(overflow),
            "not_finite": [name for name, g in gradient.items() if not np.isfinite(g)],
            "neighbors": int(neighbors.idx.shape[1]),
        }
    ),
    flush=True,
)
for line in sys.stdin:
    begun = time.perf_counter()
    jax.block_until_ready(work[line.strip()](parameters, x0, v0, key, neighbors))
    print(time.perf_counter() - begun, flush=True)
