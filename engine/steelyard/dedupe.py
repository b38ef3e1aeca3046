"""Unique prompts and the inverse index."""

from __future__ import annotations

import numpy as np

from steelyard.records import KEY_BYTES, Unique


def unique_prompts(key_ab: bytes, key_ba: bytes) -> Unique:
    """Unique keys of n pairs; the arguments are their keys, KEY_BYTES each, concatenated."""
    both = np.frombuffer(key_ab + key_ba, dtype=np.dtype((np.void, KEY_BYTES)))
    keys, first, inverse = np.unique(both, return_index=True, return_inverse=True)
    return Unique([key.tobytes() for key in keys], first.astype(np.int64), inverse.astype(np.int64))
