"""The commit log: one line per committed part. A part without a line does not count.

Every line carries its own checksum. A crash can tear only the last line. Such a line, or one that
was damaged later, commits nothing, and the prompts of its part are read again.
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
    committed: str  # ISO 8601, UTC; `at` in the file
    pairs: int  # pairs that this part completes
    counts: dict[str, int] = field(default_factory=dict)  # reads by status, tokens, reused
    # By bucket, the fields of core.work.Work; empty for reads of an earlier run.
    work: dict[str, dict[str, float | None]] = field(default_factory=dict)

    def intact(self, run: Path) -> bool:
        """Return whether the file is there with the bytes that were committed."""
        path = run / self.name
        try:
            return path.stat().st_size == self.bytes and file_digest(path) == self.digest
        except FileNotFoundError:
            return False


@dataclass(frozen=True, slots=True)
class Journal:
    """A journal as it was read, at one moment."""

    parts: tuple[Part, ...] = ()  # in the order of their commits
    missing: bool = False
    damaged: bool = False  # a whole line fails its check
    torn: bool = False  # the last line is not whole, as while it is written


def create(run: Path) -> None:
    """Begin an empty journal: from here on a missing one is damage."""
    write_text(run / NAME, "")


def load(run: Path) -> Journal:
    """Read the journal. Lines that fail their check commit nothing."""
    try:
        *lines, rest = (run / NAME).read_bytes().split(b"\n")
    except FileNotFoundError:
        return Journal(missing=True)
    parts = [_parse(line) for line in lines]
    whole = tuple(part for part in parts if part is not None)
    return Journal(whole, damaged=len(whole) < len(parts), torn=bool(rest))


def read_journal(run: Path) -> tuple[Part, ...]:
    """Return the committed parts, in the order of their commits."""
    return load(run).parts


def work_by_bucket(parts: Iterable[Part]) -> dict[int, Work]:
    """Return what the reads of each bucket took, by ascending bucket."""
    total: dict[int, Work] = {}
    for part in parts:
        for bucket, values in part.work.items():
            total.setdefault(int(bucket), Work()).add(Work(**values))  # type: ignore[arg-type]
    return dict(sorted(total.items()))


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
    """Replace the journal by these parts atomically, as the writer's repair before it goes on."""
    write_text(run / NAME, b"".join(map(_line, parts)).decode())


def require_sound(run: Path, journal: Journal) -> None:
    """Check that a reader can rely on a journal and its parts.

    Raises:
        IntegrityFault: the journal is damaged or missing, or a part's bytes differ.
    """
    if journal.damaged or journal.missing:
        raise IntegrityFault(
            "the journal is damaged or missing",
            place=str(run / NAME),
            effect="no number is computed without it; the parts are still there",
            remedy=f"`steelyard resume {run}` checks the parts and adds them again",
        )
    for part in journal.parts:
        if not part.intact(run):
            raise IntegrityFault(
                "a committed part is damaged or missing",
                place=str(run / part.name),
                effect="no number is computed from it",
                remedy=f"`steelyard resume {run}` sets it aside and reads its prompts again",
            )


def _line(part: Part) -> bytes:
    content = asdict(part)
    content["at"] = content.pop("committed")
    body = json.dumps(content, separators=(",", ":"), sort_keys=True)
    check = xxhash.xxh3_64_hexdigest(body.encode())
    return f'{{"check":"{check}","part":{body}}}\n'.encode()


def _parse(line: bytes) -> Part | None:
    try:
        entry: dict[str, Any] = json.loads(line)
        content = entry["part"]
        part = Part(committed=content.pop("at"), **content)
    except (ValueError, KeyError, TypeError):
        return None
    return part if _line(part) == line + b"\n" else None
