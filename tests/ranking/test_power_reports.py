"""`power` and `compare`: on tables whose answers are known, and on runs of real engines."""

from __future__ import annotations

import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

import steelyard
from support import tiny
from support.helpers import command, pairs_table, write_pairs


def answer(*arguments):
    done = command(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refusal(*arguments, code=2):
    done = command(*arguments)
    assert done.returncode == code, done.stdout
    return done.stderr


def judged(place, *, seed=0, wins=(0.7, 0.6), count=400):
    """x and y against base on the same instructions, preferences 0 or 1."""
    rng = np.random.default_rng(seed)
    rows = {
        "pair_id": [f"{name}{i}" for name in "xy" for i in range(count)],
        "instruction_id": list(range(count)) * 2,
        "model_a": ["x"] * count + ["y"] * count,
        "model_b": ["base"] * (2 * count),
        "preference": np.concatenate([(rng.random(count) < rate) * 1.0 for rate in wins]),
    }
    pq.write_table(pa.table(rows), place)
    return rows["preference"].reshape(2, count)


def test_power_of_a_table(tmp_path):
    points = judged(tmp_path / "t.parquet")
    report = answer("power", tmp_path / "t.parquet", "--baseline", "base", "--difference", "0.02")
    quantiles = stats.t.ppf(0.975, 399) + stats.t.ppf(0.8, 399)
    for row, own in zip(report["competitors"], points, strict=True):
        error = own.std(ddof=1) / 20
        assert (row["pairs"], row["instructions"]) == (400, 400)
        assert row["win_rate"] == pytest.approx(own.mean())
        assert row["design_effect"] == pytest.approx(1)
        assert row["detectable_difference"] == pytest.approx(quantiles * error)
        assert row["interval_width"] == pytest.approx(2 * stats.t.ppf(0.975, 399) * error)
        needed = (1.959964 + 0.841621) ** 2 * own.var(ddof=1) / 0.02**2
        assert row["needs"]["difference_pairs"] == pytest.approx(needed, rel=0.002)
    between = report["between"]
    error = (points[0] - points[1]).std(ddof=1) / 20
    assert between["differences"] == 1
    assert between["detectable_difference"]["median"] == pytest.approx(quantiles * error)
    assert report["promise"]["labels"] == 2 * report["promise"]["instructions"]  # x and y
    text = command("power", tmp_path / "t.parquet", "--baseline", "base").stdout
    for words in ("design effect", "detectable", "paired by instruction (1 differences)"):
        assert words in text


def test_an_instruction_asked_often_is_a_cluster(tmp_path):
    """Every row five times: a design effect near five, and no smaller difference."""
    rng = np.random.default_rng(0)
    rows = np.repeat(np.arange(100), 5)
    table = {
        "instruction_id": rows, "model_a": ["x"] * 500, "model_b": ["y"] * 500,
        "preference": rng.random(100)[rows],
    }  # fmt: skip
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    often = answer("power", tmp_path / "t.parquet")["competitors"][0]
    assert often["design_effect"] == pytest.approx(5 * 99.8 / 99, rel=0.01)
    pq.write_table(pa.table(table).take(list(range(0, 500, 5))), tmp_path / "one.parquet")
    once = answer("power", tmp_path / "one.parquet")["competitors"][0]
    assert often["detectable_difference"] == pytest.approx(once["detectable_difference"])


def test_power_before_a_run():
    report = answer("power", "--difference", "0.1", "--width", "0.2")
    assert report["assumptions"] == {"sd": 0.5, "pairs_per_instruction": 1, "correlation": 0}
    assert report["needs"]["difference_pairs"] == pytest.approx(196 + 3, abs=2)
    assert report["between"]["difference_pairs"] == pytest.approx(2 * 196 + 3, abs=3)
    assert [row["correlation"] for row in report["labels"]] == [0, 0.3, 0.5, 0.7]
    counts = [row["labels"] for row in report["labels"]]
    assert counts == sorted(counts, reverse=True)
    # Any test of 90% at 5% takes 0.9^n <= 0.05, n >= 29, and half of the gold fits the curve.
    assert 58 <= report["promise"]["instructions"] == report["promise"]["labels"] <= 150
    more = answer("power", "--agreement", "0.95")["promise"]["instructions"]
    assert more > 1.8 * report["promise"]["instructions"]  # ln 0.9 / ln 0.95 = 2.05
    wide = answer("power", "--difference", "0.1", "--per-instruction", "4", "--correlation", "0.5")
    ratio = wide["needs"]["difference_pairs"] / report["needs"]["difference_pairs"]
    assert ratio == pytest.approx(1 + 3 * 0.5, rel=0.05)
    assert "assumed" in command("power").stdout


def test_labels_from_gold(tmp_path):
    points = judged(tmp_path / "t.parquet")
    gold = {"pair_id": [f"x{i}" for i in range(200)], "gold": np.where(points[0][:200], "A", "B")}
    gold["gold"][:40] = np.where(gold["gold"][:40] == "A", "B", "A")  # the judge errs in a fifth
    pq.write_table(pa.table(gold), tmp_path / "gold.parquet")
    report = answer(
        "power", tmp_path / "t.parquet", "--gold", tmp_path / "gold.parquet", "--width", "0.15"
    )
    labels = report["labels"]
    assert (labels["labels"], labels["pairs"]) == (200, 400)
    assert 0.5 < labels["correlation"] < 0.7
    assert labels["needed"] < labels["needed_alone"] < 400
    report = answer("power", tmp_path / "t.parquet", "--gold", tmp_path / "gold.parquet")
    assert report["labels"]["needed"] is None or report["labels"]["needed"] > labels["needed"]


def test_options_that_do_not_go_together(tmp_path):
    judged(tmp_path / "t.parquet")
    assert "--sd is for a plan" in refusal("power", tmp_path / "t.parquet", "--sd", "0.3")
    assert "--baseline needs a run" in refusal("power", "--baseline", "x")
    assert "--gold and --map need" in refusal("power", "--gold", "x")
    assert "--power is 0.2" in refusal("power", "--power", "0.2")
    assert "there is no competitor z" in refusal("power", tmp_path / "t.parquet", "--baseline", "z")
    table = tmp_path / "t.parquet"
    assert "second run" in refusal("compare", table)
    assert "second run" in refusal("compare", table, table, "--competitors", "x", "y")
    assert "compares two judges" in refusal("compare", table, "--competitors", "x", "y", "--gold")
    assert "no competitor z" in refusal("compare", table, "--competitors", "x", "z")
    assert "the same" in refusal("compare", table, "--competitors", "x", "x")


def test_two_competitors(tmp_path):
    """Both never met: by the baseline, on the same instruction, as a paired t-test has it."""
    points = judged(tmp_path / "t.parquet")
    report = answer("compare", tmp_path / "t.parquet", "--competitors", "x", "y")
    assert report["head_to_head"] is None
    peer = stats.ttest_rel(points[0], points[1])
    shared = report["shared_opponents"]
    assert shared["difference"] == pytest.approx((points[0] - points[1]).mean())
    assert shared["p_value"] == pytest.approx(peer.pvalue)
    assert (shared["rows"], shared["clusters"]) == (400, 400)
    back = answer("compare", tmp_path / "t.parquet", "--competitors", "y", "x")
    assert back["shared_opponents"]["difference"] == pytest.approx(-shared["difference"])
    head = answer("compare", tmp_path / "t.parquet", "--competitors", "base", "x")["head_to_head"]
    assert head["preference"] == pytest.approx(1 - points[0].mean())
    assert head["p_value"] == pytest.approx(stats.ttest_1samp(points[0], 0.5).pvalue)
    text = command("compare", tmp_path / "t.parquet", "--competitors", "x", "y").stdout
    assert "win rate against shared opponents, difference" in text


@pytest.fixture(scope="module")
def two_judges(tmp_path_factory):
    """The same pairs by two judges; the second is right more often, and has ten pairs fewer."""
    place = tmp_path_factory.mktemp("judges")
    rng = np.random.default_rng(2)
    truth = rng.random(600) < 0.5
    tables = []
    for right, lean in ((0.7, 0.2), (0.85, 0.0)):
        side = np.where(rng.random(600) < right, truth, ~truth)
        middle = np.where(side, 0.7, 0.3)
        ab, ba = np.clip(middle + lean, 0, 1), np.clip(middle - lean, 0, 1)
        tables.append(pa.table({
            "pair_id": [f"p{i}" for i in range(600)], "instruction_id": np.arange(600) // 2,
            "model_a": ["x", "y"] * 300, "model_b": ["y", "z"] * 300,
            "preference": (ab + ba) / 2, "preference_ab": ab, "preference_ba": ba,
        }))  # fmt: skip
    pq.write_table(tables[0], place / "one.parquet")
    order = np.random.default_rng(0).permutation(np.arange(10, 600))
    pq.write_table(tables[1].take(order), place / "two.parquet")
    gold = pa.table({"pair_id": [f"p{i}" for i in range(600)], "gold": np.where(truth, "A", "B")})
    pq.write_table(gold, place / "gold.parquet")
    preferences = [np.asarray(table["preference"])[10:] for table in tables]
    return place, truth[10:], preferences


def test_two_judges_with_gold(two_judges):
    place, truth, (first, second) = two_judges
    report = answer(
        "compare", place / "one.parquet", place / "two.parquet", "--gold", place / "gold.parquet"
    )
    assert (report["pairs"], report["only_first"], report["only_second"]) == (590, 10, 0)
    assert report["clusters"] == 295
    assert report["same_side"]["value"] == pytest.approx(((first > 0.5) == (second > 0.5)).mean())
    measures = {row["measure"]: row for row in report["measures"]}
    right = [(preference > 0.5) == truth for preference in (first, second)]
    agreement = measures["agreement"]
    assert [agreement["first"], agreement["second"]] == [x.mean() for x in right]
    by_instruction = (1.0 * right[1] - right[0]).reshape(-1, 2).mean(axis=1)
    peer = stats.ttest_1samp(by_instruction, 0)
    assert agreement["p_value"] == pytest.approx(peer.pvalue)
    assert agreement["difference"] == pytest.approx(by_instruction.mean())
    losses = [-np.log(np.where(truth, x, 1 - x)) for x in (first, second)]
    assert measures["vote_log_loss"]["difference"] == pytest.approx((losses[1] - losses[0]).mean())
    squares = [(x - truth) ** 2 for x in (first, second)]
    assert measures["mse"]["difference"] == pytest.approx((squares[1] - squares[0]).mean())
    assert measures["consistency"]["first"] == 0  # 0.7 - 0.2 is a tie, 0.3 + 0.2 as well
    assert measures["consistency"]["second"] == 1
    assert measures["first_position"]["first"] == pytest.approx(0.4)
    assert measures["first_position"]["p_value"] is None  # all differences are equal
    shares = {row["competitor"]: row for row in report["competitors"]}
    wins = np.where(np.arange(10, 600) % 2 == 0, first, np.nan)
    assert shares["x"]["first"] == pytest.approx(np.nanmean(wins))
    assert all(row["p_value"] > 0.01 for row in report["competitors"])
    done = command("compare", place / "one.parquet", place / "two.parquet")
    assert "590 pairs of 295 instructions judged by both" in done.stdout
    assert "agreement" not in done.stdout


def test_judges_of_other_pairs_are_refused(two_judges, tmp_path):
    place, _, _ = two_judges
    table = pq.read_table(place / "two.parquet")
    pq.write_table(table.set_column(0, "pair_id", [[f"q{i}" for i in range(590)]]), tmp_path / "q")
    words = refusal("compare", place / "one.parquet", tmp_path / "q", code=3)
    assert "no pair in common" in words
    names = ["pair_id", "instruction_id", "model_b", "model_a", *table.column_names[4:]]
    pq.write_table(table.rename_columns(names), tmp_path / "swapped")
    words = refusal("compare", place / "one.parquet", tmp_path / "swapped", code=3)
    assert "590 of 590 pairs have the same pair_id and other models" in words
    pq.write_table(table.drop_columns(["pair_id"]), tmp_path / "none")
    assert "pair_id" in refusal("compare", place / "one.parquet", tmp_path / "none", code=3)


def test_two_runs_of_scripted_judges(tmp_path):
    shard = write_pairs(tmp_path / "pairs.parquet", 90, instructions=30)
    runs = [tmp_path / "one", tmp_path / "two"]
    for run, judge in zip(runs, ("scripted:seed=1", "scripted:seed=2"), strict=True):
        steelyard.score(shard, run=run, judge=judge)
    report = answer("compare", *runs)
    assert (report["pairs"], report["clusters"]) == (90, 30)
    assert {row["measure"] for row in report["measures"]} == {"consistency", "first_position"}
    assert len(report["competitors"]) == 6
    assert answer("power", runs[0])["competitors"][0]["instructions"] <= 30


@pytest.mark.vllm
def test_labels_and_judges_on_a_real_engine(tmp_path):
    """Two tiny random judges in an engine: corrected rates, power, and a paired comparison."""
    table = pairs_table(120, instructions=120, width=30)
    truth = np.random.default_rng(0).random(120) < 0.5
    gold = pa.array(np.where(truth, "A", "B"), mask=np.arange(120) % 3 > 0)
    pq.write_table(table.append_column("gold", gold), tmp_path / "pairs.parquet")
    runs = [tmp_path / "one", tmp_path / "two"]
    for seed, run in enumerate(runs):
        judge = tiny.write_model(tmp_path / f"judge{seed}", seed=seed)
        done = command(
            "score", tmp_path / "pairs.parquet", "--run", run, "--judge", judge,
            "--engine", "dtype=float32",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    report = answer("winrate", runs[0], "--baseline", "m0", "--gold")
    (rate,) = report["win_rates"]
    wins = 1 - truth[::3].mean()  # m0 is always a, and has the gold of every third row
    assert rate["gold"]["labels"] == 40
    assert rate["gold"]["gold_only"]["value"] == pytest.approx(wins)
    assert rate["gold"]["prediction_powered"] is None  # no pair of m0 is without gold
    ranking = answer("rank", runs[0], "--gold")
    assert ranking["gold"]["labels"] == 40
    compared = answer("compare", *runs, "--gold")
    measures = {row["measure"]: row for row in compared["measures"]}
    assert compared["pairs"] == 120
    assert measures["agreement"]["rows"] == 40
    assert math.isfinite(measures["vote_log_loss"]["difference"])
    needed = answer("power", runs[0], "--gold")
    assert needed["labels"]["labels"] == 40
