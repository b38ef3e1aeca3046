"""Folds by hand, and the choice of a method by losses that are worked out again."""

import math
from dataclasses import replace

import numpy as np
import pytest

from steelyard.calibrators import cross_validation
from steelyard.calibrators.cross_validation import choose, fit_drawn
from steelyard.calibrators.features import Features, Gold
from steelyard.calibrators.folds import grouped_folds
from steelyard.calibrators.methods import METHODS
from steelyard.statistics.logistic import sigmoid


def groups_of(*sizes):
    return np.repeat(np.arange(len(sizes)), sizes)


def fold_of_groups(sizes, folds, seed=0):
    groups = groups_of(*sizes)
    result = grouped_folds(groups, folds, seed)
    assert result.dtype == np.int64
    return [set(result[groups == group].tolist()).pop() for group in range(len(sizes))]


@pytest.mark.parametrize("seed", range(5))
def test_the_largest_group_goes_first_and_each_to_the_emptiest_fold(seed):
    # 5 | 4, then 3 to the 4, 2 to the 5, and 1 to the first of two folds of 7.
    assert fold_of_groups([3, 1, 5, 2, 4], 2, seed) == [1, 0, 0, 0, 1]
    # 9 | 2 2 2 2: the large one stays alone.
    assert fold_of_groups([2, 2, 9, 2, 2], 2, seed) == [1, 1, 0, 1, 1]


def test_there_are_no_more_folds_than_groups():
    assert fold_of_groups([4], 5) == [0]
    assert sorted(fold_of_groups([4, 4], 5)) == [0, 1]
    assert sorted(fold_of_groups([1] * 5, 5)) == [0, 1, 2, 3, 4]


def test_the_seed_draws_among_groups_of_one_size():
    draws = {tuple(fold_of_groups([2] * 6, 3, seed)) for seed in range(20)}
    assert len(draws) > 5
    assert all(sorted(draw) == [0, 0, 1, 1, 2, 2] for draw in draws)
    assert fold_of_groups([2] * 40, 5, 7) == fold_of_groups([2] * 40, 5, 7)
    # Groups are numbered in any way, and rows of a group need not be neighbours.
    assert grouped_folds(np.array([70, -3, 70, -3, 70]), 2, 0).tolist() == [0, 1, 0, 1, 0]


def test_groups_of_one_size_keep_the_order_of_the_draw():
    """The order is that of the draw, in which sorting by size is stable."""
    sizes = [2, 1] * 20
    draw = np.random.default_rng(3).permutation(40)
    order = sorted(draw.tolist(), key=lambda group: -sizes[group])
    totals, wanted = [0] * 5, [0] * 40
    for group in order:
        fold = totals.index(min(totals))
        totals[fold] += sizes[group]
        wanted[group] = fold
    assert fold_of_groups(sizes, 5, 3) == wanted


def problem(instructions=40, pairs=3, seed=0, slope=0.6, votes=(1, 1)):
    """Pairs of some instructions, some of them with more votes than others."""
    draw = np.random.default_rng(seed)
    score = draw.normal(0, 2, instructions * pairs)
    truth = 1 / (1 + np.exp(-slope * score - 0.4))
    number = draw.integers(votes[0], votes[1] + 1, len(score))
    first = draw.binomial(number, truth)
    ballots = np.stack([first, number - first, np.zeros(len(score))], axis=1).astype(np.float64)
    return Features(score), Gold(ballots, np.repeat(np.arange(instructions), pairs))


def naive(features, gold, seed):
    """The held-out loss of each method and its distance to the best, over five folds.

    To the pairs of each fit, ten more are added, in equal parts on each of them, that say what
    the judge says.
    """
    folds = grouped_folds(gold.groups, 5, seed)
    names = ["none", "batch", "temperature", "platt", "beta", "histogram", "isotonic"]
    losses = {}
    for name in names:
        loss = np.empty(len(gold))
        for fold in range(5):
            held_out = np.flatnonzero(folds == fold)
            rest = np.flatnonzero(folds != fold)
            extra = 10 * gold.weights[rest].mean() / len(rest)
            said = 1 / (1 + np.exp(-features.score[rest]))
            votes = gold.votes[rest] + extra * np.stack([said, 1 - said, 0 * said], axis=1)
            curve = METHODS[name].fit(features.take(rest), Gold(votes, gold.groups[rest]))
            p = curve.preference(features.take(held_out))
            y = gold.preference[held_out]
            loss[held_out] = -y * np.log(p) - (1 - y) * np.log1p(-p)
        losses[name] = loss
    weights = gold.weights
    means = {name: np.average(loss, weights=weights) for name, loss in losses.items()}
    best = min(names[2:], key=means.get)
    rows = {}
    for name, loss in losses.items():
        gap = loss - losses[best]
        behind = np.average(gap, weights=weights)
        sums = np.bincount(gold.groups, weights=weights * (gap - behind)) / weights.sum()
        clusters = len(sums)
        error = math.sqrt(clusters / (clusters - 1) * (sums**2).sum())
        rows[name] = (means[name], behind, error)
    allowed = {name: min(rows[name][2], rows["none"][2]) for name in names[2:]}
    chosen = next(name for name in names[2:] if rows[name][1] <= allowed[name])
    return rows, "none" if means["none"] <= means[best] else chosen


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("votes", [(1, 1), (1, 9)])
def test_losses_and_the_choice_by_hand(seed, votes):
    features, gold = problem(seed=seed, votes=votes)
    candidates = {row.method: row for row in choose(features, gold, seed)}
    rows, chosen = naive(features, gold, seed)
    assert candidates.keys() == rows.keys()
    for name, (loss, behind, error) in rows.items():
        row = candidates[name]
        assert row.log_loss == pytest.approx(loss, rel=1e-9)
        assert row.behind == pytest.approx(behind, rel=1e-6, abs=1e-12)
        assert row.standard_error == pytest.approx(error, rel=1e-6, abs=1e-12)
        assert row.chosen is (name == chosen)


