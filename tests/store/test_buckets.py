"""Buckets of texts: where they end, what their files hold, and when rows are written."""

import resource
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from steelyard.core.schemas import BUCKET_TEXTS, TEXTS
from steelyard.plan.keys import BucketSize, digests
from steelyard.store.folder import Folder
from steelyard.store.plan import buckets, scatter
from steelyard.store.plan.buckets import CopiedBuckets, CopiedBucketTexts, NotGrouped, ShardBuckets
from support.planned_rows import planned

SIZE = BucketSize(10, 0)  # two rows of 5 bytes fill a bucket


def rows_of(instructions, answers=None):
    """Rows of 5 bytes; equal letters among `answers` are equal pairs."""
    answers = answers or "".join(chr(ord("A") + k) for k in range(len(instructions)))
    return planned([(q, f"{a}1", f"{a}2") for q, a in zip(instructions, answers, strict=True)])


# -- left in the shards ----------------------------------------------------------------------------


@pytest.mark.parametrize("batches", [["qqrrst"], ["q", "qr", "rst"], [*"qqrrst"]])
def test_a_bucket_ends_with_an_instruction_once_it_is_full(batches):
    store = ShardBuckets(SIZE)
    assert [store.add(rows_of(batch)).tolist() for batch in batches] == {
        1: [[0, 0, 1, 1, 2, 2]],
        3: [[0], [0, 1], [1, 2, 2]],
        6: [[0], [0], [1], [1], [2], [2]],
    }[len(batches)]
    assert store.add(rows_of("t")).dtype == np.int32
    assert store.finish() == {}
    assert store.ranges == [2, 2, 3]


def test_equal_prompts_of_a_bucket_count_once():
    store = ShardBuckets(SIZE)
    assert store.add(rows_of("qqqrrs", "AABAAA")).tolist() == [0, 0, 0, 1, 1, 2]
    store.add(rows_of("s", "A"))
    store.finish()
    assert store.unique == [4, 2, 2]
    assert store.ranges == [3, 2, 2]


def test_the_weight_of_a_bucket_begins_at_0():
    """9 bytes of r are not enough for a bucket, so that s comes along."""
    store = ShardBuckets(SIZE)
    answers = ["A1", "B1", "A1", "A", "A1", "A1"]
    rows = planned([(q, a, "B2") for q, a in zip("qqrrst", answers, strict=True)])
    assert store.add(rows).tolist() == [0, 0, 1, 1, 1, 2]


def test_what_does_not_fill_a_bucket_is_one():
    store = ShardBuckets(SIZE)
    assert store.add(rows_of("qrs")).tolist() == [0, 0, 1]
    store.finish()
    assert (store.unique, store.ranges) == ([4, 2], [2, 1])
    store = ShardBuckets(SIZE)
    store.finish()
    assert (store.unique, store.ranges) == ([], [])


def test_an_instruction_with_more_than_three_buckets_is_not_left_in_the_shards():
    store = ShardBuckets(SIZE)
    store.add(rows_of("qqqqqqrrr"))
    store.add(rows_of("rrr"))
    with pytest.raises(NotGrouped):
        store.add(rows_of("r"))
    with pytest.raises(NotGrouped):
        ShardBuckets(SIZE).add(rows_of("qqqqqqq"))


def test_the_weight_of_an_instruction_begins_at_0():
    """30 bytes are three buckets, and 31 are more; 30 of another instruction came before."""
    store = ShardBuckets(SIZE)
    store.add(rows_of("qqqqqqrrrrrr"))
    store.add(rows_of("ssssss"))
    with pytest.raises(NotGrouped):
        store.add(planned([("t", "A1", "A2")] * 5 + [("t", "A1", "A23")]))


def test_an_instruction_that_comes_again_is_not_grouped():
    store = ShardBuckets(SIZE)
    store.add(rows_of("qr"))
    with pytest.raises(NotGrouped):
        store.add(rows_of("q"))


# -- copied ----------------------------------------------------------------------------------------

ROWS = [
    ("q", "one", "two", None),
    ("r", "one", "two", "sys"),
    ("q", "two", "one", "sys"),
    ("s", "three", "", None),
    ("q", "one", "three", None),
]


