"""The writer's first act: journal and parts agree again, and nothing doubtful is taken."""

import errno
import json
import os
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import steelyard
from steelyard.core.config import RunConfig
from steelyard.core.progress import Reporter
from steelyard.errors import DiskFull, EnvironmentFault
from steelyard.scoring.run import score
from steelyard.store.durable import PARQUET
from steelyard.store.reads import journal
from steelyard.store.reads.recovery import recover
from steelyard.store.rundir import RunDir
from steelyard.store.verdicts.queries import recount_pairs
from support.helpers import pairs_table
from support.recording_disk import RecordingDisk

QUIET = Reporter(quiet=True)


def part(number):
    return f"reads/part-{number:08d}.parquet"


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A complete run of 24 pairs and copies of four, 48 reads in three parts."""
    place = tmp_path_factory.mktemp("recovery")
    shard, pairs = place / "pairs.parquet", pairs_table(24, width=16).sort_by("instruction")
    pq.write_table(pa.concat_tables([pairs.slice(0, 4), pairs]), shard)
    options = {"inputs": [str(shard)], "judge": "scripted", "part_rows": 12, "bucket_bytes": 400}
    score(RunConfig.from_mapping(options, "test"), place / "run", QUIET)
    sizes = [entry.rows for entry in journal.read_journal(place / "run")]
    assert sum(sizes) == 48
    assert len(sizes) >= 3
    return place / "run"


@pytest.fixture
def run(scored, tmp_path):
    shutil.copytree(scored, tmp_path / "run")
    (tmp_path / "run" / "complete.json").unlink()
    return RunDir(tmp_path / "run", RecordingDisk(tmp_path / "run"))


def names(run):
    return [entry.name for entry in journal.load(run).parts]


def lines(run):
    return (run.root / "journal.jsonl").read_bytes().splitlines(keepends=True)


def put(run, *content):
    (run.root / "journal.jsonl").write_bytes(b"".join(content))


def entries(folder):
    return sorted(path.name for path in folder.iterdir())


def aside(run):
    folder = run.root / "reads" / "damaged"
    return entries(folder) if folder.exists() else []


def flip(path, position):
    raw = bytearray(path.read_bytes())
    raw[position] ^= 1
    path.write_bytes(raw)


def test_a_sound_run_stays_as_it_is(run):
    before = lines(run)
    run.files.disk.every.clear()
    assert recover(run) == []
    assert lines(run) == before
    assert {kind for kind, _ in run.files.disk.calls} == {"sync", "make_folder"}


def test_what_a_killed_writer_left_is_made_durable_before_anything_relies_on_it(run):
    """It may have been killed between a rename and the fsync of the folder."""
    put(run, *lines(run)[:-1])
    run.files.disk.every.clear()
    recover(run)
    calls = [call for call in run.files.disk.calls if call[0] == "sync"]
    assert calls[:3] == [("sync", "journal.jsonl"), ("sync", "reads"), ("sync", ".")]
    assert ("write", "journal.jsonl") in run.files.disk.calls[3:]  # the part that was adopted


def test_parts_without_a_line_are_adopted(run):
    whole = journal.load(run).parts
    put(run, lines(run)[1])
    notes = recover(run)
    assert notes == [
        f"{name} was not in the journal: checked and added" for name in (part(1), *names(run)[2:])
    ]
    after = {entry.name: entry for entry in journal.load(run).parts}
    assert sorted(after) == sorted(entry.name for entry in whole)
    for entry in whole:
        adopted = after[entry.name]
        assert (adopted.digest, adopted.rows) == (entry.digest, entry.rows)
        assert (adopted.buckets, adopted.counts) == (entry.buckets, entry.counts)
    assert sum(entry.counts["duplicate_tokens"] for entry in after.values()) > 0
    recount_pairs(run)
    assert sum(entry.pairs for entry in journal.load(run).parts) == 28
    assert recover(run) == []


@pytest.mark.parametrize("torn", [b'{"check":"', b"x"])
def test_a_torn_line_goes(run, torn):
    good = lines(run)
    put(run, *good, torn)
    assert recover(run) == []
    assert lines(run) == good


def test_a_damaged_line_goes_and_its_part_is_adopted(run):
    good = lines(run)
    put(run, good[0].replace(b'"rows":', b'"rows":1'), *good[1:])
    assert recover(run) == [f"{part(1)} was not in the journal: checked and added"]
    assert not journal.load(run).damaged
    assert sorted(names(run)) == sorted(json.loads(line)["part"]["name"] for line in good)


def test_a_run_that_lost_its_journal_and_its_parts_has_a_journal_again(run):
    (run.root / "journal.jsonl").unlink()
    shutil.rmtree(run.root / "reads")
    assert recover(run) == []
    assert journal.load(run) == journal.Journal()


def test_a_journal_that_is_gone_is_made_again(run):
    (run.root / "journal.jsonl").unlink()
    assert len(recover(run)) == len(names(run)) >= 3
    assert sum(entry.rows for entry in journal.load(run).parts) == 48


def test_a_damaged_part_is_set_aside_before_the_journal_forgets_it(run):
    """Else a kill in between would leave it as one that the journal lost."""
    flip(run.root / part(2), 200)
    run.files.disk.every.clear()
    notes = recover(run)
    assert notes == [f"{part(2)} is damaged: set aside, its prompts are read again"]
    assert part(2) not in names(run)
    (kept,) = aside(run)
    assert kept.endswith("-part-00000002.parquet")
    calls = [call for call in run.files.disk.calls if call[0] != "write"]
    moved = calls.index(("rename", part(2)))
    assert calls[moved + 1 : moved + 3] == [("sync", "reads/damaged"), ("sync", "reads")]
    assert calls.index(("rename", "journal.jsonl.tmp")) > moved


def test_a_kill_after_a_part_was_set_aside_is_mended(run):
    flip(run.root / part(2), 200)
    run.files.disk.fail("rename", "journal.jsonl.tmp", errno.EIO)
    with pytest.raises(EnvironmentFault):
        recover(run)
    assert recover(run) == [f"{part(2)} is missing: its prompts are read again"]
    assert part(2) not in names(run)
    assert len(aside(run)) == 1


def test_a_part_that_is_gone_is_said(run):
    (run.root / part(1)).unlink()
    assert recover(run) == [f"{part(1)} is missing: its prompts are read again"]
    assert part(1) not in names(run)
    assert aside(run) == []


def test_temporary_files_go(run):
    for name in ("reads/part-00000009.parquet.tmp", "duckdb.tmp", "verdicts.duckdb.host-1.tmp"):
        (run.root / name).write_bytes(b"half")
    for name in ("journal.jsonl.tmp", "complete.json.tmp", "run.json.tmp", "calibration.json.tmp"):
        (run.root / name).write_bytes(b"half")
    (run.root / "verdicts.duckdb.host-1.tmp.wal").touch()
    (run.root / "verdicts.duckdb.wal.strange").touch()
    (run.root / "verdicts.duckdb.host-1.tmp.spill").mkdir()
    (run.root / "notes.txt").touch()
    assert recover(run) == []
    left = {*entries(run.root), *entries(run.root / "reads")}
    assert {"notes.txt", "verdicts.duckdb", "verdicts.duckdb.wal.strange"} <= left
    assert not [name for name in left if "tmp" in name]


STRANGE_TABLES = {
    "another schema": lambda table: table.rename_columns(["key", *table.column_names[1:]]),
    "a column less": lambda table: table.drop_columns(["reused_from"]),
    "another type": lambda table: table.set_column(1, "bucket", table["bucket"].cast(pa.int64())),
    "no rows": lambda table: table.slice(0, 0),
    "a key twice": lambda table: pa.concat_tables([table, table.slice(0, 1)]),
    "a key that nobody asks for": lambda table: table.set_column(
        0, table.schema.field(0), pa.array([bytes(16)] * len(table), pa.binary(16))
    ),
    "another bucket": lambda table: table.set_column(
        1, table.schema.field(1), pa.array([99] * len(table), pa.int32())
    ),
}


@pytest.mark.parametrize("kind", STRANGE_TABLES)
def test_a_part_that_does_not_fit_is_not_adopted(run, kind):
    path = run.root / part(1)
    pq.write_table(STRANGE_TABLES[kind](pq.read_table(path)), path, **PARQUET)
    put(run, *lines(run)[1:])
    assert recover(run) == [f"{part(1)} is damaged: set aside, its prompts are read again"]
    assert part(1) not in names(run)
    assert len(aside(run)) == 1


def test_reads_that_a_committed_part_has_are_not_adopted_again(run):
    shutil.copy(run.root / part(1), run.root / part(9))
    assert recover(run) == [f"{part(9)} is damaged: set aside, its prompts are read again"]
    assert part(9) not in names(run)


def unnoticed(path):
    """A position at which a flip changes a number, and only the checksum of its page notices."""
    whole, good = path.read_bytes(), pq.read_table(path)
    for position in range(len(whole)):
        raw = bytearray(whole)
        raw[position] ^= 1
        try:
            table = pq.read_table(pa.BufferReader(bytes(raw)), use_threads=False)
        except (pa.ArrowException, OSError, ValueError):
            continue
        columns = ("prompt_key", "bucket", "prompt_tokens")
        if not table.schema.equals(good.schema) or table.equals(good):
            continue
        if all(table[name].equals(good[name]) for name in columns):
            return position
    raise AssertionError


@pytest.mark.parametrize("find", [unnoticed, lambda _: 60, lambda _: -1])
def test_a_damaged_part_without_a_line_is_not_adopted(run, find):
    path = run.root / part(1)
    flip(path, find(path))
    put(run, *lines(run)[1:])
    assert recover(run) == [f"{part(1)} is damaged: set aside, its prompts are read again"]
    assert part(1) not in names(run)


def test_a_name_of_a_column_that_is_not_utf8_is_damage(run):
    path = run.root / part(1)
    path.write_bytes(path.read_bytes().replace(b"prompt_key", b"prompt_\xf0ey"))
    put(run, *lines(run)[1:])
    assert recover(run) == [f"{part(1)} is damaged: set aside, its prompts are read again"]


def test_files_with_other_names_are_set_aside(run, tmp_path):
    (tmp_path / "outside").write_bytes(b"not ours")
    shutil.copy(run.root / part(1), run.root / "reads" / "copy.parquet")
    (run.root / part(7)).symlink_to(tmp_path / "outside")
    os.mkfifo(run.root / part(8))
    notes = recover(run)
    assert [note.split()[0] for note in notes] == ["reads/copy.parquet", part(7), part(8)]
    assert len(aside(run)) == 3
    assert (tmp_path / "outside").read_bytes() == b"not ours"


@pytest.mark.parametrize("error", [errno.EMFILE, errno.EIO, errno.EACCES])
@pytest.mark.parametrize("kind", ["open_file", "read"])
def test_a_part_that_cannot_be_read_now_is_not_taken_for_damaged(run, error, kind):
    put(run, *lines(run)[1:])
    run.files.disk.fail(kind, part(1), error)
    with pytest.raises(EnvironmentFault, match=os.strerror(error)):
        recover(run)
    assert aside(run) == []
    assert recover(run) == [f"{part(1)} was not in the journal: checked and added"]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("sync", "journal.jsonl"),
        ("sync", "reads"),
        ("sync", "."),
        ("rename", part(2)),
        ("rename", "journal.jsonl.tmp"),
        ("write", "journal.jsonl.tmp"),
        ("remove", "reads/x.tmp"),
    ],
)
def test_a_repair_that_fails_says_so_and_the_next_one_succeeds(run, kind, name):
    expected = steelyard.open_run(run.root).sql("SELECT count(*) AS n FROM reads").to_pylist()
    assert expected == [{"n": 48}]
    flip(run.root / part(2), 200)
    (run.root / "reads" / "x.tmp").touch()
    put(run, *lines(run)[1:])
    run.files.disk.fail(kind, name, errno.ENOSPC)
    with pytest.raises(DiskFull):
        recover(run)
    recover(run)
    assert part(1) in names(run)
    assert part(2) not in names(run)
    assert recover(run) == []
