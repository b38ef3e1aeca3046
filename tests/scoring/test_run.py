"""The whole path with the scripted judge: score, resume, reuse, damage, full disks, locks."""

import io
import json
import random
import resource
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import steelyard
from steelyard.core.config import RunConfig
from steelyard.core.progress import Reporter
from steelyard.errors import (
    EXIT_DONE,
    EXIT_ENVIRONMENT,
    EXIT_INTERRUPTED,
    EXIT_ROW_ERRORS,
    EngineFailed,
    IntegrityFault,
    RunLocked,
    UsageError,
)
from steelyard.scoring.estimate import dry_run
from steelyard.scoring.run import resume, score
from steelyard.store.reads.journal import read_journal
from steelyard.store.rundir import RunDir
from steelyard.store.snapshot import RunSnapshot
from steelyard.store.verdicts import handoff
from support.helpers import PROGRAM, command, pairs_table, program, rows, write_pairs

QUIET = Reporter(quiet=True)


def config(shard, **options):
    return RunConfig.from_mapping({"inputs": [str(shard)], "judge": "scripted", **options}, "test")


def reads(run):
    table = steelyard.open_run(run).sql("SELECT * EXCLUDE read_at FROM reads ORDER BY prompt_key")
    return table.to_pylist()


@pytest.fixture
def shard(tmp_path):
    return write_pairs(tmp_path / "pairs.parquet", 120)


@pytest.fixture
def run(tmp_path, shard):
    assert score(config(shard, part_rows=40), tmp_path / "run", QUIET) == EXIT_DONE
    return tmp_path / "run"


def test_a_row_becomes_a_verdict(run, shard):
    table = steelyard.open_run(run).verdicts()
    given = pq.read_table(shard).to_pylist()
    assert len(table) == len(given) == 120
    for row, verdict in zip(given, table.to_pylist(), strict=True):
        assert verdict["model_a"] == row["model_a"]
        assert verdict["metadata"] == {"source": row["source"]}
        assert verdict["length_b"] == len(row["response_b"].strip())
        logit = (
            np.log(verdict["preference_ab"] / (1 - verdict["preference_ab"]))
            + np.log(verdict["preference_ba"] / (1 - verdict["preference_ba"]))
        ) / 2
        assert verdict["raw_preference"] == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-12)
        assert verdict["symmetry_deviation"] == pytest.approx(
            verdict["preference_ab"] - verdict["preference_ba"]
        )
        assert verdict["consistent"] == (
            (verdict["preference_ab"] > 0.5) == (verdict["preference_ba"] > 0.5)
        )
        assert ("outside_ab" in verdict["flags"]) == (verdict["label_mass_ab"] < 0.5)
        assert verdict["status"] == "ok"


def test_swapping_the_responses_mirrors_the_verdict(tmp_path, run, shard):
    table = pq.read_table(shard)
    names = [
        {"response_a": "response_b", "response_b": "response_a"}.get(name, name)
        for name in table.column_names
    ]
    pq.write_table(table.rename_columns(names), tmp_path / "swapped.parquet")
    other = tmp_path / "other"
    score(config(tmp_path / "swapped.parquet", reuse=[str(run)]), other, QUIET)
    ours, theirs = (
        steelyard.open_run(place).verdicts()["raw_preference"].to_numpy() for place in (run, other)
    )
    assert np.allclose(ours, 1 - theirs, atol=1e-12)
    # Both orders were there: swapping costs nothing.
    assert steelyard.open_run(other).status()["prompts"]["reused"] == 240


def test_duplicates_are_read_once(tmp_path):
    table = pairs_table(30)
    swapped = table.set_column(1, "response_a", table["response_b"]).set_column(
        2, "response_b", table["response_a"]
    )
    pq.write_table(pa.concat_tables([table, table, swapped]), tmp_path / "d.parquet")
    score(config(tmp_path / "d.parquet"), tmp_path / "run", QUIET)
    status = steelyard.open_run(tmp_path / "run").status()
    assert status["prompts"] | {"x": 0} == {
        "asked": 180, "unique": 60, "read": 60, "ok": 60, "overlong": 0, "error": 0,
        "unparsable": 0, "reused": 0, "uncommitted": 0, "x": 0,
    }  # fmt: skip
    assert status["tokens"]["saved_by_dedupe"] == 2 * status["tokens"]["prompt"]
    assert status["pairs"] == {"planned": 90, "done": 90, "uncommitted": 0}


