"""Metrics against scikit-learn, worked examples and laws; coverage of the intervals."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from steelyard.evaluation.metrics.annotators import compare_annotators, pairwise_kappa
from steelyard.evaluation.metrics.bootstrap import (
    MOST_GROUPS,
    difference,
    merged_groups,
    resample,
    summarise,
)
from steelyard.evaluation.metrics.pairs import (
    ScoredPairs,
    both_orders_correct,
    gold_classes,
    predicted_classes,
)
from steelyard.statistics.intervals import rate_interval
from support.trust_data import judged_pairs, swapped_pairs

PAIRS = judged_pairs(np.random.default_rng(0))
# Their replicates lie near a bound that the value cannot pass: see docs/calibration.md.
NEAR_A_BOUND = {"ece", "ece_confidence", "ece_debiased"}


def values(judged, *, band=0.0):
    estimates = summarise(resample(judged, band=band, replicates=0, seed=0)).estimates
    return {name: estimate.value for name, estimate in estimates.items()}


def judged(preference, votes, **columns):
    preference = np.array(preference, dtype=np.float64)
    return ScoredPairs(
        preference, np.array(votes, dtype=np.float64), np.arange(len(preference)), **columns
    )


# --- scikit-learn


def test_metrics_are_scikit_learns():
    peer = pytest.importorskip("sklearn.metrics")
    found = values(PAIRS, band=0.1)
    named = predicted_classes(PAIRS.preference, None, 0.1)
    gold = gold_classes(PAIRS.votes)
    decisive = gold != 2
    y, p = gold[decisive] == 0, PAIRS.preference[decisive]
    wanted = {
        "agreement": peer.accuracy_score(gold, named),
        "macro_f1": peer.f1_score(gold, named, average="macro"),
        "kappa": peer.cohen_kappa_score(gold, named),
        "brier": peer.brier_score_loss(y, p),
        "log_loss": peer.log_loss(y, p),
        "auc": peer.roc_auc_score(y, p),
    }
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value, abs=1e-9), name


@given(st.integers(0, 2**32 - 1), st.integers(2, 40))
@settings(max_examples=60, deadline=None)
def test_auc_with_ties_is_scikit_learns(seed, count):
    peer = pytest.importorskip("sklearn.metrics")
    draw = np.random.default_rng(seed)
    p, y = draw.integers(0, 6, count) / 5, draw.integers(0, 2, count)
    found = values(judged(p, np.eye(3)[1 - y])).get("auc")
    if len(set(y.tolist())) < 2:
        assert found is None
    else:
        assert found == pytest.approx(peer.roc_auc_score(y, p), abs=1e-9)


def test_kappa_of_annotators_is_scikit_learns():
    peer = pytest.importorskip("sklearn.metrics")
    draw = np.random.default_rng(4)
    table = draw.integers(0, 3, (300, 3))
    table[:, 1] = np.where(draw.random(300) < 0.6, table[:, 0], table[:, 1])
    pairs, who = np.repeat(np.arange(300), 3), np.tile(np.arange(3), 300)
    wanted = [peer.cohen_kappa_score(table[:, i], table[:, j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert pairwise_kappa(pairs, who, table.ravel()) == pytest.approx(np.mean(wanted), abs=1e-9)


# --- by hand


def test_votes_by_hand():
    # Three pairs: votes 3:1:0, 0:1:1 and 1:1:2; preferences 0.8, 0.4, 0.5.
    found = values(judged([0.8, 0.4, 0.5], [[3, 1, 0], [0, 1, 1], [1, 1, 2]]))
    assert found["mse"] == pytest.approx((0.05**2 + 0.15**2 + 0) / 3)
    assert found["agreement"] == pytest.approx(2 / 3)  # the second has no majority: a tie
    assert found["vote_agreement"] == pytest.approx((0.75 + 0.5 + 0.5) / 3)
    # a: 1 of 1 and 1; b: named once, never gold: 0; tie: 1 hit, 1 named, 2 gold: 2/3.
    assert found["macro_f1"] == pytest.approx((1 + 0 + 2 / 3) / 3)
    # Annotators: 3 of 6 pairs of votes agree, 0 of 1, 1 of 6.
    agreed = (0.5 + 0 + 1 / 6) / 3
    chance = (4 / 10) ** 2 + (3 / 10) ** 2 + (3 / 10) ** 2
    assert found["annotator_agreement"] == pytest.approx(agreed)
    assert found["fleiss_kappa"] == pytest.approx((agreed - chance) / (1 - chance))
    # Only the first pair is decisive.
    assert found["brier"] == pytest.approx(0.04)
    assert found["log_loss"] == pytest.approx(-np.log(0.8))
    assert "auc" not in found


def test_calibration_error_by_hand():
    # (0.2, 0.3]: 0.3 twice, one of them a; (0.9, 1]: 1.0 and 0.95, both a; 0 is in the first bin.
    p, y = [0.3, 0.3, 1.0, 0.95, 0.0], [1, 0, 1, 1, 1]
    found = values(judged(p, [[one, 1 - one, 0] for one in y]))
    assert found["ece"] == pytest.approx((2 * 0.2 + 2 * 0.025 + 1 * 1) / 5)
    # max(p, 1 - p): 0.7 wrong and right, 1.0 and 0.95 right, 1.0 wrong.
    assert found["ece_confidence"] == pytest.approx((2 * 0.2 + 3 * abs(2.95 / 3 - 2 / 3)) / 5)
    assert found["share_a"] == 0.8
    assert found["uncertainty"] == pytest.approx(0.16)
    assert found["reliability"] == pytest.approx((2 * 0.04 + 2 * 0.025**2 + 1) / 5)
    assert found["resolution"] == pytest.approx((2 * 0.3**2 + 3 * 0.2**2) / 5)


def test_debiasing_is_the_mean_of_a_sampled_one():
    """Kumar et al. sample the bins' outcomes as normal; here their mean is in closed form."""
    draw = np.random.default_rng(0)
    p = draw.random(400)
    y = draw.random(400) < np.clip(p * 0.6 + 0.25, 0, 1)
    edges = np.quantile(p, np.arange(1, 10) / 10)
    bins = np.searchsorted(edges, p)
    n = np.bincount(bins)
    said, seen = np.bincount(bins, p) / n, np.bincount(bins, y) / n
    plain = n @ np.abs(said - seen) / 400
    noise = draw.normal(seen, np.sqrt(seen * (1 - seen) / n), (200_000, 10))
    sampled = (np.abs(noise - said) @ n / 400).mean()
    found = values(judged(p, np.stack([y, ~y, y * 0], axis=1)))["ece_debiased"]
    assert found == pytest.approx(2 * plain - sampled, abs=3e-4)


