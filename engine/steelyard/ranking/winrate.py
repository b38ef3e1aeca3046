"""`steelyard winrate`: competitors against a baseline, raw and at equal length or style."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from steelyard.comparisons.read import Comparisons, NothingLeft, read_comparisons
from steelyard.core.arrow import to_floats, to_mask
from steelyard.core.schemas import Bool, Float64, Int64, UInt64
from steelyard.errors import InputRefused, UsageError, escape
from steelyard.input.roles import LENGTHS, MODELS
from steelyard.ranking.length_control import Controlled, relative_difference
from steelyard.ranking.report import (
    LEVEL,
    estimate_json,
    format_names,
    source,
    standard_error_or_none,
)
from steelyard.ranking.style import FEATURES, read_with_style
from steelyard.ranking.tournament import clusters_of, similar_names
from steelyard.ranking.win_rate_sensitivity import fewest_verdicts
from steelyard.ranking.win_rates import BaselineComparisons, WinRate, best_first, win_rates
from steelyard.statistics.clusters import MIN_FOR_INTERVAL

WANT = ("instruction", "weight", *LENGTHS)
DIFFICULTIES = (
    "give Parquet with the columns instruction_id (or instruction, or prompt) and difficulty, in"
    " log-odds; --map names columns of SOURCE, not of this file"
)


def winrate(
    path: Path,
    columns: Mapping[str, str],
    baseline: str,
    *,
    difficulty: Path | None = None,
    style: bool = False,
    remote: bool = False,
) -> dict[str, Any]:
    """Compute win rates against a baseline, of a run or a file.

    Args:
        path: run or file.
        columns: role -> column.
        baseline: the competitor that the others are compared with.
        difficulty: Parquet with an instruction and its `difficulty`, in log-odds; None: learned.
        style: whether to hold style equal, for which texts are read.
        remote: whether these may be fetched from addresses that a run names.

    Returns:
        JSON: `win_rates`, best first; what was read and left out.

    Raises:
        UsageError: no competitor has that name, or a column is missing.
        InputRefused: values cannot be used.
    """
    reader = partial(read_with_style, remote=remote) if style else read_comparisons
    read = reader(path, columns, (*MODELS, "preference"), WANT)
    table, own = _against(read.table, baseline)
    table, unknown = _without_lengths(table)
    hard = None if difficulty is None else _difficulty(table, difficulty)
    # The baseline against itself comes separately: no difficulty is learned from it.
    sides = [_rows(table, baseline, hard, mask) for mask in (~own, own)]
    rates = [rate for rows in sides for rate in win_rates(rows)]
    used = str(difficulty) if difficulty else _learned(rates, baseline)
    return {
        **source(path, read),
        "rows": len(table),
        "baseline": baseline,
        "difficulty": used,
        "win_rates": [_as_json(rate) for rate in best_first(rates)],
        "sensitivity": {"verdicts": _sensitivity(sides[0])},
        "warnings": [*unknown, *_warnings(rates, baseline, int(own.sum()))],
    }


def _sensitivity(rows: BaselineComparisons) -> dict[str, Any] | None:
    """Return how few verdicts decide whose win rate is highest; None with unequal weights."""
    if not len(rows.code) or np.ptp(rows.weight):
        return None
    order = np.argsort(rows.code, kind="stable")
    present, starts = np.unique(rows.code[order], return_index=True)
    if (fewest := fewest_verdicts(np.split(rows.preference[order], starts[1:]))) is None:
        return None
    removed, first = fewest
    name = rows.competitor[present[first]]
    return {"removed": removed, "of": len(order), "first": name, "at_least": removed}


def _without_lengths(table: pa.Table) -> tuple[pa.Table, list[str]]:
    """Return the table without its lengths if any row lacks one, with a warning."""
    if not set(LENGTHS) <= set(table.column_names):
        return table, []
    absent = len(table) - len(table.select(LENGTHS).drop_null())
    if not absent:
        return table, []
    lines = [f"{absent:,} of {len(table):,} rows lack a length: no rate at equal length is given"]
    return table.drop_columns([*LENGTHS]), lines


def _learned(rates: list[WinRate], baseline: str) -> str | None:
    """Return where difficulties came from; None if no rate rests on them."""
    others = [rate for rate in rates if rate.competitor != baseline]
    return "learned" if any(rate.length_controlled for rate in others) else None


def _warnings(rates: list[WinRate], baseline: str, alone: int) -> list[str]:
    name = escape(baseline)
    notes: dict[str, list[str]] = {}
    for rate in rates:
        if rate.competitor == baseline:
            continue
        for problem in rate.problems.values():
            notes.setdefault(problem, []).append(rate.competitor)
        if note := rate.win_rate.note():
            notes.setdefault(note, []).append(rate.competitor)
        if rate.one_sided:
            note = (
                f"almost always longer or almost always shorter than {name}: the rate at equal"
                " length is an extrapolation"
            )
            notes.setdefault(note, []).append(rate.competitor)
    lines = [f"{format_names(names)}: {note}" for note, names in notes.items()]
    if alone:
        lines.append(f"{alone:,} rows compare {name} with itself: they affect no other competitor")
    return lines


def _against(table: pa.Table, baseline: str) -> tuple[pa.Table, Bool]:
    """Return the rows with the baseline, and which of them have it on both sides."""
    first, second = (pc.equal(table[name], baseline) for name in MODELS)
    rows = pc.or_(first, second)
    if not pc.any(rows).as_py():
        names = sorted(set().union(*(pc.unique(table[name]).to_pylist() for name in MODELS)))
        raise UsageError(
            f"no comparison involves {escape(baseline)}",
            place="--baseline",
            remedy=f"choose a competitor, such as {similar_names(baseline, names)}",
        )
    return table.filter(rows), pc.and_(first, second).filter(rows).to_numpy()


def _difficulty(table: pa.Table, path: Path) -> Float64:
    if "instruction" not in table.column_names:
        raise UsageError(
            "the comparisons do not name the instructions that difficulties belong to",
            place="--difficulty",
            remedy="name its column: --map instruction=COLUMN",
        )
    given = _difficulties(path)
    ids, values = given.table["instruction"].combine_chunks(), _log_odds(given.table, path)
    contradictory = _contradictory(ids.to_numpy(), values)
    if len(contradictory):
        name = given.columns["instruction"].partition(", else ")[0].replace('"', "")
        named = read_comparisons(path, {"instruction": name, "pair_id": name}, ("pair_id",)).table
        low, high = contradictory[0]
        raise InputRefused(
            f"{len(contradictory):,} of {pc.count_distinct(ids).as_py():,} instructions have"
            f" several difficulties, such as {escape(named['pair_id'][low], 80)}:"
            f" {values[low]:g} and {values[high]:g}",
            place=str(path),
            remedy="give each instruction a single difficulty",
        )
    index = pc.index_in(table["instruction"], value_set=ids)
    if index.null_count:
        raise InputRefused(
            f"{index.null_count:,} of {len(table):,} comparisons are of instructions without a"
            " difficulty",
            place=str(path),
            remedy="give each instruction a difficulty, or leave --difficulty out to have it"
            " learned; a text 7 is not the number 7",
        )
    return np.asarray(values[index.to_numpy()])


def _difficulties(path: Path) -> Comparisons:
    try:
        return read_comparisons(path, None, ("instruction", "difficulty"))
    except NothingLeft:
        raise InputRefused("the file has no rows", place=str(path), remedy=DIFFICULTIES) from None
    except (InputRefused, UsageError) as error:
        raise type(error)(error.cause, place=error.place, remedy=DIFFICULTIES) from None


def _log_odds(given: pa.Table, path: Path) -> Float64:
    try:
        values = to_floats(given["difficulty"].cast(pa.float64()))
    except pa.ArrowException:
        values = np.full(len(given), np.nan)
    if not np.isfinite(values).all():
        raise InputRefused(
            f"{int((~np.isfinite(values)).sum()):,} difficulties are not finite numbers",
            place=str(path),
            remedy="give finite numbers, in log-odds",
        )
    return values


def _contradictory(ids: UInt64, values: Float64) -> Int64:
    """Return [m, 2]: per id with several values, a row of the lowest and one of the highest."""
    order = np.lexsort((values, ids))
    starts = np.flatnonzero(np.append(True, np.diff(ids[order]) != 0))
    low, high = order[starts], order[np.append(starts[1:], len(order)) - 1]
    differ = values[low] != values[high]
    return np.stack([low[differ], high[differ]], axis=1)


def _rows(
    table: pa.Table, baseline: str, difficulty: Float64 | None, mask: Bool
) -> BaselineComparisons:
    """Return the rows of a mask, seen from the competitor's side."""
    table = table.filter(pa.array(mask))
    names = set(table.column_names)
    first, second = (table[name].cast(pa.string()).combine_chunks() for name in MODELS)
    turned = pc.and_not(pc.equal(first, baseline), pc.equal(second, baseline))
    coded = pc.if_else(turned, second, first).dictionary_encode()
    back, preference = to_mask(turned), to_floats(table["preference"])
    sign = np.where(back, -1.0, 1.0)
    length = None
    if set(LENGTHS) <= names:
        a, b = (to_floats(table[name]) for name in LENGTHS)
        length = sign * (a - b)
    style = {}
    if {f"{feature}_{side}" for feature in FEATURES for side in "ab"} <= names:
        for feature in FEATURES:
            a, b = (to_floats(table[f"{feature}_{side}"]) for side in "ab")
            style[feature] = sign * relative_difference(a, b)
    return BaselineComparisons(
        competitor=tuple(coded.dictionary.to_pylist()),
        code=np.asarray(coded.indices),
        preference=np.where(back, 1 - preference, preference),
        cluster=clusters_of(table),
        weight=to_floats(table["weight"]) if "weight" in names else np.ones(len(table)),
        length=length,
        difficulty=None if difficulty is None else difficulty[mask],
        style=style,
    )


def _as_json(rate: WinRate) -> dict[str, Any]:
    return {
        "competitor": rate.competitor,
        "win_rate": estimate_json(rate.win_rate),
        "discrete_win_rate": rate.discrete,
        "mean_length_difference": rate.difference,
        "length_controlled": _controlled(rate.length_controlled, rate.win_rate.clusters),
        "style_controlled": _controlled(rate.style_controlled, rate.win_rate.clusters),
        "not_controlled": rate.problems,
    }


def _controlled(rate: Controlled | None, clusters: int) -> dict[str, Any] | None:
    if rate is None:
        return None
    lower, upper = rate.interval(LEVEL) if clusters >= MIN_FOR_INTERVAL else (None, None)
    return {
        "win_rate": rate.win_rate,
        "standard_error": standard_error_or_none(rate.standard_error, clusters),
        "lower": lower,
        "upper": upper,
        "coefficients": rate.coefficients,
    }
