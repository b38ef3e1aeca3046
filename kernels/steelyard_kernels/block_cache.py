"""How many tokens of each prompt vLLM takes from its prefix cache, predicted without an engine.

The rules of vLLM 0.32's V1 engine (vllm/v1/core: block_pool.py, kv_cache_manager.py,
single_type_kv_cache_manager.py, sched/scheduler.py) for a model with full attention whose
prompts ask for one token:

- Full blocks are known by the hash of all tokens up to their end, and enter the cache when they
  are allocated: a later prompt of the same step finds them. A hit is at most n - 1 tokens, so the
  last block of a prompt that fills it is computed again, as a twin of the first.
- A step first schedules the prompt that the last step cut short, then new prompts in order, until
  its tokens or sequences are used up or a prompt's blocks do not all fit next to those in use.
- A finished prompt frees its blocks, the last first: full blocks go to the end of the queue of
  free blocks, a block that is not full to its front. Blocks are taken from the front, and lose
  what they held. Block 0 is never used.
"""

from __future__ import annotations

import numpy as np

from steelyard_kernels.block_pool import (
    BUDGET,
    DONE,
    FREE,
    IN_FLIGHT,
    LEFT,
    NONE,
    RUNNING,
    BlockCache,
    Int32,
    Int64,
    UInt64,
    enter_queue,
    enter_table,
    find_slot,
    leave_queue,
    take_block,
)
from steelyard_kernels.jit import column, kernel

_SEED = np.uint64(0x9E3779B97F4A7C15)
_FACTOR = np.uint64(0xD6E8FEB86659FD93)
_HALF, _ONE = np.uint64(32), np.uint64(1)


