"""Arrow schemas of a run's files, and the records that pass between stages.

A row's way: shard -> INTAKE -> PAIRS + TEXTS (plan) -> PromptBatch -> ReadBatch -> READS -> verdict
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Int32 = npt.NDArray[np.int32]
UInt64 = npt.NDArray[np.uint64]
Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

KEY_BYTES = 16
KEY = pa.binary(KEY_BYTES)
GOLD = pa.struct([("a", pa.float64()), ("b", pa.float64()), ("tie", pa.float64())])
TURNS = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
CRITERIA = pa.list_(pa.struct([("text", pa.string()), ("weight", pa.float64())]))
KEYS = pa.list_(KEY)

# What a shard's rows become at the door. `metadata` is a struct of all columns that have no role;
# its fields differ from run to run, so the schema without it stands here.
INTAKE = pa.schema(
    [
        pa.field("shard", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),  # 0-based within the shard
        pa.field("pair_id", pa.string()),  # null: derived from content by the planner
        pa.field("instruction", pa.string(), nullable=False),
        pa.field("response_a", pa.string(), nullable=False),
        pa.field("response_b", pa.string()),  # null: a response alone, under some protocols
        pa.field("system", pa.string()),
        pa.field("turns", TURNS),  # earlier turns, oldest first; roles user or assistant
        pa.field("turns_a", TURNS),  # the same, where each response has a past of its own
        pa.field("turns_b", TURNS),
        pa.field("reference", pa.string()),
        pa.field("images", pa.string()),  # digests in their order (images.write_digests)
        pa.field("criteria", CRITERIA),
        pa.field("category", pa.string()),  # chooses the examples that a prompt shows
        pa.field("model_a", pa.string()),
        pa.field("model_b", pa.string()),
        pa.field("gold", GOLD),  # votes for a, for b and for a tie; a label is one vote
    ]
)

REJECTS = pa.schema(
    [
        pa.field("shard", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("pair_id", pa.string()),
        pa.field("reason", pa.string(), nullable=False),  # a word: null, utf8, size, gold, ...
        pa.field("detail", pa.string(), nullable=False),  # escaped, at most 80 bytes of data
    ]
)

# plan/pairs: the inverse index. `metadata` (a struct) follows when the shards have such columns.
PAIRS = pa.schema(
    [
        pa.field("pair", pa.int64(), nullable=False),  # from 0, in the order of the plan
        pa.field("pair_id", pa.string(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("bucket", pa.int32(), nullable=False),
        pa.field("instruction_id", pa.uint64(), nullable=False),  # hash of the instruction
        pa.field("category", pa.string()),
        pa.field("model_a", pa.string()),
        pa.field("model_b", pa.string()),
        pa.field("length_a", pa.int32(), nullable=False),  # characters
        pa.field("length_b", pa.int32()),  # null: a response alone
        pa.field("gold", GOLD),
        pa.field("criteria", CRITERIA),
        pa.field("keys", KEYS, nullable=False),  # of its prompts, in the order of PromptAxes
    ]
)
# What the plan's files add to the pairs that a batch brings.
PLACED = ("pair", "bucket")

# A bucket's pairs as the feed takes them: texts trimmed, null where the pair has no such text.
TEXTS = pa.schema(
    [
        pa.field("keys", KEYS, nullable=False),
        pa.field("instruction", pa.string(), nullable=False),
        pa.field("response_a", pa.string(), nullable=False),
        pa.field("response_b", pa.string()),
        pa.field("system", pa.string()),
        pa.field("conversation", pa.string()),
        pa.field("turns_a", pa.string()),
        pa.field("turns_b", pa.string()),
        pa.field("reference", pa.string()),
        pa.field("criteria", pa.string()),  # a JSON list of texts
        pa.field("category", pa.string()),
        pa.field("images", pa.string()),  # digests (images.write_digests); the bytes: store/images
    ]
)

# plan/bucket-*: the same with each text's digest in its place, null where there is no text.
TEXT_COLUMNS = tuple(TEXTS.names[1:])
BUCKET = pa.schema(
    [
        pa.field("keys", KEYS, nullable=False),
        pa.field("text_bytes", pa.int32(), nullable=False),  # UTF-8 of the pair's texts together
        *(pa.field(name, KEY) for name in TEXT_COLUMNS),
    ]
)
# plan/texts-*: the texts of a bucket; a few stand there more than once.
BUCKET_TEXTS = pa.schema(
    [pa.field("digest", KEY, nullable=False), pa.field("text", pa.string(), nullable=False)]
)

STATUS_OK = "ok"
STATUS_OVERLONG = "overlong"
STATUS_ERROR = "error"
STATUS_UNPARSABLE = "unparsable"  # the judge wrote a text that holds no answer; it is kept

# reads: one row a unique prompt. A read that is not ok has null numbers and a reason.
READS = pa.schema(
    [
        pa.field("prompt_key", KEY, nullable=False),
        pa.field("bucket", pa.int32(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("label_logprobs", pa.list_(pa.float64())),  # natural log, in label order
        pa.field("label_mass", pa.float64()),  # [0, 1]
        pa.field("argmax_outside", pa.bool_()),  # the likeliest token is no label
        pa.field("truncated", pa.bool_(), nullable=False),
        pa.field("prompt_tokens", pa.int32(), nullable=False),
        pa.field("cached_tokens", pa.int32(), nullable=False),
        pa.field("error", pa.string()),
        pa.field("output", pa.string()),  # what the judge wrote, where it writes
        pa.field("numbers", pa.list_(pa.float64())),  # read from it
        pa.field("forced", pa.bool_()),  # the verdict was asked for: the text named none
        pa.field("output_tokens", pa.int32()),  # computed after the prompt
        pa.field("read_at", pa.timestamp("ms", tz="UTC"), nullable=False),
        pa.field("reused_from", pa.string()),  # the run it was taken from, null: read here
    ]
)


@dataclass(frozen=True, slots=True)
class Planned:
    """Planned pairs, n of them, row by row the same in all columns.

    `digests[name]` is the digest of text `name` as two 64-bit words, shape (n, 2); names without
    any text are left out, and a null among the texts has a digest that means nothing.
    """

    pairs: pa.RecordBatch  # PAIRS without PLACED; the struct `metadata` may follow
    texts: pa.RecordBatch  # TEXTS
    digests: dict[str, UInt64]
    text_bytes: Int64  # UTF-8 of the pair's texts together

    def __len__(self) -> int:
        return len(self.pairs)


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message; `content` may hold slot marks (protocols/base.py)."""

    role: str  # system, user or assistant
    content: str
    images: int = 0  # that stand before its text


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
        starts, at = [], 0
        for label in self.variants:
            starts.append(at)
            at += len(label)
        return starts


