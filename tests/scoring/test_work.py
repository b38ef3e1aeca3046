"""What reading took: counted by bucket, equal to the engine's own count, and missed by nobody."""

import io
import json
import subprocess

import pyarrow.parquet as pq
import pytest

import steelyard
from steelyard.core.config import RunConfig
from steelyard.core.progress import Reporter
from steelyard.core.work import CacheShape, EngineReport
from steelyard.judge.scripted import ScriptedJudge
from steelyard.scoring.run import score
from steelyard.scoring.session import NO_CACHE, NO_HITS, NOTICED_TOKENS
from support.helpers import PROGRAM, command, pairs_table
from support.tiny import write_model


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    return str(write_model(tmp_path_factory.mktemp("judge")))


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    path = tmp_path_factory.mktemp("shard") / "pairs.parquet"
    pq.write_table(pairs_table(60, instructions=12, width=1), path)
    return path


@pytest.mark.vllm
@pytest.mark.parametrize("blocks", [16, 400])
def test_the_engine_computes_what_the_oracle_says(judge, shard, tmp_path, blocks):
    engine = {"num_gpu_blocks_override": blocks}
    run = steelyard.score(
        shard, run=tmp_path / "run", judge=judge, engine=engine, bucket_bytes=1000
    )
    status = run.status()
    work = status["work"]
    assert len(work["buckets"]) > 1
    assert work["prompts"] == status["prompts"]["read"] == 120
    assert work["computed_tokens"] == work["oracle_tokens"] == status["tokens"]["computed"]
    assert work["floor_tokens"] <= work["computed_tokens"] < work["unique_tokens"]
    assert work["hit_rate"] == 1 - work["computed_tokens"] / work["unique_tokens"]
    assert 0 < work["busy_share"] == work["engine_seconds"] / work["reading_seconds"] <= 1
    for name in ("prompts", "computed_tokens", "oracle_tokens", "floor_tokens", "engine_seconds"):
        assert sum(bucket[name] for bucket in work["buckets"]) == pytest.approx(work[name])
    by_bucket = run.sql(
        "SELECT bucket, sum(prompt_tokens - cached_tokens)::BIGINT AS computed_tokens"
        " FROM reads GROUP BY bucket ORDER BY bucket"
    )
    assert by_bucket == run.sql("SELECT bucket, computed_tokens FROM work ORDER BY bucket")


@pytest.mark.vllm
def test_plan_tells_what_the_engine_then_computes(judge, shard, tmp_path):
    planned = said("plan", shard, "--judge", judge)
    run = steelyard.score(shard, run=tmp_path / "run", judge=judge)
    work = run.status()["work"]
    assert planned["computed_tokens"] == work["computed_tokens"]
    assert planned["floor_tokens"] == work["floor_tokens"]
    assert planned["tokens"] == work["unique_tokens"]


@pytest.mark.vllm
def test_exact_and_swapped_duplicates_cost_no_engine_token(judge, shard, tmp_path):
    table = pq.read_table(shard)
    swapped = table.rename_columns(
        [
            {"response_a": "response_b", "response_b": "response_a"}.get(n, n)
            for n in table.column_names
        ]
    ).select(table.column_names)
    twice = tmp_path / "twice"
    twice.mkdir()
    for name, rows in (("a", table), ("b", table.slice(0, 30)), ("c", swapped.slice(20, 30))):
        pq.write_table(rows, twice / f"{name}.parquet")
    once = steelyard.score(shard, run=tmp_path / "once", judge=judge).status()["work"]
    more = steelyard.score(twice, run=tmp_path / "more", judge=judge).status()["work"]
    assert more["computed_tokens"] == once["computed_tokens"]
    assert more["unique_tokens"] == once["unique_tokens"]
    assert more["logical_tokens"] > 1.5 * once["logical_tokens"]


