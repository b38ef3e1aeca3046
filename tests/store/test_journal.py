"""The commit log: lines that count, lines that do not, and lines that are lost.

Kind of fault: everything in a run directory that decides a result is checked.
"""

import errno
import json
import os

import pytest
import xxhash

from steelyard.core.work import BatchProgress
from steelyard.errors import DiskFull, EnvironmentFault, IntegrityFault
from steelyard.store.reads import journal
from steelyard.store.reads.journal import Part, load
from steelyard.store.reads.parts import commit_part
from steelyard.store.rundir import RunDir
from support.recording_disk import RecordingDisk
from support.some_reads import run_with_parts, table

PARTS = [f"reads/part-0000000{number}.parquet" for number in (1, 2, 3)]


@pytest.fixture
def run(tmp_path):
    return run_with_parts(tmp_path / "run", [2, 3, 4], RecordingDisk(tmp_path / "run"))


@pytest.fixture
def complete(run):
    journal.mark_complete(run, load(run), "id")
    return run


def lines(run):
    return (run.root / "journal.jsonl").read_bytes().splitlines(keepends=True)


def put(run, *content):
    (run.root / "journal.jsonl").write_bytes(b"".join(content))


class TestLines:
    def test_parts_come_back_as_they_were_committed(self, run):
        log = load(run)
        assert [part.name for part in log.parts] == PARTS
        assert [part.rows for part in log.parts] == [2, 3, 4]
        first = log.parts[0]
        assert first.pairs == 2
        assert first.buckets == [0]
        assert first.counts == {
            "ok_reads": 2, "prompt_tokens": 20, "cached_tokens": 8,
            "reused_reads": 0, "reused_tokens": 0, "duplicate_tokens": 3,
        }  # fmt: skip
        assert first.work["0"]["prompts"] == 2
        assert first.committed.startswith("2")
        path = run.root / first.name
        assert first.bytes == path.stat().st_size
        assert first.digest == xxhash.xxh3_128_hexdigest(path.read_bytes())
        assert log == journal.Journal(log.parts)  # and nothing is wrong with it
        assert journal.read_journal(run.root) == log.parts

    def test_a_line_carries_the_hash_of_its_part(self, run):
        content = json.loads(lines(run)[0])
        assert list(content) == ["check", "part"]
        body = json.dumps(content["part"], separators=(",", ":"), sort_keys=True)
        assert content["check"] == xxhash.xxh3_64_hexdigest(body.encode())

    def test_no_flipped_bit_of_a_line_counts(self, run):
        good = lines(run)
        for position in range(len(good[1])):
            flipped = bytearray(good[1])
            flipped[position] ^= 1 << position % 8
            put(run, good[0], bytes(flipped), good[2])
            kept = [part.name for part in load(run).parts]
            # A line feed among the letters makes two lines of one, and one lost makes one of two.
            assert kept in ([PARTS[0], PARTS[2]], [PARTS[0]])
            log = load(run)
            assert log.damaged
            with pytest.raises(IntegrityFault):
                journal.require_sound(run, log)

    def test_a_line_that_is_not_exactly_ours_does_not_count(self, run):
        good = lines(run)
        text = good[0].decode()
        for strange in (
            text.replace('{"check"', '{ "check"'),
            text.replace('"rows":2', '"rows":2.0'),
            text.replace('"rows":2', '"rows":"2"'),
            text.replace(":{", ":[", 1),
            "null\n",
            "[]\n",
            "{}\n",
            '{"part":{}}\n',
            '{"part":null}\n',
            '{"part":"x"}\n',
            "[" * 100_000 + "\n",
            '{"part":' * 100_000 + "\n",
            "\n",
        ):
            put(run, strange.encode(), *good[1:])
            log = load(run)
            assert [part.name for part in log.parts] == PARTS[1:], strange[:40]
            assert log.damaged

    @pytest.mark.parametrize(
        "name",
        [
            "/etc/passwd", "../outside.parquet", "reads/../run.json", "run.json", "reads/x.parquet",
            "reads/part-00000001.parquet.tmp", "reads/damaged/part-00000001.parquet",
            "reads/part-1.parquet", "x/reads/part-00000001.parquet",
            "reads/part-00000001.parquet\n", "reads/part-٠٠٠٠٠٠٠١.parquet",
        ],
    )  # fmt: skip
    def test_names_that_lead_elsewhere_do_not_count(self, run, name):
        """Even with a right check: anyone can compute it."""
        good = load(run).parts[0]
        strange = Part(name, good.rows, good.bytes, good.digest, [0], good.committed, 1)
        put(run, journal._line(strange), *lines(run)[1:])
        log = load(run)
        assert [part.name for part in log.parts] == PARTS[1:]
        assert log.damaged


