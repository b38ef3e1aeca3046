"""Values of a table of comparisons: made into numbers, and noted where they cannot be."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from steelyard.core.arrow import to_floats, to_mask
from steelyard.core.schemas import Bool
from steelyard.input.problems import Reason, RowProblems
from steelyard.input.role_types import role_type
from steelyard.input.roles import LENGTHS, MODELS
from steelyard.input.types import UnsupportedError, cast
from steelyard.input.votes import PREFERENCES, label_codes, read_gold
from steelyard.statistics.clusters import instruction_ids
from steelyard.statistics.logistic import sigmoid

SOURCES = {"logit", "winner", "score_a", "score_b"}
NO_PREFERENCE = "no preference"
NO_WEIGHT = "weight 0"
PAIR = "pair of an instruction"  # a column of ids for rows that have no instruction
LONGEST = 2**31 - 1  # characters, as an import takes them
LIGHTEST, HEAVIEST = 1e-9, 1e12  # weights: beyond them sums of floats lose the rest
LARGEST = float(np.finfo(np.float64).max)

_NO_NAN = "make a NaN null"
_WINNER = "make them a, b or tie, or name another column: --map winner=COLUMN"
_GOLD = "make them a, b or tie, or leave gold out: --map gold="
_FINITE = "make infinite ones finite: --map '{0}=(greatest(-30, least(30, x)))'"
_UNIT = (0, 1, "outside [0, 1]", "convert with an expression: --map '{0}=(x - 1)'")
_ALIKE = "count all rows alike: --map weight="
_WEIGHTS = f"neither 0 nor in [{LIGHTEST:g}, {HEAVIEST:g}]"
_LENGTH = f"not a number of characters from 0 to {LONGEST}"
# Name -> least and greatest value, what is said of others, and the remedy.
_RANGES: dict[str, tuple[float, float, str, str]] = {
    **dict.fromkeys(("preference", "preference_ab", "preference_ba", "tie"), _UNIT),
    **dict.fromkeys(("calibrated_preference", "calibrated_tie"), _UNIT),
    **dict.fromkeys(("score", "logit"), (-LARGEST, LARGEST, "not a finite number", _FINITE)),
    "score_a - score_b": (-LARGEST, LARGEST, "not a finite number", "give finite scores"),
    "weight": (LIGHTEST, HEAVIEST, _WEIGHTS, f"give weights, or {_ALIKE}"),
    **dict.fromkeys(LENGTHS, (0, LONGEST, _LENGTH, "give characters, or no lengths: --map {0}=")),
}
# Name -> the remedy where it is null.
_REQUIRED = {
    **dict.fromkeys(MODELS, "name a competitor in every row, or another column: --map {0}=COLUMN"),
    "instruction": "name the instruction in every row, or leave it out: --map instruction=",
    "weight": f"give every row a weight, or {_ALIKE}",
}

Columns = dict[str, pa.Array]


def check_batch(
    batch: pa.RecordBatch, problems: RowProblems, left_out: Counter[str]
) -> pa.RecordBatch:
    """Return the batch, a column per role, with final types and only the rows that compare.

    The others are counted in `left_out`, by reason. Bad values are added to `problems`: the result
    is to be used only if `refuse` passes.
    """
    columns = {name: batch.column(name) for name in batch.schema.names}
    out = {name: values for name, values in columns.items() if name not in SOURCES}
    out |= _preference(columns, problems)
    if "preference" in out:
        out = _without(out, NO_PREFERENCE, to_mask(out["preference"].is_null()), left_out)
    if "weight" in out:
        out = _without(out, NO_WEIGHT, to_mask(pc.equal(out["weight"], 0)), left_out)
    if "instruction" in out:
        pairs = [instruction_ids(out.pop(PAIR))] if PAIR in out else []
        out["instruction"] = pc.coalesce(instruction_ids(out["instruction"]), *pairs)
    for name in out.keys() & _REQUIRED.keys():
        null, remedy = to_mask(out[name].is_null()), _REQUIRED[name].format(name)
        problems.add(null, Reason.NULL, f"{name} is null", remedy=remedy)
    for name in out.keys() & _RANGES.keys():
        _check_range(name, out[name], problems)
    for name in out.keys() & set(MODELS):
        out[name] = read_names(out[name], f"the {name}", problems, _REQUIRED[name].format(name))
    if "gold" in out:
        out["gold"] = _read_gold(out["gold"], problems)
    return pa.RecordBatch.from_pydict(out)


def read_names(values: pa.Array, label: str, problems: RowProblems, remedy: str = "") -> pa.Array:
    """Return names of competitors, trimmed, as a dictionary; an empty name is a problem."""
    coded = values.dictionary_encode()
    trimmed = pc.utf8_trim_whitespace(coded.dictionary)
    if not trimmed.equals(coded.dictionary):
        coded = trimmed.take(coded.indices).dictionary_encode()
    blank = to_mask(pc.equal(coded.dictionary, "").take(coded.indices))
    problems.add(blank, Reason.EMPTY, f"{label} is empty", remedy=remedy)
    return coded


def is_outside(values: pa.Array, low: float, high: float) -> Bool:
    """Return which values are neither null nor in [low, high]; a NaN is outside."""
    numbers = to_floats(values)
    return to_mask(values.is_valid()) & ~((numbers >= low) & (numbers <= high))


def _without(columns: Columns, reason: str, mask: Bool, left_out: Counter[str]) -> Columns:
    if not mask.any():
        return columns
    left_out[reason] += int(np.count_nonzero(mask))
    keep = pa.array(~mask)
    return {name: values.filter(keep) for name, values in columns.items()}


def _preference(columns: Columns, problems: RowProblems) -> Columns:
    """Return `preference` (and `tie`, for words) from what the source has in its place."""
    if "winner" in columns:
        return _winner(columns["winner"], problems)
    if "logit" in columns:
        return {"preference": _sigmoid(columns["logit"], "logit", problems)}
    if "score_a" in columns:
        difference = pc.subtract(columns["score_a"], columns["score_b"])
        return {"preference": _sigmoid(difference, "score_a - score_b", problems)}
    return {}


def _winner(values: pa.Array, problems: RowProblems) -> Columns:
    codes = label_codes(values)
    absent, tie = codes < 0, (codes == 2).astype(np.float64)
    bad, what = absent & to_mask(values.is_valid()), "the winner is not a, b or tie"
    problems.add(bad, Reason.WINNER, what, lambda row: values[row], _WINNER)
    preference = pa.array(PREFERENCES[codes], mask=absent)
    return {"preference": preference, "tie": pa.array(tie, mask=absent)}


def _sigmoid(values: pa.Array, name: str, problems: RowProblems) -> pa.Array:
    _check_range(name, values, problems)
    return pa.array(sigmoid(to_floats(values)), mask=to_mask(values.is_null()))


def _check_range(name: str, values: pa.Array, problems: RowProblems) -> None:
    low, high, what, remedy = _RANGES[name]
    nan = to_mask(pc.is_nan(values))
    problems.add(nan, Reason.SCALE, f"the {name} is NaN", remedy=_NO_NAN)
    outside = is_outside(values, low, high) & ~nan
    remedy = remedy.format(name)
    problems.add(outside, Reason.SCALE, f"the {name} is {what}", lambda row: values[row], remedy)


def _read_gold(values: pa.Array, problems: RowProblems) -> pa.Array:
    try:
        values = cast(values, role_type("gold", values.type))
    except UnsupportedError as error:
        what = f"the gold ({values.type}) {error}"
        problems.add(to_mask(values.is_valid()), Reason.GOLD, what, remedy=_GOLD)
        return values
    return read_gold({"gold": values}, {"gold": "the gold"}, problems, _GOLD)
