"""How fast data is tokenised, and whether the accelerated ids are the judge's own.

    tokens.py                   generated texts
    tokens.py --input FILE      real texts: all string columns of a Parquet file, each text once

The embedded judge's tokenizer, one thread each: MB per CPU second. `tokenizers` is Hugging Face's,
`fastokens` is that package alone, `encoder` is what a run gets: fastokens where it is proven, and
the checks. `cold` is a first pass over the texts, `warm` the median of the others.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

# The libraries read both when they are imported.
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["FASTOKENS_BPE_THREADS"] = "1"

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from harness.common import parser, report
from steelyard.core.batches import TokenRows
from steelyard.errors import JudgeUnavailable
from steelyard.judge.model.embedded import embedded_model
from steelyard.judge.model.fast_tokens import accelerated
from steelyard.judge.model.tokenizer import HFEncoder

CHUNK = 2000  # texts per call


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--input", type=Path, help="Parquet with texts")
    options.add_argument("--megabytes", type=float, default=20, help="MB of texts, at most")
    options.add_argument("--repeats", type=int, default=5)
    chosen = options.parse_args()
    if chosen.smoke:
        chosen.megabytes, chosen.repeats = 0.5, 2
    texts = cut(real(chosen.input) if chosen.input else generated(), chosen.megabytes * 1e6)
    try:
        encoder = HFEncoder(embedded_model())
    except JudgeUnavailable as error:
        print(error, file=sys.stderr)
        return 1
    ways = {"tokenizers": encoder._slow, "encoder": encoder.encode_data}
    # A separate one: what it keeps of the texts would make the other's first pass a warm one.
    alone = accelerated(encoder._data_spec, encoder._slow, "")
    if alone:
        ways["fastokens"] = alone._fast
    times = measure(ways, texts, chosen.repeats)
    rows = [row(name, way, texts, times, encoder) for name, way in ways.items()]
    report("tokens", rows, chosen)
    return 1 if any(row["texts_that_differ"] for row in rows) else 0


def row(name, way, texts, times, encoder) -> dict[str, object]:
    size = sum(len(text.encode()) for text in texts) / 1e6
    warm = {one: statistics.median(seconds[1:]) for one, seconds in times.items()}
    pairs = zip(passes(encoder._slow, texts), passes(way, texts), strict=True)
    return {
        "way": name,
        "engine": encoder.engine if name == "encoder" else name,
        "texts": len(texts),
        "megabytes": size,
        "cold_mb_s": size / times[name][0],
        "warm_mb_s": size / warm[name],
        "ratio": warm["tokenizers"] / warm[name],
        "texts_that_differ": sum(differing(one, other) for one, other in pairs),
    }


def measure(
    ways: dict[str, Callable[[list[str]], TokenRows]], texts: list[str], repeats: int
) -> dict[str, list[float]]:
    """Time each way over all texts in CPU seconds, the ways taking turns."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats + 1):
        for name, way in ways.items():
            began = time.process_time()
            for _ in passes(way, texts):
                pass
            times[name].append(time.process_time() - began)
    return times


def passes(way, texts):
    for start in range(0, len(texts), CHUNK):
        yield way(texts[start : start + CHUNK])


def differing(one: TokenRows, other: TokenRows) -> int:
    pairs = zip(one.split(), other.split(), strict=True)
    return sum(not np.array_equal(a, b) for a, b in pairs)


def real(path: Path) -> list[str]:
    """Return all strings of a file, each once, in order."""
    table = pq.read_table(path)
    kept = [name for name in table.column_names if pa.types.is_string(table[name].type)]
    return list(dict.fromkeys(t.strip() for name in kept for t in table[name].to_pylist() if t))


def generated() -> list[str]:
    """Make texts whose words follow Zipf's law, with figures, marks and some other scripts."""
    draw = random.Random(0)
    letters = "etaoinshrdlcumwfgypbvkjxqz"
    words = ["".join(draw.choices(letters, k=draw.randrange(1, 11))) for _ in range(30_000)]
    rare = ["naïve", "Köln", "你好", "привет", "🙂", "2024", "x += 1;", "\n\n-", "don't"]
    words[50::97] = [rare[at % len(rare)] for at in range(len(words[50::97]))]
    weights = [1 / (rank + 3) for rank in range(len(words))]
    return [
        " ".join(draw.choices(words, weights, k=draw.randrange(20, 400))) for _ in range(15_000)
    ]


def cut(texts: list[str], most: float) -> list[str]:
    sizes = np.cumsum([len(text.encode()) for text in texts])
    return texts[: max(1, int(np.searchsorted(sizes, most)))]


if __name__ == "__main__":
    sys.exit(main())
