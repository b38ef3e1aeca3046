"""Images at the door: which columns hold them, what is taken, how it is shown."""

from __future__ import annotations

import io

import pyarrow as pa
import pytest

import steelyard
from steelyard.core.images import BadImageError, decode_image, image_digest, read_digests
from steelyard.input import open_shards, stream
from support.pictures import RED, Image, picture, table, write


def door(folder, content, **options):
    """Digests of the accepted rows by row, and details of the others."""
    accepted, refused = {}, {}
    for rows, rejects in stream(open_shards([write(folder, content)]), **options):
        for row in rows.to_pylist():
            accepted[row["row"]] = read_digests(row["images"])
        for row in rejects.to_pylist():
            assert row["reason"] == "images"
            refused[row["row"]] = row["detail"]
    return accepted, refused


def test_each_kind_of_column_gives_the_same_digests(tmp_path):
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "sub" / "red.png").write_bytes(RED)
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    red, path = {"bytes": RED, "path": "elsewhere.png"}, {"bytes": None, "path": "sub/red.png"}
    columns = [
        pa.array([RED, None]),
        pa.array([RED, None], pa.large_binary()),
        pa.array([[RED], []]),
        pa.array(["sub/red.png", None]),
        pa.array([["sub/../sub/red.png"], None]),
        pa.array([red, None], struct),
        pa.array([path, None], struct),
        pa.array([[path], []], pa.list_(struct)),
    ]
    for column in columns:
        accepted, refused = door(tmp_path / "in", table(column, column.type))
        assert accepted == {0: (image_digest(RED),), 1: ()}, column.type
        assert not refused


def test_what_is_not_an_image_of_the_input_is_a_reject(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "outside.png").write_bytes(RED)
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "text.png").write_text("no image")
    (folder / "torn.png").write_bytes(RED[: len(RED) // 2])
    with (folder / "large.png").open("wb") as file:
        file.truncate((16 << 20) + 1)
    bad = {
        "../outside.png": "outside",
        str(tmp_path / "outside.png"): "outside",
        "link.png": "outside",
        "loop.png": "cannot be read",
        "missing.png": "No such file",
        ".": "not a file",
        "a\0b": "the path is not valid",
        "": "neither bytes nor a path",
        "https://example.com/a.png": "not a file in the shard's folder",
        "data:image/png;base64,AAAA": "not a file in the shard's folder",
        "text.png": "cannot be decoded",
        "torn.png": "cannot be decoded",
        "large.png": "the limit is 16,777,216",
    }
    accepted, refused = door(folder, table([[path] for path in bad]))
    assert not accepted
    for row, word in enumerate(bad.values()):
        assert word in refused[row], (list(bad)[row], refused[row])
        assert refused[row].startswith("image 1 ")


def test_too_many_images_and_absent_ones_are_rejects(tmp_path):
    rows = [[RED] * 8, [RED] * 9, [RED, None], [RED, b""]]
    accepted, refused = door(tmp_path / "in", table(rows))
    assert accepted == {0: (image_digest(RED),) * 8}
    assert "9 images" in refused[1]
    assert refused[2].startswith("image 2 has neither")
    assert refused[3].startswith("image 2 cannot be decoded")


def test_a_bomb_is_refused_by_its_header():
    for side in (8_000, 30_000):  # 64 and 900 megapixels
        bomb = bytearray(picture(0, (2, 2), "BMP"))
        bomb[18:26] = side.to_bytes(4, "little") * 2
        with pytest.raises(BadImageError, match="more than 50,000,000 pixels"):
            decode_image(bytes(bomb))


def test_transparent_is_white_and_every_image_is_rgb():
    clear = io.BytesIO()
    Image.new("RGBA", (2, 3), (255, 0, 0, 0)).save(clear, "PNG")
    shown = decode_image(clear.getvalue())
    assert (shown.mode, shown.size, shown.getpixel((0, 0))) == ("RGB", (2, 3), (255, 255, 255))
    grey = io.BytesIO()
    Image.new("L", (2, 3), 7).save(grey, "PNG")
    assert decode_image(grey.getvalue()).getpixel((1, 1)) == (7, 7, 7)


def test_a_column_without_images_is_refused_by_name(tmp_path):
    write(tmp_path / "in", table([1, 2]))
    with pytest.raises(steelyard.errors.InputRefused, match="images"):
        open_shards([tmp_path / "in"])
    assert "images" not in open_shards([tmp_path / "in"], {"images": ""}).roles
