"""Files that are one JSON object: rows in a wrapper, `{"data": [...]}`, or columns of pandas."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

import msgspec

from steelyard.errors import InputRefused
from steelyard.input.packed import LONGEST

WRAPPERS = ("data", "rows", "examples", "records", "items", "instances")  # names of the rows
_BAD = (msgspec.DecodeError, ValueError, RecursionError)
_RAWS, _OBJECT = list[msgspec.Raw], dict[str, msgspec.Raw]
_BY_COLUMNS = (
    "write one object per row: in pandas df.to_json(FILE, orient='records', lines=True); or give"
    " the data frame itself to steelyard.score"
)


def read_document(first: bytes, blocks: Iterator[bytes]) -> tuple[bytes | None, Iterator[bytes]]:
    """Return a file's whole text if it may be one object, and what is left to read.

    It may be where nothing follows the first line, or where that line does not end an object. The
    first value is None, and all is left, where each line has an object, or the file is large.
    """
    line, newline, rest = first.lstrip().partition(b"\n")
    taken, size = [first], len(first)
    lines = newline and line.rstrip().endswith(b"}") and rest.strip()
    if lines or not line.startswith(b"{"):
        return None, chain(taken, blocks)
    for block in blocks:
        taken.append(block)
        size += len(block)
        if size > LONGEST:
            return None, chain(taken, blocks)
    return b"".join(taken), iter(())


def rows_of_document(document: bytes, place: str) -> Sequence[bytes] | None:
    """Return the rows of a wrapper, each as JSON; None: it is not one object, or a row.

    Raises:
        InputRefused: the object has columns, or rows by number, as pandas writes them.
    """
    try:
        entries = msgspec.json.decode(document, type=_OBJECT)
    except _BAD:
        return None
    kinds = {name: bytes(value).lstrip()[:1] for name, value in entries.items()}
    lists = [name for name, kind in kinds.items() if kind == b"["]
    if len(lists) == 1 and (len(entries) == 1 or lists[0] in WRAPPERS):
        rows = [bytes(row) for row in msgspec.json.decode(entries[lists[0]], type=_RAWS)]
        if rows and all(row[:1] == b"{" for row in rows):
            return rows
    if what := _columns(entries, kinds):
        raise InputRefused(f"the file is one JSON object {what}", place=place, remedy=_BY_COLUMNS)
    return None


def _columns(entries: Mapping[str, msgspec.Raw], kinds: Mapping[str, bytes]) -> str:
    """Return what an object has in place of a row, if it is certain to be none."""
    if kinds.keys() >= {"columns", "index", "data"}:
        return "with columns, index and data"
    if len(set(kinds.values())) != 1:
        return ""
    kind = next(iter(kinds.values()))
    if kind == b"{":
        if all(name.isdecimal() for name in entries):
            return "with rows by number"
        inner = [msgspec.json.decode(value, type=_OBJECT) for value in entries.values()]
        if all(each and all(name.isdecimal() for name in each) for each in inner):
            return "of columns, as pandas' to_json() writes it by itself"
    if kind == b"[" and len(entries) > 1:
        lists = [msgspec.json.decode(value, type=_RAWS) for value in entries.values()]
        plain = all(bytes(item)[:1] not in b"{[" for items in lists for item in items)
        if plain and len({len(items) for items in lists}) == 1:
            return "of columns, each a list"
    return ""
