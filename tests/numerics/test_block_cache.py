"""The block-cache oracle against a naive twin, vLLM's own schedulers, and a real engine."""

from __future__ import annotations

import contextlib
import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from steelyard_kernels import block_pool
from steelyard_kernels.block_cache import drain, new_cache, simulate
from steelyard_kernels.block_pool import BUDGET, DONE, FREE, LEFT, RUNNING
from steelyard_kernels.prefix import lexicographic_order, trie_floor
from support import tiny
from support.block_cache_twins import NaiveEngine, Scheduled

# `make mutants` runs kernels uncompiled, where NumPy warns that products of hashes wrap.
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")


def ragged(rows):
    offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    return np.array([token for row in rows for token in row], dtype=np.int32), offsets


def oracle(rows, cache):
    return simulate(*ragged(rows), cache).tolist()


def caches(blocks, size, longest, tokens, seqs, in_flight=1):
    return new_cache(
        blocks, size, max_model_len=longest, max_num_batched_tokens=tokens, max_num_seqs=seqs,
        steps_in_flight=in_flight,
    )  # fmt: skip


# Few tokens and few beginnings, so that rows share prefixes of many lengths.
rows_of = st.lists(
    st.builds(
        lambda head, tail: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10][:head] + tail,
        st.integers(0, 10),
        st.lists(st.integers(0, 2), max_size=9),
    ),
    max_size=40,
)
limits_of = st.fixed_dictionaries(
    {
        "blocks": st.integers(2, 40),
        "size": st.integers(1, 5),
        "tokens": st.integers(1, 40),
        "seqs": st.integers(1, 6),
        "in_flight": st.integers(1, 3),
    }
)


def fitting(rows, limits):
    longest = (limits["blocks"] - 1) * limits["size"]
    return [row[:longest] for row in rows], caches(longest=longest, **limits)


def naive(limits):
    return NaiveEngine(
        limits["blocks"], limits["size"], tokens=limits["tokens"], seqs=limits["seqs"],
        in_flight=limits["in_flight"],
    )  # fmt: skip


@given(rows_of, rows_of, limits_of)
@settings(max_examples=400, deadline=None)
def test_equals_the_naive_twin(rows, more, limits):
    rows, cache = fitting(rows, limits)
    more, _ = fitting(more, limits)
    twin = naive(limits)
    for part in (rows, more, rows):
        assert oracle(part, cache) == twin.run(part)
        drain(cache)


@given(rows_of, limits_of, st.lists(st.integers(0, 40), max_size=4))
@settings(max_examples=150, deadline=None)
def test_chunk_by_chunk_is_all_at_once(rows, limits, cuts):
    rows, cache = fitting(rows, limits)
    _, other = fitting(rows, limits)
    edges = [0, *sorted(cuts), len(rows)]
    parts = [oracle(rows[a:b], other) for a, b in pairwise(edges)]
    assert [cached for part in parts for cached in part] == oracle(rows, cache)


@given(rows_of, limits_of)
@settings(max_examples=150, deadline=None)
def test_what_is_cached_is_bounded(rows, limits):
    rows, cache = fitting(rows, limits)
    cached = oracle(rows, cache)
    for row, hit in zip(rows, cached, strict=True):
        assert hit % limits["size"] == 0
        assert 0 <= hit <= max(len(row) - 1, 0)
    _, shared = lexicographic_order(*ragged(rows))
    computed = sum(map(len, rows)) - sum(cached)
    assert computed >= trie_floor(ragged(rows)[1], shared)


@given(rows_of, st.integers(1, 5))
@settings(max_examples=150, deadline=None)
def test_in_order_with_room_for_all_the_neighbour_is_what_counts(rows, size):
    rows = sorted(row for row in rows if row)
    assume(rows)
    cache = caches(2000, size, 20, 10_000, 1000)
    _, shared = lexicographic_order(*ragged(rows))
    expected = [
        min(int(both), len(row) - 1) // size * size for row, both in zip(rows, shared, strict=True)
    ]
    assert oracle(rows, cache) == expected


