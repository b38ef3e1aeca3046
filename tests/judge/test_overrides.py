"""A directory from a stranger runs no code: which engine settings may be overridden.

Kind of fault: code from a stranger's engine settings.
"""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest

from steelyard.core.config import RunConfig
from steelyard.errors import UsageError
from steelyard.judge import open_judge
from steelyard.judge.base import JudgeSpec
from steelyard.judge.vllm.overrides import ALLOWED, parse_overrides, require_known

# What vLLM imports, reads, writes or calls, as of 0.32, and a value that would do it.
DANGEROUS = {
    "additional_config": '{"a": 1}',
    "allowed_local_media_path": "/",
    "collect_detailed_traces": '["all"]',
    "compilation_config": '{"backend": "evil.X"}',
    "config_format": "evil",
    "default_mm_loras": '{"image": "/x"}',
    "download_dir": "/x",
    "ec_transfer_config": '{"ec_connector_module_path": "evil"}',
    "generation_config": "/x",
    "hf_config_path": "/x",
    "hf_overrides": '{"architectures": ["X"]}',
    "hf_token": "x",
    "io_processor_plugin": "evil",
    "kv_events_config": '{"publisher": "zmq"}',
    "kv_transfer_config": '{"kv_connector_module_path": "evil"}',
    "log_config_file": "/x",
    "logits_processors": '["evil.X"]',
    "master_addr": "192.0.2.1",
    "mm_encoder_fp8_scale_save_path": "/x",
    "mm_processor_kwargs": '{"a": 1}',
    "model": "/x",
    "model_class_overrides": '{"X": "evil.X"}',
    "model_loader_extra_config": '{"a": 1}',
    "model_weights": "s3://x",
    "otlp_traces_endpoint": "http://192.0.2.1",
    "override_generation_config": '{"temperature": 1}',
    "profiler_config": '{"torch_profiler_dir": "/x"}',
    "pt_load_map_location": "cuda",
    "quantization_config": '{"a": 1}',
    "reasoning_parser": "evil",
    "reasoning_parser_plugin": "/x/evil.py",
    "scheduler_cls": "evil.X",
    "spec_model": "evil/model",
    "speculative_config": '{"model": "evil/model"}',
    "tokenizer": "/x",
    "tokenizer_mode": "evil",
    "trust_remote_code": True,
    "weight_transfer_config": '{"backend": "nccl"}',
    "worker_cls": "evil.X",
    "worker_extension_cls": "evil.X",
}


def engine_fields() -> dict[str, str]:
    """Fields of the installed vLLM's EngineArgs and their annotations; vLLM is not imported."""
    found = importlib.util.find_spec("vllm")
    if found is None:
        pytest.skip("needs vLLM")
    source = Path(found.origin).parent / "engine" / "arg_utils.py"
    tree = ast.parse(source.read_text("utf-8"))
    record = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "EngineArgs")
    return {
        entry.target.id: ast.unparse(entry.annotation)
        for entry in record.body
        if isinstance(entry, ast.AnnAssign)
    }


def refused(name, value) -> UsageError:
    with pytest.raises(UsageError) as caught:
        open_judge(JudgeSpec("judge", "/no/such/model", engine={name: value}))
    return caught.value


@pytest.mark.parametrize("name", DANGEROUS)
def test_what_names_code_files_or_addresses_is_refused_before_a_model_is_looked_for(name):
    error = refused(name, DANGEROUS[name])
    assert "does not pass this setting on" in error.cause
    assert name in error.place
    assert error.remedy


def test_every_field_of_the_installed_vllm_is_allowed_or_refused():
    fields = engine_fields()
    assert len(fields) > 100
    for name in fields.keys() - ALLOWED.keys():
        with pytest.raises(UsageError):
            parse_overrides({name: 1})


def test_what_is_allowed_is_a_scalar_in_vllm_too():
    """A class, a list, a dictionary or a config object under an allowed name would be a hole."""
    fields = engine_fields()
    for name in fields.keys() & ALLOWED.keys():
        for word in ("dict", "list", "type[", "Config", "Callable", "set["):
            assert word not in fields[name].replace("type[Executor]", ""), name
    assert "type[Executor]" in fields["distributed_executor_backend"]  # its value is one of three


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("distributed_executor_backend", "evil.X"),
        ("distributed_executor_backend", "external_launcher"),
        ("quantization", "evil.X"),
        ("attention_backend", "a/b"),
        ("kv_cache_dtype", "fp8\n"),
        ("load_format", "pt"),
        ("load_format", "dummy"),
        ("max_num_seqs", 0),
        ("max_num_seqs", 1.5),
        ("max_num_seqs", True),
        ("max_model_len", -1),
        ("max_model_len", "8k"),
        ("max_num_seqs", "9" * 5000),
        ("gpu_memory_utilization", float("nan")),
        ("gpu_memory_utilization", "[" * 100_000),
        ("enforce_eager", "maybe"),
        ("enforce_eager", '{"a": 1}'),
    ],
)
def test_values_of_other_types_are_refused(name, value):
    assert "is not a value for it" in refused(name, value).cause


def test_texts_of_a_command_line_become_numbers_and_switches():
    texts = {"max_num_seqs": "12", "gpu_memory_utilization": "0.5", "enforce_eager": "False"}
    texts |= {"kv_cache_dtype": "fp8", "distributed_executor_backend": "mp"}
    assert parse_overrides(texts) == {
        "max_num_seqs": 12,
        "gpu_memory_utilization": 0.5,
        "enforce_eager": False,
        "kv_cache_dtype": "fp8",
        "distributed_executor_backend": "mp",
    }


def test_settings_of_earlier_runs_are_still_taken():
    engine = {"dtype": "float32", "max_model_len": 8192, "gpu_memory_utilization": 0.85}
    engine |= {"tensor_parallel_size": 2, "enable_prefix_caching": False, "seed": 1}
    config = RunConfig.from_mapping({"judge": ["scripted"], "engine": engine}, "run.json")
    assert parse_overrides(config.engine) == engine


def test_an_unknown_setting_names_the_closest():
    assert "max_num_seqs" in refused("max_num_seq", 4).remedy


def test_a_setting_that_the_installed_vllm_lacks_is_refused():
    require_known({"dtype": "float32"}, {"dtype"})
    with pytest.raises(UsageError, match="no engine setting swap_space"):
        require_known({"swap_space": 4}, {"dtype"})


def test_a_name_with_terminal_escapes_is_printed_escaped():
    assert "\x1b" not in str(refused("\x1b[2J", 1))


def test_the_documentation_lists_what_is_allowed():
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text("utf-8")
    table = page.partition("| settings that can be changed |")[2].partition("\n\n")[0]
    listed = {line.split("|")[1] for line in table.splitlines() if line.startswith("| `")}
    assert {word.strip(" `") for names in listed for word in names.split(",")} == ALLOWED.keys()
