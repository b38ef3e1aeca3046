"""Eight models against one baseline: what does each way of scoring them compute?"""

from __future__ import annotations

import sys

from harness import workloads
from harness.common import report
from harness.contest import bench, cells, compete, options, texts


def main() -> int:
    made = options(__doc__)
    made.add_argument("--instructions", type=int, default=4)
    made.add_argument("--models", type=int, default=8)
    chosen = made.parse_args()
    if chosen.smoke:
        chosen.instructions, chosen.models = 2, 3
    rows = workloads.versus(texts(chosen), chosen.instructions, chosen.models, chosen.seed)
    with bench(chosen) as place:
        found = [
            line
            for cell in cells(chosen, large=True)
            for line in compete(place, rows, f"{chosen.models} versus one", cell)
        ]
    report("versus", found, chosen)
    return 0


if __name__ == "__main__":
    sys.exit(main())