@pytest.mark.parametrize("length", [1, 31, 32, 33, 64, 65])
def test_a_duplicate_costs_what_its_last_token_needs(length):
    cache = caches(50, 32, 65, 512, 16)
    row = list(range(length))
    assert oracle([row] * 40, cache) == [0] + [(length - 1) // 32 * 32] * 39


def test_twins_fill_the_pool_and_go_in_turn():
    """Each duplicate of a full block is a block; the oldest serves and lives as it is used."""
    limits = {"blocks": 9, "size": 2, "tokens": 4, "seqs": 2, "in_flight": 1}
    rows = [[1, 2], [1, 2], [1, 2, 3], [5, 6, 7, 8], [1, 2, 9], [1, 2]] * 9
    _, cache = fitting(rows, limits)
    assert oracle(rows, cache) == naive(limits).run(rows)


@pytest.mark.parametrize(
    ("before", "rows", "running"),
    [
        ([], [[1, 2, 3, 4], [5, 6, 7, 8]], 1),  # two blocks of three are in use: no room for two
        ([], [[1, 2, 3, 4], [5, 6]], 2),
        ([], [[1, 2, 3, 4], [1, 2, 5, 6]], 2),  # one of its blocks is in use already
        ([], [[1, 2, 3, 4], [1, 2, 5, 6, 7]], 1),
        ([[1, 2, 3]], [[5, 6, 7, 8], [1, 2, 3]], 1),  # one of its blocks is there, but free
        ([], [[1], [2], [3]], 3),
        ([], [[1], [], [2]], 2),
        ([], [[1], [2], [3], [4]], 1),  # the first three end first
    ],
)
def test_a_prompt_runs_when_there_is_room_for_all_its_blocks(before, rows, running):
    cache = caches(4, 2, 6, 20, 4)
    oracle(before, cache)
    drain(cache)
    assert cache.counts[RUNNING] == 0
    assert cache.counts[FREE] == 3
    oracle(rows, cache)
    assert cache.counts[RUNNING] == running


def test_a_step_has_so_many_tokens_and_prompts():
    """Of 4 tokens a step, the second prompt gets one, and the third waits for its end."""
    cache = caches(20, 2, 6, 4, 2)
    oracle([[1, 2, 3], [4, 5, 6]], cache)
    assert cache.counts[[RUNNING, BUDGET, LEFT, DONE]].tolist() == [2, 0, 2, 1]
    oracle([[7]], cache)  # the first is done, the second takes two of the next step's
    assert cache.counts[[RUNNING, BUDGET, LEFT, DONE]].tolist() == [2, 1, 0, 1]
    oracle([[8]], cache)  # two run already: both end
    assert cache.counts[[RUNNING, BUDGET]].tolist() == [1, 3]


def test_the_next_of_equal_blocks_serves_when_the_oldest_is_gone():
    """Two blocks hold 1, 2, for a prompt's last token is always computed; the fourth row takes one.

    Of 3 usable blocks of 2 tokens, the first row's is free for longest by then.
    """
    rows = [[1, 2], [1, 2], [7, 8], [5, 6], [1, 2, 3]]
    assert oracle(rows, caches(4, 2, 4, 10, 1)) == [0, 0, 0, 0, 2]


def test_a_block_whose_hash_is_0_is_a_block_like_others():
    """0 marks a block that is not full, which would be taken first, before blocks 2 and 3."""
    zero = [20358, 1427260517, 61396]
    rows = [[*zero, 5], [1, 2, 3, 4], [*zero, 6]]
    assert oracle(rows, caches(4, 3, 4, 10, 1)) == [0, 0, 3]


def test_an_engine_schedules_a_step_at_a_time_unless_told_otherwise():
    cache = new_cache(4, 2, max_model_len=4, max_num_batched_tokens=10, max_num_seqs=3)
    assert (len(cache.finishing), len(cache.ends)) == (2, 3)
    for name in ("after", "before", "users", "twin_after", "twin_before", "table", "held"):
        assert getattr(cache, name).dtype == np.int32
    assert cache.hashes.dtype == cache.chain.dtype == np.uint64


# -- blocks ----------------------------------------------------------------------------------------


def pool():
    """Five usable blocks, and a table of 16 slots."""
    return caches(6, 1, 5, 10, 2)


def held(cache):
    """What is in the table, by slot."""
    return {slot: block for slot, block in enumerate(cache.table.tolist()) if block}


def enter(cache, block, value):
    block_pool.enter_table(cache, block, np.uint64(value))


def test_free_blocks_stand_in_a_queue():
    cache = pool()
    assert [block_pool.take_block(cache) for _ in range(3)] == [1, 2, 3]
    assert (cache.counts[FREE], cache.users[1:4].tolist()) == (2, [1, 1, 1])
    block_pool.enter_queue(cache, 2, cache.before[0])  # to the end
    block_pool.enter_queue(cache, 1, 0)  # to the front
    assert cache.counts[FREE] == 4
    block_pool.leave_queue(cache, 5)
    assert cache.counts[FREE] == 3
    assert [block_pool.take_block(cache) for _ in range(3)] == [1, 4, 2]
    assert (cache.after[0], cache.before[0], cache.counts[FREE]) == (0, 0, 0)


def test_hashes_of_one_slot_stand_one_after_the_other():
    cache = pool()
    for block, value in ((1, 5), (2, 16 + 5), (3, 32 + 5), (4, 6)):
        enter(cache, block, value)
    assert held(cache) == {5: 1, 6: 2, 7: 3, 8: 4}
    assert block_pool.find_slot(cache, np.uint64(37)) == 7
    assert block_pool.find_slot(cache, np.uint64(48 + 5)) == 9  # where it would be
    block_pool.leave_table(cache, 1)
    assert held(cache) == {5: 2, 6: 3, 7: 4}
    assert cache.hashes.tolist() == [0, 0, 21, 37, 6, 0]
    block_pool.leave_table(cache, 3)
    assert held(cache) == {5: 2, 6: 4}


@pytest.mark.parametrize(
    ("values", "slots", "left"),
    [
        ((5, 6, 16 + 5), {5: 1, 6: 2, 7: 3}, {5: 3, 6: 2}),  # a hash stays in its own slot
        ((15, 16 + 15, 32), {15: 1, 0: 2, 1: 3}, {15: 2, 0: 3}),  # the table is a circle
    ],
)
def test_slots_when_the_first_block_leaves(values, slots, left):
    cache = pool()
    for block, value in enumerate(values, 1):
        enter(cache, block, value)
    assert held(cache) == slots
    block_pool.leave_table(cache, 1)
    assert held(cache) == left


def test_equal_blocks_stand_in_for_each_other_from_the_oldest_on():
    cache = pool()
    for block in (3, 1, 2):
        enter(cache, block, 7)
    assert held(cache) == {7: 3}
    block_pool.leave_table(cache, 1)
    assert held(cache) == {7: 3}
    enter(cache, 1, 8)  # alone, whatever it stood next to before
    assert (cache.twin_after[1], cache.twin_before[1]) == (1, 1)
    block_pool.leave_table(cache, 3)
    assert held(cache) == {7: 2, 8: 1}
    enter(cache, 3, 8)
    block_pool.leave_table(cache, 2)
    assert held(cache) == {8: 1}
    block_pool.leave_table(cache, 1)
    assert held(cache) == {8: 3}
    block_pool.leave_table(cache, 3)
    assert held(cache) == {}
    assert not cache.hashes.any()


def test_a_block_that_is_taken_loses_what_it_held():
    cache = pool()
    enter(cache, 1, 7)
    assert block_pool.take_block(cache) == 1
    assert held(cache) == {}


def test_a_prompt_longer_than_the_pool_is_refused():
    with pytest.raises(ValueError, match="does not fit"):
        caches(10, 16, 145, 512, 16)
    with pytest.raises(ValueError, match="positive"):
        caches(10, 16, 144, 0, 16)
    cache = caches(10, 16, 144, 512, 16)
    with pytest.raises(ValueError, match="145 tokens"):
        oracle([[1], list(range(145))], cache)
    assert oracle([[1], list(range(144))], cache) == [0, 0]
    assert oracle([], cache) == []


# -- vLLM itself -------------------------------------------------------------------------------


def tournament(instructions, k, *, seed=0, vocabulary=390):
    """Prompts as all pairs of `k` responses make them, shuffled; up to 340 tokens."""
    draw = random.Random(seed)

    def text(low, high):
        return [draw.randrange(3, vocabulary) for _ in range(draw.randrange(low, high))]

    template, rows = text(40, 41), []
    for _ in range(instructions):
        head = template + text(5, 60)
        responses = [text(5, 110) for _ in range(k)]
        rows += [head + a + [1] + b for a in responses for b in responses if a is not b]
    draw.shuffle(rows)
    return rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("vllm")
    return tiny.write_model(tmp_path_factory.mktemp("models") / "tiny")


def start(folder, blocks):
    from steelyard.core.batches import Workload
    from steelyard.judge.base import JudgeSpec
    from steelyard.judge.vllm.judge import VllmJudge

    engine = {"num_gpu_blocks_override": blocks, "max_model_len": 352}
    judge = VllmJudge(JudgeSpec("tiny", str(folder), engine=engine))
    work = Workload(prompts=400, longest_prompt=351)
    judge.start(work, tiny.answer_of(judge.encoder, "A", "B"))
    return judge


def cache_of(config):
    assert not config.scheduler_config.async_scheduling
    return new_cache(
        config.cache_config.num_gpu_blocks,
        config.cache_config.block_size,
        max_model_len=config.model_config.max_model_len,
        max_num_batched_tokens=config.scheduler_config.max_num_batched_tokens,
        max_num_seqs=config.scheduler_config.max_num_seqs,
    )


@pytest.mark.vllm
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("blocks", [12, 60, 1500])  # one prompt, a few, all of them
def test_equals_a_real_engine(folder, blocks):
    judge = start(folder, blocks)
    try:
        cache = cache_of(judge._engine.vllm_config)
        assert len(cache.after) == blocks
        shuffled = tournament(3, 3)
        for rows in (sorted(shuffled), shuffled, shuffled + shuffled[:9]):
            batch = tiny.batch(rows)
            found = tiny.by_key(judge.read(iter([batch])))
            cached = [int(found[key][2]) for key in batch.keys] if len(found) == len(rows) else []
            drain(cache)
            assert cached == oracle(rows, cache)
    finally:
        judge.close()


@pytest.fixture(scope="module")
def config(folder):
    from steelyard.judge.vllm.process import OutputLog, engine_surroundings

    log = OutputLog()
    with contextlib.closing(log), engine_surroundings(log, spawn=False):
        from vllm.engine.arg_utils import EngineArgs

        return EngineArgs(
            model=str(folder), max_model_len=352, skip_tokenizer_init=True, block_size=32,
            enable_prefix_caching=True, enforce_eager=True, disable_log_stats=True,
        ).create_engine_config()  # fmt: skip


@pytest.mark.vllm
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("in_flight", [1, 2])
def test_equals_the_scheduler_of_vllm(config, in_flight):
    @given(rows_of, rows_of, limits_of)
    @settings(max_examples=150, deadline=None)
    def check(rows, more, limits):
        limits = limits | {"in_flight": in_flight}
        rows, cache = fitting(rows, limits)
        more, _ = fitting(more, limits)
        theirs = Scheduled(config, limits)
        for part in (rows, more, rows):
            assert oracle(part, cache) == theirs.run(part)
            drain(cache)

    check()
