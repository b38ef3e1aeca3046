"""Gold joined to judged pairs: whose responses, what is missing, what to know before believing."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from steelyard.errors import GoldRefused
from steelyard.evaluation.evaluate import EvaluateOptions, evaluate_source
from steelyard.evaluation.gold_join import match_gold
from steelyard.evaluation.judged_pairs import Source
from support.helpers import command

IDS = [f"p{i}" for i in range(40)]


def write(path, name, **columns):
    pq.write_table(pa.table(columns), path / name)
    return path / name


def table(path, **columns):
    """40 judged pairs of 40 instructions, all of models x and y."""
    made = {"preference": np.linspace(0.1, 0.9, 40), "prompt_id": np.arange(40)}
    named = {"model_a": ["x"] * 40, "model_b": ["y"] * 40}
    return Source(write(path, "judged.parquet", pair_id=IDS, **{**made, **named, **columns}))


def gold(path, **columns):
    return write(path, "gold.parquet", **{"pair_id": IDS, "label": ["A", "B"] * 20, **columns})


def notes(path, source=None, **columns):
    return "\n".join(match_gold(source or table(path), gold(path, **columns)).notes)


def test_gold_of_the_same_models_is_taken(tmp_path):
    file = gold(tmp_path, model_a=["x"] * 39 + [None], model_b=["y"] * 40)
    assert len(match_gold(table(tmp_path), file).rows) == 40


def test_gold_of_swapped_and_of_other_models_is_refused_with_counts(tmp_path):
    a, b = ["y"] * 3 + ["x"] * 37, ["x"] * 3 + ["z"] + ["y"] * 36
    with pytest.raises(GoldRefused) as refused:
        match_gold(table(tmp_path), gold(tmp_path, model_a=a, model_b=b))
    words = str(refused.value)
    assert "40 judged pairs have gold, of which" in words
    assert "3 name the models the other way round, the first p0: y and x in gold" in words
    assert "1 name other models, the first p3: x and z in gold, x and y judged" in words
    assert "swap them and A and B" in words
    left_out = {"model_a": "", "model_b": ""}
    file = gold(tmp_path, model_a=a, model_b=b)
    assert len(match_gold(table(tmp_path), file, left_out).rows) == 40


def test_the_command_refuses_swapped_gold_unless_names_are_left_out(tmp_path):
    file = gold(tmp_path, model_a=["y"] * 40, model_b=["x"] * 40)
    line = ("evaluate", table(tmp_path).path, "--gold", file, "--replicates", 0)
    done = command(*line)
    assert done.returncode == 3
    assert "40 name the models the other way round" in done.stderr
    done = command(*line, "--gold-map", "model_a=")
    assert done.returncode == 0, done.stderr


def test_one_sided_gold_and_gold_of_ties_are_told(tmp_path):
    assert "gold names a in all 40 decided pairs" in notes(tmp_path, label=["A"] * 40)
    assert "names no side in any of 40 pairs" in notes(tmp_path, label=["tie"] * 40)
    assert "decided pairs" not in notes(tmp_path)


@pytest.mark.parametrize(("instructions", "told"), [(29, True), (30, False)])
def test_few_instructions_are_told(instructions, told, tmp_path):
    source = table(tmp_path, prompt_id=np.arange(40) % instructions)
    assert (f"gold: only {instructions} clusters" in notes(tmp_path, source)) == told


def test_annotations_follow_the_pairs_that_are_taken(tmp_path):
    ids, people = ["p1", "p2", "p2", "p5"], ["i", "i", "j", "j"]
    file = write(tmp_path, "g.parquet", pair_id=ids, annotator=people, label=["A", "B", "A", "tie"])
    matched = match_gold(table(tmp_path), file)
    kept = matched.take(np.array([False, True, True]))
    assert kept.rows.tolist() == [2, 5]
    found = kept.annotations
    assert (found.pairs.tolist(), found.classes.tolist()) == ([0, 0, 1], [1, 0, 2])
    assert [found.names[one] for one in found.annotators] == ["i", "j", "j"]


def test_pairs_without_a_calibrated_preference_are_left_out_of_both(tmp_path):
    values = [None, *np.linspace(0.2, 0.8, 39)]
    source = table(tmp_path, calibrated_preference=values)
    report = evaluate_source(source, gold(tmp_path), EvaluateOptions(replicates=20))
    assert any("1 of 40 pairs with gold have no calibrated_preference" in n for n in report.notes)
    whole = report.whole
    assert (whole.raw.pairs, whole.calibrated.pairs) == (39, 39)
    for name, change in whole.change.items():
        raw, made = whole.raw.estimates[name].value, whole.calibrated.estimates[name].value
        assert change.value == pytest.approx(made - raw, abs=1e-12)


def test_one_missing_value_costs_no_metric(tmp_path):
    p = np.linspace(0.1, 0.9, 40)
    full = {
        "preference_ab": [*p], "preference_ba": [*p], "label_mass_ab": [0.5] * 40,
        "label_mass_ba": [0.5] * 40, "tie": [0.1] * 40,
    }  # fmt: skip
    torn = {name: [None, *values[1:]] for name, values in full.items()}
    reports = [
        evaluate_source(table(tmp_path, **columns), gold(tmp_path), EvaluateOptions(replicates=0))
        for columns in (full, torn)
    ]
    kinds = [set(report.whole.raw.estimates) for report in reports]
    assert kinds[0] == kinds[1] >= {"consistency", "mass_shortfall", "first_position"}
    note = next(one for one in reports[1].notes if "lack" in one)
    for name in torn:
        assert f"{name} in 1 of 40" in note
    assert reports[1].whole.raw.estimates["mass_shortfall"].value == 0.5


@pytest.mark.parametrize("name", ["preference_ab", "preference_ba", "calibrated_preference"])
def test_what_is_no_probability_is_refused_by_name(name, tmp_path):
    source = table(tmp_path, **{name: [1.5] * 40})
    done = command("evaluate", source.path, "--gold", gold(tmp_path))
    assert done.returncode == 3
    assert f"40 of 40 rows: the {name} is outside [0, 1]" in done.stderr
