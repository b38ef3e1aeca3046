"""The commit log: one line a committed part. A part that has no line does not count.

Every line carries a check of itself. A crash can tear only the last line; that line, or one that
was damaged later, simply commits nothing, and the prompts of its part are read again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import xxhash

from steelyard.core.work import Work
from steelyard.errors import IntegrityFault
from steelyard.store.durable import file_digest, write_text, writing

NAME = "journal.jsonl"


@dataclass(frozen=True, slots=True)
class Part:
    """A committed part: a Parquet file of reads, and the sums over it that `status` shows."""

    name: str  # relative to the run directory
    rows: int
    bytes: int
    digest: str
    buckets: list[int]
    at: str  # ISO 8601, UTC
    pairs: int  # pairs that this part completes
    counts: dict[str, int] = field(default_factory=dict)  # reads by status, tokens, reused
    # By bucket, the fields of core.work.Work; empty for reads that were taken over.
    work: dict[str, dict[str, float | None]] = field(default_factory=dict)

    def intact(self, run: Path) -> bool:
        """Whether the file is there with the bytes that were committed."""
        path = run / self.name
        try:
            return path.stat().st_size == self.bytes and file_digest(path) == self.digest
        except FileNotFoundError:
            return False


def create(run: Path) -> None:
    """Begin an empty journal: from here on a missing one is damage."""
    write_text(run / NAME, "")


def read_journal(run: Path) -> list[Part]:
    """The committed parts, in the order of their commits. Lines that fail their check are none."""
    try:
        raw = (run / NAME).read_bytes()
    except FileNotFoundError:
        return []
    lines = raw.split(b"\n")[:-1]  # what follows the last line feed was torn off
    return [part for part in map(_parse, lines) if part is not None]


def work_by_bucket(parts: Iterable[Part]) -> dict[int, Work]:
    """What the reads of each bucket took, by ascending bucket."""
    found: dict[int, Work] = {}
    for part in parts:
        for bucket, values in part.work.items():
            found.setdefault(int(bucket), Work()).add(Work(**values))  # type: ignore[arg-type]
    return dict(sorted(found.items()))


def damaged_lines(run: Path) -> int:
    """How many whole lines of the journal fail their check."""
    try:
        lines = (run / NAME).read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return 0
    return sum(_parse(line) is None for line in lines)


def append(run: Path, part: Part) -> None:
    """Commit a part, whose file is already durable."""
    line = _line(part)
    path = run / NAME
    with writing(path):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            _write_line(handle, line)
        finally:
            os.close(handle)


def _write_line(handle: int, line: bytes) -> None:
    """Append wholly or not at all: a torn line would swallow the one after it."""
    before = os.fstat(handle).st_size
    try:
        written = os.write(handle, line)
        while written < len(line):
            written += os.write(handle, line[written:])
        os.fsync(handle)
    except OSError:
        os.ftruncate(handle, before)
        raise


def rewrite(run: Path, parts: Iterable[Part]) -> None:
    """Replace the journal by these parts, atomically; the writer's repair before it goes on."""
    write_text(run / NAME, b"".join(map(_line, parts)).decode())


def committed_parts(run: Path) -> list[Part]:
    """The committed parts for a reader, each with the bytes that were committed.

    Raises:
        IntegrityFault: a part differs, or the journal itself is damaged or gone.
    """
    if damaged_lines(run) or not (run / NAME).exists():
        raise IntegrityFault(
            "the journal is damaged or missing",
            place=str(run / NAME),
            effect="no number is computed without it; the parts are still there",
            remedy=f"`steelyard resume {run}` checks the parts and takes them in again",
        )
    parts = read_journal(run)
    require_intact(run, parts)
    return parts


def require_intact(run: Path, parts: Iterable[Part]) -> None:
    """Check every part's bytes.

    Raises:
        IntegrityFault: names the first that differs.
    """
    for part in parts:
        if not part.intact(run):
            raise IntegrityFault(
                "a committed part is damaged or missing",
                place=str(run / part.name),
                effect="no number is computed from it",
                remedy=f"`steelyard resume {run}` sets it aside and reads its prompts again",
            )


def _line(part: Part) -> bytes:
    body = json.dumps(asdict(part), separators=(",", ":"), sort_keys=True)
    check = xxhash.xxh3_64_hexdigest(body.encode())
    return f'{{"check":"{check}","part":{body}}}\n'.encode()


def _parse(line: bytes) -> Part | None:
    try:
        entry: dict[str, Any] = json.loads(line)
        part = Part(**entry["part"])
    except (ValueError, KeyError, TypeError):
        return None
    return part if _line(part) == line + b"\n" else None
