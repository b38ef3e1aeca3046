"""A calibrator as data: SQL equals NumPy, JSON and back, what is refused."""

from __future__ import annotations

import json

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from steelyard.calibrators.abstention import TrustThreshold, fit_trust_threshold, thresholds_of
from steelyard.calibrators.calibrator import Calibrator, calibrated_sql
from steelyard.calibrators.features import Features
from steelyard.calibrators.methods import METHODS
from steelyard.calibrators.ties import fit_tie
from steelyard.errors import CalibratorRefused
from steelyard.statistics.logistic import logit, sigmoid
from support.trust_data import apply_in_numpy, biased_judge

FEATURES, GOLD, _ = biased_judge(0)
PLAIN = [name for name, method in METHODS.items() if "members" not in method.needs]


def calibrator(name):
    curve = METHODS[name].fit(FEATURES, GOLD)
    tied = np.concatenate([GOLD.votes[:, :2], np.ones((len(GOLD), 1))], axis=1)
    agrees = np.random.default_rng(0).random(len(GOLD)) < 0.97
    preference = curve.preference(FEATURES)
    threshold = fit_trust_threshold(
        preference, agrees, GOLD.groups, 0.9, 0.95,
        thresholds=thresholds_of(preference), largest=int(np.bincount(GOLD.groups).max()),
    )  # fmt: skip
    assert threshold.threshold is not None
    bound = {"fingerprint": "f"}
    return Calibrator(name, curve, fit_tie(preference, tied), threshold, None, bound, {"pairs": 3})


def verdict_columns(n=4000):
    draw = np.random.default_rng(7)
    ab, ba = (sigmoid(draw.normal(0, 4, n)) for _ in range(2))
    raw = sigmoid((logit(ab) + logit(ba)) / 2)
    raw[:4] = ab[:4] = ba[:4] = [0.0, 1.0, 0.5, 1e-13]
    longer = [draw.integers(0, 5000, n).astype(np.int32) for _ in range(2)]
    names = ("raw_preference", "preference_ab", "preference_ba", "length_a", "length_b")
    return pa.table(dict(zip(names, (raw, ab, ba, *longer), strict=True)))


@pytest.mark.parametrize("name", PLAIN)
def test_sql_equals_numpy(name):
    made, table = calibrator(name), verdict_columns()
    columns = {key: table[key].to_numpy() for key in table.column_names}
    features = Features(
        logit(columns["raw_preference"]), logit(columns["preference_ab"]),
        logit(columns["preference_ba"]),
        columns["length_a"].astype(np.float64) - columns["length_b"],
    )  # fmt: skip
    preference, tie, trusted = apply_in_numpy(made, features)
    added = ", ".join(f"{sql} AS {column}" for column, sql in calibrated_sql(made))
    with duckdb.connect(":memory:") as connection:
        connection.register("v", table)
        found = connection.sql(f"SELECT {added} FROM v").to_arrow_table()
        none = (
            "NULL::DOUBLE AS preference_ab, NULL::DOUBLE AS preference_ba, 1 length_a, 2 length_b"
        )
        nulls = connection.sql(
            f"SELECT {added} FROM (SELECT NULL::DOUBLE AS raw_preference, {none})"
        ).fetchall()
        partial = connection.sql(
            f"SELECT {added} FROM (SELECT 0.5::DOUBLE AS raw_preference, {none})"
        )
        assert (partial.fetchall()[0][0] is None) == (name == "position")
    assert np.abs(found["calibrated_preference"].to_numpy() - preference).max() < 1e-12
    assert np.abs(found["calibrated_tie"].to_numpy() - tie).max() < 1e-12
    assert found["trusted"].to_pylist() == trusted.tolist()
    assert nulls == [(None, None, None)]


@pytest.mark.parametrize("name", PLAIN)
def test_json_and_back(name):
    made = calibrator(name)
    assert Calibrator.from_json(made.to_json(), "test") == made


def text(name):
    """A calibrator's file as it was written before it had a check."""
    return json.dumps(calibrator(name).to_builtins())


BROKEN = {
    "no JSON": "{",
    "a list": "[]",
    "another file": '{"model": "x"}',
    "newer": '{"steelyard_calibrator": 2}',
    "not finite": text("platt").replace('"logit": 0', '"logit": NaN, "x": 0', 1),
    "unknown term": text("platt").replace('"logit"', '"magic"', 1),
    "no constant": text("length").replace("length_scale", "scale"),
    "falling knots": text("isotonic").replace('"x": [', '"x": [99.0,', 1),
    "levels": text("histogram").replace('"levels": [', '"levels": [0.5,', 1),
    "a changed digit": calibrator("platt").to_json().replace("0.", "1.", 1),
    "a lost check": calibrator("platt").to_json().replace('"check"', '"chick"'),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_calibrator_is_refused_by_name(name):
    with pytest.raises(CalibratorRefused) as refused:
        Calibrator.from_json(BROKEN[name], "some/file.json")
    assert "some/file.json" in str(refused.value)


def test_a_file_of_a_version_without_checks_is_read():
    assert Calibrator.from_json(text("platt"), "test") == calibrator("platt")


def test_a_threshold_that_was_not_found_trusts_nothing():
    none = TrustThreshold(0.9, 0.95, None, 0.0, None, 100)
    made = Calibrator("none", METHODS["none"].fit(FEATURES, GOLD), None, none)
    assert not apply_in_numpy(made, FEATURES)[2].any()
    assert "false" in calibrated_sql(made)[2][1]
