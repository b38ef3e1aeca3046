"""Counts over a run and reads of another run, on plans whose prompts have numbers."""

from dataclasses import replace
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from steelyard.core.schemas import READS, STATUS_OK
from steelyard.errors import UsageError
from steelyard.store.reads import journal, reuse
from steelyard.store.rundir import RunDir
from steelyard.store.verdicts import queries
from support.small_runs import run_of
from support.some_reads import key, table


@pytest.mark.parametrize(("judge", "left"), [(0, 1), (1, 2)])
def test_unread_prompts_of_each_judge_are_counted_once(tmp_path, judge, left):
    """The first half of a pair's prompts is the first judge's; 1, 2 and 11 are read."""
    run = run_of(tmp_path, [[1, 2, 11, 12], [2, 3, 12, 13]], [[1, 2], [11]])
    assert queries.unread_prompts(run, judge, 2) == left
    assert queries.unread_prompts(run, 0, 1) == 3


def test_pairs_are_complete_when_all_their_prompts_are_read(tmp_path):
    run = run_of(tmp_path, [[1, 2], [2, 3], [4, 1], [5]], [[1, 2], [3, 5]])
    first, second = journal.load(run).parts
    journal.rewrite(run, [replace(first, pairs=5), second])
    queries.recount_pairs(run)
    assert [part.pairs for part in journal.load(run).parts] == [2, 1]  # 3 in all
    before = (tmp_path / "journal.jsonl").read_bytes()
    queries.recount_pairs(run)
    assert (tmp_path / "journal.jsonl").read_bytes() == before


def test_a_run_without_parts_has_no_complete_pair(tmp_path):
    run = run_of(tmp_path, [[1, 2]])
    queries.recount_pairs(run)
    assert not journal.load(run).parts


def test_ids_of_different_pairs_are_ambiguous(tmp_path):
    pairs = [[1, 2], [3, 4], [1, 2], [5, 6], [5, 6], [7, 8]]
    run = run_of(tmp_path, pairs, ids=["x", "x", "y", "z", "z", "y"])
    assert queries.ambiguous_pair_ids(run) == 2


@pytest.mark.parametrize(
    ("numbers", "tokens"),
    [
        ([1, 2], 30),  # prompt 1 is asked three times and 2 twice; each takes 10 tokens
        ([5], 0),
        ([1, 1], None),  # twice
        ([1, 9], None),  # nobody asks for 9
        ([1, 3], None),  # 3 is read
    ],
)
def test_duplicates_of_a_part_are_counted_if_it_fits(tmp_path, numbers, tokens):
    run = run_of(tmp_path, [[1, 2], [1, 2], [1, 3], [5]], [[3]])
    run.files.write_table("reads/part-00000002.parquet", table(numbers))
    committed = journal.load(run).parts
    assert queries.duplicate_tokens(run, committed, "reads/part-00000002.parquet") == tokens


def test_a_part_of_another_bucket_does_not_fit(tmp_path):
    run = run_of(tmp_path, [[1], [2]], instructions="qr")
    for bucket, tokens in ((0, None), (1, 0)):
        run.files.write_table("reads/part-00000001.parquet", table([2], bucket=bucket))
        assert queries.duplicate_tokens(run, [], "reads/part-00000001.parquet") == tokens


def reused(run, theirs, rows=100):
    return list(queries.reusable_reads(run, theirs, "them", rows))


