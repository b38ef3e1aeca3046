"""The workloads of the benchmarks: pairs of real responses as Parquet shards, by size and seed.

Texts are AlpacaEval's (57 models on 805 instructions) in $STEELYARD_DATA, or in `shared/data` next
to the repository, which contains none of them. Smoke sizes do with generated texts.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from harness.common import ROOT

DATA = Path(os.environ.get("STEELYARD_DATA", ROOT.parent / "shared" / "data"))
FILE = DATA / "alpaca_eval" / "outputs.parquet"
BASELINE = "gpt4_1106_preview"
COLUMNS = ("instruction", "response_a", "response_b", "model_a", "model_b")
Row = tuple[str, str, str, str, str]


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on texts, in characters; four make about a token."""

    least: int = 1
    most: int = 1 << 20
    instruction: int = 1 << 20


# A CPU computes about a thousand tokens per second: responses of 150 to 400 tokens are still
# clearly longer than the template, as in real work.
MEDIUM = Limits(500, 1200, 250)
SHORT = Limits(350, 700, 250)
SMALL = Limits(150, 400, 120)


@dataclass(frozen=True, slots=True)
class Texts:
    """Instructions in random order, each with its responses by model, all within the limits."""

    source: str
    items: list[tuple[str, dict[str, str]]]


def load(limits: Limits, seed: int = 0, *, generated: bool = False) -> Texts:
    """Load texts of AlpacaEval; generated ones where they are asked for, or allowed and needed.

    Raises:
        SystemExit: the file is missing and generated texts are not allowed.
    """
    draw = random.Random(seed)
    if FILE.exists():
        items = list(_published(limits).items())
        source = "alpaca_eval"
    elif generated:
        items = list(_generated(limits, draw))
        source = "generated"
    else:
        raise SystemExit(f"{FILE} is not there: set STEELYARD_DATA, or use --smoke")
    draw.shuffle(items)
    return Texts(source, items)


def _published(limits: Limits) -> dict[str, dict[str, str]]:
    table = pq.read_table(FILE, columns=["instruction", "model", "output"])
    found: dict[str, dict[str, str]] = {}
    for row in table.to_pylist():
        instruction, output = row["instruction"].strip(), row["output"].strip()
        kept = found.setdefault(instruction, {})
        fits = limits.least <= len(output) <= limits.most and output not in kept.values()
        if fits and 0 < len(instruction) <= limits.instruction:
            kept[row["model"]] = output
    return found


def _generated(limits: Limits, draw: random.Random) -> Iterator[tuple[str, dict[str, str]]]:
    def text(least: int, most: int) -> str:
        wanted, words = draw.randint(least, most), ""
        while len(words) < wanted:
            words += f"{draw.choice(vocabulary)} "
        return words[:wanted].strip()

    vocabulary = [
        "".join(draw.choices("etaoinshrdlu", k=draw.randint(2, 8))).capitalize() for _ in range(400)
    ]
    names = [BASELINE, *(f"model-{at}" for at in range(20))]
    most = min(limits.most, 1600)
    for _ in range(200):
        yield text(20, 80), {name: text(min(limits.least, most), most) for name in names}


def versus(texts: Texts, instructions: int, models: int = 8, seed: int = 0) -> list[Row]:
    """Pair some models' responses with that of one baseline, on each instruction."""
    draw = random.Random(seed)
    rows = []
    for instruction, responses in _with(texts, models + 1, instructions, BASELINE):
        others = sorted(responses.keys() - {BASELINE})
        rows += [
            (instruction, responses[model], responses[BASELINE], model, BASELINE)
            for model in sorted(draw.sample(others, models))
        ]
    return rows


def tournament(texts: Texts, instructions: int, k: int, seed: int = 0) -> list[Row]:
    """Make all pairs of k responses on each instruction."""
    draw = random.Random(seed)
    rows = []
    for instruction, responses in _with(texts, k, instructions):
        rows += [
            (instruction, responses[one], responses[other], one, other)
            for one, other in itertools.combinations(draw.sample(sorted(responses), k), 2)
        ]
    return rows


def _with(
    texts: Texts, least: int, count: int, needed: str | None = None
) -> list[tuple[str, dict[str, str]]]:
    """Return the first instructions with enough responses, and with that of the model needed."""
    found = [
        (instruction, responses)
        for instruction, responses in texts.items
        if len(responses) >= least and (needed is None or needed in responses)
    ]
    if len(found) < count:
        raise SystemExit(f"only {len(found)} instructions have {least} responses within the limits")
    return found[:count]


def overlap(rows: list[Row], share: float = 0.3, seed: int = 0) -> list[Row]:
    """Add copies of rows, half of them swapped; `share` of the result is copies."""
    draw = random.Random(seed)
    copies = draw.choices(rows, k=round(len(rows) * share / (1 - share)))
    swapped = [
        (instruction, b, a, model_b, model_a) for instruction, a, b, model_a, model_b in copies[::2]
    ]
    return [*rows, *copies[1::2], *swapped]


def arrange(rows: list[Row], kind: str, seed: int = 0) -> list[Row]:
    """Arrange rows in random order ("shuffled"), or by instruction as they were ("grouped")."""
    if kind == "grouped":
        place = {row[0]: at for at, row in reversed(list(enumerate(rows)))}
        return sorted(rows, key=lambda row: place[row[0]])
    return random.Random(seed + 1).sample(rows, len(rows))


def write(rows: list[Row], folder: Path, shards: int = 4) -> Path:
    """Write rows as Parquet shards in a new folder, in their order."""
    folder.mkdir(parents=True)
    size = -(-len(rows) // shards)
    for at, start in enumerate(range(0, len(rows), size)):
        columns = zip(*rows[start : start + size], strict=True)
        table = pa.table(dict(zip(COLUMNS, map(list, columns), strict=True)))
        pq.write_table(table, folder / f"{at:03}.parquet")
    return folder


def read(folder: Path) -> list[Row]:
    """Read the rows of such a folder, shard after shard."""
    return [
        row
        for path in sorted(folder.glob("*.parquet"))
        for row in zip(*pq.read_table(path).select(COLUMNS).to_pydict().values(), strict=True)
    ]