@pytest.mark.vllm
def test_an_engine_without_a_cache_is_told_of(judge, shard, tmp_path):
    work, text = scored(shard, tmp_path, judge=judge, engine={"enable_prefix_caching": False})
    assert NO_CACHE in text
    assert work["computed_tokens"] == work["unique_tokens"] == work["oracle_tokens"]
    assert work["hit_rate"] == 0


def said(*arguments):
    """What a command prints as JSON."""
    return json.loads(command(*arguments, "--json").stdout)


def scored(shard, tmp_path, **options):
    """Work of a run, and what it told meanwhile."""
    stream = io.StringIO()
    config = RunConfig.from_mapping({"inputs": [str(shard)], **options}, "test")
    score(config, tmp_path / "run", Reporter(stream=stream))
    return steelyard.open_run(tmp_path / "run").status()["work"], stream.getvalue()


def test_a_cache_that_never_gives_a_token_is_told_of_once(tmp_path, monkeypatch):
    """As some hybrid models: the engine says that it shares, and does not."""
    shape = CacheShape(True, 16, 4000, 4096, 64, 4096)
    monkeypatch.setattr(ScriptedJudge, "start", starting(ScriptedJudge.start, shape))
    shard = tmp_path / "pairs.parquet"
    pq.write_table(pairs_table(40), shard)
    work, text = scored(shard, tmp_path, judge="scripted")
    assert work["unique_tokens"] - work["floor_tokens"] >= NOTICED_TOKENS
    assert text.count(NO_HITS) == 1
    assert work["oracle_tokens"] < work["computed_tokens"]


def starting(start, shape):
    def started(self, workload, answer):
        report = start(self, workload, answer)
        return EngineReport(report.settings, report.context_length, cache=shape)

    return started


def test_a_killed_run_still_knows_all_its_work(tmp_path):
    shard, run = tmp_path / "pairs.parquet", tmp_path / "run"
    pq.write_table(pairs_table(400), shard)
    config = tmp_path / "c.toml"
    config.write_text("part_rows = 50\npart_seconds = 0.2\nbucket_bytes = 20000\n")
    line = [*PROGRAM, "score", str(shard), "--run", str(run), "--config", str(config), "--quiet"]
    process = subprocess.Popen([*line, "--judge", "scripted:rate=400"])
    journal = run / "journal.jsonl"
    while process.poll() is None and not (journal.exists() and journal.read_text().count("\n") > 3):
        pass
    process.kill()
    assert process.wait() == -9
    stopped = said("status", run)
    assert stopped["state"] == "stopped"
    assert 0 < stopped["work"]["prompts"] == stopped["prompts"]["read"] < 800
    assert command("resume", run, "--quiet").returncode == 0
    whole = said("status", run)
    assert whole["work"]["prompts"] == 800
    assert whole["work"]["unique_tokens"] == whole["tokens"]["prompt"]


def test_tokens_add_up_when_reads_are_reused(tmp_path):
    """Every token that was asked for was computed, cached, or spared by dedupe or reuse."""
    table = pairs_table(40, width=1)
    pq.write_table(table.slice(0, 20), tmp_path / "first.parquet")
    many = tmp_path / "many"
    many.mkdir()
    pq.write_table(table, many / "a.parquet")
    pq.write_table(table.slice(10, 20), many / "b.parquet")
    steelyard.score(tmp_path / "first.parquet", run=tmp_path / "old", judge="scripted")
    old = str(tmp_path / "old")
    run = steelyard.score(many, run=tmp_path / "new", judge="scripted", reuse=[old])
    alone = steelyard.score(many, run=tmp_path / "alone", judge="scripted").status()["tokens"]
    tokens = run.status()["tokens"]
    assert tokens["saved_by_reuse"] > 0
    asked = tokens["prompt"] + tokens["saved_by_dedupe"] + tokens["saved_by_reuse"]
    assert asked == alone["prompt"] + alone["saved_by_dedupe"]
    assert tokens["saved_by_dedupe"] == alone["saved_by_dedupe"]
