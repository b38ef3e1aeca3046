"""A model's files: found by name, checked, and the digest of the weights."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import xxhash
from safetensors import SafetensorError, safe_open

from steelyard.core.user_cache import load_cached, save_cached
from steelyard.errors import JudgeUnavailable, escape
from steelyard.judge.model.json_files import (
    JSON,
    LARGE,
    SMALL,
    Config,
    TextConfig,
    WeightIndex,
    check_file,
    convert,
    damaged,
    read_file,
    read_object,
)

_DIGESTS = "digests.json"
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
_MOST_TOKENS = 1 << 40


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model on the local disk. `revision` is a commit hash, or "local" for a plain folder."""

    folder: Path
    revision: str
    config: JSON

    @property
    def text_config(self) -> JSON:
        """The language model's part of the configuration."""
        nested = self.config.get("text_config") or self.config.get("llm_config")
        return {**self.config, **nested} if isinstance(nested, dict) else self.config

    @property
    def dtype(self) -> str:
        """The weights' dtype by the configuration, without "torch."; float32 if it has none."""
        config = self.text_config
        name = config.get("dtype") or config.get("torch_dtype") or "float32"
        return str(name).removeprefix("torch.")

    @property
    def architectures(self) -> list[str]:
        """Names of the model's classes, by the configuration; empty if it has none."""
        named = self.config.get("architectures")
        return [str(name) for name in named] if isinstance(named, list) else []

    @property
    def head_width(self) -> int:
        """Numbers that a classifier's head gives for a text; two where nothing says otherwise."""
        classes = self.config.get("id2label")
        width = self.config.get("num_labels", len(classes) if isinstance(classes, dict) else 2)
        return width if isinstance(width, int) else 2

    @property
    def quantization(self) -> str | None:
        """The method of weight quantisation, or None."""
        method = self.config.get("quantization_config") or self.config.get("compression_config")
        return str(method.get("quant_method", "unknown")) if isinstance(method, dict) else None

    @property
    def context_length(self) -> int:
        """Tokens of prompt and answer, at most.

        Raises:
            JudgeUnavailable: the configuration does not have it.
        """
        config = self.text_config
        for key in _CONTEXT_KEYS:
            value = config.get(key)
            if isinstance(value, (int, float)) and 1 < value <= _MOST_TOKENS:
                return int(value)
        raise JudgeUnavailable(
            "config.json does not give the length of the model's context",
            place=str(self.folder),
            remedy='add "max_position_embeddings" to it',
        )

    @property
    def images(self) -> str | None:
        """Digest of the files that decide how images become input; None: it takes no images."""
        files = [path for name in _IMAGE_FILES if os.path.lexists(path := self.folder / name)]
        for path in files:
            read_object(path, JSON)
        if not files or not isinstance(self.config.get("vision_config"), dict):
            return None
        return xxhash.xxh3_128_hexdigest(b"".join(read_file(path, SMALL) for path in files))

    @property
    def sizes(self) -> TextConfig:
        """The sizes of the language model.

        Raises:
            JudgeUnavailable: one of them is not a number.
        """
        return convert(self.folder / "config.json", self.text_config, TextConfig)

    @property
    def vocabulary(self) -> int:
        """Rows of the embedding; token ids are below it. 0 if the configuration has no number."""
        return self.sizes.size("vocab_size", 0)


def resolve_model(name: str, revision: str | None = None, *, remote: bool = True) -> ModelFiles:
    """Return the files of a model: an existing folder, or a name on the Hugging Face hub.

    Args:
        name: a folder, or `organisation/model`; the hub is asked only when no such folder exists.
        revision: a branch, tag or commit; hub names only.
        remote: whether the hub is asked; without it, only its cache on this machine is looked up.

    Raises:
        JudgeUnavailable: there is no such model, no access, no network, or no way to load it
            without running its code.
    """
    folder, commit = _existing(name), "local"
    if folder is None:
        if _looks_like_path(name):
            raise JudgeUnavailable(
                "there is no such model folder", place=name, remedy="check the path"
            )
        folder = _download(name, revision, remote=remote)
        commit = folder.name  # .../snapshots/<commit>
    config = _read_config(folder)
    _check_weights(folder)
    _check_foreign_code(folder, config)
    files = ModelFiles(folder, commit, config)
    _ = files.sizes  # wrong ones are refused now, not when an engine is loaded
    return files


def weights_digest(folder: Path) -> str:
    """Hash config.json and all *.safetensors, names included, with xxh3_128, to 32 hex digits.

    Files are hashed once: the user's cache folder remembers digests by path, size and modification
    time.
    """
    remembered = load_cached(_DIGESTS)
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
        save_cached(_DIGESTS, known)
    return total.hexdigest()


