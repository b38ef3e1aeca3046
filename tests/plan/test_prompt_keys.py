"""Which prompts a plan asks, by a naive twin; and the other columns of a plan by hand."""

import json

import numpy as np
import pyarrow as pa
import pytest
import xxhash

from steelyard.core.schemas import GOLD, INTAKE, PAIRS, PLACED, TEXTS, TURNS
from steelyard.plan.keys import ABSENT, digests, form_of, plan_batch, render_turns
from steelyard.plan.spec import KeySpec
from steelyard.protocols.axes import Criterion, PromptAxes
from support.helpers import pairwise_key_spec

hashed = xxhash.xxh3_128_digest
PAIR = frozenset({"conversation", "first", "instruction", "reference", "second", "system"})
RESPONSE = frozenset({"instruction", "response", "system"})
RUBRIC = (Criterion("brief"), Criterion("true", 3.0))

# Columns of the slots, for response_a and for response_b.
SLOTS = {
    "conversation": "conversation", "criterion": None, "images": None, "instruction": "instruction",
    "reference": "reference", "system": "system", "first": ("response_a", "response_b"),
    "second": ("response_b", "response_a"), "response": ("response_a", "response_b"),
    "first_turns": ("turns_a", "turns_b"), "second_turns": ("turns_b", "turns_a"),
}  # fmt: skip


def form(number):
    return bytes([number]) * 16


def intake(rows, metadata=None):
    """INTAKE of dicts; metadata follows if there is any."""
    whole = [{"shard": "s", "row": k, "instruction": "q", "response_a": "a", **row}
             for k, row in enumerate(rows)]  # fmt: skip
    batch = pa.RecordBatch.from_pylist(whole, schema=INTAKE)
    if metadata is None:
        return batch
    return pa.RecordBatch.from_arrays(
        [*batch.columns, metadata], names=[*batch.schema.names, "metadata"]
    )


def planned_keys(rows, spec):
    return plan_batch(intake(rows), spec).pairs["keys"].to_pylist()


def digest(text):
    return ABSENT if text is None else hashed(text.encode())


def naive_keys(row, spec):
    """All prompts of a row: judges, variants, criteria, samples, orders, outermost first."""
    texts = {"instruction": "q", "response_a": "a", "images": None} | row
    turns = {name: "User: " + row[name][0]["content"] for name in ("turns_a", "turns_b")
             if row.get(name)}  # fmt: skip
    texts |= turns
    axes, width = spec.axes, 1 + len(spec.categories)
    which = 1 + spec.categories.index(row["category"]) if row.get("category") in (
        spec.categories) else 0  # fmt: skip
    own = [item["text"] for item in row.get("criteria") or []]
    criteria = own if axes.row_criteria else [c.text for c in axes.criteria] or [None]
    pictured = texts["images"] is not None and spec.pictured
    keys = []
    for judge in spec.pictured if pictured else spec.forms:
        for variant in range(axes.variants):
            for criterion in criteria:
                for sample in range(axes.samples):
                    for side in range(2):
                        if axes.shows == "response" and side and texts["response_b"] is None:
                            continue
                        key = judge[variant * width + which]
                        key += digest(texts["images"]) if texts["images"] is not None else b""
                        alike = [s for s in sorted(spec.shown) if isinstance(SLOTS[s], str)]
                        key += b"".join(digest(texts.get(SLOTS[s])) for s in alike)
                        sides = [s for s in sorted(spec.shown) if isinstance(SLOTS[s], tuple)]
                        key += b"".join(digest(texts.get(SLOTS[s][side])) for s in sides)
                        key += b"" if criterion is None else digest(criterion)
                        keys.append(hashed(key + (bytes([sample]) if sample else b"")))
    return keys


def criteria(*texts):
    return [{"text": text, "weight": 1.0} for text in texts]


