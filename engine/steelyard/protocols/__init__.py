"""The judging protocols, by name or by file."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from steelyard.errors import UsageError, escape
from steelyard.protocols.files import BUILTIN, load_protocol
from steelyard.protocols.protocol import Protocol


def protocol_names() -> list[str]:
    """Return the names of the built-in protocols, `pairwise` first."""
    names = (path.stem for path in BUILTIN.glob("*.toml"))
    return sorted(names, key=lambda name: (name != "pairwise", name))


@cache
def get_protocol(name: str) -> Protocol:
    """Return a built-in protocol by its name, or the user's own by its file (NAME.toml).

    Raises:
        UsageError: there is no such protocol, or the file does not hold one.
    """
    if name in protocol_names():
        return load_protocol(BUILTIN / f"{name}.toml")
    path = Path(name)
    if path.suffix == ".toml":
        return load_protocol(path)
    raise UsageError(
        f"no protocol is called {escape(name)!r}",
        remedy=f"choose one of: {', '.join(protocol_names())}; or name a protocol file (*.toml)",
    )
