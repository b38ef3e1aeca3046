"""What `rank` may claim: intervals, ranks and real differences, and what it refuses."""

from __future__ import annotations

import math

import pyarrow.parquet as pq
import pytest
from scipy import stats

from steelyard.cli.ranking_text import format_rank
from steelyard.errors import UsageError
from steelyard.ranking import scores
from steelyard.ranking.bradley_terry import POINTS
from steelyard.ranking.rank import RankOptions, rank
from support.rating_twins import comparisons as table


def report(tmp_path, source, **options):
    pq.write_table(source, tmp_path / "t.parquet")
    return rank(tmp_path / "t.parquet", {}, RankOptions(**options))


@pytest.mark.parametrize("intervals", ["cluster", "rows", "bootstrap"])
def test_two_rows_make_no_difference_real(tmp_path, intervals):
    """Equal rows have no spread at all: an interval of width 0, were it given."""
    drawn = {"replicates": 100} if intervals == "bootstrap" else {}
    for count in (2, 5):
        found = report(tmp_path, table([("x", "y", 0.9)] * count), intervals=intervals, **drawn)
        sure = count >= 5
        assert [one["rating"] for one in found["ranking"]] == pytest.approx([1190.85, 809.15], 1e-4)
        for one in found["ranking"]:
            assert [one[name] for name in SPAN] == [None] * 3
            assert [one[name] for name in RANGE] == ([1, 2] if sure else [None, None])
        assert [one["p_value"] for one in found["differences"]] == ([None] if sure else [])
        text = format_rank(found)
        assert ("0 of 1 differences are significant" in text) == sure
        assert ("all preferences are equal" in text) == sure
        assert ("no interval is given" in text) != sure


def test_five_clusters_are_tested_with_four_degrees_of_freedom(tmp_path):
    """Two competitors, five rows of mean 0.7: the influence of each is (y - 0.7) / (5 * 0.21), and
    CR2 divides its square by 1 - 1/5."""
    rows = [("x", "y", y) for y in (0.6, 0.65, 0.7, 0.75, 0.8)]
    found = report(tmp_path, table(rows))
    (pair,) = found["differences"]
    error = math.sqrt(0.025 / (5 * 0.21) ** 2 / 0.8)
    assert pair["standard_error"] == pytest.approx(POINTS * error, rel=1e-6)
    t = math.log(0.7 / 0.3) / error
    assert pair["p_value"] == pytest.approx(2 * stats.t.sf(t, 4), rel=1e-6)
    x = found["ranking"][0]
    assert x["upper"] - x["rating"] == pytest.approx(POINTS * error / 2 * 2.7764451, rel=1e-6)
    assert "1 of 1 differences are significant" in format_rank(found)


def test_one_cluster_with_nearly_all_weight_gives_no_interval(tmp_path):
    rows = [("x", "y", y) for y in (0.5, 0.6, 0.7, 0.8, 0.9)]
    found = report(tmp_path, table(rows, weight=[1.0, 1.0, 1.0, 1.0, 1000.0]))
    assert [row[name] for row in found["ranking"] for name in (*SPAN, *RANGE)] == [None] * 10
    (warning,) = found["warnings"]
    assert warning.startswith("x, y: one of the clusters has nearly all of their weight")


def test_groups_that_never_met_are_told(tmp_path):
    rows = [("x", "y", 0.6), ("y", "z", 0.7), ("z", "x", 0.2), ("p", "q", 0.8)] * 20
    with pytest.raises(scores.NotConverged, match="no chain of comparisons joins p, q"):
        report(tmp_path, table(rows), method="newman")
    for method in ("elo", "average", "pagerank", "eigen"):
        (warning,) = report(tmp_path, table(rows), method=method)["warnings"]
        assert warning.startswith("no chain of comparisons joins p, q to the others"), method
        assert report(tmp_path, table(rows[:3] * 9), method=method)["warnings"] == []
    weighted = table(rows[:3] * 9, weight=[1.0, 2.0, 3.0] * 9)
    assert "elo ignores weights" in report(tmp_path, weighted, method="elo")["warnings"][0]


def by_name(found):
    return {row["competitor"]: row for row in found["ranking"]}


ROUND = [("x", "y", 0.6), ("y", "z", 0.7), ("z", "x", 0.2), ("y", "x", 0.9), ("z", "y", 0.1)]


SPAN = ("lower", "upper", "standard_error")


RANGE = ("best_rank", "worst_rank")


def test_no_difference_between_groups_that_never_met_is_real(tmp_path):
    rows = [*ROUND, ("p", "q", 1.0), ("p", "q", 1.0), ("p", "q", 0.5)] * 40
    found = report(tmp_path, table(rows))
    for one in found["differences"]:
        within = {one["better"], one["worse"]} <= {"x", "y", "z"}
        assert (one["p_value"] is not None) == (within or {one["better"], one["worse"]} == {*"pq"})
    rows = by_name(found)
    assert (rows["p"]["best_rank"], rows["p"]["worst_rank"]) == (1, 4)  # better than q, for sure
    for name in "xyz":  # whom p and q, above or below, cannot push further
        assert rows[name]["worst_rank"] - rows[name]["best_rank"] >= 2
        assert rows[name]["lower"] < rows[name]["rating"] < rows[name]["upper"]
    assert [rows[name][one] for name in "pq" for one in SPAN] == [None] * 6
    assert any(line.startswith("no chain of comparisons joins p, q") for line in found["warnings"])
    assert "one-sided" not in " ".join(found["warnings"])
    assert "6 cannot be tested" in format_rank(found)


