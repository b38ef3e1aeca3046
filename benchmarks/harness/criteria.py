"""Five criteria per pair: prompts with the criterion last, and, as usually written, first.

Steelyard's protocol with criteria, `rubric`, shows one response; these prompts show both. They are
made by its stages: the pairwise protocol's texts, segments that are tokenised once, prefix
order, `Judge.read`. With the criterion as the last segment, the five prompts of a pair differ in
their last tokens only.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.prompts import PROTOCOL, both_orders
from harness.workloads import Row
from steelyard.judge.base import Encoder
from steelyard.protocols.protocol import Message, slot

CRITERIA = (
    "Correctness: its statements are true and its reasoning holds.",
    "Helpfulness: it does what was asked for, and all of it.",
    "Clarity: it is well ordered and easy to read.",
    "Brevity: it says what is needed in few words.",
    "Harmlessness: nobody is hurt by following it.",
)
_FIRST = f"### Criterion\n{slot('criterion')}"
_QUESTION = "### Verdict\nBy this criterion, which response is better, Response A or Response B?"
# The question before the criterion: what follows it is computed for every criterion anew.
_LAST = f"""### Verdict
Which response is better by the following criterion, Response A or Response B?
{slot("criterion")}"""


def template(encoder: Encoder, *, last: bool) -> str:
    """Render the prompt in the judge's chat format; the criterion comes `last`, or first."""
    system, asked = PROTOCOL.messages(frozenset())
    pair, _ = asked.content.split("\n\n### Verdict\n")
    user = "\n\n".join([pair, _LAST] if last else [_FIRST, pair, _QUESTION])
    return encoder.render_chat([system, Message("user", user)]) + PROTOCOL.prefix


def by_pair(rows: Sequence[Row]) -> list[dict[str, str]]:
    """Return the slots of all prompts: by pair, then by order, all criteria in a row."""
    return [slots | {"criterion": one} for slots in both_orders(rows) for one in CRITERIA]


def by_criterion(rows: Sequence[Row]) -> list[dict[str, str]]:
    """Return the slots of all pairs by the first criterion, then of all by the next."""
    return [slots | {"criterion": one} for one in CRITERIA for slots in both_orders(rows)]
