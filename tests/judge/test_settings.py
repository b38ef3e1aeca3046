"""Engine settings from machine and workload, and their overrides."""

from __future__ import annotations

from pathlib import Path

import pytest

from steelyard.core.batches import Workload
from steelyard.errors import UsageError
from steelyard.judge.model.files import ModelFiles
from steelyard.judge.vllm import settings as choose

FILES = ModelFiles(
    Path(), "local", {"max_position_embeddings": 2048, "dtype": "bfloat16", "num_hidden_layers": 4}
)
CPU = ("cpu", 8 << 30)


def test_context_is_the_workload_rounded_up():
    chosen = choose.choose_settings(FILES, "bfloat16", *CPU, Workload(10, 640))
    assert chosen["max_model_len"] == 672  # 641 in blocks of 32
    assert (
        choose.choose_settings(FILES, "bfloat16", *CPU, Workload(10, 9999))["max_model_len"] == 2048
    )


def test_small_workload_takes_little_memory():
    few = choose.choose_settings(FILES, "float32", *CPU, Workload(2, 100))
    many = choose.choose_settings(FILES, "float32", *CPU, Workload(10**6, 2000))
    assert few["kv_cache_memory_bytes"] < many["kv_cache_memory_bytes"] <= 2 << 30


def test_gpu():
    chosen = choose.choose_settings(FILES, "bfloat16", "gpu", 0, Workload(10, 100))
    assert "kv_cache_memory_bytes" not in chosen
    assert chosen["block_size"] == 16


@pytest.mark.parametrize(
    ("weights", "device", "asked", "native", "expected"),
    [
        ("bfloat16", "cpu", "auto", True, "bfloat16"),
        ("bfloat16", "cpu", "auto", False, "float32"),
        ("float16", "cpu", "auto", True, "bfloat16"),
        ("float32", "cpu", "auto", True, "float32"),
        ("float16", "gpu", "auto", True, "float16"),
        ("float32", "gpu", "auto", True, "bfloat16"),
        ("bfloat16", "cpu", "float32", True, "float32"),
    ],
)
def test_dtype(weights, device, asked, native, expected, monkeypatch):
    monkeypatch.setattr(choose, "_multiplies_bfloat16", lambda: native)
    files = ModelFiles(Path(), "local", {"dtype": weights})
    assert choose.choose_dtype(files, device, asked) == expected


@pytest.mark.parametrize(("device", "asked"), [("cpu", "float16"), ("gpu", "int3")])
def test_impossible_dtype(device, asked):
    with pytest.raises(UsageError, match="not possible"):
        choose.choose_dtype(FILES, device, asked)


def test_only_what_changes_reads_is_fingerprinted():
    engine = {"max_num_seqs": 4, "dtype": "float32", "kv_cache_dtype": "fp8"}
    assert choose.fingerprinted(engine) == {"kv_cache_dtype": "fp8"}


@pytest.mark.parametrize("block", [0, 16, 7, 48, "32"])
def test_blocks_that_a_cpu_does_not_have_are_refused(block):
    with pytest.raises(UsageError, match="block_size"):
        choose.check_cache({"block_size": block, "max_model_len": 64}, "cpu")


def test_a_pool_holds_at_least_one_whole_prompt():
    settings = {"block_size": 32, "max_model_len": 65, "num_gpu_blocks_override": 4}
    choose.check_cache(settings, "cpu")
    with pytest.raises(UsageError, match="does not hold"):
        choose.check_cache(settings | {"num_gpu_blocks_override": 3}, "cpu")
    choose.check_cache({"block_size": 16, "max_model_len": 65}, "gpu")
