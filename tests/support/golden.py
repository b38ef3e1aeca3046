"""The golden runs: which there are, what they are asked, and how answers are compared.

`tests/golden/make.py` records the answers of one version, `tests/test_golden.py` holds others to
them. Both reach the program by its command line and its public API alone.
"""

from __future__ import annotations

import json
import lzma
import math
import shlex
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from click.testing import CliRunner

import steelyard
from steelyard.cli import main

GOLDEN = Path(__file__).parents[1] / "golden"
EXPECTED = GOLDEN / "expected"
HANDOFF = "verdicts.duckdb"
INPUT, RUN, OUT = "@INPUT@", "@RUN@", "@OUT@"  # marks of folders, in commands and in run.json

SCORE = f"score --run {RUN} --config {INPUT}/small.toml --quiet"
# How each golden run was made. The rate slows reading down, so that it can be interrupted. Reads
# that fail are repeated, and where their turn comes depends on time, so that only a run without
# them has the same parts again.
RUNS = {
    "complete": f"{SCORE} {INPUT}/pairs --judge scripted:seed=7 --map instruction=query",
    "interrupted": f"{SCORE} {INPUT}/pairs/first.parquet --judge scripted:seed=3,nan=0.05,rate=100"
    " --protocol pairwise-tie --map instruction=query",
    "grouped": f"{SCORE} {INPUT}/grouped.parquet --judge scripted:seed=4,rate=100"
    " --protocol rationale --map instruction=query",
    "rubric": f"{SCORE} {INPUT}/responses.parquet --judge scripted:seed=5"
    f" --protocol rubric --criteria {INPUT}/criteria.toml",
    "imported": f"import {INPUT}/preferences.parquet --run {RUN} --judge elder --scale 1..2"
    " --map model_a=generator --map model_b==human",
}
INTERRUPTED = ("interrupted", "grouped")
CALIBRATED = "calibrated"  # `complete` after `calibrate apply`: only the files that this changes

FIT = f"calibrate fit {RUN} --gold {INPUT}/gold.parquet --out {OUT}/calibrator.json"
METHODS = ("auto", "position", "beta", "histogram", "isotonic")
# What each run is asked, by a name; the answers are in expected/RUN.json.
QUESTIONS = {
    "complete": {
        "status": f"status {RUN}",
        "rank": f"rank {RUN}",
        "rank bootstrap": f"rank {RUN} --intervals bootstrap --replicates 100 --seed 2",
        "rank elo": f"rank {RUN} --method elo --shuffles 5",
        "winrate": f"winrate {RUN} --baseline ada",
        "winrate style": f"winrate {RUN} --baseline ada --style",
        "bias": f"bias {RUN}",
        "evaluate": f"evaluate {RUN} --bootstraps 200",
        "evaluate by": f"evaluate {RUN} --gold {INPUT}/gold.parquet --by source --bootstraps 0",
        **{f"fit {method}": f"{FIT} --method {method}" for method in METHODS},
        "fit agreement": f"{FIT} --method platt --agreement 0.55 --confidence 0.6 --seed 3",
    },
    CALIBRATED: {
        "evaluate": f"evaluate {RUN} --gold {INPUT}/gold.parquet --bootstraps 0",
        "show": f"calibrate show {RUN}",
    },
    "interrupted": {
        "status": f"status {RUN}",
        "rank davidson": f"rank {RUN} --method davidson --anchor bo",
        "rank rao-kupper": f"rank {RUN} --method rao-kupper",
    },
    "grouped": {"status": f"status {RUN}"},
    "rubric": {"status": f"status {RUN}"},
    "imported": {
        "status": f"status {RUN}",
        "rank": f"rank {RUN}",
        "winrate": f"winrate {RUN} --baseline human",
        "bias": f"bias {RUN}",
        "evaluate": f"evaluate {RUN} --bootstraps 0",
    },
}
# Datasets of the calibrated run; they are in expected/datasets.json.xz.
EXPORTS = {
    "preference": f"export {RUN} --out {OUT} --format preference --consistent --test 0.3",
    "reward": f"export {RUN} --out {OUT} --format reward --select best-worst",
    "kto": f"export {RUN} --out {OUT} --format kto --form plain",
    "sft": f"export {RUN} --out {OUT} --format sft",
    "autorater": f"export {RUN} --out {OUT} --format autorater --per-instruction 1",
    "grpo": f"export {RUN} --out {OUT} --format grpo --target preference --per-instruction 1",
}
EVERY = f"{SCORE} {INPUT}/every.parquet --judge scripted:seed=6"
EXAMPLES = f"--examples {INPUT}/examples.toml"
BUILTIN = (
    "pairwise", "pairwise-tie", "pairwise-brief", "multi-turn", "pointwise", "pointwise-10",
    "additive-5", "rubric", "two-scores", "rationale", "verbalized",
)  # fmt: skip
# Short runs under every protocol and with all that a record can hold; their prompt keys are in
# expected/prompts.json.
PROMPTS = {
    **{name: f"{EVERY} --protocol {name}" for name in BUILTIN},
    "few-shot": f"{EVERY} --protocol few-shot {EXAMPLES}",
    "panel": f"{EVERY} --judge scripted:seed=8 --protocol pairwise --protocol few-shot {EXAMPLES}",
    "criteria": f"{EVERY} --protocol rubric --criteria {INPUT}/criteria.toml --overlong truncate",
    "samples": f"{EVERY} --protocol two-scores --samples 2 --tie-band 0.5",
    "images": f"{SCORE} {INPUT}/images.parquet --judge scripted:seed=6",
}

