"""`protocol list`, `show`, `check`: what there is, what a judge is shown, what could be better."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from steelyard.cli.doctor import BAD, GOOD, NOTE, Finding
from steelyard.cli.doctor import make_finding as finding
from steelyard.core.config import RunConfig
from steelyard.errors import SteelyardError
from steelyard.plan.spec import JudgingSpec
from steelyard.prompts.forms import Compiled, compile_template
from steelyard.prompts.prepared import PreparedJudge, open_judges
from steelyard.protocols import get_protocol, protocol_names
from steelyard.protocols.protocol import SLOT, Example
from steelyard.protocols.rules import RULES

# What is shown where a real row would stand.
SAMPLE = {
    "instruction": "Which planet is the largest?",
    "first": "Jupiter is the largest planet.",
    "second": "It is Saturn.",
    "response": "Jupiter is the largest planet.",
    "system": "Answer in one sentence.",
    "conversation": "User: Hello\n\nAssistant: Hello!",
    "first_turns": "User: Hello\n\nAssistant: Hi.",
    "second_turns": "User: Hello\n\nAssistant: Good day.",
    "response_turns": "User: Hello\n\nAssistant: Hi.",
    "reference": "Jupiter.",
    "criterion": "The response names the right planet.",
}
_EXAMPLE = {
    "instruction": "How much is 2 + 2?",
    "response_a": "4",
    "response_b": "5",
    "verdict": "A",
}
# Slots in the order in which they change from prompt to prompt: what changes least comes first.
_STEADY = (
    ("system", "conversation", "instruction", "reference"),
    ("first_turns", "response_turns", "first", "response"),
    ("second_turns", "second"),
    ("criterion",),
)
_RANKS = {name: rank for rank, names in enumerate(_STEADY) for name in names}
LONG_TAIL = 64  # tokens behind the last text, computed for every prompt


def list_protocols() -> list[dict[str, Any]]:
    """The built-in protocols: name, one line, labels, prompts a pair, how reads combine."""
    found = []
    for name in protocol_names():
        protocol = get_protocol(name)
        criteria = "criteria" if "criterion" in protocol.names else 1
        found.append(
            {
                "name": name,
                "about": protocol.about,
                "shows": protocol.shows,
                "answer": protocol.answer,
                "labels": list(protocol.labels),
                "prompts_a_pair": f"{2 * protocol.samples}" + (" x criteria" * (criteria != 1)),
                "combine": RULES[protocol.combine].about,
                "source": protocol.source,
            }
        )
    return found


def format_protocols(found: list[dict[str, Any]]) -> str:
    """The same for people."""
    width = max(len(one["name"]) for one in found)
    return "\n".join(f"{one['name']:<{width}}  {one['about']}" for one in found)


def show_protocol(name: str, judge_name: str) -> dict[str, Any]:
    """Return a protocol in a judge's words: a rendered example, and segments with their tokens."""
    with _opened(name, judge_name) as prepared:
        return _describe(prepared)


def _describe(prepared: PreparedJudge) -> dict[str, Any]:
    protocol, judge, answer = prepared.spec.protocol, prepared.judge, prepared.answer
    compiled = _compiled(prepared)
    segments = []
    for number, ids in enumerate(compiled.pieces):
        segments.append(
            {"segment": "template", "tokens": len(ids), "text": judge.encoder.decode(ids.tolist())}
        )
        if number < len(compiled.slots):
            slot = compiled.slots[number]
            tokens = len(judge.encoder.encode_data([SAMPLE[slot]])[0])
            segments.append({"segment": slot, "tokens": tokens, "text": SAMPLE[slot]})
    return {
        "name": protocol.name,
        "about": protocol.about,
        "source": protocol.source,
        "file": protocol.place,
        "judge": judge.card.name,
        "shows": protocol.shows,
        "answer": protocol.answer,
        "combine": RULES[protocol.combine].about,
        "labels": {
            label: [variant.text for variant in variants]
            for label, variants in zip(answer.labels.names, answer.labels.variants, strict=True)
        },
        "max_tokens": answer.max_tokens,
        "samples": protocol.samples,
        "tie_band": protocol.tie_band,
        "template_tokens": compiled.fixed,
        "segments": segments,
        "example": _filled(prepared),
    }