def test_position_and_length_by_hand():
    ab, ba = np.array([0.9, 0.6, 0.2, np.nan]), np.array([0.8, 0.3, 0.5, 0.1])
    votes = [[1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 1, 0]]
    found = values(
        judged([0.85, 0.45, 0.3, 0.1], votes, preference_ab=ab, preference_ba=ba,
               longer=np.array([100.0, 31, -30, -200]), label_mass=np.array([1, 0.5, 0.9, 1.0]))
    )  # fmt: skip
    assert found["consistency"] == pytest.approx(1 / 3)
    assert found["mean_deviation"] == pytest.approx((0.1 + 0.3 + 0.3) / 3)
    # The first was preferred in: yes and no; yes and yes; no and half.
    assert found["first_position"] == pytest.approx((0.5 + 1 + 0.25) / 3)
    # Sums 2, -1 + 1, 1 + 0, 1 + nothing: the second is not correct.
    assert found["both_orders"] == pytest.approx(3 / 4)
    assert found["longer_preferred"] == pytest.approx(2 / 3)
    assert found["longer_gold"] == pytest.approx(2 / 3)
    assert found["mass_shortfall"] == pytest.approx(0.15)


def test_the_published_rule():
    half, nothing = 0.5, np.nan
    cases = [(1, 1, True), (1, half, True), (1, 0, False), (half, half, False), (0, nothing, False),
             (nothing, 1, True), (0, 0, False)]  # fmt: skip
    ab, ba, wanted = (np.array(column) for column in zip(*cases, strict=True))
    assert both_orders_correct(ab, ba, np.zeros(7, dtype=np.int64)).tolist() == wanted.tolist()
    assert not both_orders_correct(ab, ba, np.full(7, 2)).any()


