"""Prediction-powered means: by hand, beside the authors' library, and what few labels allow."""

from __future__ import annotations

import math

import numpy as np
import pytest

from steelyard.statistics.intervals import t_quantile
from steelyard.statistics.prediction_powered import (
    best_weight,
    influences,
    prediction_powered_mean,
    selection_p_value,
)
from support.labelled_data import JUDGES, labels_and_preferences

NORMAL = 1.959963984540054


def sample(judge, seed=0, share=0.3):
    """Y, f and Y with NaN outside of a random sample."""
    label, preference = labels_and_preferences(judge)
    gold = np.random.default_rng(seed).random(len(label)) < share
    return label, preference, np.where(gold, label, np.nan)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("judge", JUDGES)
def test_equals_the_authors_library(judge):
    """ppi_mean_pointestimate and ppi_mean_ci of ppi-python, to 1e-9; theirs divides by n."""
    peer = pytest.importorskip("ppi_py")
    label, f, known = sample(judge)
    gold = np.isfinite(known)
    ours = prediction_powered_mean(known, f, np.arange(len(f)))
    theirs = peer.ppi_mean_pointestimate(label[gold], f[gold], f[~gold])
    assert ours.value == pytest.approx(theirs.item(), abs=1e-9)
    lower, upper = peer.ppi_mean_ci(label[gold], f[gold], f[~gold], alpha=0.05)
    moved = influences(known, f, np.arange(len(f)), np.ones(len(f)), gold)
    parts = np.concatenate(moved.of(ours.weight))
    assert math.sqrt(parts @ parts) == pytest.approx((upper - lower).item() / 2 / NORMAL, abs=1e-9)
    assert 0 < ours.weight <= 1
    assert ours.standard_error < ours.gold.standard_error


def test_by_hand():
    """Y and f on ten rows, f on ten others: every number worked out on paper."""
    label = np.array([1.0] * 6 + [0.0] * 4)
    f_gold = np.array([1.0] * 4 + [0.0] * 2 + [0.0] * 3 + [1.0])  # right in 7 of 10
    f_others = np.array([1.0] * 7 + [0.0] * 3)
    known = np.concatenate([label, np.full(10, np.nan)])
    f = np.concatenate([f_gold, f_others])
    ours = prediction_powered_mean(known, f, np.arange(20))
    # Cov = 4/10 - 0.6 * 0.5 = 0.1; Var f over 20 rows = 20 / 19 * 0.6 * 0.4 = 0.252632.
    weight = 0.1 / (2 * 20 / 19 * 0.24)
    assert ours.weight == pytest.approx(weight)
    assert ours.value == pytest.approx(0.6 + weight * (0.7 - 0.5))
    # Sum of squares of Y - w f about its mean: 10 (0.24 - 2 w 0.1 + w^2 0.25); of f: 10 * 0.21.
    of_gold = (0.24 - 0.2 * weight + 0.25 * weight**2) / 10 * 10 / 8
    of_others = weight**2 * 0.21 / 10 * 10 / 9
    assert ours.standard_error == pytest.approx(math.sqrt(of_gold + of_others))
    assert ours.gold.standard_error == pytest.approx(math.sqrt(0.24 / 9))
    gain = 0.24 / 9 / (of_gold + of_others)
    assert ours.effective_labels == pytest.approx(10 * gain)
    # Wilson's interval with p (1 - p) / V labels, V with two more that the judge has no use for.
    labels = 0.24 / (of_gold + of_others + 0.24 / 9 * 2 / 8)
    n, t, p = labels, t_quantile(0.95, 8), ours.value
    middle = (p + t * t / 2 / n) / (1 + t * t / n)
    half = t / (1 + t * t / n) * math.sqrt(p * (1 - p) / n + t * t / 4 / n / n)
    assert ours.interval() == pytest.approx((middle - half, middle + half))


def test_weight_of_a_useless_and_of_a_perfect_judge():
    rng = np.random.default_rng(0)
    label = (rng.random(400) < 0.5).astype(float)
    known = np.where(np.arange(400) < 40, label, np.nan)
    wrong = prediction_powered_mean(known, 1 - label, np.arange(400))
    assert wrong.weight == 0
    assert wrong.value == known[:40].mean()
    constant = prediction_powered_mean(known, np.full(400, 0.3), np.arange(400))
    assert constant.weight == 0
    right = prediction_powered_mean(known, label, np.arange(400), weight=1.0)
    assert right.value == pytest.approx(label[40:].mean())
    assert right.effective_labels > 40
    lower, upper = right.interval()
    assert upper - lower > 0.05  # never wrong on 40 labels is not always right


