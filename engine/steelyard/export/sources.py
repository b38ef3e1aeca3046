"""Where the texts of a dataset come from: the shards of a run once more, or files of responses.

Both are read twice. First `scan` tells the selection what it has to know of the texts (digests,
lengths, likeness), then `rows` gives those of the rows that were selected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from steelyard.core.schemas import TURNS, Int64
from steelyard.errors import InputRefused, escape
from steelyard.export.formats import Texts
from steelyard.export.observer import TextFeatures, TextObserver, is_text, numbers_of, or_null
from steelyard.export.options import ExportOptions
from steelyard.export.selection import SEEN, Selection
from steelyard.input import Limits, ShardSet, stream
from steelyard.input.side_files import stream_responses
from steelyard.plan.keys import render_turns, trim

_KEPT = pa.schema(
    [
        ("ref", pa.int64()),
        *((name, pa.string()) for name in ("instruction", "system", "reference", "response")),
        ("turns", TURNS),
    ]
)
_JOINED = """
SELECT i.*, t.instruction AS text, t.system, t.reference, t.turns, t.response AS first,
  s.response AS second
FROM items i JOIN texts t ON t.ref = i.ref LEFT JOIN texts s ON s.ref = i.second_ref
WHERE NOT i.direct ORDER BY i.ref, i.item"""


Progress = Callable[[int, int], None]  # rows that were looked at, of how many


class DatasetTexts(Protocol):
    """A source of texts."""

    in_shards: bool  # whether references are rows of shards, two a row
    files: ShardSet | None  # files of texts that are not the run's own

    def scan(self, selection: Selection, observer: TextObserver, progress: Progress) -> None:
        """Tell the selection what it has to know of all texts."""

    def rows(self, selection: Selection) -> Iterator[tuple[pa.Table, Texts]]:
        """The selected items with their texts."""


class ShardSource:
    """The texts of a run in its own shards."""

    in_shards = True

    def __init__(self, shards: ShardSet, limits: Limits, options: ExportOptions) -> None:
        self.files: ShardSet | None = None
        self._shards, self._limits = shards, limits
        self._plain = options.form == "plain" and not options.judging

    def scan(self, selection: Selection, observer: TextObserver, progress: Progress) -> None:
        """See DatasetTexts."""
        for base, rows in self._batches():
            progress(base, self._shards.rows)
            seen = observer.look(rows["instruction"], rows["system"], rows["turns"])
            n = np.arange(base, base + len(rows))
            sides = {name: trim(rows[name]) for name in ("response_a", "response_b")}
            alone = rows["response_b"].is_null()
            columns = {
                "n": n,
                "shard": rows["shard"],
                "row": rows["row"],
                "instruction": seen.digest,
                "leader": seen.leader,
                "spread": seen.spread,
                **{name: numbers_of(texts) for name, texts in sides.items()},
                "ref_a": 2 * n,
                "ref_b": pc.if_else(alone, pa.scalar(None, pa.int64()), pa.array(2 * n + 1)),
                **{
                    name.replace("response", "length"): pc.utf8_length(texts).cast(pa.int64())
                    for name, texts in sides.items()
                },
                "problem": self._problems(rows, seen),
            }
            selection.saw(pa.table(columns, SEEN))

    def rows(self, selection: Selection) -> Iterator[tuple[pa.Table, Texts]]:
        """See DatasetTexts: rows whose texts stand together, then those that were composed."""
        selection.execute("CREATE TABLE texts AS SELECT * FROM none", none=_KEPT.empty_table())
        wanted = selection.references()
        ahead = _Ahead(selection.items())
        for base, rows in self._batches():
            end = 2 * (base + len(rows))
            items = ahead.until(end)
            if len(items):
                yield items, _texts_of(rows, items, base)
            first, last = np.searchsorted(wanted, [2 * base, end])
            if last > first:
                refs = wanted[first:last]
                taken = rows.take(pa.array(refs // 2 - base))
                side = pa.array(refs % 2 == 0)
                response = pc.if_else(side, taken["response_a"], taken["response_b"])
                _keep(selection, refs, taken, response)
        yield from _joined(selection)

    def _batches(self) -> Iterator[tuple[int, pa.RecordBatch]]:
        base = 0
        with closing(stream(self._shards, self._limits)) as batches:
            for rows, _ in batches:
                if len(rows):
                    yield base, rows
                    base += len(rows)

    def _problems(self, rows: pa.RecordBatch, seen: TextFeatures) -> pa.Array:
        """Why these texts cannot be used; the first reason that applies."""
        two = pc.or_(rows["turns_a"].is_valid(), rows["turns_b"].is_valid())
        needs = pc.or_(is_text(rows["system"]), is_text(render_turns(rows["turns"])))
        reasons = [
            (rows["images"].is_valid(), "images"),
            (two, "two_conversations"),
            (pc.and_(needs, self._plain), "needs_conversation"),
            (pa.array(seen.contaminated), "contaminated"),
        ]
        found = pa.nulls(len(rows), pa.string())
        for where, reason in reversed(reasons):
            found = pc.if_else(where, pa.scalar(reason), found)
        return found


class ResponseTexts:
    """Texts in files of responses, joined by instruction and model."""

    in_shards = False

    def __init__(self, shards: ShardSet, options: ExportOptions) -> None:
        self.files: ShardSet | None = shards
        self._shards = shards
        self._plain = options.form == "plain" and not options.judging

    def scan(self, selection: Selection, observer: TextObserver, progress: Progress) -> None:
        """See DatasetTexts.

        Raises:
            InputRefused: a model has two responses to one instruction.
        """
        selection.execute("CREATE TABLE texts AS SELECT * FROM none", none=_KEPT.empty_table())
        selection.execute(_RESPONSES)
        base = 0
        for rows in stream_responses(self._shards):
            columns = {name: rows[name].combine_chunks() for name in rows.column_names}
            refs = np.arange(base, base + len(rows))
            base += len(rows)
            progress(base, self._shards.rows)
            turns = pa.nulls(len(rows), TURNS)
            seen = observer.look(columns["instruction"], columns["system"], turns)
            response = trim(columns["response"])
            needs = pc.and_(is_text(columns["system"]), self._plain)
            problem = pc.if_else(
                needs,
                pa.scalar("needs_conversation"),
                pc.if_else(
                    pa.array(seen.contaminated),
                    pa.scalar("contaminated"),
                    pa.scalar(None, pa.string()),
                ),
            )
            found = {
                "ref": refs,
                "instruction_id": columns["instruction_id"],
                "model": columns["model"],
                "instruction": seen.digest,
                "leader": seen.leader,
                "spread": seen.spread,
                "response": numbers_of(response),
                "length": pc.utf8_length(response).cast(pa.int64()),
                "problem": problem,
            }
            selection.execute("INSERT INTO responses SELECT * FROM batch", batch=pa.table(found))
            _keep(selection, refs, pa.record_batch(columns), columns["response"])
        self._refuse_two(selection)
        selection.execute(_JOIN_RESPONSES)

    def rows(self, selection: Selection) -> Iterator[tuple[pa.Table, Texts]]:
        """See DatasetTexts."""
        yield from _joined(selection)

    def _refuse_two(self, selection: Selection) -> None:
        found = selection.execute(
            "SELECT model, count(*) OVER () FROM responses GROUP BY instruction_id, model"
            " HAVING count(DISTINCT response) > 1 ORDER BY min(ref) LIMIT 1"
        ).fetchall()
        if found:
            ((model, count),) = found
            raise InputRefused(
                f"{count:,} times a model has several responses to one instruction, first"
                f" {escape(model)}",
                place=self._shards.sources[0].name,
                effect="nothing was written: which one was judged is not known",
                remedy="leave one response a model and instruction, the one that was judged",
            )


_RESPONSES = """
CREATE TABLE responses (ref BIGINT, instruction_id UBIGINT, model VARCHAR, instruction UBIGINT,
  leader UBIGINT, spread DOUBLE, response UBIGINT, length BIGINT, problem VARCHAR)"""
_JOIN_RESPONSES = """
INSERT INTO seen
WITH r AS (SELECT * FROM responses QUALIFY
  row_number() OVER (PARTITION BY instruction_id, model ORDER BY ref) = 1)
