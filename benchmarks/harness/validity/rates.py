"""Rates: does the interval of a win rate, agreement, kappa or AUC contain the truth?

Before: the mean with 1.96 standard errors to both sides, and for metrics the percentiles of a
bootstrap over instructions.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np

from harness.validity.claim import Claim
from steelyard.evaluation.metrics.bootstrap import resample
from steelyard.evaluation.metrics.formulas import METRICS
from steelyard.evaluation.metrics.pairs import ScoredPairs
from steelyard.evaluation.metrics.rates import bounds
from steelyard.statistics.logistic import sigmoid
from steelyard.statistics.means import SHARE, mean

CLUSTERS = (10, 40, 200)
RATES = (0.5, 0.8, 0.95)
MIDDLE = 4  # clusters' worth of the rarer side: with fewer, a rate is at the tail
METRIC_NAMES = ("agreement", "kappa", "auc")
JUDGES = {"fair": 1.0, "good": 3.0}  # how far a judge's logits of the two gold sides are apart
REPLICATES = 200


def simulate(draws: int) -> Iterator[Claim]:
    """Draw means over clusters, then judged pairs with gold."""
    for kind, draw in KINDS.items():
        for clusters in CLUSTERS:
            for rate in RATES:
                yield _mean_claim(kind, draw, clusters, rate, draws)
    for judge, apart in JUDGES.items():
        for clusters in CLUSTERS[:2]:
            yield from _metric_claims(judge, apart, clusters, draws)


def _mean_claim(kind, draw, clusters, rate, draws):
    rng, before, after = np.random.default_rng([clusters, int(100 * rate)]), 0, 0
    for _ in range(draws):
        values, cluster = draw(rng, rate, clusters)
        found = mean(values, cluster, bounds=SHARE)
        before += abs(found.value - rate) <= 1.959964 * found.standard_error
        low, high = found.interval()
        after += low <= rate <= high
    name = f"{kind}, rate {rate}, {clusters} clusters"
    return _coverage(name, before, after, draws, tail=clusters * min(rate, 1 - rate) < MIDDLE)


def _coverage(name, before, after, draws, *, tail):
    low, high = (0.90, 1.0) if tail else (0.93, 0.97)
    return Claim(name, "coverage", before / draws, after / draws, low, high, draws)


def _soft(rng, rate, clusters):
    return rng.beta(5 * rate, 5 * (1 - rate), clusters), np.arange(clusters)


def _hard(rng, rate, clusters):
    return (rng.random(clusters) < rate).astype(float), np.arange(clusters)


def _unequal(rng, rate, clusters):
    """Clusters of 1 to 40 hard decisions, each with a separate rate."""
    sizes = np.minimum(1 + rng.geometric(0.2, clusters), 40)
    cluster = np.repeat(np.arange(clusters), sizes)
    own = rng.beta(3 * rate, 3 * (1 - rate), clusters)[cluster]
    return (rng.random(len(cluster)) < own).astype(float), cluster


KINDS = {
    "soft preferences": _soft,
    "hard outcomes": _hard,
    "hard outcomes in unequal clusters": _unequal,
}


def _metric_claims(judge, apart, clusters, draws):
    truth, rng = _truth(apart), np.random.default_rng(clusters)
    before, after = (dict.fromkeys(METRIC_NAMES, 0) for _ in range(2))
    for _ in range(draws):
        groups = resample(_judged(rng, apart, clusters), band=0, replicates=0, seed=0).groups
        drawn = rng.multinomial(clusters, np.full(clusters, 1 / clusters), REPLICATES) @ groups
        for name in METRIC_NAMES:
            values = METRICS[name](drawn)
            low, high = np.nanquantile(values, [0.025, 0.975])
            before[name] += low <= truth[name] <= high
            found = bounds(name, groups)
            # no number is not a wrong one: a judge that names one class alone has no kappa
            after[name] += found.low is None or found.low <= truth[name] <= found.high
    for name in METRIC_NAMES:
        title = f"{name} of a {judge} judge, {clusters} instructions of 3 pairs"
        yield _coverage(title, before[name], after[name], draws, tail=clusters < 40 or apart > 2)


def _judged(rng, apart, clusters, each=3):
    """Pairs with one vote; instructions differ in how well the judge knows them."""
    group = np.repeat(np.arange(clusters), each)
    gold = rng.integers(0, 2, len(group))
    skill = apart * np.exp(rng.normal(0, 0.3, clusters))[group]
    logits = np.where(gold == 0, skill, -skill) + rng.logistic(0, 1, len(group))
    return ScoredPairs(sigmoid(logits), np.eye(3)[gold], group)


@cache
def _truth(apart):
    pairs = _judged(np.random.default_rng(10**6), apart, 200_000)
    total = resample(pairs, band=0, replicates=0, seed=0).total
    return {name: float(METRICS[name](total)) for name in METRIC_NAMES}