def format_protocol(content: dict[str, Any]) -> str:
    """The same for people."""
    labels = ", ".join(f"{name} ({len(forms)} tokens)" for name, forms in content["labels"].items())
    lines = [
        f"protocol: {content['name']}: {content['about']}",
        f"source:   {content['source']}",
        f"file:     {content['file']}",
        f"shows:    a {content['shows']}; answer: {content['answer']}"
        + (f", labels {labels}" if labels else ""),
        f"verdict:  {content['combine']}",
        f"segments: as {content['judge']} sees them,"
        f" {content['template_tokens']} tokens without data",
    ]
    for one in content["segments"]:
        start = " ".join(one["text"].split())[:60]
        lines.append(f"  {one['tokens']:>5}  {one['segment']:<14} {start}")
    lines.append("example:")
    lines += [f"  | {line}" for line in content["example"].split("\n")]
    return "\n".join(lines)


def check_protocol(name: str, judge_name: str) -> list[Finding]:
    """Findings about a protocol, as name, state (ok, note, bad), what was found, and a remedy.

    What keeps a file from being a protocol at all is one bad finding.
    """
    try:
        with _opened(name, judge_name) as prepared:
            compiled = _compiled(prepared)
    except SteelyardError as error:
        return [finding("protocol", BAD, error.cause, error.remedy)]
    found = [finding("protocol", GOOD, f"{prepared.spec.name}: every slot is shown once")]
    labels = prepared.answer.labels
    for label, variants in zip(labels.names, labels.variants, strict=True):
        forms = ", ".join(repr(variant.text) for variant in variants)
        found.append(finding("label", GOOD, f"{label}: one token each: {forms}"))
    found += _sharing(compiled)
    return found


def _sharing(compiled: Compiled) -> list[Finding]:
    """Whether neighbouring prompts share as much of their beginning as they can."""
    found = []
    ranks = [_RANKS[slot] for slot in compiled.slots]
    for at, slot in enumerate(compiled.slots):
        late = [other for other in compiled.slots[:at] if _RANKS[other] > ranks[at]]
        if late:
            found.append(
                finding(
                    "sharing",
                    NOTE,
                    f"{slot} stands after {late[0]}, which changes more often: what both have"
                    " before them in common is computed again",
                    f"show {slot} before {late[0]}",
                )
            )
    tail = len(compiled.pieces[-1])
    if tail > LONG_TAIL:
        found.append(
            finding(
                "tail",
                NOTE,
                f"{tail} tokens of template follow the last text, computed for every prompt",
                "move what does not depend on the texts to the front",
            )
        )
    if not found:
        found.append(
            finding("sharing", GOOD, f"the best order of texts; {tail} tokens behind them")
        )
    return found


@contextmanager
def _opened(name: str, judge_name: str) -> Iterator[PreparedJudge]:
    """Open a judge that is asked by a protocol, with one worked example if it shows any."""
    protocol = get_protocol(name)
    verdict = protocol.labels[0] if protocol.labels else _EXAMPLE["verdict"]
    examples = [Example({**_EXAMPLE, "verdict": verdict})] if protocol.has_examples else []
    config = RunConfig(judge=(judge_name,)).validate()
    with open_judges(config, JudgingSpec.plain(protocol), examples) as (prepared,):
        yield prepared


def _whole_template(prepared: PreparedJudge) -> tuple[str, dict[str, str]]:
    """Return the template with all optional slots, and the texts of the worked example."""
    form = prepared.forms.forms[0]
    return form.templates["+".join(prepared.spec.protocol.optional)], form.constants


def _compiled(prepared: PreparedJudge) -> Compiled:
    text, constants = _whole_template(prepared)
    return compile_template(text, prepared.judge.encoder, constants)


def _filled(prepared: PreparedJudge) -> str:
    text, constants = _whole_template(prepared)
    texts = SAMPLE | constants
    return SLOT.sub(lambda mark: texts[mark[1]], text)
