"""Plans of grouped and of shuffled shards: the same pairs, keys and verdicts, kept differently."""

import io
import json
import resource
import shutil
import subprocess
import threading
import time
from dataclasses import replace
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
    InputRefused,
    IntegrityFault,
)
from steelyard.input import Limits, open_shards, stream
from steelyard.scoring.planner import write_plan
from steelyard.scoring.run import resume, score
from steelyard.scoring.shard_texts import open_texts
from steelyard.store.plan.files import load_manifest
from steelyard.store.reads.journal import read_journal
from steelyard.store.rundir import RunDir
from support.helpers import PROGRAM, command, pairs_table, pairwise_key_spec, program

QUIET = Reporter(quiet=True)
SMALL = {"bucket_bytes": 2000, "part_rows": 40}


def config(shards, **options):
    return RunConfig.from_mapping(
        {"inputs": [str(shards)], "judge": "scripted", **SMALL, **options}, "test"
    )


def by_instruction(table):
    return table.sort_by([("instruction", "ascending"), ("response_a", "ascending")])


def shuffled(table, seed=0):
    return table.take(pa.array(np.random.default_rng(seed).permutation(len(table))))


def write(folder, table, files=3):
    """Shards of several row groups."""
    folder.mkdir()
    size = -(-len(table) // files)
    for at in range(files):
        pq.write_table(table.slice(at * size, size), folder / f"{at}.parquet", row_group_size=17)
    return folder


def manifest(run):
    return load_manifest(RunDir(run))


def pairs(run):
    columns = ["pair_id", "model_a", "model_b", "length_a", "length_b", "keys"]
    table = pq.read_table(run / "plan" / "pairs-00000.parquet", columns=columns)
    return sorted(table.to_pylist(), key=lambda row: (row["keys"], row["pair_id"]))


def verdicts(run):
    query = "SELECT * EXCLUDE (shard, row, read_at) FROM verdicts ORDER BY ALL"
    return steelyard.open_run(run).sql(query).to_pylist()


def tables(run, shards):
    """All buckets of a plan."""
    record = json.loads((run / "run.json").read_text())
    (form,) = record["judges"][0]["part"]["fingerprints"]
    key_spec = pairwise_key_spec(bytes.fromhex(form))
    texts = open_texts(RunDir(run), manifest(run), open_shards([shards]), key_spec, Limits())
    found = [texts.texts(bucket) for bucket in range(len(manifest(run).unique))]
    texts.close()
    return found


def stopped(run, shards, **options):
    """A run that was stopped in the middle of its reads."""
    run = Path(run)
    stop = threading.Event()

    class Stopping(Reporter):
        def scoring(self, counts):
            if counts.new_prompts > 60:
                stop.set()

    options = {"judge": "scripted:rate=2000", **options}
    assert score(config(shards, **options), run, Stopping(quiet=True), stop) == EXIT_INTERRUPTED
    assert steelyard.open_run(run).status()["state"] == "stopped"
    return run


@pytest.fixture
def table():
    return pairs_table(240, instructions=30)


@pytest.fixture
def grouped(tmp_path, table):
    return write(tmp_path / "grouped", by_instruction(table))


@pytest.fixture
def reference(tmp_path, table):
    """The run of the shuffled rows, whose texts are copied."""
    shards = write(tmp_path / "shuffled", shuffled(table))
    assert score(config(shards), tmp_path / "reference", QUIET) == EXIT_DONE
    assert not manifest(tmp_path / "reference").in_shards
    return tmp_path / "reference"


def test_grouped_input_is_not_copied_and_gives_the_same(tmp_path, grouped, reference):
    run = tmp_path / "run"
    assert score(config(grouped), run, QUIET) == EXIT_DONE
    assert {path.name for path in (run / "plan").iterdir()} == {"pairs-00000.parquet", "plan.json"}
    assert pairs(run) == pairs(reference)
    assert verdicts(run) == verdicts(reference)
    ours, theirs = manifest(run), manifest(reference)
    assert ours.in_shards
    assert (ours.pairs, ours.prompts, ours.text_bytes) == (theirs.pairs, 480, theirs.text_bytes)
    assert sum(ours.ranges) == 240
    assert len(ours.ranges) > 5


def test_buckets_end_where_the_instruction_changes(tmp_path, grouped):
    score(config(grouped), tmp_path / "run", QUIET)
    found = tables(tmp_path / "run", grouped)
    sizes = manifest(tmp_path / "run").ranges
    assert [len(one) for one in found] == sizes
    instructions = [set(one["instruction"].to_pylist()) for one in found]
    assert sum(map(len, instructions)) == 30
    keys = [[key for pair in one["keys"].to_pylist() for key in pair] for one in found]
    assert [len(set(one)) for one in keys] == manifest(tmp_path / "run").unique


CONVERSATION = "User: hi\n\nAssistant: ho"


def test_copied_buckets_hold_the_texts_of_the_rows(tmp_path, table):
    """Dedupe, then expand: every row comes back, with its absent texts absent."""
    n = len(table)
    table = table.append_column("system", pa.array([None, " s "] * (n // 2)))
    table = table.append_column("reference", pa.array([f"ref {i % 7}" for i in range(n)]))
    talk = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    turns = [talk if i % 3 else None for i in range(n)]
    table = table.append_column("turns", pa.array(turns))
    shards = write(tmp_path / "in", shuffled(table))
    score(config(shards), tmp_path / "run", QUIET)
    found = pa.concat_tables(tables(tmp_path / "run", shards)).to_pylist()
    names = ("instruction", "response_a", "response_b", "system", "conversation", "reference")
    expected = [
        tuple((row | {"conversation": row["turns"] and CONVERSATION})[name] for name in names)
        for row in table.to_pylist()
    ]
    expected = [tuple(text and text.strip() for text in row) for row in expected]
    rows = [tuple(row[name] for name in names) for row in found]
    assert sorted(rows, key=str) == sorted(expected, key=str)
    assert len(found) == n


@pytest.mark.parametrize("late", [9, 120, 240])
def test_grouping_that_breaks_off_is_copied(tmp_path, table, reference, late):
    """The first row comes again behind so many others; its group has eight."""
    order = [*range(1, late), 0, *range(late, 240)]
    shards = write(tmp_path / "late", by_instruction(table).take(pa.array(order)))
    assert score(config(shards), tmp_path / "run", QUIET) == EXIT_DONE
    assert not manifest(tmp_path / "run").in_shards
    assert pairs(tmp_path / "run") == pairs(reference)
    assert verdicts(tmp_path / "run") == verdicts(reference)


def test_duplicates_across_groups_are_read_once(tmp_path, table):
    """The same pair once more, swapped, behind all groups."""
    rows = by_instruction(table)
    swapped = rows.slice(0, 10).rename_columns(
        ["instruction", "response_b", "response_a", *rows.column_names[3:]]
    )
    shards = write(tmp_path / "in", pa.concat_tables([rows, swapped.select(rows.column_names)]))
    assert score(config(shards), tmp_path / "run", QUIET) == EXIT_DONE
    status = steelyard.open_run(tmp_path / "run").status()
    assert status["prompts"]["asked"] == 500
    assert status["prompts"]["unique"] == status["prompts"]["read"] == 480


def test_a_stopped_grouped_run_goes_on(tmp_path, grouped, reference):
    run = stopped(tmp_path / "run", grouped)
    assert manifest(run).in_shards
    assert resume(run, QUIET) == EXIT_DONE
    assert verdicts(run) == verdicts(reference)


def test_a_killed_grouped_run_goes_on(tmp_path, grouped, reference):
    run, toml = tmp_path / "run", tmp_path / "run.toml"
    toml.write_text("bucket_bytes = 2000\npart_rows = 20\n")
    arguments = ["score", grouped, "--run", run, "--judge", "scripted:rate=200", "--config", toml]
    process = subprocess.Popen([*PROGRAM, *map(str, arguments), "--quiet"])
    end = time.monotonic() + 60
    while len(read_journal(run)) < 3:
        assert time.monotonic() < end, "no part was committed"
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert manifest(run).in_shards
    assert 0 < len(read_journal(run)) < 24
    assert resume(run, QUIET) == EXIT_DONE
    assert verdicts(run) == verdicts(reference)


def test_buckets_that_are_done_are_passed_over(tmp_path, grouped, reference):
    """Parts in the middle are lost: only their buckets are read from the shards again."""
    run = tmp_path / "run"
    score(config(grouped), run, QUIET)
    parts = sorted((run / "reads").iterdir())
    assert len(parts) > 5
    for path in parts[1::3]:
        path.unlink()
    assert resume(run, Reporter(stream=io.StringIO())) == EXIT_DONE
    assert verdicts(run) == verdicts(reference)


def test_missing_shards_are_refused_before_an_engine_is_loaded(tmp_path, grouped, reference):
    run = stopped(tmp_path / "run", grouped)
    sessions = (run / "sessions.jsonl").read_bytes()
    (grouped / "1.parquet").rename(tmp_path / "away")
    with pytest.raises(InputRefused, match="shards have changed") as refused:
        resume(run, QUIET)
    assert "--reuse" in refused.value.remedy
    assert (run / "sessions.jsonl").read_bytes() == sessions
    shutil.rmtree(grouped)
    done = command("resume", run)
    assert done.returncode == 3
    assert "no such file or folder" in done.stderr
    assert "put the shards back" in done.stderr
    grouped.mkdir()
    assert (run / "sessions.jsonl").read_bytes() == sessions


def test_a_finished_grouped_run_needs_no_shards(tmp_path, grouped, reference):
    run = tmp_path / "run"
    score(config(grouped), run, QUIET)
    shutil.rmtree(grouped)
    (run / "verdicts.duckdb").unlink()
    assert resume(run, QUIET) == EXIT_DONE
    assert verdicts(run) == verdicts(reference)


def test_a_shard_with_other_rows_is_found_by_its_footer(tmp_path, table, grouped):
    run = stopped(tmp_path / "run", grouped)
    other = by_instruction(pairs_table(240, instructions=30, seed=5))
    pq.write_table(other.slice(80, 80), grouped / "1.parquet", row_group_size=17)
    with pytest.raises(InputRefused, match="sizes or footers"):
        resume(run, QUIET)


@pytest.mark.parametrize("what", ["text", "null"])
def test_a_shard_with_the_same_footer_and_other_bytes_is_found_by_its_keys(tmp_path, table, what):
    """No checksums, plain encoding: Parquet itself would not notice."""
    shards = tmp_path / "in"
    shards.mkdir()
    options = {"use_dictionary": False, "compression": "none", "write_statistics": False}
    pq.write_table(by_instruction(table), shards / "0.parquet", **options)
    run = stopped(tmp_path / "run", shards)
    path = shards / "0.parquet"
    data = path.read_bytes()
    last = by_instruction(table)["response_b"].to_pylist()[-1].encode()
    assert data.count(last) == 1
    changed = last.replace(b"answer", b"ANSWER") if what == "text" else b"\xff" * len(last)
    path.write_bytes(data.replace(last, changed))
    with pytest.raises(IntegrityFault, match="changed since it was planned") as fault:
        resume(run, QUIET)
    assert "0.parquet, near row" in fault.value.place
    path.write_bytes(data)
    assert resume(run, QUIET) == EXIT_DONE


def test_refused_rows_are_refused_once_and_left_out_again(tmp_path, table):
    """What refuses a row may be a column that is not read the second time."""
    rows = by_instruction(table)
    gold = pa.array(["nobody" if i % 40 == 7 else "A" for i in range(240)])
    rows = rows.append_column("gold", gold)
    texts = rows["response_b"].to_pylist()
    texts[100] = None
    rows = rows.set_column(2, "response_b", pa.array(texts))
    shards = write(tmp_path / "in", rows)
    run = stopped(tmp_path / "run", shards)
    assert manifest(run).in_shards
    assert manifest(run).rejected == {"gold": 6, "null": 1}
    assert resume(run, QUIET) == EXIT_ROW_ERRORS
    rejects = steelyard.open_run(run).sql("FROM rejects ORDER BY shard, row").to_pylist()
    places = [int(row["shard"][0]) * 80 + row["row"] for row in rejects]
    assert places == sorted([*range(7, 240, 40), 100])
    assert len(verdicts(run)) == 233


def giant(table):
    """One instruction with most of the pairs, many of them exact and swapped duplicates."""
    rows = shuffled(table).to_pylist()
    draw = np.random.default_rng(1)
    answers = [f"answer {i} " + "word " * 12 for i in range(25)]
    for row in rows[:200]:
        row["instruction"] = "the one question"
        row["response_a"], row["response_b"] = (answers[i] for i in draw.integers(0, 25, 2))
    return pa.Table.from_pylist(rows)


@pytest.mark.parametrize("arranged", [shuffled, by_instruction])
def test_a_giant_instruction_is_split(tmp_path, table, arranged):
    shards = write(tmp_path / "in", arranged(giant(table)))
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert score(config(shards, bucket_bytes=10**9), whole, QUIET) == EXIT_DONE
    assert score(config(shards), run, QUIET) == EXIT_DONE
    one, split = manifest(whole), manifest(run)
    assert sum(map(bool, one.unique)) == 1
    assert not split.in_shards
    assert split.prompts == one.prompts < 480
    assert pairs(run) == pairs(whole)
    assert verdicts(run) == verdicts(whole)
    found = tables(run, shards)
    holding = [one for one in found if "the one question" in one["instruction"].to_pylist()]
    assert len(holding) > 5
    assert max(one.nbytes for one in found) < 4 * 2000 + 64 * 100
    names = {path.name for path in (run / "plan").glob("bucket-*")}
    assert names == {f"bucket-{at:05}.parquet" for at, n in enumerate(split.unique) if n}
    assert len(list((run / "plan").glob("texts-*"))) == len(names)


def test_pairs_name_the_bucket_that_holds_them(tmp_path, table):
    shards = write(tmp_path / "in", shuffled(giant(table)))
    score(config(shards), tmp_path / "run", QUIET)
    rows = pq.read_table(tmp_path / "run" / "plan" / "pairs-00000.parquet").to_pylist()
    for bucket, held in enumerate(tables(tmp_path / "run", shards)):
        expected = sorted(row["keys"] for row in rows if row["bucket"] == bucket)
        assert sorted(held["keys"].to_pylist()) == expected
    reads = steelyard.open_run(tmp_path / "run").sql("SELECT prompt_key, bucket FROM reads")
    at = {row["prompt_key"]: row["bucket"] for row in reads.to_pylist()}
    assert all(len(row["keys"]) == 2 for row in rows)
    assert all(at[key] == row["bucket"] for row in rows for key in row["keys"])


def test_rows_much_longer_than_the_first_ones(tmp_path):
    """The sample of the first batches promises one bucket; the rest needs many."""
    short = pairs_table(12_000, instructions=600, width=16, seed=1)
    long = pairs_table(300, instructions=60, width=4000, seed=2)
    long = long.set_column(0, "instruction", pa.array([f"other {i % 60}" for i in range(300)]))
    shards = tmp_path / "in"
    shards.mkdir()
    pq.write_table(pa.concat_tables([short, long]), shards / "0.parquet")
    settings = config(shards, bucket_bytes=300_000, part_rows=20_000)
    assert score(settings, tmp_path / "run", QUIET) == EXIT_DONE
    plan = manifest(tmp_path / "run")
    assert plan.prompts == 2 * 12_300
    assert max(table.nbytes for table in tables(tmp_path / "run", shards)) < 1_200_000


@pytest.mark.parametrize("instructions", [1, 2000])
def test_a_bucket_is_bounded_by_the_bytes_of_its_prompts(tmp_path, instructions):
    """A million short pairs of an instruction have few texts, and gigabytes of prompts.

    A prompt counts 256 bytes, 1000 of template and its texts; a bucket has room for 16 MiB of
    prompts, 13,000, and a few more where blocks of one instruction stay together.
    """
    n = 60_000
    numbers = [f"{i}" for i in range(n)]
    questions = [f"q{i * instructions // n}" for i in range(n)]
    rows = {"instruction": questions, "response_a": numbers, "response_b": ["b"] * n}
    pq.write_table(pa.table(rows), tmp_path / "short.parquet")
    settings = config(tmp_path / "short.parquet", bucket_bytes=1 << 20)
    spec = replace(pairwise_key_spec(), template_bytes=1000)
    shards, run = open_shards(settings.inputs), RunDir(tmp_path / "run")
    run.create()
    plan = write_plan(run, shards, settings, spec, lambda *_: None)
    assert plan.in_shards == (instructions > 1)
    assert sum(plan.unique) == 2 * n
    assert 13_000 <= max(plan.unique) <= 20_000


@pytest.mark.parametrize("arranged", [shuffled, by_instruction])
def test_row_groups_of_pairs_are_bounded_by_bytes(tmp_path, table, arranged):
    """240 rows of 400 kB, in buckets that are split: DuckDB reads row groups whole."""
    page = np.random.default_rng(0).bytes(400_000 + 240).hex()
    pages = pa.array([page[i : i + 400_000] for i in range(240)])
    shards = write(tmp_path / "in", arranged(giant(table).append_column("page", pages)))
    assert score(config(shards), tmp_path / "run", QUIET) == EXIT_DONE
    assert not manifest(tmp_path / "run").in_shards
    file = pq.ParquetFile(tmp_path / "run" / "plan" / "pairs-00000.parquet")
    groups = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
    assert sum(group.num_rows for group in groups) == 240
    assert max(group.num_rows for group in groups) * 400_000 <= 48 << 20


def test_remote_shards_are_copied(tmp_path, grouped, monkeypatch):
    monkeypatch.setattr("steelyard.input.shardset.ShardSet.local", property(lambda _: False))
    assert score(config(grouped), tmp_path / "run", QUIET) == EXIT_DONE
    assert not manifest(tmp_path / "run").in_shards


@pytest.mark.parametrize("name", ["bucket-00000.parquet", "texts-00001.parquet"])
def test_a_damaged_copy_is_found(tmp_path, table, name):
    shards = write(tmp_path / "in", shuffled(table))
    run = stopped(tmp_path / "run", shards, part_rows=20, bucket_bytes=6000)
    shutil.rmtree(run / "reads")
    path = run / "plan" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityFault, match="plan is damaged"):
        resume(run, Reporter(stream=io.StringIO()))


@pytest.mark.parametrize("arranged", [shuffled, by_instruction])
@pytest.mark.parametrize("room", [100, 16 << 10])  # the second suffices for run.json
def test_a_full_disk_while_planning(tmp_path, table, arranged, room):
    shards, place = write(tmp_path / "in", arranged(table)), tmp_path / "full"

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))

    arguments = ("score", shards, "--run", place, "--judge", "scripted", "--quiet")
    done = program(*arguments, preexec_fn=limit)
    assert done.returncode == EXIT_ENVIRONMENT, done.stderr
    assert done.stderr.startswith("error[disk]: ")
    assert (place / "run.json").exists() == (room > 100)
    assert not (place / "plan").exists()


def test_a_pass_can_begin_in_the_middle(grouped):
    shards = open_shards([grouped])
    whole = [row for rows, _ in stream(shards) for row in rows.to_pylist()]
    for shard, row in [(0, 0), (0, 30), (1, 79), (2, 17)]:
        found = [row for rows, _ in stream(shards, start=(shard, row)) for row in rows.to_pylist()]
        assert found == whole[80 * shard + row // 17 * 17 :]


def test_a_run_with_relative_paths_is_resumed_from_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pq.write_table(pairs_table(200, instructions=200), "pairs.parquet")
    stopped("run", "pairs.parquet")
    assert load_manifest(RunDir(tmp_path / "run")).in_shards
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert resume(tmp_path / "run", QUIET) == EXIT_DONE
    table = steelyard.open_run(tmp_path / "run").verdicts()
    assert set(table["shard"].to_pylist()) == {"pairs.parquet"}


def test_a_shard_that_came_later_is_named(tmp_path):
    shards = tmp_path / "in"
    shards.mkdir()
    pq.write_table(pairs_table(200, instructions=200), shards / "a.parquet")
    stopped(tmp_path / "run", shards)
    pq.write_table(pairs_table(4, seed=1), shards / "later.parquet")
    with pytest.raises(InputRefused, match=r"new: later\.parquet"):
        resume(tmp_path / "run", QUIET)
    (shards / "later.parquet").unlink()
    assert resume(tmp_path / "run", QUIET) == EXIT_DONE
