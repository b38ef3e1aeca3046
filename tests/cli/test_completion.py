"""Completion in bash, zsh and fish, by click's protocol."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from support.helpers import ROOT

CLI = (ROOT / "docs/cli.md").read_text("utf-8")
PROGRAM = [sys.executable, "-c", "import sys; sys.argv[0] = 'steelyard';"
           " from steelyard.__main__ import main; main()"]  # fmt: skip


def asked(**variables):
    environment = {**os.environ, **variables}
    done = subprocess.run(
        PROGRAM, env=environment, capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_documented_line_gets_a_script(shell):
    lines = re.findall(rf"_STEELYARD_COMPLETE={shell}_source steelyard", CLI)
    assert len(lines) == 1
    script = asked(_STEELYARD_COMPLETE=f"{shell}_source")
    assert f"_STEELYARD_COMPLETE={shell}_complete" in script


@pytest.mark.parametrize(
    ("words", "word", "completed"),
    [
        ("steelyard ", "1", {"score", "sql", "status", "show", "import"}),
        ("steelyard s", "1", {"score", "sql", "status", "show", "serve"}),
        ("steelyard score --tol", "2", {"--tolerate-rejects"}),
        ("steelyard calibrate f", "2", {"fit"}),
        ("steelyard export runs/x --format pre", "4", {"preference"}),
    ],
)
def test_commands_options_and_values_are_completed(words, word, completed):
    answer = asked(_STEELYARD_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=word)
    values = {line.partition(",")[2] for line in answer.splitlines()}
    assert completed <= values
    assert "rank" not in values or words == "steelyard "


def test_paths_are_left_to_the_shell():
    answer = asked(_STEELYARD_COMPLETE="bash_complete", COMP_WORDS="steelyard status r",
                   COMP_CWORD="2")  # fmt: skip
    assert answer.startswith("file,")
