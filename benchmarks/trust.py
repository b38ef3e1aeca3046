"""Do calibrators, intervals and thresholds keep their promises? Known truths, and real judges.

Four tables in one: `judge`: real reward models on JudgeBench, before and after `auto`; `recovery`:
known faults in 95% intervals; `coverage` of bootstrap intervals; `promise`: broken thresholds.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from harness.common import parser, report
from harness.workloads import DATA
from steelyard.calibrators.cross_validation import choose
from steelyard.calibrators.features import Features, Gold
from steelyard.calibrators.methods import METHODS
from steelyard.evaluation.metrics.bootstrap import difference, resample, summarise
from steelyard.evaluation.metrics.pairs import ScoredPairs
from steelyard.statistics.logistic import sigmoid
from support.trust_data import GOLD_SHAPES, JUDGES, biased_judge, broken_and_found, judged_pairs

METRICS = ("log_loss", "ece_debiased")
MANY = 1200  # instructions with which thresholds exist


def line(table: str, name: str, **values: object) -> dict[str, Any]:
    columns = {"n": "", "value": "", "low": "", "high": "", "share": ""}
    return {"table": table, "name": name, **columns, **values}


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
        changes = [halves(Features(score, longer=longer), gold, seed) for seed in range(splits)]
        method, first = changes[0]
        for metric in METRICS:
            better = np.mean([change[metric].value < 0 for _, change in changes])
            one = first[metric]
            found = {"value": one.value, "low": one.low, "high": one.high, "share": float(better)}
            name = f"{judge.split('_')[-1]}: {method}, {metric}"
            yield line("judge", name, n=len(mine), **found)


def halves(features: Features, gold: Gold, seed: int) -> tuple[str, dict[str, Any]]:
    """Return what `auto` changes on instructions that it has not seen."""
    count = int(gold.groups.max()) + 1
    train = np.random.default_rng(seed).permutation(count)[gold.groups] % 2 == 0
    half = features.take(train), gold.take(train)
    method = next(one.method for one in choose(*half, 0) if one.chosen)
    test, known = features.take(~train), gold.take(~train)
    made = METHODS[method].fit(*half).preference(test)
    pair = [
        resample(ScoredPairs(p, known.votes, known.groups), band=0, replicates=1000, seed=0)
        for p in (made, sigmoid(test.score))
    ]
    return method, difference(*pair, METRICS)


def recovery(seeds: int) -> Iterator[dict[str, Any]]:
    truth = {"logit": 0.5, "length": -0.4, "intercept": 0.0, "first_position": 0.7}
    hits = dict.fromkeys(truth, 0)
    for seed in range(seeds):
        features, gold, _ = biased_judge(seed)
        fits = [METHODS[name].fit(features, gold) for name in ("position", "length")]
        intervals = {**fits[0].intervals, **fits[1].intervals}
        for name, value in truth.items():
            hits[name] += intervals[name][0] <= value <= intervals[name][1]
    for name, count in hits.items():
        yield line("recovery", name, n=seeds, value=truth[name], share=count / seeds)


def coverage(seeds: int) -> Iterator[dict[str, Any]]:
    many = judged_pairs(np.random.default_rng(10**6), instructions=120_000)
    found = summarise(resample(many, band=0, replicates=0, seed=0)).estimates
    hits = dict.fromkeys(found, 0)
    for seed in range(seeds):
        pairs = judged_pairs(np.random.default_rng(seed))
        for name, one in summarise(
            resample(pairs, band=0, replicates=400, seed=seed)
        ).estimates.items():
            hits[name] += one.low <= found[name].value <= one.high
    for name, count in hits.items():
        yield line("coverage", name, n=seeds, value=found[name].value, share=count / seeds)


def promise(seeds: int) -> Iterator[dict[str, Any]]:
    """Count thresholds, broken ones too, on gold that is wrong for whole instructions."""
    cases = [
        (instructions, shape, judge, agreement)
        for agreement in (0.9, 0.6)
        for shape, (few, _) in GOLD_SHAPES.items()
        for instructions in ((few, MANY) if agreement == 0.9 else (few,))
        for judge in JUDGES
    ]
    for instructions, shape, judge, agreement in cases:
        broken, found = broken_and_found(
            shape, judge, seeds, agreement=agreement, instructions=instructions
        )
        name = f"{agreement:.0%}, {instructions:,} instructions {shape}, {judge}"
        yield line("promise", f"{name}: broken", n=seeds, share=broken / seeds)
        yield line("promise", f"{name}: found", n=seeds, share=found / seeds)


def main() -> int:
    chosen = parser(__doc__).parse_args()
    seeds, runs, splits = (10, 20, 2) if chosen.smoke else (100, 500, 20)
    rows = [*recovery(seeds), *coverage(runs), *promise(runs)]
    if (DATA / "labelled/judgebench_judges.parquet").exists():
        rows = [*judges(splits), *rows]
    report("trust", rows, chosen)
    return 0


if __name__ == "__main__":
    sys.exit(main())
