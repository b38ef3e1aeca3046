"""Lists of messages and transcripts become instruction, responses, earlier turns and system.

Kind of fault: a judge that is shown another conversation than the people who labelled it.
"""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from steelyard.errors import InputRefused
from steelyard.input import open_shards, stream
from steelyard.input.roles import RESPONSES
from steelyard.input.side_files import stream_responses

TEXTS = ("instruction", "response_a", "response_b", "system", "turns")


def said(role, content):
    return {"role": role, "content": content}


USER, BOT = (lambda text: said("user", text)), (lambda text: said("assistant", text))
SYSTEM = said("system", "s")


def read(tmp_path, rows, **options):
    path = tmp_path / "p.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    shards = open_shards([path], **options)
    good, bad = [], []
    for accepted, rejects in stream(shards):
        good += accepted.to_pylist()
        bad += rejects.to_pylist()
    return good, bad, shards


def pair(before, a="x", b="y"):
    return {"chosen": [*before, BOT(a)], "rejected": [*before, BOT(b)]}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (pair([USER("q")]), ("q", "x", "y", None, None)),
        (pair([SYSTEM, USER("q")]), ("q", "x", "y", "s", None)),
        (
            pair([SYSTEM, USER("q"), BOT("a"), USER("more")]),
            ("more", "x", "y", "s", [USER("q"), BOT("a")]),
        ),
        (pair([USER("q")], "same", "same"), ("q", "same", "same", None, None)),
        (pair([USER("q")], "", "y"), ("q", "", "y", None, None)),
        ({"prompt": "q", **pair([])}, ("q", "x", "y", None, None)),
        ({"prompt": [USER("q")], **pair([])}, ("q", "x", "y", None, None)),
        ({"prompt": " q\n", **pair([USER("q")])}, ("q", "x", "y", None, None)),
        (
            {"prompt": "q", **pair([SYSTEM, USER("q"), BOT("a"), USER("more")])},
            ("more", "x", "y", "s", [USER("q"), BOT("a")]),
        ),
        ({"prompt": [USER("q")], "chosen": "x", "rejected": "y"}, ("q", "x", "y", None, None)),
        ({"system": "s", **pair([USER("q")])}, ("q", "x", "y", "s", None)),
        ({"system": "s", **pair([SYSTEM, USER("q")])}, ("q", "x", "y", "s", None)),
        (
            {"turns": [USER("q"), BOT("a")], "prompt": "more", **pair([])},
            ("more", "x", "y", None, [USER("q"), BOT("a")]),
        ),
        (
            {
                "chosen": "\n\nHuman: q\n\nAssistant: a: b\n\nc",
                "rejected": "Human: q\n\nAssistant:",
            },
            ("q", "a: b\n\nc", "", None, None),
        ),
    ],
)
def test_conversations(row, expected, tmp_path):
    (read_row,), bad, _ = read(tmp_path, [row])
    assert not bad
    assert tuple(read_row[name] for name in TEXTS) == expected
    assert read_row["gold"] == {"a": 1.0, "b": 0.0, "tie": 0.0}


@pytest.mark.parametrize(
    ("row", "detail"),
    [
        ({"chosen": [USER("q"), BOT("x")], "rejected": [USER("z"), BOT("y")]},
         "chosen differs from the other response before its last message"),
        ({"chosen": [USER("q"), BOT("a"), USER("b"), BOT("x")],
          "rejected": [USER("q"), BOT("c"), USER("b"), BOT("y")]}, "differs from the other"),
        ({"chosen": [USER("q"), USER("x")], "rejected": [USER("q"), BOT("y")]},
         "chosen does not end with a message of the assistant"),
        ({"chosen": [BOT("x")], "rejected": [BOT("y")]}, "no message before the answer"),
        ({"chosen": [], "rejected": [USER("q"), BOT("y")]}, "chosen has no message"),
        (pair([SYSTEM]), "no message but the system's"),
        (pair([BOT("q")]), "does not end with a message of the user"),
        (pair([USER("q"), USER("r")]), "does not alternate"),
        (pair([said("tool", "q"), USER("r")]), "role other than user and assistant"),
        (pair([USER("q")], None), "ends with a message without content"),
        (pair([USER(None)]), "differs from the other response"),
        ({"chosen": None, "rejected": [USER("q"), BOT("y")]}, "chosen is null"),
        ({"prompt": "other", **pair([USER("q")])}, "prompt is not the prompt in the messages"),
        ({"system": "t", **pair([SYSTEM, USER("q")])}, "another system message"),
        ({"turns": [USER("q"), BOT("a")], **pair([USER("q"), BOT("a"), USER("r")])},
         "earlier turns are in turns and in the messages"),
        ({"chosen": [USER("q"), BOT("x") | {"tool_calls": ["f"]}],
          "rejected": [USER("q"), BOT("y")]}, "chosen calls a tool"),
    ],
)  # fmt: skip
def test_what_is_not_a_conversation_is_a_reject(row, detail, tmp_path):
    # The other row gives every column its type.
    keys = {key: [] for key in row if key == "turns"} | {x: None for x in row if x == "system"}
    other = pair([USER("q")]) | keys | ({"prompt": "q"} if "prompt" in row else {})
    good, bad, _ = read(tmp_path, [other, row])
    assert [row["row"] for row in good] == [0]
    assert [row["row"] for row in bad] == [1]
    assert detail in bad[0]["detail"]


