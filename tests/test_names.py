"""The clone's folder `kernels/` must never pass for the package `kernels`.

transformers takes kernels from a package of that name when it finds one, and any folder that lies
in a folder of `sys.path` is found, as a namespace package.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Python imports a module of this name at its start. At its end it says what is found by then.
PROBE = """
import atexit, importlib.util, os, pathlib

def report():
    pathlib.Path(os.environ["KERNELS_REPORT"]).write_text(str(importlib.util.find_spec("kernels")))

atexit.register(report)
"""

WAYS = {
    "console script": [str(Path(sys.executable).with_name("steelyard"))],
    "python -m steelyard": [sys.executable, "-m", "steelyard"],
    "python -P -m steelyard": [sys.executable, "-P", "-m", "steelyard"],
}


def found_after(command, tmp_path, cwd):
    (tmp_path / "sitecustomize.py").write_text(PROBE)
    report = tmp_path / "report"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "KERNELS_REPORT": str(report)}
    done = subprocess.run(
        [*command, "--help"], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert report.exists(), done.stderr
    return report.read_text(), done


@pytest.mark.parametrize("way", WAYS)
def test_kernels_is_no_module_however_the_program_is_started(way, tmp_path):
    found, done = found_after(WAYS[way], tmp_path, ROOT)
    assert found == "None"
    assert done.returncode == 0, done.stderr


def test_the_probe_would_notice(tmp_path):
    found, _ = found_after([sys.executable, "-c", "pass"], tmp_path, ROOT)
    assert "kernels" in found  # -c puts the current folder on the path


def test_kernels_is_no_module_in_pytest():
    assert importlib.util.find_spec("kernels") is None, (
        "start the tests with the command pytest: `python -m pytest` puts the current folder on "
        "the path"
    )


def test_main_removes_nothing_else_from_the_path(tmp_path):
    (tmp_path / "steelyard_probe.py").write_text("")
    code = """
import runpy, sys
sys.path[0], sys.argv[1] = sys.argv[1], "--help"
try:
    runpy.run_module("steelyard", run_name="__main__")
except SystemExit:
    import steelyard_probe
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_ctrl_c_while_the_program_is_imported_is_no_traceback():
    program = (
        "import sys; from steelyard.__main__ import main\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'steelyard.cli': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt()); main()"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")
