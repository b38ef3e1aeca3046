"""Kind of fault: turns that do not alternate."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steelyard.core.schemas import REJECTS
from steelyard.errors import InputRefused, UsageError
from steelyard.input import Limits, open_shards, stream
from steelyard.input.problems import Reason
from support.shard_files import not_utf8, pairs, read, write

Rows = list[dict[str, Any]]


def split(tmp_path: Path, rows: int = 3, limits: dict[str, Any] | None = None, **columns):
    shards = open_shards([write(tmp_path / "p.parquet", pairs(rows, **columns))])
    return read(shards, **(limits or {}))


def only_reject(tmp_path: Path, **columns) -> dict[str, Any]:
    """The one reject of three rows, of which the middle one is bad."""
    good, bad = split(tmp_path, **columns)
    assert [row["row"] for row in good] == [0, 2]
    assert len(bad) == 1
    assert bad[0]["row"] == 1
    assert bad[0]["shard"] == "p.parquet"
    return bad[0]


@pytest.mark.parametrize("column", ["instruction", "response_a", "response_b"])
def test_required_texts_have_to_be_there(tmp_path: Path, column: str) -> None:
    reject = only_reject(tmp_path, **{column: ["x", None, "z"]})
    assert (reject["reason"], reject["detail"]) == ("null", f"{column} is null")


@pytest.mark.parametrize("text", ["", " \t\r\n", "\u00a0\u2003\u3000"])
def test_an_instruction_has_to_say_something(tmp_path: Path, text: str) -> None:
    reject = only_reject(tmp_path, instruction=["x", text, "z"])
    detail = "instruction is empty or white space only"
    assert (reject["reason"], reject["detail"]) == ("empty", detail)


@pytest.mark.parametrize("text", [" x", "\nx", "\u00a0x", "é", "x\0y", "\0", "\u200b", "😀"])
def test_texts_with_anything_in_them_are_kept_as_they_are(tmp_path: Path, text: str) -> None:
    good, bad = split(tmp_path, response_a=[text] * 3)
    assert [row["response_a"] for row in good] == [text] * 3
    assert not bad


def test_empty_responses_are_kept(tmp_path: Path) -> None:
    columns = {"instruction": ["x", "", "z"], "response_a": ["", "x", " "]}
    good, bad = split(tmp_path, **columns)
    assert [row["response_a"] for row in good] == ["", " "]
    assert [row["row"] for row in bad] == [1]


@pytest.mark.parametrize(
    "column",
    ["instruction", "response_b", "system", "reference", "model_a", "model_b", "meta", "label"],
)
def test_texts_that_are_not_utf8_are_rejected_wherever_they_are(tmp_path, column) -> None:
    first, last = (b"A", b"B") if column == "label" else ("é".encode(), b"z")
    reject = only_reject(tmp_path, **{column: not_utf8([first, b"abc\xff\xfe\x1b", last])})
    assert reject["reason"] == "utf8"
    assert reject["detail"] == rf"{column} is not UTF-8: from byte 3 on \xff\xfe\x1b"


def test_nested_texts_that_are_not_utf8_are_rejected(tmp_path: Path) -> None:
    items = not_utf8([b"a", b"b", b"\xed\xa0\x80", b"d"])
    lists = pa.ListArray.from_arrays(pa.array([0, 1, 3, 4], pa.int32()), items)
    assert only_reject(tmp_path, tags=lists)["detail"] == "tags is not UTF-8"
    roles = pa.array(["user", "assistant", "user", "assistant"])
    structs = pa.StructArray.from_arrays([roles, items], names=["role", "content"])
    turns = pa.ListArray.from_arrays(pa.array([0, 0, 4, 4], pa.int32()), structs)
    assert only_reject(tmp_path, turns=turns)["detail"] == "turns is not UTF-8"


def test_a_pair_id_that_is_not_utf8_is_not_shown(tmp_path: Path) -> None:
    reject = only_reject(tmp_path, pair_id=not_utf8([b"a", b"\xff", b"c"]))
    assert (reject["reason"], reject["pair_id"]) == ("utf8", None)


def test_rejects_carry_the_pair_id(tmp_path: Path) -> None:
    assert only_reject(tmp_path, pair_id=[7, 8, 9], response_a=["x", None, "z"])["pair_id"] == "8"


def test_the_size_of_a_row_is_that_of_its_texts_together_in_bytes(tmp_path: Path) -> None:
    columns = {"instruction": ["é" * 20] * 3, "response_a": ["x" * 30] * 3}
    columns |= {
        "response_b": ["y" * 30] * 3,
        "turns": [[], [turn("user", ""), turn("assistant", "z")], None],
    }
    good, bad = split(tmp_path, limits={"row_bytes": 100}, **columns)
    assert [row["row"] for row in good] == [0, 2]
    assert bad[0]["reason"] == "size"
    assert bad[0]["detail"] == "the row's texts have more than 100 bytes: 114"  # with roles


def test_metadata_has_a_separate_limit_of_the_same_size(tmp_path: Path) -> None:
    columns = {"tags": [["x"] * 9, ["x" * 999], None], "n": [1, 2, 3]}
    good, bad = split(tmp_path, limits={"row_bytes": 500}, **columns)
    assert [row["row"] for row in good] == [0, 2]
    assert bad[0]["detail"] == "the row's metadata have more than 500 bytes: 1,007"


# Gold

LABELS = {
    "A": "a", " a ": "a", "response_a": "a", "Model_A": "a", "[[A]]": "a", "A>B": "a",
    "B": "b", "b": "b", "response_b": "b", "model_b": "b", "[[B]]": "b", "B>>A": "b",
    "tie": "tie", "Tie": "tie", "tie (bothbad)": "tie", "Tie (Both Bad)": "tie", "A=B": "tie",
    "": None, "  ": None,
}  # fmt: skip


@pytest.mark.parametrize("column", ["gold", "label"])
def test_labels(tmp_path: Path, column: str) -> None:
    good, bad = split(tmp_path, len(LABELS), **{column: list(LABELS)})
    assert not bad
    for row, side in zip(good, LABELS.values(), strict=True):
        expected = side and {name: float(name == side) for name in ("a", "b", "tie")}
        assert row["gold"] == expected


@pytest.mark.parametrize("label", ["C", "1", "model_c", "both", "A B", "\x1b[31m", "x" * 500])
def test_unknown_labels(tmp_path: Path, label: str) -> None:
    reject = only_reject(tmp_path, label=["A", label, None])
    assert reject["reason"] == "gold"
    assert reject["detail"].startswith("label is not A, B or tie: ")
    assert reject["detail"].isprintable()
    assert len(reject["detail"]) < 130


def test_a_fraction_is_the_probability_of_a(tmp_path: Path) -> None:
    good, bad = split(tmp_path, 4, gold=[1.0, 0.25, 0.0, None])
    assert not bad
    assert [row["gold"] and row["gold"]["a"] for row in good] == [1.0, 0.25, 0.0, None]
    assert [row["gold"] and row["gold"]["b"] for row in good] == [0.0, 0.75, 1.0, None]


@pytest.mark.parametrize("value", [1.01, -0.5, math.nan, math.inf])
def test_fractions_that_are_not_probabilities(tmp_path: Path, value: float) -> None:
    reject = only_reject(tmp_path, gold=[0.5, value, 0.5])
    assert reject["detail"] == f"gold is not P(a), a number from 0 to 1: {value}"


def test_votes(tmp_path: Path) -> None:
    columns = {"votes_a": [3, 0, None], "votes_b": [1, 0, None], "votes_tie": [0, 2, None]}
    good, bad = split(tmp_path, **columns)
    assert not bad
    assert good[0]["gold"] == {"a": 3.0, "b": 1.0, "tie": 0.0}
    assert good[1]["gold"] == {"a": 0.0, "b": 0.0, "tie": 2.0}
    assert good[2]["gold"] is None


def test_votes_in_a_struct_and_without_ties(tmp_path: Path) -> None:
    good, bad = split(tmp_path, gold=[{"b": 1, "a": 2}, None, {"b": 1, "a": 0}])
    assert not bad
    assert [row["gold"] and row["gold"]["a"] for row in good] == [2.0, None, 0.0]
    assert good[0]["gold"]["tie"] == 0.0


@pytest.mark.parametrize(
    ("a", "b", "cause"),
    [
        (0.0, 0.0, "votes sum to zero: a=0.0, b=0.0"),
        (-1.0, 2.0, "votes are negative or not numbers: a=-1.0, b=2.0"),
        (math.nan, 2.0, "votes are negative or not numbers: a=nan"),
        (math.inf, 2.0, "votes are negative or not numbers: a=inf"),
        (1e308, 1e308, "votes are negative or not numbers"),
        (1.0, None, "votes are incomplete: a=1.0, b=None"),
    ],
)
def test_votes_that_cannot_be_used(tmp_path: Path, a: float, b: float | None, cause: str) -> None:
    reject = only_reject(tmp_path, votes_a=[1.0, a, 2.0], votes_b=[1.0, b, 2.0])
    assert reject["reason"] == "gold"
    assert cause in reject["detail"]


# Turns


def turn(role: str | None, content: str | None) -> dict[str, str | None]:
    return {"role": role, "content": content}


def test_turns_of_structs_lose_other_fields(tmp_path: Path) -> None:
    talk = [{"content": "hi", "name": "x", "role": "user"}, {**turn("assistant", ""), "name": None}]
    good, bad = split(tmp_path, turns=[talk, None, []])
    assert not bad
    assert good[0]["turns"] == [turn("user", "hi"), turn("assistant", "")]
    assert good[1]["turns"] is None
    assert good[2]["turns"] is None


def test_turns_that_are_texts_do_not_say_who_speaks(tmp_path: Path) -> None:
    """MT-bench's two questions are such a list, and would become user and assistant."""
    with pytest.raises(InputRefused, match="does not say who speaks"):
        split(tmp_path, turns=[["first question", "second question"], None, ["4"]])


