"""A report on millions of verdicts, and the live page's answers: seconds, memory and bytes.

Verdicts are imported, so that nothing is judged. `report` runs as a command. The page is served by
`steelyard serve` and asked over HTTP as a browser asks it; `sql_s` is the time of the same question
as a plain query in a DuckDB that holds the verdicts alone, in this process.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit
from urllib.request import urlopen

import duckdb
import numpy as np

from calibration import measured
from harness.common import parser, report
from memory import make_shards

REPEATS = 5
# What is asked, and the same as a condition on the verdicts.
FILTERS: tuple[tuple[dict[str, Any], str], ...] = (
    ({}, "true"),
    ({"low": 0.45, "high": 0.55}, "raw_preference BETWEEN 0.45 AND 0.55"),
    ({"winner": "a", "model": "m3"}, "winner = 'a' AND (model_a = 'm3' OR model_b = 'm3')"),
    ({"gold": "against"}, "gold.a <> gold.b AND (gold.a > gold.b) <> (raw_preference > 0.5)"),
    ({"pair_id": "p77777"}, "contains(pair_id, 'p77777')"),
    ({"sort": "least certain"}, "true"),
)


def verdicts(rows: range) -> dict[str, list[Any]]:
    """Return the columns other than texts."""
    draw = np.random.default_rng(rows.start)
    return {
        "pair_id": [f"p{row}" for row in rows],
        "preference": draw.random(len(rows)).tolist(),
        "gold": np.where(draw.random(len(rows)) < 0.5, "a", "b").tolist(),
    }


@contextmanager
def served(run: Path) -> Iterator[str]:
    """Serve a run; the address of the page."""
    command = [sys.executable, "-m", "steelyard", "serve", str(run)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().decode().strip()
        finally:
            process.terminate()


def ask(address: str, path: str, **question: object) -> tuple[dict[str, Any], float]:
    """Ask the page's server; its answer, and the seconds that it took."""
    parts = urlsplit(address)
    token = parts.query.removeprefix("token=")
    url = f"http://{parts.netloc}{path}?{urlencode({**question, 'token': token})}"
    began = time.perf_counter()
    with urlopen(url, timeout=120) as answer:
        content = json.loads(answer.read())
    return content, time.perf_counter() - began


def plain(database: Path, condition: str) -> tuple[int, float]:
    """Count and order by a plain query; the rows, and the seconds that it took."""
    with duckdb.connect(str(database), read_only=True) as connection:
        times = []
        for _ in range(REPEATS):
            began = time.perf_counter()
            count = connection.execute(
                f"SELECT count(*) FROM verdicts WHERE {condition}"
            ).fetchall()
            connection.execute(
                f'SELECT pair_id FROM verdicts WHERE {condition} ORDER BY shard, "row" LIMIT 25'
            ).fetchall()
            times.append(time.perf_counter() - began)
    return count[0][0], statistics.median(times)


def line(what: str, pairs: int, seconds: float, **more: object) -> dict[str, Any]:
    return {"what": what, "pairs": pairs, "seconds": seconds, "sql_s": "", "mb": "", **more}


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--pairs", type=int, default=10_000_000)
    options.add_argument("--words", type=int, default=5, help="words per text")
    chosen = options.parse_args()
    if chosen.smoke:
        chosen.pairs = 3000
    lines = []
    with tempfile.TemporaryDirectory(prefix="steelyard-bench-") as name:
        folder = Path(name)
        make_shards(folder / "in", chosen.pairs, chosen.words, verdicts)
        run, page = folder / "run", folder / "report.html"
        measured("import", chosen.pairs, "import", folder / "in", "--run", run)
        began = time.perf_counter()
        command = [sys.executable, "-m", "steelyard", "report", str(run), "--out", str(page)]
        subprocess.run(command, check=True, capture_output=True)
        seconds = time.perf_counter() - began
        lines.append(line("report", chosen.pairs, seconds, mb=page.stat().st_size / 1e6))
        with served(run) as address:
            _, seconds = ask(address, "/api/run")
            lines.append(line("page: first summary", chosen.pairs, seconds))
            for question, condition in FILTERS:
                answers = [ask(address, "/api/pairs", **question) for _ in range(REPEATS)]
                pairs = answers[0][0]["pairs"]
                count, by_sql = plain(run / "verdicts.duckdb", condition)
                if pairs != count:
                    raise SystemExit(f"pages: {question}: {pairs} pairs, by SQL {count}")
                words = ", ".join(f"{key}={value}" for key, value in question.items()) or "all"
                seconds = statistics.median(seconds for _, seconds in answers)
                lines.append(line(f"page: {words}", pairs, seconds, sql_s=by_sql))
            first = answers[0][0]["rows"][0]
            texts, seconds = ask(address, "/api/pair", shard=first["shard"], row=first["row"])
            if not texts["texts"]["instruction"]:
                raise SystemExit("pages: a pair without its texts")
            lines.append(line("page: texts of a pair", 1, seconds))
    report("pages", lines, chosen)
    return 0


if __name__ == "__main__":
    sys.exit(main())