SPECS = {
    "pairwise": KeySpec(PromptAxes(), ((form(1),),), (), PAIR),
    "response": KeySpec(PromptAxes("response"), ((form(1),),), (), RESPONSE),
    "two judges, two variants": KeySpec(
        PromptAxes(judges=2, variants=2), ((form(1), form(2)), (form(3), form(4))), (), PAIR
    ),
    "three samples": KeySpec(PromptAxes(samples=3), ((form(1),),), (), PAIR),
    "a rubric of all": KeySpec(
        PromptAxes(criteria=RUBRIC, samples=2), ((form(1),),), (), PAIR | {"criterion"}
    ),
    "a rubric of each": KeySpec(
        PromptAxes(row_criteria=True), ((form(1),),), (), PAIR | {"criterion"}
    ),
    "a rubric of each response": KeySpec(
        PromptAxes("response", row_criteria=True, judges=2, samples=2),
        ((form(1),), (form(2),)), (), RESPONSE | {"criterion"},
    ),
    "categories": KeySpec(
        PromptAxes(variants=2), (tuple(map(form, range(6))),), ("code", "maths"), PAIR
    ),
    "images": KeySpec(
        PromptAxes(judges=2), ((form(1),), (form(2),)), (), PAIR,
        pictured=((form(3),), (form(4),)),
    ),
    "images with categories": KeySpec(
        PromptAxes(), ((form(1), form(2)),), ("code",), PAIR, pictured=((form(3), form(4)),)
    ),
    "turns of each response": KeySpec(
        PromptAxes(), ((form(1),),), (), frozenset({"instruction", "first_turns", "second_turns"})
    ),
}  # fmt: skip
ROWS = {
    "no rows": [],
    "one pair": [{"response_b": "b"}],
    "a single response": [{"response_b": None}],
    "responses and pairs": [{"response_b": None}, {"response_b": "b"}, {"response_b": "b2"}],
    "criteria of different numbers": [
        {"response_b": "b", "criteria": criteria("x")},
        {"response_b": "b", "criteria": criteria("x", "y", "z")},
        {"response_b": "b", "criteria": None},
        {"response_b": "b", "criteria": criteria("y", "x")},
    ],
    "criteria and a single response": [
        {"response_b": None, "criteria": criteria("x", "y")},
        {"response_b": "b", "criteria": criteria("x")},
    ],
    "categories": [
        {"response_b": "b", "category": name} for name in ("maths", None, "code", "other")
    ],
    "images": [{"response_b": "b", "images": name} for name in (None, "d1", "d1d2")],
    "images and categories": [
        {"response_b": "b", "images": "d1", "category": "code"},
        {"response_b": "b", "images": None, "category": "code"},
    ],
    "other texts": [
        {"response_b": "b", "system": "s"},
        {"response_b": "b", "reference": "s"},
        {"response_b": "b", "system": "s", "reference": "r"},
    ],
    "turns": [
        {"response_b": "b", "turns_a": [{"role": "user", "content": "x"}]},
        {"response_b": "b", "turns_a": [{"role": "user", "content": "x"}],
         "turns_b": [{"role": "user", "content": "y"}]},
    ],
}  # fmt: skip


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("rows", ROWS)
def test_every_prompt_is_asked_and_has_its_key(spec, rows):
    spec, rows = SPECS[spec], ROWS[rows]
    if spec.axes.row_criteria:
        rows = [row for row in rows if row.get("criteria")]
    assert planned_keys(rows, spec) == [naive_keys(row, spec) for row in rows]


def test_all_criteria_of_the_longest_row_are_asked():
    """With half of them left out a score of 0.498 would be 0.967, and nothing would say so."""
    rows = [{"response_b": "b", "criteria": criteria(*map(str, range(n)))} for n in (1, 5, 2)]
    planned = plan_batch(intake(rows), SPECS["a rubric of each"])
    assert planned.prompts.tolist() == [2, 10, 4]
    assert len({key for keys in planned.pairs["keys"].to_pylist() for key in keys}) == 10


