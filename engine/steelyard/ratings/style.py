"""How a response looks, as counts: its length, lists, headings, bold text and code."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from steelyard.records import Float64

FEATURES = ("length", "lists", "headings", "bold", "code")
_FENCE = re.compile(r"^(?:```|~~~)[^\n]*\n.*?(?:^(?:```|~~~)[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
_LIST = re.compile(r"^[ \t]*(?:[-*+]|\d+[.)])[ \t]+\S", re.MULTILINE)
_HEADING = re.compile(r"^ {0,3}#{1,6}[ \t]+\S", re.MULTILINE)
_BOLD = re.compile(r"\*\*(?=\S)[^\n]+?\*\*|__(?=\S)[^\n]+?__")


def style_counts(texts: Sequence[str]) -> Float64:
    """Counts of Markdown by text.

    Args:
        texts: n responses.

    Returns:
        float64 [n, 5], in the order of FEATURES: characters; items of lists; headings; stretches
        of bold text; blocks of code. What stands in a block of code is no list and no heading.
    """
    out = np.empty((len(texts), len(FEATURES)))
    for at, text in enumerate(texts):
        prose, blocks = _FENCE.subn("\n", text)
        out[at] = (
            len(text),
            len(_LIST.findall(prose)),
            len(_HEADING.findall(prose)),
            len(_BOLD.findall(prose)),
            blocks,
        )
    return out
