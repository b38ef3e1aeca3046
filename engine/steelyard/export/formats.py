"""Rows of TRL's dataset formats, as Arrow, from texts and their verdicts.

| format | columns |
|---|---|
| preference | prompt, chosen, rejected |
| reward | prompt, chosen, rejected, margin |
| kto | prompt, completion, label |
| sft, autorater | prompt, completion |
| grpo | prompt, probability |
| trace | prompt, completion, sample |

After them come the columns that say where a row comes from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from steelyard.core.arrow import offsets_of, repeat_text, to_ints, to_mask
from steelyard.core.schemas import TURNS, Int64
from steelyard.export.options import JUDGING
from steelyard.export.pairing import log_odds
from steelyard.protocols import get_protocol
from steelyard.protocols.protocol import SLOT, SLOT_COLUMNS, Protocol

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
    "trace": (("prompt", "completion"), (("sample", pa.int64()),), JUDGED),
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


def make_rows(
    kind: str, form: str, texts: Texts, items: pa.Table, protocol: Protocol | None = None
) -> pa.Table:
    """Make rows of a format.

    Args:
        kind: one of options.FORMATS.
        form: conversational or plain. Plain rows may not have a system message or turns, except
            in judging formats.
        texts: of n rows.
        items: n rows with the format's columns that do not hold text; the margin is computed. For
            the format trace also `output`, what the judge wrote.
        protocol: whose prompts judging formats have; None: JUDGE.
    """
    wanted = schema(kind, form)
    columns: dict[str, pa.Array] = {
        name: items[name].combine_chunks() for name in wanted.names if name in items.column_names
    }
    if kind in JUDGING:
        protocol = protocol or get_protocol(JUDGE)
        system, user = _judge_prompts(texts, protocol)
        if form == "plain":
            columns["prompt"] = pc.if_else(
                system.is_null(), user, pc.binary_join_element_wise(system, user, "\n\n")
            )
        else:
            columns["prompt"] = conversation(system, pa.nulls(len(user), TURNS), user)
        columns["completion"] = _answers(_judge_answers(protocol, items), form)
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


def _judge_answers(protocol: Protocol, items: pa.Table) -> pa.Array:
    """Return what a judge wrote, or has to write to state the target probability."""
    if "output" in items.column_names:
        written = items["output"].combine_chunks()
        return pc.binary_join_element_wise(protocol.prefix, written, "")
    tag, targets = protocol.tag, items["probability"].to_pylist()
    return pa.array([f"<{tag}>{target:.2f}</{tag}>" for target in targets], pa.string())


def _judge_prompts(texts: Texts, protocol: Protocol) -> tuple[pa.Array, pa.Array]:
    """Return the judge's system messages and questions; texts go in as they are, unrendered.

    System messages are null where the protocol has none.
    """
    held = {entry.name for entry in fields(texts)}  # rows with two conversations were refused
    listed = {
        name: pc.utf8_trim_whitespace(getattr(texts, name)).to_pylist()
        for name in {*protocol.required, *protocol.optional} & SLOT_COLUMNS.keys() & held
    }
    cuts: dict[frozenset[str], tuple[list[str], list[str]]] = {}
    systems: list[str | None] = []
    users: list[str] = []
    for row in range(len(texts.first)):
        present = frozenset(name for name in protocol.optional if listed.get(name, {row: ""})[row])
        if present not in cuts:
            cuts[present] = _cut(protocol, present)
        system, user = (
            "".join(listed[part][row] if i % 2 else part for i, part in enumerate(cut))
            for cut in cuts[present]
        )
        systems.append(system or None)
        users.append(user)
    return pa.array(systems, pa.string()), pa.array(users, pa.string())


def _cut(protocol: Protocol, present: frozenset[str]) -> tuple[list[str], list[str]]:
    """Return system message and question, cut at their slots, for rows with these texts."""
    *system, user = (SLOT.split(message.content) for message in protocol.messages(present))
    return (system[0] if system else []), user
