"""The user's cache folder, shared by weight digests and the embedded judge."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/steelyard`, by default under `~/.cache`; it may not exist yet."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "steelyard"