@pytest.mark.parametrize("intervals", ["cluster", "rows", "bootstrap"])
def test_who_never_lost_has_no_interval(tmp_path, intervals):
    rows = [*ROUND, ("king", "x", 1.0), ("king", "y", 1.0)] * 20
    drawn = {"replicates": 100} if intervals == "bootstrap" else {}
    found = report(tmp_path, table(rows), intervals=intervals, **drawn)
    king = by_name(found)["king"]
    assert king["rank"] == 1
    assert [king[name] for name in SPAN] == [None] * 3
    assert (king["best_rank"], king["worst_rank"]) == (1, 4)
    for one in found["differences"]:
        assert (one["p_value"] is None) == (one["better"] == "king")
    assert by_name(found)["x"]["lower"] < by_name(found)["x"]["rating"]
    anchored = by_name(report(tmp_path, table(rows), intervals=intervals, **drawn, anchor="king"))
    assert [anchored[name]["lower"] for name in "xyz"] == [None] * 3


def test_two_of_whom_one_always_won_have_no_interval(tmp_path):
    found = report(tmp_path, table([("x", "y", 1.0)] * 30))
    assert [row[name] for row in found["ranking"] for name in SPAN] == [None] * 6
    assert found["warnings"][0].startswith("x (never lost), y (never won): ")


@pytest.mark.parametrize("own", [1, 4, 5, 29, 30])
def test_few_clusters_of_ones_own_are_told(tmp_path, own):
    rows = ROUND * 40 + [("rare", "x", 0.7), ("rare", "y", 0.4)] * own
    ids = [*range(200), *(1000 + at // 2 for at in range(2 * own))]
    found = report(tmp_path, table(rows, instruction_id=ids))
    rare = by_name(found)["rare"]
    assert [rare[name] is not None for name in (*SPAN, *RANGE)] == [own >= 5] * 5
    for one in found["differences"]:
        tested = own >= 5 or "rare" not in {one["better"], one["worse"]}
        assert (one["p_value"] is not None) == tested
    words = {
        1: ["rare: compared in fewer than 5 clusters: no interval"],
        4: ["rare: compared in fewer than 5 clusters: no interval"],
    }.get(own, [])
    assert len(found["warnings"]) == len(words)
    assert all(line.startswith(word) for line, word in zip(found["warnings"], words, strict=True))
    drawn = report(
        tmp_path, table(rows, instruction_id=ids), intervals="bootstrap", replicates=100
    )["warnings"]  # percentiles know nothing of degrees of freedom
    narrow = "rare: compared in fewer than 30 clusters: their intervals are too narrow"
    assert (narrow in drawn) == (5 <= own < 30)


def test_equal_preferences_are_told(tmp_path):
    (warning,) = report(tmp_path, table([("x", "y", 0.9)] * 40))["warnings"]
    assert warning.startswith("x, y: all preferences are equal, which hides their spread")


def test_many_rare_competitors_are_counted(tmp_path):
    rows = ROUND * 40 + [(f"r{at}", "x", 0.7) for at in range(7)]
    (warning,) = report(tmp_path, table(rows))["warnings"]
    assert warning.startswith("r0, r1, r2, r3, r4 and 2 more: compared in fewer than 5 clusters")


def test_one_cluster_gives_ratings_alone(tmp_path):
    found = report(tmp_path, table([("x", "y", 0.6)] * 40, instruction_id=[7] * 40))
    assert found["ranking"][0]["rating"] > found["ranking"][1]["rating"]
    assert [row[name] for row in found["ranking"] for name in (*SPAN, *RANGE)] == [None] * 10
    assert found["warnings"][0].startswith("only 1 cluster:")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "elo", "anchor": "x"}, "--anchor has no effect"),
        ({"method": "average", "intervals": "cluster"}, "--intervals has no effect"),
        ({"replicates": 1000}, "--replicates has no effect"),
        ({"method": "eigen", "intervals": None, "replicates": 200}, "--replicates has no effect"),
        ({"shuffles": 100}, "--shuffles has no effect"),
        ({"method": "newman", "seed": 0}, "--seed has no effect"),
        ({"intervals": "bootstrap", "replicates": 99}, "too few replicates: 99"),
        ({"method": "elo", "shuffles": -1}, "too few shuffles: -1"),
    ],
)
def test_options_without_effect_are_refused(options, words):
    with pytest.raises(UsageError, match=words):
        RankOptions(**options)


@pytest.mark.parametrize("method", ["newman", "eigen"])
def test_who_keeps_a_score_from_coming_to_rest_is_named(tmp_path, method):
    rows = [("king", "x", 1), ("x", "fool", 1), ("king", "fool", 1)] * 9
    with pytest.raises(scores.NotConverged, match=r"king \(never lost\)") as caught:
        report(tmp_path, table(rows), method=method)
    assert "bradley-terry" in caught.value.remedy
