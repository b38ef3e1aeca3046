"""The whole path on a real engine: a tiny random model, and the embedded judge on real text."""

import json
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import steelyard
from support import tiny
from support.helpers import PROGRAM, ROOT, command, data_file, pairs_table

pytestmark = pytest.mark.vllm


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    return tiny.write_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    table = pairs_table(60, width=30).to_pylist()
    table[7] = table[3]  # an exact duplicate
    table[11] = table[3] | {
        "response_a": table[3]["response_b"], "response_b": table[3]["response_a"],
    }  # fmt: skip
    path = tmp_path_factory.mktemp("pairs") / "pairs.parquet"
    pq.write_table(pa.Table.from_pylist(table), path)
    return path


def score(shard, run, judge, *more, toml="", rc=0):
    (run.parent / "c.toml").write_text(toml)
    done = command(
        "score", shard, "--run", run, "--judge", judge, "--engine", "dtype=float32",
        "--config", run.parent / "c.toml", *more,
    )  # fmt: skip
    assert done.returncode == rc, done.stderr
    return steelyard.open_run(run)


@pytest.fixture(scope="module")
def reference(tmp_path_factory, shard, judge):
    return score(shard, tmp_path_factory.mktemp("reference") / "run", judge)


def test_messages_are_judged_as_the_same_pairs(reference, shard, judge, tmp_path):
    rows = pq.read_table(shard).to_pylist()
    lines = []
    for row in rows:
        asked = [{"role": "user", "content": row["instruction"]}]
        answers = ({"role": "assistant", "content": row[f"response_{side}"]} for side in "ab")
        chosen, rejected = ([*asked, answer] for answer in answers)
        lines.append(json.dumps({"chosen": chosen, "rejected": rejected}))
    (tmp_path / "trl.jsonl").write_text("\n".join(lines), "utf-8")
    run = score(tmp_path / "trl.jsonl", tmp_path / "run", judge)
    assert np.array_equal(preferences(run), preferences(reference))


def preferences(run):
    table = run.sql('SELECT preference_ab, preference_ba FROM verdicts ORDER BY shard, "row"')
    return np.asarray([table[name].to_numpy() for name in table.column_names])


def test_preferences_are_those_of_a_direct_forward_pass(reference, shard, judge):
    """Whole strings through transformers: template, segments, labels, orders, both directions."""
    import torch
    from transformers import AutoModelForCausalLM

    from steelyard.judge.model.tokenizer import HFEncoder
    from steelyard.protocols import get_protocol

    encoder = HFEncoder(judge)
    network = AutoModelForCausalLM.from_pretrained(judge, dtype=torch.float32)
    protocol = get_protocol("pairwise")
    ids = [
        [variant.token_id for variant in encoder.label_variants(label)] for label in protocol.labels
    ]
    found = preferences(reference)
    for at, row in enumerate(pq.read_table(shard).to_pylist()[:15]):
        for order, (first, second) in enumerate([("a", "b"), ("b", "a")]):
            texts = {
                "instruction": row["instruction"].strip(),
                "first": row[f"response_{first}"].strip(),
                "second": row[f"response_{second}"].strip(),
            }
            prompt, start = [], True
            chat = encoder.render_chat(protocol.messages(frozenset())) + protocol.prefix
            for piece in chat.split("[[slot:"):
                name, _, rest = piece.rpartition("]]") if not start else ("", "", piece)
                prompt += encoder.encode_data([texts[name]]).tokens.tolist() if name else []
                prompt += encoder.encode_template(rest, first=start)
                start = False
            with torch.inference_mode():
                logits = network(torch.tensor([prompt])).logits[0, -1].double()
            a, b = (torch.logsumexp(logits[one], 0).item() for one in ids)
            expected = 1 / (1 + np.exp(-(a - b if order == 0 else b - a)))
            assert found[order, at] == pytest.approx(expected, abs=1e-4)


def test_duplicates_and_swapped_pairs_cost_nothing(reference):
    status = reference.status()
    assert status["prompts"]["asked"] == 120
    assert status["prompts"]["unique"] == status["prompts"]["read"] == 116
    assert status["tokens"]["saved_by_dedupe"] > 0
    assert status["tokens"]["cached"] > 0
    ab, ba = preferences(reference)
    assert ab[7] == ab[3]
    assert ab[11] == pytest.approx(1 - ba[3])


