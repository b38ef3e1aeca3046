"""Inputs that a run directory names: what is on the network is not fetched on a stranger's word.

Kind of fault: addresses in a stranger's run are fetched.
"""

from __future__ import annotations

import io
import threading

import fsspec
import pyarrow.parquet as pq
import pytest

import steelyard
from steelyard.core.config import RunConfig
from steelyard.core.progress import Reporter
from steelyard.core.sealed import seal, unseal
from steelyard.errors import (
    EXIT_DONE,
    EXIT_INTERRUPTED,
    InputRefused,
    JudgeUnavailable,
    UsageError,
)
from steelyard.export.exporter import export_dataset
from steelyard.export.options import ExportOptions
from steelyard.input import filesystem
from steelyard.input.discover import check_extent, discover
from steelyard.ranking.winrate import winrate
from steelyard.scoring.run import resume, score
from steelyard.store.run_record import read_scored_record
from steelyard.store.rundir import RunDir
from support.helpers import command, pairs_table, write_pairs

QUIET = Reporter(quiet=True)
ADDRESS = "memory://stranger/pairs.parquet"
PREFERENCE = ExportOptions(format="preference")


@pytest.fixture
def remote():
    """Pairs at an address of a file system that lives in this process."""
    disk = fsspec.filesystem("memory")
    with disk.open(ADDRESS, "wb") as file:
        pq.write_table(pairs_table(30), file)
    yield ADDRESS
    disk.rm(ADDRESS)


@pytest.fixture
def unreachable(monkeypatch):
    """Fail the test where anything is fetched."""

    def fetched(name):
        raise AssertionError(f"{name}:// was asked")

    def forbid():
        for module in ("filesystem", "discover", "footer", "shardset"):
            monkeypatch.setattr(f"steelyard.input.{module}.driver", fetched, raising=False)

    return forbid


def config(address, **options):
    return RunConfig(inputs=(address,), judge=("scripted",), **options)


def test_export_fetches_texts_from_an_address_only_if_told_to(remote, unreachable, tmp_path):
    run = tmp_path / "run"
    assert score(config(remote), run, QUIET) == EXIT_DONE
    content = export_dataset(run, None, PREFERENCE, reporter=QUIET, remote=True)
    assert content["verdicts"] == 30
    unreachable()
    with pytest.raises(UsageError, match="not fetched on its word") as refused:
        export_dataset(run, tmp_path / "out", PREFERENCE, reporter=QUIET)
    assert refused.value.place == ADDRESS
    assert "--remote" in refused.value.remedy
    assert not (tmp_path / "out").exists()
    done = command("export", run, "--format", "preference", "--dry-run")
    assert done.returncode == 2
    assert "nothing was fetched" in done.stderr


def test_the_python_api_and_the_options_pass_it_on(remote, tmp_path):
    run = tmp_path / "run"
    assert score(config(remote), run, QUIET) == EXIT_DONE
    assert command("export", run, "--format", "sft", "--dry-run", "--remote").returncode == 0
    with pytest.raises(UsageError, match="on the network"):
        steelyard.open_run(run).export(tmp_path / "a", "preference")
    assert steelyard.open_run(run).export(tmp_path / "b", "preference", remote=True)["rows"]


def test_win_rates_at_equal_style_fetch_texts_only_if_told_to(remote, unreachable, tmp_path):
    run = tmp_path / "run"
    assert score(config(remote), run, QUIET) == EXIT_DONE
    assert winrate(run, {}, "m0", style=True, remote=True)["rows"]
    unreachable()
    assert winrate(run, {}, "m0")["rows"]
    with pytest.raises(UsageError, match="not fetched on its word"):
        winrate(run, {}, "m0", style=True)


def test_resume_fetches_unplanned_inputs_only_if_told_to(remote, unreachable, tmp_path):
    stop = threading.Event()
    stop.set()
    for name in ("a", "b", "c"):
        assert score(config(remote), tmp_path / name, QUIET, stop) == EXIT_INTERRUPTED
    assert resume(tmp_path / "a", QUIET, remote=True) == EXIT_DONE
    assert score(config(remote), tmp_path / "b", QUIET) == EXIT_DONE
    unreachable()
    with pytest.raises(UsageError, match="not fetched on its word") as refused:
        resume(tmp_path / "c", QUIET)
    assert f"--run {tmp_path / 'c'}" in refused.value.remedy
    assert resume(tmp_path / "a", QUIET) == EXIT_DONE  # it is planned, and needs no input


