"""Tools compared on one workload: there and back again (A B B A), medians and ratios."""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from harness import baselines, tools, workloads
from harness.common import parser
from harness.prompts import PROTOCOL, both_orders, encoder_of, pairwise_template, tokenise
from harness.tinyjudge import tiny_judge
from harness.tools import Job, Outcome
from steelyard.judge.vllm.process import uncompiled

Tool = Callable[[Job], Outcome]
Run = Callable[[Tool, Job], Outcome]
STEELYARD = "steelyard"
TOOLS: dict[str, Tool] = {
    STEELYARD: tools.steelyard,
    "naive": baselines.naive,
    "generated": baselines.generated,
    "choices": baselines.choices,
    "bare": tools.bare,
}
BLOCK = 32
DTYPE = "bfloat16"  # twice as fast as float32 on a CPU; all tools alike
POOL_SHARE = 0.02


@dataclass(frozen=True, slots=True)
class Size:
    """Tokens of a workload in the judge's own vocabulary."""

    logical: int
    longest: int


@dataclass(frozen=True, slots=True)
class Bench:
    """The judge of a benchmark, a scratch folder, and the rounds of each workload."""

    judge: str
    folder: Path
    rounds: int
    smoke: bool

    @contextmanager
    def process(self) -> Iterator[Run]:
        """Start a fresh process for the runs of one workload; smoke sizes stay in this one."""
        if self.smoke:
            with uncompiled(spawned=False):  # compiling takes seconds that pay in long runs only
                yield lambda tool, job: tool(job)
            return
        with ProcessPoolExecutor(1, get_context("spawn")) as made:
            yield lambda tool, job: made.submit(tool, job).result()


def options(text: str | None) -> argparse.ArgumentParser:
    """Make the options of the benchmarks with an engine."""
    made = parser(text)
    made.add_argument("--judge", default="demo", help="as for `steelyard score` [demo]")
    made.add_argument("--rounds", type=int, default=2, help="runs of each tool [2: A B B A]")
    made.add_argument("--seed", type=int, default=0)
    return made


@contextmanager
def bench(chosen: argparse.Namespace) -> Iterator[Bench]:
    """Open scratch space; smoke sizes have a tiny random judge, one round and no warm-up."""
    with tempfile.TemporaryDirectory(prefix="steelyard-bench-") as name:
        folder = Path(name)
        if not chosen.smoke:
            yield Bench(chosen.judge, folder, chosen.rounds, smoke=False)
            return
        corpus = [PROTOCOL.system, *(text for text, _ in texts(chosen).items)]
        judge = tiny_judge(folder / "judge", corpus)
        yield Bench(str(judge), folder, 1, smoke=True)


def texts(chosen: argparse.Namespace, limits: workloads.Limits | None = None) -> workloads.Texts:
    """Load texts for this size, and print where they come from if they are not the real ones."""
    limits = limits or (workloads.SMALL if chosen.smoke else workloads.MEDIUM)
    found = workloads.load(limits, chosen.seed, generated=chosen.smoke)
    if found.source == "generated":
        print("the real texts are missing: using generated ones", file=sys.stderr)
    return found


def cells(chosen: argparse.Namespace, *, large: bool = False) -> list[tuple[str, str]]:
    """Return the inputs and pools to measure a workload with; also a `large` pool, if wanted."""
    every = [("shuffled", "small"), ("grouped", "small"), ("shuffled", "large")]
    return every[: 1 if chosen.smoke else 2 + large]


