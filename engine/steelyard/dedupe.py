"""Unique prompts and the inverse index."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from steelyard.records import KEY_BYTES, Int64


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


def unique_prompts(key_ab: bytes, key_ba: bytes) -> Unique:
    """Unique keys of n pairs; the arguments are their keys, KEY_BYTES each, concatenated."""
    both = np.frombuffer(key_ab + key_ba, dtype=np.dtype((np.void, KEY_BYTES)))
    keys, first, inverse = np.unique(both, return_index=True, return_inverse=True)
    return Unique([key.tobytes() for key in keys], first.astype(np.int64), inverse.astype(np.int64))
