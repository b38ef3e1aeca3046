"""Bradley-Terry ratings from a few gold labels and a judge's preference for every comparison.

The likelihood of gold has the gradient g(Y), which the judge's preferences f complete (PPI++,
Angelopoulos, Duchi and Zrnic, arXiv 2311.01453, for generalised linear models):

    weight * mean of g(f) over the others + mean of (g(Y) - weight * g(f)) over gold = 0

It is linear in the outcomes, so that both kinds of comparisons enter as sums per pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from steelyard.core.schemas import Bool, Float64, Int64
from steelyard.ranking.bradley_terry import CENTRE, POINTS, Ratings, Spread
from steelyard.ranking.tournament import Tournament
from steelyard.statistics.intervals import t_quantile
from steelyard.statistics.logistic import sigmoid
from steelyard.statistics.prediction_powered import FEWEST, FITTED
from steelyard_kernels import links
from steelyard_kernels.bradley_terry import solve
from steelyard_kernels.comparisons import Pairs

# Squares of two labels half a point off, the least spread of a competitor's labels: a judge that
# was never wrong on a few is not therefore always right.
IMAGINARY = 0.5
WORST = 1e9  # condition of the information: past it some competitors are not joined to others
FARTHEST = 10.0  # log-strength: past it a competitor's is on its way to infinity
CELLS = 1 << 22  # of cluster sums in memory at a time


@dataclass(frozen=True, slots=True)
class TunedRatings:
    """Ratings of K competitors on the Elo scale, their mean or the anchor at 1000."""

    rating: Float64  # [K]
    spread: Spread
    weight: float  # of the judge, in [0, 1]; 0: gold alone
    clusters: Int64  # [K] with gold for a comparison of the competitor
    labels: Int64  # [K] its comparisons with gold

    @property
    def standard_error(self) -> Float64:
        """[K]."""
        return np.asarray(np.sqrt(np.maximum(np.diag(self.spread.covariance), 0)))

    def ratings(self, competitors: tuple[str, ...], level: float = 0.95) -> Ratings:
        """Return them in the form of those by a single kind of verdicts."""
        ends = self.interval(level)
        return Ratings(competitors, self.rating, *ends, self.standard_error, self.spread, None, ())

    @property
    def known(self) -> Bool:
        """[K], which have gold in FEWEST clusters: the others' numbers mean nothing."""
        return self.clusters >= FEWEST

    def interval(self, level: float = 0.95) -> tuple[Float64, Float64]:
        """Return bounds [K], by Student's t with the competitor's clusters less two."""
        freedom = np.maximum(self.clusters - FITTED, 0).astype(np.float64)
        with np.errstate(invalid="ignore"):  # the anchor, without gold: infinite times 0
            reach = np.nan_to_num(t_quantile(level, freedom) * self.standard_error, nan=0.0)
        return self.rating - reach, self.rating + reach


