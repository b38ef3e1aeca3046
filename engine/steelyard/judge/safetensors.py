"""Whether a safetensors file is whole, told from its header without reading the tensors."""

from __future__ import annotations

import json
from pathlib import Path

from steelyard.errors import JudgeUnavailable, escape

_LONGEST_HEADER = 100 << 20  # the format's own limit


def require_whole(path: Path) -> None:
    """Compare the file's size with what its header promises.

    The format: 8 bytes with the length of the header, the header (JSON, with the byte range of each
    tensor), the tensors (https://github.com/huggingface/safetensors, "Format").

    Raises:
        JudgeUnavailable: the header cannot be read, or bytes are missing.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= min(_LONGEST_HEADER, size - 8):
                raise ValueError("its header has no sensible length")
            header = json.loads(stream.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name[:2] != "__"]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise _damaged(path, f"not a safetensors file: {escape(error)}") from None
    expected = 8 + length + max(ends, default=0)
    if size != expected:
        raise _damaged(path, f"{size:,} bytes, its header tells of {expected:,}")


def _damaged(path: Path, cause: str) -> JudgeUnavailable:
    return JudgeUnavailable(
        f"the weights are damaged or cut short: {cause}",
        place=str(path),
        effect="nothing was read",
        remedy="fetch the model's files again",
    )
