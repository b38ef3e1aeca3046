"""What `demo` shows, by the scripted judge; tests/test_first_hour.py runs the embedded one."""

import io
import json
import threading

import pytest

from steelyard.cli.demo import REPORT, demo_content, format_demo, score_demo, write_report
from steelyard.core.progress import Reporter


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo") / "run"
    quiet = Reporter(quiet=True)
    assert score_demo(root, "scripted", quiet, threading.Event()) == 0
    return root, write_report(root, quiet)


def test_it_says_how_far_people_agree(run):
    root, report = run
    rows = demo_content(root, report)["verdicts"]
    assert len(rows) == 58
    # A preference of exactly one half decides nothing.
    decided = [row for row in rows if row["people"] != "tie" and row["winner"] != "tie"]
    agree = sum(row["winner"] == row["people"] for row in decided) / len(decided)
    text = format_demo(root, report)
    line = next(line for line in text.splitlines() if line.startswith("people:"))
    assert f"in {agree:.0%} of the pairs" in line
    low, high = (int(word.strip("%)")) for word in line.split("interval ")[1].split(" to "))
    assert low < 100 * agree < high


def test_it_has_a_leaderboard_and_names_its_report(run):
    root, report = run
    text = format_demo(root, report)
    for competitor in ("heron-7b", "magpie-2b", "cuckoo-3b", "wren-1b"):
        assert f". {competitor}: " in text
    page = root / REPORT
    assert f"{page} (open it in a browser)" in text
    assert page.read_text("utf-8").startswith("<!doctype html>")
    assert "1 empty, 1 null" in text


def test_json_has_the_same(run):
    root, report = run
    content = json.loads(json.dumps(demo_content(root, report)))
    assert content["results"]["competitors"] == 4
    assert content["report"] == str(root / REPORT)
    assert {row["reason"] for row in content["rejects"]} == {"null", "empty"}
    measured = {m["metric"] for m in content["evaluation"]["raw"]["metrics"]}
    assert "decided_agreement" in measured


def test_waiting_is_never_silent():
    stream, now = io.StringIO(), [0.0]
    reporter = Reporter(stream=stream, clock=lambda: now[0])
    said = threading.Event()
    write = stream.write
    stream.write = lambda text: (write(text), said.set())[0]
    with reporter.waiting("loading"):
        said.clear()
        now[0] = 6.0
        assert said.wait(10)
    assert stream.getvalue() == "loading ...\nloading: 6 s\n"