def test_good_reads_of_another_run_are_given_for_what_is_asked_and_not_read(tmp_path):
    """Of 1 to 6: 1 is read, 4 failed, nobody asks for 6; 2 is asked twice, 5 has an origin."""
    run = run_of(tmp_path / "run", [[1, 2], [2], [3, 4], [5]], [[1]], instructions="qqrs")
    status = [STATUS_OK] * 3 + ["error"] + [STATUS_OK] * 2
    rows = table([1, 2, 3, 4, 5, 6], bucket=7, status=status)
    origin = pa.array([None] * 4 + ["elsewhere", None], pa.string())
    rows = rows.set_column(READS.get_field_index("reused_from"), READS.field("reused_from"), origin)
    run.files.write_table("theirs.parquet", rows)
    ((found, tokens),) = reused(run, [str(tmp_path / "run/theirs.parquet")])
    assert found.schema.equals(READS)
    rows = found.to_pylist()
    assert [row["bucket"] for row in rows] == [0, 1, 2]
    assert [row["prompt_key"] for row in rows] == [key(2), key(3), key(5)]
    assert [row["reused_from"] for row in rows] == ["them", "them", "elsewhere"]
    assert tokens == 10
    assert found["label_logprobs"].to_pylist()[0] == [-2.0, -4.0]


def test_tables_of_reused_reads_are_bounded_and_say_what_duplicates_save(tmp_path):
    run = run_of(tmp_path / "run", [[1, 2, 3], [1, 2, 3], [1, 4, 5]])
    run.files.write_table("theirs.parquet", table([1, 2, 3, 4, 5]))
    tables = reused(run, [str(tmp_path / "run/theirs.parquet")], rows=2)
    assert [len(found) for found, _ in tables] == [2, 2, 1]
    assert sum(tokens for _, tokens in tables) == 10 * (2 + 1 + 1)


class TestReuse:
    @pytest.fixture
    def records(self, monkeypatch):
        """Fingerprints by run; both the same unless a test says something else."""
        prints = {}

        def record(run):
            form = prints.get(run.root.name, "one")
            part = SimpleNamespace(part=SimpleNamespace(fingerprints=[form]))
            return SimpleNamespace(run=f"uuid of {run.root.name}", judges=[part])

        monkeypatch.setattr(reuse, "read_scored_record", record)
        return prints

    @pytest.fixture
    def runs(self, tmp_path, records):
        mine = run_of(tmp_path / "mine", [[1, 2], [1, 3]], [[1]])
        return mine, run_of(tmp_path / "other", [[1, 2], [3, 4]], [[1, 2], [3, 4]])

    def test_its_reads_become_parts(self, runs):
        mine, other = runs
        assert reuse.reuse_reads(mine, other) == (2, [])
        first, second = journal.load(mine).parts
        assert (first.rows, second.rows) == (1, 2)
        assert second.name == "reads/part-00000002.parquet"
        assert second.counts["duplicate_tokens"] == 0
        rows = pq.read_table(mine.root / second.name)
        assert sorted(rows["prompt_key"].to_pylist()) == [key(2), key(3)]
        assert rows["reused_from"].to_pylist() == ["uuid of other"] * 2
        assert reuse.reuse_reads(mine, other) == (0, [])

    def test_what_duplicates_save_is_in_the_journal(self, tmp_path, records):
        mine = run_of(tmp_path / "mine", [[1, 2], [1, 3]])
        other = run_of(tmp_path / "other", [[1, 2]], [[1, 2]])
        assert reuse.reuse_reads(mine, other) == (2, [])
        (part,) = journal.load(mine).parts
        assert part.counts["duplicate_tokens"] == 10

    def test_a_damaged_part_is_left_out_and_said(self, runs):
        mine, other = runs
        path = other.root / "reads/part-00000001.parquet"
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        taken, notes = reuse.reuse_reads(mine, other)
        assert taken == 1
        assert notes == [f"1 damaged parts of {other.root} were left out"]

    def test_another_judge_is_said(self, runs, records):
        mine, other = runs
        records["other"] = "another"
        _, (note,) = reuse.reuse_reads(mine, other)
        assert note == f"{other.root} has another judge, protocol or template: no prompt is equal"

    def test_a_run_does_not_reuse_itself(self, runs, tmp_path):
        mine, _ = runs
        (tmp_path / "link").symlink_to(mine.root)
        for root in (mine.root, tmp_path / "link"):
            with pytest.raises(UsageError, match="cannot reuse itself"):
                reuse.reuse_reads(mine, RunDir(root))
