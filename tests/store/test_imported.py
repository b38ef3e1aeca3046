"""Imported verdicts on the disk, and calibrators: what is written, read back, and refused."""

import errno
import math
from pathlib import Path
from types import SimpleNamespace

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash

from steelyard.calibrators.calibrator import Calibrator
from steelyard.calibrators.linear import Linear
from steelyard.core.schemas import REJECTS
from steelyard.errors import (
    CalibratorRefused,
    DiskFull,
    InputRefused,
    IntegrityFault,
    UsageError,
)
from steelyard.store import calibration, sql
from steelyard.store.rundir import RunDir
from steelyard.store.verdicts import calibrated_tables, imported
from steelyard.store.verdicts.imported import ImportWriter, define_tables
from support.recording_disk import RecordingDisk

SCHEMA = pa.schema(
    [("pair_id", pa.string()), ("raw_preference", pa.float64()), ("winner", pa.string())]
)
THIRD = Calibrator("platt", Linear({"logit": 1.0, "intercept": math.log(1 / 3)}))


@pytest.fixture
def run(tmp_path):
    return RunDir(tmp_path / "run", RecordingDisk(tmp_path / "run"))


def verdicts(*ids):
    rows = [{"pair_id": name, "raw_preference": 0.75, "winner": "a"} for name in ids]
    return pa.RecordBatch.from_pylist(rows, schema=SCHEMA)


def rejects(*reasons):
    rows = [{"shard": "t", "row": 0, "reason": reason, "detail": ""} for reason in reasons]
    return pa.RecordBatch.from_pylist(rows, schema=REJECTS)


def written(run):
    writer = ImportWriter(run, SCHEMA)
    writer.add(verdicts("x", "y"), rejects("null"))
    writer.add(verdicts("z"), rejects("scale", "null"))
    return writer.commit()


def entries(run):
    return sorted(str(p.relative_to(run.root)) for p in run.root.rglob("*") if p.is_file())


# -- imported verdicts -----------------------------------------------------------------------------


def test_an_import_has_its_rows_and_digests(run):
    content = written(run)
    assert (content["pairs"], content["rejected"]) == (3, {"null": 2, "scale": 1})
    assert entries(run) == ["imported/rejects.parquet", "imported/verdicts.parquet"]
    for name, digest in content["files"].items():
        data = (run.imported / f"{name}.parquet").read_bytes()
        assert digest == xxhash.xxh3_128_hexdigest(data)
    assert list(content["files"]) == ["verdicts", "rejects"]
    assert pq.read_table(run.imported / "verdicts.parquet")["pair_id"].to_pylist() == [*"xyz"]
    reasons = pq.read_table(run.imported / "rejects.parquet")["reason"].to_pylist()
    assert reasons == ["null", "scale", "null"]


def test_an_import_is_durable_before_it_has_its_name(run):
    written(run)
    order = [call[:2] for call in run.files.disk.calls if call[0] in {"sync", "rename"}]
    assert order[-5:] == [
        ("sync", "imported.tmp/verdicts.parquet"),
        ("sync", "imported.tmp/rejects.parquet"),
        ("sync", "imported.tmp"),
        ("rename", "imported.tmp"),
        ("sync", "."),
    ]


def test_row_groups_of_an_import_are_bounded(run, monkeypatch):
    monkeypatch.setattr(imported, "_GROUP_ROWS", 3)
    writer = ImportWriter(run, SCHEMA)
    for ids in ("ab", "c", "d", "efg", "h"):
        writer.add(verdicts(*ids), rejects())
    writer.commit()
    file = pq.ParquetFile(run.imported / "verdicts.parquet")
    groups = [file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)]
    assert groups == [3, 4, 1]
    assert pq.read_table(run.imported / "rejects.parquet").num_rows == 0


def test_row_groups_of_an_import_are_bounded_by_bytes(run, monkeypatch):
    monkeypatch.setattr(imported, "_GROUP_BYTES", 2 * verdicts("a").nbytes)
    writer = ImportWriter(run, SCHEMA)
    for name in "abc":
        writer.add(verdicts(name), rejects())
    writer.commit()
    file = pq.ParquetFile(run.imported / "verdicts.parquet")
    assert [file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)] == [2, 1]


@pytest.mark.parametrize("place", ["imported.tmp", "imported"])
def test_what_an_import_that_was_cut_short_left_is_gone(run, place):
    (run.root / place).mkdir(parents=True)
    (run.root / place / "old.parquet").write_bytes(b"old")
    written(run)
    assert entries(run) == ["imported/rejects.parquet", "imported/verdicts.parquet"]


