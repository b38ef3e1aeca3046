"""The engine settings that may be overridden: numbers, switches and plain words, and no others.

An override comes from a command line, a TOML file or the run.json of a run that somebody else may
have made. vLLM has settings that name Python code, files or addresses, and it imports, reads or
calls what they name. So this is a list of what is allowed. All else is refused from everywhere, and
so is whatever a later vLLM adds, until it is listed here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

import msgspec

from steelyard.core.config import Scalar
from steelyard.errors import UsageError, did_you_mean, escape

_MOST = 1 << 50
_Number = Annotated[int, msgspec.Meta(ge=0, le=_MOST)]
_Count = Annotated[int, msgspec.Meta(ge=1, le=_MOST)]
_Amount = Annotated[float, msgspec.Meta(ge=0, le=_MOST)]
# Neither a path, nor an address, nor the name of a Python object: those have dots or slashes.
_Word = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_-]{1,40}\Z")]

_BY_TYPE: dict[Any, str] = {
    bool: """async_scheduling disable_cascade_attn disable_chunked_mm_input
        disable_custom_all_reduce disable_hybrid_kv_cache_manager disable_log_stats
        disable_sliding_window enable_chunked_prefill enable_ep_weight_filter
        enable_expert_parallel enable_flashinfer_autotune enable_prefix_caching enforce_eager
        language_model_only numa_bind skip_mm_profiling use_tqdm_on_load""",
    _Number: """long_prefill_token_threshold max_model_len optimization_level seed""",
    _Count: """block_size cp_kv_cache_interleave_size cpu_distributed_timeout_seconds
        dcp_kv_cache_interleave_size decode_context_parallel_size distributed_timeout_seconds
        kv_cache_memory_bytes mamba_block_size max_cudagraph_capture_size max_logprobs
        max_num_batched_tokens max_num_scheduled_tokens max_num_seqs max_parallel_loading_workers
        num_gpu_blocks_override offload_group_size offload_num_in_group offload_prefetch_step
        pipeline_parallel_size prefill_context_parallel_size renderer_num_workers
        safetensors_prefetch_block_size safetensors_prefetch_num_threads tensor_parallel_size""",
    _Amount: """cpu_offload_gb gpu_memory_utilization mm_processor_cache_gb swap_space watermark""",
    _Word: """all2all_backend attention_backend dtype expert_placement_strategy gdn_prefill_backend
        kda_decode_backend kda_prefill_backend kv_cache_dtype linear_backend mamba_backend
        mamba_cache_dtype mamba_cache_mode mamba_ssm_cache_dtype mm_encoder_attn_backend
        mm_encoder_tp_mode moe_backend offload_backend performance_mode prefix_caching_hash_algo
        quantization sparse_indexer_topk_backend""",
    Literal["mp", "ray", "uni"]: "distributed_executor_backend",
    # No format that loads pickles, or invents weights.
    Literal["auto", "bitsandbytes", "fastsafetensors", "runai_streamer", "safetensors"]: (
        "load_format"
    ),
    Literal["eager", "lazy", "prefetch"]: "safetensors_load_strategy",
    Literal["auto", "transformers", "vllm"]: "model_impl",
}
ALLOWED: dict[str, Any] = {name: kind for kind, names in _BY_TYPE.items() for name in names.split()}


def parse_overrides(engine: Mapping[str, Scalar]) -> dict[str, Any]:
    """Return overrides as values for vLLM; a text that spells a number or a switch becomes one.

    Raises:
        UsageError: a setting may not be overridden, or its value is of another type.
    """
    return {name: _parse(name, value) for name, value in engine.items()}


def require_known(engine: Collection[str], known: Collection[str]) -> None:
    """Refuse settings that the installed vLLM does not have.

    Raises:
        UsageError: it suggests similar names.
    """
    for name in engine:
        if name not in known:
            fields = "leave it out, or install another vLLM"
            raise UsageError(
                f"the installed vLLM has no engine setting {name}",
                place=_place(name),
                remedy=did_you_mean(name, sorted(ALLOWED.keys() & known), fields),
            )


def _parse(name: str, value: Scalar) -> Any:
    if name not in ALLOWED:
        listed = "leave it out; docs/cli.md lists the settings that can be changed"
        raise UsageError(
            "Steelyard does not pass this setting on: it allows the numbers, switches and plain"
            " words that a judge may need, and nothing that could name code, a file or an address",
            place=_place(name),
            effect="no engine was started",
            remedy=did_you_mean(name, ALLOWED, listed),
        )
    try:
        return msgspec.convert(value, ALLOWED[name], strict=False)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"{escape(repr(value))} is not a value for it: {escape(error, 200)}",
            place=_place(name),
            effect="no engine was started",
            remedy="correct it, or leave it out",
        ) from None


def _place(name: str) -> str:
    return f"engine setting {escape(name)}"
