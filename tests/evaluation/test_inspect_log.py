"""An evaluation as Inspect's log: its samples add up to its metrics, and Inspect reads it."""

from __future__ import annotations

import json
import os
import subprocess

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import steelyard
from steelyard.comparisons.importing import import_tables
from steelyard.evaluation import inspect_log
from support.helpers import command, pairs_table

READ = """
import sys
from inspect_ai.log import read_eval_log
log = read_eval_log(sys.argv[1])
assert read_eval_log(sys.argv[1], header_only=True).results.total_samples == len(log.samples)
first = log.samples[0]
metric = log.results.scores[0].metrics["agreement"].value
right = sum(sample.scores["raw"].value == "C" for sample in log.samples)
print(log.status, len(log.samples), metric == right / len(log.samples))
print(first.target, first.output.completion, first.choices, first.input[-1].text)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Eight pairs, of which six agree with gold."""
    place = tmp_path_factory.mktemp("inspect")
    table = pa.table(
        {
            "pair_id": [f"p{n}" for n in range(8)],
            "instruction": [f"question {n}" for n in range(8)],
            "response_a": [f"first {n}" for n in range(8)],
            "response_b": [f"second {n}" for n in range(8)],
            "model_a": ["m"] * 8,
            "model_b": ["n"] * 8,
            "preference": [0.9, 0.8, 0.7, 0.6, 0.4, 0.3, 0.2, 0.5],
            "gold": ["A", "A", "A", "B", "B", "B", "A", "tie"],
        }
    )
    pq.write_table(table, place / "t.parquet")
    assert import_tables([str(place / "t.parquet")], place / "run") == 0
    return place / "run"


def written(folder, *arguments):
    out = folder / "log.json"
    done = command("evaluate", *arguments, "--replicates", 0, "--inspect-log", out)
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text("utf-8")), done.stderr


def test_samples_and_metrics(run, tmp_path):
    log, _ = written(tmp_path, run)
    assert (log["version"], log["status"], log["eval"]["model"]) == (2, "success", "imported")
    assert log["results"]["scores"][0]["metrics"]["agreement"]["value"] == 0.75
    assert [sample["scores"]["raw"]["value"] for sample in log["samples"]] == list("CCCICCIC")
    fourth = log["samples"][3]
    assert (fourth["id"], fourth["target"]) == ("p3", "B")
    assert fourth["output"]["choices"][0]["message"]["content"] == "A"
    assert fourth["input"] == [{"role": "user", "content": "question 3"}]
    assert fourth["choices"] == ["first 3", "second 3"]
    assert fourth["metadata"]["raw_preference"] == 0.6
    assert fourth["metadata"]["votes"] == {"A": 0, "B": 1, "tie": 0}
    assert log["samples"][7]["target"] == "tie"


def test_gold_of_a_file_is_of_its_pairs_alone(run, tmp_path):
    pq.write_table(pa.table({"id": ["p6", "p1"], "says": ["B", "B"]}), tmp_path / "g.parquet")
    gold = ("--gold", tmp_path / "g.parquet", "--gold-map", "pair_id=id", "--gold-map", "gold=says")
    log, _ = written(tmp_path, run, *gold)
    assert {s["id"]: s["scores"]["raw"]["value"] for s in log["samples"]} == {"p1": "I", "p6": "C"}
    assert log["eval"]["dataset"]["samples"] == 2


def test_calibrated_verdicts_have_their_own_score(tmp_path):
    table = pairs_table(60).append_column("gold", pa.array(["A", "B", "A"] * 20))
    pq.write_table(table, tmp_path / "p.parquet")
    run = steelyard.score(tmp_path / "p.parquet", run=tmp_path / "run", judge="scripted")
    run.calibrate(out=tmp_path / "c.json", method="platt")
    log, _ = written(tmp_path, run.root)
    for score in log["results"]["scores"]:
        right = [sample["scores"][score["name"]]["value"] == "C" for sample in log["samples"]]
        assert score["metrics"]["agreement"]["value"] == pytest.approx(sum(right) / 60)
    assert [score["name"] for score in log["results"]["scores"]] == ["raw", "calibrated"]


def test_texts_that_are_gone_and_samples_that_are_too_many_are_noted(tmp_path, monkeypatch):
    monkeypatch.setattr(inspect_log, "MOST_SAMPLES", 4)
    table = pairs_table(6).append_column("gold", pa.array(["A", "B"] * 3))
    pq.write_table(table, tmp_path / "p.parquet")
    run = steelyard.score(tmp_path / "p.parquet", run=tmp_path / "run", judge="scripted")
    (tmp_path / "p.parquet").unlink()
    log, words = written(tmp_path, run.root)
    assert "the log has no texts" in words
    assert "the first 4 of 6 pairs" in words
    assert len(log["samples"]) == 4
    assert log["results"]["total_samples"] == 6
    assert log["samples"][0]["input"].startswith("pair ")


def test_a_table_of_another_tool(tmp_path):
    table = pa.table({"pair_id": ["x", "y"], "p": [0.2, 0.9], "gold": ["B", "B"]})
    pq.write_table(table, tmp_path / "t.parquet")
    log, _ = written(tmp_path, tmp_path / "t.parquet", "--preference", "p")
    assert [(s["id"], s["scores"]["raw"]["value"]) for s in log["samples"]] == [
        ("x", "C"), ("y", "I"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "words"), [("log.txt", "end with .json"), ("there.json", "not an earlier result")]
)
def test_refused_before_anything_is_computed(run, tmp_path, name, words):
    (tmp_path / "there.json").write_text("[1]")
    done = command("evaluate", run, "--inspect-log", tmp_path / name)
    assert done.returncode == 2
    assert words in done.stderr
    assert (tmp_path / "there.json").read_text() == "[1]"


def test_inspect_reads_it(run, tmp_path):
    python = os.environ.get("STEELYARD_INSPECT")
    if not python:
        pytest.skip("STEELYARD_INSPECT names no Python with inspect_ai; .ci/run does")
    written(tmp_path, run)
    done = subprocess.run([python, "-c", READ, str(tmp_path / "log.json")], text=True,
                          capture_output=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "success 8 True",
        "A A ['first 0', 'second 0'] question 0",
    ]
