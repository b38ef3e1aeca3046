"""The commit log: one line per committed part. A part without a line does not count.

Every line carries its own checksum. A crash can tear only the last line. Such a line, or one that
was damaged later, commits nothing, and the prompts of its part are read again. When all prompts
are read, `complete.json` keeps what the journal held, so that no line can be lost unnoticed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import msgspec
import xxhash

from steelyard.core.sealed import seal, unseal
from steelyard.core.work import Work
from steelyard.errors import IntegrityFault
from steelyard.store.durable import writing
from steelyard.store.rundir import COMPLETE, JOURNAL, READS_FOLDER, RunDir

# The only names that a line may have: no path of a journal leads anywhere else.
PART_NAME = re.compile(rf"{READS_FOLDER}/part-([0-9]{{8,}})\.parquet")


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
    work: dict[str, dict[str, int | float | None]] = field(default_factory=dict)

    def intact(self, run: RunDir) -> bool:
        """Return whether the file is there with the bytes that were committed."""
        files = run.files
        if not files.exists(self.name):
            return False
        return files.size(self.name) == self.bytes and files.digest(self.name) == self.digest


class Completion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the journal held when all prompts were read."""

    parts: int
    state: str  # Journal.state


@dataclass(frozen=True, slots=True)
class Journal:
    """A journal as it was read, at one moment."""

    parts: tuple[Part, ...] = ()  # in the order of their commits
    missing: bool = False
    damaged: bool = False  # a whole line fails its check
    torn: bool = False  # the last line is not whole, as while it is written
    lost: str | None = None  # what is gone from it, while no writer is at work

    @property
    def state(self) -> str:
        """Hash of the committed parts, 32 hex digits."""
        text = "".join(f"{part.name} {part.digest} {part.pairs}\n" for part in self.parts)
        return xxhash.xxh3_128_hexdigest(text.encode())


def create(run: RunDir) -> None:
    """Begin an empty journal: from here on a missing one is damage."""
    with writing(run.root / JOURNAL):
        run.files.write(JOURNAL, b"")


def load(run: RunDir, *, at_rest: bool = False) -> Journal:
    """Read the journal. Lines that fail their check commit nothing.

    Args:
        run: the run directory.
        at_rest: whether nobody writes to it, as its writer knows; otherwise its lock says so.
    """
    journal = _load(run)
    if journal.lost is None or at_rest:
        return journal
    if not run.locked():
        journal = _load(run)  # its writer may have ended in between
    return replace(journal, lost=None) if run.locked() else journal


def _load(run: RunDir) -> Journal:
    complete = _read_completion(run)  # first: what a run commits meanwhile is not lost
    try:
        *lines, rest = run.files.read(JOURNAL).split(b"\n")
    except FileNotFoundError:
        return Journal(missing=True)
    parts = [_parse(line) for line in lines]
    whole = tuple(part for part in parts if part is not None)
    journal = Journal(whole, damaged=len(whole) < len(parts), torn=bool(rest))
    return replace(journal, lost=_find_loss(run, journal, complete))


def _find_loss(run: RunDir, journal: Journal, complete: Completion | str | None) -> str | None:
    """Say what is gone from a journal that nobody writes to, if anything is."""
    if isinstance(complete, str):
        return complete
    if complete is not None and complete.state != journal.state:
        return (
            f"the run was complete with {complete.parts:,} parts, and the journal has"
            f" {len(journal.parts):,} or other ones"
        )
    if journal.torn:
        return "the last line of the journal is cut off"
    kept = {part.name for part in journal.parts}
    strange = [name for name in part_files(run) if name not in kept]
    if len(strange) > 1:  # one is what a crash between a part and its line leaves
        return f"{len(strange):,} parts have no line in the journal"
    return None


def part_files(run: RunDir) -> list[str]:
    """Return the names of all parts that are on the disk, sorted."""
    if not run.files.exists(READS_FOLDER):
        return []
    names = (f"{READS_FOLDER}/{name}" for name in run.files.names(READS_FOLDER))
    return [name for name in names if PART_NAME.fullmatch(name)]


def _read_completion(run: RunDir) -> Completion | str | None:
    """Read complete.json; None: the run was never complete; a text: what is wrong with it."""
    try:
        content, sealed = unseal(run.files.read(COMPLETE))
        return msgspec.convert(content, Completion) if sealed else f"{COMPLETE} has no check"
    except FileNotFoundError:
        return None
    except (ValueError, msgspec.ValidationError):
        return f"{COMPLETE} is damaged"


def mark_complete(run: RunDir, journal: Journal) -> None:
    """Keep what the journal holds now that all prompts are read."""
    content = msgspec.to_builtins(Completion(len(journal.parts), journal.state))
    with writing(run.root / COMPLETE):
        run.files.write(COMPLETE, seal(content))


def read_journal(root: Path) -> tuple[Part, ...]:
    """Return the committed parts of a run directory, in the order of their commits."""
    return load(RunDir(root)).parts


def work_by_bucket(parts: Iterable[Part]) -> dict[int, Work]:
    """Return what the reads of each bucket took, by ascending bucket."""
    total: dict[int, Work] = {}
    for part in parts:
        for bucket, values in part.work.items():
            total.setdefault(int(bucket), Work()).add(Work(**values))  # type: ignore[arg-type]
    return dict(sorted(total.items()))


def append(run: RunDir, part: Part) -> None:
    """Commit a part, whose file is already durable."""
    with writing(run.root / JOURNAL):
        run.files.append(JOURNAL, _line(part))


def rewrite(run: RunDir, parts: Iterable[Part]) -> None:
    """Replace the journal by these parts atomically, as the writer's repair before it goes on."""
    with writing(run.root / JOURNAL):
        run.files.write(JOURNAL, b"".join(map(_line, parts)))


def require_whole(run: RunDir, journal: Journal) -> None:
    """Check that a reader can rely on a journal.

    Raises:
        IntegrityFault: it is damaged or missing, or has lost lines.
    """
    if journal.damaged or journal.missing or journal.lost:
        raise IntegrityFault(
            journal.lost or "the journal is damaged or missing",
            place=str(run.root / JOURNAL),
            effect="no number is computed without it; the parts are still there",
            remedy=f"`steelyard resume {run.root}` checks the parts and adds them again",
        )


def require_sound(run: RunDir, journal: Journal) -> None:
    """Check that a reader can rely on a journal and its parts.

    Raises:
        IntegrityFault: the journal is not whole, or a part's bytes differ.
    """
    require_whole(run, journal)
    for part in journal.parts:
        if not part.intact(run):
            raise IntegrityFault(
                "a committed part is damaged or missing",
                place=str(run.root / part.name),
                effect="no number is computed from it",
                remedy=f"`steelyard resume {run.root}` sets it aside and reads its prompts again",
            )


def _line(part: Part) -> bytes:
    content = asdict(part)
    content["at"] = content.pop("committed")
    body = json.dumps(content, separators=(",", ":"), sort_keys=True)
    check = xxhash.xxh3_64_hexdigest(body.encode())
    return f'{{"check":"{check}","part":{body}}}\n'.encode()


def _parse(line: bytes) -> Part | None:
    """Read a line; None if it is not exactly what `_line` writes."""
    try:
        content = json.loads(line)["part"]
        part = msgspec.convert({"committed": content.pop("at"), **content}, Part)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    except msgspec.ValidationError:
        return None
    return part if PART_NAME.fullmatch(part.name) and _line(part) == line + b"\n" else None
