"""Ratings: worked examples, published tables, laws, and what cannot be rated."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steelyard.comparisons.read import read_comparisons
from steelyard.errors import InputRefused, UsageError
from steelyard.ranking import scores
from steelyard.ranking.bradley_terry import MODELS, POINTS, Spread, rate
from steelyard.ranking.differences import compare
from steelyard.ranking.tournament import tournament
from support import rating_twins as twins
from support.helpers import data_file
from support.rating_twins import comparisons as table

NAMES = np.array(list("abcdefghijklmnop"))


def contest_of(drawn, names=NAMES):
    _, games, clusters = drawn
    i, j, y, t, w = (np.array(column) for column in zip(*games, strict=True))
    return tournament(
        pa.table(
            {"model_a": names[i], "model_b": names[j], "preference": y, "tie": t, "weight": w,
             "instruction": pa.array(clusters, pa.uint64())}
        )
    )  # fmt: skip


# -- by hand ---------------------------------------------------------------------------------


def test_three_to_one_are_191_points():
    contest = tournament(table([("x", "y", 1)] * 3 + [("y", "x", 1)]))
    found = rate(contest, anchor="y", intervals="rows")
    assert found.rating.tolist() == pytest.approx([1000 + 400 * math.log10(3), 1000])
    # information 4 * 3/16, each row's gradient 1/4 or 3/4, and a fourth of the information
    variance = (3 * (1 / 4) ** 2 + (3 / 4) ** 2) / (4 * 3 / 16) ** 2 * 4 / 3
    assert found.standard_error.tolist() == pytest.approx([POINTS * math.sqrt(variance), 0])
    assert found.lower[0] == pytest.approx(found.rating[0] - 3.182446 * found.standard_error[0])


def test_ties_by_hand():
    """Two competitors, 5 wins, 2 losses, 3 ties: all probabilities are the shares."""
    rows = [("x", "y", 1)] * 5 + [("x", "y", 0)] * 2 + [("x", "y", 0.5)] * 3
    contest = tournament(table(rows, tie=[0.0] * 7 + [1.0] * 3))
    davidson = rate(contest, model="davidson", anchor="y")
    assert davidson.rating[0] == pytest.approx(1000 + POINTS * math.log(5 / 2))
    assert davidson.ties == pytest.approx(3 / math.sqrt(10))
    kupper = rate(contest, model="rao-kupper", anchor="y")
    up, down = math.log(0.5 / 0.5), math.log(0.2 / 0.8)
    assert kupper.rating[0] == pytest.approx(1000 + POINTS * (up - down) / 2)
    assert kupper.ties == pytest.approx(math.exp(-(up + down) / 2))
    plain = rate(contest, anchor="y")
    assert plain.rating[0] == pytest.approx(1000 + POINTS * math.log(6.5 / 3.5))


def test_ranks_follow_from_differences():
    found = rate(tournament(table([("x", "y", 0.9), ("y", "z", 0.6), ("x", "z", 0.8)] * 10)))
    spread = Spread(np.eye(3), np.full((3, 3), np.inf), np.eye(3))
    sure = replace(found, spread=spread, rating=np.array([9.0, 2.0, 1.0]))
    tested = compare(sure)
    assert tested.best_rank.tolist() == [1, 2, 2]
    assert tested.worst_rank.tolist() == [1, 3, 3]
    assert tested.p_value[0, 1] == pytest.approx(2 * math.erfc(7 / math.sqrt(2) / math.sqrt(2)))
    assert not tested.better[1, 2]


def test_equal_competitors_are_not_told_apart_by_few_games():
    """50 competitors, 8 games each: of 12 contests at most 2 may have a significant difference.

    Normal tails with the plain sandwich claim one in nearly half of them.
    """
    rng = np.random.default_rng(0)
    names, wrong = np.array([f"m{i:02d}" for i in range(50)]), 0
    for _ in range(12):
        rounds = np.stack([rng.permutation(50) for _ in range(8)])
        first, second = names[rounds[:, ::2].ravel()], names[rounds[:, 1::2].ravel()]
        rows = zip(first.tolist(), second.tolist(), rng.random(200).tolist(), strict=True)
        wrong += compare(rate(tournament(table(list(rows))))).better.any()
    assert wrong <= 2


def test_the_order_of_rows_does_not_move_a_bootstrap():
    _, (i, j, y, _, cluster) = twins.simulate(np.random.default_rng(3), instructions=40)
    source = pa.table(
        {"model_a": NAMES[i], "model_b": NAMES[j], "preference": y, "instruction": cluster}
    )
    turned = source.take(pa.array(np.arange(len(source))[::-1]))
    one, other = (
        rate(tournament(rows), intervals="bootstrap", replicates=100) for rows in (source, turned)
    )
    assert np.allclose(one.lower, other.lower, atol=1e-6)


def test_names_do_not_move_p_values():
    """The step-down draws by rank: the same numbers, whatever competitors are called."""
    rng = np.random.default_rng(1)
    i = rng.integers(0, 5, 60)
    j, y = i + rng.integers(1, 3, 60), rng.random(60)
    results = []
    for names in (NAMES, NAMES[::-1]):
        rows = zip(names[i].tolist(), names[j].tolist(), y.tolist(), strict=True)
        ratings = rate(tournament(table(list(rows))))
        place = [ratings.competitors.index(name) for name in names[:7]]
        results.append(compare(ratings).p_value[np.ix_(place, place)])
    assert np.allclose(results[0], results[1], equal_nan=True, atol=1e-9)
    assert np.nanmin(results[0]) < 0.9


# -- laws ------------------------------------------------------------------------------------

LAWS = settings(max_examples=30, deadline=None)
KINDS = pytest.mark.parametrize("model", MODELS)


@KINDS
@LAWS
@given(drawn=twins.games(), seed=st.randoms(use_true_random=False))
def test_relabelling_permutes_ratings(model, drawn, seed):
    size, _, _ = drawn
    names = NAMES[:size].copy()
    seed.shuffle(names)
    one = rate(contest_of(drawn), model=model)
    other = rate(contest_of(drawn, names), model=model)
    place = [other.competitors.index(name) for name in names]
    assert np.allclose(other.rating[place], one.rating, atol=1e-5)
    assert np.allclose(other.standard_error[place], one.standard_error, atol=1e-4)


@KINDS
@LAWS
@given(drawn=twins.games())
def test_swapping_sides_changes_nothing_and_swapping_outcomes_mirrors(model, drawn):
    size, games, clusters = drawn
    contest = contest_of(drawn)
    one = rate(contest, model=model)
    i, j, y, t, w = (np.array(column) for column in zip(*games, strict=True))
    swapped = pa.table(
        {"model_a": NAMES[j], "model_b": NAMES[i], "preference": 1 - y, "tie": t, "weight": w,
         "instruction": pa.array(clusters, pa.uint64())}
    )  # fmt: skip
    other = rate(tournament(swapped), model=model)
    assert np.allclose(other.rating, one.rating, atol=1e-6)
    mirrored = [(a, b, 1 - p, q, r) for a, b, p, q, r in games]
    turned = rate(contest_of((size, mirrored, clusters)), model=model)
    assert np.allclose(turned.rating, 2000 - one.rating, atol=1e-5)


@KINDS
def test_duplicates_shrink_intervals_by_rows_and_not_by_cluster(model):
    _, (i, j, y, t, cluster) = twins.simulate(np.random.default_rng(5))
    columns = {"model_a": NAMES[i], "model_b": NAMES[j], "preference": y, "tie": t}
    once = pa.table(columns | {"instruction": cluster})
    twice = pa.concat_tables([once, once])
    rated = {
        (kind, times): rate(tournament(source), model=model, intervals=kind, replicates=200)
        for kind in ("rows", "cluster", "bootstrap")
        for times, source in ((1, once), (2, twice))
    }
    for kind in ("rows", "cluster", "bootstrap"):
        one, two = rated[kind, 1], rated[kind, 2]
        assert np.allclose(one.rating, two.rating, atol=1e-6)
        ratio = two.standard_error / one.standard_error
        count = len(once)
        tolerance = 5 / count if kind == "rows" else 1e-6  # leverages halve as well
        assert np.allclose(ratio, math.sqrt(0.5) if kind == "rows" else 1, rtol=tolerance)
    assert (rated["cluster", 1].standard_error > rated["rows", 1].standard_error).mean() > 0.5


def test_the_bootstrap_agrees_with_the_sandwich():
    _, (i, j, y, _, cluster) = twins.simulate(np.random.default_rng(2), instructions=300)
    source = pa.table(
        {"model_a": NAMES[i], "model_b": NAMES[j], "preference": y, "instruction": cluster}
    )
    contest = tournament(source)
    sandwich, drawn = rate(contest), rate(contest, intervals="bootstrap", replicates=2000)
    assert np.allclose(drawn.standard_error, sandwich.standard_error, rtol=0.08)
    assert np.allclose(drawn.lower, sandwich.lower, atol=0.25 * sandwich.standard_error.max())


@pytest.mark.parametrize(
    ("model", "ties", "intervals"),
    [
        ("bradley-terry", "mean", "cluster"),
        ("bradley-terry", "mean", "bootstrap"),
        ("davidson", "davidson", "cluster"),
    ],
)
def test_intervals_cover_the_truth(model, ties, intervals):
    """500 tournaments: clustered outcomes, ties, unequal schedules; each interval counts."""
    rng = np.random.default_rng(11)
    inside, naive = [], []
    for _ in range(500):
        truth, (i, j, y, t, cluster) = twins.simulate(rng, ties=ties)
        columns = {"model_a": NAMES[i], "model_b": NAMES[j], "preference": y, "tie": t}
        contest = tournament(pa.table(columns | {"instruction": cluster}))
        wanted = 1000 + POINTS * truth
        for kind, out in ((intervals, inside), ("rows", naive)):
            found = rate(contest, model=model, intervals=kind, replicates=200)
            out.append((found.lower <= wanted) & (wanted <= found.upper))
    assert 0.93 <= np.mean(inside) <= 0.97
    assert np.mean(naive) < 0.92  # and rows are not what is independent


# -- published -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def llmfao():
    read = read_comparisons(
        data_file("arena/llmfao_votes.parquet"), None,
        ("model_a", "model_b", "preference"), ("tie", "instruction"),
    )  # fmt: skip
    ranked = {}
    for row in pq.read_table(data_file("arena/llmfao_rankings.parquet")).to_pylist():
        ranked.setdefault(row["algorithm"], {})[row["item"]] = row["score"]
    return tournament(read.table), ranked


def test_a_published_ranking_is_reproduced(llmfao):
    """All 59 competitors. The peer's eigenvector scores losers: it is ours of points turned."""
    contest, published = llmfao
    points, ties = contest.points()
    strengths = np.exp((rate(contest).rating - 1000) / POINTS)
    found = {
        "average_win_rate": scores.average_win_rate(points),
        "bradley_terry": strengths / strengths.sum(),
        "newman": scores.newman(points, ties)[0],
        "eigen": scores.eigenvector(points.T),
        "pagerank": scores.pagerank(points),
        "elo": scores.elo(contest, shuffles=0, seed=0)[0],
    }
    for method, values in found.items():
        wanted = [published[method][name] for name in contest.competitors]
        assert len(wanted) == 59
        assert np.allclose(values, wanted, rtol=1e-5, atol=0), method
    # The published one falls with wins; that of `rank` rises with them.
    ranks = [np.argsort(np.argsort(x)) for x in (
        found["average_win_rate"], found["eigen"], scores.eigenvector(points)
    )]  # fmt: skip
    assert np.corrcoef(ranks[0], ranks[1])[0, 1] < -0.7
    assert np.corrcoef(ranks[0], ranks[2])[0, 1] > 0.2


