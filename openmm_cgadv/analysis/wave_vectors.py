"""Wave vectors that fit a periodic box, and plane waves at the positions of beads."""

from __future__ import annotations

import numpy as np

K_RANGE = 2.0
"""Longest wave vector that is looked at, over the shortest."""
EQUAL_LENGTH = 1.03


def wave_vectors(box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shortest wave vectors that fit a box, one of each pair k and -k.

    Parameters
    ----------
    box : array [3, 3]
        Box vectors as rows, nm.

    Returns
    -------
    numbers : ndarray [n, 3] of int
        ``k.r = 2 pi numbers.s`` with s the fractional coordinates; those up to twice as long as the
        shortest, in order of length.
    group : ndarray [n] of int
        Equal for vectors of equal length (within 3 %): of a cubic box 0 three times, 1 six times,
        2 four times, 3 three times.
    """
    reciprocal = 2 * np.pi * np.linalg.inv(box)
    longest = K_RANGE * np.linalg.norm(reciprocal, axis=0).min()
    reach = np.floor(longest * np.linalg.norm(box, axis=1) / (2 * np.pi) + 1e-6).astype(int)
    numbers = np.stack(np.meshgrid(*[np.arange(-n, n + 1) for n in reach], indexing="ij"), -1)
    numbers = numbers.reshape(-1, 3)
    numbers = numbers[len(numbers) // 2 + 1 :]
    length = np.linalg.norm(numbers @ reciprocal.T, axis=1)
    order = np.argsort(length, kind="stable")
    order = order[length[order] <= K_RANGE * length[order[0]] * (1 + 1e-3)]
    group: list[int] = []
    first = length[order[0]]
    for one in length[order]:
        if one > EQUAL_LENGTH * first:
            first = one
            group.append(group[-1] + 1)
        else:
            group.append(group[-1] if group else 0)
    return numbers[order], np.array(group)


def polarizations(k: np.ndarray) -> np.ndarray:
    """Return unit vectors [n_k, 3, 3] along each wave vector [n_k, 3] and two across it."""
    along = k / np.linalg.norm(k, axis=1, keepdims=True)
    helper = np.eye(3)[np.abs(along).argmin(1)]
    across = np.cross(along, helper)
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    return np.stack([along, across, np.cross(along, across)], 1).astype(np.float32)


def plane_waves(fraction: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Return ``exp(-2 pi i numbers.s)`` [T, n_k, N], complex64, at fractional coordinates [T, N, 3]."""
    phase = (fraction - np.rint(fraction)).astype(np.float32) * np.float32(2 * np.pi)
    unit = np.empty(phase.shape, np.complex64)
    unit.real, unit.imag = np.cos(phase), -np.sin(phase)
    powers = []
    for c in range(3):
        base = np.ascontiguousarray(unit[..., c])
        known = {1: base}
        for n in range(2, np.abs(numbers[:, c]).max(initial=0) + 1):
            known[n] = known[n - 1] * base
        powers.append(known)
    out = np.empty((len(fraction), len(numbers), fraction.shape[1]), np.complex64)
    for m, three in enumerate(numbers):
        factors = [
            powers[c][abs(n)] if n > 0 else powers[c][abs(n)].conj()
            for c, n in enumerate(three)
            if n
        ]
        while len(factors) > 2:
            factors[:2] = [factors[0] * factors[1]]
        if len(factors) > 1:
            np.multiply(factors[0], factors[1], out=out[:, m])
        else:
            out[:, m] = factors[0]
    return out
