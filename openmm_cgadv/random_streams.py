"""Independent streams of random numbers for each purpose, seed and iteration.

Streams follow from keys by hashing (``numpy.random.SeedSequence``). Arithmetic on seeds, as in ``seed + iteration``, would
give an iteration of one training the random numbers of another training.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import numpy as np
import torch


class Purpose(IntEnum):
    """What a stream is used for. The numbers are part of the keys: never change or reuse one."""

    TRAINING = 1
    INITIAL_KERNEL_FIT = 2
    FINAL_KERNEL_FIT = 3
    KERNEL_FIT_STARTS = 4
    CHAIN_START = 5
    CHAIN_RESTART = 6
    STANDARDIZATION = 7
    DISCRIMINATOR_WEIGHTS = 8
    VALIDATION = 9


_TORCH_STATE_OFFSET = 24
"""Bytes before the state words of the Mersenne Twister in the state of a torch.Generator on the CPU."""

_TORCH_STATE_WORDS = 624


def seed_sequence(seed: int, purpose: Purpose, *indices: int) -> np.random.SeedSequence:
    """Return the seed sequence of a stream.

    Parameters
    ----------
    seed : int
        Seed from the experiment file, at least 0.
    purpose : Purpose
    indices : int
        Further parts of the key, such as the iteration, each at least 0.
    """
    return np.random.SeedSequence(entropy=seed, spawn_key=(purpose, *indices))


def stream_seed(seed: int, purpose: Purpose, *indices: int) -> int:
    """Return a 62-bit seed, for generators that take an integer; see :func:`seed_sequence`."""
    return int(seed_sequence(seed, purpose, *indices).generate_state(1, np.uint64)[0] >> 2)


def openmm_seed(seed: int) -> int:
    """Return a seed in the range of OpenMM, not 0, from any integer."""
    return seed % (2**31 - 2) + 1


def numpy_stream(seed: int, purpose: Purpose, *indices: int) -> np.random.Generator:
    """Return a generator of numpy; see :func:`seed_sequence`."""
    return np.random.default_rng(seed_sequence(seed, purpose, *indices))


def torch_stream(seed: int, purpose: Purpose, *indices: int) -> torch.Generator:
    """Return a generator of torch on the CPU; see :func:`seed_sequence`.

    The whole state is set, because ``torch.Generator.manual_seed`` uses the lowest 32 bits of a seed only. With 32 bits,
    a hundred thousand streams would have a collision more often than not.
    """
    generator = torch.Generator().manual_seed(0)
    state = generator.get_state().numpy().copy()
    words = seed_sequence(seed, purpose, *indices).generate_state(_TORCH_STATE_WORDS)
    end = _TORCH_STATE_OFFSET + 8 * _TORCH_STATE_WORDS
    state[_TORCH_STATE_OFFSET:end] = words.astype(np.uint64).view(np.uint8)
    return generator.set_state(torch.from_numpy(state))


@contextmanager
def torch_default_stream(seed: int, purpose: Purpose, *indices: int) -> Iterator[None]:
    """Use a stream as torch's default generator within a block, as in the initialization of modules."""
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(torch_stream(seed, purpose, *indices).get_state())
        yield
