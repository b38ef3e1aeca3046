"""Tables of other tools: fitted, calibrated, evaluated, drawn; wrong usage."""

from __future__ import annotations

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from steelyard.calibrators.calibrator import Calibrator
from steelyard.errors import CalibratorRefused, UsageError
from steelyard.evaluation.apply import apply_calibrator
from steelyard.evaluation.fit import FitOptions, fit_calibrator
from steelyard.evaluation.judged_pairs import Source
from steelyard.statistics.logistic import sigmoid
from support.helpers import ROOT, command


def scores(path, rows=800):
    """A reward model's score differences: temperature 5, and longer is better."""
    draw = np.random.default_rng(2)
    score = draw.normal(0, 12, rows)
    length = draw.integers(10, 900, (2, rows)).astype(np.int32)
    p = sigmoid(score / 5)
    a = draw.binomial(1, p)
    ids, topic = [f"r{i}" for i in range(rows)], np.arange(rows) % 200
    table = {"pair_id": ids, "difference": score, "length_a": length[0], "length_b": length[1]}
    pq.write_table(pa.table({**table, "prompt_id": topic}), path / "scores.parquet")
    pq.write_table(pa.table({"pair_id": ids, "gold": np.array(["B", "A"])[a]}), path / "g.parquet")
    return path / "scores.parquet", path / "g.parquet", score