def test_the_forms_of_categories():
    names = pa.array(["b", None, "a", "c", "b"])
    assert form_of(names, ("a", "b")).tolist() == [2, 0, 1, 0, 2]
    assert form_of(names, ()).tolist() == [0] * 5
    assert form_of(pa.chunked_array([["a"], [None]]), ("a",)).tolist() == [1, 0]


TWO_TURNS = [
    {"role": "user", "content": " Hello\n"},
    {"role": "assistant", "content": "Hi  "},
]


def test_earlier_turns_are_one_text():
    turns = pa.array([TWO_TURNS, None, [], TWO_TURNS[:1]], TURNS)
    wanted = ["User: Hello\n\nAssistant: Hi", None, None, "User: Hello"]
    assert render_turns(turns).to_pylist() == wanted
    assert render_turns(turns.slice(1, 1)).to_pylist() == [None]
    assert render_turns(pa.nulls(2, TURNS)).to_pylist() == [None, None]
    empty = [{"role": "user", "content": " "}]
    assert render_turns(pa.array([empty], TURNS)).to_pylist() == ["User:"]


def test_the_texts_of_a_plan():
    row = {
        "instruction": "\tq ", "response_a": " é\n", "response_b": " ", "system": " s ",
        "reference": " \n", "turns": TWO_TURNS, "turns_a": TWO_TURNS[:1], "turns_b": None,
        "criteria": [{"text": " brief ", "weight": 2.0}, {"text": "“true”", "weight": 1.0}],
        "category": " code", "images": "d1",
    }  # fmt: skip
    planned = plan_batch(intake([row]), SPECS["pairwise"])
    assert planned.texts.schema == TEXTS
    assert planned.texts.to_pylist() == [
        {
            "keys": planned.pairs["keys"].to_pylist()[0],
            "instruction": "q", "response_a": "é", "response_b": "", "system": "s",
            "conversation": "User: Hello\n\nAssistant: Hi", "turns_a": "User: Hello",
            "turns_b": None, "reference": None, "criteria": '["brief", "“true”"]',
            "category": " code", "images": "d1",
        }
    ]  # fmt: skip
    texts = ["q", "é", "", "s", "User: Hello\n\nAssistant: Hi", "User: Hello",
             '["brief", "“true”"]', " code", "d1"]  # fmt: skip
    assert planned.text_bytes.tolist() == [sum(len(text.encode()) for text in texts)]
    assert planned.text_bytes.dtype == np.int64
    assert set(planned.digests) == set(TEXTS.names[1:]) - {"turns_b", "reference"}
    for name, words in planned.digests.items():
        assert words.dtype == np.uint64
        assert words.shape == (1, 2)
        assert words.tobytes() == digest(planned.texts[name][0].as_py())


def test_the_pairs_of_a_plan():
    gold = {"a": 2.0, "b": 1.0, "tie": 0.0}
    rows = [
        {"instruction": " q ", "response_a": "ééé", "response_b": None, "gold": gold,
         "model_a": "m", "category": "c", "pair_id": "mine", "criteria": criteria(" x ")},
        {"instruction": "q", "response_a": "", "response_b": "🦉", "model_b": "n"},
    ]  # fmt: skip
    metadata = pa.array([{"k": 1}, {"k": None}], pa.struct([("k", pa.int64())]))
    planned = plan_batch(intake(rows, metadata), SPECS["response"])
    assert planned.pairs.schema.names == [
        *(name for name in PAIRS.names if name not in PLACED),
        "metadata",
    ]
    assert len(planned) == 2
    first, second = planned.pairs.to_pylist()
    keys = planned.pairs["keys"].to_pylist()
    number = int.from_bytes(hashed(b"q")[:8], "little")
    assert first == {
        "pair_id": "mine", "shard": "s", "row": 0, "instruction_id": number, "category": "c",
        "model_a": "m", "model_b": None, "length_a": 3, "length_b": None, "gold": gold,
        "criteria": criteria(" x "), "keys": keys[0], "metadata": {"k": 1},
    }  # fmt: skip
    assert second == {
        "pair_id": second["pair_id"], "shard": "s", "row": 1, "instruction_id": number,
        "category": None, "model_a": None, "model_b": "n", "length_a": 0, "length_b": 1,
        "gold": None, "criteria": None, "keys": keys[1], "metadata": {"k": None},
    }  # fmt: skip
    assert list(map(len, keys)) == [1, 2]
    assert "metadata" not in plan_batch(intake(rows), SPECS["response"]).pairs.schema.names


