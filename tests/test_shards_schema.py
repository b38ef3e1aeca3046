from __future__ import annotations

import datetime
import uuid
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from steelyard.errors import InputRefused, SteelyardError, UsageError
from steelyard.records import INTAKE
from steelyard.shards import open_shards

from .shard_files import edit_footer, pairs, read, varint, write


def roles(tmp_path: Path, column_map: dict[str, str] | None = None, **columns) -> dict[str, str]:
    return dict(open_shards([write(tmp_path / "p.parquet", pairs(**columns))], column_map).roles)


def refused(tmp_path: Path, column_map: dict[str, str] | None = None, **columns) -> SteelyardError:
    with pytest.raises((InputRefused, UsageError)) as error:
        roles(tmp_path, column_map, **columns)
    return error.value


# Roles


@pytest.mark.parametrize("alias", ["instruction", "prompt", "question"])
def test_names_of_the_instruction(tmp_path: Path, alias: str) -> None:
    columns = {"instruction": None, alias: ["q"] * 3}
    assert roles(tmp_path, **columns)["instruction"] == alias


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
        ({"response_a": "x", "response_b": "x"}, "column x is given to two roles", "its own"),
    ],
)
def test_a_wrong_map_is_a_usage_error(tmp_path: Path, column_map, cause: str, remedy: str) -> None:
    error = refused(tmp_path, column_map)
    assert error.exit_code == 2
    assert cause in error.cause
    assert remedy in error.remedy


# Types


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.dictionary(pa.int32(), pa.string()),
        pa.dictionary(pa.int8(), pa.large_string()),
    ],
    ids=str,
)
def test_layouts_of_text(tmp_path: Path, kind: pa.DataType) -> None:
    plain = pairs()
    table = pa.table({name: plain[name].cast(kind) for name in plain.column_names})
    good, bad = read(open_shards([write(tmp_path / "p.parquet", table)]))
    assert [row["response_b"] for row in good] == plain["response_b"].to_pylist()
    assert not bad


def test_shards_may_differ_in_the_layout_of_text(tmp_path: Path) -> None:
    plain = pairs(source=["x", None, "z"])
    write(tmp_path / "1.parquet", plain)
    coded = {name: plain[name].dictionary_encode() for name in plain.column_names}
    write(tmp_path / "2.parquet", pa.table(coded))
    good, _ = read(open_shards([tmp_path]))
    assert [row["metadata"]["source"] for row in good] == ["x", None, "z"] * 2


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (pa.array([1, None, 3]), ["1", None, "3"]),
        (pa.array([1, 2, 2**64 - 1], pa.uint64()), ["1", "2", str(2**64 - 1)]),
        (pa.array(["a", "b", "c"]), ["a", "b", "c"]),
    ],
)
def test_pair_ids(tmp_path: Path, ids: pa.Array, expected: list[str | None]) -> None:
    good, _ = read(open_shards([write(tmp_path / "p.parquet", pairs(pair_id=ids))]))
    assert [row["pair_id"] for row in good] == expected


