"""How judges mark the label that is their verdict: patterns, the strongest kind first.

Every repetition in a pattern is bounded, so that finding marks takes time linear in the text.
"""

# ruff: noqa: RUF001 - the punctuation of other scripts is meant
from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

NOUNS = (
    r"(?i:response|assistant|answer|output|model|option|candidate|completion|reply|summary|"
    r"translation|system|chatbot)"
)
_NOUN = rf"{NOUNS}\s{{1,2}}(?:(?i:from|by|of)\s{{1,2}}{NOUNS}\s{{1,2}})?"
MARKS = r"[*_`\"'“”‘’$]{0,4}+"  # Markdown and quotes

# What may follow a verdict. A word such as in "Verdict: A good response ..." may not, nor what
# makes it a question ("Verdict: A? No, B."), a compound ("better-known") or a slip ("A. No, B.").
_SLIP = r"(?![.,;:!\s–—-]{1,4}(?i:no|wait|actually|correction|hmm)\s?[,.;:!–—])"
_STOP = rf"{_SLIP}(?:\n|\Z|[.,;:!(<}}。，；：！]|-(?!\w)|[–—])"
_REASON = r"because|since|as|for|due|overall|over|by|out\s{1,2}of"

# Between "Verdict" and its label: a colon, "is", the end of a line or of a tag.
_GAP = rf"{MARKS}\s{{0,3}}(?:[:：=>\n]|[-–—]|(?i:is|was)\b)[\s*_`\"'#:：]{{0,8}}"
_VERDICT = (
    r"(?i:verdict|winner|judge?ment|decision|preference|final[ _]{1,2}(?:answer|choice)|"
    rf"(?:better|best|preferred|stronger|superior|chosen)[ _]{{1,2}}(?:{NOUNS}|one))"
)
_BOXED = r"\\boxed\{(?:\\text\{)?\s{0,2}"
_ANSWER = r"(?i:answer|conclusion|result|choice|selection|pick|vote|rating|score|grade)"
# "Verdict: neither" names no label, which is an answer too.
_NONE = (
    r"(?P<none>(?i:not?|neither|none|both|n/a|undecided|inconclusive|unclear|unable|cannot|tie|"
    r"draw|equal|equally)\b)"
)

_SENTENCE = r"(?:(?m:^)|(?<=[.!?:;,*]\s)|(?<=\bthat\s)|(?<=\bthink\s)|(?<=\bso\s)|(?<=\band\s))"
_IS_BETTER = (
    r"\s{1,2}(?:(?i:wins)|(?i:is|was)\s{1,2}"
    r"(?i:(?:clearly|slightly|overall|much|significantly|definitely|therefore)\s{1,2}){0,2}"
    r"(?i:(?:the|my)\s{1,2})?(?i:(?:clear|overall)\s{1,2})?"
    r"(?i:better|best|superior|stronger|preferable|preferred|winner|choice))"
    rf"(?=[ \t]{{0,3}}(?:{_STOP}|(?i:{_REASON}|than|and|here|one|choice)\b|{NOUNS}\b))"
)
_I_PREFER = (
    r"(?<!\w)(?i:I(?:['’]d)?\s{1,2}(?:would\s{1,2})?"
    r"(?:prefer|choose|pick|select|favou?r|vote\s{1,2}for|go\s{1,2}with))\s{1,2}"
)
_IT_IS = r"(?<!\w)(?i:(?:it|this)(?:['’]s|\s{1,2}is))\s{1,2}"

# "The correct answer is B" speaks of the question's own options.
_SOLUTION = r"(?i:correct|right|true|actual|real|question)"
# Before a label: words that take the sentence back ("I cannot say that Response A is better"),
# or that quote a response ("Response A's final answer: B").
_DENIED = (
    r"(?:\b(?i:not|neither|nor|whether|if|unless|cannot|never|hardly)\b|n['’]t\b)[^.!?\n]{0,80}\Z"
)
_QUOTED = (
    rf"(?:{NOUNS}\s\w{{1,3}}(?:['’]s|\s(?i:gives|states|concludes|says|answers|ends|reaches))"
    r"|\b(?i:its|their))\b[^.,;\n]{0,60}\Z"
    rf"|\b{_SOLUTION}\s{{1,2}}{_ANSWER}\b[^.!?]{{0,12}}\Z"
)
BEFORE = 80  # characters before a mark in which those words are looked for


