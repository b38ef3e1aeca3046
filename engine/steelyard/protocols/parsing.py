"""What a judge's text says: a label, two scores, or a probability. Pure functions.

A text that cannot be read with certainty gives None, and the caller makes an error read of it:
never a tie, never a default. Text inside `<think>...</think>` does not count. Every repetition in a
pattern is bounded, so that reading takes time linear in the text.
"""

# ruff: noqa: RUF001 - the punctuation of other scripts is meant
from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import zip_longest

from steelyard.protocols.patterns import BEFORE, MARKS, NOUNS, kinds

_THINK_OPENS = re.compile(r"<think(?:ing)?>", re.IGNORECASE)
_THINK_ENDS = re.compile(r"</think(?:ing)?>", re.IGNORECASE)
_BLANK = " \t\r\n\f\v`"  # around an answer: white space and the fence of a code block

# A score with its scale ("8.5/10", "8 out of 10") or its unit.
_SCORE = (
    r"(?P<{0}>-?(?:0|[1-9][0-9]{{0,3}})(?:\.[0-9]{{1,3}})?(?![\w%]|\.[0-9]))"
    r"(?:(?:\s?/\s?|\s{{1,2}}(?i:out\s{{1,2}}of)\s{{1,2}})(?P<{0}_scale>[0-9]{{1,4}})(?![0-9]))?"
    r"(?:\s?(?i:points?|pts)\b)?"
)
_OPEN, _CLOSE = r"[\[(*_`\"'“{]{0,4}", r"[\])*_`\"'”}]{0,4}"
# A line that is two scores, with a heading before them or "respectively" after.
_LONE = re.compile(
    rf"(?P<before>[^0-9]{{0,80}}?)(?<![\w.,/+-]){_SCORE.format('a')}{_CLOSE}"
    r"(?P<between>\s{0,2}[,;|&，、]\s{0,3}|\s{1,2}(?i:and|vs\.?|und|et|y)\s{1,2}|\s{1,4})"
    rf"{_OPEN}{_SCORE.format('b')}{_CLOSE}(?P<both>,?\s(?i:respectively))?[.。!]?{_CLOSE}"
)
# A score next to the name of its response: "Assistant A's score: 8", "| B | 7 |", "score_b": 7.
_NAMED = re.compile(
    rf"(?:(?<![A-Za-z0-9])(?:{NOUNS}|(?i:score|rating))(?:[\s*]{{0,3}}|_)"
    r"(?P<side>(?<=_)[ab]|[AB12])"
    r"(?![A-Za-z0-9.])"
    r"|(?:(?m:^)|(?<=[|,;{]))[ \t>*\"-]{0,6}(?P<bare>[AB])(?=[*\"\s]{0,4}[:：=|]))"
    r"(?:['’]s)?(?:[_ ]{1,2}(?i:score|rating|grade|gets|receives|is|was|scored|scores|deserves|"
    r"earns|overall|total|final|a|an|of)(?![A-Za-z])){0,5}"
    rf"{MARKS}(?:\s?[:：=|(–—]|\s-(?=\s))?{MARKS}\s{{0,3}}{_OPEN}{_SCORE.format('score')}{_CLOSE}"
    rf"(?=[ \t]{{0,3}}(?:[.,;:|!，。；]|[–—-]\s|\Z|\n|{NOUNS}\b"
    r"|(?i:because|since|as|for|and|while|but|due)\b))"
)
_SIDE = re.compile(r"(?<!\w)[AB](?!\w)")
_FINAL = re.compile(r"(?<!\w)(?:final|overall|total)(?!\w)", re.IGNORECASE)
# After a number that is not an overall score: of one criterion among several ("8 for accuracy, 6
# for clarity"), or the first item of a list ("1. correct 2. clear").
_FOR = r"\s{1,2}(?i:for|on|in)\b"
_CRITERION = re.compile(rf"{_FOR}[^\n]{{0,200}}?(?<![\w.])[0-9]{{1,4}}(?:[./][0-9]{{1,4}})?{_FOR}")
_ITEM = re.compile(r"\.\s{1,3}(?:[a-z]|(?s:.){0,400}?\s2[.)]\s)")

_PROBABILITY = re.compile(
    r"([0-9]{1,3}(?:[.,][0-9]{0,20})?|[.,][0-9]{1,20})([eE]-[0-9]{1,3})?(\s?%)?\.?"
)
_Pair = tuple[tuple[str, str | None], tuple[str, str | None]]  # two of a number and its scale


def find_label(text: str, labels: Sequence[str]) -> tuple[int, int] | None:
    """Find the label that a judge's text gives as its verdict.

    The strongest kind of mark that occurs decides. From strong to weak: `[[A]]`; "Verdict: A" and
    "The better response is Response A"; a last line that is a label or ends with ": A"; "Response
    B is better", "I prefer A", "Answer: B"; `**A**`; a label that opens the text ("A. Because").
    Marks of one kind that name different labels, or something other than a label, are not a
    verdict.

    Args:
        text: what the judge wrote, its reasons included.
        labels: the protocol's labels, at least one; single characters are case-sensitive.

    Returns:
        index into `labels`, and the offset in `text` at which the label itself starts in the last
        such mark. None where the text gives no verdict, or more than one.
    """
    answer, start = _answer(text)
    known = {_folded(label): index for index, label in enumerate(labels)}
    for kind in kinds(tuple(labels)):
        marks = [
            (match.start("label"), known.get(_folded(match["label"] or "")))
            for pattern in kind.patterns
            for match in pattern.finditer(answer)
            if kind.unless is None or not kind.unless.search(_before(answer, match))
        ]
        if marks:
            offset, index = max(marks, key=lambda mark: mark[0])
            agreed = all(other == index for _, other in marks)
            return (index, start + offset) if agreed and index is not None else None
    return None


