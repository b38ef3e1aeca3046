"""`judge inspect`: what a judge is, how it spells the labels, what it is shown."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from steelyard.core.config import RunConfig
from steelyard.judge import open_judge
from steelyard.prompts.forms import compile_template, make_form
from steelyard.prompts.judging import answer_of, form_fingerprint
from steelyard.protocols import get_protocol
from steelyard.scoring.same_run import judge_specs


def inspect_judge(name: str, revision: str | None, protocol: str) -> dict[str, Any]:
    """Open a judge and describe it; no engine is started.

    Returns:
        card, context length, fingerprint under the default policies, labels with their token
        variants, the rendered template of a pair without optional texts, and its tokens.
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
