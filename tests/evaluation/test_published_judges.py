"""Real judges and real votes: published accuracies, crowds, annotators, the documented commands."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import steelyard
from steelyard.calibrators.cross_validation import choose
from steelyard.calibrators.features import Features, Gold
from steelyard.calibrators.methods import METHODS
from steelyard.evaluation.evaluate import EvaluateOptions, evaluate_source
from steelyard.evaluation.judged_pairs import Source
from steelyard.evaluation.metrics.bootstrap import difference, resample
from steelyard.evaluation.metrics.pairs import ScoredPairs, both_orders_correct
from steelyard.statistics.logistic import sigmoid
from support.helpers import ROOT, command, data_file

# Accuracy on JudgeBench by its rule, in per cent.
PUBLISHED = {
    "Ray2333_GRM-Gemma-2B-rewardmodel-ft": 59.43,
    "internlm_internlm2-7b-reward": 59.43,
    "Skywork_Skywork-Reward-Gemma-2-27B": 64.29,
    "o1-mini-2024-09-12": 65.71,
    "claude-3-haiku-20240307": 32.22,
}
SCORED = [name for name in PUBLISHED if "-20240" not in name and "o1" not in name]


@pytest.fixture(scope="module")
def judgebench():
    judges, pairs = (
        data_file("labelled/judgebench_judges.parquet"),
        data_file("labelled/judgebench.parquet"),
    )
    with duckdb.connect(":memory:") as connection:
        return connection.sql(
            f"""
            WITH reads AS (
              SELECT pair_id, judge,
                max(CASE WHEN "order" = 'AB' THEN
                  CASE decision WHEN 'A>B' THEN 1.0 WHEN 'B>A' THEN 0.0 WHEN 'A=B' THEN 0.5 END
                  END) ab,
                max(CASE WHEN "order" = 'BA' THEN
                  CASE decision WHEN 'A>B' THEN 0.0 WHEN 'B>A' THEN 1.0 WHEN 'A=B' THEN 0.5 END
                  END) ba,
                avg(CASE WHEN "order" = 'AB' THEN score_first - score_second
                  ELSE score_second - score_first END) AS score
              FROM '{judges}' GROUP BY ALL)
            SELECT reads.*, label, prompt, length(response_a) - length(response_b) AS longer
            FROM reads JOIN '{pairs}' USING (pair_id) ORDER BY judge, pair_id"""
        ).to_arrow_table()


def of(table, judge):
    rows = table.filter(pa.array([one == judge for one in table["judge"].to_pylist()]))
    gold = np.array([0 if one == "A" else 1 for one in rows["label"].to_pylist()])
    return rows, gold


@pytest.mark.parametrize("judge", PUBLISHED)
def test_accuracy_is_the_published_one(judgebench, judge):
    rows, gold = of(judgebench, judge)
    ab, ba = (rows[name].cast(pa.float64()).to_numpy() for name in ("ab", "ba"))
    assert round(100 * both_orders_correct(ab, ba, gold).mean(), 2) == PUBLISHED[judge]


@pytest.mark.parametrize("judge", SCORED)
def test_what_auto_changes_on_unseen_instructions(judgebench, judge):
    rows, gold = of(judgebench, judge)
    score = rows["score"].to_numpy()
    features = Features(score, longer=rows["longer"].to_numpy().astype(np.float64))
    groups = np.unique(rows["prompt"].to_pylist(), return_inverse=True)[1]
    known = Gold(np.eye(3)[gold], groups)
    train = np.random.default_rng(0).permutation(groups.max() + 1)[groups] % 2 == 0
    mine, theirs = features.take(train), known.take(train)
    method = next(one.method for one in choose(mine, theirs, 0) if one.chosen)
    made = METHODS[method].fit(mine, theirs).preference(features)
    change = difference(
        *(
            resample(
                ScoredPairs(p[~train], known.votes[~train], groups[~train]),
                band=0, replicates=1000, seed=0,
            )
            for p in (made, sigmoid(score))
        ),
        ["log_loss", "ece_debiased"],
    )  # fmt: skip
    loss, error = change["log_loss"], change["ece_debiased"]
    assert error.low is error.high is None  # no interval of its change is valid
    if "internlm" in judge:  # nearly calibrated: the change is noise, and its sign the split's
        assert loss.low < 0 < loss.high
    else:
        assert loss.high < 0
        assert error.value < 0


def test_gpt4_against_a_crowd_that_votes():
    gpt4, votes = data_file("arena/llmfao_gpt4.parquet"), data_file("arena/llmfao_votes.parquet")
    report = evaluate_source(Source(gpt4), votes, EvaluateOptions(replicates=200))
    found = {name: one.value for name, one in report.whole.raw.estimates.items()}
    assert report.whole.raw.pairs == 2139
    assert sum(one.votes for one in report.annotators) == 8931
    with duckdb.connect(":memory:") as connection:
        # A naive twin: a vote agrees with GPT-4, or with another vote on the pair.
        (shared, mutual) = connection.sql(
            f"""
            WITH v AS (SELECT pair_id, winner, count(*) AS n FROM '{votes}' GROUP BY ALL),
            m AS (SELECT pair_id, sum(n) AS total, sum(n * (n - 1)) AS same FROM v GROUP BY ALL)
            SELECT
              (SELECT avg(coalesce(v.n, 0) / m.total) FROM '{gpt4}' g JOIN m USING (pair_id)
               LEFT JOIN v ON v.pair_id = g.pair_id AND v.winner = g.winner),
              (SELECT avg(same / (total * (total - 1))) FROM m WHERE total > 1)"""
        ).fetchall()[0]
    assert found["vote_agreement"] == pytest.approx(shared, abs=1e-9)
    assert found["annotator_agreement"] == pytest.approx(mutual, abs=1e-9)
    assert 0 < found["kappa"] < found["annotator_agreement"]
    assert 0.2 < found["fleiss_kappa"] < 0.4  # crowds differ on these pairs
    assert report.annotator_kappa == pytest.approx(found["fleiss_kappa"], abs=0.05)
    assert "ece" not in found  # GPT-4 gave decisions


def test_three_annotators_of_pandalm(tmp_path):
    path = data_file("labelled/pandalm.parquet")
    run = steelyard.score(
        path, run=tmp_path / "run", judge="scripted", map={"instruction": "prompt"}
    )
    found = evaluate_source(Source(run.root), None, EvaluateOptions(replicates=200)).whole.raw
    counts = np.stack([pq.read_table(path)[f"votes_{one}"] for one in ("a", "b", "tie")], axis=1)
    agreed = ((counts * (counts - 1)).sum(axis=1) / 6).mean()
    chance = ((counts.sum(axis=0) / counts.sum()) ** 2).sum()
    estimate = found.estimates["fleiss_kappa"]
    assert found.estimates["annotator_agreement"].value == pytest.approx(agreed, abs=1e-9)
    assert estimate.value == pytest.approx((agreed - chance) / (1 - chance), abs=1e-9)
    # Published for the full set: kappas of two annotators each, 0.85 to 0.88.
    assert 0.83 < estimate.value < 0.90
    assert estimate.low < estimate.value < estimate.high


# --- the commands of docs/calibration.md

SEQUENCE = re.search(
    r"```sh\n(.*?)```", (ROOT / "docs/calibration.md").read_text("utf-8"), re.DOTALL
)


def walk(place, judge, every=10):
    """The documented commands, in their order; answers what the last one prints with --json."""
    assert SEQUENCE
    for name in ("llmfao_pairs", "llmfao_votes"):
        shutil.copy(data_file(f"arena/{name}.parquet"), place)
    commands = SEQUENCE[1].replace("--judge demo", f"--judge {judge}").strip()
    assert "range(0, 2000, 10)" in commands
    commands = commands.replace("range(0, 2000, 10)", f"range(0, 2000, {every})")
    steelyard_here = f"{sys.executable} -m steelyard"
    commands = re.sub(r"^steelyard", steelyard_here, commands, flags=re.MULTILINE)
    commands = re.sub(r"^python", sys.executable, commands, flags=re.MULTILINE)
    done = subprocess.run(
        ["bash", "-ec", commands], cwd=place, capture_output=True, text=True, check=False,
        env=os.environ,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    last = command("evaluate", place / "run", "--gold", place / "llmfao_votes.parquet", "--json")
    return done.stdout, json.loads(last.stdout)


def check(place, text, content, pairs):
    pytest.importorskip("matplotlib")
    assert content["raw"]["pairs"] == pairs
    assert content["calibrated"]["pairs"] == pairs
    assert "reliability, calibrated" in text
    assert (place / "reliability.svg").stat().st_size > 1000
    change = {one["metric"]: one["value"] for one in content["change"]}
    assert change["vote_log_loss"] < 0


def test_the_documented_commands_run(tmp_path):
    pytest.importorskip("matplotlib")
    check(tmp_path, *walk(tmp_path, "scripted"), pairs=200)


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.usefixtures("embedded_judge")
def test_the_documented_commands_with_the_embedded_judge(tmp_path):
    """On a quarter of the pairs: the judge is slow on a CPU."""
    pytest.importorskip("matplotlib")
    text, content = walk(tmp_path, "demo", every=40)
    check(tmp_path, text, content, pairs=50)
    area = next(one for one in content["raw"]["metrics"] if one["metric"] == "auc")
    assert area["value"] < 0.75
    assert any(note.startswith("near chance") for note in content["notes"])
