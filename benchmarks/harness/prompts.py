"""Prompts as token rows, by the product's own stages, for benchmarks that feed an engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from harness.workloads import Row
from steelyard.core.batches import PromptBatch, TokenRows
from steelyard.core.judges import Answer, LabelSet
from steelyard.judge import open_judge
from steelyard.judge.base import Encoder, JudgeSpec
from steelyard.prompts.forms import compile_template, make_form
from steelyard.protocols import get_protocol

Ids = npt.NDArray[np.int32]
PROTOCOL = get_protocol("pairwise")


def encoder_of(judge: str) -> Encoder:
    """Open tokenizers and chat format of a judge; no engine."""
    return open_judge(JudgeSpec("judge", judge)).encoder


def answer_of(encoder: Encoder) -> Answer:
    """Return how the labels A and B are read in a judge's vocabulary."""
    return Answer(LabelSet(PROTOCOL.labels, tuple(map(encoder.label_variants, PROTOCOL.labels))))


def pairwise_template(encoder: Encoder) -> str:
    """Render Steelyard's template in the judge's chat format, with slot marks."""
    return make_form(PROTOCOL, encoder).templates[""]


def both_orders(rows: Sequence[Row]) -> list[dict[str, str]]:
    """Return the slots of all rows' prompts, ab next to ba."""
    return [
        {"instruction": instruction, "first": first, "second": second}
        for instruction, a, b, *_ in rows
        for first, second in ((a, b), (b, a))
    ]


def tokenise(template: str, slots: Sequence[Mapping[str, str]], encoder: Encoder) -> TokenRows:
    """Tokenise prompts of one template; each text is tokenised once, and ids are joined."""
    compiled = compile_template(template, encoder)
    texts = list({text for one in slots for text in one.values()})
    ids = dict(zip(texts, encoder.encode_data(texts).split(), strict=True))
    rows = []
    for one in slots:
        parts = [compiled.pieces[0]]
        for name, piece in zip(compiled.slots, compiled.pieces[1:], strict=True):
            parts += (ids[one[name]], piece)
        rows.append(np.concatenate(parts))
    return TokenRows.of(rows)


def prefix_order(rows: TokenRows) -> npt.NDArray[np.int64]:
    """Return the order in which Steelyard feeds the rows of a bucket."""
    from steelyard_kernels.prefix import lexicographic_order

    return lexicographic_order(rows.tokens, rows.offsets)[0]


def batches(rows: TokenRows, names: Sequence[int], size: int = 32) -> list[PromptBatch]:
    """Make batches of rows as a judge takes them; a row's key holds its name, a number."""
    return [
        PromptBatch(
            bucket=0,
            keys=[names[row].to_bytes(16, "big") for row in range(start, end)],
            rows=rows.slice(start, end),
            truncated=np.zeros(end - start, dtype=np.bool_),
        )
        for start in range(0, len(names), size)
        for end in (min(start + size, len(names)),)
    ]