@pytest.mark.parametrize(
    ("column", "values", "cause"),
    [
        ("response_a", [1, 2, 3], "response_a (int64) for the response_a has to be text"),
        ("response_a", [b"x"] * 3, "(binary) for the response_a holds bytes that are not declared"),
        ("response_a", [["x"]] * 3, "has to be text"),
        ("response_a", pa.nulls(3), "has no value in any row"),
        ("reference", [["x"]] * 3, "column reference (list"),
        ("pair_id", [1.5] * 3, "has to be text or an integer"),
        ("turns", ["hello"] * 3, "has to be a list of texts or of structs"),
        ("turns", [[{"from": "human", "value": "x"}]] * 3, "has to be a list"),
        ("gold", [1, 0, 1], "is ambiguous"),
        ("gold", [True] * 3, "is ambiguous"),
        ("gold", [{"a": "x", "b": "y"}] * 3, "has to be a label"),
        ("m", pa.array([1] * 3).cast(pa.decimal256(60, 2)), "more digits than DuckDB keeps"),
        ("m", [{"a": 1, "A": 2}] * 3, "differ in case only"),
    ],
)
def test_types_that_cannot_be_used_are_refused(tmp_path: Path, column, values, cause) -> None:
    error = refused(tmp_path, **{column: values})
    assert cause in error.cause
    assert error.place == "p.parquet"
    assert "--map" in error.remedy or column in {"response_a", "m"}


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (pa.nulls(3), pa.string()),
        (pa.array(["x"] * 3).dictionary_encode(), pa.string()),
        (pa.array(["x"] * 3, pa.large_string()), pa.string()),
        (pa.array([b"x"] * 3, pa.large_binary()), pa.binary()),
        (pa.array([[None]] * 3, pa.list_(pa.null())), pa.list_(pa.string())),
        (pa.array([["x"]] * 3, pa.large_list(pa.string_view())), pa.list_(pa.string())),
        (pa.array([[1, 2]] * 3, pa.list_(pa.int8(), 2)), pa.list_(pa.int8())),
        (pa.array([5] * 3, pa.duration("s")), pa.int64()),
        (pa.array([np.float16(1.5)] * 3, pa.float16()), pa.float16()),
        (pa.array([[("k", "v")]] * 3, pa.map_(pa.string(), pa.string())), None),
        (pa.array([datetime.datetime(2026, 1, 1)] * 3, pa.timestamp("us", "UTC")), None),
    ],
    ids=lambda x: str(getattr(x, "type", ""))[:40],
)
def test_metadata_is_brought_to_what_duckdb_keeps(tmp_path: Path, values, kind) -> None:
    from steelyard.shards import stream

    shards = open_shards([write(tmp_path / "p.parquet", pairs(m=values))])
    assert kind is None or shards.metadata.field("m").type == kind
    rows = pa.Table.from_batches([rows for rows, _ in stream(shards)], shards.schema)
    assert rows.num_rows == 3
    write(tmp_path / "out.parquet", rows)
    written = duckdb.sql(f"select metadata.m::varchar from '{tmp_path}/out.parquet'").fetchall()
    assert len(written) == 3


@pytest.mark.skipif(not hasattr(pa, "uuid"), reason="this pyarrow reads UUIDs as plain bytes")
def test_uuids_become_their_usual_spelling(tmp_path: Path) -> None:
    ids = pa.array([uuid.UUID(int=i).bytes if i else None for i in range(3)], pa.uuid())
    good, _ = read(open_shards([write(tmp_path / "p.parquet", pairs(pair_id=ids, meta=ids))]))
    expected = [None, str(uuid.UUID(int=1)), str(uuid.UUID(int=2))]
    assert [row["pair_id"] for row in good] == expected
    assert [row["metadata"]["meta"] for row in good] == expected


@pytest.mark.skipif(not hasattr(pa, "json_"), reason="this pyarrow reads JSON as text")
def test_json_becomes_text(tmp_path: Path) -> None:
    values = pa.array(['{"a": 1}', None, "[]"], pa.json_())
    good, _ = read(open_shards([write(tmp_path / "p.parquet", pairs(meta=values))]))
    assert [row["metadata"]["meta"] for row in good] == ['{"a": 1}', None, "[]"]


def test_metadata_names_that_differ_in_case_only_are_refused(tmp_path: Path) -> None:
    error = refused(tmp_path, source=["x"] * 3, Source=["y"] * 3)
    assert "source and Source differ in case only" in error.cause


def test_a_column_twice_and_a_column_without_a_name_are_refused(tmp_path: Path) -> None:
    table = pairs(x=["1"] * 3, y=["2"] * 3)
    names = ["instruction", "response_a", "response_b"]
    write(tmp_path / "p.parquet", table.rename_columns([*names, "x", "x"]))
    with pytest.raises(InputRefused, match="column x is there twice"):
        open_shards([tmp_path])
    write(tmp_path / "p.parquet", table.rename_columns([*names, "x", ""]))
    with pytest.raises(InputRefused, match="a column has no name"):
        open_shards([tmp_path])


# Shards against each other


