"""An open judge that returns the verdicts of rows at once, without shards or a run directory."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np
import pyarrow as pa

from steelyard.core.batches import Workload
from steelyard.core.config import RunConfig
from steelyard.core.progress import Reporter
from steelyard.errors import UsageError
from steelyard.judge.patience import Owner
from steelyard.plan.dedupe import unique_prompts
from steelyard.plan.keys import plan_batch
from steelyard.plan.spec import JudgingSpec, KeySpec
from steelyard.prompts.prepared import open_judges
from steelyard.protocols.protocol import Example
from steelyard.scoring.feed import batches, read_all
from steelyard.store.reads.parts import reads_table
from steelyard.store.verdicts.database import verdicts_of
from steelyard.store.verdicts.views import VerdictSpec

# The number of prompts is not known when the engine is loaded.
MANY_PROMPTS = 1 << 20


class LiveJudge:
    """The one judge that `config` names; its engine is loaded when this object is created.

    Raises:
        UsageError: a label is not a single token of the judge.
        JudgeUnavailable: the judge cannot be opened, or its engine cannot be loaded.
    """

    def __init__(self, config: RunConfig, spec: JudgingSpec, examples: Sequence[Example]) -> None:
        with ExitStack() as stack:
            (prepared,) = stack.enter_context(open_judges(config, spec, examples))
            self._judge, self._answer = prepared.judge, prepared.answer
            self.name = self._judge.card.name
            self._judge.owner = Owner(warn=Reporter(quiet=True).warn)
            self._key_spec = KeySpec.of(spec, [prepared.forms])
            self._maker = prepared.maker()
            self._verdict_spec = VerdictSpec(spec, [self.name])
            self._start()
            self._opened, self._closed = stack.pop_all(), False

    def close(self) -> None:
        """Free the engine's memory and processes; may be called twice."""
        self._closed = True
        self._opened.close()

    def verdicts(self, rows: pa.RecordBatch) -> pa.Table:
        """Return what `verdicts` of a run with these rows would hold, in their order.

        Args:
            rows: INTAKE, at least one.

        Raises:
            UsageError: the judge was closed.
            EngineFailed: the engine dies on whatever it reads.
        """
        if self._closed:
            raise UsageError("the judge was closed", remedy="create it again, or close it later")
        planned = plan_batch(rows, self._key_spec)
        unique = unique_prompts(planned.texts["keys"])
        texts = pa.Table.from_batches([planned.texts])
        bucket = self._maker.prepare(0, texts, unique, np.arange(len(unique.keys)))
        assert bucket is not None  # noqa: S101 - every row has a prompt
        prompts, warn = batches(bucket), self._judge.owner.warn
        reads = list(read_all(self._judge, prompts, self._maker.context, self._start, warn))
        pairs = pa.Table.from_batches([planned.pairs])
        pairs = pairs.append_column("pair", pa.array(np.arange(len(pairs))))
        now = time.time_ns() // 1_000_000
        return verdicts_of(self._verdict_spec, pairs, reads_table(reads, [now] * len(reads)))

    def _start(self) -> None:
        context, writes = self._maker.context, self._answer.room
        self._judge.start(Workload(MANY_PROMPTS, context, writes), self._answer)
