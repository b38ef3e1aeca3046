"""Gold labels, probabilities and votes -> votes for a, for b and for a tie."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from steelyard.core.arrow import to_ints, to_mask
from steelyard.core.schemas import GOLD, Bool, Float64
from steelyard.input.problems import Reason, RowProblems, printable
from steelyard.input.roles import VOTES

# Spellings after trimming and in lower case. Numbers stand for nothing: 1 is the first response
# to some and P(a) = 1 to others.
_EVEN = ("tie (both bad)", "draw", "equal", "a=b", "b=a", "[[c]]")
_SPELLINGS = (
    ("a", "response_a", "model_a", "answer_a", "output_a", "assistant_a", "[[a]]", "a>b", "a>>b"),
    ("b", "response_b", "model_b", "answer_b", "output_b", "assistant_b", "[[b]]", "b>a", "b>>a"),
    ("tie", "tie (bothbad)", "tie(bothbad)", "bothbad", "both_bad", "both bad", *_EVEN),
)
_LABELS = {word: code for code, words in enumerate(_SPELLINGS) for word in words}
ABSENT, UNKNOWN = -1, -2  # codes of what is not a label
PREFERENCES = np.array([1.0, 0.0, 0.5])  # by label: for a, for b, for a tie
LEAST, MOST = 1e-9, 1e12  # votes of a row; beyond, sums with others lose all digits

# Which rows are wrong, what is wrong with them, and each row's value.
_Fault = tuple[Bool, str, Callable[[int], object]]


def label_codes(values: pa.Array) -> npt.NDArray[np.int8]:
    """Return 0 for a, 1 for b, 2 for a tie; ABSENT for null and blank, UNKNOWN for other texts."""
    coded = values.dictionary_encode()
    words = coded.dictionary.to_pylist()
    codes = np.array([_label_code(word) for word in words] + [ABSENT], dtype=np.int8)
    return codes[to_ints(coded.indices, null=len(words))]


def _label_code(word: str) -> int:
    folded = " ".join(word.split()).lower()
    return _LABELS.get(folded, UNKNOWN) if folded else ABSENT


def read_gold(
    columns: Mapping[str, pa.Array],
    roles: Mapping[str, str],
    problems: RowProblems,
    remedy: str = "",
) -> pa.Array:
    """Return GOLD for each row, null where the row has none.

    A label is one vote; a floating-point number is P(a), a vote split between a and b. Votes are
    counts or weights: no null among them unless all are, none negative, not all zero, and their sum
    from LEAST to MOST.

    A text may also be votes in JSON, {"a": 2, "b": 1, "tie": 0}, as a struct is written in CSV.
    `columns` has gold (text, float64 or GOLD) or votes_a, votes_b and votes_tie (float64) by role,
    `roles` the user's names for them. Gold that cannot be read is a problem.
    """
    if "votes_a" in columns:
        votes = {name.removeprefix("votes_"): columns[name] for name in VOTES if name in columns}
        counts, absent, faults = _read_votes(votes)
    elif pt.is_struct(kind := columns["gold"].type):
        votes = {field.name: pc.struct_field(columns["gold"], field.name) for field in kind}
        counts, absent, faults = _read_votes(votes)
    else:
        reader = _read_probability if pt.is_floating(kind) else _read_labels
        counts, absent, faults = reader(columns["gold"], printable(roles["gold"]))
    for bad, what, value in faults:
        problems.add(bad, Reason.GOLD, what, value, remedy)
    arrays = [pa.array(column, pa.float64()) for column in counts]
    return pa.StructArray.from_arrays(arrays, fields=list(GOLD), mask=pa.array(absent))


def _read_labels(values: pa.Array, name: str) -> tuple[list[Float64], Bool, list[_Fault]]:
    codes = label_codes(values)
    counts = [(codes == side).astype(np.float64) for side in range(3)]
    absent, unknown, faults = codes < 0, codes == UNKNOWN, list[_Fault]()
    if unknown.any():
        texts = zip(values.to_pylist(), unknown, strict=True)
        votes = pa.array([_written_votes(text) if new else None for text, new in texts], GOLD)
        rows = to_mask(votes.is_valid())
        sides = {field.name: pc.struct_field(votes, field.name) for field in GOLD}
        given, none, faults = _read_votes(sides)
        counts = [np.where(rows, new, old) for new, old in zip(given, counts, strict=True)]
        absent, unknown = np.where(rows, none, absent), unknown & ~rows
    faults.append((unknown, f"{name} is not A, B or tie", lambda row: values[row]))
    return counts, absent, faults


class _Votes(msgspec.Struct, forbid_unknown_fields=True):
    a: float | None
    b: float | None
    tie: float | None = 0.0


def _written_votes(text: str) -> dict[str, float | None] | None:
    """Return the votes that a text has in JSON, by side; None: it has none."""
    with suppress(msgspec.DecodeError):
        return msgspec.structs.asdict(msgspec.json.decode(text, type=_Votes))
    return None


def _read_probability(values: pa.Array, name: str) -> tuple[list[Float64], Bool, list[_Fault]]:
    absent, p = to_mask(values.is_null()), _numbers(values)
    bad = ~absent & ~((p >= 0) & (p <= 1))
    fault = (bad, f"{name} is not P(a), a number from 0 to 1", lambda row: values[row])
    return [p, 1 - p, np.zeros(len(p))], absent, [fault]


def _read_votes(votes: Mapping[str, pa.Array]) -> tuple[list[Float64], Bool, list[_Fault]]:
    null: Bool = np.array([to_mask(values.is_null()) for values in votes.values()])
    counts = np.array([_numbers(values) for values in votes.values()])
    absent: Bool = np.asarray(null.all(axis=0))
    incomplete: Bool = np.asarray(null.any(axis=0)) & ~absent
    with np.errstate(all="ignore"):
        total: Float64 = np.asarray(counts.sum(axis=0))
    countable = (counts >= 0).all(axis=0) & np.isfinite(total)
    given = ~absent & ~incomplete

    def shown(row: int) -> str:
        return ", ".join(f"{name}={values[row].as_py()}" for name, values in votes.items())

    faults: list[_Fault] = [
        (incomplete, "votes are incomplete", shown),
        (given & ~countable, "votes are negative or not numbers", shown),
        (given & countable & (total == 0), "votes sum to zero", shown),
        (
            given & countable & (total != 0) & ((total < LEAST) | (total > MOST)),
            f"votes sum to less than {LEAST:g} or more than {MOST:g}",
            shown,
        ),
    ]
    return [*counts, np.zeros(len(total))][:3], absent, faults


def _numbers(values: pa.Array) -> Float64:
    numbers: Float64 = np.asarray(values.fill_null(0), dtype=np.float64)
    return numbers
