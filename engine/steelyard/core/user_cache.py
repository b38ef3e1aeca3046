"""The user's cache folder; it also remembers how fast each judge was on this machine."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

_RATES = "rates.json"


def cache_folder() -> Path:
    """Return `$XDG_CACHE_HOME/steelyard`, by default under `~/.cache`; it may not exist yet."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "steelyard"


def last_rate(fingerprint: str) -> float | None:
    """Return computed prompt tokens per second of the last run with this judge fingerprint."""
    rate = load_cached(_RATES).get(fingerprint)
    return float(rate) if isinstance(rate, int | float) and rate > 0 else None


def remember_rate(fingerprint: str, computed_tokens_per_second: float) -> None:
    """Remember a rate, and forget the oldest of more than 200."""
    rates = load_cached(_RATES)
    rates.pop(fingerprint, None)
    rates[fingerprint] = round(computed_tokens_per_second, 3)
    save_cached(_RATES, dict(list(rates.items())[-200:]))


def load_cached(name: str) -> dict[str, Any]:
    """Read a JSON object from the cache folder; a file that cannot be read is an empty one."""
    try:
        content = json.loads((cache_folder() / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def save_cached(name: str, content: dict[str, Any]) -> None:
    """Write a JSON object to the cache folder in one step; a folder without access is ignored."""
    path = cache_folder() / name
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{name}.{os.getpid()}")
        temporary.write_text(json.dumps(content), encoding="utf-8")
        temporary.replace(path)
