"""Five criteria per pair: what does it cost to ask for the criterion last, and in prefix order?

The prompts show both responses (criteria.py); Steelyard's prompts are made by its stages. The naive
script asks criterion-first, as such prompts are usually written, one criterion after the other; and
criterion-last, pair after pair. Each is the best order for its kind.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from harness import baselines, criteria, workloads
from harness.common import report
from harness.contest import Size, bench, cells, engine_settings, options, rounds, table, texts
from harness.meter import Meter
from harness.prompts import answer_of, batches, encoder_of, prefix_order, tokenise
from harness.tools import Job, Outcome
from steelyard.core.batches import Workload
from steelyard.judge import open_judge
from steelyard.judge.base import JudgeSpec
from steelyard.scoring.tally import BlockOracle


def staged(job: Job) -> Outcome:
    """Read the criterion last, each segment tokenised once, in prefix order, by `Judge.read`."""
    with Meter() as meter:
        judge = open_judge(JudgeSpec("judge", job.judge, engine=job.engine))
        began = time.perf_counter()
        slots = criteria.by_pair(workloads.read(job.shards))
        before = time.perf_counter() - began
        answer = answer_of(judge.encoder)
        report = judge.start(Workload(len(slots), judge.context_length), answer)
        began = time.perf_counter()
        rows = tokenise(criteria.template(judge.encoder, last=True), slots, judge.encoder)
        order = prefix_order(rows)
        logits, cached = [0.0] * len(slots), 0
        for reads in judge.read(iter(batches(rows.take(order), order.tolist()))):
            cached += int(reads.cached_tokens.sum())
            for key, (a, b) in zip(reads.keys, reads.label_logprobs.tolist(), strict=True):
                logits[int.from_bytes(key, "big")] = a - b
        preferences = _by_pair(logits)
        seconds = time.perf_counter() - began
        judge.close()
        oracle = BlockOracle(report.cache).computed(rows.take(order), len(slots))
    sent = int(rows.offsets[-1])
    return Outcome(
        verdicts=len(preferences),
        logical=sent,
        sent=sent,
        computed=meter.scheduled or sent - cached,
        oracle=int(oracle.sum()),
        cached=cached,
        seconds=seconds,
        before=before,
        idle=meter.idle,
        preferences=preferences,
        settings=report.settings,
    )


def first(job: Job) -> Outcome:
    """Run the naive script, criterion-first."""
    return _naive(job, last=False)


def last(job: Job) -> Outcome:
    """Run the naive script, criterion-last."""
    return _naive(job, last=True)


def _naive(job: Job, *, last: bool) -> Outcome:
    text = criteria.template(encoder_of(job.judge), last=last)
    began = time.perf_counter()
    rows = workloads.read(job.shards)
    slots = criteria.by_pair(rows) if last else criteria.by_criterion(rows)
    prompts = [baselines.fill(text, one) for one in slots]
    prepared = prompts, time.perf_counter() - began
    return baselines.score(job, prepared, _by_pair if last else baselines.combine)


def _by_pair(logits: list[float]) -> list[float]:
    """Turn logits, pair after pair, into preferences, criterion after criterion."""
    count = len(criteria.CRITERIA)
    by_criterion = (logits[at::count] for at in range(count))
    return [one for some in by_criterion for one in baselines.combine(some)]


def main() -> int:
    made = options(__doc__)
    made.add_argument(
        "--instructions", type=int, default=2, help="instructions, with three pairs each"
    )
    chosen = made.parse_args()
    if chosen.smoke:
        chosen.instructions = 1
    rows = workloads.tournament(texts(chosen), chosen.instructions, 3, chosen.seed)
    found = []
    with bench(chosen) as place:
        encoder = encoder_of(place.judge)
        template = criteria.template(encoder, last=True)
        lengths = tokenise(template, criteria.by_pair(rows), encoder).lengths
        size = Size(int(lengths.sum()), int(lengths.max()))
        for kind, pool in cells(chosen):
            settings = engine_settings(size, pool)
            with tempfile.TemporaryDirectory(dir=place.folder) as folder:
                shards = workloads.write(workloads.arrange(rows, kind), Path(folder) / "shards")
                job = Job(shards, place.judge, settings)
                fighters = {"steelyard stages": staged, "naive first": first, "naive last": last}
                found += table(
                    {
                        "workload": f"{len(criteria.CRITERIA)} criteria",
                        "input": kind,
                        "pool": (settings["num_gpu_blocks_override"] - 1) * settings["block_size"],
                    },
                    rounds(place, job, fighters),
                )
    report("rubric", found, chosen)
    return 0


if __name__ == "__main__":
    sys.exit(main())
