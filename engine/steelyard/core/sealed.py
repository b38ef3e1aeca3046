"""JSON texts that carry a check of themselves: a changed bit is noticed when they are read.

The last key is `check`: the hash (xxh3_128, 32 hex digits) of the whole text with zeros in its
place. Texts of versions before it have no such key, and are taken as they are.
"""

from __future__ import annotations

import json
import re
from typing import Any

import xxhash

CHECK = "check"
_ZEROS = "0" * 32
_SEAL = re.compile(rb'("check": ?")([0-9a-f]{32})("\s*\}\s*)\Z')


def seal(content: dict[str, Any], indent: int | None = None) -> bytes:
    """Return an object as JSON in UTF-8 with its check; one line if there is no `indent`."""
    whole = {**content, CHECK: _ZEROS}
    try:
        text = json.dumps(whole, indent=indent, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:  # a file name that is not UTF-8
        text = json.dumps(whole, indent=indent, allow_nan=False).encode()
    before, _, after = (text + b"\n").rpartition(_ZEROS.encode())
    return before + _digest(text + b"\n") + after


def unseal(raw: bytes) -> tuple[dict[str, Any], bool]:
    """Read an object of JSON without its check, and whether it had one.

    Raises:
        ValueError: this is not an object of JSON, or its bytes are not those that were sealed.
    """
    try:
        content = json.loads(raw.decode(), parse_constant=_refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError("it holds no object")  # noqa: TRY004 - of the text, not of a caller
    if CHECK not in content:
        return content, False
    del content[CHECK]
    ending = _SEAL.search(raw)
    zeroed = _SEAL.sub(rb"\g<1>" + _ZEROS.encode() + rb"\g<3>", raw)
    if ending is None or _digest(zeroed) != ending[2]:
        raise ValueError("its bytes are not those that were written")
    return content, True


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not a number of JSON")


def _digest(text: bytes) -> bytes:
    return xxhash.xxh3_128_hexdigest(text).encode()
