"""A vision-language judge on a real engine: tiny, untrained, built here, without torchvision."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import steelyard
from steelyard.core.images import decode_image
from steelyard.judge.model.tokenizer import HFEncoder
from steelyard.prompts.forms import make_form
from steelyard.protocols import get_protocol
from support import tiny, tiny_vision
from support.helpers import command, pairs_table
from support.pictures import BLUE, GREEN, RED

pytest.importorskip("vllm")
pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default")]


SETS = [[RED], [RED, BLUE], [BLUE, RED], [], [GREEN], []]


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    return tiny_vision.write_model(tmp_path_factory.mktemp("tiny") / "vision")


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    path = tmp_path_factory.mktemp("pairs") / "pairs.parquet"
    table = pairs_table(len(SETS), width=20, instructions=2)
    pq.write_table(table.append_column("images", pa.array(SETS)), path)
    return path


def score(shard, run, judge):
    done = command("score", shard, "--run", run, "--judge", judge, "--engine", "dtype=float32")
    assert done.returncode == 0, done.stderr
    return steelyard.open_run(run)


@pytest.fixture(scope="module")
def scored(tmp_path_factory, shard, judge):
    return score(shard, tmp_path_factory.mktemp("runs") / "run", judge)


def preferences(run):
    table = run.sql('SELECT preference_ab, preference_ba FROM verdicts ORDER BY shard, "row"')
    return np.asarray([table[name].to_numpy() for name in table.column_names]).T


def test_preferences_are_those_of_transformers(scored, shard, judge):
    """Text and images through the model's own processor, one prompt at a time."""
    encoder = HFEncoder(judge)
    protocol = get_protocol("pairwise")
    form = make_form(protocol, encoder, images=True)
    ids = [[one.token_id for one in encoder.label_variants(name)] for name in protocol.labels]
    found = preferences(scored)
    for at, row in enumerate(pq.read_table(shard).to_pylist()):
        for order, (first, second) in enumerate([("a", "b"), ("b", "a")]):
            texts = {
                "instruction": row["instruction"].strip(),
                "first": row[f"response_{first}"].strip(),
                "second": row[f"response_{second}"].strip(),
            }
            text = form.template("", len(row["images"]))
            for name, value in texts.items():
                text = text.replace(f"[[slot:{name}]]", value)
            images = [decode_image(raw) for raw in row["images"]]
            logprobs = tiny_vision.reference(judge, text, images)
            a, b = (np.logaddexp.reduce(logprobs[one]) for one in ids)
            expected = 1 / (1 + np.exp(-(a - b if order == 0 else b - a)))
            assert found[at, order] == pytest.approx(expected, abs=1e-4)


def test_counts_are_the_engines_and_orders_share_the_images(scored):
    reads = scored.sql(
        "SELECT pair_id, prompt_tokens, cached_tokens FROM reads JOIN answers USING (prompt_key)"
        ' ORDER BY shard, "row"'
    ).to_pylist()
    assert all(row["cached_tokens"] < row["prompt_tokens"] for row in reads)
    assert sum(row["cached_tokens"] for row in reads) > 0
    sessions = [json.loads(x) for x in (scored.root / "sessions.jsonl").read_text().splitlines()]
    assert sessions[0]["settings"]["limit_mm_per_prompt"]["image"] == 2


def test_rows_without_images_read_as_in_a_run_without(scored, shard, judge, tmp_path):
    """The same judge with its eyes closed: the engine loads no processor."""
    text = tmp_path / "text.parquet"
    pq.write_table(pq.read_table(shard).drop_columns("images"), text)
    other = preferences(score(text, tmp_path / "run", judge))
    blind = [at for at, images in enumerate(SETS) if not images]
    assert np.abs(other[blind] - preferences(scored)[blind]).max() < 1e-4
    seen = [at for at, images in enumerate(SETS) if images]
    assert np.abs(other[seen] - preferences(scored)[seen]).min() > 1e-4


def test_a_judge_of_texts_refuses_images(shard, tmp_path):
    blind = tiny.write_model(tmp_path / "blind")
    refused = command("score", shard, "--run", tmp_path / "run", "--judge", blind)
    assert refused.returncode == 2
    assert "takes text only" in refused.stderr
    assert "--map images=" in refused.stderr
    assert not (tmp_path / "run" / "plan").exists()
