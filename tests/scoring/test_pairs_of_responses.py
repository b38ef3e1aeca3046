"""Rows of one response each become pairs: those that would be written out, with both places."""

from __future__ import annotations

import itertools
import json
import math
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import steelyard
from steelyard.errors import EXIT_USAGE, IntegrityFault
from steelyard.input import shardset
from steelyard.report.live_run import LiveRun
from steelyard.report.samples import read_pairs
from steelyard.scoring.run import resume
from steelyard.store.run_record import read_record
from steelyard.store.rundir import RunDir
from support.helpers import command, rows

SMALL = {"judge": "scripted", "bucket_bytes": 600}
MODELS = ("ada", "bob", "cyd", "dan")


def responses(questions=20):
    return [
        {
            "instruction": f"question {q}",
            "model": model,
            "response": f"{model} answers {q} " * (n + 1),
            "cost": 10 * q + n,
        }
        for q in range(questions)
        for n, model in enumerate(MODELS)
    ]


def written_out(listed):
    """The pairs of responses to the same instruction, as rows."""
    return [
        {
            "instruction": a["instruction"],
            "response_a": a["response"], "model_a": a["model"],
            "response_b": b["response"], "model_b": b["model"],
        }
        for a, b in itertools.combinations(listed, 2)
        if a["instruction"] == b["instruction"]
    ]  # fmt: skip


def write(path, listed, size=13):
    pq.write_table(pa.Table.from_pylist(listed), path, row_group_size=size)
    return path


def lists(listed):
    """The same responses in a list of structs per row, as UltraFeedback has them."""
    grouped = itertools.groupby(listed, key=lambda row: row["instruction"])
    return [
        {
            "prompt": instruction,
            "completions": [{"model": x["model"], "response": x["response"], "n": 1} for x in each],
        }
        for instruction, each in grouped
    ]


def texts_and_models(listed):
    """The same in a list of texts and one of models."""
    return [
        {
            "instruction": row["prompt"],
            "generations": [x["response"] for x in row["completions"]],
            "models": [x["model"] for x in row["completions"]],
        }
        for row in lists(listed)
    ]


def shuffled(listed):
    return random.Random(1).sample(listed, len(listed))


LAYOUTS = {
    "grouped": responses, "shuffled": lambda: shuffled(responses()),
    "lists": lambda: lists(responses()), "texts": lambda: texts_and_models(responses()),
}  # fmt: skip


def verdicts(run):
    """What verdicts say, whichever response is a."""
    said = {}
    query = "SELECT model_a, model_b, raw_preference, keys, instruction_id FROM verdicts"
    for row in run.sql(query).to_pylist():
        p, key = row["raw_preference"], frozenset(row["keys"])
        if row["model_a"] > row["model_b"]:
            row["model_a"], row["model_b"], p = row["model_b"], row["model_a"], 1 - p
        said[row["instruction_id"], row["model_a"], row["model_b"]] = (round(p, 12), key)
    return said


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    write(folder / "pairs.parquet", written_out(responses()))
    return steelyard.score(folder / "pairs.parquet", run=folder / "run", **SMALL)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pairs_are_those_that_were_written_out(layout, reference, tmp_path):
    path = write(tmp_path / "responses.parquet", LAYOUTS[layout]())
    run = steelyard.score(path, run=tmp_path / "run", pairs="all", **SMALL)
    assert verdicts(run) == verdicts(reference)
    assert len(verdicts(run)) == 20 * 6
    if layout != "shuffled":  # there the sides differ
        ids = "SELECT pair_id, model_a, model_b FROM verdicts ORDER BY ALL"
        assert run.sql(ids) == reference.sql(ids)
    plan = json.loads((tmp_path / "run" / "plan" / "plan.json").read_text())
    assert bool(plan["ranges"]) == (layout != "shuffled")
    names = {path.name.split("-")[0] for path in (tmp_path / "run" / "plan").iterdir()}
    assert names == ({"bucket", "texts", "pairs", "plan.json"} if layout == "shuffled"
                     else {"pairs", "plan.json"})  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_texts_are_those_of_the_two_rows(layout, tmp_path):
    path = write(tmp_path / "responses.parquet", LAYOUTS[layout]())
    run = steelyard.score(path, run=tmp_path / "run", pairs="random=2", **SMALL)
    shown, notes = read_pairs(tmp_path / "run", (), {"any": 40})
    assert not notes
    assert len(shown["any"]) == 40
    for pair in shown["any"]:
        question = pair["texts"]["instruction"].split()[-1]
        for side in "ab":
            text = pair["texts"][f"response_{side}"]
            assert text.startswith(f"{pair[f'model_{side}']} answers {question} ")
    live = LiveRun(tmp_path / "run")
    for pair in shown["any"][:3]:
        texts = live.pair({"shard": pair["shard"], "row": str(pair["row"])})["texts"]
        assert texts["response_b"] == pair["texts"]["response_b"]
    live.close()
    assert (
        f"(pair {shown['any'][0]['row']})" in command("show", tmp_path / "run", "--any", 1).stdout
    )
    out = run.export(tmp_path / "out", "preference")
    assert (
        out["counts"]["rows"] == {"train": 40} if "counts" in out else out["rows"] == {"train": 40}
    )
    (file,) = sorted((tmp_path / "out").rglob("*.parquet"))
    for row in pq.read_table(file).to_pylist():
        question = row["prompt"][0]["content"].split()[-1]
        for side in ("chosen", "rejected"):
            said = row[side][0]["content"]
            assert said.startswith(f"{row[f'{side}_model']} answers {question} ")


