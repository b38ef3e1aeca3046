"""The run record: what run.json says of every run."""

from __future__ import annotations

import platform
import sys
import uuid
from importlib import metadata
from typing import Any

from steelyard._version import __version__
from steelyard.input import ShardSet
from steelyard.store.rundir import now


def new_record(shards: ShardSet, **content: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON values
    """A passport: when, of which input and on which machine a run was begun, and its content."""
    return {
        "steelyard": __version__,
        "run": str(uuid.uuid4()),
        "created": now(),
        **content,
        "input": {
            "fingerprint": shards.fingerprint,
            "shards": [source.name for source in shards.sources],
            "rows": shards.rows,
        },
        "machine": {
            "host": platform.node(),
            "system": platform.platform(),
            "python": sys.version.split()[0],
            **{name: metadata.version(name) for name in ("pyarrow", "duckdb", "numpy")},
        },
    }
