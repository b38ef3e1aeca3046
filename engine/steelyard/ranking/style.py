"""How a response looks, as counts: its length, lists, headings, bold text and code."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from steelyard.comparisons.read import Comparisons, read_comparisons
from steelyard.core.schemas import READ_FROM, Float64
from steelyard.errors import InputRefused
from steelyard.input import Limits, ShardSet, stream
from steelyard.store.run_input import reopen_input
from steelyard.store.rundir import RunDir
from steelyard.store.snapshot import RunSnapshot

FEATURES = ("length", "lists", "headings", "bold", "code")
TEXTS = ("response_a", "response_b")
ROW_KEY = ("shard", "row")
_FENCE = re.compile(r"^(?:```|~~~)[^\n]*\n.*?(?:^(?:```|~~~)[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
_LIST = re.compile(r"^[ \t]*(?:[-*+]|\d+[.)])[ \t]+\S", re.MULTILINE)
_HEADING = re.compile(r"^ {0,3}#{1,6}[ \t]+\S", re.MULTILINE)
_BOLD = re.compile(r"\*\*(?=\S)[^\n]+?\*\*|__(?=\S)[^\n]+?__")


def style_counts(texts: Sequence[str]) -> Float64:
    """Count the Markdown of n texts, as [n, 5] in the order of FEATURES.

    These are characters, items of lists, headings, stretches of bold text, and blocks of code,
    inside which nothing else is counted.
    """
    counts = np.empty((len(texts), len(FEATURES)))
    for i, text in enumerate(texts):
        prose, blocks = _FENCE.subn("\n", text)
        markup = (len(pattern.findall(prose)) for pattern in (_LIST, _HEADING, _BOLD))
        counts[i] = (len(text), *markup, blocks)
    return counts


def counted(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Replace the texts of a batch by style counts: `lists_a`, `lists_b`, ..., float64."""
    columns = {name: batch.column(name) for name in batch.schema.names if name not in TEXTS}
    for name in TEXTS:
        if name not in batch.schema.names:
            continue
        counts = style_counts(batch.column(name).fill_null("").to_pylist())
        for feature, column in zip(FEATURES, counts.T, strict=True):
            columns[f"{feature}_{name[-1]}"] = pa.array(column)
    return pa.RecordBatch.from_pydict(columns)


def read_with_style(
    path: Path,
    columns: Mapping[str, str] | None,
    need: tuple[str, ...],
    want: tuple[str, ...],
    *,
    remote: bool = False,
) -> Comparisons:
    """Read comparisons with style counts of both responses; arguments as in `read_comparisons`.

    A file has the columns response_a and response_b. `remote` says whether the texts of a run may
    be fetched from addresses that it names.

    Raises:
        UsageError: there is no such source, or a file or an imported run without texts.
        InputRefused: values cannot be used, or the run's shards have changed.
    """
    want = tuple(name for name in want if name not in {"length_a", "length_b"})
    if not RunDir(path).is_begun:
        return read_comparisons(path, columns, (*need, *TEXTS), want, counted)
    run = RunSnapshot.take(path)
    read = read_comparisons(run, columns, (*need, *ROW_KEY), (*want, *READ_FROM))
    shards, limits = reopen_input(run.record, otherwise="leave --style out", remote=remote)
    table = read.table
    if read.has(*READ_FROM):  # each response is in its own row
        own = _counts(shards, limits, TEXTS[:1], (*ROW_KEY, "item"))
        sides = {"a": table[READ_FROM[0]], "b": table[READ_FROM[1]]}
        joined = {side: _joined(_fields_of(place), own) for side, place in sides.items()}
        table = table.drop_columns(list(READ_FROM))
    else:
        joined = {"": _joined(table.select(ROW_KEY), _counts(shards, limits, TEXTS, ROW_KEY))}
    for side, counts in joined.items():
        if missing := counts[counts.column_names[0]].null_count:
            raise InputRefused(
                f"{missing:,} of {len(counts):,} verdicts no longer have a row in the shards",
                place=str(path),
                remedy="restore the run's shards",
            )
        for name in counts.column_names:
            table = table.append_column(f"{name[:-1]}{side}" if side else name, counts[name])
    return replace(read, table=table)


def _joined(rows: pa.Table, counts: pa.Table) -> pa.Table:
    """Return the counts of each row, in their order; both tables have the same keys."""
    keys = rows.column_names
    numbered = rows.append_column("index", pa.array(np.arange(len(rows))))
    return numbered.join(counts, keys).sort_by("index").drop_columns([*keys, "index"])


def _fields_of(places: pa.ChunkedArray) -> pa.Table:
    fields = {name: pc.struct_field(places, name) for name in (*ROW_KEY, "item")}
    return pa.table({**fields, "item": pc.fill_null(fields["item"], -1)})


def _counts(
    shards: ShardSet, limits: Limits, texts: Sequence[str], keys: Sequence[str]
) -> pa.Table:
    """Count the style of some texts of all rows; a missing item becomes -1."""
    batches = []
    for rows, _ in stream(shards, limits):
        columns = {name: rows[name] for name in (*keys, *texts)}
        if "item" in columns:
            columns["item"] = pc.fill_null(columns["item"], -1)
        batches.append(counted(pa.record_batch(columns)))
    return pa.Table.from_batches(batches)
