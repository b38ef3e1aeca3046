"""Recovery, the writer's first act: journal and parts agree again, whatever happened before."""

from __future__ import annotations

import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from steelyard.core.schemas import READS
from steelyard.core.work import BatchProgress
from steelyard.store.durable import TEMPORARY
from steelyard.store.reads.journal import load, read_journal, rewrite
from steelyard.store.reads.parts import journal_part
from steelyard.store.rundir import RunDir
from steelyard.store.verdicts import queries


def recover(run: RunDir) -> list[str]:
    """Check every part, drop from the journal what is damaged, adopt what the journal lost.

    A part is renamed only when it is whole, and the line in the journal comes after: so a crash in
    between, or a damaged journal, leaves whole parts without a line. They are adopted if their
    page checksums are right and every read is one that the plan asks for and no other part has.
    Other files are set aside under `reads/damaged/`.

    Returns:
        Notes for the user: which files are missing, were set aside or were adopted.
    """
    run.reads.mkdir(exist_ok=True)
    log = load(run.root)
    intact = [part for part in log.parts if part.intact(run.root)]
    kept = {part.name for part in intact}
    lost = [part.name for part in log.parts if part.name not in kept]
    if lost or log.damaged or log.torn:
        rewrite(run.root, intact)
    missing = [name for name in lost if not (run.root / name).exists()]
    notes = [f"{name} is missing: its prompts are read again" for name in missing]
    for path in sorted(run.reads.iterdir()):
        name = f"reads/{path.name}"
        if name in kept or path.is_dir():
            continue
        if path.suffix == TEMPORARY:
            path.unlink()
        elif name not in lost and _adopt(run, path):
            notes.append(f"{name} was not in the journal: checked and added")
        else:
            folder = run.reads / "damaged"
            folder.mkdir(exist_ok=True)
            path.replace(folder / f"{time.time_ns()}-{path.name}")
            notes.append(f"{name} is damaged: set aside, its prompts are read again")
    return notes


def _adopt(run: RunDir, path: Path) -> bool:
    """Journal a part that has no line, if all of it can be trusted."""
    try:
        table = pq.read_table(path, page_checksum_verification=True, use_threads=False)
    except (OSError, pa.ArrowException):
        return False
    if not table.schema.equals(READS):
        return False
    tokens = queries.duplicate_tokens(run, read_journal(run.root), path)
    if tokens is None:
        return False
    journal_part(run, path, table, BatchProgress(duplicate_tokens=tokens))
    return True