def test_a_finished_run_needs_no_judge(run, shard, capfd):
    before = (run / "journal.jsonl").read_bytes()
    assert score(config(shard, part_rows=40), run, Reporter()) == EXIT_DONE
    assert "no engine is needed" in capfd.readouterr().err
    assert (run / "journal.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    "other",
    [{"judge": "scripted:seed=1"}, {"overlong": "truncate"}, {"map": {"system": "source"}}],
)
def test_another_run_does_not_enter_a_run_directory(run, shard, other):
    with pytest.raises(UsageError, match="holds another run"):
        score(config(shard, **other), run, QUIET)


def test_changed_input_is_another_run(run, tmp_path):
    write_pairs(tmp_path / "pairs.parquet", 121)
    with pytest.raises(UsageError, match="input shards"):
        score(config(tmp_path / "pairs.parquet"), run, QUIET)


def test_reuse_of_another_judge_takes_nothing(run, shard, tmp_path):
    other = tmp_path / "other"
    score(config(shard, judge="scripted:seed=9", reuse=[str(run)]), other, QUIET)
    assert steelyard.open_run(other).status()["prompts"]["reused"] == 0
    assert reads(run) != reads(other)


def test_stop_and_resume_equal_one_pass(tmp_path, run, shard):
    stop = threading.Event()

    class Stopping(Reporter):
        def scoring(self, counts):
            if counts.new_prompts > 60:
                stop.set()

    place = tmp_path / "stopped"
    code = score(config(shard, judge="scripted:rate=2000"), place, Stopping(quiet=True), stop)
    assert code == EXIT_INTERRUPTED
    assert 0 < steelyard.open_run(place).status()["prompts"]["read"] < 240
    assert steelyard.open_run(place).status()["state"] == "stopped"
    live = steelyard.open_run(place).verdicts().drop_columns("read_at").to_pylist()
    assert resume(place, QUIET) == EXIT_DONE
    assert reads(place) == reads(run)
    # Live views and the compacted table define a verdict alike.
    after = {
        row["pair_id"]: row
        for row in steelyard.open_run(place).verdicts().drop_columns("read_at").to_pylist()
    }
    assert live
    assert all(after[row["pair_id"]] == row for row in live)


def test_poison_and_broken_numbers_become_error_reads(tmp_path, shard):
    place = tmp_path / "poison"
    judge = "scripted:seed=5,fail=0.02,nan=0.02"
    assert score(config(shard, judge=judge), place, QUIET) == EXIT_ROW_ERRORS
    found = reads(place)
    errors = [row for row in found if row["status"] == "error"]
    assert len(found) == 240
    assert {row["error"].split(":")[0] for row in errors} == {
        "the engine died 3 times",
        "log-probabilities are not finite",
    }
    for row in errors:
        assert row["label_logprobs"] is None
        assert row["label_mass"] is None
        assert row["argmax_outside"] is None
    verdicts = steelyard.open_run(place).verdicts().to_pylist()
    assert len(verdicts) == 120
    broken = [row for row in verdicts if row["status"] == "error"]
    assert broken
    for row in broken:
        assert row["raw_preference"] is None
        assert row["error"]
    # A second session does not try the given-up prompts for ever.
    assert score(config(shard, judge=judge), place, QUIET) == EXIT_ROW_ERRORS


class TestOverlong:
    @pytest.fixture
    def long_shard(self, tmp_path, monkeypatch):
        monkeypatch.setattr("steelyard.judge.scripted.CONTEXT_LENGTH", 1500)
        table = pairs_table(20, width=40).to_pylist()
        table[3]["response_b"] = "very long " * 200
        pq.write_table(pa.Table.from_pylist(table), tmp_path / "long.parquet")
        return tmp_path / "long.parquet"

    def test_rejected(self, tmp_path, long_shard):
        place = tmp_path / "run"
        assert score(config(long_shard), place, QUIET) == EXIT_ROW_ERRORS
        table = steelyard.open_run(place)
        rejects = table.sql("SELECT * FROM rejects").to_pylist()
        assert [(row["row"], row["reason"]) for row in rejects] == [(3, "overlong")]
        assert "the judge takes 1499" in rejects[0]["detail"]
        assert table.verdicts().to_pylist()[3]["raw_preference"] is None

    def test_truncated_and_marked(self, tmp_path, long_shard):
        place = tmp_path / "run"
        assert score(config(long_shard, overlong="truncate"), place, QUIET) == EXIT_DONE
        verdicts = steelyard.open_run(place).verdicts().to_pylist()
        assert [at for at, row in enumerate(verdicts) if "truncated" in row["flags"]] == [3]
        assert 0 < verdicts[3]["raw_preference"] < 1
        longest = steelyard.open_run(place).sql("SELECT max(prompt_tokens) AS n FROM reads")
        assert longest["n"][0].as_py() <= 1499