@dataclass(frozen=True, slots=True)
class Kind:
    """Marks of one strength: patterns with a group `label`, and what must not come before it.

    A mark whose group `label` is empty names no label.
    """

    patterns: tuple[re.Pattern[str], ...]
    unless: re.Pattern[str] | None = None


@lru_cache(maxsize=64)
def kinds(labels: tuple[str, ...]) -> tuple[Kind, ...]:
    """Return the kinds of marks for these labels, the strongest first."""
    forms = "|".join(
        re.escape(label) if len(label) == 1 else rf"(?i:{re.escape(label)})"
        for label in sorted(labels, key=len, reverse=True)
    )
    # A scale may be named with its label: 7/10.
    scale = len(labels) > 2 and all(label.isdecimal() for label in labels)
    slash, out_of = ("", rf"|\s?/\s?{labels[-1]}\b") if scale else ("/", "")
    some = "[*_`\"']{0,3}+"
    label = (
        rf"(?:(?i:an?)\s{{1,2}}(?=\w\w))?(?<!\w)(?<!\d[.,])(?P<label>{forms})"
        r"(?![\w+]|['’]\w|[.,]\d|-\w)"
    )
    boxed = (
        rf"{MARKS}(?P<round>\()?(?P<square>\[)?{some}(?:{_NOUN}{some})?{label}{some}"
        rf"(?(square)\])(?(round)\)){MARKS}"
    )
    # "A or B", "A, B" and "A/B" name no verdict.
    alone = (
        rf"(?!\s{{0,2}}(?:[,&|>={slash}]|(?i:and|or|nor|vs|versus)\b)\s{{0,2}}{some}"
        rf"(?:{_NOUN})?(?:{forms})(?!\w))"
    )
    verdict = rf"{boxed}{alone}(?=[ \t]{{0,3}}(?:{_STOP}|(?i:{_REASON})\b{out_of}))"
    solved = rf"(?![^\n]{{0,60}}\b{_SOLUTION}\s{{1,2}}{_ANSWER}\b)"
    ends = rf"{solved}(?:[^\n]{{0,60}}[:：][ *_]{{0,4}})?{boxed}[.。!]?{MARKS}\Z"
    listed = (
        rf"(?:\n|[.!?]\s)[\s*_(]{{0,4}}(?:{_NOUN})?(?!(?P=label)\b)(?:{forms})"
        r"[*_)]{0,3}(?:[.,;:!]\s|\n)"
    )
    opens = rf"{boxed}{alone}(?=\s?(?:[.,;!。，](?:\s|\Z)|[-–—]\s|\n|\Z))(?!(?s:.*){listed})"

    def kind(*patterns: str, unless: str = "") -> Kind:
        return Kind(tuple(map(re.compile, patterns)), re.compile(unless) if unless else None)

    return (
        kind(rf"\[\[\s{{0,2}}(?:(?:{_NOUN})?{some}{label}{some}|[^\[\]\n]{{1,12}}?)\s{{0,2}}\]\]"),
        kind(
            rf"(?<![A-Za-z])(?:{_VERDICT}{_GAP}|{_BOXED})(?:{verdict}|{MARKS}{_NONE})",
            unless=_QUOTED,
        ),
        kind(rf"(?m:^)[ \t>]{{0,6}}{ends}", unless=rf"(?<!\w)(?:{forms})(?!\w)[^\n]{{0,80}}\Z"),
        kind(
            rf"(?<![A-Za-z]){_ANSWER}{_GAP}(?:{verdict}|{MARKS}{_NONE})",
            rf"(?:(?=[*_`\"'(\[]{{0,4}}{NOUNS})|{_SENTENCE}){boxed}{_IS_BETTER}",
            rf"{_I_PREFER}{verdict}",
            rf"{_IT_IS}{verdict}",
            unless=rf"{_DENIED}|{_QUOTED}",
        ),
        kind(rf"\*\*\(?{label}[.)]?\*\*"),
        kind(rf"\A{opens}"),
    )
