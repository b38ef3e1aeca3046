"""Opens files of text, packed by gzip or Zstandard or not, in any Unicode encoding with a mark."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
from typing_extensions import override

LONGEST = 256 << 20  # bytes of a line
READ = 4 << 20
AGAIN = "correct the file, or write it again"
_BOMS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


class _Unpacked(io.RawIOBase):
    """The bytes of a file without its packing, which it is read through."""

    def __init__(self, file: BinaryIO, packing: str | None) -> None:
        self._file: Any = file
        if packing:
            self._file = pa.CompressedInputStream(pa.PythonFile(file, "r"), packing)

    @override
    def readable(self) -> bool:
        return True

    @override
    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


@contextmanager
def unpacked(path: str, packing: str | None) -> Iterator[tuple[io.BufferedReader[Any], str]]:
    """Open a file of text; yield it after its byte order mark, and its encoding."""
    with Path(path).open("rb") as file, io.BufferedReader(_Unpacked(file, packing), READ) as reader:
        head = reader.peek(4)[:4]
        mark = next((mark for mark in _BOMS if head.startswith(mark)), b"")
        encoding = _BOMS.get(mark, "utf-8")
        if encoding == "utf-8-sig":
            reader.read(len(mark))
        yield reader, "utf-8" if encoding == "utf-8-sig" else encoding
