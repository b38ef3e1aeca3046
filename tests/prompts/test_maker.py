"""A bucket's texts become its prompts: every one, once, in prefix order."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steelyard.core.schemas import INTAKE
from steelyard.judge.scripted import ByteEncoder
from steelyard.plan.dedupe import unique_prompts
from steelyard.plan.keys import plan_batch
from steelyard.prompts.forms import make_form
from steelyard.prompts.maker import PromptMaker
from steelyard.protocols import get_protocol
from support.helpers import pairwise_key_spec

FORM = make_form(get_protocol("pairwise"), ByteEncoder())
WORD = st.sampled_from(["", "a", "ab", "abc", "b", "é", "a much longer answer than the others"])
ROW = st.tuples(
    st.sampled_from(["q", "qu", "why?"]), WORD, WORD, st.none() | WORD, st.booleans(),
    st.none() | WORD,
)  # fmt: skip


class CountingEncoder(ByteEncoder):
    def __init__(self):
        self.texts = []

    def encode_data(self, texts):
        self.texts += texts
        return super().encode_data(texts)


def bucket_of(rows):
    """TEXTS of rows (instruction, a, b, system, whether there are earlier turns, reference)."""
    turns = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]
    columns = {
        "shard": ["s"] * len(rows),
        "row": list(range(len(rows))),
        "instruction": [row[0] for row in rows],
        "response_a": [row[1] for row in rows],
        "response_b": [row[2] for row in rows],
        "system": [row[3] for row in rows],
        "turns": [turns if row[4] else None for row in rows],
        "reference": [row[5] if len(row) > 5 else None for row in rows],
    }
    columns |= dict.fromkeys(set(INTAKE.names) - set(columns), [None] * len(rows))
    arrays = [pa.array(columns[field.name], field.type) for field in INTAKE]
    intake = pa.RecordBatch.from_arrays(arrays, schema=INTAKE)
    return pa.Table.from_batches([plan_batch(intake, pairwise_key_spec()).texts])


def maker(encoder=None, context=10_000, *, truncate=False):
    return PromptMaker(encoder or ByteEncoder(), [FORM], context, truncate=truncate)


def rendered(texts, prompt):
    """The prompt as one text, put together without any of the code under test."""
    row, swapped = texts.slice(prompt // 2, 1).to_pylist()[0], prompt % 2
    first, second = ("response_b", "response_a") if swapped else ("response_a", "response_b")
    present = [name for name in ("conversation", "reference", "system") if row[name] is not None]
    text = FORM.templates["+".join(present)]
    for slot, name in (("first", first), ("second", second), ("instruction", "instruction")):
        text = text.replace(f"[[slot:{slot}]]", row[name])
    for name in present:
        text = text.replace(f"[[slot:{name}]]", row[name])
    return text


@settings(deadline=None)  # the first example may compile a kernel
@given(st.lists(ROW, min_size=1, max_size=12), st.data())
def test_prompts_are_those_of_their_pairs_in_prefix_order(rows, data):
    texts = bucket_of(rows)
    unique = unique_prompts(texts["keys"].combine_chunks())
    chosen = data.draw(st.sets(st.sampled_from(range(len(unique.keys))), min_size=1))
    pending = np.asarray(sorted(chosen), dtype=np.int64)
    bucket = maker().prepare(3, texts, unique, pending)
    assert bucket.unread.tolist() == pending.tolist()
    assert sorted(bucket.fed.tolist()) == pending.tolist()
    assert bucket.keys == [unique.keys[at] for at in bucket.fed.tolist()]
    made = [bucket.rows[at].tolist() for at in range(len(bucket.rows))]
    expected = [
        ByteEncoder().encode_template(rendered(texts, int(unique.first[at])), first=True)
        for at in bucket.fed.tolist()
    ]
    assert made == expected
    assert made == sorted(made)
    trie = {tuple(row[:end]) for row in made for end in range(1, len(row) + 1)}
    assert bucket.floor.sum() == len(trie)
    assert bucket.fitting == len(made)


def test_every_text_is_tokenised_once():
    responses = [f"answer {i}" for i in range(8)]
    rows = [("why?", a, b, None, False) for a in responses for b in responses if a < b]
    texts, encoder = bucket_of(rows), CountingEncoder()
    unique = unique_prompts(texts["keys"].combine_chunks())
    bucket = maker(encoder).prepare(0, texts, unique, np.arange(len(unique.keys)))
    assert len(bucket.rows) == 56
    assert sorted(encoder.texts) == sorted(["why?", *responses])


def test_only_texts_of_missing_prompts_are_tokenised():
    rows = [(f"question {i}", f"a{i}", f"b{i}", None, False) for i in range(10)]
    texts, encoder = bucket_of(rows), CountingEncoder()
    unique = unique_prompts(texts["keys"].combine_chunks())
    pending = np.flatnonzero(unique.first == 2 * 4)
    maker(encoder).prepare(0, texts, unique, pending)
    assert sorted(encoder.texts) == ["a4", "b4", "question 4"]


def test_overlong_prompts_stand_last_and_cost_nothing():
    rows = [("q", "x" * size, "y", None, False) for size in (10, 5000, 20)]
    texts = bucket_of(rows)
    unique = unique_prompts(texts["keys"].combine_chunks())
    made = maker(context=3000).prepare(0, texts, unique, np.arange(6))
    assert made.fitting == 4
    assert (made.rows.lengths[4:] > 3000).all()
    assert made.floor[4:].tolist() == [0, 0]
    fitting = [made.rows[at].tolist() for at in range(4)]
    assert fitting == sorted(fitting)
    cut = maker(context=3000, truncate=True).prepare(0, texts, unique, np.arange(6))
    assert cut.fitting == 6
    assert sorted(cut.rows.lengths[cut.truncated].tolist()) == [3000, 3000]


@pytest.mark.parametrize("bucket_first", [0, 1])
def test_the_template_counts_once_for_all_buckets(bucket_first):
    whole = bucket_of([("q1", "a", "b", None, False), ("r2", "c", "d", None, False)])
    parts = [
        bucket_of([row]) for row in [("q1", "a", "b", None, False), ("r2", "c", "d", None, False)]
    ]
    if bucket_first:
        parts.reverse()
    one, two = maker(), maker()
    everything = one.prepare(0, whole, unique_prompts(whole["keys"].combine_chunks()), np.arange(4))
    floors = [
        two.prepare(
            0, part, unique_prompts(part["keys"].combine_chunks()), np.arange(2)
        ).floor.sum()
        for part in parts
    ]
    assert sum(floors) == everything.floor.sum()
