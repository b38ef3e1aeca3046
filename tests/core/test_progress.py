import io
import os
import pty
import struct
import termios
from fcntl import ioctl

import pytest

from steelyard.core.progress import (
    Counts,
    Reporter,
    duration,
    fit_line,
    share_text,
    text_width,
)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def counts():
    return Counts(pairs_planned=1000, prompts_planned=2000)


def line(reporter, values, at):
    reporter.clock = lambda: at
    reporter.scoring(values)


def test_plain_lines_come_every_five_seconds_with_rates_and_time_left():
    stream = io.StringIO()
    reporter, values = Reporter(stream=stream), counts()
    for second in range(31):
        values.new_prompts = values.prompts = 20 * second
        values.tokens, values.pairs = 3000 * second, 10 * second
        values.cached_tokens, values.duplicate_tokens = 500 * second, 70
        line(reporter, values, float(second))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 7
    assert lines[4] == (
        "200/1,000 pairs, 20.0% | 1 min 20 s left | 20.0 prompts/s | 0 rejects, 0 errors"
        " | 3,000 tokens/s | saved: 70 tokens by deduplication, 10,000 by prefix cache"
    )


def test_the_last_counts_are_shown_however_soon_they_come():
    stream = io.StringIO()
    reporter, values = Reporter(stream=stream), counts()
    line(reporter, values, 0.0)
    values.pairs, values.prompts = 1000, 2000
    line(reporter, values, 1.0)
    reporter.log("a word between")
    reporter.done()
    reporter.done()
    first, word, last = stream.getvalue().splitlines()
    assert first.startswith("0/1,000 pairs, 0.0%")
    assert word == "a word between"
    assert last.startswith("1,000/1,000 pairs, 100.0%")


def test_on_a_terminal_one_line_moves():
    stream = Terminal()
    reporter = Reporter(stream=stream)
    line(reporter, counts(), 0.0)
    line(reporter, counts(), 0.1)
    line(reporter, counts(), 1.0)
    reporter.log("done")
    assert stream.getvalue().count("\r") == 2
    assert stream.getvalue().endswith("\ndone\n")


@pytest.mark.parametrize("columns", [80, 40, 12])
def test_the_line_fits_the_terminal(columns):
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with os.fdopen(theirs, "w", encoding="utf-8") as stream:
        reporter = Reporter(stream=stream)
        values = Counts(pairs_planned=10_000_000, prompts_planned=20_000_000)
        values.new_prompts = values.prompts = 1_234_567
        values.pairs, values.tokens = 617_283, 999_999_999
        line(reporter, Counts(pairs_planned=10_000_000, prompts_planned=20_000_000), 0.0)
        line(reporter, values, 1000.0)
        reporter.step("文本", 1, 3)  # not yet time for it
        reporter.clock = lambda: 2000.0
        reporter.step("文本" * 50, 1, 3)
        print(file=stream, flush=True)
        written = ""
        while not written.endswith("\n"):
            written += os.read(ours, 10_000).decode()
    os.close(ours)
    lines = written.rstrip("\r\n").split("\r\x1b[K")[1:]
    assert len(lines) == 3
    assert max(map(text_width, lines)) <= columns - 1
    assert (
        lines[1]
        == {
            80: "617,283/10,000,000 pairs, 6.2% | 4 h 13 min left | 1,234.6 prompts/s",
            40: "617,283/10,000,000 pairs, 6.2%",
            12: "617,283/10,",
        }[columns]
    )
    assert lines[2] == "文本" * 50 if columns > 200 else lines[2].startswith("文")


class Notebook(io.StringIO):
    """A stream as a kernel has it."""


Notebook.__module__ = "ipykernel.iostream"


def test_in_a_notebook_a_line_is_overwritten_with_spaces():
    stream = Notebook()
    reporter = Reporter(stream=stream)
    reporter.clock = lambda: 0.0
    reporter.step("a longer name", 1, 2)
    reporter.clock = lambda: 1.0
    reporter.step("texts", 2, 2)
    reporter.done()
    first, second = "a longer name: 1/2 rows, 50.0%", "texts: 2/2 rows, 100.0%"
    assert stream.getvalue() == f"\r{first}\r{second}{' ' * (len(first) - len(second))}\n"


def test_wide_characters_take_two_columns_and_marks_none():
    assert text_width("ab") == 2
    assert text_width("文a") == 3
    assert text_width("é") == 1
    assert fit_line(["文本"], 3) == "文"
    assert fit_line(["ab", "cd", "ef"], 7) == "ab | cd"


def test_only_the_whole_is_all_of_it():
    assert [share_text(*pair) for pair in ((0, 5), (9_999, 10_000), (5, 5), (0, 0))] == [
        "0.0%", "99.9%", "100.0%", "?",
    ]  # fmt: skip


def test_quiet_keeps_warnings():
    stream = io.StringIO()
    reporter = Reporter(stream=stream, quiet=True)
    reporter.log("no")
    line(reporter, counts(), 0.0)
    reporter.warn("yes")
    assert stream.getvalue() == "warning: yes\n"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, "?"), (0, "0 s"), (59.6, "1 min 00 s"), (61, "1 min 01 s"), (7384, "2 h 03 min")],
)
def test_duration(seconds, words):
    assert duration(seconds) == words
