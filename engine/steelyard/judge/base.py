"""What every judge promises; the rest of the program is the same for all judges.

A judge has two states. Opened (`open_judge`), it knows its files: card, encoder, context length;
that takes seconds and no GPU. Started, it has an engine and reads prompts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from steelyard.core.batches import PromptBatch, ReadBatch, TokenRows, Workload
from steelyard.core.config import Scalar
from steelyard.core.judges import Answer, JudgeCard, LabelVariant
from steelyard.core.work import CacheShape, EngineReport
from steelyard.judge.patience import Owner
from steelyard.protocols.protocol import Message

# A source of batches yields this to say that nothing is ready yet.
NOTHING_READY = PromptBatch(-1, [], TokenRows.of([]), np.zeros(0, dtype=np.bool_))

INSTALL = "pip install 'steelyard[gpu]', or 'steelyard[cpu]' on a machine without a GPU"


@dataclass(frozen=True, slots=True)
class JudgeSpec:
    """What it takes to open a judge, in this process or in another; plain data.

    `name` is shown to the user and in verdicts; `model` is a folder or a hub name; `engine`
    overrides the settings that are chosen for the machine, under vLLM's own names.
    """

    name: str
    model: str
    revision: str | None = None
    engine: dict[str, Scalar] = field(default_factory=dict)
    replicas: int = 1  # processes with one GPU each
    remote: bool = True  # whether the hub may be asked


@dataclass(slots=True)
class EngineClock:
    """Seconds between a judge's first prompt and its last read, and how many the engine worked."""

    total: float = 0.0
    busy: float = 0.0
    _mark: float | None = None

    def ran(self, began: float, ended: float, *, since_last: bool = False) -> None:
        """Count an engine step between two times, in seconds.

        `since_last` says that the engine also worked between the previous step and this one.
        """
        mark = began if self._mark is None else self._mark
        self.total += ended - mark
        self.busy += ended - (mark if since_last else began)
        self._mark = ended

    def pause(self) -> None:
        """Leave out the time until the next step: there is nothing to read."""
        self._mark = None


class Encoder(ABC):
    """Texts to token ids, on either side of the injection boundary."""

    digest: str  # changes whenever any text could get other ids
    # Ids of all special and added tokens. Added tokens of white space alone ("\n\n" in Gemma's
    # vocabulary) are text unless they are special: they control nothing, and judges expect them.
    control_ids: frozenset[int]

    @property
    @abstractmethod
    def engine(self) -> str:
        """Name and version of the tokenizer that encodes data now; for display only."""

    @abstractmethod
    def encode_template(self, text: str, *, first: bool) -> list[int]:
        """Encode a template segment; control tokens in it stay control tokens.

        Nothing is added (no BOS, no EOS): a chat template writes them itself. `first` says that
        the segment opens the prompt: tokenizers that mark the beginning of a text do so only there.
        """

    @abstractmethod
    def encode_data(self, texts: Sequence[str]) -> TokenRows:
        """Encode data, one row per text, without any of `control_ids`, whatever the texts hold.

        Raises:
            IntegrityFault: a control id came out all the same, or an accelerated tokenizer turned
                out to differ from the judge's own; none of it may be scored.
        """

    @property
    @abstractmethod
    def ends(self) -> tuple[int, ...]:
        """Token ids that end what the judge writes."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, without control tokens."""

    @abstractmethod
    def render_chat(self, messages: Sequence[Message]) -> str:
        """Render messages in the judge's chat format, up to where its answer begins.

        Deterministic: no dates. Thinking is off where the template has a switch for it. A system
        message is folded into the first user message where the template refuses it. A judge without
        a chat template joins the contents with empty lines, after its BOS text.
        """

    @abstractmethod
    def label_variants(self, label: str) -> tuple[LabelVariant, ...]:
        """Return all single tokens that decode to `label`, with or without white space around it.

        Raises:
            UsageError: there is no such token; it shows the tokens that the label takes.
        """


class Judge(ABC):
    """A judge model. Not thread-safe; one owner at a time."""

    card: JudgeCard
    encoder: Encoder
    kind = "model"  # it generates; "score": a head gives one number per prompt
    context_length: int  # tokens of prompt + 1 of answer at most
    clock: EngineClock  # runs on over all calls of `read`
    owner = Owner()  # who waits for it; judges that run elsewhere report each sign of life
    # Digest of all that turns an image into the model's input; None: the judge takes no images.
    images: str | None = None

    @abstractmethod
    def start(self, workload: Workload, answer: Answer) -> EngineReport:
        """Load the engine, before the first `read` and after a failed one.

        Raises:
            JudgeUnavailable: a package, the device, memory or the files do not allow it.
            EngineFailed: it died or was given up while it was loaded; it may be tried again.
        """

    def likely_cache(self, workload: Workload) -> CacheShape | None:  # noqa: ARG002
        """Predict the prefix cache that an engine would have; None: no cache, or unknown."""
        return None

    @abstractmethod
    def read(self, batches: Iterator[PromptBatch]) -> Iterator[ReadBatch]:
        """Read prompts: pull batches when the queue runs low, yield reads as they finish.

        Every prompt pulled is yielded exactly once, in any order. Prompts are fed in the order of
        the batches. A prompt whose log-probabilities are not finite comes back with status error.
        While the next bucket is prepared, empty batches (`NOTHING_READY`) come, and the judge goes
        on with the prompts that it has.

        Raises:
            EngineFailed: the engine died, or was given up because it hangs (`patience.py`).
                Prompts pulled and not yielded are lost; `start` may be called again. The caller
                has to find the prompt that kills it.
        """

    @abstractmethod
    def close(self) -> None:
        """Free engine, device memory and processes. A second call does nothing."""
