"""A judge's name to its files: folder, revision, configuration and the digest of the weights."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from steelyard.core.user_cache import cache_folder
from steelyard.errors import JudgeUnavailable, escape

_JSON = dict[str, Any]
_CHUNK = 1 << 22  # bytes hashed at a time
_FETCHED = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.tiktoken"]
_IMAGE_FILES = ("preprocessor_config.json", "processor_config.json")
# Second copies of the weights in other layouts.
_NOT_FETCHED = ["original/*", "consolidated*", "onnx/*", "*/*.safetensors"]
_CONTEXT_KEYS = (
    "max_position_embeddings",
    "n_positions",
    "max_sequence_length",
    "seq_length",
    "max_seq_len",
    "model_max_length",
)


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model on the local disk. `revision` is a commit hash, or "local" for a plain folder."""

    folder: Path
    revision: str
    config: _JSON

    @property
    def text_config(self) -> _JSON:
        """The language model's part of the configuration."""
        nested = self.config.get("text_config") or self.config.get("llm_config")
        return {**self.config, **nested} if isinstance(nested, dict) else self.config

    @property
    def dtype(self) -> str:
        """The weights' dtype as the configuration says, without "torch."; float32 if silent."""
        config = self.text_config
        name = config.get("dtype") or config.get("torch_dtype") or "float32"
        return str(name).removeprefix("torch.")

    @property
    def quantization(self) -> str | None:
        """The method of weight quantisation, or None."""
        found = self.config.get("quantization_config") or self.config.get("compression_config")
        return str(found.get("quant_method", "unknown")) if isinstance(found, dict) else None

    @property
    def context_length(self) -> int:
        """Tokens at most, prompt and answer.

        Raises:
            JudgeUnavailable: the configuration does not say.
        """
        config = self.text_config
        for key in _CONTEXT_KEYS:
            value = config.get(key)
            if isinstance(value, (int, float)) and math.isfinite(value) and value > 1:
                return int(value)
        raise JudgeUnavailable(
            "config.json does not say how long a context the model has",
            place=str(self.folder),
            remedy='add "max_position_embeddings" to it',
        )

    @property
    def images(self) -> str | None:
        """Digest of the files that say how images become the model's input; None: it takes none."""
        found = [path for name in _IMAGE_FILES if (path := self.folder / name).is_file()]
        if not found or not isinstance(self.config.get("vision_config"), dict):
            return None
        return xxhash.xxh3_128_hexdigest(b"".join(path.read_bytes() for path in found))

    @property
    def vocabulary(self) -> int:
        """Rows of the embedding; token ids are below it. 0 if the configuration is silent."""
        return int(self.text_config.get("vocab_size") or 0)


def resolve_model(name: str, revision: str | None = None) -> ModelFiles:
    """The files of a judge: an existing folder, or a name on the Hugging Face hub.

    Args:
        name: a folder, or `organisation/model`; the hub is asked only when no such folder exists.
        revision: a branch, tag or commit; hub names only.

    Raises:
        JudgeUnavailable: not found, not allowed, offline, or not loadable without foreign code.
    """
    folder, found = Path(name).expanduser(), "local"
    if not folder.is_dir():
        if _looks_like_path(name):
            raise JudgeUnavailable(
                "there is no such model folder", place=name, remedy="check the path"
            )
        folder = _download(name, revision)
        found = folder.name  # .../snapshots/<commit>
    config = _read_config(folder)
    _check_weights(folder)
    _check_foreign_code(folder, config)
    return ModelFiles(folder, found, config)


def weights_digest(folder: Path) -> str:
    """xxh3_128 of config.json and all *.safetensors, names included, as 32 hex digits.

    Files are hashed once: digests are remembered in the user's cache folder by path, size and
    modification time. A cache folder that cannot be written is no error.
    """
    remembered = _load_digests()
    known = dict(remembered)
    total = xxhash.xxh3_128()
    for path in [folder / "config.json", *sorted(folder.glob("*.safetensors"))]:
        real = path.resolve()  # the hub's snapshots are links to blobs
        state = real.stat()
        key = f"{real}|{state.st_size}|{state.st_mtime_ns}"
        if key not in known:
            known[key] = _file_digest(real)
        total.update(f"{path.name}={known[key]}\n".encode())
    if known != remembered:
        _save_digests(known)
    return total.hexdigest()


def _looks_like_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or not re.fullmatch(r"[\w.-]+/[\w.-]+", name)


def _download(name: str, revision: str | None) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise JudgeUnavailable(
            f"{escape(name)} is no folder here, and the package huggingface_hub is missing",
            remedy="give the path of a model folder, or pip install 'steelyard[hf]'",
        ) from error
    try:
        return Path(
            snapshot_download(
                name, revision=revision, allow_patterns=_FETCHED, ignore_patterns=_NOT_FETCHED
            )
        )
    except Exception as error:
        raise _hub_error(name, revision, error) from error


