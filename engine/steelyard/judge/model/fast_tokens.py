"""A faster tokenizer next to the judge's own, used as far as the two were seen to agree.

fastokens encodes byte-level BPE some 30 times faster. Its ids must always be those of the judge's
tokenizer, so every character has to prove itself. A text goes to the fast tokenizer alone only if
each of its characters was, earlier in this process, in a text that both encoded alike; one in
SAMPLE of these texts is compared all the same. Texts with other characters are encoded by the
judge's tokenizer, and prove their characters where the fast one agrees.
docs/decisions/0006-fast-tokenizer.md gives the reasons.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from steelyard.core.batches import TokenRows
from steelyard.core.schemas import Bool, Int32, Int64
from steelyard.errors import IntegrityFault, escape

# One thread is an order of magnitude faster than needed. Without more, fastokens takes no core from
# the engine, and a fork breaks nothing. Set here, before the threads of an engine may read the
# environment.
os.environ.setdefault("FASTOKENS_BPE_THREADS", "1")

Encode = Callable[[list[str]], TokenRows]

# Letters that match ASCII ones where a pattern ignores case, as in `(?i:'s|'t)`: their ids depend
# on their neighbours, and the two tokenizers were seen to differ. They never prove themselves.
FOLDED = [0x17F, 0x212A]
SAMPLE = 100  # one in 100 texts of proven characters is compared
# Characters proven in a slice count from the next slice on.
SLICE_TEXTS = 256
SLICE_CHARACTERS = 1 << 20


class AcceleratedTokens:
    """Encodes data by the fast tokenizer where it is proven, else by the judge's own.

    Not thread-safe: it remembers what is proven. `fast` may raise anything for a text that it
    cannot encode; errors show `name`, with a version, and `place`, the tokenizer's folder.
    """

    def __init__(self, fast: Encode, slow: Encode, name: str, place: str) -> None:
        self.name, self.active = name, True  # not active: all ids come from the slow tokenizer
        self._fast, self._slow, self._place = fast, slow, place
        self._proven = np.zeros(0x110000, dtype=np.bool_)  # by code point
        self._trusted = 0  # texts of proven characters so far

    def encode(self, texts: Sequence[str]) -> TokenRows:
        """Encode texts as the judge's own tokenizer does.

        Raises:
            IntegrityFault: the two differ on proven characters, after ids of the fast tokenizer
                were used.
        """
        rows: list[Int32] = []
        for part in _slices(texts):
            rows += self._slice(part) if self.active else self._slow(part).split()
        return TokenRows.of(rows)

    def _slice(self, texts: list[str]) -> list[Int32]:
        trusted = self._all_proven(texts)
        turn = self._trusted + np.cumsum(trusted)
        checked = ~trusted | (turn % SAMPLE == 1)
        compared = np.flatnonzero(checked).tolist()
        alone = np.flatnonzero(~checked).tolist()
        exact = self._slow([texts[i] for i in compared]).split()
        for i, ids in zip(compared, exact, strict=True):
            self._compare(texts[i], ids)
        quick = self._attempt([texts[i] for i in alone]) if self.active else None
        if quick is None:
            self.active = False
            return self._slow(texts).split()
        self._trusted = int(turn[-1])
        rows = dict(zip(compared, exact, strict=True))
        rows |= zip(alone, quick.split(), strict=True)
        return [rows[i] for i in range(len(texts))]

    def _compare(self, text: str, ids: Int32) -> None:
        """Prove a text's characters, or find out whether proven ones are to blame."""
        codes = _code_points(text)
        quick = self._attempt([text])
        if quick is None:
            return
        if np.array_equal(quick.tokens, ids):
            self._proven[codes] = True
            self._proven[FOLDED] = False
            return
        if not self._trusted:  # no id of the fast tokenizer was used
            self.active = False
            return
        proven = self._proven[codes].tolist()
        rest = "".join(character for character, ok in zip(text, proven, strict=True) if ok)
        quick = self._attempt([rest])
        if quick is None or not np.array_equal(quick.tokens, self._slow([rest]).tokens):
            raise self._fault(text)

    def _fault(self, text: str) -> IntegrityFault:
        return IntegrityFault(
            f"{self.name} and the judge's own tokenizer encode a text differently: {escape(text)}",
            place=self._place,
            effect="prompts since this start may have been read with wrong ids",
            remedy=f"pip uninstall {self.name.split()[0]}, then judge again into a new run "
            "directory; do not reuse this one",
        )

    def _attempt(self, texts: list[str]) -> TokenRows | None:
        try:
            return self._fast(texts)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # a panic in Rust is not an Exception
            return None

    def _all_proven(self, texts: list[str]) -> Bool:
        unknown = np.cumsum(~self._proven[_code_points("".join(texts))])
        bounds = np.cumsum([0, *map(len, texts)])
        before = np.concatenate([np.zeros(1, dtype=np.int64), unknown])[bounds]
        return np.asarray(np.diff(before) == 0)


def accelerated(spec: dict[str, Any], slow: Encode, place: str) -> AcceleratedTokens | None:
    """Put the fast tokenizer in front of the slow one; `spec` is the data's `tokenizer.json`.

    Return None where the package is missing, or the tokenizer is not of a kind that it encodes
    alike.
    """
    if not _is_byte_level(spec):
        return None
    try:
        from fastokens import Tokenizer

        name = f"fastokens {version('fastokens')}"
        encode = Tokenizer.from_json_str(json.dumps(spec)).encode_batch_flat
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # missing, too old, or it refuses this tokenizer, if by a panic
        return None

    def fast(texts: list[str]) -> TokenRows:
        ids, offsets = encode(texts)
        return TokenRows(
            np.frombuffer(ids, dtype="<u4").astype(np.int32),
            np.frombuffer(offsets, dtype="<u8").astype(np.int64),
        )

    return AcceleratedTokens(fast, slow, name, place)


def _is_byte_level(spec: dict[str, Any]) -> bool:
    """Check for the kind on which the two agreed everywhere, such as GPT-2's, Llama 3's, Qwen's.

    With byte fallback (Llama 2) fastokens makes pieces that no merge leads to.
    """
    model, splitter = spec["model"], spec["pre_tokenizer"] or {}
    steps = [part.get("type") for part in splitter.get("pretokenizers", [splitter])]
    return model["type"] == "BPE" and not model.get("byte_fallback") and "ByteLevel" in steps


def _slices(texts: Sequence[str]) -> Iterator[list[str]]:
    part: list[str] = []
    size = 0
    for text in texts:
        part.append(text)
        size += len(text)
        if len(part) >= SLICE_TEXTS or size >= SLICE_CHARACTERS:
            yield part
            part, size = [], 0
    if part:
        yield part


def _code_points(text: str) -> Int64:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.int64)
