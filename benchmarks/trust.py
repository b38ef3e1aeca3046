"""What `auto` makes of real judges: reward models on JudgeBench, on instructions it has not seen.

Simulations with known truths are in `validity.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from harness.common import parser, report
from harness.workloads import DATA
from steelyard.calibrators.cross_validation import choose, fit_drawn
from steelyard.calibrators.features import Features, Gold
from steelyard.evaluation.metrics.bootstrap import difference, resample
from steelyard.evaluation.metrics.pairs import ScoredPairs
from steelyard.statistics.logistic import sigmoid

METRICS = ("log_loss", "ece_debiased")


def judges(splits: int) -> Iterator[dict[str, Any]]:
    """Fit on half of the instructions and test on half: the first split, and the share of all."""
    pairs = {
        row["pair_id"]: row
        for row in pq.read_table(DATA / "labelled/judgebench.parquet").to_pylist()
    }
    reads = pq.read_table(DATA / "labelled/judgebench_judges.parquet").to_pylist()
    for judge in sorted({row["judge"] for row in reads if row["score_first"] is not None}):
        mine = [row for row in reads if row["judge"] == judge and row["order"] == "AB"]
        about = [pairs[row["pair_id"]] for row in mine]
        score = np.array([row["score_first"] - row["score_second"] for row in mine])
        longer = np.array([float(len(one["response_a"]) - len(one["response_b"])) for one in about])
        groups = np.unique([one["prompt"] for one in about], return_inverse=True)[1]
        gold = Gold(np.eye(3)[[0 if one["label"] == "A" else 1 for one in about]], groups)
        changes = [
            halves(Features(score, longer=longer, has_scale=False), gold, seed)
            for seed in range(splits)
        ]
        method, first = changes[0]
        for metric in METRICS:
            better = float(np.mean([change[metric].value < 0 for _, change in changes]))
            one = first[metric]
            name = f"{judge.split('_')[-1]}: {method}, {metric}"
            ends = {end: "" if value is None else value for end, value in
                    (("low", one.low), ("high", one.high))}  # fmt: skip
            yield {"name": name, "n": len(mine), "value": one.value, **ends, "share": better}


def halves(features: Features, gold: Gold, seed: int) -> tuple[str, dict[str, Any]]:
    """Return what `auto` changes on instructions that it has not seen."""
    count = int(gold.groups.max()) + 1
    train = np.random.default_rng(seed).permutation(count)[gold.groups] % 2 == 0
    half = features.take(train), gold.take(train)
    method = next(one.method for one in choose(*half, 0) if one.chosen)
    test, known = features.take(~train), gold.take(~train)
    made = fit_drawn(method, *half).preference(test)
    pair = [
        resample(ScoredPairs(p, known.votes, known.groups), band=0, replicates=1000, seed=0)
        for p in (made, sigmoid(test.score))
    ]
    return method, difference(*pair, METRICS)


def main() -> int:
    chosen = parser(__doc__).parse_args()
    report("trust", list(judges(2 if chosen.smoke else 20)), chosen)
    return 0


if __name__ == "__main__":
    sys.exit(main())
