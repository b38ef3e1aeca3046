"""Make the golden runs and record what one version says of them. Run by hand, never by a test.

    git worktree add /tmp/steelyard-old f71c235
    PYTHONPATH=/tmp/steelyard-old/engine:/tmp/steelyard-old/kernels:tests python -m golden.make

The files in this folder were made by f71c235, the last version before the modules moved into
packages. Later versions have to go on with these runs: make them again only when the format of
the run directory changes on purpose. Records name the folder of the protocols' files.
"""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

import steelyard
from golden.inputs import write_inputs
from support import golden
from support.golden import CALIBRATED, EXPECTED, FIT, GOLDEN, HANDOFF, INPUT, INTERRUPTED, OUT, RUN

# The program on a machine that has no name.
PROGRAM = """
import platform
platform.node, platform.platform = lambda: "golden", lambda: "Linux"
from steelyard.cli import main
main()
"""
PARTS = 1  # committed before a run is interrupted


def make() -> None:
    """Write input, runs and answers anew."""
    work = Path(tempfile.gettempdir(), "steelyard-golden")
    made = [GOLDEN / name for name in ("expected", CALIBRATED, *golden.RUNS)]
    for folder in (work, *made):
        shutil.rmtree(folder, ignore_errors=True)
    EXPECTED.mkdir()
    write_inputs(GOLDEN / "input")
    inputs = golden.copy_input(work)
    for name, command in golden.RUNS.items():
        _make_run(command, {RUN: work / name, INPUT: inputs})
    _write_gold(work / "complete", [GOLDEN / "input", inputs])
    _calibrate(work, inputs)
    _record_runs(work, inputs)
    _record_exports(work, inputs)
    _record_prompts(work, inputs)
    shutil.rmtree(work)


def _make_run(command: str, folders: dict[str, Path]) -> None:
    for mark, folder in folders.items():
        command = command.replace(mark, str(folder))
    call = [sys.executable, "-c", PROGRAM, *shlex.split(command)]
    program, run = subprocess.Popen(call, stdout=subprocess.DEVNULL), folders[RUN]
    if run.name in INTERRUPTED:
        _interrupt(program, run)
    program.wait()
    target = GOLDEN / run.name
    shutil.copytree(run, target, ignore=shutil.ignore_patterns("lock", HANDOFF))
    record = target / "run.json"
    record.write_text(golden.marked(record.read_text("utf-8"), {INPUT: folders[INPUT]}), "utf-8")
    if (run / HANDOFF).exists():
        golden.pack(run / HANDOFF, target / f"{HANDOFF}.xz")


def _interrupt(program: subprocess.Popen[bytes], run: Path) -> None:
    """End a run in the middle: `interrupted` by Ctrl-C, `grouped` by a kill.

    The last line of the killed run's journal is cut short, as a crash of the machine may leave it.
    """
    journal = run / "journal.jsonl"
    while not journal.exists() or journal.read_bytes().count(b"\n") < PARTS:
        assert program.poll() is None, "the run ended before it was interrupted"
        time.sleep(0.01)
    kill = run.name == "grouped"
    program.send_signal(signal.SIGKILL if kill else signal.SIGINT)
    program.wait()
    if kill:
        journal.write_bytes(journal.read_bytes()[:-40])


def _write_gold(run: Path, targets: list[Path]) -> None:
    """Write votes of people who mostly say what the judge says, and sometimes that both tie."""
    verdicts = steelyard.open_run(run).sql(
        "SELECT pair_id, raw_preference FROM verdicts WHERE status = 'ok' ORDER BY ALL"
    )
    gold = {}
    for number, row in enumerate(verdicts.to_pylist()):
        share = min(3, max(0, round(3 * row["raw_preference"] + (number * 7 % 5 - 2) / 2)))
        votes = {"votes_a": share, "votes_b": 3 - share, "votes_tie": 4 if number % 6 == 0 else 0}
        gold[row["pair_id"]] = {"pair_id": row["pair_id"], **votes}
    for target in targets:
        _write_table(pa.Table.from_pylist(list(gold.values())), target / "gold.parquet")


def _calibrate(work: Path, inputs: Path) -> None:
    run, target = work / CALIBRATED, GOLDEN / CALIBRATED
    shutil.copytree(work / "complete", run)
    folders = {RUN: run, INPUT: inputs, OUT: work}
    golden.call(f"{FIT} --method platt --agreement 0.55 --confidence 0.6", folders)
    golden.call(f"calibrate apply {RUN} {OUT}/calibrator.json", folders)
    target.mkdir()
    shutil.copy(run / "calibration.json", target)
    golden.pack(run / HANDOFF, target / f"{HANDOFF}.xz")


def _record_runs(work: Path, inputs: Path) -> None:
    for name in INTERRUPTED:
        golden.call(f"resume {RUN} --quiet", {RUN: work / name})
        golden.pack(work / name / HANDOFF, EXPECTED / f"{name}.duckdb.xz")
    for name, questions in golden.QUESTIONS.items():
        folders = {RUN: work / name, INPUT: inputs, OUT: work}
        answers = {key: golden.ask(question, folders) for key, question in questions.items()}
        _write_json(answers, EXPECTED / f"{name}.json")


def _record_exports(work: Path, inputs: Path) -> None:
    datasets = {}
    for name, command in golden.EXPORTS.items():
        folders = {RUN: work / CALIBRATED, INPUT: inputs, OUT: work / f"dataset-{name}"}
        datasets[name] = golden.export(command, folders)
    _write_json(datasets, work / "datasets.json")
    golden.pack(work / "datasets.json", EXPECTED / "datasets.json.xz")


def _record_prompts(work: Path, inputs: Path) -> None:
    summaries = {}
    for name, command in golden.PROMPTS.items():
        folders = {RUN: work / "prompts" / name, INPUT: inputs}
        golden.call(command, folders)
        summaries[name] = golden.summarise_prompts(
            folders[RUN], folders, record=name not in golden.BUILTIN
        )
    _write_json(summaries, EXPECTED / "prompts.json")


def _write_table(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, compression="zstd", compression_level=19, write_statistics=False)


def _write_json(content: object, path: Path) -> None:
    text = json.dumps(_rounded(content), indent=0, separators=(",", ":"), ensure_ascii=False)
    path.write_text(text + "\n", "utf-8")


def _rounded(value: object) -> object:
    """Return a value with its numbers to ten digits, which is what answers are compared by."""
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_rounded(entry) for entry in value]
    return float(f"{value:.10g}") if isinstance(value, float) else value


if __name__ == "__main__":
    make()
