"""The block-cache oracle against a naive twin, vLLM's own schedulers, and a real engine."""

from __future__ import annotations

import contextlib
import random
from collections import Counter, deque

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import tiny
from steelyard_kernels.block_cache import drain, new_cache, simulate
from steelyard_kernels.prefix import lexicographic_order, trie_floor


def ragged(rows):
    offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    return np.array([token for row in rows for token in row], dtype=np.int32), offsets


def oracle(rows, cache):
    return simulate(*ragged(rows), cache).tolist()


class NaiveEngine:
    """The rules once more, with lists and dicts, and tuples of tokens in the place of hashes."""

    def __init__(self, blocks, block_size, *, tokens, seqs, in_flight=1):
        self.size, self.tokens, self.seqs, self.in_flight = block_size, tokens, seqs, in_flight
        self.free = list(range(1, blocks))
        self.content = {}  # block -> all tokens up to its end
        self.where = {}  # these -> blocks that hold them, oldest first
        self.users = Counter()

    def run(self, rows):
        """Cached tokens of each row; all rows wait from the beginning, the end is idle."""
        cached = {}
        waiting = deque((i, tuple(row)) for i, row in enumerate(rows) if row)
        running, steps = [], deque()
        while waiting or running:
            steps.append(self._schedule(waiting, running, cached))
            if len(steps) == self.in_flight:
                for request in steps.popleft():
                    self._release(request["blocks"])
                    running.remove(request)
        return [cached.get(i, 0) for i in range(len(rows))]

    def _schedule(self, waiting, running, cached):
        budget, ended = self.tokens, []
        for request in running:
            if request["done"] < len(request["row"]):
                budget -= self._compute(request, budget, ended)
        while waiting and budget and len(running) < self.seqs:
            index, row = waiting[0]
            hits = self._hits(row)
            new = -(-len(row) // self.size) - len(hits)
            if new + sum(block in self.free for block in hits) > len(self.free):
                break
            waiting.popleft()
            for block in hits:
                if block in self.free:
                    self.free.remove(block)
                self.users[block] += 1
            cached[index] = len(hits) * self.size
            running.append({"row": row, "blocks": hits, "done": cached[index]})
            budget -= self._compute(running[-1], budget, ended)
        return ended

    def _hits(self, row):
        hits = []
        for end in range(self.size, len(row), self.size):  # n - 1 tokens at most
            if row[:end] not in self.where:
                break
            hits.append(self.where[row[:end]][0])
        return hits

    def _compute(self, request, budget, ended):
        row, blocks = request["row"], request["blocks"]
        before = request["done"]
        request["done"] = done = min(len(row), before + budget)
        while len(blocks) * self.size < done:
            blocks.append(self._take())
        for at in range(before // self.size, done // self.size):
            key = row[: (at + 1) * self.size]
            self.content[blocks[at]] = key
            self.where.setdefault(key, []).append(blocks[at])
        if done == len(row):
            ended.append(request)
        return done - before

    def _take(self):
        block = self.free.pop(0)
        key = self.content.pop(block, None)
        if key is not None:
            self.where[key].remove(block)
            if not self.where[key]:
                del self.where[key]
        self.users[block] = 1
        return block

    def _release(self, blocks):
        for block in reversed(blocks):
            self.users[block] -= 1
            if not self.users[block]:
                if block in self.content:
                    self.free.append(block)
                else:
                    self.free.insert(0, block)


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
    parts = [oracle(rows[a:b], other) for a, b in zip(edges, edges[1:], strict=False)]
    assert [cached for part in parts for cached in part][: len(rows)] == oracle(rows, cache)


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
    from steelyard.judge.base import JudgeSpec
    from steelyard.judge.vllm import VllmJudge
    from steelyard.records import Workload

    engine = {"num_gpu_blocks_override": blocks, "max_model_len": 352}
    judge = VllmJudge.open(JudgeSpec("tiny", str(folder), engine=engine))
    work = Workload(prompts=400, longest_prompt=351)
    judge.start(work, tiny.labels_of(judge.encoder, "A", "B"))
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
        shuffled = tournament(5, 3)
        for rows in (sorted(shuffled), shuffled, shuffled + shuffled[:9]):
            batch = tiny.batch(rows)
            found = tiny.by_key(judge.read(iter([batch])))
            cached = [int(found[key][2]) for key in batch.keys] if len(found) == len(rows) else []
            drain(cache)
            assert cached == oracle(rows, cache)
    finally:
        judge.close()


class Scheduled:
    """vLLM's own scheduler and block pool, with a model that answers 7 to everything."""

    def __init__(self, config, limits):
        import torch
        from vllm.sampling_params import SamplingParams
        from vllm.utils.hashing import get_hash_fn_by_name
        from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
        from vllm.v1.core.sched.async_scheduler import AsyncScheduler
        from vllm.v1.core.sched.scheduler import Scheduler
        from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
        from vllm.v1.structured_output import StructuredOutputManager

        size = limits["size"]
        spec = FullAttentionSpec(size, num_kv_heads=1, head_size=1, dtype=torch.float32)
        pool = KVCacheConfig(limits["blocks"], [], [KVCacheGroupSpec(["layer"], spec)])
        config.cache_config.num_gpu_blocks = limits["blocks"]
        config.scheduler_config.max_num_batched_tokens = limits["tokens"]
        config.scheduler_config.max_num_scheduled_tokens = None
        config.scheduler_config.max_num_seqs = limits["seqs"]
        config.scheduler_config.async_scheduling = limits["in_flight"] > 1
        kind = AsyncScheduler if limits["in_flight"] > 1 else Scheduler
        manager = StructuredOutputManager(config)
        self.scheduler = kind(config, pool, manager, block_size=size, hash_block_size=size)
        self.in_flight = limits["in_flight"]
        hashed = get_hash_fn_by_name("sha256")
        init_none_hash(hashed)
        self.hasher = get_request_block_hasher(size, hashed)
        self.sampling = SamplingParams(max_tokens=1, temperature=0.0)
        self.count = 0

    def run(self, rows):
        """As EngineCore.step_with_batch_queue does, all rows waiting from the beginning."""
        from vllm.v1.request import Request

        names = {}
        for at, row in enumerate(rows):
            if row:
                self.count += 1
                names[str(self.count)] = at
                self.scheduler.add_request(
                    Request(str(self.count), row, self.sampling, None, block_hasher=self.hasher)
                )
        cached, queue = [0] * len(rows), deque()
        while self.scheduler.has_requests() or queue:
            if self.scheduler.has_requests():
                queue.append(self._schedule())
                if len(queue) < self.in_flight:
                    continue
            for name, hit in self._finish(*queue.popleft()):
                cached[names[name]] = hit
        return cached

    def _schedule(self):
        """A step, and what the model will answer: nothing yet to a prompt that it cuts short."""
        step = self.scheduler.schedule()
        names = list(step.num_scheduled_tokens)
        cut = [self.scheduler.requests[name].is_prefill_chunk for name in names]
        return step, names, [[] if short else [7] for short in cut]

    def _finish(self, step, names, answers):
        from vllm.v1.outputs import ModelRunnerOutput

        output = ModelRunnerOutput(names, {n: at for at, n in enumerate(names)}, answers)
        for outputs in self.scheduler.update_from_output(step, output).values():
            for one in outputs.outputs:
                yield one.request_id, one.prefill_stats.num_cached_tokens


@pytest.fixture(scope="module")
def config(folder):
    from steelyard.judge.process import OutputLog, engine_surroundings

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
