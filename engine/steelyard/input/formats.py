"""Which format a file has, by its name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from steelyard.errors import InputRefused
from steelyard.input.problems import printable

PARQUET = "parquet"
_KINDS = {
    ".parquet": PARQUET,
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "json"),
    **dict.fromkeys((".csv", ".tsv"), "csv"),
    **dict.fromkeys((".arrow", ".feather"), "arrow"),
}
_PACKED = {".gz": "gzip", ".zst": "zstd"}
DATABASES = (".duckdb", ".db")
_TABLE = "::"  # between a database and one of its tables
SUFFIXES = "Parquet, JSON Lines, JSON, CSV, TSV or Arrow"


class Format(NamedTuple):
    """How the rows of a file are written."""

    kind: str = PARQUET  # parquet, json, csv, arrow, duckdb
    packing: str | None = None  # gzip or zstd; None: as it is
    table: str = ""  # of a database


AS_PARQUET = Format()


def format_of(name: str) -> Format | None:
    """Return the format that a file's name says; None if it says none.

    >>> format_of("pairs.jsonl.gz")
    Format(kind='json', packing='gzip', table='')
    """
    folded = name.lower()
    packing = next((codec for end, codec in _PACKED.items() if folded.endswith(end)), None)
    if packing:
        folded = folded.rpartition(".")[0]
    kind = next((kind for end, kind in _KINDS.items() if folded.endswith(end)), None)
    if kind is None or (packing and kind not in {"json", "csv"}):
        return None
    return Format(kind, packing)


def table_of(text: str) -> tuple[str, str] | None:
    """Split `file.duckdb::table` into both; None if a text does not name a table so."""
    file, separator, table = text.rpartition(_TABLE)
    if separator and table and file.lower().endswith(DATABASES):
        return file, table
    return None


def data_files(place: str, paths: Sequence[str]) -> list[str]:
    """Return those of a folder's or a pattern's files that hold its rows: all of one format.

    These are its Parquet files if it has any. JSON that is not JSON Lines only counts where there
    is nothing else: it describes more often than it holds rows.

    Raises:
        InputRefused: there are several formats, or several splits of a saved DatasetDict.
    """
    by_kind: dict[str, list[str]] = {}
    for path in paths:
        name = path.rpartition("/")[2]
        if (form := format_of(name)) and not (form.kind == "arrow" and name.startswith("cache-")):
            kind = "a JSON" if form.kind == "json" and ".json" in _endings(name) else form.kind
            by_kind.setdefault(kind, []).append(path)
    described = by_kind.pop("a JSON", [])
    if PARQUET in by_kind or not by_kind:
        return by_kind.get(PARQUET, described)
    if len(by_kind) > 1:
        first = " and ".join(printable(files[0].rpartition("/")[2]) for files in by_kind.values())
        cause = f"it holds files of several formats, such as {first}"
        raise InputRefused(
            cause, place=place, remedy="name the files, or a pattern such as FOLDER/*.jsonl"
        )
    (files,) = by_kind.values()
    _check_splits(place, described, files)
    return files


def _endings(name: str) -> set[str]:
    return {f".{part}" for part in name.lower().split(".")[1:]}


def _check_splits(place: str, described: Sequence[str], files: Sequence[str]) -> None:
    """Refuse the folder of a DatasetDict with several splits, whose rows do not belong together."""
    for path in described:
        folder, _, name = path.rpartition("/")
        if name == "dataset_dict.json":
            inside = (file.removeprefix(f"{folder}/") for file in files)
            splits = sorted({file.partition("/")[0] for file in inside if "/" in file})
            if len(splits) > 1:
                raise InputRefused(
                    f"this is a DatasetDict with the splits {', '.join(map(printable, splits))}",
                    place=place,
                    remedy=f"name the folder of one split, such as {printable(splits[0])}",
                )
