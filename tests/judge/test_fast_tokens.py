"""The accelerated tokenizer makes the judge's own ids, or is not used, or the run stops."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steelyard.core.batches import TokenRows
from steelyard.errors import IntegrityFault
from steelyard.judge.model import fast_tokens
from steelyard.judge.model.embedded import embedded_model
from steelyard.judge.model.fast_tokens import SAMPLE, SLICE_TEXTS, AcceleratedTokens
from steelyard.judge.model.tokenizer import HFEncoder
from support import tiny
from support.helpers import data_file

MAKERS = {
    "byte_level": (tiny.byte_level, "fastokens"),
    "ignoring_merges": (tiny.ignoring_merges, "fastokens"),
    "unigram": (tiny.unigram, "tokenizers"),
    "prepending": (tiny.prepending, "tokenizers"),
}
NAMES = ["<|end|>", "<|im_start|>", "<|im_end|>", "</s>", "[INST]", "assistant"]


def code_points(texts):
    return TokenRows.of([[ord(character) for character in text] for text in texts])


class StandIn:
    """A tokenizer by code points that is wrong, or raises, for the texts that a rule picks."""

    def __init__(self, wrong=lambda text: False, raises=lambda text: False, error=ValueError):
        self.wrong, self.raises, self.error = wrong, raises, error
        self.seen = 0

    def __call__(self, texts):
        self.seen += len(texts)
        if any(map(self.raises, texts)):
            raise self.error
        return TokenRows.of(
            [[-1] if self.wrong(text) else [ord(character) for character in text] for text in texts]
        )


def paired(fast):
    slow = StandIn()
    return AcceleratedTokens(fast, slow, "stand-in 1.0", "a judge"), slow


def same(rows, texts):
    expected = code_points(texts)
    assert len(rows) == len(texts)
    assert rows.offsets.tolist() == expected.offsets.tolist()
    assert rows.tokens.tolist() == expected.tokens.tolist()


def hostile(count):
    draw = random.Random(5)
    texts = tiny.hostile_texts(NAMES, count)
    texts += [one * n for one in ("a", " ", "\n", "é", "🙂", "'", "\x00") for n in (1, 63, 4097)]
    planes = [(0, 0x250), (0x300, 0x370), (0x250, 0xD800), (0xE000, 0x110000)]
    for _ in range(count):
        length = draw.randrange(1, 40)
        texts.append("".join(chr(draw.randrange(*draw.choice(planes))) for _ in range(length)))
    texts += ["'s 'S 'ſ don't I'LL", "", "\u1100\u1161", "A\u030a", "  \r\n\t "]
    draw.shuffle(texts)
    return texts


@pytest.mark.parametrize("kind", MAKERS)
def test_ids_are_the_judges_own(kind, tmp_path):
    pytest.importorskip("fastokens")
    maker, engine = MAKERS[kind]
    encoder = HFEncoder(tiny.write_tokenizer(tmp_path, maker()))
    texts = hostile(2000)
    for _ in range(2):  # the second time with all characters seen
        rows = encoder.encode_data(texts)
        expected = encoder._slow(texts)
        assert rows.tokens.tolist() == expected.tokens.tolist()
        assert rows.offsets.tolist() == expected.offsets.tolist()
    assert encoder.engine.startswith(f"{engine} ")


def test_real_texts_with_the_embedded_judge():
    pytest.importorskip("fastokens")
    table = pq.read_table(data_file("alpaca_eval/outputs.parquet"), columns=["output"])
    texts = [text for text in table["output"].to_pylist()[::15] if text]
    encoder = HFEncoder(embedded_model())
    assert encoder.encode_data(texts).tokens.tolist() == encoder._slow(texts).tokens.tolist()
    assert encoder.engine.startswith("fastokens ")
    assert encoder._fast._trusted > len(texts) / 2


def test_it_starts_no_threads(tmp_path, monkeypatch):
    pytest.importorskip("fastokens")
    encoder = HFEncoder(tiny.write_tokenizer(tmp_path, tiny.byte_level()))
    encoder.encode_data(["a text of some length " * 200] * 600)
    names = [path.read_text("utf-8") for path in Path("/proc/self/task").glob("*/comm")]
    assert encoder._fast._trusted
    assert not [name for name in names if "fastokens" in name]


def test_letters_that_fold_into_others_are_never_trusted():
    """One such letter alone is no trouble, and proves nothing: after an apostrophe it is."""
    encoder, _ = paired(StandIn(wrong=lambda text: "'\u017f" in text))
    for texts in (["it's and"], ["it's"] * 3, ["\u017f and it's"] * 3, ["it'\u017f"] * 300):
        same(encoder.encode(texts), texts)
    assert encoder.active


def test_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fastokens", None)
    encoder = HFEncoder(tiny.write_tokenizer(tmp_path, tiny.byte_level()))
    texts = ["naïve café", "", "<|im_start|>"]
    assert encoder.encode_data(texts).tokens.tolist() == encoder._slow(texts).tokens.tolist()
    assert encoder.engine.startswith("tokenizers ")


def test_a_tokenizer_that_it_cannot_read(tmp_path, monkeypatch):
    pytest.importorskip("fastokens")
    spec = HFEncoder(tiny.write_tokenizer(tmp_path, tiny.byte_level()))._data_spec
    assert fast_tokens.accelerated(spec, code_points, "here")
    assert (
        fast_tokens.accelerated(spec | {"normalizer": {"type": "x"}}, code_points, "here") is None
    )


def test_a_control_token_is_caught_whoever_makes_it(tmp_path):
    encoder = HFEncoder(tiny.write_tokenizer(tmp_path, tiny.byte_level()))
    control = min(encoder.control_ids)

    class Broken:
        def encode(self, texts):
            return TokenRows.of([[300], [], [300, control], [control]])

    encoder.__dict__["_fast"] = Broken()
    with pytest.raises(IntegrityFault, match="control token: third"):
        encoder.encode_data(["first", "second", "third", "fourth"])


def test_right_from_the_first_texts_it_is_used():
    fast = StandIn()
    both, slow = paired(fast)
    texts = [f"text {i} of many" for i in range(20 * SLICE_TEXTS)]
    same(both.encode(texts), texts)
    assert both.active
    assert slow.seen <= SLICE_TEXTS + len(texts) / SAMPLE + 1


def test_wrong_in_the_first_texts_it_is_dropped():
    fast = StandIn(wrong=lambda text: text.endswith("7"))
    both, _ = paired(fast)
    texts = [f"text {i}" for i in range(3 * SLICE_TEXTS)]
    same(both.encode(texts), texts)
    assert not both.active
    seen = fast.seen
    same(both.encode(texts), texts)
    assert fast.seen == seen


def test_wrong_later_the_run_stops():
    """By a check of a sample: ids of it were given out, so nobody knows which were wrong."""
    late = [False]
    both, _ = paired(StandIn(wrong=lambda text: late[0]))
    texts = [f"text {i}" for i in range(3 * SLICE_TEXTS)]
    same(both.encode(texts), texts)
    late[0] = True
    with pytest.raises(IntegrityFault, match=r"stand-in 1\.0 and the judge's own") as fault:
        both.encode(texts)
    assert "pip uninstall stand-in" in fault.value.remedy
    assert "new run directory" in fault.value.remedy


def test_a_new_character_is_never_left_to_it():
    both, _ = paired(StandIn(wrong=lambda text: "ſ" in text, raises=lambda text: "☃" in text))
    plain = [f"text {i}" for i in range(2 * SLICE_TEXTS)]
    texts = [*plain, "ſ", "text ſ", "☃", "text ☃", "ſ☃", *plain, "ſ", "☃"]
    same(both.encode(texts), texts)
    same(both.encode(texts[::-1]), texts[::-1])
    assert both.active


def test_a_new_character_excuses_no_proven_ones():
    both, _ = paired(StandIn(wrong=lambda text: "</s" in text))
    plain = [f"texts {i} </" for i in range(2 * SLICE_TEXTS)]
    same(both.encode([*plain, "text", "new ☃"]), [*plain, "text", "new ☃"])
    with pytest.raises(IntegrityFault):
        both.encode(["</s☀"])


@pytest.mark.parametrize("error", [ValueError, type("PanicException", (BaseException,), {})])
def test_breaking_down_later_it_is_dropped(error):
    late = [False]
    both, _ = paired(StandIn(raises=lambda text: late[0], error=error))
    texts = [f"text {i}" for i in range(2 * SLICE_TEXTS)]
    same(both.encode(texts), texts)
    late[0] = True
    same(both.encode(texts), texts)
    assert not both.active


def test_an_interrupt_is_not_swallowed():
    both, _ = paired(StandIn(raises=lambda text: True, error=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        both.encode(["text"])


@given(
    st.lists(st.text("abcſ☃ ", max_size=6), max_size=40),
    st.sets(st.sampled_from("abcſ☃ ")),
    st.sets(st.sampled_from("abcſ☃ ")),
)
def test_whatever_characters_it_fails_on_the_ids_are_right(texts, wrong, refused):
    both, _ = paired(
        StandIn(wrong=lambda text: bool(wrong & set(text)), raises=lambda text: refused & set(text))
    )
    for _ in range(3):
        same(both.encode(texts), texts)


@given(st.lists(st.lists(st.integers(0, 2**31 - 1))))
def test_rows_are_what_they_were_made_of(rows):
    made = TokenRows.of(rows)
    assert len(made) == len(rows)
    assert [row.tolist() for row in made.split()] == rows
    assert (made.tokens.dtype, made.offsets.dtype) == (np.int32, np.int64)
