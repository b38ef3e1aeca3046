"""Judges and protocols as `judge inspect` and `protocol list`, `show` and `check` describe them."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import zip_longest
from pathlib import Path
from typing import Any

from steelyard.cli.doctor import BAD, GOOD, NOTE, Finding, make_finding
from steelyard.cli.tables import format_fields, format_quote
from steelyard.core.config import LARGEST, RunConfig, describe_unreadable
from steelyard.core.files import read_file
from steelyard.core.judges import LabelVariant
from steelyard.errors import SteelyardError, UsageError
from steelyard.judge.base import Encoder
from steelyard.plan.spec import JudgingSpec
from steelyard.prompts.forms import Compiled, compile_template
from steelyard.prompts.prepared import PreparedJudge, open_judges
from steelyard.protocols import get_protocol, protocol_names
from steelyard.protocols.files import load_protocol
from steelyard.protocols.ordinary import convert, read_prompt
from steelyard.protocols.protocol import SLOT, Example, Protocol
from steelyard.protocols.rules import RULES
from steelyard.store.durable import check_new, write_text

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
# How often slots change from prompt to prompt: what changes least should come first.
_RANKS = {
    **dict.fromkeys(("system", "conversation", "instruction", "reference"), 0),
    **dict.fromkeys(("first_turns", "response_turns", "first", "response"), 1),
    **dict.fromkeys(("second_turns", "second"), 2),
    "criterion": 3,
}
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
        judge, forms = prepared.judge, prepared.forms
        template = forms.forms[0].templates[""]
        return {
            "judge": asdict(judge.card),
            "context_length": judge.context_length,
            "fingerprint": forms.fingerprints[0],
            "protocol": spec.name,
            "labels": {
                label: [asdict(form) for form in variants] for label, variants in _labels(prepared)
            },
            "control_tokens": len(judge.encoder.control_ids),
            "tokenised_by": judge.encoder.engine,
            "template": template,
            "template_tokens": compile_template(template, judge.encoder).fixed,
        }


def format_judge(content: dict[str, Any]) -> str:
    """Return what `inspect_judge` found out, as text."""
    card = content["judge"]
    tokenizer = "{card[tokenizer]}, {control_tokens} control tokens, run by {tokenised_by}"
    fields = [
        ("judge", card["name"]),
        ("model", f"{card['model']}, revision {card['revision']}"),
        ("weights", card["weights"]),
        ("tokenizer", tokenizer.format(card=card, **content)),
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
    names = ("name", "about", "source", "shows", "answer")
    fields = {name: getattr(protocol, name) for name in names}
    return {**fields, "combine": RULES[protocol.combine].about}


def format_protocols(protocols: list[dict[str, Any]]) -> str:
    """Return names and purposes, one protocol per line."""
    width = max(len(protocol["name"]) for protocol in protocols)
    return "\n".join(f"{protocol['name']:<{width}}  {protocol['about']}" for protocol in protocols)


def show_protocol(name: str, judge_name: str) -> dict[str, Any]:
    """Describe a protocol for a judge: an example prompt, and its segments with their tokens."""
    with _opened(name, judge_name) as prepared:
        protocol = prepared.spec.protocol
        template, constants, compiled = _compile(prepared)
        texts = SAMPLE | constants
        return {
            **_summarize(protocol),
            "file": protocol.place,
            "judge": prepared.judge.card.name,
            "labels": {label: [x.text for x in forms] for label, forms in _labels(prepared)},
            "max_tokens": prepared.answer.max_tokens,
            "samples": protocol.samples,
            "tie_band": protocol.tie_band,
            "template_tokens": compiled.fixed,
            "segments": list(_segments(compiled, prepared.judge.encoder)),
            "example": SLOT.sub(lambda slot: texts[slot[1]], template),
        }


def _segments(compiled: Compiled, encoder: Encoder) -> Iterator[dict[str, Any]]:
    for ids, slot in zip_longest(compiled.pieces, compiled.slots):
        text = encoder.decode(ids.tolist())
        yield {"segment": "template", "tokens": len(ids), "text": text}
        if slot is not None:
            tokens = len(encoder.encode_data([SAMPLE[slot]])[0])
            yield {"segment": slot, "tokens": tokens, "text": SAMPLE[slot]}


def format_protocol(content: dict[str, Any]) -> str:
    """Return what `show_protocol` describes, as text."""
    labels = ", ".join(content["labels"])
    answer = content["answer"] + (f" {labels}" if labels else "")
    segments = f"as {content['judge']} sees them, {content['template_tokens']} tokens without data"
    fields = [
        ("protocol", f"{content['name']}: {content['about']}"),
        ("source", content["source"]),
        ("file", content["file"]),
        ("shows", f"a {content['shows']}; answer: {answer}"),
        ("verdict", content["combine"]),
        ("segments", segments),
    ]
    lines = [format_fields(fields)]
    for segment in content["segments"]:
        start = " ".join(segment["text"].split())[:60]
        lines.append(f"  {segment['tokens']:>5}  {segment['segment']:<14} {start}")
    return "\n".join([*lines, "example prompt:", format_quote(content["example"])])


def new_protocol(name: str, template: Path, prompt: str | None) -> dict[str, Any]:
    """Write a protocol file that is made of a prompt in ordinary words.

    Returns:
        `file`, and `changes` with their reasons.

    Raises:
        UsageError: the prompt cannot be converted, or the file is there already.
    """
    file = Path(name if name.endswith(".toml") else f"{name}.toml")
    check_new(file)
    if file.stem in protocol_names():
        raise UsageError(f"{file.stem} is a built-in protocol", remedy="choose another name")
    try:
        text = read_file(template, LARGEST).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        cause = f"the template cannot be read: {describe_unreadable(error)}"
        raise UsageError(cause, place=str(template), remedy="name a text in UTF-8") from None
    place = str(template)
    converted = convert(read_prompt(text, prompt or file.stem, place), place)
    write_text(file, converted.to_toml())
    try:
        load_protocol(file)
    except SteelyardError:
        file.unlink()
        raise
    return {"file": str(file), "changes": converted.changes}


def format_new_protocol(content: dict[str, Any]) -> str:
    """Return what `new_protocol` did, as text."""
    changes = "\n".join(f"- {change}" for change in content["changes"])
    file = shlex.quote(content["file"])
    return (
        f"wrote {content['file']}\n{changes}\n"
        f"check it:  steelyard protocol check {file} --judge JUDGE\n"
        f"use it:    steelyard score PAIRS --run RUN --judge JUDGE --protocol {file}"
    )


def check_protocol(name: str, judge_name: str) -> list[Finding]:
    """Check a protocol; a file that cannot be a protocol at all gives one bad finding."""
    try:
        with _opened(name, judge_name) as prepared:
            *_, compiled = _compile(prepared)
    except SteelyardError as error:
        return [make_finding("protocol", BAD, error.cause, error.remedy)]
    findings = [make_finding("protocol", GOOD, f"{prepared.spec.name}: shows each slot once")]
    for label, variants in _labels(prepared):
        forms = ", ".join(repr(variant.text) for variant in variants)
        findings.append(make_finding("label", GOOD, f"{label}: single tokens: {forms}"))
    return findings + _check_sharing(compiled)


def _check_sharing(compiled: Compiled) -> list[Finding]:
    """Check whether neighbouring prompts share as long a prefix as they can."""
    findings: list[Finding] = []
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


def _compile(prepared: PreparedJudge) -> tuple[str, dict[str, str], Compiled]:
    """Return the template with all optional slots, its example's texts, and both compiled."""
    form = prepared.forms.forms[0]
    template = form.templates["+".join(prepared.spec.protocol.optional)]
    encoder = prepared.judge.encoder
    return template, form.constants, compile_template(template, encoder, form.constants)


def _labels(prepared: PreparedJudge) -> Iterable[tuple[str, Sequence[LabelVariant]]]:
    labels = prepared.answer.labels
    return zip(labels.names, labels.variants, strict=True)