def test_a_reward_models_scores_are_calibrated(tmp_path):
    table, gold, score = scores(tmp_path)
    common = ("--from", table, "--logit", "difference")
    fit = command("calibrate", "fit", *common, "--gold", gold, "--out", tmp_path / "c.json")
    assert fit.returncode == 0, fit.stderr
    assert "* temperature" in fit.stdout
    out = tmp_path / "out.parquet"
    done = command("calibrate", "apply", *common, tmp_path / "c.json", "--out", out, "--json")
    assert json.loads(done.stdout)["pairs"] == 800
    made = Calibrator.from_json((tmp_path / "c.json").read_text(), "test")
    slope = made.curve.coefficients["logit"]
    assert slope == pytest.approx(1 / 5, rel=0.2)
    found = pq.read_table(out)
    assert found.column_names[:5] == pq.read_table(table).column_names
    assert np.abs(found["calibrated_preference"].to_numpy() - sigmoid(score * slope)).max() < 1e-12
    again = command(
        "calibrate", "apply", "--from", out, "--logit", "difference", tmp_path / "c.json",
        "--out", tmp_path / "again.parquet",
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert pq.read_table(tmp_path / "again.parquet").equals(found)
    text = command("evaluate", out, "--gold", gold, "--preference", "calibrated_preference").stdout
    assert "800 pairs of 200 instructions" in text


def test_the_documented_commands_on_tables(tmp_path, monkeypatch):
    """Those of docs/calibration.md: the last evaluates values that are cross-fitted."""
    scores(tmp_path)
    (tmp_path / "g.parquet").rename(tmp_path / "gold.parquet")
    monkeypatch.chdir(tmp_path)
    documented = (ROOT / "docs/calibration.md").read_text("utf-8")
    block = re.search(
        r"```\n(steelyard calibrate fit --from scores.parquet.*?)```", documented, re.DOTALL
    )
    lines = block[1].strip().splitlines()
    assert len(lines) == 3
    for line in lines:
        done = command(*line.split()[1:])
        assert done.returncode == 0, done.stderr
    assert "calibrated values of 800 of 800 pairs are cross-fitted" in done.stdout
    assert "calibration changes log loss -" in done.stdout


def test_a_calibrator_of_logits_is_not_one_of_preferences(tmp_path):
    table, gold, score = scores(tmp_path)
    made = fit_calibrator(
        Source(table, {"logit": "difference", "score": "difference"}),
        gold,
        FitOptions(method="platt"),
    ).calibrator
    (tmp_path / "c.json").write_text(made.to_json())
    shares = pq.read_table(table).append_column("p", pa.array(sigmoid(score)))
    pq.write_table(shares, tmp_path / "p.parquet")
    source = Source(tmp_path / "p.parquet", {"preference": "p"})
    with pytest.raises(CalibratorRefused, match="table: logit there, preference here"):
        apply_calibrator(source, tmp_path / "c.json", tmp_path / "o.parquet", force=False)
    apply_calibrator(source, tmp_path / "c.json", tmp_path / "o.parquet", force=True)
    found = pq.read_table(tmp_path / "o.parquet")["calibrated_preference"].to_numpy()
    slope, shift = made.curve.coefficients["logit"], made.curve.coefficients["intercept"]
    inside = np.abs(score) < 20
    assert np.abs(found - sigmoid(score * slope + shift))[inside].max() < 1e-6


def test_drift_is_told(tmp_path):
    table, gold, score = scores(tmp_path)
    common = ("--from", table, "--logit", "difference")
    command("calibrate", "fit", *common, "--gold", gold, "--out", tmp_path / "c.json")
    moved = pa.table({"difference": np.abs(score)})
    pq.write_table(moved, tmp_path / "moved.parquet")
    done = command(
        "calibrate", "apply", "--from", tmp_path / "moved.parquet", "--logit", "difference",
        tmp_path / "c.json", "--out", tmp_path / "o.parquet", "--json",
    )  # fmt: skip
    assert "have drifted" in done.stderr
    assert json.loads(done.stdout)["drift"]["psi"] > 0.2
    same = command(
        "calibrate", "apply", *common, tmp_path / "c.json", "--out", tmp_path / "o.parquet"
    )
    assert "drifted" not in same.stderr


def test_what_the_table_lacks_is_said(tmp_path):
    table, gold, _ = scores(tmp_path)
    source = Source(table, {"logit": "difference", "score": "difference"})
    with pytest.raises(CalibratorRefused, match="position needs preference_ab and preference_ba"):
        fit_calibrator(source, gold, FitOptions(method="position"))
    made = fit_calibrator(source, gold, FitOptions(method="length")).calibrator
    (tmp_path / "c.json").write_text(made.to_json())
    bare = pq.read_table(table).drop_columns(["length_a"])
    pq.write_table(bare, tmp_path / "bare.parquet")
    with pytest.raises(CalibratorRefused, match="needs length_a, which"):
        apply_calibrator(
            Source(tmp_path / "bare.parquet", source.columns), tmp_path / "c.json",
            tmp_path / "o.parquet", force=False,
        )  # fmt: skip
    with pytest.raises(UsageError, match="needs a file"):
        apply_calibrator(source, tmp_path / "c.json", None, force=False)


def test_contextual_takes_a_judged_pair_without_content(tmp_path):
    table, gold, _ = scores(tmp_path)
    pq.write_table(pa.table({"difference": [2.0]}), tmp_path / "bare.parquet")
    source = Source(table, {"logit": "difference", "score": "difference"})
    options = FitOptions(method="contextual", content_free=tmp_path / "bare.parquet")
    made = fit_calibrator(source, gold, options).calibrator
    assert made.curve.coefficients == pytest.approx({"logit": 1.0, "intercept": -2.0})


def test_both_orders_of_a_table_have_columns_of_any_name(tmp_path):
    table, gold, score = scores(tmp_path)
    rows = pq.read_table(table).append_column("p", pa.array(sigmoid(score / 5)))
    for name, lean in (("first", 0.5), ("second", -0.5)):
        rows = rows.append_column(name, pa.array(sigmoid(score / 5 + lean)))
    pq.write_table(rows, table)
    mapped = ("--preference", "p", "--map", "preference_ab=first", "--map", "preference_ba=second")
    common = ("--from", table, *mapped)
    fit = command("calibrate", "fit", *common, "--gold", gold, "--method", "position",
                  "--out", tmp_path / "c.json")  # fmt: skip
    assert fit.returncode == 0, fit.stderr
    made = Calibrator.from_json((tmp_path / "c.json").read_text(), "test")
    assert made.curve.constants["first_position"] == pytest.approx(0.5)
    out = tmp_path / "out.parquet"
    done = command("calibrate", "apply", *common, tmp_path / "c.json", "--out", out)
    assert done.returncode == 0, done.stderr
    found = pq.read_table(out)
    assert found.column_names == [*rows.column_names, "calibrated_preference", "calibrated_tie",
                                  "trusted"]  # fmt: skip
    slope, shift = made.curve.coefficients["logit"], made.curve.coefficients["intercept"]
    wanted = sigmoid(slope * score / 5 + shift)  # no pair has another lean than the mean
    assert np.abs(found["calibrated_preference"].to_numpy() - wanted).max() < 1e-9


def test_rows_that_lack_what_the_calibrator_reads_are_counted(tmp_path):
    table, gold, score = scores(tmp_path)
    rows = pq.read_table(table).append_column("preference", pa.array(sigmoid(score / 5)))
    ab = [None, *sigmoid(score / 5 + draw_lean(score)).tolist()[1:]]
    rows = rows.append_column("preference_ab", pa.array(ab))
    rows = rows.append_column("preference_ba", pa.array(sigmoid(score / 5)))
    pq.write_table(rows, table)
    fit = ("calibrate", "fit", "--from", table, "--out", tmp_path / "c.json")
    done = command(*fit, "--gold", gold, "--method", "position")
    assert done.returncode == 3
    assert "which these reads lack (preference_ab in 1 of 800)" in done.stderr
    pq.write_table(pq.read_table(gold).slice(1), gold)
    assert command(*fit, "--gold", gold, "--method", "position").returncode == 0
    done = command("calibrate", "apply", "--from", table, tmp_path / "c.json", "--out",
                   tmp_path / "o.parquet")  # fmt: skip
    assert "preference_ab in 1 of 800: they get no calibrated_preference" in done.stderr
    assert pq.read_table(tmp_path / "o.parquet")["calibrated_preference"].null_count == 1


def draw_lean(score):
    return np.random.default_rng(4).normal(0.3, 0.5, len(score))


def test_one_pair_with_most_of_the_votes_is_told(tmp_path):
    table, gold, _ = scores(tmp_path)
    ids = pq.read_table(gold)["pair_id"]
    a, b = np.ones(800), np.ones(800)
    a[7] = 1e6
    pq.write_table(pa.table({"pair_id": ids, "votes_a": a, "votes_b": b}), gold)
    source = Source(table, {"logit": "difference", "score": "difference"})
    fitted = fit_calibrator(source, gold, FitOptions(method="platt"))
    assert any("a single pair has 100% of all votes" in note for note in fitted.notes)


def test_no_threshold_is_said_with_what_would_be_needed(tmp_path):
    table, gold, _ = scores(tmp_path, rows=200)
    rows = pq.read_table(table)
    topic = pa.array(np.arange(200) % 20)
    rows = rows.set_column(rows.column_names.index("prompt_id"), "prompt_id", topic)
    pq.write_table(rows, table)
    source = Source(table, {"logit": "difference", "score": "difference"})
    fitted = fit_calibrator(source, gold, FitOptions(method="platt", agreement=0.9))
    assert fitted.calibrator.selective.threshold is None
    note = next(one for one in fitted.notes if "no threshold" in one)
    assert "on gold of 20 instructions" in note
    assert "gold of about 122 such instructions" in note
    assert any("gold: only 20 clusters" in one for one in fitted.notes)


USAGE = [
    ("calibrate", "fit"),
    ("calibrate", "fit", "RUN", "--from", "FILE"),
    ("calibrate", "apply", "RUN"),
    ("calibrate", "apply", "--from", "F", "C", "D"),
    ("calibrate", "apply", "RUN", "C", "--out", "x"),
    ("calibrate", "show", "nothing.json"),
    ("evaluate", "RUN", "--logit", "a", "--preference", "b"),
    ("evaluate", "RUN", "--diagram", "x.pdf"),
]


@pytest.mark.parametrize("line", USAGE, ids=" ".join)
def test_wrong_usage_is_told(line):
    done = command(*line)
    assert done.returncode == 2
    assert done.stderr.startswith("error[usage]")


@pytest.mark.parametrize("name", ["d.svg", "d.png"])
def test_a_diagram_is_drawn(name, tmp_path):
    pytest.importorskip("matplotlib")
    table, gold, _ = scores(tmp_path)
    line = ("evaluate", table, "--logit", "difference", "--gold", gold, "--replicates", 50)
    pictures = []
    for _ in range(2):
        done = command(*line, "--diagram", tmp_path / name)
        assert done.returncode == 0, done.stderr
        pictures.append((tmp_path / name).read_bytes())
    assert pictures[0] == pictures[1]
    assert pictures[0][:4] == (b"\x89PNG" if name == "d.png" else b"<?xm")


def test_a_result_replaces_no_input_and_nothing_else(tmp_path):
    from steelyard.errors import UsageError
    from steelyard.store.durable import check_out

    table = tmp_path / "table.parquet"
    table.write_bytes(b"PAR1 and more")
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    with pytest.raises(UsageError, match="one of the inputs"):
        check_out(table, b"PAR1", read=(None, table))
    with pytest.raises(UsageError, match="not an earlier result"):
        check_out(notes, b"PAR1", read=())
    with pytest.raises(UsageError, match="does not exist"):
        check_out(tmp_path / "no" / "x", b"PAR1", read=())
    check_out(table, b"PAR1", read=(notes,))
    assert table.read_bytes() == b"PAR1 and more"
