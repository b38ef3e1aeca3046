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

_PARTS = 16  # of the clusters, summed separately: a fixed number for any number of threads


def pair_slopes(model: int, strengths: Float64) -> Float64:
    """Return `links.slopes` of every pair at an estimate.

    Args:
        model: links.BRADLEY_TERRY, DAVIDSON or RAO_KUPPER.
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
    """Sum g g' over rows, or over clusters of rows.

    Args:
        rows: the comparisons.
        coefficients: float64 [K * K, 6], of `pair_slopes`.
        groups: (order, ends) of `groups.group`: the rows of each cluster; None: single rows.

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
            values = slopes(model, strengths[i] - strengths[j], strengths[size])
            for k in range(6):
                out[i * size + j, k] = values[k]


@kernel
def _row(row: int, rows: Rows, by: Float64) -> tuple[float, float]:
    """Return a row's derivatives by its pair's difference of strengths and by the tie parameter."""
    pair = rows.pair[row]
    w = rows.weight[row] if len(rows.weight) else 1.0
    t = rows.tie[row] if len(rows.tie) else 0.0
    y = rows.preference[row]
    return (
        w * (by[pair, 0] + by[pair, 1] * y + by[pair, 2] * t),
        w * (by[pair, 3] + by[pair, 4] * y + by[pair, 5] * t),
    )


@kernel
def _rows(rows: Rows, by: Float64, size: int) -> Float64:
    """Sum products over single rows: first three sums per pair, then the matrix."""
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
    """Add products of clusters to the lower triangle of `out`."""
    size = len(out) - 1
    gradient, touched = np.zeros(size + 1), np.empty(size + 1, np.int64)
    seen = np.zeros(size + 1, np.bool_)
    for cluster in range(len(ends) - 1):
        count = 0
        for position in range(ends[cluster], ends[cluster + 1]):
            row = order[position]
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
        for position in range(count):
            gradient[touched[position]] = 0.0
            seen[touched[position]] = False


@kernel
def _add_product(gradient: Float64, touched: Int64, out: Float64) -> None:
    """Add by element for few competitors, by whole (vectorised) rows for many."""
    few = len(touched) * 8 < len(gradient)
    for p in range(len(touched)):
        i = touched[p]
        if few:
            for q in range(len(touched)):
                j = touched[q]
                if j <= i:
                    out[i, j] += gradient[i] * gradient[j]
        else:
            for j in range(i + 1):
                out[i, j] += gradient[i] * gradient[j]
