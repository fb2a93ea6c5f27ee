"""Gaussian noise of pairs of beads from a counter-based generator: a function of seed, replica, step and pair."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF


def _philox(counter: list[Tensor], key: tuple[int, int]) -> list[Tensor]:
    """Return Philox4x32-10 of four 32-bit words in int64 (Salmon et al., SC11, 2011)."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        # Products overflow at 64 bits, which leaves their bits as they are.
        a, b = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = (
            (b >> 32 & _WORD) ^ c1 ^ k0,
            b & _WORD,
            (a >> 32 & _WORD) ^ c3 ^ k1,
            a & _WORD,
        )
        k0, k1 = (k0 + 0x9E3779B9) & _WORD, (k1 + 0xBB67AE85) & _WORD
    return [c0, c1, c2, c3]


def pair_noise(
    seed: int, replica: int, step: int, i: Tensor, j: Tensor, count: int, fresh: bool
) -> Tensor:
    """Return standard normal numbers of pairs of beads, which do not depend on the order of the pairs.

    The counter of Philox is (i, step, j, block and stream); the key is Philox of the seed and the replica. The compiled
    core computes the same numbers in single precision.

    Parameters
    ----------
    seed, replica, step : int
    i, j : Tensor [M] of int64
        Beads, ``i < j``. The numbers belong to bead i; those of bead j have the opposite sign.
    count : int
        Number of vectors for each pair.
    fresh : bool
        Whether the numbers are initial values of auxiliary vectors, which have a stream of their own, or noise of the
        step.

    Returns
    -------
    Tensor [M, count, 3]
    """
    words = [torch.tensor(word) for word in (_WORD, _WORD, replica, _WORD)]
    key = [int(word) for word in _philox(words, (seed & _WORD, seed >> 32 & _WORD))[:2]]
    numbers = []
    for block in range(-(-3 * count // 4)):
        last = block | fresh << 7 | (step >> 32 << 8 & _WORD)
        words = _philox(
            [i, torch.full_like(i, step & _WORD), j, torch.full_like(i, last)], (key[0], key[1])
        )
        for a, b in (words[:2], words[2:]):
            radius = (-2.0 * ((a.to(torch.float64) + 0.5) / 2.0**32).log()).sqrt()
            angle = b.to(torch.float64) * (2.0 * math.pi / 2.0**32)
            numbers += [radius * angle.cos(), radius * angle.sin()]
    if not numbers:
        return torch.zeros([len(i), 0, 3], dtype=torch.float64)
    return torch.stack(numbers, 1)[:, : 3 * count].reshape(-1, count, 3)
