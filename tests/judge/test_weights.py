"""Names to folders, every refusal, and digests."""

from __future__ import annotations

import json
import sys

import pytest

from steelyard.errors import JudgeUnavailable
from steelyard.judge import open_judge
from steelyard.judge.base import JudgeSpec
from steelyard.judge.model.files import ModelFiles, resolve_model, weights_digest

CONFIG = {"model_type": "llama", "max_position_embeddings": 2048, "vocab_size": 100}


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def tensors(data: bytes) -> bytes:
    """A safetensors file of one tensor of bytes."""
    entry = {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}
    header = json.dumps({"__metadata__": {"format": "pt"}, "x": entry}).encode()
    return len(header).to_bytes(8, "little") + header + data


def model(folder, config=CONFIG, weights="model.safetensors"):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    if weights:
        (folder / weights).write_bytes(tensors(b"weights"))
    return folder


def refusal(name, revision=None) -> str:
    with pytest.raises(JudgeUnavailable) as refused:
        resolve_model(str(name), revision)
    assert refused.value.remedy
    return str(refused.value)


def test_a_folder(tmp_path):
    files = resolve_model(str(model(tmp_path / "m")))
    assert (files.revision, files.context_length, files.vocabulary) == ("local", 2048, 100)
    assert (files.dtype, files.quantization) == ("float32", None)


def test_no_such_folder(tmp_path):
    assert "no such model folder" in refusal(tmp_path / "nothing")


def test_no_config(tmp_path):
    assert "no config.json" in refusal(tmp_path)


def test_damaged_config(tmp_path):
    model(tmp_path)
    (tmp_path / "config.json").write_text("{")
    assert "config.json: it is not JSON" in refusal(tmp_path)


def test_config_that_is_not_an_object(tmp_path):
    assert "does not hold an object" in refusal(model(tmp_path / "m", config=[]))


def test_no_weights(tmp_path):
    assert "no *.safetensors" in refusal(model(tmp_path / "m", weights=None))


def test_pickled_weights_are_refused_with_the_conversion(tmp_path):
    text = refusal(model(tmp_path / "m", weights="pytorch_model.bin"))
    assert "pytorch_model.bin" in text
    assert "save_pretrained" in text


@pytest.mark.parametrize(
    "damaged",
    [
        tensors(b"weights")[:-1],
        tensors(b"weights") + b"x",
        b"weights",
        b"",
        b"\x08\0\0\0\0\0\0\0not json",
        b"\x02\0\0\0\0\0\0\0[]",
    ],
)
def test_weights_that_are_cut_short_or_not_safetensors(tmp_path, damaged):
    folder = model(tmp_path / "m")
    (folder / "model.safetensors").write_bytes(damaged)
    message = refusal(folder)
    assert "damaged or cut short" in message
    assert "fetch the model's files again" in message


def test_missing_shard(tmp_path):
    folder = model(tmp_path / "m", weights="a.safetensors")
    index = {"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "1 of 2 weight files are missing, such as b.safetensors" in refusal(folder)


def test_foreign_code(tmp_path):
    config = CONFIG | {"model_type": "strange", "auto_map": {"AutoConfig": "strange.Config"}}
    assert "never run" in refusal(model(tmp_path / "m", config=config))
    known = CONFIG | {"auto_map": {"AutoConfig": "modeling.Config"}}
    assert resolve_model(str(model(tmp_path / "n", config=known)))


def test_hub_name_offline():
    assert "cannot be reached" in refusal("no-such-organisation/no-such-model")


def test_no_name_at_all():
    assert "no such model folder" in refusal("not a name")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"n_positions": 1024}, 1024),
        ({"text_config": {"max_position_embeddings": 4096, "dtype": "bfloat16"}}, 4096),
        ({"max_position_embeddings": None, "seq_length": 77}, 77),
    ],
)
def test_context_length(config, expected, tmp_path):
    assert ModelFiles(tmp_path, "local", config).context_length == expected


def test_unknown_context_length(tmp_path):
    with pytest.raises(JudgeUnavailable, match="length of the model's context"):
        _ = ModelFiles(tmp_path, "local", {}).context_length


def test_quantization(tmp_path):
    config = {"quantization_config": {"quant_method": "fp8"}, "torch_dtype": "torch.bfloat16"}
    files = ModelFiles(tmp_path, "local", config)
    assert (files.quantization, files.dtype) == ("fp8", "bfloat16")


def test_digest_follows_content_and_is_remembered(tmp_path, monkeypatch):
    folder = model(tmp_path / "m")
    first = weights_digest(folder)
    monkeypatch.setattr("steelyard.judge.model.files._file_digest", lambda path: 1 / 0)
    assert weights_digest(folder) == first
    monkeypatch.undo()
    (folder / "model.safetensors").write_bytes(b"other weights")
    assert weights_digest(folder) != first


def test_a_missing_package_says_how_to_install(monkeypatch):
    for name in ("vllm.judge", "model.tokenizer"):
        monkeypatch.delitem(sys.modules, f"steelyard.judge.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(JudgeUnavailable, match="the package tokenizers is missing") as refused:
        open_judge(JudgeSpec("a judge", "a/judge"))
    assert "steelyard[cpu]" in refused.value.remedy


def test_a_cache_that_cannot_be_written_is_not_an_error(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    assert len(weights_digest(model(tmp_path / "m"))) == 32
