"""`judge inspect`: a judge's identity, its label tokens and its prompt template."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from steelyard.cli.tables import format_fields, format_quote
from steelyard.core.config import RunConfig
from steelyard.judge import open_judge
from steelyard.prompts.forms import compile_template, make_form
from steelyard.prompts.judging import answer_of, form_fingerprint
from steelyard.protocols import get_protocol
from steelyard.scoring.same_run import judge_specs


def inspect_judge(name: str, revision: str | None, protocol: str) -> dict[str, Any]:
    """Open a judge and describe it; no engine is started.

    Returns:
        Card, context length, fingerprint with the default options, labels with their token
        variants, the prompt template without optional texts, and its number of tokens.
    """
    (spec,) = judge_specs(RunConfig(judge=(name,), revision=revision).validate())
    judge = open_judge(spec)
    chosen = get_protocol(protocol)
    form, answer = make_form(chosen, judge.encoder), answer_of(judge, chosen)
    labels, plain = answer.labels, form.templates[""]
    return {
        "judge": asdict(judge.card),
        "context_length": judge.context_length,
        "fingerprint": form_fingerprint(judge, answer, form, truncate=False),
        "protocol": chosen.name,
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
