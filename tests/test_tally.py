import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from steelyard.dedupe import unique_prompts
from steelyard.judge.isolate import failed_reads
from steelyard.records import PromptBatch
from steelyard.tally import Tally


def reads(keys, lengths):
    offsets = np.cumsum([0, *lengths]).astype(np.int64)
    prompts = PromptBatch(
        0, keys, np.zeros(offsets[-1], np.int32), offsets, np.zeros(len(keys), np.bool_)
    )
    return failed_reads(prompts, "ok", [""] * len(keys))


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=30),
    st.sets(st.integers(0, 4)),
    st.randoms(use_true_random=False),
)
def test_counts_equal_those_of_a_naive_count(pairs, already, random):
    key = [bytes([value]) * 16 for value in range(5)]
    unique = unique_prompts(b"".join(key[a] for a, _ in pairs), b"".join(key[b] for _, b in pairs))
    done = {key[value] for value in already}
    pending = np.asarray([i for i, k in enumerate(unique.keys) if k not in done], np.int64)
    tally = Tally()
    tally.open(unique, pending)
    todo = [unique.keys[at] for at in pending.tolist()]
    random.shuffle(todo)
    completed = tokens = 0
    while todo:
        step = [todo.pop() for _ in range(min(2, len(todo)))]
        gain = tally.count(reads(step, [7] * len(step)))
        before = sum(key[a] in done and key[b] in done for a, b in pairs)
        done.update(step)
        after = sum(key[a] in done and key[b] in done for a, b in pairs)
        assert gain.pairs == after - before
        completed, tokens = completed + gain.pairs, tokens + gain.duplicate_tokens
    new = [unique.keys[at] for at in pending.tolist()]
    uses = [key[value] for pair in pairs for value in pair]
    assert tokens == 7 * sum(uses.count(one) - 1 for one in new)
