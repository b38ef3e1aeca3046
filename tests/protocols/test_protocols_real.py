"""Every protocol through vLLM on the CPU: random judges, and one that writes what a test wants."""

import json
import math
import signal
import subprocess
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from steelyard.core.config import RunConfig
from steelyard.core.progress import Reporter
from steelyard.protocols import get_protocol, protocol_names
from steelyard.scoring.run import score
from steelyard.scoring.status import run_status
from steelyard.store.reads.journal import read_journal
from support.helpers import PROGRAM, command, rows
from support.mirrored import assert_mirrored, mirrored_pairs, options_of
from support.tiny import write_model

pytestmark = pytest.mark.vllm
QUIET = Reporter(quiet=True)
WORDS = ("Yes", "No")
LABELLED = [name for name in protocol_names() if get_protocol(name).answer == "label"]


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    return str(write_model(tmp_path_factory.mktemp("judge"), context=4096, words=WORDS))


def speaking(folder, *says):
    """A judge that writes these texts whatever it is shown."""
    return str(write_model(folder, context=4096, words=WORDS, says=says))


def run_of(shard, run, judge, **options):
    config = RunConfig(inputs=(str(shard),), judge=(judge,), **options)
    return score(config, run, QUIET)


@pytest.mark.parametrize("name", LABELLED)
def test_labels_are_read_and_swapping_mirrors(judge, tmp_path, name):
    shard = mirrored_pairs(tmp_path / "pairs.parquet", 6)
    options = options_of(name, tmp_path)
    assert run_of(shard, tmp_path / "run", judge, protocol=(name,), **options) == 0
    assert assert_mirrored(tmp_path / "run", 6) == 6
    found = rows(tmp_path / "run", "SELECT label_logprobs FROM answers")
    assert len({tuple(row["label_logprobs"]) for row in found}) > 6
    assert all(math.exp(max(row["label_logprobs"])) <= 1 for row in found)
    reuse = {"protocol": (name,), "reuse": (str(tmp_path / "run"),), **options}
    assert run_of(shard, tmp_path / "again", judge, **reuse) == 0
    assert run_status(tmp_path / "again")["work"]["prompts"] == 0
    query = 'SELECT raw_preference, winner FROM verdicts ORDER BY "row"'
    again, once = (rows(tmp_path / run, query) for run in ("again", "run"))
    assert [row["winner"] for row in again] == [row["winner"] for row in once]
    # Sums of more than two numbers may differ in their last digit.
    preferences = [[row["raw_preference"] for row in found] for found in (again, once)]
    assert preferences[0] == pytest.approx(preferences[1], abs=1e-15)


def test_the_label_is_read_where_the_text_gives_the_verdict(tmp_path):
    speaker = speaking(tmp_path / "judge", "Because. ", "Verdict: [[", "A", "]]")
    shard = mirrored_pairs(tmp_path / "pairs.parquet", 3)
    assert run_of(shard, tmp_path / "run", speaker, protocol=("rationale",)) == 0
    found = rows(tmp_path / "run", "FROM answers")
    assert {row["output"] for row in found} == {"Because. Verdict: [[A]]"}
    assert not any(row["forced"] for row in found)
    # It is sure of A, whoever stands first.
    assert all(row["logit"] > 5 for row in found if row["shown"] == "ab")
    assert all(row["logit"] < -5 for row in found if row["shown"] == "ba")
    assert min(row["label_mass"] for row in found) > 0.9
    assert_mirrored(tmp_path / "run", 3)
    written = rows(tmp_path / "run", "SELECT DISTINCT output_tokens FROM reads")
    assert written == [{"output_tokens": 5}]  # the four texts and the end


def test_a_text_without_a_verdict_is_asked_for_it(tmp_path):
    speaker = speaking(tmp_path / "judge", "Both have their merits.")
    shard = mirrored_pairs(tmp_path / "pairs.parquet", 3)
    assert run_of(shard, tmp_path / "run", speaker, protocol=("rationale",)) == 0
    found = rows(tmp_path / "run", "FROM answers")
    assert {row["output"] for row in found} == {"Both have their merits."}
    assert all(row["forced"] and row["status"] == "ok" for row in found)
    flags = rows(
        tmp_path / "run", "SELECT DISTINCT list_contains(flags, 'forced') AS f FROM verdicts"
    )
    assert flags == [{"f": True}]
    tokens = rows(tmp_path / "run", "SELECT min(output_tokens) AS n FROM reads")
    assert tokens[0]["n"] > 5  # its text, its end, the opening of the verdict, the label


def test_scores_are_parsed_from_what_a_real_judge_writes(tmp_path):
    speaker = speaking(tmp_path / "judge", "Fine work.\n\n", "8 6.5")
    shard = mirrored_pairs(tmp_path / "pairs.parquet", 2)
    assert run_of(shard, tmp_path / "run", speaker, protocol=("two-scores",), samples=2) == 0
    found = rows(tmp_path / "run", "FROM answers")
    assert len(found) == 2 * 2 * 4
    assert {tuple(row["numbers"]) for row in found} == {(8.0, 6.5)}
    verdicts = rows(
        tmp_path / "run", "SELECT score_a, score_b, raw_preference, winner FROM verdicts"
    )
    assert {tuple(row.values()) for row in verdicts} == {(7.25, 7.25, 0.5, "tie")}


