"""A folder of ours: durable in the right order, whole or not at all, and without links.

Kind of fault: loss of power; links inside a run directory are followed.
"""

import errno
import os
import socket
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash

from steelyard.errors import IntegrityFault
from steelyard.store import folder as folders
from steelyard.store.folder import Folder
from support.recording_disk import RecordingDisk

TABLE = pa.table({"x": [1, 2, 3]})
DURABLE = [("sync", "a.tmp"), ("rename", "a.tmp"), ("sync", ".")]


@pytest.fixture
def disk(tmp_path):
    return RecordingDisk(tmp_path / "folder")


@pytest.fixture
def folder(tmp_path, disk):
    (tmp_path / "folder").mkdir()
    return Folder(tmp_path / "folder", disk)


def content(path):
    return sorted(entry.name for entry in path.iterdir())


class TestWriting:
    def test_a_file_is_forced_before_it_has_its_name_and_its_folder_after(self, folder, disk):
        folder.write("a", b"text")
        assert disk.calls == [("remove", "a.tmp"), ("write", "a.tmp"), *DURABLE]
        assert disk.of("rename") == [("rename", "a.tmp", "a")]
        assert folder.read("a") == b"text"

    def test_a_table_is_written_in_the_same_order(self, folder, disk):
        folder.write_table("a", TABLE)
        assert disk.calls[0] == ("remove", "a.tmp")
        assert set(disk.calls[1:-3]) == {("write", "a.tmp")}
        assert disk.calls[-3:] == DURABLE
        with folder.open("a") as file:
            assert pq.read_table(file, page_checksum_verification=True).equals(TABLE)

    def test_the_folder_of_a_name_is_the_one_that_is_forced(self, folder, disk):
        folder.inside("inner").make()
        folder.write("inner/a", b"text")
        assert disk.calls[-2:] == [("rename", "inner/a.tmp"), ("sync", "inner")]
        disk.every.clear()
        folder.inside("inner").write("a", b"text")
        assert disk.calls[-2:] == [("rename", "inner/a.tmp"), ("sync", "inner")]

    @pytest.mark.parametrize("most", [1, 3])
    def test_short_writes_are_completed(self, folder, disk, most):
        disk.shorten("*", most)
        folder.write("a", b"0123456789")
        assert folder.read("a") == b"0123456789"
        folder.append("b", b"0123456789")
        assert folder.read("b") == b"0123456789"
        folder.write_table("c", TABLE)
        with folder.open("c") as file:
            assert pq.read_table(file).equals(TABLE)

    @pytest.mark.parametrize(
        ("kind", "name"),
        [("open_file", "a.tmp"), ("write", "a.tmp"), ("sync", "a.tmp"), ("rename", "a.tmp")],
    )
    @pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EINVAL])
    def test_what_fails_before_the_rename_leaves_the_old_file_and_no_other(
        self, folder, disk, kind, name, error
    ):
        folder.write("a", b"old")
        disk.fail(kind, name, error)
        with pytest.raises(OSError, match=os.strerror(error)):
            folder.write("a", b"new")
        assert folder.read("a") == b"old"
        assert content(folder.path) == ["a"]

    def test_a_folder_that_cannot_be_forced_for_an_error_of_the_disk_is_an_error(
        self, folder, disk
    ):
        disk.fail("sync", ".", errno.EIO)
        with pytest.raises(OSError, match="Input/output"):
            folder.write("a", b"new")

    @pytest.mark.parametrize(
        "error", [errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF]
    )
    def test_file_systems_that_cannot_force_folders_are_tolerated(self, folder, disk, error):
        disk.fail("sync", ".", error, times=9)
        folder.write("a", b"text")
        folder.append("b", b"text")
        assert folder.read("a") == folder.read("b") == b"text"

    def test_a_parquet_file_is_forced_when_it_is_closed(self, folder, disk):
        writer = folder.parquet("a", TABLE.schema)
        writer.write_table(TABLE)
        writer.write_batch(TABLE.to_batches()[0])
        assert disk.of("sync") == []
        writer.close()
        assert disk.calls[-1] == ("sync", "a")
        assert disk.every[-1] == ("close", "a")
        with folder.open("a") as file:
            assert pq.ParquetFile(file).metadata.num_rows == 6

    def test_a_parquet_file_that_cannot_be_forced_says_so(self, folder, disk):
        writer = folder.parquet("a", TABLE.schema)
        writer.write_table(TABLE)
        disk.fail("sync", "a", errno.EIO)
        with pytest.raises(OSError, match="Input/output"):
            writer.close()
        assert disk.every[-1] == ("close", "a")

    def test_publish_forces_what_it_names_and_then_the_folder_of_the_name(self, folder, disk):
        folder.inside("new").make()
        folder.inside("in").make()
        disk.every.clear()
        folder.publish("new", "in/new")
        assert disk.calls == [("sync", "new"), ("rename", "new"), ("sync", "in")]
        assert disk.of("rename") == [("rename", "new", "in/new")]

    def test_publish_forces_a_file(self, folder, disk):
        (folder.path / "a.tmp").write_bytes(b"of a library")
        folder.publish("a.tmp", "a")
        assert disk.calls == DURABLE
        disk.fail("sync", "a", errno.EINVAL)
        with pytest.raises(OSError, match="Invalid"):  # what is tolerated of folders only
            folder.publish("a", "b")
        assert content(folder.path) == ["a"]


