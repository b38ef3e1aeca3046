"""Files of responses, a row a response: where the texts of verdicts stand that were imported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from functools import reduce

import pyarrow as pa
import pyarrow.compute as pc

from ..clusters import instruction_ids
from .findings import Findings
from .roles import NAMES, Roles
from .rows import Limits, find_invalid_utf8, without
from .shardset import ShardSet, open_shards
from .stream import read

RESPONSES = Roles(
    names={
        "instruction_id": ("instruction_id",),
        "instruction": NAMES["instruction"],
        "system": NAMES["system"],
        "model": ("model", "generator"),
        "response": ("response", "output"),
    },
    required=("instruction", "model", "response"),
)
_TEXTS = ("instruction", "system", "model", "response")


def open_responses(inputs: Sequence[str], columns: Mapping[str, str] | None = None) -> ShardSet:
    """Files of responses; see `open_shards`."""
    return open_shards(inputs, columns, RESPONSES)


def stream_responses(shards: ShardSet) -> Iterator[pa.Table]:
    """Batches of instruction_id, instruction, system, model and response, in their order.

    `instruction_id` is the given one, or the hash of the instruction, as in verdicts. Rows that
    lack a text, or have one that is not UTF-8, are left out: their verdicts find no text.
    """
    with closing(read(shards, Limits())) as batches:
        for batch in batches:
            findings = Findings()
            find_invalid_utf8(batch, shards.roles, findings)
            clean, _ = without(batch, findings)
            named = clean.columns.get("instruction_id", clean.columns["instruction"])
            columns = {
                name: clean.columns.get(name, pa.nulls(clean.rows, pa.string())) for name in _TEXTS
            }
            columns["model"] = pc.utf8_trim_whitespace(columns["model"])
            rows = pa.table({"instruction_id": instruction_ids(named), **columns})
            valid = [rows[role].is_valid() for role in RESPONSES.required]
            yield rows.filter(reduce(pc.and_, valid))