@pytest.mark.parametrize("layout", ["shuffled", "lists"])
def test_lines_of_json_make_the_same_pairs(layout, reference, tmp_path):
    path = tmp_path / "responses.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in LAYOUTS[layout]()))
    run = steelyard.score(path, run=tmp_path / "run", pairs="all", **SMALL)
    assert verdicts(run) == verdicts(reference)
    path.unlink()  # the texts are in the run
    shown, notes = read_pairs(tmp_path / "run", (), {"any": 3})
    assert not notes
    assert all("answers" in pair["texts"]["response_b"] for pair in shown["any"])


def test_metadata_and_addresses_of_both_rows(tmp_path):
    listed = responses(2)
    write(tmp_path / "responses.parquet", listed)
    steelyard.score(tmp_path / "responses.parquet", run=tmp_path / "run", pairs="adjacent", **SMALL)
    found = rows(
        tmp_path / "run",
        'SELECT shard, "row", metadata.read_from_a.row AS a, metadata.read_from_b.row AS b,'
        ' metadata.cost_a AS x, metadata.cost_b AS y FROM verdicts ORDER BY "row"',
    )
    places = [(0, 1), (1, 2), (2, 3), (4, 5), (5, 6), (6, 7)]
    assert [(row["a"], row["b"]) for row in found] == places
    assert [(row["x"], row["y"]) for row in found] == [
        (listed[a]["cost"], listed[b]["cost"]) for a, b in places
    ]
    assert {row["shard"] for row in found} == {"(pairs)"}
    assert [row["row"] for row in found] == list(range(6))


def test_repeated_and_single_responses_are_left_out_and_counted(tmp_path):
    listed = responses(2)
    again = {**listed[0], "cost": 5}
    lonely = {**listed[0], "instruction": "another one"}
    other = {**listed[0], "response": "a second answer of ada"}
    write(tmp_path / "in.parquet", [*listed[:4], again, other, lonely, *listed[4:]])
    line = ("score", tmp_path / "in.parquet", "--judge", "scripted", "--run", tmp_path / "run")
    done = command(*line, "--pairs", "all")
    assert done.returncode == 0, done.stderr
    assert "1 responses have the model and the text of an earlier one" in done.stderr
    assert "1 responses are compared with no other one" in done.stderr
    # 6 pairs of each question, and 3 of ada's second answer with the other models.
    assert rows(tmp_path / "run", "SELECT count(*) AS n FROM verdicts") == [{"n": 15}]


