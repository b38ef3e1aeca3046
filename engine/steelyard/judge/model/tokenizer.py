"""The encoder of a local model folder: the injection boundary, chat format and label variants.

Two tokenizers are made from one `tokenizer.json`. The one for templates is the judge's own, without
what it adds at the ends. The one for data has no control tokens at all: it looks for none in a
text, and its vocabulary reaches none.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterable, Sequence
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import tokenizers
import xxhash
from tokenizers import AddedToken, Tokenizer
from typing_extensions import override

from steelyard.core.batches import TokenRows
from steelyard.core.judges import LabelVariant
from steelyard.core.schemas import Bool
from steelyard.errors import IntegrityFault, JudgeUnavailable, UsageError, escape
from steelyard.judge.base import Encoder
from steelyard.judge.model.chat import ChatFormat, library_errors
from steelyard.judge.model.fast_tokens import AcceleratedTokens, accelerated
from steelyard.judge.model.json_files import JSON, LARGE, TokenizerFile, read_object
from steelyard.protocols.protocol import Message

# Part of the digest: raise it when the same files would give other ids or another rendering.
RULES = 1
# A noncharacter replaces the texts of control tokens in the data vocabulary. Where such a text
# could be looked up whole, the data's normalizer removes this character first.
_UNREACHABLE = "\uffff"
_FILE = "tokenizer.json"


class HFEncoder(Encoder):
    """Encoder of a folder with a `tokenizer.json`.

    Raises:
        JudgeUnavailable: the file is missing, or cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        spec = _read_spec(folder)
        self._chat = ChatFormat(folder)
        self._place = str(folder)
        self._checked = partial(library_errors, folder / _FILE)
        with self._checked():
            self._build(spec)

    def _build(self, spec: JSON) -> None:
        added = {token["content"]: token for token in spec["added_tokens"]}
        later = {text: id_ for text, id_ in self._chat.added.items() if text not in added}
        self.control_ids = frozenset(
            [token["id"] for token in added.values() if not _is_text(token)] + list(later.values())
        )
        self._whole = _build(_bare(spec), later)
        self._inner = _build(_continuing(_bare(spec)), later)
        self._data_spec = data_spec(spec, self.control_ids)
        self._data = Tokenizer.from_str(json.dumps(self._data_spec))
        self._marks_beginning = _continuing(_bare(spec)) != _bare(spec)
        self._unknown = self._unknown_id(spec)
        self.digest = _digest(_bare(spec), later, self._chat.identity)

    @override
    def encode_template(self, text: str, *, first: bool) -> list[int]:
        with self._checked():  # a tokenizer may refuse characters that it does not know
            return self._encode_template(text, first=first)

    def _encode_template(self, text: str, *, first: bool) -> list[int]:
        if first or not self._marks_beginning:
            return _ids(self._whole, text)
        # Only the part before the first control token continues the text before the segment.
        encoding = self._inner.encode(text, add_special_tokens=False)
        commands = self.control_ids - self._unknown  # an unknown character is text
        for id_, (start, _) in zip(encoding.ids, encoding.offsets, strict=True):
            if id_ in commands:
                return _ids(self._inner, text[:start]) + _ids(self._whole, text[start:])
        return list(encoding.ids)

    @override
    def encode_data(self, texts: Sequence[str]) -> TokenRows:
        rows = self._fast.encode(texts) if self._fast else self._slow(list(texts))
        wrong = np.flatnonzero(self._forbidden[rows.tokens])
        if len(wrong):
            row = int(np.searchsorted(rows.offsets, wrong[0], side="right")) - 1
            raise IntegrityFault(
                f"data became a control token: {escape(texts[row])}",
                place=self._place,
                effect="nothing that contains it is scored",
                remedy="report this tokenizer; other judges are not affected",
            )
        return rows

    @property
    @override
    def engine(self) -> str:
        fast = self._fast
        return fast.name if fast and fast.active else f"tokenizers {tokenizers.__version__}"

    def _slow(self, texts: list[str]) -> TokenRows:
        """Encode by the judge's own tokenizer, on all processors."""
        with self._checked():
            encodings = self._data.encode_batch_fast(texts, add_special_tokens=False)
        return TokenRows.of([encoding.ids for encoding in encodings])

    @cached_property
    def _fast(self) -> AcceleratedTokens | None:
        return accelerated(self._data_spec, self._slow, self._place)

    @cached_property
    def _forbidden(self) -> Bool:
        """By id, whether data must never become it. An unknown character is text."""
        ids = max([*self._whole.get_vocab().values(), *self.control_ids])
        table = np.zeros(ids + 1, dtype=np.bool_)
        table[list(self.control_ids - self._unknown)] = True
        return table

    @property
    @override
    def ends(self) -> tuple[int, ...]:
        return self._chat.ends

    @override
    def decode(self, ids: Sequence[int]) -> str:
        with self._checked():
            text: str = self._whole.decode(list(ids), skip_special_tokens=True)
        return text

    @override
    def render_chat(self, messages: Sequence[Message]) -> str:
        return self._chat.render(messages)

    @override
    def label_variants(self, label: str) -> tuple[LabelVariant, ...]:
        with self._checked():
            return self._label_variants(label)

    def _label_variants(self, label: str) -> tuple[LabelVariant, ...]:
        ids = self._single_tokens.get(label, [])
        if not ids:
            pieces = [self._whole.decode([id_]) for id_ in _ids(self._data, label)]
            taken = " ".join(f"`{escape(piece)}`" for piece in pieces)
            raise UsageError(
                f"the judge has no single token for the label {escape(label)!r}; it takes {taken}",
                place=self._place,
                remedy="choose labels of one token, such as single letters or digits",
            )
        return tuple(LabelVariant(id_, self._decode_within(id_)) for id_ in ids)

    @cached_property
    def _single_tokens(self) -> dict[str, list[int]]:
        """Token ids by decoded text without outer white space, control tokens left out."""
        ids = sorted(set(self._whole.get_vocab().values()) - self.control_ids)
        by_text: dict[str, list[int]] = {}
        # Token after token: the decoder of a whole row may drop or join white space.
        decoded = self._whole.decode_batch([[id_] for id_ in ids], skip_special_tokens=False)
        for id_, text in zip(ids, decoded, strict=True):
            by_text.setdefault(text.strip(), []).append(id_)
        return by_text

    def _decode_within(self, id_: int) -> str:
        """Decode a token after another one: decoders drop the space of the very first."""
        anchor = _ids(self._data, ".")
        whole = self._whole.decode([*anchor, id_], skip_special_tokens=False)
        return whole.removeprefix(self._whole.decode(anchor, skip_special_tokens=False))

    def _unknown_id(self, spec: JSON) -> frozenset[int]:
        """Return the id of unknown characters: it commands nothing, and no text spells it."""
        model = spec["model"]
        if model["type"] == "Unigram":
            return frozenset() if model.get("unk_id") is None else frozenset([model["unk_id"]])
        id_ = self._whole.token_to_id(model.get("unk_token") or "")
        return frozenset() if id_ is None else frozenset([id_])


