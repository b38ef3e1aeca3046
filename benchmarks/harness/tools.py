"""What a tool gets and what is measured of it; Steelyard itself; the bare engine."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from harness.meter import Meter
from harness.prompts import answer_of, encoder_of

Settings = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Job:
    """A workload for one run of one tool; plain data that can go to another process.

    Attributes:
        shards: folder of Parquet files.
        judge: as `steelyard score --judge` takes it.
        engine: overrides of vLLM's settings, as Steelyard takes them.
        options: more options of Steelyard.
        settings: all of vLLM's settings, as Steelyard noted them in a run of the same job; empty
            for Steelyard itself.
        prompts: where Steelyard's run leaves its token rows for the bare engine.
    """

    shards: Path
    judge: str
    engine: Settings
    options: Settings = field(default_factory=dict)
    settings: Settings = field(default_factory=dict)
    prompts: Path | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run did.

    Attributes:
        verdicts: pairs that got a preference.
        logical: tokens of all prompts asked for, in both orders, before any saving.
        sent: tokens of the prompts that reached the engine.
        computed: tokens that the engine computed, by its scheduler's count.
        oracle: tokens by the block-cache oracle; 0 where it was not asked.
        cached: tokens of `sent` that it took from its prefix cache, by its own count.
        seconds: of scoring; loading excluded.
        before: seconds of reading, planning and rendering before that.
        idle: share of the time outside of steps, from the first step's beginning to the last's end.
        preferences: P(response_a is better), in the order of the rows.
        settings: the engine's.
    """

    verdicts: int
    logical: int
    sent: int
    computed: int
    oracle: int
    cached: int
    seconds: float
    before: float
    idle: float
    preferences: list[float]
    settings: Settings = field(default_factory=dict)


def steelyard(job: Job) -> Outcome:
    """Run Steelyard as a whole; seconds are its own record, with the engine loaded."""
    import steelyard as product
    from steelyard.store.rundir import SESSIONS, RunDir

    folder = job.shards.parent / "run"
    shutil.rmtree(folder, ignore_errors=True)
    with Meter(keep=job.prompts is not None) as meter:
        run = product.score(
            job.shards, run=folder, judge=job.judge, engine=job.engine, **job.options
        )
    tokens = run.status()["tokens"]
    (start, end), _ = RunDir(folder).read_log(SESSIONS)
    if job.prompts is not None:
        rows = [np.asarray(row, dtype=np.int32) for row in meter.prompts]
        np.savez(job.prompts, tokens=np.concatenate(rows), lengths=[len(row) for row in rows])
    table = run.verdicts()
    return Outcome(
        verdicts=table.num_rows - table["raw_preference"].null_count,
        logical=tokens["prompt"] + tokens["saved_by_dedupe"],
        sent=tokens["prompt"],
        computed=meter.scheduled or tokens["computed"],
        oracle=run.status()["work"]["oracle_tokens"],
        cached=tokens["cached"],
        seconds=end["seconds"],
        before=(folder / "plan" / "plan.json").stat().st_mtime
        - (folder / "run.json").stat().st_mtime,
        idle=meter.idle,
        preferences=table["raw_preference"].to_pylist(),
        settings=start["settings"],
    )


def _written(path: Path) -> float:
    return path.stat().st_mtime


def bare(job: Job) -> Outcome:
    """Feed the very token rows of a run of Steelyard, in its order, in a loop of three lines.

    The best that the engine can do with them: nothing is read, tokenised, written or committed.
    """
    if job.prompts is None:
        raise ValueError("the bare engine needs the prompts of a run")
    stored = np.load(job.prompts)
    rows = np.split(stored["tokens"], np.cumsum(stored["lengths"])[:-1])
    prompts = [row.tolist() for row in rows]
    with Meter() as meter, engine(job) as loaded:
        from vllm import SamplingParams

        wanted = SamplingParams(
            max_tokens=1, temperature=0.0, detokenize=False, flat_logprobs=True,
            logprob_token_ids=answer_of(encoder_of(job.judge)).labels.token_ids,
        )  # fmt: skip
        began, cached = time.perf_counter(), 0
        for name, prompt in enumerate(prompts):
            row = {"type": "token", "prompt_token_ids": prompt}
            loaded.add_request(str(name), row, wanted)
        while loaded.has_unfinished_requests():
            cached += sum(out.num_cached_tokens for out in loaded.step() if out.finished)
        seconds = time.perf_counter() - began
    sent = sum(map(len, prompts))
    return Outcome(
        0, sent, sent, meter.scheduled or sent - cached, 0, cached, seconds, 0.0, meter.idle, []
    )


def ask_oracle(config: Any, prompts: Iterable[Sequence[int]]) -> int:
    """Return the tokens that an engine like this should compute of prompts in this order."""
    from steelyard.core.batches import TokenRows
    from steelyard.judge.vllm.requests import cache_shape
    from steelyard.scoring.tally import BlockOracle

    rows = TokenRows.of(list(prompts))
    return int(BlockOracle(cache_shape(config)).computed(rows, len(rows)).sum())


@contextmanager
def engine(job: Job) -> Iterator[Any]:
    """Make an engine with the settings of Steelyard's run; without a tokenizer, as there."""
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.engine.llm_engine import LLMEngine

    made = LLMEngine.from_engine_args(EngineArgs(**job.settings))
    try:
        yield made
    finally:
        shut_down(made)


def shut_down(made: Any) -> None:
    """End an engine, so that another can be made in this process."""
    import gc

    from vllm.distributed import cleanup_dist_env_and_memory

    made.engine_core.shutdown()
    cleanup_dist_env_and_memory()
    gc.collect()
