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
from steelyard.ranking.report import estimate_json, source
from steelyard.ranking.tournament import clusters_of, tournament
from steelyard.statistics.clusters import MIN_FOR_INTERVAL, cluster_warning
from steelyard.statistics.logistic import FitFailed
from steelyard.statistics.means import Mean

MOST_GROUPS = 100
SEPARATED = (
    "verbosity: length separates wins from losses, so that what it is worth between equally strong"
    " competitors has no bound"
)
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
    content["notes"] = []
    content["all"] = _sections(read.table, content)
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
            content["by"][str(value.as_py())] = _sections(part, content, str(value))
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


def _sections(table: pa.Table, content: dict[str, Any], name: str = "") -> dict[str, Any]:
    title = f"{escape(name)}: " if name else ""
    cluster = clusters_of(table)
    if (clusters := len(np.unique(cluster))) < MIN_FOR_INTERVAL:
        content["warnings"].append(f"{title}{cluster_warning(clusters)}")
    weight = to_floats(table["weight"]) if "weight" in table.column_names else np.ones(len(table))
    measured: dict[str, object] = {}
    both_orders: tuple[tuple[str, tuple[str, str], Callable[..., object]], ...] = (
        ("position", ORDERS, measures.position),
        ("label_mass", MASSES, measures.label_mass),
    )
    for section, columns, measure in both_orders:
        measured[section] = None
        if set(columns) <= set(table.column_names):
            known = table.select(columns).drop_null()
            both = to_mask(pc.and_(*(table[column].is_valid() for column in columns)))
            if len(known):
                orders = (to_floats(known[column]) for column in columns)
                measured[section] = measure(*orders, cluster[both], weight[both])
    measured |= _between_competitors(table, content["warnings"], title)
    content["notes"] += [title + line for line in _notes(measured)]
    return {"rows": len(table), **{name: _as_json(value) for name, value in measured.items()}}


def _notes(measured: Mapping[str, object]) -> list[str]:
    """Return the notes on estimates, each with what it applies to."""
    notes: dict[str, list[str]] = {}
    for section, record in measured.items():
        for item in record if isinstance(record, list) else [record]:
            where = getattr(item, "family", section).replace("_", " ")
            for name, value in _values(item).items():
                note = value.note() if isinstance(value, Mean) else None
                if isinstance(value, Mean) and value.clusters >= MIN_FOR_INTERVAL and note:
                    notes.setdefault(note, []).append(f"{where}, {name.replace('_', ' ')}")
    return [f"{'; '.join(names)}: {note}" for note, names in notes.items()]


def _between_competitors(table: pa.Table, warnings: list[str], title: str) -> dict[str, object]:
    names = set(table.column_names)
    out: dict[str, object] = {"verbosity": None, "families": None}
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
                verbosity = measures.verbosity(contest, difference, gold)
                out["verbosity"] = verbosity
                if verbosity and verbosity.coefficient is None:
                    warnings.append(title + SEPARATED)
        except FitFailed as error:
            warnings.append(f"{title}verbosity: {error.cause}")
    judges, judge = [""], np.zeros(len(table), np.int32)
    if "judge" in names:
        coded = table["judge"].cast(pa.string()).fill_null("").combine_chunks().dictionary_encode()
        judges, judge = coded.dictionary.to_pylist(), np.asarray(coded.indices)
    out["families"] = measures.families(contest, judges, judge, gold)
    return out


def _values(record: Any) -> dict[str, Any]:  # noqa: ANN401 - any record of measures
    return {field.name: getattr(record, field.name) for field in fields(record)} if record else {}


def _as_json(record: object) -> Any:  # noqa: ANN401 - a record of measures, or a list of them
    if isinstance(record, list):
        return [_as_json(item) for item in record]
    if record is None:
        return None
    values = _values(record)
    return {k: estimate_json(v) if isinstance(v, Mean) else v for k, v in values.items()}
