"""Twins of the block-cache oracle: the rules in plain Python, and vLLM's own scheduler."""

from __future__ import annotations

from collections import Counter, deque


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
