"""Win rates at equal length: the judge's own slope, and intervals that hold the truth."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from steelyard.errors import UsageError
from steelyard.ranking.length_control import learned_difficulty, length_controlled
from steelyard.ranking.length_slope import RIDGE, length_feature, length_slope
from steelyard.ranking.win_rates import BaselineComparisons, win_rates
from steelyard.ranking.winrate import winrate
from steelyard.statistics.logistic import fit, sigmoid
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
        tuple(map(str, range(size))), code, y, cluster, np.ones(len(y)), difference, None, None, {}
    )
    return sigmoid(quality[:, None] + hard).mean(axis=1), rows


@pytest.mark.parametrize(
    ("slope", "shift", "spread", "crosses"),
    [
        (0.0, 600, 170, False),
        (1.25, 600, 170, False),
        (2.0, 600, 170, False),
        (0.0, 300, 400, True),
        (-1.0, 300, 400, True),
    ],
)
def test_intervals_at_equal_length_hold_the_truth(slope, shift, spread, crosses):
    """Also of a judge that does not care for length, and where equal length was never seen."""
    rng = np.random.default_rng(5)
    inside, errors = [], []
    for _ in range(100):
        truth, rows = judged_alike(rng, slope, shift, spread)
        for one in win_rates(rows):
            held = one.length_controlled
            lower, upper = held.interval()
            inside.append(lower <= truth[int(one.competitor)] <= upper)
            errors.append(held.standard_error)
            assert one.one_sided != crosses
    assert np.mean(inside) >= 0.93
    assert (np.mean(errors) < 0.06) == crosses  # an extrapolation is less sure


def test_no_length_bias_is_invented(tmp_path):
    """Equal competitors, a judge indifferent to length, each 600 characters off: 50, not 78."""
    rng = np.random.default_rng(0)
    parts = []
    for at in range(6):
        base = rng.integers(800, 2500, 800)
        own = np.maximum(1, base + (600 if at > 2 else -600) + rng.integers(-300, 300, 800))
        parts.append(pa.table({
            "model_a": [f"m{at}"] * 800, "model_b": ["base"] * 800, "length_a": own,
            "length_b": base, "preference": rng.beta(2, 2, 800), "instruction_id": np.arange(800),
        }))  # fmt: skip
    pq.write_table(pa.concat_tables(parts), tmp_path / "t.parquet")
    found = winrate(tmp_path / "t.parquet", {}, "base")
    for one in found["win_rates"]:
        held = one["length_controlled"]
        assert abs(held["win_rate"] - 0.5) < 0.05
        assert held["lower"] < 0.3 < 0.7 < held["upper"]
        assert held["standard_error"] > 0.1
        assert one["win_rate"]["standard_error"] < 0.01
    (warning,) = found["warnings"]
    assert "and 1 more: almost always longer or almost always shorter than base" in warning
    assert "an extrapolation" in warning


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
