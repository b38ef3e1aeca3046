"""What a judge promises. Everything above this line of the program is the same for all judges.

A judge has two lives. Opened (`open_judge`), it knows its files: card, encoder, context length;
that takes seconds and no GPU. Started, it has an engine and reads prompts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from steelyard.core.batches import PromptBatch, ReadBatch, TokenRows, Workload
from steelyard.core.judges import Answer, JudgeCard, LabelVariant
from steelyard.core.work import CacheShape, EngineReport
from steelyard.protocols.protocol import Message

# What a source of batches may yield to say that nothing is ready yet.
NOTHING_READY = PromptBatch(
    bucket=-1,
    keys=[],
    rows=TokenRows.of([]),
    truncated=np.zeros(0, dtype=np.bool_),
)

EngineSetting = str | int | float | bool


@dataclass(frozen=True, slots=True)
class JudgeSpec:
    """What it takes to open a judge, in this process or in another; plain data.

    `name` is what the user sees and verdicts carry; `model` a folder or a hub name; `engine`
    overrides the settings that are chosen for the machine, under vLLM's own names.
    """

    name: str
    model: str
    revision: str | None = None
    engine: dict[str, EngineSetting] = field(default_factory=dict)
    replicas: int = 1  # processes with one GPU each


@dataclass(slots=True)
class EngineClock:
    """Seconds between a judge's first prompt and its last read, and of those the engine's work."""

    total: float = 0.0
    busy: float = 0.0
    _mark: float | None = None

    def ran(self, began: float, ended: float, *, since_last: bool = False) -> None:
        """Note a step of the engine.

        Args:
            began: of the step.
            ended: of the step.
            since_last: the engine has worked since the end of the step before, too.
        """
        mark = began if self._mark is None else self._mark
        self.total += ended - mark
        self.busy += ended - (mark if since_last else began)
        self._mark = ended

    def pause(self) -> None:
        """Time until the next step counts for nothing: there is nothing to read."""
        self._mark = None


class Encoder(ABC):
    """Texts to token ids, on the two sides of the injection boundary."""

    digest: str  # changes whenever any text could get other ids
    # Ids of all special and added tokens. Added tokens of white space alone ("\n\n" in Gemma's
    # vocabulary) are text unless marked as special: they control nothing, and judges expect them.
    control_ids: frozenset[int]

    @property
    @abstractmethod
    def engine(self) -> str:
        """What makes the ids of data now, with its version. To be shown; it decides no id."""

    @abstractmethod
    def encode_template(self, text: str, *, first: bool) -> list[int]:
        """Ids of a template segment; control tokens in it are control tokens.

        Nothing is added (no BOS, no EOS): a chat template writes its own. `first` says that the
        segment opens the prompt; tokenizers that mark the beginning of a text do so only there.
        """

    @abstractmethod
    def encode_data(self, texts: Sequence[str]) -> TokenRows:
        """Ids of data segments, a row each; never one of `control_ids`, whatever the texts hold.

        Raises:
            IntegrityFault: a control id came out all the same, or an accelerated tokenizer turned
                out to differ from the judge's own; nothing of it may be scored.
        """

    @property
    @abstractmethod
    def ends(self) -> tuple[int, ...]:
        """Token ids that end what the judge writes."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, control tokens left out."""

    @abstractmethod
    def render_chat(self, messages: Sequence[Message]) -> str:
        """The judge's chat format of these messages up to where its answer begins.

        Deterministic: no dates. Thinking is switched off where the template knows the switch.
        A system message is folded into the first user message where the template refuses one.
        A judge without a chat template joins the contents with empty lines, after its BOS text.
        """

    @abstractmethod
    def label_variants(self, label: str) -> tuple[LabelVariant, ...]:
        """All single tokens that decode to `label`, white space around it allowed.

        Raises:
            UsageError: there is none, with the tokens that the label takes instead.
        """


class Judge(ABC):
    """A judge model. Not thread-safe; one owner at a time."""

    card: JudgeCard
    encoder: Encoder
    context_length: int  # tokens of prompt + 1 of answer at most
    clock: EngineClock  # runs on over all calls of `read`
    # Digest of all that turns an image into the model's input, beside the card; None: takes none.
    images: str | None = None

    @abstractmethod
    def start(self, workload: Workload, answer: Answer) -> EngineReport:
        """Load the engine. Called once before `read`, and again after a failed `read`.

        Raises:
            JudgeUnavailable: package, device, memory or files do not allow it.
        """

    def likely_cache(self, workload: Workload) -> CacheShape | None:  # noqa: ARG002
        """The prefix cache that an engine would have, told without one; None: none to speak of."""
        return None

    @abstractmethod
    def read(self, batches: Iterator[PromptBatch]) -> Iterator[ReadBatch]:
        """Read prompts: pulls batches when its queue runs low, yields reads as they finish.

        Every prompt pulled is yielded exactly once, in any order. Prompts are fed in the order of
        the batches. A prompt whose log-probabilities are not finite comes back with status error.
        Pulling may block while the next bucket is prepared; an empty batch (`NOTHING_READY`) says
        so, and the judge goes on with what it has.

        Raises:
            EngineFailed: the engine died. Prompts pulled and not yielded are lost; `start` may be
                called again. The caller finds out which prompt kills it.
        """

    @abstractmethod
    def close(self) -> None:
        """Free engine, device memory and processes. May be called twice."""
