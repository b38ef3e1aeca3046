"""Reads of an earlier run become parts of this one: equal prompts cost no engine token."""

from __future__ import annotations

from steelyard.store import queries
from steelyard.store.journal import read_journal, require_intact
from steelyard.store.parts import PART_ROWS, commit_part, next_number
from steelyard.store.rundir import RunDir


def take_over(run: RunDir, other: RunDir) -> int:
    """Commit all good reads of `other` that this run's plan asks for and that it lacks.

    Keys hold the judge fingerprint, so that reads of another judge, protocol or template never
    match. The runs stay independent: the rows are copied.

    Returns:
        How many reads were taken.

    Raises:
        UsageError: `other` is no run directory.
        IntegrityFault: one of its parts is damaged.
    """
    origin = other.read_passport()["run"]
    theirs = read_journal(other.root)
    require_intact(other.root, theirs)
    first, taken = next_number(run), 0
    tables = queries.matching_reads(run, other, theirs, origin, PART_ROWS)
    for number, table in enumerate(tables, first):
        commit_part(run, table, number)
        taken += len(table)
    return taken
