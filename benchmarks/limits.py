"""Which limits of a step suit an engine that only reads: tokens, and prompts at a time?

The same prompts in prefix order through `Judge.read`, a separate engine for each pair of limits,
there and back again; medians. The engine holds twice as many requests as fit into a step, so a
lower limit on prompts can also mean that a step is not filled.
"""

from __future__ import annotations

import statistics
import sys
import time

from harness import workloads
from harness.common import report
from harness.contest import Size, bench, engine_settings, options, texts
from harness.prompts import answer_of, batches, both_orders, encoder_of, pairwise_template, tokenise
from harness.prompts import prefix_order as in_prefix_order
from steelyard.core.batches import TokenRows, Workload
from steelyard.judge import open_judge
from steelyard.judge.base import JudgeSpec

TOKENS = (256, 512, 1024, 2048)
PROMPTS = (4, 16, 64)
MIDDLE = 512, 16  # each is varied around this


def seconds(judge: str, rows: TokenRows, engine: dict[str, int]) -> tuple[float, int]:
    """Time the reading of all rows, without loading; also return the tokens computed."""
    opened = open_judge(JudgeSpec("judge", judge, engine=engine))
    work = Workload(len(rows.lengths), int(rows.lengths.max()))
    opened.start(work, answer_of(opened.encoder))
    ready = batches(rows, range(len(rows.lengths)))
    began = time.perf_counter()
    cached = sum(int(reads.cached_tokens.sum()) for reads in opened.read(iter(ready)))
    took = time.perf_counter() - began
    opened.close()
    return took, int(rows.lengths.sum()) - cached


def main() -> int:
    made = options(__doc__)
    made.add_argument(
        "--instructions", type=int, default=2, help="instructions, with six pairs each"
    )
    chosen = made.parse_args()
    tokens, prompts = MIDDLE
    limits = [(one, prompts) for one in TOKENS] + [(tokens, one) for one in PROMPTS]
    if chosen.smoke:
        chosen.instructions, chosen.rounds, limits = 1, 1, [MIDDLE, (256, 16)]
    limits = list(dict.fromkeys(limits))
    pairs = workloads.tournament(texts(chosen), chosen.instructions, 4, chosen.seed)
    with bench(chosen) as place:
        encoder = encoder_of(place.judge)
        rows = tokenise(pairwise_template(encoder), both_orders(pairs), encoder)
        rows = rows.take(in_prefix_order(rows))
        size = Size(int(rows.lengths.sum()), int(rows.lengths.max()))
        times: dict[tuple[int, int], list[float]] = {one: [] for one in limits}
        computed: dict[tuple[int, int], int] = {}
        for turn in range(chosen.rounds):
            for one in limits if turn % 2 == 0 else reversed(limits):
                engine = engine_settings(size, "large") | {
                    "max_num_batched_tokens": one[0],
                    "max_num_seqs": one[1],
                }
                took, computed[one] = seconds(place.judge, rows, engine)
                times[one].append(took)
                print(f"{one}: {took:.1f} s", file=sys.stderr, flush=True)
    rates = {one: computed[one] / statistics.median(times[one]) for one in limits}
    lines = [
        {
            "step_tokens": one[0],
            "step_prompts": one[1],
            "prompts": len(rows.lengths),
            "computed": computed[one],
            "computed_a_second": rates[one],
            "ratio": rates[one] / rates[MIDDLE],
        }
        for one in limits
    ]
    report("limits", lines, chosen)
    return 0


if __name__ == "__main__":
    sys.exit(main())
