"""How a response looks, as counts: its length, lists, headings, bold text and code."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from steelyard.comparisons.read import Comparisons, read_comparisons
from steelyard.core.schemas import Float64
from steelyard.errors import InputRefused
from steelyard.input import stream
from steelyard.store.run_input import reopen_input
from steelyard.store.run_record import RunRecord
from steelyard.store.snapshot import RunSnapshot

FEATURES = ("length", "lists", "headings", "bold", "code")
_FENCE = re.compile(r"^(?:```|~~~)[^\n]*\n.*?(?:^(?:```|~~~)[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
_LIST = re.compile(r"^[ \t]*(?:[-*+]|\d+[.)])[ \t]+\S", re.MULTILINE)
_HEADING = re.compile(r"^ {0,3}#{1,6}[ \t]+\S", re.MULTILINE)
_BOLD = re.compile(r"\*\*(?=\S)[^\n]+?\*\*|__(?=\S)[^\n]+?__")


def style_counts(texts: Sequence[str]) -> Float64:
    """Counts of Markdown by text.

    Args:
        texts: n responses.

    Returns:
        float64 [n, 5], in the order of FEATURES: characters; items of lists; headings; stretches
        of bold text; blocks of code. What stands in a block of code is no list and no heading.
    """
    out = np.empty((len(texts), len(FEATURES)))
    for at, text in enumerate(texts):
        prose, blocks = _FENCE.subn("\n", text)
        out[at] = (
            len(text),
            len(_LIST.findall(prose)),
            len(_HEADING.findall(prose)),
            len(_BOLD.findall(prose)),
            blocks,
        )
    return out


TEXTS = ("response_a", "response_b")
PLACE = ("shard", "row")


def counted(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with style counts in place of its texts: `lists_a`, `lists_b`, ..., float64."""
    columns = {name: batch.column(name) for name in batch.schema.names if name not in TEXTS}
    for name in TEXTS:
        counts = style_counts(batch.column(name).fill_null("").to_pylist())
        side = name[-1]
        columns |= {
            f"{feature}_{side}": pa.array(counts[:, at]) for at, feature in enumerate(FEATURES)
        }
    return pa.RecordBatch.from_pydict(columns)


def read_with_style(
    path: Path, columns: Mapping[str, str] | None, need: tuple[str, ...], want: tuple[str, ...]
) -> Comparisons:
    """Comparisons with style counts of both responses.

    Args:
        path: run or file, as for `read_comparisons`; a file has the columns response_a and
            response_b.
        columns: role -> column.
        need: roles.
        want: roles.

    Raises:
        UsageError: there is no such source, or a file or an imported run without texts.
        InputRefused: values cannot be used, or the run's shards are not what they were.
    """
    want = tuple(name for name in want if name not in {"length_a", "length_b"})
    if not (path / "run.json").exists():
        return read_comparisons(path, columns, (*need, *TEXTS), want, counted)
    run = RunSnapshot.take(path)
    read = read_comparisons(run, columns, (*need, *PLACE), want)
    index = pa.array(np.arange(len(read.table)))
    places = read.table.select(PLACE).append_column("index", index)
    found = places.join(_counts_of_shards(run.record), list(PLACE)).sort_by("index")
    missing = found["length_a"].null_count
    if missing:
        raise InputRefused(
            f"{missing:,} of {len(found):,} verdicts have no row in the shards any more",
            place=str(path),
            remedy="put the run's shards back as they were",
        )
    table = read.table
    for name in found.column_names:
        if name not in {*PLACE, "index"}:
            table = table.append_column(name, found[name])
    return Comparisons(table, read.left_out, read.columns)


def _counts_of_shards(record: RunRecord) -> pa.Table:
    shards, limits = reopen_input(record, otherwise="leave --style out")
    parts = []
    for rows, _ in stream(shards, limits):
        parts.append(counted(rows.select([*PLACE, *TEXTS])))
    return pa.Table.from_batches(parts)