def test_scores_rank_the_best_first():
    """In a round robin of known odds every method gives the order of the strengths."""
    odds = [5.0, 3.0, 2.0, 1.0]
    rows = [
        (NAMES[i], NAMES[j], odds[i] / (odds[i] + odds[j]))
        for i in range(4) for j in range(4) if i < j
    ] * 50  # fmt: skip
    contest = tournament(table(rows))
    points, ties = contest.points()
    for values in (
        scores.average_win_rate(points), scores.eigenvector(points), scores.pagerank(points),
        scores.newman(points, ties)[0], scores.elo(contest, shuffles=20, seed=0)[0],
        rate(contest).rating,
    ):  # fmt: skip
        assert np.argsort(-values).tolist() == [0, 1, 2, 3]
    assert rate(contest, anchor="d").rating == pytest.approx(1000 + 400 * np.log10(odds))


def test_newman_is_davidson(llmfao):
    contest, _ = llmfao
    strengths, v = scores.newman(*contest.points())
    found = rate(contest, model="davidson")
    logs = np.log(strengths)
    assert np.allclose(1000 + POINTS * (logs - logs.mean()), found.rating, atol=1e-6)
    assert found.ties == pytest.approx(2 * v, rel=1e-8)


# -- what cannot be rated --------------------------------------------------------------------