def test_an_abandoned_import_leaves_nothing(run):
    writer = ImportWriter(run, SCHEMA)
    writer.add(verdicts("x"), rejects("null"))
    handles = len(list(Path("/proc/self/fd").iterdir()))
    writer.abandon()
    assert entries(run) == []
    assert not (run.root / "imported.tmp").exists()
    assert len(list(Path("/proc/self/fd").iterdir())) == handles - 2
    writer = ImportWriter(run, SCHEMA)
    run.files.disk.fail("sync", "imported.tmp/*", errno.EIO)
    writer.abandon()


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("make_folder", "imported.tmp"),
        ("open_file", "imported.tmp/rejects.parquet"),
        ("write", "imported.tmp/verdicts.parquet"),
        ("sync", "imported.tmp/rejects.parquet"),
        ("rename", "imported.tmp"),
    ],
)
def test_a_disk_without_room_for_an_import_is_full(run, kind, name):
    run.files.disk.fail(kind, name, errno.ENOSPC)
    with pytest.raises(DiskFull) as full:
        written(run)
    assert full.value.place == str(run.root / "imported.tmp")
    assert not run.imported.exists()


def tables(run, files, kind, calibrator=None):
    snapshot = SimpleNamespace(run=run, calibrator=calibrator)
    record = SimpleNamespace(files=files)
    if kind == "VIEW":
        connection = sql.open_memory()
        define_tables(connection, snapshot, record, kind)
        return connection
    connection = duckdb.connect(":memory:")
    define_tables(connection, snapshot, record, kind)
    return connection


@pytest.mark.parametrize("kind", ["VIEW", "TABLE"])
def test_an_import_is_shown_as_the_tables_of_a_run(run, kind):
    turned = Calibrator("platt", Linear({"logit": -1.0}))  # odds of 3 become a third
    connection = tables(run, written(run)["files"], kind, turned)
    rows = connection.sql("SELECT pair_id, winner, raw_winner FROM verdicts").fetchall()
    assert rows == [(name, "b", "a") for name in "xyz"]
    assert connection.sql("SELECT count(*) FROM rejects").fetchall() == [(3,)]
    assert connection.sql("SELECT count(*) FROM reads").fetchall() == [(0,)]
    kinds = connection.sql(
        "SELECT DISTINCT table_type FROM information_schema.tables WHERE table_name = 'verdicts'"
    ).fetchall()
    assert kinds == [("VIEW" if kind == "VIEW" else "BASE TABLE",)]


def test_an_import_without_a_calibrator_keeps_its_winners(run):
    connection = tables(run, written(run)["files"], "VIEW")
    rows = connection.sql("SELECT winner, calibrated_preference FROM verdicts").fetchall()
    assert rows == [("a", None)] * 3


@pytest.mark.parametrize("name", ["verdicts", "rejects"])
@pytest.mark.parametrize("damage", ["missing", "changed", "unknown"])
def test_a_damaged_import_is_refused(run, name, damage):
    files = written(run)["files"]
    path = run.imported / f"{name}.parquet"
    if damage == "missing":
        path.unlink()
    elif damage == "changed":
        path.write_bytes(path.read_bytes() + b"x")
    else:
        del files[name]
    with pytest.raises(IntegrityFault, match="damaged or missing") as fault:
        tables(run, files, "VIEW")
    assert fault.value.place == str(path)


# -- calibrators -----------------------------------------------------------------------------------


def test_a_calibrator_comes_back_from_its_file(tmp_path):
    calibration.save_calibrator(tmp_path / "c.json", THIRD)
    assert calibration.load_calibrator(tmp_path / "c.json") == THIRD
    assert calibration.shown_calibrator(tmp_path / "c.json") == THIRD
    assert [path.name for path in tmp_path.iterdir()] == ["c.json"]


def test_a_calibrator_that_is_not_there_is_said(tmp_path):
    with pytest.raises(UsageError, match="No such file") as refused:
        calibration.load_calibrator(tmp_path / "c.json")
    assert refused.value.place == str(tmp_path / "c.json")
    (tmp_path / "c.json").write_bytes(b"\xff{")
    with pytest.raises(CalibratorRefused) as damaged:
        calibration.load_calibrator(tmp_path / "c.json")
    assert damaged.value.place == str(tmp_path / "c.json")


def test_the_calibrator_of_a_run(run):
    run.files.make()
    assert calibration.read_calibration(run) == (None, "none")
    with pytest.raises(UsageError, match="no calibrator was applied") as refused:
        calibration.shown_calibrator(run.root)
    assert refused.value.place == str(run.root)
    calibration.set_calibration(run, THIRD)
    digest = xxhash.xxh3_128_hexdigest(run.calibration.read_bytes())
    assert calibration.read_calibration(run) == (THIRD, digest)
    assert calibration.shown_calibrator(run.root) == THIRD
    run.calibration.write_bytes(b"\xff")
    with pytest.raises(IntegrityFault) as fault:
        calibration.read_calibration(run)
    assert fault.value.place == str(run.calibration)
    assert "delete that file" in fault.value.remedy


def test_a_calibrator_that_cannot_be_written_is_an_error_of_the_disk(run):
    run.files.make()
    run.files.disk.fail("write", "calibration.json.tmp", errno.ENOSPC)
    with pytest.raises(DiskFull) as full:
        calibration.set_calibration(run, THIRD)
    assert full.value.place == str(run.calibration)


