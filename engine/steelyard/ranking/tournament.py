"""Comparisons as integer columns: the input of all ratings and win rates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from steelyard.core.arrow import to_floats, to_mask
from steelyard.core.schemas import Bool, Float64, Int32
from steelyard.errors import InputRefused, UsageError, close_names, escape
from steelyard.input.roles import MODELS
from steelyard_kernels.comparisons import Rows, pair_sums, rows_of

NOTHING: Float64 = np.zeros(0)
MOST = 2000  # competitors: with more, sums for all pairs of them do not fit into memory


@dataclass(frozen=True, slots=True)
class Tournament:
    """Comparisons of K competitors; columns of length n."""

    competitors: tuple[str, ...]  # in the order of the alphabet
    rows: Rows  # pair i * K + j with i < j; the preference is that for i
    swapped: Bool  # the row's model_a is competitor j
    cluster: Int32  # from 0
    clusters: int
    alone: int  # rows of a competitor against itself, which were left out

    def __len__(self) -> int:
        return len(self.rows.pair)

    @property
    def size(self) -> int:
        """K."""
        return len(self.competitors)

    def weights(self) -> Float64:
        """Return the rows' weights [n], 1 where there are none."""
        return self.rows.weight if len(self.rows.weight) else np.ones(len(self))

    def sums(self) -> Float64:
        """Return [K * K, 3]: weight, score of i and ties of each pair (`comparisons.pair_sums`)."""
        return pair_sums(self.rows, self.size)

    def points(self) -> tuple[Float64, Float64]:
        """Return points of the row's competitor against the column's, and their ties; [K, K].

        A tie is half a point to both; ties are symmetric.
        """
        sums = self.sums().reshape(self.size, self.size, 3)
        points = sums[:, :, 1] + (sums[:, :, 0] - sums[:, :, 1]).T
        return points, sums[:, :, 2] + sums[:, :, 2].T


def tournament(table: pa.Table) -> Tournament:
    """Encode a table of comparisons (`comparisons.read`) as a tournament.

    Columns are model_a, model_b and preference; tie, weight and instruction if there are any.

    Raises:
        InputRefused: fewer than two competitors, or too many.
    """
    competitors, a, b = _competitors(table)
    other = a != b
    alone = int(len(a) - np.count_nonzero(other))
    if alone:
        table = table.filter(pa.array(other))
        a, b = a[other], b[other]
    if not 2 <= len(competitors) <= MOST or not len(a):
        raise InputRefused(
            f"{len(competitors):,} competitors; ratings need 2 to {MOST:,} that were compared",
            remedy="check which columns are model_a and model_b: --map model_a=COLUMN",
        )
    swapped = a > b
    preference, cluster = to_floats(table["preference"]), clusters_of(table)
    tie = table["tie"] if "tie" in table.column_names else None
    return Tournament(
        competitors=competitors,
        rows=rows_of(
            np.minimum(a, b) * len(competitors) + np.maximum(a, b),
            np.where(swapped, 1 - preference, preference),
            NOTHING if tie is None or tie.null_count else to_floats(tie),
            to_floats(table["weight"]) if "weight" in table.column_names else NOTHING,
        ),
        swapped=swapped,
        cluster=cluster,
        clusters=int(cluster.max()) + 1,
        alone=alone,
    )


def between_two(table: pa.Table) -> Bool:
    """Return which rows compare two competitors; the others compare one with itself."""
    first, second = (table[name].cast(pa.string()).combine_chunks() for name in MODELS)
    return to_mask(pc.not_equal(first, second))


def similar_names(name: str, names: Sequence[str]) -> str:
    """List up to three of the names that are most similar to this name, ignoring case."""
    return ", ".join(map(escape, close_names(name, names, count=3) or names[:3]))


def position_of(contest: Tournament, name: str, option: str) -> int:
    """Return the number of the competitor that an option names.

    Raises:
        UsageError: a competitor is unknown.
    """
    if name not in contest.competitors:
        raise UsageError(
            f"there is no competitor {escape(name)}",
            place=option,
            remedy=f"choose one, such as {similar_names(name, contest.competitors)}",
        )
    return contest.competitors.index(name)


def clusters_of(table: pa.Table) -> Int32:
    """Return the number of each row's instruction, from 0; each row is a cluster without any.

    Numbers follow the order of ids, so that draws of instructions do not depend on that of rows.
    """
    if "instruction" not in table.column_names:
        return np.arange(len(table), dtype=np.int32)
    coded = table["instruction"].combine_chunks().dictionary_encode()
    number = np.asarray(pc.rank(coded.dictionary)).astype(np.int32) - 1
    return np.asarray(number[np.asarray(coded.indices)])


def _competitors(table: pa.Table) -> tuple[tuple[str, ...], Int32, Int32]:
    sides = [table[name].combine_chunks().dictionary_encode() for name in ("model_a", "model_b")]
    present = [pc.take(side.dictionary, pc.unique(side.indices)) for side in sides]
    names = sorted(set().union(*(part.to_pylist() for part in present)))
    index = {name: i for i, name in enumerate(names)}
    codes = []
    for side in sides:
        known = np.array([index.get(name, -1) for name in side.dictionary.to_pylist()], np.int32)
        codes.append(known[side.indices])
    return tuple(names), codes[0], codes[1]
