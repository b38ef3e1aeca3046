"""`steelyard bias`: what the judge prefers besides quality, in total and by any column."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from steelyard.comparisons.read import Comparisons, read_comparisons
from steelyard.core.arrow import to_floats, to_mask, votes_of
from steelyard.errors import UsageError, escape
from steelyard.evaluation.judged_pairs import MASSES, ORDERS
from steelyard.input.roles import LENGTHS, MODELS
from steelyard.ranking import bias as measures
from steelyard.ranking.report import estimate_json, source, standard_error_or_none
from steelyard.ranking.tournament import clusters_of, tournament
from steelyard.statistics.clusters import cluster_warning
from steelyard.statistics.logistic import FitFailed
from steelyard.statistics.means import Mean

MOST_GROUPS = 100
WANT = (
    *MODELS, "preference", "tie", "instruction", "weight", "gold", "judge",
    *LENGTHS, *ORDERS, *MASSES,
)  # fmt: skip


def bias(path: Path, columns: Mapping[str, str], by: str | None = None) -> dict[str, Any]:
    """Measure position bias, verbosity, self-preference and label mass of the judge.

    Args:
        path: run or file.
        columns: role -> column.
        by: a column, or a field of metadata: all is measured again for each of its values.

    Returns:
        JSON: `all`, and `by`: value -> the same sections. A section is None if its columns are
        missing; `missing` says which.

    Raises:
        UsageError: there is no such column, or it has too many values.
        InputRefused: values cannot be used.
    """
    read = read_comparisons(path, columns, ("preference", *([by] if by else ())), WANT)
    content = {**source(path, read), "missing": _missing(read), "warnings": []}
    content["all"] = _sections(read.table, content["warnings"])
    if by:
        values = pc.unique(read.table[by])
        if len(values) > MOST_GROUPS:
            raise UsageError(
                f"{by} has {len(values):,} values",
                place=f"--by {by}",
                remedy=f"choose a column with at most {MOST_GROUPS} values",
            )
        content["by"] = {}
        for value in values:
            same = pc.equal(read.table[by], value) if value.is_valid else pc.is_null(read.table[by])
            part = read.table.filter(same.fill_null(False))
            content["by"][str(value.as_py())] = _sections(part, content["warnings"], str(value))
    return content


def _missing(read: Comparisons) -> dict[str, str]:
    wanted = {
        "position": ORDERS,
        "verbosity": (*MODELS, *LENGTHS),
        "families": MODELS,
        "label mass": MASSES,
    }
    lacking = {
        what: [name for name in names if not read.has(name)] for what, names in wanted.items()
    }
    return {what: " and ".join(names) for what, names in lacking.items() if names}


def _sections(table: pa.Table, warnings: list[str], name: str = "") -> dict[str, Any]:
    title = f"{escape(name)}: " if name else ""
    cluster = clusters_of(table)
    if note := cluster_warning(len(np.unique(cluster))):
        warnings.append(title + note)
    sections: dict[str, Any] = {"rows": len(table)}
    both_orders: tuple[tuple[str, tuple[str, str], Callable[..., object]], ...] = (
        ("position", ORDERS, measures.position),
        ("label_mass", MASSES, measures.label_mass),
    )
    for section, columns, measure in both_orders:
        sections[section] = None
        if set(columns) <= set(table.column_names):
            known = table.select(columns).drop_null()
            both = to_mask(pc.and_(*(table[column].is_valid() for column in columns)))
            if len(known):
                orders = (to_floats(known[column]) for column in columns)
                sections[section] = _as_json(measure(*orders, cluster[both]))
    return sections | _between_competitors(table, warnings, title)


def _between_competitors(table: pa.Table, warnings: list[str], title: str) -> dict[str, Any]:
    names = set(table.column_names)
    out: dict[str, Any] = {"verbosity": None, "families": None}
    if not set(MODELS) <= names:
        return out
    other = pc.not_equal(*(pc.cast(table[name], pa.string()) for name in MODELS))
    table = table.filter(other)
    if not len(table):
        return out
    contest = tournament(table)
    gold = np.full(len(table), np.nan)  # the gold's preference for the pair's lower competitor
    if "gold" in names:
        a, b, tie = votes_of(table["gold"].combine_chunks()).T
        with np.errstate(all="ignore"):
            share = (a + tie / 2) / (a + b + tie)
        gold = np.where(contest.swapped, 1 - share, share)
    if set(LENGTHS) <= names:
        a, b = (to_floats(table[name]) for name in LENGTHS)
        difference = np.where(contest.swapped, -1.0, 1.0) * (a - b)
        try:
            if absent := int(np.isnan(difference).sum()):
                warnings.append(f"{title}{absent:,} rows lack a length: verbosity is left out")
            else:
                out["verbosity"] = _as_json(measures.verbosity(contest, difference, gold))
        except FitFailed as error:
            warnings.append(f"{title}verbosity: {error.cause}")
        if section := out["verbosity"]:
            known = standard_error_or_none(section["standard_error"], contest.clusters)
            section["standard_error"] = known
    judges, judge = [""], np.zeros(len(table), np.int32)
    if "judge" in names:
        coded = table["judge"].cast(pa.string()).fill_null("").combine_chunks().dictionary_encode()
        judges, judge = coded.dictionary.to_pylist(), np.asarray(coded.indices)
    measured = measures.families(contest, judges, judge, gold)
    out["families"] = [_as_json(family) for family in measured]
    return out


def _as_json(record: Any) -> dict[str, Any] | None:  # noqa: ANN401 - any record of measures
    if record is None:
        return None
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    return {k: estimate_json(v) if isinstance(v, Mean) else v for k, v in values.items()}
