"""What is known of a judge without opening it: its card, and how its answers are read."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import accumulate


@dataclass(frozen=True, slots=True)
class JudgeCard:
    """What a judge is: everything that can change a log-probability, apart from the protocol.

    All of it enters the judge fingerprint; settings that cannot change a read (memory, batch
    sizes) are left out.
    """

    name: str  # what the user asked for and verdicts show
    model: str  # hub name, folder or script
    revision: str  # commit or "local"
    weights: str  # digest of the weights' files
    tokenizer: str  # digest of the tokenizer
    dtype: str
    quantization: str | None = None
    extra: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LabelVariant:
    """One token that can open the answer with a label, such as ` A` for the label A."""

    token_id: int
    text: str


@dataclass(frozen=True, slots=True)
class LabelSet:
    """The labels of a protocol in the judge's vocabulary.

    `variants[i]` are the single-token forms of `names[i]`, at least one, disjoint between labels.
    """

    names: tuple[str, ...]
    variants: tuple[tuple[LabelVariant, ...], ...]

    @property
    def token_ids(self) -> list[int]:
        """All variants' token ids, label after label."""
        return [variant.token_id for label in self.variants for variant in label]

    @property
    def starts(self) -> list[int]:
        """Where each label's variants begin in `token_ids`."""
        return [0, *accumulate(map(len, self.variants))][:-1]


@dataclass(frozen=True, slots=True)
class Answer:
    """How a judge's answer to a prompt is read, by its kind.

    "label": the labels at the answer's first position. "reasons": the judge writes, and the labels
    are read where its text gives the verdict. "scores", "probability": it writes, and the numbers
    are in the text.
    """

    labels: LabelSet  # read by log-probability; none for texts that hold numbers
    kind: str = "label"
    max_tokens: int = 1  # that the judge writes
    temperature: float = 0.0  # 0: the likeliest text
    ends: tuple[int, ...] = ()  # token ids that end what it writes
    verdict: tuple[int, ...] = ()  # ids that open the verdict where the text names none
    low: float = 0.0  # the lowest score
    high: float = 0.0  # the highest score
    tag: str = ""  # around the probability

    @property
    def writes(self) -> bool:
        """Whether the judge writes a text."""
        return self.kind != "label"

    @property
    def room(self) -> int:
        """Tokens that have to fit into the judge's context after a prompt."""
        return self.max_tokens + (len(self.verdict) + 1 if self.kind == "reasons" else 0)