SELECT row_number() OVER (ORDER BY v.shard, v."row") - 1, v.shard, v."row", a.instruction,
  a.leader, a.spread, a.response, b.response, a.ref, b.ref, a.length, b.length,
  coalesce(a.problem, b.problem)
FROM verdicts v
JOIN r a ON a.instruction_id = v.instruction_id AND a.model = v.model_a
JOIN r b ON b.instruction_id = v.instruction_id AND b.model = v.model_b"""


class _Ahead:
    """Items in the order of their references, taken as far as is asked."""

    def __init__(self, reader: pa.RecordBatchReader) -> None:
        self._reader = reader
        self._rest = reader.schema.empty_table()

    def until(self, end: int) -> pa.Table:
        """The items whose references are below `end`."""
        while not len(self._rest) or self._rest["ref"][-1].as_py() < end:
            try:
                more = self._reader.read_next_batch()
            except StopIteration:
                break
            self._rest = pa.concat_tables([self._rest, pa.Table.from_batches([more])])
        count = int(np.searchsorted(self._rest["ref"].to_numpy(), end))
        taken, self._rest = self._rest.slice(0, count), self._rest.slice(count)
        return taken


def _texts_of(rows: pa.RecordBatch, items: pa.Table, base: int) -> Texts:
    refs = items["ref"].to_numpy()
    taken = rows.take(pa.array(refs // 2 - base))
    a_first = pa.array(refs % 2 == 0)
    turns = taken["turns"]
    return Texts(
        instruction=taken["instruction"],
        system=or_null(taken["system"]),
        turns=turns,
        conversation=render_turns(turns),
        reference=or_null(taken["reference"]),
        first=pc.if_else(a_first, taken["response_a"], taken["response_b"]),
        second=pc.if_else(a_first, taken["response_b"], taken["response_a"]),
    )


def _keep(selection: Selection, refs: Int64, rows: pa.RecordBatch, response: pa.Array) -> None:
    columns = {"ref": pa.array(refs), "response": response}
    kept = {
        field.name: columns[field.name]
        if field.name in columns
        else rows[field.name]
        if field.name in rows.schema.names
        else pa.nulls(len(rows), field.type)
        for field in _KEPT
    }
    selection.execute("INSERT INTO texts SELECT * FROM batch", batch=pa.table(kept, _KEPT))


def _joined(selection: Selection) -> Iterator[tuple[pa.Table, Texts]]:
    """Items that take their texts from the table of texts."""
    for batch in selection.stream(_JOINED):
        turns = batch["turns"].cast(TURNS)
        yield (
            pa.Table.from_batches([batch]),
            Texts(
                instruction=batch["text"],
                system=or_null(batch["system"]),
                turns=turns,
                conversation=render_turns(turns),
                reference=or_null(batch["reference"]),
                first=batch["first"],
                second=batch["second"],
            ),
        )
