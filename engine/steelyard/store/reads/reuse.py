"""Reads of an earlier run become parts of this one: equal prompts cost no engine token."""

from __future__ import annotations

from contextlib import closing

from steelyard.core.work import BatchProgress
from steelyard.errors import UsageError
from steelyard.store.reads.journal import load
from steelyard.store.reads.parts import PART_ROWS, commit_part, next_number
from steelyard.store.run_record import ScoredRecord, read_scored_record
from steelyard.store.rundir import RunDir
from steelyard.store.verdicts import queries


def reuse_reads(run: RunDir, other: RunDir) -> tuple[int, list[str]]:
    """Commit all good reads of `other` that this run's plan asks for and that it lacks.

    Keys hold the judge fingerprint, so that reads of another judge, protocol or template never
    match. The runs stay independent: the rows are copied.

    Returns:
        How many reads were taken, and notes for the user: damaged parts that were left out, or
        that the runs have different judges.

    Raises:
        UsageError: `other` is not a run directory, or is this run.
    """
    record = read_scored_record(other)
    if other.root.resolve() == run.root.resolve():
        raise UsageError(
            "a run cannot reuse itself",
            place=str(other.root),
            remedy="name an earlier run; what this run has read is never read again",
        )
    notes = []
    parts = load(other).parts
    theirs = [other.files.library_path(part.name) for part in parts if part.intact(other)]
    if damaged := len(parts) - len(theirs):
        notes.append(f"{damaged} damaged parts of {other.root} were left out")
    if not _forms(record) & _forms(read_scored_record(run)):
        notes.append(f"{other.root} has another judge, protocol or template: no prompt is equal")
    taken = 0
    with closing(queries.reusable_reads(run, theirs, record.run, PART_ROWS)) as tables:
        for number, (table, tokens) in enumerate(tables, next_number(run)):
            commit_part(run, table, number, BatchProgress(duplicate_tokens=tokens))
            taken += len(table)
    return taken, notes


def _forms(record: ScoredRecord) -> set[str]:
    """Return the fingerprints of the ways in which a run asks."""
    return {print_ for judge in record.judges for print_ in judge.part.fingerprints}
