"""Metrics with bootstrap intervals over instructions, and the reliability table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from steelyard.core.schemas import Float64, Int64
from steelyard.evaluation.metrics.formulas import ECE_BINS, METRICS, ece, ece_debiased
from steelyard.evaluation.metrics.pairs import ScoredPairs
from steelyard.evaluation.metrics.sums import BINS, block, collect
from steelyard.statistics.clusters import MIN_FOR_INTERVAL

LEVEL = 0.95
# More instructions than this are put together at random before they are resampled. Sums of
# independent instructions are independent too, and 10,000 of them give a standard error to 1%.
MOST_GROUPS = 10_000
# Squares to which sampling error adds, so that replicates lie too high by what the value itself
# does: their interval is turned around the value (the basic bootstrap).
TURNED = {"reliability", "resolution"}
MIN_REPLICATES = 2  # fewer have no middle 95%
FEWEST_DEFINED = 0.9  # share of replicates that have to define a metric for it to have an interval


@dataclass(frozen=True, slots=True)
class Estimate:
    """A metric's value and 95% interval; None: too few instructions, or not always defined."""

    metric: str
    value: float
    low: float | None
    high: float | None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


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

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What n pairs say about a judge. Metrics that nothing was there to measure are left out."""

    pairs: int
    instructions: int
    estimates: dict[str, Estimate]
    bins: tuple[Bin, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "pairs": self.pairs,
            "instructions": self.instructions,
            "metrics": [estimate.to_json() for estimate in self.estimates.values()],
            "reliability": [one.to_json() for one in self.bins],
        }


@dataclass(frozen=True, slots=True)
class Sample:
    """Sums over n pairs, and over the pairs of resampled instructions."""

    pairs: int
    instructions: int
    total: Float64  # WIDTH
    drawn: Float64  # replicates x WIDTH


def sample(judged: ScoredPairs, *, band: float, replicates: int, seed: int) -> Sample:
    """Sum up n pairs and resample them.

    Args:
        judged: the pairs, n > 0.
        band: preferences this near to one half are ties.
        replicates: of the bootstrap; below MIN_REPLICATES: no intervals.
        seed: of the bootstrap; with one seed, samples of the same pairs draw the same.
    """
    groups, instructions = _numbered(judged.groups)
    merged, count = merged_groups(groups, instructions, seed)
    sums = collect(judged, merged, count, band)
    return Sample(len(judged), instructions, sums.sum(axis=0), _drawn(sums, replicates, seed))


def evaluate(judged: ScoredPairs, *, band: float, replicates: int, seed: int) -> Evaluation:
    """All metrics of n pairs; arguments as in `sample`."""
    return summary(sample(judged, band=band, replicates=replicates, seed=seed))


def summary(one: Sample) -> Evaluation:
    """All metrics of a sample."""
    estimates = {
        name: estimate
        for name in METRICS
        if (estimate := _estimate(name, one.total, one.drawn)) is not None
    }
    bins = tuple(_bins(one.total, one.drawn))
    return Evaluation(one.pairs, one.instructions, estimates, bins)


def difference(one: Sample, other: Sample, names: Iterable[str]) -> dict[str, Estimate]:
    """Metrics of `one` less those of `other`.

    Both are of the same pairs in the same order and resampled with one seed, so that what they
    have in common cancels.
    """
    found = {}
    for name in names:
        metric = METRICS[name]
        value = float(metric(one.total) - metric(other.total))
        if np.isfinite(value):
            low, high = interval(metric(one.drawn) - metric(other.drawn))
            found[name] = Estimate(name, value, low, high)
    return found


def merged_groups(groups: Int64, count: int, seed: int) -> tuple[Int64, int]:
    """At most MOST_GROUPS groups of as many instructions each, drawn at random."""
    if count <= MOST_GROUPS:
        return groups, count
    places = np.random.default_rng(seed).permutation(count) % MOST_GROUPS
    return places[groups], MOST_GROUPS


def _numbered(groups: Int64) -> tuple[Int64, int]:
    found, numbers = np.unique(groups, return_inverse=True)
    return numbers.astype(np.int64), len(found)


def _drawn(sums: Float64, replicates: int, seed: int) -> Float64:
    if replicates < MIN_REPLICATES or len(sums) < MIN_FOR_INTERVAL:
        return np.empty((0, sums.shape[1]))
    from steelyard_kernels.bootstrap import resampled_sums

    return resampled_sums(sums, replicates, seed)


def _estimate(name: str, total: Float64, drawn: Float64) -> Estimate | None:
    metric = METRICS[name]
    value = float(metric(total))
    if not np.isfinite(value):
        return None
    low, high = interval(metric(drawn))
    if name == "uncertainty":
        low, high = _uncertainty_interval(drawn)
    elif name in TURNED and low is not None and high is not None:
        low, high = max(2 * value - high, 0.0), max(2 * value - low, value)
    elif name in ECE_BINS and low is not None and high is not None:
        bins = ECE_BINS[name]
        above = high - float(ece(bins)(total))
        low = max(min(float(ece_debiased(bins)(total)) - above, value), 0.0)
        high = max(high, value)
    return Estimate(name, value, low, high)


def _uncertainty_interval(drawn: Float64) -> tuple[float | None, float | None]:
    """That of the share of a's, s, through s (1 - s), which has its top at one half."""
    low, high = interval(METRICS["share_a"](drawn))
    if low is None or high is None:
        return None, None
    ends = sorted((low * (1 - low), high * (1 - high)))
    return ends[0], 0.25 if low <= 0.5 <= high else ends[1]


def interval(drawn: Float64) -> tuple[float | None, float | None]:
    """The middle 95% of bootstrap replicates (Davison and Hinkley 1997, chapter 5).

    None where too few of them are defined.
    """
    defined = drawn[np.isfinite(drawn)]
    if len(defined) < max(2, FEWEST_DEFINED * len(drawn)):
        return None, None
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    return low, high


def _bins(total: Float64, drawn: Float64) -> list[Bin]:
    table, tables = block(total, "bins_preference"), block(drawn, "bins_preference")
    found = []
    for at, (pairs, said, seen) in enumerate(table.tolist()):
        resampled = tables[:, at, 2] / np.where(tables[:, at, 0] > 0, tables[:, at, 0], np.nan)
        low, high = interval(resampled) if pairs else (None, None)
        means = [one / pairs if pairs else None for one in (said, seen)]
        found.append(Bin(at / BINS, (at + 1) / BINS, int(pairs), means[0], means[1], low, high))
    return found
