"""What `evaluate` says beside its numbers, and what it refuses before the work."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from steelyard.evaluation.evaluate import EvaluateOptions, evaluate_source
from steelyard.evaluation.judged_pairs import Source
from steelyard.statistics.intervals import RESTS_ON_COUNT
from support.helpers import command


def judged(path, right, rows=400):
    """A judge that names the side of gold with probability `right`."""
    draw = np.random.default_rng(0)
    gold = draw.random(rows) < 0.5
    says = np.where(draw.random(rows) < right, gold, ~gold)
    p = np.where(says, 0.5, 0.0) + draw.uniform(0.05, 0.45, rows)
    ids = np.arange(rows)
    pq.write_table(pa.table({"pair_id": ids, "preference": p}), path / "judged.parquet")
    label = np.where(gold, "A", "B")
    pq.write_table(pa.table({"pair_id": ids, "label": label}), path / "gold.parquet")
    return path / "judged.parquet", path / "gold.parquet"


@pytest.mark.parametrize(("right", "told"), [(0.5, True), (0.7, False)])
def test_a_judge_near_chance_is_called_so(right, told, tmp_path):
    table, gold = judged(tmp_path, right)
    report = evaluate_source(Source(table), gold, EvaluateOptions(replicates=200))
    assert any(note.startswith("near chance") for note in report.notes) == told


def test_ties_do_not_count_towards_chance(tmp_path):
    # A third of gold is a tie, so that agreement is below one half: the judge is right all the same
    # wherever gold names a side.
    table, gold = judged(tmp_path, 1.0)
    rows = pq.read_table(gold)
    labels = [one if at % 3 else "tie" for at, one in enumerate(rows["label"].to_pylist())]
    pq.write_table(rows.set_column(1, "label", pa.array(labels)), gold)
    report = evaluate_source(Source(table), gold, EvaluateOptions(replicates=200))
    found = report.whole.raw.estimates
    assert found["agreement"].value == pytest.approx(266 / 400)
    assert found["decided_agreement"].value == 1.0
    assert not any("near chance" in note for note in report.notes)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_intervals_are_promised_only_where_there_are_any(count, tmp_path):
    table, gold = judged(tmp_path, 0.7)
    # --bootstraps is the former name of --replicates.
    done = command("evaluate", table, "--gold", gold, "--bootstraps", count)
    assert done.returncode == 0
    assert "95% intervals over instructions" in done.stdout
    assert ("and of changes are left out" in done.stdout) == (count < 2)


def test_metrics_whose_interval_rests_on_the_number_of_instructions_are_named(tmp_path):
    table, gold = judged(tmp_path, 1.0)  # every verdict is right
    report = evaluate_source(Source(table), gold, EvaluateOptions(replicates=0))
    (note,) = (line for line in report.notes if line.endswith(RESTS_ON_COUNT))
    named = note.partition(" (raw)")[0].split(", ")
    assert {"agreement", "decided_agreement", "kappa", "auc"} <= set(named)
    assert "brier" not in named
    metrics = {row["metric"]: row for row in report.to_json()["raw"]["metrics"]}
    assert metrics["agreement"]["rests_on_count"]
    assert metrics["agreement"]["low"] == pytest.approx(400 / (400 + 1.965927**2))


@pytest.mark.parametrize("place", ["nowhere/d.svg", "folder.svg"])
def test_a_diagram_without_a_place_is_refused_before_the_work(place, tmp_path):
    (tmp_path / "folder.svg").mkdir()
    done = command(
        "evaluate", tmp_path / "not read.parquet", "--gold", tmp_path / "nor this.parquet",
        "--diagram", tmp_path / place,
    )  # fmt: skip
    assert done.returncode == 2
    assert "diagram" in done.stderr