# What differs between two equal runs: fields of answers, columns, and keys of the table `run`.
VOLATILE = {
    "steelyard", "run", "created", "updated", "parts", "bytes", "seconds", "cpu_seconds",
    "reading_seconds", "engine_seconds", "busy_share", "gpu_watt_hours",
    "gpu_watt_hours_per_1000_verdicts", "files", "damage", "remedy", "damaged_samples",
}  # fmt: skip
ROWS = {
    "verdicts": "SELECT * EXCLUDE (read_at) FROM verdicts",
    "reads": "SELECT * EXCLUDE (read_at) FROM reads",
    "work": "SELECT * EXCLUDE (reading_seconds, engine_seconds) FROM work",
    "run": "FROM run WHERE key IN ('fingerprint', 'input', 'inquiry', 'judges')",
}


def call(command: str, folders: dict[str, Path]) -> str:
    """Run a command in this process and return what it printed."""
    for mark, folder in folders.items():
        command = command.replace(mark, shlex.quote(str(folder)))
    environment = {"STEELYARD_TRACEBACK": "1"}
    result = CliRunner().invoke(main, shlex.split(command), env=environment, catch_exceptions=False)
    assert result.exit_code in {0, 4}, f"{command}: {result.stderr}"
    return result.stdout


def ask(question: str, folders: dict[str, Path]) -> Any:
    """Return a command's answer, without what differs from machine to machine."""
    answer = marked(call(f"{question} --json", folders), folders)
    return json.loads(answer, object_hook=_stable)


def _stable(entry: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value
        for key, value in entry.items()
        if key not in VOLATILE and not _is_prose(key, value)
    }


def _is_prose(key: str, value: object) -> bool:
    """Return whether a field holds sentences for people, which may be reworded at any time."""
    return key in {"notes", "warnings"} and isinstance(value, list)


def marked(text: str, folders: dict[str, Path]) -> str:
    """Return JSON with a mark for each folder's path."""
    for mark, folder in folders.items():
        text = text.replace(json.dumps(str(folder))[1:-1], mark)
    return text


def read_run(run: Path, names: Iterable[str]) -> dict[str, Any]:
    """Return tables and views of a run as this version shows them."""
    return _read(names, steelyard.open_run(run).sql)


def read_handoff(packed: Path, folder: Path) -> dict[str, Any]:
    """Return the tables and views of a compressed hand-off file, read by DuckDB alone."""
    path = unpack(packed, folder)
    with duckdb.connect(str(path), read_only=True) as connection:
        names = [name for (name,) in connection.execute("SHOW TABLES").fetchall()]
        return _read(names, lambda query: connection.sql(query).to_arrow_table())


def _read(names: Iterable[str], query: Callable[[str], pa.Table]) -> dict[str, Any]:
    """Return columns with their types, and the rows in a fixed order."""
    tables = {name: {"columns": {}, "rows": []} for name in names}
    columns = query("SELECT table_name, column_name, data_type FROM information_schema.columns")
    for name, column, kind in zip(*columns.to_pydict().values(), strict=True):
        if name in tables:
            tables[name]["columns"][column] = kind
    for name, table in tables.items():
        rows = query(f"{ROWS.get(name, f'FROM {name}')} ORDER BY ALL")
        table["rows"] = without_prose(rows.to_pylist())
    return tables


