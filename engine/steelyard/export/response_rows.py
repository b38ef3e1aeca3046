"""Texts of a run in its own shards, whose rows hold single responses."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from typing_extensions import override

from steelyard.export.formats import Texts
from steelyard.export.observer import TextObserver, text_hashes
from steelyard.export.options import ExportOptions
from steelyard.export.selection import Selection
from steelyard.export.sources import (
    RESPONSE_TEXTS,
    Progress,
    ShardSource,
    TextSource,
    combined_rows,
    keep_texts,
)
from steelyard.input import Limits, ShardSet
from steelyard.plan.keys import trim

# Features of responses, as PAIR_TEXTS has them of pairs.
_RESPONSE_ROWS = """
CREATE TABLE responses (ref BIGINT, shard VARCHAR, "row" BIGINT, item INTEGER, instruction UBIGINT,
  cluster_leader UBIGINT, split_hash DOUBLE, response UBIGINT, length BIGINT, problem VARCHAR)"""
_AT = """{0}.shard = v.read_from_{0}.shard AND {0}."row" = v.read_from_{0}."row"
  AND {0}.item IS NOT DISTINCT FROM v.read_from_{0}.item"""
_JOIN_ROWS = f"""
INSERT INTO pair_texts
SELECT row_number() OVER (ORDER BY v.shard, v."row") - 1, v.shard, v."row", a.instruction,
  a.cluster_leader, a.split_hash, a.response, b.response, a.ref, b.ref, a.length, b.length,
  coalesce(a.problem, b.problem)
FROM verdicts v JOIN responses a ON {_AT.format("a")} JOIN responses b ON {_AT.format("b")}"""  # noqa: S608


class ResponseRowSource(TextSource):
    """Texts of a run in its own shards, whose rows hold single responses."""

    in_shards = False

    def __init__(self, shards: ShardSet, limits: Limits, options: ExportOptions) -> None:
        self.files = None
        self._own = ShardSource(shards, limits, options)

    @override
    def scan(self, selection: Selection, observer: TextObserver, progress: Progress) -> None:
        selection.execute(_RESPONSE_ROWS)
        for base, rows in self._own.batches():
            progress(base, self._own.rows_of_shards)
            features = observer.observe(rows["instruction"], rows["system"], rows["turns"])
            response = trim(rows["response_a"])
            columns = {
                "ref": np.arange(base, base + len(rows)),
                **{name: rows[name] for name in ("shard", "row", "item")},
                "instruction": features.digest,
                "cluster_leader": features.cluster_leader,
                "split_hash": features.split_hash,
                "response": text_hashes(response),
                "length": pc.utf8_length(response).cast(pa.int64()),
                "problem": self._own.problems(rows, pa.array(features.contaminated)),
            }
            selection.insert("responses", pa.table(columns))
        selection.execute(_JOIN_ROWS)

    @override
    def rows(self, selection: Selection) -> Iterator[tuple[pa.Table, Texts]]:
        selection.create("texts", RESPONSE_TEXTS.empty_table())
        wanted = selection.references()
        for base, rows in self._own.batches():
            start, stop = np.searchsorted(wanted, [base, base + len(rows)])
            if stop > start:
                refs = wanted[start:stop]
                taken = rows.take(pa.array(refs - base))
                keep_texts(selection, refs, taken, taken["response_a"])
        yield from combined_rows(selection)