def new_cache(
    blocks: int,
    block_size: int,
    *,
    max_model_len: int,
    max_num_batched_tokens: int,
    max_num_seqs: int,
    steps_in_flight: int = 1,
) -> BlockCache:
    """Return the empty cache of an idle engine. It takes about 50 bytes per block.

    Args:
        blocks: vLLM's num_gpu_blocks, including the block that it never uses.
        block_size: tokens that a block holds.
        max_model_len: tokens of the longest prompt.
        max_num_batched_tokens: the most tokens that a step computes.
        max_num_seqs: the most prompts that run at the same time.
        steps_in_flight: 1; or 2 with asynchronous scheduling, where a step is scheduled before
            the previous step has freed its blocks.

    Raises:
        ValueError: a limit is not positive, or the longest prompt does not fit into the pool.
    """
    limits = (blocks, block_size, max_model_len, max_num_batched_tokens, max_num_seqs)
    if min(*limits, steps_in_flight) < 1:
        raise ValueError(f"limits of an engine are positive: {limits}, {steps_in_flight}")
    longest = -(-max_model_len // block_size)
    if longest >= blocks:
        raise ValueError(f"a prompt of {longest} blocks does not fit into {blocks} with block 0")
    ring = np.arange(blocks, dtype=np.int32)
    counts = np.zeros(6, np.int64)
    counts[FREE], counts[BUDGET] = blocks - 1, max_num_batched_tokens
    return BlockCache(
        block_size=block_size,
        step_tokens=max_num_batched_tokens,
        step_prompts=max_num_seqs,
        after=np.roll(ring, -1),
        before=np.roll(ring, 1),
        users=np.zeros(blocks, np.int32),
        hashes=np.zeros(blocks, np.uint64),
        twin_after=ring.copy(),
        twin_before=ring.copy(),
        table=np.zeros(1 << (2 * blocks).bit_length(), np.int32),
        held=np.empty(max_num_seqs * longest, np.int32),
        ends=np.zeros(max_num_seqs, np.int64),
        finishing=np.zeros(steps_in_flight + 1, np.int64),
        chain=np.empty(longest, np.uint64),
        counts=counts,
    )


def simulate(tokens: Int32, offsets: Int64, cache: BlockCache) -> Int32:
    """Feed prompts to the cache of an engine whose queue never runs dry.

    The last prompts keep running, so that feeding a stream in chunks gives the same result as
    feeding it at once. Blocks are identified by 64-bit hashes: a billion lookups in a pool of a
    million blocks contain a mistake with a probability of 1 in 10,000.

    Args:
        tokens: int32 [tokens], non-negative.
        offsets: int64 [prompts + 1]; prompt i is tokens[offsets[i]:offsets[i + 1]]. An empty
            prompt is skipped.
        cache: its state, which is changed.

    Returns:
        int32 [prompts], tokens from the cache: a multiple of the block size, less than the
        prompt's length. The rest is computed.

    Raises:
        ValueError: a prompt is longer than the cache's max_model_len; nothing was fed.
    """
    prompts = max(len(offsets) - 1, 0)
    cached = np.zeros(prompts, np.int32)
    longest = int(np.diff(offsets).max()) if prompts else 0
    if longest > len(cache.chain) * cache.block_size:
        raise ValueError(f"a prompt has {longest} tokens, more than the cache's max_model_len")
    _simulate(column(tokens, np.int32), column(offsets, np.int64), cache, cached)
    return cached


def drain(cache: BlockCache) -> None:
    """Let the engine finish its prompts and go idle. Its cached blocks stay."""
    _drain(cache)


@kernel
def _simulate(tokens: Int32, offsets: Int64, cache: BlockCache, cached: Int32) -> None:
    for prompt in range(len(cached)):
        start, end = offsets[prompt], offsets[prompt + 1]
        if start == end:
            continue
        while cache.counts[BUDGET] == 0:  # the previous prompt may need its chain until then
            _next_step(cache)
        _hash(tokens[start:end], cache.block_size, cache.chain)
        hits = _admissible_hits(cache, end - start)
        while hits < 0:
            _next_step(cache)
            hits = _admissible_hits(cache, end - start)
        _admit(cache, end - start, hits)
        cached[prompt] = hits * cache.block_size


@kernel
def _drain(cache: BlockCache) -> None:
    while cache.counts[RUNNING] > 0:
        _next_step(cache)
    cache.counts[IN_FLIGHT] = 0


@kernel
def _hash(prompt: Int32, block_size: int, chain: UInt64) -> None:
    value = _SEED
    for block in range(len(prompt) // block_size):
        for position in range(block * block_size, (block + 1) * block_size):
            value = (value ^ np.uint64(prompt[position])) * _FACTOR
            value ^= value >> _HALF
        chain[block] = max(value, _ONE)


@kernel
def _admissible_hits(cache: BlockCache, length: int) -> int:
    """Return how many of the prompt's blocks are cached, or -1 if this step cannot take it."""
    if cache.counts[RUNNING] == cache.step_prompts:
        return -1
    hits = 0
    needed = -(-length // cache.block_size)
    while hits < (length - 1) // cache.block_size:
        block = cache.table[find_slot(cache, cache.chain[hits])]
        if block == 0:
            break
        if cache.users[block] > 0:  # a free block that is hit leaves the queue, like a new block
            needed -= 1
        hits += 1
    return hits if needed <= cache.counts[FREE] else -1


@kernel
def _admit(cache: BlockCache, length: int, hits: int) -> None:
    running = cache.counts[RUNNING]
    end = cache.ends[running - 1] if running else 0
    for i in range(hits):
        block = cache.table[find_slot(cache, cache.chain[i])]
        if cache.users[block] == 0:
            leave_queue(cache, block)
        cache.users[block] += 1
        cache.held[end + i] = block
    cache.ends[running] = end + hits
    cache.counts[RUNNING] += 1
    cache.counts[DONE] = hits * cache.block_size
    cache.counts[LEFT] = length - hits * cache.block_size
    _compute(cache)


@kernel
def _compute(cache: BlockCache) -> None:
    """Schedule as much of the last admitted prompt as this step still takes."""
    last = cache.counts[RUNNING] - 1
    start = cache.ends[last - 1] if last else 0
    done = cache.counts[DONE]
    take = min(cache.counts[LEFT], cache.counts[BUDGET])
    full = done // cache.block_size
    for i in range(cache.ends[last] - start, -(-(done + take) // cache.block_size)):
        cache.held[start + i] = take_block(cache)
        cache.ends[last] += 1
    for i in range(full, (done + take) // cache.block_size):
        enter_table(cache, cache.held[start + i], cache.chain[i])
    cache.counts[DONE] += take
    cache.counts[LEFT] -= take
    cache.counts[BUDGET] -= take
    if cache.counts[LEFT] == 0:
        cache.finishing[cache.counts[IN_FLIGHT]] += 1


@kernel
def _next_step(cache: BlockCache) -> None:
    """End scheduling this step, and begin the next one when the engine does."""
    cache.counts[IN_FLIGHT] += 1
    if cache.counts[IN_FLIGHT] == len(cache.finishing) - 1:
        _finish_oldest(cache)
    cache.counts[BUDGET] = cache.step_tokens
    if cache.counts[LEFT] > 0:
        _compute(cache)


@kernel
def _finish_oldest(cache: BlockCache) -> None:
    """Free the blocks of the oldest step's prompts."""
    ended, running = cache.finishing[0], cache.counts[RUNNING]
    start = 0
    for prompt in range(ended):
        for i in range(cache.ends[prompt] - 1, start - 1, -1):
            block = cache.held[i]
            cache.users[block] -= 1
            if cache.users[block] == 0:
                previous = 0 if cache.hashes[block] == NONE else cache.before[0]
                enter_queue(cache, block, previous)
        start = cache.ends[prompt]
    for i in range(start, cache.ends[running - 1] if running else 0):
        cache.held[i - start] = cache.held[i]
    for prompt in range(ended, running):
        cache.ends[prompt - ended] = cache.ends[prompt] - start
    cache.counts[RUNNING] -= ended
    for step in range(len(cache.finishing) - 1):
        cache.finishing[step] = cache.finishing[step + 1]
    cache.counts[IN_FLIGHT] -= 1
