"""Real layouts of pairs, each scored as it is and as plain Parquet: the verdicts are the same.

docs/inputs.md lists them.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, field

import datasets
import duckdb
import fsspec
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import steelyard
from steelyard.errors import InputRefused
from support.helpers import ROOT

ALL = ("system", "turns", "model_a", "model_b", "gold")


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


# What the rows are: plain Parquet has exactly these columns.
FLAT = [
    {
        "instruction": f"Name {3 + number // 2} rivers; the {number // 2}th is long.",
        "response_a": f"The Rhône, \"the Seine\"\nand {number} more.",
        "response_b": f"Rivers, {number}; I know few.",
        "system": "You know rivers." if number < 4 else None,
        "turns": [user("Hello?"), assistant(f"Hi {number // 2}.")] if number > 5 else [],
        "model_a": f"alpha-{number % 2}",
        "model_b": "beta",
        "gold": "ABA"[number % 3],
    }
    for number in range(8)
]  # fmt: skip
BETTER_FIRST = [row | {"gold": "A"} for row in FLAT]


def conversation(row, answer=None):
    messages = [{"role": "system", "content": row["system"]}] if row["system"] else []
    messages += [*row["turns"], user(row["instruction"])]
    return messages if answer is None else [*messages, assistant(answer)]


def transcript(row, answer):
    names = {"user": "Human", "assistant": "Assistant"}
    messages = [*row["turns"], user(row["instruction"]), assistant(answer)]
    return "".join(f"\n\n{names[x['role']]}: {x['content']}" for x in messages)


def sharegpt(message):
    names = {"user": "human", "assistant": "gpt"}
    return {"from": names.get(message["role"], message["role"]), "value": message["content"]}


def lines(path, rows, pack=lambda data: data):
    path.write_bytes(pack("".join(json.dumps(row) + "\n" for row in rows).encode()))
    return path


def parquet(path, rows):
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def array(path, rows):
    path.write_text(json.dumps(rows, ensure_ascii=False, indent=2), "utf-8")
    return path


def csv(path, rows, **options):
    pd.DataFrame(rows).to_csv(path, index=False, **options)
    return path


def table(path, rows):
    data = pa.Table.from_pylist(rows)  # noqa: F841 - DuckDB reads it by its name
    with duckdb.connect(str(path)) as connection:
        connection.sql("CREATE TABLE pairs AS SELECT * FROM data")
    return f"{path}::pairs"


@dataclass
class Layout:
    """How a table is written, and which of ALL it does not have."""

    file: str
    row: object  # a row -> its columns
    write: object = lines
    without: tuple[str, ...] = ()
    better_first: bool = False
    options: dict[str, object] = field(default_factory=dict)


def trl(row, *names):
    values = {
        "prompt": conversation(row),
        "text": row["instruction"],
        "chosen": conversation(row, row["response_a"]),
        "rejected": conversation(row, row["response_b"]),
    }
    return {name: values[name] for name in names}


ANSWERS = ("system", "turns", "model_a", "model_b")  # what tables of texts lack
LAYOUTS = {
    "Steelyard's own columns": Layout(
        "pairs.jsonl", lambda r: {k: v for k, v in r.items() if v is not None}
    ),
    "TRL preference": Layout(
        "trl.jsonl",
        lambda r: {"prompt": r["instruction"], "chosen": r["response_a"],
                   "rejected": r["response_b"]},
        without=ANSWERS, better_first=True,
    ),
    "TRL preference, messages": Layout(
        "trl.parquet",
        lambda r: {"prompt": conversation(r), "chosen": [assistant(r["response_a"])],
                   "rejected": [assistant(r["response_b"])]},
        parquet, ("model_a", "model_b"), better_first=True,
    ),
    "TRL preference, implicit prompt": Layout(
        "implicit.jsonl", lambda r: trl(r, "chosen", "rejected"),
        without=("model_a", "model_b"), better_first=True,
    ),
    "UltraFeedback, binarized": Layout(
        "train_prefs.parquet",
        lambda r: {"prompt": r["instruction"], "prompt_id": "00ab",
                   "messages": conversation(r, r["response_a"]), "score_chosen": 8.5,
                   "score_rejected": 7.0} | trl(r, "chosen", "rejected"),
        parquet, ("model_a", "model_b"), better_first=True,
    ),
    "Tulu 3 preference": Layout(
        "tulu.jsonl.gz",
        lambda r: trl(r, "chosen", "rejected") | {
                   "id": "x", "source": "s", "prompt": r["instruction"],
                   "chosen_model": r["model_a"], "rejected_model": r["model_b"]},
        lambda path, rows: lines(path, rows, gzip.compress), better_first=True,
    ),
    "HH-RLHF": Layout(
        "train.jsonl.gz",
        lambda r: {"chosen": transcript(r, r["response_a"]),
                   "rejected": transcript(r, r["response_b"])},
        lambda path, rows: lines(path, rows, gzip.compress),
        ("system", "model_a", "model_b"), better_first=True,
    ),
    "Chatbot Arena conversations": Layout(
        "arena.parquet",
        lambda r: {"question_id": "q", "model_a": r["model_a"], "model_b": r["model_b"],
                   "winner": "model_" + r["gold"].lower(), "judge": "arena_user_7",
                   "conversation_a": conversation(r, r["response_a"]),
                   "conversation_b": conversation(r, r["response_b"]), "turn": 1,
                   "anony": True, "language": "English", "tstamp": 1682351591.1},
        parquet,
    ),
    "MT-bench human judgments": Layout(
        "human.json",
        lambda r: {"question_id": 81, "model_a": r["model_a"], "model_b": r["model_b"],
                   "winner": "model_" + r["gold"].lower(), "judge": "author_2", "turn": 1,
                   "conversation_a": conversation(r, r["response_a"]),
                   "conversation_b": conversation(r, r["response_b"])},
        array,
    ),
    "ShareGPT pairs (LLaMA-Factory)": Layout(
        "dpo.json",
        lambda r: {"conversations": [sharegpt(x) for x in conversation(r)],
                   "chosen": sharegpt(assistant(r["response_a"])),
                   "rejected": sharegpt(assistant(r["response_b"]))},
        array, ("model_a", "model_b"), better_first=True,
    ),
    "AlpacaEval annotations": Layout(
        "annotations.json",
        lambda r: {"instruction": r["instruction"], "output_1": r["response_a"],
                   "generator_1": r["model_a"], "dataset": "helpful_base",
                   "output_2": r["response_b"], "generator_2": r["model_b"],
                   "annotator": "gpt4", "preference": 1.0},
        array, ("system", "turns", "gold"),
    ),
    "PKU-SafeRLHF": Layout(
        "safe.jsonl",
        lambda r: {"prompt": r["instruction"], "response_0": r["response_a"],
                   "response_1": r["response_b"], "is_response_0_safe": False,
                   "better_response_id": 1, "safer_response_id": 1},
        without=(*ANSWERS, "gold"),
    ),
    "HelpSteer2 preference": Layout(
        "preference.jsonl.gz",
        lambda r: {"prompt": r["instruction"], "response_1": r["response_a"],
                   "response_2": r["response_b"], "preference_strength": -2,
                   "all_preferences_unprocessed": [{"strength": -2, "justification": "j"}]},
        lambda path, rows: lines(path, rows, gzip.compress), (*ANSWERS, "gold"),
    ),
    "HelpSteer3": Layout(
        "helpsteer3.jsonl",
        lambda r: {"domain": "general", "context": conversation(r), "response1": r["response_a"],
                   "response2": r["response_b"], "overall_preference": 2},
        without=("model_a", "model_b", "gold"),
    ),
    "RewardBench": Layout(
        "filtered.parquet",
        lambda r: {"prompt": r["instruction"], "chosen": r["response_a"],
                   "chosen_model": r["model_a"], "rejected": r["response_b"],
                   "rejected_model": r["model_b"], "subset": "alpacaeval-easy", "id": 7},
        parquet, ("system", "turns"), better_first=True,
    ),
    "JudgeBench": Layout(
        "gpt.jsonl",
        lambda r: {"original_id": "i", "source": "mmlu", "question": r["instruction"],
                   "response_model": "gpt", "response_A": r["response_a"],
                   "response_B": r["response_b"],
                   "label": {"A": "A>B", "B": "B>A"}[r["gold"]]},
        without=ANSWERS,
    ),
    "LLMBar": Layout(
        "dataset.json",
        lambda r: {"input": r["instruction"], "output_1": r["response_a"],
                   "output_2": r["response_b"], "label": 1},
        array, (*ANSWERS, "gold"), options={"map": {"gold": ""}},
    ),
    "Orca DPO pairs": Layout(
        "orca.jsonl",
        lambda r: {"system": r["system"], "question": r["instruction"], "chosen": r["response_a"],
                   "rejected": r["response_b"]},
        without=("turns", "model_a", "model_b"), better_first=True,
    ),
    "StackExchange pairs": Layout(
        "stack.parquet",
        lambda r: {"qid": 4, "question": r["instruction"], "date": "2011/01/01",
                   "metadata": ["https://example.org"], "response_j": r["response_a"],
                   "response_k": r["response_b"]},
        parquet, ANSWERS, better_first=True,
    ),
    "CSV": Layout(
        "pairs.csv", lambda r: {k: v for k, v in r.items() if k != "turns"}, csv, ("turns",)
    ),
    "CSV of a spreadsheet (UTF-16, semicolons)": Layout(
        "sheet.csv", lambda r: {k: v for k, v in r.items() if k != "turns"},
        lambda path, rows: csv(path, rows, sep=";", encoding="utf-16"), ("turns",),
    ),
    "TSV, packed": Layout(
        "pairs.tsv.gz", lambda r: {k: v for k, v in r.items() if k != "turns"},
        lambda path, rows: csv(path, rows, sep="\t"), ("turns",),
    ),
    "Folder of JSON Lines with partitions": Layout(
        "folder", lambda r: r,
        lambda path, rows: ((path / "split=x").mkdir(parents=True),
                            lines(path / "split=x" / "0.jsonl", rows), path)[-1],
    ),
    "datasets.save_to_disk": Layout(
        "saved", lambda r: r,
        lambda path, rows: (datasets.Dataset.from_list(rows).save_to_disk(path), path)[-1],
    ),
    "DatasetDict with one split": Layout(
        "splits", lambda r: r,
        lambda path, rows: (datasets.DatasetDict(
            {"train": datasets.Dataset.from_list(rows)}).save_to_disk(path), path)[-1],
    ),
    "Feather of polars": Layout(
        "pairs.feather", lambda r: r,
        lambda path, rows: (pl.DataFrame(rows).write_ipc(path), path)[-1],
    ),
    "DuckDB table": Layout("store.duckdb", lambda r: r, table),
    "fsspec address": Layout(
        "pairs.jsonl", lambda r: r,
        lambda path, rows: (fsspec.filesystem("memory").pipe(
            "/layouts/pairs.jsonl", lines(path, rows).read_bytes()),
            "memory://layouts/pairs.jsonl")[-1],
    ),
    "list of dictionaries": Layout("", lambda r: r, lambda _, rows: rows),
    "pandas DataFrame": Layout("", lambda r: r, lambda _, rows: pd.DataFrame(rows)),
    "polars DataFrame": Layout("", lambda r: r, lambda _, rows: pl.DataFrame(rows)),
    "pyarrow.Table": Layout("", lambda r: r, lambda _, rows: pa.Table.from_pylist(rows)),
    "pyarrow.RecordBatchReader": Layout(
        "", lambda r: r, lambda _, rows: pa.Table.from_pylist(rows).to_reader()
    ),
    "datasets.Dataset": Layout("", lambda r: r, lambda _, rows: datasets.Dataset.from_list(rows)),
}  # fmt: skip


VERDICTS = """
SELECT "row", pair_id, raw_preference, preference_ab, preference_ba, gold, model_a, model_b
FROM verdicts ORDER BY "row"
"""


def verdicts(data, run, **options):
    done = steelyard.score(data, run=run, judge="scripted", **options)
    return done.sql(VERDICTS).to_pylist()


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Verdicts of plain Parquet, by the columns that it lacks and whose gold it is."""
    known = {}

    def ask(layout):
        key = (layout.without, layout.better_first)
        if key not in known:
            rows = BETTER_FIRST if layout.better_first else FLAT
            rows = [{k: v for k, v in row.items() if k not in layout.without} for row in rows]
            folder = tmp_path_factory.mktemp("plain")
            known[key] = verdicts(parquet(folder / "p.parquet", rows), folder / "run")
        return known[key]

    return ask


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_has_the_verdicts_of_plain_parquet(name, plain, tmp_path):
    layout = LAYOUTS[name]
    data = layout.write(tmp_path / layout.file, [layout.row(row) for row in FLAT])
    expected = plain(layout)
    assert len(expected) == 8
    assert verdicts(data, tmp_path / "run", **layout.options) == expected