def test_a_probability_is_parsed_and_a_text_without_one_is_an_error_read(tmp_path):
    shard = mirrored_pairs(tmp_path / "pairs.parquet", 2)
    sure = speaking(tmp_path / "sure", "<probability>0.8</probability>")
    assert run_of(shard, tmp_path / "run", sure, protocol=("verbalized",)) == 0
    found = rows(tmp_path / "run", "SELECT DISTINCT preference_ab, preference_ba FROM verdicts")
    assert found == [{"preference_ab": 0.8, "preference_ba": pytest.approx(0.2)}]
    silent = speaking(tmp_path / "silent", "I cannot say.")
    assert run_of(shard, tmp_path / "none", silent, protocol=("verbalized",)) == 4
    found = rows(tmp_path / "none", "SELECT DISTINCT status, raw_preference FROM verdicts")
    assert found == [{"status": "unparsable", "raw_preference": None}]
    texts = rows(tmp_path / "none", "SELECT DISTINCT status, output FROM answers")
    assert texts == [{"status": "unparsable", "output": "I cannot say."}]
    assert run_status(tmp_path / "none")["prompts"]["unparsable"] == 4


def brief(name, folder):
    """The protocol, writing at most 48 tokens."""
    path = folder / f"{name}.toml"
    text = Path(get_protocol(name).place).read_text()
    path.write_text(text.replace("max_tokens = 512", "max_tokens = 48"))
    return str(path)


@pytest.mark.parametrize(
    ("name", "pairs"), [("pairwise", 60), ("rationale", 30), ("two-scores", 12)]
)
def test_a_killed_run_goes_on(judge, tmp_path, name, pairs):
    shard = mirrored_pairs(tmp_path / "pairs.parquet", pairs)
    (tmp_path / "run.toml").write_text("part_rows = 4\npart_seconds = 0.2\n")
    protocol = name if name == "pairwise" else brief(name, tmp_path)
    options = [
        "--judge",
        judge,
        "--protocol",
        protocol,
        "--config",
        tmp_path / "run.toml",
        "--quiet",
    ]
    line = [*PROGRAM, "score", shard, "--run", tmp_path / "run", *options]
    process = subprocess.Popen(list(map(str, line)), stderr=subprocess.DEVNULL)
    end = time.monotonic() + 180
    while len(read_journal(tmp_path / "run")) < 2:
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = rows(tmp_path / "run", "SELECT prompt_key, output FROM reads")
    assert before
    done = command("resume", tmp_path / "run", "--quiet")
    assert done.returncode == (4 if name == "two-scores" else 0), done.stderr
    after = {row["prompt_key"]: row["output"] for row in rows(tmp_path / "run", "FROM reads")}
    assert len(after) == run_status(tmp_path / "run")["prompts"]["unique"] > len(before)
    assert all(after[row["prompt_key"]] == row["output"] for row in before)


def test_two_judges_are_loaded_one_after_another(judge, tmp_path):
    other = str(write_model(tmp_path / "other", seed=1, context=4096, words=WORDS))
    shard = mirrored_pairs(tmp_path / "pairs.parquet", 4)
    config = RunConfig(inputs=(str(shard),), judge=(judge, other))
    assert score(config, tmp_path / "run", QUIET) == 0
    assert assert_mirrored(tmp_path / "run", 4) == 4
    means = rows(
        tmp_path / "run",
        'SELECT "row", judge, avg(logit) AS logit FROM answers GROUP BY ALL ORDER BY "row", judge',
    )
    assert len({row["judge"] for row in means}) == 2
    assert len({round(row["logit"], 6) for row in means}) > 4
    sessions = (tmp_path / "run" / "sessions.jsonl").read_text().splitlines()
    loaded = [json.loads(line).get("judge") for line in sessions if '"start"' in line]
    assert loaded == [judge, other]


def test_five_criteria_cost_a_third_of_criteria_first(judge, tmp_path):
    words = "a long answer of many words that have to be read "
    table = pa.table(
        {
            "instruction": [f"question {at}" for at in range(3)],
            "response": [f"{at} " + words * 12 for at in range(3)],
        }
    )
    pq.write_table(table, tmp_path / "rows.parquet")
    criteria = "\n".join(f'  "criterion number {at} of five",' for at in range(5))
    (tmp_path / "criteria.toml").write_text(f"criteria = [\n{criteria}\n]\n")
    protocol = get_protocol("rubric")
    (tmp_path / "first.toml").write_text(
        f'shows = "response"\nlabels = ["Yes", "No"]\ncombine = "rubric"\nprefix = "Answer:"\n'
        f'system = """{protocol.system}"""\nuser = """\n### Criterion\n{{{{ criterion }}}}\n\n'
        '{{ context }}\n\n### Response\n{{ response }}\n\nDoes it? Answer Yes or No."""\n'
    )
    computed = {}
    for name in ("rubric", str(tmp_path / "first.toml")):
        run = tmp_path / f"run {len(computed)}"
        options = {"protocol": (name,), "criteria": str(tmp_path / "criteria.toml")}
        assert run_of(tmp_path / "rows.parquet", run, judge, **options) == 0
        work = run_status(run)["work"]
        assert work["computed_tokens"] == work["oracle_tokens"]
        computed[name] = work["computed_tokens"]
    last, first = computed.values()
    assert 3 * last <= first
