"""Turns verdicts that were made elsewhere into a run: tables -> verdicts in Parquet -> DuckDB.

Preferences are brought to [0, 1] here and nowhere else, and never stored on another scale.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from steelyard.comparisons.import_rows import PROTOCOL, Reading, read_verdicts, verdict_schema
from steelyard.core.config import fingerprint
from steelyard.errors import EXIT_DONE, EXIT_ROW_ERRORS, InputRefused, UsageError, escape
from steelyard.input import Limits, ShardSet, open_shards
from steelyard.input.problems import list_columns
from steelyard.input.roles import MODELS, VERDICT_TABLE
from steelyard.input.stream import read
from steelyard.store.run_record import ImportedRecord, ImportRecord, common_fields, write_record
from steelyard.store.rundir import RECORD, RunDir
from steelyard.store.snapshot import RunSnapshot
from steelyard.store.verdicts import handoff
from steelyard.store.verdicts.imported import ImportWriter

CONSTANT = "="  # --map model_b==NAME


def import_tables(
    inputs: Sequence[str],
    run: Path,
    *,
    column_map: Mapping[str, str] | None = None,
    scale: str | None = None,
    judge: str = PROTOCOL,
) -> int:
    """Make a run of tables with verdicts that were made elsewhere.

    Args:
        inputs: Parquet files, folders, patterns or URLs.
        run: the run directory, which must not hold a run.
        column_map: role -> column, or `=NAME` for a competitor that is the same in all rows.
        scale: the preference that means "b wins", two dots, the one for "a wins"; None: 0..1.
        judge: who made the verdicts.

    Returns:
        Exit code: 0 done, 4 done with refused rows.

    Raises:
        UsageError: the map or the scale is wrong, or there is a run already.
        InputRefused: the tables cannot be read, lack a role, or no row is good.
    """
    target = RunDir(run)
    target.check()
    if not judge.strip():
        raise UsageError("the judge has no name", remedy="--judge NAME says who made the verdicts")
    low, high = _scale("0..1" if scale is None else scale)
    columns, constants = _constants(column_map or {})
    reading = Reading(judge=judge, low=low, high=high, constants=constants)
    required = tuple(role for role in VERDICT_TABLE.required if role not in constants)
    tables = open_shards(inputs, columns, replace(VERDICT_TABLE, required=required))
    _check_result(tables)
    if scale is not None and "winner" in tables.roles:
        column = escape(tables.roles["winner"])
        raise UsageError(
            f"--scale {escape(scale)} has no effect on the winners in {column}",
            remedy="leave it out, or name the column of preferences: --map preference=COLUMN"
            " --map winner=",
        )
    with target.lock_new():
        if target.files.exists(RECORD):
            raise UsageError(
                "there is a run already",
                place=str(run),
                effect="nothing was changed",
                remedy="name a new folder with --run",
            )
        imported = _write(target, tables, reading)
        write_record(target, _record(imported, tables, reading))
        handoff.compact(RunSnapshot.take(run))
    return EXIT_ROW_ERRORS if imported["rejected"] else EXIT_DONE


def _scale(text: str) -> tuple[float, float]:
    low, dots, high = text.partition("..")
    try:
        ends = float(low), float(high)
    except ValueError:
        ends = math.nan, math.nan
    if not dots or not all(map(math.isfinite, ends)) or ends[0] == ends[1]:
        raise UsageError(
            f"--scale is {escape(text)!r}",
            remedy="write the preference that means b wins, two dots, and the one that means a"
            " wins: 0..1, or 1..2, or 2..1",
        )
    return ends


def _constants(column_map: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the map with no column for constant competitors, and these by role."""
    constants = {
        role: column.removeprefix(CONSTANT)
        for role, column in column_map.items()
        if column.startswith(CONSTANT)
    }
    for role, name in constants.items():
        if role not in MODELS or not name.strip():
            raise UsageError(
                f"--map {escape(role)}=={escape(name)} gives no competitor's name",
                remedy="only model_a and model_b can be the same in all rows: --map model_b==NAME",
            )
    return {**column_map, **dict.fromkeys(constants, "")}, constants


def _check_result(tables: ShardSet) -> None:
    place = escape(tables.sources[0].name, 200)
    results = {"preference", "winner"} & tables.roles.keys()
    if not results:
        columns = list_columns([*tables.roles.values(), *tables.metadata.names])
        raise InputRefused(
            "no column for preference or winner",
            place=place,
            remedy=f"name it: --map preference=COLUMN or --map winner=COLUMN; {columns}",
        )
    if len(results) > 1:
        raise InputRefused(
            "preference and winner are both there",
            place=place,
            remedy="leave one out: --map winner= or --map preference=",
        )


def _write(target: RunDir, tables: ShardSet, reading: Reading) -> dict[str, Any]:
    writer = ImportWriter(target, verdict_schema(tables.metadata))
    first: str | None = None
    try:
        with closing(read(tables, Limits())) as batches:
            for batch in batches:
                verdicts, rejects = read_verdicts(batch, tables.roles, reading)
                writer.add(verdicts, rejects)
                if first is None and len(rejects):
                    first = f"row {rejects['row'][0]}: {rejects['detail'][0]}"
        if not writer.pairs:
            reasons = ", ".join(f"{count:,} {name}" for name, count in writer.rejected.items())
            raise InputRefused(
                f"every row was refused ({reasons}); {first}",
                place=escape(tables.sources[0].name, 200),
                remedy="see --map and --scale in docs/cli.md",
            )
    except BaseException:
        writer.abandon()
        raise
    return writer.commit()


def _record(imported: dict[str, Any], tables: ShardSet, reading: Reading) -> ImportedRecord:
    """Return the record of an imported run."""
    constants = {role: CONSTANT + name for role, name in reading.constants.items()}
    return ImportedRecord(
        **common_fields(tables),
        # What a calibrator depends on: who judged, not which tables hold it.
        fingerprint=fingerprint({"judge": reading.judge, "protocol": PROTOCOL}),
        config={"judge": reading.judge, "protocol": PROTOCOL},
        judges=({"name": reading.judge},),
        inquiry={"protocols": ({"name": PROTOCOL},)},
        imported=ImportRecord(
            tables=tuple(source.name for source in tables.sources),
            paths=tuple(source.origin or source.path for source in tables.sources),
            columns={**tables.roles, **constants},
            b_wins=reading.low,
            a_wins=reading.high,
            **imported,
        ),
    )