@pytest.mark.slow
def test_every_bit_flip_is_found_and_only_that_part_is_read_again(tmp_path):
    """At least 500 flips, seeded; each is followed by a resume."""
    shard = write_pairs(tmp_path / "pairs.parquet", 24, width=16)
    run = tmp_path / "run"
    score(config(shard, part_rows=12, bucket_bytes=400), run, QUIET)
    expected = reads(run)
    draw = random.Random(1)
    for _ in range(500):
        parts = read_journal(run)
        victim = draw.choice(parts)
        path = run / victim.name
        data = bytearray(path.read_bytes())
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(data)
        assert not victim.intact(RunDir(run))
        assert resume(run, Reporter(stream=io.StringIO())) == EXIT_DONE
        after = {part.name: part for part in read_journal(run)}
        kept = {part.name: part.digest for part in parts if part.name != victim.name}
        assert kept == {name: after[name].digest for name in kept}
        new = [part for part in after.values() if part.name not in kept]
        assert sum(part.rows for part in new) == victim.rows
    assert reads(run) == expected
    assert sum(part.pairs for part in read_journal(run)) == 24


def test_a_damaged_part_is_never_a_number(run):
    path = run / read_journal(run)[0].name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    (run / "verdicts.duckdb").unlink()
    with pytest.raises(IntegrityFault, match="damaged"):
        steelyard.open_run(run).verdicts()
    done = command("sql", run, "SELECT 1")
    assert done.returncode == 6
    assert "steelyard resume" in done.stderr


def planned(run, shard, **options):
    """A run that was stopped after planning."""
    stop = threading.Event()

    class Stopping(Reporter):
        def log(self, text):
            if text.startswith("planned"):
                stop.set()

    assert score(config(shard, **options), run, Stopping(), stop) == EXIT_INTERRUPTED
    assert (run / "plan").exists()
    return run


@pytest.mark.parametrize("name", ["plan/pairs-00000.parquet", "plan/bucket-00000.parquet"])
def test_a_damaged_plan_is_found(tmp_path, shard, name):
    run = planned(tmp_path / "run", shard)
    path = run / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityFault, match="plan is damaged"):
        resume(run, QUIET)