def test_one_sided_competitors_are_named_and_finite():
    rows = [("x", "y", 1), ("y", "x", 1), ("king", "x", 1), ("king", "y", 1), ("fool", "x", 0)]
    rows += [("z", "x", 0), ("z", "x", 1), ("p", "q", 1), ("q", "p", 1)]
    found = rate(tournament(table(rows * 20)))
    one_sided, apart, prior = found.warnings
    assert one_sided.startswith("fool (never won), king (never lost): ")
    assert "the likelihood is unbounded on that side" in one_sided
    assert apart.startswith("no chain of comparisons joins p, q to the others")
    assert "a tie with an average one" in prior
    assert np.isfinite(found.rating).all()
    assert found.competitors[found.rating.argmax()] == "king"
    assert found.rating.max() < 3000
    assert np.isfinite(found.standard_error).all()


def test_few_clusters_are_told():
    found = rate(tournament(table([("x", "y", 0.6), ("x", "y", 0.3)] * 5)))
    assert found.warnings == ()
    drawn = rate(tournament(table([("x", "y", 0.6), ("x", "y", 0.3)] * 5)), intervals="bootstrap")
    assert drawn.warnings == ("only 10 clusters: the intervals are too narrow",)


def test_what_is_asked_for_has_to_be_there():
    contest = tournament(table([("x", "y", 0.6)] * 4))
    with pytest.raises(UsageError, match="there is no competitor z"):
        rate(contest, anchor="z")
    for model in ("davidson", "rao-kupper"):
        with pytest.raises(UsageError, match="needs both wins and ties"):
            rate(contest, model=model)
    crowded = tournament(table([("x", "y", 0.9)] * 4, tie=[0.5] * 4))
    with pytest.raises(InputRefused, match="larger than preferences allow"):
        rate(crowded, model="davidson")
    with pytest.raises(InputRefused, match="1 competitors"):
        tournament(table([("x", "x", 0.5)]))
    ties = tournament(table([("x", "y", 0.5)] * 4, tie=[1.0] * 4))
    with pytest.raises(UsageError, match="every comparison is a tie"):
        rate(ties, model="davidson")
    capitals = tournament(table([("GPT 4", "claude", 0.6)] * 4))
    with pytest.raises(UsageError, match=r"such as GPT 4$"):
        rate(capitals, anchor="gpt-4")
    points, ties = tournament(table([("x", "y", 1), ("y", "z", 1)] * 4)).points()
    with pytest.raises(scores.NotConverged, match="bradley-terry"):
        scores.newman(points, ties)


def test_an_eigenvector_of_challengers_of_one_baseline():
    """Points alone swing for ever between a baseline and those that met nobody else."""
    contest = tournament(table([("a", "base", 0.8), ("b", "base", 0.4)] * 5))
    points, _ = contest.points()
    found = scores.eigenvector(points)
    values, vectors = np.linalg.eig(points)
    leading = np.abs(vectors[:, values.real.argmax()])
    assert found == pytest.approx(leading, rel=1e-6)
    assert found[0] == pytest.approx(2 * found[1])
