"""The pairs that a reader should see: certain, uncertain, flipped, against gold, and any."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steelyard.comparisons.pair_texts import ROLES, Address, Place, addresses_of, pair_texts
from steelyard.errors import SteelyardError, UsageError, escape
from steelyard.report.aggregates import with_preference
from steelyard.store.run_record import RunRecord, ScoredRecord
from steelyard.store.snapshot import RunSnapshot
from steelyard.store.sql import Connection
from steelyard.store.verdicts.database import open_sql

LONGEST = 6_000  # characters of a text that are shown
CONFIDENCE = "abs(preference - 0.5)"
GOLD_SIDE = "CASE WHEN gold.a > gold.b THEN 'a' WHEN gold.b > gold.a THEN 'b' END"
SIDE = "CASE WHEN preference > 0.5 THEN 'a' WHEN preference < 0.5 THEN 'b' END"
# Ties of an order are broken by a hash, so that they are not all from the start of the input.
KINDS: dict[str, tuple[str, str]] = {  # -> (which pairs, in which order)
    "most certain": ("status = 'ok' AND preference IS NOT NULL", f"{CONFIDENCE} DESC"),
    # None is less certain than others where each is 0 or 1, as in an import of winners.
    "least certain": ("status = 'ok' AND preference NOT IN (0, 1)", CONFIDENCE),
    "order flipped": ("status = 'ok' AND NOT consistent", "abs(symmetry_deviation) DESC"),
    "against gold": (f"status = 'ok' AND {GOLD_SIDE} <> {SIDE}", f"{CONFIDENCE} DESC"),
    "not judged": ("status <> 'ok'", "status"),
    "any": ("status = 'ok'", 'hash(shard, "row")'),
}
NAMES = {kind: kind.removeprefix("order ").replace(" ", "_") for kind in KINDS}  # as options
COLUMNS = f"""pair_id, shard, "row", model_a, model_b, status, error, preference,
  raw_preference, calibrated_preference, preference_ab, preference_ba, score_a, score_b, winner,
  consistent, trusted, flags, {GOLD_SIDE} AS gold_side, gold"""
_WRITTEN = """
SELECT shard, "row", judge, protocol, criterion, shown, output, status, error
FROM answers WHERE output IS NOT NULL AND (shard, "row") IN (SELECT unnest(?), unnest(?))
ORDER BY ALL"""


@dataclass(frozen=True, slots=True)
class Samples:
    """Pairs of each kind that a run has, and what the judge wrote about them."""

    pairs: dict[str, list[dict[str, Any]]]  # by kind
    addresses: dict[Place, list[Address]]  # where the texts of each are

    def with_texts(self, record: RunRecord, *, remote: bool) -> dict[str, Any]:
        """Return the pairs with their texts, cut to LONGEST characters.

        Raises:
            UsageError: the run has no texts, or they may not be fetched.
            InputRefused: the shards are missing or have changed.
        """
        texts = pair_texts(record, self.addresses, remote=remote)
        for pairs in self.pairs.values():
            for pair in pairs:
                held = texts.get((pair["shard"], pair["row"]), {})
                pair["texts"] = {role: _cut(held[role]) for role in ROLES if held.get(role)}
        return self.to_json()

    def to_json(self) -> dict[str, Any]:
        """Return the pairs by kind."""
        return dict(self.pairs)


def read_pairs(
    root: Path, pair_ids: Sequence[str], numbers: Mapping[str, int], *, remote: bool = False
) -> tuple[dict[str, list[dict[str, Any]]], tuple[str, ...]]:
    """Return pairs of a run by kind, with their texts, and notes on what is not shown.

    Args:
        root: the run directory.
        pair_ids: which pairs; none: those of some kinds.
        numbers: how many pairs of each kind; none: the 3 least certain ones, or any where the
            judge is certain of all.
        remote: whether texts may be fetched from addresses that the run names.

    Raises:
        UsageError: both are given, or an id is unknown.
    """
    if pair_ids and numbers:
        raise UsageError("pairs and kinds of pairs are named", remedy="name one or the other")
    snapshot = RunSnapshot.take(root)
    with open_sql(snapshot) as connection:
        if pair_ids:
            samples = read_named(connection, snapshot, pair_ids)
        else:
            samples = read_samples(connection, snapshot, numbers or {"least certain": 3})
            if not numbers and not samples.pairs:
                samples = read_samples(connection, snapshot, {"any": 3})
    try:
        return samples.with_texts(snapshot.record, remote=remote), ()
    except SteelyardError as error:
        return samples.to_json(), (f"texts are not shown: {error.cause}",)


def read_samples(
    connection: Connection, snapshot: RunSnapshot, numbers: Mapping[str, int]
) -> Samples:
    """Choose up to that many pairs of each kind; kinds without any are left out."""
    pairs, verdicts = {}, with_preference(snapshot)
    for kind, number in numbers.items():
        which, order = KINDS[kind]
        sql = (
            f"SELECT {COLUMNS} FROM {verdicts} WHERE {which}"  # noqa: S608 - constants
            f' ORDER BY {order}, hash(shard, "row"), shard, "row" LIMIT {int(number)}'
        )
        pairs[kind] = connection.sql(sql).to_arrow_table().to_pylist()
    return _samples(connection, snapshot.record, pairs)


def read_named(connection: Connection, snapshot: RunSnapshot, pair_ids: Sequence[str]) -> Samples:
    """Return the pairs of these ids, in their order, as one kind.

    Raises:
        UsageError: an id is unknown.
    """
    sql = (
        f"SELECT {COLUMNS} FROM {with_preference(snapshot)} WHERE list_contains(?, pair_id)"  # noqa: S608 - constants
        ' ORDER BY list_position(?, pair_id), shard, "row"'
    )
    ids = list(pair_ids)
    pairs = connection.sql(sql, params=[ids, ids]).to_arrow_table().to_pylist()
    if missing := set(ids) - {pair["pair_id"] for pair in pairs}:
        raise UsageError(
            f"no pair has the id {escape(min(missing))}",
            remedy='`steelyard sql RUN "SELECT pair_id FROM verdicts"` lists them; a pair whose'
            " prompts are not all read yet has no verdict",
        )
    return _samples(connection, snapshot.record, {"named": pairs})


def _samples(
    connection: Connection, record: RunRecord, pairs: dict[str, list[dict[str, Any]]]
) -> Samples:
    shown = [pair for each in pairs.values() for pair in each]
    if shown:
        add_written(connection, record, shown)
    places = {(pair["shard"], pair["row"]) for pair in shown}
    addresses = addresses_of(connection, record, places)
    return Samples({kind: each for kind, each in pairs.items() if each}, addresses)


def add_written(connection: Connection, record: RunRecord, pairs: Iterable[dict[str, Any]]) -> None:
    """Add what the judge wrote: nothing where the protocol asks for no text, or in an import."""
    if not isinstance(record, ScoredRecord):
        for pair in pairs:
            pair["written"] = []
        return
    places = sorted({(pair["shard"], pair["row"]) for pair in pairs})
    columns = [list(column) for column in zip(*places, strict=True)]
    by_place: dict[Place, list[dict[str, Any]]] = {}
    for answer in connection.sql(_WRITTEN, params=columns).to_arrow_table().to_pylist():
        place = answer.pop("shard"), answer.pop("row")
        by_place.setdefault(place, []).append({**answer, "output": _cut(answer["output"])})
    for pair in pairs:
        pair["written"] = by_place.get((pair["shard"], pair["row"]), [])


def _cut(value: Any) -> Any:  # noqa: ANN401 - a text, or turns and criteria with texts in them
    if isinstance(value, str):
        more = len(value) - LONGEST
        return f"{value[:LONGEST]}\n[{more:,} more characters]" if more > 0 else value
    if isinstance(value, list):
        return [_cut(entry) for entry in value]
    if isinstance(value, dict):
        return {key: _cut(entry) for key, entry in value.items()}
    return value
