"""Calibrators that are evaluated on the gold of their fit, in whole or in part."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from steelyard.calibrators.calibrator import Calibrator
from steelyard.calibrators.features import Features, Gold
from steelyard.calibrators.folds import grouped_folds
from steelyard.calibrators.gold_trace import MOST_DIGESTS, GoldTrace, pack, unpack
from steelyard.calibrators.methods import METHODS
from steelyard.errors import CalibratorRefused
from steelyard.evaluation.apply import apply_calibrator
from steelyard.evaluation.evaluate import EvaluateOptions, evaluate_source
from steelyard.evaluation.fit import FitOptions, fit_calibrator
from steelyard.evaluation.gold_join import match_gold
from steelyard.evaluation.judged_pairs import Source
from steelyard.statistics.logistic import logit
from steelyard.store.calibration import save_calibrator
from support.helpers import command

NO_INTERVALS = EvaluateOptions(replicates=0)


def draw_pairs(place, pairs=200, instructions=50, seed=0):
    """An overconfident judge's preferences, and labels of people, in two files."""
    draw = np.random.default_rng(seed)
    score = draw.normal(0, 3, pairs)
    a = draw.random(pairs) < 1 / (1 + np.exp(-score / 3))
    ids, topics = [f"p{i}" for i in range(pairs)], np.arange(pairs) % instructions
    judged = {"pair_id": ids, "preference": 1 / (1 + np.exp(-score)), "prompt_id": topics}
    pq.write_table(pa.table(judged), place / "judged.parquet")
    labels = pa.table({"pair_id": ids, "gold": np.where(a, "A", "B").tolist()})
    pq.write_table(labels, place / "gold.parquet")
    return Source(place / "judged.parquet"), place / "gold.parquet", np.where(a, 1.0, 0.0)


def calibrated(place, source, gold, change=lambda made: made, **options):
    """The table with the columns of a calibrator that was fitted to this gold."""
    made = fit_calibrator(source, gold, FitOptions(**options)).calibrator
    save_calibrator(place / "c.json", change(made))
    apply_calibrator(source, place / "c.json", place / "out.parquet", force=False)
    return Source(place / "out.parquet")


def log_loss(p, y):
    return float(-(y * np.log(p) + (1 - y) * np.log1p(-p)).mean())


@pytest.mark.parametrize("method", ["isotonic", "platt"])
def test_pairs_of_the_fit_have_values_by_the_gold_of_other_instructions(tmp_path, method):
    source, gold, y = draw_pairs(tmp_path)
    report = evaluate_source(calibrated(tmp_path, source, gold, method=method), gold, NO_INTERVALS)
    # The same by hand: five folds of instructions, and the method on the other four.
    p = pq.read_table(source.path)["preference"].to_numpy()
    votes = np.stack([y, 1 - y, 0 * y], axis=1)
    features, groups = Features(logit(p)), np.arange(200) % 50
    ids = match_gold(source, gold).groups
    assert np.array_equal(np.unique(ids, return_index=True)[1].shape, (50,))
    folds, held_out = grouped_folds(ids, 5, 0), np.empty(200)
    for fold in range(5):
        rest = folds != fold
        assert not set(groups[rest]) & set(groups[~rest])
        curve = METHODS[method].fit(features.take(rest), Gold(votes[rest], groups[rest]))
        held_out[~rest] = curve.preference(features.take(~rest))
    inside = METHODS[method].fit(features, Gold(votes, groups)).preference(features)
    measured = report.whole.calibrated.estimates["log_loss"].value
    assert measured == pytest.approx(log_loss(held_out, y), rel=1e-9)
    assert measured > log_loss(inside, y)
    assert (report.fit_gold.in_fit, report.fit_gold.crossfitted, report.fit_gold.pairs) == (
        200, 200, 200,
    )  # fmt: skip


def test_the_first_line_says_so_and_json_has_it(tmp_path):
    source, gold, _ = draw_pairs(tmp_path)
    out = calibrated(tmp_path, source, gold, method="isotonic", seed=4)
    line = ("evaluate", out.path, "--gold", gold, "--replicates", 0)
    first = command(*line).stdout.splitlines()[0]
    assert first == (
        "calibrated values of 200 of 200 pairs are cross-fitted (5 folds of instructions, seed 4):"
        " the calibrator was fitted to their gold"
    )
    content = json.loads(command(*line, "--json").stdout)
    wanted = {"in_fit": 200, "crossfitted": 200, "pairs": 200, "folds": 5, "seed": 4}
    assert content["fit_gold"] == wanted


