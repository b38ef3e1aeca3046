"""Rows of TRL's dataset formats, as Arrow, from texts and their verdicts.

| format | columns |
|---|---|
| preference | prompt, chosen, rejected |
| reward | prompt, chosen, rejected, margin |
| kto | prompt, completion, label |
| sft, autorater | prompt, completion |
| grpo | prompt, probability |

After them come the columns that say where a row comes from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from steelyard.core.arrow import offsets_of, repeat_text, to_ints, to_mask
from steelyard.core.schemas import TURNS, Int64
from steelyard.export.options import JUDGING
from steelyard.export.pairing import log_odds
from steelyard.protocols import get_protocol
from steelyard.protocols.protocol import SLOT, SLOT_COLUMNS

# A dataset's columns of texts, by form.
TEXT = {"conversational": TURNS, "plain": pa.string()}
JUDGE = "verbalized"  # the protocol whose prompts autoraters are trained on

ORIGIN = pa.schema(
    [
        ("pair_id", pa.string()),
        ("rejected_pair_id", pa.string()),  # where the two were not judged against each other
        ("chosen_model", pa.string()),
        ("rejected_model", pa.string()),
        ("probability", pa.float64()),  # that the chosen response is better
        ("raw_probability", pa.float64()),  # the same before calibration
        ("consistent", pa.bool_()),
        ("label_mass", pa.float64()),
        ("judge", pa.string()),
        ("judge_fingerprint", pa.string()),
    ]
)
ALONE = pa.schema(
    [
        ("pair_id", pa.string()),  # of its first verdict
        ("model", pa.string()),
        ("probability", pa.float64()),  # that it is better than its opponents
        *(ORIGIN.field(i) for i in range(5, len(ORIGIN))),
    ]
)
JUDGED = pa.schema(
    [
        ("pair_id", pa.string()),
        ("shown", pa.string()),  # order in the prompt: ab or ba
        ("probability", pa.float64()),  # that the response shown first is better: the target
        *(ORIGIN.field(name) for name in ("raw_probability", "consistent", "label_mass")),
        *(ORIGIN.field(name) for name in ("judge", "judge_fingerprint")),
    ]
)
# Columns of texts, of the format's own values, and of where a row comes from.
_COLUMNS: dict[str, tuple[Sequence[str], Sequence[tuple[str, pa.DataType]], pa.Schema]] = {
    "preference": (("prompt", "chosen", "rejected"), (), ORIGIN),
    "reward": (("prompt", "chosen", "rejected"), (("margin", pa.float64()),), ORIGIN),
    "kto": (("prompt", "completion"), (("label", pa.bool_()),), ALONE),
    "sft": (("prompt", "completion"), (), ALONE),
    "autorater": (("prompt", "completion"), (), JUDGED),
    "grpo": (("prompt",), (), JUDGED),
}


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts of n rows; null where a row lacks that text."""

    instruction: pa.Array
    system: pa.Array
    turns: pa.Array  # schemas.TURNS
    conversation: pa.Array  # the turns as one text
    reference: pa.Array
    first: pa.Array  # the chosen response, the only one, or the one that a judge sees first
    second: pa.Array


def schema(kind: str, form: str) -> pa.Schema:
    """Return the columns of a format."""
    texts, more, origin = _COLUMNS[kind]
    return pa.schema([*((name, TEXT[form]) for name in texts), *more, *origin])


