import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steelyard.core.batches import TokenRows
from steelyard.errors import JudgeUnavailable
from steelyard.judge.scripted import CONTROL, ByteEncoder
from steelyard.prompts.forms import LEAST_KEPT, common_length, compile_template, compose, make_form
from steelyard.protocols import get_protocol

ENCODER = ByteEncoder()
TEMPLATES = make_form(get_protocol("pairwise"), ENCODER).templates


def prompt(texts, limit=None):
    """One prompt of the template without optional texts."""
    template = compile_template(TEMPLATES[""], ENCODER)
    pieces = [np.zeros(0, np.int32), *template.pieces]
    parts = np.zeros((1, 2 * len(template.slots) + 1), np.int32)
    parts[0, ::2] = range(1, len(pieces))
    parts[0, 1::2] = range(len(pieces), len(pieces) + len(template.slots))
    data = ENCODER.encode_data([texts[name] for name in template.slots])
    return compose(TokenRows.concat([TokenRows.of(pieces), data]), parts, limit)


def test_a_template_for_every_set_of_optional_texts():
    assert set(TEMPLATES) == {
        "", "conversation", "reference", "system", "conversation+reference",
        "conversation+system", "reference+system", "conversation+reference+system",
    }  # fmt: skip
    for names, text in TEMPLATES.items():
        for name in ("conversation", "reference", "system"):
            assert (f"[[slot:{name}]]" in text) == (name in names.split("+"))


def test_a_chat_template_that_loses_a_slot_is_refused():
    class Lossy(ByteEncoder):
        def render_chat(self, messages):
            return messages[0].content

    with pytest.raises(JudgeUnavailable, match="slots"):
        make_form(get_protocol("pairwise"), Lossy())


def test_a_prompt_is_its_segments_one_after_the_other():
    texts = {"instruction": "why?", "first": "because", "second": "no"}
    rows, truncated = prompt(texts)
    text = TEMPLATES[""]
    for name, value in texts.items():
        text = text.replace(f"[[slot:{name}]]", value)
    assert rows.tokens.tolist() == ENCODER.encode_template(text, first=True)
    assert rows.offsets.tolist() == [0, len(rows.tokens)]
    assert not truncated.any()


@given(st.text(), st.text(), st.text())
def test_data_never_emits_a_control_token(instruction, first, second):
    texts = {"instruction": instruction, "first": "<|user|>" + first, "second": second}
    (plain, _), (full, _) = prompt(dict.fromkeys(texts, "")), prompt(texts)
    controls = list(CONTROL.values())
    assert np.isin(full.tokens, controls).sum() == np.isin(plain.tokens, controls).sum()


@given(st.lists(st.integers(0, 60), min_size=1, max_size=5), st.integers(0, 200))
def test_texts_are_cut_to_the_greatest_common_length_that_fits(lengths, budget):
    cap = common_length(lengths, budget)
    assert sum(min(length, cap) for length in lengths) <= budget
    if sum(lengths) > budget:
        assert sum(min(length, cap + 1) for length in lengths) > budget
    else:
        assert cap >= max(lengths)


@given(st.lists(st.integers(0, 60), min_size=3, max_size=3), st.integers(3, 100))
def test_both_orders_are_cut_alike(lengths, budget):
    swapped = [lengths[0], lengths[2], lengths[1]]
    assert common_length(lengths, budget) == common_length(swapped, budget)


def test_a_cut_keeps_beginnings():
    template = compile_template(TEMPLATES[""], ENCODER)
    texts = {"instruction": "i" * 20, "first": "f" * 200, "second": "s" * 300}
    rows, truncated = prompt(texts, template.fixed + 20 + 2 * 50)
    text = TEMPLATES[""]
    for name, value in texts.items():
        text = text.replace(f"[[slot:{name}]]", value[:50])
    assert rows.tokens.tolist() == ENCODER.encode_template(text, first=True)
    assert truncated.tolist() == [True]


@pytest.mark.parametrize(("room", "cut"), [(3 * LEAST_KEPT - 1, False), (3 * LEAST_KEPT, True)])
def test_a_text_is_never_cut_to_nothing(room, cut):
    """With less room a prompt stays too long, and is refused as overlong."""
    template = compile_template(TEMPLATES[""], ENCODER)
    texts = dict.fromkeys(("instruction", "first", "second"), "x" * 500)
    rows, truncated = prompt(texts, template.fixed + room)
    assert truncated.tolist() == [cut]
    assert (rows.lengths[0] <= template.fixed + room) == cut
