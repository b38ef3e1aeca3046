"""The input of the golden runs: small Parquet files with every role, and rows that are refused."""

from __future__ import annotations

import random
import struct
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

MODELS = ("ada", "bo", "cyan", "dé")
TURNS = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
SUBJECTS = (
    "primes", "tides", "bread", "rust", "chess", "glass", "soap", "kites", "moss", "salt",
    "owls", "ink", "rivers", "clocks", "日本", "snow",
)  # fmt: skip
FILLER = ("because", "it has been", "tried,", "counted", "and", "written down", "by careful people")


def write_inputs(folder: Path) -> None:
    """Write all input files; the same bytes with the same pyarrow."""
    draw = random.Random(12)
    rows = [_pair(draw, number) for number in range(66)]
    _spoil(rows)
    _write(folder / "pairs/first.parquet", rows[:40])
    _write(folder / "pairs/more/second.parquet", rows[40:])
    grouped = sorted((_pair(draw, number) for number in range(30)), key=lambda row: row["query"])
    grouped[7]["response_a"] = None
    _write(folder / "grouped.parquet", grouped)
    _write_responses(folder / "responses.parquet", draw)
    _write_every_role(folder / "every.parquet", draw)
    _write_images(folder / "images.parquet", draw)
    _write_preferences(folder / "preferences.parquet", draw)


def _text(draw: random.Random, subject: str, least: int, most: int) -> str:
    words = draw.choices(FILLER, k=draw.randint(least, most))
    return f"About {subject}: {' '.join(words)}."


def _pair(draw: random.Random, number: int) -> dict[str, object]:
    subject = draw.choice(SUBJECTS)
    first, second = draw.sample(MODELS, 2)
    turns = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello!"}]
    return {
        "query": f" Say what is known about {subject}. ",
        "response_a": _text(draw, subject, 2, 14),
        "response_b": _text(draw, subject, 2, 14),
        "system": "Be brief." if SUBJECTS.index(subject) % 5 == 0 else None,
        "turns": turns if SUBJECTS.index(subject) % 7 == 0 else None,
        "reference": "It is well known." if number % 11 == 0 else None,
        "pair_id": None if number % 3 == 0 else f"pair-{number}",
        "model_a": first,
        "model_b": second,
        "gold": draw.choice(["A", "B", "tie", None]),
        "source": draw.choice(["web", "book"]),
        "level": draw.randint(1, 5),
    }


def _spoil(rows: list[dict[str, object]]) -> None:
    """Repeat pairs, swap them, and add rows that have to be refused."""
    rows[20] |= {key: rows[3][key] for key in ("query", "response_a", "response_b", "system")}
    rows[50] |= {"query": rows[5]["query"], "system": rows[5]["system"]}
    rows[50] |= {"response_a": rows[5]["response_b"], "response_b": rows[5]["response_a"]}
    rows[33]["response_b"] = rows[33]["response_a"]
    rows[10]["query"] = "   "
    rows[12]["response_b"] = None
    rows[45]["gold"] = "perhaps"
    rows[60]["response_a"] = ""


def _write_responses(path: Path, draw: random.Random) -> None:
    """Responses alone, for a rubric."""
    rows = [
        {
            "prompt": f"Say what is known about {subject}.",
            "response": _text(draw, subject, 2, 9),
            "model_a": draw.choice(MODELS),
        }
        for subject in SUBJECTS[:6]
        for _ in range(2)
    ]
    _write(path, rows)


def _write_every_role(path: Path, draw: random.Random) -> None:
    rows = []
    for number in range(8):
        row = _pair(draw, number)
        row["instruction"] = row.pop("query")
        del row["gold"], row["level"]
        earlier = [{"role": "user", "content": f"And {number}?"}]
        row |= {
            "turns_a": [*earlier, {"role": "assistant", "content": "Yes."}],
            "turns_b": [*earlier, {"role": "assistant", "content": "No."}] if number % 2 else None,
            "category": ("code", "prose", None)[number % 3],
            "criteria": ["It is correct.", "It is short."][: 1 + number % 2],
            "votes_a": float(number % 4),
            "votes_b": 2.0,
            "votes_tie": float(number % 2),
        }
        rows.append(row)
    _write(path, rows)


def _write_images(path: Path, draw: random.Random) -> None:
    rows = [
        {
            "instruction": "What is in the picture?",
            "response_a": _text(draw, "red", 1, 4),
            "response_b": _text(draw, "blue", 1, 4),
            "images": [[_png(b"\xff\0\0")], [_png(b"\0\0\xff"), _png(b"\xff\0\0")], None][number],
        }
        for number in range(3)
    ]
    _write(path, rows)


def _png(pixel: bytes) -> bytes:
    """The smallest picture: one pixel of this colour (PNG specification, sections 5 and 11)."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + chunk(b"IDAT", zlib.compress(b"\0" + pixel))
        + chunk(b"IEND", b"")
    )


def _write_preferences(path: Path, draw: random.Random) -> None:
    """Verdicts of another tool, on its scale of 1 to 2, where 1 says that `model_b` wins."""
    rows = []
    for number in range(40):
        row = _pair(draw, number)
        preference = 1 + round(draw.random(), 3)
        rows.append(
            {
                "prompt": row["query"],
                "response_a": row["response_a"],
                "response_b": row["response_b"],
                "generator": None if number == 4 else row["model_a"],
                "preference": 2.5 if number == 9 else preference,
                "gold": row["gold"],
                "source": row["source"],
            }
        )
    _write(path, rows)


def _write(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows)
    for name in ("turns", "turns_a", "turns_b"):
        if name in table.column_names:
            position = table.schema.get_field_index(name)
            table = table.set_column(position, name, table[name].cast(TURNS))
    pq.write_table(table, path, compression="zstd", write_statistics=False)