def make_rows(kind: str, form: str, texts: Texts, items: pa.Table) -> pa.Table:
    """Make rows of a format.

    Args:
        kind: one of options.FORMATS.
        form: conversational or plain. Plain rows may not have a system message or turns, except
            in judging formats.
        texts: of n rows.
        items: n rows with the format's columns that do not hold text; the margin is computed.
    """
    wanted = schema(kind, form)
    columns: dict[str, pa.Array] = {
        name: items[name].combine_chunks() for name in wanted.names if name in items.column_names
    }
    if kind in JUDGING:
        system, user = _judge_prompts(texts)
        if form == "plain":
            columns["prompt"] = pc.binary_join_element_wise(system, user, "\n\n")
        else:
            columns["prompt"] = conversation(system, pa.nulls(len(user), TURNS), user)
        tag = get_protocol(JUDGE).tag
        texts_of = [f"<{tag}>{x:.2f}</{tag}>" for x in columns["probability"].to_pylist()]
        columns["completion"] = _answers(pa.array(texts_of, pa.string()), form)
    else:
        columns["prompt"] = (
            texts.instruction
            if form == "plain"
            else conversation(texts.system, texts.turns, texts.instruction)
        )
        columns |= dict.fromkeys(("chosen", "completion"), _answers(texts.first, form))
        columns["rejected"] = _answers(texts.second, form)
        columns["margin"] = pa.array(log_odds(columns["probability"].to_numpy()))
    return pa.Table.from_arrays([columns[name] for name in wanted.names], schema=wanted)


def conversation(system: pa.Array, turns: pa.Array, user: pa.Array) -> pa.Array:
    """Make one conversation per row: system message, earlier turns, then the user's text.

    System messages and earlier turns (schemas.TURNS) are null where a row has none.
    """
    rows = len(user)
    has_system = to_mask(system.is_valid())
    counts = to_ints(pc.list_value_length(turns))
    offsets = offsets_of(has_system + counts + 1)
    starts, ends = offsets[:-1], offsets[1:]
    earlier = turns.flatten()
    taken = np.empty(offsets[-1], dtype=np.int64)
    taken[starts[has_system]] = np.flatnonzero(has_system)
    taken[ends - 1] = rows + np.arange(rows)
    taken[_ranges(starts + has_system, counts)] = 2 * rows + np.arange(len(earlier))
    content = pa.concat_arrays([system, user, earlier.field("content")])
    roles = pa.concat_arrays(
        [repeat_text("system", rows), repeat_text("user", rows), earlier.field("role")]
    )
    messages = pa.StructArray.from_arrays(
        [roles.take(pa.array(taken)), content.take(pa.array(taken))], fields=list(TURNS.value_type)
    )
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), messages, type=TURNS)


def _ranges(starts: Int64, counts: Int64) -> Int64:
    """Return start, start + 1, ... of each row, `count` of them, row after row."""
    return np.repeat(starts - offsets_of(counts)[:-1], counts) + np.arange(counts.sum())


def _answers(text: pa.Array, form: str) -> pa.Array:
    """Return texts as an assistant's answers."""
    if form == "plain":
        return text
    messages = pa.StructArray.from_arrays(
        [repeat_text("assistant", len(text)), text], fields=list(TURNS.value_type)
    )
    return pa.ListArray.from_arrays(
        pa.array(np.arange(len(text) + 1, dtype=np.int32)), messages, type=TURNS
    )


def _judge_prompts(texts: Texts) -> tuple[pa.Array, pa.Array]:
    """Return the judge's system messages and questions; texts go in as they are, unrendered."""
    protocol = get_protocol(JUDGE)
    listed = {
        name: pc.utf8_trim_whitespace(getattr(texts, name)).to_pylist()
        for name in {*protocol.required, *protocol.optional} & SLOT_COLUMNS.keys()
    }
    systems, users = [], []
    for row in range(len(texts.first)):
        present = frozenset(name for name in protocol.optional if listed[name][row])
        opening, question = _cut(present)
        systems.append(opening)
        users.append("".join(
            listed[part][row] if i % 2 else part for i, part in enumerate(question)
        ))  # fmt: skip
    return pa.array(systems, pa.string()), pa.array(users, pa.string())


@cache
def _cut(present: frozenset[str]) -> tuple[str, list[str]]:
    """Return the system message, and the question cut at its slots, for rows with these texts."""
    system, user = get_protocol(JUDGE).messages(present)
    return system.content, SLOT.split(user.content)