def bucket_of(instruction, count):
    (digest,) = digests(pa.array([instruction]))
    return int.from_bytes(digest[:8], "little") % count


def test_copied_buckets_give_their_rows_back(tmp_path):
    store = CopiedBuckets(Folder(tmp_path), 3, BucketSize(1000, 0))
    found = [*store.add(planned(ROWS[:2])).tolist(), *store.add(planned(ROWS[2:])).tolist()]
    assert store.finish() == {}
    assert found == [bucket_of(row[0], 3) for row in ROWS]
    assert len(set(found)) > 1
    assert store.unique == [2 * found.count(bucket) for bucket in range(3)]
    asked = []

    def path(name):
        asked.append(name)
        return str(tmp_path / name.removeprefix("plan/"))

    texts = CopiedBucketTexts(path, [*store.unique, 0])
    for bucket in range(3):
        expected = [row for row, where in zip(ROWS, found, strict=True) if where == bucket]
        rows = texts.texts(bucket)
        assert rows.schema == TEXTS
        columns = ("instruction", "response_a", "response_b", "system")
        assert [tuple(row[name] for name in columns) for row in rows.to_pylist()] == expected
        assert set(rows["reference"].to_pylist()) <= {None}
        assert [len(keys) for keys in rows["keys"].to_pylist()] == [2] * len(expected)
    used = sorted(set(found))
    assert asked == [f"plan/{kind}-0000{n}.parquet" for n in used for kind in ("bucket", "texts")]
    assert texts.texts(3).num_rows == 0
    texts.close()


def test_a_text_is_written_once_per_bucket(tmp_path):
    store = CopiedBuckets(Folder(tmp_path), 1, BucketSize(1000, 0))
    store.add(planned(ROWS[:2]))
    store.add(planned(ROWS[2:]))
    store.finish()
    texts = pq.read_table(tmp_path / "texts-00000.parquet")["text"].to_pylist()
    assert sorted(texts) == ["", "one", "q", "r", "s", "sys", "three", "two"]
    rows = pq.read_table(tmp_path / "bucket-00000.parquet")
    assert rows["text_bytes"].to_pylist() == [7, 10, 10, 6, 9]
    assert rows["system"].null_count == 3
    assert rows["reference"].null_count == 5


def test_long_columns_come_in_pieces(tmp_path, monkeypatch):
    """No piece of a table may reach Arrow's 2 GiB of text."""
    monkeypatch.setattr(buckets, "PIECE_ROWS", 2)
    store = CopiedBuckets(Folder(tmp_path), 1, BucketSize(1000, 0))
    store.add(planned(ROWS))
    store.finish()
    rows = CopiedBucketTexts(lambda name: str(tmp_path / name[5:]), store.unique).texts(0)
    assert [len(piece) for piece in rows["response_a"].chunks] == [2, 2, 1]
    assert rows["response_a"].to_pylist() == [row[1] for row in ROWS]


@pytest.mark.parametrize("bucket", [0, 1])
@pytest.mark.parametrize(("rows", "split"), [(6, False), (7, True)])
def test_a_bucket_of_more_than_three_times_its_size_is_split(tmp_path, rows, split, bucket):
    """Equal pairs of 5 bytes for 2 of 10: 6 of them are just three times as much."""
    store = CopiedBuckets(Folder(tmp_path), 2, SIZE)
    instruction = next(q for q in "abcdefgh" if bucket_of(q, 2) == bucket)
    found = store.add(rows_of(instruction * rows, "ABCDEFG"[:rows]))
    moved = store.finish()
    assert found.tolist() == [bucket] * rows
    if not split:
        assert moved == {}
        assert store.unique == [2 * rows * (bucket == k) for k in range(2)]
        return
    assert set(moved) == {bucket}
    assert store.unique[:2] == [0, 0]
    numbers = moved[bucket].tolist()
    assert set(numbers) == set(range(2, 2 + len(store.unique[2:])))
    assert store.unique[2:] == [2 * numbers.count(k) for k in range(2, len(store.unique))]


