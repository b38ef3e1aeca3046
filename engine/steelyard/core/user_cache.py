"""The user's cache folder: weight digests, the embedded judge, and how fast each judge was."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/steelyard`, by default under `~/.cache`; it may not exist yet."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "steelyard"


_RATES = "rates.json"
_MOST_RATES = 200


def last_rate(fingerprint: str) -> float | None:
    """Computed prompt tokens a second of the last run with this judge fingerprint."""
    rate = _load().get(fingerprint)
    return float(rate) if isinstance(rate, int | float) and rate > 0 else None


def remember_rate(fingerprint: str, computed_tokens_per_second: float) -> None:
    """Keep a rate; a cache folder that cannot be written is no error."""
    rates = _load()
    rates.pop(fingerprint, None)
    rates[fingerprint] = round(computed_tokens_per_second, 3)
    path = cache_folder() / _RATES
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{os.getpid()}")
        temporary.write_text(json.dumps(dict(list(rates.items())[-_MOST_RATES:])), encoding="utf-8")
        temporary.replace(path)


def _load() -> dict[str, float]:
    try:
        content = json.loads((cache_folder() / _RATES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
