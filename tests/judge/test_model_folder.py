"""Model folders from strangers: each damaged file is refused by name, whatever it holds.

Kind of fault: malformed JSON and TOML.
"""

from __future__ import annotations

import json
import random

import pytest

from steelyard.cli.inspection import inspect_judge
from steelyard.errors import JudgeUnavailable, UsageError
from steelyard.judge.model.files import ModelFiles, resolve_model
from steelyard.judge.model.tokenizer import HFEncoder
from steelyard.judge.vllm.settings import kv_bytes_per_token
from support import malformed, tiny
from support.helpers import command, write_pairs

CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "auto_map": {"AutoConfig": "x.Y"},
    "max_position_embeddings": 2048,
    "vocab_size": 700,
    "hidden_size": 128,
    "head_dim": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "dtype": "float32",
    "eos_token_id": [0],
    "text_config": {"vocab_size": 700},
    "quantization_config": {"quant_method": "fp8"},
    "vision_config": {"a": 1},
}
SETTINGS = {
    "config.json": CONFIG,
    "generation_config.json": {"eos_token_id": 0},
    "special_tokens_map.json": {"eos_token": "<|end|>", "pad_token": {"content": "<|end|>"}},
    "model.safetensors.index.json": {"metadata": {}, "weight_map": {"x": "model.safetensors"}},
    "preprocessor_config.json": {"a": 1},
}
FILES = [*SETTINGS, "tokenizer.json", "tokenizer_config.json"]
OTHERS = ["added_tokens.json", "chat_template.json", "chat_template.jinja", "model.safetensors"]
# What these files may hold without harm: another tokenizer's settings, or none.
HARMLESS = {"empty object", "key twice", "huge number", "number out of range", "infinite"}
HARMLESS |= {"lone surrogate"}  # where no text of the file is used


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    """A judge of which all is there but an engine's weights."""
    folder = tmp_path / "model"
    tokens = {"0": {"content": "<|end|>", "special": True}}
    tiny.write_tokenizer(folder, tiny.byte_level(), added_tokens_decoder=tokens)
    entry = {"x": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}
    header = json.dumps(entry).encode()
    weights = len(header).to_bytes(8, "little") + header + b"w"
    (folder / "model.safetensors").write_bytes(weights)
    for name, content in SETTINGS.items():
        (folder / name).write_text(json.dumps(content))
    return folder


def refusal(folder) -> str | None:
    """Why the judge is refused; None if it is not. Anything but a refusal with a remedy fails."""
    try:
        inspect_judge(str(folder), None, "pairwise")
    except (JudgeUnavailable, UsageError) as error:
        return str(error)
    return None


def test_the_folder_is_a_judge(folder):
    assert refusal(folder) is None


@pytest.mark.parametrize("name", FILES)
def test_malformed_json_is_refused_with_its_file(name, folder):
    for kind, raw in malformed.BYTES.items():
        (folder / name).write_bytes(raw)
        reason = refusal(folder)
        if kind not in HARMLESS:
            assert reason, kind
            assert f"{name}: it " in reason, (kind, reason)


@pytest.mark.parametrize("name", FILES + OTHERS)
def test_what_is_not_a_file_is_refused_with_its_name_and_does_not_hang(name, folder):
    path = folder / name
    for kind, make in malformed.THINGS.items():
        malformed.remove(path)
        make(path)
        assert name in (refusal(folder) or ""), kind


@pytest.mark.parametrize("name", FILES)
def test_values_of_other_types_are_no_internal_error(name, folder):
    content = json.loads((folder / name).read_text())
    changed = list(malformed.mutations(content))
    for _, mutation in random.Random(name).sample(changed, min(60, len(changed))):
        (folder / name).write_text(json.dumps(mutation))
        refusal(folder)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("config.json", {"num_hidden_layers": "x"}, "config.json: it does not hold what it should"),
        ("config.json", {"num_key_value_heads": [[]]}, "config.json: it does not hold what"),
        ("config.json", {"eos_token_id": "x"}, "config.json: it does not hold what it should"),
        ("config.json", {"max_position_embeddings": 10**400}, "the length of the model's context"),
        ("generation_config.json", {"eos_token_id": [None]}, "generation_config.json: it does not"),
        ("tokenizer_config.json", {"chat_template": 5}, "tokenizer_config.json: it does not hold"),
        ("added_tokens.json", {"x": 1 << 40}, "added_tokens.json: it does not hold what it should"),
        ("model.safetensors.index.json", {"weight_map": []}, "index.json: it does not hold what"),
        ("model.safetensors.index.json", {"weight_map": {"x": "../y\0"}}, "such as ../y\\x00"),
        ("tokenizer.json", {"model": {"type": "BPE", "vocab": {"a": 1 << 40}}}, "tokenizer.json"),
        ("tokenizer.json", {"model": {"type": "BPE", "vocab": {}, "merges": [1]}}, "`$.model.merg"),
        ("tokenizer.json", {"model": None}, "Expected `object`, got `null` - at `$.model`"),
    ],
)
def test_the_reason_names_file_and_value(name, content, reason, folder):
    path = folder / name
    old = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(old | content))
    assert reason in (refusal(folder) or "")


def test_commands_end_with_the_exit_code_of_the_machine(folder, tmp_path):
    (folder / "tokenizer.json").write_bytes(malformed.BYTES["deep objects"])
    shard, run = write_pairs(tmp_path / "pairs.parquet", 5), tmp_path / "run"
    for line in (("judge", "inspect", folder), ("score", shard, "--run", run, "--judge", folder)):
        done = command(*line)
        assert done.returncode == 5
        assert "tokenizer.json: it is not JSON" in done.stderr
        assert "next: fetch the model's files again" in done.stderr
    assert not run.exists()


def test_a_file_of_settings_is_not_read_without_end(folder):
    with (folder / "config.json").open("wb") as file:
        file.truncate(1 << 40)
    assert "config.json: it has more than 4,194,304 bytes" in (refusal(folder) or "")


def test_an_adapter_is_told_from_a_model(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(JudgeUnavailable, match="adapter, not a model") as refused:
        resolve_model(str(tmp_path))
    assert "merge_and_unload" in refused.value.remedy


def test_a_tokenizer_without_an_unknown_token_refuses_a_text_with_a_remedy(folder):
    tiny.write_tokenizer(folder, tiny.unigram())
    path = folder / "tokenizer.json"
    spec = json.loads(path.read_text())
    del spec["model"]["unk_id"]
    path.write_text(json.dumps(spec))
    encoder = HFEncoder(folder)
    for encode in (
        lambda: encoder.encode_data(["\u2603"]),
        lambda: encoder.encode_template("\u2603", first=True),
        lambda: encoder.label_variants("\u2603"),
    ):
        with pytest.raises(JudgeUnavailable, match="unknown token") as refused:
            encode()
        assert refused.value.place == str(path)


def test_sizes_may_be_lists_of_layers(tmp_path):
    config = {"num_attention_heads": [4, 8], "num_key_value_heads": [2, 1], "hidden_size": 256}
    files = ModelFiles(tmp_path, "local", config | {"num_hidden_layers": 3})
    assert kv_bytes_per_token(files, "float16") == 2 * 3 * 2 * 32 * 2  # 256 / 8 = 32 per head


@pytest.mark.parametrize("name", ["~nobody-of-this-name/m", "x" * 5000, "a\0b", "/" + "x/" * 3000])
def test_a_name_that_cannot_be_a_path_is_refused(name):
    with pytest.raises(JudgeUnavailable) as refused:
        resolve_model(name)
    assert refused.value.remedy
