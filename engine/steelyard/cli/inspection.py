"""Judges and protocols as `judge inspect` and `protocol list`, `show` and `check` describe them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import zip_longest
from typing import Any

from steelyard.cli.doctor import BAD, GOOD, NOTE, Finding, make_finding
from steelyard.cli.tables import format_fields, format_quote
from steelyard.core.config import RunConfig
from steelyard.errors import SteelyardError
from steelyard.plan.spec import JudgingSpec
from steelyard.prompts.forms import Compiled, compile_template
from steelyard.prompts.prepared import PreparedJudge, open_judges
from steelyard.protocols import get_protocol, protocol_names
from steelyard.protocols.protocol import SLOT, Example, Protocol
from steelyard.protocols.rules import RULES

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
_EXAMPLE = {"instruction": "How much is 2 + 2?", "response_a": "4", "response_b": "5"}
# Slots in the order in which they change from prompt to prompt: what changes least comes first.
_STEADY = (
    ("system", "conversation", "instruction", "reference"),
    ("first_turns", "response_turns", "first", "response"),
    ("second_turns", "second"),
    ("criterion",),
)
_RANKS = {name: rank for rank, names in enumerate(_STEADY) for name in names}
LONG_TAIL = 64  # tokens after the last text, which are computed for every prompt


def inspect_judge(name: str, revision: str | None, protocol: str) -> dict[str, Any]:
    """Open a judge and describe it; no engine is started.

    Returns:
        Card, context length, fingerprint with the default options, labels with their token
        variants, the prompt template without optional texts, and its number of tokens.
    """
    config = RunConfig(judge=(name,), revision=revision).validate()
    spec = JudgingSpec.plain(get_protocol(protocol))
    with open_judges(config, spec) as (prepared,):
        return _describe_judge(prepared)


def _describe_judge(prepared: PreparedJudge) -> dict[str, Any]:
    judge, forms = prepared.judge, prepared.forms
    labels, plain = prepared.answer.labels, forms.forms[0].templates[""]
    return {
        "judge": asdict(judge.card),
        "context_length": judge.context_length,
        "fingerprint": forms.fingerprints[0],
        "protocol": prepared.spec.name,
        "labels": {
            label: [asdict(variant) for variant in variants]
            for label, variants in zip(labels.names, labels.variants, strict=True)
        },
        "control_tokens": len(judge.encoder.control_ids),
        "tokenised_by": judge.encoder.engine,
        "template": plain,
        "template_tokens": compile_template(plain, judge.encoder).fixed,
    }


def format_judge(content: dict[str, Any]) -> str:
    """Return what `inspect_judge` found out, as text."""
    card = content["judge"]
    fields = [
        ("judge", card["name"]),
        ("model", f"{card['model']}, revision {card['revision']}"),
        ("weights", card["weights"]),
        (
            "tokenizer",
            f"{card['tokenizer']}, {content['control_tokens']} control tokens, run by"
            f" {content['tokenised_by']}",
        ),
        ("dtype", f"{card['dtype']}, quantization {card['quantization'] or 'none'}"),
        ("context", f"{content['context_length']:,} tokens"),
        ("fingerprint", f"{content['fingerprint']} (protocol {content['protocol']})"),
    ]
    for label, variants in content["labels"].items():
        tokens = ", ".join(f"{variant['text']!r} = {variant['token_id']}" for variant in variants)
        fields.append((f"label {label}", tokens))
    return (
        f"{format_fields(fields)}\n"
        f"prompt template ({content['template_tokens']} tokens without data):\n"
        f"{format_quote(content['template'])}"
    )


def list_protocols() -> list[dict[str, Any]]:
    """Describe the built-in protocols: purpose, labels, prompts per pair, how reads combine."""
    return [
        {
            **_summarize(protocol),
            "labels": list(protocol.labels),
            "prompts_a_pair": f"{2 * protocol.samples}"
            + (" x criteria" if "criterion" in protocol.names else ""),
        }
        for protocol in map(get_protocol, protocol_names())
    ]


def _summarize(protocol: Protocol) -> dict[str, Any]:
    return {
        "name": protocol.name,
        "about": protocol.about,
        "source": protocol.source,
        "shows": protocol.shows,
        "answer": protocol.answer,
        "combine": RULES[protocol.combine].about,
    }


def format_protocols(protocols: list[dict[str, Any]]) -> str:
    """Return names and purposes, one protocol per line."""
    width = max(len(protocol["name"]) for protocol in protocols)
    return "\n".join(f"{protocol['name']:<{width}}  {protocol['about']}" for protocol in protocols)


def show_protocol(name: str, judge_name: str) -> dict[str, Any]:
    """Describe a protocol for a judge: an example prompt, and its segments with their tokens."""
    with _opened(name, judge_name) as prepared:
        return _describe(prepared)


def _describe(prepared: PreparedJudge) -> dict[str, Any]:
    protocol, judge, answer = prepared.spec.protocol, prepared.judge, prepared.answer
    compiled = _compiled(prepared)
    segments = []
    for ids, slot in zip_longest(compiled.pieces, compiled.slots):
        text = judge.encoder.decode(ids.tolist())
        segments.append({"segment": "template", "tokens": len(ids), "text": text})
        if slot is not None:
            tokens = len(judge.encoder.encode_data([SAMPLE[slot]])[0])
            segments.append({"segment": slot, "tokens": tokens, "text": SAMPLE[slot]})
    return {
        **_summarize(protocol),
        "file": protocol.place,
        "judge": judge.card.name,
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
        with _opened(name, judge_name) as prepared:
            compiled = _compiled(prepared)
    except SteelyardError as error:
        return [make_finding("protocol", BAD, error.cause, error.remedy)]
    findings = [make_finding("protocol", GOOD, f"{prepared.spec.name}: shows each slot once")]
    labels = prepared.answer.labels
    for label, variants in zip(labels.names, labels.variants, strict=True):
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


@contextmanager
def _opened(name: str, judge_name: str) -> Iterator[PreparedJudge]:
    """Open a judge that is asked by a protocol, with one worked example if it shows any."""
    protocol = get_protocol(name)
    verdict = protocol.labels[0] if protocol.labels else "A"
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
    return SLOT.sub(lambda slot: texts[slot[1]], text)