def _existing(name: str) -> Path | None:
    try:
        folder = Path(name).expanduser()
        return folder if folder.is_dir() else None
    except (OSError, RuntimeError):  # too long a name, no such user
        return None


def _looks_like_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or not re.fullmatch(r"[\w.-]+/[\w.-]+", name)


def _download(name: str, revision: str | None, *, remote: bool) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise JudgeUnavailable(
            f"there is no folder {escape(name)}, and the package huggingface_hub is missing",
            remedy="give the path of a model folder, or pip install 'steelyard[hf]'",
        ) from error
    try:
        return Path(
            snapshot_download(
                name,
                revision=revision,
                allow_patterns=_FETCHED,
                ignore_patterns=_NOT_FETCHED,
                local_files_only=not remote,
            )
        )
    except Exception as error:
        if not remote:
            raise JudgeUnavailable(
                "the run directory names a judge of the hub, which is not on this machine and is"
                " not fetched on the run's word",
                place=escape(name),
                effect="nothing was fetched",
                remedy="if you trust this run and its judge, add --remote",
            ) from error
        raise _hub_error(name, revision, error) from error


def _hub_error(name: str, revision: str | None, error: Exception) -> JudgeUnavailable:
    """Explain the hub's refusal. Order matters: a gated repository is a missing one, too."""
    from huggingface_hub import errors

    match error:
        case errors.GatedRepoError():
            cause = "access to this model has to be granted on the hub"
            remedy = "ask for access on the model's page, then log in with `hf auth login`"
        case errors.RevisionNotFoundError():
            cause = f"the model has no revision {escape(revision)}"
            remedy = "name an existing branch, tag or commit"
        case errors.RepositoryNotFoundError() | errors.HFValidationError():
            cause = "the hub has no such model, and there is no such folder"
            remedy = "check the name; private models need `hf auth login`"
        case errors.LocalEntryNotFoundError() | errors.OfflineModeIsEnabled() | ConnectionError():
            cause = "the model is not in the local cache and the hub cannot be reached"
            remedy = (
                "fetch it where there is a network (`hf download`), or give a model folder; "
                "HF_HUB_OFFLINE=1 forbids the network"
            )
        case OSError():
            cause = f"the download failed: {escape(error, 200)}"
            remedy = "check network, disk space and HF_HOME, then run the command again"
        case _:
            cause = f"the download failed: {type(error).__name__}: {escape(error, 200)}"
            remedy = "run the command again later"
    place = f"{name}@{revision}" if revision else name
    return JudgeUnavailable(cause, place=place, remedy=remedy)


def _read_config(folder: Path) -> JSON:
    path = folder / "config.json"
    if os.path.lexists(path):
        return read_object(path, Config)[0]
    adapter = (folder / "adapter_config.json").is_file()
    raise JudgeUnavailable(
        "the folder holds an adapter, not a model"
        if adapter
        else "the folder has no config.json: it is not a model in Hugging Face's layout",
        place=str(folder),
        remedy="merge the adapter into its model (peft: merge_and_unload), and give that folder"
        if adapter
        else "give the folder with config.json, *.safetensors and tokenizer.json",
    )


def _check_weights(folder: Path) -> None:
    """Accept complete safetensors only: other formats can run code when they are loaded."""
    if files := sorted(folder.glob("*.safetensors")):
        _check_shards(folder, files)
        for path in files:
            _check_complete(path)
        return
    others = [p.name for kind in ("*.bin", "*.pt", "*.pth", "*.gguf") for p in folder.glob(kind)]
    cause = f"has {others[0]} but no *.safetensors" if others else "has no *.safetensors"
    raise JudgeUnavailable(
        f"the model {cause}",
        place=str(folder),
        remedy="convert it once where you trust it: AutoModelForCausalLM.from_pretrained(DIR)"
        ".save_pretrained(NEW), and the same with AutoTokenizer",
    )


def _check_shards(folder: Path, files: Sequence[Path]) -> None:
    index = folder / "model.safetensors.index.json"
    if not os.path.lexists(index):
        return
    named = set(read_object(index, WeightIndex, LARGE)[1].weight_map.values())
    missing = sorted(named - {path.name for path in files})
    if missing:
        cause = f"{len(missing)} of {len(named)} weight files are missing, such as "
        raise damaged(index, cause + escape(missing[0]))


def _check_complete(path: Path) -> None:
    """Open a file, which compares its size with its header; no tensor is read."""
    check_file(path)
    try:
        with safe_open(path, "numpy"):
            pass
    except (OSError, SafetensorError) as error:
        cause = f"the weights are damaged or cut short: {escape(error, 200)}"
        raise damaged(path, cause) from None


def _check_foreign_code(folder: Path, config: JSON) -> None:
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
    with path.open("rb", buffering=0) as file:
        return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()
