"""Clusters of rows that depend on each other: their ids, their sums, and how many are enough.

The id of an instruction is defined here alone, so that tables of any source can be joined on it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt
import xxhash

from steelyard.core.schemas import Float64

Codes = npt.NDArray[np.integer[Any]]

MIN_FOR_NORMAL = 30  # clusters: with fewer, intervals by the normal distribution are too narrow
MIN_FOR_INTERVAL = 5  # clusters: with fewer, their spread says nothing, and no interval is given
_WHOLE = float(1 << 53)  # from here on neighbouring whole numbers are one float


def instruction_ids(values: pa.Array) -> pa.Array:
    """Return ids of instructions, whatever names them.

    Whole numbers from 0 on are their own ids. Texts, trimmed, have the first eight bytes of their
    xxh3_128, which is also the id that the planner gives an instruction; other numbers count as
    texts. So the text 7 is not the number 7, nor the text 007.

    Args:
        values: n integers, floats or strings.

    Returns:
        uint64 [n]; null for a null, a NaN and a blank text.
    """
    if pt.is_unsigned_integer(values.type):
        return values.cast(pa.uint64())
    if not (pt.is_integer(values.type) or pt.is_floating(values.type)):
        return _hashed(values)
    whole = pc.greater_equal(values, 0)
    if pt.is_floating(values.type):
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
        small = pc.less(values, _WHOLE)
        whole = pc.and_(whole, pc.and_(small, pc.equal(values, pc.floor(values))))
    numbers = pc.if_else(whole, values, pa.scalar(None, values.type)).cast(pa.uint64())
    if numbers.null_count == values.null_count:
        return numbers
    return pc.coalesce(numbers, _hashed(values.cast(pa.string())))


def cluster_warning(clusters: int) -> str | None:
    """Return the warning that few clusters deserve; None where there are enough."""
    if clusters >= MIN_FOR_NORMAL:
        return None
    if clusters >= MIN_FOR_INTERVAL:
        return f"only {clusters} clusters: the intervals are too narrow"
    words = "1 cluster" if clusters == 1 else f"{clusters} clusters"
    return f"only {words}: too few to estimate uncertainty; no interval is given"


def cluster_sums(values: Float64, cluster: Codes, clusters: int | None = None) -> Float64:
    """Return the sums [G, k] of rows by cluster.

    Args:
        values: float64 [n, k].
        cluster: whole numbers [n].
        clusters: G, where clusters are numbered from 0 to G - 1; None: those that rows name,
            in rising order.
    """
    if clusters is None:
        names, cluster = np.unique(cluster, return_inverse=True)
        clusters = len(names)
    columns = [np.bincount(cluster, weights=column, minlength=clusters) for column in values.T]
    return np.stack(columns, axis=1).astype(np.float64)


def clustered_covariance(influence: Float64, clusters: int | None = None) -> Float64:
    """Return the covariance [k, k] of k estimates, the sandwich over clusters.

    It is G / (G - 1) times the sum of the outer products of influences (Liang and Zeger,
    Biometrika 73, 1986).

    Args:
        influence: float64 [G, k], how far each cluster's rows move the estimates.
        clusters: G, where rows of `influence` do not count as one each; None: their number.
    """
    groups = len(influence) if clusters is None else clusters
    return np.asarray(influence.T @ influence * groups / max(groups - 1, 1))


def _hashed(texts: pa.Array) -> pa.Array:
    coded = texts if pt.is_dictionary(texts.type) else texts.dictionary_encode()
    trimmed = pc.utf8_trim_whitespace(coded.dictionary.cast(pa.string()))
    ids = [
        int.from_bytes(xxhash.xxh3_128_digest(text.encode())[:8], "little") if text else None
        for text in trimmed.to_pylist()
    ]
    return pa.array(ids, pa.uint64()).take(coded.indices)
