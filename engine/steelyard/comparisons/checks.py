"""Values of a table of comparisons: made into numbers, and counted where they cannot be."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from steelyard.core.schemas import Bool, Float64
from steelyard.errors import InputRefused, escape
from steelyard.input.problems import RowProblems
from steelyard.input.votes import LABELS, read_gold
from steelyard.statistics.clusters import instruction_ids
from steelyard.statistics.logistic import sigmoid

SOURCES = {"logit", "winner", "score_a", "score_b"}
NO_PREFERENCE = "no preference"
NO_WEIGHT = "weight 0"
PAIR = "pair of an instruction"  # a column of ids that stand in where a row has no instruction
EXAMPLES = 3
LONGEST = 2**31 - 1  # characters, as an import takes them
LIGHTEST, HEAVIEST = 1e-9, 1e12  # weights: beyond them sums of floats lose the rest

_CONVERT = "convert with an expression: --map '{0}=(x - 1)'"
_NO_NAN = "make a NaN null"
_WINNER = "make them a, b or tie, or name another column: --map winner=COLUMN"
_FINITE = "make infinite ones finite: --map '{0}=(greatest(-30, least(30, x)))', and a NaN null"
_SCORES = "give finite scores, or null where there is none"
_WEIGHT = "give every row a weight, or count all rows alike: --map weight="
_LENGTH = "give characters, or leave lengths out: --map {0}="
_NAME = "name the competitor in every row, or another column: --map {0}=COLUMN"
_INSTRUCTION = "name the instruction in every row, or leave it out: --map instruction="
_GOLD = "make them a, b or tie, or leave gold out: --map gold="


class Checks:
    """What is wrong, counted by reason over all batches; methods mutate."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.left_out: dict[str, int] = {}
        self.rows = 0
        self._bad: dict[str, tuple[int, list[str]]] = {}
        self._remedies: dict[str, None] = {}

    def bad(
        self,
        mask: Bool,
        reason: str,
        remedy: str,
        show: Callable[[int], object] | None = None,
    ) -> None:
        """Count bad rows under a reason, with what to do and examples of what stands there."""
        count = int(np.count_nonzero(mask))
        if not count:
            return
        self._remedies[remedy] = None
        before, shown = self._bad.get(reason, (0, []))
        if show is not None and len(shown) < EXAMPLES:
            shown += [escape(show(row), 40) for row in np.flatnonzero(mask)[:EXAMPLES].tolist()]
        self._bad[reason] = before + count, list(dict.fromkeys(shown))[:EXAMPLES]

    def leave_out(self, reason: str, mask: Bool) -> None:
        """Count rows that are no comparisons."""
        count = int(np.count_nonzero(mask))
        if count:
            self.left_out[reason] = self.left_out.get(reason, 0) + count

    def refuse(self) -> None:
        """End with all that is wrong.

        Raises:
            InputRefused: something is.
        """
        if self._bad:
            lines = [
                f"{count:,} of {self.rows:,} rows: {reason}"
                + (f" (such as {', '.join(shown)})" if shown else "")
                for reason, (count, shown) in self._bad.items()
            ]
            raise InputRefused(
                "\n    ".join(["values that cannot be used", *lines]),
                place=self.place,
                effect="nothing was computed",
                remedy="\n        ".join(self._remedies),
            )


def checked(batch: pa.RecordBatch, checks: Checks) -> pa.RecordBatch:
    """The batch with final types; rows that compare nothing are dropped and counted.

    Bad values are counted in `checks`; the batch that comes back is to be used only if
    `checks.refuse` passes.
    """
    checks.rows += len(batch)
    columns = {name: batch.column(name) for name in batch.schema.names}
    out = {name: values for name, values in columns.items() if name not in SOURCES}
    out |= _preference(columns, checks)
    if "preference" in out:
        out = _without(out, NO_PREFERENCE, _mask(out["preference"].is_null()), checks)
    if "weight" in out:
        out = _without(out, NO_WEIGHT, _mask(pc.equal(out["weight"], 0).fill_null(False)), checks)
    if "instruction" in out:
        ids = instruction_ids(out["instruction"])
        out["instruction"] = (
            pc.coalesce(ids, instruction_ids(out.pop(PAIR))) if PAIR in out else ids
        )
    for name in out.keys() & _CHECKED.keys():
        out[name] = _CHECKED[name](name, out[name], checks)
    return pa.RecordBatch.from_pydict(out)


def _without(
    columns: dict[str, pa.Array], reason: str, mask: Bool, checks: Checks
) -> dict[str, pa.Array]:
    checks.leave_out(reason, mask)
    if not mask.any():
        return columns
    keep = pa.array(~mask)
    return {name: values.filter(keep) for name, values in columns.items()}


def _preference(columns: dict[str, pa.Array], checks: Checks) -> dict[str, pa.Array]:
    """`preference` (and `tie`, for words) from what the source has in its place."""
    if "winner" in columns:
        return _winner(columns["winner"], checks)
    if "logit" in columns:
        return {"preference": _sigmoid(columns["logit"], "logit", checks)}
    if "score_a" in columns:
        difference = pc.subtract(columns["score_a"], columns["score_b"])
        return {"preference": _sigmoid(difference, "score_a - score_b", checks)}
    return {}


