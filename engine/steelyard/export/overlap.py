"""Instructions that are too like others: those of an evaluation, or earlier ones of the set."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
import xxhash

from steelyard.core.schemas import UInt64

SHINGLE = 3  # words
BANDS = 32
MOST_ROWS = 4  # hashes a band; two texts of similarity s share no band with (1 - s^rows)^BANDS
MISSED = 0.01  # at most, of pairs that are just so similar as was asked for
_WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """The words of a text, in small letters: letters, digits and `_` of any script."""
    return _WORD.findall(text.lower())


def normal(text: str) -> str:
    """A text without what makes no other instruction of it: case, punctuation, white space."""
    return " ".join(words(text)) or text.strip()


def grams(parts: Sequence[str], length: int) -> UInt64:
    """Hashes of the runs of `length` words, each once; of the whole where it is shorter."""
    runs = (" ".join(parts[at : at + length]) for at in range(max(1, len(parts) - length + 1)))
    return np.array(
        sorted({xxhash.xxh3_64_intdigest(run.encode()) for run in runs}), dtype=np.uint64
    )


class HeldOutText:
    """Instructions that no training data may hold.

    An instruction is contaminated if it is one of them but for case, punctuation and white space,
    or shares a run of `ngram` words with one.
    """

    def __init__(self, instructions: Iterable[str], ngram: int) -> None:
        self._ngram = ngram
        self._whole: set[str] = set()
        self._runs: set[int] = set()
        for text in instructions:
            self._whole.add(normal(text))
            parts = words(text)
            if len(parts) >= ngram:
                self._runs.update(grams(parts, ngram).tolist())

    def __len__(self) -> int:
        return len(self._whole)

    def holds(self, text: str) -> bool:
        """Whether an instruction is contaminated."""
        if normal(text) in self._whole:
            return True
        parts = words(text)
        return len(parts) >= self._ngram and not self._runs.isdisjoint(
            grams(parts, self._ngram).tolist()
        )


class NearDuplicates:
    """Finds earlier instructions that are nearly the same, by MinHash (Broder, 1997).

    Candidates share a band of hashes; what counts is their exact Jaccard similarity over runs of
    SHINGLE words. Memory grows with the number of different instructions, some 2 kB each.
    """

    def __init__(self, similarity: float) -> None:
        self._similarity = similarity
        fitting = (r for r in range(MOST_ROWS, 1, -1) if (1 - similarity**r) ** BANDS <= MISSED)
        self._rows = next(fitting, 1)
        shape = (BANDS * self._rows, 1)
        rng = np.random.default_rng(0)  # of the hash functions: the same in every export
        self._factors = rng.integers(1, 1 << 63, shape, dtype=np.uint64) | np.uint64(1)
        self._shifts = rng.integers(0, 1 << 63, shape, dtype=np.uint64)
        self._bands: list[dict[bytes, list[int]]] = [{} for _ in range(BANDS)]
        self._sets: list[UInt64] = []

    def leader(self, text: str) -> int:
        """Number of the first instruction like this one; its own number if there is none.

        Numbers count the instructions that had none like them, from 0.
        """
        own = grams(words(text) or [text], SHINGLE)
        keys = self._keys(own)
        candidates = sorted(
            {
                number
                for band, key in zip(self._bands, keys, strict=True)
                for number in band.get(key, ())
            }
        )
        for number in candidates:
            if _jaccard(own, self._sets[number]) >= self._similarity:
                return number
        number = len(self._sets)
        self._sets.append(own)
        for band, key in zip(self._bands, keys, strict=True):
            band.setdefault(key, []).append(number)
        return number

    def _keys(self, own: UInt64) -> list[bytes]:
        mixed = own[None, :] * self._factors + self._shifts  # modulo 2^64
        least = (mixed ^ (mixed >> np.uint64(29))).min(axis=1)
        return [band.tobytes() for band in least.reshape(BANDS, self._rows)]


def _jaccard(one: UInt64, other: UInt64) -> float:
    common = len(np.intersect1d(one, other, assume_unique=True))
    return common / (len(one) + len(other) - common)
