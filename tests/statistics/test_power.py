"""How much data a question needs: textbook numbers, and what is asked for is what comes out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from steelyard.statistics.power import Spread, assumed_spread, labels_for_width, least, spread_of
from steelyard.statistics.prediction_powered import prediction_powered_mean


def test_textbook_sample_size():
    """(1.96 + 0.84)^2 * 0.25 / 0.05^2 = 784.9, and a few more for Student's t."""
    spread = assumed_spread(0.5, 1, 0)
    assert 785 <= spread.for_difference(0.05, level=0.95, power=0.8) <= 788
    assert 385 <= spread.for_width(0.1, level=0.95) <= 388  # 4 * 1.96^2 * 0.25 / 0.1^2 = 384.1


def test_pairs_of_an_instruction_count_less():
    """Five pairs that correlate by 0.2: a design effect of 1 + 4 * 0.2."""
    spread = assumed_spread(0.5, 5, 0.2)
    assert spread.design_effect == pytest.approx(1.8)
    assert spread.variance == pytest.approx(0.25 * 1.8 / 5)
    apart = assumed_spread(0.5, 5, 0.0).for_width(0.02, level=0.95)
    assert spread.for_width(0.02, level=0.95) == pytest.approx(1.8 * apart, rel=0.01)


def test_a_samples_spread():
    rng = np.random.default_rng(0)
    own, shared = rng.normal(size=(400, 5)), rng.normal(size=(400, 1))
    values = (0.8 * own + 0.6 * shared).ravel()  # variance 1, correlation 0.36
    spread = spread_of(values, np.repeat(np.arange(400), 5))
    means = values.reshape(400, 5).mean(axis=1)
    assert spread.variance == pytest.approx(means.var(ddof=1))
    assert spread.rows == 5
    assert spread.design_effect == pytest.approx(1 + 4 * 0.36, rel=0.12)
    assert spread.width(400, level=0.95) == pytest.approx(
        2 * stats.t.ppf(0.975, 399) * stats.sem(means)
    )
    assert spread_of(values[:20], np.repeat(np.arange(4), 5)) is None
    assert spread_of(np.ones(50), np.arange(50)) is None
    # One of 50 rows has nearly all of the weight: they count as (149 / 101)**2 = 2.2 clusters.
    heavy = np.append(100.0, np.ones(49))
    assert spread_of(values[:50], np.arange(50), heavy) is None
    assert spread_of(values[:50], np.arange(50), np.append(5.0, np.ones(49))) is not None


@pytest.mark.parametrize("power", [0.5, 0.8, 0.95])
def test_what_is_asked_for_is_least(power):
    spread = Spread(0.3, 4.0, 2.0)
    needed = spread.for_difference(0.07, level=0.95, power=power)
    assert spread.detectable(needed, level=0.95, power=power) <= 0.07
    assert spread.detectable(needed - 1, level=0.95, power=power) > 0.07
    width = spread.for_width(0.09, level=0.9)
    assert spread.width(width, level=0.9) <= 0.09 < spread.width(width - 1, level=0.9)


def test_labels_that_a_judge_saves():
    """Without a judge 4 * 1.96^2 * 0.25 / 0.1^2 = 384; r = 0.8 among many leaves 0.36 of them."""
    alone = labels_for_width(0.1, 0.5, 0.0, 10**7, level=0.95)
    assert 384 <= alone <= 390
    good = labels_for_width(0.1, 0.5, 0.8, 10**7, level=0.95)
    assert good == pytest.approx(0.36 * 384, rel=0.03)
    assert labels_for_width(0.1, 0.5, 0.8, 300, level=0.95) is None  # all 300 labels are too few
    some = labels_for_width(0.1, 0.5, 0.8, 500, level=0.95)
    assert good < some < alone


def test_the_label_plan_agrees_with_the_estimator():
    """A drawn judge: the planned labels give the planned width, within a tenth."""
    rng = np.random.default_rng(5)
    label = (rng.random(20_000) < 0.5).astype(float)
    f = np.clip(0.5 * label + 0.25 + 0.3 * rng.standard_normal(20_000), 0, 1)
    correlation = float(np.corrcoef(label, f)[0, 1])
    count = labels_for_width(0.1, 0.5, correlation, 20_000, level=0.95)
    known = np.where(np.arange(20_000) < count, label, np.nan)
    lower, upper = prediction_powered_mean(known, f, np.arange(20_000)).interval()
    assert upper - lower == pytest.approx(0.1, rel=0.1)


def test_least():
    for bound in (5, 6, 7, 1000, 12_345):
        assert least(lambda x, bound=bound: x >= bound, 5) == bound
    assert math.isfinite(least(lambda _: False, 5))
