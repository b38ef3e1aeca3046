"""`steelyard compare A B`: two judges, protocols or prompts on the same pairs, by paired tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from steelyard.core.arrow import to_floats, to_ints, to_mask
from steelyard.core.schemas import Float64, Int64
from steelyard.errors import InputRefused, escape
from steelyard.evaluation.gold_join import judged_and_gold
from steelyard.evaluation.judged_pairs import (
    ORDERS,
    GoldSource,
    JudgedPairs,
    Source,
    optional_column,
    read_pairs,
    require_single,
)
from steelyard.evaluation.metrics.pairs import named_by_gold
from steelyard.input.roles import MODELS
from steelyard.ranking.tournament import between_two, tournament
from steelyard.statistics.clusters import cluster_warning
from steelyard.statistics.logistic import log_loss
from steelyard.statistics.means import SHARE, decided, mean
from steelyard.statistics.paired import paired_test
from steelyard.statistics.small_clusters import holm

SHARES = np.array([1.0, 0.0, 0.5])  # of a vote for a, b and a tie


@dataclass(frozen=True, slots=True)
class _Judges:
    """What two judges said of the same n pairs."""

    tables: tuple[pa.Table, pa.Table]
    cluster: Int64
    votes: Float64 | None  # [n, 3], NaN rows without gold

    def columns(self, name: str) -> tuple[Float64, Float64] | None:
        """Return a column of both; None if one lacks it."""
        first, second = (optional_column(table, name) for table in self.tables)
        return None if first is None or second is None else (first, second)

    @property
    def preference(self) -> tuple[Float64, Float64]:
        """Both judges' preferences."""
        first, second = (to_floats(table["preference"]) for table in self.tables)
        return first, second


def compare_judges(
    first: Path,
    second: Path,
    columns: Mapping[str, str],
    gold: GoldSource | None = None,
) -> dict[str, Any]:
    """Test the differences of two judges on the pairs that both have judged.

    Args:
        first: run or file; the same pair_id is the same pair.
        second: another.
        columns: role -> column, of both.
        gold: where gold is, a file or the first source; None: it is not asked for.

    Returns:
        JSON: `measures` and `competitors`, each with a value per judge and a test of the
        difference; p-values of competitors are adjusted for their number (Holm).

    Raises:
        InputRefused: a source has no pair_id, or both have no pair in common, or name the models
            of a pair differently.
        GoldRefused: gold cannot be used.
    """
    sources = Source(first, columns), Source(second, columns)
    if gold is not None:
        pairs, matched = judged_and_gold(sources[0], gold.gold, gold.gold_columns, want=MODELS)
        votes = np.full((len(pairs), 3), np.nan)
        votes[matched.rows], notes = matched.votes, matched.notes
    else:
        pairs, votes = read_pairs(sources[0], MODELS), None
        notes = pairs.notes
    judges, counts = _join(sources, pairs, votes)
    same = (decided(judges.preference[0]) == decided(judges.preference[1])).astype(np.float64)
    agreement = mean(same, judges.cluster, bounds=SHARE)
    lower, upper = agreement.interval()
    warning = cluster_warning(agreement.clusters)
    return {
        "first": str(first),
        "second": str(second),
        **counts,
        "clusters": agreement.clusters,
        "same_side": {"value": agreement.value, "lower": lower, "upper": upper},
        "measures": [
            _difference(name, values, judges.cluster) for name, values in _measures(judges)
        ],
        "competitors": _competitors(judges),
        "warnings": [*notes, *([warning] if warning else [])],
    }


def _join(
    sources: tuple[Source, Source], pairs: JudgedPairs, votes: Float64 | None
) -> tuple[_Judges, dict[str, int]]:
    other = read_pairs(sources[1], MODELS)
    for source, judged in zip(sources, (pairs, other), strict=True):
        _require_pair_ids(source, judged)
    index = pc.index_in(
        pairs.table["pair_id"].combine_chunks(), value_set=other.table["pair_id"].combine_chunks()
    )
    both = to_mask(index.is_valid())
    if not both.any():
        ids = [escape(judged.table["pair_id"][0].as_py()) for judged in (pairs, other)]
        raise InputRefused(
            f"no pair in common: the first pair_ids are {ids[0]} and {ids[1]}",
            place=str(sources[1].path),
            remedy="judge the same shards twice, or name the column: --map pair_id=COLUMN",
        )
    mine = pairs.table.filter(pa.array(both))
    theirs = other.table.take(pa.array(to_ints(index.drop_null())))
    _require_same_models(mine, theirs, sources[1].path)
    counts = {
        "pairs": len(mine),
        "only_first": len(pairs) - len(mine),
        "only_second": len(other) - len(mine),
    }
    votes = None if votes is None else votes[both]
    return _Judges((mine, theirs), pairs.groups[both], votes), counts


