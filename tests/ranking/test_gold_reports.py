"""`winrate --gold` and `rank --gold`: what the reports say, and when they refuse to."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support.helpers import command

NAMES = ("good", "fair", "poor")


def tables(folder, count=900, share=0.2, seed=0):
    """A judge that gives every competitor too much against `base`, and gold for a share."""
    rng = np.random.default_rng(seed)
    name = np.arange(count) % 3
    truth = np.array([0.6, 0.4, 0.2])[name]
    label = (rng.random(count) < truth).astype(float)
    preference = np.clip(0.4 + 0.5 * label + 0.1 * rng.standard_normal(count), 0, 1)
    back = rng.random(count) < 0.5  # the baseline comes first
    model = np.array(NAMES)[name]
    ids = [f"p{row}" for row in range(count)]
    gold = rng.random(count) < share
    sides = {
        "model_a": np.where(back, "base", model),
        "model_b": np.where(back, model, "base"),
    }
    judged = {"pair_id": ids, **sides, "instruction_id": np.arange(count) // 3}
    pq.write_table(
        pa.table({**judged, "preference": np.where(back, 1 - preference, preference)}),
        folder / "judged.parquet",
    )
    winner = np.where(label == (1 - back), "A", "B")
    pq.write_table(
        pa.table({"pair_id": ids, "gold": winner}).filter(pa.array(gold)), folder / "gold.parquet"
    )
    own = pa.table({**judged, "preference": np.where(back, 1 - preference, preference)})
    own = own.append_column("gold", pa.array(winner, mask=~gold))
    pq.write_table(own, folder / "own.parquet")
    return label, preference, gold, name


def answer(*arguments):
    done = command(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def against_base(folder, gold):
    return "winrate", folder / "judged.parquet", "--baseline", "base", "--gold", gold


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("gold")


@pytest.fixture(scope="module")
def drawn(folder):
    return tables(folder)


def test_win_rates_with_the_error_counted(folder, drawn):
    label, preference, gold, name = drawn
    report = answer(*against_base(folder, folder / "gold.parquet"))
    assert report["gold"] == {
        "file": str(folder / "gold.parquet"), "labels": int(gold.sum()), "preference": "preference"
    }  # fmt: skip
    for rate in report["win_rates"]:
        mine = name == NAMES.index(rate["competitor"])
        by = rate["gold"]
        assert by["labels"] == (mine & gold).sum()
        assert by["judge"]["value"] == pytest.approx(preference[mine].mean())
        assert by["judge"]["value"] == pytest.approx(rate["win_rate"]["value"])
        assert by["gold_only"]["value"] == pytest.approx(label[mine & gold].mean())
        tuned = by["prediction_powered"]
        assert abs(tuned["value"] - label[mine].mean()) < 0.08
        assert tuned["lower"] < tuned["value"] < tuned["upper"]
        width = by["gold_only"]["upper"] - by["gold_only"]["lower"]
        assert tuned["upper"] - tuned["lower"] < 0.8 * width
        assert tuned["effective_labels"] > 1.5 * by["labels"]
        assert by["rogan_gladen"] is None  # for hard verdicts alone
    assert not any("random" in line for line in report["warnings"])


def test_text_has_all_numbers_side_by_side(folder, drawn):
    _, _, gold, _ = drawn
    done = command(*against_base(folder, folder / "gold.parquet"))
    assert f"by {gold.sum()} labels of {folder / 'gold.parquet'}, and the judge's" in done.stdout
    for word in ("judge", "corrected", "gold alone", "worth", "poor"):
        assert word in done.stdout


def test_the_sources_own_gold_and_hard_verdicts(folder, drawn):
    own = answer("winrate", folder / "own.parquet", "--baseline", "base", "--gold")
    file = answer(*against_base(folder, folder / "gold.parquet"))
    assert own["gold"]["file"] is None
    for rates in zip(own["win_rates"], file["win_rates"], strict=True):
        assert rates[0]["gold"] == rates[1]["gold"]
    hard = answer(
        "winrate", folder / "own.parquet", "--baseline", "base", "--gold",
        "--map", "preference=(CASE WHEN preference > 0.65 THEN 1 ELSE 0 END)",
    )  # fmt: skip
    for rate in hard["win_rates"]:
        corrected, tuned = rate["gold"]["rogan_gladen"], rate["gold"]["prediction_powered"]
        assert corrected["sensitivity"] > 0.9
        assert corrected["lower"] <= corrected["value"] <= corrected["upper"]
        assert corrected["lower"] < tuned["value"] < corrected["upper"]


def test_ratings_with_the_error_counted(folder, drawn):
    label, _, _, name = drawn
    report = answer("rank", folder / "judged.parquet", "--gold", folder / "gold.parquet")
    assert 0 < report["gold"]["weight"] <= 1
    truth = {key: label[name == k].mean() for k, key in enumerate(NAMES)}
    rows = {row["competitor"]: row for row in report["ranking"]}
    base = rows["base"]["gold"]["rating"]["value"]
    for key, share in truth.items():
        rating, alone = rows[key]["gold"]["rating"], rows[key]["gold"]["rating_gold_only"]
        expected = base + 400 * np.log10(share / (1 - share))
        assert abs(rating["value"] - expected) < 2 * rating["standard_error"]
        assert rating["standard_error"] < alone["standard_error"]
        assert rating["effective_labels"] > rows[key]["gold"]["labels"]
    # By the judge, `fair` is better than the baseline, and by people it is not.
    assert rows["fair"]["rating"] > rows["base"]["rating"]
    assert rows["fair"]["gold"]["rating"]["value"] < base
    differences = {(x["better"], x["worse"]): x for x in report["gold"]["differences"]}
    assert len(differences) == 6
    assert differences["good", "poor"]["p_value"] < 0.01
    assert ("base", "fair") in differences
    ranks = {key: row["gold"]["rating"] for key, row in rows.items()}
    assert ranks["good"]["worst_rank"] < ranks["poor"]["best_rank"]
    text = command("rank", folder / "judged.parquet", "--gold", folder / "gold.parquet").stdout
    assert text.count("corrected") == 2  # a column and its legend
    anchored = answer(
        "rank", folder / "judged.parquet", "--anchor", "base", "--gold", folder / "gold.parquet"
    )
    anchored = {row["competitor"]: row["gold"]["rating"] for row in anchored["ranking"]}
    assert anchored["base"]["value"] == anchored["base"]["lower"] == 1000
    moved = anchored["good"]["value"] - rows["good"]["gold"]["rating"]["value"]
    assert moved == pytest.approx(1000 - base)


def test_too_little_gold_and_gold_for_everything(tmp_path):
    tables(tmp_path, count=60, share=0.3)
    judged, gold = tmp_path / "judged.parquet", tmp_path / "gold.parquet"
    report = answer("winrate", judged, "--baseline", "base", "--gold", gold)
    assert [rate["gold"]["prediction_powered"] for rate in report["win_rates"]] == [None] * 3
    assert any("gold for fewer than 10 instructions" in line for line in report["warnings"])
    ranking = answer("rank", judged, "--gold", gold)
    assert [row["gold"]["rating"] for row in ranking["ranking"] if row["competitor"] != "base"] == [
        None
    ] * 3
    tables(tmp_path, count=300, share=1.0)
    report = answer("winrate", judged, "--baseline", "base", "--gold", gold)
    assert any("all of its pairs have gold" in line for line in report["warnings"])
    assert any(
        "nothing to correct" in x for x in answer("rank", judged, "--gold", gold)["warnings"]
    )


def test_gold_that_was_chosen_by_the_judge_is_noticed(folder, drawn, tmp_path):
    _, preference, _, _ = drawn
    chosen = np.flatnonzero(np.abs(preference - 0.5) > np.quantile(np.abs(preference - 0.5), 0.7))
    gold = pa.table({"pair_id": [f"p{row}" for row in chosen], "gold": ["A"] * len(chosen)})
    pq.write_table(gold, tmp_path / "gold.parquet")
    report = answer(*against_base(folder, tmp_path / "gold.parquet"))
    assert any("look like a random sample" in line for line in report["warnings"])


def test_refusals(folder, drawn, tmp_path):
    judged, gold = folder / "judged.parquet", folder / "gold.parquet"
    done = command("rank", judged, "--method", "elo", "--gold", gold)
    assert done.returncode == 2
    assert "--gold corrects the ratings of bradley-terry" in done.stderr
    assert command("winrate", judged, "--baseline", "base", "--gold").returncode == 3
    done = command("winrate", judged, "--baseline", "base", "--gold-map", "gold=x")
    assert done.returncode == 2
    assert "--gold-map" in done.stderr


def test_the_judges_ratings_are_those_of_the_column_that_is_named(folder, drawn, tmp_path):
    """`rank` reads calibrated preferences, halfway to one half, and gold completes the raw ones."""
    table = pq.read_table(folder / "judged.parquet")
    raw = table["preference"].to_numpy()
    table = table.append_column("calibrated_preference", pa.array((raw + 0.5) / 2))
    pq.write_table(table, tmp_path / "judged.parquet")
    report = answer("rank", tmp_path / "judged.parquet", "--gold", folder / "gold.parquet")
    by_raw = answer("rank", folder / "judged.parquet")
    assert report["preference"] == "calibrated_preference"
    assert report["gold"]["preference"] == "preference"
    wanted = {row["competitor"]: row["rating"] for row in by_raw["ranking"]}
    found = {row["competitor"]: row["gold"]["judge_rating"] for row in report["ranking"]}
    assert found == pytest.approx(wanted)
    text = command("rank", tmp_path / "judged.parquet", "--gold", folder / "gold.parquet").stdout
    assert f"{wanted['good']:.1f}" in text.split("labels of")[1]


def test_gold_of_ties_alone(folder, drawn, tmp_path):
    """Half a vote to both in every pair: 50%, as wide as that many labels make it."""
    gold = pq.read_table(folder / "gold.parquet")
    ties = gold.set_column(1, "gold", pa.array(["tie"] * len(gold)))
    pq.write_table(ties, tmp_path / "ties.parquet")
    report = answer("rank", folder / "judged.parquet", "--gold", tmp_path / "ties.parquet")
    for row in report["ranking"]:
        tuned = row["gold"]["prediction_powered"]
        assert tuned["value"] == pytest.approx(0.5)
        assert 0.2 < tuned["lower"] < 0.45
        assert 0.55 < tuned["upper"] < 0.8
        assert tuned["effective_labels"] == row["gold"]["labels"]
        assert row["gold"]["rating"]["value"] == pytest.approx(1000)
        assert row["gold"]["rating"]["lower"] < 1000 < row["gold"]["rating"]["upper"]