def _hub_error(name: str, revision: str | None, error: Exception) -> JudgeUnavailable:
    """What the hub's refusal means. Order matters: a gated repository is a missing one, too."""
    from huggingface_hub import errors

    place = f"{name}@{revision}" if revision else name
    offline = (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, ConnectionError)
    table: Sequence[tuple[tuple[type[BaseException], ...], str, str]] = [
        (
            (errors.GatedRepoError,),
            "access to this model has to be granted on the hub",
            "ask for access on the model's page, then log in with `hf auth login`",
        ),
        (
            (errors.RevisionNotFoundError,),
            f"the model has no revision {escape(revision)}",
            "name an existing branch, tag or commit",
        ),
        (
            (errors.RepositoryNotFoundError, errors.HFValidationError),
            "the hub has no such model, and there is no such folder",
            "check the name; private models need `hf auth login`",
        ),
        (
            offline,
            "the model is not in the local cache and the hub cannot be reached",
            "fetch it where there is a network (`hf download`), or give a model folder; "
            "HF_HUB_OFFLINE=1 forbids the network",
        ),
        (
            (OSError,),
            f"the download failed: {escape(error, 200)}",
            "check network, disk space and HF_HOME, then run the command again",
        ),
    ]
    for kinds, cause, remedy in table:
        if isinstance(error, kinds):
            return JudgeUnavailable(cause, place=place, remedy=remedy)
    cause = f"the download failed: {type(error).__name__}: {escape(error, 200)}"
    return JudgeUnavailable(cause, place=place, remedy="run the command again later")


def _read_config(folder: Path) -> _JSON:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise JudgeUnavailable(
            "the folder has no config.json: it is no model in Hugging Face's layout",
            place=str(folder),
            remedy="give the folder with config.json, *.safetensors and tokenizer.json",
        ) from None
    except (OSError, ValueError) as error:
        raise JudgeUnavailable(
            f"config.json cannot be read: {escape(error, 200)}",
            place=str(path),
            remedy="fetch the model's files again",
        ) from error
    if not isinstance(config, dict):
        raise JudgeUnavailable(
            "config.json holds no object", place=str(path), remedy="fetch the model's files again"
        )
    return config


def _check_weights(folder: Path) -> None:
    """Only whole safetensors: other formats can run code when they are loaded."""
    if found := sorted(folder.glob("*.safetensors")):
        _check_shards(folder)
        for path in found:
            require_whole(path)
        return
    others = [p.name for kind in ("*.bin", "*.pt", "*.pth", "*.gguf") for p in folder.glob(kind)]
    cause = f"has {others[0]} but no *.safetensors" if others else "has no *.safetensors"
    raise JudgeUnavailable(
        f"the model {cause}",
        place=str(folder),
        remedy="convert it once where you trust it: AutoModelForCausalLM.from_pretrained(DIR)"
        ".save_pretrained(NEW), and the same with AutoTokenizer",
    )


def _check_shards(folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return
    named = set(json.loads(index.read_text("utf-8")).get("weight_map", {}).values())
    missing = sorted(name for name in named if not (folder / name).is_file())
    if missing:
        raise JudgeUnavailable(
            f"{len(missing)} of {len(named)} weight files are missing, such as {missing[0]}",
            place=str(folder),
            remedy="fetch the model's files again",
        )


def _check_foreign_code(folder: Path, config: _JSON) -> None:
    """Refuse a model that only its own Python code can load."""
    if not config.get("auto_map"):
        return
    with contextlib.suppress(ImportError):
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

        if config.get("model_type") in CONFIG_MAPPING_NAMES:
            return
    raise JudgeUnavailable(
        f"the model type {escape(config.get('model_type'))} needs Python code from its folder "
        "(auto_map), which is never run: it could do anything on this machine",
        place=str(folder),
        remedy="choose a judge that transformers and vLLM know by themselves",
    )


def _file_digest(path: Path) -> str:
    digest = xxhash.xxh3_128()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _load_digests() -> dict[str, str]:
    try:
        found = json.loads((cache_folder() / "digests.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _save_digests(digests: dict[str, str]) -> None:
    folder = cache_folder()
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".digests-", dir=folder)
        with os.fdopen(handle, "w") as file:
            json.dump(digests, file)
        Path(name).replace(folder / "digests.json")


_LONGEST_HEADER = 100 << 20  # the format's own limit


def require_whole(path: Path) -> None:
    """Compare the file's size with what its header promises.

    The format: 8 bytes with the length of the header, the header (JSON, with the byte range of each
    tensor), the tensors (https://github.com/huggingface/safetensors, "Format").

    Raises:
        JudgeUnavailable: the header cannot be read, or bytes are missing.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= min(_LONGEST_HEADER, size - 8):
                raise ValueError("its header has no sensible length")
            header = json.loads(stream.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name[:2] != "__"]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise _damaged(path, f"not a safetensors file: {escape(error)}") from None
    expected = 8 + length + max(ends, default=0)
    if size != expected:
        raise _damaged(path, f"{size:,} bytes, its header tells of {expected:,}")


def _damaged(path: Path, cause: str) -> JudgeUnavailable:
    return JudgeUnavailable(
        f"the weights are damaged or cut short: {cause}",
        place=str(path),
        effect="nothing was read",
        remedy="fetch the model's files again",
    )
