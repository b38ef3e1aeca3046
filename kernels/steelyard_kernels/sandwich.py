"""The middle of the sandwich: how much the rows' gradients vary, alone or by cluster.

The variance of estimates is H^-1 M H^-1, H the information and M the sum over what is independent
of g g', g its gradient (Huber 1967; Liang and Zeger, Biometrika 73, 1986, for clusters).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from steelyard_kernels.comparisons import Rows
from steelyard_kernels.jit import column, kernel
from steelyard_kernels.links import slopes
from steelyard_kernels.threads import spread

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

_PARTS = 16  # of the clusters, each with a sum of its own: a fixed number, whatever the threads


def pair_slopes(model: int, strengths: Float64) -> Float64:
    """`links.slopes` of every pair at an estimate.

    Args:
        model: see links.
        strengths: float64 [K + 1], log-strengths and the parameter for ties.

    Returns:
        float64 [K * K, 6]; pair (i, j) in row i * K + j.
    """
    size = len(strengths) - 1
    out = np.empty((size * size, 6))
    _slopes(model, column(strengths, np.float64), out)
    return out


def gradient_products(
    rows: Rows, coefficients: Float64, groups: tuple[Int64, Int64] | None
) -> Float64:
    """The sum of g g' over rows, or over clusters of rows.

    Args:
        rows: the comparisons.
        coefficients: float64 [K * K, 6], of `pair_slopes`.
        groups: (order, ends) of `groups.group`: the rows of each cluster; None: each row alone.

    Returns:
        float64 [K + 1, K + 1], symmetric.
    """
    size = round(len(coefficients) ** 0.5)
    by = column(coefficients, np.float64)
    if groups is None:
        return _rows(rows, by, size)
    order, ends = column(groups[0], np.int64), column(groups[1], np.int64)
    parts = np.zeros((_PARTS, size + 1, size + 1))
    block = max(1, -(-(len(ends) - 1) // _PARTS))

    def work(start: int, end: int) -> None:
        _clusters(rows, by, order, ends[start : end + 1], parts[start // block])

    spread(work, len(ends) - 1, block)
    total: Float64 = parts.sum(axis=0)
    return total + np.tril(total, -1).T


@kernel
def _slopes(model: int, strengths: Float64, out: Float64) -> None:
    size = len(strengths) - 1
    for i in range(size):
        for j in range(size):
            found = slopes(model, strengths[i] - strengths[j], strengths[size])
            for at in range(6):
                out[i * size + j, at] = found[at]


@kernel
def _row(row: int, rows: Rows, by: Float64) -> tuple[float, float]:
    """A row's gradient by the difference of its pair's strengths, and by the ties' parameter."""
    at = rows.pair[row]
    w = rows.weight[row] if len(rows.weight) else 1.0
    t = rows.tie[row] if len(rows.tie) else 0.0
    y = rows.preference[row]
    return (
        w * (by[at, 0] + by[at, 1] * y + by[at, 2] * t),
        w * (by[at, 3] + by[at, 4] * y + by[at, 5] * t),
    )


@kernel
def _rows(rows: Rows, by: Float64, size: int) -> Float64:
    """Rows of one pair share a place: three sums a pair, then the matrix."""
    sums = np.zeros((size * size, 3))
    for row in range(len(rows.pair)):
        d, e = _row(row, rows, by)
        sums[rows.pair[row], 0] += d * d
        sums[rows.pair[row], 1] += d * e
        sums[rows.pair[row], 2] += e * e
    out = np.zeros((size + 1, size + 1))
    for i in range(size):
        for j in range(i + 1, size):
            dd, de, ee = sums[i * size + j]
            out[i, i] += dd
            out[j, j] += dd
            out[i, j] -= dd
            out[j, i] -= dd
            out[i, size] += de
            out[size, i] += de
            out[j, size] -= de
            out[size, j] -= de
            out[size, size] += ee
    return out


@kernel
def _clusters(rows: Rows, by: Float64, order: Int64, ends: Int64, out: Float64) -> None:
    """Adds to the lower triangle of `out`."""
    size = len(out) - 1
    gradient, touched = np.zeros(size + 1), np.empty(size + 1, np.int64)
    seen = np.zeros(size + 1, np.bool_)
    for cluster in range(len(ends) - 1):
        count = 0
        for at in range(ends[cluster], ends[cluster + 1]):
            row = order[at]
            d, e = _row(row, rows, by)
            i, j = rows.pair[row] // size, rows.pair[row] % size
            for k in (i, j, size):
                if not seen[k]:
                    seen[k] = True
                    touched[count] = k
                    count += 1
            gradient[i] += d
            gradient[j] -= d
            gradient[size] += e
        _add_product(gradient, touched[:count], out)
        for at in range(count):
            gradient[touched[at]] = 0.0
            seen[touched[at]] = False


@kernel
def _add_product(gradient: Float64, touched: Int64, out: Float64) -> None:
    """Few competitors: their places; many: whole rows, which are vector instructions."""
    few = len(touched) * 8 < len(gradient)
    for one in range(len(touched)):
        i = touched[one]
        if few:
            for other in range(len(touched)):
                j = touched[other]
                if j <= i:
                    out[i, j] += gradient[i] * gradient[j]
        else:
            for j in range(i + 1):
                out[i, j] += gradient[i] * gradient[j]
