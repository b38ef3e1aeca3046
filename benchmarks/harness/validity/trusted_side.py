"""Trusted verdicts of a judge that leans: does their winner agree with people as promised?"""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import numpy as np
import pyarrow as pa

from harness.validity.claim import Claim
from steelyard.calibrators.abstention import fit_trust_threshold, thresholds_of
from steelyard.calibrators.calibrator import Calibrator
from steelyard.calibrators.features import Features, Gold
from steelyard.calibrators.methods import METHODS
from steelyard.evaluation.metrics.pairs import named_by_gold
from steelyard.statistics.logistic import sigmoid
from steelyard.store.verdicts.views import with_calibration

AGREEMENT, CONFIDENCE = 0.85, 0.95
GOLD_PAIRS, JUDGED_PAIRS = 1200, 4000
ALLOWED = 0.05  # share of fits that may break a promise at that confidence
LEAN = 3.0  # logits towards response a


def simulate(draws: int) -> Iterator[Claim]:
    """Fit a threshold to gold, and count the draws in which trusted winners break its promise.

    `before` takes the raw winner of a trusted verdict, `after` the column `winner`.
    """
    broken = np.zeros(2)
    with duckdb.connect(":memory:") as connection:
        for seed in range(draws):
            broken += _broken(np.random.default_rng(seed), connection)
    name = f"{AGREEMENT:.0%} asked of a judge that leans by {LEAN} logits"
    before, after = (float(share) for share in broken / draws)
    yield Claim(name, "broken promises", before, after, 0, ALLOWED, draws)


def _broken(draw: np.random.Generator, connection: duckdb.DuckDBPyConnection) -> np.ndarray:
    """Return whether raw winners and winners of one draw agree less often than promised."""
    score, people = _judged(draw, GOLD_PAIRS)
    a = (draw.random(GOLD_PAIRS) < sigmoid(people)).astype(np.float64)
    votes = np.stack([a, 1 - a, np.zeros(GOLD_PAIRS)], axis=1)
    features, gold = Features(score), Gold(votes, np.arange(GOLD_PAIRS))
    test = np.arange(GOLD_PAIRS) % 2 == 1
    curve = METHODS["platt"].fit(features.take(~test), gold.take(~test))
    preference = curve.preference(features.take(test))
    trust = fit_trust_threshold(
        preference, named_by_gold(preference, votes[test]), np.arange(len(preference)),
        AGREEMENT, CONFIDENCE,
        thresholds=thresholds_of(curve.preference(features.take(~test))), largest=1,
    )  # fmt: skip
    score, people = _judged(draw, JUDGED_PAIRS)
    raw = pa.table({"raw_preference": sigmoid(score), "winner": np.where(score > 0, "a", "b")})
    connection.register("judged", raw)
    query = with_calibration("FROM judged", Calibrator("platt", curve, None, trust), 0.0)
    verdicts = connection.sql(f"SELECT raw_winner, winner, trusted FROM ({query})").to_arrow_table()
    trusted = verdicts["trusted"].to_numpy()
    if not trusted.any():
        return np.zeros(2)
    for_a = sigmoid(people[trusted])
    sides = (verdicts[name].to_numpy()[trusted] == "a" for name in ("raw_winner", "winner"))
    agreements = [float(np.where(side, for_a, 1 - for_a).mean()) for side in sides]
    return np.array([agreement < AGREEMENT for agreement in agreements])


def _judged(draw: np.random.Generator, pairs: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the judge's logits and people's, n pairs each."""
    people = draw.normal(0, 2.5, pairs)
    return 0.8 * people + LEAN + draw.normal(0, 0.7, pairs), people
