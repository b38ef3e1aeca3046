"""Progress on stderr: a line that is rewritten on a terminal or in a notebook, else plain lines."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TextIO
from unicodedata import combining, east_asian_width

from steelyard.core.batches import ReadBatch
from steelyard.core.schemas import STATUS_ERROR, STATUS_OVERLONG
from steelyard.core.work import BatchProgress
from steelyard.errors import printable

PLAIN_SECONDS = 5.0
TERMINAL_SECONDS = 0.25
RATE_SECONDS = 30.0  # the rate shown is over about this long
COLUMNS = 80  # where nothing says how wide a line may be
BETWEEN = " | "


@dataclass(slots=True)
class Counts:
    """Sums over the run: what was there when the engine started, and what was read since."""

    pairs_planned: int
    prompts_planned: int
    pairs: int = 0
    prompts: int = 0
    new_prompts: int = 0
    tokens: int = 0
    cached_tokens: int = 0
    duplicate_tokens: int = 0
    rejects: int = 0
    errors: int = 0
    overlong: int = 0

    def add(self, reads: ReadBatch, gain: BatchProgress) -> None:
        """Add a batch of reads."""
        self.pairs += gain.pairs
        self.prompts += len(reads)
        self.new_prompts += len(reads)
        sent = [status != STATUS_OVERLONG for status in reads.status]
        self.tokens += int(reads.prompt_tokens[sent].sum())
        self.cached_tokens += int(reads.cached_tokens.sum())
        self.duplicate_tokens += gain.duplicate_tokens
        self.errors += reads.status.count(STATUS_ERROR)
        self.overlong += reads.status.count(STATUS_OVERLONG)


@dataclass(slots=True)
class Reporter:
    """Writes progress to a stream; `quiet` leaves out everything but warnings."""

    stream: TextIO = field(default_factory=lambda: sys.stderr)
    quiet: bool = False
    clock: Callable[[], float] = time.monotonic
    _last: float = float("-inf")
    _window: list[tuple[float, int, int]] = field(default_factory=list)
    _open_line: bool = False
    _width: int = 0  # of the line that is rewritten
    _skipped: Callable[[], list[str]] | None = None  # what came too soon to be shown

    def log(self, text: str) -> None:
        """Write a line that stays."""
        if not self.quiet:
            self._end_line()
            self._write(text)

    def warn(self, text: str) -> None:
        """Write a warning that stays, also when quiet."""
        self._end_line()
        self._write(f"warning: {text}")

    def _write(self, text: str) -> None:
        self.stream.write(printable(text) + "\n")
        self.stream.flush()

    def planning(self, accepted: int, refused: int, total: int) -> None:
        """Show the progress of the pass over the shards."""
        self._line(
            lambda: [
                f"planning: {accepted + refused:,}/{total:,} rows,"
                f" {share_text(accepted + refused, total)}",
                f"{refused:,} rejects",
            ]
        )

    def scoring(self, counts: Counts) -> None:
        """Show the progress of the judge."""
        self._line(lambda: self._scoring_parts(counts))

    def step(self, what: str, rows: int, total: int) -> None:
        """Show the progress of any other pass over rows."""
        self._line(lambda: [f"{what}: {rows:,}/{total:,} rows, {share_text(rows, total)}"])

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Show that something is going on that cannot be counted, and for how long."""
        began, ended = self.clock(), threading.Event()

        def show() -> None:
            while not ended.wait(TERMINAL_SECONDS):
                self._line(lambda: [f"{what}: {duration(self.clock() - began)}"])

        self.log(f"{what} ...")
        self._last = began
        thread = threading.Thread(target=show, daemon=True, name="waiting")
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            self._skipped = None

    def _scoring_parts(self, counts: Counts) -> list[str]:
        now = self.clock()
        self._window.append((now, counts.new_prompts, counts.tokens))
        while len(self._window) > 2 and now - self._window[0][0] > RATE_SECONDS:
            self._window.pop(0)
        start, prompts, tokens = self._window[0]
        seconds = max(now - start, 1e-9)
        rate = (counts.new_prompts - prompts) / seconds
        left = (counts.prompts_planned - counts.prompts) / rate if rate else None
        done = share_text(counts.prompts, counts.prompts_planned)
        return [
            f"{counts.pairs:,}/{counts.pairs_planned:,} pairs, {done}",
            f"{duration(left)} left",
            f"{rate:,.1f} prompts/s",
            f"{counts.rejects:,} rejects, {counts.errors:,} errors",
            f"{(counts.tokens - tokens) / seconds:,.0f} tokens/s",
            f"saved: {counts.duplicate_tokens:,} tokens by deduplication,"
            f" {counts.cached_tokens:,} by prefix cache",
        ]

    def _line(self, parts: Callable[[], list[str]]) -> None:
        """Write a line of parts, of which the first are the most important, if it is time for it.

        A line that is rewritten leaves out the last parts that it has no room for: one that goes
        on in a second row cannot be rewritten.
        """
        terminal, notebook = self.stream.isatty(), is_notebook(self.stream)
        seconds = TERMINAL_SECONDS if terminal or notebook else PLAIN_SECONDS
        now = self.clock()
        self._skipped = parts
        if self.quiet or now - self._last < seconds:
            return
        self._last, self._skipped = now, None
        if not (terminal or notebook):
            self.stream.write(printable(BETWEEN.join(parts())) + "\n")
        else:
            line = fit_line(list(map(printable, parts())), _columns(self.stream) - 1)
            width = text_width(line)
            # A terminal may have become narrower, and then cannot be overwritten with spaces.
            start = "\r\x1b[K" if terminal else "\r"
            rest = "" if terminal else " " * (self._width - width)
            self.stream.write(start + line + rest)
            self._open_line, self._width = True, width
        self.stream.flush()

    def done(self) -> None:
        """Show the last counts, if they came too soon after others, and end their line."""
        if parts := self._skipped:
            self._last = float("-inf")
            self._line(parts)
            self._skipped = None
        self._end_line()

    def _end_line(self) -> None:
        if self._open_line:
            self.stream.write("\n")
            self._open_line, self._width = False, 0


