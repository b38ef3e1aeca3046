"""Sums over pairs, by group of instructions: all that the metrics are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate

import numpy as np

from steelyard.core.schemas import Bool, Float64, Int64
from steelyard.evaluation.metrics.pairs import (
    LENGTHS_DIFFER,
    TIE,
    ScoredPairs,
    both_orders_correct,
    gold_classes,
    predicted_classes,
)
from steelyard.statistics.clusters import cluster_sums
from steelyard.statistics.logistic import log_loss
from steelyard.statistics.means import decided

BINS = 10
# Blocks of columns: for means (number of pairs that count, sum), for each bin (pairs, p, y).
BLOCKS = {
    "pairs": 1,
    "confusion": 9,  # predicted class x gold class
    "squared": 2,
    "vote_loss": 2,
    "vote_share": 2,
    "binary": 2,  # decisive gold, of which a
    "brier": 2,
    "log_loss": 2,
    "bins_preference": 3 * BINS,
    "bins_confidence": 3 * BINS,
    "bins_mass": 3 * BINS,
    "auc": 5,  # a's, their ranks; b's, their ranks; the area itself on every pair
    "consistent": 2,
    "deviation": 2,
    "first": 2,
    "both_orders": 2,
    "longer": 2,
    "longer_gold": 2,
    "shortfall": 2,
    "annotators": 5,  # pairs with two votes or more, their agreement, votes by class
}
_ENDS = list(accumulate(BLOCKS.values()))
SLICES = {
    name: slice(end - size, end) for (name, size), end in zip(BLOCKS.items(), _ENDS, strict=True)
}
WIDTH = _ENDS[-1]


def block(sums: Float64, name: str) -> Float64:
    """Return the columns of a block: [..., size], bins as [..., BINS, 3]."""
    part = sums[..., SLICES[name]]
    return part.reshape(*part.shape[:-1], BINS, 3) if name.startswith("bins_") else part


def collect(judged: ScoredPairs, groups: Int64, count: int, band: float) -> Float64:
    """Return the sums of each group, count x WIDTH.

    Args:
        judged: n pairs.
        groups: n, the group that each pair is summed into, from 0 and below `count`.
        count: number of groups.
        band: preferences this near to one half are ties.
    """
    sums = np.zeros((count, WIDTH))
    for name, add in _adders(judged, groups, count, band):
        sums[:, SLICES[name]] = add()
    return sums


def _adders(
    judged: ScoredPairs, groups: Int64, count: int, band: float
) -> Iterator[tuple[str, Callable[[], Float64]]]:
    predicted = predicted_classes(judged.preference, judged.tie, band)
    gold = gold_classes(judged.votes)

    def mean(values: Float64, rows: Bool | None = None) -> Float64:
        return _means(values, groups, count, rows)

    yield "pairs", lambda: np.bincount(groups, minlength=count)[:, None].astype(np.float64)
    cells = np.bincount(9 * groups + 3 * predicted + gold, minlength=9 * count)
    yield "confusion", lambda: cells.reshape(count, 9).astype(np.float64)
    yield "squared", lambda: mean((judged.preference - _target(judged)) ** 2)
    yield "vote_share", lambda: mean(judged.shares()[np.arange(len(judged)), predicted])
    if not judged.hard:
        yield "vote_loss", lambda: mean(log_loss(judged.preference, _target(judged)))
        yield from _binary(judged, gold, groups, count)
    yield from _orders(judged, gold, mean)
    if judged.longer is not None:
        apart = np.abs(judged.longer) > LENGTHS_DIFFER
        side = np.where(judged.longer > 0, judged.preference, 1 - judged.preference)
        decisive = apart & (gold != TIE)
        named = (gold == 0) == (judged.longer > 0)
        yield "longer", lambda: mean(decided(side), apart)
        yield "longer_gold", lambda: mean(named.astype(np.float64), decisive)
    if judged.label_mass is not None:
        mass = judged.label_mass
        yield "shortfall", lambda: mean(1 - mass, np.isfinite(mass))
    yield "annotators", lambda: _annotators(judged.votes, groups, count)


def _binary(
    judged: ScoredPairs, gold: Int64, groups: Int64, count: int
) -> Iterator[tuple[str, Callable[[], Float64]]]:
    """Yield the blocks that need a probability and a gold without a tie."""
    rows = gold != TIE
    p, y, code = judged.preference[rows], (gold[rows] == 0).astype(np.float64), groups[rows]
    confidence = np.maximum(p, 1 - p)
    right = np.where(p == 0.5, 0.5, (p > 0.5) == (y == 1))

    def bins(values: Float64, outcome: Float64, where: Int64) -> Float64:
        cells = code * BINS + where
        columns = (np.ones(len(code)), values, outcome)
        counted = [np.bincount(cells, weights=w, minlength=count * BINS) for w in columns]
        return np.asarray(np.stack(counted, axis=1).reshape(count, 3 * BINS), np.float64)

    yield "binary", lambda: _means(y, code, count)
    yield "brier", lambda: _means((p - y) ** 2, code, count)
    yield "log_loss", lambda: _means(log_loss(p, y), code, count)
    yield "bins_preference", lambda: bins(p, y, equal_width(p))
    yield "bins_confidence", lambda: bins(confidence, right, equal_width(confidence))
    yield "bins_mass", lambda: bins(p, y, equal_mass(p))
    yield "auc", lambda: _auc(p, y == 1, code, groups, count)


def _orders(
    judged: ScoredPairs, gold: Int64, mean: Callable[[Float64, Bool | None], Float64]
) -> Iterator[tuple[str, Callable[[], Float64]]]:
    ab, ba = judged.preference_ab, judged.preference_ba
    if ab is None or ba is None:
        return
    known = np.isfinite(ab) & np.isfinite(ba)
    same = np.sign(ab - 0.5) == np.sign(ba - 0.5)
    first = (decided(ab) + decided(1 - ba)) / 2
    correct = both_orders_correct(ab, ba, gold)
    yield "consistent", lambda: mean(same.astype(np.float64), known)
    yield "deviation", lambda: mean(np.abs(ab - ba), known)
    yield "first", lambda: mean(first, known)
    yield "both_orders", lambda: mean(correct.astype(np.float64), gold != TIE)


def _means(values: Float64, groups: Int64, count: int, rows: Bool | None = None) -> Float64:
    """Return the number and sum of values by group, count x 2."""
    if rows is not None:
        values, groups = values[rows], groups[rows]
    number = np.bincount(groups, minlength=count).astype(np.float64)
    total = np.bincount(groups, weights=values, minlength=count)
    return np.stack([number, total], axis=1)


def _target(judged: ScoredPairs) -> Float64:
    shares = judged.shares()
    return np.asarray(shares[:, 0] + shares[:, 2] / 2)


def equal_width(values: Float64) -> Int64:
    """Return bins of width 1/BINS over [0, 1], open at the left: [0, 0.1], (0.1, 0.2], ...

    The edges are the nearest numbers to 0.1, 0.2, ..., so that 0.3 is in the third bin.
    """
    edges = np.arange(1, BINS) / BINS
    return np.searchsorted(edges, values, side="left").astype(np.int64)


def equal_mass(values: Float64) -> Int64:
    """Return bins that hold equally many values, open at the left; equal values share a bin."""
    if not len(values):
        return np.zeros(0, dtype=np.int64)
    edges = np.unique(np.quantile(values, np.arange(1, BINS) / BINS))
    return np.searchsorted(edges, values, side="left").astype(np.int64)


def _auc(p: Float64, positive: Bool, code: Int64, groups: Int64, count: int) -> Float64:
    """Return sums of relative ranks, for the area under the ROC curve.

    The rank of an a is the share of b's below it (ties half), that of a b the share of a's above
    it; the area is the mean rank. With weights w it is, to first order, mean_w(a's) + mean_w(b's)
    - area: the linear form of DeLong et al. (Biometrics 1988), which lets a bootstrap resample
    sums.
    """
    high, low = np.sort(p[positive]), np.sort(p[~positive])
    if not len(high) or not len(low):
        return np.zeros((count, 5))

    def below(ranked: Float64, values: Float64) -> Float64:
        left, right = (np.searchsorted(ranked, values, side=side) for side in ("left", "right"))
        return np.asarray((left + right) / (2 * len(ranked)))

    ranks = np.empty(len(p))
    ranks[positive] = below(low, p[positive])
    ranks[~positive] = 1 - below(high, p[~positive])
    area = float(ranks[positive].mean())
    whole = np.bincount(groups, minlength=count)[:, None] * area
    parts = (_means(ranks, code, count, rows) for rows in (positive, ~positive))
    return np.concatenate([*parts, whole], axis=1)


def _annotators(votes: Float64, groups: Int64, count: int) -> Float64:
    """Return, of pairs with two votes or more, their number, agreement and votes by class."""
    total = votes.sum(axis=1)
    whole = (votes == np.floor(votes)).all(axis=1)
    rows = whole & (total >= 2)
    v, m, code = votes[rows], total[rows], groups[rows]
    agree = (v * (v - 1)).sum(axis=1) / (m * (m - 1))
    return np.concatenate([_means(agree, code, count), cluster_sums(v, code, count)], axis=1)
