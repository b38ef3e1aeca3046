"""How much of each workload can be shared, how much is, and how much in the order it came?

No engine runs: the embedded judge's tokens, the block-cache oracle (steelyard_kernels.block_cache,
which tests compare with real engines), a pool of 60,000 tokens, shuffled rows.

- logical: tokens of all prompts in both orders
- unique: of distinct prompts
- floor: nodes of the trie of all prompts, which no cache of prefixes can save
- block_floor: tokens that no cache of whole blocks can save, with the last token of each prompt
- computed: what the engine computes of the distinct prompts in Steelyard's order
- naive: what it computes of all prompts in the order of the shards (criteria: criterion-first)
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from harness import criteria, workloads
from harness.common import parser, report
from harness.contest import texts
from harness.prompts import both_orders, encoder_of, pairwise_template, prefix_order, tokenise
from harness.tinyjudge import tiny_judge
from harness.workloads import Limits, Row
from steelyard.core.batches import TokenRows
from steelyard.judge.base import Encoder

POOL = 60_000
# Limits of a step, as Steelyard chooses them for a GPU (blocks of 16) and for a CPU (of 32).
STEPS = {16: (16_384, 1024), 32: (512, 16)}
WHOLE = Limits(1, 8000, 4000)  # in characters: whole prompts fit into the judge's context
KS = (2, 4, 6, 8, 12, 16)


def every(found: workloads.Texts, count: int, seed: int) -> Iterator[tuple[str, list[Row]]]:
    """Make all workloads by name; `count` instructions each, fewer where there are many pairs."""
    yield "8 versus one", workloads.versus(found, count, 8, seed)
    for k in KS:
        rows = workloads.tournament(found, max(1, count // (k // 2)), k, seed)
        yield f"tournament k={k}", rows
        if k == 4:
            yield "tournament k=4, 30% copies", workloads.overlap(rows, seed=seed)
    yield "5 criteria, k=4", workloads.tournament(found, max(1, count // 8), 4, seed)


def prompts(name: str, rows: list[Row], encoder: Encoder) -> tuple[TokenRows, TokenRows]:
    """Make Steelyard's prompts and the naive script's, both in the order of the rows."""
    if "criteria" not in name:
        same = tokenise(pairwise_template(encoder), both_orders(rows), encoder)
        return same, same
    last = tokenise(criteria.template(encoder, last=True), criteria.by_pair(rows), encoder)
    first = criteria.template(encoder, last=False)
    return last, tokenise(first, criteria.by_criterion(rows), encoder)


def distinct(rows: TokenRows) -> TokenRows:
    """Return each different row once, in prefix order."""
    from steelyard_kernels.prefix import common_prefix

    ordered = rows.take(prefix_order(rows))
    shared = common_prefix(ordered.tokens, ordered.offsets, np.arange(len(ordered.lengths)))
    # Equal rows are neighbours.
    again = (shared[1:] == ordered.lengths[1:]) & (shared[1:] == ordered.lengths[:-1])
    return ordered.take(np.flatnonzero(np.concatenate([[True], ~again])))


def computed(rows: TokenRows, block: int) -> int:
    """Count the tokens that an engine with this pool computes of rows in this order."""
    from steelyard_kernels.block_cache import new_cache, simulate

    tokens, seqs = STEPS[block]
    cache = new_cache(
        POOL // block + 1,
        block,
        max_model_len=int(rows.lengths.max()),
        max_num_batched_tokens=tokens,
        max_num_seqs=seqs,
    )
    return int(rows.lengths.sum() - simulate(rows.tokens, rows.offsets, cache).sum())


def _in_blocks(ordered: TokenRows, block: int) -> int:
    from steelyard_kernels.prefix import common_prefix

    shared = common_prefix(ordered.tokens, ordered.offsets, np.arange(len(ordered.lengths)))
    return int((ordered.lengths - np.minimum(shared, ordered.lengths - 1) // block * block).sum())


def measure(name: str, rows: list[Row], encoder: Encoder) -> Iterator[dict[str, Any]]:
    """Return one line per size of block."""
    from steelyard_kernels.prefix import common_prefix, trie_floor

    ours, naive = prompts(name, workloads.arrange(rows, "shuffled"), encoder)
    unique = distinct(ours)
    places = np.arange(len(unique.lengths))
    floor = trie_floor(unique.offsets, common_prefix(unique.tokens, unique.offsets, places))
    logical = int(ours.lengths.sum())
    for block in STEPS:
        work, theirs = computed(unique, block), computed(naive, block)
        yield {
            "workload": name,
            "pairs": len(rows),
            "block": block,
            "logical": logical,
            "unique": int(unique.lengths.sum()),
            "floor": floor,
            "block_floor": _in_blocks(unique, block),
            "computed": work,
            "naive": theirs,
            "computed/floor": work / floor,
            "logical/computed": logical / work,
            "logical/floor": logical / floor,
            "naive/computed": theirs / work,
        }


def main() -> int:
    made = parser(__doc__)
    made.add_argument("--judge", default="demo", help="judge with the tokenizer to use [demo]")
    made.add_argument("--instructions", type=int, default=400)
    made.add_argument("--seed", type=int, default=0)
    chosen = made.parse_args()
    if chosen.smoke:
        chosen.instructions = 8
    found = texts(chosen, None if chosen.smoke else WHOLE)
    with tempfile.TemporaryDirectory(prefix="steelyard-bench-") as folder:
        encoder = encoder_of(_judge(chosen, Path(folder)))
        lines = [
            line
            for name, rows in every(found, chosen.instructions, chosen.seed)
            for line in measure(name, rows, encoder)
        ]
    report("sharing", lines, chosen)
    return 0


def _judge(chosen: argparse.Namespace, folder: Path) -> str:
    if not chosen.smoke:
        return str(chosen.judge)
    corpus = [text for text, _ in texts(chosen).items]
    return str(tiny_judge(folder / "judge", corpus))


if __name__ == "__main__":
    sys.exit(main())
