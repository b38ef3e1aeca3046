"""The plan on disk: what its manifest counts, its row groups, and what is refused."""

import json
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash

from steelyard.core.images import write_digests
from steelyard.core.schemas import REJECTS
from steelyard.core.sealed import seal, unseal
from steelyard.errors import DiskFull, EnvironmentFault, IntegrityFault, UsageError
from steelyard.plan.keys import BucketSize
from steelyard.store.plan import files
from steelyard.store.plan.files import PlanWriter, load_manifest, plan_files, read_manifest
from steelyard.store.rundir import RunDir
from support.planned_rows import planned
from support.recording_disk import RecordingDisk

ROWS = [("q", "A1", "A2"), ("q", "A1", "A2"), ("r", "B1", "long"), ("s", "C1", "C2")]
SIZE = BucketSize(10, 0)


@pytest.fixture
def run(tmp_path):
    place = RunDir(tmp_path / "run", RecordingDisk(tmp_path / "run"))
    place.create()
    return place


def rejects(*reasons):
    rows = [
        {"shard": "s", "row": k, "reason": reason, "detail": ""} for k, reason in enumerate(reasons)
    ]
    return pa.RecordBatch.from_pylist(rows, schema=REJECTS)


def writer(run, *, buckets=0, size=SIZE, metadata=None):
    return PlanWriter(run, metadata, size=size, buckets=buckets)


def written(run, rows=ROWS, **options):
    plan = writer(run, **options)
    plan.add(planned(rows))
    return plan.commit()


def entries(run):
    return sorted(str(path.relative_to(run.root)) for path in run.root.rglob("*") if path.is_file())


def test_the_manifest_counts_what_was_added(run):
    """Rows of 5, 5, 7 and 5 bytes; two of them are equal."""
    plan = writer(run)
    plan.add(planned(ROWS[:1]))
    plan.add(planned(ROWS[:0]))
    plan.reject(rejects("null", "gold"))
    plan.reject(rejects())
    plan.add(planned(ROWS[1:]))
    plan.reject(rejects("null"))
    manifest = plan.commit()
    assert manifest == load_manifest(run) == read_manifest(run)
    assert (manifest.pairs, manifest.asked, manifest.text_bytes) == (4, 8, 22)
    assert (manifest.longest_prompt_bytes, manifest.images, manifest.metadata) == (7, 0, [])
    assert manifest.rejected == {"gold": 1, "null": 2}
    assert list(manifest.rejected) == ["gold", "null"]
    assert (manifest.unique, manifest.ranges) == ([2, 4], [2, 2])
    assert manifest.in_shards
    assert manifest.prompts == 6
    names = ["plan/pairs-00000.parquet", "rejects/rejects-00000.parquet"]
    assert list(manifest.files) == names
    for name in names:
        digest = xxhash.xxh3_128_hexdigest((run.root / name).read_bytes())
        assert manifest.files[name] == digest
    assert entries(run) == [names[0], "plan/plan.json", names[1]]
    pairs = pq.read_table(run.root / names[0])
    assert pairs["pair"].to_pylist() == [0, 1, 2, 3]
    assert pairs["bucket"].to_pylist() == [0, 0, 1, 1]
    assert pairs["row"].to_pylist() == [0, 0, 1, 2]  # of its batch, in this test
    table = pq.read_table(run.root / names[1])
    assert table["reason"].to_pylist() == ["null", "gold", "null"]


def test_a_manifest_can_be_read_by_a_person(run):
    written(run)
    text = (run.root / "plan/plan.json").read_text()
    assert '\n "pairs": 4,\n' in text
    assert json.loads(text)["pairs"] == 4


def test_the_longest_prompt_and_the_most_images_are_of_any_batch(run):
    plan = writer(run, size=BucketSize(1000, 0))
    digests = [f"{k:032x}" for k in range(4)]
    plan.add(planned([("q", "1234567", "2")], images=[write_digests(digests[:3])]))
    plan.add(planned([("q", "1", "2")] * 2, images=[write_digests(digests[:n]) for n in (2, 4)]))
    plan.add(planned([("r", "1", "2"), ("r", "3", "4")], images=[None, write_digests(digests[:1])]))
    plan.add(planned([("s", "1", "2")]))
    manifest = plan.commit()
    assert manifest.images == 4
    # A text of images is a list of digests, 34 characters each, with a comma and a space between.
    assert manifest.longest_prompt_bytes == 3 + 4 * 34 + 3 * 2 + 2


def test_metadata_stays_with_its_pairs(run):
    metadata = pa.array([{"source": f"s{k}"} for k in range(4)])
    plan = writer(run, metadata=metadata.type)
    plan.add(planned(ROWS, metadata=metadata))
    assert plan.commit().metadata == ["source"]
    pairs = pq.read_table(run.root / "plan/pairs-00000.parquet")
    assert [row["source"] for row in pairs["metadata"].to_pylist()] == ["s0", "s1", "s2", "s3"]


def groups(run):
    file = pq.ParquetFile(run.root / "plan/pairs-00000.parquet")
    return [file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)]


