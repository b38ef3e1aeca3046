"""The answer that an ordinary prompt asks for, as keys of a protocol file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from steelyard.errors import UsageError

_MARKED = re.compile(r"\[\[([A-Z0-9])\]\]")
_EXPLAINS = re.compile(
    r"\b(expla(?:in|nation)\w*|reason\w*|step by step|rationale)\b", re.IGNORECASE
)
_NOTHING_ELSE = re.compile(r"\b(?:without|do not|don't|no)\s+(?:\w+\s+){0,4}expla", re.IGNORECASE)
_TWO_SCORES = re.compile(r"\btwo (?:values|scores|numbers)\b", re.IGNORECASE)
_IDENTIFIER = re.compile(r"model_identifier[\"']?\s*:\s*[\"'](\w)[\"']")
_RANKS = re.compile(r"[\"']rank[\"']\s*:|\brank the models\b", re.IGNORECASE)
_LETTERS = re.compile(
    r"\b(?:answer|output|respond|reply|choose|verdict|say|select)\b[^\n]{0,80}"
    r"[\"'`(\s]A[\"'`),.\s][^\n]{0,60}?[\"'`(\s]B\b(?:[^\n]{0,60}?[\"'`(\s](C)\b)?",
    re.IGNORECASE,
)
_MARK = r"[\"'`(\s]"  # before and after a label
_NAMED = r"[\"'`(]*(\w)[\"'`),.]*"
_OTHERS = (  # labels other than A and B, each one letter or digit
    re.compile(rf"{_MARK}{_NAMED}\s+(?:if|when)\b([^\n]{{0,120}}?){_MARK}{_NAMED}\s+(?:if|when)\b"),
    re.compile(r"[\"'`](\w)[\"'`](),?\s+(?:or|and)\s+[\"'`](\w)[\"'`]"),
    re.compile(
        r"\b(?:answer|output|respond|reply|choose|verdict|say|select|best|better)\b[^\n]{0,40}?"
        rf"{_MARK}(?!a\b){_NAMED}(),?\s+or\s+{_NAMED}(?!\w)",
        re.IGNORECASE,
    ),
)
_SECOND = re.compile(r"\b(?:second|latter|other|2|B)\b")
_FIRST = re.compile(r"\b(?:first|former|1|A)\b")
_TIE = re.compile(r"\b(?:tie|equal\w*|draw)\b", re.IGNORECASE)
_SCALE = re.compile(r"\b(\d+)( ?(?:to|-|\u2013|and) ?)(\d+)\b")
_WIDEST = 9  # labels are single digits
_KEPT = "kept: they are read where the judge's text gives its verdict, as probabilities"
_CHEAPER = (
    'the judge writes first, which takes hundreds of times as long as answer = "label"; for that,'
    " ask for the label alone"
)


@dataclass(frozen=True, slots=True)
class Answer:
    """How an answer is read: keys of the file, and changes to the prompt with their reasons."""

    keys: Mapping[str, object]
    changes: tuple[str, ...]
    appended: str = ""  # after the user's text
    replaced: dict[str, str] = field(default_factory=dict)  # in the prompt


def asked_of_pair(text: str, place: str) -> Answer:
    """Return the answer that a prompt about two responses asks for.

    Raises:
        UsageError: the marks are not those of A, B and perhaps a tie.
    """
    marked = sorted(set(_MARKED.findall(text)))
    if _TWO_SCORES.search(text):
        top = [int(high) for low, _, high in _SCALE.findall(text) if int(low) < int(high)]
        keys = {"answer": "scores", "combine": "scores", "range": [1, top[0] if top else 10]}
        return Answer(keys, (f"two scores are kept: they are read from the text; {_CHEAPER}",))
    if marked:
        if len(marked) not in {2, 3}:
            raise UsageError(
                f"the verdict has {len(marked)} forms: {', '.join(marked)}", place=place,
                remedy="ask for [[A]], [[B]], and if wanted [[C]] for a tie",
            )  # fmt: skip
        shown = ", ".join(f"[[{label}]]" for label in marked)
        return _labelled(text, marked, f"{shown} are", "\n\nFinal verdict: [[", "[[")
    if len(named := list(dict.fromkeys(_IDENTIFIER.findall(text)))) == 2:
        why = f"the identifiers {named[0]} and {named[1]} are the labels, read as probabilities"
        return Answer({"answer": "label", "labels": named, "combine": "preference"}, (why,))
    if _RANKS.search(text):
        asked = "\n\nAnswer with 1 or 2 alone: the number of the model with the better output."
        why = "a list of ranks is not read: a sentence at the end asks for 1 or 2, read as labels"
        keys = {"answer": "label", "labels": ["1", "2"], "combine": "preference"}
        return Answer(keys, (why,), appended=asked)
    if labels := _letters(text) or _own_labels(text):
        return _labelled(text, labels, f"{', '.join(labels)} are", "\n\nVerdict:", "")
    asked = (
        "\n\nAnswer A if the response that is shown first is better, and B if the response that is"
        " shown second is better."
    )
    keys = {"answer": "label", "labels": ["A", "B"], "combine": "preference", "prefix": "Verdict:"}
    why = "no form of a verdict was found: a sentence at the end asks for A or B"
    return Answer(keys, (why,), appended=asked)


def _letters(text: str) -> list[str]:
    """Return A, B and perhaps C, if a prompt asks for them; [] if it does not."""
    letters = _LETTERS.search(text)
    third = bool(letters and letters[1] and _TIE.search(text))
    return ["A", "B", *(["C"] * third)] if letters else []


def _own_labels(text: str) -> list[str]:
    """Return the labels that a prompt asks for, that of the first response first; [] if none."""
    for pattern in _OTHERS:
        for first, between, second in pattern.findall(text):
            if first == second or not (first + second).isascii():
                continue
            swapped = _SECOND.search(between) and not _FIRST.search(between)
            return [second, first] if swapped else [first, second]
    return []


def _labelled(text: str, labels: list[str], what: str, forced: str, prefix: str) -> Answer:
    keys: dict[str, object] = {"labels": labels}
    keys["combine"] = "tie" if len(labels) == 3 else "preference"
    if _writes(text):
        keys |= {"answer": "reasons", "verdict": forced, "max_tokens": 512}
        return Answer(keys, (f"{what} {_KEPT}; {_CHEAPER}",))
    keys |= {"answer": "label"} | ({"prefix": prefix} if prefix else {})
    return Answer(keys, (f"{what} the labels, read at the beginning of the answer",))


def asked_of_response(text: str, place: str) -> Answer:
    """Return the answer that a prompt about one response asks for: a score.

    Raises:
        UsageError: no scale was found, or it has too many steps for labels of one token.
    """
    scales = [m for m in _SCALE.finditer(text) if int(m[1]) < int(m[3])]
    if not scales:
        raise UsageError(
            "the prompt names no scale", place=place,
            remedy="say it, such as: a score from 1 to 5; for yes or no see the protocol rubric",
        )  # fmt: skip
    low, high = int(scales[0][1]), int(scales[0][3])
    changes, replaced = [], {}
    values = list(range(low, high + 1))
    labels = [str(value) for value in values]
    if (low, high) == (1, 10):
        labels = [str(value - 1) for value in values]
        replaced = {m[0]: f"0{m[2]}9" for m in scales if (m[1], m[3]) == ("1", "10")}
        changes.append(
            "1 to 10 became 0 to 9, which counts as 1 to 10: many tokenizers write 10 as two tokens"
        )
    elif high > _WIDEST:
        raise UsageError(
            f"the scale is {low} to {high}, whose steps are not all one token", place=place,
            remedy="ask for a score from 0 to 9, or 1 to 10, which is converted",
        )  # fmt: skip
    keys: dict[str, object] = {"labels": labels, "scale": values, "combine": "scale"}
    mark = "[[" if "[[" in text else ""
    if _writes(text):
        keys |= {"answer": "reasons", "verdict": f"\n\nRating: {mark}".rstrip(" ")}
        keys["max_tokens"] = 512
        changes.append(f"the score is {_KEPT[6:]}; {_CHEAPER}")
    else:
        keys |= {"answer": "label", "prefix": f"Rating: {mark}".rstrip(" ")}
        changes.append("the score is read as the probabilities of its digits, at once")
    return Answer(keys, tuple(changes), replaced=replaced)


def _writes(text: str) -> bool:
    """Return whether the judge is to write something before its verdict."""
    return bool(_EXPLAINS.search(text)) and not _NOTHING_ELSE.search(text)
