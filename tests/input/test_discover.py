from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import fsspec
import pytest

from steelyard.errors import EnvironmentFault, InputRefused
from steelyard.input import discover, open_shards
from steelyard.input import filesystem as shard_files_module
from steelyard.input.formats import SUFFIXES
from support.shard_files import pairs, read, write


def names(*inputs: object) -> list[str]:
    return [source.name for source in discover([str(x) for x in inputs])]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ["b.parquet", "a/2.parquet", "a/10.parquet", "a/deep/x.PARQUET"]:
        write(tmp_path / "data" / name)
    for name in ["_SUCCESS", ".hidden.parquet", "_tmp/x.parquet", ".git/x.parquet", "notes.txt"]:
        write(tmp_path / "data" / name)
    return tmp_path / "data"


def test_a_folder_is_searched_at_all_depths_without_hidden_and_other_files(tree: Path) -> None:
    assert names(tree) == ["a/10.parquet", "a/2.parquet", "a/deep/x.PARQUET", "b.parquet"]


def test_an_explicit_file_may_have_any_name(tree: Path) -> None:
    assert names(tree / "notes.txt") == ["notes.txt"]
    assert names(tree / ".hidden.parquet") == [".hidden.parquet"]


def test_the_order_does_not_depend_on_that_of_the_inputs(tree: Path) -> None:
    inputs = [tree / "b.parquet", tree / "a"]
    assert names(*inputs) == names(*reversed(inputs))
    assert names(*inputs)[-1] == "b.parquet"


def test_patterns(tree: Path) -> None:
    assert names(tree / "*.parquet") == ["b.parquet"]
    assert names(tree / "a/*.parquet") == ["10.parquet", "2.parquet"]
    assert names(f"{tree}/**/*.parquet") == ["a/10.parquet", "a/2.parquet", "b.parquet"]
    assert names(f"{tree}/**") == names(tree)
    assert names(f"{tree}/_*/*.parquet") == ["_tmp/x.parquet"]
    assert names(f"{tree}/[a]") == ["a/10.parquet", "a/2.parquet", "a/deep/x.PARQUET"]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    write(tmp_path / "a[1].parquet")
    write(tmp_path / "a1.parquet")
    assert names(tmp_path / "a[1].parquet") == ["a[1].parquet"]


def test_each_real_file_is_read_once(tree: Path) -> None:
    (tree / "link.parquet").symlink_to(tree / "b.parquet")
    (tree / "a" / "loop").symlink_to(tree)
    found = names(tree, tree / "b.parquet", tree / "a" / ".." / "b.parquet")
    assert len(found) == len(set(found)) == 4
    assert "b.parquet" in found or "link.parquet" in found


def test_names_are_relative_to_what_the_inputs_share(tmp_path: Path) -> None:
    one, two = write(tmp_path / "x" / "p.parquet"), write(tmp_path / "y" / "p.parquet")
    assert names(one, two) == ["x/p.parquet", "y/p.parquet"]
    assert names(one.parent, two.parent) == ["x/p.parquet", "y/p.parquet"]
    assert names(one) == ["p.parquet"]


def test_relative_paths_home_and_file_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "p.parquet")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    expected = discover([path])
    assert discover(["p.parquet"]) == discover(["~/p.parquet"]) == expected
    assert discover([f"file://{path}"]) == discover(["."]) == expected


