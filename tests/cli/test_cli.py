"""What commands print, and what they do not have to import."""

import json
import subprocess
import sys

import pytest

import steelyard
from steelyard.store.rundir import RunDir
from support.helpers import program, write_pairs

HEAVY = {"vllm", "torch", "transformers", "numba", "duckdb", "pyarrow", "numpy"}


def imported(*arguments):
    """Top-level modules that a command imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "steelyard", *map(str, arguments)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    names = [line.split("|")[-1].strip() for line in done.stderr.splitlines() if "|" in line]
    return {name.split(".")[0] for name in names}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("cli")
    write_pairs(place / "pairs.parquet", 40)
    steelyard.score(place / "pairs.parquet", run=place / "run", judge="scripted")
    return place / "run"


@pytest.mark.parametrize("arguments", [["--help"], ["version"], ["--version"], ["score", "--help"]])
def test_help_pays_for_nothing(arguments):
    assert not imported(*arguments) & HEAVY


def test_the_option_prints_what_the_command_prints():
    option, version = program("--version"), program("version")
    assert (option.returncode, option.stdout) == (0, version.stdout)
    assert option.stdout.startswith("steelyard ")


def test_summaries_of_commands_are_not_cut():
    summaries = program("--help").stdout.partition("Commands:")[2]
    assert "score" in summaries
    assert "..." not in summaries


def test_status_pays_for_no_engine(run):
    assert not imported("status", run) & {"vllm", "torch", "transformers", "numba", "duckdb"}


def test_sql_pays_for_no_engine(run):
    assert not imported("sql", run, "SELECT 1") & {"vllm", "torch", "transformers", "numba"}


@pytest.mark.parametrize(
    "arguments",
    [
        ("status", "{run}"),
        ("sql", "{run}", "SELECT * FROM verdicts"),
        ("compact", "{run}", "--out", "{out}"),
        ("plan", "{shard}", "--judge", "scripted", "--quiet"),
        ("judge", "inspect", "scripted"),
        ("version",),
    ],
    ids=lambda arguments: arguments[0],
)
def test_json_is_json_and_text_is_text(run, tmp_path, arguments):
    values = {"run": run, "out": tmp_path / "o.duckdb", "shard": run.parent / "pairs.parquet"}
    line = [argument.format(**values) for argument in arguments]
    done = program(*line, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)
    plain = program(*line)
    assert plain.returncode == 0
    assert plain.stdout.strip()
    with pytest.raises(json.JSONDecodeError):
        json.loads(plain.stdout)


def test_plan_says_what_score_then_does(run):
    shard = run.parent / "pairs.parquet"
    done = program("plan", shard, "--judge", "scripted", "--json", "--quiet")
    content = json.loads(done.stdout)
    status = steelyard.open_run(run).status()
    assert content["pairs"] == status["pairs"]["planned"] == 40
    assert content["prompts"]["unique"] == status["prompts"]["unique"]
    assert content["tokens"] == status["tokens"]["prompt"]
    assert content["floor_tokens"] < content["tokens"]
    assert content["counted_share"] == 1


def test_plan_leaves_nothing_behind(run, tmp_path):
    done = program("plan", run.parent / "pairs.parquet", "--judge", "scripted", cwd=tmp_path)
    assert done.returncode == 0
    assert not list(tmp_path.iterdir())


def test_watch_ends_with_the_run(run):
    done = program("status", run, "--watch", timeout=20)
    assert done.returncode == 0
    assert "complete" in done.stdout


def test_results_go_to_stdout_and_progress_to_stderr(tmp_path):
    shard = write_pairs(tmp_path / "p.parquet", 20)
    done = program("score", shard, "--run", tmp_path / "run", "--judge", "scripted", "--json")
    assert json.loads(done.stdout)["state"] == "complete"
    assert "planned 20 pairs" in done.stderr
    again = program("score", shard, "--run", tmp_path / "run", "--judge", "scripted", "--quiet")
    assert again.stderr == ""


def test_doctor_gives_a_remedy_for_everything_bad():
    done = program("doctor", "--json")
    findings = json.loads(done.stdout)
    assert {"python", "duckdb", "vllm", "torch"} <= {finding["name"] for finding in findings}
    assert all(finding["remedy"] for finding in findings if finding["state"] == "bad")
    assert done.returncode == (5 if any(f["state"] == "bad" for f in findings) else 0)


def test_an_unexpected_failure_shows_no_traceback(monkeypatch, capsys):
    from steelyard import cli
    from steelyard.scoring import status

    def broken(_):
        raise RuntimeError("never \x1b[31mseen")

    monkeypatch.setattr(status, "run_status", broken)
    monkeypatch.delenv("STEELYARD_TRACEBACK", raising=False)
    with pytest.raises(SystemExit) as ended:
        cli.main(["status", "x"])
    words = capsys.readouterr().err
    assert ended.value.code == 1
    assert words.startswith("error[internal]: RuntimeError: never \\x1b")
    assert "Traceback" not in words


def test_json_has_no_number_that_is_none_and_loses_no_column(run):
    done = program("sql", "--json", run, "SELECT 'inf'::DOUBLE AS x, 'nan'::DOUBLE AS y, 1 AS x")
    assert json.loads(done.stdout) == [{"x": None, "y": None, "x_2": 1}]


def test_an_empty_query_is_refused(run):
    assert program("sql", run, " ;\n").returncode == 2


def test_explain_can_be_read(run):
    done = program("sql", run, "EXPLAIN SELECT count(*) FROM verdicts")
    assert "\\n" not in done.stdout
    assert len(done.stdout.splitlines()) >= 3


def test_compact_of_no_run_makes_no_folder(tmp_path):
    assert program("compact", tmp_path / "none").returncode == 2
    assert not list(tmp_path.iterdir())


def test_only_the_one_writer_compacts_the_runs_own_file(run, tmp_path):
    with RunDir(run).lock():
        done = program("compact", run)
        assert done.returncode == 5
        assert "error[locked]" in done.stderr
        assert program("compact", run, "--out", tmp_path / "copy.duckdb").returncode == 0


def test_engine_settings_of_the_scripted_judge_are_refused(tmp_path):
    shard = write_pairs(tmp_path / "p.parquet", 3)
    line = ("score", shard, "--run", tmp_path / "run", "--judge", "scripted")
    done = program(*line, "--engine", "seed=1")
    assert done.returncode == 2
    assert "no engine setting seed" in done.stderr


def test_watch_ends_where_nothing_goes_on(tmp_path):
    shard = write_pairs(tmp_path / "p.parquet", 5)
    steelyard.score(shard, run=tmp_path / "run", judge="scripted")
    (part,) = (tmp_path / "run/reads").glob("part-*")
    part.unlink()
    done = program("status", tmp_path / "run", "--watch", timeout=60)
    assert done.returncode == 0
    assert "(damaged)" in done.stdout
