"""What keeps users from believing too much: repeated pairs, ties, force, chance, few of all."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import steelyard
from steelyard.errors import CalibratorRefused, InputRefused, UsageError
from steelyard.evaluation.evaluate import EvaluateOptions, evaluate_source
from steelyard.evaluation.fit import FitOptions, fit_calibrator
from steelyard.evaluation.gold_join import match_gold
from steelyard.evaluation.judged_pairs import Source, read_pairs
from steelyard.statistics.drift import Reference, measure_drift
from steelyard.statistics.logistic import sigmoid
from steelyard.store.calibration import save_calibrator
from support.helpers import command, pairs_table, program


def tables(path, rows=200, instructions=50, gold=None, **columns):
    """Judged pairs and their gold."""
    draw = np.random.default_rng(0)
    p = draw.uniform(0.05, 0.95, rows)
    ids = [f"p{at}" for at in range(rows)]
    judged = {"pair_id": ids, "preference": p, "prompt_id": np.arange(rows) % instructions}
    pq.write_table(pa.table({**judged, **columns}), path / "judged.parquet")
    labels = gold or np.where(draw.random(rows) < p, "A", "B").tolist()
    pq.write_table(pa.table({"pair_id": ids, "gold": labels}), path / "gold.parquet")
    return Source(path / "judged.parquet"), path / "gold.parquet"


def test_a_table_of_several_judges_is_refused_with_counts(tmp_path):
    source, gold = tables(tmp_path, pair_id=[f"p{at // 2}" for at in range(200)])
    for use in (
        lambda: evaluate_source(source, gold, EvaluateOptions(replicates=0)),
        lambda: fit_calibrator(source, gold, FitOptions()),
    ):
        with pytest.raises(InputRefused, match="200 rows have 100 pair_ids"):
            use()


def test_ties_made_by_calibration_are_told(tmp_path):
    labels = ["A", "B", "tie", "tie"] * 50
    values = np.full(200, 0.5)
    source, gold = tables(tmp_path, gold=labels, calibrated_preference=values)
    report = evaluate_source(source, gold, EvaluateOptions(replicates=0))
    assert report.whole.calibrated.estimates["agreement"].value == 0.5
    assert any(
        "100% of calibrated verdicts are ties, and 0% of raw verdicts" in note
        for note in report.notes
    )
    source, gold = tables(tmp_path, gold=labels, calibrated_preference=np.linspace(0.1, 0.9, 200))
    report = evaluate_source(source, gold, EvaluateOptions(replicates=0))
    assert not any("verdicts are ties" in note for note in report.notes)


@pytest.mark.parametrize(("scored", "known"), [(30, 1500), (5000, 45), (30, 30), (3000, 3000)])
def test_chance_is_no_drift(scored, known):
    draw = np.random.default_rng(1)
    found = [
        measure_drift(Reference.of(draw.random(known)), draw.random(scored)).drifted
        for _ in range(200)
    ]
    assert sum(found) <= 10


def test_few_instructions_leave_coefficients_without_intervals(tmp_path):
    source, gold = tables(tmp_path, instructions=4)
    fitted = fit_calibrator(source, gold, FitOptions(method="platt"))
    assert fitted.calibrator.curve.coefficients.keys() == {"logit", "intercept"}
    assert fitted.calibrator.curve.intervals == {}
    source, gold = tables(tmp_path, instructions=40)
    fitted = fit_calibrator(source, gold, FitOptions(method="platt", agreement=0.6))
    assert fitted.calibrator.curve.intervals
    assert any("the half of gold" in note and "only 20 clusters" in note for note in fitted.notes)


@pytest.mark.parametrize("method", ["auto", "none", "temperature", "platt", "beta", "histogram",
                                    "isotonic", "batch"])  # fmt: skip
def test_a_judge_that_is_the_wrong_way_round_is_told_as_such(tmp_path, method):
    draw = np.random.default_rng(1)
    source, gold = tables(tmp_path)
    p = pq.read_table(source.path)["preference"].to_numpy()
    wrong = np.where(draw.random(200) < p, "B", "A").tolist()
    source, gold = tables(tmp_path, gold=wrong)
    notes = fit_calibrator(source, gold, FitOptions(method=method)).notes
    assert any("the wrong way round" in note for note in notes)
    constant = method in {"temperature", "beta", "isotonic"}
    assert any("is a constant: it makes 0." in note for note in notes) is constant or (
        method == "auto"
    )
    source, gold = tables(tmp_path)
    notes = fit_calibrator(source, gold, FitOptions(method=method)).notes
    assert not any("wrong way" in note or "constant" in note for note in notes)


def test_a_histogram_of_equal_preferences_is_told_to_be_a_constant(tmp_path):
    source, gold = tables(tmp_path, preference=np.full(200, 0.7))
    for method in ("histogram", "isotonic"):
        notes = fit_calibrator(source, gold, FitOptions(method=method)).notes
        assert any("is a constant" in note for note in notes)


def test_what_the_drift_test_can_notice_is_printed(tmp_path):
    source, gold = tables(tmp_path)
    made = tmp_path / "c.json"
    fit = ("calibrate", "fit", "--from", source.path, "--preference", "preference", "--gold", gold)
    assert command(*fit, "--method", "platt", "--out", made).returncode == 0
    apply = ("calibrate", "apply", "--from", source.path, "--preference", "preference", made,
             "--out", tmp_path / "out.parquet")  # fmt: skip
    text = command(*apply).stdout
    drift = json.loads(command(*apply, "--json").stdout)["drift"]
    assert f"from a Kolmogorov-Smirnov distance of {drift['smallest']:.2f} on" in text
    assert "only labels of these pairs would" in text
    # 200 pairs of 50 instructions on either side, 4 each: between 50 and 200 independent ones.
    assert 0.20 < drift["smallest"] < 0.41


def test_changes_of_calibration_errors_have_no_interval(tmp_path):
    source, gold = tables(tmp_path, calibrated_preference=np.linspace(0.1, 0.9, 200))
    change = evaluate_source(source, gold, EvaluateOptions(replicates=50)).whole.change
    for name in ("ece", "ece_confidence", "ece_debiased"):
        assert (change[name].low, change[name].high) == (None, None)
    for name in ("log_loss", "brier", "vote_log_loss", "mse"):
        assert change[name].low < change[name].value < change[name].high
    blocks = command("evaluate", source.path, "--gold", gold, "--replicates", 50).stdout.split(
        "\n\n"
    )
    assert blocks[0].startswith("calibrated values may be too good: nothing says which gold")
    assert blocks[2].startswith("calibration changes log loss 0.")
    assert " and Brier score 0." in blocks[2]


def test_a_change_that_is_the_same_in_all_replicates_has_no_interval(tmp_path):
    """Preferences drawn to one half by a half: all winners stay, and agreement changes by 0."""
    source, gold = tables(tmp_path)
    raw = pq.read_table(source.path)["preference"].to_numpy()
    source, gold = tables(tmp_path, calibrated_preference=(raw + 0.5) / 2)
    change = evaluate_source(source, gold, EvaluateOptions(replicates=50)).whole.change
    assert (change["agreement"].value, change["agreement"].low) == (0, None)
    assert change["log_loss"].low < change["log_loss"].high


def test_the_resolution_is_at_most_a_quarter(tmp_path):
    """Of a judge that is always right it is 1/4 in the data, and above that by reflection."""
    right = np.linspace(0.01, 0.99, 200)
    source, gold = tables(tmp_path, instructions=200, preference=right)
    ids = pq.read_table(source.path)["pair_id"]
    labels = pa.table({"pair_id": ids, "gold": np.where(right > 0.5, "A", "B")})
    pq.write_table(labels, gold)
    raw = evaluate_source(source, gold, EvaluateOptions(replicates=50)).whole.raw
    assert raw.estimates["resolution"].value == pytest.approx(0.25)
    assert raw.estimates["resolution"].high == 0.25


def test_a_source_that_is_not_there_is_not_one_of_other_reads(tmp_path):
    source, gold = tables(tmp_path)
    made, logits = tmp_path / "c.json", Source(source.path, {"score": "preference"})
    save_calibrator(made, fit_calibrator(logits, gold, FitOptions(method="platt")).calibrator)
    done = command("calibrate", "apply", tmp_path / "nowhere", made)
    assert done.returncode == 3
    assert "no such file or folder" in done.stderr


def test_decisions_need_another_protocol_and_not_more_gold(tmp_path):
    source, gold = tables(tmp_path, preference=np.tile([0.0, 1.0], 100))
    with pytest.raises(CalibratorRefused, match="without probabilities") as refused:
        fit_calibrator(source, gold, FitOptions(method="platt"))
    assert "protocol that reads probabilities" in refused.value.remedy


def test_force_leaves_a_trace(tmp_path):
    source, gold = tables(tmp_path)
    fit = ("calibrate", "fit", "--from", source.path, "--gold", gold, "--method", "platt")
    done = command(*fit, "--preference", "preference", "--out", tmp_path / "c.json")
    assert done.returncode == 0, done.stderr
    pq.write_table(pairs_table(12), tmp_path / "in.parquet")
    run = steelyard.score(tmp_path / "in.parquet", run=tmp_path / "run", judge="scripted").root
    shown = command("calibrate", "show", run)
    assert shown.returncode == 2
    assert "no calibrator was applied to this run" in shown.stderr
    refused = command("calibrate", "apply", run, tmp_path / "c.json")
    assert refused.returncode == 3
    assert command("calibrate", "apply", run, tmp_path / "c.json", "--force").returncode == 0
    assert "forced:    applied to other reads than it was fitted on: table: preference" in command(
        "calibrate", "show", run
    ).stdout  # fmt: skip


def test_probabilities_named_as_logits_are_told(tmp_path):
    source, _ = tables(tmp_path, logit=np.linspace(0.1, 0.9, 200))
    columns = {"logit": "logit", "score": "logit"}
    assert any("--preference" in note for note in read_pairs(Source(source.path, columns)).notes)
    source, _ = tables(tmp_path, logit=np.linspace(-3, 3, 200))
    assert not any("--preference" in one for one in read_pairs(Source(source.path, columns)).notes)


@pytest.mark.parametrize("named", [True, False])
def test_pairs_of_one_instruction_each_are_told_only_where_no_column_says_so(tmp_path, named):
    columns = {} if named else {"prompt_id": pa.nulls(200, pa.int64())}
    source, gold = tables(tmp_path, instructions=200, **columns)
    notes = match_gold(source, gold).notes
    assert any("a separate instruction" in note for note in notes) is not named


@pytest.mark.parametrize("options", [{"seed": -1}, {"replicates": 10**9}, {"replicates": -1}])
def test_numbers_out_of_range(tmp_path, options):
    source, gold = tables(tmp_path)
    with pytest.raises(UsageError):
        evaluate_source(source, gold, EvaluateOptions(**options))
    if "seed" in options:
        with pytest.raises(UsageError):
            fit_calibrator(source, gold, FitOptions(**options))


def test_two_may_write_one_table(tmp_path):
    """Whoever ends last leaves a whole table of its own; JSON stands alone on stdout."""
    draw = np.random.default_rng(0)
    for name, rows in (("big", 300_000), ("small", 3000)):
        score = draw.normal(0, 2, rows)
        pq.write_table(pa.table({"difference": score}), tmp_path / f"{name}.parquet")
    source, gold = tables(tmp_path, difference=np.log(1 / sigmoid(np.linspace(-3, 3, 200)) - 1))
    fit = ("calibrate", "fit", "--from", source.path, "--logit", "difference", "--gold", gold)
    assert command(*fit, "--method", "platt", "--out", tmp_path / "c.json").returncode == 0

    def apply(name):
        return program(
            "calibrate", "apply", "--from", tmp_path / f"{name}.parquet", "--logit", "difference",
            tmp_path / "c.json", "--out", tmp_path / "out.parquet", "--json",
        )  # fmt: skip

    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(apply, ("big", "small")))
    assert [json.loads(one.stdout)["pairs"] for one in done] == [300_000, 3000]
    assert pq.read_table(tmp_path / "out.parquet").num_rows in {300_000, 3000}
    assert not list(tmp_path.glob("out.parquet.*"))
