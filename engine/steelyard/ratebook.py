"""Remembers how fast each judge was on this machine, so that `plan` can tell a time."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path


def _path() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "steelyard" / "rates.json"


def look_up(fingerprint: str) -> float | None:
    """Computed prompt tokens a second of the last run with this judge fingerprint."""
    rate = _load().get(fingerprint)
    return float(rate) if isinstance(rate, int | float) and rate > 0 else None


def note(fingerprint: str, computed_tokens_per_second: float) -> None:
    """Keep a rate; a cache folder that cannot be written is no error."""
    rates = _load()
    rates.pop(fingerprint, None)
    rates[fingerprint] = round(computed_tokens_per_second, 3)
    path = _path()
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{os.getpid()}")
        temporary.write_text(json.dumps(dict(list(rates.items())[-200:])), encoding="utf-8")
        temporary.replace(path)


def _load() -> dict[str, float]:
    try:
        content = json.loads(_path().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