@pytest.mark.skipif(sys.platform != "linux", reason="file names of any bytes")
def test_a_file_name_that_is_not_utf8_gets_a_name_that_is(tmp_path: Path) -> None:
    path = write(tmp_path / "p.parquet")
    path.rename(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.parquet"))
    good, _ = read(open_shards([tmp_path]))
    assert good[0]["shard"] == "\\udcff.parquet"


@pytest.mark.parametrize(
    ("make", "cause", "remedy"),
    [
        (lambda d: d / "nothing.parquet", "no such file or folder", "check the path"),
        (lambda d: d / "no" / "x.parquet", "no such file or folder", "there is no folder"),
        (
            lambda d: d / "*.parquet",
            "the pattern matches no file (Parquet, JSON Lines, JSON, CSV, TSV or Arrow)",
            "ls",
        ),
        (lambda d: "", "is not a path", "name a file"),
        (lambda d: "a\0b", "is not a path", "name a file"),
        (
            lambda d: d,
            f"the folder holds no file with rows ({SUFFIXES}); it is empty",
            "name a folder",
        ),
    ],
)
def test_nothing_found_is_refused(tmp_path: Path, make, cause: str, remedy: str) -> None:
    with pytest.raises(InputRefused) as refused:
        discover([make(tmp_path)])
    assert refused.value.cause == cause
    assert remedy in refused.value.remedy


def test_no_input_at_all() -> None:
    with pytest.raises(InputRefused, match="no input was given"):
        discover([])


def test_the_missing_files_neighbour_is_proposed(tmp_path: Path) -> None:
    write(tmp_path / "pairs.parquet")
    with pytest.raises(InputRefused) as refused:
        discover([tmp_path / "pair.parquet"])
    assert refused.value.remedy == "did you mean pairs.parquet?"


def test_a_folder_of_json_lines_is_its_files(tmp_path: Path) -> None:
    for name in ("pairs.jsonl", "more/pairs.ndjson.gz", "README.md", "info.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    assert names(tmp_path) == ["more/pairs.ndjson.gz", "pairs.jsonl"]


def test_a_folder_with_parquet_is_its_parquet(tmp_path: Path) -> None:
    write(tmp_path / "pairs.parquet")
    (tmp_path / "pairs.jsonl").write_text("{}")
    assert names(tmp_path) == names(tmp_path / "*") == ["pairs.parquet"]


def test_a_folder_of_several_formats_is_refused(tmp_path: Path) -> None:
    for name in ("pairs.jsonl", "pairs.csv"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(InputRefused, match=r"several formats, such as pairs.csv and pairs.jsonl"):
        discover([tmp_path])
    assert names(tmp_path / "*.csv") == ["pairs.csv"]


def test_all_missing_inputs_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputRefused) as refused:
        discover([tmp_path / "x", tmp_path / "y"])
    text = str(refused.value)
    assert text.startswith("error[input]: 2 problems with the input:\n    - ")
    assert "/x: no such" in text
    assert "/y: no such" in text


def test_a_fifo_is_not_an_input(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputRefused, match="is not a file or folder"):
        discover([tmp_path / "pipe"])


@pytest.fixture
def bucket(tmp_path: Path):
    fs = fsspec.filesystem("memory")
    for name in ["d/source=x/1.parquet", "d/2.parquet", "d/_old/3.parquet", "d/notes.txt"]:
        fs.pipe(f"/{name}", write(tmp_path / "p.parquet", pairs(2)).read_bytes())
    yield fs
    fs.rm("/d", recursive=True)


def test_remote_files_folders_and_patterns(bucket) -> None:
    assert names("memory://d") == ["2.parquet", "source=x/1.parquet"]
    assert names("memory://d/") == ["2.parquet", "source=x/1.parquet"]
    assert names("memory://d/*.parquet") == ["2.parquet"]
    assert names("memory://d/2.parquet") == ["2.parquet"]
    assert names("memory://d/notes.txt") == ["notes.txt"]
    assert names("memory://d/2.parquet", "memory://d/source=x") == [
        "2.parquet",
        "source=x/1.parquet",
    ]


def test_remote_and_local_together(bucket, tmp_path: Path) -> None:
    found = names("memory://d/2.parquet", write(tmp_path / "p.parquet"))
    assert found == ["memory:///d/2.parquet", "p.parquet"]


def test_remote_shards_are_read(bucket) -> None:
    shards = open_shards(["memory://d/source=x"])
    good, bad = read(shards)
    assert [row["row"] for row in good] == [0, 1]
    assert not bad


@pytest.mark.parametrize("url", ["memory://d/none.parquet", "memory://d/*.pq", "memory://none/"])
def test_nothing_at_a_url_is_refused(bucket, url: str) -> None:
    with pytest.raises(InputRefused) as refused:
        discover([url])
    assert refused.value.place == url


def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(InputRefused, match="unknown protocol"):
        discover(["gopher://host/x.parquet"])


@pytest.mark.parametrize(
    ("url", "extra"), [("s3://b/x", "s3"), ("gs://b/x", "gs"), ("hf://d", "hf")]
)
def test_a_missing_driver_names_its_extra(
    url: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> None:
        raise ImportError(f"Install {name}fs")

    monkeypatch.setattr(shard_files_module.fsspec, "filesystem", absent)
    shard_files_module.driver.cache_clear()
    with pytest.raises(EnvironmentFault) as fault:
        discover([url])
    assert fault.value.remedy == f"pip install 'steelyard[{extra}]'"
    shard_files_module.driver.cache_clear()


def test_a_driver_that_fails_is_the_environments_fault(
    bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    class ClientError(Exception):
        pass

    def fail(*_: object, **__: object) -> None:
        raise ClientError("403 \x1b[31mForbidden")

    monkeypatch.setattr(type(bucket), "isfile", fail)
    with pytest.raises(EnvironmentFault) as fault:
        discover(["memory://d/2.parquet"])
    assert "ClientError: 403 \\x1b[31mForbidden" in fault.value.cause


TABLES = {
    "Delta Lake": "_delta_log/00000000000000000000.json",
    "Iceberg": "metadata/v1.metadata.json",
    "Iceberg, packed": "metadata/00000-6e1.gz.metadata.json",
    "Hudi": ".hoodie/hoodie.properties",
}


@pytest.mark.parametrize("marker", TABLES.values(), ids=TABLES)
@pytest.mark.parametrize(
    "what",
    ["", "table", "table/", "table/data", "table/data/old.parquet", "table/*/*.parquet", "**"],
)
def test_files_of_a_table_with_a_log_are_never_read_alone(
    tmp_path, monkeypatch, marker, what
) -> None:
    """Files that its log has removed would be judged as well."""
    monkeypatch.setitem(sys.modules, "deltalake", None)
    write(tmp_path / "table/data/old.parquet")
    write(tmp_path / "table/data/new.parquet")
    (tmp_path / "table" / marker).parent.mkdir()
    (tmp_path / "table" / marker).write_text("{}")
    with pytest.raises(InputRefused, match="whose log alone says which") as refused:
        open_shards([tmp_path / what])
    assert refused.value.place == str(tmp_path / "table")
    assert f"'{tmp_path}/table'" in refused.value.remedy


def test_a_folder_of_metadata_makes_no_table(tmp_path: Path) -> None:
    write(tmp_path / "data/p.parquet")
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata/dataset_metadata.json").write_text("{}")
    (tmp_path / "_delta_log").mkdir()  # without a log
    assert names(tmp_path / "data") == ["p.parquet"]


@pytest.mark.parametrize("marker", TABLES.values(), ids=TABLES)
def test_remote_tables_with_a_log_are_refused(bucket, marker: str) -> None:
    bucket.pipe(f"/d/{marker}", b"{}")
    with pytest.raises(InputRefused, match="whose log alone says which"):
        discover(["memory://d"])
    if not marker.startswith("metadata"):
        for part in ("memory://d/source=x", "memory://d/2.parquet", "memory://d/*.parquet"):
            with pytest.raises(InputRefused, match="whose log alone says which"):
                discover([part])


def test_a_fifo_among_files_is_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet")
    os.mkfifo(tmp_path / "b.parquet")
    with pytest.raises(InputRefused, match="is not a file that can be read") as refused:
        discover([tmp_path])
    assert refused.value.place == str(tmp_path / "b.parquet")


def test_a_fifo_that_comes_later_is_not_opened(tmp_path: Path) -> None:
    """Opening it would wait for ever for somebody who writes to it."""
    write(tmp_path / "a.parquet")
    shards = open_shards([tmp_path])
    (tmp_path / "a.parquet").unlink()
    os.mkfifo(tmp_path / "a.parquet")
    with pytest.raises(InputRefused, match="is not a file; opening it might never return"):
        read(shards)


def test_a_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet")
    shards = open_shards([tmp_path])
    (tmp_path / "a.parquet").unlink()
    (tmp_path / "a.parquet").mkdir()
    with pytest.raises(InputRefused, match="is not a file"):
        read(shards)


def test_a_link_to_nothing_among_files_is_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet")
    (tmp_path / "b.parquet").symlink_to(tmp_path / "gone")
    with pytest.raises(InputRefused, match="No such file") as refused:
        discover([tmp_path])
    assert refused.value.place == str(tmp_path / "b.parquet")


def failing(number: int):
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), "/data/p.parquet")

    return fail


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_too_many_open_files_are_the_machines_fault(tmp_path, monkeypatch, number) -> None:
    write(tmp_path / "p.parquet")
    monkeypatch.setattr("steelyard.input.footer.open_file", failing(number))
    with pytest.raises(EnvironmentFault) as fault:
        open_shards([tmp_path])
    assert "ulimit -n" in fault.value.remedy
    monkeypatch.setattr("os.walk", failing(number))
    with pytest.raises(EnvironmentFault, match="open files"):
        discover([tmp_path])


def test_a_file_without_permission_is_refused(tmp_path, monkeypatch) -> None:
    write(tmp_path / "p.parquet")
    monkeypatch.setattr("steelyard.input.footer.open_file", failing(errno.EACCES))
    with pytest.raises(InputRefused, match="cannot be read: Permission denied") as refused:
        open_shards([tmp_path])
    assert refused.value.place == "p.parquet"
    assert "permissions" in refused.value.remedy
