"""What an engine's prefix cache will leave to compute, predicted without an engine."""

from __future__ import annotations

import numpy as np

from steelyard.core.batches import TokenRows
from steelyard.core.schemas import Int32
from steelyard.core.work import CacheShape
from steelyard_kernels.block_cache import new_cache, simulate


class BlockOracle:
    """Follows an engine's cache over a stream of buckets.

    Args:
        shape: of the cache. A pool too small for the longest prompt, with which an engine would
            refuse to start, is taken as just large enough.
    """

    def __init__(self, shape: CacheShape) -> None:
        least = -(-shape.longest // shape.block) + 1
        self._cache = None
        if shape.enabled:
            self._cache = new_cache(
                max(shape.blocks, least),
                shape.block,
                max_model_len=shape.longest,
                max_num_batched_tokens=shape.step_tokens,
                max_num_seqs=shape.step_prompts,
                steps_in_flight=shape.steps_in_flight,
            )

    def computed(self, rows: TokenRows, fitting: int) -> Int32:
        """Predict how many tokens of each prompt the engine computes.

        Args:
            rows: prompts in feeding order.
            fitting: how many of them are fed; those after get 0.
        """
        computed = np.zeros(len(rows), dtype=np.int32)
        offsets = rows.offsets[: fitting + 1]
        computed[:fitting] = np.diff(offsets)
        if self._cache is not None:
            computed[:fitting] -= simulate(rows.tokens, offsets, self._cache)
        return computed


def warm_up() -> None:
    """Load the oracle's kernels, or compile them, which takes seconds the first time."""
    toy = CacheShape(True, block=1, blocks=4, step_tokens=2, step_prompts=1, longest=2)
    BlockOracle(toy).computed(TokenRows.of([[0, 1]]), 1)
