"""Do order, cache and pool change the probabilities? Differences from Steelyard's order.

The same prompts are read in prefix order, shuffled, without a prefix cache, and shuffled with a
pool of two prompts. `prompts` are probabilities of single reads, `verdicts` preferences of both
orders; a flip is a verdict on the other side of 0.5.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from harness import workloads
from harness.baselines import combine
from harness.common import report
from harness.contest import BLOCK, Size, bench, engine_settings, options, texts
from harness.meter import Meter
from harness.prompts import (
    answer_of,
    batches,
    both_orders,
    encoder_of,
    pairwise_template,
    prefix_order,
    tokenise,
)
from harness.workloads import Limits
from steelyard.core.batches import TokenRows, Workload
from steelyard.judge import open_judge
from steelyard.judge.base import JudgeSpec

BRIEF = Limits(30, 250, 80)
# name -> whether shuffled, and what is set otherwise.
PASSES: dict[str, tuple[bool, dict[str, Any]]] = {
    "prefix order": (False, {}),
    "shuffled": (True, {}),
    "no cache": (False, {"enable_prefix_caching": False}),
    "shuffled, tiny pool": (True, {"num_gpu_blocks_override": None}),
}


def read(judge: str, rows: TokenRows, order: list[int], engine: dict[str, Any]) -> tuple[Any, int]:
    """Read all rows in this order by a separate engine: logits, and tokens computed."""
    logits: npt.NDArray[np.float64] = np.full(len(order), np.nan)
    with Meter() as meter:
        opened = open_judge(JudgeSpec("judge", judge, engine=engine))
        work = Workload(len(order), int(rows.lengths.max()))
        opened.start(work, answer_of(opened.encoder))
        cached = 0
        for reads in opened.read(iter(batches(rows.take(np.asarray(order)), order))):
            places = [int.from_bytes(key, "big") for key in reads.keys]
            logits[places] = reads.label_logprobs[:, 0] - reads.label_logprobs[:, 1]
            cached += int(reads.cached_tokens.sum())
        opened.close()
    if np.isnan(logits).any():
        raise SystemExit("exactness: a prompt was not read")
    return logits, meter.scheduled or int(rows.lengths.sum()) - cached


def measure(
    judge: str, rows: TokenRows, dtype: str, seed: int, names: list[str]
) -> list[dict[str, Any]]:
    """Return one line per pass; the others are compared with the first."""
    size = Size(int(rows.lengths.sum()), int(rows.lengths.max()))
    roomy = engine_settings(size, "large") | {"dtype": dtype}
    tiny = 2 * -(-size.longest // BLOCK) + 3
    straight = prefix_order(rows).tolist()
    mixed = random.Random(seed).sample(straight, len(straight))
    lines, ours = [], np.zeros(0)
    for name in names:
        shuffled, change = PASSES[name]
        blocks = {key: tiny for key, value in change.items() if value is None}
        logits, computed = read(
            judge, rows, mixed if shuffled else straight, roomy | change | blocks
        )
        ours = logits if not len(ours) else ours
        lines.append(
            {"dtype": dtype, "pass": name, "pairs": len(logits) // 2, "computed": computed}
            | compare(ours, logits)
        )
        print(f"{dtype}, {name}: done", file=sys.stderr, flush=True)
    return lines


def compare(ours: npt.NDArray[np.float64], theirs: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Return differences of probabilities, and flips of verdicts."""
    single = np.abs(_sigmoid(ours) - _sigmoid(theirs))
    one, other = np.asarray(combine(ours.tolist())), np.asarray(combine(theirs.tolist()))
    both = np.abs(one - other)
    return {
        "prompts_max": float(single.max()),
        "prompts_p99": float(np.quantile(single, 0.99)),
        "verdicts_max": float(both.max()),
        "verdicts_p99": float(np.quantile(both, 0.99)),
        "flips": int(((one > 0.5) != (other > 0.5)).sum()),
        "flip_rate": float(((one > 0.5) != (other > 0.5)).mean()),
    }


def _sigmoid(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return 1 / (1 + np.exp(-np.clip(logits, -700, 700)))


def pairs_of(chosen: argparse.Namespace) -> list[workloads.Row]:
    """Make tournaments of brief responses, five per instruction: ten pairs each."""
    found = texts(chosen, None if chosen.smoke else BRIEF)
    rows = workloads.tournament(found, math.ceil(chosen.pairs / 10), 5, chosen.seed)
    return rows[: chosen.pairs]


def main() -> int:
    made = options(__doc__)
    made.add_argument("--pairs", type=int, default=500)
    made.add_argument(
        "--passes", nargs="*", default=list(PASSES), help="the first is compared with"
    )
    made.add_argument("--dtypes", nargs="*", default=["float32", "bfloat16"])
    chosen = made.parse_args()
    if chosen.smoke:
        chosen.pairs, chosen.dtypes = 6, ["float32"]
    rows = pairs_of(chosen)
    found = []
    with bench(chosen) as place:
        encoder = encoder_of(place.judge)
        made_rows = tokenise(pairwise_template(encoder), both_orders(rows), encoder)
        for dtype in chosen.dtypes:
            found += measure(place.judge, made_rows, dtype, chosen.seed, chosen.passes)
    report("exactness", found, chosen)
    return 0


if __name__ == "__main__":
    sys.exit(main())
