"""The first hour of a newcomer: README only, an empty home, data of one's own, a report."""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from support.helpers import ROOT

README = (ROOT / "README.md").read_text("utf-8")
JUDGE = "Qwen/Qwen3-8B"  # in the README; here it is the one that `make demo` has installed


def blocks():
    """The README's indented commands, without what they say after `#`."""
    lines = re.findall(r"^    (make|steelyard)( .*)$", README, re.MULTILINE)
    return [(name + rest).split("#")[0].strip() for name, rest in lines]


@pytest.fixture
def home(tmp_path):
    """An empty home; pip's settings are kept, wherever this machine has them."""
    (tmp_path / "home").mkdir()
    hidden = {"PYTHONPATH", "VIRTUAL_ENV", "STEELYARD_DATA"}
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in hidden and not name.startswith("XDG_")
    }
    for place in (".config/pip/pip.conf", ".pip/pip.conf"):
        if (Path.home() / place).exists():
            environment.setdefault("PIP_CONFIG_FILE", str(Path.home() / place))
    return {**environment, "HOME": str(tmp_path / "home"), "BROWSER": "true"}


def write_messages(path):
    with path.open("w", encoding="utf-8") as file:
        for i in range(12):
            row = {
                "prompt": [{"role": "user", "content": f"Name a number above {i}, and say why."}],
                "chosen": [{"role": "assistant", "content": f"{i + 1}: it is the next number."}],
                "rejected": [{"role": "assistant", "content": f"{i - 1}. I like it."}],
            }
            file.write(json.dumps(row) + "\n")


@pytest.mark.slow
@pytest.mark.vllm
def test_from_the_readme_to_a_report(home, tmp_path):
    def run(*command, cwd=tmp_path):
        done = subprocess.run(
            command, cwd=cwd, env=home, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{shlex.join(map(str, command))}\n{done.stdout}{done.stderr}"
        return done.stdout

    venv = tmp_path / "venv"
    commands = blocks()
    assert commands[:2] == ["make demo", "make test"]
    demo = run("make", "demo", f"VENV={venv}", f"RUN={tmp_path / 'demo'}", cwd=ROOT)
    assert "the judge agrees with people" in demo
    assert "58 of 58 pairs" in demo
    assert (tmp_path / "demo" / "report.html").exists()

    home["PATH"] = f"{venv / 'bin'}{os.pathsep}{home['PATH']}"
    (tmp_path / "data").mkdir()
    write_messages(tmp_path / "data" / "mine.jsonl")
    own = [command.replace(JUDGE, "demo") for command in commands[2:]]
    assert any(" score " in command for command in own)
    for command in own:
        run(*shlex.split(command))
    (page,) = tmp_path.glob("*.html")
    assert "Name a number above 7" in page.read_text("utf-8")
