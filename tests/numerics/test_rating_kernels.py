"""Rating kernels against plain twins, and the laws that they keep."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steelyard_kernels import links
from steelyard_kernels.bootstrap import draw_counts, resampled_sums
from steelyard_kernels.bradley_terry import cholesky_solve, solve
from steelyard_kernels.comparisons import pair_sums, pairs_of, rows_of
from steelyard_kernels.connected import components
from steelyard_kernels.elo import elo
from steelyard_kernels.groups import group, groups_met
from steelyard_kernels.influence import row_influences
from steelyard_kernels.resampling import resampled_strengths
from steelyard_kernels.sandwich import cluster_products, pair_curves
from steelyard_kernels.step_down import Differences, count_exceedances
from steelyard_kernels.threads import spread
from support import rating_twins as twins

MODELS = [links.BRADLEY_TERRY, links.DAVIDSON, links.RAO_KUPPER]
FEW = settings(max_examples=60, deadline=None)


def columns(size, games):
    i, j, y, t, w = (np.array(column) for column in zip(*games, strict=True))
    return rows_of(i * size + j, y, t, w)


def fitted(model, size, games):
    rows = columns(size, games)
    start = np.append(np.zeros(size), 0.5)
    found = solve(model, pairs_of(pair_sums(rows, size), size), np.zeros(size), start)
    assert found.converged
    return rows, found


@FEW
@given(twins.games())
def test_sums_equal_a_loop(drawn):
    size, games, _ = drawn
    wanted = np.zeros((size * size, 3))
    for i, j, y, t, w in games:
        wanted[i * size + j] += [w, w * y, w * t]
    assert np.allclose(pair_sums(columns(size, games), size), wanted, rtol=1e-14, atol=0)


@pytest.mark.parametrize("model", MODELS)
@FEW
@given(drawn=twins.games())
def test_strengths_are_where_the_likelihood_is_greatest(model, drawn):
    size, games, _ = drawn
    _, found = fitted(model, size, games)
    at = found.estimate
    gradient = twins.slope(lambda x: twins.value(model, games, x), at)
    if model == links.BRADLEY_TERRY:
        gradient = gradient[:-1]
    assert np.abs(gradient).max() < 1e-6 * len(games)
    assert abs(at[:-1].sum()) < 1e-9
    for step in (1e-3, -1e-3):
        moved = at + step * np.cos(np.arange(size + 1))
        assert twins.value(model, games, moved) < twins.value(model, games, at)


@FEW
@given(twins.games(ties=False))
def test_bradley_terry_equals_minorisation(drawn):
    size, games, _ = drawn
    points = np.zeros((size, size))
    for i, j, y, _, w in games:
        points[i, j] += w * y
        points[j, i] += w * (1 - y)
    _, found = fitted(links.BRADLEY_TERRY, size, games)
    assert np.allclose(found.estimate[:-1], twins.minorise(points), atol=1e-8)


@pytest.mark.parametrize("model", MODELS)
@settings(max_examples=25, deadline=None)
@given(drawn=twins.games(most=4))
def test_information_and_middle_equal_differences(model, drawn):
    size, games, clusters = drawn
    rows, found = fitted(model, size, games)
    at = found.estimate
    by_hand = -twins.slope(
        lambda x: twins.slope(lambda z: twins.value(model, games, z), x, 1e-4), at, 1e-4
    )
    assert np.allclose(found.information, by_hand, rtol=1e-3, atol=1e-3)
    weighted = [(i, j, y, t, w) for i, j, y, t, w in games]
    for codes, groups in (
        (clusters, group(np.array(clusters, np.int32), 5)),
        (range(len(games)), None),
    ):
        wanted = twins.naive_products(model, weighted, codes, at)
        curves = pair_curves(model, at, pair_sums(rows, size))
        got = cluster_products(rows, curves, np.zeros((size + 1, size + 1)), groups)
        assert np.allclose(got.gradient, wanted, rtol=1e-5, atol=1e-6)
        assert np.array_equal(got.gradient, got.gradient.T)
        known = np.zeros((len(games) + 5, size))  # information about each strength, by cluster
        for (i, j, _, _, w), code in zip(games, codes, strict=True):
            known[code, [i, j]] += w * curves.information[i * size + j, 0]
        assert np.allclose(got.information, known.T @ known)


def test_many_competitors_in_a_cluster_take_the_other_way():
    """Above an eighth of the competitors, products are summed by whole rows."""
    rng = np.random.default_rng(0)
    size, count = 40, 300
    i = rng.integers(0, size - 1, count)
    j = np.array([rng.integers(low + 1, size) for low in i])
    rows, cluster = rows_of(i * size + j, rng.random(count)), rng.integers(0, 9, count)
    strengths = np.append(rng.normal(size=size), 0)
    curves = pair_curves(links.BRADLEY_TERRY, strengths, pair_sums(rows, size))
    slopes, none = curves.slopes, np.zeros((size + 1, size + 1))
    small = np.arange(count) // 2
    for codes in (cluster, small):
        gradients = np.zeros((codes.max() + 1, size + 1))
        for row, code in enumerate(codes):
            g = slopes[rows.pair[row], 0] + rows.preference[row]
            gradients[code, i[row]] += g
            gradients[code, j[row]] -= g
        groups = group(codes.astype(np.int32), len(gradients))
        got = cluster_products(rows, curves, none, groups).gradient
        assert np.allclose(got, gradients.T @ gradients, atol=1e-12)


@pytest.mark.parametrize("model", MODELS)
@settings(max_examples=20, deadline=None)
@given(drawn=twins.games(most=4))
def test_influences_are_gradients_times_a_direction(model, drawn):
    size, games, _ = drawn
    rows, found = fitted(model, size, games)
    direction = np.cos(np.arange(size + 1))
    curves = pair_curves(model, found.estimate, pair_sums(rows, size))
    got = row_influences(rows, curves.slopes, direction)
    wanted = [
        twins.slope(lambda x, g=game: twins.value(model, [g], x), found.estimate) @ direction
        for game in games
    ]
    assert np.allclose(got, wanted, rtol=1e-5, atol=1e-6)


def test_a_step_down_counts_the_largest_difference_so_far():
    rng = np.random.default_rng(4)
    draws = rng.normal(size=(37, 5))
    first, second = np.triu_indices(5, 1)
    scale, statistic = rng.uniform(0.5, 2, 10), np.sort(rng.uniform(0, 4, 10))
    wanted = [
        sum(
            max(abs(x[first[m]] - x[second[m]]) * scale[m] for m in range(last + 1))
            >= statistic[last]
            for x in draws
        )
        for last in range(10)
    ]
    data = Differences(first.astype(np.int32), second.astype(np.int32), scale, statistic)
    assert count_exceedances(draws, data).tolist() == wanted
    assert 0 < wanted[-1] < wanted[0]


@pytest.mark.parametrize("model", MODELS)
@settings(max_examples=15, deadline=None)
@given(drawn=twins.games(), seed=st.integers(0, 99))
def test_replicates_equal_fits_to_repeated_rows(model, drawn, seed):
    size, games, clusters = drawn
    rows, found = fitted(model, size, games)
    drawn_fits = resampled_strengths(
        model, rows, np.array(clusters, np.int32), clusters=5, start=found.estimate,
        replicates=4, seed=seed,
    )  # fmt: skip
    counts = twins.naive_counts(5, 0, 4, seed)
    for replicate in range(4):
        times = counts[clusters, replicate]
        if drawn_fits.regularised[replicate]:
            continue
        again = [game for game, n in zip(games, times, strict=True) for _ in range(n)]
        _, wanted = fitted(model, size, again)
        assert drawn_fits.converged[replicate]
        free = size if model == links.BRADLEY_TERRY else size + 1
        got = drawn_fits.strengths[replicate]
        assert np.allclose(got[:free], wanted.estimate[:free], atol=1e-6)


def test_a_replicate_without_a_competitor_is_regularised():
    rows = rows_of([1, 1, 2, 2], [0.5, 0.5, 0.5, 0.5])
    found = resampled_strengths(
        links.BRADLEY_TERRY, rows, np.array([0, 0, 1, 1], np.int32), clusters=2,
        start=np.zeros(4), replicates=40, seed=0,
    )  # fmt: skip
    counts = draw_counts(2, 0, 40, 0)
    assert found.regularised.tolist() == (counts == 0).any(axis=0).tolist()
    assert 0 < found.regularised.sum() < 40
    assert found.converged.all()
    assert np.isfinite(found.strengths).all()


@given(st.integers(1, 30), st.integers(0, 200), st.integers(1, 5), st.integers())
@settings(max_examples=60, deadline=None)
def test_draws_are_those_of_their_definition(clusters, start, count, seed):
    counts = draw_counts(clusters, start, start + count, seed)
    assert counts.tolist() == twins.naive_counts(clusters, start, start + count, seed).tolist()
    assert (counts.sum(axis=0) == clusters).all()


def test_draws_are_even():
    counts = draw_counts(50, 0, 4000, 1).astype(float)
    assert np.abs(counts.mean(axis=1) - 1).max() < 5 * math.sqrt(0.98 / 4000)
    assert counts.var() == pytest.approx(0.98, abs=0.02)  # multinomial: 1 - 1/50
    with pytest.raises(ValueError, match="clusters"):
        draw_counts(0, 0, 1, 0)


@given(st.integers(1, 20), st.integers(1, 3), st.integers(1, 130))
@settings(max_examples=30, deadline=None)
def test_resampled_sums_are_sums_over_draws(clusters, width, replicates):
    statistics = np.random.default_rng(0).normal(size=(clusters, width))
    wanted = twins.naive_counts(clusters, 0, replicates, 7).T @ statistics
    assert np.allclose(resampled_sums(statistics, replicates, 7), wanted, atol=1e-12)


@given(st.lists(st.integers(0, 5), max_size=40))
@settings(max_examples=60, deadline=None)
def test_groups_are_a_stable_sort(codes):
    order, ends = group(np.array(codes, np.int32), 6)
    assert order.tolist() == sorted(range(len(codes)), key=codes.__getitem__)
    assert np.diff(ends).tolist() == [codes.count(g) for g in range(6)]


@given(st.integers(2, 6), st.data())
@settings(max_examples=100, deadline=None)
def test_groups_of_competitors_equal_the_closure(size, data):
    pairs = [(i, j) for i in range(size) for j in range(i + 1, size)]
    met = data.draw(st.lists(st.sampled_from(pairs), unique=True, max_size=8))
    scores = [data.draw(st.sampled_from([0.0, 0.5, 1.0])) for _ in met]
    beats = np.zeros((size, size), bool)
    sums = np.zeros((size * size, 3))
    for (i, j), s in zip(met, scores, strict=True):
        sums[i * size + j, :2] = [1.0, s]
        beats[i, j], beats[j, i] = s > 0, s < 1
    assert components(pairs_of(sums, size), size).tolist() == twins.naive_groups(beats).tolist()


@given(twins.games(), st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_elo_equals_a_loop_in_any_order(drawn, seed):
    size, games, _ = drawn
    rows = columns(size, games)
    played = [(i, j, y) for i, j, y, _, _ in games]
    given_order = elo(rows, size, k=4.0, shuffles=0, seed=seed)
    assert np.allclose(given_order, [twins.naive_elo(played, size, 4.0)], rtol=1e-13)
    shuffled = elo(rows, size, k=4.0, shuffles=3, seed=seed)
    for shuffle in range(3):
        order = []
        for at in range(len(played)):
            other = twins.naive_below(at + 1, twins.naive_stream(seed, shuffle), at)
            order.append(at)
            order[at], order[other] = order[other], at
        wanted = twins.naive_elo([played[at] for at in order], size, 4.0)
        assert np.allclose(shuffled[shuffle], wanted, rtol=1e-13)


@given(st.integers(0, 40), st.integers(1, 9))
@settings(max_examples=20, deadline=None)
def test_blocks_cover_everything_once(items, block):
    seen = np.zeros(items, int)

    def work(start, end):
        assert 0 < end - start <= block
        seen[start:end] += 1

    spread(work, items, block)
    assert (seen == 1).all()


def test_an_error_in_a_block_is_raised():
    def work(start, end):
        raise ValueError(f"block {start}")

    with pytest.raises(ValueError, match="block"):
        spread(work, 10, 2)


@given(st.integers(1, 12))
@settings(max_examples=12, deadline=None)
def test_the_solver_solves(size):
    rng = np.random.default_rng(size)
    root = rng.normal(size=(size, size + 3))
    matrix, right = root @ root.T, rng.normal(size=size)
    got = right.copy()
    cholesky_solve(matrix.copy(), got, size)
    assert np.allclose(got, np.linalg.solve(matrix, right), rtol=1e-8)


@FEW
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(0, 3))))
def test_groups_that_a_member_is_in_are_counted(rows):
    codes, first, second = np.array(rows, np.int32).reshape(-1, 3).T
    wanted = [len({code for code, *pair in rows if member in pair}) for member in range(4)]
    assert groups_met(codes.copy(), 6, first.copy(), second.copy(), 4).tolist() == wanted
