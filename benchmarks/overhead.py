"""How much does Steelyard add to the engine's own time?

The bare engine gets the very token rows of Steelyard's run, in its order, all prepared before.
Small buckets let the run cross several boundaries. `overhead` is Steelyard's time over the bare
engine's for as many computed tokens; `idle` is the share of the time between the first step and the
last in which the engine was not stepping.
"""

from __future__ import annotations

import sys

from harness import workloads
from harness.common import report
from harness.contest import STEELYARD, bench, compete, options, texts

SHOWN = ("workload", "input", "pool", "tool", "computed", "seconds", "idle")


def main() -> int:
    made = options(__doc__)
    made.add_argument(
        "--instructions", type=int, default=8, help="instructions, with six pairs each"
    )
    made.add_argument("--bucket-bytes", type=int, default=50_000)
    chosen = made.parse_args()
    if chosen.smoke:
        chosen.instructions, chosen.bucket_bytes = 2, 4000
    rows = workloads.tournament(texts(chosen), chosen.instructions, 4, chosen.seed)
    with bench(chosen) as place:
        found = compete(
            place,
            rows,
            "tournament k=4",
            ("shuffled", "small"),
            ("bare",),
            options={"bucket_bytes": chosen.bucket_bytes},
        )
    ours, bare = found
    rate = bare["computed"] / bare["seconds"]
    overhead = {STEELYARD: ours["seconds"] * rate / ours["computed"], "bare": 1.0}
    lines = [
        {name: line[name] for name in SHOWN} | {"overhead": overhead[line["tool"]]}
        for line in found
    ]
    report("overhead", lines, chosen)
    return 0


if __name__ == "__main__":
    sys.exit(main())