class TestWhatIsLost:
    """Of a run that was complete nothing; of another one, what a crash cannot take."""

    def test_nothing(self, run, complete):
        assert load(complete).lost is None
        journal.require_sound(complete, load(complete))

    @pytest.mark.parametrize("kept", [0, 1, 2])
    def test_whole_lines_of_a_complete_run(self, complete, kept):
        put(complete, *lines(complete)[:kept])
        log = load(complete)
        assert log.lost == (
            f"the run was complete with 3 parts, and the journal has {kept} or other ones"
        )
        with pytest.raises(IntegrityFault, match="was complete with 3 parts") as raised:
            journal.require_sound(complete, log)
        assert f"steelyard resume {complete.root}" in raised.value.remedy

    def test_lines_of_a_complete_run_in_another_order(self, complete):
        put(complete, *reversed(lines(complete)))
        assert "or other ones" in load(complete).lost

    def test_a_byte(self, run):
        whole = b"".join(lines(run))
        for cut in range(1, len(lines(run)[2])):
            put(run, whole[:-cut])
            log = load(run)
            assert log.torn
            assert log.lost == "the last line of the journal is cut off"
            assert [part.name for part in log.parts] == PARTS[:2]
            with pytest.raises(IntegrityFault, match="cut off"):
                journal.require_sound(run, log)

    def test_more_lines_than_one_crash_can_lose(self, run):
        put(run, *lines(run)[:2])
        assert load(run).lost is None  # a crash between a part and its line
        journal.require_sound(run, load(run))
        put(run, *lines(run)[:1])
        assert load(run).lost == "2 parts have no line in the journal"
        put(run)
        assert load(run).lost == "3 parts have no line in the journal"

    def test_other_files_among_the_parts_are_no_parts(self, run):
        put(run, *lines(run)[:2])
        for name in ("part-00000009.parquet.tmp", "x.parquet", "part-1.parquet"):
            (run.root / "reads" / name).touch()
        assert journal.part_files(run) == PARTS
        assert load(run).lost is None

    def test_a_run_without_parts_has_none(self, tmp_path):
        assert journal.part_files(RunDir(tmp_path)) == []

    def test_the_whole_journal(self, run):
        (run.root / "journal.jsonl").unlink()
        log = load(run)
        assert log == journal.Journal(missing=True)
        with pytest.raises(IntegrityFault, match="damaged or missing"):
            journal.require_sound(run, log)

    @pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b'{"parts": 3'])
    def test_the_mark_of_completion_is_damaged(self, complete, content):
        (complete.root / "complete.json").write_bytes(content)
        assert load(complete).lost == "complete.json is damaged"

    def test_every_flipped_bit_of_the_mark_of_completion_is_found(self, complete):
        path = complete.root / "complete.json"
        good = path.read_bytes()
        for position in range(len(good)):
            flipped = bytearray(good)
            flipped[position] ^= 1 << position % 8
            path.write_bytes(flipped)
            assert load(complete).lost, (position, bytes(flipped))

    def test_a_mark_of_completion_without_a_check_is_not_ours(self, complete):
        content = {"parts": 3, "state": load(complete).state}
        (complete.root / "complete.json").write_text(json.dumps(content))
        assert load(complete).lost == "complete.json has no check"

    def test_what_a_writer_is_at_work_on_is_not_lost(self, complete):
        put(complete, *lines(complete)[:1], lines(complete)[1][:-5])
        with complete.lock():
            log = load(complete)
            assert log.torn
            assert log.lost is None
        assert load(complete).lost

    def test_a_writer_that_ends_while_one_looks_is_looked_at_again(self, run, monkeypatch):
        """Between two looks it may commit the line that was torn at the first one."""
        whole = b"".join(lines(run))
        put(run, whole[:-5])
        answers = iter([False, False])

        def locked(_):
            put(run, whole)
            return next(answers)

        monkeypatch.setattr(RunDir, "locked", locked)
        log = load(run)
        assert log.lost is None
        assert [part.name for part in log.parts] == PARTS

    def test_a_writer_that_begins_while_one_looks_is_respected(self, run, monkeypatch):
        put(run, b"".join(lines(run))[:-5])
        answers = iter([False, True])
        monkeypatch.setattr(RunDir, "locked", lambda _: next(answers))
        assert load(run).lost is None


