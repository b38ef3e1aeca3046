"""A path is data and never syntax: a run directory may have any name that a file system allows.

Kind of fault: a path is data, never syntax.
"""

import os

import pyarrow.parquet as pq
import pytest

import steelyard
from steelyard.core.schemas import READS
from steelyard.errors import EXIT_DONE
from steelyard.scoring.run import resume
from support.helpers import pairs_table

NAMES = (
    "status=final", "bucket=7/prompt_key=a", "truncated=1/label_logprobs=1/label_mass=0",
    "model_a=qwen", "row=5", "metadata=1", "date=2026-01-01/seed=1", "pair=x",
    "what?", "a?b=c&d", "exp1:a", "2026-01-01T10:00", "s3:x", "md:x", "~x", "~", "back\\slash",
    "q[8b]", "*", "{a,b}", "it's", 'say "hi"', "two\nlines", "tab\there", "-x", " x ", "ü😀",
    "%20", "#1", "file.duckdb", "x.parquet", ":memory:",
)  # fmt: skip


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    path = tmp_path_factory.mktemp("shard") / "pairs.parquet"
    pq.write_table(pairs_table(6), path)
    return path


@pytest.fixture(scope="module")
def plain(shard):
    run = steelyard.score(shard, run=shard.parent / "plain", judge="scripted")
    return rows(run)


def rows(run):
    """All verdicts, and all reads: a folder's name replaces no value of either."""
    verdicts = run.verdicts().sort_by("row").drop_columns(["read_at"])
    reads = run.sql("FROM reads ORDER BY prompt_key")
    assert reads.column_names == READS.names
    return verdicts.to_pylist(), reads.drop_columns(["read_at"]).to_pylist()


def check(place, shard, plain):
    run = steelyard.score(shard, run=place, judge="scripted")
    assert rows(run) == plain
    (place / "verdicts.duckdb").unlink()
    assert rows(steelyard.open_run(place)) == plain  # from live views
    assert len(run.sql("FROM reads")) == 12
    dataset = place.parent / f"{place.name}.dataset"
    run.export(dataset, "reward")
    assert sum(len(pq.read_table(file, partitioning=None)) for file in dataset.glob("data/*"))
    assert resume(place) == EXIT_DONE
    assert (place / "verdicts.duckdb").exists()
    assert rows(steelyard.open_run(place)) == plain


@pytest.mark.parametrize("name", NAMES)
def test_a_run_may_have_any_name(name, shard, plain, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check(tmp_path / name, shard, plain)


def test_a_name_that_is_not_utf_8(shard, plain, tmp_path):
    place = tmp_path / os.fsdecode(b"caf\xe9")
    run = steelyard.score(shard, run=place, judge="scripted")
    assert rows(run) == plain


def test_a_pattern_matches_no_sibling(shard, plain, tmp_path):
    steelyard.score(shard, run=tmp_path / "q8", judge="scripted:seed=9")
    check(tmp_path / "q[8b]", shard, plain)
