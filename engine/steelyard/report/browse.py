"""Filters over the verdicts of a run, as a page asks for them; values are bound, never pasted."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from steelyard.report.aggregates import BINS, with_preference
from steelyard.report.samples import COLUMNS, CONFIDENCE, GOLD_SIDE, SIDE
from steelyard.store.snapshot import RunSnapshot
from steelyard.store.sql import Connection

PAGE = 25  # pairs that are sent at once
_ORDERS = {
    "input": 'shard, "row"',
    "most certain": f'{CONFIDENCE} DESC, shard, "row"',
    "least certain": f'{CONFIDENCE}, shard, "row"',
    "most flipped": 'abs(symmetry_deviation) DESC, shard, "row"',
}
_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
_Text = Annotated[str, msgspec.Meta(max_length=500)]


class Filter(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which pairs to show; what is None filters nothing."""

    low: _Share = 0.0  # preferences from here
    high: _Share = 1.0  # to here
    winner: Literal["a", "b", "tie"] | None = None
    order: Literal["consistent", "flipped"] | None = None
    gold: Literal["with", "against"] | None = None  # what gold says
    status: _Text | None = None
    model: _Text | None = None  # on either side
    pair_id: _Text | None = None  # contains this text
    flag: _Text | None = None
    trusted: bool | None = None
    sort: Literal["input", "most certain", "least certain", "most flipped"] = "input"
    page: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0

    def condition(self) -> tuple[str, list[Any]]:
        """Return the condition in SQL, and the values of its parameters."""
        parts = ["true"]
        values: list[Any] = []

        def add(sql: str, *bound: object) -> None:
            parts.append(sql)
            values.extend(bound)

        if (self.low, self.high) != (0.0, 1.0):
            add("preference BETWEEN ? AND ?", self.low, self.high)
        if self.winner:
            add("winner = ?", self.winner)
        if self.order:
            add("consistent" if self.order == "consistent" else "NOT consistent")
        if self.gold:
            add(f"{GOLD_SIDE} {'=' if self.gold == 'with' else '<>'} {SIDE}")
        if self.status:
            add("status = ?", self.status)
        if self.model:
            add("(model_a = ? OR model_b = ?)", self.model, self.model)
        if self.pair_id:
            add("contains(pair_id, ?)", self.pair_id)
        if self.flag:
            add("list_contains(flags, ?)", self.flag)
        if self.trusted is not None:
            add("trusted" if self.trusted else "NOT trusted")
        return " AND ".join(parts), values


def matching(connection: Connection, snapshot: RunSnapshot, wanted: Filter) -> dict[str, Any]:
    """Return how many pairs match, their preferences in bins, and one page of them."""
    condition, values = wanted.condition()
    verdicts = with_preference(snapshot)
    # least() passes over NULL: pairs without a preference would be in the last bin.
    counted = connection.execute(
        f"SELECT CASE WHEN p IS NOT NULL THEN least(floor(p * {BINS})::INTEGER, {BINS - 1}) END"  # noqa: S608 - constants and parameters
        f" AS bin, count(*) FROM (SELECT preference AS p FROM {verdicts} WHERE {condition})"
        " GROUP BY bin ORDER BY bin",
        values,
    ).fetchall()
    rows = connection.execute(
        f"SELECT {COLUMNS} FROM {verdicts} WHERE {condition} ORDER BY {_ORDERS[wanted.sort]}"  # noqa: S608 - constants and parameters
        f" LIMIT {PAGE} OFFSET {wanted.page * PAGE}",
        values,
    )
    names = [column[0] for column in rows.description]
    return {
        "pairs": sum(pairs for _, pairs in counted),
        "histogram": [{"bin": bin_, "pairs": n} for bin_, n in counted if bin_ is not None],
        "page": wanted.page,
        "pages": -(-sum(pairs for _, pairs in counted) // PAGE),
        "rows": [dict(zip(names, row, strict=True)) for row in rows.fetchall()],
    }
