"""Columns of messages -> instruction, responses, earlier turns and system message of each row.

A response may be a list of messages, as trainers and chat logs have them. What both of a pair have
in common from the start is the conversation; one answer each follows it. The conversation ends with
the instruction, and may begin with a system message; what is between them are earlier turns. Where
the lists hold answers only, the conversation is the instruction's column, a text or messages.

Texts without a column for the instruction are transcripts, as in HH-RLHF: "Human:" and
"Assistant:" begin their paragraphs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from steelyard.core.arrow import list_lengths, offsets_of, to_ints, to_mask
from steelyard.core.schemas import TURNS, Bool, Int64
from steelyard.input.cells import has_content
from steelyard.input.problems import Reason, RowProblems, printable
from steelyard.input.role_types import MESSAGES, TOOL_FIELDS
from steelyard.input.types import as_lists, fields_of, is_list

_ROLES = ("instruction", "response_a", "response_b")
_SPEAKERS = {
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "model", "ai"), "assistant"),
}
_TURN_FIELDS = {*MESSAGES[0], *MESSAGES[1], *TOOL_FIELDS}
_PARAGRAPH = re.compile(r"(?:^|\n\n)[ \t]*(Human|Assistant):")


@dataclass(frozen=True, slots=True)
class _Messages:
    """Lists of messages, one per row, n rows."""

    speakers: pa.Array  # of all messages: user, assistant, system, or as it is
    contents: pa.Array
    tools: Bool  # whether a message calls a tool
    offsets: Int64  # n + 1, in the messages

    @property
    def lengths(self) -> Int64:
        return np.diff(self.offsets)


def is_transcript(text: str | None) -> bool:
    """Return whether a text is a conversation, as `_PARAGRAPH` separates it."""
    return text is not None and _PARAGRAPH.match(text.lstrip("\n")) is not None


def fields_left_out(kind: pa.DataType) -> list[str]:
    """Return the fields of a column of turns that nothing reads, such as names of speakers."""
    if not is_list(kind):
        return []
    return [name for name in fields_of(kind.value_type) if name not in _TURN_FIELDS]


def as_messages(values: pa.Array) -> pa.Array:
    """Return messages, or lists of them, as lists of structs with role and content."""
    values = as_lists(values)
    kind = values.type
    if pt.is_struct(kind):
        offsets = pa.array(np.arange(len(values) + 1), pa.int32())
        values = pa.ListArray.from_arrays(offsets, values, mask=values.is_null())
    elif not pt.is_list(kind):
        values = values.cast(pa.list_(kind.value_type))
    fields = fields_of(values.type.value_type)
    role, content = next(pair for pair in MESSAGES if set(pair) <= fields.keys())
    names = {"role": role, "content": content} | {x: x for x in TOOL_FIELDS if x in fields}
    items = values.values
    parts = [pc.struct_field(items, name) for name in names.values()]
    structs = pa.StructArray.from_arrays(parts, names=list(names), mask=items.is_null())
    return pa.ListArray.from_arrays(values.offsets, structs, mask=values.is_null())


def as_texts(
    given: Mapping[str, pa.Array],
    roles: Mapping[str, str],
    problems: RowProblems,
    *,
    transcripts: bool = False,
) -> Mapping[str, pa.Array]:
    """Return the columns of rows by role, with texts for instruction and responses.

    `roles` gives the user's name of each role's column. Rows whose messages are not such a
    conversation are problems, with any text. Without messages, all is returned as it is, unless
    texts are `transcripts`.
    """
    columns = {role: given[role] for role in _ROLES if role in given}
    if transcripts:
        columns = {
            role: _transcripts(values) if pt.is_string(values.type) else values
            for role, values in columns.items()
        }
    if all(pt.is_string(values.type) for values in columns.values()):
        return given
    messages = {
        role: _read(values, "user" if role == "instruction" else "assistant")
        for role, values in columns.items()
    }
    made = _Conversation(
        messages, problems, {role: printable(name) for role, name in roles.items()}
    )
    derived = made.columns(len(next(iter(columns.values()))))
    for role in ("system", "turns"):
        derived[role] = made.joined(role, given.get(role), derived[role])
    return {**given, **derived}


def _read(values: pa.Array, speaker: str) -> _Messages:
    if pt.is_string(values.type):
        rows = len(values)
        speakers = pa.repeat(pa.scalar(speaker), rows)
        return _Messages(speakers, values, np.zeros(rows, dtype=np.bool_), np.arange(rows + 1))
    lengths = list_lengths(values)
    items = values.flatten()
    said = pc.utf8_lower(pc.struct_field(items, "role")).dictionary_encode()
    names = [_SPEAKERS.get(name, name) for name in said.dictionary.to_pylist()]
    speakers = pa.array(names, pa.string()).take(said.indices)
    tools: Bool = np.zeros(len(items), dtype=np.bool_)
    for field in items.type:
        if field.name in TOOL_FIELDS:
            tools |= has_content(pc.struct_field(items, field.name))
    return _Messages(speakers, pc.struct_field(items, "content"), tools, offsets_of(lengths))


def _transcripts(values: pa.StringArray) -> pa.Array:
    return pa.array([_paragraphs(text) for text in values.to_pylist()], TURNS)


def _paragraphs(text: str | None) -> list[dict[str, str]]:
    before, *parts = _PARAGRAPH.split((text or "").lstrip("\n"))
    if before.strip():
        return []
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return [{"role": speaker.lower(), "content": content.strip()} for speaker, content in pairs]


def _equal(left: pa.Array, i: Int64, right: pa.Array, j: Int64) -> Bool:
    """Return where values of two arrays, by their indices, are the same."""
    return to_mask(pc.equal(left.take(pa.array(i)), right.take(pa.array(j))))


class _Conversation:
    """The conversation of each row, n rows, from the messages of instruction and responses."""

    def __init__(
        self, messages: Mapping[str, _Messages], problems: RowProblems, names: Mapping[str, str]
    ) -> None:
        self._first = messages.get("response_a")
        self._second = messages.get("response_b", self._first)
        self._prompt = messages.get("instruction")
        self._problems = problems
        self._names = names

    def columns(self, rows: int) -> dict[str, pa.Array]:
        """Return instruction, responses, system and turns."""
        derived: dict[str, pa.Array] = {}
        shared: Int64 = np.zeros(rows, dtype=np.int64)
        if self._first is not None and self._second is not None:
            shared = self._shared(self._first, self._second)
            derived["response_a"] = self._answer(self._first, shared, "response_a")
            if "response_b" in self._names:
                derived["response_b"] = self._answer(self._second, shared, "response_b")
        return derived | self._conversation(shared)

    def _shared(self, first: _Messages, second: _Messages) -> Int64:
        """Return how many messages both have in common, before the last of either."""
        most: Int64 = np.maximum(np.minimum(first.lengths, second.lengths) - 1, 0)
        if first is second:
            return most
        shared: Int64 = np.zeros(len(most), dtype=np.int64)
        alive = np.flatnonzero(most > 0)
        while len(alive):
            here = [pa.array(x.offsets[:-1][alive] + shared[alive]) for x in (first, second)]
            same = np.ones(len(alive), dtype=np.bool_)
            for field in ("speakers", "contents"):
                values = [
                    getattr(x, field).take(i) for x, i in zip((first, second), here, strict=True)
                ]
                same &= to_mask(pc.equal(*values))
            alive = alive[same]
            shared[alive] += 1
            alive = alive[shared[alive] < most[alive]]
        return shared

    def _answer(self, messages: _Messages, shared: Int64, role: str) -> pa.Array:
        """Return the message of each row after those in common, which has to be the last."""
        name = self._names[role]
        last = messages.offsets[1:] - 1
        empty = messages.lengths == 0
        self._problem(empty, f"{name} has no message")
        more = messages.lengths - shared > 1
        self._problem(more, f"{name} differs from the other response before its last message")
        return self._texts(messages, np.where(empty, -1, last), name, "assistant")

    def _texts(self, messages: _Messages, index: Int64, name: str, speaker: str) -> pa.Array:
        """Return messages by their index (-1: none), which a speaker has to say."""
        none = index < 0
        chosen = pa.array(index, mask=none)
        contents = messages.contents.take(chosen)
        said = to_mask(pc.equal(messages.speakers.take(chosen), speaker))
        self._problem(~none & ~said, f"{name} does not end with a message of the {speaker}")
        null = ~none & to_mask(contents.is_null())
        self._problem(null, f"{name} ends with a message without content")
        called = np.append(messages.tools, False)[index]
        self._problem(called, f"{name} calls a tool")
        return contents.fill_null("")

    def _conversation(self, shared: Int64) -> dict[str, pa.Array]:
        """Return instruction, system and turns of the conversation that the answers follow."""
        first, prompt = self._first, self._prompt
        parts = [part for part in (first, prompt) if part is not None]
        pool = _Messages(
            pa.concat_arrays([part.speakers for part in parts]),
            pa.concat_arrays([part.contents for part in parts]),
            np.concatenate([part.tools for part in parts]),
            parts[0].offsets,
        )
        start, length = pool.offsets[:-1].copy(), shared.copy()
        name = self._names.get("instruction") or self._names["response_a"]
        if prompt is not None:
            base = len(first.speakers) if first is not None else 0
            apart = shared == 0
            start = np.where(apart, base + prompt.offsets[:-1], start)
            length = np.where(apart, prompt.lengths, length)
            self._check_prompt(prompt, pool, start + length - 1, ~apart)
        none = length == 0
        self._problem(none, f"{name} has no message before the answer")
        beginning = pool.speakers.take(pa.array(start, mask=none))
        system = to_mask(pc.equal(beginning, "system"))
        systems = pool.contents.take(pa.array(start, mask=~system))
        start, length = start + system, length - system
        only = ~none & (length == 0)
        self._problem(only, f"{name} has no message but the system's")
        last = np.where(length > 0, start + length - 1, -1)
        instruction = self._texts(pool, last, f"the conversation in {name}", "user")
        turns = self._turns(pool, start, np.maximum(length - 1, 0))
        return {"instruction": instruction, "system": systems, "turns": turns}

    def _check_prompt(self, prompt: _Messages, pool: _Messages, last: Int64, inside: Bool) -> None:
        """Require that a prompt, where the responses hold one, is its first or last message."""
        given = prompt.contents.take(pa.array(prompt.offsets[1:] - 1, mask=prompt.lengths == 0))
        given = pc.utf8_trim_whitespace(given)
        same = np.zeros(len(last), dtype=np.bool_)
        start = pool.offsets[:-1]
        system = to_mask(pc.equal(pool.speakers.take(pa.array(start, mask=~inside)), "system"))
        for index in (last, start + system):
            held = pool.contents.take(pa.array(index, mask=~inside))
            same |= to_mask(pc.equal(pc.utf8_trim_whitespace(held), given))
        name = self._names["instruction"]
        self._problem(inside & ~same, f"{name} is not the prompt in the messages of the responses")

    def _turns(self, pool: _Messages, start: Int64, length: Int64) -> pa.Array:
        offsets = offsets_of(length)
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], length)
        index = pa.array(np.repeat(start, length) + within)
        called = pool.tools[to_ints(index)]
        row_of = np.repeat(np.arange(len(length)), length)
        self._problem(np.bincount(row_of[called], minlength=len(length)) > 0, "a turn calls a tool")
        items = [pool.speakers.take(index), pool.contents.take(index)]
        structs = pa.StructArray.from_arrays(items, fields=list(TURNS.value_type))
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), structs, type=TURNS)

    def joined(self, role: str, column: pa.Array | None, derived: pa.Array) -> pa.Array:
        """Return what the messages say, or a column where they say nothing; not both."""
        if column is None:
            return derived
        if role == "system":
            given = pc.utf8_trim_whitespace(column)
            differs = pc.not_equal(given, pc.utf8_trim_whitespace(derived))
            self._problem(to_mask(differs), "the messages have another system message")
            return pc.coalesce(derived, column)
        both = (list_lengths(column) > 0) & (list_lengths(derived) > 0)
        name = self._names["turns"]
        self._problem(both, f"earlier turns are in {name} and in the messages of the responses")
        if not (list_lengths(derived) > 0).any():
            return column
        return pc.if_else(list_lengths(derived) > 0, derived, column.cast(TURNS))

    def _problem(self, bad: Bool, what: str) -> None:
        self._problems.add(bad, Reason.TURNS, what)