@dataclass(frozen=True, slots=True)
class _Comparisons:
    """What the estimating equations are made of; columns of length n, in order of clusters."""

    first: Int64  # competitor i
    second: Int64  # j
    label: Float64  # for i; 0 without gold
    preference: Float64  # for i
    has_gold: Bool
    share: Float64  # of the row in its part's weight, with gold or without: each sums to 1
    cluster: Int64
    size: int  # K

    def outcomes(self, weight: float) -> tuple[Float64, Float64]:
        """Return how much each row counts, and its outcome times that; the weight may be any."""
        count = np.where(self.has_gold, 1 - weight, weight) * self.share
        known = self.label - weight * self.preference
        score = np.where(self.has_gold, known, weight * self.preference) * self.share
        return count, score

    def residuals(self, strength: Float64, weight: float) -> Float64:
        """Return [n]: each row's gradient, along the difference of its competitors."""
        count, score = self.outcomes(weight)
        return np.asarray(score - count * sigmoid(strength[self.first] - strength[self.second]))

    def information(self, strength: Float64, count: Float64) -> Float64:
        """Return the negative second derivatives [K, K], made regular."""
        p = sigmoid(strength[self.first] - strength[self.second])
        cells = np.bincount(
            self.first * self.size + self.second,
            weights=count * p * (1 - p),
            minlength=self.size**2,
        ).reshape(self.size, self.size)
        cells = cells + cells.T
        matrix = np.diag(cells.sum(axis=1)) - cells
        return np.asarray(matrix + np.diag(matrix).mean() / self.size)  # strengths add up to 0

    def products(self, residual: Float64) -> Float64:
        """Return [K, K]: the sum over clusters of g g', g each cluster's gradient less its share.

        The gradients with gold and those without have opposite means, in which a cluster shares by
        its weight: how many rows it has says nothing about them.
        """
        size, mean = self.size, self._gradient(np.where(self.has_gold, residual, 0.0))
        signed = np.where(self.has_gold, self.share, -self.share)
        total = np.zeros((size, size))
        step = max(1, CELLS // size)
        edges = np.searchsorted(self.cluster, np.arange(0, self.cluster[-1] + 1 + step, step))
        for start, end in pairwise(edges.tolist()):
            rows = slice(start, end)
            own = self.cluster[rows] - self.cluster[start]
            groups = int(own[-1]) + 1
            flat = np.zeros(groups * size)
            for side, sign in ((self.first, 1.0), (self.second, -1.0)):
                flat += np.bincount(
                    own * size + side[rows], weights=sign * residual[rows], minlength=len(flat)
                )
            shared = np.bincount(own, weights=signed[rows], minlength=groups)
            sums = flat.reshape(groups, size) - shared[:, None] * mean
            total += sums.T @ sums
        return total

    def _gradient(self, residual: Float64) -> Float64:
        won = np.bincount(self.first, weights=residual, minlength=self.size)
        return np.asarray(won - np.bincount(self.second, weights=residual, minlength=self.size))


def tuned_ratings(
    contest: Tournament, label: Float64, anchor: str | None = None, weight: float | None = None
) -> TunedRatings | None:
    """Rate all competitors.

    Args:
        contest: all comparisons, by the judge.
        label: [n], gold for the pair's first competitor, in [0, 1]; NaN without gold.
        anchor: the competitor at 1000; None: the mean.
        weight: of the judge; None: the one with the least sum of variances; 0: gold alone.

    Returns:
        The ratings; None if all rows have gold or too few have, or no finite ratings solve the
        equations.
    """
    rows = _comparisons(contest, label)
    clusters, labels = _gold_counts(rows)
    if rows.has_gold.all() or len(np.unique(rows.cluster[rows.has_gold])) < FEWEST:
        return None
    if weight is None:
        weight = _tune(rows)
    count, score = rows.outcomes(weight)
    strength = _solve(rows, count, score)
    if strength is None:
        return None
    information = rows.information(strength, count)
    if np.linalg.cond(information) > WORST:
        return None
    middle = rows.products(rows.residuals(strength, weight))
    middle += np.diag(np.maximum(_least_variance(rows, clusters) - np.diag(middle), 0))
    inverse = np.asarray(np.linalg.inv(information), np.float64)
    room = np.maximum(clusters - FITTED, 1)
    scale = np.sqrt(np.maximum(clusters, 1) / room) * POINTS
    change = np.eye(rows.size)
    if anchor is None:
        change -= 1 / rows.size
        zero = strength.mean()
    else:
        position = contest.competitors.index(anchor)
        change[:, position] -= 1
        zero = strength[position]
    covariance = change @ (inverse @ middle @ inverse) @ change.T * np.outer(scale, scale)
    spread = Spread(np.asarray(covariance), _degrees(clusters, inverse), inverse)
    return TunedRatings(CENTRE + POINTS * (strength - zero), spread, weight, clusters, labels)


def _degrees(clusters: Int64, inverse: Float64) -> Float64:
    """Return the degrees of freedom [K, K] of differences, Welch's (Biometrika 34, 1947)."""
    own = np.maximum(clusters - FITTED, 0).astype(np.float64)
    variance = np.diag(inverse)
    with np.errstate(divide="ignore"):
        part = variance**2 / own
    return np.asarray(np.add.outer(variance, variance) ** 2 / np.add.outer(part, part))


def _comparisons(contest: Tournament, label: Float64) -> _Comparisons:
    order = np.argsort(contest.cluster, kind="stable")
    pair, label = contest.rows.pair[order].astype(np.int64), label[order]
    has_gold = np.isfinite(label)
    mass = contest.rows.weight[order] if len(contest.rows.weight) else np.ones(len(label))
    of_gold, of_others = mass[has_gold].sum(), mass[~has_gold].sum()
    return _Comparisons(
        first=pair // contest.size,
        second=pair % contest.size,
        label=np.where(has_gold, label, 0.0),
        preference=contest.rows.preference[order],
        has_gold=has_gold,
        share=mass / np.where(has_gold, of_gold or 1.0, of_others or 1.0),
        cluster=contest.cluster[order].astype(np.int64),
        size=contest.size,
    )


def _gold_counts(rows: _Comparisons) -> tuple[Int64, Int64]:
    """Return [K] each: in how many clusters and rows a competitor has gold."""
    gold = np.flatnonzero(rows.has_gold)
    sides = np.concatenate([rows.first[gold], rows.second[gold]])
    met = np.unique(np.concatenate([rows.cluster[gold]] * 2) * rows.size + sides) % rows.size
    return np.bincount(met, minlength=rows.size), np.bincount(sides, minlength=rows.size)


def _least_variance(rows: _Comparisons, clusters: Int64) -> Float64:
    """Return the variance [K] of gradients that IMAGINARY labels alone would have."""
    share = np.where(rows.has_gold, rows.share, 0.0)
    held = np.bincount(rows.first, share, rows.size) + np.bincount(rows.second, share, rows.size)
    return np.asarray(IMAGINARY * (held / np.maximum(clusters, 1)) ** 2)


def _tune(rows: _Comparisons) -> float:
    """Return the best weight at ratings that are about right: those with the judge's best weight.

    That in turn is found at the judge's own ratings, whatever its errors are.
    """
    strength = _solve(rows, rows.share, rows.share * rows.preference)
    if strength is not None:
        strength = _solve(rows, *rows.outcomes(_best_weight(rows, strength)))
    return 0.0 if strength is None else _best_weight(rows, strength)


def _best_weight(rows: _Comparisons, strength: Float64) -> float:
    """Return the weight in [0, 1] with the least sum of variances, a parabola in the weight."""
    inverse = np.linalg.inv(rows.information(strength, rows.share))
    centred = inverse - inverse.mean(axis=0)
    without, whole, against = (
        float(np.trace(centred @ rows.products(rows.residuals(strength, weight)) @ centred.T))
        for weight in (0.0, 1.0, -1.0)
    )
    bend = whole + against - 2 * without
    return min(max((against - whole) / (2 * bend), 0.0), 1.0) if bend > 0 else 0.0


def _solve(rows: _Comparisons, count: Float64, score: Float64) -> Float64 | None:
    """Return the log-strengths [K] that solve the equations; None if none do."""
    pair = rows.first * rows.size + rows.second
    met = np.flatnonzero(np.bincount(pair, minlength=rows.size**2))
    total = float(len(rows.label)) / count.sum()  # of the size of rows, as in any other fit
    sums = np.zeros((len(met), 3))
    for i, part in enumerate((count, score)):
        sums[:, i] = np.bincount(pair, weights=part, minlength=rows.size**2)[met] * total
    pairs = Pairs((met // rows.size).astype(np.int32), (met % rows.size).astype(np.int32), sums)
    none = np.zeros(rows.size)
    with np.errstate(all="ignore"):
        fitted = solve(links.BRADLEY_TERRY, pairs, none, np.append(none, 0.5))
    strength = fitted.estimate[:-1]
    if not fitted.converged or not np.abs(strength).max() < FARTHEST:
        return None
    return np.asarray(strength)