@dataclass(frozen=True, slots=True)
class Answer:
    """How a judge's answer to a prompt is read.

    Attributes:
        labels: read by log-probability; none for texts that hold numbers.
        kind: "label": the labels at the answer's first position. "reasons": the judge writes, and
            the labels are read where its text gives the verdict. "scores", "probability": it
            writes, and the numbers stand in the text.
        max_tokens: of what it writes.
        temperature: 0: the likeliest text.
        ends: token ids that end what it writes.
        verdict: ids that open the verdict where the text names none.
        low: least score; `high` the greatest.
        high: see there.
        tag: around the probability.
    """

    labels: LabelSet
    kind: str = "label"
    max_tokens: int = 1
    temperature: float = 0.0
    ends: tuple[int, ...] = ()
    verdict: tuple[int, ...] = ()
    low: float = 0.0
    high: float = 0.0
    tag: str = ""

    @property
    def writes(self) -> bool:
        """Whether the judge writes a text."""
        return self.kind != "label"

    @property
    def room(self) -> int:
        """Tokens that have to fit into the judge's context behind a prompt."""
        return self.max_tokens + (len(self.verdict) + 1 if self.kind == "reasons" else 0)


@dataclass(frozen=True, slots=True)
class JudgeCard:
    """What a judge is: everything that can change a log-probability, apart from the protocol.

    All of it enters the judge fingerprint; `settings` that cannot change a read (memory, batch
    sizes) do not stand here.
    """

    name: str  # what the user asked for and verdicts show
    model: str  # hub name, folder or script
    revision: str  # commit or "local"
    weights: str  # digest of the weights' files
    tokenizer: str  # digest of the tokenizer
    dtype: str
    quantization: str | None = None
    extra: dict[str, str] = field(default_factory=dict)