def test_the_documents_list_the_layouts():
    page = (ROOT / "docs/inputs.md").read_text("utf-8")
    assert not [name for name in LAYOUTS if f"| {name} |" not in page]
    assert len(LAYOUTS) >= 25


@pytest.mark.parametrize("form", ["plain", "conversational"])
@pytest.mark.parametrize("kind", ["preference", "reward"])
def test_exported_pairs_can_be_scored_again(kind, form, tmp_path):
    rows = [{k: v for k, v in row.items() if k not in ("turns", "system")} for row in FLAT]
    first = steelyard.score(rows, run=tmp_path / "first", judge="scripted")
    first.export(tmp_path / "out", kind, form=form)
    again = steelyard.score(tmp_path / "out" / "data", run=tmp_path / "again", judge="scripted")
    asked = again.sql("SELECT pair_id, gold.a AS better, model_a FROM verdicts").to_pylist()
    assert len(asked) == 8
    old = {row["pair_id"]: row for row in first.sql("SELECT * FROM verdicts").to_pylist()}
    for row in asked:
        before = old[row["pair_id"]]
        assert row["better"] == 1
        assert row["model_a"] == before[f"model_{before['winner']}"]


@pytest.mark.parametrize("kind", ["sft", "kto"])
def test_exported_single_responses_say_what_is_missing(kind, tmp_path):
    rows = [{k: v for k, v in row.items() if k not in ("turns", "system")} for row in FLAT]
    first = steelyard.score(rows, run=tmp_path / "first", judge="scripted")
    first.export(tmp_path / "out", kind)
    with pytest.raises(InputRefused, match="no column for response_a"):
        steelyard.score(tmp_path / "out" / "data", run=tmp_path / "again", judge="scripted")