def test_responses_in_other_contexts_are_not_compared(tmp_path):
    listed = [{**row, "system": f"be {row['model'] < 'c'}"} for row in responses(3)]
    path = write(tmp_path / "in.parquet", listed)
    run = steelyard.score(path, run=tmp_path / "run", pairs="all", **SMALL)
    pairs = run.sql("SELECT DISTINCT model_a, model_b FROM verdicts ORDER BY 1").to_pylist()
    assert [tuple(pair.values()) for pair in pairs] == [("ada", "bob"), ("cyd", "dan")]


def test_a_baseline_that_has_no_response(tmp_path):
    path = write(tmp_path / "in.parquet", responses(2))
    line = ("score", path, "--judge", "scripted", "--run", tmp_path / "run", "--pairs")
    done = command(*line, "baseline=nobody")
    assert done.returncode == EXIT_USAGE
    assert "no response is by nobody" in done.stderr
    assert command(*line, "baseline=cyd").returncode == 0
    sides = rows(tmp_path / "run", "SELECT DISTINCT model_b FROM verdicts")
    assert sides == [{"model_b": "cyd"}]


@pytest.mark.parametrize("layout", ["grouped", "lists"])
def test_without_a_rule_the_rules_and_their_pairs_are_named(layout, tmp_path):
    path = write(tmp_path / "in.parquet", LAYOUTS[layout]())
    done = command("score", path, "--judge", "scripted", "--run", tmp_path / "run")
    assert done.returncode == EXIT_USAGE
    assert "--pairs all (120 pairs)" in done.stderr
    assert "--pairs adjacent (60 pairs)" in done.stderr
    assert not (tmp_path / "run").exists()
    scored = command("plan", path, "--judge", "scripted", "--protocol", "pointwise")
    assert (scored.returncode == 0) == (layout == "grouped")
    assert ("--pairs none scores each" in scored.stderr) == (layout == "lists")


@pytest.mark.parametrize("layout", ["grouped", "shuffled"])
@pytest.mark.parametrize("part", ["limit", "sample"])
def test_a_part_is_of_whole_instructions(layout, part, tmp_path):
    path = write(tmp_path / "in.parquet", LAYOUTS[layout]())
    options = {"pairs": "all", part: 3, **SMALL}
    runs = [steelyard.score(path, run=tmp_path / name, **options) for name in "xy"]
    counts = "SELECT instruction_id, count(*) AS n FROM verdicts GROUP BY 1 ORDER BY 1"
    first, again = (run.sql(counts).to_pylist() for run in runs)
    assert first == again
    assert [row["n"] for row in first] == [6, 6, 6]
    assert "3 instructions" in command("status", tmp_path / "x").stdout.splitlines()[0]


def test_a_run_is_finished_later_from_the_same_plan(tmp_path):
    path = write(tmp_path / "in.parquet", responses())
    whole = steelyard.score(path, run=tmp_path / "whole", pairs="all", **SMALL)
    run = tmp_path / "run"
    steelyard.score(path, run=run, pairs="all", **SMALL, part_rows=40)
    forget_parts(run)
    assert command("resume", run).returncode == 0
    assert verdicts(steelyard.open_run(run)) == verdicts(whole)


def test_a_row_that_changed_after_the_plan(tmp_path, monkeypatch):
    listed = responses()
    path = write(tmp_path / "in.parquet", listed)
    steelyard.score(path, run=tmp_path / "run", pairs="all", **SMALL, part_rows=40)
    forget_parts(tmp_path / "run")
    write(path, [{**row, "response": row["response"].upper()} for row in listed])
    before = read_record(RunDir(tmp_path / "run")).input.fingerprint
    monkeypatch.setattr(shardset, "_fingerprint", lambda _: before)
    with pytest.raises(IntegrityFault, match="the row has changed"):
        resume(tmp_path / "run")


