"""`judge inspect`: what a judge is, how it spells the labels, what it is shown."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from steelyard.core.config import RunConfig
from steelyard.plan.spec import JudgingSpec
from steelyard.prompts.forms import compile_template
from steelyard.prompts.prepared import PreparedJudge, open_judges
from steelyard.protocols import get_protocol


def inspect_judge(name: str, revision: str | None, protocol: str) -> dict[str, Any]:
    """Open a judge and describe it; no engine is started.

    Returns:
        card, context length, fingerprint under the default policies, labels with their token
        variants, the rendered template of a pair without optional texts, and its tokens.
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
    """The same for people."""
    card = content["judge"]
    lines = [
        f"judge:       {card['name']}",
        f"model:       {card['model']}, revision {card['revision']}",
        f"weights:     {card['weights']}",
        f"tokenizer:   {card['tokenizer']}, {content['control_tokens']} control tokens,"
        f" run by {content['tokenised_by']}",
        f"dtype:       {card['dtype']}, quantisation {card['quantization'] or 'none'}",
        f"context:     {content['context_length']:,} tokens",
        f"fingerprint: {content['fingerprint']} (protocol {content['protocol']})",
    ]
    for label, variants in content["labels"].items():
        shown = ", ".join(f"{variant['text']!r} = {variant['token_id']}" for variant in variants)
        lines.append(f"label {label}:     {shown}")
    lines.append(f"template ({content['template_tokens']} tokens without data):")
    lines += [f"  | {line}" for line in content["template"].split("\n")]
    return "\n".join(lines)
