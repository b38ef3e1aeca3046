"""`protocol list`, `show` and `check`: protocols as a judge sees them, and how to improve them."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

from steelyard.cli.doctor import BAD, GOOD, NOTE, Finding, make_finding
from steelyard.cli.tables import format_fields, format_quote
from steelyard.core.config import RunConfig
from steelyard.errors import SteelyardError
from steelyard.judge import open_judge
from steelyard.judge.base import Judge
from steelyard.prompts.forms import Compiled, compile_template, make_form
from steelyard.prompts.judging import answer_of
from steelyard.protocols import get_protocol, protocol_names
from steelyard.protocols.protocol import SLOT, Example, Protocol
from steelyard.protocols.rules import RULES
from steelyard.scoring.same_run import judge_specs

# Texts in place of those of a real row.
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
LONG_TAIL = 64  # tokens after the last text, which are computed for every prompt


def list_protocols() -> list[dict[str, Any]]:
    """Describe the built-in protocols: purpose, labels, prompts per pair, how reads combine."""
    return [
        {
            "name": protocol.name,
            "about": protocol.about,
            "shows": protocol.shows,
            "answer": protocol.answer,
            "labels": list(protocol.labels),
            "prompts_a_pair": f"{2 * protocol.samples}"
            + (" x criteria" if "criterion" in protocol.names else ""),
            "combine": RULES[protocol.combine].about,
            "source": protocol.source,
        }
        for protocol in map(get_protocol, protocol_names())
    ]


def format_protocols(protocols: list[dict[str, Any]]) -> str:
    """Return names and purposes, one protocol per line."""
    width = max(len(protocol["name"]) for protocol in protocols)
    return "\n".join(f"{protocol['name']:<{width}}  {protocol['about']}" for protocol in protocols)


def show_protocol(name: str, judge_name: str) -> dict[str, Any]:
    """Describe a protocol for a judge: an example prompt, and its segments with their tokens."""
    protocol = get_protocol(name)
    judge = _open(judge_name)
    compiled = _compiled(protocol, judge)
    answer = answer_of(judge, protocol)
    segments = []
    for ids, slot in zip_longest(compiled.pieces, compiled.slots):
        text = judge.encoder.decode(ids.tolist())
        segments.append({"segment": "template", "tokens": len(ids), "text": text})
        if slot is not None:
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
        "example": _filled(protocol, judge),
    }


def format_protocol(content: dict[str, Any]) -> str:
    """Return what `show_protocol` describes, as text."""
    labels = ", ".join(content["labels"])
    answer = content["answer"] + (f" {labels}" if labels else "")
    fields = [
        ("protocol", f"{content['name']}: {content['about']}"),
        ("source", content["source"]),
        ("file", content["file"]),
        ("shows", f"a {content['shows']}; answer: {answer}"),
        ("verdict", content["combine"]),
        (
            "segments",
            f"as {content['judge']} sees them, {content['template_tokens']} tokens without data",
        ),
    ]
    lines = [format_fields(fields)]
    for segment in content["segments"]:
        start = " ".join(segment["text"].split())[:60]
        lines.append(f"  {segment['tokens']:>5}  {segment['segment']:<14} {start}")
    return "\n".join([*lines, "example prompt:", format_quote(content["example"])])


def check_protocol(name: str, judge_name: str) -> list[Finding]:
    """Check a protocol; a file that cannot be a protocol at all gives one bad finding."""
    try:
        protocol = get_protocol(name)
        judge = _open(judge_name)
        compiled = _compiled(protocol, judge)
        answer = answer_of(judge, protocol)
    except SteelyardError as error:
        return [make_finding("protocol", BAD, error.cause, error.remedy)]
    findings = [make_finding("protocol", GOOD, f"{protocol.name}: shows each slot once")]
    for label, variants in zip(answer.labels.names, answer.labels.variants, strict=True):
        forms = ", ".join(repr(variant.text) for variant in variants)
        findings.append(make_finding("label", GOOD, f"{label}: single tokens: {forms}"))
    return findings + _check_sharing(compiled)


def _check_sharing(compiled: Compiled) -> list[Finding]:
    """Check whether neighbouring prompts share as long a prefix as they can."""
    findings = []
    for index, slot in enumerate(compiled.slots):
        late = [other for other in compiled.slots[:index] if _RANKS[other] > _RANKS[slot]]
        if late:
            words = (
                f"{slot} comes after {late[0]}, which changes more often: {slot} is computed again"
                f" for every {late[0]}"
            )
            remedy = f"show {slot} before {late[0]}"
            findings.append(make_finding("sharing", NOTE, words, remedy))
    tail = len(compiled.pieces[-1])
    if tail > LONG_TAIL:
        words = f"the template has {tail} tokens after the last text, computed for every prompt"
        remedy = "move what does not depend on the texts to the front"
        findings.append(make_finding("tail", NOTE, words, remedy))
    if not findings:
        words = f"texts are in the best order, with {tail} tokens after the last"
        findings.append(make_finding("sharing", GOOD, words))
    return findings


def _open(name: str) -> Judge:
    (spec,) = judge_specs(RunConfig(judge=(name,)).validate())
    return open_judge(spec)


def _examples(protocol: Protocol) -> list[Example]:
    if not protocol.has_examples:
        return []
    verdict = protocol.labels[0] if protocol.labels else _EXAMPLE["verdict"]
    return [Example({**_EXAMPLE, "verdict": verdict})]


def _whole_template(protocol: Protocol, judge: Judge) -> tuple[str, dict[str, str]]:
    form = make_form(protocol, judge.encoder, _examples(protocol))
    return form.templates["+".join(protocol.optional)], form.constants


def _compiled(protocol: Protocol, judge: Judge) -> Compiled:
    text, constants = _whole_template(protocol, judge)
    return compile_template(text, judge.encoder, constants)


def _filled(protocol: Protocol, judge: Judge) -> str:
    text, constants = _whole_template(protocol, judge)
    texts = SAMPLE | constants
    return SLOT.sub(lambda slot: texts[slot[1]], text)