def test_row_groups_of_pairs_are_bounded_by_rows(run, monkeypatch):
    monkeypatch.setattr(files, "PAIRS_ROWS", 3)
    plan = writer(run, size=BucketSize(1000, 0))
    for size in (2, 1, 2, 1, 1, 3, 2):
        plan.add(planned(ROWS[3:] * size))
    manifest = plan.commit()
    assert groups(run) == files.pair_groups(run, manifest) == [3, 3, 4, 2]


def test_row_groups_of_pairs_are_bounded_by_bytes(run, monkeypatch):
    def rows():
        return planned(ROWS[3:], pair_id=["x" * 1000])

    placed = rows().pairs.nbytes + 8 + 4  # and the columns that the plan adds
    monkeypatch.setattr(files, "PAIRS_BYTES", 2 * placed)
    plan = writer(run)
    for _ in range(5):
        plan.add(rows())
    plan.commit()
    assert groups(run) == [2, 2, 1]


def test_buckets_of_pairs_are_those_that_came_of_splits(run, monkeypatch):
    """Seven equal pairs of 5 bytes are too many for a bucket of 10; they become bucket 1."""
    monkeypatch.setattr(files, "PAIRS_ROWS", 3)
    plan = writer(run, buckets=1)
    for _ in range(2):
        plan.add(planned([("q", "A1", "A2")] * 4))
    manifest = plan.commit()
    assert (manifest.unique, manifest.ranges) == ([0, 2], [])
    assert not manifest.in_shards
    assert groups(run) == [4, 4]
    pairs = pq.read_table(run.root / "plan/pairs-00000.parquet")
    assert pairs["bucket"].to_pylist() == [1] * 8
    assert pairs["pair"].to_pylist() == list(range(8))
    assert list(manifest.files) == [
        f"plan/{name}.parquet" for name in ("bucket-00001", "pairs-00000", "texts-00001")
    ]


def test_each_pair_of_a_split_bucket_gets_its_own(run):
    """Of two pieces, by cells of one instruction, pairs come by turns."""
    plan = writer(run, buckets=1)
    plan.add(planned([("q", f"{'AB'[k % 2]}1", f"{'AB'[k % 2]}2") for k in range(8)]))
    plan.add(planned([("q", "B1", "B2"), ("q", "A1", "A2")]))
    manifest = plan.commit()
    held = {}
    for number, unique in enumerate(manifest.unique):
        if unique:
            bucket = pq.read_table(run.root / f"plan/bucket-{number:05d}.parquet")
            held |= {tuple(keys): number for keys in bucket["keys"].to_pylist()}
    pairs = pq.read_table(run.root / "plan/pairs-00000.parquet").to_pylist()
    assert [row["bucket"] for row in pairs] == [held[tuple(row["keys"])] for row in pairs]
    assert [row["pair"] for row in pairs] == list(range(10))
    assert sum(manifest.unique) == 4


def test_rejects_and_plan_become_durable_before_they_have_their_names(run):
    plan = writer(run)
    plan.add(planned(ROWS))
    plan.reject(rejects("null"))
    run.files.disk.every.clear()
    plan.commit()
    order = [call[:2] for call in run.files.disk.calls if call[0] in {"sync", "rename"}]
    assert order == [
        ("sync", "plan.tmp/pairs-00000.parquet"),
        ("sync", "rejects.tmp/rejects-00000.parquet"),
        ("sync", "plan.tmp/plan.json.tmp"),
        ("rename", "plan.tmp/plan.json.tmp"),
        ("sync", "plan.tmp"),
        ("sync", "rejects.tmp"),
        ("rename", "rejects.tmp"),
        ("sync", "."),
        ("sync", "plan.tmp"),
        ("rename", "plan.tmp"),
        ("sync", "."),
    ]


def test_images_become_durable_before_the_plan(run):
    (run.root / "images").mkdir()
    disk = run.files.disk
    synced = []
    disk.sync_everything = lambda: synced.append(len(disk.of("rename")))
    written(run)
    assert synced == [0]


def test_what_an_earlier_attempt_left_is_gone(run):
    for name in ("plan.tmp", "rejects.tmp"):
        (run.root / name).mkdir()
        (run.root / name / "bucket-00009.parquet").write_bytes(b"old")
    (run.root / "rejects").mkdir()
    (run.root / "rejects" / "rejects-00000.parquet").write_bytes(b"old")
    manifest = written(run)
    assert list(manifest.files) == ["plan/pairs-00000.parquet"]
    assert entries(run) == ["plan/pairs-00000.parquet", "plan/plan.json"]


@pytest.mark.parametrize("buckets", [0, 2])
def test_an_abandoned_plan_leaves_nothing(run, buckets):
    plan = writer(run, buckets=buckets)
    plan.add(planned(ROWS))
    plan.reject(rejects("null"))
    plan.abandon()
    assert [path.name for path in run.root.iterdir()] == ["reads"]
    assert not [t for t in threading.enumerate() if t.name == "bucket-writer"]
    assert read_manifest(run) is None