def test_a_damaged_journal_line_commits_nothing(run):
    expected = reads(run)
    path = run / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b'"rows":64', b'"rows":65')
    path.write_bytes(b"".join(lines) + lines[0][:50])
    assert len(read_journal(run)) == len(lines) - 1
    assert resume(run, QUIET) == EXIT_DONE
    assert reads(run) == expected


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def start(shard, run, tmp_path, rate=300, part_rows=20):
    toml = tmp_path / "run.toml"
    toml.write_text(f"part_rows = {part_rows}\npart_seconds = 0.2\n")
    arguments = ["score", shard, "--run", run, "--judge", f"scripted:rate={rate}"]
    return subprocess.Popen(
        [*PROGRAM, *map(str, arguments), "--config", str(toml), "--quiet"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_full_disk_keeps_what_was_committed(tmp_path, shard, run):
    place = tmp_path / "full"
    process = start(shard, place, tmp_path, rate=40)
    wait_for(lambda: len(read_journal(place)) >= 2)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (512, 512))
    _, words = process.communicate(timeout=60)
    assert process.returncode == EXIT_ENVIRONMENT
    assert words.startswith("error[disk]: ")
    assert "Traceback" not in words
    kept = read_journal(place)
    assert len(kept) >= 2
    assert all(part.intact(RunDir(place)) for part in kept)
    assert resume(place, QUIET) == EXIT_DONE
    assert reads(place) == reads(run)
    assert [part.digest for part in read_journal(place)][: len(kept)] == [p.digest for p in kept]


def test_a_disk_that_is_full_while_planning(tmp_path):
    place, shard = tmp_path / "full", write_pairs(tmp_path / "many.parquet", 600)

    def limit():  # room for run.json, and not for the plan
        resource.setrlimit(resource.RLIMIT_FSIZE, (16 << 10, resource.RLIM_INFINITY))

    arguments = ("score", shard, "--run", place, "--judge", "scripted", "--quiet")
    done = program(*arguments, preexec_fn=limit)
    assert done.returncode == EXIT_ENVIRONMENT, done.stderr
    assert done.stderr.startswith("error[disk]: ")
    assert command("resume", place, "--quiet").returncode == EXIT_DONE


def test_one_writer_many_readers(tmp_path, shard):
    place = tmp_path / "run"
    process = start(shard, place, tmp_path, rate=12, part_rows=10)
    try:
        wait_for(lambda: len(read_journal(place)) >= 1)
        with pytest.raises(RunLocked), RunDir(place).lock():
            pass
        second = program("resume", place)
        assert second.returncode == EXIT_ENVIRONMENT
        assert f"process {process.pid}" in second.stderr
        assert steelyard.open_run(place).status()["state"] == "scoring"
        assert rows(place, "SELECT count(*) AS n FROM reads")[0]["n"] > 0
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode in {EXIT_INTERRUPTED, EXIT_DONE}
    assert resume(place, QUIET) == EXIT_DONE


def test_ctrl_c_finishes_the_part_and_says_how_to_go_on(tmp_path, shard, run):
    place = tmp_path / "stopped"
    process = start(shard, place, tmp_path, rate=40, part_rows=1000)
    wait_for(lambda: read_journal(place))
    process.send_signal(signal.SIGINT)
    out, words = process.communicate(timeout=60)
    assert process.returncode == EXIT_INTERRUPTED, words
    assert "stopping after the prompts in progress" in words
    assert "stopped" in out
    assert 0 < steelyard.open_run(place).status()["prompts"]["read"] < 240
    assert resume(place, QUIET) == EXIT_DONE
    assert reads(place) == reads(run)


def test_a_run_killed_while_planning_is_planned_again(tmp_path, run, shard):
    place = tmp_path / "killed"
    place.mkdir()
    shutil.copy(run / "run.json", place / "run.json")
    (place / "reads").mkdir()
    (place / "journal.jsonl").touch()
    (place / "plan.tmp").mkdir()
    (place / "plan.tmp" / "pairs-00000.parquet").write_bytes(b"half")
    assert steelyard.open_run(place).verdicts().num_rows == 0
    assert resume(place, QUIET) == EXIT_DONE
    assert reads(place) == reads(run)


def test_the_run_directory_is_as_documented(run):
    names = {path.name for path in run.iterdir()}
    assert {
        "run.json", "plan", "reads", "rejects", "journal.jsonl", "verdicts.duckdb",
        "sessions.jsonl", "telemetry.jsonl", "complete.json", "lock",
    } == names  # fmt: skip
    assert not list(Path(run).rglob("*.tmp"))
    record = json.loads((run / "run.json").read_text())
    (judge,) = record["judges"]
    assert judge["name"].startswith("scripted")
    assert record["config"]["inputs"]


def test_reuse_that_was_cut_short_is_completed(tmp_path, run, shard, monkeypatch):
    from steelyard.store.reads import reuse

    monkeypatch.setattr(reuse, "PART_ROWS", 50)
    place = tmp_path / "other"
    commits = []

    def failing(*arguments, **options):
        if len(commits) == 2:
            raise RuntimeError("killed")
        commits.append(commit(*arguments, **options))
        return commits[-1]

    commit = reuse.commit_part
    monkeypatch.setattr(reuse, "commit_part", failing)
    with pytest.raises(RuntimeError):
        score(config(shard, reuse=[str(run)]), place, QUIET)
    monkeypatch.setattr(reuse, "commit_part", commit)
    assert resume(place, QUIET) == EXIT_DONE
    status = steelyard.open_run(place).status()
    assert status["prompts"]["reused"] == status["prompts"]["unique"] == 240
    assert status["pairs"]["done"] == 120
    assert [row | {"reused_from": None} for row in reads(place)] == reads(run)


def test_resume_goes_on_when_the_reused_run_is_gone(tmp_path, run, shard):
    place, stop = tmp_path / "other", threading.Event()
    moved = tmp_path / "elsewhere"
    stop.set()
    first = tmp_path / "first"
    shutil.copytree(run, first)
    score(config(shard, judge="scripted:seed=8", reuse=[str(first)], part_rows=50), place, QUIET)
    (place / read_journal(place)[-1].name).unlink()
    first.rename(moved)
    stream = io.StringIO()
    assert resume(place, Reporter(stream=stream)) == EXIT_DONE
    assert "nothing more is reused" in stream.getvalue()
    with pytest.raises(UsageError):
        score(config(shard, reuse=[str(first)]), tmp_path / "fresh", QUIET)


def test_buckets_follow_the_text_and_not_the_footer(tmp_path):
    """A column in which every text is the same is tiny in the file and large in the plan."""
    table = pairs_table(4000, width=400)
    same = pa.array(["the same long answer " * 40] * 4000)
    pq.write_table(table.set_column(1, "response_a", same), tmp_path / "p.parquet")
    score(config(tmp_path / "p.parquet", bucket_bytes=500_000), tmp_path / "run", QUIET)
    buckets = list((tmp_path / "run" / "plan").glob("bucket-*.parquet"))
    text = 4000 * (800 + 2 * 420 + 20)
    assert 0.7 * text / 500_000 <= len(buckets) <= 1.3 * text / 500_000 + 1


def test_every_row_refused_is_input_refused(tmp_path):
    table = pairs_table(3).set_column(0, "instruction", pa.array(["", " ", "\n"]))
    pq.write_table(table, tmp_path / "p.parquet")
    done = command(
        "score", tmp_path / "p.parquet", "--run", tmp_path / "run", "--judge", "scripted"
    )
    assert done.returncode == 3
    assert "error[input]" in done.stderr
    assert "every row was refused (3 empty)" in done.stderr
    assert len(rows(tmp_path / "run", "FROM rejects")) == 3


def test_stopped_while_planning_leaves_no_half_plan(tmp_path, shard):
    stop = threading.Event()

    class Stopping(Reporter):
        def planning(self, accepted, refused, total):
            stop.set()

    place = tmp_path / "run"
    assert score(config(shard), place, Stopping(quiet=True), stop) == EXIT_INTERRUPTED
    assert not (place / "plan").exists()
    assert not list(place.glob("*.tmp"))
    assert resume(place, QUIET) == EXIT_DONE


def test_resume_takes_other_engine_settings(tmp_path, shard):
    place = planned(tmp_path / "run", shard)
    done = program("resume", place, "--replicas", "2")
    assert done.returncode == EXIT_DONE, done.stderr
    again = program("resume", place, "--replicas", "0")
    assert again.returncode == 2


def test_a_lost_journal_costs_no_read(run):
    """Whole parts without a line are checked and added; nothing is read again."""
    expected, before = reads(run), steelyard.open_run(run).status()
    times = {path: path.stat().st_mtime_ns for path in (run / "reads").iterdir()}
    (run / "journal.jsonl").unlink()
    for question in (
        steelyard.open_run(run).verdicts,
        lambda: handoff.compact(RunSnapshot.take(run)),
    ):
        with pytest.raises(IntegrityFault, match="journal is damaged or missing"):
            question()
    stream = io.StringIO()
    assert resume(run, Reporter(stream=stream)) == EXIT_DONE
    assert stream.getvalue().count("checked and added") == len(times)
    assert {path: path.stat().st_mtime_ns for path in (run / "reads").iterdir()} == times
    assert reads(run) == expected
    after = steelyard.open_run(run).status()
    for name in ("pairs", "prompts", "tokens"):
        assert after[name] == before[name]


def test_strange_files_among_the_parts_are_set_aside(run, tmp_path, shard):
    expected = reads(run)
    other = tmp_path / "other"
    score(config(shard, judge="scripted:seed=77"), other, QUIET)
    shutil.copy(other / read_journal(other)[0].name, run / "reads" / "part-00000900.parquet")
    shutil.copy(run / read_journal(run)[0].name, run / "reads" / "part-00000901.parquet")
    (run / "reads" / "part-00000902.parquet").write_bytes(b"PAR1 no")
    (run / "reads" / "part-00000903.parquet.tmp").write_bytes(b"half")
    assert resume(run, Reporter(stream=io.StringIO())) == EXIT_DONE
    assert reads(run) == expected
    assert len(list((run / "reads" / "damaged").iterdir())) == 3
    assert not list((run / "reads").glob("*.tmp"))


def test_all_reads_deleted_are_read_again(run):
    expected = reads(run)
    shutil.rmtree(run / "reads")
    stream = io.StringIO()
    assert resume(run, Reporter(stream=stream)) == EXIT_DONE
    assert "is missing: its prompts are read again" in stream.getvalue()
    assert reads(run) == expected


def test_a_lost_manifest_is_an_integrity_fault(run):
    (run / "plan" / "plan.json").unlink()
    for name in ("resume", "status"):
        done = command(name, run)
        assert done.returncode == 6
        assert "plan is damaged or missing" in done.stderr


def test_a_run_that_planned_nothing_may_begin_otherwise(tmp_path):
    table = pairs_table(3).set_column(1, "response_a", pa.array(["x", None, "z"]))
    pq.write_table(table, tmp_path / "p.parquet")
    place = tmp_path / "run"
    line = ("score", tmp_path / "p.parquet", "--run", place, "--judge", "scripted")
    assert command(*line, "--on-bad-row", "fail").returncode == 3
    assert command(*line).returncode == EXIT_ROW_ERRORS


def test_reuse_tells_what_it_left_out(tmp_path, run, shard):
    with pytest.raises(UsageError, match="cannot reuse itself"):
        score(config(shard, reuse=[str(tmp_path / "new")]), tmp_path / "new", QUIET)
    part = run / read_journal(run)[0].name
    part.write_bytes(part.read_bytes()[:-1])
    stream = io.StringIO()
    code = score(config(shard, reuse=[str(run)]), tmp_path / "other", Reporter(stream=stream))
    assert code == EXIT_DONE
    assert "1 damaged parts" in stream.getvalue()
    lost = read_journal(run)[0].rows
    assert steelyard.open_run(tmp_path / "other").status()["prompts"]["reused"] == 240 - lost


def test_a_judge_that_fails_at_everything_is_stopped(tmp_path):
    shard = write_pairs(tmp_path / "p.parquet", 400)
    with pytest.raises(EngineFailed, match="all of the first 200 prompts failed"):
        score(config(shard, judge="scripted:nan=1"), tmp_path / "run", QUIET)
    read = steelyard.open_run(tmp_path / "run").status()["prompts"]
    assert read["ok"] == 0
    assert 200 <= read["error"] < 400


NO_REFERENCE = """
about = "Two responses and nothing else"
source = "this test"
labels = ["A", "B"]
combine = "preference"
user = "{{ instruction }} A: {{ first }} B: {{ second }} Which is better?"
"""


def test_references_are_told_to_be_unused(tmp_path):
    table = pairs_table(2).append_column("reference", pa.array(["r", "s"]))
    pq.write_table(table, tmp_path / "p.parquet")
    (tmp_path / "short.toml").write_text(NO_REFERENCE)
    stream = io.StringIO()
    settings = config(tmp_path / "p.parquet", protocol=str(tmp_path / "short.toml"))
    score(settings, tmp_path / "run", Reporter(stream=stream))
    assert "short does not show the reference" in stream.getvalue()


def test_fields_of_messages_that_no_prompt_has_are_named(tmp_path):
    """`name` and `reasoning_content` were dropped silently."""
    talk = [
        {"role": "user", "content": "hello", "name": "ann", "tool_calls": None},
        {"role": "assistant", "content": "hi", "reasoning_content": "a greeting", "name": None},
    ]
    table = pairs_table(2).append_column("turns", pa.array([talk, None]))
    pq.write_table(table, tmp_path / "p.parquet")
    note = "of the messages in turns, name and reasoning_content are not shown to the judge"
    for planning in (
        lambda reporter: score(config(tmp_path / "p.parquet"), tmp_path / "run", reporter),
        lambda reporter: dry_run(config(tmp_path / "p.parquet"), reporter),
    ):
        stream = io.StringIO()
        planning(Reporter(stream=stream))
        assert stream.getvalue().count(note) == 1


def test_pairwise_shows_references(tmp_path):
    with_one = pairs_table(2).append_column("reference", pa.array(["r", None]))
    found = []
    for name, table in {"with": with_one, "without": pairs_table(2)}.items():
        pq.write_table(table, tmp_path / f"{name}.parquet")
        stream, place = io.StringIO(), tmp_path / name
        score(config(tmp_path / f"{name}.parquet"), place, Reporter(stream=stream))
        assert "does not show" not in stream.getvalue()
        found.append({row["prompt_key"] for row in reads(place)})
    assert len(found[0] & found[1]) == 2  # the prompts of the pair that has none
