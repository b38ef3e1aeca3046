"""Records that travel between the stages, and every Arrow schema that reaches a disk.

A row's way: shard -> INTAKE -> PAIRS + TEXTS (plan) -> PromptBatch -> ReadBatch -> READS -> verdict
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Int32 = npt.NDArray[np.int32]
UInt64 = npt.NDArray[np.uint64]
Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]
TokenIds = Sequence[int] | Int32

KEY_BYTES = 16
KEY = pa.binary(KEY_BYTES)
GOLD = pa.struct([("a", pa.float64()), ("b", pa.float64()), ("tie", pa.float64())])
TURNS = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))

# What a shard's rows become at the door. `metadata` is a struct of all columns that have no role;
# its fields differ from run to run, so the schema without it stands here.
INTAKE = pa.schema(
    [
        pa.field("shard", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),  # 0-based within the shard
        pa.field("pair_id", pa.string()),  # null: derived from content by the planner
        pa.field("instruction", pa.string(), nullable=False),
        pa.field("response_a", pa.string(), nullable=False),
        pa.field("response_b", pa.string(), nullable=False),
        pa.field("system", pa.string()),
        pa.field("turns", TURNS),  # earlier turns, oldest first; roles user or assistant
        pa.field("reference", pa.string()),
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
        pa.field("pair_id", pa.string(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("bucket", pa.int32(), nullable=False),
        pa.field("model_a", pa.string()),
        pa.field("model_b", pa.string()),
        pa.field("length_a", pa.int32(), nullable=False),  # characters
        pa.field("length_b", pa.int32(), nullable=False),
        pa.field("gold", GOLD),
        pa.field("key_ab", KEY, nullable=False),
        pa.field("key_ba", KEY, nullable=False),
    ]
)

# A bucket's pairs as the feed takes them: texts trimmed, null where the pair has no such text.
TEXTS = pa.schema(
    [
        pa.field("key_ab", KEY, nullable=False),
        pa.field("key_ba", KEY, nullable=False),
        pa.field("instruction", pa.string(), nullable=False),
        pa.field("response_a", pa.string(), nullable=False),
        pa.field("response_b", pa.string(), nullable=False),
        pa.field("system", pa.string()),
        pa.field("conversation", pa.string()),
        pa.field("reference", pa.string()),
    ]
)

# plan/bucket-*: the same with each text's digest in its place, null where there is no text.
TEXT_COLUMNS = tuple(TEXTS.names[2:])
BUCKET = pa.schema(
    [
        pa.field("key_ab", KEY, nullable=False),
        pa.field("key_ba", KEY, nullable=False),
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

    pairs: pa.RecordBatch  # PAIRS without `bucket`; the struct `metadata` may follow
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


@dataclass(frozen=True, slots=True)
class TokenRows:
    """Ragged token rows: row i is tokens[offsets[i]:offsets[i + 1]]."""

    tokens: Int32  # flat
    offsets: Int64  # n + 1, from 0

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> Int32:
        return self.tokens[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> Int64:
        """Tokens a row."""
        return np.diff(self.offsets)

    @classmethod
    def of(cls, rows: Sequence[TokenIds]) -> TokenRows:
        """Rows of their own, one after the other."""
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum([len(row) for row in rows], out=offsets[1:])
        parts = [np.zeros(0, dtype=np.int32), *(np.asarray(row, dtype=np.int32) for row in rows)]
        return cls(np.concatenate(parts), offsets)

    def split(self) -> list[Int32]:
        """The rows, as views."""
        bounds = self.offsets.tolist()
        return [self.tokens[start:end] for start, end in pairwise(bounds)]


@dataclass(frozen=True, slots=True)
class Unique:
    """Unique prompts among the prompts of n pairs in both orders.

    Prompt j of the 2n stands for pair j % n, in order ab for j < n and ba otherwise.
    `first[u]` is the first prompt with unique key u, `inverse[j]` the unique key of prompt j:
    expanding `keys[inverse]` gives all 2n keys back.
    """

    keys: list[bytes]
    first: Int64
    inverse: Int64


@dataclass(frozen=True, slots=True)
class Workload:
    """What the planner knows before an engine is loaded, for choosing its settings."""

    prompts: int  # unique prompts at most
    longest_prompt: int  # tokens, an upper bound


@dataclass(frozen=True, slots=True)
class PromptBatch:
    """Prompts of one bucket in feeding order; prompt i is tokens[offsets[i]:offsets[i + 1]]."""

    bucket: int
    keys: list[bytes]  # n of KEY_BYTES each
    tokens: Int32  # flat
    offsets: Int64  # n + 1
    truncated: Bool  # n

    def __len__(self) -> int:
        return len(self.keys)

    def ids(self, index: int) -> list[int]:
        """Token ids of one prompt, as vLLM wants them."""
        ids: list[int] = self.tokens[self.offsets[index] : self.offsets[index + 1]].tolist()
        return ids


@dataclass(frozen=True, slots=True)
class ReadBatch:
    """Reads in the order in which they finished; columns of length n, rows are unique prompts.

    `status[i]` is one of the STATUS_ words. Where it is not ok, the row's numbers mean nothing,
    are written as nulls, and `errors[i]` says why.
    """

    keys: list[bytes]
    buckets: Int32
    status: list[str]
    label_logprobs: Float64  # n x labels
    label_mass: Float64
    argmax_outside: Bool
    truncated: Bool
    prompt_tokens: Int32
    cached_tokens: Int32
    errors: list[str | None]

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, indices: list[int]) -> ReadBatch:
        """The rows at these indices."""
        at = np.asarray(indices, dtype=np.int64)
        return ReadBatch(
            keys=[self.keys[index] for index in indices],
            buckets=self.buckets[at],
            status=[self.status[index] for index in indices],
            label_logprobs=self.label_logprobs[at],
            label_mass=self.label_mass[at],
            argmax_outside=self.argmax_outside[at],
            truncated=self.truncated[at],
            prompt_tokens=self.prompt_tokens[at],
            cached_tokens=self.cached_tokens[at],
            errors=[self.errors[index] for index in indices],
        )
