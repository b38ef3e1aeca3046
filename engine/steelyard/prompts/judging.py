"""What a run asks: protocols, criteria and examples of a config, resolved; and for each judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from steelyard.core.config import RunConfig, fingerprint
from steelyard.core.images import IMAGE_RULE
from steelyard.core.judges import Answer, LabelSet
from steelyard.errors import UsageError, escape
from steelyard.judge.base import Judge
from steelyard.plan.spec import Form, JudgeForms, JudgingSpec
from steelyard.prompts.forms import SEGMENT_RULE, make_form
from steelyard.protocols import get_protocol
from steelyard.protocols.axes import PromptAxes
from steelyard.protocols.files import load_criteria, load_examples
from steelyard.protocols.protocol import Example, Protocol

# What all variants of a prompt have to have in common.
_SHARED = [
    "shows",
    "answer",
    "combine",
    "labels",
    "scale",
    "tag",
    "range",
    "max_tokens",
    "samples",
    "temperature",
    "verdict",
]


def resolve_spec(config: RunConfig) -> tuple[JudgingSpec, tuple[Example, ...]]:
    """What a config asks, and the worked examples.

    Raises:
        UsageError: an unknown protocol, variants that do not fit together, or a file of criteria
            or examples that is wrong, missing or of no use.
    """
    protocols = tuple(_adjusted(get_protocol(name), config) for name in config.protocol)
    first = protocols[0]
    if len({protocol.name for protocol in protocols}) < len(protocols):
        raise UsageError(
            "two protocols have the same name", remedy="rename a file: verdicts tell them by name"
        )
    for other in protocols[1:]:
        for name in _SHARED:
            if getattr(first, name) != getattr(other, name):
                raise UsageError(
                    f"{first.name} and {other.name} differ in `{name}`",
                    effect="their reads cannot be combined",
                    remedy="give variants of one prompt, or score into several runs",
                )
    criterion = any("criterion" in protocol.names for protocol in protocols)
    _check_use(config.criteria, criterion, first, "criteria", "shows no {{ criterion }}")
    shown = any(protocol.has_examples for protocol in protocols)
    _check_use(config.examples, shown, first, "examples", "shows no examples")
    if shown and config.examples is None:
        raise UsageError(
            f"the protocol {first.name} needs worked examples",
            remedy="name their file: --examples FILE (docs/protocols.md)",
        )
    examples = load_examples(Path(config.examples), first.labels) if config.examples else ()
    axes = PromptAxes(
        shows=first.shows,
        judges=len(config.judge),
        variants=len(protocols),
        samples=first.samples,
        criteria=load_criteria(Path(config.criteria)) if config.criteria else (),
        row_criteria=criterion and config.criteria is None,
    )
    categories = sorted({one.category for one in examples if one.category is not None})
    return JudgingSpec(protocols, axes, tuple(categories)), examples


def _check_use(file: str | None, used: bool, protocol: Protocol, name: str, why: str) -> None:
    if file is not None and not used:
        raise UsageError(
            f"--{name} is of no use: the protocol {protocol.name} {why}",
            remedy=f"leave it out, or choose a protocol that shows {name}",
        )


def _adjusted(protocol: Protocol, config: RunConfig) -> Protocol:
    if config.samples:
        if protocol.answer == "label" or protocol.temperature == 0:
            raise UsageError(
                f"samples of {protocol.name} cannot differ",
                remedy="samples need a protocol that writes at a temperature above 0",
            )
        protocol = replace(protocol, samples=config.samples)
    if config.tie_band is not None and protocol.has_tie_label:
        raise UsageError(
            f"`tie_band` has no effect on {protocol.name}, whose judge has a label for a tie",
            remedy="leave it out, or choose a protocol without that label",
        )
    return protocol if config.tie_band is None else replace(protocol, tie_band=config.tie_band)


def judge_forms(
    judge: Judge,
    spec: JudgingSpec,
    examples: Sequence[Example],
    *,
    truncate: bool,
    images: str | None = None,
) -> JudgeForms:
    """The questions for one judge.

    Args:
        judge: opened.
        spec: what is asked.
        examples: of all categories.
        truncate: whether long texts are cut.
        images: the input's column of images, if there is one.

    Raises:
        UsageError: a label is no single token of it, or it takes no images.
        JudgeUnavailable: its chat template loses a part of the prompt.
    """
    if images is not None and judge.images is None:
        raise UsageError(
            f"the column {escape(images)!r} holds images, and {judge.card.name} takes text only",
            effect="nothing was read",
            remedy="choose a vision-language judge, or judge by the texts alone: --map images=",
        )
    forms = []
    for protocol in spec.protocols:
        for category in (None, *spec.categories):
            own = [one for one in examples if one.category == category]
            fitting = own or [one for one in examples if one.category is None]
            form = make_form(protocol, judge.encoder, fitting, images=images is not None)
            forms.append(form)
    return fingerprinted(judge, spec, tuple(forms), truncate=truncate)


def fingerprinted(
    judge: Judge, spec: JudgingSpec, forms: tuple[Form, ...], *, truncate: bool
) -> JudgeForms:
    """Return these forms with how the judge's answers are read, and the fingerprints of all."""
    answer = answer_of(judge, spec.protocol)
    prints = [form_fingerprint(judge, answer, form, truncate=truncate) for form in forms]
    pictured = [
        fingerprint(
            {
                "form": plain,
                "templates": form.pictured,
                "blocks": list(form.blocks),
                "judge": judge.images,
                "rule": IMAGE_RULE,
            }
        )
        for form, plain in zip(forms, prints, strict=True)
        if form.pictured
    ]
    return JudgeForms(answer, forms, tuple(prints), tuple(pictured))


def form_fingerprint(judge: Judge, answer: Answer, form: Form, *, truncate: bool) -> str:
    """Hash of all that can change a read of a prompt of texts in this form, 32 hex digits."""
    # Where the files came from changes nothing: the digests say what they are.
    card = {
        key: value
        for key, value in asdict(judge.card).items()
        if key not in {"name", "model", "revision"}
    }
    return fingerprint(
        {
            "judge": card,
            "answer": asdict(answer),
            "form": {"templates": form.templates, "constants": form.constants},
            "context": judge.context_length if truncate else None,
            "segments": SEGMENT_RULE,
        }
    )


def answer_of(judge: Judge, protocol: Protocol) -> Answer:
    """How a judge's answers are read.

    Raises:
        UsageError: a label is no single token of it.
    """
    encoder = judge.encoder
    variants = tuple(encoder.label_variants(name) for name in protocol.labels)
    labels = LabelSet(protocol.labels, variants)
    if protocol.answer == "label":
        return Answer(labels)
    verdict = encoder.encode_template(protocol.verdict, first=False) if protocol.verdict else []
    return Answer(
        labels,
        kind=protocol.answer,
        max_tokens=protocol.max_tokens,
        temperature=protocol.temperature,
        ends=tuple(encoder.ends),
        verdict=tuple(verdict),
        low=protocol.range[0],
        high=protocol.range[1],
        tag=protocol.tag,
    )
