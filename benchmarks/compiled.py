"""How much faster are the kernels than plain Python, and what does compiling them cost?

Naive twins: a sort of byte strings (`in_bytes`), and the block-cache rules in plain Python, on the
first prompts only (its seconds are scaled to as many tokens as the kernel's). Prompts are those of
a tournament: template, instruction, and all ordered pairs of k responses, shuffled; random ids,
because only lengths and shared beginnings count here. Compiling is timed in separate processes,
with an empty and with a filled cache folder.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from harness.common import ROOT, parser, report
from steelyard_kernels.block_cache import BlockCache, new_cache, simulate
from steelyard_kernels.prefix import common_prefix, lexicographic_order

sys.path.insert(0, str(ROOT / "tests"))
from support.block_cache_twins import NaiveEngine

VOCABULARY = 50_000
POOL, BLOCK, STEP, SEQUENCES = 3750, 16, 8192, 1024  # a pool of 60,000 tokens
COMPILE = """
import json, time
import numba
import numpy as np
from steelyard_kernels.block_cache import drain, new_cache, simulate
from steelyard_kernels.prefix import common_prefix, lexicographic_order
tokens, offsets, order = np.arange(9, dtype=np.int32), np.array([0, 4, 9]), np.arange(2)
cache = new_cache(9, 2, max_model_len=9, max_num_batched_tokens=9, max_num_seqs=2)
times = [time.perf_counter()]
for call in (
    lambda: lexicographic_order(tokens, offsets),
    lambda: common_prefix(tokens, offsets, order),
    lambda: (simulate(tokens, offsets, cache), drain(cache)),
):
    call()
    times.append(time.perf_counter())
print(json.dumps(np.diff(times).tolist()))
"""
KERNELS = ("prefix order", "common prefixes", "block cache")


def in_bytes(tokens: np.ndarray, offsets: np.ndarray) -> list[int]:
    """Sort into prefix order by Python: big-endian bytes compare as the numbers do."""
    raw = tokens.astype(">u4").tobytes()
    rows = [raw[4 * start : 4 * end] for start, end in pairwise(offsets.tolist())]
    return sorted(range(len(rows)), key=rows.__getitem__)


def tournament(instructions: int, k: int, words: int, seed: int = 0) -> list[np.ndarray]:
    """Make shuffled prompts; an instruction has about `words` tokens, a response twice as many."""
    rng = np.random.default_rng(seed)

    def text(mean: int) -> np.ndarray:
        size = rng.integers(mean // 2, mean * 3 // 2) + 1
        return rng.integers(0, VOCABULARY, size, dtype=np.int32)

    template, rows = text(60), []
    for _ in range(instructions):
        head, responses = (
            np.concatenate([template, text(words)]),
            [text(2 * words) for _ in "r" * k],
        )
        rows += [np.concatenate([head, a, b]) for a in responses for b in responses if a is not b]
    return [rows[at] for at in rng.permutation(len(rows))]


def ragged(rows: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate(rows), np.cumsum([0, *map(len, rows)], dtype=np.int64)


def seconds(repeats: int, call: Callable[[], Any]) -> float:
    """Return the median after one call that warms up."""
    call()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def naive_neighbours(rows: list[np.ndarray], order: np.ndarray) -> list[int]:
    found = [0]
    for a, b in pairwise(order):
        one, other = rows[a], rows[b]
        size = min(len(one), len(other))
        differ = np.flatnonzero(one[:size] != other[:size])
        found.append(int(differ[0]) if len(differ) else size)
    return found


def empty() -> BlockCache:
    return new_cache(
        POOL, BLOCK, max_model_len=8192, max_num_batched_tokens=STEP, max_num_seqs=SEQUENCES
    )


def simulated(rows: list[np.ndarray]) -> list[int]:
    return simulate(*ragged(rows), empty()).tolist()


def naively_simulated(rows: list[np.ndarray]) -> list[int]:
    engine = NaiveEngine(POOL, BLOCK, tokens=STEP, seqs=SEQUENCES)
    return engine.run([row.tolist() for row in rows])


def check(rows: list[np.ndarray], few: list[np.ndarray]) -> None:
    """Check that naive and fast results are the same."""
    tokens, offsets = ragged(rows)
    order, shared = lexicographic_order(tokens, offsets)
    assert (order == in_bytes(tokens, offsets)).all()
    assert shared.tolist() == naive_neighbours(rows, order)
    assert simulated(few) == naively_simulated(few)


def measure(rows: list[np.ndarray], repeats: int, naive_prompts: int) -> list[dict[str, Any]]:
    """Return one line per kernel."""
    few = rows[:naive_prompts]
    check(rows, few)
    flat = ragged(rows)
    order, _ = lexicographic_order(*flat)
    in_order = ragged([rows[at] for at in order])
    slow = seconds(1, lambda: naively_simulated(few)) * len(flat[0]) / sum(map(len, few))
    times = {
        "prefix order": (
            seconds(repeats, lambda: in_bytes(*flat)),
            seconds(repeats, lambda: lexicographic_order(*flat)),
        ),
        "common prefixes": (
            seconds(1, lambda: naive_neighbours(rows, order)),
            seconds(repeats, lambda: common_prefix(*flat, order)),
        ),
        "block cache, in order": (slow, seconds(repeats, lambda: simulate(*in_order, empty()))),
        "block cache, shuffled": (slow, seconds(repeats, lambda: simulate(*flat, empty()))),
    }
    return [
        {
            "kernel": kernel,
            "prompts": len(rows),
            "tokens": len(flat[0]),
            "naive_s": naive,
            "kernel_s": fast,
            "ratio": naive / fast,
            "million_tokens_s": len(flat[0]) / fast / 1e6,
        }
        for kernel, (naive, fast) in times.items()
    ]


def compile_times(repeats: int) -> dict[str, dict[str, float]]:
    """Time the first answer of each kernel: compiled, and from the cache.

    The first kernel includes what Numba prepares once per process; the second uses a part of it.
    """
    cold, warm = [], []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            for times in (cold, warm):
                done = subprocess.run(
                    [sys.executable, "-c", COMPILE],
                    env=os.environ | {"NUMBA_CACHE_DIR": folder},
                    check=True, capture_output=True, text=True,
                )  # fmt: skip
                times.append(json.loads(done.stdout))
    return {
        name: {"compile_s": compiled, "load_s": loaded}
        for name, compiled, loaded in zip(
            KERNELS, np.median(cold, axis=0).tolist(), np.median(warm, axis=0).tolist(), strict=True
        )
    }


def main() -> None:
    options = parser(__doc__).parse_args()
    # (instructions, k, tokens of an instruction): 60,000 rows of 260 and 20,000 of 800 tokens.
    shapes = [(20, 4, 40)] if options.smoke else [(1070, 8, 40), (357, 8, 148)]
    repeats = 1 if options.smoke else 5
    naive_prompts = 240 if options.smoke else 600
    rows = []
    for instructions, k, words in shapes:
        rows += measure(tournament(instructions, k, words), repeats, naive_prompts)
    times = compile_times(1 if options.smoke else 3)
    report("compiled", [row | times[row["kernel"].split(",")[0]] for row in rows], options)


if __name__ == "__main__":
    main()