def test_transcripts_are_told_from_texts_by_the_first_row(tmp_path):
    texts = {"chosen": "x", "rejected": "y"}
    with pytest.raises(InputRefused, match="no column for instruction"):
        read(tmp_path, [texts])
    transcript = {side: f"Human: q\n\nAssistant: {side}" for side in texts}
    good, bad, _ = read(tmp_path, [transcript, texts])
    assert [row["instruction"] for row in good] == ["q"]
    assert "chosen has no message" in bad[0]["detail"]


@pytest.mark.parametrize(
    ("row", "roles"),
    [
        ({"prompt": "q", "chosen": "x", "rejected": "y"}, ("chosen", "rejected", "chosen")),
        ({"prompt": "q", "chosen": "x", "rejected": "y", "label": "B"},
         ("chosen", "rejected", "label")),
        ({"prompt": "q", "chosen": "x", "rejected": "y", "response_a": "v", "response_b": "w"},
         ("response_a", "response_b", None)),
        ({"prompt": "q", "output_1": "x", "output_2": "y", "winner": "a"},
         ("output_1", "output_2", "winner")),
        ({"prompt": "q", "response_a": "x", "response_b": "y", "winner": "?"},
         ("response_a", "response_b", None)),
        ({"query": "q", "response_0": "x", "response_1": "y"}, ("response_0", "response_1", None)),
    ],
)  # fmt: skip
def test_names_of_both_sides(row, roles, tmp_path):
    _, bad, shards = read(tmp_path, [row])
    assert not bad
    assert tuple(map(shards.roles.get, ("response_a", "response_b", "gold"))) == roles


def test_gold_in_the_names_can_be_left_out(tmp_path):
    row = {"prompt": "q", "chosen": "x", "rejected": "y"}
    (read_row,), _, _ = read(tmp_path, [row], column_map={"gold": ""})
    assert read_row["gold"] is None


def test_several_pairs_of_responses_are_refused(tmp_path):
    row = {"prompt": "q", "response_0": "x", "response_1": "y", "response_2": "z"}
    with pytest.raises(InputRefused) as refused:
        read(tmp_path, [row])
    assert "may both be response_a and response_b" in refused.value.cause
    chosen = {"response_a": "response_0", "response_b": "response_2"}
    (read_row,), _, _ = read(tmp_path, [row], column_map=chosen)
    assert (read_row["response_a"], read_row["response_b"]) == ("x", "z")


@pytest.mark.parametrize("value", [{"z": 1}, [{"z": 1}], [1], [["x"]]])
def test_no_remedy_casts_a_struct_to_text(value, tmp_path):
    row = {"instruction": "q", "response_a": value, "response_b": "y"}
    with pytest.raises(InputRefused) as refused:
        read(tmp_path, [row])
    assert "has to be text, or a list of messages" in refused.value.cause
    assert "VARCHAR" not in refused.value.remedy
    assert "cast" not in refused.value.remedy


def test_responses_of_other_files_may_have_messages_as_instructions(tmp_path):
    rows = [{"prompt": [SYSTEM, USER("q")], "model": "m", "response": "r"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "r.parquet")
    (table,) = stream_responses(open_shards([tmp_path / "r.parquet"], None, RESPONSES))
    assert table.select(["instruction", "system", "response"]).to_pylist() == [
        {"instruction": "q", "system": "s", "response": "r"}
    ]
