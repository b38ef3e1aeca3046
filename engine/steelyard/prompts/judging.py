"""What a config asks: its protocols, criteria and worked examples, read and checked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from steelyard.core.config import RunConfig
from steelyard.errors import UsageError
from steelyard.plan.spec import JudgingSpec
from steelyard.protocols import get_protocol
from steelyard.protocols.axes import PromptAxes
from steelyard.protocols.files import load_criteria, load_examples
from steelyard.protocols.protocol import Example, Protocol

# What all variants of a prompt have to have in common.
_SHARED = (
    *("shows", "answer", "combine", "labels", "scale", "tag", "range", "verdict"),
    *("max_tokens", "samples", "temperature"),
)


def resolve_spec(config: RunConfig) -> tuple[JudgingSpec, tuple[Example, ...]]:
    """Read what a config asks, and the worked examples.

    Raises:
        UsageError: an unknown protocol, variants that do not fit together, or a file of criteria
            or examples that is wrong, missing or not needed.
    """
    protocols = tuple(_adjusted(get_protocol(name), config) for name in config.protocol)
    first = protocols[0]
    if len({protocol.name for protocol in protocols}) < len(protocols):
        raise UsageError(
            "two protocols have the same name", remedy="rename a file: verdicts carry the names"
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
    categories = sorted({example.category for example in examples if example.category is not None})
    return JudgingSpec(protocols, axes, tuple(categories)), examples


def _check_use(file: str | None, used: bool, protocol: Protocol, name: str, why: str) -> None:
    if file is not None and not used:
        raise UsageError(
            f"--{name} has no effect: the protocol {protocol.name} {why}",
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
    if config.tie_band is None:
        return protocol
    if config.tie_band >= protocol.widest_tie:
        raise UsageError(
            f"`tie_band` is {config.tie_band:g}, which makes a tie of every pair under"
            f" {protocol.name}",
            remedy=f"give a number from 0, below {protocol.widest_tie:g}",
        )
    return replace(protocol, tie_band=config.tie_band)
