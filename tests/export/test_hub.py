"""`export --push-to-hub`: what is sent where, and what is shown where nothing can be sent."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub.errors import OfflineModeIsEnabled

import steelyard
from support.helpers import command, write_pairs

TOKEN = "hf_abcDEF123"
NAME = "group/preferences"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("hub")
    shard = write_pairs(place / "pairs.parquet", 30)
    return steelyard.score(shard, run=place / "run", judge="scripted").root


class Hub:
    """In place of the Hub: it holds repositories and what was sent to them."""

    def __init__(self, error=None, private=True):
        self.error, self.private, self.sent, self.made = error, private, {}, []

    def create_repo(self, name, *, repo_type, private, exist_ok):
        if self.error:
            raise self.error
        self.made.append((name, repo_type, private, exist_ok))
        return SimpleNamespace(repo_id=name)

    def dataset_info(self, _name):
        return SimpleNamespace(private=self.private)

    def upload_folder(self, *, repo_id, repo_type, folder_path, allow_patterns, commit_message):
        assert (repo_id, repo_type) == (NAME, "dataset")
        assert commit_message
        self.sent = {name: (Path(folder_path) / name).read_bytes() for name in allow_patterns}
        return SimpleNamespace(commit_url=f"https://hub.example/{repo_id}/commit/1")


def export(run, *options, hub=None, monkeypatch=None):
    if monkeypatch is not None:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    line = ("export", run, "--format", "preference", "--test", "0.3", "--push-to-hub", NAME)
    return command(*line, "--quiet", *options)


def test_the_dataset_is_sent_to_a_private_repository(run, tmp_path, monkeypatch):
    hub = Hub()
    done = export(run, "--out", tmp_path / "d", hub=hub, monkeypatch=monkeypatch)
    assert done.returncode == 0, done.stderr
    assert hub.made == [(NAME, "dataset", True, True)]
    files = {str(path.relative_to(tmp_path / "d")) for path in (tmp_path / "d").rglob("*.*")}
    assert set(hub.sent) == files
    assert {"README.md", "export.json", "data/train-00000-of-00001.parquet"} <= files
    assert f"sent to the private dataset {NAME}: https://hub.example/" in done.stdout


def test_a_dry_run_names_files_and_sends_nothing(run, tmp_path, monkeypatch):
    hub = Hub(error=OfflineModeIsEnabled("the Hub was asked"))
    done = export(run, "--dry-run", "--json", hub=hub, monkeypatch=monkeypatch)
    assert done.returncode == 0
    planned = json.loads(done.stdout)["hub"]
    assert export(run, "--out", tmp_path / "d", hub=hub, monkeypatch=monkeypatch).returncode == 5
    written = {name: (tmp_path / "d" / name).stat().st_size for name in planned["files"]}
    estimates = planned.pop("files")
    assert list(estimates) == list(written)
    for name, size in estimates.items():
        assert size is None or 0.5 * written[name] < size < 2 * written[name]
    assert sum(size is not None for size in estimates.values()) == 2
    assert planned == {
        "repository": NAME,
        "private": True,
        "pushed": None,
        "reason": "a dry run",
        "estimated": True,
    }
    assert "about " in export(run, "--dry-run", hub=hub, monkeypatch=monkeypatch).stdout


@pytest.mark.parametrize(
    "error",
    [
        OfflineModeIsEnabled("offline"),
        ConnectionError("no route"),
        ValueError(f"401 for {TOKEN}"),
    ],
)
def test_without_the_hub_the_dataset_is_written_and_the_plan_is_shown(
    run, tmp_path, monkeypatch, error
):
    out = tmp_path / "d"
    done = export(run, "--out", out, hub=Hub(error=error), monkeypatch=monkeypatch)
    assert done.returncode == 5
    assert f"not sent ({type(error).__name__}" in done.stdout
    assert f"for the private dataset {NAME}:" in done.stdout
    size = f"{(out / 'README.md').stat().st_size / 1e3:,.1f} kB  README.md"
    assert size in done.stdout
    assert TOKEN not in done.stdout + done.stderr


def test_nothing_is_sent_to_a_public_repository(run, tmp_path, monkeypatch):
    hub = Hub(private=False)
    done = export(run, "--out", tmp_path / "d", hub=hub, monkeypatch=monkeypatch)
    assert done.returncode == 5
    assert not hub.sent
    assert "is not private" in done.stdout
    assert f"hf upload {NAME} {tmp_path / 'd'} . --repo-type dataset" in done.stdout


@pytest.mark.parametrize("name", ["", "a/b/c", "../x", "a b", "-x", "https://hf.co/a"])
def test_other_names_are_refused_before_anything_is_written(run, tmp_path, name):
    line = ("export", run, "--format", "reward", "--out", tmp_path / "d", f"--push-to-hub={name}")
    done = command(*line)
    assert done.returncode == 2
    assert "--push-to-hub is" in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_library_is_named_where_it_is_missing(run, tmp_path, monkeypatch):
    monkeypatch.setattr("steelyard.export.hub.find_spec", lambda _: None)
    done = export(run, "--out", tmp_path / "d")
    assert done.returncode == 5
    assert "pip install 'steelyard[hf]'" in done.stderr
    assert not list(tmp_path.iterdir())
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert export(run, "--dry-run").returncode == 0
