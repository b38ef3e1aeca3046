"""Pair x order x protocol -> token ids, from segments that are tokenised once.

A prompt is a row of segments: template text (which may hold control tokens) and data in slots. Its
ids are the segments' ids, joined. That is the speed (a response is tokenised once for
all its pairs) and the injection boundary (data has its own tokenizer, which knows no control
tokens). It is part of the judge fingerprint under `SEGMENT_RULE`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from steelyard.core.arrow import offsets_of
from steelyard.core.batches import TokenRows
from steelyard.core.images import MOST_IMAGES
from steelyard.core.schemas import Bool, Int32
from steelyard.errors import JudgeUnavailable, UsageError
from steelyard.judge.base import Encoder
from steelyard.plan.spec import Form
from steelyard.protocols.protocol import IMAGES, SLOT, Example, Message, Protocol, slot
from steelyard_kernels.ragged import join

SEGMENT_RULE = "1: outer white space trimmed, ids of segments joined"

# With fewer tokens of each text there is nothing left to judge.
LEAST_KEPT = 16


def make_form(
    protocol: Protocol,
    encoder: Encoder,
    examples: Sequence[Example] = (),
    *,
    images: bool = False,
) -> Form:
    """Render a protocol in a judge's chat format, one text for each set of optional slots.

    Templates see slot marks only, never data. The texts are stored in run.json and used from there
    on resume, so that a template cannot drift inside a run.

    Args:
        protocol: what is asked.
        encoder: the judge's.
        examples: shown in every prompt.
        images: whether rows may have images.

    Raises:
        UsageError: the protocol's template is wrong, or does not show each slot once.
        JudgeUnavailable: the chat template drops or repeats a part of its messages, or an image.
    """
    constants: dict[str, str] = {}
    marks = []
    for number, example in enumerate(examples, 1):
        names = {key: f"example_{number}_{key}" for key in example.fields}
        constants |= {names[key]: text for key, text in example.fields.items()}
        marks.append({key: slot(name) for key, name in names.items()})
    optional = protocol.optional
    counts = range(len(optional) + 1)
    subsets = [frozenset(some) for count in counts for some in combinations(optional, count)]
    templates, pictured = (
        {
            "+".join(sorted(subset)): _render(protocol, encoder, subset, tuple(marks), count)
            for subset in (subsets if count <= images else [])
        }
        for count in (0, 1)
    )
    shown = set(SLOT.findall(templates[""]))
    used = {name: text for name, text in constants.items() if name in shown}
    if not images:
        return Form(templates, used)
    opening, blocks = image_blocks(encoder)
    for name, text in pictured.items():
        head, mark, rest = text.partition(slot(IMAGES))
        if not head.endswith(opening):
            raise _no_images()
        pictured[name] = head.removesuffix(blocks[0]) + mark + rest
    return Form(templates, used, pictured, blocks)


def image_blocks(encoder: Encoder) -> tuple[str, tuple[str, ...]]:
    """Return how a judge's chat format shows images before a user's text.

    Returns:
        what one image adds before the text; and for 1 to MOST_IMAGES images the part that depends
        on their number, which comes last before the text.

    Raises:
        JudgeUnavailable: the judge's chat template shows no images, or not before the text.
    """
    mark = slot(IMAGES)
    heads = [
        encoder.render_chat([Message("user", mark, images)]).partition(mark)[0]
        for images in range(MOST_IMAGES + 1)
    ]
    if len(set(heads)) != len(heads):
        raise _no_images()
    common = _shared(min(heads[1:]), max(heads[1:]))
    return heads[1][_shared(heads[0], heads[1]) :], tuple(head[common:] for head in heads[1:])


def _shared(a: str, b: str) -> int:
    """Count the characters that two texts have in common at their beginning."""
    differs = (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)
    return next(differs, len(min(a, b)))


def _no_images() -> JudgeUnavailable:
    return JudgeUnavailable(
        "the judge's chat template shows no images before the text of a message",
        effect="images would be left out",
        remedy="choose a vision-language judge, or leave images out: --map images=",
    )


def _render(
    protocol: Protocol,
    encoder: Encoder,
    present: frozenset[str],
    examples: tuple[Mapping[str, str], ...],
    images: int,
) -> str:
    messages = protocol.messages(present, examples, images)
    shown = SLOT.findall(" ".join(message.content for message in messages))
    expected = sorted([*protocol.required, *present, *([IMAGES] if images else [])])
    if sorted(name for name in shown if not name.startswith("example_")) != expected:
        raise UsageError(
            f"the template shows {', '.join(shown)}; it has to show {', '.join(expected)},"
            " each once",
            place=protocol.place,
            effect="data would be lost or doubled in every prompt",
            remedy="write each slot once: {{ name }}",
        )
    text = encoder.render_chat(messages) + protocol.prefix
    left = SLOT.findall(text)
    if sorted(left) != sorted(shown):
        raise JudgeUnavailable(
            f"the judge's chat template left the slots {sorted(left)} of {sorted(shown)}",
            effect="data would be lost or doubled in every prompt",
            remedy="correct the model's chat template, or choose another judge",
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


def compile_template(
    text: str, encoder: Encoder, constants: Mapping[str, str] | None = None
) -> Compiled:
    """Cut a rendered template at its slot marks and tokenise the pieces.

    Slots with a constant text become part of the piece around them, tokenised as data.
    """
    parts = SLOT.split(text)
    slots: list[str] = []
    pieces: list[list[Int32]] = [[]]
    for i, part in enumerate(parts):
        if i % 2 == 0:
            ids = np.asarray(encoder.encode_template(part, first=i == 0), dtype=np.int32)
            pieces[-1].append(ids)
        elif constants and part in constants:
            pieces[-1].append(encoder.encode_data([constants[part].strip()])[0])
        else:
            slots.append(part)
            pieces.append([])
    return Compiled(tuple(slots), tuple(np.concatenate(piece) for piece in pieces))


EMPTY = 0  # the segment without tokens, where a template has fewer segments than others


def compose(segments: TokenRows, parts: Int32, limit: int | None) -> tuple[TokenRows, Bool]:
    """Join segments to the token rows of prompts, and say whose data was cut to fit.

    Args:
        segments: ids of every segment, made once; row EMPTY has none.
        parts: prompts x segments: which segments a prompt has, in their order. Even columns are
            template text, odd ones data; EMPTY where a prompt has fewer.
        limit: tokens that fit into the context; longer ones have their data cut to one common
            length, unless fewer than LEAST_KEPT tokens per text would be left: they stay too long.
            None: nothing is cut.
    """
    lengths = segments.lengths[parts]
    truncated = np.zeros(len(parts), dtype=np.bool_)
    if limit is not None:
        data = lengths[:, 1::2]
        room = limit - (lengths.sum(axis=1) - data.sum(axis=1))
        least = LEAST_KEPT * (parts[:, 1::2] != EMPTY).sum(axis=1)
        truncated = (data.sum(axis=1) > room) & (room >= least)
        for row in np.flatnonzero(truncated).tolist():
            cap = common_length(data[row].tolist(), int(room[row]))
            np.minimum(data[row], cap, out=data[row])
    tokens = join(segments.tokens, segments.offsets[parts].ravel(), lengths.ravel())
    return TokenRows(tokens, offsets_of(lengths.sum(axis=1))), truncated


def common_length(lengths: Sequence[int], budget: int) -> int:
    """Return the greatest length to which long texts can be cut so that all fit the budget.

    The beginning of each text is kept. Both orders of a pair are cut alike, because the rule does
    not look at positions.
    """
    cap, left = 0, budget
    for rank, length in enumerate(sorted(lengths)):
        cap = left // (len(lengths) - rank)
        if length > cap:
            break
        left -= length
    return cap
