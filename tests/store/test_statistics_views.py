"""The views over verdicts equal plain NumPy, live, compacted, and over the documented columns."""

from __future__ import annotations

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import steelyard
from steelyard.ranking import bias as measures
from steelyard.ranking.scores import average_win_rate
from steelyard.ranking.tournament import tournament
from steelyard.statistics.means import decided, mean
from steelyard.store.rundir import RunDir
from steelyard.store.snapshot import RunSnapshot
from steelyard.store.verdicts import user_queries
from steelyard.store.verdicts.statistics_views import (
    STATISTICS,
    create_statistics,
    statistics_sql,
)
from steelyard.store.verdicts.views import REJECTS_SQL
from support.helpers import pairs_table

NAMES = np.array(["x", "y", "z"])


@pytest.fixture(scope="module")
def verdicts():
    rng = np.random.default_rng(0)
    count = 300
    a = rng.integers(0, 3, count)
    b = rng.integers(0, 3, count)  # some against themselves
    ab, ba = rng.random((2, count)).round(1)
    known = rng.random(count) > 0.1
    lengths = rng.integers(0, 2000, (2, count))
    return pa.table(
        {
            "model_a": NAMES[a], "model_b": NAMES[b],
            "judge": np.array(["j", "k"])[rng.integers(0, 2, count)], "protocol": ["p"] * count,
            "pair_id": [str(row // 3) for row in range(count)],
            "instruction_id": pa.array(
                rng.integers(0, 40, count), pa.uint64(), mask=np.arange(count) >= 180
            ),
            "raw_preference": pa.array((ab + ba) / 2, mask=~known),
            "preference_ab": pa.array(ab, mask=~known), "preference_ba": pa.array(ba, mask=~known),
            "length_a": lengths[0], "length_b": lengths[1],
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def views(verdicts):
    with duckdb.connect(":memory:") as connection:
        connection.register("verdicts", verdicts)
        create_statistics(connection, "raw_preference")
        return {
            name: connection.sql(f"SELECT * FROM {name}").to_arrow_table().to_pylist()
            for name in STATISTICS
        }


def columns(table):
    keep = table.filter(pa.compute.is_valid(table["raw_preference"]))
    return {name: np.array(keep[name].to_pylist()) for name in keep.column_names}


def test_the_leaderboard_is_that_of_the_stages(verdicts, views):
    t = columns(verdicts)
    other = t["model_a"] != t["model_b"]
    contest = tournament(
        pa.table({name: t[name][other] for name in ("model_a", "model_b")}
                 | {"preference": t["raw_preference"][other]})
    )  # fmt: skip
    averages = average_win_rate(contest.points()[0])
    assert [row["rank"] for row in views["leaderboard"]] == [1, 2, 3]
    for row in views["leaderboard"]:
        name = row["competitor"]
        first, second = ((t[side] == name) & other for side in ("model_a", "model_b"))
        y = np.concatenate([t["raw_preference"][first], 1 - t["raw_preference"][second]])
        # three votes on a pair belong together where no instruction is known
        named = np.array([x is not None for x in t["instruction_id"]])
        clusters = np.where(named, t["instruction_id"], "pair " + t["pair_id"].astype(object))
        clusters = np.array([str(x) for x in clusters])
        cluster = np.concatenate([clusters[first], clusters[second]])
        wanted = mean(y, cluster)
        assert row["win_rate"] == pytest.approx(wanted.value, abs=1e-12)
        assert row["standard_error"] == pytest.approx(wanted.standard_error, abs=1e-12)
        assert row["discrete_win_rate"] == pytest.approx(decided(y).mean(), abs=1e-12)
        assert (row["comparisons"], row["instructions"]) == (wanted.rows, wanted.clusters)
        place = contest.competitors.index(name)
        assert row["average_win_rate"] == pytest.approx(averages[place], abs=1e-12)


@pytest.mark.parametrize("count", [4, 5])
def test_few_instructions_have_no_standard_error(count):
    table = pa.table({
        "model_a": ["x"] * count, "model_b": ["y"] * count, "raw_preference": [0.2] * count,
        "pair_id": [str(row) for row in range(count)],
        "instruction_id": pa.array(range(count), pa.uint64()),
    })  # fmt: skip
    with duckdb.connect(":memory:") as connection:
        connection.register("verdicts", table)
        query = statistics_sql("raw_preference")["leaderboard"]
        errors = connection.sql(f"SELECT standard_error FROM ({query})").fetchall()
    assert [one is not None for (one,) in errors] == [count >= 5] * 2


def by_hand(view, **columns):
    """The rows of a view over verdicts of these columns; others are the same in all rows."""
    count = len(next(iter(columns.values())))
    usual = {"judge": "j", "protocol": "p", "model_a": "x", "model_b": "y", "instruction_id": 1}
    usual |= {"pair_id": "q", "raw_preference": 0.5, "length_a": 0, "length_b": 0}
    table = {name: [value] * count for name, value in usual.items()} | columns
    kinds = {"raw_preference": pa.float64(), "preference_ab": pa.float64()}
    kinds |= {"preference_ba": pa.float64(), "instruction_id": pa.uint64()}
    arrays = {name: pa.array(values, kinds.get(name)) for name, values in table.items()}
    with duckdb.connect(":memory:") as connection:
        connection.register("verdicts", pa.table(arrays))
        return connection.sql(statistics_sql("raw_preference")[view]).fetchall()


TOURNAMENT = {
    "model_a": ["x", "x", "y", "y", "x", "x"],
    "model_b": ["y", "y", "x", "z", "x", "y"],
    "raw_preference": [0.75, 0.75, 0.5, 0.25, 0.9, None],  # the last two do not count
    "instruction_id": [1, 1, 2, 3, 4, 5],
}


def test_the_leaderboard_by_hand():
    """x has 3/4 twice and a half; y has 1/4 three times and a half; z has 3/4."""
    assert by_hand("leaderboard", **TOURNAMENT) == [
        (1, "z", 0.75, 0.75, None, 1.0, 1, 1, 1),
        (2, "x", pytest.approx(2 / 3), pytest.approx(2 / 3), None, pytest.approx(5 / 6), 3, 2, 1),
        # against x a third, against z a quarter
        (3, "y", pytest.approx(7 / 24), 0.3125, None, 0.125, 4, 3, 2),
    ]


def test_the_win_matrix_by_hand():
    assert by_hand("win_matrix", **TOURNAMENT) == [
        ("x", "y", 3, pytest.approx(2 / 3)),
        ("y", "x", 3, pytest.approx(1 / 3)),
        ("y", "z", 1, 0.25),
        ("z", "y", 1, 0.75),
    ]


def test_the_standard_error_by_hand():
    """Sums of residuals per instruction: 0.5, -0.5, 0.5, -0.5 and 0, from two rows.

    The root of 5/4 times the sum of their squares, per comparison.
    """
    rows = by_hand(
        "leaderboard",
        raw_preference=[1.0, 0.0, 1.0, 0.0, 0.75, 0.25],
        instruction_id=[1, 2, 3, 4, 5, 5],
    )
    assert [row[4] for row in rows] == pytest.approx([np.sqrt(5 / 4) / 6] * 2)


def test_position_bias_by_hand():
    """First always, second always, never one of them; and a pair that was read once."""
    rows = by_hand(
        "position_bias",
        preference_ab=[0.75, 0.25, 0.5, 0.75],
        preference_ba=[0.375, 0.75, 0.5, None],
    )
    (row,) = rows
    assert row == ("j", "p", 3, 0.5, pytest.approx(-0.125 / 3), pytest.approx(0.875 / 3), 2 / 3)


def test_length_bias_by_hand():
    rows = by_hand(
        "length_bias",
        length_a=[30, 31, 0, 101, 300, 301, 0, 1001],
        length_b=[0, 0, 100, 0, 0, 0, 1000, 0],
        raw_preference=[0.1, 0.75, 0.75, 0.25, 0.5, 0.25, 0.25, None],
    )
    assert rows == [("j", "p", 31, 2, 0.5), ("j", "p", 101, 2, 0.375), ("j", "p", 301, 2, 0.5)]


def test_the_win_matrix_mirrors(views):
    share = {(row["competitor"], row["opponent"]): row["win_rate"] for row in views["win_matrix"]}
    assert len(share) == 6
    for (one, other), rate in share.items():
        assert rate == pytest.approx(1 - share[other, one], abs=1e-12)


def test_position_and_length_are_those_of_the_stages(verdicts, views):
    t = columns(verdicts)
    for row in views["position_bias"]:
        mine = t["judge"] == row["judge"]
        wanted = measures.position(
            t["preference_ab"][mine], t["preference_ba"][mine], np.arange(mine.sum())
        )
        assert row["pairs"] == mine.sum()
        assert row["first_rate"] == pytest.approx(wanted.first.value, abs=1e-12)
        assert row["towards_first"] == pytest.approx(wanted.lean.value, abs=1e-12)
        assert row["mean_deviation"] == pytest.approx(wanted.deviation.value, abs=1e-12)
        assert row["flip_rate"] == pytest.approx(wanted.flips.value, abs=1e-12)
    apart = t["length_a"] - t["length_b"]
    longer = np.where(apart > 0, t["raw_preference"], 1 - t["raw_preference"])
    for row in views["length_bias"]:
        end = {31: 101, 101: 301, 301: 1001, 1001: 10**9}[row["longer_by"]]
        mine = (t["judge"] == row["judge"]) & (abs(apart) >= row["longer_by"]) & (abs(apart) < end)
        assert row["pairs"] == mine.sum()
        assert row["prefers_longer"] == pytest.approx(longer[mine].mean(), abs=1e-12)
    assert len(views["length_bias"]) == 8


def test_rejects_are_all_that_were_refused_and_what_was_too_long():
    columns = ("shard", "row", "pair_id")
    place = dict(zip(columns, ("s", 0, "p"), strict=True))
    raw = [place | {"reason": "null", "detail": "x"}] * 2
    verdicts = [place | {"status": name, "error": "long"} for name in ("overlong", "error", "ok")]
    with duckdb.connect(":memory:") as connection:
        connection.register("rejects_raw", pa.Table.from_pylist(raw))
        connection.register("verdicts", pa.Table.from_pylist(verdicts))
        rows = connection.sql(REJECTS_SQL).fetchall()
    assert rows == [("s", 0, "p", "null", "x")] * 2 + [("s", 0, "p", "overlong", "long")]


def test_live_and_compacted_give_the_same(tmp_path):
    pq.write_table(pairs_table(60), tmp_path / "pairs.parquet")
    steelyard.score(tmp_path / "pairs.parquet", run=tmp_path / "run", judge="scripted:fail=0.05")
    run = RunDir(tmp_path / "run")

    def read():
        return {
            name: user_queries.query(
                RunSnapshot.take(run.root), f"SELECT * FROM {name}"
            ).to_pylist()
            for name in STATISTICS
        }

    compacted = read()
    run.database.unlink()
    live = read()
    assert compacted.keys() == live.keys()
    assert len(compacted["leaderboard"]) == 6
    for name, rows in compacted.items():
        for one, other in zip(rows, live[name], strict=True):
            assert one == pytest.approx(other, nan_ok=True)
