"""Rows of single responses become planned pairs, by digests alone: no text is hashed twice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from steelyard.core.arrow import repeat_text, to_ints
from steelyard.core.batches import Planned, PlannedResponses
from steelyard.core.schemas import (
    ADDRESS,
    PAIRED,
    PAIRS,
    PLACED,
    READ_FROM,
    RESPONSES,
    TEXT_COLUMNS,
    TEXTS,
    Int64,
    UInt64,
)
from steelyard.errors import InputRefused
from steelyard.input.problems import printable
from steelyard.plan.keys import (
    ABSENT,
    as_keys,
    as_words,
    digests,
    lengths,
    pair_ids,
    prompt_keys,
    select,
    text_bytes,
    trimmed,
)
from steelyard.plan.pairing import NO_RESPONSE, Groups, Pairing, choose_pairs, split_groups
from steelyard.plan.spec import KeySpec

AT_ONCE = 1 << 15  # pairs that are planned together
_OF_RESPONSE = {"response_a": "response_b", "turns_a": "turns_b"}  # of the second one in a pair
# What responses that belong together share.
SHARED = tuple(name for name in TEXT_COLUMNS if name not in {*_OF_RESPONSE, *_OF_RESPONSE.values()})


def plan_responses(intake: pa.RecordBatch) -> PlannedResponses:
    """Trim, hash and measure accepted rows (INTAKE) of one response each, `response_a`."""
    columns, _ = trimmed(intake)
    hashed = {
        name: as_keys(np.frombuffer(b"".join(digests(columns[name])), dtype="<u8").reshape(-1, 2))
        for name in TEXT_COLUMNS
    }
    rows = hashed | {
        **{name: intake[name] for name in ("shard", "row", "item")},
        "response_id": columns["pair_id"],
        "model": pc.utf8_trim_whitespace(columns["model_a"]),
        "category_name": columns["category"],
        "length": lengths(columns["response_a"]),
        "weighted_criteria": intake["criteria"],
        "text_bytes": pa.array(text_bytes(columns, TEXT_COLUMNS)),
        "response_bytes": pa.array(text_bytes(columns, tuple(_OF_RESPONSE))),
    }
    schema = RESPONSES
    if "metadata" in columns:
        rows["metadata"] = columns["metadata"]
        schema = schema.append(intake.schema.field("metadata"))
    none = pa.array([[]] * len(intake), TEXTS.field("keys").type)
    return PlannedResponses(select(rows, schema), select({**columns, "keys": none}, TEXTS))


def metadata_type(own: pa.DataType | None) -> pa.StructType:
    """Return the metadata of a pair: where its responses are, and what each row has, `own`.

    Raises:
        InputRefused: a column would have the name of an address.
    """
    fields = [] if own is None else [(f"{x.name}_{side}", x.type) for x in own for side in "ab"]
    for name, _ in fields:
        if name.casefold() in READ_FROM:
            raise InputRefused(
                f"the metadata column {printable(name[:-2])} would hide where responses come from",
                remedy="rename it when the file is written",
            )
    return pa.struct([*((name, ADDRESS) for name in READ_FROM), *fields])


class PairMaker:
    """Makes pairs of planned responses, instruction by instruction.

    Attributes:
        repeated: responses left out because an earlier one has the same model and text.
        alone: responses that no other one is compared with, in instructions that are complete.
        baselines: responses of the baseline.
    """

    def __init__(self, pairing: Pairing, spec: KeySpec) -> None:
        self._pairing, self._spec = pairing, spec
        self._waiting: list[pa.RecordBatch] = []  # of the instruction that may go on
        self.repeated = self.alone = self.baselines = 0
        self.made = 0  # pairs

    def add(self, rows: pa.RecordBatch) -> Iterator[Planned]:
        """Take rows (RESPONSES) of a grouped input; yield the pairs of complete instructions."""
        words = as_words(rows["instruction"])
        changes = np.flatnonzero(np.any(words[1:] != words[:-1], axis=1))
        begun = self._waiting and np.any(as_words(self._waiting[-1]["instruction"])[-1] != words[0])
        if not len(changes) and not begun:
            self._waiting.append(rows)
            return
        cut = int(changes[-1]) + 1 if len(changes) else 0
        complete, self._waiting = [*self._waiting, rows.slice(0, cut)], [rows.slice(cut)]
        yield from self.make(pa.concat_batches(complete))

    def finish(self) -> Iterator[Planned]:
        """Yield the pairs of the last instruction."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            yield from self.make(pa.concat_batches(waiting))

    def make(self, rows: pa.RecordBatch) -> Iterator[Planned]:
        """Yield the pairs of all responses to some instructions, in their order."""
        if not len(rows):
            return
        models, baseline = _codes(rows["model"], self._pairing.baseline)
        rows, models, groups = self._grouped(rows, models)
        self.baselines += int(np.count_nonzero(models == baseline))
        seeds = as_words(rows["instruction"])[groups[:-1], 0]
        for bounds in split_groups(groups, self._pairing, AT_ONCE):
            within = np.searchsorted(groups, bounds[:-1])
            some = Groups(bounds, models, seeds[within], baseline)
            first, second = choose_pairs(self._pairing, some)
            used = np.unique(np.concatenate([first, second[second != NO_RESPONSE]]))
            self.alone += int(bounds[-1] - bounds[0]) - len(used)
            for start in range(0, len(first), AT_ONCE):
                chosen = slice(start, start + AT_ONCE)
                yield pair_up(rows, first[chosen], second[chosen], self._spec, self.made)
                self.made += len(first[chosen])

    def _grouped(self, rows: pa.RecordBatch, models: Int64) -> tuple[pa.RecordBatch, Int64, Int64]:
        """Order rows by what they share, repeated ones left out; return where groups begin."""
        shared = np.column_stack([as_words(rows[name]) for name in SHARED])
        response = [as_words(rows[name]) for name in _OF_RESPONSE]
        group = _numbered(shared)
        own = np.column_stack([group.astype(np.uint64), models.astype(np.uint64), *response])
        _, first = np.unique(_packed(own), return_index=True)
        self.repeated += len(rows) - len(first)
        kept = np.sort(first)
        order = kept[np.argsort(group[kept], kind="stable")]
        group = group[order]
        groups = np.append(np.flatnonzero(np.append(True, group[1:] != group[:-1])), len(group))
        return rows.take(pa.array(order)), models[order], groups.astype(np.int64)