class TestMaking:
    def test_every_folder_that_is_made_is_forced_into_the_one_above(self, tmp_path, disk):
        disk.root = tmp_path
        folder = Folder(tmp_path / "a" / "b", disk)
        folder.make()
        assert disk.calls == [
            ("make_folder", "a"), ("sync", "."), ("make_folder", "a/b"), ("sync", "a"),
        ]  # fmt: skip

    def test_a_folder_that_is_there_is_forced_into_the_one_above_too(self, folder, disk):
        """Whoever made it may have been killed before he forced it."""
        folder.make()
        assert disk.calls[-1] == ("sync", "..")

    def test_a_folder_inside(self, folder, disk):
        folder.inside("in").make()
        folder.inside("in").inside("er").make()
        assert disk.calls == [
            ("make_folder", "in"), ("sync", "."), ("make_folder", "in/er"), ("sync", "in"),
        ]  # fmt: skip
        folder.inside("in").make()
        assert (folder.path / "in" / "er").is_dir()

    def test_a_folder_above_that_one_may_not_open_is_left_alone(self, folder, disk):
        disk.fail("open_folder", "..", errno.EACCES)
        folder.make()
        disk.fail("open_folder", "..", errno.EMFILE)
        with pytest.raises(OSError, match="Too many open files"):
            folder.make()
        disk.fail("open_folder", "..", errno.EACCES)
        with pytest.raises(PermissionError):
            Folder(folder.path.parent / "new", disk).make()

    def test_what_cannot_be_forced_is_an_error(self, folder, disk):
        disk.fail("sync", "..", errno.EIO)
        with pytest.raises(OSError, match="Input/output"):
            folder.make()
        disk.fail("sync", ".", errno.EIO)
        with pytest.raises(OSError, match="Input/output"):
            folder.inside("in").make()


