"""Gold labels, probabilities and votes -> votes for a, for b and for a tie."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from steelyard.core.schemas import GOLD, Bool, Float64
from steelyard.errors import GoldRefused, UsageError, escape
from steelyard.input.problems import GOLD as REASON
from steelyard.input.problems import RowProblems, printable
from steelyard.input.roles import VOTES
from steelyard.input.types import is_text

# Spellings after trimming and in lower case. Numbers stand for nothing: 1 is the first response
# to some and P(a) = 1 to others.
_EVEN = ("tie (both bad)", "draw", "equal", "a=b", "b=a", "[[c]]")
_SPELLINGS = (
    ("a", "response_a", "model_a", "answer_a", "output_a", "assistant_a", "[[a]]", "a>b", "a>>b"),
    ("b", "response_b", "model_b", "answer_b", "output_b", "assistant_b", "[[b]]", "b>a", "b>>a"),
    ("tie", "tie (bothbad)", "tie(bothbad)", "bothbad", "both_bad", "both bad", *_EVEN),
)
LABELS = {word: code for code, words in enumerate(_SPELLINGS) for word in words}
_ABSENT, _UNKNOWN = -1, -2
LEAST, MOST = 1e-9, 1e12  # votes of a row; beyond, sums with others lose all digits


def read_gold(
    columns: Mapping[str, pa.Array], roles: Mapping[str, str], findings: RowProblems
) -> pa.Array:
    """GOLD for each row, null where the row has none; unreadable gold goes to `findings`.

    A label is one vote; a floating-point number is P(a), a vote split between a and b. Votes are
    counts or weights: no null among them unless all are, none negative, not all zero, and their sum
    from LEAST to MOST.

    Args:
        columns: role -> values: gold (text, float64 or GOLD) or votes_a, votes_b, votes_tie
            (float64), or none of them.
        roles: role -> the user's name of the column.
        findings: bad rows are added.
    """
    if "votes_a" in columns:
        named = {name[-1] if name != VOTES[2] else "tie": columns.get(name) for name in VOTES}
        return _read_votes({k: v for k, v in named.items() if v is not None}, findings)
    values = columns["gold"]
    if pt.is_struct(values.type):
        return _read_votes(_fields(values), findings)
    if pt.is_floating(values.type):
        return _read_probability(values, roles["gold"], findings)
    return _read_labels(values, roles["gold"], findings)


def text_column(values: pa.ChunkedArray, role: str, name: str, place: str) -> pa.Array:
    """Names in a column `name` as strings.

    Raises:
        GoldRefused: they are neither text nor whole numbers.
    """
    column = _whole(values)
    kind = column.type.value_type if pt.is_dictionary(column.type) else column.type
    if not (is_text(kind) or pt.is_integer(kind) or pt.is_null(kind)):
        raise _wrong_type(role, name, kind, "text or whole numbers", place)
    return _valid(column.cast(pa.string()), role, name, place)


def gold_column(values: pa.ChunkedArray, role: str, name: str, place: str) -> pa.Array:
    """Gold or votes in a column `name` as `read_gold` takes them.

    Raises:
        GoldRefused: the type can be neither labels, probabilities nor votes.
        UsageError: whole numbers as labels.
    """
    column = _whole(values)
    kind = column.type
    if pt.is_null(kind):
        return column.cast(pa.string() if role == "gold" else pa.float64())
    if role == "gold" and is_text(kind):
        return _valid(column.cast(pa.string()), role, name, place)
    if role == "gold" and pt.is_struct(kind):
        fields = {kind.field(i).name: kind.field(i).type for i in range(kind.num_fields)}
        if not {"a", "b"} <= fields.keys() <= {"a", "b", "tie"} or not all(
            map(_is_number, fields.values())
        ):
            raise _wrong_type(role, name, kind, "numbers called a, b and tie", place)
        return column
    if role == "gold" and pt.is_integer(kind):
        raise UsageError(
            f"gold in {escape(name)} is {kind}; a whole number is no label",
            place=place,
            remedy="write A, B and tie, or P(a) as a floating-point number",
        )
    if not _is_number(kind) or (role == "gold" and not pt.is_floating(kind)):
        wanted = "A, B and tie, or P(a)" if role == "gold" else "numbers"
        raise _wrong_type(role, name, kind, wanted, place)
    return column.cast(pa.float64())


def _whole(values: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(values.chunks) if values.chunks else pa.array([], values.type)


def _valid(texts: pa.Array, role: str, name: str, place: str) -> pa.Array:
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        raise GoldRefused(
            f"{role} in {escape(name)} holds bytes that are no UTF-8",
            place=place,
            remedy="write the column as text",
        ) from None
    return texts


def _wrong_type(role: str, name: str, kind: pa.DataType, wanted: str, place: str) -> GoldRefused:
    return GoldRefused(
        f"{role} in {escape(name)} is of type {escape(kind)}",
        place=place,
        remedy=f"write it as {wanted}, or name another column: --gold-map {role}=COLUMN",
    )


def _is_number(kind: pa.DataType) -> bool:
    return bool(pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind))


def _read_labels(values: pa.Array, column: str, findings: RowProblems) -> pa.Array:
    coded = pc.dictionary_encode(values)
    words = coded.dictionary.to_pylist()
    code = np.array([_code(word) for word in words] + [_ABSENT], dtype=np.int8)
    codes = code[coded.indices.fill_null(len(words)).to_numpy(zero_copy_only=False)]
    findings.add(
        codes == _UNKNOWN,
        REASON,
        lambda row: f"{printable(column)} is {escape(values[row])}; known are A, B and tie",
    )
    return _gold([(codes == side).astype(np.float64) for side in range(3)], codes < 0)


def _code(word: str) -> int:
    folded = " ".join(word.split()).lower()
    return LABELS.get(folded, _UNKNOWN) if folded else _ABSENT


def _read_probability(values: pa.Array, column: str, findings: RowProblems) -> pa.Array:
    absent = _mask(values.is_null())
    p = _numbers(values)
    findings.add(
        ~absent & ~((p >= 0) & (p <= 1)),
        REASON,
        lambda row: f"{printable(column)} is {values[row]}; a number is P(a), from 0 to 1",
    )
    return _gold([p, 1 - p, np.zeros(len(p))], absent)


def _read_votes(votes: Mapping[str, pa.Array], findings: RowProblems) -> pa.Array:
    absent: Bool = np.array([_mask(values.is_null()) for values in votes.values()])
    counts = np.array([_numbers(values) for values in votes.values()])
    nothing: Bool = np.asarray(absent.all(axis=0))

    def shown(row: int) -> str:
        return ", ".join(f"{name}={values[row].as_py()}" for name, values in votes.items())

    some: Bool = np.asarray(absent.any(axis=0)) & ~nothing
    findings.add(some, REASON, lambda row: f"votes are incomplete: {shown(row)}")
    with np.errstate(all="ignore"):
        total: Float64 = np.asarray(counts.sum(axis=0))
    wrong = ~((counts >= 0).all(axis=0) & np.isfinite(total)) & ~nothing
    findings.add(wrong, REASON, lambda row: f"votes are negative or no numbers: {shown(row)}")
    findings.add(
        (total == 0) & ~nothing,
        REASON,
        lambda row: f"votes sum to zero: {shown(row)}",
    )
    findings.add(
        (total > 0) & np.isfinite(total) & ((total < LEAST) | (total > MOST)),
        REASON,
        lambda row: f"votes sum to less than {LEAST:g} or more than {MOST:g}: {shown(row)}",
    )
    if "tie" not in votes:
        counts = np.vstack([counts, np.zeros((1, counts.shape[1]))])
    return _gold(list(counts), nothing)


def _fields(values: pa.StructArray) -> dict[str, pa.Array]:
    names = [values.type.field(i).name for i in range(values.type.num_fields)]
    return {name: pc.struct_field(values, name) for name in names}


def _numbers(values: pa.Array) -> Float64:
    numbers: Float64 = values.fill_null(0).to_numpy(zero_copy_only=False)
    return numbers


def _mask(values: pa.BooleanArray) -> Bool:
    mask: Bool = values.to_numpy(zero_copy_only=False)
    return mask


def _gold(counts: list[Float64], absent: Bool) -> pa.Array:
    arrays = [pa.array(column, pa.float64()) for column in counts]
    return pa.StructArray.from_arrays(arrays, fields=list(GOLD), mask=pa.array(absent))