def data_spec(spec: JSON, control_ids: Iterable[int]) -> JSON:
    """Make a `tokenizer.json` that cannot emit control tokens or mark the beginning of a text.

    Args:
        spec: the judge's own, not changed.
        control_ids: what must be out of reach; their ids stay reserved.
    """
    control = frozenset(control_ids)
    spec = _continuing(_bare(spec))
    spec["added_tokens"] = [token for token in spec["added_tokens"] if token["id"] not in control]
    model = spec["model"]
    if model["type"] == "Unigram":
        model["vocab"] = [
            [_hidden(id_), score] if id_ in control else [piece, score]
            for id_, (piece, score) in enumerate(model["vocab"])
        ]
    else:
        _hide(model, control)
    if model["type"] != "BPE":  # BPE reaches a piece by merges alone, and those are gone
        guard = {"type": "Replace", "pattern": {"String": _UNREACHABLE}, "content": "\ufffd"}
        before = [spec["normalizer"]] if spec["normalizer"] else []
        spec["normalizer"] = {"type": "Sequence", "normalizers": [*before, guard]}
    return spec


def _hide(model: JSON, control: frozenset[int]) -> None:
    """Rename control entries of a vocabulary in place and drop the merges that touch them."""
    names = {text: _hidden(id_) for text, id_ in model["vocab"].items() if id_ in control}
    model["vocab"] = {names.get(text, text): id_ for text, id_ in model["vocab"].items()}
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    if "merges" in model:
        pairs = (tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model["merges"])
        model["merges"] = [list(p) for p in pairs if names.keys().isdisjoint((*p, "".join(p)))]