@pytest.mark.parametrize("wide", ["**/*.parquet", "*/*/*/*/*/*", ""])
def test_a_run_cannot_make_a_command_list_the_whole_machine(wide, tmp_path):
    """11,000 folders stand for the millions below `/`."""
    (tmp_path / "data").mkdir()
    pairs = write_pairs(tmp_path / "data" / "pairs.parquet", 20)
    run = tmp_path / "run"
    assert score(config(str(pairs)), run, QUIET) == EXIT_DONE
    for name in "abcdefghijk":
        (tmp_path / name).mkdir()
        for other in range(1000):
            (tmp_path / name / f"{other}").mkdir()
    content, _ = unseal((run / "run.json").read_bytes())
    content["config"]["inputs"] = [str(tmp_path / wide)]
    (run / "run.json").write_bytes(seal(content, indent=2))
    with pytest.raises(InputRefused, match="leads through more than 10,020 folders"):
        export_dataset(run, None, PREFERENCE, reporter=QUIET)


@pytest.mark.parametrize("text", ["\ud800", "/tmp/\ud800*", "~nobody-of-this-name/x", "a\0b", ""])
def test_what_cannot_be_a_path_is_refused(text):
    check_extent([text], 100)  # it leads nowhere
    with pytest.raises(InputRefused, match="is not a path"):
        discover([text])


def test_ordinary_folders_and_patterns_are_listed(tmp_path):
    for source in ("x", "y"):
        (tmp_path / source).mkdir()
        write_pairs(tmp_path / source / "pairs.parquet", 20)
    (tmp_path / "x" / "back").symlink_to(tmp_path)
    for pattern in ("", "*/*.parquet", "**/pairs.parquet"):
        check_extent([str(tmp_path / pattern)], 200)
    check_extent([str(tmp_path / "*/*.parquet")], 3)
    with pytest.raises(InputRefused):
        check_extent([str(tmp_path / "*/*.parquet")], 2)


def test_resume_fetches_no_judge_from_the_hub_unless_told_to(tmp_path, monkeypatch):
    from huggingface_hub import errors

    from steelyard.judge.model import files

    asked = []

    def snapshot_download(name, *, local_files_only, **_):
        asked.append((name, local_files_only))
        raise errors.LocalEntryNotFoundError("not here")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(JudgeUnavailable, match="not fetched on the run's word") as refused:
        files.resolve_model("stranger/judge", remote=False)
    assert "--remote" in refused.value.remedy
    with pytest.raises(JudgeUnavailable, match="the hub cannot be reached"):
        files.resolve_model("stranger/judge")
    assert asked == [("stranger/judge", True), ("stranger/judge", False)]


def test_resume_says_what_the_run_directory_makes_it_open(tmp_path):
    other = tmp_path / "other"
    pairs = write_pairs(tmp_path / "pairs.parquet", 20)
    assert score(config(str(pairs)), other, QUIET) == EXIT_DONE
    stop = threading.Event()
    stop.set()
    again = config(str(pairs), reuse=(str(other),))
    assert score(again, tmp_path / "run", QUIET, stop) == EXIT_INTERRUPTED
    stream = io.StringIO()
    assert resume(tmp_path / "run", Reporter(stream=stream)) == EXIT_DONE
    for line in ("the judge scripted", f"the input {pairs}", f"the run {other}"):
        assert f"the run directory names {line}\n" in stream.getvalue()


def test_a_path_on_this_machine_is_no_address(tmp_path):
    pairs = write_pairs(tmp_path / "pairs.parquet", 20)
    run = tmp_path / "run"
    assert score(config(f"file://{pairs}"), run, QUIET) == EXIT_DONE
    assert read_scored_record(RunDir(run)).config.inputs == (f"file://{pairs}",)
    assert not filesystem.protocol(f"file://{pairs}")
    assert export_dataset(run, None, PREFERENCE, reporter=QUIET)["verdicts"] == 20
