"""Images of a run, each once; and Parquet files that are written through a Disk."""

import errno

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from steelyard.core.images import image_digest
from steelyard.errors import DiskFull, IntegrityFault
from steelyard.store import images
from steelyard.store.folder import Folder
from steelyard.store.images import ImageStore
from support.recording_disk import RecordingDisk

RAW = b"\x89PNG and more"
DIGEST = image_digest(RAW)
NAME = f"{DIGEST[:2]}/{DIGEST}"


@pytest.fixture
def disk(tmp_path):
    return RecordingDisk(tmp_path)


@pytest.fixture
def store(tmp_path, disk):
    return ImageStore(Folder(tmp_path / "images", disk))


def test_an_image_is_kept_once_under_its_digest(store, disk, tmp_path):
    store.add(DIGEST, RAW)
    assert [path.name for path in (tmp_path / "images" / DIGEST[:2]).iterdir()] == [DIGEST]
    assert (tmp_path / "images" / NAME).read_bytes() == RAW
    assert store.get(DIGEST) == RAW
    written = len(disk.of("write"))
    store.add(DIGEST, RAW)
    assert len(disk.of("write")) == written > 0
    assert not disk.of("sync_everything")


def test_half_an_image_is_replaced(store, tmp_path):
    store.add(DIGEST, RAW)
    (tmp_path / "images" / NAME).write_bytes(RAW[:5])
    store.add(DIGEST, RAW)
    assert store.get(DIGEST) == RAW


def test_all_images_are_forced_to_the_disk_at_once(store, disk):
    store.sync()
    assert not disk.of("sync_everything")  # there are none
    store.add(DIGEST, RAW)
    store.sync()
    assert len(disk.of("sync_everything")) == 1


def test_a_disk_without_room_for_an_image_is_full(store, disk, tmp_path):
    disk.fail("write", f"images/{NAME}.tmp", errno.ENOSPC)
    with pytest.raises(DiskFull) as full:
        store.add(DIGEST, RAW)
    assert full.value.place == str(tmp_path / "images" / NAME)
    assert not (tmp_path / "images" / NAME).exists()


@pytest.mark.parametrize("damage", ["missing", "changed", "no folder"])
def test_an_image_that_is_not_what_was_kept_is_damage(store, tmp_path, damage):
    path = tmp_path / "images" / NAME
    if damage != "no folder":
        store.add(DIGEST, RAW)
        path.unlink()
    if damage == "changed":
        path.write_bytes(RAW[:-1] + b"!")
    with pytest.raises(IntegrityFault, match="damaged or missing") as fault:
        store.get(DIGEST)
    assert fault.value.place == str(path)


@pytest.mark.parametrize(("most", "is_read"), [(len(RAW), True), (len(RAW) - 1, False)])
def test_a_file_that_is_too_large_for_an_image_is_not_read(store, disk, monkeypatch, most, is_read):
    store.add(DIGEST, RAW)
    monkeypatch.setattr(images, "IMAGE_BYTES", most)
    if is_read:
        assert store.get(DIGEST) == RAW
    else:
        with pytest.raises(IntegrityFault):
            store.get(DIGEST)
    assert bool(disk.of("read")) == is_read


# -- Parquet files ---------------------------------------------------------------------------------

ROWS = pa.table({"x": [1, 2]})


def test_a_parquet_file_is_forced_to_the_disk_before_it_is_closed(tmp_path, disk):
    writer = Folder(tmp_path, disk).parquet("file.parquet", ROWS.schema, compression="zstd")
    writer.write_table(ROWS)
    writer.write_batch(ROWS.to_batches()[0])
    disk.every.clear()
    writer.close()
    last = [call[0] for call in disk.every if call[1] == "file.parquet"]
    assert last[-2:] == ["sync", "close"]
    assert last.count("sync") == last.count("close") == 1
    assert "write" in last[:-2]
    file = pq.ParquetFile(tmp_path / "file.parquet")
    assert file.num_row_groups == 2
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"
    assert file.read()["x"].to_pylist() == [1, 2, 1, 2]


@pytest.mark.parametrize("kind", ["write", "sync"])
def test_a_parquet_file_that_cannot_be_completed_is_closed_all_the_same(tmp_path, disk, kind):
    writer = Folder(tmp_path, disk).parquet("file.parquet", ROWS.schema)
    writer.write_table(ROWS)
    disk.fail(kind, "file.parquet", errno.ENOSPC)
    disk.every.clear()
    with pytest.raises(OSError, match="No space"):
        writer.close()
    assert [call[0] for call in disk.every if call[1] == "file.parquet"][-1] == "close"