def test_classes_of_verdicts_and_gold():
    named = predicted_classes(np.array([0.5, 0.51, 0.6, 0.4]), None, 0.02)
    assert named.tolist() == [2, 2, 0, 1]
    tie = np.array([0.1, 0.5, 0.3, 0.39])
    assert predicted_classes(np.array([0.6, 0.6, 0.6, 0.4]), tie, 0.0).tolist() == [0, 2, 0, 1]
    votes = np.array([[2, 1, 0], [1, 1, 0], [0, 0, 1], [2, 0, 2], [0, 3, 2.0]])
    assert gold_classes(votes).tolist() == [0, 2, 2, 2, 1]


def test_annotators_by_hand():
    pairs, who = np.array([0, 0, 0, 1, 1]), np.array([0, 1, 2, 0, 1])
    classes = np.array([0, 0, 1, 2, 2])
    found = compare_annotators(pairs, who, classes, np.array([0, 1]), ("x", "y", "z"))
    assert [(one.votes, one.with_others, one.with_judge) for one in found] == [
        (2, 2 / 3, 0.5), (2, 2 / 3, 0.5), (1, 0.0, 0.0),
    ]  # fmt: skip


# --- laws

MIRRORED = {"share_a": lambda value: 1 - value}


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_swapping_the_responses_changes_no_metric(seed):
    one = judged_pairs(np.random.default_rng(seed), instructions=40)
    found, other = values(one, band=0.05), values(swapped_pairs(one), band=0.05)
    for name, value in found.items():
        wanted = MIRRORED.get(name, lambda value: value)(value)
        # Bins of equal mass are cut at the same pairs only up to one of them.
        assert other[name] == pytest.approx(wanted, abs=0.05 if name == "ece_debiased" else 1e-9)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_the_order_of_rows_changes_no_metric_and_no_interval(seed):
    draw = np.random.default_rng(seed)
    one = judged_pairs(draw, instructions=30)
    found = summarise(resample(one, band=0, replicates=20, seed=3))
    other = summarise(resample(one.take(draw.permutation(len(one))), band=0, replicates=20, seed=3))
    for name, estimate in found.estimates.items():
        for side in ("value", "low", "high"):
            assert getattr(other.estimates[name], side) == pytest.approx(
                getattr(estimate, side), abs=1e-9
            )


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_the_brier_score_is_the_sum_of_its_parts(seed):
    found = values(judged_pairs(np.random.default_rng(seed), instructions=30))
    parts = found["reliability"] - found["resolution"] + found["uncertainty"] + found["within_bins"]
    assert parts == pytest.approx(found["brier"], abs=1e-12)


def test_resampling_sums_is_resampling_pairs():
    """One replicate, drawn by hand: the same pairs with repetition give the same metrics."""
    from steelyard.evaluation.metrics.formulas import METRICS
    from steelyard.evaluation.metrics.sums import collect

    count = int(PAIRS.groups.max()) + 1
    draws = np.random.default_rng(0).integers(0, count, count)
    times = np.bincount(draws, minlength=count)
    rows = np.repeat(np.arange(len(PAIRS)), times[PAIRS.groups])
    sums = times @ collect(PAIRS, PAIRS.groups, count, 0.0)
    again = values(PAIRS.take(rows))
    for name, value in again.items():
        # Bins of equal mass stay those of all pairs, and the area is linear in the weights.
        near = {"ece_debiased": 0.03, "auc": 5e-3}.get(name, 1e-9)
        assert float(METRICS[name](sums)) == pytest.approx(value, abs=near), name


