"""Work in blocks, on as many threads as the process may use; kernels hold no lock."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


def spread(work: Callable[[int, int], None], items: int, block: int) -> None:
    """Call `work(start, end)` for the blocks of range(items), in any order.

    Args:
        work: writes only to what belongs to its items, so that threads do not change results.
        items: how many.
        block: items per call, at least 1.

    Raises:
        Whatever `work` raises first.
    """
    starts = range(0, items, block)
    threads = min(len(os.sched_getaffinity(0)), len(starts))
    if threads <= 1:
        for start in starts:
            work(start, min(start + block, items))
        return
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work, start, min(start + block, items)) for start in starts]:
            done.result()