def pair_up(
    rows: pa.RecordBatch, first: Int64, second: Int64, spec: KeySpec, number: int = 0
) -> Planned:
    """Return n planned pairs of rows (RESPONSES), without texts.

    Args:
        rows: single responses.
        first: index of each pair's response a, [n].
        second: of its response b; NO_RESPONSE: it has none.
        spec: what decides the keys.
        number: of the first of the pairs.
    """
    a = rows.take(pa.array(first))
    b = rows.take(pa.array(second, mask=second == NO_RESPONSE))
    words = {name: as_words(a[name]) for name in TEXT_COLUMNS}
    words |= {other: as_words(b[name]) for name, other in _OF_RESPONSE.items()}
    hashed = {name: _bytes(values) for name, values in words.items()}
    criteria = a["weighted_criteria"]
    items = None
    if criteria.null_count < len(criteria):
        items = [[entry["text"].strip() for entry in row or ()] for row in criteria.to_pylist()]
    given = a["response_id"]
    if given.null_count < len(given) and np.any(second != NO_RESPONSE):
        given = pc.binary_join_element_wise(given, b["response_id"], "|")
    columns = {
        "pair_id": pair_ids(given, hashed, a["model"], b["model"]),
        "shard": repeat_text(PAIRED, len(first)),
        "row": pa.array(np.arange(number, number + len(first))),
        "instruction_id": pa.array(words["instruction"][:, 0]),
        "category": a["category_name"],
        "model_a": a["model"],
        "model_b": b["model"],
        "length_a": a["length"],
        "length_b": b["length"],
        "gold": pa.nulls(len(first), PAIRS.field("gold").type),
        "criteria": criteria,
        "keys": prompt_keys(hashed, a["category_name"], items, spec),
        "metadata": _metadata(a, b),
    }
    own = [field for field in PAIRS if field.name not in PLACED]
    return Planned(
        pairs=select(columns, pa.schema([*own, ("metadata", columns["metadata"].type)])),
        texts=_NO_TEXTS,
        digests={name: values for name, values in words.items() if values.any()},
        text_bytes=to_ints(a["text_bytes"]) + to_ints(b["response_bytes"]),
    )


_NO_TEXTS = pa.RecordBatch.from_pylist([], schema=TEXTS)


def pair_texts(
    texts: pa.RecordBatch | pa.Table, first: Int64, second: Int64, keys: pa.Array
) -> pa.Table:
    """Return the texts (TEXTS) of pairs from those of single responses; arguments as `pair_up`."""
    a = texts.take(pa.array(first))
    b = texts.take(pa.array(second, mask=second == NO_RESPONSE))
    columns = {name: a[name] for name in TEXTS.names} | {"keys": keys}
    columns |= {other: b[name] for name, other in _OF_RESPONSE.items()}
    return pa.table([columns[name] for name in TEXTS.names], schema=TEXTS)


def _bytes(words: UInt64) -> list[bytes]:
    if not words.any():
        return [ABSENT] * len(words)
    whole, width = words.tobytes(), len(ABSENT)
    return [whole[start : start + width] for start in range(0, len(whole), width)]


def _codes(models: pa.Array, baseline: str) -> tuple[Int64, int]:
    """Return a number for each model, -1 without one, and the baseline's; -2: it has none here."""
    coded = models.dictionary_encode()
    names: Mapping[str, int] = {name: i for i, name in enumerate(coded.dictionary.to_pylist())}
    return to_ints(coded.indices, null=-1), names.get(baseline, -2) if baseline else -2


def _packed(rows: UInt64) -> np.ndarray:
    """Return one value per row of numbers, so that equal rows are equal values."""
    whole = np.ascontiguousarray(rows)
    return whole.view(np.dtype((np.void, whole.dtype.itemsize * whole.shape[1]))).ravel()


def _numbered(rows: UInt64) -> Int64:
    """Return a number for each row, in the order in which different rows first come."""
    _, first, inverse = np.unique(_packed(rows), return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]


def _metadata(a: pa.RecordBatch, b: pa.RecordBatch) -> pa.StructArray:
    arrays: list[pa.Array] = []
    for side in (a, b):
        parts = [side[field.name] for field in ADDRESS]
        null = side["shard"].is_null()
        arrays.append(pa.StructArray.from_arrays(parts, fields=list(ADDRESS), mask=null))
    own = a["metadata"].type if "metadata" in a.schema.names else None
    for i in range(own.num_fields if own else 0):
        arrays += [pc.struct_field(side["metadata"], [i]) for side in (a, b)]
    return pa.StructArray.from_arrays(arrays, fields=list(metadata_type(own)))
