"""Queries of the program itself: counts over a run, and reads that another run can give."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pyarrow as pa

from steelyard.core.schemas import READS
from steelyard.store.durable import writing
from steelyard.store.plan.files import load_manifest
from steelyard.store.reads import journal
from steelyard.store.rundir import RunDir
from steelyard.store.sql import Connection, one_row, sql_text
from steelyard.store.verdicts.database import workspace

# One row per prompt of a pair, and how many prompts of the plan have each key.
ASKED = "SELECT pair, bucket, unnest(keys) AS key FROM pairs_raw"
USES = f"""
WITH uses AS (SELECT key, bucket, count(*) AS n FROM ({ASKED}) GROUP BY key, bucket)
"""  # noqa: S608 - our own text


@contextmanager
def _workspace(
    run: RunDir, committed: Sequence[journal.Part], **more: Sequence[str]
) -> Iterator[Connection]:
    with (
        writing(run.root),
        workspace(run, load_manifest(run), committed, more=more) as connection,
    ):
        yield connection


def _count(run: RunDir, query: str, committed: Sequence[journal.Part] = ()) -> int:
    with _workspace(run, committed) as connection:
        (count,) = one_row(connection, query)
    return int(count)


def recount_pairs(run: RunDir) -> None:
    """Make the journal's sum of completed pairs equal a fresh count.

    It is exact during a session; reused reads and parts set aside change it.
    """
    committed = journal.load(run).parts
    counted = _count(
        run,
        f"SELECT count(*) FROM (SELECT pair FROM ({ASKED}) a"  # noqa: S608 - our own text
        " LEFT JOIN reads_raw r ON a.key = r.prompt_key"
        " GROUP BY pair HAVING count(*) = count(r.prompt_key))",
        committed,
    )
    off = counted - sum(part.pairs for part in committed)
    if off:
        first = replace(committed[0], pairs=committed[0].pairs + off)
        journal.rewrite(run, [first, *committed[1:]])


def unread_prompts(run: RunDir, judge: int, judges: int) -> int:
    """Count the unique prompts of a judge, one of several, that no part holds yet."""
    share = f"len(keys) // {judges}"
    return _count(
        run,
        "SELECT count(DISTINCT key) FROM (SELECT unnest(list_slice(keys,"  # noqa: S608
        f" {judge} * ({share}) + 1, {judge + 1} * ({share}))) AS key FROM pairs_raw) a"
        " ANTI JOIN reads_raw r ON a.key = r.prompt_key",
        journal.load(run).parts,
    )


def ambiguous_pair_ids(run: RunDir) -> int:
    """Count the pair_ids of the plan that several pairs of different content share."""
    return _count(
        run,
        "SELECT count(*) FROM (SELECT pair_id FROM pairs_raw GROUP BY pair_id"
        " HAVING min(keys) <> max(keys))",
    )


def duplicate_tokens(run: RunDir, committed: Sequence[journal.Part], name: str) -> int | None:
    """Sum the tokens that the duplicates of a part's prompts did not cost.

    Returns:
        None when the part does not fit: a key twice, one that the plan does not ask for, or one
        that a committed part has.
    """
    with _workspace(run, committed, candidate=[run.files.library_path(name)]) as connection:
        rows, keys, planned, taken, tokens = one_row(
            connection,
            f"""{USES}
            SELECT (SELECT count(*) FROM candidate),
              (SELECT count(DISTINCT prompt_key) FROM candidate),
              (SELECT count(*) FROM candidate c
                 JOIN uses ON c.prompt_key = uses.key AND c.bucket = uses.bucket),
              (SELECT count(*) FROM candidate c SEMI JOIN reads_raw USING (prompt_key)),
              (SELECT coalesce(sum((uses.n - 1) * c.prompt_tokens), 0) FROM candidate c
                 JOIN uses ON c.prompt_key = uses.key)""",  # noqa: S608 - our own text
        )
    return int(tokens) if rows == keys == planned and not taken else None


def reusable_reads(
    run: RunDir, theirs: Sequence[str], origin: str, rows: int
) -> Generator[tuple[pa.Table, int]]:
    """Yield good reads of another run for prompts of this one that are not read yet.

    With each table (READS) comes the sum of the tokens that the prompts' duplicates do not cost.

    Args:
        run: this run.
        theirs: files of the other run's parts, checked.
        origin: what `reused_from` says of reads that the other run made itself.
        rows: of a table, at most.
    """
    columns = [name for name in READS.names if name not in {"bucket", "reused_from"}]
    chosen = ", ".join(f"r.{name}" for name in columns)
    with _workspace(run, journal.load(run).parts, theirs=theirs) as connection:
        reader = connection.sql(
            f"""{USES}
            SELECT {chosen}, uses.bucket,
              coalesce(r.reused_from, {sql_text(origin)}) AS reused_from,
              (uses.n - 1) * r.prompt_tokens AS duplicate_tokens
            FROM theirs r JOIN uses ON r.prompt_key = uses.key
            ANTI JOIN reads_raw own ON r.prompt_key = own.prompt_key
            WHERE r.status = 'ok' ORDER BY uses.bucket"""  # noqa: S608 - our own names
        ).to_arrow_reader(rows)
        for batch in reader:
            table = pa.Table.from_batches([batch])
            tokens = int(np.asarray(table["duplicate_tokens"]).sum())
            yield table.select(READS.names).cast(READS), tokens