@pytest.mark.parametrize(
    "roles",
    [["user"], ["assistant"], ["user", "user"], ["assistant", "user"],
     ["user", "assistant", "user"], ["user", "assistant", "assistant", "user"]],
)  # fmt: skip
def test_turns_that_do_not_alternate_up_to_the_instruction(
    tmp_path: Path, roles: list[str]
) -> None:
    fine = [turn("user", "a"), turn("assistant", "b")]
    reject = only_reject(tmp_path, turns=[fine, [turn(role, "x") for role in roles], fine * 2])
    assert reject["reason"] == "turns"
    assert reject["detail"] == (
        "turns does not alternate between user and assistant, from the user to the assistant: "
        + " ".join(roles)
    )


@pytest.mark.parametrize(
    "called", [{"tool_calls": [{"name": "f"}]}, {"function_call": "f"}, {"tool_call_id": "1"}]
)
def test_turns_that_call_tools_are_refused(tmp_path: Path, called: dict[str, Any]) -> None:
    """TRL's messages have them; no prompt shows them, and nothing is dropped silently."""
    (field,) = called
    first, last = {**turn("user", "a"), field: None}, turn("assistant", "b")
    empty = [] if field == "tool_calls" else ""
    talks = [[first, {**last, field: value}] for value in (None, called[field], empty)]
    if field == "tool_call_id":
        talks[2] = [first, {**last, field: None}]
    reject = only_reject(tmp_path, turns=talks)
    assert (reject["reason"], reject["detail"]) == ("turns", "turns calls a tool")


