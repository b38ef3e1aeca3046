"""After `calibrate apply`, winners and statistics are those of the calibrated preference."""

from __future__ import annotations

import json
import math

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import steelyard
from steelyard.calibrators.abstention import TrustThreshold
from steelyard.calibrators.calibrator import Calibrator
from steelyard.calibrators.linear import Linear
from steelyard.errors import IntegrityFault
from steelyard.store.calibration import save_calibrator
from steelyard.store.rundir import RunDir
from steelyard.store.verdicts.views import with_calibration
from support.helpers import command, pairs_table
from support.tiny import write_model

# Divides the odds of a by 3: a raw preference of 0.75, odds 3, becomes 0.5.
THIRD = Linear({"logit": 1.0, "intercept": math.log(1 / 3)})
RAW = (0.9, 0.75, 0.65, 0.62, 0.2, None)


def trust(threshold):
    return TrustThreshold(0.9, 0.95, threshold, 0.5, 0.95, 100)


def winners(calibrator, band):
    """The winner of each of RAW, whose raw winners are a, a, a, a, b and none."""
    names = ["a", "a", "a", "a", "b", None]
    table = pa.table({"raw_preference": pa.array(RAW, pa.float64()), "winner": names})
    with duckdb.connect(":memory:") as connection:
        connection.register("raw", table)
        rows = connection.sql(with_calibration("FROM raw", calibrator, band)).fetchall()
        columns = connection.sql(with_calibration("FROM raw", calibrator, band)).columns
    found = [dict(zip(columns, row, strict=True)) for row in rows]
    assert [row["raw_winner"] for row in found] == names
    return [row["winner"] for row in found]


@pytest.mark.parametrize(
    ("calibrator", "band", "wanted"),
    [
        (None, 0.0, ["a", "a", "a", "a", "b", None]),
        # calibrated: 0.75, 0.5, 0.382, 0.352, 0.077
        (Calibrator("platt", THIRD), 0.0, ["a", "tie", "b", "b", "b", None]),
        (Calibrator("platt", THIRD), 0.2, ["a", "tie", "tie", "tie", "b", None]),
        # trusted where max(p, 1 - p) is at least 0.64: 0.75, 0.352 and 0.077
        (Calibrator("platt", THIRD, None, trust(0.64)), 0.2, ["a", "tie", "tie", "b", "b", None]),
        # P(tie) = 2 sqrt(P(a) P(b)): 0.375, 0.5, 0.472, 0.456, 0.142; the likelier side has
        # 0.5625, 0.25, 0.381, 0.420, 0.852
        (Calibrator("platt", THIRD, 2.0), 0.0, ["a", "tie", "tie", "tie", "b", None]),
        (Calibrator("platt", THIRD, 2.0, trust(0.6)), 0.0, ["a", "tie", "b", "b", "b", None]),
    ],
)
def test_the_winner_is_the_side_of_the_calibrated_preference(calibrator, band, wanted):
    assert winners(calibrator, band) == wanted


def expected(rows):
    """P(a is better) of verdicts after THIRD, by odds."""
    odds = [row["raw_preference"] / (1 - row["raw_preference"]) / 3 for row in rows]
    return [x / (1 + x) for x in odds]


def apply(run, place, method="platt", curve=THIRD, **options):
    save_calibrator(place / "c.json", Calibrator(method, curve, **options))
    done = command("calibrate", "apply", run.root, place / "c.json", "--force")
    assert done.returncode == 0, done.stderr


def views(run):
    names = ("leaderboard", "win_matrix", "position_bias", "length_bias")
    return {name: run.sql(f"FROM {name}").to_pylist() for name in names}


def assert_same_views(got, want):
    """Up to the order in which sums were made."""
    assert got.keys() == want.keys()
    for name, rows in want.items():
        assert len(got[name]) == len(rows)
        for mine, row in zip(got[name], rows, strict=True):
            assert mine == pytest.approx(row, abs=1e-12)


@pytest.fixture
def run(tmp_path):
    pq.write_table(pairs_table(60), tmp_path / "pairs.parquet")
    return steelyard.score(
        tmp_path / "pairs.parquet", run=tmp_path / "run", judge="scripted:seed=2,fail=0.05"
    )


def check_everything(run):
    """Views, ranking, win rates and biases of a run that THIRD was applied to."""
    rows = [row for row in run.verdicts().to_pylist() if row["status"] == "ok"]
    calibrated = expected(rows)
    assert [row["calibrated_preference"] for row in rows] == pytest.approx(calibrated, abs=1e-12)
    assert [row["winner"] for row in rows] == ["a" if p > 0.5 else "b" for p in calibrated]
    assert [row["raw_winner"] for row in rows] == [
        "a" if row["raw_preference"] > 0.5 else "b" for row in rows
    ]
    wins = {name: [] for name in ("m0", "m3")}
    for row, p in zip(rows, calibrated, strict=True):
        for name, won in ((row["model_a"], p), (row["model_b"], 1 - p)):
            wins.setdefault(name, []).append(won)
    means = {name: sum(won) / len(won) for name, won in wins.items()}
    board = {row["competitor"]: row["win_rate"] for row in views(run)["leaderboard"]}
    assert board == pytest.approx(means, abs=1e-12)
    for extra, column in (([], "calibrated"), (["--map", "preference=raw_preference"], "raw")):
        ranked = json.loads(command("rank", run.root, "--json", *extra).stdout)
        assert ranked["preference"] == f"{column}_preference"
        text = command("rank", run.root, *extra).stdout
        assert text.startswith(f"preferences: {column}_preference")
        met = [row for row in rows if row["model_a"] == "m1" and row["model_b"] == "m4"]
        values = expected(met) if column == "calibrated" else [r["raw_preference"] for r in met]
        done = command("winrate", run.root, "--baseline", "m4", "--json", *extra)
        (rate,) = json.loads(done.stdout)["win_rates"]
        assert rate["win_rate"]["value"] == pytest.approx(sum(values) / len(values), abs=1e-12)
        biased = json.loads(command("bias", run.root, "--json", *extra).stdout)
        assert biased["preference"] == f"{column}_preference"
        orders = [row["preference_ab"] - row["preference_ba"] for row in rows]
        assert biased["all"]["position"]["lean"]["value"] == pytest.approx(
            sum(orders) / len(orders), abs=1e-12
        )