class TestWriting:
    def test_a_line_is_forced_to_the_disk(self, run):
        part = load(run).parts[0]
        run.files.disk.every.clear()
        journal.append(run, part)
        assert run.files.disk.calls == [("write", "journal.jsonl"), ("sync", "journal.jsonl")]

    def test_a_part_and_then_its_line(self, run):
        disk = run.files.disk
        disk.every.clear()
        part = commit_part(run, table([9, 8]), 4, BatchProgress(pairs=1))
        name = "reads/part-00000004.parquet"
        assert [call for call in disk.calls if call != ("write", f"{name}.tmp")] == [
            ("remove", f"{name}.tmp"),
            ("sync", f"{name}.tmp"),
            ("rename", f"{name}.tmp"),
            ("sync", "reads"),
            ("write", "journal.jsonl"),
            ("sync", "journal.jsonl"),
        ]
        assert (part.name, part.rows, part.pairs) == (name, 2, 1)
        assert load(run).parts[3] == part

    @pytest.mark.parametrize("kind", ["write", "sync"])
    def test_a_line_that_cannot_be_written_does_not_count(self, run, kind):
        before = lines(run)
        part = load(run).parts[0]
        run.files.disk.shorten("journal.jsonl", 20)
        run.files.disk.fail(kind, "journal.jsonl", errno.ENOSPC, skip=2 * (kind == "write"))
        with pytest.raises(DiskFull) as raised:
            journal.append(run, part)
        assert raised.value.place == str(run.root / "journal.jsonl")
        assert lines(run) == before

    def test_a_part_that_cannot_be_written_has_no_line(self, run):
        before = lines(run)
        run.files.disk.fail("sync", "*.parquet.tmp", errno.EIO)
        with pytest.raises(EnvironmentFault, match="Input/output") as raised:
            commit_part(run, table([9]), 4, BatchProgress())
        assert raised.value.place.endswith("part-00000004.parquet")
        assert lines(run) == before
        assert journal.part_files(run) == PARTS

    def test_beginning_and_repair_replace_the_file_durably(self, run):
        parts = load(run).parts
        for act, count in (
            (lambda: journal.rewrite(run, parts[1:]), 2),
            (lambda: journal.create(run), 0),
        ):
            run.files.disk.every.clear()
            act()
            assert run.files.disk.calls[-3:] == [
                ("sync", "journal.jsonl.tmp"), ("rename", "journal.jsonl.tmp"), ("sync", "."),
            ]  # fmt: skip
            assert load(run).parts == parts[len(parts) - count :]

    def test_the_mark_of_completion_is_durable(self, run):
        run.files.disk.every.clear()
        journal.mark_complete(run, load(run), "id")
        assert run.files.disk.calls[-3:] == [
            ("sync", "complete.json.tmp"), ("rename", "complete.json.tmp"), ("sync", "."),
        ]  # fmt: skip

    def test_a_mark_that_cannot_be_written_says_so(self, run):
        run.files.disk.fail("rename", "complete.json.tmp", errno.EDQUOT)
        with pytest.raises(DiskFull) as raised:
            journal.mark_complete(run, load(run), "id")
        assert raised.value.place == str(run.root / "complete.json")


class TestParts:
    def test_a_part_is_intact_with_its_bytes_only(self, run):
        part = load(run).parts[1]
        path = run.root / part.name
        good = path.read_bytes()
        assert part.intact(run)
        path.write_bytes(good + b"x")
        assert not part.intact(run)
        path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        assert not part.intact(run)
        path.unlink()
        assert not part.intact(run)

    @pytest.mark.parametrize("act", [os.unlink, lambda path: path.write_bytes(b"PAR1")])
    def test_a_damaged_part_is_said(self, run, act):
        act(run.root / PARTS[1])
        with pytest.raises(IntegrityFault, match="part is damaged or missing") as raised:
            journal.require_sound(run, load(run))
        assert raised.value.place == str(run.root / PARTS[1])

    def test_work_is_summed_by_bucket(self, run):
        total = journal.work_by_bucket(load(run).parts)
        assert list(total) == [0]
        assert total[0].prompts == 2 + 3 + 4
        assert total[0].unique_tokens == 10 * (2 + 3 + 4)

    def test_the_state_changes_with_parts_their_content_their_pairs_and_their_order(self, run):
        one, two, three = load(run).parts
        states = {
            journal.Journal(parts).state
            for parts in ((), (one,), (one, two), (two, one), (one, two, three))
        }
        assert len(states) == 5
        text = f"{one.name} {one.digest} {one.pairs}\n".encode()
        assert journal.Journal((one,)).state == xxhash.xxh3_128_hexdigest(text)
