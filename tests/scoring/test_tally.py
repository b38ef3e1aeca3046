import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from steelyard.core.batches import PromptBatch, TokenRows
from steelyard.core.schemas import KEYS
from steelyard.core.work import Work
from steelyard.judge.isolation import failed_reads
from steelyard.plan.dedupe import unique_prompts
from steelyard.prompts.maker import PreparedBucket
from steelyard.scoring.tally import Tally


def reads(keys, lengths, status="ok"):
    rows = TokenRows.of([[0] * length for length in lengths])
    prompts = PromptBatch(0, keys, rows, np.zeros(len(keys), np.bool_))
    made = failed_reads(prompts, status, [""] * len(keys))
    made.cached_tokens[:] = 2
    return made


def prepared(number, unique, fed, floor):
    """A bucket whose prompts are all unread; its tokens do not matter."""
    nothing, none = TokenRows.of([[0]]), np.zeros(0, np.bool_)
    return PreparedBucket(number, unique, fed, fed, [], nothing, none, floor, len(fed))


@given(
    st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=4), max_size=30),
    st.sets(st.integers(0, 4)),
    st.randoms(use_true_random=False),
    st.booleans(),
)
def test_counts_equal_those_of_a_naive_count(pairs, already, random, oracular):
    key = [bytes([value]) * 16 for value in range(5)]
    unique = unique_prompts(pa.array([[key[value] for value in pair] for pair in pairs], KEYS))
    done = {key[value] for value in already}
    pending = np.asarray([i for i, k in enumerate(unique.keys) if k not in done], np.int64)
    tally = Tally()
    floor, oracle = np.arange(len(pending), dtype=np.int32), np.full(len(pending), 3, np.int32)
    oracle = oracle if oracular else None
    tally.open(prepared(5, unique, pending, floor), oracle)
    work = Work()
    todo = [unique.keys[at] for at in pending.tolist()]
    random.shuffle(todo)
    completed = tokens = 0
    while todo:
        step = [todo.pop() for _ in range(min(2, len(todo)))]
        gain = tally.count(reads(step, [7] * len(step)))
        before = sum(all(key[value] in done for value in pair) for pair in pairs)
        done.update(step)
        after = sum(all(key[value] in done for value in pair) for pair in pairs)
        assert gain.pairs == after - before
        for bucket, more in gain.work.items():
            assert bucket == 5
            work.add(more)
        completed, tokens = completed + gain.pairs, tokens + gain.duplicate_tokens
    new = [unique.keys[at] for at in pending.tolist()]
    uses = [key[value] for pair in pairs for value in pair]
    assert tokens == 7 * sum(uses.count(one) - 1 for one in new)
    assert work.prompts == len(new)
    assert work.unique_tokens == 7 * len(new)
    assert work.logical_tokens == tokens + 7 * len(new)
    assert work.floor_tokens == floor.sum()
    assert work.computed_tokens == 5 * len(new)
    assert work.oracle_tokens == (3 * len(new) if oracular or not new else None)


def test_overlong_prompts_complete_pairs_but_are_no_work():
    key = bytes(16)
    unique = unique_prompts(pa.array([[key, key]], KEYS))
    tally = Tally()
    zero, only = np.zeros(1, np.int32), np.zeros(1, np.int64)
    tally.open(prepared(0, unique, only, zero), zero)
    gain = tally.count(reads([key], [7], "overlong"))
    assert (gain.pairs, gain.duplicate_tokens, gain.work) == (1, 7, {})
