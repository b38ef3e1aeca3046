"""Tables of other tools with calibrated columns."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from steelyard.calibrators.calibrator import COLUMNS, Calibrator, calibrated_sql
from steelyard.errors import InputRefused, UsageError
from steelyard.input.sql_roles import quoted, resolve_sql, typed_sql
from steelyard.input.tables import open_table
from steelyard.store.durable import PARQUET, TEMPORARY, publish, writing
from steelyard.store.sql import open_memory
from steelyard.store.sql_faults import raising_python_errors, refusing

BATCH = 1 << 18
VALUE = "value_read"  # what is calibrated
MADE_BY = b"steelyard_calibrator"  # of a table's metadata


def calibrator_of_table(path: Path) -> Calibrator | None:
    """Return the calibrator that a table was written with; None: `calibrate_file` did not write it.

    Raises:
        CalibratorRefused: it is damaged.
    """
    if not path.is_file():
        return None
    try:
        content = (pq.read_schema(path).metadata or {}).get(MADE_BY)
    except (OSError, pa.ArrowException):
        return None
    return None if content is None else Calibrator.from_json(content.decode(), str(path))


def calibrate_file(
    path: Path, columns: Mapping[str, str], calibrator: Calibrator, out: Path
) -> int:
    """Write a Parquet table with the calibrated columns added; its other columns stay.

    A position-aware calibrator reads the roles preference_ab and preference_ba, a length-aware one
    length_a and length_b. The file's metadata has the calibrator.

    Args:
        path: Parquet file, folder or pattern.
        columns: role -> column; `logit` or `preference` names what is calibrated.
        calibrator: what to apply.
        out: the file to write.

    Returns:
        Rows written.

    Raises:
        UsageError: a column is not there.
        InputRefused: the table cannot be read, or values cannot be calibrated.
    """
    temporary = out.with_name(f"{out.name}.{os.getpid()}{TEMPORARY}")  # two may write at once
    try:
        with (
            raising_python_errors(),
            refusing(partial(_refused, path)),
            open_memory() as connection,
        ):
            source = open_table(path)
            connection.register("source_rows", source.data)
            reader = connection.sql(_query(str(path), source.names, columns, calibrator))
            with writing(out, "nothing was written", "try again"):
                rows = _write(reader.to_arrow_reader(BATCH), temporary, calibrator)
                publish(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)
    return rows


def _refused(path: Path, words: str) -> InputRefused:
    return InputRefused(
        f"the table cannot be calibrated: {words}",
        place=str(path),
        remedy="check the columns that the calibrator needs: `steelyard calibrate show`",
    )


def _query(place: str, names: list[str], columns: Mapping[str, str], calibrator: Calibrator) -> str:
    sql = {name: quoted(name) for name in names}
    # `members[1].logit_ab` is a part of the column `members`.
    inputs = list(dict.fromkeys(name.partition("[")[0] for name in calibrator.curve.columns))
    roles = resolve_sql(place, sql, columns, ["preference", *inputs])
    role = next((name for name in ("logit", "preference") if name in roles), None)
    if role is None:
        raise UsageError(
            "winners and pairs of scores have no probability to calibrate",
            place=place,
            remedy="name a column with --logit or --preference",
        )
    held = (name.replace('"', '""') for name in names if name not in COLUMNS)
    kept = ", ".join(f'"{name}" := "{name}"' for name in held)
    # What the calibrator reads is selected under the calibrator's names: --map may give others.
    read = {name: typed_sql(name, roles[name]) for name in inputs}
    read[VALUE] = typed_sql(role, roles[role])
    selected = ", ".join(f"{sql} AS {name}" for name, sql in read.items())
    definition = calibrated_sql(calibrator, VALUE, is_logit=role == "logit")
    added = ", ".join(f"{sql} AS {name}" for name, sql in definition)
    inner = f"SELECT struct_pack({kept}) AS whole_row, {selected} FROM source_rows"  # noqa: S608
    return f"SELECT whole_row.*, {added} FROM ({inner})"  # noqa: S608 - names are checked


def _write(reader: pa.RecordBatchReader, path: Path, calibrator: Calibrator) -> int:
    rows, schema = 0, reader.schema.with_metadata({MADE_BY: calibrator.to_json()})
    with pq.ParquetWriter(path, schema, **PARQUET) as writer:
        for batch in reader:
            writer.write_batch(batch)
            rows += len(batch)
    return rows
