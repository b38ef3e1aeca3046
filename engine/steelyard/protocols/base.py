"""What a judging protocol is: a template of segments, labels, orders, and how reads combine.

The next protocol is one short file beside this one, entered in `protocols/__init__.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from steelyard.records import Message

# Marks that stand for data while a chat template is rendered; it never sees data itself.
SLOT = re.compile(r"\[\[slot:([a-z_]+)\]\]")

# Slots that a pair always fills, and those that it may. `first` and `second` are the responses as
# presented: a, b in order ab; b, a in order ba.
REQUIRED_SLOTS = ("instruction", "first", "second")
OPTIONAL_SLOTS = ("system", "conversation")


def slot(name: str) -> str:
    """The mark of a slot in a template."""
    return f"[[slot:{name}]]"


@dataclass(frozen=True, slots=True)
class Protocol:
    """A way of judging a pair.

    `sections` are the user message's parts in their order, as (needs, text): a part with `needs`
    is left out where the pair has no such text. `verdict_sql` maps each verdict column to a SQL
    expression over `ab` and `ba`, the reads in both orders; it is the one definition of how reads
    combine, for live views and for compaction.
    """

    name: str
    version: int
    labels: tuple[str, ...]
    system: str
    sections: tuple[tuple[str | None, str], ...]
    answer_prefix: str
    verdict_sql: tuple[tuple[str, str], ...]

    def messages(self, present: frozenset[str]) -> list[Message]:
        """The chat for pairs that have the optional texts named in `present`."""
        user = "\n\n".join(
            text for needs, text in self.sections if needs is None or needs in present
        )
        return [Message("system", self.system), Message("user", user)]
