"""Metrics with intervals over instructions, and the reliability diagram's bins."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from steelyard.core.schemas import Float64, Int64
from steelyard.evaluation.metrics.formulas import ECE_BINS, METRICS, ece, ece_debiased
from steelyard.evaluation.metrics.pairs import ScoredPairs
from steelyard.evaluation.metrics.rates import bounds, share_bounds
from steelyard.evaluation.metrics.sums import BINS, block, collect
from steelyard.statistics.clusters import MIN_FOR_INTERVAL

LEVEL = 0.95
# More instructions than this are merged at random before they are resampled. Sums of independent
# instructions are independent too, and 10,000 of them give a standard error to 1%.
MOST_GROUPS = 10_000
# Squares, which sampling error raises in replicates as much as in the value itself: their interval
# is reflected around the value (the basic bootstrap), up to the most that they can be.
REFLECTED = {"reliability": 1.0, "resolution": 0.25}
NO_CHANGE = 1e-12  # what rounding leaves where all replicates change alike, and say nothing
MIN_REPLICATES = 2  # fewer have no middle 95%
FEWEST_DEFINED = 0.9  # share of replicates that have to define a metric for it to have an interval


@dataclass(frozen=True, slots=True)
class Estimate:
    """A metric's value and 95% interval; None: too few instructions, or not always defined."""

    metric: str
    value: float
    low: float | None
    high: float | None
    rests_on_count: bool = False  # the interval, on the number of instructions alone


@dataclass(frozen=True, slots=True)
class Bin:
    """Decisive pairs whose preference is in (left, right]: what was said and what gold says."""

    left: float
    right: float
    pairs: int
    said: float | None  # mean preference
    seen: float | None  # share of pairs for which gold says a
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What n pairs say about a judge; metrics that are undefined on them are left out."""

    pairs: int
    instructions: int
    estimates: dict[str, Estimate]
    bins: tuple[Bin, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "pairs": self.pairs,
            "instructions": self.instructions,
            "metrics": [asdict(estimate) for estimate in self.estimates.values()],
            "reliability": [asdict(span) for span in self.bins],
        }


@dataclass(frozen=True, slots=True)
class ResampledSums:
    """Sums over n pairs by group of instructions, and over the pairs of resampled groups."""

    pairs: int
    instructions: int
    groups: Float64  # groups x WIDTH
    replicates: Float64  # replicates x WIDTH

    @property
    def total(self) -> Float64:
        """Sums over all pairs, WIDTH."""
        return np.asarray(self.groups.sum(axis=0))


def resample(judged: ScoredPairs, *, band: float, replicates: int, seed: int) -> ResampledSums:
    """Sum up n pairs, and resample their instructions.

    Args:
        judged: the pairs, n > 0.
        band: preferences this near to one half are ties.
        replicates: of the bootstrap; below MIN_REPLICATES: no intervals.
        seed: of the bootstrap; the same seed resamples the same pairs in the same way.
    """
    names, groups = np.unique(judged.groups, return_inverse=True)
    merged, count = merged_groups(groups, len(names), seed)
    sums = collect(judged, merged, count, band)
    drawn = np.empty((0, sums.shape[1]))
    if replicates >= MIN_REPLICATES and len(sums) >= MIN_FOR_INTERVAL:
        from steelyard_kernels.bootstrap import resampled_sums

        drawn = resampled_sums(sums, replicates, seed)
    return ResampledSums(len(judged), len(names), sums, drawn)


def summarise(sums: ResampledSums) -> Evaluation:
    """Return all metrics that are defined on these sums."""
    estimates = {
        name: estimate for name in METRICS if (estimate := _estimate(name, sums)) is not None
    }
    bins = tuple(_bins(sums.groups))
    return Evaluation(sums.pairs, sums.instructions, estimates, bins)


def difference(
    after: ResampledSums, before: ResampledSums, names: Iterable[str]
) -> dict[str, Estimate]:
    """Return metrics after less those before.

    Both are of the same pairs in the same order and resampled with one seed, so that what they
    have in common cancels. A change of calibration error has no interval: chance can only add to
    such an error, the more the better a judge is calibrated, and replicates do not show how much.
    The changes of log loss and of the Brier score say whether calibration has helped. A change that
    is the same in all replicates has no interval either: they do not say how far others would be.
    """
    changes = {}
    for name in names:
        metric = METRICS[name]
        value = float(metric(after.total) - metric(before.total))
        if np.isfinite(value):
            drawn = metric(after.replicates) - metric(before.replicates)
            alike = np.abs(drawn[np.isfinite(drawn)] - value).max(initial=0.0) <= NO_CHANGE
            low, high = (None, None) if alike or name in ECE_BINS else interval(drawn)
            changes[name] = Estimate(name, value, low, high)
    return changes


def merged_groups(groups: Int64, count: int, seed: int) -> tuple[Int64, int]:
    """Merge instructions at random into MOST_GROUPS groups of equal size, if there are more."""
    if count <= MOST_GROUPS:
        return groups, count
    code = np.random.default_rng(seed).permutation(count) % MOST_GROUPS
    return code[groups], MOST_GROUPS


def _estimate(name: str, sums: ResampledSums) -> Estimate | None:
    value = float(METRICS[name](sums.total))
    if not np.isfinite(value):
        return None
    if name == "uncertainty":
        return Estimate(name, value, *_uncertainty_interval(sums.groups))
    if known := bounds(name, sums.groups):
        return Estimate(name, value, known.low, known.high, known.rests_on_count)
    low, high = interval(METRICS[name](sums.replicates))
    if name in REFLECTED and low is not None and high is not None:
        low, high = max(2 * value - high, 0.0), min(max(2 * value - low, value), REFLECTED[name])
    elif name in ECE_BINS and low is not None and high is not None:
        bins = ECE_BINS[name]
        above = high - float(ece(bins)(sums.total))
        low = max(min(float(ece_debiased(bins)(sums.total)) - above, value), 0.0)
        high = max(high, value)
    return Estimate(name, value, low, high)


def _uncertainty_interval(groups: Float64) -> tuple[float | None, float | None]:
    """Map the interval of s, the share of pairs where gold says a, to that of s (1 - s).

    The maximum is at s = 0.5.
    """
    share = bounds("share_a", groups)
    if share is None or share.low is None or share.high is None:
        return None, None
    ends = sorted((share.low * (1 - share.low), share.high * (1 - share.high)))
    return ends[0], 0.25 if share.low <= 0.5 <= share.high else ends[1]


def interval(drawn: Float64) -> tuple[float | None, float | None]:
    """Return the middle 95% of bootstrap replicates (Davison and Hinkley 1997, chapter 5).

    None if too few of them are defined.
    """
    defined = drawn[np.isfinite(drawn)]
    if len(defined) < max(2, FEWEST_DEFINED * len(drawn)):
        return None, None
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    return low, high


def _bins(groups: Float64) -> list[Bin]:
    by_group = block(groups, "bins_preference")
    bins = []
    for i, (pairs, said, seen) in enumerate(by_group.sum(axis=0).tolist()):
        values: tuple[float | None, ...] = (None,) * 4
        if pairs:
            span = share_bounds(by_group[:, i, 0], by_group[:, i, 2])
            values = (said / pairs, seen / pairs, span.low, span.high)
        bins.append(Bin(i / BINS, (i + 1) / BINS, int(pairs), *values))
    return bins