def test_differences_are_shown_against_the_first_shard(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", pairs(score=[1, 2, 3], old=["x"] * 3))
    write(tmp_path / "b.parquet", pairs(score=["1", "2", "3"], new=["x"] * 3))
    with pytest.raises(InputRefused) as error:
        open_shards([tmp_path])
    assert str(error.value).splitlines()[:6] == [
        "error[input]: b.parquet: its columns differ from those of a.parquet (-)",
        "    - score: int64",
        "    + score: string",
        "    - old: string",
        "    + new: string",
        "  effect: nothing was read or scored",
    ]


def test_the_order_of_columns_does_not_matter(tmp_path: Path) -> None:
    table = pairs(score=[1, 2, 3])
    write(tmp_path / "a.parquet", table)
    write(tmp_path / "b.parquet", table.select(table.column_names[::-1]))
    good, _ = read(open_shards([tmp_path]))
    assert [row["metadata"]["score"] for row in good] == [1, 2, 3, 1, 2, 3]


def test_null_columns_take_the_type_of_the_others(tmp_path: Path) -> None:
    nothing = pa.array([[], None, []], pa.list_(pa.null()))
    write(tmp_path / "a.parquet", pairs(m=pa.nulls(3), n=nothing, system=pa.nulls(3)))
    write(tmp_path / "b.parquet", pairs(m=[1, 2, 3], n=[["x"]] * 3, system=["s"] * 3))
    shards = open_shards([tmp_path])
    assert shards.metadata.field("m").type == pa.int64()
    assert shards.metadata.field("n").type == pa.list_(pa.string())
    good, _ = read(shards)
    assert [row["system"] for row in good] == [None] * 3 + ["s"] * 3
    assert [row["metadata"]["n"] for row in good][:4] == [[], None, [], ["x"]]


@pytest.mark.parametrize("role", ["turns", "gold", "votes_tie", "model_a", "pair_id"])
def test_an_optional_column_of_nulls_counts_as_absent(tmp_path: Path, role: str) -> None:
    columns = {role: pa.nulls(3)}
    if role == "votes_tie":
        columns |= {"votes_a": pa.nulls(3), "votes_b": pa.nulls(3)}
    good, bad = read(open_shards([write(tmp_path / "p.parquet", pairs(**columns))]))
    assert len(good) == 3
    assert not bad
    assert good[0]["gold"] is None


def test_empty_shards_among_others_are_fine(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", pairs(0, response_a=pa.nulls(0)))
    write(tmp_path / "b.parquet")
    shards = open_shards([tmp_path])
    assert [shard.rows for shard in shards.shards] == [0, 3]
    assert len(read(shards)[0]) == 3


def test_no_row_at_all_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", pairs(0))
    write(tmp_path / "b.parquet", pairs(0))
    with pytest.raises(InputRefused, match=r"the input has no rows \(2 files\)"):
        open_shards([tmp_path])


# Folders that name values


def test_folders_become_columns(tmp_path: Path) -> None:
    write(tmp_path / "source=web/lang=de/1.parquet")
    write(tmp_path / "source=a%20b/lang=__HIVE_DEFAULT_PARTITION__/1.parquet")
    shards = open_shards([tmp_path])
    good, _ = read(shards)
    assert shards.metadata.names == ["source", "lang"]
    assert good[0]["metadata"] == {"source": "a b", "lang": None}
    assert good[3]["metadata"] == {"source": "web", "lang": "de"}


def test_a_folder_may_give_a_role(tmp_path: Path) -> None:
    write(tmp_path / "model_a=gpt/1.parquet")
    write(tmp_path / "model_a=claude/1.parquet")
    good, _ = read(open_shards([tmp_path]))
    assert [row["model_a"] for row in good] == ["claude"] * 3 + ["gpt"] * 3


def test_a_folder_must_not_overwrite_a_column(tmp_path: Path) -> None:
    write(tmp_path / "Source=web/1.parquet", pairs(source=["x"] * 3))
    with pytest.raises(InputRefused, match="would overwrite the column Source"):
        open_shards([tmp_path])


def test_shards_outside_of_the_folders_scheme_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "1.parquet")
    write(tmp_path / "source=web/1.parquet")
    with pytest.raises(InputRefused, match=r"source=web/1.parquet: its columns differ"):
        open_shards([tmp_path])


# Files that are not whole


@pytest.mark.parametrize(
    ("damage", "cause"),
    [
        (lambda data: b"", "the file is empty (0 bytes)"),
        (lambda data: data[:-1], "truncated"),
        (lambda data: data[: len(data) // 2], "truncated"),
        (lambda data: data[:4], "truncated"),
        (lambda data: data[:4] * 2, "truncated"),
        (lambda data: b'{"instruction": "x"}\n' * 9, 'not a Parquet file; it begins with {"in'),
        (lambda data: b"\x00\x1b[31m" * 9, "it begins with \\x00\\x1b[3"),
        (lambda data: data[:-4] + b"PARE", "encrypted"),
        (
            lambda data: data[:-8] + b"\xff\xff\xff\x7f" + b"PAR1",
            "claims a footer of 2,147,483,647",
        ),
        (
            lambda data: data[:-8] + b"\x00\x00\x00\x00" + b"PAR1",
            "the Parquet footer cannot be read",
        ),
        (lambda data: data[:-60] + b"\xff" * 52 + data[-8:], "the Parquet footer cannot be read"),
    ],
)
def test_files_that_are_not_whole_are_named(tmp_path: Path, damage, cause: str) -> None:
    path = write(tmp_path / "bad.parquet")
    path.write_bytes(damage(path.read_bytes()))
    write(tmp_path / "good.parquet")
    with pytest.raises(InputRefused) as error:
        open_shards([tmp_path])
    assert cause in error.value.cause
    assert error.value.place == "bad.parquet"


def test_all_problems_are_listed_up_to_twenty(tmp_path: Path) -> None:
    for i in range(25):
        (tmp_path / f"{i:02}.parquet").write_bytes(b"")
    write(tmp_path / "good.parquet")
    write(tmp_path / "other.parquet", pairs(extra=[1, 2, 3]))
    with pytest.raises(InputRefused) as error:
        open_shards([tmp_path])
    lines = str(error.value).splitlines()
    assert lines[0] == "error[input]: 26 problems with the input:"
    assert sum(line.startswith("    - ") for line in lines) == 20
    assert "    and 6 more" in lines


def test_column_names_are_escaped(tmp_path: Path) -> None:
    error = refused(tmp_path, **{"\x1b[31m": [1] * 3, "response_a": None})
    assert "\x1b" not in str(error)


def test_size_statistics_that_make_pyarrow_abort_do_no_harm(tmp_path: Path) -> None:
    # A histogram of the wrong length: FileMetaData.row_group(0).column(0) would end the process.
    path = write(tmp_path / "p.parquet")
    data = bytearray(path.read_bytes())
    length = int.from_bytes(data[-8:-4], "little")
    for at in range(len(data) - 8 - length, len(data) - 8, 3):
        changed = bytearray(data)
        changed[at] ^= 0x10
        path.write_bytes(changed)
        try:
            read(open_shards([path]))
        except InputRefused:
            continue


def test_rows_that_do_not_add_up_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "p.parquet", pairs(12_345))
    edit_footer(path, varint(12_345), varint(10**12), count=1)
    with pytest.raises(InputRefused, match="the Parquet footer contradicts itself"):
        open_shards([path])


# The record


def test_the_record_counts_and_identifies(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a.parquet"), write(tmp_path / "b.parquet", pairs(5))
    shards = open_shards([tmp_path])
    assert shards.rows == 8
    assert [shard.size for shard in shards.shards] == [x.stat().st_size for x in (first, second)]
    assert 0 < shards.text_bytes < 2_000
    assert open_shards([second, first]).fingerprint == shards.fingerprint
    assert len(shards.fingerprint) == 32


@pytest.mark.parametrize("change", ["rewritten", "renamed", "added", "gone"])
def test_changed_inputs_have_another_fingerprint(tmp_path: Path, change: str) -> None:
    first, second = write(tmp_path / "a.parquet"), write(tmp_path / "b.parquet")
    before = open_shards([tmp_path]).fingerprint
    if change == "rewritten":
        write(first, pairs(response_a=["first answer 0", "first answer 1", "first answer X"]))
    elif change == "renamed":
        second.rename(tmp_path / "c.parquet")
    elif change == "added":
        write(tmp_path / "c.parquet")
    else:
        second.unlink()
    assert open_shards([tmp_path]).fingerprint != before


def test_the_fingerprint_does_not_depend_on_where_the_files_are(tmp_path: Path) -> None:
    write(tmp_path / "x" / "a.parquet")
    write(tmp_path / "y" / "a.parquet")
    assert open_shards([tmp_path / "x"]).fingerprint == open_shards([tmp_path / "y"]).fingerprint


def test_our_reading_of_the_footer_is_pyarrows(tmp_path: Path) -> None:
    from steelyard.shards.thrift import row_groups

    path = write(tmp_path / "p.parquet", pairs(1000, turns=[["a", "b"]] * 1000), row_group_size=300)
    data = path.read_bytes()
    rows, groups = row_groups(data[-8 - int.from_bytes(data[-8:-4], "little") : -8])
    theirs = pq.read_metadata(path)
    assert rows == theirs.num_rows
    for i, group in enumerate(groups):
        assert group.rows == theirs.row_group(i).num_rows
        for j, chunk in enumerate(group.chunks):
            column = theirs.row_group(i).column(j)
            assert (chunk.values, chunk.unpacked, chunk.packed) == (
                column.num_values,
                column.total_uncompressed_size,
                column.total_compressed_size,
            )
            assert chunk.start == min(column.data_page_offset, column.dictionary_page_offset)