def test_reports_views_and_hand_off_file_read_the_calibrated_preference(run, tmp_path):
    before = views(run)
    apply(run, tmp_path)
    check_everything(run)
    verdicts, after = run.verdicts(), views(run)
    RunDir(run.root).database.unlink()
    check_everything(run)
    assert run.verdicts() == verdicts
    assert_same_views(views(run), after)
    assert command("compact", run.root).returncode == 0
    assert run.verdicts() == verdicts
    assert_same_views(views(run), after)
    assert after["position_bias"] == before["position_bias"]
    assert after["leaderboard"] != before["leaderboard"]
    RunDir(run.root).calibration.unlink()
    with pytest.raises(IntegrityFault, match="the calibrator that was applied is gone"):
        run.verdicts()
    assert command("compact", run.root).returncode == 0  # on purpose, then
    assert_same_views(views(run), before)


def test_a_second_calibrator_replaces_the_first(run, tmp_path):
    """Raw winners and everything else are what they would be without the first."""
    raw = run.verdicts()
    apply(run, tmp_path, curve=Linear({"logit": -1.0}))
    assert run.verdicts()["winner"] != raw["winner"]
    apply(run, tmp_path, curve=Linear({"logit": 2.0}))
    twice = run.verdicts()
    assert twice["winner"] == raw["winner"] == twice["raw_winner"]
    RunDir(run.root).database.unlink()
    assert run.verdicts() == twice


def test_a_pair_that_cannot_be_calibrated_has_no_winner(tmp_path):
    """Its raw winner would be of another scale."""
    table = pa.table({
        "model_a": ["x"] * 2, "model_b": ["y"] * 2, "preference": [0.9, 0.2],
        "length_a": pa.array([10, None], pa.int64()), "length_b": [20, 20],
    })  # fmt: skip
    pq.write_table(table, tmp_path / "t.parquet")
    done = command("import", tmp_path / "t.parquet", "--run", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    run = steelyard.open_run(tmp_path / "run")
    apply(run, tmp_path, curve=Linear({"logit": -1.0, "length": 0.0}, {}, {"length_scale": 1.0}))
    rows = run.verdicts().to_pylist()
    assert [(row["winner"], row["raw_winner"]) for row in rows] == [("b", "a"), (None, "b")]
    ranked = json.loads(command("rank", run.root, "--method", "average", "--json").stdout)
    assert (ranked["rows"], ranked["left_out"]) == (1, {"no preference": 1})


def test_a_dataset_follows_the_calibrated_winner(run, tmp_path):
    apply(run, tmp_path)
    content = run.export(tmp_path / "out", "preference")
    assert content["preference"] == "calibrated_preference"
    verdicts = {row["pair_id"]: row for row in run.verdicts().to_pylist()}
    exported = pq.read_table(tmp_path / "out" / "data").to_pylist()
    for row in exported:
        chosen = row["chosen"][0]["content"].split()[2]  # "first" is response a
        assert {"first": "a", "second": "b"}[chosen] == verdicts[row["pair_id"]]["winner"]
    assert len(exported) == content["exported"] > 40


@pytest.mark.parametrize("given", [{}, {"tie": 1.5}])
def test_a_table_with_calibrated_columns_is_ranked_by_them(given, tmp_path):
    """With the tie probabilities that belong to the preference, or none."""
    table = pa.table({
        "model_a": ["x"] * 12, "model_b": ["y"] * 12,
        "preference": [0.6] * 12, "raw_tie": [0.1] * 12,
    })  # fmt: skip
    pq.write_table(table, tmp_path / "t.parquet")
    save_calibrator(tmp_path / "c.json", Calibrator("platt", THIRD, **given))
    out = tmp_path / "out.parquet"
    done = command(
        "calibrate", "apply", "--from", tmp_path / "t.parquet", tmp_path / "c.json", "--out", out,
        "--force",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ranked = json.loads(command("rank", out, "--method", "average", "--json").stdout)
    assert ranked["ranking"][0]["competitor"] == "y"  # 0.6 becomes 1/3
    assert ranked["ranking"][0]["rating"] == pytest.approx(2 / 3, abs=1e-12)
    tied = command("rank", out, "--method", "davidson", "--json")
    assert (tied.returncode == 0) == ("tie" in given), tied.stderr


@pytest.mark.vllm
def test_what_a_real_engine_read_is_read_calibrated(tmp_path):
    judge = write_model(tmp_path / "judge", context=1024)
    pq.write_table(pairs_table(24, instructions=6), tmp_path / "pairs.parquet")
    run = steelyard.score(tmp_path / "pairs.parquet", run=tmp_path / "run", judge=str(judge))
    # an untrained judge is near one half: beyond every raw preference, so that all winners differ
    apply(run, tmp_path)
    check_everything(run)
    rows = run.verdicts().to_pylist()
    assert any(row["winner"] != row["raw_winner"] for row in rows)
