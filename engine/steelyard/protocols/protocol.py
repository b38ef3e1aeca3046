"""What a judging protocol is: a template, what its prompts show, and how answers are read.

A new protocol is a short TOML file in `builtin/`, or a user's own; `files.py` reads it, and
`rules.py` defines how the reads of a pair become a verdict.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal

from msgspec import Meta

from steelyard.protocols import sandbox

# Marks that stand for data while a template is rendered: a template never sees data itself.
SLOT = re.compile(r"\[\[slot:([A-Za-z_0-9]+)\]\]")

# The slot of the images, before the text of the user message; no template names it.
IMAGES = "images"

# The text columns of each slot, for prompts that show response_a first (or alone), or response_b.
SLOT_COLUMNS: dict[str, tuple[str, str]] = {
    "instruction": ("instruction", "instruction"),
    "system": ("system", "system"),
    "conversation": ("conversation", "conversation"),
    "reference": ("reference", "reference"),
    "first": ("response_a", "response_b"),
    "second": ("response_b", "response_a"),
    "response": ("response_a", "response_b"),
    "first_turns": ("turns_a", "turns_b"),
    "second_turns": ("turns_b", "turns_a"),
    "response_turns": ("turns_a", "turns_b"),
    "criterion": ("criteria", "criteria"),
    IMAGES: ("images", "images"),
}
# Slots that a row may leave empty; the template asks for them with {% if ... %}.
OPTIONAL_SLOTS = (
    "conversation",
    "first_turns",
    "reference",
    "response_turns",
    "second_turns",
    "system",
)
# What the prompts of a pair show, by their order: both responses, or one of them.
ORDERS = {"pair": ("ab", "ba"), "response": ("a", "b")}
REQUIRED_SLOTS = {
    "pair": ("instruction", "first", "second"),
    "response": ("instruction", "response"),
}

# `{{ context }}` in a template stands for this.
CONTEXT = """\
{% if system %}
### System message given to the model
{{ system }}

{% endif %}
{% if conversation %}
### Conversation so far
{{ conversation }}

{% endif %}
### Instruction
{{ instruction }}
{% if reference %}

### Reference answer
{{ reference }}
{% endif %}
"""


_LARGEST = 1e9
_Number = Annotated[float, Meta(ge=-_LARGEST, le=_LARGEST)]


def slot(name: str) -> str:
    """Return the mark of a slot in a template."""
    return f"[[slot:{name}]]"


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message; `content` may hold slot marks."""

    role: str  # system, user or assistant
    content: str
    images: int = 0  # shown before its text


@dataclass(frozen=True, slots=True)
class Example:
    """A worked example; rows of its category see it, or all rows if it has no category."""

    fields: Mapping[str, str]
    category: str | None = None


@dataclass(frozen=True)
class Protocol:
    """A way of judging; each field is a key of a protocol file (docs/protocols.md).

    run.json holds the fields in this order.
    """

    name: str  # what users call it
    about: str = ""  # description in one line
    source: str = ""  # who defined it
    shows: Literal["pair", "response"] = "pair"  # prompts in both orders, or one per response
    answer: str = "label"  # how it is read: a kind of `core.judges.Answer`
    combine: str = "preference"  # the rule in `rules.py` that turns reads into a verdict
    labels: tuple[str, ...] = ()  # the answer options, in the order that the rule expects
    scale: tuple[_Number, ...] = ()  # for `combine = "scale"`: the score of each label
    system: str = ""  # template of the system message; may be empty
    user: str = ""  # template of the user message
    prefix: str = ""  # text with which the judge's answer begins
    verdict: str = ""  # for reasons: opens the verdict where the judge's text has none
    tag: str = "probability"  # for probability: around the number
    range: tuple[_Number, _Number] = (1.0, 10.0)  # for scores: the lowest and the highest
    max_tokens: Annotated[int, Meta(ge=1)] = 512  # that the judge writes
    samples: Annotated[int, Meta(ge=1, le=100)] = 1  # how often each prompt is asked
    temperature: Annotated[float, Meta(ge=0, le=_LARGEST)] = 0.0  # 0: the likeliest text
    # Sides that differ by no more are a tie (`rules.winner`).
    tie_band: Annotated[float, Meta(ge=0, le=_LARGEST)] = 0.0
    place: str = ""  # the file

    @cached_property
    def names(self) -> frozenset[str]:
        """The variables of its templates."""
        texts = (self.system, self.user)
        return frozenset().union(
            *(sandbox.names(_with_context(text), place=self.place) for text in texts)
        )

    @property
    def optional(self) -> tuple[str, ...]:
        """Slots that it shows where a row has them."""
        return tuple(name for name in OPTIONAL_SLOTS if name in self.names)

    @property
    def required(self) -> tuple[str, ...]:
        """Slots that each of its prompts fills."""
        more = ("criterion",) if "criterion" in self.names else ()
        return (*REQUIRED_SLOTS[self.shows], *more)

    @property
    def has_tie_label(self) -> bool:
        """Whether the judge can answer with a tie, so that a tie band has no effect."""
        return self.combine == "tie"

    @property
    def widest_tie(self) -> float:
        """The least tie band that would make a tie of every pair.

        One half where the band is a distance of the preference from 0.5; the width of the scale
        where it is a difference of scores.
        """
        match self.combine:
            case "scores":
                return self.range[1] - self.range[0]
            case "scale":
                return max(self.scale) - min(self.scale)
            case "rubric":
                return 1.0
        return 0.5

    @property
    def has_examples(self) -> bool:
        """Whether it shows worked examples."""
        return "examples" in self.names

    def messages(
        self,
        present: frozenset[str],
        examples: tuple[Mapping[str, str], ...] = (),
        images: int = 0,
    ) -> list[Message]:
        """Return the chat for rows that have the optional texts named in `present`.

        Args:
            present: some of `optional`.
            examples: marks of the worked examples' texts.
            images: before the user's text, which then begins with the mark of IMAGES.

        Raises:
            UsageError: a template is not Jinja, or holds what templates may not hold.
        """
        shown = (*self.required, *present)
        values: dict[str, sandbox.Value] = {name: slot(name) for name in shown}
        if self.has_examples:
            values["examples"] = examples
        chat = []
        for role, template in (("system", self.system), ("user", self.user)):
            text = sandbox.render(_with_context(template), values, place=self.place).strip()
            chat += [Message(role, text)] if text else []
        if images:
            chat[-1] = Message("user", slot(IMAGES) + chat[-1].content, images)
        return chat


def _with_context(template: str) -> str:
    return template.replace("{{ context }}\n", CONTEXT).replace("{{ context }}", CONTEXT)
