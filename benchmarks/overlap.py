"""30% of the rows are copies of others, half of them swapped: do they cost the engine anything?

The same rows without the copies are scored for comparison.
"""

from __future__ import annotations

import sys

from harness import workloads
from harness.common import report
from harness.contest import bench, cells, compete, options, texts


def main() -> int:
    made = options(__doc__)
    made.add_argument(
        "--instructions", type=int, default=4, help="instructions, with six pairs each"
    )
    chosen = made.parse_args()
    if chosen.smoke:
        chosen.instructions = 1
    rows = workloads.tournament(texts(chosen), chosen.instructions, 4, chosen.seed)
    more = workloads.overlap(rows, seed=chosen.seed)
    found = []
    with bench(chosen) as place:
        for cell in cells(chosen):
            # The pool is that of the larger workload: the engine is the same.
            found += compete(place, rows, "no copies", cell, (), sized_by=more)
            found += compete(place, more, "30% copies", cell)
    report("overlap", found, chosen)
    return 0


if __name__ == "__main__":
    sys.exit(main())
