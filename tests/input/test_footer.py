from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from steelyard.errors import InputRefused
from steelyard.input import open_shards
from support.shard_files import edit_footer, pairs, read, varint, write


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


def test_our_reading_of_the_footer_is_pyarrows(tmp_path: Path) -> None:
    from steelyard.input.thrift import row_groups

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
