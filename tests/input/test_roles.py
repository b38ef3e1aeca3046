from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from steelyard.core.schemas import INTAKE
from steelyard.errors import InputRefused, SteelyardError, UsageError
from steelyard.input import open_shards
from steelyard.input.roles import (
    ALIASES,
    COMPARISONS,
    GOLD_FILE,
    PAIRS,
    RESPONSES,
    VERDICT_TABLE,
)
from support.shard_files import pairs, read, write


def roles(tmp_path: Path, column_map: dict[str, str] | None = None, **columns) -> dict[str, str]:
    return dict(open_shards([write(tmp_path / "p.parquet", pairs(**columns))], column_map).roles)


def refused(tmp_path: Path, column_map: dict[str, str] | None = None, **columns) -> SteelyardError:
    with pytest.raises((InputRefused, UsageError)) as error:
        roles(tmp_path, column_map, **columns)
    return error.value


@pytest.mark.parametrize("alias", ["instruction", "prompt", "question"])
def test_names_of_the_instruction(tmp_path: Path, alias: str) -> None:
    columns = {"instruction": None, alias: ["q"] * 3}
    assert roles(tmp_path, **columns)["instruction"] == alias


def test_every_alias_counts_in_some_kind_of_table() -> None:
    kinds = (PAIRS, VERDICT_TABLE, RESPONSES, GOLD_FILE, COMPARISONS)
    for role, names in ALIASES.items():
        assert any(set(names) <= set(kind.names.get(role, ())) for kind in kinds), role


def test_columns_without_a_role_become_typed_metadata(tmp_path: Path) -> None:
    table = pairs(score=[1, 2, 3], day=[datetime.date(2026, 1, 1)] * 3, nested=[{"a": ["x"]}] * 3)
    shards = open_shards([write(tmp_path / "p.parquet", table)])
    good, _ = read(shards)
    assert shards.metadata.names == ["score", "day", "nested"]
    assert shards.schema.names == [*INTAKE.names, "metadata"]
    assert good[1]["metadata"] == {
        "score": 2,
        "day": datetime.date(2026, 1, 1),
        "nested": {"a": ["x"]},
    }


def test_without_other_columns_there_is_no_metadata(tmp_path: Path) -> None:
    shards = open_shards([write(tmp_path / "p.parquet")])
    assert shards.schema.equals(INTAKE)


def test_map_gives_a_role_to_a_column_and_its_namesake_to_the_metadata(tmp_path: Path) -> None:
    shards = open_shards(
        [write(tmp_path / "p.parquet", pairs(query=["Q1", "Q2", "Q3"]))], {"instruction": "query"}
    )
    good, _ = read(shards)
    assert good[0]["instruction"] == "Q1"
    assert good[0]["metadata"]["instruction"] == "question 0"


def test_map_can_leave_an_optional_role_empty(tmp_path: Path) -> None:
    path = write(tmp_path / "p.parquet", pairs(reference=[["list"]] * 3))
    shards = open_shards([path], {"reference": ""})
    assert "reference" not in shards.roles
    assert shards.metadata.names == ["reference"]


def test_a_column_mapped_to_one_role_leaves_its_own(tmp_path: Path) -> None:
    found = roles(tmp_path, {"reference": "label"}, label=["x", "y", "z"])
    assert found["reference"] == "label"
    assert "gold" not in found


@pytest.mark.parametrize(
    ("columns", "column_map", "cause", "remedy"),
    [
        (
            {"prompt": ["p"] * 3},
            None,
            "instruction and prompt are both columns for the inst",
            "--map",
        ),
        ({"gold": ["A"] * 3, "label": ["A"] * 3}, None, "are both columns for the gold", "--map"),
        (
            {"label": ["A"] * 3, "votes_a": [1] * 3, "votes_b": [1] * 3},
            None,
            "label and votes_a are both columns for the gold",
            "--map gold=",
        ),
        ({"votes_a": [1] * 3}, None, "no column for votes_b", "--map votes_b=COLUMN"),
        ({"response_b": None}, None, "no column for response_b", "--map response_b="),
        (
            {"response_b": None, "Response_B": ["x"] * 3},
            None,
            "no column for response_b",
            "--map response_b=Response_B",
        ),
        ({}, {"system": "sistem"}, "there is no column sistem for --map system", "the columns are"),
        (
            {"query": ["q"] * 3},
            {"instruction": "qery"},
            "there is no column qery",
            "did you mean query",
        ),
        ({"QUERY": ["q"] * 3}, {"instruction": "query"}, "there is no column query", "mean QUERY?"),
        ({}, {"instruction": ""}, "no column for instruction (--map leaves it empty)", "--map"),
    ],
)
def test_what_does_not_settle_the_roles_is_refused(
    tmp_path: Path, columns, column_map, cause: str, remedy: str
) -> None:
    error = refused(tmp_path, column_map, **columns)
    assert error.exit_code == 3
    assert cause in error.cause
    assert remedy in error.remedy
    assert error.place == "p.parquet"


@pytest.mark.parametrize(
    ("column_map", "cause", "remedy"),
    [
        ({"respones_a": "x"}, "unknown role respones_a", "response_a"),
        ({"zzz": "x"}, "unknown role zzz", "instruction"),
        ({"RESPONSE_A": "x"}, "unknown role RESPONSE_A", "did you mean response_a"),
        (
            {"response_a": "x", "response_b": "x"},
            "column x is given to two roles",
            "a separate column",
        ),
    ],
)
def test_a_wrong_map_is_a_usage_error(tmp_path: Path, column_map, cause: str, remedy: str) -> None:
    error = refused(tmp_path, column_map)
    assert error.exit_code == 2
    assert cause in error.cause
    assert remedy in error.remedy


def test_column_names_are_escaped(tmp_path: Path) -> None:
    error = refused(tmp_path, **{"\x1b[31m": [1] * 3, "response_a": None})
    assert "\x1b" not in str(error)
