"""Random numbers by counting: number n of a seed is the same in any order and any thread."""

from __future__ import annotations

import numpy as np

from steelyard_kernels.jit import kernel

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_A, _B, _C, _HALF = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(32)


@kernel
def below(limit: np.uint64, seed: np.uint64, number: np.uint64) -> np.uint64:
    """Draw a whole number from 0 to limit - 1; `limit` is less than 2**32.

    SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA
    2014) with its upper half scaled to the range: probabilities differ by a share of at most
    limit / 2**32.
    """
    z = seed + (number + np.uint64(1)) * _STEP
    z = (z ^ (z >> _A)) * _FIRST
    z = (z ^ (z >> _B)) * _SECOND
    return ((z ^ (z >> _C)) >> _HALF) * limit >> _HALF


def stream(seed: int, part: int) -> int:
    """Derive the seed of an independent stream (a replicate, a shuffle) from a seed."""
    text = f"{seed}/{part}".encode()
    value = 0xCBF29CE484222325
    for byte in text:  # FNV-1a, then SplitMix's finish in `below`
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value
