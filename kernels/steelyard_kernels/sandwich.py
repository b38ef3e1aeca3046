"""The middle of the sandwich: how much the gradients of clusters of rows vary.

The variance of estimates is H^-1 M H^-1, H the information and M the sum over clusters of g g', g
the gradient (Liang and Zeger, Biometrika 73, 1986). A fit draws each gradient towards zero, the
more the larger the cluster's share of the information, so that M is too small where clusters are
few. The correction CR2 of Bell and McCaffrey (Survey Methodology 28, 2002) undoes that: with L the
cluster's part of H, g becomes (I - L H^-1)^(-1/2) g. The power is summed as a binomial series, each
term of which costs as much as g g' does, so that no cluster needs a decomposition.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from steelyard_kernels.comparisons import Rows
from steelyard_kernels.jit import column, kernel
from steelyard_kernels.links import curvature, slopes
from steelyard_kernels.threads import spread

Bool = NDArray[np.bool_]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

_PARTS = 16  # of the clusters, summed separately: a fixed number for any number of threads
_MEMORY = 1 << 28  # bytes that these sums take at most
_SMALL = 1e-3  # leverage: below it the correction changes a standard error by 0.05%
_CLOSE = 1e-6  # of the last term of the series, relative to the sum
_EMPTY = 1e-12  # of a determinant: a row that alone bounds a strength has a gradient of 0
_TERMS = 200  # of the series: enough for leverages up to 0.95


class Products(NamedTuple):
    """Sums over clusters of the products of their gradients and of their information."""

    gradient: Float64  # [K + 1, K + 1] corrected g g'; symmetric
    information: Float64  # [K, K] a a', a the information about each strength; symmetric


class Curves(NamedTuple):
    """What a row adds to gradient and information, by its pair i * K + j."""

    slopes: Float64  # [K * K, 6] of `links.slopes`
    information: Float64  # [K * K, 3] dd, de, ee per unit of weight


class Fitted(NamedTuple):
    """Comparisons and a fit to them."""

    rows: Rows
    curves: Curves
    inverse: Float64  # [K + 1, K + 1]


def pair_curves(model: int, strengths: Float64, sums: Float64) -> Curves:
    """Return slopes of every pair at an estimate, and information of the pairs that met.

    Args:
        model: links.BRADLEY_TERRY, DAVIDSON or RAO_KUPPER.
        strengths: float64 [K + 1], log-strengths and the parameter for ties.
        sums: float64 [K * K, 3], of `comparisons.pair_sums`.
    """
    size = len(strengths) - 1
    curves = Curves(np.empty((size * size, 6)), np.zeros((size * size, 3)))
    _curves(model, column(strengths, np.float64), column(sums, np.float64), curves)
    return curves


def cluster_products(
    rows: Rows, curves: Curves, inverse: Float64, groups: tuple[Int64, Int64] | None
) -> Products:
    """Sum products of gradients, corrected by CR2, and of information over clusters of rows.

    Args:
        rows: the comparisons.
        curves: of `pair_curves`.
        inverse: float64 [K + 1, K + 1], of the information of all rows, on the space that they
            determine; zeros: no correction. Nor are clusters corrected whose leverages are small.
        groups: (order, ends) of `groups.group`: the rows of each cluster; None: single rows.
    """
    size = len(inverse) - 1
    by = Curves(*(column(values, np.float64) for values in curves))
    fit = Fitted(rows, by, column(inverse, np.float64))
    if groups is None:
        return _row_products(fit)
    order, ends = column(groups[0], np.int64), column(groups[1], np.int64)
    most = max(1, min(_PARTS, _MEMORY // (16 * (size + 1) ** 2)))
    parts = np.zeros((most, 2, size + 1, size + 1))
    block = max(1, -(-(len(ends) - 1) // most))

    def work(start: int, end: int) -> None:
        _clusters(fit, order, ends[start : end + 1], parts[start // block])

    spread(work, len(ends) - 1, block)
    total: Float64 = parts.sum(axis=0)
    gradient, information = (matrix + np.tril(matrix, -1).T for matrix in total)
    return Products(gradient, information[:size, :size])


def _row_products(fit: Fitted) -> Products:
    """Return the products where each row is a cluster: four sums per pair, then the matrices."""
    rows, inverse, size = fit.rows, fit.inverse, len(fit.inverse) - 1
    own, cross = np.diag(inverse)[:size], inverse[:size, size]
    apart = own[:, None] + own[None, :] - 2 * inverse[:size, :size]
    with_ties = cross[:, None] - cross[None, :]
    wide = column(np.stack([apart.ravel(), with_ties.ravel()], axis=1), np.float64)
    count = len(rows.pair)
    most = max(1, min(_PARTS, _MEMORY // (32 * size**2)))
    block = max(1, -(-count // most))
    parts = np.zeros((most, size * size, 4))
    spread(
        lambda start, end: _sum_rows(fit, wide, (start, end), parts[start // block]), count, block
    )
    dd, de, ee, known = parts.sum(axis=0).T.reshape(4, size, size)
    gradient = np.zeros((size + 1, size + 1))
    gradient[:size, :size] = -dd - dd.T
    np.fill_diagonal(gradient[:size, :size], dd.sum(axis=0) + dd.sum(axis=1))
    gradient[size, :size] = gradient[:size, size] = de.sum(axis=1) - de.sum(axis=0)
    gradient[size, size] = ee.sum()
    information = known + known.T
    np.fill_diagonal(information, known.sum(axis=0) + known.sum(axis=1))
    return Products(gradient, information)


@kernel
def _sum_rows(fit: Fitted, wide: Float64, span: tuple[int, int], out: Float64) -> None:
    """Add a row's squared derivatives, corrected, and its squared information to its pair's sums.

    With the 2 x 2 matrix M = I - L H^-1 the correction is the root of its inverse, in closed form.
    """
    rows, by, last = fit.rows, fit.curves.information, len(fit.inverse) - 1
    for row in range(span[0], span[1]):
        d, e = _row(row, rows, fit.curves)
        w = rows.weight[row] if len(rows.weight) else 1.0
        pair = rows.pair[row]
        dd, de, ee = w * by[pair, 0], w * by[pair, 1], w * by[pair, 2]
        r, c, v = wide[pair, 0], wide[pair, 1], fit.inverse[last, last]
        a, b = 1 - (dd * r + de * c), -(dd * c + de * v)
        f, g = -(de * r + ee * c), 1 - (de * c + ee * v)
        root = math.sqrt(max(a * g - b * f, _EMPTY))
        # The root of M is (M + root I) / scale, and its determinant is `root`.
        scale = math.sqrt(max(a + g + 2 * root, _EMPTY))
        d, e = (
            ((g + root) * d - b * e) / (scale * root),
            ((a + root) * e - f * d) / (scale * root),
        )
        out[pair, 0] += d * d
        out[pair, 1] += d * e
        out[pair, 2] += e * e
        out[pair, 3] += dd * dd


@kernel
def _curves(model: int, strengths: Float64, sums: Float64, out: Curves) -> None:
    size = len(strengths) - 1
    for i in range(size):
        for j in range(size):
            pair, d = i * size + j, strengths[i] - strengths[j]
            values = slopes(model, d, strengths[size])
            for k in range(6):
                out.slopes[pair, k] = values[k]
            n = sums[pair, 0]
            if n > 0:
                total = curvature(model, d, strengths[size], (n, sums[pair, 1], sums[pair, 2]))
                for k in range(3):
                    out.information[pair, k] = total[k + 1] / n


@kernel
def _row(row: int, rows: Rows, by: Curves) -> tuple[float, float]:
    """Return a row's derivatives by its pair's difference of strengths and by the tie parameter."""
    pair = rows.pair[row]
    w = rows.weight[row] if len(rows.weight) else 1.0
    t = rows.tie[row] if len(rows.tie) else 0.0
    y = rows.preference[row]
    return (
        w * (by.slopes[pair, 0] + by.slopes[pair, 1] * y + by.slopes[pair, 2] * t),
        w * (by.slopes[pair, 3] + by.slopes[pair, 4] * y + by.slopes[pair, 5] * t),
    )


@kernel
def _clusters(fit: Fitted, order: Int64, ends: Int64, out: Float64) -> None:
    """Add products of clusters to the lower triangles of `out`."""
    size = len(fit.inverse) - 1
    work = np.zeros((4, size + 1))  # gradient, information, and two for the series
    touched, seen = np.empty(size + 1, np.int64), np.zeros(size + 1, np.bool_)
    for cluster in range(len(ends) - 1):
        members = order[ends[cluster] : ends[cluster + 1]]
        count = _sum(fit, members, work, touched, seen)
        if _leverage(fit, touched[:count], work[1]) > _SMALL:
            _correct(fit, members, touched[:count], work)
        _add_product(work[0], touched[:count], out[0])
        _add_product(work[1], touched[:count], out[1])
        for position in range(count):
            seen[touched[position]] = False
            for line in range(4):
                work[line, touched[position]] = 0.0


@kernel
def _sum(fit: Fitted, members: Int64, work: Float64, touched: Int64, seen: Bool) -> int:
    """Sum gradient and information of a cluster; return how many parameters it touches."""
    rows, by, size, count = fit.rows, fit.curves, len(seen) - 1, 0
    for row in members:
        d, e = _row(row, rows, by)
        w = rows.weight[row] if len(rows.weight) else 1.0
        i, j = rows.pair[row] // size, rows.pair[row] % size
        for k in (i, j, size):
            if not seen[k]:
                seen[k] = True
                touched[count] = k
                count += 1
        work[0, i] += d
        work[0, j] -= d
        work[0, size] += e
        work[1, i] += w * by.information[rows.pair[row], 0]
        work[1, j] += w * by.information[rows.pair[row], 0]
        work[1, size] += w * by.information[rows.pair[row], 2]
    return count


@kernel
def _leverage(fit: Fitted, touched: Int64, information: Float64) -> float:
    """Return about the largest share that a cluster has in what is known of any parameter."""
    largest = 0.0
    for k in touched:
        largest = max(largest, 2 * information[k] * fit.inverse[k, k])
    return largest


@kernel
def _correct(fit: Fitted, members: Int64, touched: Int64, work: Float64) -> None:
    """Multiply a gradient, `work[0]`, by (I - L H^-1)^(-1/2) = I + 1/2 L H^-1 + 3/8 ... ."""
    rows, by, inverse = fit.rows, fit.curves, fit.inverse
    size, term, moved = len(inverse) - 1, work[2], work[3]
    for k in touched:
        term[k] = work[0, k]
    for power in range(1, _TERMS):
        for k in touched:
            total = 0.0
            for q in touched:
                total += inverse[k, q] * term[q]
            moved[k] = total
        for k in touched:
            term[k] = 0.0
        for row in members:
            pair = rows.pair[row]
            w = rows.weight[row] if len(rows.weight) else 1.0
            i, j = pair // size, pair % size
            dd, de, ee = by.information[pair]
            step = w * (dd * (moved[i] - moved[j]) + de * moved[size])
            term[i] += step
            term[j] -= step
            term[size] += w * (de * (moved[i] - moved[j]) + ee * moved[size])
        largest = whole = 0.0
        for k in touched:
            term[k] *= (2 * power - 1) / (2 * power)
            work[0, k] += term[k]
            largest, whole = max(largest, abs(term[k])), max(whole, abs(work[0, k]))
        if largest <= _CLOSE * whole:
            break


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
