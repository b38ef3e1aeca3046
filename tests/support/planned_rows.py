"""Accepted rows and planned rows, made by hand."""

from __future__ import annotations

import pyarrow as pa

from steelyard.core.schemas import INTAKE, TURNS
from steelyard.plan.keys import plan_batch
from support.helpers import pairwise_key_spec


def intake(rows):
    """INTAKE of (instruction, a, b, system, last user turn)."""
    names = ("instruction", "response_a", "response_b", "system")
    columns = {
        name: pa.array([row[at] for row in rows], pa.string()) for at, name in enumerate(names)
    }
    turns = [row[4] and [{"role": "user", "content": row[4]}] for row in rows]
    columns |= {
        "shard": pa.repeat("s", len(rows)),
        "row": pa.array(range(len(rows))),
        "turns": pa.array([turn or None for turn in turns], TURNS),
    }
    filled = [columns.get(field.name, pa.nulls(len(rows), field.type)) for field in INTAKE]
    return pa.RecordBatch.from_arrays(filled, schema=INTAKE)


def planned(rows, **columns):
    """Planned rows of (instruction, a, b) or (instruction, a, b, system); more INTAKE columns."""
    batch = intake([(*row, None, None)[:5] for row in rows])
    for name, values in columns.items():
        at = batch.schema.get_field_index(name)
        kind = batch.schema.field(at) if at >= 0 else None
        if kind is None:
            batch = batch.append_column(name, values)
        else:
            batch = batch.set_column(at, kind, pa.array(values, kind.type))
    return plan_batch(batch, pairwise_key_spec())
