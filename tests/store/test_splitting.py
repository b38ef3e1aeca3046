"""Buckets that are divided: pieces, their files and what each holds, worked out by hand."""

import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from steelyard.core.schemas import BUCKET, BUCKET_TEXTS, KEY, KEYS
from steelyard.plan.keys import BucketSize
from steelyard.store.folder import Folder
from steelyard.store.plan import scatter
from steelyard.store.plan.splitting import _blocks, _distinct, _expand, _words, split, split_bucket


def numbers(*values):
    return np.array(values, dtype=np.uint64)


def digests(*values):
    """Digests whose block is 5 * value modulo a power of two up to 16: their first word's half."""
    return numbers(*values) << np.uint64(32)


def pieces_of(rows, target):
    """Pieces of (instruction, a, b, weight)."""
    instruction, a, b, weights = zip(*rows, strict=True)
    return split(
        numbers(*instruction), digests(*a), digests(*b), np.array(weights), target
    ).tolist()


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        # Instructions of 5, 10 and 5, in their order, begin at 0, 5 and 15 tens.
        ([(2, 1, 2, 5), (1, 1, 2, 5), (2, 3, 4, 5), (3, 1, 2, 5)], [0, 0, 0, 1]),
        # One that weighs twice the target stays whole, a heavier one does not.
        ([(1, 0, 1, 10), (1, 0, 2, 10)], [0, 0]),
        ([(1, 0, 1, 10), (1, 0, 2, 11)], [0, 1]),
        # What cannot be divided weighs 25, and the next piece has the next number.
        ([(1, 0, 1, 25), (2, 0, 1, 5)], [0, 1]),
        # Equal prompts are together, whichever response comes first: blocks 0, 1, 2 and 3 of four
        # make cells 01, 02, 13 and 23 of 10 each.
        (
            [(7, 3, 2, 5), (7, 0, 1, 5), (7, 1, 0, 5), (7, 2, 0, 10), (7, 1, 3, 10), (7, 2, 3, 5)],
            [3, 0, 0, 1, 2, 3],
        ),
        # A large instruction between small ones: 4 | 30 in three cells of 10 | 4.
        (
            [(9, 0, 1, 4), (5, 0, 1, 10), (5, 0, 2, 10), (5, 1, 2, 10), (1, 0, 1, 4)],
            [3, 0, 1, 2, 0],
        ),
    ],
)
def test_pieces_by_hand(rows, expected):
    assert pieces_of(rows, 10) == expected


def blocks(a, b, weights, target):
    low, high = _blocks(digests(*a), digests(*b), np.array(weights), target)
    return low.tolist(), high.tolist()


def test_blocks_are_doubled_until_no_two_hold_too_much():
    assert blocks([1], [2], [5], 10) == ([0], [1])
    # Of two blocks, 01 has (0, 1) and (2, 3); of four, each pair has its own cell of 10.
    rows = ([0, 0, 1, 2], [1, 2, 3, 3], [10, 10, 10, 10])
    assert blocks(*rows, 10) == ([0, 0, 1, 2], [1, 2, 3, 3])
    # No division makes less than 10: 32 blocks are more than 17, where a block is 21 * value.
    assert blocks(*rows, 9) == ([0, 0, 21, 10], [21, 10, 31, 31])


@pytest.mark.parametrize(
    ("weight", "target", "expected"),
    [
        (35, 20, (5, 7)),  # four times 35 is 7 targets: 8 blocks are more
        (20, 10, (5, 15)),  # 8 targets: 8 blocks are not more, 16 are
    ],
)
def test_blocks_end_where_nothing_can_be_divided(weight, target, expected):
    low, high = blocks([3], [1], [weight], target)
    assert (*low, *high) == expected


def test_each_piece_needs_a_text_once():
    texts, needed_in = _distinct(numbers(5, 3, 5, 5, 3), np.array([1, 0, 0, 1, 0], np.int32))
    assert (texts.tolist(), needed_in.tolist()) == ([3, 5, 5], [0, 0, 1])


