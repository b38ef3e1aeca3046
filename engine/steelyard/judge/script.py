"""What the scripted judge writes, for protocols whose answers are texts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from steelyard.batches import ReadBatch, Written
from steelyard.judge.base import Encoder
from steelyard.judge.reading import NO_ANSWER, TextReader
from steelyard.records import STATUS_OK, STATUS_UNPARSABLE, Answer, Float64

# One text in so many holds no answer.
_SILENT = 1 / 32


def write(reads: ReadBatch, units: Float64, answer: Answer, encoder: Encoder) -> ReadBatch:
    """The same reads, with texts that lead to them.

    Args:
        reads: by log-probability, as for a label.
        units: numbers in [0, 1) of each prompt.
        answer: how texts are read.
        encoder: the scripted judge's.
    """
    reader = TextReader(answer, encoder)
    texts: list[str | None] = [_text(answer, row) for row in units.tolist()]
    ids = [list((text or "").encode()) for text in texts]
    forced = np.zeros(len(texts), dtype=np.bool_)
    numbers: list[list[float] | None] = [None] * len(texts)
    status, errors = list(reads.status), list(reads.errors)
    for row, text in enumerate(map(str, texts)):
        if answer.kind == "reasons":
            forced[row] = reader.verdict_at(ids[row], text) is None
            continue
        numbers[row] = reader.numbers(text)
        if numbers[row] is None and status[row] == STATUS_OK:
            status[row], errors[row] = STATUS_UNPARSABLE, NO_ANSWER
    lengths = np.asarray([len(one) for one in ids], dtype=np.int32)
    written = Written(texts, numbers, forced, lengths)
    return replace(reads, status=status, errors=errors, written=written)


def _text(answer: Answer, units: list[float]) -> str:
    if units[2] < _SILENT:
        return "Both have their merits."
    if answer.kind == "scores":
        wide = answer.high - answer.low
        return f"Reasons.\n{answer.low + wide * units[0]:.1f} {answer.low + wide * units[1]:.1f}"
    if answer.kind == "probability":
        return f"Reasons. <{answer.tag}>{units[0]:.3f}</{answer.tag}>"
    names = answer.labels.names
    return f"Reasons. [[{names[int(units[0] * len(names))]}]]"
