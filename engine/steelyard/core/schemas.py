"""Arrow schemas of the tables that several packages pass on, and short names of array types.

A row's way: shard -> INTAKE -> PAIRS + TEXTS (plan) -> PromptBatch -> ReadBatch -> READS -> verdict
"""

from __future__ import annotations

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

# A checked row of a shard. The struct `metadata` follows, of all columns without a role: its fields
# differ from run to run.
INTAKE = pa.schema(
    [
        pa.field("shard", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),  # within the shard, from 0
        pa.field("pair_id", pa.string()),  # null: the planner derives it from the content
        pa.field("instruction", pa.string(), nullable=False),
        pa.field("response_a", pa.string(), nullable=False),
        pa.field("response_b", pa.string()),  # null: a single response, under some protocols
        pa.field("system", pa.string()),
        pa.field("turns", TURNS),  # earlier turns, oldest first; roles user or assistant
        pa.field("turns_a", TURNS),  # the same, where each response has separate ones
        pa.field("turns_b", TURNS),
        pa.field("reference", pa.string()),
        pa.field("images", pa.string()),  # digests in their order (core/images.py)
        pa.field("criteria", CRITERIA),
        pa.field("category", pa.string()),  # chooses the examples that a prompt shows
        pa.field("model_a", pa.string()),
        pa.field("model_b", pa.string()),
        pa.field("gold", GOLD),  # votes for a, for b and for a tie; a label is one vote
        pa.field("item", pa.int32()),  # within the row's list of responses, from 0; null: no list
    ]
)

REJECTS = pa.schema(
    [
        pa.field("shard", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("pair_id", pa.string()),
        pa.field("reason", pa.string(), nullable=False),  # null, utf8, size, gold, ...
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
        pa.field("length_b", pa.int32()),  # null: a single response
        pa.field("gold", GOLD),
        pa.field("criteria", CRITERIA),
        pa.field("keys", KEYS, nullable=False),  # of its prompts, in the order of PromptAxes
    ]
)
# Columns of PAIRS that only the plan's files add.
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
        pa.field("images", pa.string()),  # digests (core/images.py); the bytes: store/images
    ]
)

# plan/bucket-*: as TEXTS, with a digest for each text; null where there is no text.
TEXT_COLUMNS = tuple(TEXTS.names[1:])
BUCKET = pa.schema(
    [
        pa.field("keys", KEYS, nullable=False),
        pa.field("text_bytes", pa.int32(), nullable=False),  # UTF-8 of the pair's texts together
        *(pa.field(name, KEY) for name in TEXT_COLUMNS),
    ]
)
# plan/responses-*: planned rows of single responses, before they become pairs. A digest for each of
# TEXT_COLUMNS follows, and the struct `metadata` where the shards have such columns.
RESPONSES = pa.schema(
    [
        pa.field("shard", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("item", pa.int32()),
        pa.field("response_id", pa.string()),
        pa.field("model", pa.string()),
        pa.field("category_name", pa.string()),
        pa.field("length", pa.int32(), nullable=False),  # characters
        pa.field("weighted_criteria", CRITERIA),
        pa.field("text_bytes", pa.int64(), nullable=False),  # UTF-8 of its texts together
        pa.field("response_bytes", pa.int64(), nullable=False),  # of those of the response alone
        *(pa.field(name, KEY) for name in TEXT_COLUMNS),
    ]
)
# What `shard` is for a pair that was made of two responses; `row` is its number. Two fields of its
# metadata, READ_FROM, say where the responses are.
PAIRED = "(pairs)"
READ_FROM = ("read_from_a", "read_from_b")
ADDRESS = pa.struct([("shard", pa.string()), ("row", pa.int64()), ("item", pa.int32())])

# plan/texts-*: the texts of a bucket; a few are there more than once.
BUCKET_TEXTS = pa.schema(
    [pa.field("digest", KEY, nullable=False), pa.field("text", pa.string(), nullable=False)]
)

STATUS_OK = "ok"
STATUS_OVERLONG = "overlong"
STATUS_ERROR = "error"
STATUS_UNPARSABLE = "unparsable"  # the judge's text holds no answer; it is kept

# reads: one row per unique prompt. A read that is not ok has null numbers and a reason.
READS = pa.schema(
    [
        pa.field("prompt_key", KEY, nullable=False),
        pa.field("bucket", pa.int32(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("label_logprobs", pa.list_(pa.float64())),  # natural log, in label order
        pa.field("label_mass", pa.float64()),  # [0, 1]
        pa.field("argmax_outside", pa.bool_()),  # the likeliest token is not a label
        pa.field("truncated", pa.bool_(), nullable=False),
        pa.field("prompt_tokens", pa.int32(), nullable=False),
        pa.field("cached_tokens", pa.int32(), nullable=False),
        pa.field("error", pa.string()),
        pa.field("output", pa.string()),  # what the judge wrote, where it writes
        pa.field("numbers", pa.list_(pa.float64())),  # read from it
        pa.field("forced", pa.bool_()),  # the text named no verdict: it was asked for
        pa.field("output_tokens", pa.int32()),  # computed after the prompt
        pa.field("read_at", pa.timestamp("ms", tz="UTC"), nullable=False),
        pa.field("reused_from", pa.string()),  # the run it was taken from; null: read here
    ]
)
