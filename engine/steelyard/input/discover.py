"""Finds the files that a user names: files, folders, patterns and URLs -> an ordered list."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from steelyard.errors import InputRefused, did_you_mean
from steelyard.input.filesystem import disk_fault, driver, local_path, protocol, remote_fault
from steelyard.input.formats import AS_PARQUET, SUFFIXES, Format, data_files, format_of, table_of
from steelyard.input.lake import is_delta
from steelyard.input.problems import attempt_each, printable, refusal

_ANY = f"name a file ({SUFFIXES}), a folder or a pattern"
# What the root of a table has whose log alone says which files are current: a folder in it, a file
# in that folder, and how to get its rows.
_DUCKDB = "duckdb -c \"install {0}; load {0}; copy (from {0}_scan('{1}')) to 'data.parquet'\""
_TABLES = {
    "Delta Lake": ("_delta_log", "*", _DUCKDB.format("delta", "{0}")),
    "Iceberg": ("metadata", "*.metadata.json*", _DUCKDB.format("iceberg", "{0}")),
    "Hudi": (".hoodie", "*", "spark.read.format('hudi').load('{0}').write.parquet('data')"),
}


@dataclass(frozen=True, slots=True)
class Source:
    """One input file."""

    name: str  # relative to what the inputs have in common; unique, valid UTF-8
    path: str  # absolute path, or URL
    format: Format = AS_PARQUET
    origin: str = ""  # the path of the file that this one was made of (`convert`)


class _Match(NamedTuple):
    root: str  # the folder that was named, or that holds the named file; may be a URL
    paths: tuple[str, ...]


def discover(inputs: Sequence[str | os.PathLike[str]]) -> tuple[Source, ...]:
    """Return the files that the inputs name, ordered by name, each real file once.

    A folder names its files at any depth and a pattern (`*`, `?`, `[...]`, `**`) the matching
    ones, as far as their names say a format (`formats.data_files`); files and folders whose names
    begin with `.` or `_` are skipped there, unless the pattern names them. A file that is given
    itself may have any name, and is Parquet if that says nothing. `file.duckdb::table` is a table.
    The order does not depend on that of the inputs.

    Raises:
        InputRefused: an input does not exist, holds no file with rows, or is part of a table that
            is more than its files (Delta Lake, Iceberg, Hudi); all such inputs at once.
        EnvironmentFault: a URL's driver is missing or cannot reach it.
    """
    problems: list[InputRefused] = []
    matches = attempt_each(_find, [os.fspath(item) for item in inputs], problems)
    if problems:
        raise refusal(problems)
    if not matches:
        raise InputRefused("no input was given", remedy=_ANY)
    return _name(matches)


def check_extent(inputs: Sequence[str], most: int) -> None:
    """Refuse folders and patterns on this machine that lead through more than `most` folders.

    Raises:
        InputRefused: to list what one of them leads to could take very long.
    """
    for text in inputs:
        if protocol(text) or not _is_path(text):
            continue
        path = local_path(text)
        is_pattern = glob.has_magic(path) and not os.path.lexists(path)
        root = _static_part(path) if is_pattern else path
        named = path[len(root) :]
        bounded = is_pattern and "**" not in named and format_of(path) is not None
        deepest = named.count("/") - 1 if bounded else most
        seen: set[str] = set()
        for count, (here, folders, _) in enumerate(os.walk(root or "/", followlinks=True), 1):
            if count > most:
                cause = f"leads through more than {most:,} folders, and is not listed"
                raise _missing(text, cause, "put the shards into a separate folder")
            hidden = "/." in named or "/_" in named
            real = os.path.realpath(here) if not is_pattern else ""
            ends = here[len(root) :].count("/") >= deepest or real in seen
            folders[:] = [x for x in folders if hidden or x[0] not in "._"] if not ends else []
            seen.update([real] if real else [])


def _find(text: str) -> _Match:
    name = protocol(text)
    if name:
        return _find_remote(text, name)
    if not _is_path(text):
        raise _missing(text, "is not a path", _ANY)
    path = local_path(text)
    if table_of(path) and not os.path.lexists(path):
        return _find_table(text, path)
    try:
        match = _find_local(text, path)
        _check_files([x for x in match.paths if not (x == path and is_delta(x))])
    except OSError as error:
        if fault := disk_fault(printable(text), error):
            raise fault from None
        place = os.fsdecode(error.filename or text)
        cause = f"cannot be read: {error.strerror}"
        raise _missing(place, cause, "check the path and its permissions") from None
    return match


def _is_path(text: str) -> bool:
    try:
        return bool(text) and b"\0" not in os.fsencode(local_path(text))
    except (RuntimeError, UnicodeEncodeError):  # no such user; half a character
        return False


def _find_local(text: str, path: str) -> _Match:
    if Path(path).is_file():
        return _Match(str(Path(path).parent), (path,))
    if Path(path).is_dir():
        if is_delta(path):
            return _Match(str(Path(path).parent), (path,))
        if not (files := data_files(printable(text), list(_walk(path)))):
            raise _empty_folder(text, path)
        return _Match(path, tuple(files))
    if os.path.lexists(path):
        raise _missing(text, "is not a file or folder that can be read", _ANY)
    if not glob.has_magic(path):
        raise _missing(text, "no such file or folder", _near(path))
    root = _static_part(path)
    named = path[len(root) :]
    hidden = "/." in named or "/_" in named
    paths: list[str] = []
    for match in sorted(glob.glob(path, recursive=True, include_hidden=hidden)):  # noqa: PTH207 (as typed)
        if Path(match).is_dir():
            if not named.endswith("**"):
                paths += _walk(match)
        elif hidden or not _is_hidden(match[len(root) :]):
            paths.append(match)
    if not (paths := data_files(printable(text), paths)):
        raise _missing(text, f"the pattern matches no file ({SUFFIXES})", "check it with: ls")
    return _Match(root, tuple(paths))


def _find_table(text: str, path: str) -> _Match:
    file, _ = table_of(path) or ("", "")
    if not Path(file).is_file():
        raise _missing(text, f"there is no database {printable(file)}", _near(file))
    return _Match(str(Path(file).parent), (path,))


def _check_files(paths: Sequence[str]) -> None:
    """Refuse what is not a file, such as a pipe, and the files of tables with a log."""
    for path in paths:
        file, _ = (None if os.path.lexists(path) else table_of(path)) or (path, "")
        if not stat.S_ISREG(Path(file).stat().st_mode):
            raise _missing(path, "is not a file that can be read", _ANY)
    for folder in sorted({parent for path in paths for parent in Path(path).parents}):
        for name, (marker, inside, _) in _TABLES.items():
            if next((folder / marker).glob(inside), None) is not None:
                raise table_refused(str(folder), name)


def table_refused(root: str, name: str) -> InputRefused:
    """Return the error for files of a table that is more than they are."""
    command = _TABLES[name][-1].format(printable(root))
    cause = f"this is a table of {name}, whose log alone says which of its files are current"
    remedy = f"write its current rows to Parquet and name that file, for example: {command}"
    return _missing(root, cause, remedy)


def _walk(folder: str) -> Iterator[str]:
    """Yield the files below a folder, through links, each real folder once."""
    seen: set[str] = set()

    def stop(error: OSError) -> None:
        raise error

    for here, folders, files in os.walk(folder, followlinks=True, onerror=stop):
        real = os.path.realpath(here)
        folders[:] = sorted(x for x in folders if x[0] not in "._") if real not in seen else []
        if real in seen:
            continue
        seen.add(real)
        for file in sorted(files):
            if file[0] not in "._":
                yield str(Path(here, file))


def _empty_folder(text: str, path: str) -> InputRefused:
    others = sorted(x.name for x in Path(path).iterdir() if x.name[0] not in "._")
    holds = f"it holds {', '.join(map(printable, others[:3]))}" if others else "it is empty"
    cause = f"the folder holds no file with rows ({SUFFIXES}); {holds}"
    return _missing(text, cause, "name a folder with such files, or the files themselves")


def _find_remote(text: str, name: str) -> _Match:
    fs = driver(name)
    try:
        path = fs._strip_protocol(text)
        if glob.has_magic(path) and not fs.exists(path):
            root, paths = _static_part(path), fs.glob(path)
        elif fs.isfile(path):
            root, paths = path.rpartition("/")[0], [path]
        else:
            root, paths = path, fs.find(path)
        _check_remote(fs, root, paths)
    except InputRefused:
        raise
    except Exception as error:  # drivers raise what their client libraries raise
        raise remote_fault(printable(text), error) from error
    named = path[len(root) :]
    hidden = "/." in named or "/_" in named
    visible = [x for x in sorted(paths) if hidden or not _is_hidden(x[len(root) :])]
    chosen = [path] if path in paths else data_files(printable(text), visible)
    if not chosen:
        raise _missing(text, f"no file with rows there ({SUFFIXES})", "check the address")
    return _Match(fs.unstrip_protocol(root), tuple(map(fs.unstrip_protocol, chosen)))


def _check_remote(fs: Any, root: str, paths: Sequence[str]) -> None:  # noqa: ANN401
    """Refuse the files of tables with a log: below `root`, or where that is part of one."""
    for path in paths:
        above, _, _ = path.rpartition("/")
        folder, _, last = above.rpartition("/")
        for name, (marker, inside, _) in _TABLES.items():
            if last == marker and fnmatch(path.rpartition("/")[2], inside):
                raise table_refused(fs.unstrip_protocol(folder), name)
    for folder in accumulate(root.split("/"), "{}/{}".format):
        for name, (marker, _, _) in _TABLES.items():
            if marker[0] in "._" and folder and _exists(fs, f"{folder}/{marker}"):
                raise table_refused(fs.unstrip_protocol(folder), name)


def _exists(fs: Any, path: str) -> bool:  # noqa: ANN401 (fsspec has no types)
    try:
        return bool(fs.exists(path))
    except ValueError:  # above a repository of the Hub there are no folders
        return False


def _is_hidden(relative: str) -> bool:
    return any(part[:1] in {".", "_"} for part in relative.split("/"))


def _static_part(pattern: str) -> str:
    """Return the folders before a pattern's first wildcard."""
    parts = pattern.split("/")
    first = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    return "/".join(parts[:first])


