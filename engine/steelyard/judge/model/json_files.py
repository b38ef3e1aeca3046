"""JSON files of a model folder: files and nothing else, bounded, and of the types that are used.

Whoever made the folder wrote them. What other libraries read of it is checked here first, so that
every fault has the name of its file.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

import msgspec

from steelyard.core import files
from steelyard.errors import JudgeUnavailable, escape

JSON: TypeAlias = dict[str, Any]
SMALL = 4 << 20  # bytes of a file of settings
# Gemma's tokenizer has 33 MB, the index of a model of a trillion parameters 15.
LARGE = 64 << 20
TokenId: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=1 << 24)]
_EndId: TypeAlias = Annotated[int, msgspec.Meta(ge=-(1 << 31), lt=1 << 31)]
_Size: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]
_Sizes: TypeAlias = _Size | list[_Size] | None  # a list has one per layer

Shape = TypeVar("Shape")


class TextConfig(msgspec.Struct):
    """What is used of the language model's part of config.json."""

    vocab_size: _Size | None = None
    hidden_size: _Sizes = None
    head_dim: _Sizes = None
    num_attention_heads: _Sizes = None
    num_key_value_heads: _Sizes = None
    num_hidden_layers: _Size | None = None

    def size(self, name: str, default: int) -> int:
        """Return a size, the largest of a list; the default in place of none or 0."""
        value = getattr(self, name)
        return (max(value, default=0) if isinstance(value, list) else value) or default


class Config(msgspec.Struct):
    """What is used of config.json as a whole."""

    model_type: str | None = None
    auto_map: JSON | None = None


class EndIds(msgspec.Struct):
    """Ids that end an answer, in config.json and generation_config.json."""

    eos_token_id: _EndId | list[_EndId] | None = None

    @property
    def ids(self) -> list[int]:
        """The ids as a list."""
        ids = self.eos_token_id
        return ids if isinstance(ids, list) else [] if ids is None else [ids]


class WeightIndex(msgspec.Struct):
    """Which file holds which tensor."""

    weight_map: dict[str, str] = {}


class _NamedTemplate(msgspec.Struct):
    name: str
    template: str


class _TokenizerConfig(msgspec.Struct):
    tokenizer_class: str | None = None
    chat_template: str | list[_NamedTemplate] | dict[str, str] | None = None
    added_tokens_decoder: dict[str, JSON] | None = None


class _AddedToken(msgspec.Struct):
    id: TokenId
    content: str
    special: bool


class _Step(msgspec.Struct):
    type: str = ""


class _Normalizer(msgspec.Struct):
    type: str
    normalizers: list[_Normalizer] = []


class _PreTokenizer(msgspec.Struct):
    type: str = ""
    pretokenizers: list[_Step] = []


class _Model(msgspec.Struct):
    type: Literal["BPE", "Unigram", "WordLevel", "WordPiece"]
    vocab: dict[str, TokenId] | list[tuple[str, float]]
    merges: list[str | tuple[str, str]] = []
    unk_token: str | None = None
    unk_id: TokenId | None = None


class TokenizerFile(msgspec.Struct):
    """What is used of tokenizer.json."""

    model: _Model
    added_tokens: list[_AddedToken] = []
    normalizer: _Normalizer | None = None
    pre_tokenizer: _PreTokenizer | None = None


# Files that transformers reads for a tokenizer.
_TOKENIZER_FILES: dict[str, Any] = {
    "tokenizer_config.json": _TokenizerConfig,
    "special_tokens_map.json": JSON,
    "added_tokens.json": dict[str, TokenId],
    "chat_template.json": JSON,
}


def check_tokenizer_files(folder: Path) -> None:
    """Check the files that transformers reads for a tokenizer, as far as they are there.

    Raises:
        JudgeUnavailable: one of them is not a file, or does not hold what it should.
    """
    for name, shape in _TOKENIZER_FILES.items():
        if os.path.lexists(folder / name):
            read_object(folder / name, shape)
    for path in [folder / "chat_template.jinja", *folder.glob("additional_chat_templates/*")]:
        if os.path.lexists(path):
            _decode(path, read_file(path, SMALL))


def read_object(path: Path, shape: type[Shape], most: int = SMALL) -> tuple[JSON, Shape]:
    """Read a JSON object, as it is and as a type.

    Raises:
        JudgeUnavailable: the file is missing, damaged, too large, or of other types.
    """
    text = _decode(path, read_file(path, most))
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"it is not JSON: {escape(error, 200)}") from None
    if not isinstance(content, dict):
        raise damaged(path, "it does not hold an object")
    return content, convert(path, content, shape)


def convert(path: Path, content: JSON, shape: type[Shape]) -> Shape:
    """Return what a file holds as a type.

    Raises:
        JudgeUnavailable: it is of other types.
    """
    try:
        return msgspec.convert(content, shape)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:  # the latter: half a character
        raise damaged(path, f"it does not hold what it should: {escape(error, 200)}") from None


def check_file(path: Path) -> None:
    """Check that a path leads to a file: to read a pipe or a device may never end.

    Raises:
        JudgeUnavailable: it does not.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise damaged(path, f"it cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(mode):
        raise damaged(path, "it is not a file")


def read_file(path: Path, most: int) -> bytes:
    """Read a file of at most `most` bytes.

    Raises:
        JudgeUnavailable: it is not a file, is too large, or cannot be read.
    """
    try:
        return files.read_file(path, most)
    except OSError as error:
        raise damaged(path, f"it cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise damaged(path, str(error)) from None


def damaged(path: Path, cause: str) -> JudgeUnavailable:
    """Return the error for a file that does not hold what it should."""
    return JudgeUnavailable(
        cause, place=str(path), effect="nothing was read", remedy="fetch the model's files again"
    )


def _decode(path: Path, raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise damaged(path, "it is not UTF-8") from None
