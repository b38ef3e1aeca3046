"""Do the numbers hold? Simulations with a known truth: coverage, family-wise error, promises.

Each row is a share of draws: `before` for the plain estimator that Steelyard's replaced, `after`
for Steelyard's, which has to be from `low` to `high`, up to two standard errors of the draws. The
exit status is 1 if one is not. A name on the command line runs one simulation alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from harness.common import parser, report
from harness.validity import (
    bias,
    calibration,
    differences,
    drift,
    length_control,
    looks,
    power,
    prediction_powered,
    promises,
    rates,
    selection,
    stacking,
    trusted_side,
)
from harness.validity.claim import Claim

Simulation = Callable[[int], Iterable[Claim]]  # from a number of draws

SIMULATIONS: dict[str, Simulation] = {
    "bias": bias.simulate,
    "calibration": calibration.simulate,
    "differences": differences.simulate,
    "drift": drift.simulate,
    "length_control": length_control.simulate,
    "looks": looks.simulate,
    "power": power.simulate,
    "prediction_powered": prediction_powered.simulate,
    "promises": promises.simulate,
    "rates": rates.simulate,
    "selection": selection.simulate,
    "stacking": stacking.simulate,
    "trusted_side": trusted_side.simulate,
}
DRAWS, SMOKE_DRAWS = 500, 10


def run(name: str, draws: int) -> list[Claim]:
    return list(SIMULATIONS[name](draws))


def main() -> int:
    options = parser(__doc__)
    options.add_argument("names", nargs="*", metavar="NAME", help="simulations [all]")
    options.add_argument("--draws", type=int, help=f"of each simulation [{DRAWS}]")
    options.add_argument("--workers", type=int, default=2, help="processes [2]")
    chosen = options.parse_args()
    names = chosen.names or list(SIMULATIONS)
    if unknown := set(names) - set(SIMULATIONS):
        options.error(f"no simulation {', '.join(sorted(unknown))}: {', '.join(SIMULATIONS)}")
    draws = chosen.draws or (SMOKE_DRAWS if chosen.smoke else DRAWS)
    with ProcessPoolExecutor(chosen.workers, get_context("fork")) as pool:
        claims = [c for made in pool.map(run, names, [draws] * len(names)) for c in made]
    rows = [{**asdict(c), "holds": c.holds} for c in claims]
    report("validity", [{k: "" if v is None else v for k, v in r.items()} for r in rows], chosen)
    return 0 if all(claim.holds for claim in claims) else 1


if __name__ == "__main__":
    sys.exit(main())
