"""Generated reads and gold with known truth, for tests of calibrators and metrics."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from steelyard.calibrators.abstention import confidence_of, fit_trust_threshold, thresholds_of
from steelyard.calibrators.features import Features, Gold
from steelyard.calibrators.ties import tie_probability
from steelyard.evaluation.metrics.pairs import ScoredPairs
from steelyard.statistics.logistic import sigmoid


def biased_judge(
    seed, *, pairs=1500, instructions=300, temperature=2.0, first=0.7, length=0.8, votes=5
):
    """Reads of a judge with known faults, and votes of people without them.

    A judge's logit is temperature x people's logit + length x tanh(length difference / its
    deviation), and `first` more for the response that it sees first.
    """
    draw = np.random.default_rng(seed)
    longer = np.round(draw.normal(0, 300, pairs))
    base = draw.normal(0, 2, pairs)
    ab = base + first + draw.normal(0, 0.5, pairs)
    ba = base - first + draw.normal(0, 0.5, pairs)
    score = (ab + ba) / 2
    people = (score - length * np.tanh(longer / longer.std())) / temperature
    count = draw.integers(1, votes + 1, pairs)
    a = draw.binomial(count, sigmoid(people))
    gold = np.stack([a, count - a, np.zeros(pairs)], axis=1).astype(np.float64)
    groups = draw.integers(0, instructions, pairs)
    return Features(score, ab, ba, longer), Gold(gold, groups), sigmoid(people)


def judged_pairs(draw, *, instructions=250, each=4):
    """Pairs of instructions that differ in how hard they are, with three votes a pair."""
    n = instructions * each
    groups = np.repeat(np.arange(instructions), each)
    quality = draw.normal(0, 1, instructions)[groups] + draw.normal(0, 1, n)
    score = 1.6 * quality + draw.normal(0, 0.5, instructions)[groups] + 0.3
    ab = sigmoid(score + 0.4 + draw.normal(0, 0.3, n))
    ba = sigmoid(score - 0.4 + draw.normal(0, 0.3, n))
    a, tie = np.exp(quality / 2), np.exp(0.2)
    total = a + 1 / a + tie
    edges = np.stack([a / total, (a + 1 / a) / total], axis=1)[:, None, :]
    classes = (draw.random((n, 3, 1)) > edges).sum(axis=2)
    votes = np.stack([(classes == one).sum(axis=1) for one in range(3)], axis=1)
    mass, longer = draw.beta(8, 1, n), draw.normal(0, 200, n) + 60 * quality
    return ScoredPairs(
        sigmoid(score), votes.astype(np.float64), groups, None, ab, ba, mass, longer
    )  # fmt: skip


def swapped_reads(reads):
    """The same reads with responses a and b exchanged."""
    return Features(-reads.score, -reads.score_ba, -reads.score_ab, -reads.longer)


def swapped_pairs(pairs):
    """The same judged pairs with responses a and b exchanged."""
    return replace(
        pairs, preference=1 - pairs.preference, votes=pairs.votes[:, [1, 0, 2]],
        preference_ab=1 - pairs.preference_ba, preference_ba=1 - pairs.preference_ab,
        longer=-pairs.longer,
    )  # fmt: skip


def apply_in_numpy(calibrator, reads):
    """Calibrated preference, P(tie) and trust: what `calibrated_sql` says in SQL."""
    preference = calibrator.curve.preference(reads)
    threshold = calibrator.selective.threshold
    trusted = confidence_of(preference) >= (np.inf if threshold is None else threshold)
    tie = None if calibrator.tie is None else tie_probability(preference, calibrator.tie)
    return preference, tie, trusted


# Gold by how many pairs its instructions have: (usual number of instructions, their sizes).
GOLD_SHAPES = {
    "of 1 pair": (600, lambda draw, n: np.ones(n, np.int64)),
    "of 10 pairs": (30, lambda draw, n: np.full(n, 10)),
    "of 15 pairs": (13, lambda draw, n: np.full(n, 15)),
    "of 1 to 60 pairs, heavy-tailed": (
        40,
        lambda draw, n: np.minimum(1 + draw.pareto(1.2, n).astype(int), 60),
    ),
    "of 1 to 29 pairs": (100, lambda draw, n: draw.integers(1, 30, n)),
}
# Judges by how often they are wrong at a confidence, where a share of `allowed` is promised.
JUDGES = {
    "rising": lambda c, allowed: allowed * (4.5 - 4.4 * (2 * c - 1) ** 0.7),
    "good": lambda c, allowed: np.full(len(c), allowed / 4),
    "just too bad": lambda c, allowed: np.full(len(c), allowed + 0.001),
    "wrong when sure": lambda c, allowed: allowed * np.where(c > 0.97, 1.2, 0.7),
}


def broken_and_found(shape, judge, seeds, *, agreement=0.9, instructions=None):
    """In how many draws of gold a threshold breaks its promise, and in how many one is found.

    All pairs of an instruction are wrong together: they share the draw that decides it.
    """
    usual, sizes_of = GOLD_SHAPES[shape]
    allowed = 1 - agreement

    def risk(certainty):
        return np.minimum(JUDGES[judge](certainty, allowed), 1)

    pool = confidence_of(np.random.default_rng(10**6).beta(0.7, 0.7, 100_000))
    broken = found = 0
    for seed in range(seeds):
        draw = np.random.default_rng(seed)
        sizes = sizes_of(draw, 2 * (instructions or usual))
        groups = np.repeat(np.arange(len(sizes)), sizes)
        p = draw.beta(0.7, 0.7, len(groups))
        right = draw.random(len(sizes))[groups] >= risk(confidence_of(p))
        test = groups % 2 == 1
        threshold = fit_trust_threshold(
            p[test], right[test], groups[test], agreement, 0.95,
            thresholds=thresholds_of(p[~test]), largest=int(sizes.max()),
        ).threshold  # fmt: skip
        if threshold is not None:
            found += 1
            broken += bool(risk(pool[pool >= threshold]).mean() > allowed)
    return broken, found
