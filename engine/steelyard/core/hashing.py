"""Numbers drawn by hashing: the same on every machine, under every version of NumPy."""

from __future__ import annotations

import numpy as np

from steelyard.core.schemas import UInt64


def mix(values: UInt64) -> UInt64:
    """Return a number for each 64-bit number that is equally likely to be any (splitmix64)."""
    mixed = values.astype(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)))