def test_a_plan_that_cannot_be_removed_is_abandoned_all_the_same(run):
    plan = writer(run)
    run.files.disk.fail("remove_tree", "plan.tmp", 13)
    plan.abandon()
    assert sorted(path.name for path in run.root.iterdir()) == ["plan.tmp", "reads"]


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("plan.tmp", "new"),
        ("rejects.tmp", "new"),
        ("plan.tmp/pairs-00000.parquet", "new"),
        ("rejects.tmp/rejects-00000.parquet", "reject"),
        ("plan.tmp/pairs-00000.parquet", "commit"),
        ("plan.tmp/plan.json.tmp", "commit"),
    ],
)
def test_a_disk_without_room_is_said_to_be_full(run, name, step):
    def fail(when):
        if when == step:
            folder = "." not in name.removesuffix(".tmp")
            kind = "make_folder" if folder else "write" if when == "commit" else "open_file"
            run.files.disk.fail(kind, name, 28)

    fail("new")
    with pytest.raises(DiskFull) as full:  # noqa: PT012 - each step may be the one
        plan = writer(run)
        plan.add(planned(ROWS))
        fail("reject")
        plan.reject(rejects("null"))
        fail("commit")
        plan.commit()
    assert name.split("/")[0] in full.value.place


def test_a_bucket_that_cannot_be_written_is_an_error_of_the_disk(run, monkeypatch):
    monkeypatch.setattr("steelyard.store.plan.scatter.SPILL_BYTES", 1)
    plan = writer(run, buckets=1)
    run.files.disk.fail("open_file", "plan.tmp/bucket-*", 5)
    with pytest.raises(EnvironmentFault, match="Input/output"):  # noqa: PT012
        for _ in range(50):
            plan.add(planned(ROWS))
    plan.abandon()


def test_a_run_without_a_plan_says_how_to_go_on(run):
    assert read_manifest(run) is None
    with pytest.raises(UsageError, match="has no plan yet") as refused:
        load_manifest(run)
    assert refused.value.place == str(run.root)
    assert f"steelyard resume {run.root}" in refused.value.remedy


def unsealed(run):
    return unseal((run.root / "plan/plan.json").read_bytes())[0]


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("pairs"),
        lambda content: content.update(extra=1),
        lambda content: content.update(unique="many"),
        lambda content: content["files"].update({"plan/../lock": "0"}),
        lambda content: content["files"].update({"reads/part-00000.parquet": "0"}),
        lambda content: content["files"].update({"plan/pairs-1.parquet": "0"}),
        lambda content: content["files"].update({"plan/pairs-00001.parquet\n": "0"}),
    ],
)
def test_a_manifest_of_another_form_is_refused(run, change):
    written(run)
    content = unsealed(run)
    change(content)
    (run.root / "plan/plan.json").write_bytes(seal(content, indent=1))
    with pytest.raises(IntegrityFault, match="plan is damaged") as fault:
        read_manifest(run)
    assert fault.value.place == str(run.root / "plan/plan.json")
    assert "--reuse" in fault.value.remedy


@pytest.mark.parametrize("text", [b"", b"{", b"[]", None])
def test_a_plan_without_its_manifest_is_damaged(run, text):
    written(run)
    (run.root / "plan/plan.json").unlink()
    if text is not None:
        (run.root / "plan/plan.json").write_bytes(text)
    with pytest.raises(IntegrityFault, match="plan is damaged"):
        read_manifest(run)


def test_an_earlier_manifest_names_no_images(run):
    written(run)
    content = unsealed(run)
    del content["images"]
    (run.root / "plan/plan.json").write_bytes(seal(content))
    assert load_manifest(run).images == 0


def test_files_of_a_plan_are_found_by_their_beginning(run):
    manifest = written(run, buckets=1)
    (texts,) = plan_files(run, manifest, "plan/texts")
    assert (run.root / "plan/texts-00000.parquet").samefile(texts)
    assert len(plan_files(run, manifest, "plan/")) == 3
    assert plan_files(run, manifest, "rejects/") == []


@pytest.mark.parametrize("damage", ["flip", "remove", "unknown"])
def test_a_file_that_is_not_what_was_committed_is_refused(run, damage):
    manifest = written(run)
    name = "plan/pairs-00000.parquet"
    path = run.root / name
    if damage == "flip":
        data = bytearray(path.read_bytes())
        data[100] ^= 1
        path.write_bytes(data)
    elif damage == "remove":
        path.unlink()
    else:
        (run.root / "plan/pairs-00001.parquet").write_bytes(path.read_bytes())
        name = "plan/pairs-00001.parquet"
    with pytest.raises(IntegrityFault) as fault:
        files.require_plan_file(run, manifest, name)
    assert fault.value.place == str(run.root / name)


def test_pairs_are_numbered_through_all_batches(run):
    plan = writer(run)
    for _ in range(3):
        plan.add(planned(ROWS[3:]))
    plan.commit()
    pairs = pq.read_table(run.root / "plan/pairs-00000.parquet")["pair"]
    assert pairs.to_numpy().tolist() == np.arange(3).tolist()