def test_pairs_outside_the_fit_are_evaluated_as_they_are(tmp_path):
    source, gold, y = draw_pairs(tmp_path)
    labels = pq.read_table(gold)
    pq.write_table(labels.slice(0, 120), tmp_path / "some.parquet")
    out = calibrated(tmp_path, source, tmp_path / "some.parquet", method="platt")
    stored = pq.read_table(out.path)["calibrated_preference"].to_numpy()
    pq.write_table(labels.slice(120), tmp_path / "rest.parquet")
    rest = evaluate_source(out, tmp_path / "rest.parquet", NO_INTERVALS)
    assert (rest.fit_gold.in_fit, rest.fit_gold.words) == (0, "")
    estimate = rest.whole.calibrated.estimates["log_loss"].value
    assert estimate == pytest.approx(log_loss(stored[120:], y[120:]), rel=1e-9)
    both = evaluate_source(out, gold, NO_INTERVALS)
    assert both.fit_gold.words.startswith("calibrated values of 120 of 200 pairs are cross-fitted")


def test_ties_are_crossfitted_too(tmp_path):
    source, gold, y = draw_pairs(tmp_path)
    labels = np.where(np.arange(200) % 4 == 0, "tie", np.where(y == 1, "A", "B")).tolist()
    ids = [f"p{i}" for i in range(200)]
    pq.write_table(pa.table({"pair_id": ids, "gold": labels}), gold)
    made = fit_calibrator(source, gold, FitOptions(method="platt")).calibrator
    ties = [fold.tie for fold in made.gold.folds]
    assert len(set(ties)) == 5
    assert min(ties) < made.tie < max(ties)
    assert calibrated(tmp_path, source, gold, method="platt")
    report = evaluate_source(Source(tmp_path / "out.parquet"), gold, NO_INTERVALS)
    assert report.fit_gold.crossfitted == 200


def test_what_an_earlier_version_fitted_is_told(tmp_path):
    source, gold, _ = draw_pairs(tmp_path)
    out = calibrated(tmp_path, source, gold, lambda made: replace(made, gold=None), method="platt")
    report = evaluate_source(out, gold, NO_INTERVALS)
    assert report.fit_gold.in_fit is None
    assert "nothing says which gold" in report.fit_gold.words


def test_a_column_that_was_not_calibrated_cannot_be_crossfitted(tmp_path):
    source, gold, _ = draw_pairs(tmp_path)
    out = calibrated(tmp_path, source, gold, method="platt")
    other = Source(out.path, {"preference": "calibrated_preference"})
    report = evaluate_source(other, gold, NO_INTERVALS)
    assert (report.fit_gold.in_fit, report.fit_gold.crossfitted) == (200, 0)
    assert "200 of 200 pairs are too good" in report.fit_gold.words
    # What is evaluated is what was calibrated: there is nothing to compare it with.
    assert (report.whole.calibrated, report.whole.change) == (None, {})


def test_an_earlier_versions_calibrator_is_read_and_a_damaged_trace_is_refused(tmp_path):
    source, gold, _ = draw_pairs(tmp_path)
    made = fit_calibrator(source, gold, FitOptions(method="platt")).calibrator
    content = made.to_builtins()
    del content["gold"]
    assert Calibrator.from_json(json.dumps(content), "old").gold is None
    for text in ("AAAA", "no base64!", pack(np.array([1, 2], np.uint64))[:-4]):
        content = made.to_builtins()
        content["gold"]["folds"][0]["pairs"] = text
        with pytest.raises(CalibratorRefused):
            Calibrator.from_json(json.dumps(content), "new")


def test_digests_are_few_bytes_and_a_sample_of_many_pairs():
    digests = np.array([7, 3, 2**64 - 1, 3], np.uint64)
    assert unpack(pack(digests)).tolist() == [3, 7, 2**64 - 1]
    draw = np.random.default_rng(0)
    n = MOST_DIGESTS + 5000
    ids = draw.integers(0, 2**63, n).astype(np.uint64)
    y = draw.integers(0, 2, n).astype(float)
    gold = Gold(np.stack([y, 1 - y, 0 * y], axis=1), np.arange(n))
    features = Features(draw.normal(0, 1, n))
    trace = GoldTrace.of(METHODS["none"].fit, features, gold, ids, 0)
    assert sum(len(fold.pairs) for fold in trace.folds) < 12 * MOST_DIGESTS
    known = trace.fold_of(ids) >= 0
    assert known.sum() == MOST_DIGESTS
    assert ids[known].max() < ids[~known].min()


def test_pairs_without_an_instruction_are_instructions_by_themselves(tmp_path):
    """Nulls in gold were one large instruction, and blanks another."""
    source, gold, _ = draw_pairs(tmp_path, pairs=40, instructions=40)
    names = ["x", "x", None, None, "", " "] + [f"i{k}" for k in range(34)]
    labels = pq.read_table(gold).append_column("prompt_id", pa.array(names))
    pq.write_table(labels, gold)
    groups = match_gold(source, gold).groups
    assert groups[0] == groups[1]
    assert len(set(groups.tolist())) == 39


