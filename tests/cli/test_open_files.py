"""Every command under every small limit of open files: it works, or says what to raise.

A process is forked for each limit from one that has everything imported: each begins with only
stdin, stdout and stderr open, and what it opens is what the command itself needs.

Kind of fault: the machine or Ctrl-C ends the work.
"""

import json
import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import steelyard
from support.helpers import write_pairs

LIMITS = range(3, 15)
MORE_LIMITS = {"score, replicas": [3, 7, 11, *range(15, 21)]}  # pipes to each of two processes
PROCESS = """
import atexit, faulthandler, json, os, resource, sys
from steelyard.cli import main
import steelyard.cli.doctor
import steelyard, steelyard.comparisons.importing, steelyard.evaluation.evaluate
import steelyard.evaluation.fit, steelyard.export.exporter, steelyard.ranking.bias
import steelyard.ranking.rank, steelyard.ranking.winrate, steelyard.scoring.estimate
import steelyard.scoring.run, steelyard.scoring.status, steelyard.store.verdicts.database

# Importing vLLM takes minutes, and is a process of its own.
sys.modules["steelyard.cli.doctor"].find_spec = lambda _: None

def run(limit, arguments):
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = "main did not exit"
    try:
        for handle, name in (1, "out"), (2, "err"):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), handle)
        os.closerange(3, 256)
        faulthandler.dump_traceback_later(100, exit=True)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        try:
            main([argument.replace("LIMIT", str(limit)) for argument in arguments])
        except SystemExit as ended:
            code = ended.code
        sys.stdout.flush(), sys.stderr.flush()
        atexit._run_exitfuncs()
    finally:
        os._exit(code if isinstance(code, int) else 99)

for limit in json.loads(sys.argv[1]):
    code = run(limit, sys.argv[2:])
    print(json.dumps([limit, code, open("err", errors="replace").read()]), flush=True)
"""
COMMANDS = {
    "plan": "plan pairs.parquet --judge scripted --quiet",
    "score": "score pairs.parquet --run new-LIMIT --judge scripted --quiet",
    "score, shuffled": "score shuffled.parquet --run other-LIMIT --judge scripted --quiet",
    "score, replicas": "score pairs.parquet --run both-LIMIT --judge scripted --replicas 2 --quiet",
    "resume": "resume run --quiet",
    "resume, the database is gone": "resume half-LIMIT --quiet",
    "status": "status run",
    "sql": "sql run FROM+verdicts",
    "compact": "compact run",
    "compact --out": "compact run --out copy-LIMIT.duckdb",
    "export": "export run --format preference --out data-LIMIT",
    "rank": "rank run",
    "winrate": "winrate run --baseline m3",
    "bias": "bias run",
    "evaluate": "evaluate run --replicates 0",
    "calibrate fit": "calibrate fit run --out calibrator-LIMIT.json",
    "import": "import votes.parquet --run imported-LIMIT",
    "protocol list": "protocol list",
    "judge inspect": "judge inspect scripted",
    "doctor": "doctor",
    "version": "version",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("limits")
    write_pairs(place / "pairs.parquet", 60, instructions=60)
    table = pq.read_table(write_pairs(place / "shuffled.parquet", 60, instructions=7))
    labelled = table.append_column("gold", pa.array(["a", "b", "tie"] * 20))
    pq.write_table(labelled, place / "gold.parquet")
    votes = {"model_a": ["x", "y"] * 30, "model_b": ["z", "w"] * 30, "preference": [0.3, 0.7] * 30}
    pq.write_table(pa.table(votes), place / "votes.parquet")
    steelyard.score(place / "gold.parquet", run=place / "run", judge="scripted")
    steelyard.score(place / "gold.parquet", run=place / "live", judge="scripted")
    (place / "live" / "verdicts.duckdb").unlink()
    for limit in LIMITS:
        half = place / f"half-{limit}"
        subprocess.run(["cp", "-r", place / "live", half], check=True)
    return place


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_with_few_open_files_works_or_says_what_to_raise(place, name):
    arguments = [word.replace("+", " ") for word in COMMANDS[name].split()]
    limits = MORE_LIMITS.get(name, LIMITS)
    (place / "temporary").mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", PROCESS, json.dumps([*limits]), *arguments],
        capture_output=True, text=True, check=False, cwd=place, timeout=1000,
        env={**os.environ, "TMPDIR": str(place / "temporary")},
    )  # fmt: skip
    ends = [json.loads(line) for line in done.stdout.splitlines()]
    assert [limit for limit, *_ in ends] == [*limits], done.stderr
    for limit, code, words in ends:
        assert "Traceback" not in words, (limit, code, words)
        assert "internal" not in words, (limit, code, words)
        assert code in {0, 5}, (limit, code, words)
        if code and name != "doctor":
            assert "Too many open files" in words, (limit, words)
            assert "ulimit -n" in words, (limit, words)
    assert not list((place / "temporary").iterdir())
    codes = [code for _, code, _ in ends]
    assert codes == sorted(codes, reverse=True), "more files, and it fails again"
    assert codes[-1] == 0 or name == "doctor"
