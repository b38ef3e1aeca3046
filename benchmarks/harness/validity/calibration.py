"""Calibrators: are known faults found, and are the numbers of `evaluate` on them right?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from harness.validity.claim import Claim
from steelyard.calibrators.features import Features, Gold
from steelyard.calibrators.gold_trace import GoldTrace
from steelyard.calibrators.linear import Linear
from steelyard.calibrators.methods import METHODS, RIDGE
from steelyard.core.schemas import Float64
from steelyard.evaluation.metrics.bootstrap import (
    ResampledSums,
    difference,
    interval,
    resample,
    summarise,
)
from steelyard.evaluation.metrics.formulas import METRICS
from steelyard.evaluation.metrics.pairs import ScoredPairs
from steelyard.statistics.logistic import fit, log_loss, sigmoid
from support.trust_data import biased_judge, judged_pairs

LOW, HIGH = 0.93, 0.97  # of shares of intervals that contain the truth
REPLICATES = 400
POOL = 100_000  # pairs whose values are the truth
FAULTS = {"logit": 0.5, "length": -0.4, "intercept": 0.0, "first_position": 0.7}
# Errors that chance can only increase: their intervals hold the truth more often than others'.
FOLDED = {"ece", "ece_debiased", "ece_confidence", "reliability"}


def simulate(draws: int) -> Iterator[Claim]:
    """Draw gold of judges whose faults are known."""
    yield from known_faults(draws, 750, 150)
    yield from known_faults(draws, 100, 10)
    yield from small_scales(draws)
    yield from negative_slopes(draws)
    yield from own_gold(draws)
    yield from changes(draws)
    yield from metrics(draws)


def claim(name: str, hits: Float64, draws: int) -> Claim:
    """Return a claim about coverage, from the hits [draws, 2] before and after."""
    before, after = hits.mean(axis=0).tolist()
    return Claim(name, "coverage", before, after, LOW, HIGH, draws)


def holds(low: float | None, high: float | None, truth: float) -> bool:
    """Return whether there is an interval, and the truth is in it."""
    return low is not None and high is not None and low <= truth <= high


def overconfident(draw: np.random.Generator, pairs: int) -> tuple[Features, Gold]:
    """Return pairs of a judge whose logits are twice those of people."""
    score = draw.normal(0, 2, pairs)
    a = draw.random(pairs) < sigmoid(score / 2)
    votes = np.stack([a, ~a, np.zeros(pairs)], axis=1).astype(float)
    return Features(score), Gold(votes, np.arange(pairs))


def known_faults(draws: int, pairs: int, instructions: int) -> Iterator[Claim]:
    """Fit the terms of a judge with a temperature, a love of length and of first positions."""
    hits = dict.fromkeys(FAULTS, 0)
    for seed in range(draws):
        features, gold, _ = biased_judge(seed, pairs=pairs, instructions=instructions)
        curves = [METHODS[name].fit(features, gold) for name in ("position", "length")]
        ends = dict[str, tuple[float, float]]()
        for made in curves:
            ends |= made.intervals if isinstance(made, Linear) else {}
        for name, truth in FAULTS.items():
            hits[name] += holds(*ends[name], truth)
    for name, count in hits.items():
        yield Claim(
            f"coefficient `{name}`, {instructions} instructions of {pairs // instructions} pairs",
            "coverage", None, count / draws, LOW, HIGH, draws,
        )  # fmt: skip


def small_scales(draws: int) -> Iterator[Claim]:
    """Fit a slope to score differences with a standard deviation of 0.005."""
    scale, hits = 0.0025, np.zeros((draws, 2))
    for seed in range(draws):
        features, gold = overconfident(np.random.default_rng(seed), 200)
        small = Features(features.score * scale, has_scale=False)
        terms, one = np.stack([small.score, np.ones(200)], axis=1), np.array([1.0, 0.0])
        fixed = np.full(2, RIDGE)  # as for scores of any other scale
        plain = fit(terms, gold.preference, gold.weights, gold.groups, fixed, prior=one)
        made = METHODS["platt"].fit(small, gold)
        if isinstance(made, Linear):
            ends = (tuple(plain.intervals()[0]), made.intervals["logit"])
            hits[seed] = [holds(*end, 0.5 / scale) for end in ends]
    yield claim("slope of 200 score differences, standard deviation 0.005", hits, draws)


def negative_slopes(draws: int) -> Iterator[Claim]:
    """Fit beta calibration to a judge that says nothing."""
    negative = np.zeros((draws, 2))
    for seed in range(draws):
        draw = np.random.default_rng(seed)
        _, gold = overconfident(draw, 60)
        mute = Features(draw.normal(0, 2, 60))
        made = METHODS["beta"].fit(mute, gold)
        if isinstance(made, Linear):
            slopes = [value for name, value in made.coefficients.items() if name != "intercept"]
            negative[seed] = [min(one_by_one(mute, gold)) < 0, min(slopes, default=0.0) < 0]
    shares = negative.mean(axis=0).tolist()
    name = "beta on 60 pairs of a judge that says nothing"
    yield Claim(name, "negative slopes", *shares, 0, 0, draws)


def one_by_one(features: Features, gold: Gold) -> list[float]:
    """Return slopes of beta, where a negative one is left out before the other is looked at."""
    z = features.score
    terms = np.stack([-np.logaddexp(0, -z), np.logaddexp(0, z), np.ones(len(z))], axis=1)
    rows = [0, 1, 2]

    def fitted() -> list[float]:
        ridge, prior = np.full(len(rows), RIDGE), np.array([1.0, 1.0, 0.0])[rows]
        made = fit(
            terms[:, rows], gold.preference, gold.weights, gold.groups, ridge, prior=prior
        )  # fmt: skip
        return [float(value) for value in made.coefficients]

    for slope in (0, 1):
        if fitted()[rows.index(slope)] < 0:
            rows.remove(slope)
    return [0.0, *fitted()[:-1]]


def own_gold(draws: int) -> Iterator[Claim]:
    """Evaluate calibrators on the 200 pairs that they were fitted to."""
    pool = np.random.default_rng(10**6).normal(0, 2, POOL)
    for method in ("platt", "isotonic"):
        hits = np.zeros((draws, 2))
        for seed in range(draws):
            draw = np.random.default_rng(seed)
            features, gold = overconfident(draw, 200)
            curve, ids = METHODS[method].fit(features, gold), np.arange(200, dtype=np.uint64)
            truth = float(log_loss(curve.preference(Features(pool)), sigmoid(pool / 2)).mean())
            inside = curve.preference(features)
            trace = GoldTrace.of(METHODS[method].fit, features, gold, ids, seed)
            outside, _ = trace.crossfit(features, ids, inside, None)
            for column, made in enumerate((inside, outside)):
                pairs = ScoredPairs(made, gold.votes, gold.groups)
                found = summarise(resample(pairs, band=0, replicates=REPLICATES, seed=seed))
                estimate = found.estimates["log_loss"]
                hits[seed, column] = holds(estimate.low, estimate.high, truth)
        yield claim(f"log loss of {method} on its own 200 pairs", hits, draws)


def changes(draws: int) -> Iterator[Claim]:
    """Evaluate what a calibrator changes on 400 pairs that it has not seen."""
    known, known_gold = overconfident(np.random.default_rng(10**6), 1000)
    curve = METHODS["temperature"].fit(known, known_gold)

    def sums(features: Features, gold: Gold, replicates: int, seed: int) -> list[ResampledSums]:
        return [
            resample(
                ScoredPairs(p, gold.votes, gold.groups), band=0, replicates=replicates, seed=seed
            )
            for p in (curve.preference(features), sigmoid(features.score))
        ]

    names = ("log_loss", "brier", "ece", "ece_debiased")
    many = overconfident(np.random.default_rng(10**6 + 1), POOL)
    truth = {k: v.value for k, v in difference(*sums(*many, 0, 0), names).items()}
    hits = {name: np.zeros(draws) for name in names}
    for seed in range(draws):
        after, before = sums(*overconfident(np.random.default_rng(seed), 400), REPLICATES, seed)
        found = difference(after, before, names)
        for name in names:
            metric, estimate = METRICS[name], found[name]
            ends = (estimate.low, estimate.high)
            if name.startswith("ece"):  # percentiles, which `evaluate` no longer prints
                ends = interval(metric(after.replicates) - metric(before.replicates))
            hits[name][seed] = holds(*ends, truth[name])
    for name, plain in (("log_loss", "ece"), ("brier", "ece_debiased")):
        both = np.stack([hits[plain], hits[name]], axis=1)
        yield claim(f"change of {name} by calibration (before: of {plain}), 400 pairs", both, draws)


def metrics(draws: int) -> Iterator[Claim]:
    """Evaluate a judge on 250 instructions of 4 pairs with 3 votes."""
    many = judged_pairs(np.random.default_rng(10**6), instructions=POOL // 4)
    truth = summarise(resample(many, band=0, replicates=0, seed=0)).estimates
    hits = dict.fromkeys(truth, 0)
    for seed in range(draws):
        pairs = judged_pairs(np.random.default_rng(seed))
        found = summarise(resample(pairs, band=0, replicates=REPLICATES, seed=seed)).estimates
        for name in truth:
            hits[name] += holds(found[name].low, found[name].high, truth[name].value)
    for name, count in hits.items():
        low, high = (0.9, 1.0) if name in FOLDED else (LOW, HIGH)
        yield Claim(f"metric {name}", "coverage", None, count / draws, low, high, draws)