def is_notebook(stream: TextIO) -> bool:
    """Return whether a stream leads to a notebook, which rewrites lines but is not a terminal."""
    return type(stream).__module__.partition(".")[0] == "ipykernel"


def fit_line(parts: Sequence[str], columns: int) -> str:
    """Join the first parts that fit; if not even the first does, its beginning.

    Args:
        parts: at least one, without control characters.
        columns: of a terminal, 0 or more.
    """
    fitting = list(parts)
    while len(fitting) > 1 and text_width(BETWEEN.join(fitting)) > columns:
        fitting.pop()
    line = BETWEEN.join(fitting)
    while text_width(line) > columns:
        line = line[:-1]
    return line


def text_width(text: str) -> int:
    """Return the columns of a terminal that a text takes: two for each wide character."""
    if text.isascii():
        return len(text)
    return sum(
        0 if combining(character) else 2 if east_asian_width(character) in "WF" else 1
        for character in text
    )


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or COLUMNS
    except (OSError, ValueError):  # not a terminal, or not a file
        return COLUMNS


def share_text(part: int, whole: int) -> str:
    """Return a share in per cent, which is 100.0% only of the whole; `?` of nothing."""
    if not whole:
        return "?"
    return f"{min(part / whole, 1 if part >= whole else 0.999):.1%}"


def duration(seconds: float | None) -> str:
    """Format seconds for people; None becomes `?`."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def amount(size: int) -> str:
    """Format bytes for people."""
    return f"{size / 1e6:,.1f} MB" if size >= 100_000 else f"{size / 1e3:,.1f} kB"
