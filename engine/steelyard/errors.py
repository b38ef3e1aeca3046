"""Every way in which Steelyard refuses or fails, with its exit code.

    SteelyardError
    ├── UsageError            2   the command or its configuration is wrong
    ├── InputRefused          3   a shard or a row, before the judge is loaded
    │   ├── GoldRefused
    │   ├── CalibratorRefused
    │   └── RewardRefused
    ├── EnvironmentFault      5   GPU, disk, engine, a missing package
    │   ├── JudgeUnavailable
    │   ├── EngineFailed
    │   ├── DiskFull
    │   └── RunLocked
    └── IntegrityFault        6   what is on the disk is not what was written

Each error says what happened, where, what that means for the user's work, and what to do next.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from functools import partial
from typing import ClassVar
from unicodedata import category

from typing_extensions import override

EXIT_DONE = 0
EXIT_USAGE = 2
EXIT_INPUT = 3
EXIT_ROW_ERRORS = 4
EXIT_ENVIRONMENT = 5
EXIT_INTEGRITY = 6
EXIT_INTERRUPTED = 130


def escape(value: object, limit: int = 80) -> str:
    """Return data as text that is safe to print: control characters escaped, and cut.

    Args:
        value: anything; `str()` of it is shown.
        limit: how many bytes of UTF-8 to keep; `...` marks a cut.
    """
    out: list[str] = []
    used = 0
    for character in str(value):
        shown = character if character.isprintable() else ascii(character)[1:-1]
        used += len(shown.encode("utf-8", "backslashreplace"))
        if used > limit:
            return "".join(out) + "..."
        out.append(shown)
    return "".join(out)


def printable(text: str, keep: str = "\n\t") -> str:
    """Return a text whose characters do nothing but show, for a terminal or a document.

    Escaped are control characters (C0, C1), those that change direction or have no width, halves
    of characters, and what Unicode does not define.

    Args:
        text: what is about to be printed.
        keep: control characters that stay.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or character in keep or category(character) == "Zs"
        else ascii(character)[1:-1]
        for character in text
    )


def did_you_mean(name: str, known: Collection[str], otherwise: str) -> str:
    """Return a remedy for an unknown name: the known names most like it, else `otherwise`.

    Case makes no difference.
    """
    near = close_names(name, known, count=2)
    return f"did you mean {' or '.join(escape(x, 200) for x in near)}?" if near else otherwise


def close_names(name: str, known: Collection[str], *, count: int, cutoff: float = 0.6) -> list[str]:
    """Return at most `count` names that are most like this one, best first.

    Where some differ in case only, these.
    """
    folded: dict[str, list[str]] = {}
    for other in known:
        folded.setdefault(other.casefold(), []).append(other)
    if same := folded.get(name.casefold()):
        return same[:count]
    near = get_close_matches(name.casefold(), folded, n=count, cutoff=cutoff)
    return [other for key in near for other in folded[key]][:count]


class SteelyardError(Exception):
    """Base of all errors that a user can meet.

    Args:
        cause: what happened, one sentence without a final stop.
        place: where: a file, a row, an option.
        effect: what it means for the run: what was kept, what was not done. The default is what
            its class promises, if anything.
        remedy: what to do next, a sentence or a command.
    """

    exit_code: ClassVar[int] = 1
    code: ClassVar[str] = "internal"
    effect: str | None = None

    def __init__(
        self, cause: str, *, remedy: str, place: str | None = None, effect: str | None = None
    ) -> None:
        super().__init__(cause)
        self.cause = cause
        self.place = place
        if effect is not None:
            self.effect = effect
        self.remedy = remedy

    @override
    def __str__(self) -> str:
        head = f"{self.place}: {self.cause}" if self.place else self.cause
        lines = [f"error[{self.code}]: {head}"]
        if self.effect:
            lines.append(f"  effect: {self.effect}")
        lines.append(f"  next: {self.remedy}")
        return "\n".join(printable(line) for line in lines)

    @override
    def __reduce__(self) -> tuple[object, ...]:
        """Keep all four parts when an error crosses a process border (replicas)."""
        make = partial(type(self), place=self.place, effect=self.effect, remedy=self.remedy)
        return make, (self.cause,)


