"""How many pairs become verdicts at a time, by hand."""

from types import SimpleNamespace

import pytest

from steelyard.store.verdicts import portions


@pytest.mark.parametrize(
    ("mebibytes", "of_first"),
    [
        (12, ["pair BETWEEN 0 AND 9", "pair BETWEEN 10 AND 19"]),  # a row group has 12 of them
        (24, ["true"]),
    ],
)
def test_portions_cover_all_pairs(monkeypatch, mebibytes, of_first):
    """Buckets of 2, 1 and 1 prompts, 3 at once: three quarters of two row groups of 16 MiB."""
    monkeypatch.setattr(portions, "PROMPTS_AT_ONCE", 3)
    monkeypatch.setattr(portions, "BYTES_AT_ONCE", mebibytes << 20)
    plan = SimpleNamespace(unique=[2, 1, 1], prompts=4)
    first, second = "bucket BETWEEN 0 AND 1", "bucket BETWEEN 2 AND 2"
    assert list(portions.portions(plan, [10, 10])) == [
        *((first, f"{first} AND {pairs}") for pairs in of_first),
        (second, f"{second} AND true"),  # a quarter of both is 8 MiB
    ]


def test_an_empty_plan_is_a_portion():
    empty = SimpleNamespace(unique=[], prompts=0)
    bucket = "bucket BETWEEN 0 AND 0"
    assert list(portions.portions(empty, [])) == [(bucket, f"{bucket} AND true")]


@pytest.mark.parametrize(
    ("unique", "expected"),
    [
        ([], [(0, 0)]),
        ([5], [(0, 0)]),
        ([3, 3, 3, 9, 0, 1], [(0, 1), (2, 2), (3, 3), (4, 5)]),
        ([9, 1], [(0, 0), (1, 1)]),
        ([6, 3, 3], [(0, 0), (1, 2)]),
        ([6, 3, 4], [(0, 0), (1, 1), (2, 2)]),
    ],
)
def test_ranges_of_buckets(unique, expected):
    assert list(portions.bucket_ranges(unique, 6)) == expected


def test_ranges_of_pairs():
    """Row groups of 16 MiB, 128 MiB at a time: eight, or eighty of which a tenth counts."""
    groups = [10] * 20
    expected = ["pair BETWEEN 0 AND 79", "pair BETWEEN 80 AND 159", "pair BETWEEN 160 AND 199"]
    assert list(portions.pair_ranges(groups, 1.0)) == expected
    assert list(portions.pair_ranges(groups, 0.1)) == ["true"]
    assert list(portions.pair_ranges([10] * 8, 1.0)) == ["true"]
    assert list(portions.pair_ranges([], 1.0)) == ["true"]


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ([], 768_000_000),
        ([65_536] * 100, 768_000_000),
        ([65_536] * 100 + [16] * 64, (512 + 65 * 16) << 20),  # the last 2048 rows are in 65
        ([16] * 1000, (512 + 129 * 16) << 20),  # they may begin inside of a group
        ([16] * 1000 + [1], (512 + 129 * 16) << 20),  # 2048 rows are in 129, if not in 128
    ],
)
def test_memory_grows_with_the_length_of_rows_alone(groups, expected):
    assert portions.memory_for(groups) == expected


def test_a_row_group_is_looked_at_alone_where_it_is_larger_than_a_portion(monkeypatch):
    monkeypatch.setattr(portions, "BYTES_AT_ONCE", 8 << 20)
    assert list(portions.pair_ranges([10, 5], 1.0)) == [
        "pair BETWEEN 0 AND 9", "pair BETWEEN 10 AND 14"
    ]  # fmt: skip
    assert list(portions.pair_ranges([10], 1.0)) == ["true"]


def test_a_plan_of_one_prompt_looks_at_all_its_pairs():
    """Nine row groups of 16 MiB are more than 128."""
    plan = SimpleNamespace(unique=[1], prompts=1)
    bucket = "bucket BETWEEN 0 AND 0"
    assert list(portions.portions(plan, [10] * 9)) == [
        (bucket, f"{bucket} AND pair BETWEEN 0 AND 79"),
        (bucket, f"{bucket} AND pair BETWEEN 80 AND 89"),
    ]
