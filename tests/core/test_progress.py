import io

import pytest

from steelyard.core.progress import Counts, Reporter, duration


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
        "200/1,000 pairs | 20.0 prompts/s, 3,000 tokens/s"
        " | saved: 70 tokens by deduplication, 10,000 by prefix cache"
        " | 0 rejects, 0 errors | 1 min 20 s left"
    )


def test_on_a_terminal_one_line_moves():
    stream = Terminal()
    reporter = Reporter(stream=stream)
    line(reporter, counts(), 0.0)
    line(reporter, counts(), 0.1)
    line(reporter, counts(), 1.0)
    reporter.log("done")
    assert stream.getvalue().count("\r") == 2
    assert stream.getvalue().endswith("\ndone\n")


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
