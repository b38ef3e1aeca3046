"""Which pairs become verdicts at a time, and how much memory this takes in DuckDB."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from steelyard.core.arrow import offsets_of
from steelyard.store.plan.files import PAIRS_BYTES, Manifest
from steelyard.store.sql import MEMORY_LIMIT

# Whose join and sort fit into DuckDB's memory: a sort takes several times its rows.
PROMPTS_AT_ONCE = 1_000_000
BYTES_AT_ONCE = 128 << 20
# Rows that DuckDB has in memory at once when it writes a column, and what it needs besides.
VECTOR_ROWS = 2048
BESIDES = 512 << 20


def portions(manifest: Manifest, groups: Sequence[int]) -> Iterator[tuple[str, str]]:
    """Yield conditions for reads and for pairs, which together cover all pairs, each once.

    A portion has the pairs of some buckets, for a prompt is in one bucket with all its pairs, and
    where pairs are large, of some row groups. `groups` has the number of pairs in each row group.
    """
    for first, last in bucket_ranges(manifest.unique, PROMPTS_AT_ONCE):
        buckets = f"bucket BETWEEN {first} AND {last}"
        share = sum(manifest.unique[first : last + 1]) / max(1, manifest.prompts)
        for pairs in pair_ranges(groups, share):
            yield buckets, f"{buckets} AND {pairs}"


def bucket_ranges(unique: Sequence[int], most: int) -> Iterator[tuple[int, int]]:
    """Yield first and last of neighbouring buckets that have about `most` prompts together."""
    first = prompts = 0
    for bucket, count in enumerate(unique):
        if prompts and prompts + count > most:
            yield first, bucket - 1
            first, prompts = bucket, 0
        prompts += count
    yield first, max(first, len(unique) - 1)


def pair_ranges(groups: Sequence[int], share: float) -> Iterator[str]:
    """Yield conditions for neighbouring row groups whose pairs take about BYTES_AT_ONCE.

    Args:
        groups: pairs of each row group, none of which has much more than PAIRS_BYTES.
        share: of the pairs that are looked at.
    """
    ends = offsets_of(groups).tolist()
    at_once = max(1, int(BYTES_AT_ONCE / (PAIRS_BYTES * max(share, 1e-9))))
    for group in range(0, max(1, len(groups)), at_once):
        end = ends[min(group + at_once, len(groups))]
        yield "true" if at_once >= len(groups) else f"pair BETWEEN {ends[group]} AND {end - 1}"


def memory_for(groups: Sequence[int]) -> int:
    """Return the bytes that DuckDB needs for verdicts: it grows with the length of rows alone."""
    ends = offsets_of(groups)
    within = ends.searchsorted(ends[:-1] + VECTOR_ROWS, "right") - range(len(groups))
    return max(MEMORY_LIMIT, BESIDES + PAIRS_BYTES * int(max(within, default=0)))
