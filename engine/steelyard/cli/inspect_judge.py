"""`judge inspect`: a judge's identity, its label tokens and its prompt template."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from steelyard.cli.tables import format_fields, format_quote
from steelyard.core.config import RunConfig
from steelyard.plan.spec import JudgingSpec
from steelyard.prompts.forms import compile_template
from steelyard.prompts.prepared import PreparedJudge, open_judges
from steelyard.protocols import get_protocol


def inspect_judge(name: str, revision: str | None, protocol: str) -> dict[str, Any]:
    """Open a judge and describe it; no engine is started.

    Returns:
        Card, context length, fingerprint with the default options, labels with their token
        variants, the prompt template without optional texts, and its number of tokens.
    """
    config = RunConfig(judge=(name,), revision=revision).validate()
    spec = JudgingSpec.plain(get_protocol(protocol))
    with open_judges(config, spec) as (prepared,):
        return _describe(prepared)


def _describe(prepared: PreparedJudge) -> dict[str, Any]:
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
