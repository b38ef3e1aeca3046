"""The judging protocols, by name."""

from __future__ import annotations

from steelyard.errors import UsageError
from steelyard.protocols.base import Protocol
from steelyard.protocols.pairwise import PAIRWISE

PROTOCOLS: dict[str, Protocol] = {protocol.name: protocol for protocol in (PAIRWISE,)}


def get_protocol(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
        UsageError: there is none.
    """
    try:
        return PROTOCOLS[name]
    except KeyError:
        raise UsageError(
            f"no protocol is called {name!r}",
            remedy=f"choose one of: {', '.join(sorted(PROTOCOLS))}",
        ) from None