def _answer(text: str) -> tuple[str, int]:
    """Return the text without thinking and outer white space, and the offset of its start.

    Everything before `</think>` is thinking even if nothing opens it: some chat templates open it
    in the prompt. Thinking that never ends was cut off, and no answer follows it.
    """
    start = max((match.end() for match in _THINK_ENDS.finditer(text)), default=0)
    opened = _THINK_OPENS.search(text, start)
    answer = text[start : opened.start() if opened else len(text)]
    stripped = answer.lstrip(_BLANK)
    return stripped.rstrip(_BLANK), start + len(answer) - len(stripped)


def _folded(label: str) -> str:
    return label if len(label) == 1 else label.casefold()


def _before(text: str, match: re.Match[str]) -> str:
    end = match.end() if match["label"] is None else match.start("label")
    return text[max(0, match.start() - BEFORE) : end]


def two_scores(text: str, low: float, high: float) -> tuple[float, float] | None:
    """Find the two scores that a judge's text gives to the responses, in the order shown.

    Scores are alone in the first or the last line ("8 7", "Scores: 8, 7", "8.5/10 and 7/10"), or
    each is next to a name ("Assistant A: 8", "The score of Assistant 2: 7"). Where a text has both
    they must agree, unless the last line calls its scores final, overall or total. Scores of
    several criteria ("A: 8 for accuracy, 6 for clarity") are not overall scores.

    Args:
        text: what the judge wrote, its reasons included.
        low: the lowest score of the scale.
        high: the highest; a scale that the text names ("4/5") must end here.

    Returns:
        scores in [low, high]; None if there are fewer than two, or they are out of range or
        contradictory.
    """
    answer, _ = _answer(text)
    pairs = _final_pair(answer) or [*_lone_pairs(answer), *_named_pair(answer)]
    if not pairs or len({(float(a), float(b)) for (a, _), (b, _) in pairs}) > 1:
        return None
    first, second = (float(number) for number, _ in pairs[0])
    scales = {float(scale) for _, scale in pairs[0] if scale is not None}
    fits = low <= first <= high and low <= second <= high and scales <= {float(high)}
    return (first, second) if fits else None


def _final_pair(answer: str) -> list[_Pair]:
    """Return the two scores of the last line, if it calls them final, overall or total."""
    last = answer.rstrip().rpartition("\n")[2].strip()
    return _pairs_in([last]) if _FINAL.search(last[:80]) else []


def _lone_pairs(answer: str) -> list[_Pair]:
    """Return two scores that are alone in the first line, the last line, or the whole text."""
    lines = [line for piece in answer.splitlines() if (line := piece.strip())]
    if len(lines) > 1 and lines[0].endswith((":", "：")):
        del lines[0]
    return _pairs_in([answer, *lines[:1], *lines[-1:]])


def _pairs_in(texts: Sequence[str]) -> list[_Pair]:
    return [
        ((match["a"], match["a_scale"]), (match["b"], match["b_scale"]))
        for match in map(_LONE.fullmatch, texts)
        if match is not None and _is_about_both(match)
    ]


def _is_about_both(match: re.Match[str]) -> bool:
    before = match["before"].strip(" \t*_`\"'[({#>|-")
    if len(set(_SIDE.findall(before))) == 1:
        return False  # two scores of one response
    if before and match["between"] == ",":
        return False  # a heading and one number with a decimal comma
    scaled = match["a_scale"] is not None and match["b_scale"] is not None
    return not before or before.endswith((":", "：")) or scaled or match["both"] is not None


def _named_pair(answer: str) -> list[_Pair]:
    """Return a score for each response; nothing if a response has no score, or several."""
    first: set[tuple[str, str | None]] = set()
    second: set[tuple[str, str | None]] = set()
    marks = [*_NAMED.finditer(answer)]
    for match, after in zip_longest(marks, marks[1:]):
        rest = answer[match.end() : after.start() if after else len(answer)]
        if _CRITERION.match(rest) or (match["score"] == "1" and _ITEM.match(rest)):
            continue
        side = second if (match["side"] or match["bare"]) in "Bb2" else first
        side.add((match["score"], match["score_scale"]))
    return [(first.pop(), second.pop())] if len(first) == len(second) == 1 else []


def probability(text: str, tag: str) -> float | None:
    """Find the probability in the last complete `<tag>...</tag>` of a judge's text.

    Args:
        text: what the judge wrote; thinking does not count.
        tag: the tag's name, any case in the text.

    Returns:
        a number in [0, 1], also from "73%" and "0,73"; None without such a tag, or if it holds
        anything else.
    """
    answer, _ = _answer(text)
    name = re.escape(tag)
    ends = [match.start() for match in re.finditer(rf"</\s?{name}\s?>", answer, re.IGNORECASE)]
    if not ends:
        return None
    opened = [
        match.end() for match in re.finditer(rf"<{name}\s?>", answer[: ends[-1]], re.IGNORECASE)
    ]
    if not opened:
        return None
    match = _PROBABILITY.fullmatch(answer[opened[-1] : ends[-1]].strip(" \t\r\n*_`\"'$"))
    if match is None:
        return None
    number = float(match[1].replace(",", ".") + (match[2] or ""))
    value = number / 100 if match[3] else number
    return value if 0 <= value <= 1 else None