def _hidden(id_: int) -> str:
    return f"{_UNREACHABLE}{id_}{_UNREACHABLE}"


def _is_text(token: JSON) -> bool:
    """Check for an added token of white space ("▁" is a space in sentencepiece's writing)."""
    return not token["special"] and not token["content"].replace("▁", " ").strip()


def _bare(spec: JSON) -> JSON:
    """Make a deep copy that adds nothing at the ends and cuts nothing off."""
    spec = copy.deepcopy(spec)
    spec.update(post_processor=None, truncation=None, padding=None)
    return spec


def _continuing(spec: JSON) -> JSON:
    """Change a spec in place, for text that continues: no space is put before it."""
    normalizer = spec["normalizer"] or {}
    if normalizer.get("type") == "Prepend":
        spec["normalizer"] = None
    elif normalizer.get("type") == "Sequence":
        parts = [part for part in normalizer["normalizers"] if part["type"] != "Prepend"]
        normalizer["normalizers"] = parts
    splitter = spec["pre_tokenizer"] or {}
    for part in splitter.get("pretokenizers", [splitter]):
        if part.get("type") == "Metaspace":
            part.update(prepend_scheme="never")
            part.pop("add_prefix_space", None)
        elif part.get("type") == "ByteLevel":
            part.update(add_prefix_space=False)
    return spec


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


def _build(spec: JSON, later: dict[str, int]) -> Tokenizer:
    """Make a tokenizer with the added tokens that only `tokenizer_config.json` has."""
    tokenizer = Tokenizer.from_str(json.dumps(spec))
    for text, id_ in sorted(later.items(), key=lambda item: item[1]):
        tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False)])
        if tokenizer.token_to_id(text) != id_:
            raise JudgeUnavailable(
                f"tokenizer.json and tokenizer_config.json disagree about {escape(text)}",
                remedy="save the tokenizer again with transformers (save_pretrained)",
            )
    return tokenizer


def _read_spec(folder: Path) -> JSON:
    path = folder / _FILE
    if not os.path.lexists(path):
        raise JudgeUnavailable(
            f"the model folder has no {_FILE}",
            place=str(folder),
            remedy="convert the tokenizer: AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)",
        )
    spec = read_object(path, TokenizerFile, LARGE)[0]
    with library_errors(path):
        Tokenizer.from_str(json.dumps(spec))
    return {"added_tokens": [], "normalizer": None, "pre_tokenizer": None} | spec


def _digest(spec: JSON, later: dict[str, int], chat: JSON) -> str:
    """Hash what decides ids and rendering, to 32 hex digits.

    The same tokenizer saved by another version of transformers may be written differently and get
    another digest: its reads are then not reused, which is safe.
    """
    whole = {"rules": RULES, "tokenizer": spec, "later": later, "chat": chat}
    text = json.dumps(whole, sort_keys=True, ensure_ascii=False)
    return xxhash.xxh3_128_hexdigest(text.encode("utf-8", "surrogatepass"))