class UsageError(SteelyardError):
    """The command line or the configuration cannot be carried out as given."""

    exit_code = EXIT_USAGE
    code = "usage"


class InputRefused(SteelyardError):
    """An input cannot be used; noticed before the judge is loaded."""

    exit_code = EXIT_INPUT
    code = "input"
    effect = "nothing was computed or written"


class GoldRefused(InputRefused):
    """Gold cannot be used: unknown labels, no votes, repeated pairs, none of the judged pairs."""

    code = "gold"


class CalibratorRefused(InputRefused):
    """A calibrator cannot be fitted, read, or applied to these reads."""

    code = "calibrator"


class RewardRefused(InputRefused):
    """A target, a conversation or a completion does not allow a reward."""

    code = "reward"
    effect = "no reward was given"


class EnvironmentFault(SteelyardError):
    """The machine lacks something: a GPU, a package, disk space."""

    exit_code = EXIT_ENVIRONMENT
    code = "environment"


class JudgeUnavailable(EnvironmentFault):
    """The judge cannot be loaded: package, files or device are missing or unusable."""

    code = "judge"


class EngineFailed(EnvironmentFault):
    """The engine died while scoring, and not because of a single prompt."""

    code = "engine"


class DiskFull(EnvironmentFault):
    """The disk is full; everything committed before is valid."""

    code = "disk"


class RunLocked(EnvironmentFault):
    """Another process writes to this run directory."""

    code = "locked"
    effect = "nothing was changed"


class IntegrityFault(SteelyardError):
    """A file differs from what was committed, or the books do not balance."""

    exit_code = EXIT_INTEGRITY
    code = "integrity"


_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def machine_fault(
    error: OSError | MemoryError,
    place: str | None = None,
    *,
    doing: str = "read or write",
    effect: str | None = None,
    again: str = "try again",
) -> EnvironmentFault:
    """Return the error that says what the operating system refused, and what to do about it.

    Args:
        error: Python's, or DuckDB's in its place (`store.sql`).
        place: where; None: the file that the error names.
        doing: what could not be done there.
        effect: what it means for the run.
        again: what to do when the cause is gone.
    """
    number = getattr(error, "errno", None)
    words = escape(getattr(error, "strerror", None) or str(error) or "no memory left", 300)
    if place is None and getattr(error, "filename", None) is not None:
        place = os.fsdecode(error.filename)  # type: ignore[union-attr]
    place = place and escape(place, 400)
    if number in _FULL or "No space left" in words or "File too large" in words:
        remedy = f"free some space, then {again}"
        cause = f"no room left to write: {words}"
        return DiskFull(cause, place=place, effect=effect, remedy=remedy)
    if isinstance(error, MemoryError) or number == errno.ENOMEM:
        fix = "end other programs, or use a machine with more memory"
    elif number in {errno.EMFILE, errno.ENFILE} or "Too many open files" in words:
        fix = "raise the limit of open files (`ulimit -n`)"
    else:
        fix = "check the path, its permissions and the disk"
    cause = f"cannot {doing}: {words}"
    return EnvironmentFault(cause, place=place, effect=effect, remedy=f"{fix}, then {again}")


def check_keys(keys: Iterable[str], known: Collection[str], place: str) -> None:
    """Refuse the first unknown key, with the names that may have been meant.

    Raises:
        UsageError: there is one.
    """
    for key in keys:
        if key not in known:
            remedy = did_you_mean(str(key), known, f"known: {', '.join(known)}")
            raise UsageError(f"unknown key {escape(key)!r}", place=place, remedy=remedy)
