"""The run record: what run.json says of a run, written when it is begun and never changed."""

from __future__ import annotations

import platform
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from typing import Any, TypeAlias

import msgspec

from steelyard.core.config import RunConfig
from steelyard.core.judges import JudgeCard
from steelyard.core.sealed import seal, unseal
from steelyard.core.version import __version__
from steelyard.errors import IntegrityFault, UsageError, escape
from steelyard.input import ShardSet
from steelyard.input.discover import Source
from steelyard.input.filesystem import protocol
from steelyard.plan.spec import JudgeForms, JudgingSpec
from steelyard.store.disk import now
from steelyard.store.durable import writing
from steelyard.store.rundir import RECORD, RunDir


class InputFile(msgspec.Struct, frozen=True):
    """A file of a run's input, where some were converted.

    `path` is relative to the run directory in run.json if the file is in it.
    """

    name: str
    path: str
    origin: str  # what it was made of; empty: it is the user's file

    def source(self) -> Source:
        """Return the file as an input."""
        return Source(self.name, self.path, origin=self.origin)


class InputRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """The files of a run's input: their common fingerprint, their names, and rows in all."""

    fingerprint: str
    shards: tuple[str, ...]
    rows: int
    files: tuple[InputFile, ...] = ()  # all of them, if one was converted

    @classmethod
    def of(cls, shards: ShardSet) -> InputRecord:
        """Return the record of an input."""
        files = tuple(InputFile(x.name, x.path, x.origin) for x in shards.sources)
        names = tuple(source.name for source in shards.sources)
        converted = any(file.origin for file in files)
        return cls(shards.fingerprint, names, shards.rows, files if converted else ())

    def moved(self, path_of: Callable[[str], str]) -> InputRecord:
        """Return the record with other paths of its files."""
        files = (msgspec.structs.replace(file, path=path_of(file.path)) for file in self.files)
        return msgspec.structs.replace(self, files=tuple(files))


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeRecord(JudgeCard):
    """A judge as it was when the run was begun, and what it is asked."""

    context_length: int
    part: JudgeForms


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    steelyard: str  # version
    run: str  # UUID
    created: str
    fingerprint: str  # hash of all that can change a verdict, 32 hex digits
    input: InputRecord
    machine: dict[str, Any]


class ScoredRecord(_Record, frozen=True, kw_only=True):
    """The record of a run that judges read."""

    config: RunConfig
    spec: JudgingSpec = msgspec.field(name="inquiry")
    judges: tuple[JudgeRecord, ...]

    def __post_init__(self) -> None:
        """Refuse a record whose parts contradict each other."""
        if self.spec.axes.judges != len(self.judges):
            raise ValueError("`inquiry.questions.judges` is not the number of judges")

    @property
    def judge(self) -> str:
        """Names of the judges, as verdicts show them."""
        return " + ".join(judge.name for judge in self.judges)

    @property
    def protocol(self) -> str:
        """Names of the protocols, as verdicts show them."""
        return self.spec.name

    @property
    def part(self) -> str | None:
        """Which rows of the input are judged, in words; None: all."""
        number, of = self.config.limit or self.config.sample, f"of {self.input.rows:,} rows"
        if number and self.config.pairs is not None:
            drawn = "drawn at random" if self.config.sample else "the first ones"
            return f"{number:,} instructions, {drawn}"
        if not 0 < number < self.input.rows:
            return None
        if self.config.limit:
            return f"the first {number:,} {of}"
        return f"{number:,} {of}, drawn at random"


class ImportRecord(msgspec.Struct, frozen=True, kw_only=True):
    """How tables of verdicts were read, and what came of it."""

    tables: tuple[str, ...]  # names
    paths: tuple[str, ...] | None = None  # None in records that do not have them
    columns: dict[str, str]  # by role
    b_wins: float  # the preference that means b
    a_wins: float
    pairs: int
    rejected: dict[str, int]  # rows by reason
    files: dict[str, str]  # digests of the files in RUN/imported, by name


class ImportedRecord(_Record, frozen=True, kw_only=True):
    """The record of a run whose verdicts were made elsewhere."""

    config: dict[str, str]
    judges: tuple[dict[str, str], ...]
    inquiry: dict[str, tuple[dict[str, str], ...]]
    imported: ImportRecord

    def __post_init__(self) -> None:
        """Refuse a record that lacks what is read of it."""
        if missing := {"judge", "protocol"} - self.config.keys():
            raise ValueError(f"`config` has no {min(missing)}")
        if missing := {"verdicts", "rejects"} - self.imported.files.keys():
            raise ValueError(f"`imported.files` has no {min(missing)}")

    @property
    def judge(self) -> str:
        """Who made the verdicts."""
        return self.config["judge"]

    @property
    def part(self) -> None:
        """All rows are imported."""

    @property
    def protocol(self) -> str:
        """The word that imported verdicts have in place of a protocol."""
        return self.config["protocol"]


RunRecord: TypeAlias = ScoredRecord | ImportedRecord

