"""What is wrong with the inputs, collected so that a user sees all of it at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import InputRefused, escape

SHOWN = 20
EFFECT = "nothing was read or scored"
CONVERT = "write Parquet, for example: duckdb -c \"copy (from 'data.jsonl') to 'data.parquet'\""


@dataclass(frozen=True, slots=True)
class Problem:
    """One reason to refuse the inputs; `cause` is a sentence without a final stop."""

    place: str  # a shard's name, a folder, a pattern
    cause: str
    remedy: str
    lines: tuple[str, ...] = ()  # what belongs under the cause, such as a difference

    def text(self, indent: str) -> str:
        """Place, cause and lines, the lines one step further to the right."""
        return "\n".join([f"{self.place}: {self.cause}", *(indent + x for x in self.lines)])


class RefusalError(Exception):
    """Carries one problem out of the code that looks at one file; never reaches a user."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.cause)
        self.problem = problem


def show(name: str) -> str:
    """A column's, file's or folder's name, safe to print."""
    return escape(name, 200)


def refusal(problems: Sequence[Problem]) -> InputRefused:
    """One error for all problems: itself if there is one, a list of up to `SHOWN` if more."""
    if len(problems) == 1:
        only = problems[0]
        cause = "\n".join([only.cause, *("    " + line for line in only.lines)])
        return InputRefused(cause, place=only.place, effect=EFFECT, remedy=only.remedy)
    lines = [f"{len(problems)} problems with the input:"]
    lines += ["    - " + problem.text("        ") for problem in problems[:SHOWN]]
    if len(problems) > SHOWN:
        lines.append(f"    and {len(problems) - SHOWN} more")
    remedies = list(dict.fromkeys(problem.remedy for problem in problems[:SHOWN]))
    return InputRefused("\n".join(lines), effect=EFFECT, remedy="\n        ".join(remedies))
