"""Arguments of the Python API: paths, columns, gold and options as commands take them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

import msgspec

from steelyard.errors import UsageError, check_keys, escape
from steelyard.evaluation.judged_pairs import GoldSource

PathLike: TypeAlias = str | os.PathLike[str]
Columns: TypeAlias = Mapping[str, str]  # role -> column
Gold: TypeAlias = PathLike | Literal[True] | None  # True: the source's own
Options = TypeVar("Options")


def make_fields(kind: type[Options], values: Mapping[str, Any], place: str) -> Options:
    """Make the options of a command from plain values.

    Raises:
        UsageError: one is unknown, or has the wrong type.
    """
    check_keys(values, [entry.name for entry in fields(kind)], place)  # type: ignore[arg-type]
    try:
        return msgspec.convert(dict(values), kind)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"an option has the wrong type: {escape(error, 200)}",
            place=place,
            remedy="see docs/python.md for the options",
        ) from None


def gold_source(gold: Gold, columns: Columns | None) -> GoldSource | None:
    """Return where gold is; None if it is not asked for."""
    if gold is None:
        return None
    return GoldSource(None if gold is True else Path(gold), columns)


def as_path(path: PathLike | None) -> Path | None:
    """Return a path that may be left out."""
    return None if path is None else Path(path)
