"""What a judge wrote about pairs, as completions to train on: the rows of the format `trace`."""

from __future__ import annotations

from steelyard.errors import UsageError
from steelyard.export.options import ExportOptions
from steelyard.protocols.protocol import Protocol
from steelyard.protocols.rules import RULES
from steelyard.store.run_record import RunRecord, ScoredRecord

# Pairs about which the judge did not write a verdict in both orders.
UNANSWERED = "n NOT IN (SELECT n FROM traces GROUP BY n HAVING count(DISTINCT shown) = 2)"


def traced_protocol(record: RunRecord) -> Protocol:
    """Return the protocol whose prompts and answers become rows.

    Raises:
        UsageError: the run has no text of a judge on pairs, or its prompts depend on more than the
            texts of a pair.
    """
    remedy = "score the pairs with one judge that writes: --protocol rationale"
    if not isinstance(record, ScoredRecord):
        raise _no_traces("its verdicts were imported, without what a judge wrote", remedy)
    protocol, axes = record.spec.protocol, record.spec.axes
    if protocol.answer == "label":
        raise _no_traces(f"under the protocol {protocol.name} the judge writes nothing", remedy)
    if protocol.shows != "pair":
        raise _no_traces(f"the protocol {protocol.name} does not show pairs", remedy)
    if axes.judges * axes.variants > 1:
        raise _no_traces("several judges or protocols wrote about each pair", remedy)
    if protocol.has_examples or "criterion" in protocol.names:
        raise _no_traces(f"the prompts of {protocol.name} hold worked examples or criteria", remedy)
    return protocol


def _no_traces(cause: str, remedy: str) -> UsageError:
    return UsageError(
        f"the format trace cannot be made of this run: {cause}",
        effect="nothing was written",
        remedy=remedy,
    )


def outputs_sql(protocol: Protocol) -> str:
    """Return the query over `answers` for texts that hold a verdict, and the side they favour.

    `favours` is 1 for response_a, -1 for response_b and 0 for neither.
    """
    rule = RULES[protocol.combine]
    return f"""
SELECT shard, "row", shown, sample, output, sign({rule.side} - {rule.middle!r}) AS favours
FROM answers WHERE status = 'ok' AND output IS NOT NULL AND forced IS NOT TRUE"""  # noqa: S608


def traces_sql(options: ExportOptions) -> str:
    """Return the statement for `traces`: texts by the number n of their pair."""
    kept = "o.favours = sign(v.gold.a - v.gold.b)" if options.correct else "true"
    return f"""
CREATE TABLE traces AS SELECT t.n, o.shown, o.sample, o.output
FROM outputs o JOIN pair_texts t USING (shard, "row") JOIN verdicts v USING (shard, "row")
WHERE {kept}"""  # noqa: S608 - our own names
