"""Ratings of millions of soft verdicts, next to arena-rank, evalica and choix; and intervals.

Each tool gets the verdicts in the form that suits it best, made outside of its time: arena-rank
its own dataset without its search for equal rows (soft outcomes have none), evalica every verdict
as a weighted win and a weighted loss, choix the matrix of summed points. A tool that is not
installed is left out. `difference` is the largest difference between its ratings and ours, in
points of the Elo scale; `fit_seconds` times the second of two calls, so that nothing is compiled.

The last lines are 500 simulated tournaments: how often 95% intervals contain the truth.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from harness import common

sys.path.insert(0, str(common.ROOT / "tests"))
from steelyard.ranking.bradley_terry import CENTRE, POINTS, rate
from steelyard.ranking.sensitivity import sensitivity
from steelyard.ranking.tournament import Tournament, tournament
from steelyard_kernels.comparisons import rows_of
from support import rating_twins

NAMES = np.array([f"m{at:03}" for at in range(1000)])


def generate(rows: int, competitors: int, instructions: int, order: str) -> Tournament:
    """Make soft verdicts, by instruction or shuffled, as the columns of a table."""
    rng = np.random.default_rng(0)
    strength = rng.normal(0, 0.7, competitors)
    cluster = rng.integers(0, instructions, rows, dtype=np.int32)
    if order == "grouped":
        cluster.sort()
    a = rng.integers(0, competitors, rows, dtype=np.int32)
    b = (a + rng.integers(1, competitors, rows, dtype=np.int32)) % competitors
    i, j = np.minimum(a, b), np.maximum(a, b)
    z = strength[i] - strength[j] + rng.normal(0, 1.5, rows)
    return Tournament(
        competitors=tuple(NAMES[:competitors]),
        rows=rows_of(i * competitors + j, 1 / (1 + np.exp(-z))),
        swapped=a > b,
        cluster=cluster,
        clusters=instructions,
        alone=0,
    )


def steelyard(contest: Tournament, intervals: str) -> Callable[[], Any]:
    return lambda: rate(contest, intervals=intervals).rating


def arena_rank(contest: Tournament, **stop: float) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return its fit alone, and with sandwich intervals; `stop` holds its stopping rules."""
    import jax.numpy as jnp
    from arena_rank.models.bradley_terry import BradleyTerry
    from arena_rank.utils.data_utils import PairDataset

    rows, size = contest.rows, contest.size
    one = jnp.ones(len(contest))
    data = PairDataset(
        competitors=list(contest.competitors),
        pairs=jnp.column_stack([rows.pair // size, rows.pair % size]).astype(jnp.int32),
        outcomes=jnp.array(rows.preference), counts=one, weights=one, opt_weights=one,
    )  # fmt: skip

    def fit() -> Any:
        model = BradleyTerry(size, **stop)
        model.fit(data)
        return CENTRE + POINTS * np.asarray(model.params["ratings"])

    def intervals() -> Any:
        return np.asarray(BradleyTerry(size, **stop).compute_ratings_and_cis(data)["ratings"])

    return fit, intervals


def evalica(contest: Tournament) -> Callable[[], Any]:
    import evalica as peer
    import pandas as pd

    rows, size = contest.rows, contest.size
    i, j = np.tile(rows.pair // size, 2), np.tile(rows.pair % size, 2)
    winners = [peer.Winner.X] * len(contest) + [peer.Winner.Y] * len(contest)
    weights = np.concatenate([rows.preference, 1 - rows.preference]).tolist()
    index = pd.Index(range(size))
    first, second = i.tolist(), j.tolist()

    def fit() -> Any:
        found = peer.bradley_terry(first, second, winners, index=index, weights=weights)
        logs = np.log(found.scores.sort_index().to_numpy())
        return CENTRE + POINTS * (logs - logs.mean())

    return fit


def choix(contest: Tournament) -> Callable[[], Any]:
    import choix as peer

    points = contest.points()[0]
    return lambda: CENTRE + POINTS * peer.ilsr_pairwise_dense(points, tol=1e-10)


def measure(call: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    """Time the first call, the second, and its processor time; also return its result.

    On a machine with other work, an undisturbed time on 2 cores lies between half of the
    processor's and the whole.
    """
    seconds, result, began = [], None, 0.0
    for _ in range(2):
        began = time.process_time()
        start = time.perf_counter()
        result = call()
        seconds.append(time.perf_counter() - start)
    spent = time.process_time() - began
    names = ("first_seconds", "fit_seconds", "cpu_seconds")
    return dict(zip(names, (*seconds, spent), strict=True)), result


def speed(contest: Tournament, order: str, *, peers: bool, most: int) -> Iterator[dict[str, Any]]:
    """Time our fit, then the peers on as many of the first rows as they are given."""
    ours = {}
    for what in ("rows", "cluster", "bootstrap"):
        seconds, ours[what] = measure(steelyard(contest, what))
        words = "1,000 cluster bootstraps" if what == "bootstrap" else f"ratings, {what} intervals"
        yield line(words, "steelyard", contest, order) | seconds
    estimate = rate(contest, intervals="rows").estimate
    seconds, _ = measure(lambda: sensitivity(contest, estimate))
    yield line("sensitivity of the first place", "steelyard", contest, order) | seconds
    if not peers:
        return
    few = head(contest, most)
    for name, some, made in (
        ("arena-rank", contest, arena_calls),
        ("arena-rank", few, arena_exact_calls),
        ("evalica", few, evalica_calls),
        ("choix", contest, choix_calls),
    ):
        if importlib.util.find_spec(name.replace("-", "_")) is None:
            print(f"{name} is not installed and left out", file=sys.stderr)
            continue
        wanted = ours["rows"] if some is contest else rate(some, intervals="rows").rating
        for what, call in made(some):
            seconds, found = measure(call)
            off = float(np.abs(np.asarray(found) - wanted).max())
            yield line(what, name, some, order) | seconds | {"difference": off}


def arena_calls(contest: Tournament) -> list[tuple[str, Callable[[], Any]]]:
    fit, intervals = arena_rank(contest)
    return [("ratings", fit), ("ratings, rows intervals", intervals)]


def arena_exact_calls(contest: Tournament) -> list[tuple[str, Callable[[], Any]]]:
    """Return its calls; its own stopping rule ends some digits early."""
    return [("ratings, exact", arena_rank(contest, ftol=0.0, gtol=1e-12, max_iter=300)[0])]


def evalica_calls(contest: Tournament) -> list[tuple[str, Callable[[], Any]]]:
    return [("ratings", evalica(contest))]


def choix_calls(contest: Tournament) -> list[tuple[str, Callable[[], Any]]]:
    return [("ratings of summed points", choix(contest))]


def head(contest: Tournament, rows: int) -> Tournament:
    """Return the first rows of a tournament."""
    part = rows_of(contest.rows.pair[:rows], contest.rows.preference[:rows])
    return replace(
        contest, rows=part, swapped=contest.swapped[:rows], cluster=contest.cluster[:rows]
    )


def line(what: str, tool: str, contest: Tournament, order: str) -> dict[str, Any]:
    """Make a row of the table; `measure` fills in the seconds."""
    return {
        "what": what, "tool": tool, "rows": len(contest), "competitors": contest.size,
        "clusters": contest.clusters, "order": order, "first_seconds": "", "fit_seconds": "",
        "cpu_seconds": "", "difference": 0.0, "coverage": "",
    }  # fmt: skip


def coverage(tournaments: int) -> Iterator[dict[str, Any]]:
    """Return the shares of 95% intervals that contain the truth."""
    for model, ties, intervals in (
        ("bradley-terry", "mean", "cluster"),
        ("bradley-terry", "mean", "bootstrap"),
        ("bradley-terry", "mean", "rows"),
        ("davidson", "davidson", "cluster"),
    ):
        rng = np.random.default_rng(7)
        inside, began = [], time.perf_counter()
        for _ in range(tournaments):
            truth, (i, j, y, t, cluster) = rating_twins.simulate(rng, ties=ties)
            table = pa.table({"model_a": NAMES[i], "model_b": NAMES[j], "preference": y, "tie": t,
                              "instruction": cluster})  # fmt: skip
            contest = tournament(table)
            found = rate(contest, model=model, intervals=intervals, replicates=200)
            wanted = CENTRE + POINTS * truth
            inside.append((found.lower <= wanted) & (wanted <= found.upper))
        words = f"{tournaments} tournaments, {model}"
        seconds = {"first_seconds": time.perf_counter() - began}
        done = line(words, f"{intervals} intervals", contest, "simulated")
        yield done | seconds | {"coverage": f"{np.mean(inside):.4f}"}


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--competitors", type=int, default=100)
    parser.add_argument("--instructions", type=int, default=100_000)
    parser.add_argument("--tournaments", type=int, default=500)
    parser.add_argument(
        "--peer-rows", type=int, default=1_000_000, help="rows for evalica, and for digits"
    )
    options = parser.parse_args()
    if options.smoke:
        options.rows, options.competitors, options.instructions = 20_000, 10, 400
        options.tournaments, options.peer_rows = 20, 20_000
    rows = []
    for order in ("grouped", "shuffled"):
        contest = generate(options.rows, options.competitors, options.instructions, order)
        rows += speed(contest, order, peers=order == "grouped", most=options.peer_rows)
    rows += coverage(options.tournaments)
    common.report(Path(__file__).stem, rows, options)


if __name__ == "__main__":
    main()
