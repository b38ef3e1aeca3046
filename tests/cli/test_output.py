"""What is printed: on any stdout, and never more to a terminal than text.

Kind of fault: terminal escapes in names.
"""

import json
import os
import signal
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import steelyard
from steelyard.calibrators.calibrator import Calibrator
from steelyard.calibrators.linear import Linear
from steelyard.cli.common import json_text
from steelyard.core.sealed import CHECK
from steelyard.errors import printable
from steelyard.store.calibration import save_calibrator
from support.helpers import PROGRAM, command, pairs_table, program

# Escapes of terminals (7 and 8 bits), direction, no width, a tag, a line's end, Markdown, HTML.
HOSTILE = "x\x1b]0;t\x07\x9b31m\x85\u202e\u2066\u200b\ufeff\U000e0001\r\x7f|`<img src=x>`[l](u)"
CODES = {0, 2, 3, 4, 5, 6}
SLOW = "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a.range + b.range = 7"


def is_safe(text):
    """Whether a text can only show; written without the code that is tested."""
    return all(
        character in "\n\t" or unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Co", "Cn"}
        for character in text
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run in which every name and text that its maker chooses is hostile."""
    place = tmp_path_factory.mktemp("output")
    rows = 12
    table = pa.table(
        {
            "instruction": [f"q{i % 6} {HOSTILE}" for i in range(rows)],
            "response_a": [f"a{i} {HOSTILE}" for i in range(rows)],
            "response_b": [f"b{i} {HOSTILE}" for i in range(rows - 1)] + [None],
            "model_a": [HOSTILE, f"{HOSTILE}2"] * (rows // 2),
            "model_b": [f"{HOSTILE}b"] * rows,
            "pair_id": [f"p{i}{HOSTILE}" for i in range(rows)],
            "gold": ["A", "B"] * (rows // 2),
            f"column {HOSTILE}": [HOSTILE] * rows,
            "part": [HOSTILE] * rows,
        }
    )
    (place / "shards").mkdir()
    pq.write_table(table, place / "shards" / f"{HOSTILE}.parquet")
    steelyard.score(place / "shards", run=place / "run", judge="scripted")
    (place / "run" / "verdicts.duckdb").unlink()
    record = place / "run" / "run.json"
    content = json.loads(record.read_text())
    content.pop(CHECK, None)
    content["judges"][0]["name"] = HOSTILE
    content["inquiry"]["protocols"][0]["name"] = HOSTILE
    record.write_text(json.dumps(content))
    made = Calibrator(
        HOSTILE,
        Linear({"logit": 1.0}),
        bound={HOSTILE: HOSTILE},
        notes={"pairs": 1, "votes": 1.0, "instructions": 1, "forced": HOSTILE},
    )
    save_calibrator(place / "calibrator.json", made)
    toml = '"' + "".join(f"\\U{ord(character):08x}" for character in HOSTILE) + '"'
    (place / "protocol.toml").write_text(
        f'about = {toml}\nlabels = ["A", {toml}]\nsystem = {toml}\n'
        'user = "{{ instruction }} {{ first }} {{ second }}"\nprefix = "Answer:"\n'
    )
    return place


COMMANDS = {
    "status": ["status", "RUN"],
    "sql": ["sql", "RUN", f'SELECT *, 1 AS "{HOSTILE.replace(chr(34), "")}" FROM verdicts'],
    "answers": ["sql", "RUN", "FROM answers"],
    "run table": ["sql", "RUN", "FROM run"],
    "rejects": ["sql", "RUN", "FROM rejects"],
    "explain": ["sql", "RUN", f"EXPLAIN SELECT '{HOSTILE}'"],
    "a wrong query": ["sql", "RUN", f"SELECT {HOSTILE}"],
    "compact": ["compact", "RUN", "--out", f"PLACE/{HOSTILE}.duckdb"],
    "rank": ["rank", "RUN"],
    "winrate": ["winrate", "RUN", "--baseline", f"{HOSTILE}b"],
    "a wrong baseline": ["winrate", "RUN", "--baseline", f"{HOSTILE}c"],
    "bias": ["bias", "RUN", "--by", "part"],
    "evaluate": ["evaluate", "RUN", "--by", f"column {HOSTILE}"],
    "a wrong map": ["rank", "RUN", "--map", f"model_a={HOSTILE}"],
    "calibrate show": ["calibrate", "show", "PLACE/calibrator.json"],
    "calibrate apply": ["calibrate", "apply", "RUN", "PLACE/calibrator.json"],
    "protocol check": ["protocol", "check", "PLACE/protocol.toml", "--judge", "scripted"],
    "protocol show": ["protocol", "show", "PLACE/protocol.toml", "--judge", "scripted"],
    "judge inspect": ["judge", "inspect", "scripted", "--protocol", "PLACE/protocol.toml"],
    "export": ["export", "RUN", "--format", "preference", "--dry-run"],
    "plan": ["plan", "PLACE/shards", "--judge", "scripted"],
    "an unknown folder": ["status", f"PLACE/{HOSTILE}"],
    "an unknown command": [HOSTILE],
    "an unknown option": ["status", "RUN", f"--{HOSTILE}"],
}


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("name", COMMANDS)
def test_nothing_that_is_printed_moves_a_terminal(place, name, as_json):
    arguments = [
        part.replace("RUN", str(place / "run")).replace("PLACE", str(place))
        for part in COMMANDS[name]
    ]
    done = command(*arguments, *(["--json"] if as_json else []))
    assert done.returncode in CODES, done.stderr
    assert is_safe(done.stdout), ascii(done.stdout)
    assert is_safe(done.stderr), ascii(done.stderr)
    assert done.stdout or done.stderr
    if as_json and done.stdout:
        json.loads(done.stdout)


def test_json_keeps_what_a_terminal_must_not_see(place):
    done = command("sql", place / "run", "SELECT DISTINCT model_b FROM verdicts", "--json")
    assert json.loads(done.stdout) == [{"model_b": f"{HOSTILE}b"}]


def test_the_card_of_a_dataset_shows_names_as_code(place):
    done = command("export", place / "run", "--format", "preference", "--out", place / "dataset")
    assert done.returncode == 0, done.stderr
    card = (place / "dataset" / "README.md").read_text()
    assert is_safe(card)
    assert "<img src=x>" in card
    for line in card.splitlines():
        outside = "".join(line.replace("\\|", "").split("`")[::2])
        assert not set("<>[]") & set(outside), line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("plain é 漢\u3000字 😀", "plain é 漢\u3000字 😀"),
        ("a\tb\nc", "a\tb\nc"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\x9b\u202e\u200b\udcff", "\\x9b\\u202e\\u200b\\udcff"),
        ("\U000e0001", "\\U000e0001"),
    ],
)
def test_printable(text, shown):
    assert printable(text) == shown


@pytest.mark.parametrize("value", [float("nan"), float("inf"), (1, [float("-inf")])])
def test_json_has_no_number_that_is_not_finite(value):
    assert json.loads(json_text({"x": value})) in ({"x": None}, {"x": [1, [None]]})


def encoded(place, *arguments):
    return subprocess.run(
        [*PROGRAM, "sql", str(place / "run"), "SELECT 'modèle 😀' AS x", *arguments],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
    )


def test_a_stdout_that_cannot_hold_a_character_gets_its_escape(place):
    text, as_json = encoded(place), encoded(place, "--json")
    assert text.returncode == as_json.returncode == 0, text.stderr + as_json.stderr
    assert "modèle \\U0001f600".encode("latin-1") in text.stdout
    assert json.loads(as_json.stdout.decode("latin-1")) == [{"x": "modèle 😀"}]


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_a_full_device_is_an_environment_error(place, as_json):
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(
            [*PROGRAM, "status", str(place / "run"), *as_json],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 5
    assert "error[environment]: stdout: the result cannot be printed" in done.stderr
    assert "Exception ignored" not in done.stderr


def test_a_closed_pipe_ends_quietly(place):
    query = "SELECT range, repeat('x', 1000) FROM range(20000)"
    with subprocess.Popen(
        [*PROGRAM, "sql", str(place / "run"), query, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout.readline() == b"[\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


def test_a_closed_stdout_is_no_error(place):
    done = subprocess.run(
        ["/bin/sh", "-c", '"$@" >&-', "sh", *PROGRAM, "status", str(place / "run")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_a_query_ends_at_its_timeout(place, as_json):
    done = program("sql", place / "run", SLOW, "--timeout", "0.2", *as_json)
    assert done.returncode == 5
    assert "the query took longer than 0.2 seconds" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "x"])
def test_a_timeout_is_a_number_above_zero(place, seconds):
    assert command("sql", place / "run", "SELECT 1", "--timeout", seconds).returncode == 2


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_ctrl_c_ends_a_query(place, as_json):
    waits = "import signal, os, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
    start = [sys.executable, "-c", waits + "os.execv(sys.argv[1], sys.argv[1:])"]
    with subprocess.Popen(
        [*start, *PROGRAM, "sql", str(place / "run"), SLOW, *as_json],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        time.sleep(4)  # until the query runs; before that, Ctrl-C ends it as well
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stdout == ""
    assert stderr.strip() == "interrupted"


@pytest.mark.parametrize(
    "redirection", ["2>&-", "2>/dev/full", "<&- >&- 2>&-", ">&- 2>/dev/full", "<&-"]
)
@pytest.mark.parametrize("quiet", [[], ["--quiet"]], ids=["progress", "quiet"])
def test_messages_that_cannot_be_written_do_not_end_a_run(tmp_path, redirection, quiet):
    """Kind of fault: the disk of a log fills up, or a supervisor closes a stream."""
    pq.write_table(pairs_table(20), tmp_path / "pairs.parquet")
    command = [*PROGRAM, "score", str(tmp_path / "pairs.parquet"), "--judge", "scripted",
               "--run", str(tmp_path / "run"), *quiet]  # fmt: skip
    done = subprocess.run(["/bin/sh", "-c", f'"$@" {redirection}', "sh", *command], check=False)
    assert done.returncode == 0
    counted = program("sql", tmp_path / "run", "SELECT count(*) AS n FROM verdicts", "--json")
    assert json.loads(counted.stdout) == [{"n": 20}]
    refused = subprocess.run(
        ["/bin/sh", "-c", f'"$@" {redirection}', "sh", *PROGRAM, "status", "nowhere"], check=False
    )
    assert refused.returncode == 2
