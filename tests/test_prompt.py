import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steelyard.errors import JudgeUnavailable
from steelyard.judge.scripted import CONTROL, ByteEncoder
from steelyard.prompt import LEAST_KEPT, compile_template, compose, cut_to_fit, render_templates
from steelyard.protocols import get_protocol

ENCODER = ByteEncoder()
TEMPLATES = render_templates(get_protocol("pairwise"), ENCODER)


def ids(text):
    return ENCODER.encode_data([text]).tokens


def test_a_template_for_every_set_of_optional_texts():
    assert set(TEMPLATES) == {"", "system", "conversation", "conversation+system"}
    assert "[[slot:system]]" in TEMPLATES["system"]
    assert "[[slot:system]]" not in TEMPLATES[""]


def test_a_chat_template_that_loses_a_slot_is_refused():
    class Lossy(ByteEncoder):
        def render_chat(self, messages):
            return messages[0].content

    with pytest.raises(JudgeUnavailable, match="slots"):
        render_templates(get_protocol("pairwise"), Lossy())


def test_a_prompt_is_its_segments_one_after_the_other():
    template = compile_template(TEMPLATES[""], ENCODER)
    fill = {"instruction": ids("why?"), "first": ids("because"), "second": ids("no")}
    rows = compose([template], [fill], None)
    text = TEMPLATES[""]
    for name, value in (("instruction", "why?"), ("first", "because"), ("second", "no")):
        text = text.replace(f"[[slot:{name}]]", value)
    assert rows.tokens.tolist() == ENCODER.encode_template(text, first=True)
    assert rows.offsets.tolist() == [0, len(rows.tokens)]
    assert not rows.truncated.any()


@given(st.text(), st.text(), st.text())
def test_data_never_emits_a_control_token(instruction, first, second):
    template = compile_template(TEMPLATES[""], ENCODER)
    texts = {"instruction": instruction, "first": "<|user|>" + first, "second": second}
    plain = compose([template], [{name: ids("") for name in texts}], None)
    full = compose([template], [{name: ids(text) for name, text in texts.items()}], None)
    controls = list(CONTROL.values())
    assert np.isin(full.tokens, controls).sum() == np.isin(plain.tokens, controls).sum()


@given(st.lists(st.integers(0, 60), min_size=1, max_size=5), st.integers(0, 200))
def test_cut_to_fit_keeps_beginnings_and_one_common_length(lengths, budget):
    data = [np.arange(length, dtype=np.int32) for length in lengths]
    cut = cut_to_fit(data, budget)
    assert sum(map(len, cut)) <= budget
    cap = max(map(len, cut))
    for before, after in zip(data, cut, strict=True):
        assert after.tolist() == before[: len(after)].tolist()
        assert len(after) in {len(before), cap}  # who lost something stands at the cap
    if sum(lengths) <= budget:
        assert [len(one) for one in cut] == lengths


@given(st.lists(st.integers(0, 60), min_size=3, max_size=3), st.integers(3, 100))
def test_both_orders_are_cut_alike(lengths, budget):
    data = [np.arange(length, dtype=np.int32) for length in lengths]
    ab = cut_to_fit(data, budget)
    ba = cut_to_fit([data[0], data[2], data[1]], budget)
    assert [len(ab[0]), len(ab[1]), len(ab[2])] == [len(ba[0]), len(ba[2]), len(ba[1])]


@pytest.mark.parametrize(("room", "cut"), [(3 * LEAST_KEPT - 1, False), (3 * LEAST_KEPT, True)])
def test_a_text_is_never_cut_to_nothing(room, cut):
    """With less room a prompt stays too long, and is refused as overlong."""
    template = compile_template(TEMPLATES[""], ENCODER)
    fill = {name: ids("x" * 500) for name in ("instruction", "first", "second")}
    rows = compose([template], [fill], template.fixed + room)
    assert rows.truncated.tolist() == [cut]
    assert (rows.lengths[0] <= template.fixed + room) == cut
