from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from steelyard.errors import InputRefused
from steelyard.input import open_shards
from support.shard_files import pairs, read, write

# Shards against each other


def test_differences_are_shown_against_the_first_shard(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", pairs(score=[1, 2, 3], old=["x"] * 3))
    write(tmp_path / "b.parquet", pairs(score=["1", "2", "3"], new=["x"] * 3))
    with pytest.raises(InputRefused) as error:
        open_shards([tmp_path])
    assert str(error.value).splitlines()[:6] == [
        "error[input]: b.parquet: its columns (+) differ from those of a.parquet (-)",
        "    - score: int64",
        "    + score: string",
        "    - old: string",
        "    + new: string",
        "  effect: nothing was computed or written",
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
    with pytest.raises(InputRefused, match=r"source=web/1.parquet: its columns \(\+\) differ"):
        open_shards([tmp_path])


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
