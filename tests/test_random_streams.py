"""No two purposes, seeds or iterations share random numbers."""

import itertools

import numpy as np
import torch

from openmm_cgadv.random_streams import (
    Purpose,
    numpy_stream,
    stream_seed,
    torch_default_stream,
    torch_stream,
)

KEYS = list(itertools.product(range(4), Purpose, range(2), range(250)))


def first_numbers(generator):
    return tuple(torch.randint(2**62, [2], generator=generator).tolist())


def by_arithmetic(seed, purpose, recoveries, iteration):
    """Return a generator whose seed is a sum, with an offset for the purpose."""
    number = seed * 1_000_003 + 1_000_000 * (purpose == Purpose.INITIAL_KERNEL_FIT) + iteration
    return torch.Generator().manual_seed(number * 1_009 + recoveries)


def shared(stream):
    return len(KEYS) - len({first_numbers(stream(*key)) for key in KEYS})


def test_streams_of_torch_share_no_numbers():
    assert shared(torch_stream) == 0


def test_sums_of_seeds_and_iterations_share_numbers():
    """A training with the next seed would repeat the numbers of this one's kernel fit."""
    assert shared(by_arithmetic) > 0
    assert first_numbers(by_arithmetic(0, Purpose.INITIAL_KERNEL_FIT, 0, 13)) == first_numbers(
        by_arithmetic(1, Purpose.TRAINING, 0, 10)
    )


def test_integer_seeds_are_different_and_not_negative():
    seeds = [stream_seed(*key) for key in KEYS]
    assert len(set(seeds)) == len(KEYS) and min(seeds) >= 0 and max(seeds) < 2**62


def test_keys_of_different_length_are_different_streams():
    keys = [(0,), (0, 0), (0, 0, 0), (1,), (1, 0)]
    found = {first_numbers(torch_stream(7, Purpose.TRAINING, *key)) for key in keys}
    assert len(found) == len(keys)


def test_the_same_key_gives_the_same_numbers():
    key = (3, Purpose.CHAIN_START, 1, 2)
    assert first_numbers(torch_stream(*key)) == first_numbers(torch_stream(*key))
    assert numpy_stream(*key).integers(2**62) == numpy_stream(*key).integers(2**62)


def test_streams_of_torch_are_uniform_and_uncorrelated():
    values = torch.stack(
        [
            torch.rand(200, generator=torch_stream(0, Purpose.TRAINING, k), dtype=torch.float64)
            for k in range(500)
        ]
    ).numpy()
    error = 1 / np.sqrt(12 * values.size)
    assert abs(values.mean() - 0.5) < 5 * error
    correlation = np.corrcoef(values)[np.triu_indices(len(values), 1)]
    assert abs(correlation.mean()) < 5 / np.sqrt(200 * len(correlation))
    assert np.abs(correlation).max() < 7 / np.sqrt(200)


def test_the_default_generator_is_restored():
    before = torch.get_rng_state()
    with torch_default_stream(0, Purpose.DISCRIMINATOR_WEIGHTS):
        first = torch.rand(3)
    assert torch.equal(torch.get_rng_state(), before)
    with torch_default_stream(0, Purpose.DISCRIMINATOR_WEIGHTS):
        assert torch.equal(torch.rand(3), first)
