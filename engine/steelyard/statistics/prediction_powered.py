"""Prediction-powered means: a few gold labels, and a judge's preference for every row.

A judge that leans makes every mean of its preferences wrong, however many there are; gold alone is
right, and wide. With gold Y on n rows and the judge's f on these and on N others,

    theta = weight * mean of f over the others + mean of (Y - weight * f) over gold

is right for any judge and any fixed weight (Angelopoulos et al., "Prediction-powered inference",
Science 382, 2023), and with the weight of least variance (PPI++, Angelopoulos, Duchi and Zrnic,
arXiv 2311.01453) no wider than gold alone, up to the error of that weight. Gold has to be a random
sample of the rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from steelyard.core.schemas import Bool, Float64, Int64
from steelyard.statistics.clusters import Codes
from steelyard.statistics.intervals import NO_SPREAD, rate_interval, t_p_value
from steelyard.statistics.means import SHARE, Mean, mean

# Clusters with gold: with fewer, the weight and the spread of what gold corrects are guesses.
FEWEST = 10
# Labels more on which the judge is of no use: one that was never wrong on a few labels is not
# therefore always right.
UNUSED = 2
FITTED = 2  # the mean and the weight, both from the same gold


@dataclass(frozen=True, slots=True)
class Tuned:
    """A prediction-powered mean with the weight that the judge's preferences got."""

    value: float  # may leave [0, 1]
    weight: float  # in [0, 1]; 0: gold alone
    standard_error: float
    gold: Mean  # of gold alone
    others: int  # rows without gold

    @property
    def effective_labels(self) -> float:
        """How many labels alone would give this standard error; infinite at no error."""
        alone = self.gold.standard_error or 0.0
        if alone <= NO_SPREAD:  # gold says the same everywhere, and weighs alone
            return float(self.gold.rows)
        if not self.standard_error:
            return math.inf
        return self.gold.rows * (alone / self.standard_error) ** 2

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return bounds in [0, 1], for labels in [0, 1]: Wilson's, with as many labels as count.

        Gold's own rate p and the variance V say how many these are, p (1 - p) / V, so that gold
        without a single loss still has its width. UNUSED labels add their share of the variance of
        gold alone to V. Student's t has the clusters with gold less two degrees of freedom.
        """
        clusters, p = self.gold.effective_clusters, self.gold.value
        unused = (self.gold.standard_error or 0.0) ** 2 * UNUSED / (clusters - FITTED)
        variance = self.standard_error**2 + unused
        spread = p * (1 - p) > NO_SPREAD and variance > NO_SPREAD**2
        labels = p * (1 - p) / variance if spread else clusters
        rate = min(max(self.value, 0.0), 1.0)
        return rate_interval(
            rate, math.sqrt(rate * (1 - rate) / labels), clusters - FITTED + 1, level
        )


@dataclass(frozen=True, slots=True)
class Influences:
    """How far each of G clusters moves each of three means; a cluster may have all three."""

    gold: Float64  # [G] the mean of Y over gold
    known: Float64  # [G] the mean of f over gold
    others: Float64  # [G] the mean of f over the others

    def of(self, weight: float) -> tuple[Float64, Float64]:
        """Return the influences [G] on theta through gold, and through the others."""
        return self.gold - weight * self.known, weight * self.others


def prediction_powered_mean(
    label: Float64,
    preference: Float64,
    cluster: Codes,
    row_weight: Float64 | None = None,
    weight: float | None = None,
) -> Tuned | None:
    """Estimate the mean label of all n rows.

    Args:
        label: [n], in [0, 1]; NaN where a row has no gold.
        preference: [n], the judge's, made without this gold.
        cluster: [n]; rows of one cluster may depend on each other, with gold or without.
        row_weight: [n], not negative; None: each is 1.
        weight: of the preferences; None: the one of least variance, in [0, 1].

    Returns:
        The estimate; None with too little gold (`enough_gold`), or most of it in a few clusters.
    """
    mass = np.ones(len(label)) if row_weight is None else row_weight
    has_gold = np.isfinite(label)
    if not enough_gold(has_gold, cluster):
        return None
    _, codes = np.unique(cluster, return_inverse=True)
    gold = mean(label[has_gold], codes[has_gold], mass[has_gold], bounds=SHARE)
    if gold.effective_clusters < FEWEST / 2:
        return None
    moved = influences(label, preference, codes, mass, has_gold)
    if weight is None:
        weight = best_weight(moved, preference, codes, mass, has_gold)
    known, others = (
        float(np.average(preference[rows], weights=mass[rows])) for rows in (has_gold, ~has_gold)
    )
    variance = _variance(moved, weight, gold.clusters, len(np.unique(codes[~has_gold])))
    return Tuned(
        value=weight * others + gold.value - weight * known,
        weight=weight,
        standard_error=math.sqrt(variance),
        gold=gold,
        others=int((~has_gold).sum()),
    )


def enough_gold(has_gold: Bool, cluster: Codes) -> bool:
    """Return whether FEWEST clusters have gold, and some row has none."""
    return not has_gold.all() and len(np.unique(cluster[has_gold])) >= FEWEST


def influences(
    label: Float64, preference: Float64, codes: Int64, mass: Float64, has_gold: Bool
) -> Influences:
    """Return the influences of the clusters that `codes` number from 0."""
    size = int(codes.max()) + 1

    def moved(values: Float64, rows: Bool) -> Float64:
        share = mass[rows] / mass[rows].sum()
        values = values[rows]
        parts = share * (values - share @ values)
        return np.bincount(codes[rows], weights=parts, minlength=size).astype(np.float64)

    return Influences(
        moved(label, has_gold), moved(preference, has_gold), moved(preference, ~has_gold)
    )


def best_weight(
    moved: Influences, preference: Float64, codes: Int64, mass: Float64, has_gold: Bool
) -> float:
    """Return the weight of least variance, in [0, 1].

    With a row per cluster it is Cov(Y, f) / ((1 + n / N) Var f), the variance of f that of all rows
    (PPI++). Clusters with gold in some of their rows add what both means share.
    """
    share = mass / mass.sum()
    sums = np.bincount(codes, weights=share * (preference - share @ preference))
    spread = float(sums @ sums) * len(sums) / (len(sums) - 1)  # of the mean over all rows
    gold_share = float(share[has_gold].sum())
    both = float(moved.known @ moved.others)
    covariance = float(moved.gold @ moved.known) - float(moved.gold @ moved.others)
    variance = spread * (1 / gold_share + 1 / (1 - gold_share)) - 2 * both
    return min(max(covariance / variance, 0.0), 1.0) if variance > 0 else 0.0


def _variance(moved: Influences, weight: float, clusters: int, elsewhere: int) -> float:
    """Return the variance of theta, each part enlarged for the means that it was centred at."""
    gold, others = moved.of(weight)
    parts = float(gold @ gold) * clusters / (clusters - FITTED)
    parts += float(others @ others) * elsewhere / max(elsewhere - 1, 1)
    return max(parts + 2 * float(gold @ others), 0.0)


def selection_p_value(
    label: Float64, value: Float64, cluster: Codes, row_weight: Float64 | None = None
) -> float:
    """Return the p-value of "gold is a random sample", by the mean of a value with and without it.

    It is 1 where nothing can be said: fewer than FEWEST clusters with gold, or no row without.
    """
    mass = np.ones(len(label)) if row_weight is None else row_weight
    has_gold = np.isfinite(label)
    if not enough_gold(has_gold, cluster):
        return 1.0
    clusters = len(np.unique(cluster[has_gold]))
    _, codes = np.unique(cluster, return_inverse=True)
    moved = influences(label, value, codes, mass, has_gold)
    difference = np.average(value[has_gold], weights=mass[has_gold]) - np.average(
        value[~has_gold], weights=mass[~has_gold]
    )
    apart = moved.known - moved.others
    error = math.sqrt(float(apart @ apart) * clusters / (clusters - 1))
    return t_p_value(float(difference) / error, clusters - 1) if error > 0 else 1.0