def test_abandoned_buckets_have_no_thread(tmp_path):
    CopiedBuckets(Folder(tmp_path), 1, SIZE).abandon()
    assert not [t for t in threading.enumerate() if t.name == "bucket-writer"]


def test_pieces_of_several_buckets_are_numbered_one_after_the_other(tmp_path):
    """Of two instructions in two buckets, each has the same pair seven times: one piece."""
    first = next(q for q in "abcdefgh" if bucket_of(q, 2) == 0)
    second = next(q for q in "abcdefgh" if bucket_of(q, 2) == 1)
    store = CopiedBuckets(Folder(tmp_path), 2, SIZE)
    store.add(rows_of(second * 7 + first * 7, "A" * 14))
    moved = {bucket: pieces.tolist() for bucket, pieces in store.finish().items()}
    assert moved == {0: [2] * 7, 1: [3] * 7}
    assert store.unique == [0, 0, 2, 2]


# -- files -----------------------------------------------------------------------------------------


def test_rows_are_written_when_enough_of_them_wait(tmp_path, monkeypatch):
    digest = pa.array([bytes(16)] * 3, pa.binary(16))
    batch = pa.record_batch([digest, pa.array(["abc", "d", "e"])], schema=BUCKET_TEXTS)
    monkeypatch.setattr(scatter, "SPILL_BYTES", 2 * batch.nbytes)
    files = scatter.BucketFiles(Folder(tmp_path), 2, first=4)
    for _ in range(5):
        files.texts.add(batch, np.array([1, 0, 1], np.int32))
    files.close()
    assert {path.name for path in tmp_path.iterdir()} == {
        "texts-00004.parquet", "texts-00005.parquet"
    }  # fmt: skip
    for name, texts, groups in (("4", ["d"] * 5, [2, 2, 1]), ("5", ["abc", "e"] * 5, [4, 4, 2])):
        file = pq.ParquetFile(tmp_path / f"texts-0000{name}.parquet")
        sizes = [file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)]
        assert sizes == groups
        assert file.read()["text"].to_pylist() == texts


def test_rows_of_a_bucket_keep_their_order(tmp_path):
    count = 1000
    digest = pa.array([bytes(16)] * count, pa.binary(16))
    texts = pa.array([f"{k}" for k in range(count)])
    files = scatter.BucketFiles(Folder(tmp_path), 4)
    files.texts.add(
        pa.record_batch([digest, texts], schema=BUCKET_TEXTS), np.arange(count, dtype=np.int32) % 3
    )
    files.close()
    assert not (tmp_path / scatter.texts_name(3)).exists()  # it has no rows
    for bucket in range(3):
        batches = list(scatter.batches(Folder(tmp_path), scatter.texts_name(bucket)))
        found = [text for rows in batches for text in rows["text"].to_pylist()]
        assert found == [f"{k}" for k in range(bucket, count, 3)]


def test_files_are_read_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(scatter, "PIECE_ROWS", 2)
    pq.write_table(pa.table({"x": [1, 2, 3]}), tmp_path / "file.parquet")
    pieces = [rows["x"].to_pylist() for rows in scatter.batches(Folder(tmp_path), "file.parquet")]
    assert pieces == [[1, 2], [3]]


def test_abandoned_files_have_no_thread(tmp_path):
    files = scatter.BucketFiles(Folder(tmp_path), 1)
    assert [t for t in threading.enumerate() if t.name == "bucket-writer"]
    files.abandon()
    assert not [t for t in threading.enumerate() if t.name == "bucket-writer"]


@pytest.mark.parametrize(
    ("soft", "hard", "wanted"),
    [
        (1024, 4096, 1064),  # two files for each of 500, and 64 besides
        (1024, resource.RLIM_INFINITY, 1064),
        (1024, 1064, 1064),
        (1024, 1063, None),  # not allowed
        (1064, 4096, None),  # there is room
    ],
)
def test_as_many_files_may_be_open_as_there_are(tmp_path, monkeypatch, soft, hard, wanted):
    limits = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda what, limit: limits.append((what, limit)))
    scatter.BucketFiles(Folder(tmp_path), 500).abandon()
    assert limits == ([] if wanted is None else [(resource.RLIMIT_NOFILE, (wanted, hard))])
