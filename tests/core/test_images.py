"""Images: the digests in a plan become names of files, so they are nothing but digests."""

from __future__ import annotations

import errno
import json
import os

import pytest

from steelyard.core.images import MOST_IMAGES, image_digest, read_digests, write_digests
from steelyard.errors import EnvironmentFault, IntegrityFault
from steelyard.judge.vllm.inputs import image_prompt
from steelyard.store.folder import Folder
from steelyard.store.images import ImageStore
from support.recording_disk import RecordingDisk

GOOD = image_digest(b"x")


def test_digests_come_back():
    assert read_digests(None) == ()
    assert read_digests(write_digests([GOOD, image_digest(b"")])) == (GOOD, image_digest(b""))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "{}",
        '"' + GOOD + '"',
        "[1]",
        json.dumps(["../../../../../../../etc/passwd"]),
        json.dumps(["/etc/passwd"]),
        json.dumps([GOOD + "\n"]),
        json.dumps([GOOD.upper()]),
        json.dumps([GOOD] * (MOST_IMAGES + 1)),
        "[" * 100_000,
        '["\ud800"]',
    ],
)
def test_a_plan_of_a_stranger_cannot_name_other_files(text):
    with pytest.raises(IntegrityFault, match="are not digests") as refused:
        read_digests(text)
    assert refused.value.remedy


def images_of(tmp_path):
    return ImageStore(Folder(tmp_path)), tmp_path


def test_an_image_that_is_too_large_is_not_read(tmp_path):
    store, folder = images_of(tmp_path)
    store.add(GOOD, b"x")
    with (folder / GOOD[:2] / GOOD).open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(IntegrityFault, match="damaged or missing"):
        store.get(GOOD)


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.EACCES])
@pytest.mark.parametrize("call", ["open_file", "read"])
def test_an_image_that_the_machine_does_not_give_is_not_called_damaged(tmp_path, call, number):
    """The image is whole, so a new run directory would be the wrong remedy."""
    disk = RecordingDisk(tmp_path)
    store = ImageStore(Folder(tmp_path, disk))
    store.add(GOOD, b"x")
    disk.fail(call, f"*{GOOD}", number)
    with pytest.raises(EnvironmentFault, match=os.strerror(number)) as fault:
        store.get(GOOD)
    assert GOOD in fault.value.place
    assert "new run directory" not in fault.value.remedy


def test_a_kept_file_that_is_not_an_image_is_an_integrity_error(tmp_path):
    store, _ = images_of(tmp_path)
    store.add(GOOD, b"x")
    with pytest.raises(IntegrityFault, match="cannot be decoded as PNG"):
        image_prompt(store, [1], [GOOD])