def _require_pair_ids(source: Source, pairs: JudgedPairs) -> None:
    if "pair_id" not in pairs.table.column_names:
        raise InputRefused(
            "no column for pair_id, on which both judges are joined",
            place=str(source.path),
            remedy="name it: --map pair_id=COLUMN",
        )
    require_single(source, pairs.table)


def _require_same_models(mine: pa.Table, theirs: pa.Table, place: Path) -> None:
    """Refuse pairs whose responses come from other models, or the other way round."""
    if not all(set(MODELS) <= set(table.column_names) for table in (mine, theirs)):
        return
    differ = np.zeros(len(mine), np.bool_)
    for name in MODELS:
        a, b = (table[name].cast(pa.string()).combine_chunks() for table in (mine, theirs))
        differ |= ~to_mask(pc.equal(a, b))
    if differ.any():
        row = int(np.flatnonzero(differ)[0])
        raise InputRefused(
            f"{int(differ.sum()):,} of {len(mine):,} pairs have the same pair_id and other models"
            f" as a and b, the first {escape(mine['pair_id'][row].as_py())}",
            place=str(place),
            remedy="compare judges of the same pairs, in the same order of a and b",
        )


Measured = tuple[str, tuple[Float64, Float64]]  # name, a value per pair and judge


def _measures(judges: _Judges) -> list[Measured]:
    """Return what both judges have, with NaN where a pair does not have it."""
    measures: list[Measured] = []
    orders = [judges.columns(name) for name in ORDERS]
    if all(orders):
        (ab, other_ab), (ba, other_ba) = (order for order in orders if order)
        survive = _survives(ab, ba), _survives(other_ab, other_ba)
        measures.append(("consistency", survive))
        measures.append(("first_position", (ab - ba, other_ab - other_ba)))
    if judges.votes is None:
        return measures
    target = judges.votes @ SHARES / judges.votes.sum(axis=1)
    with_gold = np.isfinite(target)
    named = []
    for preference in judges.preference:
        values = np.full(len(target), np.nan)
        values[with_gold] = named_by_gold(preference[with_gold], judges.votes[with_gold])
        named.append(values)
    first, second = judges.preference
    measures.append(("agreement", (named[0], named[1])))
    measures.append(("mse", ((first - target) ** 2, (second - target) ** 2)))
    losses = log_loss(first, target), log_loss(second, target)
    measures.append(("vote_log_loss", losses))
    return measures


def _survives(ab: Float64, ba: Float64) -> Float64:
    """Return 1 where both orders name the same side, NaN where one has no preference."""
    known = np.isfinite(ab) & np.isfinite(ba)
    return np.where(known, decided(ab) == decided(ba), np.nan)


def _difference(
    name: str,
    values: tuple[Float64, Float64],
    cluster: Int64,
) -> dict[str, Any]:
    first, second = values
    known = np.isfinite(first) & np.isfinite(second)
    test = paired_test(second[known] - first[known], cluster[known])
    return {
        "measure": name,
        "first": float(first[known].mean()),
        "second": float(second[known].mean()),
        **test.to_json(),
    }


def _competitors(judges: _Judges) -> list[dict[str, Any]]:
    """Return what each competitor wins of its pairs, by both judges; nothing without names."""
    table = judges.tables[0]
    if not set(MODELS) <= set(table.column_names):
        return []
    rows = between_two(table)
    if not rows.any():
        return []
    contest = tournament(table.filter(pa.array(rows)))
    cluster, size = judges.cluster[rows], contest.size
    swapped = [np.where(contest.swapped, 1 - x[rows], x[rows]) for x in judges.preference]
    content = []
    for position, name in enumerate(contest.competitors):
        first = contest.rows.pair // size == position
        mine = first | (contest.rows.pair % size == position)
        own = [np.where(first, x, 1 - x)[mine] for x in swapped]
        row = _difference(name, (own[0], own[1]), cluster[mine])
        content.append({"competitor": row.pop("measure"), **row})
    tested = [row for row in content if row["p_value"] is not None]
    adjusted = holm(np.array([row["p_value"] for row in tested]))
    for row, p_value in zip(tested, adjusted.tolist(), strict=True):
        row["p_value"] = p_value
    return content