@pytest.mark.parametrize(
    ("bad", "detail"),
    [
        (turn("system", "x"), "turns has a role other than user and assistant: system"),
        (turn("\x1b", "x"), "turns has a role other than user and assistant: \\x1b"),
        (turn(None, "x"), "turns has a role other than user and assistant: null"),
        (turn("user", None), "turns has a turn without content"),
        (None, "turns has a role other than user and assistant: null"),
    ],
)
def test_bad_turns(tmp_path: Path, bad: dict[str, str | None] | None, detail: str) -> None:
    fine = [turn("user", "a"), turn("assistant", "b")]
    reject = only_reject(tmp_path, turns=[fine, [fine[0], bad], fine])
    assert (reject["reason"], reject["detail"]) == ("turns", detail)


# All together


def test_the_first_bad_row_can_stop_the_run(tmp_path: Path) -> None:
    with pytest.raises(InputRefused) as refused:
        split(tmp_path, limits={"on_bad_row": "fail"}, response_a=["x", None, ""])
    assert refused.value.place == "p.parquet, row 1"
    assert refused.value.cause == "bad row (null): response_a is null"


@pytest.mark.parametrize("wrong", [{"row_bytes": 0}, {"batch_rows": -1}, {"on_bad_row": "skip"}])
def test_wrong_limits_are_usage_errors(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Limits(**wrong)


def test_rejects_have_the_schema_and_the_order_of_rows(tmp_path: Path) -> None:
    columns = {"instruction": ["x", "x", "", "x"], "response_a": ["x", None, "x", None]}
    path = write(tmp_path / "p.parquet", pairs(4, **columns))
    ((_, rejects),) = stream(open_shards([path]))
    assert rejects.schema.equals(REJECTS)
    assert rejects["reason"].to_pylist() == ["null", "empty", "null"]


text = st.one_of(
    st.none(),
    st.sampled_from([b"", b"  ", b"\xff", b"ok", b"\xe2\x80", "\u3000".encode()]),
    st.text(max_size=12).map(lambda x: x.encode("utf-8", "surrogatepass")),
)
row = st.fixed_dictionaries(
    {
        **dict.fromkeys(("instruction", "response_a", "response_b"), text),
        **dict.fromkeys(("system", "pair_id", "meta"), text),
        "label": st.one_of(st.none(), st.sampled_from([b"A", b"b", b"tie", b"?", b"\xff"])),
        "turns": st.one_of(st.none(), st.lists(text, max_size=4)),
    }
)


def is_bad(row: dict[str, Any]) -> bool:
    """The rules once more, one row at a time."""
    try:
        texts = {name: x.decode() for name, x in row.items() if isinstance(x, bytes)}
        turns = [None if x is None else x.decode() for x in row["turns"] or []]
    except UnicodeDecodeError:
        return True
    size = sum(len(x.encode()) for name, x in texts.items() if name not in ("meta", "label"))
    size += sum(len(x.encode()) for x in turns if x)
    size += sum(len(("user", "assistant")[i % 2]) for i in range(len(turns)))
    return (
        not texts.get("instruction", "").strip()
        or not {"response_a", "response_b"} <= texts.keys()
        or None in turns
        or len(turns) % 2 == 1
        or texts.get("label") == "?"
        or size > 60
    )


def as_table(rows: Rows) -> pa.Table:
    columns = {}
    for name in rows[0]:
        if name != "turns":
            columns[name] = not_utf8([row[name] for row in rows])
    lists = [row["turns"] or [] for row in rows]
    offsets = [sum(map(len, lists[:i])) for i in range(len(lists) + 1)]
    items = not_utf8([x for turns in lists for x in turns])
    roles = [("user", "assistant")[i % 2] for turns in lists for i in range(len(turns))]
    talk = pa.StructArray.from_arrays([pa.array(roles, pa.string()), items], ["role", "content"])
    columns["turns"] = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), talk)
    return pa.table(columns)


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(row, min_size=1, max_size=30),
    batch=st.integers(1, 12),
    group=st.integers(1, 20),
    coded=st.booleans(),
)
def test_every_row_is_accepted_or_rejected_once_and_in_order(
    rows: Rows, batch: int, group: int, coded: bool
) -> None:
    # A column without any value is refused as a whole.
    for name in ("instruction", "response_a", "response_b"):
        rows[0][name] = rows[0][name] or b"x"
    with tempfile.TemporaryDirectory() as folder:
        path = write(
            Path(folder) / "p.parquet", as_table(rows), row_group_size=group, use_dictionary=coded
        )
        good, bad = read(open_shards([path]), batch_rows=batch, row_bytes=60)
    assert [x["row"] for x in good] == [i for i, row in enumerate(rows) if not is_bad(row)]
    assert [x["row"] for x in bad] == [i for i, row in enumerate(rows) if is_bad(row)]
    assert {x["reason"] for x in bad} <= set(Reason)
    for x in good:
        source = rows[x["row"]]
        assert x["response_a"].encode() == source["response_a"]
        assert [t["content"].encode() for t in x["turns"] or []] == (source["turns"] or [])
