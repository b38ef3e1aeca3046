"""Members of an ensemble weighted by gold: SQL equals NumPy, slopes, little gold, refusals."""

from __future__ import annotations

import json

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import steelyard
from steelyard.calibrators.calibrator import Calibrator, calibrated_sql
from steelyard.calibrators.cross_validation import choose
from steelyard.calibrators.features import Features, Gold, Member
from steelyard.calibrators.methods import METHODS
from steelyard.calibrators.stacked import Stacked, Weight, fit_stacked
from steelyard.errors import CalibratorRefused
from steelyard.statistics.logistic import log_loss, logit, sigmoid
from support.helpers import command, pairs_table

KINDS = ("logit_ab", "logit_ba")


def panel(seed, pairs, *, slopes=(1.0, 0.0), noise=(0.7, 2.0), common=0.0):
    """Two judges' logits in two orders, and votes: a good judge and one that guesses."""
    draw = np.random.default_rng(seed)
    truth, shared = draw.normal(0, 1.5, pairs), common * draw.normal(0, 1, pairs)
    members, means = {}, []
    for number, (slope, deviation) in enumerate(zip(slopes, noise, strict=True), 1):
        reads = [slope * truth + shared + draw.normal(0, deviation, pairs) for _ in KINDS]
        members |= {Member(number, k): read for k, read in zip(KINDS, reads, strict=True)}
        means.append(sum(reads) / 2)
    a = (draw.random(pairs) < sigmoid(truth)).astype(np.float64)
    votes = np.stack([a, 1 - a, np.zeros(pairs)], axis=1)
    features = Features(sum(means) / 2, members=members)
    return features, Gold(votes, np.arange(pairs) // 2), means, truth


def loss(curve, features, truth):
    return float(log_loss(curve.preference(features), sigmoid(truth)).mean())


def test_the_preference_is_the_sigmoid_of_a_weighted_sum():
    """0.5 + 2 x 1 - 3 x 0.25 + 1 x 0.5 = 2.25."""
    curve = Stacked(0.5, 2.0, (Weight(1, "logit_ab", -3.0), Weight(2, "share", 1.0)))
    members = {Member(1, "logit_ab"): np.array([0.25]), Member(2, "share"): np.array([0.5])}
    found = curve.preference(Features(np.array([1.0]), members=members))
    assert found == pytest.approx([1 / (1 + np.exp(-2.25))], abs=1e-15)
    with pytest.raises(ValueError, match=r"no members\[1\]\.logit_ab"):
        curve.preference(Features(np.array([1.0])))


def test_sql_equals_numpy_and_nulls_stay():
    features, gold, *_ = panel(0, 400)
    made = Calibrator("stacked", fit_stacked(features, gold))
    rows = [
        [{"logit_ab": float(ab), "logit_ba": float(ba)} for ab, ba in zip(*reads, strict=True)]
        for reads in (
            (features.members[Member(n, "logit_ab")], features.members[Member(n, "logit_ba")])
            for n in (1, 2)
        )
    ]
    members = [[one, two] for one, two in zip(*rows, strict=True)]
    members[0][1]["logit_ba"] = members[1] = None
    table = pa.table({"raw_preference": sigmoid(features.score), "members": members})
    added = ", ".join(f"{sql} AS {name}" for name, sql in calibrated_sql(made))
    with duckdb.connect(":memory:") as connection:
        connection.register("v", table)
        found = connection.sql(f"SELECT {added} FROM v").to_arrow_table()["calibrated_preference"]
    wanted = made.curve.preference(features)
    assert found.to_pylist()[:2] == [None, None]
    assert np.abs(found.to_numpy()[2:] - wanted[2:]).max() < 1e-12
    assert Calibrator.from_json(made.to_json(), "here") == made


@pytest.mark.parametrize("weight", [{"member": 0}, {"value": "logit_ab) OR (1=1"}])
def test_a_calibrator_names_nothing_but_members(weight):
    made = Calibrator("stacked", Stacked(0.0, 1.0, (Weight(1, "logit", 1.0),))).to_builtins()
    text = json.loads(json.dumps(made))
    assert Calibrator.from_json(json.dumps(text), "here").method == "stacked"
    text["curve"]["weights"][0] |= weight
    with pytest.raises(CalibratorRefused):
        Calibrator.from_json(json.dumps(text), "here")


def test_a_judge_that_guesses_has_no_weight():
    features, gold, means, truth = panel(1, 3000)
    curve = fit_stacked(features, gold)
    slopes = {(weight.member, weight.value): weight.slope for weight in curve.weights}
    # the score is the mean of four reads
    total = {key: slope + curve.logit / 4 for key, slope in slopes.items()}
    # regression of truth on two reads of variance 0.49: 2.25 / (2.25 + 0.49 / 2) / 2, less what
    # the scatter of votes takes from a slope
    assert total[1, "logit_ab"] == pytest.approx(0.43, abs=0.08)
    assert total[1, "logit_ba"] == pytest.approx(0.43, abs=0.08)
    assert total[2, "logit_ab"] == pytest.approx(0.0, abs=0.08)
    equal = METHODS["platt"].fit(features, gold)
    assert loss(curve, features, truth) < loss(equal, features, truth) - 0.03
    alone = METHODS["platt"].fit(Features(means[0]), gold)
    assert loss(curve, features, truth) < loss(alone, Features(means[0]), truth) + 0.002


def test_a_noisier_order_has_a_smaller_slope():
    draw, n = np.random.default_rng(3), 4000
    truth = draw.normal(0, 1.5, n)
    reads = [truth + draw.normal(0, deviation, n) for deviation in (0.5, 2.0)]
    members = {Member(1, kind): read for kind, read in zip(KINDS, reads, strict=True)}
    a = (draw.random(n) < sigmoid(truth)).astype(np.float64)
    gold = Gold(np.stack([a, 1 - a, np.zeros(n)], axis=1), np.arange(n))
    curve = fit_stacked(Features(sum(reads) / 2, members=members), gold)
    ab, ba = (weight.slope + curve.logit / 2 for weight in curve.weights)
    assert ab / ba == pytest.approx(2.0**2 / 0.5**2, rel=0.4)  # inversely to their variances


def test_with_little_gold_it_stays_near_the_best_simple_way():
    """Of twenty draws of 60 pairs: no more than 0.02 nats behind the better of two, on average."""
    behind = []
    for seed in range(20):
        features, gold, means, _ = panel(seed, 60)
        later, _, later_means, truth = panel(1000 + seed, 4000)
        simple = [
            loss(METHODS["platt"].fit(features, gold), later, truth),
            *(
                loss(METHODS["platt"].fit(Features(m), gold), Features(x), truth)
                for m, x in zip(means, later_means, strict=True)
            ),
        ]
        behind.append(loss(fit_stacked(features, gold), later, truth) - min(simple))
    assert np.mean(behind) < 0.02


def test_auto_takes_it_where_it_is_better():
    features, gold, *_ = panel(5, 1500)
    table = {candidate.method: candidate for candidate in choose(features, gold, 0)}
    assert table["stacked"].chosen
    assert table["platt"].behind > 0.02


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """An ensemble of two scripted judges in 200 pairs, with gold by the second alone."""
    folder = tmp_path_factory.mktemp("ensemble")
    pq.write_table(pairs_table(200, instructions=100), folder / "pairs.parquet")
    done = command(
        "score", folder / "pairs.parquet", "--run", folder / "run", "--quiet",
        "--judge", "scripted:seed=1", "--judge", "scripted:seed=2",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    run = steelyard.open_run(folder / "run")
    gold = run.sql(
        "SELECT pair_id, CASE WHEN members[2].logit > 0 THEN 'A' ELSE 'B' END AS gold FROM verdicts"
    )
    pq.write_table(gold, folder / "gold.parquet")
    return run


def test_an_ensemble_is_stacked_from_fit_to_verdicts(run, tmp_path):
    rows = run.verdicts().to_pylist()
    for row in rows:
        logits = [x for member in row["members"] for x in (member["logit_ab"], member["logit_ba"])]
        assert logit(np.array(row["raw_preference"])) == pytest.approx(sum(logits) / 4, abs=1e-9)
    gold = run.root.parent / "gold.parquet"
    out = tmp_path / "c.json"
    done = command("calibrate", "fit", run.root, "--gold", gold, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "member 2 logit_ab" in done.stdout
    assert json.loads(out.read_text())["method"] == "stacked"
    assert command("calibrate", "apply", run.root, out).returncode == 0
    agrees = run.sql(
        "SELECT avg(((winner = 'a') = (members[2].logit > 0))::INTEGER) AS stacked,"
        " avg(((raw_winner = 'a') = (members[2].logit > 0))::INTEGER) AS plain FROM verdicts"
    ).to_pylist()[0]
    assert agrees["stacked"] > 0.95
    assert agrees["stacked"] > agrees["plain"] + 0.1
    before = run.verdicts().sort_by("pair_id")
    (run.root / "verdicts.duckdb").unlink()
    assert run.verdicts().sort_by("pair_id") == before
    evaluated = command("evaluate", run.root, "--gold", gold, "--json", "--replicates", 0)
    assert evaluated.returncode == 0, evaluated.stderr


def test_members_are_read_from_a_database_and_from_parquet(run, tmp_path):
    """The same fit from the hand-off file by itself, and from its table in Parquet."""
    gold, table = run.root.parent / "gold.parquet", tmp_path / "verdicts.parquet"
    pq.write_table(run.verdicts(), table)
    (run.root / "calibration.json").unlink(missing_ok=True)
    assert command("compact", run.root).returncode == 0
    fits = []
    for number, source in enumerate((run.root, run.root / "verdicts.duckdb", table)):
        out = tmp_path / f"{number}.json"
        done = command("calibrate", "fit", source, "--gold", gold, "--out", out)
        assert done.returncode == 0, done.stderr
        fits.append(json.loads(out.read_text()))
    assert [fit["method"] for fit in fits] == ["stacked"] * 3
    weights = [np.array([w["slope"] for w in fit["curve"]["weights"]]) for fit in fits]
    assert np.allclose(weights[0], weights[1])
    assert np.allclose(weights[0], weights[2])
    apply = ("calibrate", "apply", "--from")
    done = command(*apply, table, tmp_path / "2.json", "--out", tmp_path / "out.parquet")
    assert done.returncode == 0, done.stderr
    evaluated = command("evaluate", tmp_path / "out.parquet", "--gold", gold, "--replicates", 0)
    assert "are cross-fitted" in evaluated.stdout
    refused = command(*apply, run.root / "verdicts.duckdb", out, "--out", tmp_path / "no.parquet")
    assert refused.returncode == 2
    assert "name its run directory" in refused.stderr


def test_members_of_another_tool_are_ignored(tmp_path):
    draw = np.random.default_rng(0)
    ids = [f"p{i}" for i in range(40)]
    table = {"pair_id": ids, "preference": draw.random(40), "members": [["x", "y"]] * 40}
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    labels = pa.table({"pair_id": ids, "gold": draw.choice(["A", "B"], 40)})
    pq.write_table(labels, tmp_path / "g.parquet")
    done = command(
        "evaluate", tmp_path / "t.parquet", "--gold", tmp_path / "g.parquet", "--replicates", 0
    )
    assert done.returncode == 0, done.stderr


def test_reads_of_a_single_judge_cannot_be_stacked(tmp_path):
    pq.write_table(pairs_table(40), tmp_path / "pairs.parquet")
    run = steelyard.score(tmp_path / "pairs.parquet", run=tmp_path / "run", judge="scripted")
    assert run.verdicts()["members"].null_count == 40
    gold = run.sql(
        "SELECT pair_id, CASE WHEN winner = 'a' THEN 'A' ELSE 'B' END gold FROM verdicts"
    )
    pq.write_table(gold, tmp_path / "gold.parquet")
    done = command(
        "calibrate", "fit", run.root, "--gold", tmp_path / "gold.parquet", "--method", "stacked",
        "--out", tmp_path / "c.json",
    )  # fmt: skip
    assert done.returncode != 0
    assert "stacked needs several judges, variants or samples" in done.stderr
