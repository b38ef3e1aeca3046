"""All pairs of k responses to an instruction: what does each way of scoring them compute?

The more often a response returns, the more of the work can be shared: with all pairs of k
responses, each of them comes first in k - 1 prompts.
"""

from __future__ import annotations

import argparse
import sys

from harness import workloads
from harness.common import report
from harness.contest import bench, cells, compete, options, texts

# Instructions for each k, so that a run has 30,000 to 90,000 tokens of prompts.
SIZES = {2: 30, 4: 5, 8: 2, 16: 1}
ALL = ("naive", "generated", "choices")


def main() -> int:
    made = options(__doc__)
    made.add_argument("--sizes", nargs="*", help="k:instructions, ...")
    chosen = made.parse_args()
    sizes = {4: 2} if chosen.smoke else SIZES
    if chosen.sizes:
        sizes = {int(k): int(n) for k, n in (one.split(":") for one in chosen.sizes)}
    found = []
    with bench(chosen) as place:
        for k, count in sizes.items():
            rows = workloads.tournament(_texts(chosen, k), count, k, chosen.seed)
            for at, cell in enumerate(cells(chosen, large=k == 8)):
                rivals = ALL if at == 0 and (k == 8 or chosen.smoke) else ("naive",)
                found += compete(place, rows, f"tournament k={k}", cell, rivals)
    report("tournament", found, chosen)
    return 0


def _texts(chosen: argparse.Namespace, k: int) -> workloads.Texts:
    """Load shorter texts for 120 pairs: else they alone would take a quarter of an hour."""
    return texts(chosen, workloads.SHORT if k >= 16 else None)


if __name__ == "__main__":
    sys.exit(main())
