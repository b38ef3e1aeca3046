"""The blocks of a prefix cache: a queue of free blocks, and a table of what blocks hold.

Modelled on vLLM's block_pool.py, without Python objects; memory is proportional to the blocks.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from steelyard_kernels.jit import kernel

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
UInt64 = NDArray[np.uint64]

NONE = np.uint64(0)  # the hash of a block that is not full

# Indices into BlockCache.counts: free blocks, tokens that the step still takes, running prompts,
# tokens of the last of these that are done and that are left, steps before this step.
FREE, BUDGET, RUNNING, DONE, LEFT, IN_FLIGHT = range(6)


class BlockCache(NamedTuple):
    """The state of an engine's scheduler and block pool; `simulate` and `drain` write to it.

    A named tuple, because Numba accepts no other record. Block 0, which is never used, is the end
    of the circular queue of free blocks and the empty slot of the table.
    """

    block_size: int  # tokens
    step_tokens: int  # max_num_batched_tokens
    step_prompts: int  # max_num_seqs
    after: Int32  # [blocks] the next free block
    before: Int32  # [blocks] the free block before
    users: Int32  # [blocks] running prompts that hold the block
    hashes: UInt64  # [blocks] 0: not full
    twin_after: Int32  # [blocks] circular list of blocks with the same hash, oldest first
    twin_before: Int32  # [blocks]
    table: Int32  # [power of two] open addressing: the oldest block of each hash
    held: Int32  # blocks of running prompts, one prompt after the other
    ends: Int64  # [step_prompts] where each running prompt's blocks end in `held`
    finishing: Int64  # [steps in flight + 1] prompts that end with each step
    chain: UInt64  # hashes of the full blocks of the prompt admitted last
    counts: Int64  # [6], by FREE to IN_FLIGHT


@kernel
def enter_queue(cache: BlockCache, block: int, previous: int) -> None:
    """Put a block into the queue of free blocks, after `previous`."""
    following = cache.after[previous]
    cache.after[previous], cache.before[block] = block, previous
    cache.after[block], cache.before[following] = following, block
    cache.counts[FREE] += 1


@kernel
def leave_queue(cache: BlockCache, block: int) -> None:
    """Take a free block out of the queue, wherever it is."""
    cache.after[cache.before[block]] = cache.after[block]
    cache.before[cache.after[block]] = cache.before[block]
    cache.counts[FREE] -= 1


@kernel
def take_block(cache: BlockCache) -> int:
    """Take the first free block, empty it and give it a user."""
    block: int = cache.after[0]
    leave_queue(cache, block)
    if cache.hashes[block] != NONE:
        leave_table(cache, block)
    cache.users[block] = 1
    return block


@kernel
def find_slot(cache: BlockCache, value: np.uint64) -> int:
    """Return the slot of a hash in the table, or the empty slot where it would be."""
    mask = len(cache.table) - 1
    slot: int = np.int64(value & np.uint64(mask))  # type: ignore[assignment]
    while cache.table[slot] != 0 and cache.hashes[cache.table[slot]] != value:
        slot = (slot + 1) & mask
    return slot


@kernel
def enter_table(cache: BlockCache, block: int, value: np.uint64) -> None:
    """Enter a full block under its hash, after the blocks that have the same hash."""
    slot = find_slot(cache, value)
    cache.hashes[block] = value
    oldest = cache.table[slot]
    if oldest == 0:
        cache.table[slot] = oldest = block
        cache.twin_before[block] = block
    newest = cache.twin_before[oldest]
    cache.twin_after[newest], cache.twin_before[block] = block, newest
    cache.twin_after[block], cache.twin_before[oldest] = oldest, block


@kernel
def leave_table(cache: BlockCache, block: int) -> None:
    """Forget what a block holds; the next oldest block with the same hash replaces it."""
    slot = find_slot(cache, cache.hashes[block])
    heir = cache.twin_after[block]
    if heir == block:
        _empty(cache, slot)
    else:
        newer = cache.twin_before[block]
        cache.twin_after[newer], cache.twin_before[heir] = heir, newer
        if cache.table[slot] == block:
            cache.table[slot] = heir
    cache.hashes[block] = NONE


@kernel
def _empty(cache: BlockCache, slot: int) -> None:
    """Empty a slot, and move up what was pushed past it (Knuth, TAOCP 3, 6.4, algorithm R)."""
    mask = len(cache.table) - 1
    gap, probe = slot, (slot + 1) & mask
    while cache.table[probe] != 0:
        home = np.int64(cache.hashes[cache.table[probe]] & np.uint64(mask))
        if (probe - home) & mask >= (probe - gap) & mask:
            cache.table[gap] = cache.table[probe]
            gap = probe
        probe = (probe + 1) & mask
    cache.table[gap] = 0
