"""The package as it is installed: wheel and source archive, by `python -m build`."""

import os
import subprocess
import sys
import tarfile
import zipfile

import pytest

from support.helpers import ROOT, write_pairs


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--outdir", out, ROOT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,), (archive,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, archive


def test_an_index_would_accept_them(built):
    command = [sys.executable, "-m", "twine", "check", "--strict", *built]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_they_hold_what_they_need_and_no_more(built):
    wheel, archive = built
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = {
        str(path.relative_to(ROOT / root))
        for root in ("engine", "kernels")
        for path in (ROOT / root).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    installed = {name for name in names if ".dist-info/" not in name}
    assert installed == sources
    with tarfile.open(archive) as held:
        tops = {name.split("/")[1] for name in held.getnames() if "/" in name}
    assert {"engine", "kernels", "tests", "docs", "LICENSE"} <= tops
    assert not tops & {".venv", ".git", "dist"}


@pytest.mark.slow
def test_it_is_installed_as_a_tool_and_scores(built, tmp_path):
    """`uv tool install`, without extras: all but real judges, demo, drawings and pages."""
    pytest.importorskip("uv")
    from uv import find_uv_bin

    wheel, _ = built
    places = {"UV_TOOL_DIR": tmp_path / "tools", "UV_TOOL_BIN_DIR": tmp_path / "bin"}
    hidden = {"PYTHONPATH", "VIRTUAL_ENV"}
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    environment |= {key: str(value) for key, value in places.items()}
    command = [find_uv_bin(), "tool", "install", "--python", sys.executable, wheel]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr

    def steelyard(*arguments):
        line = [tmp_path / "bin" / "steelyard", *arguments]
        ended = subprocess.run(
            line, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    assert steelyard("--version").split()[-1] == wheel.name.split("-")[1]
    write_pairs(tmp_path / "pairs.parquet", 30)
    steelyard("score", "pairs.parquet", "--run", "run", "--judge", "scripted")
    assert "30" in steelyard("sql", "run", "SELECT count(*) FROM verdicts")
