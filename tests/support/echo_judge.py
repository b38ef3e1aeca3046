"""A judge without a model, for child processes: it reads each prompt's length and its own pid."""

from __future__ import annotations

import os

import numpy as np

from steelyard.core.batches import ReadBatch
from steelyard.core.judges import JudgeCard
from steelyard.core.work import EngineReport
from steelyard.errors import JudgeUnavailable
from steelyard.judge.base import EngineClock, Judge


class EchoJudge(Judge):
    def __init__(self, model):
        self.card = JudgeCard("echo", model, "local", "0", "0", "float32")
        self.encoder = None
        self.clock = EngineClock()
        self.context_length = 1000

    def start(self, workload, answer):
        if self.card.model == "unstartable":
            raise JudgeUnavailable("no such thing", remedy="get one")
        return EngineReport({}, self.context_length)

    def read(self, batches):
        for batch in batches:
            n = len(batch)
            if not n:
                continue
            lengths = batch.rows.lengths.astype(np.int32)
            yield ReadBatch(
                keys=batch.keys,
                buckets=np.full(n, batch.bucket, dtype=np.int32),
                status=["ok"] * n,
                label_logprobs=-np.stack([lengths, lengths], axis=1).astype(np.float64),
                label_mass=np.ones(n),
                argmax_outside=np.zeros(n, dtype=np.bool_),
                truncated=batch.truncated,
                prompt_tokens=lengths,
                cached_tokens=np.full(n, os.getpid(), dtype=np.int32),
                errors=[None] * n,
            )

    def close(self):
        pass


def open_echo(spec):
    return EchoJudge(spec.model)
