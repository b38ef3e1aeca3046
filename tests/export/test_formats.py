"""Rows of datasets, built from texts as Arrow: what stands where, in both forms."""

from dataclasses import replace

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steelyard.core.schemas import TURNS
from steelyard.export.formats import JUDGE, Texts, conversation, make_rows, schema
from steelyard.export.options import FORMATS, FORMS
from steelyard.export.pairing import log_odds
from steelyard.plan.keys import render_turns
from steelyard.protocols import get_protocol
from steelyard.protocols.parsing import probability

TURN = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant"]), "content": st.text(max_size=5)}
)
ROW = st.tuples(
    st.none() | st.text(max_size=5), st.none() | st.lists(TURN, max_size=3), st.text(max_size=5)
)


@given(st.lists(ROW, max_size=6))
def test_a_conversation_is_system_turns_and_question(rows):
    columns = list(zip(*rows, strict=True)) if rows else [(), (), ()]
    system, turns, user = (
        pa.array(column, kind)
        for column, kind in zip(columns, (pa.string(), TURNS, pa.string()), strict=True)
    )
    expected = [
        [
            *([{"role": "system", "content": opening}] if opening is not None else []),
            *(earlier or []),
            {"role": "user", "content": question},
        ]
        for opening, earlier, question in rows
    ]
    assert conversation(system, turns, user).to_pylist() == expected
    whole = [(None, None, ""), *rows]  # the same behind another row, of a slice
    columns = [
        pa.array(column, kind).slice(1)
        for column, kind in zip(
            zip(*whole, strict=True), (pa.string(), TURNS, pa.string()), strict=True
        )
    ]
    assert conversation(*columns).to_pylist() == expected


def texts(**changed):
    """Two rows: the second has everything."""
    turns = pa.array([None, [{"role": "user", "content": "hello"}]], TURNS)
    columns = {
        "instruction": pa.array(["question 0", "question 1"]),
        "system": pa.array([None, "be kind"]),
        "turns": turns,
        "conversation": render_turns(turns),
        "reference": pa.array([None, "42"]),
        "first": pa.array(["first 0", " [[slot:second]] {{ second }} "]),
        "second": pa.array(["second 0", "second 1"]),
    }
    return Texts(**{**columns, **changed})


def items(kind, *probabilities):
    found = {
        "probability": list(probabilities),
        "raw_probability": list(probabilities),
        "label": [p > 0.5 for p in probabilities],
        **{
            name: [f"{name} {at}" for at in range(len(probabilities))]
            for name in ("pair_id", "rejected_pair_id", "chosen_model", "rejected_model", "model")
        },
        "sample": list(range(len(probabilities))),
        "output": ["Reasons. [[A]]"] * len(probabilities),
        "shown": ["ab"] * len(probabilities),
        "consistent": [True] * len(probabilities),
        "label_mass": [0.9] * len(probabilities),
        "judge": ["j"] * len(probabilities),
        "judge_fingerprint": ["f"] * len(probabilities),
    }
    kept = {*schema(kind, "plain").names, *(["output"] if kind == "trace" else [])}
    return pa.table({name: found[name] for name in found if name in kept})


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_has_its_columns(kind, form):
    made = make_rows(kind, form, texts(), items(kind, 0.9, 0.25))
    assert made.schema == schema(kind, form)
    assert len(made) == 2
    text = TURNS if form == "conversational" else pa.string()
    assert made.schema.field("prompt").type == text


def test_preference_and_reward_rows():
    (plain, _) = make_rows("reward", "plain", texts(), items("reward", 0.9, 0.75)).to_pylist()
    assert plain["prompt"] == "question 0"
    assert (plain["chosen"], plain["rejected"]) == ("first 0", "second 0")
    assert plain["margin"] == pytest.approx(2.1972245773362196)  # log 9
    (_, chat) = make_rows(
        "preference", "conversational", texts(), items("preference", 0.9, 0.75)
    ).to_pylist()
    assert [turn["role"] for turn in chat["prompt"]] == ["system", "user", "user"]
    assert chat["chosen"] == [{"role": "assistant", "content": " [[slot:second]] {{ second }} "}]


def test_a_certain_verdict_has_a_finite_margin():
    made = make_rows("reward", "plain", texts(), items("reward", 1.0, 0.6))
    assert made["margin"].to_pylist() == pytest.approx(log_odds(pa.array([1.0, 0.6]).to_numpy()))


def test_judge_prompts_are_those_of_the_protocol():
    """Text of the data is put in once and never looked at again."""
    protocol = get_protocol(JUDGE)
    made = make_rows("autorater", "conversational", texts(), items("autorater", 0.9, 0.25))
    bare, full = made["prompt"].to_pylist()
    system, user = protocol.messages(frozenset())
    assert bare == [
        {"role": "system", "content": system.content},
        {
            "role": "user",
            "content": user.content.replace("[[slot:instruction]]", "question 0")
            .replace("[[slot:first]]", "first 0")
            .replace("[[slot:second]]", "second 0"),
        },
    ]
    asked = full[1]["content"]
    assert "[[slot:second]] {{ second }}" in asked  # the response that says so
    assert asked.count("second 1") == 1
    for text in ("be kind", "User: hello", "42", "question 1"):
        assert asked.count(text) == 1


def test_a_trace_continues_the_beginning_that_its_protocol_gives():
    """A protocol without a system message has one message; the answer begins with its prefix."""
    protocol = replace(get_protocol("rationale"), system="", prefix="Thus: ")
    plain = make_rows("trace", "plain", texts(), items("trace", 0.9, 0.25), protocol)
    chat = make_rows("trace", "conversational", texts(), items("trace", 0.9, 0.25), protocol)
    assert plain["completion"].to_pylist() == ["Thus: Reasons. [[A]]"] * 2
    (message,) = chat["prompt"][0].as_py()
    assert message == {"role": "user", "content": plain["prompt"][0].as_py()}
    assert "question 0" in message["content"]


@pytest.mark.parametrize("form", FORMS)
def test_the_answer_of_an_autorater_is_what_the_protocol_reads(form):
    made = make_rows("autorater", form, texts(), items("autorater", 1 / 3, 0.25))
    tag = get_protocol(JUDGE).tag
    said = [one if form == "plain" else one[0]["content"] for one in made["completion"].to_pylist()]
    assert [probability(text, tag) for text in said] == [0.33, 0.25]