def test_hard_decisions_have_no_probabilities_to_measure():
    votes = [[1, 0, 0], [0, 1, 0], [1, 0, 0]]
    found = values(judged([1, 0, 0.5], votes, hard=True))
    assert found["agreement"] == pytest.approx(2 / 3)
    assert not {"ece", "brier", "log_loss", "auc", "vote_log_loss"} & set(found)


def test_one_instruction_has_no_interval():
    one = ScoredPairs(PAIRS.preference, PAIRS.votes, np.zeros(len(PAIRS), dtype=np.int64))
    estimate = summarise(resample(one, band=0, replicates=100, seed=0)).estimates["agreement"]
    assert (estimate.low, estimate.high) == (None, None)


def test_many_instructions_are_put_together_in_equal_numbers():
    count = 3 * MOST_GROUPS + 5
    groups, merged = merged_groups(np.arange(count), count, 0)
    assert merged == MOST_GROUPS
    assert set(np.bincount(groups).tolist()) == {3, 4}


def estimates(judged, replicates=0):
    return summarise(resample(judged, band=0, replicates=replicates, seed=0)).estimates


def test_forty_of_forty_right_is_not_certainly_all_right():
    """The bootstrap said [1, 1] of agreement, AUC and kappa alike."""
    p = np.where(np.arange(40) % 2, 0.9, 0.1)
    found = estimates(judged(p, np.eye(3)[(p < 0.5).astype(int)]))
    # Wilson's lower bound at 1, with Student's t of 39 degrees: n / (n + t**2)
    right = 40 / (40 + 2.022691**2)
    assert (found["agreement"].low, found["agreement"].high) == (pytest.approx(right), 1)
    # chance is one half
    assert found["kappa"].low == pytest.approx(2 * right - 1)
    # twenty a's and twenty b's: no more is known of either
    assert found["auc"].low == pytest.approx(20 / (20 + 2.093024**2))
    assert found["macro_f1"].low == pytest.approx(right)
    assert found["share_a"].rests_on_count is False
    assert all(found[name].rests_on_count for name in ("agreement", "kappa", "auc"))


def test_intervals_of_means_are_those_of_means():
    """Instructions of unequal size: Wilson's with the jackknife's error, by hand."""
    sizes = np.array([4, 1, 1, 2, 1, 3])
    groups = np.repeat(np.arange(6), sizes)
    right = np.array([1, 1, 0, 1, 1, 0, 1, 1, 1, 0, 1, 1.0])
    p = np.where(right == 1, 0.8, 0.2)
    pairs = ScoredPairs(p, np.tile([1.0, 0, 0], (12, 1)), groups)
    found = estimates(pairs)["agreement"]
    by_group = np.bincount(groups, right)
    without = (right.sum() - by_group) / (12 - sizes)
    error = np.sqrt(5 / 6 * ((without - without.mean()) ** 2).sum())
    effective = 12**2 / (sizes**2).sum()
    assert (found.low, found.high) == pytest.approx(rate_interval(9 / 12, error, effective))


def test_an_area_is_delongs_on_the_logit():
    """Independent rows: the variance of DeLong et al. (1988), in closed form."""
    draw = np.random.default_rng(2)
    y, p = np.repeat([1, 0], [25, 35]), draw.random(60)
    p[y == 1] = p[y == 1] ** 0.5
    found = estimates(judged(p, np.eye(3)[1 - y]))["auc"]
    above = (p[y == 1][:, None] > p[y == 0][None, :]).astype(float)
    area = above.mean()
    error = np.sqrt(above.mean(axis=1).var(ddof=1) / 25 + above.mean(axis=0).var(ddof=1) / 35)
    margin = scipy.stats.t.ppf(0.975, 59) * error / (area * (1 - area))
    low, high = (1 / (1 + np.exp(-(np.log(area / (1 - area)) + side * margin))) for side in (-1, 1))
    assert (found.low, found.high) == pytest.approx((low, high), rel=2e-2)


