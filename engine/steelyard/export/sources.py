"""Where the texts of a dataset come from: the shards of a run once more, or files of responses.

Both are read twice. First `scan` gives features of the texts (digests, lengths, likeness) to the
selection, then `rows` yields the texts of the rows that were selected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from typing_extensions import override

from steelyard.core.schemas import TURNS, Int64
from steelyard.errors import InputRefused, escape
from steelyard.export.formats import Texts
from steelyard.export.observer import TextObserver, is_text, or_null, text_hashes
from steelyard.export.options import ExportOptions
from steelyard.export.selection import PAIR_TEXTS, Selection
from steelyard.input import Limits, ShardSet, stream
from steelyard.input.side_files import stream_responses
from steelyard.plan.keys import render_turns, trim

# Texts of single responses, for rows that combine those of several places.
RESPONSE_TEXTS = pa.schema(
    [
        ("ref", pa.int64()),
        *((name, pa.string()) for name in ("instruction", "system", "reference", "response")),
        ("turns", TURNS),
    ]
)
_COMBINED = """
SELECT i.*, t.instruction AS text, t.system, t.reference, t.turns, t.response AS first,
  s.response AS second
FROM items i JOIN texts t ON t.ref = i.ref LEFT JOIN texts s ON s.ref = i.second_ref
WHERE NOT i.direct ORDER BY i.ref, i.item"""

# Features of responses from files, as PAIR_TEXTS has them of pairs.
_RESPONSES = """
CREATE TABLE responses (ref BIGINT, instruction_id UBIGINT, model VARCHAR, instruction UBIGINT,
  cluster_leader UBIGINT, split_hash DOUBLE, response UBIGINT, length BIGINT, problem VARCHAR)"""
_JOIN_RESPONSES = """
INSERT INTO pair_texts
WITH r AS (SELECT * FROM responses QUALIFY
  row_number() OVER (PARTITION BY instruction_id, model ORDER BY ref) = 1)
SELECT row_number() OVER (ORDER BY v.shard, v."row") - 1, v.shard, v."row", a.instruction,
  a.cluster_leader, a.split_hash, a.response, b.response, a.ref, b.ref, a.length, b.length,
  coalesce(a.problem, b.problem)
FROM verdicts v
JOIN r a ON a.instruction_id = v.instruction_id AND a.model = v.model_a
JOIN r b ON b.instruction_id = v.instruction_id AND b.model = v.model_b"""


Progress = Callable[[int, int], None]  # rows that were scanned, of this many


class TextSource(Protocol):
    """A source of texts."""

    in_shards: bool  # whether references are rows of shards, two per row
    files: ShardSet | None  # files of texts, where they are not the run's own shards

    def scan(self, selection: Selection, observer: TextObserver, progress: Progress) -> None:
        """Give features of all texts to the selection."""

    def rows(self, selection: Selection) -> Iterator[tuple[pa.Table, Texts]]:
        """Yield the selected items with their texts."""


class ShardSource(TextSource):
    """Texts of a run in its own shards."""

    in_shards = True

    def __init__(self, shards: ShardSet, limits: Limits, options: ExportOptions) -> None:
        self.files = None
        self._shards, self._limits = shards, limits
        self._plain = options.form == "plain" and not options.judging

    @override
    def scan(self, selection: Selection, observer: TextObserver, progress: Progress) -> None:
        for base, rows in self.batches():
            progress(base, self._shards.rows)
            features = observer.observe(rows["instruction"], rows["system"], rows["turns"])
            n = np.arange(base, base + len(rows))
            a, b = trim(rows["response_a"]), trim(rows["response_b"])
            columns = {
                "n": n,
                "shard": rows["shard"],
                "row": rows["row"],
                "instruction": features.digest,
                "cluster_leader": features.cluster_leader,
                "split_hash": features.split_hash,
                "response_a": text_hashes(a),
                "response_b": text_hashes(b),
                "ref_a": 2 * n,
                "ref_b": pc.if_else(b.is_null(), None, pa.array(2 * n + 1)),
                "length_a": pc.utf8_length(a).cast(pa.int64()),
                "length_b": pc.utf8_length(b).cast(pa.int64()),
                "problem": self.problems(rows, pa.array(features.contaminated)),
            }
            selection.add_texts(pa.table(columns, PAIR_TEXTS))

    @override
    def rows(self, selection: Selection) -> Iterator[tuple[pa.Table, Texts]]:
        """Yield items whose texts come from a single shard row, then those that combine several."""
        selection.create("texts", RESPONSE_TEXTS.empty_table())
        wanted = selection.references()
        items = _ItemCursor(selection.items())
        for base, rows in self.batches():
            end = 2 * (base + len(rows))
            direct = items.take_until(end)
            if len(direct):
                taken, first, second = _take(rows, direct["ref"].to_numpy(), base)
                yield direct, _texts(taken, taken["instruction"], first, second)
            start, stop = np.searchsorted(wanted, [2 * base, end])
            if stop > start:
                refs = wanted[start:stop]
                taken, response, _ = _take(rows, refs, base)
                keep_texts(selection, refs, taken, response)
        yield from combined_rows(selection)

    @property
    def rows_of_shards(self) -> int:
        """Rows of the shards, refused ones included."""
        return self._shards.rows

    def batches(self) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield accepted rows, with the number of those before them."""
        base = 0
        with closing(stream(self._shards, self._limits)) as batches:
            for rows, _ in batches:
                if len(rows):
                    yield base, rows
                    base += len(rows)

    def problems(self, rows: pa.RecordBatch, contaminated: pa.Array) -> pa.Array:
        """Return a reason why each row's texts cannot be used, null without any."""
        needs = pc.or_(is_text(rows["system"]), is_text(render_turns(rows["turns"])))
        return _first_reason(
            images=rows["images"].is_valid(),
            two_conversations=pc.or_(rows["turns_a"].is_valid(), rows["turns_b"].is_valid()),
            needs_conversation=pc.and_(needs, self._plain),
            contaminated=contaminated,
        )