def test_pair_ids_are_given_or_derived_from_texts_and_models():
    base = {"response_b": "b", "model_a": "m", "model_b": "n"}
    changes = [
        {}, {"response_b": "c"}, {"system": "s"}, {"reference": "s"}, {"model_b": "m"},
        {"model_a": None}, {"turns_a": TWO_TURNS}, {"turns_b": TWO_TURNS}, {"turns": TWO_TURNS},
        {"images": "d"}, {"criteria": criteria("x")}, {"instruction": "p"}, {"response_a": "b"},
    ]  # fmt: skip
    rows = [{**base, **change} for change in changes]
    ids = plan_batch(intake(rows), SPECS["pairwise"]).pairs["pair_id"].to_pylist()
    assert len(set(ids)) == len(changes)
    assert all(len(name) == 32 for name in ids)
    # The same in other company, with another row number and another category.
    again = [{"pair_id": "given", **base}, {**base, "category": "code"}, base]
    mixed = plan_batch(intake(again), SPECS["categories"]).pairs["pair_id"].to_pylist()
    assert mixed == ["given", ids[0], ids[0]]
    whole = [{**base, "pair_id": name} for name in ("x", "y")]
    assert plan_batch(intake(whole), SPECS["pairwise"]).pairs["pair_id"].to_pylist() == ["x", "y"]
    # By hand: texts without category and images, then the models.
    texts = b"".join(map(digest, ["q", "a", "b", *[None] * 6]))
    assert ids[0] == xxhash.xxh3_128_hexdigest(texts + digest("m") + digest("n"))
    assert ids[5] == xxhash.xxh3_128_hexdigest(texts + ABSENT + digest("n"))
    assert ids[9] == xxhash.xxh3_128_hexdigest(texts + digest("d") + digest("m") + digest("n"))


def test_criteria_are_trimmed_for_keys_and_texts_alike():
    rows = [{"response_b": "b", "criteria": criteria(text)} for text in (" x", "x", "y")]
    first, second, third = planned_keys(rows, SPECS["a rubric of each"])
    assert first == second != third
    texts = plan_batch(intake(rows), SPECS["pairwise"]).texts["criteria"].to_pylist()
    assert list(map(json.loads, texts)) == [["x"], ["x"], ["y"]]


def test_digests_of_few_texts():
    assert digests(pa.nulls(0, pa.string())) == []
    assert digests(pa.nulls(2, pa.string())) == [ABSENT, ABSENT]
    assert digests(pa.array([""])) == [hashed(b"")]
    assert digests(pa.array(["", None])) == [hashed(b""), ABSENT]
    assert digests(pa.array(["x", "é", "y", None]).slice(1, 2)) == [
        hashed("é".encode()),
        hashed(b"y"),
    ]
    assert bytes(16) == ABSENT


def test_digests_of_a_part_of_a_column_with_long_offsets():
    texts = pa.array(["x", "é", "y"], pa.large_string())
    assert digests(texts.slice(1, 1)) == [hashed("é".encode())]


def test_an_empty_batch_has_a_plan():
    planned = plan_batch(intake([]), pairwise_key_spec())
    assert len(planned) == 0
    assert all(len(digests) == 0 for digests in planned.digests.values())
    assert planned.text_bytes.tolist() == []
    assert planned.texts.schema == TEXTS


def test_gold_and_criteria_keep_their_types():
    planned = plan_batch(intake([{"response_b": "b"}]), pairwise_key_spec())
    assert planned.pairs.schema.field("gold").type == GOLD
    assert planned.pairs.schema.field("length_b").type == pa.int32()
    assert planned.pairs["length_b"].to_pylist() == [1]
