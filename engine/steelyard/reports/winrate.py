"""`steelyard winrate`: every competitor against one, raw and with length or style held equal."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from steelyard.errors import InputRefused, UsageError, escape
from steelyard.features import read_with_style
from steelyard.ratings.length_control import Controlled, relative_difference
from steelyard.ratings.style import FEATURES
from steelyard.ratings.tournament import NOTHING, numbers
from steelyard.ratings.winrates import Against, WinRate, win_rates
from steelyard.records import Float64
from steelyard.reports.common import draw_source, draw_table, estimate, percent, source
from steelyard.store.tables import read_comparisons

NEED = ("model_a", "model_b", "preference")
WANT = ("instruction", "weight", "length_a", "length_b")


def winrate(
    path: Path,
    columns: Mapping[str, str],
    baseline: str,
    *,
    difficulty: Path | None = None,
    style: bool = False,
) -> dict[str, Any]:
    """Win rates against a baseline.

    Args:
        path: run or file.
        columns: role -> column.
        baseline: the competitor that the others are compared with.
        difficulty: Parquet with an instruction and its `difficulty`, in log-odds; None: learned.
        style: whether to hold style equal, for which texts are read.

    Returns:
        JSON: `win_rates`, best first; what was read and left out.

    Raises:
        UsageError: nobody has that name, or a column is missing.
        InputRefused: values cannot be used.
    """
    read = (read_with_style if style else read_comparisons)(path, columns, NEED, WANT)
    table, turned = _against(read.table, baseline)
    hard = None if difficulty is None else _difficulty(table, difficulty)
    rows = _rows(table, turned, hard)
    found = win_rates(rows)
    return {
        **source(path, read),
        "rows": len(table),
        "baseline": baseline,
        "difficulty": str(difficulty) if difficulty else "learned" if rows.length is not None
        else None,
        "win_rates": [_as_json(one) for one in found],
        "warnings": [f"{escape(one.competitor)}: {one.problem}" for one in found if one.problem],
    }  # fmt: skip


def draw_winrate(content: dict[str, Any]) -> str:
    """The win rates as text, in per cent."""
    rows = []
    for one in content["win_rates"]:
        raw = one["win_rate"]
        line = [one["competitor"], percent(raw["value"]), percent(raw["standard_error"])]
        line.append(percent(one["discrete_win_rate"]))
        for kind in ("length_controlled", "style_controlled"):
            if any(other[kind] for other in content["win_rates"]):
                held = one[kind] or {"win_rate": None, "standard_error": None}
                line += [percent(held["win_rate"]), percent(held["standard_error"])]
        rows.append([*line, f"{raw['rows']:,}"])
    head = ["competitor", "win rate %", "se", "discrete"]
    for kind, title in (("length_controlled", "equal length"), ("style_controlled", "equal style")):
        if any(one[kind] for one in content["win_rates"]):
            head += [title, "se"]
    title = f"against {escape(content['baseline'])}"
    return "\n\n".join([title, draw_table(rows, [*head, "rows"]), draw_source(content)])


def _against(table: pa.Table, baseline: str) -> tuple[pa.Table, pa.Array]:
    """Rows with the baseline, and which of them have it as model_a."""
    first, second = (pc.equal(table[name], baseline) for name in ("model_a", "model_b"))
    rows = pc.or_(first, second)
    if not pc.any(rows).as_py():
        names = sorted({*pc.unique(table["model_a"]).to_pylist(),
                        *pc.unique(table["model_b"]).to_pylist()})  # fmt: skip
        near = get_close_matches(baseline, names, n=3) or names[:3]
        raise UsageError(
            f"no comparison is with {escape(baseline)}",
            place="--baseline",
            remedy=f"choose a competitor, such as {', '.join(map(escape, near))}",
        )
    turned = pc.and_not(first, second)  # a competitor against itself stays as it is
    return table.filter(rows), turned.filter(rows).combine_chunks()


def _difficulty(table: pa.Table, path: Path) -> Float64:
    given = read_comparisons(path, None, ("instruction", "difficulty")).table
    if "instruction" not in table.column_names:
        raise UsageError(
            "the comparisons name no instruction that a difficulty could belong to",
            place="--difficulty",
            remedy="name its column: --map instruction=COLUMN",
        )
    at = pc.index_in(table["instruction"], value_set=given["instruction"].combine_chunks())
    if at.null_count:
        raise InputRefused(
            f"{at.null_count:,} of {len(table):,} comparisons are of instructions without a"
            " difficulty",
            place=str(path),
            remedy="give each instruction one, or leave --difficulty out to have it learned",
        )
    found = numbers(given["difficulty"].take(at).cast(pa.float64()))
    if not np.isfinite(found).all():
        raise InputRefused(
            f"{int((~np.isfinite(found)).sum()):,} difficulties are null or no numbers",
            place=str(path),
            remedy="give finite numbers, in log-odds",
        )
    return found


def _rows(table: pa.Table, turned: pa.Array, difficulty: Float64 | None) -> Against:
    back = turned.to_numpy(zero_copy_only=False)
    preference = numbers(table["preference"])
    models = pc.if_else(turned, *(pc.cast(table[name].combine_chunks(), pa.string())
                                  for name in ("model_b", "model_a")))  # fmt: skip
    coded = models.dictionary_encode()
    names = set(table.column_names)
    sign = np.where(back, -1.0, 1.0)
    length = style = None
    if {"length_a", "length_b"} <= names:
        length = sign * (numbers(table["length_a"]) - numbers(table["length_b"]))
    if {f"{feature}_{side}" for feature in FEATURES for side in "ab"} <= names:
        style = {
            feature: sign
            * relative_difference(numbers(table[f"{feature}_a"]), numbers(table[f"{feature}_b"]))
            for feature in FEATURES
        }
    cluster = np.arange(len(table))
    if "instruction" in names:
        cluster = table["instruction"].combine_chunks().dictionary_encode().indices.to_numpy()
    return Against(
        competitor=tuple(coded.dictionary.to_pylist()),
        code=coded.indices.to_numpy(zero_copy_only=False),
        preference=np.where(back, 1 - preference, preference),
        cluster=cluster,
        weight=numbers(table["weight"]) if "weight" in names else NOTHING,
        length=length,
        difficulty=difficulty,
        style=style or {},
    )


def _as_json(one: WinRate) -> dict[str, Any]:
    return {
        "competitor": one.competitor,
        "win_rate": estimate(one.win_rate),
        "discrete_win_rate": one.discrete,
        "mean_length_difference": one.difference,
        "length_controlled": _controlled(one.length_controlled),
        "style_controlled": _controlled(one.style_controlled),
    }


def _controlled(one: Controlled | None) -> dict[str, Any] | None:
    if one is None:
        return None
    return {
        "win_rate": one.win_rate,
        "standard_error": one.standard_error,
        "coefficients": one.coefficients,
    }