def test_an_equal_gold_still_has_a_width():
    known = np.concatenate([np.ones(20), np.full(200, np.nan)])
    ours = prediction_powered_mean(known, np.linspace(0, 1, 220), np.arange(220))
    assert (ours.value, ours.weight, ours.effective_labels) == (1, 0, 20)
    lower, upper = ours.interval()
    assert upper == 1
    assert lower == pytest.approx(19 / (19 + t_quantile(0.95, 18) ** 2))  # less one for the weight


def test_gold_of_ties_alone_rests_on_the_number_of_labels():
    """Wilson's interval of 20 labels at one half, by Student's t with two degrees less than 20."""
    known = np.concatenate([np.full(20, 0.5), np.full(200, np.nan)])
    ours = prediction_powered_mean(known, np.linspace(0, 1, 220), np.arange(220))
    assert (ours.value, ours.weight, ours.effective_labels) == (0.5, 0, 20)
    share = 20 / t_quantile(0.95, 18) ** 2
    half = np.sqrt(0.25 * share + 0.25) / (share + 1)
    assert ours.interval() == pytest.approx((0.5 - half, 0.5 + half))


@pytest.mark.parametrize(("clusters", "given"), [(9, False), (10, True)])
def test_too_little_gold_gives_no_number(clusters, given):
    """Nine instructions with gold, of five rows each, are not 45 labels."""
    cluster = np.arange(500) // 5
    known = np.where(cluster < clusters, np.arange(500) % 2, np.nan)
    f = np.tile([0.2, 0.9], 250)
    assert (prediction_powered_mean(known, f, cluster) is not None) == given
    labelled = np.isfinite(known)
    assert prediction_powered_mean(known[labelled], f[labelled], cluster[labelled]) is None


def test_copies_of_rows_change_nothing():
    """Rows of one instruction, each twice, say what each says once."""
    _, f, known = sample("drawn")
    once = prediction_powered_mean(known, f, np.arange(600))
    twice = prediction_powered_mean(np.tile(known, 2), np.tile(f, 2), np.tile(np.arange(600), 2))
    heavy = prediction_powered_mean(known, f, np.arange(600), np.full(600, 2.0))
    for other in (twice, heavy):
        assert other.value == pytest.approx(once.value)
        assert other.standard_error == pytest.approx(once.standard_error)
        assert other.interval() == pytest.approx(once.interval())


def test_instructions_with_gold_for_some_rows_share_their_error():
    """Each instruction has one labelled and one other row with the same f: they cancel out."""
    rng = np.random.default_rng(3)
    f, label = rng.random(200), (rng.random(200) < 0.5).astype(float)
    known = np.concatenate([label, np.full(200, np.nan)])
    together = prediction_powered_mean(known, np.tile(f, 2), np.tile(np.arange(200), 2), weight=1.0)
    assert together.value == pytest.approx(label.mean())
    # theta is the mean of Y, whatever f is; only the factors of the parts differ.
    assert together.standard_error == pytest.approx(label.std(ddof=1) / math.sqrt(200), rel=0.01)
    apart = prediction_powered_mean(known, np.tile(f, 2), np.arange(400), weight=1.0)
    assert apart.standard_error > 1.2 * together.standard_error
    codes, gold = np.tile(np.arange(200), 2), np.isfinite(known)
    moved = influences(known, np.tile(f, 2), codes, np.ones(400), gold)
    assert 0 <= best_weight(moved, np.tile(f, 2), codes, np.ones(400), gold) <= 1


def test_gold_that_was_chosen_is_noticed():
    _, f, known = sample("drawn")
    assert selection_p_value(known, f, np.arange(600)) > 0.01
    chosen = np.where(f > np.quantile(f, 0.7), 1.0, np.nan)
    assert selection_p_value(chosen, f, np.arange(600)) < 1e-6
    assert selection_p_value(np.where(np.arange(600) < 9, 1.0, np.nan), f, np.arange(600)) == 1
