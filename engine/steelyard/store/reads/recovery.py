"""Recovery, the writer's first act: journal and parts agree again, whatever happened before."""

from __future__ import annotations

import re

import pyarrow.parquet as pq

from steelyard.core.schemas import READS
from steelyard.core.work import BatchProgress
from steelyard.errors import IntegrityFault
from steelyard.input.footer import DECODE_ERRORS
from steelyard.store.durable import TEMPORARY, writing
from steelyard.store.reads.journal import PART_NAME, load, rewrite
from steelyard.store.reads.parts import journal_part
from steelyard.store.rundir import DATABASE, JOURNAL, READS_FOLDER, RunDir
from steelyard.store.verdicts import queries

DAMAGED = f"{READS_FOLDER}/damaged"
LEFTOVER = re.compile(
    rf"duckdb\.tmp|{re.escape(DATABASE)}\..*(tmp|wal|spill)|[a-z]+\.jsonl?{re.escape(TEMPORARY)}"
)


def recover(run: RunDir) -> list[str]:
    """Check every part, drop from the journal what is damaged, adopt what the journal lost.

    A part is renamed only when it is whole, and the line in the journal comes after: so a crash in
    between, or a damaged journal, leaves whole parts without a line. They are adopted if their
    page checksums are right and every read is one that the plan asks for and no other part has.
    Other files are set aside under `reads/damaged/`.

    Returns:
        Notes for the user: which files are missing, were set aside or were adopted.

    Raises:
        DiskFull: there is no room for a repair.
        EnvironmentFault: a file cannot be written.
    """
    files = run.files
    with writing(run.root):
        files.inside(READS_FOLDER).make()
        _remove_leftovers(run)
        _force(run)
        log = load(run)
        intact = [part for part in log.parts if part.intact(run)]
        kept = {part.name for part in intact}
        # Before the journal forgets them: nobody shall take them for parts that it lost.
        notes = [_set_aside(run, part.name) for part in log.parts if part.name not in kept]
        if notes or log.damaged or log.torn or log.missing:
            rewrite(run, intact)
        for name in files.names(READS_FOLDER, folders=False):
            part = f"{READS_FOLDER}/{name}"
            if part in kept:
                continue
            if name.endswith(TEMPORARY):
                files.remove(part)
            elif _adopt(run, part):
                notes.append(f"{part} was not in the journal: checked and added")
            else:
                notes.append(_set_aside(run, part))
    return notes


def _force(run: RunDir) -> None:
    """Make durable what is there: who wrote it may have been killed before he did."""
    if run.files.exists(JOURNAL):
        run.files.sync(JOURNAL)
    for folder in (READS_FOLDER, ""):
        run.files.sync(folder)


def _set_aside(run: RunDir, name: str) -> str:
    """Move a part to where no reads are taken from, if it is there; return a note."""
    files = run.files
    if not files.exists(name):
        return f"{name} is missing: its prompts are read again"
    files.inside(DAMAGED).make()
    files.move(name, f"{DAMAGED}/{files.disk.now_ns()}-{name.rpartition('/')[2]}")
    for folder in (DAMAGED, READS_FOLDER):
        files.sync(folder)
    return f"{name} is damaged: set aside, its prompts are read again"


def _remove_leftovers(run: RunDir) -> None:
    """Remove what a writer leaves that was killed while it wrote something new."""
    for name in run.files.names():
        if LEFTOVER.fullmatch(name):
            run.files.remove_tree(name)


def _adopt(run: RunDir, name: str) -> bool:
    """Journal a part that has no line, if all of it can be trusted."""
    if not PART_NAME.fullmatch(name):
        return False
    try:
        with run.files.open(name) as file:
            table = pq.read_table(file, page_checksum_verification=True, use_threads=False)
    except (*DECODE_ERRORS, IntegrityFault) as error:
        if getattr(error, "errno", None) is not None:  # the machine's, not Arrow's for damage
            raise
        return False
    if not table.schema.equals(READS) or not len(table):
        return False
    tokens = queries.duplicate_tokens(run, load(run).parts, name)
    if tokens is None:
        return False
    journal_part(run, name, table, BatchProgress(duplicate_tokens=tokens))
    return True