def _near(path: str) -> str:
    folder, base = Path(path).parent, Path(path).name
    if not folder.is_dir():
        return f"there is no folder {printable(str(folder))} either; check the path"
    return did_you_mean(base, [x.name for x in folder.iterdir()], "check the path")


def _missing(text: str, cause: str, remedy: str) -> InputRefused:
    return InputRefused(cause, place=printable(text) or "''", remedy=remedy)


def _name(matches: Sequence[_Match]) -> tuple[Source, ...]:
    """Name files relative to the inputs' common folder; with local files, URLs stay whole."""
    roots: dict[str, list[tuple[str, ...]]] = {}
    for item in matches:
        roots.setdefault(protocol(item.root), []).append(_segments(item.root))
    shared = {kind: len(os.path.commonprefix(items)) for kind, items in roots.items()}  # noqa: RUF071 (tuples)
    named: dict[str, str] = {}
    for path in (path for item in matches for path in item.paths):
        kind = protocol(path)
        inner = "/".join(_segments(path)[shared[kind] :])
        name = path if kind and len(roots) > 1 else inner
        named[name.encode("utf-8", "backslashreplace").decode()] = path
    sources: dict[str, Source] = {}
    for name in sorted(named, key=lambda name: name.split("/")):
        path = named[name]
        real = path if protocol(path) else str(Path(path).resolve())
        sources.setdefault(real, _source(name, path))
    return tuple(sources.values())


def _source(name: str, path: str) -> Source:
    if not protocol(path) and is_delta(path):
        return Source(name, path, Format("delta"))
    table = None if protocol(path) or os.path.lexists(path) else table_of(path)
    if table:
        return Source(name, table[0], Format("duckdb", table=table[1]))
    return Source(name, path, format_of(path) or AS_PARQUET)


def _segments(path: str) -> tuple[str, ...]:
    body = path.split("://", 1)[1] if protocol(path) else path
    return tuple(part for part in body.split("/") if part)