class ResponseSource(TextSource):
    """Texts in files of responses, joined by instruction and model."""

    in_shards = False

    def __init__(self, shards: ShardSet, options: ExportOptions) -> None:
        self.files = self._shards = shards
        self._plain = options.form == "plain" and not options.judging

    @override
    def scan(self, selection: Selection, observer: TextObserver, progress: Progress) -> None:
        """Give features of all texts to the selection.

        Raises:
            InputRefused: a model has two responses to one instruction.
        """
        selection.create("texts", RESPONSE_TEXTS.empty_table())
        selection.execute(_RESPONSES)
        base = 0
        for table in stream_responses(self._shards):
            rows = pa.record_batch({k: table[k].combine_chunks() for k in table.column_names})
            refs = np.arange(base, base + len(rows))
            base += len(rows)
            progress(base, self._shards.rows)
            no_turns = pa.nulls(len(rows), TURNS)
            features = observer.observe(rows["instruction"], rows["system"], no_turns)
            response = trim(rows["response"])
            problem = _first_reason(
                needs_conversation=pc.and_(is_text(rows["system"]), self._plain),
                contaminated=pa.array(features.contaminated),
            )
            columns = {
                "ref": refs,
                "instruction_id": rows["instruction_id"],
                "model": rows["model"],
                "instruction": features.digest,
                "cluster_leader": features.cluster_leader,
                "split_hash": features.split_hash,
                "response": text_hashes(response),
                "length": pc.utf8_length(response).cast(pa.int64()),
                "problem": problem,
            }
            selection.insert("responses", pa.table(columns))
            keep_texts(selection, refs, rows, rows["response"])
        self._refuse_several(selection)
        selection.execute(_JOIN_RESPONSES)

    @override
    def rows(self, selection: Selection) -> Iterator[tuple[pa.Table, Texts]]:
        yield from combined_rows(selection)

    def _refuse_several(self, selection: Selection) -> None:
        several = selection.execute(
            "SELECT model, count(*) OVER () FROM responses GROUP BY instruction_id, model"
            " HAVING count(DISTINCT response) > 1 ORDER BY min(ref) LIMIT 1"
        ).fetchall()
        for model, count in several:
            raise InputRefused(
                f"{count:,} times a model has several responses to one instruction, first"
                f" {escape(model)}",
                place=self._shards.sources[0].name,
                effect="nothing was written: which response was judged is not known",
                remedy="leave one response per model and instruction, the one that was judged",
            )


class _ItemCursor:
    """Items in the order of their references, taken step by step."""

    def __init__(self, reader: pa.RecordBatchReader) -> None:
        self._reader = reader
        self._rest = reader.schema.empty_table()

    def take_until(self, end: int) -> pa.Table:
        """Take the items whose references are below `end`."""
        while not len(self._rest) or self._rest["ref"][-1].as_py() < end:
            batch = next(self._reader, None)
            if batch is None:
                break
            self._rest = pa.concat_tables([self._rest, pa.Table.from_batches([batch])])
        count = int(np.searchsorted(self._rest["ref"].to_numpy(), end))
        taken, self._rest = self._rest.slice(0, count), self._rest.slice(count)
        return taken


def _first_reason(**reasons: pa.Array) -> pa.Array:
    """Return the first reason that applies to each row, null without any."""
    return pc.case_when(pc.make_struct(*reasons.values(), field_names=[*reasons]), *reasons)


def keep_texts(selection: Selection, refs: Int64, rows: pa.RecordBatch, response: pa.Array) -> None:
    """Store the texts of single responses."""
    columns = {name: rows[name] for name in rows.schema.names}
    columns |= {"ref": pa.array(refs), "response": response}
    stored = {
        column.name: columns.get(column.name, pa.nulls(len(rows), column.type))
        for column in RESPONSE_TEXTS
    }
    selection.insert("texts", pa.table(stored, RESPONSE_TEXTS))


def _take(
    rows: pa.RecordBatch, refs: Int64, base: int
) -> tuple[pa.RecordBatch, pa.Array, pa.Array]:
    """Return the rows of shards with these responses, the responses, and those opposite."""
    taken, is_a = rows.take(pa.array(refs // 2 - base)), pa.array(refs % 2 == 0)
    a, b = taken["response_a"], taken["response_b"]
    return taken, pc.if_else(is_a, a, b), pc.if_else(is_a, b, a)


def combined_rows(selection: Selection) -> Iterator[tuple[pa.Table, Texts]]:
    """Yield items that take their texts from the table of texts."""
    for rows in selection.stream(_COMBINED):
        texts = _texts(rows, rows["text"], rows["first"], rows["second"])
        yield pa.Table.from_batches([rows]), texts


def _texts(rows: pa.RecordBatch, instruction: pa.Array, first: pa.Array, second: pa.Array) -> Texts:
    turns = rows["turns"].cast(TURNS)
    return Texts(
        instruction=instruction,
        system=or_null(rows["system"]),
        turns=turns,
        conversation=render_turns(turns),
        reference=or_null(rows["reference"]),
        first=first,
        second=second,
    )
