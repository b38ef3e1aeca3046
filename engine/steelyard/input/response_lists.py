"""Rows of one response each, of which pairs are made, and rows with a list of responses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from steelyard.core.arrow import list_lengths, offsets_of, to_ints
from steelyard.core.schemas import Int64
from steelyard.input.cells import row_bytes
from steelyard.input.roles import PAIRS, VOTES, Roles, names_of
from steelyard.input.rows import Limits, RawBatch

RESPONSE_LISTS = {"responses": ("completions", "generations"), "models": ()}  # role -> more names
_ONE_SIDED = {"response_b", "turns_b", "model_b", "gold", *VOTES}


def response_roles(special: Sequence[str] = (), *, lists: bool = False) -> Roles:
    """Return the roles of rows of one response each, or, with `lists`, of a list of responses.

    A protocol asks for `special` ones, as for `pair_roles`.
    """
    names = {role: PAIRS.names[role] for role in PAIRS.names if role not in _ONE_SIDED}
    names |= {role: names_of(role) for role in special if role not in _ONE_SIDED}
    names["pair_id"] = (*names["pair_id"], "response_id")
    names["model_a"] = ("model_a", *names_of("model"))
    names["response_a"] = ("response_a", *names_of("response"))
    if lists:
        del names["response_a"]
        names |= {role: (role, *more) for role, more in RESPONSE_LISTS.items()}
    return Roles(names, ("instruction", "responses" if lists else "response_a"))


def single_responses(
    roles: Mapping[str, str], required: Sequence[str]
) -> tuple[Mapping[str, str], Sequence[str]]:
    """Return roles and required roles of the rows that `unpack` makes; as they are without lists.

    Both of a response's columns go by the name that the user has for the list.
    """
    texts, models = (roles.get(role) for role in RESPONSE_LISTS)
    if texts is None:
        return roles, required
    kept = {role: column for role, column in roles.items() if role not in RESPONSE_LISTS}
    model = models or roles.get("model_a") or texts
    need = tuple("response_a" if role == "responses" else role for role in required)
    return {**kept, "response_a": texts, "model_a": model}, need


def unpack(batches: Iterable[RawBatch], limits: Limits) -> Iterator[RawBatch]:
    """Yield the items of lists as rows, in about `limits.batch_bytes` at a time.

    A row is in one batch as a whole. A null or empty list becomes a row without a response. Where
    the list of models is shorter, further responses have no model.
    """
    for batch in batches:
        lists = batch.columns.get("responses")
        counts = np.ones(len(batch), dtype=np.int64)
        size = np.zeros(len(batch), dtype=np.int64)
        if lists is not None:
            counts = np.maximum(list_lengths(lists), 1)
            size += row_bytes(lists)
        for name, values in (*batch.columns.items(), *batch.metadata.items()):
            if name not in RESPONSE_LISTS:
                size += counts * row_bytes(values)
        ends, start = offsets_of(size), 0
        while start < len(batch):
            fitting = int(np.searchsorted(ends, ends[start] + limits.batch_bytes, "right")) - 1
            end = max(start + 1, fitting)
            yield _unpacked(batch, np.arange(start, end), counts[start:end])
            start = end


def _unpacked(batch: RawBatch, rows: Int64, counts: Int64) -> RawBatch:
    repeated = pa.array(np.repeat(rows, counts))
    items = pa.array(
        np.arange(len(repeated)) - np.repeat(offsets_of(counts)[:-1], counts), pa.int32()
    )
    columns = {
        role: values.take(repeated)
        for role, values in batch.columns.items()
        if role not in RESPONSE_LISTS
    }
    texts, models = (batch.columns.get(role) for role in RESPONSE_LISTS)
    response = _item_of(texts, repeated, items)
    if response is not None and pt.is_struct(response.type):
        if response.type.num_fields > 1:
            columns["model_a"] = pc.struct_field(response, [1])
        response = pc.struct_field(response, [0])
    columns["response_a"] = pa.nulls(len(items), pa.string()) if response is None else response
    named = _item_of(models, repeated, items)
    if named is not None:
        columns["model_a"] = named
    metadata = {name: values.take(repeated) for name, values in batch.metadata.items()}
    index = to_ints(repeated)
    unfit = {name: bad[index] for name, bad in batch.unfit.items()}
    return replace(
        batch,
        numbers=batch.numbers[index],
        columns=columns,
        metadata=metadata,
        unfit=unfit,
        notes=None if batch.notes is None else batch.notes.take(repeated),
        items=items,
    )


def _item_of(lists: pa.Array | None, rows: pa.Array, items: pa.Array) -> pa.Array | None:
    """Return the item of each row's list at this index; null where the list is shorter."""
    if lists is None:
        return None
    index = to_ints(rows)
    starts = lists.offsets.to_numpy()[:-1].astype(np.int64)[index]
    there = list_lengths(lists)[index] > to_ints(items)
    return lists.values.take(pa.array(starts + to_ints(items), mask=~there))