TABLE = {"preference": [0.75, None, 0.25], "calibrated_tie": [1, 2, 3], 'a "b"': ["x", "y", "z"]}


@pytest.fixture
def table(tmp_path):
    pq.write_table(pa.table(TABLE), tmp_path / "t.parquet")
    return tmp_path / "t.parquet"


def test_a_table_gets_calibrated_columns(table, tmp_path):
    """Odds of 3 become 1, of 1/3 become 1/9; columns that were there under these names go."""
    out = tmp_path / "out.parquet"
    assert calibrated_tables.calibrate_file(table, {}, THIRD, out) == 3
    rows = pq.read_table(out)
    assert rows.column_names == [
        "preference", 'a "b"', "calibrated_preference", "calibrated_tie", "trusted"
    ]  # fmt: skip
    assert rows["calibrated_preference"].to_pylist() == [
        pytest.approx(0.5),
        None,
        pytest.approx(0.1),
    ]
    assert rows["calibrated_tie"].to_pylist() == [None] * 3
    assert rows['a "b"'].to_pylist() == ["x", "y", "z"]
    assert pq.ParquetFile(out).metadata.row_group(0).column(0).compression == "ZSTD"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.parquet", "t.parquet"]


def test_a_calibrated_table_names_its_calibrator(table, tmp_path):
    out = tmp_path / "out.parquet"
    calibrated_tables.calibrate_file(table, {}, THIRD, out)
    assert calibrated_tables.calibrator_of_table(out) == THIRD
    (tmp_path / "text").write_bytes(b"no table")
    for other in (table, tmp_path, tmp_path / "text", tmp_path / "missing"):
        assert calibrated_tables.calibrator_of_table(other) is None


def test_a_table_that_cannot_get_its_name_is_not_left_behind(table, tmp_path, monkeypatch):
    def publish(temporary, out):
        assert temporary.exists()
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(calibrated_tables, "publish", publish)
    with pytest.raises(DiskFull) as full:
        calibrated_tables.calibrate_file(table, {}, THIRD, tmp_path / "out.parquet")
    assert full.value.place == str(tmp_path / "out.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["t.parquet"]


def test_logits_are_calibrated_as_they_are(table, tmp_path):
    pq.write_table(pa.table({"score": [math.log(3), 0.0], "preference": [0.9, 0.9]}), table)
    out = tmp_path / "out.parquet"
    calibrated_tables.calibrate_file(table, {"logit": "score"}, THIRD, out)
    found = pq.read_table(out)["calibrated_preference"].to_pylist()
    assert found == pytest.approx([0.5, 0.25])


def test_a_calibrator_reads_the_columns_that_it_needs(table, tmp_path):
    curve = Linear({"logit": 1.0, "length": 1.0}, {}, {"length_scale": 1.0})
    out = tmp_path / "out.parquet"
    with pytest.raises(InputRefused, match="length_a"):
        calibrated_tables.calibrate_file(table, {}, Calibrator("platt", curve), out)
    assert not out.exists()


@pytest.mark.parametrize(
    ("content", "columns", "error", "words"),
    [
        ({"preference": ["high"]}, {}, InputRefused, "cannot be calibrated"),
        ({"winner": ["a"]}, {"winner": "winner"}, UsageError, "no probability|preference"),
    ],
)
def test_a_table_that_cannot_be_calibrated_leaves_no_file(tmp_path, content, columns, error, words):
    place, out = tmp_path / "t.parquet", tmp_path / "out.parquet"
    pq.write_table(pa.table(content), place)
    with pytest.raises(error, match=words) as refused:
        calibrated_tables.calibrate_file(place, columns, THIRD, out)
    assert refused.value.place == str(place)
    assert [path.name for path in tmp_path.iterdir()] == ["t.parquet"]


def test_a_calibrated_table_is_written_in_pieces(table, tmp_path, monkeypatch):
    monkeypatch.setattr(calibrated_tables, "BATCH", 2)
    pq.write_table(pa.table({"preference": [0.5] * 4096}), table)
    assert calibrated_tables.calibrate_file(table, {}, THIRD, tmp_path / "out.parquet") == 4096
    assert pq.ParquetFile(tmp_path / "out.parquet").num_row_groups > 1


def test_a_calibrator_is_lost_if_it_was_applied_and_not_undone(run):
    run.files.make()
    assert not calibration.has_lost_calibrator(run)
    for _ in range(2):
        calibration.set_calibration(run, THIRD)
        calibration.set_calibration(run, THIRD)
        assert not calibration.has_lost_calibrator(run)
        run.calibration.unlink()
        assert calibration.has_lost_calibrator(run)
        calibration.note_undone(run)
        assert not calibration.has_lost_calibrator(run)
    assert "no number is computed without it" in calibration.lost_calibrator(run).effect