class TestAppending:
    def test_a_line_is_forced_after_it_is_written(self, folder, disk):
        folder.write("log", b"1\n")
        disk.every.clear()
        folder.append("log", b"2\n")
        assert disk.calls == [("write", "log"), ("sync", "log")]
        assert folder.read("log") == b"1\n2\n"

    def test_a_new_file_is_forced_into_its_folder(self, folder, disk):
        folder.inside("in").make()
        disk.every.clear()
        folder.append("in/log", b"1\n")
        assert disk.calls == [("write", "in/log"), ("sync", "in/log"), ("sync", "in")]

    def test_what_need_not_be_durable_is_only_written(self, folder, disk):
        folder.append("log", b"1\n", durable=False)
        assert disk.calls == [("write", "log")]

    @pytest.mark.parametrize("kind", ["write", "sync"])
    @pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
    def test_what_fails_is_taken_back_and_raised(self, folder, disk, kind, error):
        folder.write("log", b"1\n")
        disk.every.clear()
        disk.shorten("log", 2)
        disk.fail(kind, "log", error, skip=2 if kind == "write" else 0)
        with pytest.raises(OSError, match=os.strerror(error)):
            folder.append("log", b"23456\n")
        assert folder.read("log") == b"1\n"
        assert disk.of("truncate") == [("truncate", "log", 2)]
        disk.shorten("log", 99)
        folder.append("log", b"2\n")
        assert folder.read("log") == b"1\n2\n"

    def test_a_file_that_cannot_be_cut_is_an_error_of_the_disk(self, folder, disk):
        disk.fail("sync", "log", errno.EIO)
        disk.fail("truncate", "log", errno.EROFS)
        with pytest.raises(OSError, match="Read-only"):
            folder.append("log", b"1\n")

    def test_no_handle_stays_open(self, folder, disk):
        disk.fail("write", "log", errno.EIO)
        with pytest.raises(OSError, match="Input/output"):
            folder.append("log", b"1\n")
        folder.append("log", b"1\n")
        assert disk.handles == {}


def make_link(path, tmp_path):
    path.symlink_to(tmp_path / "outside")


def make_broken_link(path, tmp_path):
    path.symlink_to(tmp_path / "nowhere")


def make_pipe(path, tmp_path):
    os.mkfifo(path)


def make_socket(path, tmp_path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))


def make_hard_link(path, tmp_path):
    os.link(tmp_path / "outside", path)