def looks_of(place, *lines):
    done = command(*lines, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["calibrator"], done.stderr


def test_a_later_fit_goes_on_with_the_looks_of_the_earlier_one(tmp_path):
    source, gold, _ = draw_pairs(tmp_path, pairs=300, instructions=300)
    labels, some = pq.read_table(gold), tmp_path / "some.parquet"
    fit = ("calibrate", "fit", "--from", source.path, "--preference", "preference", "--gold", some,
           "--out", tmp_path / "c.json", "--agreement", 0.6, "--method", "platt")  # fmt: skip
    pq.write_table(labels.slice(0, 100), some)
    first, words = looks_of(tmp_path, *fit)
    assert "look" not in words
    assert (first["looks"]["seeds"], first["looks"]["instructions"]) == ([0], [50])
    pq.write_table(labels.slice(0, 140), some)
    second, words = looks_of(tmp_path, *fit, "--seed", 5)
    assert second["looks"]["seeds"] == [0, 5]
    assert second["curve"] == first["curve"]
    new = second["looks"]["instructions"][1]
    assert f"goes on with {new} instructions that are new to it; this is look 2" in words
    assert "stay until the gold to fit them to has doubled" in words
    text = command("calibrate", "show", tmp_path / "c.json").stdout
    assert f"looks:     2 (seeds 0, 5), at 50 + {new} instructions" in text
    # Without --agreement looks are kept, and the next rule is a new one: this curve has seen all.
    plain, _ = looks_of(tmp_path, *fit[:-4], "--method", "platt")
    assert plain["looks"] == second["looks"]
    assert plain["selective"] is None
    third, words = looks_of(tmp_path, *fit)
    assert third["looks"]["rule"] == 1
    assert "tested at 0.17 of the level" in words
    pq.write_table(labels, some)
    fourth, words = looks_of(tmp_path, *fit)
    assert fourth["looks"]["rule"] == 2
    assert len(fourth["looks"]["seeds"]) == 4


def test_other_scores_or_other_gold_begin_looks_of_their_own(tmp_path):
    source, gold, _ = draw_pairs(tmp_path, pairs=200, instructions=200)
    labels, out = pq.read_table(gold), tmp_path / "c.json"
    options = FitOptions(method="platt", agreement=0.6, previous=out)
    pq.write_table(labels.slice(0, 100), tmp_path / "first.parquet")
    save_calibrator(out, fit_calibrator(source, tmp_path / "first.parquet", options).calibrator)
    pq.write_table(labels.slice(100), tmp_path / "other.parquet")
    other = fit_calibrator(source, tmp_path / "other.parquet", options).calibrator
    assert len(other.looks.seeds) == 1
    assert len(fit_calibrator(source, gold, options).calibrator.looks.seeds) == 2
    judged = pq.read_table(source.path)
    changed = 1 - judged["preference"].to_numpy()
    place = judged.column_names.index("preference")
    pq.write_table(judged.set_column(place, "preference", pa.array(changed)), source.path)
    another = fit_calibrator(Source(source.path), gold, options).calibrator
    assert len(another.looks.seeds) == 1


def test_imports_of_two_judges_with_one_name_do_not_share_looks(tmp_path):
    """Both are `imported`, of the same pairs; only their scores differ."""
    source, gold, _ = draw_pairs(tmp_path, pairs=200, instructions=200)
    table = pq.read_table(source.path)
    for name in ("model_a", "model_b"):
        table = table.append_column(name, pa.array([name] * 200))
    mirrored = table.set_column(
        table.column_names.index("preference"),
        "preference",
        pa.array(1 - table["preference"].to_numpy()),
    )
    for name, content in (("first", table), ("second", mirrored)):
        pq.write_table(content, tmp_path / f"{name}.parquet")
        done = command("import", tmp_path / f"{name}.parquet", "--run", tmp_path / name)
        assert done.returncode == 0, done.stderr
    out = tmp_path / "c.json"
    options = FitOptions(method="platt", agreement=0.6, previous=out)
    first = fit_calibrator(Source(tmp_path / "first"), gold, options).calibrator
    save_calibrator(out, first)
    again = fit_calibrator(Source(tmp_path / "first"), gold, options).calibrator
    assert again.looks == first.looks  # no instruction is new
    second = fit_calibrator(Source(tmp_path / "second"), gold, options).calibrator
    slopes = (first.curve.coefficients["logit"], second.curve.coefficients["logit"])
    assert slopes[1] == pytest.approx(-slopes[0], abs=0.05)