def pool_blocks(size: Size, pool: str) -> int:
    """Choose the blocks of the engine's key-value pool.

    "small" is 2% of the workload, as with an 8B judge and a night's work, but at least two of the
    longest prompts; "large" holds everything. The engine keeps one block for itself.
    """
    least = 2 * -(-(size.longest + 1 + baselines.ANSWER_TOKENS) // BLOCK)
    share = POOL_SHARE if pool == "small" else 1.1
    return max(least, int(size.logical * share) // BLOCK) + 1


def measure(rows: list[workloads.Row], judge: str) -> Size:
    """Count tokens of all prompts in both orders, and of the longest, by the judge's encoder."""
    encoder = encoder_of(judge)
    lengths = tokenise(pairwise_template(encoder), both_orders(rows), encoder).lengths
    return Size(int(lengths.sum()), int(lengths.max()))


def engine_settings(size: Size, pool: str) -> dict[str, Any]:
    """Return the settings that a benchmark fixes; Steelyard chooses all others."""
    room = size.longest + 2 + baselines.ANSWER_TOKENS
    return {
        "dtype": DTYPE,
        "block_size": BLOCK,
        "max_model_len": -(-room // BLOCK) * BLOCK,
        "num_gpu_blocks_override": pool_blocks(size, pool),
    }


def compete(
    place: Bench,
    rows: list[workloads.Row],
    name: str,
    cell: tuple[str, str],
    rivals: Iterable[str] = ("naive",),
    *,
    sized_by: list[workloads.Row] | None = None,
    options: dict[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Run Steelyard and its rivals on one workload; return table rows, Steelyard first.

    Args:
        place: judge, scratch folder and processes.
        rows: the workload.
        name: what the table calls it.
        cell: "shuffled" or "grouped", and the pool, "small" or "large".
        rivals: names in TOOLS.
        sized_by: rows that the pool is sized by, if not the workload's own.
        options: more of `steelyard.score`'s.
    """
    kind, pool = cell
    size = measure(sized_by or rows, place.judge)
    names = [STEELYARD, *rivals]
    with tempfile.TemporaryDirectory(dir=place.folder) as folder:
        shards = workloads.write(workloads.arrange(rows, kind), Path(folder) / "shards")
        prompts = Path(folder) / "prompts.npz" if "bare" in names else None
        job = Job(shards, place.judge, engine_settings(size, pool), options or {}, prompts=prompts)
        found = rounds(place, job, {one: TOOLS[one] for one in names})
    for one, outcomes in found.items():
        times = ", ".join(f"{outcome.seconds:.1f}" for outcome in outcomes)
        done = f"{name}, {kind}, pool {pool}: {one} {outcomes[0].computed:,} tokens in {times} s"
        print(done, file=sys.stderr, flush=True)
    title = {"workload": name, "input": kind, "pool": (pool_blocks(size, pool) - 1) * BLOCK}
    return table(title, found)


def rounds(place: Bench, job: Job, fighters: Mapping[str, Tool]) -> dict[str, list[Outcome]]:
    """Return all outcomes by tool: forward and back in turn, each with a separate engine.

    The process is warm: each tool has run on two pairs before (torch compiles a part of vLLM's
    sampler in the first steps, which takes seconds).
    """
    found: dict[str, list[Outcome]] = {name: [] for name in fighters}
    order = list(fighters)
    with place.process() as run:
        if not place.smoke:
            few = workloads.write(workloads.read(job.shards)[:2], job.shards.parent / "few")
            _turn(run, replace(job, shards=few), fighters, order, {})
        for number in range(place.rounds):
            turn = order if number % 2 == 0 else order[::-1]
            settings = found[order[0]][0].settings if number else {}
            for name, outcome in _turn(run, job, fighters, turn, settings):
                found[name].append(outcome)
    return found


def _turn(
    run: Run,
    job: Job,
    fighters: Mapping[str, Tool],
    order: list[str],
    settings: dict[str, Any],
) -> list[tuple[str, Outcome]]:
    """Run each tool once, with the settings that Steelyard chose in its first run."""
    found = []
    for name in order:
        outcome = run(fighters[name], replace(job, settings=settings))
        settings = settings or outcome.settings
        found.append((name, outcome))
    return found


def table(title: dict[str, Any], found: Mapping[str, list[Outcome]]) -> list[dict[str, Any]]:
    """Return one row per tool: medians, and ratios to the first tool's."""
    first, lines = next(iter(found.values())), []
    for name, outcomes in found.items():
        computed, seconds = _median(outcomes, "computed"), _median(outcomes, "seconds")
        verdicts, logical = outcomes[0].verdicts, outcomes[0].logical
        lines.append(
            title
            | {
                "tool": name,
                "verdicts": verdicts,
                "logical": logical,
                "computed": round(computed),
                "oracle": outcomes[0].oracle,
                "tokens_a_verdict": computed / verdicts if verdicts else 0.0,
                "hit_rate": sum(one.cached for one in outcomes) / sum(one.sent for one in outcomes),
                "seconds": seconds,
                "verdicts_a_second": verdicts / seconds,
                "computed_ratio": computed / _median(first, "computed"),
                "seconds_ratio": seconds / _median(first, "seconds"),
                "before": _median(outcomes, "before"),
                "idle": _median(outcomes, "idle"),
                "differ": differ(first[0].preferences, outcomes[0].preferences),
            }
        )
    return lines


def differ(ours: list[float], theirs: list[float]) -> float:
    """Return the median |difference| of preferences: equal questions should get equal answers."""
    if not theirs:
        return 0.0
    return statistics.median(abs(p - q) for p, q in zip(ours, theirs, strict=True))


def _median(outcomes: list[Outcome], name: str) -> float:
    return float(statistics.median(getattr(one, name) for one in outcomes))