def without_prose(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows in which a message, which may be reworded, is only null or not."""
    messages = {"error", "detail"}
    return [
        {key: value is None if key in messages else value for key, value in row.items()}
        for row in rows
    ]


def without(dataset: dict[str, Any], columns: set[str]) -> dict[str, Any]:
    """Return what `export` returned with rows that lack some columns."""
    files = {name: dict(content) for name, content in dataset.items()}
    for content in files.values():
        if "rows" in content and isinstance(content["rows"], list):
            content["rows"] = [
                {key: value for key, value in row.items() if key not in columns}
                for row in content["rows"]
            ]
    return files


def renamed(table: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    """Return a table with one column under another name, at the end of each row."""
    columns, rows = dict(table["columns"]), [dict(row) for row in table["rows"]]
    for entry in (columns, *rows):
        entry[new] = entry.pop(old)
    return {"columns": columns, "rows": rows}


def export(command: str, folders: dict[str, Path]) -> dict[str, Any]:
    """Return what an export prints, and the columns and rows of its files."""
    content, files = {"answer": ask(command, folders)}, folders[OUT].glob("data/*.parquet")
    for path in sorted(files):
        table = pq.read_table(path)
        columns = {field.name: str(field.type) for field in table.schema}
        content[path.stem] = {"columns": columns, "rows": table.to_pylist()}
    return content


def masked_record(text: str) -> str:
    """Return the text of run.json without identity, time, versions, machine, prose and digests."""
    record = json.loads(text)
    record.pop("check", None)  # which the earlier version did not write
    record |= dict.fromkeys(("steelyard", "run", "created"), "")
    record["machine"] = dict.fromkeys(record["machine"], "")
    for protocol in record["inquiry"]["protocols"]:
        protocol.update(dict.fromkeys(protocol.keys() & {"about", "source", "place"}, ""))
    if "imported" in record:
        record["imported"]["files"] = dict.fromkeys(record["imported"]["files"], "")
    return format_record(record)


def format_record(record: dict[str, Any]) -> str:
    """Return a record as run.json holds it."""
    return json.dumps(record, indent=2, ensure_ascii=False) + "\n"


def masked_manifest(text: str) -> str:
    """Return the text of plan.json without the files' digests, which depend on pyarrow as well."""
    manifest = json.loads(text)
    for key in ("check", "run"):  # which the earlier version did not write
        manifest.pop(key, None)
    manifest["files"] = dict.fromkeys(manifest["files"], "")
    return json.dumps(manifest, indent=1)


def masked_journal(text: str) -> list[str]:
    """Return the lines of a journal without times, sizes and digests."""
    lines = []
    for line in text.splitlines():
        part = json.loads(line)["part"]
        assert line == format_line(part)
        part |= {"at": "", "bytes": 0, "digest": ""}
        for work in part["work"].values():
            work |= {"reading_seconds": 0, "engine_seconds": 0}
        lines.append(format_line(part))
    return lines


def format_line(part: dict[str, Any]) -> str:
    """Return a line of the journal: a part, and the check of its text."""
    body = json.dumps(part, separators=(",", ":"), sort_keys=True)
    return f'{{"check":"{xxhash.xxh3_64_hexdigest(body.encode())}","part":{body}}}'


def summarise_prompts(run: Path, folders: dict[str, Path], *, record: bool) -> dict[str, Any]:
    """Return the fingerprint or the record of a run, and its preferences and prompt keys."""
    text = masked_record(marked((run / "run.json").read_text("utf-8"), folders))
    content = json.loads(text)
    verdicts = steelyard.open_run(run).verdicts().to_pylist()
    return {
        "record": _shortened(content if record else {"fingerprint": content["fingerprint"]}),
        "verdicts": [
            [row["raw_preference"], *(key.hex()[:16] for key in row["keys"])] for row in verdicts
        ],
    }


def _shortened(value: Any) -> Any:
    """Return a record with a digest for every long text."""
    if isinstance(value, dict):
        return {key: _shortened(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_shortened(entry) for entry in value]
    if isinstance(value, str) and len(value) > 60:
        return f"xxh3:{xxhash.xxh3_64_hexdigest(value.encode())}"
    return value


def copy_input(folder: Path) -> Path:
    """Copy the golden input into a folder."""
    return shutil.copytree(GOLDEN / "input", folder / "input")


def copy_run(name: str, run: Path, inputs: Path) -> Path:
    """Copy a golden run, whose input is at `inputs`."""
    if name == CALIBRATED:
        shutil.copytree(GOLDEN / "complete", run, ignore=shutil.ignore_patterns(f"{HANDOFF}*"))
    shutil.copytree(GOLDEN / name, run, dirs_exist_ok=True)
    record = run / "run.json"
    text = record.read_text("utf-8").replace(INPUT, json.dumps(str(inputs))[1:-1])
    record.write_text(text, "utf-8")
    for packed in run.glob("*.xz"):
        unpack(packed, run)
        packed.unlink()
    return run


def pack(path: Path, packed: Path) -> None:
    """Compress a file."""
    packed.write_bytes(lzma.compress(path.read_bytes(), preset=9))


def unpack(packed: Path, folder: Path) -> Path:
    """Put a compressed file into a folder."""
    path = folder / packed.stem
    path.write_bytes(lzma.decompress(packed.read_bytes()))
    return path


def without_keys(content: Any, names: frozenset[str]) -> Any:
    """Return content without these keys of its objects, at any depth."""
    if isinstance(content, dict):
        return {
            key: without_keys(value, names) for key, value in content.items() if key not in names
        }
    return [without_keys(item, names) for item in content] if isinstance(content, list) else content


def assert_close(got: Any, want: Any, tolerance: float, path: str = "") -> None:
    """Check that values are the same: numbers to a tolerance, keys in the same order.

    A later version may add keys.
    """
    assert type(got) is type(want), (path, got, want)
    if isinstance(want, dict):
        assert [key for key in got if key in want] == list(want), path
        for key in want:
            assert_close(got[key], want[key], tolerance, f"{path}/{key}")
    elif isinstance(want, list):
        assert len(got) == len(want), path
        for index, pair in enumerate(zip(got, want, strict=True)):
            assert_close(*pair, tolerance, f"{path}/{index}")
    elif isinstance(want, float):
        close = math.isclose(got, want, rel_tol=tolerance, abs_tol=tolerance)
        assert close or (math.isnan(got) and math.isnan(want)), (path, got, want)
    else:
        assert got == want, (path, got, want)
