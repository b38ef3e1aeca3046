"""Every command of the pages that lead through a task ends with exit code 0."""

import os
import re
import shlex
import subprocess

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support.helpers import PROGRAM, ROOT, pairs_table
from support.servers import hub, s3

JUDGES = re.compile(r"Qwen/\S+")


def commands(page):
    text = (ROOT / "docs" / page).read_text("utf-8")
    lines = "".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).splitlines()
    assert lines
    return lines


def follow(page, folder, judges, environment=None):
    """Run the commands of a page, each judge by a scripted one; what they print."""
    outputs = {}
    for line in commands(page):
        command = re.sub(JUDGES, lambda judge: judges[judge[0]], line)
        program, *arguments = shlex.split(command)
        assert program == "steelyard"
        done = subprocess.run(
            [*PROGRAM, *arguments], cwd=folder, capture_output=True, text=True, check=False,
            env={**os.environ, **(environment or {})},
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        outputs[command] = done.stdout
    return outputs


@pytest.fixture
def pairs():
    table = pairs_table(80, instructions=40)
    table = table.append_column("pair_id", pa.array([f"p{row}" for row in range(80)]))
    return table.append_column("gold", pa.array(["A", "B"] * 40))


def test_choose_a_protocol(pairs, tmp_path):
    pq.write_table(pairs, tmp_path / "gold.parquet")
    (tmp_path / "criteria.toml").write_text('criteria = ["It is right.", "It is short."]\n')
    outputs = follow("choose-a-protocol.md", tmp_path, {"Qwen/Qwen3-8B": "scripted"})
    assert "agreement with gold" in outputs["steelyard compare runs/plain runs/tie --gold"]
    planned = next(text for command, text in outputs.items() if " plan " in command)
    assert "320 unique of 320" in planned  # two criteria for each of two responses


def test_compare_judges(pairs, tmp_path):
    pq.write_table(pairs, tmp_path / "pairs.parquet")
    pq.write_table(pairs.select(["pair_id", "gold"]), tmp_path / "labels.parquet")
    judges = {"Qwen/Qwen3-4B": "scripted:seed=1", "Qwen/Qwen3-14B": "scripted:seed=2"}
    follow("compare-judges.md", tmp_path, judges)
    assert (tmp_path / "large.html").exists()


def test_several_gpus(pairs, tmp_path):
    (tmp_path / "data").mkdir()
    pq.write_table(pairs, tmp_path / "data" / "pairs.parquet")
    outputs = follow("several-gpus.md", tmp_path, {"Qwen/Qwen3-8B": "scripted"})
    assert "80 done of 80" in outputs["steelyard status runs/tonight"]


def test_remote_data_on_s3(pairs, tmp_path):
    import s3fs

    with s3() as environment:
        place = s3fs.S3FileSystem(
            endpoint_url=environment["AWS_ENDPOINT_URL"], key="test", secret="test"
        )
        place.mkdir("bucket")
        with place.open("bucket/pairs/pairs.parquet", "wb") as file:
            pq.write_table(pairs, file)
        outputs = follow("remote-data.md", tmp_path, {"Qwen/Qwen3-8B": "scripted"}, environment)
    assert any("80" in text for text in outputs.values())
    page = (tmp_path / "tonight.html").read_text("utf-8")
    assert pairs["response_a"][0].as_py() in page


def test_remote_data_on_the_hub(pairs, tmp_path):
    (tmp_path / "hub").mkdir()
    pq.write_table(pairs, tmp_path / "hub" / "pairs.parquet")
    with hub("owner/name", tmp_path / "hub") as environment:
        done = subprocess.run(
            [*PROGRAM, "score", "hf://datasets/owner/name/pairs.parquet", "--run", "run",
             "--judge", "scripted"],
            cwd=tmp_path, capture_output=True, text=True, check=False,
            env={**os.environ, **environment},
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "80 of 80 pairs" in done.stdout