def _winner(values: pa.Array, checks: Checks) -> dict[str, pa.Array]:
    coded = values.dictionary_encode()
    words = coded.dictionary.to_pylist()
    codes = [LABELS.get(" ".join(word.split()).lower()) for word in words]
    code = np.array([3 if one is None else one for one in codes] + [4], dtype=np.int8)
    code = code[coded.indices.fill_null(len(words)).to_numpy(zero_copy_only=False)]
    checks.bad(code == 3, "the winner is none of a, b, tie", _WINNER, lambda row: values[row])
    absent = pa.array(code >= 3)
    preference = np.array([1.0, 0.0, 0.5, 0.5, 0.5])[code]
    tie = (code == 2).astype(np.float64)
    return {
        "preference": pa.array(preference, mask=_mask(absent)),
        "tie": pa.array(tie, mask=_mask(absent)),
    }


def _sigmoid(values: pa.Array, name: str, checks: Checks) -> pa.Array:
    numbers, absent = _numbers(values), _mask(values.is_null())
    remedy = _FINITE.format(name) if name == "logit" else _SCORES
    checks.bad(~absent & ~np.isfinite(numbers), f"{name} is not a finite number", remedy)
    return pa.array(sigmoid(numbers), mask=absent)


def _unit(name: str, values: pa.Array, checks: Checks) -> pa.Array:
    numbers, absent = _numbers(values), _mask(values.is_null())
    checks.bad(~absent & np.isnan(numbers), f"the {name} is NaN", _NO_NAN)
    outside = ~absent & ((numbers < 0) | (numbers > 1))
    remedy = _CONVERT.format(name)
    checks.bad(outside, f"the {name} is outside [0, 1]", remedy, lambda row: numbers[row])
    return values


def _weight(name: str, values: pa.Array, checks: Checks) -> pa.Array:
    numbers, absent = _numbers(values), _mask(values.is_null())
    checks.bad(absent, f"the {name} is null", _WEIGHT)
    wrong = ~absent & ~((numbers >= LIGHTEST) & (numbers <= HEAVIEST))
    reason = f"the {name} is neither 0 nor in [{LIGHTEST:g}, {HEAVIEST:g}]"
    checks.bad(wrong, reason, _WEIGHT, lambda row: numbers[row])
    return values


def _length(name: str, values: pa.Array, checks: Checks) -> pa.Array:
    """Null where it is not known: what rests on lengths is then left out."""
    numbers, absent = _numbers(values), _mask(values.is_null())
    wrong = ~absent & ~((numbers >= 0) & (numbers <= LONGEST))
    reason = f"the {name} is no number of characters, 0 to {LONGEST}"
    checks.bad(wrong, reason, _LENGTH.format(name), lambda row: numbers[row])
    return values


def _finite(name: str, values: pa.Array, checks: Checks) -> pa.Array:
    numbers, absent = _numbers(values), _mask(values.is_null())
    wrong = ~absent & ~np.isfinite(numbers)
    checks.bad(wrong, f"the {name} is not a finite number", _FINITE.format(name))
    return values


def _competitor(name: str, values: pa.Array, checks: Checks) -> pa.Array:
    """Names as a dictionary, trimmed as an import trims them."""
    checks.bad(_mask(values.is_null()), f"the {name} is null", _NAME.format(name))
    coded = values.dictionary_encode()
    trimmed = pc.utf8_trim_whitespace(coded.dictionary)
    if not trimmed.equals(coded.dictionary):
        coded = trimmed.take(coded.indices).dictionary_encode()
    blank = pc.equal(coded.dictionary, "").take(coded.indices).fill_null(False)
    checks.bad(_mask(blank), f"the {name} is empty", _NAME.format(name))
    return coded


def _named(name: str, values: pa.Array, checks: Checks) -> pa.Array:
    checks.bad(_mask(values.is_null()), f"the {name} is null or blank", _INSTRUCTION)
    return values


def _gold(name: str, values: pa.Array, checks: Checks) -> pa.Array:
    findings = RowProblems()
    votes = read_gold({"gold": values}, {"gold": name}, findings)
    reasons = [detail for _, detail in findings.found.values()]
    wrong = np.zeros(len(values), dtype=np.bool_)
    wrong[list(findings.found)] = True
    checks.bad(wrong, "the gold cannot be read", _GOLD, lambda _: reasons[0])
    return votes


_CHECKED: dict[str, Callable[[str, pa.Array, Checks], pa.Array]] = {
    "model_a": _competitor,
    "model_b": _competitor,
    "instruction": _named,
    "preference": _unit,
    "tie": _unit,
    "preference_ab": _unit,
    "preference_ba": _unit,
    "calibrated_preference": _unit,
    "calibrated_tie": _unit,
    "score": _finite,
    "weight": _weight,
    "length_a": _length,
    "length_b": _length,
    "gold": _gold,
}


def _numbers(values: pa.Array) -> Float64:
    numbers: Float64 = values.fill_null(0).to_numpy(zero_copy_only=False)
    return numbers


def _mask(values: pa.BooleanArray) -> Bool:
    mask: Bool = values.to_numpy(zero_copy_only=False)
    return mask
