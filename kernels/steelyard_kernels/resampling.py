"""Strengths of resampled clusters, refitted each time (Bradley-Terry and its relatives)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from steelyard_kernels.bootstrap import BLOCK, draw_counts
from steelyard_kernels.bradley_terry import Likelihood, newton
from steelyard_kernels.comparisons import Pairs, Rows, pair_sums, pairs_of
from steelyard_kernels.connected import is_connected
from steelyard_kernels.groups import group
from steelyard_kernels.jit import column, kernel
from steelyard_kernels.threads import spread

Bool = NDArray[np.bool_]
Float64 = NDArray[np.float64]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
UInt8 = NDArray[np.uint8]

_MEMORY = 1 << 27  # bytes of sums that a block of replicates holds at most


class Resampled(NamedTuple):
    """Replicates of an estimate."""

    strengths: Float64  # [replicates, K + 1]: log-strengths, then the parameter for ties
    regularised: Bool  # [replicates] a prior was needed, as some competitor never won or lost
    converged: Bool  # [replicates]


def resampled_strengths(
    model: int,
    rows: Rows,
    cluster: Int32,
    *,
    clusters: int,
    start: Float64,
    replicates: int,
    seed: int,
) -> Resampled:
    """Fit strengths to clusters drawn with replacement.

    Rows are sorted by pair once; then the sums of a pair stay in registers while the counts of its
    clusters pass by, 64 replicates in one cache line.

    Args:
        model: see links.
        rows: the comparisons.
        cluster: int32 [rows], from 0.
        clusters: how many.
        start: float64 [K + 1], the estimate from all rows, where each fit begins.
        replicates: how many.
        seed: any integer; a replicate's draws are those of `bootstrap.draw_counts`.
    """
    size = len(start) - 1
    order, ends = group(rows.pair, size * size)
    pairs = pairs_of(pair_sums(rows._replace(weight=np.zeros(0)), size), size)
    bounds = np.append(0, ends[pairs.first.astype(np.int64) * size + pairs.second + 1])
    sorted_rows = _sorted(rows, cluster, order, bounds)
    result = Resampled(
        np.empty((replicates, size + 1)),
        np.zeros(replicates, np.bool_),
        np.zeros(replicates, np.bool_),
    )
    begin = column(start, np.float64)

    def work(first: int, last: int) -> None:
        counts = column(draw_counts(clusters, first, last, seed), np.uint8)
        sums = np.zeros((last - first, len(pairs.first), 3))
        _sum(sorted_rows, counts, sums)
        part = Resampled(
            result.strengths[first:last],
            result.regularised[first:last],
            result.converged[first:last],
        )
        _fit(model, pairs, begin, sums, part)

    spread(work, replicates, min(BLOCK, max(1, _MEMORY // (24 * len(pairs.first)))))
    return result


class _Sorted(NamedTuple):
    """Rows by pair."""

    cluster: Int32  # [n]
    w: Float64  # [n] weight
    wy: Float64  # [n] weight * preference
    wt: Float64  # [n] weight * tie, or [0]
    bounds: Int64  # [pairs + 1] where each pair's rows begin


def _sorted(rows: Rows, cluster: Int32, order: Int64, bounds: Int64) -> _Sorted:
    w = rows.weight[order] if len(rows.weight) else np.ones(len(order))
    return _Sorted(
        column(cluster[order], np.int32),
        column(w, np.float64),
        column(w * rows.preference[order], np.float64),
        column(w * rows.tie[order] if len(rows.tie) else rows.tie, np.float64),
        column(bounds, np.int64),
    )


@kernel
def _sum(rows: _Sorted, counts: UInt8, sums: Float64) -> None:
    replicates = counts.shape[1]
    total = np.empty((3, replicates))
    for pair in range(len(rows.bounds) - 1):
        total[:] = 0
        for row in range(rows.bounds[pair], rows.bounds[pair + 1]):
            times, weight, score = counts[rows.cluster[row]], rows.w[row], rows.wy[row]
            for r in range(replicates):
                total[0, r] += times[r] * weight
                total[1, r] += times[r] * score
            if len(rows.wt):
                for r in range(replicates):
                    total[2, r] += times[r] * rows.wt[row]
        for r in range(replicates):
            for kind in range(3):
                sums[r, pair, kind] = total[kind, r]


@kernel
def _fit(model: int, pairs: Pairs, start: Float64, sums: Float64, out: Resampled) -> None:
    size = len(start)
    information = np.empty((size, size))
    for r in range(len(sums)):
        drawn = Pairs(pairs.first, pairs.second, sums[r])
        out.regularised[r] = not is_connected(drawn, size - 1)
        prior = np.full(size - 1, 1.0 if out.regularised[r] else 0.0)
        out.strengths[r] = start
        problem = Likelihood(model, drawn, prior)
        out.converged[r] = newton(problem, out.strengths[r], information)