# Options that are written only where they are used: earlier versions do not know them.
_CHOICES = ("pairs", "limit", "sample")
# Keys that say how a run is judged: no unknown one may be passed over.
_DECISIVE = ("config", "inquiry", "judges", "imported")
# All keys of versions that wrote no check of the file.
_KEYS = {"steelyard", "run", "created", "fingerprint", "input", "machine", *_DECISIVE}


def common_fields(shards: ShardSet) -> dict[str, Any]:
    """Return the fields of a new record that say when, where and of which input it is."""
    return {
        "steelyard": __version__,
        "run": str(uuid.uuid4()),
        "created": now(),
        "input": InputRecord.of(shards),
        "machine": {
            "host": platform.node(),
            "system": platform.platform(),
            "python": sys.version.split()[0],
            **{name: metadata.version(name) for name in ("pyarrow", "duckdb", "numpy")},
        },
    }


def write_record(run: RunDir, record: RunRecord) -> None:
    """Write run.json."""
    inside = f"{run.root}/"
    record = msgspec.structs.replace(
        record, input=record.input.moved(lambda path: path.removeprefix(inside))
    )
    content = msgspec.to_builtins(record)
    for name in _CHOICES:
        if not content["config"].get(name):
            content["config"].pop(name, None)
    content |= {key: content.pop(key) for key in ("input", "machine")}
    with writing(run.record_file):
        run.files.write(RECORD, seal(content, indent=2))


def read_record(run: RunDir) -> RunRecord:
    """Read run.json.

    Keys of a later version are left out where they only describe the run, and refused where they
    say how it is judged.

    Raises:
        UsageError: this is not a run directory, or a later version made it.
        IntegrityFault: run.json is damaged.
    """
    content = read_content(run)
    kind: type[RunRecord] = ImportedRecord if "imported" in content else ScoredRecord
    try:
        record = msgspec.convert(content, kind)
    except (msgspec.ValidationError, ValueError) as error:  # half a character is a ValueError
        raise _damaged(run, str(error)) from None
    known = msgspec.to_builtins(record)
    for name in _DECISIVE:
        for key in _unknown_keys(content.get(name), known.get(name), name):
            raise UsageError(
                f"run.json has the key `{escape(key)}`, unknown to Steelyard {__version__}",
                place=str(run.record_file),
                effect="the run cannot be read as it was judged",
                remedy=f"use Steelyard {escape(record.steelyard)} or later",
            )
    return msgspec.structs.replace(record, input=record.input.moved(partial(_anchored, run)))


def _anchored(run: RunDir, path: str) -> str:
    return path if protocol(path) else str(run.root / path)


def read_scored_record(run: RunDir) -> ScoredRecord:
    """Read run.json of a run that judges read.

    Raises:
        UsageError: its verdicts were imported, or as `read_record`.
        IntegrityFault: run.json is damaged.
    """
    record = read_record(run)
    if isinstance(record, ScoredRecord):
        return record
    raise UsageError(
        "the verdicts of this run were imported: no judge reads anything for it",
        place=str(run.root),
        effect="nothing was changed",
        remedy=f"query them with steelyard sql {run.root} QUERY; to score, name a new --run",
    )


def read_content(run: RunDir) -> dict[str, Any]:
    """Return run.json as it is, without its check, and with the keys of later versions.

    Raises:
        UsageError: this is not a run directory.
        IntegrityFault: run.json is damaged, or missing from a run.
    """
    try:
        content, sealed = unseal(run.files.read(RECORD))
    except (FileNotFoundError, NotADirectoryError):
        if run.is_begun:
            raise IntegrityFault(
                "run.json is missing: this folder is a run that has lost it",
                place=str(run.root),
                effect="nothing can be read of it",
                remedy="bring run.json back, or score into a new run directory",
            ) from None
        raise UsageError(
            "this is not a run directory (it has no run.json)",
            place=str(run.root),
            remedy="name the folder that was given to `steelyard score --run`",
        ) from None
    except ValueError as error:
        raise _damaged(run, str(error)) from None
    if not sealed and (strange := content.keys() - _KEYS):
        raise _damaged(run, f"it has no check, and the unknown key {min(strange)}")
    return content


def _unknown_keys(content: object, known: object, path: str) -> Iterator[str]:
    """Yield what `content` has and `known` has not, as dotted keys."""
    if isinstance(content, dict) and isinstance(known, dict):
        for key, value in content.items():
            if key in known:
                yield from _unknown_keys(value, known[key], f"{path}.{key}")
            else:
                yield f"{path}.{key}"
    elif isinstance(content, list) and isinstance(known, list | tuple):
        for number, (value, other) in enumerate(zip(content, known, strict=False)):
            yield from _unknown_keys(value, other, f"{path}.{number}")


def _damaged(run: RunDir, why: str) -> IntegrityFault:
    return IntegrityFault(
        f"the file cannot be read: {escape(why, 200)}",
        place=str(run.record_file),
        effect="the run can be neither read nor resumed",
        remedy="score into a new run directory; `--reuse` needs an intact run.json too",
    )
