"""Pair x order x protocol -> token ids, from segments that are tokenised once.

A prompt is a row of segments: template text (which may hold control tokens) and data in slots. Its
ids are the segments' ids one after the other. That is the speed (a response is tokenised once for
all its pairs) and the injection boundary (data has its own tokenizer, which knows no control
tokens). It is part of the judge fingerprint under `SEGMENT_RULE`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from typing import Protocol as Interface

import numpy as np

from steelyard.errors import JudgeUnavailable
from steelyard.protocols.base import OPTIONAL_SLOTS, REQUIRED_SLOTS, SLOT, Protocol
from steelyard.records import Bool, Int32, Int64, Message, TokenRows

SEGMENT_RULE = "1: outer white space trimmed, ids of segments joined"

# Below so many tokens of each text there is nothing left to judge.
LEAST_KEPT = 16


class TextEncoder(Interface):
    """What this stage needs of a judge's encoder (judge/base.py)."""

    def encode_template(self, text: str, *, first: bool) -> list[int]: ...  # noqa: D102
    def encode_data(self, texts: Sequence[str]) -> TokenRows: ...  # noqa: D102
    def render_chat(self, messages: Sequence[Message]) -> str: ...  # noqa: D102


def render_templates(protocol: Protocol, encoder: TextEncoder) -> dict[str, str]:
    """The protocol in the judge's chat format, one text for each set of optional slots.

    The chat template of a model sees slot marks only, never data. The texts are stored in run.json
    and used from there on resume, so that a template cannot drift inside a run.

    Returns:
        From the optional slots present, sorted and joined by `+`, to the text with slot marks.

    Raises:
        JudgeUnavailable: the chat template drops or repeats a part of its messages.
    """
    subsets = chain.from_iterable(combinations(OPTIONAL_SLOTS, n) for n in range(3))
    return {
        "+".join(sorted(subset)): _render(protocol, encoder, frozenset(subset))
        for subset in subsets
    }


def _render(protocol: Protocol, encoder: TextEncoder, present: frozenset[str]) -> str:
    text = encoder.render_chat(protocol.messages(present)) + protocol.answer_prefix
    found = SLOT.findall(text)
    expected = [*REQUIRED_SLOTS, *present]
    if sorted(found) != sorted(expected):
        raise JudgeUnavailable(
            f"the judge's chat template left the slots {sorted(found)} of {sorted(expected)}",
            effect="data would be lost or doubled in every prompt",
            remedy="mend the model's chat template, or choose another judge",
        )
    return text


@dataclass(frozen=True, slots=True)
class Compiled:
    """One rendered template cut at its slots: ids before, between and after them."""

    slots: tuple[str, ...]
    pieces: tuple[Int32, ...]  # one more than slots

    @property
    def fixed(self) -> int:
        """Tokens of the template itself."""
        return sum(map(len, self.pieces))


def compile_template(text: str, encoder: TextEncoder) -> Compiled:
    """Cut a rendered template at its slot marks and tokenise the pieces."""
    parts = SLOT.split(text)
    pieces = [
        np.asarray(encoder.encode_template(piece, first=at == 0), dtype=np.int32)
        for at, piece in enumerate(parts[::2])
    ]
    return Compiled(tuple(parts[1::2]), tuple(pieces))


@dataclass(frozen=True, slots=True)
class Rows:
    """Ragged token rows: row i is tokens[offsets[i]:offsets[i + 1]]."""

    tokens: Int32
    offsets: Int64
    truncated: Bool  # rows whose data was cut to fit

    @property
    def lengths(self) -> Int64:
        """Tokens a row."""
        return np.diff(self.offsets)


def compose(
    templates: Sequence[Compiled], fills: Iterable[Mapping[str, Int32]], limit: int | None
) -> Rows:
    """Token rows of prompts.

    Args:
        templates: the compiled template of each prompt.
        fills: for each prompt its slots' ids.
        limit: tokens a prompt may have; longer ones have their data cut (`cut_to_fit`), unless
            less than LEAST_KEPT tokens a slot would be left: they stay too long. None: nothing
            is cut.
    """
    arrays: list[Int32] = []
    lengths: list[int] = []
    truncated: list[bool] = []
    for template, fill in zip(templates, fills, strict=True):
        data = [fill[name] for name in template.slots]
        total = template.fixed + sum(map(len, data))
        cut = False
        if limit is not None and total > limit >= template.fixed + LEAST_KEPT * len(data):
            cut = True
            data = cut_to_fit(data, limit - template.fixed)
            total = template.fixed + sum(map(len, data))
        arrays.append(template.pieces[0])
        for ids, piece in zip(data, template.pieces[1:], strict=True):
            arrays += (ids, piece)
        lengths.append(total)
        truncated.append(cut)
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    tokens = np.concatenate(arrays) if arrays else np.zeros(0, dtype=np.int32)
    return Rows(tokens, offsets, np.asarray(truncated, dtype=np.bool_))


def cut_to_fit(data: Sequence[Int32], budget: int) -> list[Int32]:
    """Shorten the longest texts to one common length, so that all fit the budget.

    The beginning of each text is kept. Both orders of a pair are cut alike, because the rule does
    not look at positions.
    """
    cap, left = 0, budget
    for rank, length in enumerate(sorted(map(len, data))):
        cap = left // (len(data) - rank)
        if length > cap:
            break
        left -= length
    return [ids[:cap] for ids in data]
