"""Win rates at equal length: the judge's own slope, and intervals that hold the truth."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from steelyard.errors import UsageError
from steelyard.ranking.length_control import (
    learned_difficulty,
    length_controlled,
    style_controlled,
)
from steelyard.ranking.length_slope import RIDGE, length_feature, length_slope
from steelyard.ranking.win_rates import BaselineComparisons, win_rates
from steelyard.ranking.winrate import winrate
from steelyard.statistics.logistic import FitFailed, fit, sigmoid
from support.helpers import data_file


def test_length_control_finds_what_is_left_at_equal_length():
    """Quality 0.4, length worth 1.25, longer answers throughout: the raw rate is far above."""
    rng = np.random.default_rng(3)
    difference = rng.normal(400, 300, 4000)
    y = sigmoid(0.4 + 1.25 * np.tanh(difference / difference.std(ddof=1)))
    found = length_controlled(y, difference, None, np.arange(4000))
    # the ridge of one unit of information, to 4000 rows: nearly all of it is found
    assert found.win_rate == pytest.approx(float(sigmoid(np.array(0.4))), abs=1e-3)
    assert y.mean() > found.win_rate + 0.15
    same = length_controlled(y, np.zeros(4000), None, np.arange(4000))
    assert same.win_rate == pytest.approx(y.mean(), abs=1e-9)


def test_a_judges_own_slope_equals_its_equations():
    rng = np.random.default_rng(8)
    code, cluster = np.repeat([0, 1, 2], 50), np.tile(np.arange(50), 3)
    x, y, w = rng.uniform(-1, 1, 150), rng.random(150), rng.uniform(1, 3, 150)
    own = np.stack([np.ones(150), rng.normal(size=150)], axis=1)
    found = length_slope(y, x, own, code, cluster=cluster, weight=w)
    # The same as one regression with a column for each competitor's own features.
    apart = [own[:, [f]] * (code == k)[:, None] for k in range(3) for f in range(2)]
    columns, ridge = np.hstack([x[:, None], *apart]), np.array([RIDGE, *[1e-3] * 6])
    same = fit(columns, y, w / w.mean(), cluster, ridge)
    assert found.value == pytest.approx(same.coefficients[0], abs=1e-8)
    variance = (found.influence**2).sum() * 50 / 49
    assert variance == pytest.approx(same.covariance[0, 0], rel=1e-6)
    assert found.unknown == pytest.approx(RIDGE * same.inverse[0, 0] ** 2)
    heavy = length_slope(y, x, own, code, cluster=cluster, weight=1e9 * w)
    assert heavy.value == pytest.approx(found.value, abs=1e-8)


def test_alpaca_evals_judge_shows_the_slope_of_its_published_fit():
    """1.25 met the published board best when it was fixed; the verdicts tell it themselves."""
    table = pq.read_table(data_file("alpaca_eval/preferences.parquet"))
    hard = pq.read_table(data_file("alpaca_eval/instruction_difficulty.parquet"))
    _, code = np.unique(table["model"].to_pylist(), return_inverse=True)
    _, cluster = np.unique(table["instruction_id"].to_numpy(), return_inverse=True)
    difference = table["output_length"].to_numpy() - table["baseline_length"].to_numpy()
    length = np.zeros(len(code))
    for at in range(50):
        length[code == at] = length_feature(difference[code == at].astype(float))
    by_id = dict(
        zip(hard["instruction_id"].to_pylist(), hard["difficulty"].to_pylist(), strict=True)
    )
    given = np.array([by_id[one] for one in table["instruction_id"].to_pylist()])
    own = np.stack([np.ones(len(code)), given], axis=1)
    found = length_slope(table["preference"].to_numpy() - 1, length, own, code, cluster=cluster)
    assert found.value == pytest.approx(1.30, abs=0.005)
    assert np.sqrt((found.influence**2).sum() + found.unknown) < 0.06


def judged_alike(rng, slope, shift, spread, count=200, size=4):
    """Competitors of quality q, half of them shorter; the truth at equal length, and the rows."""
    quality, hard = rng.normal(0, 0.5, size), rng.normal(size=count)
    code, cluster = np.repeat(np.arange(size), count), np.tile(np.arange(count), size)
    difference = np.where(code % 2, shift, -shift) + rng.normal(0, spread, len(code))
    length = np.zeros(len(code))
    for at in range(size):
        length[code == at] = length_feature(difference[code == at])
    odds = quality[code] + hard[cluster]
    y = (rng.random(len(code)) < sigmoid(odds + slope * length)).astype(float)
    rows = BaselineComparisons(
        tuple(map(str, range(size))), code, y, cluster, np.ones(len(y)), difference, None, {}
    )
    return sigmoid(quality[:, None] + hard).mean(axis=1), rows


@pytest.mark.parametrize("slope", [-1.0, 0.0, 1.25, 2.0])
def test_intervals_at_equal_length_hold_the_truth(slope):
    """Also of a judge that does not care for length, or prefers the shorter."""
    rng = np.random.default_rng(5)
    inside = []
    for _ in range(60):
        truth, rows = judged_alike(rng, slope, 300, 400)
        for one in win_rates(rows):
            lower, upper = one.length_controlled.interval()
            inside.append(lower <= truth[int(one.competitor)] <= upper)
            assert not one.one_sided
    assert np.mean(inside) >= 0.93


def test_an_interval_is_of_the_instructions_in_general_not_of_those_asked():
    """Known coefficients: what is left is that other instructions would be harder or easier."""
    rng = np.random.default_rng(0)
    difficulty, difference = rng.normal(size=400), rng.normal(0, 300, 400)
    y = sigmoid(difficulty)  # no noise: the coefficients are found without an error
    found = length_controlled(y, difference, difficulty, np.arange(400))
    assert found.win_rate == pytest.approx(y.mean(), abs=1e-3)
    assert found.standard_error == pytest.approx(y.std(ddof=1) / 20, rel=0.02)


def alone_and_known(difference, preference):
    """A competitor x with given difficulties, as a table and a file of difficulties."""
    count = len(difference)
    table = pa.table({
        "model_a": ["x"] * count, "model_b": ["base"] * count, "preference": preference,
        "instruction_id": np.arange(count), "length_a": 1000 + difference,
        "length_b": np.full(count, 1000),
    })  # fmt: skip
    hard = pa.table({"instruction_id": np.arange(count), "difficulty": np.zeros(count)})
    return table, hard


@pytest.mark.parametrize(
    ("difference", "reason"),
    [
        (lambda rng: rng.integers(300, 900, 200), "hardly any rows are near it"),
        (lambda rng: np.full(200, 60), "hardly any rows are near it"),
        (lambda rng: rng.choice([-1, 1], 200) * rng.integers(550, 650, 200), "hardly any rows"),
        (lambda rng: rng.integers(-900, 900, 200), None),
        (lambda rng: np.zeros(200, np.int64), None),
    ],
)
def test_without_rows_near_equal_length_there_is_no_rate_at_it(tmp_path, difference, reason):
    rng = np.random.default_rng(0)
    table, hard = alone_and_known(difference(rng), rng.random(200))
    pq.write_table(table, tmp_path / "t.parquet")
    pq.write_table(hard, tmp_path / "d.parquet")
    found = winrate(tmp_path / "t.parquet", {}, "base", difficulty=tmp_path / "d.parquet")
    (one,) = found["win_rates"]
    assert (one["length_controlled"] is None) == (reason is not None)
    assert (reason or "") in one["not_controlled"].get("length_controlled", "")


@pytest.mark.parametrize("sign", [1, -1])
def test_where_length_decides_alone_there_is_no_rate_at_equal_length(sign):
    difference, cluster = np.linspace(-700, 700, 101), np.arange(101)
    y = (sign * difference > 90).astype(float)
    with pytest.raises(FitFailed, match="equal length cannot be determined: it separates wins"):
        length_controlled(y, difference, None, cluster)
    style = {"bold": difference / 700, "lists": np.tile([0.0, 1.0], 51)[:101]}
    with pytest.raises(FitFailed, match=r"equal style \(bold\) cannot be determined"):
        style_controlled(y, style, cluster)
    y[:50:5] = 1 - y[:50:5]  # ten exceptions, and there is a rate
    assert 0.05 < length_controlled(y, difference, None, cluster).win_rate < 0.95


def test_a_style_that_is_never_equal_gives_no_rate():
    rng = np.random.default_rng(1)
    style = {"bold": np.ones(80), "lists": rng.uniform(-1, 1, 80)}
    with pytest.raises(FitFailed, match=r"equal style \(bold\) cannot be determined: hardly any"):
        style_controlled(rng.random(80), style, np.arange(80))


def test_a_difference_in_scale_is_no_difference_in_quality():
    """A judge with a slope of 3; one competitor is as good, and always a little longer.

    Its own scale made 60 characters as much as others' 600: 4% at equal length, error 0.6%.
    """
    rng, count = np.random.default_rng(0), 500
    code, cluster = np.repeat(np.arange(4), count), np.tile(np.arange(count), 4)
    difference = rng.normal(0, 600, 4 * count)
    difference[code == 0] = rng.normal(60, 12, count)
    y = (rng.random(4 * count) < sigmoid(3 * np.tanh(difference / 600))).astype(float)
    rows = BaselineComparisons(
        tuple("abcd"), code, y, cluster, np.ones(4 * count), difference, None, {}
    )
    found = win_rates(rows)
    by_name = {one.competitor: one for one in found}
    raw = [one.win_rate.value for one in found]
    assert raw == sorted(raw, reverse=True)  # one has no other, so that all are sorted by it
    assert by_name["a"].length_controlled is None
    assert "hardly any rows are near it" in by_name["a"].problems["length_controlled"]
    assert all(abs(by_name[name].length_controlled.win_rate - 0.5) < 0.1 for name in "bcd")


def test_difficulty_is_learned_from_the_others():
    preference = np.array([1.0, 0.0, 1.0, 0.0, 0.0, 0.0])
    competitor, cluster = np.array([0, 1, 2, 0, 1, 2]), np.array([5, 5, 5, 6, 6, 6])
    found = learned_difficulty(preference, competitor, cluster)
    # one tie added to two others: (1 + 0.5) / 3, (2 + 0.5) / 3, ...
    share = np.array([1.5, 2.5, 1.5, 0.5, 0.5, 0.5]) / 3
    odds = np.log(share / (1 - share))
    assert found == pytest.approx(odds - odds.mean())
    assert learned_difficulty(preference[:2], competitor[:2], cluster[:2]) is None


def test_without_all_lengths_raw_rates_are_given(tmp_path):
    path, rng = tmp_path / "t.parquet", np.random.default_rng(1)
    columns = {"model_a": ["x"] * 60, "model_b": ["Base"] * 60, "preference": rng.random(60),
               "length_a": pa.array([None, 7.0] * 30), "length_b": [9.0] * 60}  # fmt: skip
    pq.write_table(pa.table(columns), path)
    found = winrate(path, {}, "Base")
    (one,) = found["win_rates"]
    assert one["win_rate"]["value"] == pytest.approx(columns["preference"].mean())
    assert one["length_controlled"] is None
    assert found["difficulty"] is None
    assert found["warnings"] == ["30 of 60 rows lack a length: no rate at equal length is given"]
    with pytest.raises(UsageError, match="such as Base"):
        winrate(path, {}, "base")