def test_the_simplest_within_a_standard_error_is_chosen_and_not_the_best():
    chosen, best = [], []
    for seed in range(12):
        features, gold = problem(seed=seed, instructions=30)
        rows = choose(features, gold, seed)
        learning = [row for row in rows if row.method not in {"none", "batch"}]
        best.append(min(learning, key=lambda row: row.log_loss).method)
        chosen.append(next(row.method for row in rows if row.chosen))
    assert chosen.count("temperature") > best.count("temperature") > 0


def made_up(monkeypatch, features, gold, **losses):
    """The choice among methods with these losses; `platt` and all others lose 0.5 per pair."""
    n = len(gold)
    monkeypatch.setattr(
        cross_validation, "_held_out", lambda name, *_: losses.get(name, np.full(n, 0.5))
    )
    rows = choose(features, gold, 0)
    (chosen,) = (row.method for row in rows if row.chosen)
    return chosen, {row.method: row for row in rows}


@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_of_equal_losses_the_simplest_method_is_chosen(monkeypatch, spread):
    """By losses made up: temperature is behind by 0.1, give or take 0.1 x spread / sqrt(29)."""
    features, gold = problem(instructions=30, pairs=1)
    sign = np.where(np.arange(30) % 2, 1.0, -1.0)
    chosen, _ = made_up(
        monkeypatch, features, gold, none=0.9 + 2 * sign, temperature=0.6 + spread * sign
    )
    # Its standard error is 0 without a spread, and 1 / sqrt(29) = 0.186 with one.
    assert chosen == ("temperature" if spread else "platt")


def test_an_erratic_method_is_not_forgiven_more(monkeypatch):
    """Temperature is behind by 0.3 with a standard error of 2 / sqrt(29) = 0.37.

    `none` is behind by 0.4 with one of 1 / sqrt(29) = 0.19: more is forgiven to no method.
    """
    features, gold = problem(instructions=30, pairs=1)
    sign = np.where(np.arange(30) % 2, 1.0, -1.0)
    chosen, rows = made_up(monkeypatch, features, gold, none=0.9 + sign, temperature=0.8 + 2 * sign)
    assert rows["temperature"].standard_error == pytest.approx(2 / math.sqrt(29))
    assert chosen == "platt"


@pytest.mark.parametrize("loss", [0.5, 0.4])
def test_none_is_chosen_if_nothing_beats_it(monkeypatch, loss):
    features, gold = problem(instructions=30, pairs=1)
    losses = {"none": np.full(30, loss)}
    assert made_up(monkeypatch, features, gold, **losses)[0] == "none"
    differences = replace(features, has_scale=False)  # of a reward model: no probabilities yet
    assert made_up(monkeypatch, differences, gold, **losses)[0] == "temperature"


def test_a_judge_without_fault_keeps_its_preferences():
    """60 pairs of a calibrated judge: what `auto` fits moves a preference by 0.05 at most."""
    for seed in range(5):
        features, gold = problem(instructions=60, pairs=1, seed=seed, slope=1.0)
        score = np.linspace(-3, 3, 7)
        curve = fit_drawn("temperature", features, gold)
        plain = METHODS["temperature"].fit(features, gold)
        assert curve.intervals == plain.intervals
        moved, before = (np.abs(made.coefficients["logit"] - 1) for made in (curve, plain))
        assert moved < before
        assert np.abs(curve.preference(Features(score)) - sigmoid(score)).max() < 0.1


def test_score_differences_are_not_drawn_to_a_scale_that_they_do_not_have():
    features, gold = problem(instructions=60, pairs=1)
    differences = replace(features, score=features.score / 400, has_scale=False)
    curve = fit_drawn("platt", differences, gold)
    assert curve.coefficients["logit"] == pytest.approx(
        400 * METHODS["platt"].fit(features, gold).coefficients["logit"], rel=1e-3
    )


def test_one_instruction_has_no_standard_error():
    features, gold = problem(instructions=1, pairs=9)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            cross_validation,
            "_held_out",
            lambda name, *_: np.full(9, {"temperature": 0.7, "platt": 0.6}.get(name, 0.65)),
        )
        rows = {row.method: row for row in choose(features, gold, 0)}
    assert {row.standard_error for row in rows.values()} == {0.0}
    assert [name for name, row in rows.items() if row.chosen] == ["platt"]
    assert rows["none"].behind == pytest.approx(0.05)
    assert rows["platt"].behind == 0.0
