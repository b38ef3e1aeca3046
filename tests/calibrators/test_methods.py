"""Calibrators: laws, worked examples, peers, recovery of known faults."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steelyard.calibrators.cross_validation import choose
from steelyard.calibrators.features import Features, Gold
from steelyard.calibrators.folds import grouped_folds
from steelyard.calibrators.linear import Linear
from steelyard.calibrators.methods import METHODS, available, contextual
from steelyard.calibrators.piecewise import (
    Histogram,
    PiecewiseLinear,
    histogram_bins,
    isotonic_knots,
)
from steelyard.calibrators.ties import fit_tie, tie_probability
from steelyard.evaluation.metrics.bootstrap import resample, summarise
from steelyard.evaluation.metrics.pairs import ScoredPairs
from steelyard.statistics.logistic import log_loss, logit, sigmoid
from support.trust_data import biased_judge, swapped_reads

FEATURES, GOLD, TRUTH = biased_judge(0)
SWAPPED = swapped_reads(FEATURES)
PLAIN = [name for name, method in METHODS.items() if "members" not in method.needs]
LEARNING = [name for name in PLAIN if METHODS[name].learns]


def fitted(name, features=FEATURES, gold=GOLD):
    return METHODS[name].fit(features, gold)


def mirrored(gold):
    return Gold(gold.votes[:, [1, 0, 2]], gold.groups)


# --- laws


@pytest.mark.parametrize("name", PLAIN)
def test_swapping_the_responses_mirrors_a_fit(name):
    swapped = fitted(name, SWAPPED, mirrored(GOLD)).preference(SWAPPED)
    # Bins are open on one side, so a score on an edge changes sides: none is on one here.
    assert np.abs(swapped - (1 - fitted(name).preference(FEATURES))).max() < 1e-6


@pytest.mark.parametrize("name", PLAIN)
def test_the_order_of_rows_changes_nothing(name):
    rows = np.random.default_rng(1).permutation(len(GOLD))
    again = fitted(name, FEATURES.take(rows), GOLD.take(rows)).preference(FEATURES)
    assert np.abs(again - fitted(name).preference(FEATURES)).max() < 1e-9


@pytest.mark.parametrize("name", ["temperature", "platt", "beta", "isotonic", "none", "batch"])
def test_these_are_monotone_where_the_judge_is_any_good(name):
    scores = Features(np.linspace(-12, 12, 4001))
    assert (np.diff(fitted(name).preference(scores)) >= 0).all()


@pytest.mark.parametrize("name", PLAIN)
def test_two_rows_of_one_vote_are_one_row_of_two(name):
    if name in {"batch", "histogram", "position", "length"}:
        pytest.skip("goes by rows: a mean, a quantile or a deviation of the reads")
    double = Gold(GOLD.votes * 2, GOLD.groups)
    twice = np.concatenate([np.arange(len(GOLD))] * 2)
    left = fitted(name, FEATURES, double).preference(FEATURES)
    right = fitted(name, FEATURES.take(twice), GOLD.take(twice)).preference(FEATURES)
    assert np.abs(left - right).max() < 1e-9


@given(
    st.lists(st.floats(0.001, 0.999), min_size=2, max_size=60),
    st.floats(0.2, 20),
    st.floats(0, 0.4),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_temperature_changes_neither_agreement_nor_macro_f1(preferences, temperature, band, seed):
    raw = np.array(preferences)
    votes = np.random.default_rng(seed).integers(0, 4, (len(raw), 3)).astype(np.float64)
    votes[:, 2] += 1
    cooled = Linear({"logit": 1 / temperature}).preference(Features(logit(raw)))
    # A band on preferences is another one after scaling: its edge goes through the same scaling.
    edge = float(sigmoid(logit(np.array(0.5 + band)) / temperature)) - 0.5
    safe = np.abs(np.abs(raw - 0.5) - band) > 1e-9  # not on the edge, where rounding decides
    if not safe.any():
        return
    groups = np.zeros(int(safe.sum()), dtype=np.int64)
    pair = [
        summarise(
            resample(ScoredPairs(p[safe], votes[safe], groups), band=width, replicates=0, seed=0)
        ).estimates
        for p, width in ((raw, band), (cooled, edge))
    ]
    for metric in ("agreement", "macro_f1"):
        assert pair[0][metric].value == pair[1][metric].value


# --- peers


def test_platt_and_temperature_are_logistic_regression():
    peer = pytest.importorskip("sklearn.linear_model")
    two = np.concatenate([GOLD.votes[:, 0], GOLD.votes[:, 1]])
    x, y = np.tile(FEATURES.score, 2)[:, None], np.repeat([1, 0], len(GOLD))
    for name, intercept in (("platt", True), ("temperature", False)):
        model = peer.LogisticRegression(C=1e9, fit_intercept=intercept, tol=1e-12, max_iter=1000)
        model.fit(x, y, sample_weight=two)
        found = fitted(name).coefficients
        assert found["logit"] == pytest.approx(model.coef_[0, 0], abs=1e-5)
        assert found.get("intercept", 0) == pytest.approx(model.intercept_[0], abs=1e-5)


def test_isotonic_is_scikit_learns_away_from_the_ends():
    peer = pytest.importorskip("sklearn.isotonic")
    model = peer.IsotonicRegression(out_of_bounds="clip")
    model.fit(FEATURES.score, GOLD.preference, sample_weight=GOLD.weights)
    wanted, found = model.predict(FEATURES.score), fitted("isotonic").preference(FEATURES)
    inside = (wanted > 0.01) & (wanted < 0.99)  # nearer, ours stays half a vote away
    assert inside.sum() > 1000
    # At a knot the line through both neighbours is rounded differently.
    assert np.abs(found - wanted)[inside].max() < 1e-9


def test_beta_is_logistic_regression_on_its_two_logarithms():
    peer = pytest.importorskip("sklearn.linear_model")
    p = sigmoid(FEATURES.score)
    x = np.tile(np.stack([np.log(p), -np.log(1 - p)], axis=1), (2, 1))
    weights = np.concatenate([GOLD.votes[:, 0], GOLD.votes[:, 1]])
    model = peer.LogisticRegression(C=1e9, tol=1e-12, max_iter=10_000)
    model.fit(x, np.repeat([1, 0], len(GOLD)), sample_weight=weights)
    found = fitted("beta").coefficients
    assert [found["log_a"], found["log_b"]] == pytest.approx(model.coef_[0].tolist(), abs=1e-4)


# --- worked examples


def test_histogram_levels_have_one_vote_more():
    # Two bins of two pairs. Low: 0 of 2 votes, then (0 + 0.5) / 3. High: 3 of 4, then 3.5 / 5.
    bins = histogram_bins(
        np.array([-2.0, -1.0, 1.0, 2.0]), np.array([0, 0, 0.5, 1]), np.array([1.0, 1, 2, 2]), 2
    )
    assert bins == Histogram((0.0,), (0.5 / 3, 3.5 / 5))


def test_isotonic_knots_stay_half_a_vote_away_from_certainty():
    knots = isotonic_knots(np.array([0.0, 1.0]), np.array([0.0, 1.0]), np.array([1.0, 1.0]))
    assert knots == PiecewiseLinear((0.0, 1.0), (0.5 / 3, 2.5 / 3))
    assert knots.preference(Features(np.array([-9, 0.5, 9.0]))) == pytest.approx(
        [1 / 6, 0.5, 5 / 6]
    )


def test_contextual_divides_by_the_bare_prompts_preference():
    # p = 0.8 and 0.2, divided by 0.8 and 0.2, are even; 0.5 becomes 0.2.
    found = contextual(0.8).preference(Features(logit(np.array([0.8, 0.5]))))
    assert found == pytest.approx([0.5, 0.2])


def test_batch_divides_by_the_mean_preference():
    features = Features(logit(np.array([0.9, 0.7, 0.8])))
    gold = Gold(np.ones((3, 3)), np.arange(3))
    assert METHODS["batch"].fit(features, gold).preference(features)[2] == pytest.approx(0.5)


def test_two_orders_leave_batch_nothing_to_correct_in_a_judge_that_likes_the_first():
    swapped = Features(
        np.concatenate([FEATURES.score, -FEATURES.score]),
        np.concatenate([FEATURES.score_ab, -FEATURES.score_ba]),
        np.concatenate([FEATURES.score_ba, -FEATURES.score_ab]),
    )
    gold = Gold(np.ones((len(swapped), 3)), np.arange(len(swapped)))
    assert METHODS["batch"].fit(swapped, gold).coefficients["intercept"] == pytest.approx(
        0, abs=1e-9
    )


def test_davidsons_tie_probability():
    # Strengths e^(x/2), e^(-x/2) and v: the definition, for a few x.
    for x in (-3.0, 0.0, 0.5):
        for v in (0.1, 1.0, 2.0, 7.0):
            a, b = math.exp(x / 2), math.exp(-x / 2)
            total = a + b + v
            found = tie_probability(np.array([(a + v / 2) / total]), v)[0]
            assert found == pytest.approx(v / total, abs=1e-12)


def test_the_tie_parameter_is_found_again():
    draw = np.random.default_rng(3)
    x = draw.normal(0, 2, 20_000)
    weights = np.stack([np.exp(x / 2), np.exp(-x / 2), np.full(len(x), 1.5)], axis=1)
    chances = weights / weights.sum(axis=1, keepdims=True)
    votes = np.stack([draw.multinomial(1, row) for row in chances]).astype(np.float64)
    found = fit_tie(chances[:, 0] + chances[:, 2] / 2, votes)
    assert found == pytest.approx(1.5, rel=0.05)
    assert fit_tie(chances[:, 0], votes * [1, 1, 0]) is None


# --- extremes


@pytest.mark.parametrize("name", PLAIN)
def test_gold_that_the_judge_never_misses_gives_finite_numbers(name):
    features = Features(np.array([-2.0, -1, 1, 2] * 5), *[np.array([-2.0, -1, 1, 2] * 5)] * 2,
                        np.arange(20.0))  # fmt: skip
    gold = Gold(np.array([[0.0, 1, 0], [0, 1, 0], [1, 0, 0], [1, 0, 0]] * 5), np.arange(20))
    found = fitted(name, features, gold).preference(features)
    assert np.isfinite(found).all()
    assert ((found > 0) & (found < 1)).all()
    assert ((found > 0.5) == (gold.preference > 0.5)).all()


def test_a_judge_that_is_always_wrong_is_not_turned_round_by_a_temperature():
    found = fitted("temperature", FEATURES, mirrored(GOLD))
    assert found.coefficients["logit"] == 1e-3
    assert fitted("platt", FEATURES, mirrored(GOLD)).coefficients["logit"] < 0


def test_huge_scores_are_fitted_all_the_same():
    features = Features(FEATURES.score * 1e6)
    found = fitted("platt", features).coefficients["logit"]
    assert found * 1e6 == pytest.approx(fitted("platt").coefficients["logit"], rel=1e-4)


def test_what_reads_lack_is_not_offered():
    assert available(Features(FEATURES.score)) == [
        "none", "batch", "temperature", "platt", "beta", "histogram", "isotonic",
    ]  # fmt: skip


# --- known faults


def test_known_temperature_position_and_length_bias_lie_in_their_intervals():
    """100 seeds; 95 are expected of each."""
    truth = {"logit": 1 / 2.0, "length": -0.8 / 2.0, "intercept": 0.0, "first_position": 0.7}
    hits = dict.fromkeys(truth, 0)
    for seed in range(100):
        features, gold, _ = biased_judge(seed)
        intervals = fitted("position", features, gold).intervals
        intervals |= fitted("length", features, gold).intervals
        for name, value in truth.items():
            hits[name] += intervals[name][0] <= value <= intervals[name][1]
    assert all(count >= 90 for count in hits.values()), hits


def test_auto_finds_the_fault():
    chosen = [one for one in choose(FEATURES, GOLD, 0) if one.chosen]
    assert [one.method for one in chosen] == ["length"]
    found = fitted("length").preference(FEATURES)
    assert np.abs(found - TRUTH).mean() < 0.03
    assert np.abs(sigmoid(FEATURES.score) - TRUTH).mean() > 0.1


# --- selection


def test_auto_takes_the_simplest_within_a_standard_error():
    features, gold, _ = biased_judge(5, length=0, first=0)
    candidates = choose(features, gold, 0)
    names = [one.method for one in candidates]
    assert names == available(features)
    chosen = next(one for one in candidates if one.chosen)
    assert chosen.behind <= chosen.standard_error or chosen.behind == 0
    for one in candidates[: names.index(chosen.method)]:
        assert not METHODS[one.method].learns or one.behind > one.standard_error
    assert sum(one.chosen for one in candidates) == 1


@given(st.lists(st.integers(0, 12), min_size=1, max_size=80), st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_folds_keep_instructions_together_and_are_near_in_size(groups, seed):
    groups = np.array(groups)
    folds = grouped_folds(groups, 5, seed)
    for group in np.unique(groups):
        assert len(set(folds[groups == group].tolist())) == 1
    sizes = np.bincount(folds)
    assert len(sizes) == min(5, len(np.unique(groups)))
    assert sizes.max() - sizes.min() <= np.bincount(groups).max()


def test_log_loss_of_soft_targets():
    assert log_loss(np.array([0.5]), np.array([0.3]))[0] == pytest.approx(math.log(2))


# --- bounds and scales


def noise(seed, pairs=60):
    """Scores that say nothing about gold, and less where a is right than a coin would."""
    draw = np.random.default_rng(seed)
    score = draw.normal(0, 2, pairs)
    a = draw.random(pairs) < sigmoid(-0.15 * score)
    return Features(score), Gold(np.stack([a, ~a, 0 * a], 1).astype(float), np.arange(pairs))


def likelihood(curve, features, gold):
    return -float(log_loss(curve.preference(features), gold.preference).sum())


def test_slopes_of_beta_are_never_negative_and_the_best_that_are_allowed():
    """Against all of a fine grid: no pair of slopes that is allowed is more likely."""
    negative = 0
    for seed in range(40):
        features, gold = noise(seed)
        curve = fitted("beta", features, gold)
        slopes = [curve.coefficients.get(name, 0.0) for name in ("log_a", "log_b")]
        assert min(slopes) >= 0
        negative += len(curve.coefficients) < 3
        best = likelihood(curve, features, gold)
        for a in np.linspace(0, 1, 6):
            for b in np.linspace(0, 1, 6):
                for c in np.linspace(-1.5, 1.5, 7):
                    other = Linear({"log_a": a, "log_b": b, "intercept": c})
                    assert likelihood(other, features, gold) <= best + 0.02
    assert negative >= 10


def test_the_interval_of_a_temperature_is_where_its_slope_may_be():
    features, gold = noise(0, pairs=2000)
    curve = fitted("temperature", features, gold)
    low, high = curve.intervals["logit"]
    assert 0 < low <= curve.coefficients["logit"] <= high


@pytest.mark.parametrize("name", ["temperature", "platt", "length"])
@pytest.mark.parametrize("scale", [1 / 400, 1e-5])
def test_a_fit_does_not_depend_on_the_scale_of_scores(name, scale):
    """A reward model's differences may have a standard deviation of 0.005."""
    draw = np.random.default_rng(3)
    score, longer = draw.normal(0, 2, 200), draw.normal(0, 300, 200)
    a = draw.random(200) < sigmoid(score)
    gold = Gold(np.stack([a, ~a, 0 * a], 1).astype(float), np.arange(200))
    curve = fitted(name, Features(score, longer=longer), gold)
    small = fitted(name, Features(scale * score, longer=longer), gold)
    assert small.coefficients["logit"] * scale == pytest.approx(
        curve.coefficients["logit"], rel=2e-3
    )
    ends = np.array(small.intervals["logit"]) * scale
    assert ends == pytest.approx(np.array(curve.intervals["logit"]), rel=5e-3)


def test_isotonic_curves_do_not_depend_on_the_scale_of_scores():
    small = Features(FEATURES.score * 1e-9)
    assert fitted("isotonic", small).preference(small) == pytest.approx(
        fitted("isotonic").preference(FEATURES), abs=1e-9
    )
