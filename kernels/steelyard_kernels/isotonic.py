"""Weighted isotonic regression by pooling adjacent violators."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from steelyard_kernels.jit import column, kernel

Float64 = NDArray[np.float64]


def isotonic(values: Float64, weights: Float64) -> Float64:
    """Return the non-decreasing sequence nearest to `values` in weighted squares.

    One pass over a stack of blocks, each a weighted mean; a value that falls is pooled with the
    previous block until none falls (Ayer et al., "An empirical distribution function for sampling
    with incomplete information", 1955). Time and memory grow with n.

    Args:
        values: float64 [n], finite, in the order of what they depend on.
        weights: float64 [n], positive.

    Returns:
        float64 [n], in the range of `values`.
    """
    fitted = np.empty(len(values), dtype=np.float64)
    if len(values):
        _pool(column(values, np.float64), column(weights, np.float64), fitted)
    return fitted


@kernel
def _pool(values: Float64, weights: Float64, fitted: Float64) -> None:
    n = len(values)
    means, masses = np.empty(n), np.empty(n)
    ends = np.empty(n, np.int64)  # one past a block's last row
    blocks = 0
    for i in range(n):
        mean, mass = values[i], weights[i]
        while blocks and means[blocks - 1] >= mean:
            blocks -= 1
            total = masses[blocks] + mass
            mean = (means[blocks] * masses[blocks] + mean * mass) / total
            mass = total
        means[blocks], masses[blocks], ends[blocks] = mean, mass, i + 1
        blocks += 1
    start = 0
    for block in range(blocks):
        fitted[start : ends[block]] = means[block]
        start = ends[block]