def forget_parts(run):
    """Leave a run with its first part, as if it had been stopped there."""
    log = (run / "journal.jsonl").read_text().splitlines(keepends=True)
    (run / "journal.jsonl").write_text(log[0])
    parts = sorted((run / "reads").glob("*.parquet"))
    assert len(parts) > 2
    for part in parts[1:]:
        part.unlink()
    (run / "verdicts.duckdb").unlink()


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("protocol", ["pointwise", "rubric"])
def test_scores_of_single_responses_are_compared(protocol, tmp_path):
    path = write(tmp_path / "in.parquet", responses(30))
    options = {}
    if protocol == "rubric":
        criteria = tmp_path / "criteria.toml"
        criteria.write_text('criteria = ["It is right.", "It is short."]')
        options = {"criteria": str(criteria)}
    run = steelyard.score(path, run=tmp_path / "run", protocol=protocol, **SMALL, **options)
    scores = {
        (row["instruction_id"], row["model_a"]): row["score_a"]
        for row in run.sql("SELECT instruction_id, model_a, score_a FROM verdicts").to_pylist()
    }
    questions = {question for question, _ in scores}

    def rate(a, b):
        wins = [sigmoid(scores[q, a] - scores[q, b]) for q in questions]
        return sum(wins) / len(wins)

    end = command("resume", tmp_path / "run").stdout
    assert "a is better" not in end  # each response was alone
    assert "of 90 comparisons" in end
    done = command("winrate", tmp_path / "run", "--baseline", "bob", "--json")
    assert done.returncode == 0, done.stderr
    rates = {
        row["competitor"]: row["win_rate"]["value"] for row in json.loads(done.stdout)["win_rates"]
    }
    assert rates == pytest.approx({m: rate(m, "bob") for m in MODELS if m != "bob"})
    ranked = json.loads(command("rank", tmp_path / "run", "--json").stdout)
    means = {m: sum(rate(m, o) for o in MODELS if o != m) / 3 for m in MODELS}
    got = {row["competitor"]: row["average_win_rate"] for row in ranked["ranking"]}
    assert got == pytest.approx(means)


def test_datasets_from_scores_take_the_best_and_the_worst(tmp_path):
    path = write(tmp_path / "in.parquet", shuffled(responses(15)))
    run = steelyard.score(path, run=tmp_path / "run", protocol="pointwise", **SMALL)
    empty = command("sql", run.root, "SELECT * FROM leaderboard")
    assert "the view leaderboard is empty: it compares the two responses of a pair" in empty.stderr
    assert "steelyard rank" in empty.stderr
    assert "note:" not in command("sql", run.root, "SELECT * FROM verdicts").stderr
    listed = run.sql("SELECT model_a, score_a, instruction_id FROM verdicts").to_pylist()
    for kind, columns in (("preference", ("chosen", "rejected")), ("sft", ("completion",))):
        run.export(tmp_path / kind, kind, **({"select": "best-worst"} if kind != "sft" else {}))
        (file,) = sorted((tmp_path / kind).rglob("*.parquet"))
        table = pq.read_table(file).to_pylist()
        assert len(table) == 15
        by_question = {}
        for row in listed:
            by_question.setdefault(row["instruction_id"], []).append(
                (row["score_a"], row["model_a"])
            )
        best = sorted(max(each)[1] for each in by_question.values())
        assert sorted(row[columns[0]][0]["content"].split()[0] for row in table) == best
        if "rejected" in columns:
            worst = sorted(min(each)[1] for each in by_question.values())
            assert sorted(row["rejected"][0]["content"].split()[0] for row in table) == worst


def test_lists_are_scored_one_by_one(tmp_path):
    path = write(tmp_path / "lists.parquet", lists(responses(10)))
    run = steelyard.score(path, run=tmp_path / "run", protocol="pointwise", pairs="none", **SMALL)
    plain = steelyard.score(
        write(tmp_path / "plain.parquet", responses(10)),
        run=tmp_path / "plain", protocol="pointwise", **SMALL,
    )  # fmt: skip
    query = "SELECT model_a, instruction_id, score_a FROM verdicts ORDER BY ALL"
    assert run.sql(query) == plain.sql(query)
    ranks = [command("rank", tmp_path / name).stdout for name in ("run", "plain")]
    assert ranks[0] == ranks[1] != ""
    assert run.export(tmp_path / "a", "sft")["rows"] == plain.export(tmp_path / "b", "sft")["rows"]
