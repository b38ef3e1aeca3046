"""How many bytes each row of a column holds."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from ..records import Int64


def row_bytes(values: pa.Array) -> Int64:
    """Bytes of each row's values: UTF-8 of texts, items of lists; no null maps or offsets.

    Args:
        values: n rows of a type that `columns.metadata_type` allows.

    Returns:
        n sizes.
    """
    kind = values.type
    if pt.is_string(kind) or pt.is_binary(kind):
        return _int64(pc.binary_length(values))
    if pt.is_list(kind) or pt.is_map(kind):
        offsets = values.offsets.to_numpy()
        if pt.is_map(kind):
            inner = row_bytes(values.keys) + row_bytes(values.items)
        else:
            inner = row_bytes(values.values)
        upto = np.concatenate([[0], np.cumsum(inner)])
        sizes: Int64 = upto[offsets[1:]] - upto[offsets[:-1]]
        return sizes
    total = np.zeros(len(values), dtype=np.int64)
    if pt.is_struct(kind):
        for index in range(kind.num_fields):
            total += row_bytes(pc.struct_field(values, [index]))
        return total
    width = 0 if pt.is_null(kind) else (kind.bit_width + 7) // 8
    return total + width


def _int64(lengths: pa.Array) -> Int64:
    sizes: Int64 = lengths.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    return sizes
