"""How many pairs each rule would make of an input, for users who have not chosen one."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import numpy as np
import pyarrow as pa

from steelyard.errors import SteelyardError
from steelyard.input import ShardSet, stream
from steelyard.plan.keys import as_words
from steelyard.plan.pairing import Pairing
from steelyard.plan.responses import plan_responses

COUNTED = 200_000  # rows that are read for it
_RULES = ("all", "adjacent", "random=1", "baseline=MODEL")


def count_pairs(shards: ShardSet) -> dict[str, str]:
    """Return each rule with the number of pairs that it makes, in words; '' where it is not known.

    Repeated responses and those of the same model are counted as others are.
    """
    if shards.rows > COUNTED or not shards.local or "images" in shards.roles:
        return dict.fromkeys(_RULES, "")
    ids = []
    try:
        with closing(stream(replace(shards, metadata=pa.schema([])))) as batches:
            for rows, _ in batches:
                ids.append(as_words(plan_responses(rows).rows["instruction"])[:, 0])
    except SteelyardError:
        return dict.fromkeys(_RULES, "")
    _, sizes = np.unique(np.concatenate(ids), return_counts=True)
    made = {rule: int(Pairing.parse(rule).most(sizes).sum()) for rule in _RULES}
    return {
        rule: f" ({'up to ' if '=' in rule else ''}{count:,} pairs)" for rule, count in made.items()
    }