@given(st.integers(0, 2**32 - 1), st.integers(5, 40), st.floats(0.5, 1))
@settings(max_examples=60, deadline=None)
def test_no_interval_leaves_its_range_or_is_of_zero_width(seed, count, good):
    draw = np.random.default_rng(seed)
    gold = draw.integers(0, 2, count)
    right = draw.random(count) < good
    p = np.where((gold == 0) == right, 0.8, 0.2) + draw.uniform(-0.1, 0.1, count)
    pairs = judged(p, np.eye(3)[gold], preference_ab=p, preference_ba=p, label_mass=np.ones(count))
    found = summarise(resample(pairs, band=0, replicates=0, seed=0))
    for name in ("agreement", "decided_agreement", "auc", "kappa", "macro_f1", "brier", "mse",
                 "consistency", "first_position", "mass_shortfall", "share_a"):  # fmt: skip
        estimate = found.estimates.get(name)
        if estimate is None or estimate.low is None:
            continue
        assert (-1 if name == "kappa" else 0) <= estimate.low < estimate.high <= 1
        assert estimate.low <= estimate.value + 1e-12
        assert estimate.value <= estimate.high + 1e-12
    for span in found.bins:
        assert span.low is None or 0 <= span.low < span.high <= 1


def test_few_pairs_in_a_bin_have_a_wide_interval_or_none():
    p = np.concatenate([np.full(7, 0.95), np.full(4, 0.15), np.full(30, 0.55)])
    y = np.concatenate([np.ones(7), np.zeros(4), np.arange(30) % 2])
    bins = summarise(resample(judged(p, np.eye(3)[(1 - y).astype(int)]), band=0, replicates=400,
                              seed=0)).bins  # fmt: skip
    sure, few, many = bins[9], bins[1], bins[5]
    assert (sure.seen, sure.high) == (1, 1)
    assert sure.low == pytest.approx(7 / (7 + 2.446912**2))  # it was 1
    assert (few.pairs, few.low, few.high) == (4, None, None)  # it was [0, 0]
    assert many.low < 0.5 < many.high


def test_merged_instructions_have_the_same_intervals(monkeypatch):
    from steelyard.evaluation.metrics import bootstrap

    many = judged_pairs(np.random.default_rng(1), instructions=6000, each=2)
    wide = [
        summarise(resample(many, band=0, replicates=2000, seed=0)).estimates[n]
        for n in ("mse", "auc")
    ]
    monkeypatch.setattr(bootstrap, "MOST_GROUPS", 1000)
    narrow = [
        summarise(resample(many, band=0, replicates=2000, seed=0)).estimates[n]
        for n in ("mse", "auc")
    ]
    for one, other in zip(wide, narrow, strict=True):
        assert other.value == pytest.approx(one.value, abs=1e-12)
        assert other.high - other.low == pytest.approx(one.high - one.low, rel=0.15)


def test_differences_are_paired():
    """A constant on top of both cancels: the interval of the difference is far narrower."""
    from dataclasses import replace

    near = replace(PAIRS, preference=np.clip(PAIRS.preference + 0.01, 0, 1))
    given = {"band": 0.0, "replicates": 500, "seed": 0}
    change = difference(resample(near, **given), resample(PAIRS, **given), ["mse"])["mse"]
    alone = summarise(resample(PAIRS, **given)).estimates["mse"]
    assert change.high - change.low < (alone.high - alone.low) / 3
    assert change.low <= change.value <= change.high


def test_intervals_cover_the_truth_in_500_simulations():
    """250 instructions of four pairs; the truth is that of 120,000 instructions."""
    truth = values(judged_pairs(np.random.default_rng(10**6), instructions=120_000))
    hits = dict.fromkeys(truth, 0)
    for seed in range(500):
        pairs = judged_pairs(np.random.default_rng(seed))
        for name, estimate in summarise(
            resample(pairs, band=0, replicates=400, seed=seed)
        ).estimates.items():
            hits[name] += estimate.low <= truth[name] <= estimate.high
    coverage = {name: count / 500 for name, count in hits.items()}
    outside = {
        name: share
        for name, share in coverage.items()
        if not (0.89 if name in NEAR_A_BOUND else 0.92)
        <= share
        <= (1 if name in NEAR_A_BOUND else 0.98)
    }
    assert not outside, coverage
