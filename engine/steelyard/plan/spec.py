"""What is asked of each pair: as a config says it, in a judge's words, and as what decides keys.

JudgingSpec (protocols and axes) -> JudgeForms (rendered for one judge) -> KeySpec (hashed). The
first two are in run.json, so that a run goes on with what it began with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import msgspec

from steelyard.core.judges import Answer
from steelyard.input import REQUIRED
from steelyard.protocols.axes import PromptAxes
from steelyard.protocols.protocol import IMAGES, SLOT, Protocol, slot
from steelyard.protocols.rules import RULES

_Fingerprint = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]


class JudgingSpec(msgspec.Struct, frozen=True):
    """What is asked about each pair, apart from the judges."""

    protocols: tuple[Protocol, ...]  # variants of the prompt; the first names rule and ties
    axes: PromptAxes = msgspec.field(name="questions")  # in what a pair's prompts differ
    categories: tuple[str, ...]  # those with separate worked examples

    def __post_init__(self) -> None:
        """Refuse a record whose parts contradict each other: verdicts are computed from them."""
        if not self.protocols:
            raise ValueError("there is no protocol")
        if self.axes.variants != len(self.protocols):
            raise ValueError("`questions.variants` is not the number of protocols")
        for protocol in self.protocols:
            rule = RULES.get(protocol.combine)
            if rule is None:
                raise ValueError(f"no rule is called {protocol.combine!r}")
            if protocol.shows != self.axes.shows or protocol.shows not in rule.shows:
                raise ValueError(f"a prompt cannot show a {protocol.shows} here")
            if rule.labels is not None and len(protocol.labels) != rule.labels:
                raise ValueError(f"the rule {protocol.combine} takes {rule.labels} labels")
            if protocol.combine == "scale" and len(protocol.scale) != len(protocol.labels):
                raise ValueError("`scale` and `labels` do not match")

    @classmethod
    def plain(cls, protocol: Protocol) -> JudgingSpec:
        """Return a spec of one protocol, without criteria, categories and further judges."""
        return cls((protocol,), PromptAxes(protocol.shows, samples=protocol.samples), ())

    @property
    def protocol(self) -> Protocol:
        """What all variants share."""
        return self.protocols[0]

    @property
    def name(self) -> str:
        """Names of the protocols, for people."""
        return " + ".join(protocol.name for protocol in self.protocols)

    @property
    def required_roles(self) -> tuple[str, ...]:
        """Roles that every row has to fill."""
        roles = REQUIRED if self.axes.shows == "pair" else REQUIRED[:2]
        return (*roles, "criteria") if self.axes.row_criteria else roles

    @property
    def special_roles(self) -> tuple[str, ...]:
        """Roles that it can use in addition to the usual ones."""
        names = frozenset().union(*(protocol.names for protocol in self.protocols))
        turns = {"first_turns", "second_turns", "response_turns"} & names
        roles = ("turns_a", "turns_b") if turns else ()
        roles = (*roles, "criteria") if self.axes.row_criteria else roles
        return (*roles, "category") if self.categories else roles


@dataclass(frozen=True, slots=True)
class Form:
    """One prompt text of a protocol in a judge's chat format.

    Attributes:
        templates: from the optional slots present, sorted and joined by `+`, to the text with slot
            marks.
        constants: texts of slots that are the same in every prompt: those of worked examples. They
            are data, as a pair's texts are.
        pictured: as `templates`, for rows with images, with a mark where these come.
        blocks: what replaces the mark for 1, 2, ... images; template text.
    """

    templates: dict[str, str]
    constants: dict[str, str]
    pictured: dict[str, str] = field(default_factory=dict)
    blocks: tuple[str, ...] = ()

    @property
    def fixed_bytes(self) -> int:
        """UTF-8 bytes of the longest text, with its constants and without images."""
        constant = sum(len(text.encode()) for text in self.constants.values())
        return constant + max(len(text.encode()) for text in self.templates.values())

    def template(self, filled: str, images: int) -> str:
        """Return the text for rows with these optional texts and this many images."""
        if not images:
            return self.templates[filled]
        return self.pictured[filled].replace(slot(IMAGES), self.blocks[images - 1])


@dataclass(frozen=True, slots=True)
class JudgeForms:
    """A judging spec in one judge's words.

    The fingerprints of the forms, 32 hex digits each, are hashes of all that can change a read.
    """

    answer: Answer  # how its answers are read
    forms: tuple[Form, ...]  # per variant the general form, then one per category
    fingerprints: tuple[_Fingerprint, ...]
    pictured: tuple[
        _Fingerprint, ...
    ] = ()  # fingerprints for rows with images; empty where none has any


@dataclass(frozen=True, slots=True)
class KeySpec:
    """What decides the prompts of a pair, and their keys."""

    axes: PromptAxes
    forms: tuple[tuple[bytes, ...], ...]  # per judge the fingerprints in JudgeForms, 16 bytes each
    categories: tuple[str, ...]  # those with separate forms
    shown: frozenset[str]  # the slots that any form shows
    pictured: tuple[tuple[bytes, ...], ...] = ()  # as `forms`, for pairs with images
    template_bytes: int = 0  # UTF-8 of the longest prompt without a pair's texts

    @classmethod
    def of(cls, spec: JudgingSpec, judges: Sequence[JudgeForms]) -> KeySpec:
        """Return what decides the keys of a run with these judges."""
        forms = [form for judge in judges for form in judge.forms]
        texts = [text for form in forms for text in form.templates.values()]
        slots = {name for text in texts for name in SLOT.findall(text)}
        constants = {name for form in forms for name in form.constants}
        return cls(
            axes=spec.axes,
            forms=tuple(_digests(judge.fingerprints) for judge in judges),
            categories=spec.categories,
            shown=frozenset(slots - constants),
            pictured=tuple(_digests(judge.pictured) for judge in judges if judge.pictured),
            template_bytes=max(form.fixed_bytes for form in forms),
        )


def _digests(fingerprints: Sequence[str]) -> tuple[bytes, ...]:
    return tuple(map(bytes.fromhex, fingerprints))