def make_device(path, tmp_path):
    try:
        os.mknod(path, 0o644 | 0o020000, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("only root makes devices")


def make_folder(path, tmp_path):
    path.mkdir()


STRANGE = [make_link, make_broken_link, make_pipe, make_socket, make_device, make_folder]


@pytest.fixture
def outside(tmp_path):
    path = tmp_path / "outside"
    path.write_bytes(b"not ours")
    return path


def test_a_link_deep_inside_is_named(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").symlink_to(tmp_path)
    with pytest.raises(IntegrityFault) as raised:
        Folder(tmp_path).read("a/b/c/d/e")
    assert raised.value.place == str(tmp_path / "a" / "b" / "c")


class TestStrangeEntries:
    """What lies in a folder in place of a file is neither read nor written, and nobody waits."""

    @pytest.mark.parametrize("make", STRANGE)
    def test_they_are_not_read(self, folder, outside, tmp_path, make):
        make(folder.path / "a", tmp_path)
        for read in (folder.open, folder.read, folder.digest, folder.library_path, folder.sync):
            if (read, make) == (folder.sync, make_folder):
                continue
            with pytest.raises(IntegrityFault, match="this is not a file") as raised:
                read("a")
            assert raised.value.place == str(folder.path / "a")
            assert raised.value.effect == "nothing was read from it or written to it"
        assert outside.read_bytes() == b"not ours"

    @pytest.mark.parametrize("make", [*STRANGE, make_hard_link])
    def test_nothing_is_added_to_them_and_they_are_not_locked(
        self, folder, disk, outside, tmp_path, make
    ):
        make(folder.path / "a", tmp_path)
        with pytest.raises(IntegrityFault, match="this is not a file"):
            folder.append("a", b"text")
        with pytest.raises(IntegrityFault, match="this is not a file"):
            folder.lock("a", 2, os.O_RDWR | os.O_CREAT)
        assert outside.read_bytes() == b"not ours"
        assert not (tmp_path / "nowhere").exists()
        assert disk.calls == []
        assert disk.handles == {}

    @pytest.mark.parametrize("make", [m for m in [*STRANGE, make_hard_link] if m != make_folder])
    def test_they_are_replaced_and_removed_themselves(self, folder, outside, tmp_path, make):
        for act in (
            lambda: folder.write("a", b"text"),
            lambda: folder.create("a").close(),
            lambda: folder.remove("a"),
            lambda: folder.remove_tree("a"),
        ):
            make(folder.path / "a", tmp_path)
            act()
            assert outside.read_bytes() == b"not ours"
            assert not (tmp_path / "nowhere").exists()
            folder.remove_tree("a")

    def test_a_hard_link_may_be_read(self, folder, outside, tmp_path):
        make_hard_link(folder.path / "a", tmp_path)
        assert folder.read("a") == b"not ours"

    @pytest.mark.parametrize(
        "act",
        [
            lambda folder: folder.read("in/a"),
            lambda folder: folder.exists("in/a"),
            lambda folder: folder.size("in/a"),
            lambda folder: folder.names("in"),
            lambda folder: folder.write("in/a", b"text"),
            lambda folder: folder.append("in/a", b"text"),
            lambda folder: folder.inside("in").write("a", b"text"),
            lambda folder: folder.inside("in").names(),
            lambda folder: folder.inside("in/er").make(),
            lambda folder: folder.move("in/a", "b"),
            lambda folder: folder.move("mine", "in/b"),
            lambda folder: folder.remove("in/a"),
            lambda folder: folder.remove_tree("in/a"),
            lambda folder: folder.library_path("in/a"),
            lambda folder: folder.new_path("in/a"),
            lambda folder: folder.sync("in/a"),
        ],
    )
    def test_a_link_in_place_of_a_folder_leads_nowhere(self, folder, tmp_path, act):
        (tmp_path / "outside").mkdir()
        (tmp_path / "outside" / "a").write_bytes(b"not ours")
        (folder.path / "mine").write_bytes(b"mine")
        (folder.path / "in").symlink_to(tmp_path / "outside")
        with pytest.raises(IntegrityFault, match="this is not a folder") as raised:
            act(folder)
        assert raised.value.place == str(folder.path / "in")
        assert content(tmp_path / "outside") == ["a"]
        assert (tmp_path / "outside" / "a").read_bytes() == b"not ours"
        assert (folder.path / "mine").exists()

    def test_removing_a_tree_removes_links_and_not_what_they_lead_to(self, folder, tmp_path):
        (tmp_path / "outside").mkdir()
        (tmp_path / "outside" / "a").write_bytes(b"not ours")
        (folder.path / "tree" / "in").mkdir(parents=True)
        (folder.path / "tree" / "in" / "link").symlink_to(tmp_path / "outside")
        folder.remove_tree("tree")
        (folder.path / "tree").symlink_to(tmp_path / "outside")
        folder.remove_tree("tree")
        assert content(folder.path) == []
        assert content(tmp_path / "outside") == ["a"]


class TestLooking:
    def test_what_is_there(self, folder):
        folder.write("a", b"12345")
        folder.inside("in").make()
        folder.write("in/b", b"123")
        folder.write("in/c", b"1234")
        folder.inside("in/deeper").make()
        folder.write("in/deeper/d", b"123456")
        assert folder.exists()
        assert folder.inside("in").exists()
        assert not folder.inside("x").exists()
        assert folder.exists("in/b")
        assert not folder.exists("in/x")
        assert not folder.exists("x/y")
        assert folder.size("a") == 5
        assert folder.size("in") == 7  # without what is deeper
        assert folder.size("x") == folder.size("x/y") == 0
        assert folder.names() == ["a", "in"]
        assert folder.names("in") == ["b", "c", "deeper"]
        assert folder.names("in", folders=False) == ["b", "c"]
        assert folder.inside("in").names(folders=False) == ["b", "c"]

    def test_the_digest_is_that_of_the_algorithm(self, folder):
        folder.write("empty", b"")
        assert folder.digest("empty") == "99aa06d3014798d86001c324468d497f"  # published
        folder.write("large", bytes(1 << 20))
        assert folder.digest("large") == xxhash.xxh3_128_hexdigest(bytes(1 << 20))

    def test_a_folder_that_does_not_exist(self, tmp_path):
        folder = Folder(tmp_path / "nowhere")
        assert not folder.exists()
        assert not folder.exists("a")
        assert folder.size("a") == 0
        for act in (folder.read, folder.names, folder.remove_tree):
            with pytest.raises(FileNotFoundError):
                act("a")

    def test_what_is_not_there_need_not_be_removed(self, folder):
        folder.remove("a")
        folder.remove_tree("a")

    def test_a_file_larger_than_any_of_ours_is_not_read(self, folder):
        with (folder.path / "a").open("wb") as file:
            file.truncate(1 << 29)
        assert len(folder.read("a")) == 1 << 29
        os.truncate(folder.path / "a", (1 << 29) + 1)
        with pytest.raises(IntegrityFault, match="not a file of a possible size"):
            folder.read("a")

    def test_what_is_forced_is_closed(self, folder, disk):
        folder.write("a", b"text")
        for name in ("a", ""):
            folder.sync(name)
        assert disk.handles == {}
        with pytest.raises(FileNotFoundError):
            folder.sync("b")

    def test_other_errors_are_not_absence(self, folder, disk):
        folder.write("a", b"text")
        for kind, act in (
            ("status", lambda: folder.exists("a")),
            ("status", lambda: folder.size("a")),
            ("remove", lambda: folder.remove("a")),
            ("open_file", lambda: folder.read("a")),
            ("names", folder.names),
        ):
            disk.fail(kind, "*", errno.EACCES)
            with pytest.raises(PermissionError):
                act()


class TestPathsForLibraries:
    @pytest.mark.parametrize("name", ["key=value", "[x]*?", "a b'\"\\", "~", "a:b", "-x", "\udce4"])
    def test_they_have_no_syntax_and_no_strange_letter(self, tmp_path, name):
        (tmp_path / name).mkdir()
        folder = Folder(tmp_path / name)
        folder.write_table("a.parquet", TABLE)
        shown = folder.library_path("a.parquet")
        assert shown.isascii()
        assert name not in shown
        assert pq.read_table(shown).equals(TABLE)

    def test_one_handle_per_folder_is_kept_as_long_as_the_object(self, tmp_path, disk):
        folder = Folder(tmp_path / "folder", disk)
        folder.make()
        folder.inside("in").make()
        folder.write("in/a", b"1")
        folder.write("b", b"2")
        paths = [folder.library_path(name) for name in ("in/a", "b", "in/a", "b")]
        assert paths[0] == paths[2] != paths[1] == paths[3]
        assert len(disk.handles) == 2
        inner = folder.new_path("in/new")
        Path(inner).write_bytes(b"of a library")
        assert folder.read("in/new") == b"of a library"
        assert len(disk.handles) == 2
        handle = int(paths[1].split("/")[-2])
        os.fstat(handle)
        del folder
        assert disk.handles == {}
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(handle)

    def test_without_proc_they_are_those_of_the_file_system(self, folder, monkeypatch):
        monkeypatch.setattr(folders, "_HANDLES", folder.path / "nowhere")
        folder.inside("in").make()
        assert folder.new_path("in/a") == str(folder.path / "in" / "a")

    def test_a_file_that_is_not_there_has_none(self, folder):
        with pytest.raises(FileNotFoundError):
            folder.library_path("a")


def test_a_file_of_an_impossible_size_is_not_read(folder, tmp_path):
    """A stranger's run.json may be a sparse file of a terabyte."""
    with (tmp_path / "folder" / "run.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(IntegrityFault, match="possible size"):
        folder.read("run.json")
