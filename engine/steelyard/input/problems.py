"""What is wrong with inputs and their rows, collected so that a user sees all of it at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

import numpy as np
import pyarrow as pa

from steelyard.core.schemas import REJECTS, Bool, Int64
from steelyard.errors import InputRefused, SteelyardError, escape

T = TypeVar("T")
U = TypeVar("U")

_THREADS = 8  # a thousand remote shards take seconds, not minutes
SHOWN = 20  # problems that one error lists
SENTENCE = 600  # bytes of a sentence that are shown
EXAMPLES = 3  # values that one problem of many rows shows


class Reason(StrEnum):
    """Why a row is rejected. A row of a shard has the first that applies, up to GOLD."""

    FORMAT = "format"  # the row, or a value of it, is not what the file's format has
    NULL = "null"  # a required text is absent
    UTF8 = "utf8"  # a text is not UTF-8
    METADATA = "metadata"  # a value that its type, or DuckDB, cannot hold
    EMPTY = "empty"  # a required text is nothing but white space
    SIZE = "size"  # the row is too large
    TURNS = "turns"  # an earlier turn is incomplete
    IMAGES = "images"  # an image is missing, damaged, too large or outside of the shard's folder
    CRITERIA = "criteria"  # the row's own criteria are incomplete
    GOLD = "gold"  # the gold cannot be read
    # Of tables of verdicts only.
    SCALE = "scale"  # a number is outside of its range
    WINNER = "winner"  # neither a side nor a competitor
    LENGTH = "length"  # not a count of characters


@contextmanager
def raised_as(error: type[SteelyardError]) -> Iterator[None]:
    """Raise an InputRefused of the block as another error."""
    try:
        yield
    except InputRefused as refused:
        raise error(refused.cause, place=refused.place, remedy=refused.remedy) from None


def printable(name: str) -> str:
    """Return the name of a column, file or folder, safe to print."""
    return escape(name, 200)


def list_columns(columns: Collection[str]) -> str:
    """Return the columns, up to twelve of them, for a remedy."""
    shown = ", ".join(printable(column) for column in list(columns)[:12])
    return f"the columns are {shown}" + (", ..." if len(columns) > 12 else "")


def attempt_each(
    work: Callable[[T], U], items: Sequence[T], problems: list[InputRefused]
) -> list[U]:
    """Return what `work` makes of each item, in order; what it refuses goes to `problems`."""

    def attempt(item: T) -> U | InputRefused:
        try:
            return work(item)
        except InputRefused as refused:
            return refused

    with ThreadPoolExecutor(_THREADS) as pool:
        results = list(pool.map(attempt, items))
    problems += [result for result in results if isinstance(result, InputRefused)]
    return [result for result in results if not isinstance(result, InputRefused)]


def refusal(problems: Sequence[InputRefused]) -> InputRefused:
    """Return one error for all problems, which lists up to `SHOWN` of them."""
    if len(problems) == 1:
        return problems[0]
    lines = [f"{len(problems)} problems with the input:"]
    for problem in problems[:SHOWN]:
        cause = problem.cause.replace("\n", "\n    ")
        lines.append(f"- {problem.place}: {cause}" if problem.place else f"- {cause}")
    if len(problems) > SHOWN:
        lines.append(f"and {len(problems) - SHOWN} more")
    remedies = dict.fromkeys(problem.remedy for problem in problems[:SHOWN])
    return InputRefused("\n    ".join(lines), remedy="\n        ".join(remedies))


class Sentence(str):
    """Words of ours in place of a value, in which data are cut already: they are shown whole."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class _RowProblem:
    """One thing that is wrong with several rows of a batch."""

    numbers: Int64  # of the rows, ascending
    rows: Int64  # the same rows in the batch
    reason: Reason
    what: str
    value: Callable[[int], object] | None
    remedy: str

    def value_of(self, row: int) -> str:
        """Return the row's bad value, at most 80 bytes if it is data; empty if none is shown."""
        if self.value is None:
            return ""
        value = self.value(row)
        limit = SENTENCE if isinstance(value, Sentence) else 80
        return "null" if value is None else escape(value, limit)

    def detail(self, row: int) -> str:
        """Return what is wrong with the row, with its value."""
        value = self.value_of(row)
        return f"{self.what}: {value}" if value else self.what


class RowProblems:
    """Bad rows and what is wrong with them. Methods mutate.

    `rejects` lists the rows, each with the first problem that was added; `refuse` sums all
    problems up in one error. `numbers` are those of the rows that are looked at, ascending; None
    if rows are only counted.
    """

    def __init__(self, numbers: Int64 | None = None) -> None:
        self.numbers = numbers
        self._problems: list[_RowProblem] = []

    def __bool__(self) -> bool:
        return bool(self._problems)

    def add(
        self,
        bad: Bool,
        reason: Reason,
        what: str,
        value: Callable[[int], object] | None = None,
        remedy: str = "",
    ) -> None:
        """Note the rows where `bad`, a mask over the rows that are looked at, is true.

        `what` is wrong with them, a sentence without the value; `value` returns that of a row.
        """
        rows = np.flatnonzero(bad)
        if len(rows):
            numbers = rows if self.numbers is None else self.numbers[rows]
            self._problems.append(_RowProblem(numbers, rows, reason, what, value, remedy))

    def good(self) -> Bool:
        """Return which of the rows that are looked at have no problem."""
        assert self.numbers is not None  # noqa: S101 - rows that are only counted stay
        return np.isin(self.numbers, self.bad_rows(), invert=True)

    def bad_rows(self) -> Int64:
        """Return the numbers of the bad rows, ascending."""
        if not self:
            return np.zeros(0, dtype=np.int64)
        return np.unique(np.concatenate([problem.numbers for problem in self._problems]))

    def rejects(self, shard: str, pair_ids: Sequence[str | None]) -> pa.RecordBatch:
        """Return the bad rows as REJECTS, by number; `pair_ids` are theirs, in this order."""
        first: dict[int, tuple[str, str]] = {}
        for problem in self._problems:
            for number, row in zip(problem.numbers.tolist(), problem.rows.tolist(), strict=True):
                if number not in first:
                    first[number] = (problem.reason, problem.detail(row))
        rows = [
            {"shard": shard, "row": row, "pair_id": given, "reason": reason, "detail": detail}
            for (row, (reason, detail)), given in zip(sorted(first.items()), pair_ids, strict=True)
        ]
        return pa.RecordBatch.from_pylist(rows, schema=REJECTS)

    def refuse(self, error: type[InputRefused], place: str, rows: int) -> None:
        """Raise one error for all problems of the `rows` that were looked at, if there are any."""
        kinds: dict[str, list[_RowProblem]] = {}
        for problem in self._problems:
            kinds.setdefault(problem.what, []).append(problem)
        if kinds:
            lines = [self._line(kind, rows) for kind in kinds.values()]
            remedies = dict.fromkeys(problem.remedy for problem in self._problems)
            raise error(
                "\n    ".join(["values that cannot be used", *lines]),
                place=place,
                remedy="\n        ".join(remedies),
            )

    def _line(self, kind: Sequence[_RowProblem], rows: int) -> str:
        count = sum(len(problem.rows) for problem in kind)
        where = "" if self.numbers is None else f", the first is row {kind[0].numbers[0]:,}"
        values = dict.fromkeys(
            problem.value_of(row) for problem in kind for row in problem.rows[:EXAMPLES].tolist()
        )
        examples = [value for value in values if value][:EXAMPLES]
        such = f" (such as {' or '.join(examples)})" if examples else ""
        return f"{count:,} of {rows:,} rows{where}: {kind[0].what}{such}"
