"""The files that a record names: opened again as they were, or refused with what has changed."""

from __future__ import annotations

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from steelyard.core.config import RunConfig
from steelyard.errors import InputRefused, UsageError
from steelyard.input import Limits, open_shards
from steelyard.store import run_input
from steelyard.store.run_input import check_paths, open_input, reopen_input, row_limits
from steelyard.store.run_record import InputRecord, read_record
from steelyard.store.rundir import RunDir
from support.helpers import ROOT

TEXTS = {"instruction": ["q"], "response_a": ["a"], "response_b": ["b"]}
WAY_OUT = "score it again"


@pytest.fixture
def shards(tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    for name in ("one", "two"):
        pq.write_table(pa.table(TEXTS), folder / f"{name}.parquet")
    return folder


def scored(*inputs, shards=(), fingerprint="", **options):
    """The record of a run of these inputs."""
    record = read_record(RunDir(ROOT / "tests/golden/complete"))
    config = RunConfig(inputs=tuple(map(str, inputs)), judge=("scripted",), **options)
    content = InputRecord(fingerprint, tuple(shards), 2)
    return msgspec.structs.replace(record, config=config, input=content)


def imported(shards=(), fingerprint="", **content):
    """The record of an import."""
    record = read_record(RunDir(ROOT / "tests/golden/imported"))
    tables = msgspec.structs.replace(record.imported, **content)
    files = InputRecord(fingerprint, tuple(shards), 2)
    return msgspec.structs.replace(record, imported=tables, input=files)


def test_files_that_are_as_they_were_are_opened(shards):
    fingerprint = open_shards([str(shards)]).fingerprint
    record = scored(shards, fingerprint=fingerprint, max_row_bytes=1234)
    opened, limits = reopen_input(record, otherwise=WAY_OUT)
    assert [source.name for source in opened.sources] == ["one.parquet", "two.parquet"]
    assert limits == Limits(row_bytes=1234)


def test_limits_of_a_new_run_are_those_of_its_config():
    config = RunConfig(inputs=("x",), judge=("scripted",), max_row_bytes=5, on_bad_row="fail")
    assert row_limits(config) == Limits(row_bytes=5, on_bad_row="fail")


def test_columns_are_read_under_their_roles(tmp_path):
    pq.write_table(pa.table({"task": ["q"], "x": ["a"], "y": ["b"]}), tmp_path / "p.parquet")
    mapped = {"instruction": "task", "response_a": "x", "response_b": "y"}
    record = scored(tmp_path / "p.parquet")
    config = RunConfig(inputs=(str(tmp_path / "p.parquet"),), judge=("scripted",), map=mapped)
    assert open_input(config, record.spec).rows == 1
    with pytest.raises(InputRefused):
        open_input(record.config, record.spec)


NAMES = ("one.parquet", "two.parquet")


@pytest.mark.parametrize(
    ("before", "cause"),
    [
        (NAMES, "their sizes or footers have changed"),
        (("one.parquet", "old.parquet"), "missing: old.parquet; new: two.parquet"),
        (NAMES[:1], "new: two.parquet"),
        ((*NAMES, *(f"{k}.parquet" for k in "dcba")), "missing: a.parquet, b.parquet, c.parquet"),
    ],
)
def test_files_that_have_changed_are_named(shards, before, cause):
    record = scored(shards, shards / "one.parquet", shards=before, fingerprint="other")
    with pytest.raises(InputRefused) as refused:
        reopen_input(record, otherwise=WAY_OUT, effect="nothing is lost")
    assert refused.value.cause.endswith(f"since the run was planned: {cause}")
    assert refused.value.place == f"{shards}, {shards / 'one.parquet'}"
    assert refused.value.effect == "nothing is lost"
    assert refused.value.remedy == f"put the shards back as they were, or {WAY_OUT}"


def test_files_that_are_gone_are_said_to_be_gone(tmp_path):
    with pytest.raises(InputRefused, match="no such file or folder") as refused:
        reopen_input(scored(tmp_path / "nowhere"), otherwise=WAY_OUT)
    assert refused.value.place == str(tmp_path / "nowhere")
    assert WAY_OUT in refused.value.remedy


@pytest.mark.parametrize(
    ("paths", "columns"),
    [
        (None, {name: name for name in TEXTS}),
        (("shards",), {"instruction": "instruction", "response_a": "response_a"}),
    ],
)
def test_an_import_without_texts_is_not_opened_for_them(shards, paths, columns):
    found = None if paths is None else (str(shards),)
    record = imported(paths=found, columns=columns, tables=("t.parquet", "u.parquet"))
    with pytest.raises(UsageError, match="hold no texts") as refused:
        reopen_input(record, otherwise=WAY_OUT)
    assert refused.value.place == "t.parquet, u.parquet"
    assert "instruction, response_a, response_b" in refused.value.remedy
    assert WAY_OUT in refused.value.remedy


def test_tables_of_an_import_are_opened_for_their_texts_alone(tmp_path):
    columns = {"instruction": "task", "response_a": "x", "response_b": "y"}
    place = tmp_path / "t.parquet"
    rows = {columns[name]: values for name, values in TEXTS.items()}
    pq.write_table(pa.table({**rows, "preference": [0.5]}), place)
    fingerprint = open_shards([str(place)], columns).fingerprint
    record = imported(
        paths=(str(place),), columns={**columns, "preference": "nowhere"}, fingerprint=fingerprint
    )
    opened, limits = reopen_input(record, otherwise=WAY_OUT)
    assert opened.rows == 1
    assert limits == Limits()


@pytest.mark.parametrize("make", [scored, lambda *paths: imported(paths=paths)])
def test_addresses_are_not_fetched_on_the_word_of_a_run(make, shards):
    record = make(str(shards), "s3://bucket/x", "https://host/y")
    with pytest.raises(UsageError, match="on the network") as refused:
        check_paths(record, otherwise=WAY_OUT, remote=False)
    assert refused.value.place == "s3://bucket/x, https://host/y"
    assert "--remote" in refused.value.remedy
    assert WAY_OUT in refused.value.remedy
    with pytest.raises(UsageError, match="on the network"):
        reopen_input(record, otherwise=WAY_OUT)


@pytest.mark.parametrize(("shards", "most"), [(3, 10_060), (5_000, 110_000), (9_000, 110_000)])
def test_what_a_run_names_may_lead_through_some_folders_per_shard(monkeypatch, shards, most):
    checked = []
    monkeypatch.setattr(run_input, "check_extent", lambda *given: checked.append(given))
    record = scored("/a", "s3://b", shards=map(str, range(shards)))
    assert check_paths(record, otherwise=WAY_OUT, remote=True) == ("/a", "s3://b")
    assert check_paths(imported(paths=None), otherwise=WAY_OUT, remote=False) == ()
    assert checked == [(("/a", "s3://b"), most), ((), 10_000)]
