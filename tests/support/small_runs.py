"""Runs made by hand: a plan whose prompts have numbers, parts that hold some, a golden record."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa

from steelyard.core.schemas import KEYS, PAIRS
from steelyard.core.work import BatchProgress, Work
from steelyard.plan.keys import BucketSize
from steelyard.store.plan.files import PlanWriter
from steelyard.store.reads import journal
from steelyard.store.reads.parts import commit_part
from steelyard.store.run_record import read_record, write_record
from steelyard.store.rundir import RunDir
from support.helpers import ROOT
from support.planned_rows import planned
from support.some_reads import key, table


def run_of(root, pairs, parts=(), instructions=None, ids=None, disk=None):
    """A run whose pairs ask prompts of these numbers, with parts of such numbers."""
    run = RunDir(root, disk) if disk else RunDir(root)
    run.create()
    journal.create(run)
    names = instructions or "q" * len(pairs)
    texts = [(q, f"a{k}", "b") for k, q in enumerate(names)]
    rows = planned(texts, pair_id=ids or [None] * len(pairs))
    column = rows.pairs.schema.get_field_index("keys")
    keys = pa.array([[key(number) for number in pair] for pair in pairs], KEYS)
    changed = rows.pairs.set_column(column, PAIRS.field("keys"), keys)
    size = BucketSize(4 if instructions else 1000, 0)
    plan = PlanWriter(run, None, size=size, buckets=0)
    plan.add(replace(rows, pairs=changed))
    plan.commit()
    for number, numbers in enumerate(parts, 1):
        work = {0: Work(prompts=len(numbers), unique_tokens=20, computed_tokens=5)}
        commit_part(run, table(numbers), number, BatchProgress(pairs=1, work=work))
    return run


def recorded(run):
    """The run, with the record of the golden one: a scripted judge, pairwise."""
    write_record(run, read_record(RunDir(ROOT / "tests/golden/complete")))
    return run
