"""What is wrong with the inputs, collected so that a user sees all of it at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from steelyard.core.schemas import REJECTS, Bool
from steelyard.errors import InputRefused, escape

SHOWN = 20
CONVERT = "write Parquet, for example: duckdb -c \"copy (from 'data.jsonl') to 'data.parquet'\""


@dataclass(frozen=True, slots=True)
class InputProblem:
    """One reason to refuse the inputs; `cause` is a sentence without a final stop."""

    place: str  # a shard's name, a folder, a pattern
    cause: str
    remedy: str
    lines: tuple[str, ...] = ()  # what belongs under the cause, such as a difference

    def text(self, indent: str) -> str:
        """Place, cause and lines, the lines one step further to the right."""
        return "\n".join([f"{self.place}: {self.cause}", *(indent + x for x in self.lines)])


class InputProblemError(Exception):
    """Carries one problem out of the code that looks at one file; never reaches a user."""

    def __init__(self, problem: InputProblem) -> None:
        super().__init__(problem.cause)
        self.problem = problem


def printable(name: str) -> str:
    """A column's, file's or folder's name, safe to print."""
    return escape(name, 200)


def refusal(problems: Sequence[InputProblem]) -> InputRefused:
    """One error for all problems: itself if there is one, a list of up to `SHOWN` if more."""
    if len(problems) == 1:
        only = problems[0]
        cause = "\n".join([only.cause, *("    " + line for line in only.lines)])
        return InputRefused(cause, place=only.place, remedy=only.remedy)
    lines = [f"{len(problems)} problems with the input:"]
    lines += ["    - " + problem.text("        ") for problem in problems[:SHOWN]]
    if len(problems) > SHOWN:
        lines.append(f"    and {len(problems) - SHOWN} more")
    remedies = list(dict.fromkeys(problem.remedy for problem in problems[:SHOWN]))
    return InputRefused("\n".join(lines), remedy="\n        ".join(remedies))


# Reject reasons, in the order in which rows are checked: a row has the first that fits.
NULL = "null"  # a required text is absent
UTF8 = "utf8"  # a text is not UTF-8
EMPTY = "empty"  # a required text is nothing but white space
SIZE = "size"  # the row is too large
TURNS = "turns"  # an earlier turn is incomplete
IMAGES = "images"  # an image is missing, damaged, too large or outside of the shard's folder
CRITERIA = "criteria"  # the row's own criteria are incomplete
GOLD = "gold"  # the gold cannot be read
REASONS = (NULL, UTF8, EMPTY, SIZE, TURNS, IMAGES, CRITERIA, GOLD)
# Those of tables of verdicts.
SCALE = "scale"  # a number is outside of what it can be
WINNER = "winner"  # nobody knows who that is
LENGTH = "length"  # no count of characters


class RowProblems:
    """Bad rows by number. Methods mutate; a row keeps the first reason given to it."""

    def __init__(self) -> None:
        self.found: dict[int, tuple[str, str]] = {}

    def __bool__(self) -> bool:
        return bool(self.found)

    def add(self, bad: Bool, reason: str, detail: Callable[[int], str]) -> None:
        """Note the rows where `bad` (length: rows of the batch) is true.

        Args:
            bad: mask.
            reason: one of REASONS.
            detail: row -> what is wrong, escaped, at most 80 bytes of data.
        """
        for row in np.flatnonzero(bad).tolist():
            if row not in self.found:
                self.found[row] = (reason, detail(row))

    def good(self, rows: int) -> Bool:
        """Mask of the rows without a finding."""
        mask = np.ones(rows, dtype=np.bool_)
        mask[list(self.found)] = False
        return mask

    def rejects(self, shard: str, first: int, pair_ids: list[str | None]) -> pa.RecordBatch:
        """The findings as REJECTS, by row.

        Args:
            shard: name of the shard.
            first: number of the batch's first row in the shard.
            pair_ids: of the bad rows, in order.
        """
        rows = sorted(self.found)
        columns = [
            pa.array([shard] * len(rows), pa.string()),
            pa.array([first + row for row in rows], pa.int64()),
            pa.array(pair_ids, pa.string()),
            pa.array([self.found[row][0] for row in rows], pa.string()),
            pa.array([self.found[row][1] for row in rows], pa.string()),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=REJECTS)
