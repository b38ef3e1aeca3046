"""Ratings from gold and judge: beside the authors' library, by symmetry, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from steelyard.ranking.bradley_terry import POINTS, rate
from steelyard.ranking.tournament import Tournament
from steelyard.ranking.tuned_ratings import tuned_ratings
from steelyard_kernels.comparisons import rows_of

NORMAL = 1.959963984540054


def contest(first, second, preference, cluster=None, competitors=4, weight=()):
    count = len(first)
    cluster = np.arange(count) if cluster is None else cluster
    names = tuple(f"m{k}" for k in range(competitors))
    rows = rows_of(first * competitors + second, preference, weight=weight)
    return Tournament(
        names, rows, np.zeros(count, bool), cluster.astype(np.int32), int(cluster.max()) + 1, 0
    )


@pytest.fixture(scope="module")
def drawn():
    """Every pair of four competitors 20 times with gold and 100 times without."""
    rng = np.random.default_rng(1)
    i, j = (np.tile(side, 120) for side in np.triu_indices(4, 1))
    strength = np.array([1.0, 0.3, -0.3, -1.0])
    label = (rng.random(720) < 1 / (1 + np.exp(strength[j] - strength[i]))).astype(float)
    preference = np.clip(0.1 + 0.5 * label + 0.4 * rng.random(720), 0, 1)
    return i, j, label, preference, np.where(np.arange(720) < 120, label, np.nan)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("weight", [0.0, 0.4, 1.0])
def test_equals_the_authors_logistic_regression(drawn, weight, monkeypatch):
    """ppi_logistic_pointestimate of ppi-python, the last competitor at 0."""
    peer = pytest.importorskip("ppi_py")
    uncompiled = peer.ppi._logistic_get_stats
    monkeypatch.setattr(peer.ppi, "_logistic_get_stats", getattr(uncompiled, "py_func", uncompiled))
    i, j, label, f, known = drawn
    design = np.zeros((720, 4))
    design[np.arange(720), i], design[np.arange(720), j] = 1, -1
    design = design[:, :3]
    gold = np.isfinite(known)
    ours = tuned_ratings(contest(i, j, f), known, anchor="m3", weight=weight)
    parts = (design[gold], label[gold], f[gold], design[~gold], f[~gold])
    exact = {"ftol": 1e-16, "gtol": 1e-12, "maxiter": 10_000}
    theirs = peer.ppi_logistic_pointestimate(*parts, lam=weight, optimizer_options=exact)
    assert (ours.rating[:3] - 1000) / POINTS == pytest.approx(theirs, abs=1e-7)
    lower, upper = peer.ppi_logistic_ci(*parts, lam=weight, alpha=0.05, optimizer_options=exact)
    # Theirs divides by labels less one in total, ours by the competitor's less two.
    room = np.sqrt(60 / 58 * 119 / 120)
    expected = (upper - lower) / 2 / NORMAL * POINTS * room
    assert ours.standard_error[:3] == pytest.approx(expected, rel=0.01)


def test_gold_alone_is_the_plain_fit_of_gold(drawn):
    i, j, label, f, known = drawn
    alone = tuned_ratings(contest(i, j, f), known, weight=0.0)
    plain = rate(contest(i[:120], j[:120], label[:120]))
    assert alone.rating == pytest.approx(plain.rating, abs=1e-6)
    assert alone.labels.tolist() == alone.clusters.tolist() == [60] * 4


def test_a_judge_narrows_intervals_and_does_not_move_the_truth(drawn):
    i, j, _, f, known = drawn
    tuned = tuned_ratings(contest(i, j, f), known)
    alone = tuned_ratings(contest(i, j, f), known, weight=0.0)
    assert 0.3 < tuned.weight <= 1
    assert (tuned.standard_error < 0.8 * alone.standard_error).all()
    lower, upper = tuned.interval()
    assert ((lower < tuned.rating) & (tuned.rating < upper)).all()
    for other in (0.9 * f + 0.1, f**2):  # another scale of the judge's is corrected by gold
        moved = tuned_ratings(contest(i, j, other), known)
        assert np.abs(moved.rating - tuned.rating).max() < tuned.standard_error.min()


def test_rows_and_clusters_in_any_order(drawn):
    i, j, _, f, known = drawn
    order = np.random.default_rng(0).permutation(720)
    cluster = np.arange(720) // 6
    straight = tuned_ratings(contest(i, j, f, cluster), known)
    mixed = tuned_ratings(contest(i[order], j[order], f[order], cluster[order]), known[order])
    doubled = tuned_ratings(
        contest(*(np.tile(x, 2) for x in (i, j, f, cluster))), np.tile(known, 2)
    )
    heavy = tuned_ratings(contest(i, j, f, cluster, weight=np.full(720, 2.0)), known)
    for other in (mixed, doubled, heavy):
        assert other.rating == pytest.approx(straight.rating, abs=1e-6)
        assert other.standard_error == pytest.approx(straight.standard_error, rel=1e-6)
    assert straight.clusters.tolist() == [20] * 4


def test_what_gives_no_ratings(drawn):
    i, j, label, f, known = drawn
    few = np.where(np.arange(720) < 9, label, np.nan)
    assert tuned_ratings(contest(i, j, f), few) is None
    assert tuned_ratings(contest(i, j, f), label) is None
    apart = np.where((i == 0) | (j == 0), np.nan, known)  # gold does not join m0 to the others
    assert tuned_ratings(contest(i, j, f), apart, weight=0.0) is None
    never_lost = np.where(np.isfinite(known) & (i == 0), 1.0, known)
    assert tuned_ratings(contest(i, j, f), never_lost, weight=0.0) is None


def test_a_competitor_with_little_gold_is_not_known(drawn):
    i, j, _, f, known = drawn
    rare = (i == 0) | (j == 0)
    some = np.where(rare & (np.cumsum(rare) > 9), np.nan, known)
    assert tuned_ratings(contest(i, j, f), some).known.tolist() == [False, True, True, True]