def test_killed_and_resumed_equals_one_pass(reference, shard, judge, tmp_path):
    run, toml = tmp_path / "run", "part_rows = 32\npart_seconds = 0.2\n"
    (tmp_path / "c.toml").write_text(toml)
    command = [
        *PROGRAM, "score", str(shard), "--run", str(run), "--judge", str(judge), "--quiet",
        "--engine", "dtype=float32", "--config", str(tmp_path / "c.toml"),
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while not (run / "journal.jsonl").exists():
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.005)
    process.kill()
    process.wait()
    after = score(shard, run, judge, toml=toml)
    assert np.abs(preferences(after) - preferences(reference)).max() < 1e-3
    keys = "SELECT prompt_key FROM reads ORDER BY prompt_key"
    assert after.sql(keys) == reference.sql(keys)


def test_reuse_asks_the_engine_for_nothing(reference, shard, judge, tmp_path):
    other = score(shard, tmp_path / "run", judge, "--reuse", reference.root)
    assert other.status()["tokens"]["prompt"] == 0
    assert other.status()["prompts"]["reused"] == 116
    assert (preferences(other) == preferences(reference)).all()
    assert not (tmp_path / "run" / "telemetry.jsonl").exists()  # no engine was loaded


def test_two_replicas_read_the_same(reference, shard, judge, tmp_path):
    other = score(shard, tmp_path / "run", judge, "--replicas", "2")
    assert np.abs(preferences(other) - preferences(reference)).max() < 1e-3


def test_long_prompts_are_cut_or_refused(judge, tmp_path):
    shard = tmp_path / "long.parquet"
    pq.write_table(pairs_table(12, width=300), shard)
    limit = ("--engine", "max_model_len=416")
    refused = score(shard, tmp_path / "a", judge, *limit, rc=4)
    reasons = refused.sql("SELECT DISTINCT reason FROM rejects")["reason"].to_pylist()
    assert reasons == ["overlong"]
    cut = score(shard, tmp_path / "b", judge, *limit, "--overlong", "truncate")
    status = cut.sql("SELECT status, count(*) AS n FROM verdicts GROUP BY 1").to_pylist()
    assert status == [{"status": "ok", "n": 12}]
    assert cut.sql("SELECT max(prompt_tokens) AS n FROM reads")["n"][0].as_py() <= 415
    marked = cut.sql("SELECT count(*) AS n FROM verdicts WHERE list_contains(flags, 'truncated')")
    assert marked["n"][0].as_py() > 0


@pytest.mark.slow
@pytest.mark.usefixtures("embedded_judge")
def test_the_embedded_judge_survives_kills_on_real_text(tmp_path):
    """A small size of `benchmarks/soak.py --judge demo`, which does it on 300 pairs."""
    shard = data_file("arena/llmfao_pairs.parquet")
    command = [
        sys.executable, str(ROOT / "benchmarks/soak.py"), "--judge", "demo", "--input", str(shard),
        "--pairs", "12", "--kills", "2", "--json", str(tmp_path / "soak.json"),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_pairs_of_responses_are_read_as_those_that_were_written_out(shard, judge, tmp_path):
    """Each pair's two responses as two rows, apart; the same texts, prompts and preferences."""
    pairs = pq.read_table(shard).slice(20, 12).to_pylist()
    rows = [
        {
            "instruction": f"{i} {pair['instruction']}",
            "model": side,
            "response": pair[f"response_{side}"],
        }
        for side in "ab"
        for i, pair in enumerate(pairs)
    ]
    written = [
        {**pair, "instruction": f"{i} {pair['instruction']}"} for i, pair in enumerate(pairs)
    ]
    runs = []
    for name, listed, more in (("rows", rows, ("--pairs", "all")), ("written", written, ())):
        (tmp_path / name).mkdir()
        pq.write_table(pa.Table.from_pylist(listed), tmp_path / name / "in.parquet")
        runs.append(score(tmp_path / name / "in.parquet", tmp_path / name / "run", judge, *more))
    query = "SELECT keys, preference_ab, preference_ba FROM verdicts ORDER BY keys"
    made, expected = (run.sql(query) for run in runs)
    assert len(made) == 12
    assert made["keys"] == expected["keys"]
    for name in ("preference_ab", "preference_ba"):
        assert np.allclose(made[name].to_numpy(), expected[name].to_numpy(), atol=1e-5)
