"""Parquet in: find the inputs, resolve the roles of columns, and stream checked rows.

    shards = open_shards(["data/"], {"instruction": "query"})
    for rows, rejects in stream(shards, Limits()):
        ...

What a shard may hold:

- `instruction` (or `prompt`, `question`), `response_a`, `response_b`: text, required.
- `pair_id`: text, integer or UUID. `system`, `reference`, `model_a`, `model_b`: text.
- `turns`: the EARLIER turns of the conversation, oldest first: list<struct<role, content>> in which
  user and assistant alternate, the user begins and the assistant ends. The instruction follows
  them and is not among them. Calls of tools are refused, other fields left out.
- the gold: `gold` or `label` as text (A, B, tie, and the spellings in `votes.py`), as a
  floating-point P(a), or as struct<a, b, tie> of votes; or `votes_a`, `votes_b` and, if wanted,
  `votes_tie`.
- everything else is metadata and stays typed, as a struct.

Text is a column declared as text in any layout (string, large_string, string_view, a dictionary
of them). Binary columns are not text: their writer did not say in which encoding they are. Parts
of a shard's path below the inputs' common folder that read `key=value` are text columns too.
"""

from __future__ import annotations

from steelyard.input.discover import discover
from steelyard.input.roles import PROMPT_ROLES, REQUIRED, pair_roles
from steelyard.input.rows import Limits
from steelyard.input.shardset import ShardSet, open_shards
from steelyard.input.stream import stream

__all__ = [
    "PROMPT_ROLES",
    "REQUIRED",
    "Limits",
    "ShardSet",
    "discover",
    "open_shards",
    "pair_roles",
    "stream",
]