def test_texts_go_to_all_pieces_that_need_them():
    picks, into = _expand(numbers(5, 9, 3, 5), numbers(3, 5, 5), np.array([4, 6, 7], np.int32))
    assert picks.tolist() == [0, 0, 2, 3, 3]  # nobody needs 9
    assert into.tolist() == [6, 7, 4, 6, 7]


def test_words_of_a_part_of_a_column():
    keys = pa.array([bytes([k] + [0] * 7 + [k + 1] + [0] * 7) for k in range(4)], KEY)
    assert _words(keys.slice(1, 2)).tolist() == [[1, 2], [2, 3]]


def key(value):
    """A digest by its value: the first word is digests(value)."""
    return (value << 32).to_bytes(8, "little") + bytes(8)


def write_bucket(folder, rows):
    """A bucket of (instruction, a, b, system or None, text_bytes), and a text for each digest."""
    columns = {
        "keys": pa.array([[key(k)] for k in range(len(rows))], KEYS),
        "text_bytes": pa.array([row[4] for row in rows], pa.int32()),
    }
    for at, name in enumerate(("instruction", "response_a", "response_b", "system")):
        digests = [None if row[at] is None else key(row[at]) for row in rows]
        columns[name] = pa.array(digests, KEY)
    filled = [columns.get(name, pa.nulls(len(rows), KEY)) for name in BUCKET.names]
    folder.write_table(scatter.pairs_name(3), pa.Table.from_arrays(filled, schema=BUCKET))
    used = sorted({value for row in rows for value in row[:4] if value is not None})
    texts = [[key(value) for value in used], [f"text {value}" for value in used]]
    folder.write_table(scatter.texts_name(3), pa.table(texts, schema=BUCKET_TEXTS))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(scatter, "PIECE_ROWS", 2)  # each file is read in several pieces
    return Folder(tmp_path)


def test_files_of_a_bucket_become_files_of_its_pieces(folder, tmp_path):
    """Of four blocks, instruction 20 has 10 in each of 01, 02 and 12; 21 and 22 fit together."""
    rows = [
        (21, 1, 2, None, 4),
        (20, 2, 1, 50, 10),
        (20, 4, 1, None, 10),
        (22, 1, 7, 51, 4),
        (20, 4, 2, 50, 10),
    ]
    write_bucket(folder, rows)
    pieces = split_bucket(folder, 3, BucketSize(10, 0), 40)
    assert pieces.tolist() == [43, 42, 40, 43, 41]
    assert pieces.dtype == np.int32
    names = {f"{kind}-000{n}.parquet" for kind in ("bucket", "texts") for n in range(40, 44)}
    assert {path.name for path in tmp_path.iterdir()} == names
    for piece, texts in {40: [1, 4, 20], 41: [2, 4, 20, 50], 42: [1, 2, 20, 50]}.items():
        assert held(tmp_path, piece) == ([pieces.tolist().index(piece)], texts)
    assert held(tmp_path, 43) == ([0, 3], [1, 2, 7, 21, 22, 51])


def held(place, piece):
    """The pairs of a piece, by number, and its texts, by the value of their digests."""
    keys = pq.read_table(place / scatter.pairs_name(piece))["keys"].to_pylist()
    texts = pq.read_table(place / scatter.texts_name(piece)).to_pylist()
    assert all(row["text"] == f"text {value_of(row['digest'])}" for row in texts)
    return [value_of(k) for (k,) in keys], [value_of(row["digest"]) for row in texts]


def value_of(digest):
    return int.from_bytes(digest[:8], "little") >> 32


def test_a_bucket_that_cannot_be_divided_keeps_its_files(folder, tmp_path):
    """Its thread ends, too."""
    write_bucket(folder, [(1, 2, 3, None, 4)])
    (tmp_path / "texts-00003.parquet").write_bytes(b"nothing")
    with pytest.raises(pa.ArrowInvalid):
        split_bucket(folder, 3, BucketSize(10, 0), 4)
    assert (tmp_path / "bucket-00003.parquet").exists()
    assert not [t for t in threading.enumerate() if t.name == "bucket-writer"]
