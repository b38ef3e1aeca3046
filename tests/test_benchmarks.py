"""Every benchmark runs at its smoke size and audits itself, so that none rots."""

import json
import subprocess
import sys

import pytest

from helpers import ROOT

FOLDER = ROOT / "benchmarks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in {"common", "run"})


def test_make_bench_runs_them_all():
    listed = (FOLDER / "run.py").read_text("utf-8").split("NAMES = (")[1].split(")")[0]
    assert sorted(name.strip(' "') for name in listed.split(",") if name.strip()) == NAMES


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_smoke(name, tmp_path):
    target = tmp_path / "result.json"
    command = [sys.executable, str(FOLDER / f"{name}.py"), "--smoke", "--json", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(target.read_text("utf-8"))
    assert result["rows"]
    assert result["commit"]
    if name == "soak":
        (row,) = result["rows"]
        assert row["kills"] == 25
        assert (row["lost"], row["duplicated"], row["altered"], row["errors"]) == (0, 0, 0, 0)
        assert row["queries"] > 0
