"""JSON files as they should not be: bytes, values of wrong types, and things that are no files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

DEEP = 100_000
BYTES: dict[str, bytes] = {
    "empty": b"",
    "blank": b" \n\t ",
    "nul": bytes(64),
    "binary": bytes(range(256)) * 8,
    "latin-1": '{"ä": 1}'.encode("latin-1"),
    "utf-16": '{"a": 1}'.encode("utf-16"),
    "with a byte order mark": b"\xef\xbb\xbf{}",
    "cut in a character": '{"ä'.encode()[:-1],
    "null": b"null",
    "true": b"true",
    "number": b"1",
    "text": b'"x"',
    "list": b"[]",
    "list of objects": b"[{}]",
    "not a number": b"NaN",
    "empty object": b"{}",
    "open": b"{",
    "cut at a colon": b'{"a":',
    "comma at the end": b'{"a": 1,}',
    "no colon": b'{"a" 1}',
    "quotes": b"{'a': 1}",
    "comment": b'{"a": 1} // x',
    "two values": b"{}{}",
    "key without quotes": b"{a: 1}",
    "raw line end in a text": b'{"a": "x\ny"}',
    "bad escape": b'{"a": "\\x"}',
    "lone surrogate": b'{"a": "\\ud800", "\\udc00": 1}',
    "key twice": b'{"a": 1, "a": 2}',
    "huge number": b'{"a": ' + b"9" * 5000 + b"}",
    "number out of range": b'{"a": 1e999}',
    "infinite": b'{"a": -Infinity}',
    "deep lists": b"[" * DEEP + b"]" * DEEP,
    "deep lists in an object": b'{"a": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    "deep objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "deep and open": b"[" * DEEP,
}
VALUES: list[Any] = [
    None, True, 0, -1, 7, 1.5, float("nan"), float("inf"), 1 << 40, 10**400, "", "x", "\ud800",
    [], [1], ["x"], [None], [[]], [{}], {}, {"x": 1}, {"type": "x"}, {"content": 1},
]  # fmt: skip


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


THINGS: dict[str, Callable[[Path], None]] = {
    "pipe": _fifo,
    "folder": Path.mkdir,
    "link to nothing": lambda path: path.symlink_to("nothing"),
    "link to itself": _loop,
    "link to an endless device": lambda path: path.symlink_to("/dev/zero"),
    "link to a folder": lambda path: path.symlink_to("/"),
}


def remove(path: Path) -> None:
    """Remove a file, or a thing in place of it."""
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def mutations(content: Any, deepest: int = 4, entries: int = 40) -> Iterator[tuple[str, Any]]:
    """Yield copies of a JSON value with one key left out or of another type, with its path.

    Of long lists and objects the first entries are changed.
    """
    for path in list(_paths(content, deepest, entries)):
        yield f"without {path}", _changed(content, path, None, leave_out=True)
        for value in VALUES:
            yield f"{path} = {repr(value)[:20]}", _changed(content, path, value)


def _paths(content: Any, depth: int, entries: int) -> Iterator[tuple[Any, ...]]:
    items: Any = ()
    if isinstance(content, dict):
        items = list(content.items())[:entries]
    elif isinstance(content, list):
        items = list(enumerate(content))[:2]
    for key, value in items:
        yield (key,)
        if depth > 1:
            for rest in _paths(value, depth - 1, 3):
                yield (key, *rest)


def _changed(content: Any, path: tuple[Any, ...], value: Any, *, leave_out: bool = False) -> Any:
    copy = json.loads(json.dumps(content))
    place = copy
    for key in path[:-1]:
        place = place[key]
    if leave_out:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return copy
