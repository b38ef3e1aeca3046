"""Rows of single responses -> pairs in the plan, as `--pairs` says."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import numpy as np
import pyarrow as pa

from steelyard.core.batches import Planned, PlannedResponses
from steelyard.core.config import RunConfig
from steelyard.core.hashing import mix
from steelyard.core.schemas import UInt64
from steelyard.errors import UsageError, escape
from steelyard.input import Limits, ShardSet, stream
from steelyard.plan.dedupe import GroupOrder
from steelyard.plan.keys import as_words
from steelyard.plan.pairing import KINDS, Pairing
from steelyard.plan.responses import PairMaker, metadata_type, plan_responses
from steelyard.plan.spec import KeySpec
from steelyard.store.plan.buckets import NotGrouped
from steelyard.store.plan.files import PlanWriter


class ResponsePlanner:
    """Plans pairs of responses, or each response alone; they are in the plan once it is finished.

    Args:
        shards: rows of one response each, or of lists.
        key_spec: what decides the prompts' keys.
        pairs: the rule, as `Pairing.parse` reads it.
        kept: from `chosen_instructions`.
    """

    def __init__(
        self, shards: ShardSet, key_spec: KeySpec, pairs: str, kept: UInt64 | None
    ) -> None:
        self._pairing, self._kept = Pairing.parse(pairs), kept
        schema = shards.schema
        own = schema.field("metadata").type if "metadata" in schema.names else None
        self.metadata = metadata_type(own)
        self._maker = PairMaker(self._pairing, key_spec)
        self._groups = GroupOrder()

    def plan(self, intake: pa.RecordBatch) -> PlannedResponses:
        """Plan accepted rows; those of other instructions than the chosen ones are left out."""
        rows = plan_responses(intake)
        if self._kept is None:
            return rows
        return rows.filter(np.isin(_numbers(rows), self._kept))

    def add(self, writer: PlanWriter, rows: Planned | PlannedResponses) -> None:
        """Take planned rows; raise NotGrouped where texts are to stay in the shards and cannot."""
        assert isinstance(rows, PlannedResponses)  # noqa: S101 - made by `plan`
        if not len(rows):
            return
        if writer.copies:
            writer.add_responses(rows)
            return
        if self._groups.starts(as_words(rows.rows["instruction"])[:, 0]) is None:
            raise NotGrouped
        for pairs in self._maker.add(rows.rows):
            writer.add(pairs)

    def finish(self, writer: PlanWriter) -> list[str]:
        """Give the last pairs to the plan, and return notes for users.

        Raises:
            UsageError: there is no pair.
        """
        if writer.copies:
            for rows in writer.responses():
                for pairs in self._maker.make(rows):
                    writer.add(pairs)
        else:
            for pairs in self._maker.finish():
                writer.add(pairs)
        if not self._maker.made:
            raise self._no_pairs()
        notes = {
            "have the model and the text of an earlier one, and are left out": self._maker.repeated,
            "are compared with no other one": self._maker.alone,
        }
        return [f"{count:,} responses {what}" for what, count in notes.items() if count]

    def _no_pairs(self) -> UsageError:
        rule = self._pairing
        cause = "no instruction has two responses to compare"
        remedy = (
            "give the responses of two or more models to the same instructions, or score each"
            " response alone: --protocol pointwise without --pairs; if instructions do repeat,"
            f" check --map instruction=COLUMN; the rules are: {KINDS}"
        )
        if rule.kind == "baseline" and not self._maker.baselines:
            cause = f"no response is by {escape(rule.baseline)}"
            remedy = "check the name, and --map model_a=COLUMN"
        return UsageError(cause, effect="nothing was scored", remedy=remedy)


def chosen_instructions(shards: ShardSet, limits: Limits, config: RunConfig) -> UInt64 | None:
    """Return the numbers of the instructions that `limit` or `sample` choose; None: all.

    An instruction draws its number by its id. Chosen are the first ones in the input, or those with
    the smallest numbers.
    """
    wanted = config.limit or config.sample
    if not wanted:
        return None
    chosen = np.zeros(0, dtype=np.uint64)
    bare = replace(shards, metadata=pa.schema([]))
    with closing(stream(bare, replace(limits, on_bad_row="reject"))) as batches:
        for rows, _ in batches:
            numbers = _numbers(plan_responses(rows))
            if config.sample:
                chosen = np.unique(np.concatenate([chosen, numbers]))[:wanted]
                continue
            _, first = np.unique(numbers, return_index=True)
            new = numbers[np.sort(first)]
            chosen = np.concatenate([chosen, new[~np.isin(new, chosen)]])[:wanted]
            if len(chosen) == wanted:
                break
    return chosen


def _numbers(rows: PlannedResponses) -> UInt64:
    return mix(as_words(rows.rows["instruction"])[:, 0])
